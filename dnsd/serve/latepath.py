"""What table and cache cannot answer: remembered as a `Miss`, and answered when somebody else has; and TCP.

Compiled by Cython with the types in `latepath.pxd`. Off the hot path: here objects are made. What an upstream server
or our own resolver has found goes through the same review and the same responder as an answer at once. Everything
that is needed then is in the record, the generation that decided it too.
"""

import cython

if not cython.compiled:
    from dnsd.contract.answer import Responder
    from dnsd.contract.codes import (
        ACTION_ALIAS,
        ACTION_RECURSE,
        COUNT_BLOCKED,
        COUNT_CACHE_STORED,
        COUNT_NXDOMAIN,
        COUNT_QUERIES_TCP,
        COUNT_SEND_ERRORS,
        COUNT_SERVFAIL,
        COUNT_TRUNCATED,
        EDE_NONE,
        EDE_OTHER,
        RCODE_NXDOMAIN,
        RCODE_SERVFAIL,
    )
    from dnsd.contract.query import Query
    from dnsd.contract.verdict import Verdict
    from dnsd.serve.hotpath import HotPath

from dnsd.contract import query as query_module
from dnsd.resolve.cache import MOST_TEXT, extended
from dnsd.resolve.message import FormError, bounded, read

_STREAM = 65535


class Miss:
    """A question that only an upstream can answer, with all that its answer will need.

    `key` is equal for questions that one upstream answer serves. `fd` is -1 for a question over TCP, -2 when nobody
    waits. `route` is the number + 1 for `HotPath.route`, `mark` stands for it in the cache (`HotPath.mark`). `token` is the worker's.
    """

    __slots__ = (
        "cd", "client", "control", "do", "fd", "generation", "key", "label", "list", "mark", "owner_entry", "packet", "peer",
        "qclass", "qtype", "rd", "revision", "route", "rule", "sname", "started_ms", "table", "token", "verdict",
    )  # fmt: skip


class LatePath(HotPath):
    """A query path that leaves a `Miss` in `misses` for what it cannot answer, and finishes it later."""

    def defer(self, q: Query, i: cython.int, fd: cython.int) -> cython.int:
        """Packet `i` of the batch becomes a miss; returns 0."""
        name, control = self.socket_batch.peer(i)
        self.miss(q, fd, name, control)
        return 0

    def renew(self, q: Query, s: Query) -> cython.int:
        """As `HotPath.renew`: a miss that nobody waits for."""
        self.miss(q, -2, None, None)
        return 0

    def miss(self, q: Query, fd: int, peer: object, control: object) -> None:
        """Remember a question for the worker."""
        v: Verdict = self.v
        miss = Miss()
        if v.action == ACTION_ALIAS:
            sname = bytes(self.target.name[: self.target.name_length])
        else:
            sname = bytes(q.name[: q.name_length])
        miss.sname = sname
        miss.qtype = q.qtype
        miss.qclass = q.qclass
        miss.do = bool(q.do)
        miss.cd = bool(q.flags & 16)
        miss.rd = bool(q.flags & 256)
        miss.route = v.route
        miss.mark = self.mark(v.route)
        miss.generation = self.generation
        miss.table = self.table
        miss.revision = self.revision
        bits = (q.do | ((q.flags >> 3) & 2)).to_bytes(1, "big")
        miss.key = sname + q.qtype.to_bytes(2, "big") + bits + miss.mark.to_bytes(4, "big") + self.generation.to_bytes(8, "big")
        if self.table.route_class_count and v.action == ACTION_RECURSE:
            miss.key += v.client_class.to_bytes(4, "big")  # names on the way may be asked for elsewhere for others
        miss.client = bytes(q.client)
        miss.fd = fd
        miss.peer = peer
        miss.control = control
        miss.packet = bytes(q.buf[q.base : q.base + q.length])
        miss.rule = v.rule
        miss.list = v.listed
        miss.label = v.label
        miss.owner_entry = v.entry
        miss.verdict = (
            v.stage, v.action, v.rule, v.listed, v.rule_action, v.allowed, v.owner, v.entry, v.label,
            v.route, v.spared, v.client_class,
        )  # fmt: skip
        miss.started_ms = self.mono_ms
        miss.token = None
        self.misses.append(miss)

    def stream(self, message: bytes, client: bytes) -> bytes | None:
        """One question over TCP. The answer; None when an upstream is needed (a `Miss` was added); b"" for silence."""
        q: Query = self.stream_query
        buf = memoryview(q.buf)
        buf[: len(message)] = message
        query_module.set_client(q, client)
        self.count(COUNT_QUERIES_TCP)
        length = self.handle(q, self.stream_responder, 0, len(message), 0, _STREAM)
        if length < 0:
            self.miss(q, -1, None, None)
            return None
        return bytes(memoryview(self.stream_responder.out_buffer)[:length])

    def store(
        self, miss: Miss, response: bytes, ede: int = EDE_NONE, text: str = "", bounded: bool = False
    ) -> None:
        """Remember a raw upstream answer, when it is one that may be (once per flight), and what is to be said of it.

        `bounded`: its TTLs are what is left of bounded ones; `min_ttl` was heeded, and may not count twice.
        """
        try:
            answer = read(response)
        except FormError:
            return
        if answer.truncated or answer.ttl <= 0:
            return
        ttl = max(0 if bounded else self.min_ttl, min(answer.ttl, self.max_ttl))
        if ttl <= 0:
            return
        bits = int(miss.do) | int(miss.cd) << 1
        query = query_module.question(miss.sname, miss.qtype, miss.client)
        query.seed_policy = query.seed_names = miss.table.seed_policy
        query.hash()
        if self.cache.store(miss.sname, query.hash_policy[0], miss.qtype, bits, miss.mark, answer, self.now, ttl, ede, text.encode()):
            self.count(COUNT_CACHE_STORED)

    def bound(self, response: bytes) -> bytes:
        """A forwarded response with its TTLs as the settings bound them, for who waits and for the cache."""
        return bounded(response, self.min_ttl, self.max_ttl)

    def finish(self, miss: Miss, response: bytes | None, ede: int = EDE_NONE, text: str = "") -> bytes:
        """The client's answer from a raw upstream response; without one (or with a bad one) SERVFAIL.

        `ede` and `text`: what is to be said of either (an answer may be insecure for a reason).

        Decided by the table that was live when the question came.
        """
        v: Verdict = self.v
        q: Query = self.stream_query
        r: Responder = self.stream_responder
        buf = memoryview(q.buf)
        buf[: len(miss.packet)] = miss.packet
        query_module.set_client(q, miss.client)
        q.parse(0, len(miss.packet))
        limit = _STREAM if miss.fd < 0 else r.size_limit(q)
        r.keepalive = self.keepalive if miss.fd < 0 else 0
        v.reset()
        (
            v.stage, v.action, v.rule, v.listed, v.rule_action, v.allowed, v.owner, v.entry, v.label,
            v.route, v.spared, v.client_class,
        ) = miss.verdict  # fmt: skip
        answer = None
        if response is not None:
            try:
                answer = read(response)
            except FormError as error:
                ede, text = EDE_OTHER, f"the upstream's answer is malformed: {error}"
        if answer is None:
            length = r.fail(q, RCODE_SERVFAIL, EDE_OTHER if ede == EDE_NONE else ede, text.encode()[:200], 0, limit)
        else:
            r.set_revision(miss.revision.encode())
            ttls = b"".join(place.to_bytes(2, "big") for place in answer.ttls)
            pointers = b"".join(place.to_bytes(2, "big") for place in answer.pointers)
            said = text.encode()[:MOST_TEXT] if ede != EDE_NONE else b""
            size = len(answer.body)
            after = size + len(said)
            data = answer.body + said + ttls + pointers
            sname = memoryview(miss.sname)
            body = memoryview(data or b"\x00")
            if self.reviewer.review(
                miss.table, self.view, q, v, sname, body, 0, size, answer.question, answer.answers
            ):
                length = r.write(miss.table, q, v, 0, limit)
                self.count(COUNT_BLOCKED)
            else:
                length = r.relay(
                    miss.table, q, v, 0, limit, body, 0, size, answer.question, extended(answer.rcode, ede, said),
                    answer.answers, answer.authorities, answer.additionals, after, len(answer.ttls), after + len(ttls),
                    len(answer.pointers), 0,
                )  # fmt: skip
            r.set_revision(self.revision.encode())
        if r.rcode == RCODE_SERVFAIL:
            self.count(COUNT_SERVFAIL)
        elif r.rcode == RCODE_NXDOMAIN:
            self.count(COUNT_NXDOMAIN)
        if r.truncated:
            self.count(COUNT_TRUNCATED)
        if miss.table is not self.table:
            # Numbers of a table that is gone: better no name than another rule's.
            v.rule = v.listed = -1
            v.guard = v.owner = 0
            v.zone = -1
        self.record(q, r.rcode, 1 if miss.fd < 0 else 0, 0, max(0, self.mono_ms - miss.started_ms) * 1000)
        return bytes(memoryview(r.out_buffer)[:length])

    def overdue(self, miss: Miss, failed: bool) -> bytes | None:
        """The answer to a miss from what is past its time; None when there is none (RFC 8767).

        Decided by the table that is live now. `failed`: nobody had a newer one; then it serves others, too, for 30 s.
        """
        q: Query = self.stream_query
        r: Responder = self.stream_responder
        buf = memoryview(q.buf)

        if self.stale_s == 0:
            return None
        buf[: len(miss.packet)] = miss.packet
        query_module.set_client(q, miss.client)
        self.late = 2 if failed else 1
        self.landing = 1
        self.latency_us = max(0, self.mono_ms - miss.started_ms) * 1000
        try:
            length = self.handle(q, r, 0, len(miss.packet), 0, _STREAM if miss.fd < 0 else 0)
        finally:
            self.late = self.landing = 0
        return bytes(memoryview(r.out_buffer)[:length]) if length >= 0 else None

    def send(self, miss: Miss, wire: bytes) -> None:
        """Send a later answer over UDP, from the address that was asked."""
        if wire and not self.socket_batch.reply(miss.fd, miss.peer, miss.control, wire):
            self.count(COUNT_SEND_ERRORS)

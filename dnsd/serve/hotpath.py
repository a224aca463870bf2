"""One batch of questions: parse, decide, cache, answer. Who needs an upstream goes to `defer`, which others fill.

Compiled by Cython with the types in `hotpath.pxd`. Between receive and send nothing is allocated per
packet and no clock is read: the time is given once a batch. It asks nobody: `latepath` and `flightpath` do.
"""

import dataclasses
from zlib import crc32

import cython

if not cython.compiled:
    from dnsd.contract.answer import Responder
    from dnsd.contract.codes import (
        ACTION_ALIAS,
        ACTION_CHAOS,
        ACTION_DROP,
        ACTION_FORWARD,
        ACTION_RECURSE,
        COUNT_ALLOWED,
        COUNT_BLOCKED,
        COUNT_CACHE_HITS,
        COUNT_CACHE_MISSES,
        COUNT_DROPPED,
        COUNT_LOCAL,
        COUNT_MALFORMED,
        COUNT_NXDOMAIN,
        COUNT_PREFETCHES,
        COUNT_QUERIES_UDP,
        COUNT_RATE_LIMITED,
        COUNT_REDIRECTED,
        COUNT_REFUSED,
        COUNT_SEND_ERRORS,
        COUNT_SERVFAIL,
        COUNT_SPECIAL,
        COUNT_STALE,
        COUNT_TRUNCATED,
        EDE_NOT_READY,
        EDE_OTHER,
        RCODE_NOERROR,
        RCODE_NXDOMAIN,
        RCODE_REFUSED,
        RCODE_SERVFAIL,
        RULE_BLOCK,
        RULE_REDIRECT,
        SPECIAL_NONE,
        STAGE_LOCAL,
        STAGE_POLICY,
        STAGE_SHAPE,
        TYPE_TXT,
    )
    from dnsd.contract.cookies import Cookies
    from dnsd.contract.factsview import FactsView
    from dnsd.contract.octets import copy
    from dnsd.contract.query import Query
    from dnsd.contract.review import Reviewer
    from dnsd.contract.table import Table
    from dnsd.contract.verdict import Chain, Verdict
    from dnsd.resolve.cache import Cache
    from dnsd.serve.meter import Meter

from dnsd import __version__
from dnsd.contract.facts import Facts, decode, encode
from dnsd.contract.tableinfo import TableInfo
from dnsd.serve.batch import Batch

_NOT_READY = b"no table yet: the controller has not published one and none is on disk"
_NO_RECURSION = b"the question does not ask for recursion (RD) and the answer is not in the cache"
_RING_RECORD = 320
_RING_HEAD = 64
_STREAM = 65535
_SHOWN = 64  # upstream servers whose state is shown


class HotPath:
    """The query path of one worker.

    `counters` is a u64 view of at least codes.COUNTERS, `ring` the decision ring's bytes (64 + n x 320), `arena` the
    cache's. Single-threaded.
    """

    def __init__(self, slot: int, counters: object, ring: object, arena: object, identity: str = "nexoraldns") -> None:
        self.slot = slot
        self.table = None
        self.info = None
        self.socket_batch = Batch()
        self.inp = self.socket_batch.inp
        self.client_words = self.socket_batch.clients.cast("Q")
        self.lengths = self.socket_batch.lengths
        self.out_lengths = self.socket_batch.out_lengths
        self.in_stride = self.socket_batch.in_stride
        self.out_stride = self.socket_batch.out_stride
        self.q = Query(self.socket_batch.inp)
        self.ahead = Query(self.socket_batch.inp)  # the question after that one
        self.target = Query(bytearray(16))
        self.v = Verdict()
        self.chain = Chain()
        self.responder = Responder(self.socket_batch.out)
        self.reviewer = Reviewer()
        self.stream_query = Query(bytearray(_STREAM + 1))
        self.stream_responder = Responder(bytearray(_STREAM + 1))
        self.cache = Cache(arena)
        self.counters = memoryview(counters)  # type: ignore[arg-type]
        self.ring = memoryview(ring)  # type: ignore[arg-type]
        self.ring_words = memoryview(ring).cast("Q")  # type: ignore[arg-type]
        self.ring_records = (len(self.ring) - _RING_HEAD) // _RING_RECORD
        self.mono_ms = 0
        self.wall_ms = 0
        self.now = 0
        self.generation = 0
        self.digest = ""
        self.revision = ""
        self.misses = []
        self.identity = identity.encode()[:64]
        self.meter = Meter(0)
        self.routes = {}
        self.marks = memoryview(bytearray(4)).cast("i")
        self.hit = 0
        self.landing = 0  # 1 while an upstream's answer is given to who waited for it
        self.latency_us = 0
        self.min_ttl = 0
        self.max_ttl = 86400
        self.prefetch = 0  # 1: what is popular is renewed before it expires
        self.stale_s = 0  # for how long after its time an answer may be served; 0: not at all
        self.keepalive = 100  # how long a TCP connection may be idle, in tenths of a second
        self.late = 0  # 1 while an answer past its time is good enough, 2 when it is to serve the next ones too
        self.facts_data = encode(Facts())
        self.view = FactsView(self.facts_data, 0)

    # --- what the worker tells it ---------------------------------------------------------------------------------

    def install(self, policy: object, names: object, generation: int, revision: str) -> None:
        """Serve this table from the next packet on; raises TableError and leaves the old one when it cannot."""
        table = Table(policy, names)
        view = FactsView(self.facts_data, generation)
        self.table = table
        self.view = view
        self.info = TableInfo(table)
        self.marks = memoryview(bytearray(4 * (self.info.route_count + 1))).cast("i")
        self.routes = {}
        self.generation = generation
        self.digest = table.digest
        self.revision = revision
        self.responder.set_revision(revision.encode())
        self.stream_responder.set_revision(revision.encode())

    def set_facts(self, data: bytes) -> None:
        """Use these facts from the next packet on; raises FactsError."""
        self.view = FactsView(data, self.generation)
        self.facts_data = data
        self.routes = {}  # `dhcp` means the servers of the lease
        self.marks = memoryview(bytearray(self.marks.nbytes)).cast("i")

    def clock(self, mono_ms: int, wall_ms: int) -> None:
        """The time for the next batch."""
        self.tell(mono_ms, wall_ms)

    def tell(self, mono_ms: cython.ulonglong, wall_ms: cython.ulonglong) -> cython.int:
        """As `clock`, for compiled callers."""
        self.mono_ms = mono_ms
        self.wall_ms = wall_ms
        self.now = cython.cast(cython.uint, wall_ms // 1000)
        self.responder.now = self.now
        self.stream_responder.now = self.now
        return 0

    def set_limits(self, min_ttl: int, max_ttl: int, edns_size: int = 1232) -> None:
        """Bounds of how long answers are remembered (seconds), and of responses over UDP."""
        self.min_ttl = min_ttl
        self.max_ttl = max_ttl
        self.responder.edns_size = min(edns_size, self.out_stride - 16)
        self.stream_responder.edns_size = self.responder.edns_size

    def set_clients(self, identity: str, secret: bytes, rate: int) -> None:
        """What clients may know and do: our name ("" keeps it and our version back), the secret of cookies (b"": none),
        questions a second from one address over UDP (0: any number)."""
        self.identity = identity.encode()[:64]
        self.meter = Meter(rate)
        for responder in (self.responder, self.stream_responder):
            responder.set_identity(self.identity)
            responder.cookies = Cookies(secret) if secret else None

    def route(self, number: int) -> object:
        """The forward entry of `Miss.route` in the table that is installed now."""
        found = self.routes.get(number)
        if found is None:
            found = self.info.route(number)
            if found.kind == "dhcp":
                found = dataclasses.replace(found, servers=decode(self.facts_data).lease_servers)
            self.routes[number] = found
        return found

    def all_routes(self) -> list[object]:
        """The forward entries of the table that is installed now."""
        return [self.route(number) for number in range(1, len(self.marks))] if self.info is not None else []

    def upstreams(self) -> list[tuple[str, int]]:
        """The servers of the forward entries in the table that is installed now; of so many that people can look at."""
        count = min(self.info.route_count, 256) if self.info is not None else 0
        found = dict.fromkeys(server for number in range(1, count + 1) for server in self.route(number).servers)
        return list(found)[:_SHOWN]

    def mark(self, number: cython.int) -> cython.int:
        """What stands for a route in the cache: equal while the same servers are asked in the same way, above 0.

        A number alone would be another route's after a release, and another lease's with `dhcp`.
        """
        found: cython.int = self.marks[number]

        if found == 0 and number > 0:
            route = dataclasses.replace(self.route(number), name="", where="", group="")
            found = crc32(repr(route).encode()) & 0x3FFFFFFF | 0x40000000
            self.marks[number] = found
        return found

    def routes_by_mark(self) -> dict[int, str]:
        """What stands for each route in the cache, and the route's name."""
        return {self.mark(number): str(self.route(number).name) for number in range(1, len(self.marks))}

    # --- UDP ------------------------------------------------------------------------------------------------------

    def batch(self, fd: int) -> int:
        """Receive up to 64 datagrams, answer what can be; the rest is in `misses`. Returns how many came."""
        i: cython.int
        n: cython.int = self.socket_batch.receive(fd)
        length: cython.int
        q: Query

        if n:
            self.look(self.q, 0)
        for i in range(n):
            q = self.q
            if i + 1 < n:
                self.look(self.ahead, i + 1)
            length = self.conclude(q, self.responder, i * self.out_stride, 0)
            if length < 0:
                length = self.defer(q, i, fd)
            self.out_lengths[i] = length
            self.q = self.ahead
            self.ahead = q
        if n:
            self.counters[COUNT_QUERIES_UDP] += n
            before = self.socket_batch.errors
            self.socket_batch.send(fd, n)
            self.counters[COUNT_SEND_ERRORS] += self.socket_batch.errors - before
        return n

    def look(self, q: Query, i: cython.int) -> cython.int:
        """Read packet `i` of the batch, and have what the table says of its name fetched; returns 0."""
        q.client_words[0] = self.client_words[2 * i]
        q.client_words[1] = self.client_words[2 * i + 1]
        if q.parse(i * self.in_stride, self.lengths[i]) == 0 and self.table is not None:
            self.table.approach(q)
        return 0

    def defer(self, q: Query, i: cython.int, fd: cython.int) -> cython.int:
        """Packet `i` of the batch needs an upstream. Here: silence; `latepath` and `flightpath` ask somebody."""
        return 0

    def handle(
        self, q: Query, r: Responder, base: cython.int, length: cython.int, out: cython.int, limit: cython.int
    ) -> cython.int:
        """Answer the packet at `base` into `r.out[out:]`, see `conclude`."""
        q.parse(base, length)
        return self.conclude(q, r, out, limit)

    def conclude(self, q: Query, r: Responder, out: cython.int, limit: cython.int) -> cython.int:
        """Answer a parsed question into `r.out[out:]`; returns the length, 0 for silence, -1 when an upstream is needed.

        `limit` 0 means: what the question allows over UDP.
        """
        v: Verdict = self.v
        action: cython.int
        length: cython.int
        tcp: cython.int = 1 if limit else 0

        r.keepalive = self.keepalive if tcp else 0
        if limit == 0:
            limit = r.size_limit(q)
            if self.meter.rate and not self.landing and self.meter.spent(q, self.mono_ms):
                length = self.hold_back(q, r, out, limit)
                if length >= 0:
                    return length
        if self.table is None:
            if q.fault == ACTION_DROP:
                self.count(COUNT_DROPPED)
                return 0
            if q.fault:
                v.reset()
                v.action = q.fault
                v.stage = STAGE_SHAPE
                return r.write(None, q, v, out, limit)
            self.count(COUNT_SERVFAIL)
            return r.fail(q, RCODE_SERVFAIL, EDE_NOT_READY, _NOT_READY, out, limit)
        action = self.chain.decide(self.table, self.view, q, v)
        if action == ACTION_FORWARD or action == ACTION_RECURSE or action == ACTION_ALIAS:
            if self.landing:
                length = self.cached(q, r, out, limit)
                if length >= 0:
                    self.record(q, r.rcode, tcp, 0, self.latency_us)
                return length
            if v.allowed:
                self.count(COUNT_ALLOWED)
            elif v.rule_action == RULE_REDIRECT:
                self.count(COUNT_REDIRECTED)
            if action == ACTION_ALIAS and v.route == 0:
                length = r.fail(q, RCODE_SERVFAIL, EDE_OTHER, b"no forward entry covers the target", out, limit)
                self.count(COUNT_SERVFAIL)
                self.record(q, r.rcode, tcp, 0, 0)
                return length
            length = self.cached(q, r, out, limit)
            if length >= 0:
                self.record(q, r.rcode, tcp, 1, 0)
                return length
            if not q.flags & 256:
                length = r.fail(q, RCODE_REFUSED, EDE_OTHER, _NO_RECURSION, out, limit)
                self.count(COUNT_REFUSED)
                self.record(q, r.rcode, tcp, 0, 0)
                return length
            self.count(COUNT_CACHE_MISSES)
            return -1
        if action == ACTION_CHAOS:
            length = self.chaos(q, r, out, limit)
        else:
            length = r.write(self.table, q, v, out, limit)
        self.tally(q, r)
        self.record(q, r.rcode, tcp, 0, 0)
        return length

    def hold_back(self, q: Query, r: Responder, out: cython.int, limit: cython.int) -> cython.int:
        """A client asks too much: "ask over TCP" is its answer, silence if it cannot even ask; -1 if it proves who it is.

        Whoever has a cookie of ours has that address: nobody asks in its name to have the answers hit it.
        """
        if r.cookies is not None and r.cookies.valid(q, self.now):
            return -1
        self.count(COUNT_RATE_LIMITED)
        if q.fault:
            return 0
        return r.truncate(q, out, limit)

    def tally(self, q: Query, r: Responder) -> cython.int:
        """Count an answer that the table gave."""
        v: Verdict = self.v

        if v.action == ACTION_DROP:
            self.count(COUNT_DROPPED)
        if v.stage == STAGE_POLICY:
            self.count(COUNT_BLOCKED if v.rule_action == RULE_BLOCK else COUNT_REDIRECTED)
        elif v.stage == STAGE_LOCAL:
            self.count(COUNT_LOCAL if v.special == SPECIAL_NONE else COUNT_SPECIAL)
        elif v.stage == STAGE_SHAPE and v.action != ACTION_DROP and q.fault:
            self.count(COUNT_MALFORMED)
        if r.rcode == RCODE_REFUSED:
            self.count(COUNT_REFUSED)
        elif r.rcode == RCODE_SERVFAIL:
            self.count(COUNT_SERVFAIL)
        elif r.rcode == RCODE_NXDOMAIN:
            self.count(COUNT_NXDOMAIN)
        if r.truncated:
            self.count(COUNT_TRUNCATED)
        return 0

    def load_target(self) -> cython.int:
        """Make `target` the question for an alias's last name."""
        t: Table = self.table
        x: Query = self.target
        at: cython.uint = t.node_names + self.v.target - 1
        n: cython.int
        k: cython.int = 0

        x.labels = 0
        while True:
            n = t.policy[at + k]
            x.label[x.labels] = k
            x.name[k] = n
            k += 1
            if n == 0:
                break
            x.labels += 1
            while n > 0:
                x.name[k] = t.policy[at + k]
                k += 1
                n -= 1
        x.name_length = k
        x.seed_policy = t.seed_policy
        x.seed_names = t.seed_policy
        x.hash()
        return 0

    def cached(self, q: Query, r: Responder, out: cython.int, limit: cython.int) -> cython.int:
        """Answer from the cache; -1 when it has no answer."""
        c: Cache = self.cache
        v: Verdict = self.v
        s: Query = q
        bits: cython.int = q.do | ((q.flags >> 3) & 2)

        if v.action == ACTION_ALIAS:
            self.load_target()
            s = self.target
        if c.find(s.name, s.name_length, s.hash_policy[0], q.qtype, bits, self.mark(v.route), self.now) != 1:
            if self.late == 0:
                return -1
            if c.find_stale(
                s.name, s.name_length, s.hash_policy[0], q.qtype, bits, self.mark(v.route), self.now, self.stale_s
            ) != 1:
                return -1
            if self.late == 2:
                c.prolong(self.now, 30)
        if not self.landing:
            self.count(COUNT_CACHE_HITS)
        if self.table.protect_flags and not self.let_pass(q, s):
            limit = r.write(self.table, q, v, out, limit)
            self.tally(q, r)
            return limit
        if c.rcode & 65535 == RCODE_NXDOMAIN:
            self.count(COUNT_NXDOMAIN)
        limit = r.relay(
            self.table, q, v, out, limit, c.arena, c.body, c.length, c.question, c.rcode, c.answers, c.authorities,
            c.additionals, c.ttls, c.ttl_count, c.pointers, c.pointer_count, c.age,
        )  # fmt: skip
        if r.truncated:
            self.count(COUNT_TRUNCATED)
        if c.event:
            self.aged(q, s)
        return limit

    def aged(self, q: Query, s: Query) -> cython.int:
        """The answer that the cache gave is past its time, or will be soon: then a newer one is asked for, once."""
        if self.cache.event == 2:
            return self.count(COUNT_STALE)
        if self.prefetch and not self.landing and q.flags & 256:
            self.cache.renewing()
            self.count(COUNT_PREFETCHES)
            self.renew(q, s)
        return 0

    def renew(self, q: Query, s: Query) -> cython.int:
        """Ask for a newer answer than the cache gave, for nobody. `s` has the name that is asked for. As `defer`."""
        return 0

    def let_pass(self, q: Query, s: Query) -> cython.int:
        """Whether the answer that the cache has just found may go to this client; else `v` says who objects.

        A stamp on the answer says for which table, facts, class and kind of permission it has passed already.
        """
        c: Cache = self.cache
        v: Verdict = self.v
        one: cython.uint = cython.cast(cython.uint, self.generation)
        two: cython.uint = self.view.version & 65535

        two = (two << 16) | ((v.client_class & 32767) << 1) | v.allowed
        if v.client_class < 32768 and c.passed(one, two):
            return 1
        if self.reviewer.review(self.table, self.view, q, v, s.name, c.arena, c.body, c.length, c.question, c.answers):
            return 0
        if v.client_class < 32768:
            c.stamp(one, two)
        return 1

    def count(self, number: cython.int) -> cython.int:
        """Add one to a counter; this slot's worker is its only writer."""
        self.counters[number] += 1
        return 0

    def record(
        self, q: Query, rcode: cython.int, tcp: cython.int, cached: cython.int, latency_us: cython.uint
    ) -> cython.int:
        """Leave a decision in the ring; the oldest is overwritten, readers see by the sequence that they missed it."""
        v: Verdict = self.v
        seq: cython.ulonglong
        w: cython.int
        word: cython.ulonglong
        high: cython.ulonglong

        if self.ring_records == 0:
            return 0
        seq = self.ring_words[0]
        w = 8 + cython.cast(cython.int, seq % cython.cast(cython.ulonglong, self.ring_records)) * 40
        self.ring_words[w] = 0
        self.ring_words[w + 1] = self.wall_ms
        self.ring_words[w + 2] = q.client_words[0]
        self.ring_words[w + 3] = q.client_words[1]
        word = q.qtype | (v.stage << 16)
        high = v.action
        word |= high << 24
        high = rcode
        word |= high << 32
        high = tcp | (cached << 8)
        self.ring_words[w + 4] = word | (high << 48)
        word = v.rule + 1
        high = v.listed + 1
        self.ring_words[w + 5] = word | (high << 32)
        word = 0
        if self.table is not None:
            word = self.table.where_of(v.rule, v.guard, v.owner, v.zone)
        high = latency_us
        self.ring_words[w + 6] = word | (high << 32)
        self.ring_words[w + 7] = self.generation
        self.ring[8 * w + 64] = q.name_length
        copy(self.ring, 8 * w + 65, q.name, 0, q.name_length)
        self.ring_words[w] = seq + 1
        self.ring_words[0] = seq + 1
        return 0

    # --- off the hot path -----------------------------------------------------------------------------------------

    def chaos(self, q: Query, r: Responder, out: int, limit: int) -> int:
        """Class CH: id.server, version and revision.server (RFC 4892), TXT only; everything else is refused."""
        name = bytes(q.name[: q.name_length])
        text = {
            b"\x02id\x06server\x00": self.identity,
            b"\x08hostname\x04bind\x00": self.identity,
            b"\x07version\x04bind\x00": b"NexoralDNS " + __version__.encode(),
            b"\x07version\x06server\x00": b"NexoralDNS " + __version__.encode(),
            b"\x08revision\x06server\x00": self.revision.encode()[:255] or b"-",
        }.get(name)
        if not self.identity or text is None or q.qtype not in (TYPE_TXT, 255):
            return r.write(self.table, q, self.v, out, limit)
        body = b"\xc0\x0c\x00\x10\x00\x03\x00\x00\x00\x00" + (len(text) + 1).to_bytes(2, "big")
        body += bytes((len(text),)) + text
        question = q.question_end - q.base - 12
        return r.relay(
            self.table, q, self.v, out, limit, memoryview(body), 0, len(body), question, RCODE_NOERROR, 1, 0, 0, 0, 0,
            0, 0, 0,
        )  # fmt: skip

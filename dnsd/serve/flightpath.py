"""Forwarding on the compiled path: the first try of a question, from the client's packet to its answer.

Compiled by Cython with the types in `flightpath.pxd`. Identical questions share one flight; each flight
asks once, through a random socket with a random id. A good answer goes into the cache, and everybody
who waited is answered by the ordinary query path from there, as if they had asked now: so a table
that came meanwhile, or an objection of `review`, counts. Whatever is not a good answer (silence,
truncation, a failing server, a forger) is handed with all that is known to the generators of
`serve.flights`, which decide what to try next; which server is asked first is their decision too.
"""

from typing import Any

import cython

if not cython.compiled:
    from dnsd.contract.codes import (
        ACTION_ALIAS,
        COUNT_CACHE_STORED,
        COUNT_COALESCED,
        COUNT_OVERLOADED,
        COUNT_SEND_ERRORS,
        COUNT_SERVFAIL,
        COUNT_UPSTREAM_ANSWERS,
        COUNT_UPSTREAM_MISMATCHES,
        COUNT_UPSTREAM_QUERIES,
        COUNT_UPSTREAM_TIMEOUTS,
        EDE_OTHER,
        RCODE_SERVFAIL,
    )
    from dnsd.contract.query import Query
    from dnsd.resolve.message import Reader
    from dnsd.serve.flighttable import FlightTable
    from dnsd.serve.lanes import Lanes
    from dnsd.serve.latepath import LatePath

from dnsd.serve.batch import Lines
from dnsd.serve.handoff import Handoff, Retry

_ROUTES = 1024
_LATE_MS = 5000  # nobody waits for an answer longer than that (`forwarder.BUDGET_MS`)
_MOST = 8  # servers among which a route's first try is made
_OVERLOADED = b"too many questions are under way"


class FlightPath(LatePath):
    """A worker's query path with forwarding. `upstream_fd` is readable when `receive` has something to do.

    `handed()` gives the flights for the generators. `chooser(route)` says who is asked first, as (way, milliseconds
    to wait, servers), each server as (server, whether it speaks EDNS, whether it failed last), or None to leave the
    question to the generators; it is asked again after `forget_routes`. Ways: 0 the first server, 1 one at random, 2
    the first and now and then another, 3 all at once. `proven(server)` is told that a server under suspicion answers.
    """

    def __init__(self, slot: int, counters: object, ring: object, arena: object, identity: str = "nexoraldns") -> None:
        LatePath.__init__(self, slot, counters, ring, arena, identity)
        self.flights = FlightTable()
        self.lines = Lines()
        self.lanes = Lanes(self.lines)
        self.upstream_fd = self.lines.epoll_fd
        self.datagrams = self.lines.inp
        self.sizes = self.lines.lengths
        self.from_lines = self.lines.lines
        self.question = self.lines.out
        self.question_lengths = self.lines.out_lengths
        self.question_lines = self.lines.out_lines
        self.question_flights = memoryview(bytearray(4 * 64)).cast("i")
        self.in_size = self.lines.in_stride
        self.out_size = self.lines.out_stride
        self.queued = 0
        self.reader = Reader()
        table = self.flights
        self.waiter = Query(table.packet)
        self.client_names = self.socket_batch.names
        self.client_name_lengths = self.socket_batch.name_lengths
        self.client_controls = self.socket_batch.controls
        self.client_control_lengths = self.socket_batch.control_lengths
        self.parked = self.socket_batch.parked
        self.socket_batch.bind(table.names, table.name_lengths, table.controls, table.control_lengths, table.fd)
        self.replies = 0
        self.route_count = memoryview(bytearray(4 * _ROUTES)).cast("i")
        self.route_pools = memoryview(bytearray(4 * _ROUTES * _MOST)).cast("i")
        self.route_way = memoryview(bytearray(4 * _ROUTES)).cast("i")
        self.route_turn = memoryview(bytearray(4 * _ROUTES)).cast("i")
        self.route_patience = memoryview(bytearray(4 * _ROUTES)).cast("i")
        self.handoff = Handoff(self)
        self.chooser: Any = None
        self.proven: Any = None
        self.more = 0
        self.soonest = 0
        self.kept = 0
        self.sending = 0  # 1 while the answers of a batch may still stand where answers are written
        self.forget_routes()

    # --- what the worker calls ------------------------------------------------------------------------------------

    def install(self, policy: object, names: object, generation: int, revision: str) -> None:
        """As `LatePath.install`; what is under way lands in the new table."""
        LatePath.install(self, policy, names, generation, revision)
        self.forget_routes()

    def set_facts(self, data: bytes) -> None:
        """As `LatePath.set_facts`; the servers of a lease may be others now."""
        LatePath.set_facts(self, data)
        self.forget_routes()

    def forget_routes(self) -> None:
        """Ask `chooser` again from the next question on."""
        i: cython.int
        for i in range(1024):
            self.route_count[i] = 0

    def batch(self, fd: int) -> int:
        """As `LatePath.batch`; then the questions that it left are sent to their servers."""
        n = LatePath.batch(self, fd)
        if self.queued:
            self.depart()
        return n

    def stream(self, message: bytes, client: bytes) -> bytes | None:
        """As `LatePath.stream`."""
        answer = LatePath.stream(self, message, client)
        if self.queued:
            self.depart()
        return answer

    def due_by(self, deadline: cython.longlong) -> cython.int:
        """Something is due at this time (monotonic, ms): nobody waits longer. Returns 0."""
        if deadline < self.soonest:
            self.soonest = deadline
        return 0

    def receive(self) -> int:
        """Take up to 64 datagrams from upstream servers and answer who waited; fewer means that there are no more."""
        i: cython.int
        n: cython.int = self.lines.receive()

        for i in range(n):
            self.arrive(i)
        if self.replies:
            self.answer_all()
        if self.queued:
            self.depart()
        return n

    def expire(self) -> None:
        """Hand over what has waited too long, by the time that `clock` has told."""
        f: cython.int
        if self.flights.under_way == 0:
            return
        while True:
            f = self.flights.due(self.mono_ms)
            if f < 0:
                break
            if self.flights.deadline[f] < self.flights.until[f]:
                self.comfort(f)
                self.flights.hasten(f, self.flights.until[f])
                continue
            if not self.awaited(f):
                self.count(COUNT_UPSTREAM_TIMEOUTS)
            self.handoff.flight(f, None, "timeout", 1)
        if self.replies:
            self.answer_all()
        if self.queued:
            self.depart()

    def next_ms(self) -> int | None:
        """When `expire` wants to be called (monotonic milliseconds); None when nothing is under way."""
        return self.flights.next_ms() or None

    def handed(self) -> list[Retry]:
        """What the generators have to go on with; `landed` says when they are done with one."""
        found: list[Retry] = self.handoff.collect() if self.handoff.pending else []
        return found

    def landed(self, flight: int) -> None:
        """A generator is done with a flight that it was handed."""
        self.disband(flight, -1)
        self.flights.release(flight)

    def abandon(self) -> None:
        """Hand over all that is under way; for a worker that leaves."""
        self.handoff.everything()

    def travels(self, f: int, wire: bytes | None, error: str, late: int) -> bool:
        """Whether a flight goes on by itself after this reply, or after none for this reason. Forwarding does not."""
        return False

    @property
    def under_way(self) -> int:
        """How many flights there are, those handed over included."""
        return self.flights.under_way

    def rtts(self) -> list[tuple[object, float]]:
        """Each server that has answered, and its smoothed round-trip time in milliseconds."""
        return self.lanes.rtts()

    def silent(self) -> list[object]:
        """Who was silent in a race since the last call."""
        found: list[object] = list(self.handoff.silent)
        self.handoff.silent = []
        return found

    def waited(self, j: int) -> int:
        """Answer one who waits for a flight that is handed over, if that is possible by now; else it becomes a `Miss`."""
        return self.respond(j)

    def close(self) -> None:
        """Close every socket."""
        self.lines.end()

    # --- off the ground -------------------------------------------------------------------------------------------

    def defer(self, q: Query, i: cython.int, fd: cython.int) -> cython.int:
        """Packet `i` of the batch needs an upstream: 0, or the length of an answer that it gets at once."""
        t: FlightTable = self.flights
        s: Query = q
        bits: cython.int = q.do | ((q.flags >> 3) & 2)
        route: cython.int = self.v.route
        mark: cython.int
        stale: cython.int
        f: cython.int
        j: cython.int

        if q.length > 512 or q.qclass != 1 or route <= 0 or route >= 1024:
            return LatePath.defer(self, q, i, fd)
        if self.v.action == ACTION_ALIAS:
            s = self.target
        mark = self.mark(route)
        f = t.find(s.name, s.name_length, s.hash_policy[0], q.qtype, bits, mark, self.generation)
        if f >= 0:
            return self.board(f, q, i, fd)
        if self.route_count[route] == 0 and self.choose(route) == 0:
            return LatePath.defer(self, q, i, fd)
        f = t.start(s.name, s.name_length, s.hash_policy[0], q.qtype, bits, mark, self.generation)
        if f < 0:
            return self.overloaded(q, i)
        j = t.join(f)
        if j < 0:
            t.release(f)
            return self.overloaded(q, i)
        stale = self.cache.event == 3 and self.stale_s > 0
        if self.launch(f, self.pick(route), route) == 0:
            t.leave(j)
            t.release(f)
            return LatePath.defer(self, q, i, fd)
        if t.slot[f] >= 0:  # else it has come to nothing at once
            if stale:
                self.promise(f)
            if self.route_way[route] == 3:
                self.accompany(f, route)
        return self.park(j, q, i, fd)

    def board(self, f: cython.int, q: Query, i: cython.int, fd: cython.int) -> cython.int:
        """Packet `i` of the batch asks what is under way already; as `defer`."""
        t: FlightTable = self.flights
        j: cython.int

        if t.state[f] == 2:
            return LatePath.defer(self, q, i, fd)
        j = t.join(f)
        if j < 0:
            return self.overloaded(q, i)
        self.count(COUNT_COALESCED)
        return self.park(j, q, i, fd)

    def promise(self, f: cython.int) -> cython.int:
        """There is an answer past its time to a flight's question: nobody waits for a better one for long."""
        if self.flights.until[f] > self.mono_ms + 1800:
            self.flights.hasten(f, self.mono_ms + 1800)
            self.due_by(self.mono_ms + 1800)
        return 0

    def renew(self, q: Query, s: Query) -> cython.int:
        """As `LatePath.renew`: a flight that nobody waits for, unless there is one already."""
        t: FlightTable = self.flights
        bits: cython.int = q.do | ((q.flags >> 3) & 2)
        route: cython.int = self.v.route
        mark: cython.int
        f: cython.int

        if q.qclass != 1 or route <= 0 or route >= 1024:
            return LatePath.renew(self, q, s)
        mark = self.mark(route)
        if t.find(s.name, s.name_length, s.hash_policy[0], q.qtype, bits, mark, self.generation) >= 0:
            return 0
        if self.route_count[route] == 0 and self.choose(route) == 0:
            return LatePath.renew(self, q, s)
        f = t.start(s.name, s.name_length, s.hash_policy[0], q.qtype, bits, mark, self.generation)
        if f >= 0 and self.launch(f, self.pick(route), route) == 0:
            t.release(f)
        return 0

    def comfort(self, f: cython.int) -> cython.int:
        """Who waits for a flight gets what is past its time, where there is something (RFC 8767, section 5)."""
        t: FlightTable = self.flights
        q: Query = self.waiter
        lead: cython.int = f if t.lead[f] < 0 else t.lead[f]
        before: cython.int = -1
        j: cython.int = t.first[lead]
        following: cython.int
        length: cython.int

        while j >= 0:
            following = t.next[j]
            q.client_words[0] = t.client[2 * j]
            q.client_words[1] = t.client[2 * j + 1]
            self.landing = 1
            self.late = 1
            self.latency_us = cython.cast(cython.uint, self.mono_ms - t.started[j]) * 1000
            length = self.handle(q, self.responder, 512 * j, t.length[j], self.replies * self.out_stride, 0)
            self.landing = 0
            self.late = 0
            if length < 0:
                before = j
            else:
                t.excuse(lead, j, before)
                self.reply(j, length)
            j = following
        return 0

    def reply(self, j: cython.int, length: cython.int) -> cython.int:
        """The answer to a joiner is written: it leaves with others; a length of 0 is silence."""
        if length == 0:
            return self.flights.leave(j)
        self.out_lengths[self.replies] = length
        self.parked[self.replies] = j
        self.replies += 1
        if self.replies == 64:
            self.answer_all()
        return 0

    def overloaded(self, q: Query, i: cython.int) -> cython.int:
        """SERVFAIL at once instead of a wait in a queue that cannot be served; the answer's length."""
        self.count(COUNT_OVERLOADED)
        self.count(COUNT_SERVFAIL)
        return self.responder.fail(
            q, RCODE_SERVFAIL, EDE_OTHER, _OVERLOADED, i * self.out_stride, self.responder.size_limit(q)
        )

    def park(self, j: cython.int, q: Query, i: cython.int, fd: cython.int) -> cython.int:
        """Keep packet `i` and its client for later; returns 0."""
        t: FlightTable = self.flights
        k: cython.int

        t.fd[j] = fd
        t.started[j] = self.mono_ms
        t.client[2 * j] = q.client_words[0]
        t.client[2 * j + 1] = q.client_words[1]
        t.length[j] = q.length
        for k in range(q.length):
            t.packet[512 * j + k] = q.buf[q.base + k]
        t.name_lengths[j] = self.client_name_lengths[i]
        for k in range(self.client_name_lengths[i]):
            t.names[28 * j + k] = self.client_names[28 * i + k]
        t.control_lengths[j] = self.client_control_lengths[i]
        for k in range(self.client_control_lengths[i]):
            t.controls[64 * j + k] = self.client_controls[64 * i + k]
        return 0

    def choose(self, route: cython.int) -> cython.int:
        """Ask who comes first for a route's questions; how many, 0 leaves this one to the generators."""
        chosen = self.chooser(route) if self.chooser is not None else None
        if chosen is None:
            return 0
        way, patience_ms, servers = chosen
        moved = self.lanes.moved
        pools = []
        for server, edns, doubtful in servers[:_MOST]:
            pool = self.lanes.pool(server)
            if pool >= 0:
                pools.append(pool)
                self.lanes.plain[pool] = 0 if edns else 1
                self.lanes.suspect[pool] = 1 if doubtful else 0
        if self.lanes.moved != moved:
            self.forget_routes()  # some of them may mean a pool that is another server's now
        for k, pool in enumerate(pools):
            self.route_pools[8 * route + k] = pool
        self.route_way[route] = way
        self.route_patience[route] = patience_ms
        self.route_count[route] = len(pools)
        return len(pools)

    def pick(self, route: cython.int) -> cython.int:
        """The pool of the server that this question of a route goes to."""
        n: cython.int = self.route_count[route]
        way: cython.int = self.route_way[route]
        first: cython.int = 8 * route
        last: cython.int
        k: cython.int

        if n == 1 or way == 0 or way == 3:
            return self.route_pools[first]
        if way == 1:
            if self.queued & 15:
                # Neighbours in a batch go together: one system call for them.
                last = self.lanes.owner[self.question_lines[self.queued - 1]] >> 7
                for k in range(n):
                    if self.route_pools[first + k] == last:
                        return last
            return self.route_pools[first + self.lanes.chance() % n]
        self.route_turn[route] = (self.route_turn[route] + 1) & 31
        if self.route_turn[route] == 0:
            return self.route_pools[first + 1 + self.lanes.chance() % (n - 1)]
        return self.route_pools[first]

    def accompany(self, f: cython.int, route: cython.int) -> cython.int:
        """Let a flight's question race to the other servers of its route, too."""
        t: FlightTable = self.flights
        g: cython.int
        k: cython.int

        for k in range(1, self.route_count[route]):
            g = t.double(f)
            if g < 0:
                return 0
            if self.launch(g, self.route_pools[8 * route + k], route) == 0:
                t.release(g)
        return 0

    def fallen(self, f: cython.int, late: cython.int) -> cython.int:
        """A question came to nothing: its flight, -1 while others of the race are under way. `late`: as `settle`."""
        t: FlightTable = self.flights
        lead: cython.int = t.lead[f]

        self.lanes.settle(t.slot[f], late)
        if lead < 0:
            lead = f
            t.recall(f)
        else:
            t.release(f)
        return -1 if t.slot[lead] >= 0 or t.mate[lead] >= 0 else lead

    def linger(self, f: cython.int) -> cython.int:
        """A question that has waited long enough is handed over, but its answer may still come: a mate listens for it.

        Returns 1; 0 when the flight is a race, whose others are listened to anyway, or there is no room.
        """
        t: FlightTable = self.flights
        slot: cython.int = t.slot[f]
        until: cython.ulonglong = t.sent[f] + _LATE_MS
        g: cython.int

        if t.lead[f] >= 0 or t.mate[f] >= 0 or until <= self.mono_ms:
            return 0
        g = t.double(f)
        if g < 0:
            return 0
        t.recall(f)
        t.send(g, slot, t.query_id[f], t.pool[f], until, t.sent[f])
        self.due_by(until)
        return 1

    def awaited(self, f: cython.int) -> cython.int:
        """Whether a flight only listens for the late answer to one that is handed over."""
        t: FlightTable = self.flights
        return 1 if t.lead[f] >= 0 and t.state[t.lead[f]] == 2 else 0

    def disband(self, lead: cython.int, winner: cython.int) -> cython.int:
        """One of a race has answered: wait for nobody else."""
        t: FlightTable = self.flights
        g: cython.int

        if lead != winner and t.slot[lead] >= 0:
            self.lanes.settle(t.slot[lead], 1)
            t.recall(lead)
        while t.mate[lead] >= 0:
            g = t.mate[lead]
            if g != winner:
                self.lanes.settle(t.slot[g], 1)
            t.release(g)
        return 0

    def launch(self, f: cython.int, pool: cython.int, route: cython.int) -> cython.int:
        """Write a flight's question; it leaves with the batch. 0 when no socket is to be had."""
        t: FlightTable = self.flights
        slot: cython.int = -1
        number: cython.int
        at: cython.int
        k: cython.int
        out = self.question

        if self.queued & 15:
            slot = self.lanes.again(pool, self.question_lines[self.queued - 1])
        if slot < 0:
            slot = self.lanes.draw(pool, self.mono_ms)
        if slot < 0:
            return 0
        number = self.lanes.chance()
        while t.match(slot, number) >= 0:
            number = self.lanes.chance()
        at = self.queued * self.out_size
        out[at] = number >> 8
        out[at + 1] = number & 255
        out[at + 2] = 1
        out[at + 3] = 16 if t.bits[f] & 2 else 0
        for k in range(4, 12):
            out[at + k] = 0
        out[at + 5] = 1
        out[at + 11] = 0 if self.lanes.plain[pool] else 1
        at += 12
        for k in range(t.name_length[f]):
            out[at + k] = t.name[256 * f + k]
        at += t.name_length[f]
        out[at] = t.qtype[f] >> 8
        out[at + 1] = t.qtype[f] & 255
        out[at + 2] = 0
        out[at + 3] = 1
        at += 4
        if self.lanes.plain[pool] == 0:
            for k in range(11):
                out[at + k] = 0
            out[at + 2] = 41
            out[at + 3] = 4  # 1232
            out[at + 4] = 208
            out[at + 7] = 128 if t.bits[f] & 1 else 0
            at += 11
        self.question_lengths[self.queued] = at - self.queued * self.out_size
        self.question_lines[self.queued] = slot
        self.question_flights[self.queued] = f
        deadline = self.mono_ms + self.route_patience[route]
        t.send(f, slot, number, pool, deadline, self.mono_ms)
        self.due_by(deadline)
        self.queued += 1
        self.count(COUNT_UPSTREAM_QUERIES)
        if self.queued == 64:
            self.depart()
        return 1

    def depart(self) -> None:
        """Send the questions that are written."""
        while self.queued:
            n, self.queued = self.queued, 0
            self.lines.send(n)
            if self.lines.failed:
                # What left only at the second attempt tells that nobody heard those before it.
                failed = [
                    (self.question_lines[k], self.question_flights[k] if self.lines.out_errors[k] < 0 else -1)
                    for k in range(n)
                    if self.lines.out_errors[k]
                ]
                self.sending = 1
                for slot, but in failed:  # others may be asked instead: they are written here, too
                    self.handoff.line(slot, but)
                self.sending = 0

    # --- landing --------------------------------------------------------------------------------------------------

    def arrive(self, i: cython.int) -> cython.int:
        """Datagram `i` from upstream: its flight lands, is handed over, or goes on waiting for something better."""
        t: FlightTable = self.flights
        slot: cython.int = self.from_lines[i]
        size: cython.int = self.sizes[i]
        base: cython.int = i * self.in_size
        d = self.datagrams
        f: cython.int = -1
        kind: cython.int

        if size < 0:
            self.handoff.line(slot, -1)
            return 0
        if size >= 12:
            f = t.match(slot, (d[base] << 8) | d[base + 1])
        kind = 0
        if f >= 0:
            kind = self.answers(f, base, size)
        if kind == 0:
            self.count(COUNT_UPSTREAM_MISMATCHES)  # late, or forged: keep waiting
            self.lanes.strange[slot] += 1
            if self.lanes.strange[slot] > 32:
                self.handoff.line(slot, -1, "forged")
            return 0
        self.count(COUNT_UPSTREAM_ANSWERS)
        if self.awaited(f):
            self.handoff.late(f, bytes(d[base : base + size]) if kind == 1 and size <= self.in_size else None)
            return 0
        if kind == 2 or size > self.in_size:
            # Cut on the way to us counts as truncated: there is more of it than we said we take.
            self.handoff.flight(f, None if size > self.in_size else bytes(d[base : base + size]), "truncated", 0)
            return 0
        return self.land(f, base, size)

    def answers(self, f: cython.int, base: cython.int, size: cython.int) -> cython.int:
        """Whether a datagram answers a flight's question (RFC 5452, section 9.1).

        0 no; 1 with an answer; 2 with something that the generators know what to do with: truncated, or a failure.
        """
        t: FlightTable = self.flights
        d = self.datagrams
        k: cython.int
        c: cython.int
        n: cython.int = t.name_length[f]
        at: cython.int = base + 12
        rcode: cython.int = d[base + 3] & 15

        if d[base + 2] & 248 != 128 or d[base + 4] != 0:
            return 0
        if d[base + 5] == 0:
            # A bare header, from a server that could not read the question.
            return 2 if rcode == 1 or rcode == 2 or rcode == 4 or rcode == 5 else 0
        if d[base + 5] != 1 or size < 16 + n:
            return 0
        for k in range(n):
            c = d[at + k]
            if 65 <= c <= 90:
                c += 32  # length octets are no letters
            if c != t.name[256 * f + k]:
                return 0
        at += n
        if ((d[at] << 8) | d[at + 1]) != t.qtype[f] or d[at + 2] != 0 or d[at + 3] != 1:
            return 0
        if d[base + 2] & 2 or rcode == 1 or rcode == 2 or rcode == 4 or rcode == 5:
            return 2
        return 1

    def land(self, f: cython.int, base: cython.int, size: cython.int) -> cython.int:
        """Remember an answer, and give it to everybody who waited."""
        t: FlightTable = self.flights
        slot: cython.int = t.slot[f]
        pool: cython.int = t.pool[f]
        lead: cython.int = f if t.lead[f] < 0 else t.lead[f]
        at: cython.int = self.keep(f, self.datagrams, base, size, 0)

        if at == 0:
            self.handoff.flight(f, bytes(self.datagrams[base : base + size]), "", 0)
            return 0
        if self.lanes.suspect[pool]:
            self.handoff.cleared(pool)
        self.lanes.measured(pool, self.mono_ms - t.sent[f])
        self.lanes.settle(slot, 0)
        if lead != f or t.mate[lead] >= 0:
            self.disband(lead, f)
        return self.deliver(lead, at)

    def keep(
        self, f: cython.int, d: cython.const[cython.uchar][::1], base: cython.int, size: cython.int, ours: cython.int
    ) -> cython.int:
        """Put the answer to a flight's question into the cache; where it is there, 0 when it cannot be used.

        `ours`: its AD bit is our own, and its TTLs are bounded already.
        """
        t: FlightTable = self.flights
        r: Reader = self.reader
        at: cython.int
        ttl: cython.int
        keep: cython.int
        rcode: cython.int

        if r.read(d, base, size):
            return 0
        if ours == 0:
            r.bound(self.min_ttl, self.max_ttl)
        keep = r.ttl
        ttl = keep if keep < self.max_ttl else self.max_ttl
        if keep > 0 and ttl < self.min_ttl and ours == 0:  # our own TTLs are what is left of bounded ones
            ttl = self.min_ttl
        self.kept = 1 if ttl > 0 else 0
        rcode = (r.rcode & 65535) | ((r.authentic & ours) << 16)
        # What nobody may remember is in the cache until `deliver` is done.
        at = self.cache.put(
            t.name[256 * f : 256 * f + t.name_length[f]], t.name_length[f], t.hash[f], t.qtype[f], t.bits[f], t.route[f],
            r.data, r.body, r.length, r.question, rcode, r.answers, r.authorities, r.additionals, r.ttls,
            r.ttl_count, r.pointers, r.pointer_count, self.now, ttl if ttl > 0 else 1,
        )  # fmt: skip
        if at and ttl > 0:
            self.count(COUNT_CACHE_STORED)
        return at

    def deliver(self, f: cython.int, at: cython.int) -> cython.int:
        """Give everybody who waited for a flight what `keep` has just put into the cache."""
        t: FlightTable = self.flights
        kept: cython.int = self.kept
        j: cython.int = t.first[f]

        t.hand(f)  # nobody joins any more; the key stays taken while its clients are answered
        while j >= 0:
            j = self.respond(j)
        t.release(f)
        if kept == 0:
            self.cache.drop(at)
        return 0

    def respond(self, j: cython.int) -> cython.int:
        """Answer one who waited, as the ordinary query path answers now; returns the next.

        Who cannot be answered (a table came in between, and its answer would come from elsewhere) becomes a `Miss`.
        """
        t: FlightTable = self.flights
        q: Query = self.waiter
        following: cython.int = t.next[j]
        length: cython.int

        q.client_words[0] = t.client[2 * j]
        q.client_words[1] = t.client[2 * j + 1]
        self.landing = 1
        self.latency_us = cython.cast(cython.uint, self.mono_ms - t.started[j]) * 1000
        length = self.handle(q, self.responder, 512 * j, t.length[j], self.replies * self.out_stride, 0)
        self.landing = 0
        if length > 0:
            self.out_lengths[self.replies] = length
            self.parked[self.replies] = j
            self.replies += 1
            if self.replies == 64:
                self.answer_all()
            return following
        if length < 0:
            name, control = self.socket_batch.parked_peer(j)
            self.miss(q, t.fd[j], name, control)
            self.misses[len(self.misses) - 1].started_ms = t.started[j]
        t.leave(j)
        return following

    def answer_all(self) -> None:
        """Send the answers that are written."""
        n, self.replies = self.replies, 0
        before = self.socket_batch.errors
        self.socket_batch.send_parked(n)
        self.counters[COUNT_SEND_ERRORS] += self.socket_batch.errors - before
        for k in range(n):
            self.flights.leave(self.parked[k])

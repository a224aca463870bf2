"""Recursion on the compiled path: from the client's packet over the authorities' datagrams to its answer.

Compiled by Cython with the types in `shortpath.pxd`. What one datagram answers needs no generator: `resolve.shortcut`
says whom to ask and what the reply is worth. Everything else is a generator's journey, whose questions over UDP leave from here,
too, each through a socket of its own. What is not asked like that (TCP, a forward entry's servers) and what fails is
handed to `serve.flights`, with the journey as far as it has come.
"""

from typing import Any

import cython

if not cython.compiled:
    from dnsd.contract.codes import ACTION_ALIAS, COUNT_UPSTREAM_QUERIES
    from dnsd.contract.query import Query
    from dnsd.resolve.forwarder import Ask, Outcome
    from dnsd.resolve.shortcut import Journey, Shortcut, Start
    from dnsd.serve.flightpath import FlightPath
    from dnsd.serve.flighttable import FlightTable
    from dnsd.serve.latepath import LatePath

from dnsd.resolve.forwarder import UDP, Reply
from dnsd.serve.handoff import TRUNCATED

_ROUTES = 1024
_AUTHORITY = 16  # in place of the number of a pool


class ShortPath(FlightPath):
    """A query path with forwarding, and with recursion for as long as `shortcut` is set.

    `journey(name, qtype, do, cd, client, now_ms, tried)` begins a resolution (`Flights.journey`).
    """

    def __init__(self, slot: int, counters: object, ring: object, arena: object, identity: str = "nexoraldns") -> None:
        FlightPath.__init__(self, slot, counters, ring, arena, identity)
        self.shortcut: Shortcut | None = None
        self.journey = None
        self.leaving = 0
        flights = self.flights.flights
        self.starts: list[Start | None] = [None] * flights
        self.journeys: list[Journey | None] = [None] * flights
        self.wires = [b""] * flights
        self.callers = [b""] * flights
        self.promised = memoryview(bytearray(8 * flights)).cast("Q")
        self.kinds = memoryview(bytearray(4 * _ROUTES)).cast("i")

    def install(self, policy: object, names: object, generation: int, revision: str) -> None:
        """As `FlightPath.install`; the numbers of routes mean others now."""
        FlightPath.install(self, policy, names, generation, revision)
        for i in range(_ROUTES):
            self.kinds[i] = 0

    def abandon(self) -> None:
        """As `FlightPath.abandon`."""
        self.leaving = 1
        FlightPath.abandon(self)

    def recurses(self, route: cython.int) -> cython.int:
        """Whether a route leads to our own resolver."""
        if self.kinds[route] == 0:
            self.kinds[route] = 1 + (self.route(route).kind == "recurse")  # type: ignore[attr-defined]
        return self.kinds[route] - 1

    def defer(self, q: Query, i: cython.int, fd: cython.int) -> cython.int:
        """As `FlightPath.defer`."""
        t: FlightTable = self.flights
        s: Query = q
        start: Start | None
        journey: Journey | None = None
        shortcut: Shortcut | None = self.shortcut
        name: bytes
        do: cython.int = q.do
        cd: cython.int = (q.flags >> 4) & 1
        bits: cython.int = do | (cd << 1)
        route: cython.int = self.v.route
        mark: cython.int
        f: cython.int
        j: cython.int

        if q.length > 512 or q.qclass != 1 or route <= 0 or route >= 1024 or self.recurses(route) == 0:
            return FlightPath.defer(self, q, i, fd)
        if self.v.action == ACTION_ALIAS:
            s = self.target
        mark = self.mark(route)
        f = t.find(s.name, s.name_length, s.hash_policy[0], q.qtype, bits, mark, self.generation)
        if f >= 0:
            return self.board(f, q, i, fd)
        name = bytes(s.name[: s.name_length])
        if shortcut is None or shortcut.is_busy(name, q.qtype):
            return LatePath.defer(self, q, i, fd)
        shortcut.clock(self.now)
        start = shortcut.begin(name, q.qtype, do != 0, cd != 0, self.mono_ms)
        if start is None:
            # With servers for a group, names on the way may be another's for another client: everybody travels alone.
            if self.journey is None or self.table.route_class_count:
                return LatePath.defer(self, q, i, fd)
            journey = self.journey(name, q.qtype, do != 0, cd != 0, bytes(q.client), self.mono_ms)
            if journey.ask is None:
                return LatePath.defer(self, q, i, fd)  # known already, or failed a moment ago
        f = t.start(s.name, s.name_length, s.hash_policy[0], q.qtype, bits, mark, self.generation)
        if f < 0:
            return self.overloaded(q, i)
        j = t.join(f)
        if j < 0:
            t.release(f)
            return self.overloaded(q, i)
        self.starts[f] = start
        self.journeys[f] = journey
        self.callers[f] = bytes(q.client)
        self.promised[f] = self.mono_ms + 1800 if self.cache.event == 3 and self.stale_s > 0 else 0
        if start is not None:
            if self.dispatch(f, start.server[0], start.server[1], start.wire, start.patience_ms) == 0:
                t.leave(j)
                t.release(f)
                return LatePath.defer(self, q, i, fd)
        else:
            self.advance(f, journey)
        return self.park(j, q, i, fd)

    def renew(self, q: Query, s: Query) -> cython.int:
        """As `FlightPath.renew`; what recursion renews is left to the generators, which do so whatever comes of it."""
        if q.qclass != 1 or self.v.route <= 0 or self.v.route >= 1024 or self.recurses(self.v.route) == 0:
            return FlightPath.renew(self, q, s)
        return LatePath.renew(self, q, s)

    def comfort(self, f: cython.int) -> cython.int:
        """As `FlightPath.comfort`; once."""
        self.promised[f] = 0
        return FlightPath.comfort(self, f)

    def dispatch(
        self, f: cython.int, host: str, port: cython.int, wire: bytes, patience_ms: cython.int
    ) -> cython.int:
        """Write a flight's question; it leaves with the batch. 0 when no socket is to be had."""
        slot: cython.int = self.lanes.dial(host, port)
        deadline: cython.ulonglong = self.mono_ms + patience_ms
        number: cython.int
        at: cython.int = self.queued * self.out_size
        size: cython.int = cython.cast(cython.int, len(wire))
        k: cython.int
        out = self.question

        if slot < 0:
            return 0
        number = self.lanes.chance()
        out[at] = number >> 8
        out[at + 1] = number & 255
        for k in range(2, size):
            out[at + k] = wire[k]
        self.question_lengths[self.queued] = size
        self.question_lines[self.queued] = slot
        self.question_flights[self.queued] = f
        self.wires[f] = wire
        self.flights.send(f, slot, number, _AUTHORITY, deadline, self.mono_ms)
        if self.promised[f] and deadline > self.promised[f]:
            deadline = self.promised[f] if self.promised[f] > self.mono_ms else self.mono_ms
            self.flights.hasten(f, deadline)
        self.due_by(deadline)
        self.queued += 1
        self.count(COUNT_UPSTREAM_QUERIES)
        if self.queued == 64:
            self.depart()
        return 1

    def answers(self, f: cython.int, base: cython.int, size: cython.int) -> cython.int:
        """As `FlightPath.answers`, for the question that has been sent: a journey's is not always the client's."""
        d = self.datagrams
        wire: bytes
        k: cython.int
        a: cython.int
        b: cython.int
        at: cython.int = 12
        rcode: cython.int = d[base + 3] & 15

        if self.flights.pool[f] != _AUTHORITY:
            return FlightPath.answers(self, f, base, size)
        wire = self.wires[f]
        if d[base + 2] & 248 != 128 or d[base + 4] != 0:
            return 0
        if d[base + 5] == 0:
            return 2 if rcode == 1 or rcode == 2 or rcode == 4 or rcode == 5 else 0
        while wire[at]:
            at += 1 + wire[at]
        at += 5
        if d[base + 5] != 1 or size < at:
            return 0
        for k in range(12, at):
            a = d[base + k]
            b = wire[k]
            # The case of the name may differ; length octets are no letters.
            if a != b and (k >= at - 4 or (a | 32) != (b | 32) or (a | 32) < 97 or (a | 32) > 122):
                return 0
        if d[base + 2] & 2 or rcode == 1 or rcode == 2 or rcode == 4 or rcode == 5:
            return 2
        return 1

    def land(self, f: cython.int, base: cython.int, size: cython.int) -> cython.int:
        """As `FlightPath.land`."""
        t: FlightTable = self.flights
        start: Start | None
        shortcut: Shortcut | None = self.shortcut
        reply: bytes
        found: Any = None
        at: cython.int

        if t.pool[f] != _AUTHORITY:
            return FlightPath.land(self, f, base, size)
        start = self.starts[f]
        reply = bytes(self.datagrams[base : base + size])
        if start is not None and shortcut is not None and self.leaving == 0:
            shortcut.clock(self.now)
            found = shortcut.end(start, reply, self.mono_ms - t.sent[f], self.mono_ms)
        if found is None:
            self.travels(f, reply, "", 0)
            return 0
        if isinstance(found, bytes) and found:
            at = self.keep(f, memoryview(found), 0, cython.cast(cython.int, len(found)), 1)
            if at:
                self.lanes.settle(t.slot[f], 0)
                return self.deliver(f, at)
        self.lanes.settle(t.slot[f], 0)
        t.recall(f)
        if found:
            start = self.starts[f] = found
            if self.dispatch(f, start.server[0], start.server[1], start.wire, start.patience_ms):
                return 0
        self.depart_from(f, None)
        return 0

    def travels(self, f: int, wire: bytes | None, error: str, late: int) -> bool:
        """As `FlightPath.travels`: with the reply, or without one for this reason."""
        t: FlightTable = self.flights
        start: Start | None
        journey: Journey | None
        tried: Any = None

        if t.pool[f] != _AUTHORITY:
            return False
        if wire is None and error in ("truncated", "forged"):
            wire = TRUNCATED
        if wire is not None:
            error = ""
        start = self.starts[f]
        journey = self.journeys[f]
        if start is not None:
            tried = start.tried(wire, error, t.sent[f], self.mono_ms)
        self.lanes.settle(t.slot[f], late)
        t.recall(f)
        if journey is None:
            self.depart_from(f, tried)
            return True
        if self.leaving:
            self.handoff.journey(f, journey, None)
            return True
        if self.shortcut is not None:
            self.shortcut.clock(self.now)
        journey.go_on(Reply(wire, self.mono_ms, error))
        self.advance(f, journey)
        return True

    def depart_from(self, f: int, tried: Any) -> None:
        """The shortcut ends here: a journey goes on, with the last reply if that says more than has been understood."""
        start: Start | None = self.starts[f]
        journey: Journey | None

        if start is None or self.leaving or self.journey is None or self.table.route_class_count:
            self.handoff.journey(f, None, tried)
            return
        self.starts[f] = None
        journey = self.journey(start.sname, start.qtype, start.do, start.cd, self.callers[f], start.begun_ms, tried)
        self.journeys[f] = journey
        self.advance(f, journey)

    def advance(self, f: cython.int, journey: Journey) -> cython.int:
        """Ask what a journey asks for next, or give its outcome to those who wait (an error with it: `flights` has words)."""
        at: cython.int = 0
        ask: Ask | None = journey.ask
        outcome: Outcome | None = journey.outcome

        if ask is not None and ask.transport == UDP and ask.fresh and not ask.rivals:
            if self.dispatch(f, ask.server[0], ask.server[1], ask.wire, ask.timeout_ms):
                return 0
        elif outcome is not None and outcome.response is not None and outcome.ede < 0 and self.sending == 0:
            at = self.keep(f, memoryview(outcome.response), 0, cython.cast(cython.int, len(outcome.response)), 1)
            if outcome.fleeting:
                self.kept = 0
        self.journeys[f] = None
        if at == 0:
            self.handoff.journey(f, journey, None)
            return 0
        return self.deliver(f, at)

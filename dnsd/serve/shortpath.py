"""Recursion on the compiled path: a question that one datagram answers, from the client's packet to its answer.

Compiled by Cython with the types in `shortpath.pxd`. `resolve.shortcut` says whom to ask, and what a reply is worth; here
is the flight: its port and id, who waits for it, and when. Each question leaves through a socket of its own.
What `shortcut` leaves alone goes to the generators, with the reply where one has come.
"""

from typing import Any

import cython

if not cython.compiled:
    from dnsd.contract.codes import ACTION_ALIAS, COUNT_UPSTREAM_QUERIES
    from dnsd.contract.query import Query
    from dnsd.resolve.shortcut import Shortcut, Start
    from dnsd.serve.flightpath import FlightPath
    from dnsd.serve.flighttable import FlightTable
    from dnsd.serve.latepath import LatePath

_ROUTES = 1024
_AUTHORITY = 16  # in place of the number of a pool


class ShortPath(FlightPath):
    """A query path with forwarding, and with recursion for as long as `shortcut` is set."""

    def __init__(self, slot: int, counters: object, ring: object, arena: object, identity: str = "nexoraldns") -> None:
        FlightPath.__init__(self, slot, counters, ring, arena, identity)
        self.shortcut: Shortcut | None = None
        self.starts: list[Start | None] = [None] * self.flights.flights
        self.kinds = memoryview(bytearray(4 * _ROUTES)).cast("i")

    def install(self, policy: object, names: object, generation: int, revision: str) -> None:
        """As `FlightPath.install`; the numbers of routes mean others now."""
        FlightPath.install(self, policy, names, generation, revision)
        for i in range(_ROUTES):
            self.kinds[i] = 0

    def asked(self, f: int) -> tuple[str, int]:
        """As `FlightPath.asked`."""
        if self.flights.pool[f] != _AUTHORITY:
            return FlightPath.asked(self, f)
        start = self.starts[f]
        return start.server if start is not None else ("", 0)

    def begun(self, f: int) -> Any:
        """As `FlightPath.begun`."""
        return self.starts[f] if self.flights.pool[f] == _AUTHORITY else None

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
        bits: cython.int = q.do | ((q.flags >> 3) & 2)
        route: cython.int = self.v.route
        mark: cython.int
        stale: cython.int
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
        if self.shortcut is None:
            return LatePath.defer(self, q, i, fd)
        self.shortcut.clock(self.now)
        start = self.shortcut.begin(bytes(s.name[: s.name_length]), q.qtype, q.do != 0, q.flags & 16 != 0, self.mono_ms)
        if start is None:
            return LatePath.defer(self, q, i, fd)
        f = t.start(s.name, s.name_length, s.hash_policy[0], q.qtype, bits, mark, self.generation)
        if f < 0:
            return self.overloaded(q, i)
        j = t.join(f)
        if j < 0:
            t.release(f)
            return self.overloaded(q, i)
        stale = self.cache.event == 3 and self.stale_s > 0
        if self.dispatch(f, start) == 0:
            t.leave(j)
            t.release(f)
            return LatePath.defer(self, q, i, fd)
        if t.slot[f] >= 0 and stale:
            self.promise(f)
        return self.park(j, q, i, fd)

    def renew(self, q: Query, s: Query) -> cython.int:
        """As `FlightPath.renew`; what recursion renews is left to the generators, which do so whatever comes of it."""
        if q.qclass != 1 or self.v.route <= 0 or self.v.route >= 1024 or self.recurses(self.v.route) == 0:
            return FlightPath.renew(self, q, s)
        return LatePath.renew(self, q, s)

    def dispatch(self, f: cython.int, start: Start) -> cython.int:
        """Write a flight's question; it leaves with the batch. 0 when no socket is to be had."""
        slot: cython.int = self.lanes.dial(start.server[0], start.server[1])
        wire: bytes = start.wire
        deadline: cython.ulonglong = self.mono_ms + start.patience_ms
        number: cython.int
        at: cython.int = self.queued * self.out_size
        size: cython.int
        k: cython.int
        out = self.question

        if slot < 0:
            return 0
        size = cython.cast(cython.int, len(wire))
        number = self.lanes.chance()
        out[at] = number >> 8
        out[at + 1] = number & 255
        for k in range(2, size):
            out[at + k] = wire[k]
        self.question_lengths[self.queued] = size
        self.question_lines[self.queued] = slot
        self.question_flights[self.queued] = f
        self.starts[f] = start
        self.flights.send(f, slot, number, _AUTHORITY, deadline, self.mono_ms)
        self.due_by(deadline)
        self.queued += 1
        self.count(COUNT_UPSTREAM_QUERIES)
        if self.queued == 64:
            self.depart()
        return 1

    def land(self, f: cython.int, base: cython.int, size: cython.int) -> cython.int:
        """As `FlightPath.land`."""
        t: FlightTable = self.flights
        start: Start | None
        shortcut: Shortcut | None = self.shortcut
        reply: bytes
        made: bytes | None = None
        at: cython.int = 0

        if t.pool[f] != _AUTHORITY:
            return FlightPath.land(self, f, base, size)
        start = self.starts[f]
        reply = bytes(self.datagrams[base : base + size])
        if shortcut is not None and start is not None:
            shortcut.clock(self.now)
            made = shortcut.end(start, reply, self.mono_ms - t.sent[f])
        if made is not None:
            at = self.keep(f, memoryview(made), 0, cython.cast(cython.int, len(made)))
        if at == 0:
            self.handoff.flight(f, reply, "", 0)
            return 0
        self.starts[f] = None
        self.lanes.settle(t.slot[f], 0)
        return self.deliver(f, at)

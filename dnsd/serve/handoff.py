"""From the compiled path to the generators: flights whose first try was no success, with what is known about them.

Plain Python, for it is not the rule. While packets are being worked on flights are only put aside
here; `collect` then makes `Miss` records of those who wait.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dnsd.serve.flightpath import FlightPath

# A header that says: there is more of it over TCP. What a forger is busy with is asked there as well, where he
# would have to guess sequence numbers.
TRUNCATED = b"\x00\x00\x82\x00\x00\x00\x00\x00\x00\x00\x00\x00"
LATE = "late"


@dataclasses.dataclass(frozen=True, slots=True)
class Retry:
    """A flight for the generators: `misses` wait, `server` was asked at `started_ms`, and `wire` or `error` came of it.

    With LATE as `error` it has been handed over before, and `wire` is the answer after all.

    Of a recursion: `journey` is as far as it has come (`resolve.shortcut.Journey`), or `tried` what it begins with.
    """

    flight: int
    server: tuple[str, int]
    started_ms: int
    wire: bytes | None
    error: str
    misses: list[Any]
    journey: Any = None
    tried: Any = None


class Handoff:
    """Flights of one query path on their way to the generators."""

    def __init__(self, path: FlightPath) -> None:
        self._path = path
        self.pending: list[tuple[int, tuple[str, int], bytes | None, str, tuple[Any, Any]]] = []
        self.silent: list[tuple[str, int]] = []  # who was silent in a race; taken by whoever keeps account

    def flight(self, f: int, wire: bytes | None, error: str, late: int) -> None:
        """Put one aside. `late`: its answer may still come."""
        path = self._path
        if path.travels(f, wire, error, late):
            return
        if path.awaited(f):
            path.fallen(f, late)
            return
        server = path.lanes.servers[path.flights.pool[f]]
        if not (error == "timeout" and path.linger(f)):
            f = path.fallen(f, late)
        if f < 0:  # others of the race are under way
            if error in ("timeout", "unreachable"):
                self.silent.append(server)
            return
        if wire is None and error in ("truncated", "forged"):
            wire = TRUNCATED
        self.pending.append((f, server, wire, "" if wire else error, (None, None)))
        path.flights.hand(f)

    def late(self, f: int, wire: bytes | None) -> None:
        """What has come for a flight that was handed over: an answer, or with None nothing that is better than to wait."""
        path = self._path
        lead, server = path.flights.lead[f], path.lanes.servers[path.flights.pool[f]]
        path.fallen(f, 0)
        if wire is not None:
            self.pending.append((lead, server, wire, LATE, (None, None)))

    def journey(self, f: int, journey: Any, tried: Any) -> None:
        """Put a recursion aside: it asks for what is not done here, or there is nothing to be had."""
        self.pending.append((f, ("", 0), None, "", (journey, tried)))
        self._path.flights.hand(f)

    def line(self, slot: int, but: int, error: str = "unreachable") -> None:
        """Put aside everything that waits on a socket, except for one flight: nobody listens there, or a forger is at work."""
        f = self._path.flights.on_slot(slot, 0)
        while f >= 0:
            if f != but:
                self.flight(f, None, error, 0)
            f = self._path.flights.on_slot(slot, f + 1)
        if error == "forged":
            self._path.lanes.retire(slot)

    def cleared(self, pool: int) -> None:
        """A server that was under suspicion has answered."""
        self._path.lanes.suspect[pool] = 0
        if self._path.proven is not None:
            self._path.proven(self._path.lanes.servers[pool])

    def everything(self) -> None:
        """Put aside all that is under way."""
        for f in range(self._path.flights.flights):
            if self._path.flights.slot[f] >= 0 and self._path.flights.state[f] == 1:
                self.flight(f, None, "timeout", 1)

    def collect(self) -> list[Retry]:
        """Those who wait, as misses; a flight whose clients could be answered after all is released."""
        path = self._path
        pending, self.pending = self.pending, []
        found = []
        others, path.misses = path.misses, []
        for f, server, wire, error, journey in pending:
            if error == LATE:
                found.append(Retry(f, server, 0, wire, LATE, []))
                continue
            j = path.flights.first[f]
            started_ms = path.flights.started[j] if j >= 0 else path.mono_ms
            while j >= 0:
                j = path.waited(j)
            misses, path.misses = path.misses, []
            if misses:
                found.append(Retry(f, server, started_ms, wire, error, misses, *journey))
            else:
                path.landed(f)
        path.misses = others
        if path.replies:
            path.answer_all()
        return found

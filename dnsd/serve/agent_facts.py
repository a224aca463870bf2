"""Keeps the node's facts right: gates as time passes, clients from the settings, our addresses, leases' servers.

Writes only when something has changed. Timers are monotonic; gates follow the wall clock, which is
looked at anew at least every five seconds, so that a clock that is set flips them too.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections.abc import Callable, Iterable

from dnsd.contract import facts
from dnsd.contract.facts import Facts, FactsError
from dnsd.serve.agent_workers import Loaded, Shared

LOOK_AGAIN_S = 5.0


class FactsKeeper:
    """The only writer of a node's facts. `told(version)` is called after each write."""

    def __init__(
        self,
        shared: Shared,
        allow: Iterable[facts.Network],
        special_use: bool,
        told: Callable[[int], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._shared = shared
        self._v4, self._v6 = facts.intervals(allow)
        self._flags = facts.FLAG_SPECIAL_USE if special_use else 0
        self._told = told
        self._now = now
        self._tables: tuple[Loaded | None, Loaded | None] = (None, None)
        self._own: tuple[bytes, ...] = ()
        self._self: tuple[bytes, ...] = ()
        self._lease: tuple[tuple[bytes, int, int], ...] = ()
        self._timer: asyncio.TimerHandle | None = None
        self.written = Facts()
        try:
            self._version = facts.decode(shared.facts_read()).version
        except facts.FactsError:
            self._version = 0

    @property
    def version(self) -> int:
        """The version of the facts that are in force."""
        return self._version

    def own_addresses(self, addresses: Iterable[bytes], told: Iterable[bytes]) -> None:
        """The kernel says which addresses are ours (16 octets each); `told` those that `address: self` answers with."""
        self._own, self._self = tuple(sorted(set(addresses))), tuple(told)
        self.refresh()

    def lease_servers(self, servers: Iterable[tuple[bytes, int, int]]) -> None:
        """The DNS servers of the leases: address, port, interface number."""
        self._lease = tuple(servers)
        self.refresh()

    def tables(self, committed: Loaded | None, prepared: Loaded | None) -> None:
        """The tables whose gates count. Raises FactsError, nothing changed, when they cannot be computed here."""
        before, self._tables = self._tables, (committed, prepared)
        try:
            self._come_back(self._write())
        except FactsError:
            self._tables = before
            raise

    def refresh(self) -> None:
        """Compute, write when different, and come back at the next flip."""
        delay = LOOK_AGAIN_S
        try:
            delay = self._write()
        except FactsError:
            pass  # the time zones have gone; what was computed last stays in force
        self._come_back(delay)

    def _come_back(self, delay_s: float) -> None:
        self.stop()
        self._timer = asyncio.get_running_loop().call_later(delay_s, self.refresh)

    def _write(self) -> float:
        """Write the facts if they are new; returns the seconds until they must be looked at again."""
        now = self._now()
        ask_again = math.inf
        gates = [b"", b""]
        for number, table in enumerate(self._tables):
            if table is not None:
                gates[number], flip = facts.gates_from_json(table.gates_json, now)
                ask_again = min(ask_again, flip)
        committed, prepared = self._tables
        new = Facts(
            version=self._version,
            gates=gates[0],
            flags=self._flags,
            v4=self._v4,
            v6=self._v6,
            own=self._own,
            lease=self._lease,
            generation=committed.local if committed else 0,
            next_gates=gates[1],
            next_generation=prepared.local if prepared else 0,
            self_addresses=self._self,
        )
        if new != self.written:
            new = dataclasses.replace(new, version=self._version + 1)
            self._shared.facts_write(facts.encode(new))
            self._version, self.written = new.version, new
            self._told(self._version)
        return min(max(0.0, ask_again - now), LOOK_AGAIN_S) + 0.001

    def stop(self) -> None:
        """No more flips."""
        if self._timer is not None:
            self._timer.cancel()

"""What the agent makes of the kernel's addresses: facts at once, and one event a change for people.

A DHCP client takes the old address away and adds the new one within a few milliseconds: the facts follow
each step, the event tells the whole, `QUIET_S` after the first. It also says how long a step took at most, from
the kernel's word until every worker had its new sockets where it needs any (`bindings`): a client's own pauses
between two steps do not count; and how many questions came from the first step to the last.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dnsd.contract.facts import MOST_SELF, packed, unpacked
from dnsd.serve.listener import Place
from dnsd.serve.netlink import Address, Kernel

QUIET_S = 0.25
SILENT_S = 2.0  # how long an event waits for workers to take their sockets
MOST_OWN = 1024
MOST_EVENTS = 64  # that wait for a broker; the oldest go first
MOST_ADDRESSES = 32  # in one event
_REMEMBERED = 256


def self_addresses(rows: Sequence[Address], interfaces: Mapping[int, str], places: Iterable[Place]) -> list[bytes]:
    """The addresses that `address: self` stands for: those that others may be told of and that are listened on.

    When every entry of `listen` names an interface, only theirs; fixed addresses count when they are there; otherwise
    (wildcards, or nothing but loopback is listened on) all that the machine has.
    """
    lasting = [row for row in rows if row.lasting]
    places = list(places)
    chosen = {
        row.address
        for row in lasting
        for place in places
        if (place.device is not None and place.device == interfaces.get(row.index))
        or (place.address is not None and not place.wildcard and packed(place.address.partition("%")[0]) == row.address)
    }
    if not chosen or any(place.device is None and place.wildcard for place in places):
        chosen = {row.address for row in lasting}
    return sorted(chosen, key=lambda address: (unpacked(address).version, address))[:MOST_SELF]


@dataclasses.dataclass(slots=True)
class _Change:
    """One interface's change that is still going on."""

    old: list[str]
    queries: int
    answered: int
    took_ms: float = 0.0  # the longest step
    waiting: dict[int, set[int]] = dataclasses.field(default_factory=dict)  # binding → slots that must take it
    begun_ms: dict[int, float] = dataclasses.field(default_factory=dict)  # binding → when the kernel told


class Addresses:
    """Watches the kernel. `changed(kernel)` is called at the start and after each change, at once.

    `queries()` counts the questions that the workers have received, `slots()` gives the slots whose workers run.
    """

    def __init__(
        self,
        changed: Callable[[Kernel], None],
        queries: Callable[[], int],
        slots: Callable[[], Iterable[int]],
        log: Any,
    ) -> None:
        self._changed = changed
        self._queries = queries
        self._slots = slots
        self._log = log
        self._kernel: Kernel | None = None
        self._known: dict[str, list[str]] = {}
        self._open: dict[str, _Change] = {}
        self._taken: dict[int, set[int]] = {}  # binding → slots that listen; kept for the order of messages
        self._events: list[dict[str, Any]] = []
        self.dropped = 0
        self.changes = 0  # since the start
        self.last_ms = 0  # how long the last one took

    def start(self) -> None:
        """Subscribe. Raises OSError where there is no rtnetlink (some sandboxes)."""
        self._kernel = Kernel()
        self._known = self._texts(self._kernel)
        asyncio.get_running_loop().add_reader(self._kernel.fileno(), self._readable)
        self._changed(self._kernel)

    def stop(self) -> None:
        """Unsubscribe."""
        if self._kernel is not None:
            asyncio.get_running_loop().remove_reader(self._kernel.fileno())
            self._kernel.close()
            self._kernel = None

    def events(self) -> list[dict[str, Any]]:
        """The events since the last call, as a REPORT carries them."""
        events, self._events = self._events, []
        return events

    @staticmethod
    def _texts(kernel: Kernel) -> dict[str, list[str]]:
        return {name: [str(row) for row in rows] for name, rows in kernel.by_interface().items()}

    def _readable(self) -> None:
        assert self._kernel is not None
        begun_ms = _now_ms()
        try:
            if not self._kernel.read():
                return
        except OSError as error:
            self._log.error("the kernel's address events cannot be read", error=str(error))
            return
        before = self._queries()
        self._changed(self._kernel)
        now = self._texts(self._kernel)
        for name in now.keys() | self._known.keys():
            if now.get(name, []) != self._known.get(name, []):
                self._done(self._change(name, before), begun_ms)
        self._known = now

    def _change(self, name: str, queries: int) -> _Change:
        change = self._open.get(name)
        if change is None:
            change = _Change(self._known.get(name, []), queries, queries)
            self._open[name] = change
            asyncio.get_running_loop().call_later(QUIET_S, self._close, name, SILENT_S - QUIET_S)
        return change

    # --- sockets that the supervisor has made, and workers that have taken them ---------------------------------------

    def rebound(self, message: Mapping[str, Any]) -> None:
        """The supervisor has bound new sockets and handed them out."""
        name, number, begun = message.get("interface"), message.get("binding"), message.get("begun_ms")
        if not isinstance(name, str) or not isinstance(number, int) or not isinstance(begun, int):
            return
        change = self._change(name, self._queries())
        waiting = set(self._slots()) - self._taken.get(number, set())
        if waiting:
            change.waiting[number], change.begun_ms[number] = waiting, float(begun)
        else:
            self._done(change, float(begun))

    def listening(self, slot: int, number: int) -> None:
        """A worker reads its new sockets."""
        self._taken.setdefault(number, set()).add(slot)
        while len(self._taken) > _REMEMBERED:
            del self._taken[next(iter(self._taken))]
        for change in self._open.values():
            waiting = change.waiting.get(number)
            if waiting is not None:
                waiting.discard(slot)
                if not waiting:
                    del change.waiting[number]
                    self._done(change, change.begun_ms[number])

    def _done(self, change: _Change, begun_ms: float) -> None:
        change.took_ms = max(change.took_ms, _now_ms() - begun_ms)
        change.answered = self._queries()

    def _close(self, name: str, patience_s: float) -> None:
        """The change is over, or goes on: then look again in a moment."""
        change = self._open[name]
        if change.waiting and patience_s > 0:
            alive = set(self._slots())
            for number, waiting in list(change.waiting.items()):
                if not waiting & alive:  # who was forked since has inherited the sockets
                    del change.waiting[number]
            asyncio.get_running_loop().call_later(QUIET_S, self._close, name, patience_s - QUIET_S)
            return
        del self._open[name]
        old, new = change.old, self._known.get(name, [])
        if change.waiting:
            self._log.warning("workers have not taken their new sockets", interface=name, slots=change.waiting)
        if old == new and not change.took_ms:
            return
        event = {
            "v": 1, "source": "kernel", "reason": _reason(old, new), "kind": _kind(old, new), "interface": name[:15],
            "old": old[:MOST_ADDRESSES], "new": new[:MOST_ADDRESSES],
            "duration_ms": math.ceil(change.took_ms),
            "queries": max(0, change.answered - change.queries),
        }  # fmt: skip
        self._log.info("addresses changed", **{key: event[key] for key in ("interface", "old", "new", "duration_ms")})
        self.changes += 1
        self.last_ms = math.ceil(change.took_ms)
        self._events.append(event)
        if len(self._events) > MOST_EVENTS:
            del self._events[0]
            self.dropped += 1


def _reason(old: list[str], new: list[str]) -> str:
    added, removed = set(new) - set(old), set(old) - set(new)
    if added and removed:
        return "replaced"
    return "added" if added else "removed" if removed else "renewed"


def _kind(old: list[str], new: list[str]) -> str:
    return "same" if old == new else "up" if not old else "down" if not new else "change"


def _now_ms() -> float:
    return time.monotonic_ns() / 1e6

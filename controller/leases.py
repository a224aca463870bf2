"""What DHCP clients said about each interface's leases, and what is new in it (schemas/PROTOCOL.md, Events).

Pure. Clients repeat themselves, come in bunches and leave things out: two of the five tell no old address, and most
call their hooks for a renewal that changes nothing. Here the last word about each lease counts, and only a difference
is news. A lease that has outlived its time has ended, whether or not anybody says so; and what has ended is remembered
too, for nodes that were not there to hear it. Everything in here came from a DHCP server: the broker's codec has
checked its form, nothing more. Times are milliseconds since the boot.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from dnsd.contract import messages

ALL = "all"
MOST_INTERFACES = 256
MOST_DISORDER_MS = 10_000  # a hook's program lives 5 s at most; an earlier `at` than this is another boot's
GRACE_MS = 5000  # a client that is told to go on until the very end says so itself, and its word comes first
MOST_PENDING = 64  # of one interface within 250 ms; more are dropped, oldest first

Place = tuple[str, str]  # the node's name, the interface


@dataclasses.dataclass(frozen=True, slots=True)
class Lease:
    """The last EVENT about one lease."""

    source: str
    reason: str
    addresses: tuple[str, ...]
    dns: tuple[str, ...]
    search: tuple[str, ...]
    ends_ms: int = 0  # 0: nobody has said

    def over(self, now_ms: int) -> bool:
        """Whether its time is over."""
        return 0 < self.ends_ms <= now_ms - GRACE_MS


class Leases:
    """`hear` events, then ask `news` for a place once it has been quiet. `counts` is for metrics."""

    def __init__(self) -> None:
        self._known: dict[Place, dict[str, Lease]] = {}
        self._ended: dict[Place, Lease] = {}  # the last of an interface that has none any more
        self._pending: dict[Place, list[Mapping[str, Any]]] = {}
        self._at: dict[tuple[Place, str], int] = {}
        self.counts: Counter[str] = Counter()

    def hear(self, node: str, event: Mapping[str, Any]) -> bool:
        """Take an event in; True when others of its interface are waiting already."""
        place = (node, str(event.get("interface", "")))
        waiting = self._pending.setdefault(place, [])
        coalesced = bool(waiting)
        waiting.append(event)
        del waiting[:-MOST_PENDING]
        self.counts["heard"] += 1
        self.counts["coalesced"] += coalesced
        self.counts["values_refused"] += event.get("refused", 0)
        return coalesced

    def news(self, node: str, interface: str, now_ms: int = 0) -> dict[str, Any] | None:
        """The one EVENT that the waiting ones come to, or None when nothing is new."""
        place = (node, interface)
        waiting = self._pending.pop(place, [])
        if not waiting:
            return None
        before = self._known.get(place, {})
        after = dict(before)
        touched: set[str] = set()
        told_old: dict[str, list[str]] = {}
        if all("at" in event for event in waiting):
            waiting.sort(key=lambda event: int(event["at"]))
        for event in waiting:
            lease, kind = event.get("lease", ALL), event.get("kind") or ("up" if event.get("new") else "down")
            if kind == "same" and not event.get("new") and not event.get("dns"):
                continue  # nothing of it was fit to be told
            if self._late(place, lease, event.get("at")):
                self.counts["late"] += 1
                continue
            touched.add(lease)
            told_old.setdefault(lease, event.get("old", []))
            if lease == ALL:
                after.clear()
            known = _lease(event, now_ms)
            if kind == "down" or known.over(now_ms):
                after.pop(lease, None)
            else:
                after[lease] = known
        old = _addresses(before, touched) or list(dict.fromkeys(chain.from_iterable(told_old.values())))
        new = _addresses(after, touched)
        kind = _kind(old, new)
        self._keep(place, after)
        if touched and not after:
            self._keep_ended(place, _lease(waiting[-1], 0))
        if not touched or (kind == "same" and _servers(before) == _servers(after)) or (kind == "down" and not old):
            self.counts["unchanged"] += 1
            return None
        self.counts[kind] += 1
        last = waiting[-1]
        return self._event(interface, last["source"], last["reason"], kind, after, now_ms) | {
            "lease": touched.pop() if len(touched) == 1 else ALL, "old": old[: messages.MAX_ADDRESSES],
            "new": new[: messages.MAX_ADDRESSES], "refused": sum(event.get("refused", 0) for event in waiting),
        }  # fmt: skip

    def _late(self, place: Place, lease: str, at: int | None) -> bool:
        """Whether a later word about the same lease has been told already; notes this one's time if not."""
        if at is None:
            return False
        last = max(self._at.get((place, lease), 0), self._at.get((place, ALL), 0))
        if last - MOST_DISORDER_MS < at < last:
            return True
        self._at.pop((place, lease), None)
        self._at[(place, lease)] = at
        if len(self._at) > 4 * MOST_INTERFACES:
            del self._at[next(iter(self._at))]
        return False

    def expire(self, now_ms: int) -> list[Place]:
        """Where leases have outlived their time; that they have ended waits there to be `news`."""
        places = []
        for place, leases in self._known.items():
            over = [(name, lease) for name, lease in leases.items() if lease.over(now_ms)]
            for name, lease in over:
                self.hear(place[0], {"source": lease.source, "reason": "overdue", "interface": place[1], "lease": name,
                                     "kind": "down"})  # fmt: skip
            if over:
                places.append(place)
        return places

    def next_end_ms(self) -> int | None:
        """When `expire` may find something."""
        ends = [lease.ends_ms for leases in self._known.values() for lease in leases.values() if lease.ends_ms]
        return min(ends) + GRACE_MS if ends else None

    def _keep_ended(self, place: Place, lease: Lease) -> None:
        self._ended.pop(place, None)
        self._ended[place] = lease
        if len(self._ended) > MOST_INTERFACES:
            del self._ended[next(iter(self._ended))]

    def _keep(self, place: Place, leases: dict[str, Lease]) -> None:
        self._known.pop(place, None)
        if leases:
            self._known[place] = leases
            self._ended.pop(place, None)
        if len(self._known) > MOST_INTERFACES:
            del self._known[next(iter(self._known))]

    def current(self, now_ms: int = 0) -> Iterator[tuple[str, dict[str, Any]]]:
        """(node, EVENT) for each interface that has or had a lease: what a node that has just connected must know."""
        for place in (*self._known, *self._ended):
            event = self.standing(place, now_ms)
            if event is not None:
                yield place[0], event

    def standing(self, place: Place, now_ms: int) -> dict[str, Any] | None:
        """How things are at a place: `same`, `down` where the last lease has ended, None where there was none."""
        known = self._known.get(place, {})
        leases = {name: lease for name, lease in known.items() if not lease.over(now_ms)}
        last = list(known.values())[-1] if known else self._ended.get(place)
        if last is None:
            return None
        addresses = _addresses(leases, {ALL})[: messages.MAX_ADDRESSES]
        return self._event(place[1], last.source, last.reason, "same" if leases else "down", leases, now_ms) | {
            "lease": ALL, "old": addresses, "new": addresses, "refused": 0,
        }  # fmt: skip

    def _event(
        self, interface: str, source: str, reason: str, kind: str, leases: Mapping[str, Lease], now_ms: int
    ) -> dict[str, Any]:
        dns, search = _servers(leases)
        event: dict[str, Any] = {
            "v": 1, "source": source, "reason": reason, "kind": kind, "dns": dns, "search": search,
        }  # fmt: skip
        if leases and all(lease.ends_ms for lease in leases.values()):
            event["lifetime"] = max(0, max(lease.ends_ms for lease in leases.values()) - now_ms) // 1000
        return event | ({"interface": interface} if interface else {})

    # --- a restart of the controller must not forget the lease's servers ----------------------------------------------

    def save(self) -> list[dict[str, Any]]:
        """JSON values for `restore`."""
        return [
            {"node": node, "interface": interface, "lease": name, "ended": (node, interface) in self._ended,
             **dataclasses.asdict(lease)}
            for (node, interface), leases in (*self._known.items(), *((p, {ALL: e}) for p, e in self._ended.items()))
            for name, lease in leases.items()
        ]

    def restore(self, rows: Iterable[Any]) -> None:
        """Take up what `save` gave; rows that no broker would have let in are left out."""
        for row in rows:
            if not isinstance(row, dict):
                continue
            event = {key: row.get(key, []) for key in ("source", "reason", "lease", "dns", "search")}
            event["new"] = row.get("addresses", [])
            if row.get("interface"):
                event["interface"] = row["interface"]
            try:
                messages.encode(messages.EVENT, event)
            except messages.FrameError:
                continue
            place = (str(row.get("node", "")), event.get("interface", ""))
            ends = row.get("ends_ms")
            lease = dataclasses.replace(_lease(event, 0), ends_ms=ends if isinstance(ends, int) and ends > 0 else 0)
            if row.get("ended") is True:
                self._keep_ended(place, lease)
            else:
                self._known.setdefault(place, {})[event["lease"]] = lease


def _lease(event: Mapping[str, Any], now_ms: int) -> Lease:
    """A lease of which this is the last word, heard at `now_ms` at the latest."""
    lifetime = event.get("lifetime", 0)
    return Lease(
        event["source"],
        event["reason"],
        tuple(event.get("new", ())),
        tuple(event.get("dns", ())),
        tuple(event.get("search", ())),
        ends_ms=min(event.get("at", now_ms), now_ms) + 1000 * lifetime if lifetime else 0,
    )


def _addresses(leases: Mapping[str, Lease], touched: set[str]) -> list[str]:
    chosen = leases.values() if ALL in touched else [leases[name] for name in sorted(touched & leases.keys())]
    return list(dict.fromkeys(address for lease in chosen for address in lease.addresses))


def _servers(leases: Mapping[str, Lease]) -> tuple[list[str], list[str]]:
    """The DNS servers and domains of all leases of an interface, each once, as many as an EVENT holds."""
    dns = dict.fromkeys(server for name in sorted(leases) for server in leases[name].dns)
    search = dict.fromkeys(domain for name in sorted(leases) for domain in leases[name].search)
    return list(dns)[: messages.MAX_ADDRESSES], list(search)[: messages.MAX_DOMAINS]


def _kind(old: list[str], new: list[str]) -> str:
    """Compared without prefix lengths, which some clients tell and some do not."""
    before, after = ({address.partition("/")[0] for address in addresses} for addresses in (old, new))
    return "same" if before == after and after else "down" if not after else "change" if before else "up"

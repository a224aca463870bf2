# cython: wraparound=True, annotation_typing=False
"""What authorities have told: RRsets by rank, negative answers, delegations, and what failed lately. Bounded.

Pure: `clock` hands in the wall clock (ages follow it; DESIGN: clocks); failures are timers and take the monotonic one.
Nothing outlives its TTL: when the wall clock steps back, everything stored is taken for stored now.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from dnsd.contract import codes, names
from dnsd.resolve.rrsets import RRset

# How much an RRset is to be trusted (RFC 2181, section 5.4.1). Lower never replaces higher; ANSWER and above answer.
ADDITIONAL = 1
AUTHORITY = 2  # the authority section of an authoritative answer
ANSWER = 3  # the answer section, but not authoritative or behind an alias
AUTHORITATIVE = 4

NEGATIVE_LIMIT_S = 3 * 3600  # RFC 2308, section 5: one to three hours
FAILURE_MS = 5000  # RFC 9520, section 3.2: at least 1 s; doubles while it goes on failing
FAILURE_LIMIT_MS = 300_000
_NXDOMAIN = 0  # the type under which a whole name is denied
_OVERHEAD = 320  # octets of an entry beside its data, about


@dataclasses.dataclass(frozen=True)
class Denial:
    """NXDOMAIN (`rcode` 3) or NODATA. `authority` proves it: a SOA, NSEC and the like; `with_do`: asked with DO."""

    rcode: int
    authority: tuple[RRset, ...]
    with_do: bool = False


@dataclasses.dataclass(frozen=True)
class Delegation:
    """Who serves a zone, as the parent says: names in the order told, and glue as (name, addresses).

    `stored` and `ttl` in seconds of the wall clock; a `ttl` below 0 never ends (root hints).
    """

    zone: bytes
    servers: tuple[bytes, ...]
    glue: tuple[tuple[bytes, tuple[str, ...]], ...]
    stored: int
    ttl: int


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """One thing in the cache, for people. `kind`: rrset, nodata, nxdomain, delegation or failure; `rtype` 0 for a name.

    `left_s`: how long it is still believed. `value` is what is held; of a failure its text.
    """

    kind: str
    name: bytes
    rtype: int
    left_s: int
    value: RRset | Denial | Delegation | str
    rank: int = 0
    signed: bool = False


@dataclasses.dataclass
class _Entry:
    stored: int
    ttl: int
    rank: int
    with_do: bool
    value: RRset | Denial
    size: int


@dataclasses.dataclass
class _Failure:
    until_ms: int
    lasts_ms: int
    ede: int
    text: str


class RRCache:
    """One worker's memory of RRsets. `size_bytes` is approximate; `now` is the wall clock in seconds."""

    def __init__(self, size_bytes: int = 16 << 20, min_ttl: int = 0, max_ttl: int = 86400) -> None:
        self.now = 0
        self.used_bytes = 0
        self._size = size_bytes
        self._min_ttl = min_ttl
        self._max_ttl = max_ttl
        self._entries: dict[tuple[bytes, int], _Entry] = {}
        self._delegations: dict[bytes, Delegation] = {}
        self._failures: dict[tuple[bytes, int], _Failure] = {}
        self._dnames = 0  # DNAMEs in here; none, and nobody looks for them
        self._denied = 0  # NXDOMAINs in here

    def __len__(self) -> int:
        return len(self._entries)

    def clock(self, now: int) -> None:
        """The wall clock in seconds. After a step back everything counts as stored now: nothing is eternal."""
        if now < self.now:
            for entry in self._entries.values():
                entry.stored = min(entry.stored, now)
            for zone, cut in self._delegations.items():
                if cut.stored > now:
                    self._delegations[zone] = dataclasses.replace(cut, stored=now)
        self.now = now

    # --- RRsets ---------------------------------------------------------------------------------------------------

    def get(self, name: bytes, rtype: int, with_do: bool = False, rank: int = ANSWER) -> RRset | None:
        """The RRset with what is left of its TTL; None when there is none of this rank, or no signatures are known."""
        entry = self._live((name, rtype))
        if entry is None or entry.rank < rank or (with_do and not entry.with_do) or not isinstance(entry.value, RRset):
            return None
        rrset: RRset = entry.value
        return rrset.lasting(self._left(entry))

    def put(self, rrset: RRset, rank: int, with_do: bool = False) -> bool:
        """Remember an RRset unless something more trustworthy is known; returns whether it is now what is known.

        Data of a lower rank never makes an RRset live longer, and neither does a zone's own NS RRset at its apex
        (a zone that its parent has taken back would otherwise never end).
        """
        key = (rrset.owner, rrset.rtype)
        old = self._live(key)
        ttl = self._bounded(rrset.ttl)
        if old is not None and isinstance(old.value, RRset):
            if old.rank > rank or (old.with_do and not with_do and old.rank == rank):
                return False
            if rrset.rtype == codes.TYPE_NS:
                ttl = min(ttl, self._left(old))
        if ttl <= 0:
            return False
        self._store(key, _Entry(self.now, ttl, rank, with_do, rrset, _OVERHEAD + _size_of(rrset)))
        return True

    # --- negative answers (RFC 2308) -------------------------------------------------------------------------------

    def denied(self, name: bytes, rtype: int, with_do: bool = False) -> Denial | None:
        """NODATA for the type, or NXDOMAIN for the name or any name above it (RFC 8020)."""
        found = self._denial((name, rtype), with_do)
        if found is not None or not self._denied:
            return found
        while True:
            found = self._denial((name, _NXDOMAIN), with_do)
            if found is not None or name == names.ROOT:
                return found
            name = names.parent(name)

    def deny(self, name: bytes, rtype: int, denial: Denial) -> None:
        """Remember a negative answer; one without a SOA says nothing about how long it holds, and is not.

        Except that a referral shows a DS to be missing by NSEC records, which have a TTL of their own.
        """
        soa = next((rrset for rrset in denial.authority if rrset.rtype == codes.TYPE_SOA), None)
        if soa is None and (rtype != codes.TYPE_DS or not denial.authority):
            return
        least = min(r.ttl for r in denial.authority)
        if soa is not None:
            least = min(least, int.from_bytes(soa.rdatas[0][-4:], "big"))
        ttl = min(self._bounded(least), NEGATIVE_LIMIT_S)
        if ttl <= 0:
            return
        authority = tuple(rrset.lasting(min(rrset.ttl, ttl)) for rrset in denial.authority)
        kept = dataclasses.replace(denial, authority=authority)
        key = (name, _NXDOMAIN if denial.rcode == codes.RCODE_NXDOMAIN else rtype)
        size = _OVERHEAD + sum(_size_of(rrset) for rrset in authority)
        self._store(key, _Entry(self.now, ttl, AUTHORITATIVE, denial.with_do, kept, size))

    def _denial(self, key: tuple[bytes, int], with_do: bool) -> Denial | None:
        entry = self._live(key)
        if entry is None or (with_do and not entry.with_do) or not isinstance(entry.value, Denial):
            return None
        left = self._left(entry)
        authority = tuple(rrset.lasting(min(rrset.ttl, left)) for rrset in entry.value.authority)
        return dataclasses.replace(entry.value, authority=authority)

    # --- aliases --------------------------------------------------------------------------------------------------

    def dname(self, name: bytes, with_do: bool = False) -> RRset | None:
        """The DNAME of the nearest name above (RFC 6672, section 3.2)."""
        if not self._dnames:
            return None
        while name != names.ROOT:
            name = names.parent(name)
            found = self.get(name, codes.TYPE_DNAME, with_do)
            if found is not None:
                return found
        return None

    # --- delegations ----------------------------------------------------------------------------------------------

    def delegation(self, name: bytes) -> Delegation | None:
        """The deepest zone cut known at or above the name."""
        while True:
            cut = self._delegations.get(name)
            if cut is not None:
                if cut.ttl < 0 or self.now - cut.stored < cut.ttl:
                    return cut
                del self._delegations[name]
            if name == names.ROOT:
                return None
            name = names.parent(name)

    def put_delegation(self, cut: Delegation) -> None:
        """Remember who serves a zone, as its parent has just said."""
        ttl = self._bounded(cut.ttl) if cut.ttl >= 0 else -1
        if ttl == 0:
            return
        self._delegations.pop(cut.zone, None)
        if len(self._delegations) >= self._size >> 10:
            self._delegations.pop(next(iter(self._delegations)))
        self._delegations[cut.zone] = dataclasses.replace(cut, ttl=ttl)

    def forget(self, name: bytes, rtype: int) -> None:
        """Forget an RRset, or what denied it: it did not stand validation."""
        for key in ((name, rtype), *((suffix, _NXDOMAIN) for suffix in names.suffixes(name))):
            if key in self._entries:
                self._drop(key)

    def drop_delegation(self, zone: bytes) -> None:
        """Forget who serves a zone, so that its parent is asked again."""
        self._delegations.pop(zone, None)

    # --- failures (RFC 9520) ---------------------------------------------------------------------------------------

    def failed(self, name: bytes, rtype: int, now_ms: int) -> tuple[int, str] | None:
        """The (EDE, text) of what failed a moment ago; None when it may be tried. Monotonic milliseconds."""
        failure = self._failures.get((name, rtype))
        return (failure.ede, failure.text) if failure is not None and now_ms < failure.until_ms else None

    def fail(self, name: bytes, rtype: int, ede: int, text: str, now_ms: int) -> None:
        """Remember a failure for 5 s, twice as long each time it fails again soon after, at most 5 minutes."""
        old = self._failures.pop((name, rtype), None)
        lasts_ms = FAILURE_MS
        if old is not None and now_ms < old.until_ms + old.lasts_ms:
            lasts_ms = min(old.lasts_ms * 2, FAILURE_LIMIT_MS)
        if len(self._failures) >= self._size >> 10:
            self._failures.pop(next(iter(self._failures)))
        self._failures[name, rtype] = _Failure(now_ms + lasts_ms, lasts_ms, ede, text)

    def succeeded(self, name: bytes, rtype: int) -> None:
        """The name resolves again."""
        if self._failures:
            self._failures.pop((name, rtype), None)

    def forget_failures(self) -> None:
        """What failed may be right now."""
        self._failures.clear()

    # --- all ------------------------------------------------------------------------------------------------------

    def held(self, matches: Callable[[bytes], bool], now_ms: int) -> list[Held]:
        """Everything about the names for which this is true, and is still believed."""
        found = []
        for (name, rtype), entry in self._entries.items():
            if matches(name) and (left := self._left(entry)) > 0:
                kind = "rrset" if isinstance(entry.value, RRset) else "nxdomain" if rtype == _NXDOMAIN else "nodata"
                found.append(Held(kind, name, rtype, left, entry.value, entry.rank, entry.with_do))
        for zone, cut in self._delegations.items():
            left = cut.ttl - max(0, self.now - cut.stored)
            if matches(zone) and left > 0:
                found.append(Held("delegation", zone, codes.TYPE_NS, left, cut))
        for (name, rtype), failure in self._failures.items():
            if matches(name) and now_ms < failure.until_ms:
                left = (failure.until_ms - now_ms + 999) // 1000
                found.append(Held("failure", name, rtype & 0xFFFF, left, failure.text))
        return found

    def flush(self, matches: Callable[[bytes], bool]) -> int:
        """Forget everything about the names for which this is true; returns how many things that were."""
        keys = [key for key in self._entries if matches(key[0])]
        for key in keys:
            self._drop(key)
        zones = [zone for zone in self._delegations if matches(zone)]
        for zone in zones:
            del self._delegations[zone]
        failures = [key for key in self._failures if matches(key[0])]
        for key in failures:
            del self._failures[key]
        return len(keys) + len(zones) + len(failures)

    def _bounded(self, ttl: int) -> int:
        return min(max(ttl, self._min_ttl), self._max_ttl)

    def _left(self, entry: _Entry) -> int:
        return entry.ttl - max(0, self.now - entry.stored)

    def _live(self, key: tuple[bytes, int]) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._left(entry) <= 0:
            self._drop(key)
            return None
        return entry

    def _store(self, key: tuple[bytes, int], entry: _Entry) -> None:
        if key in self._entries:
            self._drop(key)
        while self.used_bytes + entry.size > self._size and self._entries:
            self._drop(next(iter(self._entries)))  # the oldest goes first: what is used is asked for and stored again
        if entry.size > self._size:
            return
        self._entries[key] = entry
        self.used_bytes += entry.size
        self._dnames += key[1] == codes.TYPE_DNAME
        self._denied += key[1] == _NXDOMAIN

    def _drop(self, key: tuple[bytes, int]) -> None:
        entry = self._entries.pop(key)
        self.used_bytes -= entry.size
        self._dnames -= key[1] == codes.TYPE_DNAME
        self._denied -= key[1] == _NXDOMAIN


def _size_of(rrset: RRset) -> int:
    parts = rrset.rdatas + rrset.sigs
    return len(rrset.owner) + sum(len(part) + 50 for part in parts) + sum(_size_of(proof) for proof in rrset.proofs)

"""Denials out of what is known: NSEC and NSEC3 records that were validated deny other names than those asked for, too.

RFC 8198, with the TTLs of RFC 9077. Pure, and a source of evidence only: it hands out the SOA, the records and a
wildcard's data; whoever is given them validates the answer like one from a server. So nothing is made up here that a
server of the zone could not have sent, and no zone cut is crossed (`denial` sees to both). Bounded; the oldest goes.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable

from dnsd.contract import codes, names
from dnsd.resolve import denial, signatures
from dnsd.resolve.rrsets import RRset

LIMIT = 8192  # records, about 1 KiB each
LASTS_S = 3 * 3600  # as other negative answers
_HASHES = 64  # for one question; more labels or iterations than this and a server is asked instead
_NSEC, _NSEC3 = signatures.TYPE_NSEC, signatures.TYPE_NSEC3
_UNASKED = frozenset((codes.TYPE_RRSIG, codes.TYPE_ANY, _NSEC, _NSEC3))


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a server of the zone `apex` would have sent: rcode, a wildcard's data under the name asked for, the proof."""

    apex: bytes
    rcode: int
    answer: tuple[RRset, ...]
    authority: tuple[RRset, ...]


class _Zone:
    """What is known of one zone. `owners` and `hashes` are sorted; `held` has the records and until when they hold."""

    def __init__(self) -> None:
        self.soa: RRset | None = None
        self.soa_until = 0
        self.owners: list[tuple[tuple[bytes, ...], bytes]] = []
        self.hashes: list[bytes] = []
        self.held: dict[bytes, tuple[RRset, int]] = {}  # by owner, or by hash
        self.wildcards: dict[tuple[bytes, int], tuple[RRset, int]] = {}
        self.parameters: tuple[bytes, int] | None = None  # salt and iterations


class Denials:
    """The validated NSEC and NSEC3 records of one worker. Times are seconds of the wall clock."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._now = 0
        self._zones: dict[bytes, _Zone] = {}
        self._order: dict[tuple[bytes, bytes, int], None] = {}  # zone, owner or hash, type: the oldest first

    def __len__(self) -> int:
        return len(self._order)

    def clear(self) -> None:
        """Forget everything."""
        self._zones.clear()
        self._order.clear()

    # --- learning: everything handed in was validated, and the zone is secure ---------------------------------------

    def keep_soa(self, soa: RRset, now: int) -> None:
        """The SOA of a zone: without one nothing can be denied (RFC 2308, section 3)."""
        zone = self._zone(soa.owner, now)
        minimum = int.from_bytes(soa.rdatas[0][-4:], "big")
        zone.soa, zone.soa_until = soa, now + min(soa.ttl, minimum, LASTS_S)

    def keep(self, apex: bytes, rrset: RRset, now: int) -> None:
        """An NSEC or NSEC3 record under its own owner; one with opt-out proves too little and is left out."""
        zone = self._zone(apex, now)
        ttl = min(rrset.ttl, LASTS_S)
        if zone.soa is not None and now < zone.soa_until:
            ttl = min(ttl, zone.soa.ttl, int.from_bytes(zone.soa.rdatas[0][-4:], "big"))  # RFC 9077
        if ttl <= 0 or len(rrset.rdatas) != 1:
            return
        if rrset.rtype == _NSEC:
            key = rrset.owner
            self._drop_hashes(apex, zone)  # of a chain that the zone has given up
            if key not in zone.held:
                insort(zone.owners, (names.order(key), key))
        else:
            read = denial.parameters(rrset)
            if read is None or read.opt_out or read.iterations > denial.ITERATIONS:
                return
            key = read.owner
            if zone.parameters != (read.salt, read.iterations):  # the zone has another chain now
                self._drop_hashes(apex, zone)
                zone.parameters = (read.salt, read.iterations)
            if key not in zone.held:
                insort(zone.hashes, key)
        self._remember(zone.held, key, rrset, now + ttl, (apex, key, rrset.rtype))

    def _drop_hashes(self, apex: bytes, zone: _Zone) -> None:
        for old in list(zone.hashes):
            self._drop(apex, old, _NSEC3)

    def keep_wildcard(self, apex: bytes, owner: bytes, rrset: RRset, now: int) -> None:
        """Data that a wildcard (`owner`) has given to some name."""
        zone = self._zone(apex, now)
        kept = dataclasses.replace(rrset, owner=owner, proofs=())
        until = now + min(rrset.ttl, LASTS_S)
        self._remember(zone.wildcards, (owner, rrset.rtype), kept, until, (apex, owner, -rrset.rtype))

    def _remember(self, where: dict, key: object, rrset: RRset, until: int, order: tuple[bytes, bytes, int]) -> None:  # type: ignore[type-arg]
        self._order.pop(order, None)
        while len(self._order) >= self._limit:
            self._drop(*next(iter(self._order)))
        self._order[order] = None
        where[key] = (rrset, until)

    def _zone(self, apex: bytes, now: int) -> _Zone:
        self._clock(now)
        zone = self._zones.get(apex)
        if zone is None:
            if len(self._zones) >= self._limit:
                self._evict(next(iter(self._zones)))
            zone = self._zones[apex] = _Zone()
        return zone

    def _evict(self, apex: bytes) -> None:
        """Forget a zone whole; costs no more than what is known of it."""
        zone = self._zones.pop(apex)
        for key in zone.held:
            self._order.pop((apex, key, _NSEC), None)
            self._order.pop((apex, key, _NSEC3), None)
        for owner, rtype in zone.wildcards:
            self._order.pop((apex, owner, -rtype), None)

    def _clock(self, now: int) -> None:
        if now < self._now:  # the clock was set back: nothing outlives its TTL
            self.clear()
        self._now = now

    def _drop(self, apex: bytes, key: bytes, rtype: int) -> None:
        self._order.pop((apex, key, rtype), None)
        zone = self._zones[apex]
        if rtype <= 0:
            zone.wildcards.pop((key, -rtype), None)
            return
        if zone.held.pop(key, None) is None:
            return
        if rtype == _NSEC:
            del zone.owners[bisect_left(zone.owners, (names.order(key), key))]
        else:
            del zone.hashes[bisect_left(zone.hashes, key)]

    def forget(self, matches: Callable[[bytes], bool]) -> int:
        """Forget what is known of zones, and of owners, whose names match; returns how many records that were."""
        gone = [each for each in self._order if matches(each[0]) or (each[2] != _NSEC3 and matches(each[1]))]
        for each in gone:
            self._drop(*each)
        for apex in [apex for apex in self._zones if matches(apex)]:
            del self._zones[apex]
        return len(gone)

    def doubt(self, name: bytes, now: int) -> int:
        """Forget what denies a name; returns how many records that were."""
        count = 0
        for qtype in (codes.TYPE_A, codes.TYPE_TXT):
            while (evidence := self.find(name, qtype, now)) is not None:
                proofs = [*evidence.authority, *(p for r in evidence.answer for p in r.proofs)]
                gone = [self._drop_proof(rrset) for rrset in proofs if rrset.rtype in (_NSEC, _NSEC3)]
                if not any(gone):
                    break
                count += sum(gone)
        return count

    def _drop_proof(self, rrset: RRset) -> bool:
        key = rrset.owner
        if rrset.rtype == _NSEC3:
            read = denial.parameters(rrset)
            key = read.owner if read is not None else b""
        apex = key if rrset.rtype == _NSEC else names.parent(rrset.owner)
        while (apex, key, rrset.rtype) not in self._order:
            if apex == names.ROOT:
                return False
            apex = names.parent(apex)
        self._drop(apex, key, rrset.rtype)
        return True

    # --- answering --------------------------------------------------------------------------------------------------

    def find(self, name: bytes, qtype: int, now: int) -> Evidence | None:
        """What denies the name or its type, or the wildcard that answers for it; None when somebody has to be asked.

        The deepest zone of which something is known decides; for DS that is one above the name.
        """
        if not self._order or qtype in _UNASKED:
            return None
        self._clock(now)
        if not self._order:
            return None
        apex = name
        if qtype == codes.TYPE_DS and name != names.ROOT:
            apex = names.parent(name)
        while apex not in self._zones:
            if apex == names.ROOT:
                return None
            apex = names.parent(apex)
        zone = self._zones[apex]
        soa = zone.soa
        if soa is None or zone.soa_until <= now:
            return None
        if zone.hashes:
            return self._by_nsec3(zone, apex, soa, name, qtype, now)
        return self._by_nsec(zone, apex, soa, name, qtype, now)

    def _by_nsec(self, zone: _Zone, apex: bytes, soa: RRset, name: bytes, qtype: int, now: int) -> Evidence | None:
        found = self._before(zone, name, now)
        if found is None:
            return None
        if found.owner == name:
            return self._nothing(zone, apex, soa, name, qtype, now, [found])
        said = denial.Proofs(apex, (found,))
        encloser = said.encloser(name)
        if encloser is None:
            return None
        if said.nodata(name, qtype) == denial.PROVEN:  # an empty non-terminal
            return self._nothing(zone, apex, soa, name, qtype, now, [found])
        wildcard = b"\x01*" + encloser
        if len(wildcard) > names.MAX_NAME:
            return None
        other = self._before(zone, wildcard, now)
        if other is None:
            return None
        if other.owner == wildcard:
            given = self._wildcard(zone, apex, wildcard, name, qtype, [found], now)
            if given is not None:
                return given
        return self._nothing(zone, apex, soa, name, qtype, now, [found] if other is found else [found, other])

    def _by_nsec3(self, zone: _Zone, apex: bytes, soa: RRset, name: bytes, qtype: int, now: int) -> Evidence | None:
        assert zone.parameters is not None
        salt, iterations = zone.parameters
        labels = names.count(name) - names.count(apex)
        if (labels + 2) * (iterations + 1) > _HASHES:
            return None
        match = self._matching(zone, signatures.hashed(name, salt, iterations), now)
        if match is not None:
            return self._nothing(zone, apex, soa, name, qtype, now, [match])
        encloser = name
        while match is None:
            if encloser == apex:
                return None
            nearer, encloser = encloser, names.parent(encloser)
            match = self._matching(zone, signatures.hashed(encloser, salt, iterations), now)
        cover = self._covering(zone, signatures.hashed(nearer, salt, iterations), now)
        wildcard = b"\x01*" + encloser
        if cover is None or len(wildcard) > names.MAX_NAME:
            return None
        hashed = signatures.hashed(wildcard, salt, iterations)
        star = self._matching(zone, hashed, now)
        if star is not None:
            given = self._wildcard(zone, apex, wildcard, name, qtype, [cover], now)
            if given is not None:
                return given
        else:
            star = self._covering(zone, hashed, now)
            if star is None:
                return None
        proof = list({rrset.owner: rrset for rrset in (match, cover, star)}.values())
        return self._nothing(zone, apex, soa, name, qtype, now, proof)

    def _nothing(
        self, zone: _Zone, apex: bytes, soa: RRset, name: bytes, qtype: int, now: int, proof: list[RRset]
    ) -> Evidence | None:
        """The denial that these records prove, if they do."""
        said = denial.Proofs(apex, proof)
        if said.nxdomain(name) == denial.PROVEN:
            rcode = codes.RCODE_NXDOMAIN
        elif said.nodata(name, qtype) == denial.PROVEN:
            rcode = codes.RCODE_NOERROR
        else:
            return None
        ttl = min(zone.soa_until - now, *(rrset.ttl for rrset in proof))
        return Evidence(apex, rcode, (), tuple(rrset.lasting(min(ttl, rrset.ttl)) for rrset in (soa, *proof)))

    def _wildcard(
        self, zone: _Zone, apex: bytes, wildcard: bytes, name: bytes, qtype: int, proof: list[RRset], now: int
    ) -> Evidence | None:
        """The wildcard's data, or its alias, under the name, when it is known (RFC 8198, section 5.3)."""
        if denial.Proofs(apex, proof).wildcard(name, names.count(wildcard) - 1) != denial.PROVEN:
            return None
        for rtype in (qtype, codes.TYPE_CNAME):
            held = zone.wildcards.get((wildcard, rtype))
            if held is not None and held[1] > now:
                ttl = min(held[1] - now, *(rrset.ttl for rrset in proof))
                answer = dataclasses.replace(held[0], owner=name, ttl=ttl, proofs=tuple(proof))
                return Evidence(apex, codes.RCODE_NOERROR, (answer,), ())
        return None

    # --- records ----------------------------------------------------------------------------------------------------

    def _before(self, zone: _Zone, name: bytes, now: int) -> RRset | None:
        """The NSEC whose owner is the name, or the nearest before it."""
        at = bisect_right(zone.owners, (names.order(name), name)) - 1
        return self._live(zone, zone.owners[at][1], now) if at >= 0 else None

    def _matching(self, zone: _Zone, hashed: bytes, now: int) -> RRset | None:
        return self._live(zone, hashed, now)

    def _covering(self, zone: _Zone, hashed: bytes, now: int) -> RRset | None:
        """The NSEC3 whose hash is the nearest before this one; the last one leads round to the first."""
        at = bisect_left(zone.hashes, hashed) - 1
        return self._live(zone, zone.hashes[at], now)

    def _live(self, zone: _Zone, key: bytes, now: int) -> RRset | None:
        held = zone.held.get(key)
        if held is None or held[1] <= now:
            return None
        return held[0].lasting(held[1] - now)

"""What is answered for a name: zones, PTRs, redirects and address replies as ready wire bytes.

CNAME chains inside own zones are followed here, once, so that the query path copies bytes and
follows nothing. Pure. Owners are numbered in a fixed order, so equal rules give equal bytes.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Iterable

from controller.ruleset import Address, RuleSet, Where
from dnsd.contract import codes, layout, names

from . import blob

_QNAME = b"\xc0\x0c"
_CHAIN = 16  # CNAMEs in a row before we call it a loop (checks refuse loops; this only bounds the work)


def _rr(owner: bytes, rtype: int, ttl: int, rdata: bytes) -> bytes:
    return owner + struct.pack(">HHIH", rtype, codes.CLASS_IN, ttl, len(rdata)) + rdata


def _of_self(owner: bytes, rtype: int, rrset: list[tuple[int, bytes]]) -> bytes:
    """The head of the records that `address: self` makes (rdata is empty then): all but the address; else nothing."""
    if rtype not in (codes.TYPE_A, codes.TYPE_AAAA) or any(rdata for _, rdata in rrset):
        return b""
    return owner + struct.pack(">HHIH", rtype, codes.CLASS_IN, rrset[0][0], 4 if rtype == codes.TYPE_A else 16)


@dataclasses.dataclass(slots=True)
class Owned:
    """The RRsets at one owner: qtype → (ttl, rdata) pairs, and where they were written."""

    rrsets: dict[int, list[tuple[int, bytes]]] = dataclasses.field(default_factory=dict)
    where: Where | None = None

    def add(self, rtype: int, ttl: int, rdata: bytes, where: Where) -> None:
        """Add one record; the same record twice is one."""
        rrset = self.rrsets.setdefault(rtype, [])
        if all(rdata != known for _, known in rrset):
            rrset.append((ttl, rdata))
            rrset.sort()
        if self.where is None or where < self.where:
            self.where = where


@dataclasses.dataclass(slots=True)
class OwnZone:
    """A zone as it is answered: exact owners, wildcard owners by their parent, every name that exists."""

    name: bytes
    solo: bool
    where: Where
    owners: dict[bytes, Owned] = dataclasses.field(default_factory=dict)
    wildcards: dict[bytes, Owned] = dataclasses.field(default_factory=dict)
    exists: set[bytes] = dataclasses.field(default_factory=set)

    def owned(self, owner: bytes) -> Owned:
        """The (new) entry of an owner; its ancestors up to the apex exist from now on (RFC 4592, section 2.2.2)."""
        wild = owner.startswith(b"\x01*")
        real = names.parent(owner) if wild else owner
        for name in names.suffixes(real):
            self.exists.add(name)
            if name == self.name:
                break
        return (self.wildcards if wild else self.owners).setdefault(real, Owned())

    def soa(self) -> tuple[int, bytes]:
        """(negative TTL, rdata) of the zone's SOA: the lower of its TTL and its MINIMUM (RFC 2308, section 5)."""
        ttl, rdata = self.owners[self.name].rrsets[codes.TYPE_SOA][0]
        return min(ttl, struct.unpack(">I", rdata[-4:])[0]), rdata


def own_zones(rules: RuleSet) -> dict[bytes, OwnZone]:
    """All zones we answer for, the single reverse names of `ptr: auto` included."""
    zones: dict[bytes, OwnZone] = {}
    for zone in rules.zones.values():
        own = zones[zone.name] = OwnZone(zone.name, False, zone.where)
        for record in zone.records:
            own.owned(record.owner).add(record.rtype, record.ttl, record.rdata, record.where)
    for zone in rules.zones.values():
        if not zone.ptr_auto:
            continue
        for record in sorted(zone.records, key=lambda r: (r.owner, r.rtype, r.rdata)):
            if record.rtype not in (codes.TYPE_A, codes.TYPE_AAAA) or record.owner.startswith(b"\x01*"):
                continue
            if not record.rdata:  # `address: self`; see `self_names`
                continue
            reverse = _reverse(record.rdata)
            home = zones.get(next((n for n in names.suffixes(reverse) if n in zones), b""))
            if home is not None and not home.solo:
                known = home.owners.get(reverse)
                # A PTR that somebody wrote in the reverse zone is the one that counts.
                if known is None or (known.rrsets.keys() == {codes.TYPE_PTR} and known.where == record.where):
                    home.owned(reverse).add(codes.TYPE_PTR, record.ttl, record.owner, record.where)
                continue
            if home is None:
                home = zones[reverse] = OwnZone(reverse, True, record.where)
                timers = struct.pack(">IIIII", 1, 3600, 600, 86400, min(zone.ttl, 10))
                soa = reverse + b"\x0ahostmaster" + reverse + timers if len(reverse) < 240 else reverse * 2 + timers
                home.owned(reverse).add(codes.TYPE_SOA, zone.ttl, soa, record.where)
            home.owned(reverse).add(codes.TYPE_PTR, record.ttl, record.owner, record.where)
    return zones


def self_names(rules: RuleSet) -> tuple[Owned, Where | None]:
    """The PTR records that the reverse names of our own addresses have (`ptr: auto`), and where the first stands."""
    found = Owned()
    for zone in rules.zones.values():
        for record in zone.records:
            if zone.ptr_auto and record.rtype == codes.TYPE_A and not record.rdata and record.owner[:2] != b"\x01*":
                found.add(codes.TYPE_PTR, record.ttl, record.owner, record.where)
    # One set of records has one TTL (RFC 2181, section 5.2).
    found.rrsets = {rtype: [(min(rrset)[0], rdata) for _, rdata in rrset] for rtype, rrset in found.rrsets.items()}
    return found, found.where


def _reverse(rdata: bytes) -> bytes:
    if len(rdata) == 4:
        return names.from_text(".".join(str(octet) for octet in reversed(rdata)) + ".in-addr.arpa")
    return names.from_text(".".join(f"{o & 15:x}.{o >> 4:x}" for o in reversed(rdata)) + ".ip6.arpa")


@dataclasses.dataclass(frozen=True, slots=True)
class _End:
    """Where a chain ends: the RRsets there, or a negative answer of `zone`, or outside at `target`."""

    rrsets: dict[int, list[tuple[int, bytes]]]
    zone: OwnZone | None
    exists: bool
    target: bytes


class Answers:
    """Builds SECTION_OWNERS, SECTION_ANSWERS and SECTION_OWNER_INFO."""

    def __init__(
        self,
        zones: dict[bytes, OwnZone],
        routed: Callable[[bytes], tuple[int, int]],
        name_offset: Callable[[bytes], int],
    ) -> None:
        """`routed(name)` gives (route number + 1, labels of the forward's name, -1 for none)."""
        self._zones = zones
        self._routed = routed
        self._name_offset = name_offset
        self.owners: list[int] = []
        self.infos: list[tuple[Where | None, int]] = []
        self._bytes = bytearray()
        self._interned: dict[bytes, int] = {}

    def put(self, data: bytes) -> int:
        """The offset of these bytes in SECTION_ANSWERS."""
        offset = self._interned.get(data)
        if offset is None:
            offset = self._interned[data] = len(self._bytes)
            self._bytes += data
        return offset

    def zone_of(self, name: bytes) -> OwnZone | None:
        """The own zone that answers for `name`, as `decide` sees it: none below a nearer forward entry."""
        for suffix in names.suffixes(name):
            zone = self._zones.get(suffix)
            if zone is not None and (not zone.solo or suffix == name):
                return None if self._routed(name)[1] > names.count(suffix) else zone
        return None

    def _look(self, name: bytes) -> _End:
        """What stands at `name` in our own zones (RFC 4592 for wildcards)."""
        zone = self.zone_of(name)
        if zone is None:
            return _End({}, None, False, name)
        if name in zone.exists:
            owned = zone.owners.get(name)
            return _End(owned.rrsets if owned else {}, zone, True, b"")
        encloser = next(suffix for suffix in names.suffixes(name) if suffix in zone.exists)
        wild = zone.wildcards.get(encloser)
        return _End(wild.rrsets if wild else {}, zone, wild is not None, b"")

    def owner(
        self,
        rrsets: dict[int, list[tuple[int, bytes]]],
        *,
        where: Where | None,
        zone: int = -1,
        rule: int = -1,
        target: bytes = b"",
    ) -> int:
        """Add an owner; returns its word offset + 1. A CNAME among `rrsets` is followed as far as it stays ours."""
        entries: list[tuple[int, int, int, int, int, int, int]] = []
        cname = rrsets.get(codes.TYPE_CNAME)
        for rtype in sorted(rrsets):
            if head := _of_self(_QNAME, rtype, rrsets[rtype]):
                entries.append((rtype, self.put(head), 0, 0, len(head) << 16, 0, 0))
                continue
            data = b"".join(_rr(_QNAME, rtype, ttl, rdata) for ttl, rdata in rrsets[rtype])
            entries.append((rtype, self.put(data), len(data), len(rrsets[rtype]), 0, 0, 0))
        if cname:
            entries += self._chain(_rr(_QNAME, codes.TYPE_CNAME, *cname[0]), cname[0][1])
        at = len(self.owners)
        target_offset = self._name_offset(target) + 1 if target else 0
        self.owners += [len(entries), len(self.infos), zone + 1, target_offset]
        for entry in entries:
            self.owners += entry
        self.infos.append((where, rule))
        return at + 1

    def _chain(self, data: bytes, sname: bytes) -> Iterable[tuple[int, int, int, int, int, int, int]]:
        hops = 1
        while True:
            end = self._look(sname)
            cname = end.rrsets.get(codes.TYPE_CNAME)
            if cname is None or hops >= _CHAIN:
                break
            data += _rr(sname, codes.TYPE_CNAME, *cname[0])
            sname = cname[0][1]
            hops += 1
        if end.zone is None:
            route = self._routed(sname)[0]
            target = self._name_offset(sname) + 1
            return [(layout.ENTRY_OTHER, self.put(data), len(data), hops, 0, target, route)]
        out = []
        for rtype in sorted(end.rrsets):
            if rtype == codes.TYPE_CNAME:
                continue
            if head := _of_self(sname, rtype, end.rrsets[rtype]):
                out.append((rtype, self.put(data + head), len(data), hops, len(head) << 16, 0, 0))
                continue
            full = data + b"".join(_rr(sname, rtype, ttl, rdata) for ttl, rdata in end.rrsets[rtype])
            out.append((rtype, self.put(full), len(full), hops + len(end.rrsets[rtype]), 0, 0, 0))
        ttl, rdata = end.zone.soa()
        full = data + _rr(end.zone.name, codes.TYPE_SOA, ttl, rdata)
        rcode = codes.RCODE_NOERROR if end.exists else codes.RCODE_NXDOMAIN
        out.append((layout.ENTRY_OTHER, self.put(full), len(full), hops | 1 << 16, rcode, 0, 0))
        return out

    def addresses(self, addresses: Iterable[Address], ttl: int, *, where: Where | None, rule: int = -1) -> int:
        """An owner that answers A and AAAA with these addresses, and NODATA else."""
        rrsets: dict[int, list[tuple[int, bytes]]] = {}
        for address in sorted(addresses, key=lambda a: (a.version, int(a))):
            rtype = codes.TYPE_A if address.version == 4 else codes.TYPE_AAAA
            rrsets.setdefault(rtype, []).append((ttl, address.packed))
        return self.owner(rrsets, where=where, rule=rule)

    def soa(self, zone: OwnZone) -> tuple[int, int]:
        """(offset, length) of a zone's SOA as negative answers carry it, the owner left out."""
        ttl, rdata = zone.soa()
        data = _rr(b"", codes.TYPE_SOA, ttl, rdata)
        return self.put(data), len(data)

    def sections(self, where_number: Callable[[Where | None], int]) -> dict[int, tuple[bytes, int]]:
        """The finished sections; `where_number` gives a place its number + 1 (0 for none)."""
        infos = [word for where, rule in self.infos for word in (where_number(where), rule + 1)]
        return {
            layout.SECTION_OWNERS: (blob.words(self.owners), len(self.infos)),
            layout.SECTION_ANSWERS: (bytes(self._bytes), len(self._interned)),
            layout.SECTION_OWNER_INFO: (blob.words(infos), len(self.infos)),
        }

# cython: wraparound=True, annotation_typing=False
"""RRsets: read a message into them, write questions and responses from them.

Names inside rdata are written out, so that an RRset can stand in any message. Owners are lower case, names in rdata
keep their case. Every fault of a message is a FormError; a hostile server may send anything.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterable, Sequence

from dnsd.contract import codes, names
from dnsd.resolve.message import FormError

# Types whose rdata may hold compressed names (RFC 3597, section 4), as a pattern: n a name, digits octets to skip.
RDATA_NAMES: dict[int, str] = {
    2: "n", 3: "n", 4: "n", 5: "n", 6: "nn", 7: "n", 8: "n", 9: "n", 12: "n", 14: "nn", 15: "2n",
    17: "nn", 18: "2n", 21: "2n", 26: "2nn", 30: "n", 33: "6n", 36: "2n", 39: "n",
}  # fmt: skip

_NSEC = codes.QTYPES["NSEC"]
_NXT = 30  # RFC 2535: its bit map follows the name
_JUMPS = 128  # a name has at most 127 labels; more pointers than that in one name are an attack on our time
_LENGTHS = {codes.TYPE_A: 4, codes.TYPE_AAAA: 16}

FLAG_AA = 0x0400
FLAG_TC = 0x0200
FLAG_RD = 0x0100
FLAG_RA = 0x0080
FLAG_AD = 0x0020


@dataclasses.dataclass(frozen=True)
class RRset:
    """All records of one owner and type. `rdatas` without compression; `sigs` are the rdata of RRSIGs that cover it.

    `proofs`: NSEC and NSEC3 that came with it, to show that nothing nearer to the owner exists than its wildcard.
    """

    owner: bytes
    rtype: int
    ttl: int
    rdatas: tuple[bytes, ...]
    sigs: tuple[bytes, ...] = ()
    proofs: tuple[RRset, ...] = ()

    def lasting(self, ttl: int) -> RRset:
        """The same records with this TTL."""
        if ttl == self.ttl:
            return self
        return RRset(self.owner, self.rtype, ttl, self.rdatas, self.sigs, self.proofs)

    @property
    def from_wildcard(self) -> bool:
        """Whether a signature says that the owner was made from a wildcard (RFC 4035, section 5.3.4)."""
        labels = names.count(self.owner) - (self.owner[:2] == b"\x01*")
        return any(len(sig) > 3 and sig[3] < labels for sig in self.sigs)


@dataclasses.dataclass(frozen=True)
class Message:
    """A response, by RRsets. `question` is the question section's name as it came (its case is a secret of ours)."""

    rcode: int
    flags: int
    edns: bool
    question: bytes
    answer: tuple[RRset, ...]
    authority: tuple[RRset, ...]
    additional: tuple[RRset, ...]

    @property
    def aa(self) -> bool:
        """Whether the server says it is an authority."""
        return bool(self.flags & FLAG_AA)


class _Reader:
    """Names and records of one packet; each place is followed once. `end`: the place behind what was read last."""

    def __init__(self, packet: bytes) -> None:
        self.packet = packet
        self.size = len(packet)
        self.end = 0
        self.rcode = 0
        self.edns = False
        self._known: dict[int, bytes] = {}

    def forget_case(self, at: int) -> None:
        """Names that point into the one at `at` are read in lower case: its own case is our secret, not its owner's."""
        name = names.lower(self._known.get(at, b"\x00"))
        while name != names.ROOT:
            self._known[at] = name
            at += 1 + name[0]
            name = names.parent(name)

    def name(self, at: int) -> bytes:
        """The name at a place, case kept; raises FormError."""
        packet = self.packet
        size = self.size
        begin = limit = start = at
        whole = b""
        self.end = -1
        jumps = octets = 0
        while True:
            if at >= size:
                raise FormError("a name runs out of the packet")
            n = packet[at]
            if n >= 192:
                if at + 2 > size:
                    raise FormError("a compression pointer runs out of the packet")
                if self.end < 0:
                    self.end = at + 2
                target = (n & 63) << 8 | packet[at + 1]
                if target >= limit:
                    raise FormError("a compression pointer does not lead backwards")
                if at > start:
                    whole += packet[start:at]
                known = self._known.get(target)
                if known is not None:
                    whole = whole + known if whole else known
                    break
                jumps += 1
                if jumps > _JUMPS:
                    raise FormError("a name of too many compression pointers")
                at = limit = start = target
                continue
            if n > 63:
                raise FormError("a label of a kind that does not exist")
            if n == 0:
                whole += packet[start : at + 1]
                if self.end < 0:
                    self.end = at + 1
                break
            octets += 1 + n
            if at + 1 + n > size or octets + 1 > names.MAX_NAME:
                raise FormError("a name is too long")
            at += 1 + n
        if len(whole) > names.MAX_NAME:
            raise FormError("a name is too long")
        self._known[begin] = whole
        return whole

    def rdata(self, rtype: int, at: int, end: int) -> bytes:
        """The rdata with its names written out; raises FormError."""
        pattern = RDATA_NAMES.get(rtype)
        if pattern is None:
            if end - at != _LENGTHS.get(rtype, end - at):
                raise FormError("an address of a wrong length")
            if rtype == codes.TYPE_RRSIG:
                self.plain(at + 18, end)
            elif rtype == _NSEC:
                self.plain(at, end)
            return self.packet[at:end]
        out = bytearray()
        for part in pattern:
            if part == "n":
                out += self.name(at)
                after = self.end
            else:
                after = at + int(part)
                out += self.packet[at:after]
            at = after
            if at > end:
                raise FormError("a name runs out of its rdata")
        if end - at != (20 if rtype == codes.TYPE_SOA else 0) and rtype != _NXT:
            raise FormError("a SOA of a wrong length" if rtype == codes.TYPE_SOA else "octets behind a name")
        out += self.packet[at:end]
        return bytes(out)

    def plain(self, at: int, end: int) -> int:
        """Where a name that may not be compressed ends (RFC 4034, sections 3.1.7 and 4.1.1); raises FormError."""
        packet = self.packet
        begin = at
        while at < end and packet[at] != 0:
            if packet[at] > 63:
                raise FormError("a compressed name where none may be")
            at += 1 + packet[at]
        if at >= end or at - begin >= names.MAX_NAME:
            raise FormError("a name runs out of its rdata")
        return at + 1

    def section(self, number: int, count: int, at: int) -> tuple[RRset, ...]:
        """So many records as RRsets, signatures with what they cover; `end` is behind them. Raises FormError."""
        packet = self.packet
        size = self.size
        found: dict[tuple[bytes, int], list[object]] = {}  # TTL, then the rdatas in the order of the packet
        signatures: dict[tuple[bytes, int], list[bytes]] = {}
        for _ in range(count):
            owner = self.name(at)
            at = self.end
            if at + 10 > size:
                raise FormError("a record runs out of the packet")
            rtype = packet[at] << 8 | packet[at + 1]
            ttl = packet[at + 5] << 16 | packet[at + 6] << 8 | packet[at + 7]
            # RFC 2181, section 8: a TTL with the highest bit set is 0.
            ttl = 0 if packet[at + 4] & 128 else packet[at + 4] << 24 | ttl
            rdlength = packet[at + 8] << 8 | packet[at + 9]
            begin = at + 10
            end = begin + rdlength
            if end > size:
                raise FormError("a record's rdata runs out of the packet")
            if rtype == codes.TYPE_OPT:
                if number != 2 or self.edns or owner != names.ROOT:
                    raise FormError("OPT where it may not be")
                self.edns = True
                self.rcode |= packet[at + 4] << 4
            elif packet[at + 2] == 0 and packet[at + 3] == codes.CLASS_IN:
                owner = names.lower(owner)
                rdata = self.rdata(rtype, begin, end)
                if rtype == codes.TYPE_RRSIG:
                    if rdlength < 19:
                        raise FormError("an RRSIG of a wrong length")
                    signatures.setdefault((owner, rdata[0] << 8 | rdata[1]), []).append(rdata)
                key = (owner, rtype)
                before = found.get(key)
                if before is None:
                    found[key] = [ttl, {rdata: None}]
                else:
                    before[1][rdata] = None  # type: ignore[index]
                    if ttl < before[0]:  # type: ignore[operator]
                        before[0] = ttl  # RFC 2181, section 5.2: one TTL for the set
            at = end
        self.end = at
        out = []
        for key, value in found.items():
            sigs = signatures.get(key)
            out.append(RRset(key[0], key[1], value[0], tuple(value[1]), () if sigs is None else tuple(sigs)))  # type: ignore[arg-type]
        return tuple(out)


def parse(packet: bytes) -> Message:
    """Read a response; raises FormError. Records of other classes than IN are left out."""
    size = len(packet)
    if size < 12:
        raise FormError("shorter than a header")
    flags = packet[2] << 8 | packet[3]
    qdcount, ancount = packet[4] << 8 | packet[5], packet[6] << 8 | packet[7]
    nscount, arcount = packet[8] << 8 | packet[9], packet[10] << 8 | packet[11]
    if not flags & 0x8000:
        raise FormError("it is a query")
    if qdcount > 1:
        raise FormError(f"it has {qdcount} questions")
    if (ancount + nscount + arcount) * 11 > size - 12:
        raise FormError("more records than octets for them")
    reader = _Reader(packet)
    reader.rcode = flags & 15
    question = b""
    at = 12
    if qdcount:
        question = reader.name(12)
        at = reader.end + 4
        reader.forget_case(12)
        if at > size:
            raise FormError("the question runs out of the packet")
    answer = reader.section(0, ancount, at)
    authority = reader.section(1, nscount, reader.end)
    additional = reader.section(2, arcount, reader.end)
    return Message(reader.rcode, flags, reader.edns, question, answer, authority, additional)


def question(qname: bytes, qtype: int, edns_size: int, do: bool) -> bytes:
    """A question to an authority: id 0, RD clear, an OPT record (RFC 6891) unless `edns_size` is 0."""
    wire = struct.pack("!HHHHHH", 0, 0, 1, 0, 0, 1 if edns_size else 0)
    wire += qname + struct.pack("!HH", qtype, codes.CLASS_IN)
    if edns_size:
        wire += struct.pack("!BHHBBHH", 0, codes.TYPE_OPT, edns_size, 0, 0, 0x8000 if do else 0, 0)
    return wire


def response(
    qname: bytes, qtype: int, rcode: int, answer: Sequence[RRset], authority: Sequence[RRset], signed: bool,
    flags: int = 0,
) -> bytes:  # fmt: skip
    """A response as a recursive upstream would send it; owners that stood before are compression pointers."""
    body = bytearray(qname + struct.pack("!HH", qtype, codes.CLASS_IN))
    places: dict[bytes, int] = {qname: 12}
    counts = []
    for section in (answer, authority):
        count = 0
        for rrset in section:
            count += _write(body, places, rrset.owner, rrset.rtype, rrset.ttl, rrset.rdatas)
            if signed and rrset.sigs:
                count += _write(body, places, rrset.owner, codes.TYPE_RRSIG, rrset.ttl, rrset.sigs)
        counts.append(count)
    head = struct.pack("!HHHHHH", 0, 0x8180 | flags | (rcode & 15), 1, counts[0], counts[1], 0)
    return head + bytes(body)


def _write(
    body: bytearray, places: dict[bytes, int], owner: bytes, rtype: int, ttl: int, rdatas: Iterable[bytes]
) -> int:
    count = 0
    for rdata in rdatas:
        place = places.get(owner)
        if place is None:
            if 12 + len(body) < 0x4000 and owner != names.ROOT:
                places[owner] = 12 + len(body)
            body += owner
        elif owner == names.ROOT:
            body += owner
        else:
            body += (0xC000 | place).to_bytes(2, "big")
        body += struct.pack("!HHIH", rtype, codes.CLASS_IN, ttl, len(rdata)) + rdata
        if rtype == codes.TYPE_CNAME and 12 + len(body) - len(rdata) < 0x4000:
            places.setdefault(names.lower(rdata), 12 + len(body) - len(rdata))
        count += 1
    return count


def at_or_below(name: bytes, ancestor: bytes) -> bool:
    """Whether `name` is `ancestor` or below it (both lower case)."""
    return name == ancestor or names.is_below(name, ancestor)

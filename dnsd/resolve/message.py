"""Read response packets from upstream: what of them is to be kept, and where its TTLs and pointers stand.

Plain Python, bounds everywhere; every fault is a FormError and nothing else. A hostile upstream
may send anything.
"""

from __future__ import annotations

import dataclasses
import struct

from dnsd.contract import codes, names

# Types whose rdata may hold compressed names (RFC 3597, section 4), as a pattern: n a name, digits octets to skip.
_RDATA_NAMES: dict[int, str] = {
    2: "n", 3: "n", 4: "n", 5: "n", 6: "nn", 7: "n", 8: "n", 9: "n", 12: "n", 14: "nn", 15: "2n",
    17: "nn", 18: "2n", 21: "2n", 24: "", 26: "2nn", 30: "n", 33: "6n", 35: "", 36: "2n", 39: "n",
}  # fmt: skip
_MAX_TTL = 0x7FFFFFFF


class FormError(ValueError):
    """A packet that is not a DNS response; the text says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """A record's fixed part. `ttl_at` and `rdata_at` are places in the packet; owner is an uncompressed lower-case name."""

    section: int
    owner: bytes
    rtype: int
    ttl: int
    ttl_at: int
    rdata_at: int
    rdlength: int


@dataclasses.dataclass(frozen=True, slots=True)
class Response:
    """A response as it may be relayed and cached.

    `body` is answer, authority and additional section without OPT, exactly as received; `ttls` and `pointers` are places in it.
    `question` is the length of the question section. `ttl` is how long the whole may be remembered, in seconds (0: not at all).
    """

    rcode: int
    truncated: bool
    authentic: bool
    question: int
    body: bytes
    answers: int
    authorities: int
    additionals: int
    ttls: tuple[int, ...]
    pointers: tuple[int, ...]
    ttl: int
    edns: bool
    records: tuple[Record, ...]


def read_name(packet: bytes, at: int, pointers: list[int] | None = None) -> tuple[bytes, int]:
    """The lower-case name at `at`, and the place behind it; raises FormError. Places of pointers met in place are added."""
    out = bytearray()
    end = -1
    limit = at
    while True:
        if at >= len(packet):
            raise FormError("a name runs out of the packet")
        n = packet[at]
        if n >= 192:
            if at + 2 > len(packet):
                raise FormError("a compression pointer runs out of the packet")
            if end < 0:
                end = at + 2
                if pointers is not None:
                    pointers.append(at)
            target = (n & 63) << 8 | packet[at + 1]
            # A pointer must lead backwards, each further than the last: so no loop is possible.
            if target >= limit:
                raise FormError("a compression pointer does not lead backwards")
            at = limit = target
            continue
        if n > 63:
            raise FormError("a label of a kind that does not exist")
        if n == 0:
            out.append(0)
            return names.lower(bytes(out)), end if end >= 0 else at + 1
        if at + 1 + n > len(packet) or len(out) + n + 2 > names.MAX_NAME:
            raise FormError("a name is too long")
        out += packet[at : at + 1 + n]
        at += 1 + n


def _rdata_pointers(packet: bytes, rtype: int, at: int, end: int, pointers: list[int]) -> None:
    pattern = _RDATA_NAMES.get(rtype)
    if not pattern:
        return
    for part in pattern:
        if part == "n":
            _, at = read_name(packet, at, pointers)
        else:
            at += int(part)
        if at > end:
            raise FormError("a name runs out of its rdata")


def read(packet: bytes) -> Response:
    """Read a response; raises FormError."""
    if len(packet) < 12:
        raise FormError("shorter than a header")
    flags, qdcount, ancount, nscount, arcount = struct.unpack_from(">HHHHH", packet, 2)
    if not flags & 0x8000:
        raise FormError("it is a query")
    if qdcount != 1:
        raise FormError(f"it has {qdcount} questions")
    _, at = read_name(packet, 12)
    if at + 4 > len(packet):
        raise FormError("the question runs out of the packet")
    at += 4
    start = at
    question = at - 12
    counts = (ancount, nscount, arcount)
    if sum(counts) * 11 > len(packet) - at:
        raise FormError("more records than octets for them")
    records: list[Record] = []
    places: list[int] = []
    opt: tuple[int, int] | None = None
    kept = [0, 0, 0]
    rcode = flags & 15
    for section, count in enumerate(counts):
        for _ in range(count):
            begin = at
            found: list[int] = []
            owner, at = read_name(packet, at, found)
            if at + 10 > len(packet):
                raise FormError("a record runs out of the packet")
            rtype, _, ttl, rdlength = struct.unpack_from(">HHIH", packet, at)
            end = at + 10 + rdlength
            if end > len(packet):
                raise FormError("a record's rdata runs out of the packet")
            if rtype == codes.TYPE_OPT:
                if section != 2 or opt is not None or owner != names.ROOT:
                    raise FormError("OPT where it may not be")
                opt = (begin, end)
                rcode |= (ttl >> 24) << 4
            else:
                _rdata_pointers(packet, rtype, at + 10, end, found)
                # RFC 2181, section 8: a TTL with the highest bit set is 0.
                ttl = 0 if ttl > _MAX_TTL else ttl
                records.append(Record(section, owner, rtype, ttl, at + 4, at + 10, rdlength))
                places += found
                kept[section] += 1
            at = end
    body = packet[start:at]
    shift_from, shift = len(packet), 0
    if opt is not None:
        body = packet[start : opt[0]] + packet[opt[1] : at]
        shift_from, shift = opt[0], opt[1] - opt[0]
        if shift_from < at - shift and any(_target(packet, p) >= shift_from for p in places):
            raise FormError("a compression pointer leads behind OPT")
    return Response(
        rcode=rcode,
        truncated=bool(flags & 0x0200),
        authentic=bool(flags & 0x0020),
        question=question,
        body=body,
        answers=kept[0],
        authorities=kept[1],
        additionals=kept[2],
        ttls=tuple(r.ttl_at - start - (shift if r.ttl_at > shift_from else 0) for r in records),
        pointers=tuple(p - start - (shift if p > shift_from else 0) for p in places),
        ttl=_lifetime(packet, rcode, records),
        edns=opt is not None,
        records=tuple(records),
    )


def _target(packet: bytes, at: int) -> int:
    return (packet[at] & 63) << 8 | packet[at + 1]


def _lifetime(packet: bytes, rcode: int, records: list[Record]) -> int:
    """How long a response may be remembered (RFC 2308, section 5 for negative ones)."""
    if rcode not in (codes.RCODE_NOERROR, codes.RCODE_NXDOMAIN):
        return 0
    lowest = min((r.ttl for r in records), default=0)
    answers = [r for r in records if r.section == 0]
    if answers and rcode == codes.RCODE_NOERROR and any(
        r.rtype not in (codes.TYPE_CNAME, codes.TYPE_RRSIG) for r in answers
    ):
        return lowest
    soa = next((r for r in records if r.section == 1 and r.rtype == codes.TYPE_SOA), None)
    if soa is None or soa.rdlength < 20:
        # A negative answer without a SOA says nothing about how long it holds.
        return 0
    minimum: int = struct.unpack_from(">I", packet, soa.rdata_at + soa.rdlength - 4)[0]
    return min(lowest, minimum, 3 * 3600)

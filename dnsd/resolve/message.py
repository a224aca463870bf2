"""Read response packets from upstream: what of them is to be kept, and where its TTLs and pointers stand.

Compiled by Cython with the types in `message.pxd`, bounds everywhere. `Reader` is the meaning: it
allocates nothing per packet and leaves what it found in its own buffers. `read` puts the same into
a `Response` for those who are in no hurry. A hostile upstream may send anything; every fault is a
number of `FAULTS`, or a FormError with that text, and nothing else.
"""

from __future__ import annotations

import dataclasses

import cython

if not cython.compiled:
    from dnsd.contract.codes import (
        RCODE_NOERROR,
        RCODE_NXDOMAIN,
        TYPE_CNAME,
        TYPE_OPT,
        TYPE_RRSIG,
        TYPE_SOA,
    )

from dnsd.contract import names

# Types whose rdata may hold compressed names (RFC 3597, section 4): octets to skip, then so many names.
_RDATA_NAMES: dict[int, tuple[int, int]] = {
    2: (0, 1), 3: (0, 1), 4: (0, 1), 5: (0, 1), 6: (0, 2), 7: (0, 1), 8: (0, 1), 9: (0, 1), 12: (0, 1), 14: (0, 2),
    15: (2, 1), 17: (0, 2), 18: (2, 1), 21: (2, 1), 26: (2, 2), 30: (0, 1), 33: (6, 1), 36: (2, 1), 39: (0, 1),
}  # fmt: skip
# By type: 4 x octets to skip + number of names; 0 for no names.
_PATTERNS = bytes(
    4 * _RDATA_NAMES[rtype][0] + _RDATA_NAMES[rtype][1] if rtype in _RDATA_NAMES else 0 for rtype in range(64)
)

FAULTS = (
    "",
    "shorter than a header",
    "it is a query",
    "it has not exactly one question",
    "the question runs out of the packet",
    "more records than octets for them",
    "a record runs out of the packet",
    "a record's rdata runs out of the packet",
    "OPT where it may not be",
    "a name runs out of its rdata",
    "a compression pointer leads behind OPT",
    "a name runs out of the packet",
    "a compression pointer runs out of the packet",
    "a compression pointer does not lead backwards",
    "a label of a kind that does not exist",
    "a name is too long",
    "a name of too many compression pointers",
)
_POINTERS_AT = 2 * 6000  # no more records than that fit into a message
_BODY_AT = _POINTERS_AT + 2 * 32768
_HOPS = 128  # as many as a name can have labels: more lead nowhere


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
    `rcode` has bit 16 set when AD was. `question` is the length of the question section. `ttl` is how long the whole may be remembered, in seconds (0: not at all).
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


class Reader:
    """Reads one response after the other; the attributes say what the last one was (meaning: `Response`).

    `data` holds what is kept of it: `length` octets of records at `body`, without OPT; the places of TTLs at `ttls` and of
    compression pointers at `pointers`, each u16, most significant first, from `body` on.
    """

    def __init__(self) -> None:
        self.data = memoryview(bytearray(_BODY_AT + 65536))
        self.patterns = memoryview(_PATTERNS)
        self.ttls = 0
        self.pointers = _POINTERS_AT
        self.body = _BODY_AT
        self.length = 0
        self.ttl_count = 0
        self.pointer_count = 0
        self.question = 0
        self.rcode = 0
        self.truncated = 0
        self.authentic = 0
        self.edns = 0
        self.answers = 0
        self.authorities = 0
        self.additionals = 0
        self.ttl = 0
        self.fault = 0
        self.first = 0
        self.last = 0

    def name(
        self, buf: cython.const[cython.uchar][::1], base: cython.int, at: cython.int, end: cython.int, keep: cython.int
    ) -> cython.int:
        """The place behind the name at `at`; -1 and `fault` when it is none. `keep`: note a pointer met in place."""
        limit: cython.int = at
        after: cython.int = -1
        size: cython.int = 0
        hops: cython.int = 0
        n: cython.int

        while True:
            if at >= end:
                self.fault = 11
                return -1
            n = buf[at]
            if n >= 192:
                if at + 2 > end:
                    self.fault = 12
                    return -1
                if after < 0:
                    after = at + 2
                    if keep:
                        self.note(_POINTERS_AT + 2 * self.pointer_count, at - self.first)
                        self.pointer_count += 1
                n = base + (((n & 63) << 8) | buf[at + 1])
                # A pointer must lead backwards, each further than the last: so no loop is possible.
                if n >= limit:
                    self.fault = 13
                    return -1
                hops += 1
                if hops > _HOPS:
                    self.fault = 16
                    return -1
                at = limit = n
                continue
            if n > 63:
                self.fault = 14
                return -1
            if n == 0:
                return after if after >= 0 else at + 1
            if at + 1 + n > end or size + n + 2 > 255:
                self.fault = 15
                return -1
            size += 1 + n
            at += 1 + n

    def note(self, where: cython.int, place: cython.int) -> cython.int:
        """Write a place."""
        self.data[where] = (place >> 8) & 255
        self.data[where + 1] = place & 255
        return 0

    def noted(self, where: cython.int) -> cython.int:
        """Read a place."""
        return (self.data[where] << 8) | self.data[where + 1]

    def read(self, buf: cython.const[cython.uchar][::1], base: cython.int, size: cython.int) -> cython.int:
        """Read the response of `size` octets at `base`; returns 0, or the number of `FAULTS` that says why it is none.

        `length` 0 is left by a fault. RFC 1035, section 4.1; RFC 6891, section 6.1; RFC 2181, section 8; RFC 2308, section 5.
        """
        end: cython.int = base + size
        at: cython.int
        start: cython.int
        section: cython.int
        count: cython.int
        n: cython.int
        rtype: cython.int
        rdata: cython.int
        rdlength: cython.int
        root: cython.int
        opt: cython.int = 0
        opt_end: cython.int = 0
        positive: cython.int = 0
        soa: cython.int = 0
        total: cython.int = 0
        ttl: cython.uint
        lowest: cython.uint = 2147483647
        minimum: cython.uint = 0

        self.length = 0
        self.ttl_count = 0
        self.pointer_count = 0
        self.answers = 0
        self.authorities = 0
        self.additionals = 0
        self.ttl = 0
        self.edns = 0
        self.rcode = 0
        self.fault = 0
        if size < 12:
            self.fault = 1
            return 1
        if not buf[base + 2] & 128:
            self.fault = 2
            return 2
        if buf[base + 4] != 0 or buf[base + 5] != 1:
            self.fault = 3
            return 3
        self.truncated = (buf[base + 2] >> 1) & 1
        self.authentic = (buf[base + 3] >> 5) & 1
        self.rcode = buf[base + 3] & 15
        at = self.name(buf, base, base + 12, end, 0)
        if at < 0:
            return self.fault
        at += 4
        if at > end:
            self.fault = 4
            return 4
        start = at
        self.first = start
        self.question = at - base - 12
        for section in range(3):
            total += (buf[base + 6 + 2 * section] << 8) | buf[base + 7 + 2 * section]
        if total * 11 > end - at:
            self.fault = 5
            return 5
        for section in range(3):
            count = (buf[base + 6 + 2 * section] << 8) | buf[base + 7 + 2 * section]
            for _ in range(count):
                n = at
                root = 1 if at < end and buf[at] == 0 else 0
                at = self.name(buf, base, at, end, 1)
                if at < 0:
                    return self.fault
                if at + 10 > end:
                    self.fault = 6
                    return 6
                rtype = (buf[at] << 8) | buf[at + 1]
                ttl = buf[at + 4]
                ttl = (ttl << 24) | (buf[at + 5] << 16) | (buf[at + 6] << 8) | buf[at + 7]
                rdlength = (buf[at + 8] << 8) | buf[at + 9]
                rdata = at + 10
                if rdata + rdlength > end:
                    self.fault = 7
                    return 7
                if rtype == TYPE_OPT:
                    if section != 2 or opt or not root:
                        self.fault = 8
                        return 8
                    opt = n
                    opt_end = rdata + rdlength
                    self.rcode |= cython.cast(cython.int, ttl >> 24) << 4
                    at = opt_end
                    continue
                if self.rdata(buf, base, rtype, rdata, rdata + rdlength, end):
                    return self.fault
                # RFC 2181, section 8: a TTL with the highest bit set is 0.
                if ttl >> 31:
                    ttl = 0
                if ttl < lowest:
                    lowest = ttl
                self.note(2 * self.ttl_count, at + 4 - start)
                self.ttl_count += 1
                if section == 0:
                    self.answers += 1
                    if rtype != TYPE_CNAME and rtype != TYPE_RRSIG:
                        positive = 1
                elif section == 1:
                    self.authorities += 1
                    if rtype == TYPE_SOA and soa == 0 and rdlength >= 20:
                        n = rdata + rdlength - 4
                        minimum = buf[n]
                        minimum = (minimum << 24) | (buf[n + 1] << 16) | (buf[n + 2] << 8) | buf[n + 3]
                        soa = 1
                    elif rtype == TYPE_SOA and soa == 0:
                        soa = -1
                else:
                    self.additionals += 1
                at = rdata + rdlength
        self.last = at
        if opt:
            self.edns = 1
            if self.without(buf, base, opt, opt_end, at):
                return self.fault
        else:
            self.take(buf, start, at, _BODY_AT)
            self.length = at - start
        if self.rcode == RCODE_NOERROR or self.rcode == RCODE_NXDOMAIN:
            if self.rcode == RCODE_NOERROR and positive:
                self.ttl = cython.cast(cython.int, lowest)
            elif soa > 0:
                # A negative answer without a SOA says nothing about how long it holds.
                if minimum < lowest:
                    lowest = minimum
                self.ttl = 10800 if lowest > 10800 else cython.cast(cython.int, lowest)
        return 0

    def rdata(
        self,
        buf: cython.const[cython.uchar][::1],
        base: cython.int,
        rtype: cython.int,
        at: cython.int,
        end: cython.int,
        limit: cython.int,
    ) -> cython.int:
        """Note the pointers in rdata; 0, or `fault`."""
        pattern: cython.int = 0

        if rtype < 64:
            pattern = self.patterns[rtype]
        if pattern == 0:
            return 0
        at += pattern >> 2
        if at > end:
            self.fault = 9
            return 9
        for _ in range(pattern & 3):
            at = self.name(buf, base, at, limit, 1)
            if at < 0:
                return self.fault
            if at > end:
                self.fault = 9
                return 9
        return 0

    def bound(self, low: cython.uint, high: cython.uint) -> cython.int:
        """Bring every TTL of what is kept into these bounds, in seconds; one that is 0 (or above 2³¹, RFC 2181) stays 0."""
        k: cython.int
        at: cython.int
        ttl: cython.uint

        for k in range(self.ttl_count):
            at = self.body + self.noted(self.ttls + 2 * k)
            ttl = (
                (cython.cast(cython.uint, self.data[at]) << 24)
                | (cython.cast(cython.uint, self.data[at + 1]) << 16)
                | (cython.cast(cython.uint, self.data[at + 2]) << 8)
                | self.data[at + 3]
            )
            if ttl >= 0x80000000:
                ttl = 0
            elif ttl > high:
                ttl = high
            elif 0 < ttl < low:
                ttl = low
            self.data[at] = ttl >> 24
            self.data[at + 1] = (ttl >> 16) & 255
            self.data[at + 2] = (ttl >> 8) & 255
            self.data[at + 3] = ttl & 255
        return 0

    def take(
        self, buf: cython.const[cython.uchar][::1], first: cython.int, last: cython.int, where: cython.int
    ) -> cython.int:
        """Copy octets of the packet; both ranges are checked once."""
        data = self.data
        k: cython.int
        if first < 0 or last < first or last > buf.shape[0] or where + last - first > data.shape[0]:  # type: ignore[index]
            raise IndexError
        with cython.boundscheck(False):
            for k in range(last - first):
                data[where + k] = buf[first + k]
        return 0

    def without(
        self,
        buf: cython.const[cython.uchar][::1],
        base: cython.int,
        opt: cython.int,
        opt_end: cython.int,
        at: cython.int,
    ) -> cython.int:
        """Take OPT out: records and places behind it move to the front; 0, or `fault`."""
        start: cython.int = self.first
        shift: cython.int = opt_end - opt
        place: cython.int
        k: cython.int

        self.take(buf, start, opt, _BODY_AT)
        self.take(buf, opt_end, at, _BODY_AT + opt - start)
        self.length = at - start - shift
        if opt_end == at:
            return 0  # as nearly everybody writes it: nothing is behind it
        for k in range(self.pointer_count):
            place = start + self.noted(_POINTERS_AT + 2 * k)
            if base + (((buf[place] & 63) << 8) | buf[place + 1]) >= opt:
                self.length = 0
                self.fault = 10
                return 10
            if place > opt:
                self.note(_POINTERS_AT + 2 * k, place - start - shift)
        for k in range(self.ttl_count):
            place = self.noted(2 * k)
            if start + place > opt:
                self.note(2 * k, place - shift)
        return 0


def read_name(packet: bytes, at: int, pointers: list[int] | None = None) -> tuple[bytes, int]:
    """The lower-case name at `at`, and the place behind it; raises FormError. Places of pointers met in place are added."""
    reader = _Scratch.reader
    reader.first = 0
    reader.pointer_count = 0
    end = reader.name(packet, 0, at, len(packet), 1)
    if end < 0:
        raise FormError(FAULTS[reader.fault])
    if pointers is not None and reader.pointer_count:
        pointers.append(reader.noted(_POINTERS_AT))
    out = bytearray()
    while packet[at]:
        n = packet[at]
        if n >= 192:
            at = (n & 63) << 8 | packet[at + 1]
            continue
        out += packet[at : at + 1 + n]
        at += 1 + n
    out.append(0)
    return names.lower(bytes(out)), end


def read(packet: bytes) -> Response:
    """Read a response; raises FormError. The same packet twice in a row (to answer, to remember) is read once."""
    if _Scratch.last[0] is packet:
        return _Scratch.last[1]
    reader = _Scratch.reader
    if reader.read(memoryview(packet), 0, len(packet)):
        raise FormError(FAULTS[reader.fault])
    data = bytes(reader.data[reader.body : reader.body + reader.length])
    answer = Response(
        rcode=reader.rcode | reader.authentic << 16,
        truncated=bool(reader.truncated),
        authentic=bool(reader.authentic),
        question=reader.question,
        body=data,
        answers=reader.answers,
        authorities=reader.authorities,
        additionals=reader.additionals,
        ttls=tuple(reader.noted(2 * k) for k in range(reader.ttl_count)),
        pointers=tuple(reader.noted(_POINTERS_AT + 2 * k) for k in range(reader.pointer_count)),
        ttl=reader.ttl,
        edns=bool(reader.edns),
    )
    _Scratch.last = packet, answer
    return answer


def records(packet: bytes) -> tuple[Record, ...]:
    """The records of a response, without OPT; raises FormError."""
    reader = _Scratch.reader
    if reader.read(memoryview(packet), 0, len(packet)):
        raise FormError(FAULTS[reader.fault])
    found = []
    at = reader.first
    for section in range(3):
        for _ in range(int.from_bytes(packet[6 + 2 * section : 8 + 2 * section], "big")):
            owner, at = read_name(packet, at)
            rtype = int.from_bytes(packet[at : at + 2], "big")
            ttl = int.from_bytes(packet[at + 4 : at + 8], "big")
            rdlength = int.from_bytes(packet[at + 8 : at + 10], "big")
            if rtype != TYPE_OPT:
                found.append(Record(section, owner, rtype, 0 if ttl >> 31 else ttl, at + 4, at + 10, rdlength))
            at += 10 + rdlength
    return tuple(found)


def bounded(packet: bytes, low: int, high: int) -> bytes:
    """A response with its TTLs within these bounds (`Reader.bound`); one that is malformed as it is."""
    try:
        found = records(packet)
    except FormError:
        return packet
    out = bytearray(packet)
    for record in found:
        ttl = min(max(record.ttl, low), high) if record.ttl else 0
        out[record.ttl_at : record.ttl_at + 4] = ttl.to_bytes(4, "big")
    return bytes(out)


class _Scratch:
    """The reader of `read` and `read_name`, used and left within one call; and what was read last."""

    reader = Reader()
    last: tuple[bytes | None, Response] = (None, Response(0, False, False, 0, b"", 0, 0, 0, (), (), 0, False))

"""Octets of a DNS message to a list of described fields, and to the faults on the way.

Pure and lenient: it reads as far as it can, never raises on any input, and every octet of the
message belongs to exactly one field. It explains; nothing that answers queries is decided by it.
"""

from __future__ import annotations

import dataclasses
import ipaddress

from dnsd.contract import codes
from dnsd.dissection_fields import RDATA, Cut, Field, Reader, class_name, plural, printable, span, utf8

_OPCODES = {0: "QUERY", 1: "IQUERY", 2: "STATUS", 4: "NOTIFY", 5: "UPDATE", 6: "DSO"}
_OPTIONS = {
    1: "LLQ", 2: "UL", 3: "NSID", 5: "DAU", 6: "DHU", 7: "N3U", 8: "CLIENT-SUBNET", 9: "EXPIRE", 10: "COOKIE",
    11: "TCP-KEEPALIVE", 12: "PADDING", 13: "CHAIN", 14: "KEY-TAG", 15: "EDE", 18: "REPORT-CHANNEL",
    19: "ZONEVERSION",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Dissection:
    """A whole message. It is malformed when any field carries a fault."""

    octets: bytes
    fields: tuple[Field, ...]

    @property
    def faults(self) -> list[Field]:
        """The fields with something wrong, in the order of the message."""
        return [field for field in self.fields if field.fault]


def draw_bits(value: int, width: int, first: int, count: int) -> str:
    """Show `count` bits of `value` from bit `first` (0 is the highest), the others as dots, in groups of four."""
    digits = f"{value:0{width}b}"
    shown = "".join(d if first <= i < first + count else "." for i, d in enumerate(digits))
    return " ".join(shown[i : i + 4] for i in range(0, width, 4))


class _Dissector(Reader):
    def __init__(self, octets: bytes) -> None:
        super().__init__(octets)
        self.opcode = 0
        self.rcode = 0
        self.opt_seen = False

    def message(self) -> None:
        try:
            counts = self.header()
            singular = ("Question", "Answer", "Authority", "Additional")
            if self.opcode == 5:  # RFC 2136, section 2
                singular = ("Zone", "Prerequisite", "Update", "Additional")
            for which, count in zip(singular, counts, strict=True):
                for i in range(count):
                    self.section = f"{which} {i + 1} of {count}" if count > 1 else which
                    if self.pos == self.end:
                        self.add(self.pos, "", "missing",
                                 f"the header announces {count} here, the message ends after {i}")  # fmt: skip
                        raise Cut
                    if which in ("Question", "Zone"):
                        self.question()
                    else:
                        self.record(which)
        except Cut:
            self.section = "Not dissected"
        else:
            self.section = "After the message"
        if self.pos < len(self.octets):
            start, self.pos = self.pos, len(self.octets)
            left = plural(self.pos - start, "octet")
            if self.section == "After the message":
                self.add(start, "", left, "more octets than the header's counts account for")
            else:
                self.add(start, "", left)

    def header(self) -> list[int]:
        self.number(2, "id", lambda v: f"{v} (0x{v:04x})")
        start, octets = self.take(2, "flags")
        flags = int.from_bytes(octets, "big")
        self.opcode = flags >> 11 & 15
        self.rcode = flags & 15
        response = bool(flags & 0x8000)
        rows: list[tuple[str, str, str]] = []

        def row(first: int, count: int, name: str, meaning: str) -> None:
            rows.append((draw_bits(flags, 16, first, count), name, meaning))

        def flag(first: int, name: str, yes: str, no: str) -> None:
            row(first, 1, name, yes if flags >> (15 - first) & 1 else no)

        flag(0, "QR", "a response", "a query")
        row(1, 4, "opcode", f"{self.opcode} {_OPCODES.get(self.opcode, 'unassigned')}")
        flag(5, "AA", "authoritative answer", "not authoritative")
        flag(6, "TC", "truncated: ask again over TCP", "not truncated")
        flag(7, "RD", "recursion desired", "recursion not desired")
        flag(8, "RA", "recursion available", "recursion not available")
        flag(9, "Z", "set, though reserved (must be zero)", "reserved")
        flag(10, "AD", "authentic data", "not marked authentic")
        flag(11, "CD", "checking disabled", "checking not disabled")
        row(12, 4, "rcode", f"{self.rcode} {codes.rcode_name(self.rcode)}")
        kind = "response" if response else "query"
        summary = f"{_OPCODES.get(self.opcode, 'unassigned opcode')} {kind}"
        self.add(start, "flags", summary + (f", {codes.rcode_name(self.rcode)}" if response else ""), bits=tuple(rows))
        names = (("QDCOUNT", "question", ""), ("ANCOUNT", "answer record", ""),
                 ("NSCOUNT", "authority record", ""), ("ARCOUNT", "additional record", ""))  # fmt: skip
        return [self.number(2, name, lambda v, o=one: plural(v, o)) for name, one, _ in names]  # type: ignore[misc]

    def question(self) -> None:
        self.name("qname")
        self.number(2, "qtype", codes.qtype_name)
        self.number(2, "qclass", class_name)

    def record(self, where: str) -> None:
        at = self.pos
        if self.octets[at : at + 3] == b"\x00\x00\x29":
            self.section += ": OPT (RFC 6891)"
        owner = self.name("owner")
        rtype = self.number(2, "type", codes.qtype_name)
        if rtype == codes.TYPE_OPT:
            if where != "Additional":
                self.blame("an OPT record belongs in the additional section")
            elif self.opt_seen or owner != ".":
                self.blame("a second OPT record" if self.opt_seen else "an OPT record's owner must be the root")
            self.opt_seen = True
            self.number(2, "UDP size", lambda v: plural(v, "octet"))
            self.number(1, "ext. rcode", lambda v: f"{v}: with the header's, {codes.rcode_name(v << 4 | self.rcode)}")
            self.number(1, "version", lambda v: f"EDNS {v}")
            start, octets = self.take(2, "flags")
            flags = int.from_bytes(octets, "big")
            wanted = "DNSSEC records wanted" if flags & 0x8000 else "no DNSSEC records"
            reserved = "set, though reserved (must be zero)" if flags & 0x7FFF else "reserved"
            self.add(start, "flags", "DO" if flags & 0x8000 else "none", bits=(
                (draw_bits(flags, 16, 0, 1), "DO", wanted), (draw_bits(flags, 16, 1, 15), "Z", reserved)))  # fmt: skip
        else:
            self.number(2, "class", class_name)
            self.number(4, "TTL", lambda v: span(v) if v < 1 << 31 else f"{v}: above 2^31-1, counts as 0 (RFC 2181)")
        length = self.number(2, "RDLENGTH", lambda v: plural(v, "octet"))
        left = self.end - self.pos
        if length > left:
            self.blame(f"announces {plural(length, 'octet')}, the message has {left} left")
        self.within(min(length, left), lambda: self.rdata(rtype, length), "this type")
        if length > left:
            raise Cut

    def rdata(self, rtype: int, length: int) -> None:
        if rtype == codes.TYPE_OPT:
            while self.pos < self.end:
                self.option()
            return
        layout = RDATA.get(rtype)
        if layout is None or (length == 0 and self.opcode == 5):
            if length:
                self.rest("RDATA")
            return
        for kind, name in layout:
            getattr(self, kind)(name)

    def option(self) -> None:
        code = self.number(2, "option", lambda v: f"{v} {_OPTIONS.get(v, 'unassigned')}")
        length = self.number(2, "length", lambda v: plural(v, "octet"))
        left = self.end - self.pos
        if length > left:
            self.blame(f"announces {plural(length, 'octet')}, the record has {left} left")
        self.within(min(length, left), lambda: self.option_data(code, length), "this option")

    def option_data(self, code: int, length: int) -> None:
        if code == 15:
            self.number(2, "EDE code", lambda v: f"{v} {codes.EDE_NAMES.get(v, 'unassigned')}")
            if self.pos < self.end:
                self.add_rest("EDE text", utf8)
        elif code == 10:
            self.cookie(length)
        elif code == 8:
            self.subnet()
        elif code == 14:
            while self.pos < self.end:
                self.number(2, "key tag")
        elif code == 19 and length:
            self.number(1, "labels", lambda v: f"{v}: the zone's name has so many of the question's")
            kind = self.number(1, "version type", lambda v: "0 SOA-SERIAL" if v == 0 else f"{v} unassigned")
            if kind == 0:
                self.number(4, "serial")
            elif self.pos < self.end:
                self.add_rest("version", bytes.hex)
        elif code in (13, 18):
            self.name("trust point" if code == 13 else "agent domain")
        elif not length:
            pass
        elif code == 11:
            self.number(2, "timeout", lambda v: f"{v / 10:g} s")
        elif code == 9:
            self.number(4, "expire", span)
        elif code == 12:
            self.add_rest("padding", lambda o: "octets that are not all zero" if any(o) else "zeros")
        else:
            self.add_rest("NSID" if code == 3 else "data", utf8 if code == 3 else printable)

    def cookie(self, length: int) -> None:
        fault = "" if length == 8 or 16 <= length <= 40 else "a cookie is 8, or 16 to 40, octets (RFC 7873)"
        start, octets = self.take(min(8, length), "client cookie")
        self.add(start, "client cookie", octets.hex(), fault)
        if self.pos < self.end:
            self.add_rest("server cookie", bytes.hex)

    def subnet(self) -> None:
        family = self.number(2, "family", lambda v: {1: "1 IPv4", 2: "2 IPv6"}.get(v, f"{v} unassigned"))
        source = self.number(1, "source prefix")
        self.number(1, "scope prefix")
        size = {1: 4, 2: 16}.get(family)
        start, octets = self.take(self.end - self.pos, "address")
        if size and len(octets) <= size:
            self.add(start, "address", f"{ipaddress.ip_address(octets.ljust(size, bytes(1)))}/{source}")
        else:
            self.add(start, "address", octets.hex(), "too long for its family" if size else "")


def dissect(octets: bytes) -> Dissection:
    """Dissect a DNS message; works on any octets."""
    dissector = _Dissector(octets)
    dissector.message()
    return Dissection(octets, tuple(dissector.fields))

"""The kinds of fields a DNS message is made of: numbers, names, texts, addresses, and each type's RDATA.

Pure and lenient, as `dissection`, which knows how a message is built from these.
"""

from __future__ import annotations

import dataclasses
import datetime
import ipaddress
from collections.abc import Callable

from dnsd.contract import codes

HEADER_LENGTH = 12
_CLASSES = {1: "IN", 3: "CH", 4: "HS", 254: "NONE", 255: "ANY"}
_SVCPARAMS = {
    0: "mandatory", 1: "alpn", 2: "no-default-alpn", 3: "port", 4: "ipv4hint", 5: "ech", 6: "ipv6hint", 7: "dohpath",
}  # fmt: skip

# RDATA of the types that are a plain row of fields: (kind, name). Kinds are methods of `Reader`.
_ADDRESS4, _ADDRESS6 = ("address4", "address"), ("address6", "address")
_DS = (("u16", "key tag"), ("algorithm", "algorithm"), ("digest", "digest type"), ("rest", "digest"))
_KEY = (("key_flags", "flags"), ("u8", "protocol"), ("algorithm", "algorithm"), ("rest", "public key"))
_TLSA = (("u8", "usage"), ("u8", "selector"), ("u8", "matching type"), ("rest", "association"))
_SVCB = (("u16", "priority"), ("name", "target"), ("svcparams", "parameters"))
RDATA: dict[int, tuple[tuple[str, str], ...]] = {
    1: (_ADDRESS4,), 28: (_ADDRESS6,), 2: (("name", "server"),), 5: (("name", "target"),),
    12: (("name", "target"),), 39: (("name", "target"),),
    6: (("name", "MNAME"), ("name", "RNAME"), ("u32", "serial"), ("seconds", "refresh"), ("seconds", "retry"),
        ("seconds", "expire"), ("seconds", "minimum")),
    13: (("text", "CPU"), ("text", "OS")), 15: (("u16", "preference"), ("name", "exchange")),
    16: (("texts", "text"),), 99: (("texts", "text"),), 17: (("name", "mailbox"), ("name", "text at")),
    18: (("u16", "subtype"), ("name", "host")),
    33: (("u16", "priority"), ("u16", "weight"), ("u16", "port"), ("name", "target")),
    35: (("u16", "order"), ("u16", "preference"), ("text", "flags"), ("text", "service"), ("text", "regexp"),
         ("name", "replacement")),
    36: (("u16", "preference"), ("name", "exchanger")), 43: _DS, 59: _DS, 32769: _DS, 48: _KEY, 60: _KEY, 25: _KEY,
    44: (("algorithm", "algorithm"), ("u8", "type"), ("rest", "fingerprint")),
    46: (("rtype", "type covered"), ("algorithm", "algorithm"), ("u8", "labels"), ("seconds", "original TTL"),
         ("moment", "expiration"), ("moment", "inception"), ("u16", "key tag"), ("name", "signer"),
         ("rest", "signature")),
    47: (("name", "next name"), ("bitmap", "types")),
    50: (("digest", "hash"), ("u8", "flags"), ("u16", "iterations"), ("counted", "salt"), ("counted", "next hash"),
         ("bitmap", "types")),
    51: (("digest", "hash"), ("u8", "flags"), ("u16", "iterations"), ("counted", "salt")),
    52: _TLSA, 53: _TLSA, 61: (("rest", "public key"),), 64: _SVCB, 65: _SVCB,
    250: (("name", "algorithm"), ("u48", "signed at"), ("u16", "fudge"), ("counted16", "MAC"),
          ("u16", "original id"), ("u16", "error"), ("counted16", "other")),
    256: (("u16", "priority"), ("u16", "weight"), ("rest_text", "target")),
    257: (("u8", "flags"), ("text", "tag"), ("rest_text", "value")),
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """Some octets and what they mean. `bits` are (drawing, name, meaning) rows; `fault` says what is wrong here.

    `target`: where a compression pointer leads, -1 for anything else.
    """

    section: str
    offset: int
    octets: bytes
    name: str
    meaning: str
    bits: tuple[tuple[str, str, str], ...] = ()
    fault: str = ""
    target: int = -1


class Cut(Exception):
    """The octets ended, or stopped making sense, before a field did; the fault is already noted."""


def printable(octets: bytes) -> str:
    """Octets as quoted text, everything but printable ASCII as \\DDD (RFC 1035, section 5.1)."""
    return '"' + "".join(
        "\\" + chr(c) if c in b'"\\' else chr(c) if 32 <= c < 127 else f"\\{c:03d}" for c in octets
    ) + '"'  # fmt: skip


def utf8(octets: bytes) -> str:
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        return printable(octets)
    return f'"{text}"' if text.isprintable() else printable(octets)


def plural(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def span(seconds: int) -> str:
    parts = []
    rest = seconds
    for size, unit in ((604800, "w"), (86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        if rest >= size:
            parts.append(f"{rest // size}{unit}")
            rest %= size
    return f"{seconds} s" + (f" ({' '.join(parts)})" if seconds >= 60 else "")


class Reader:
    """A position in the message, and the fields found so far. `end` is where the part being read ends."""

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.pos = 0
        self.end = len(octets)
        self.section = "Header"
        self.fields: list[Field] = []

    def add(self, start: int, name: str, meaning: str, fault: str = "",
            bits: tuple[tuple[str, str, str], ...] = ()) -> None:  # fmt: skip
        self.fields.append(Field(self.section, start, self.octets[start : self.pos], name, meaning, bits, fault))

    def take(self, count: int, name: str) -> tuple[int, bytes]:
        """Consume `count` octets; when they are not there, note the fault over what is left and stop."""
        start = self.pos
        if start + count > self.end:
            have = self.end - start
            self.pos = self.end
            where = "message" if self.end == len(self.octets) else "field that contains it"
            self.add(start, name, "cut off", f"needs {plural(count, 'octet')}, the {where} has {have} left")
            raise Cut
        self.pos += count
        return start, self.octets[start : self.pos]

    def number(self, width: int, name: str, describe: Callable[[int], str] = str) -> int:
        start, octets = self.take(width, name)
        value = int.from_bytes(octets, "big")
        self.add(start, name, describe(value))
        return value

    def blame(self, fault: str) -> None:
        """Note what is wrong with the field that was added last."""
        self.fields[-1] = dataclasses.replace(self.fields[-1], fault=fault)

    def within(self, length: int, read: Callable[[], None], whose: str) -> None:
        """Read inside the next `length` octets; whatever goes wrong there, reading goes on after them."""
        outer, self.end = self.end, self.pos + length
        try:
            read()
            fault = f"more octets than {whose} has fields"
        except Cut:
            fault = ""  # noted where it happened
        if self.pos < self.end:
            start, self.pos = self.pos, self.end
            self.add(start, "", plural(self.pos - start, "octet"), fault)
        self.end = outer

    # --- kinds of fields

    def name(self, role: str) -> str:
        """One row for each label; a pointer's row shows where it leads and what stands there."""
        labels: list[bytes] = []
        size = 1
        first = True
        while True:
            start, head = self.take(1, role if first else "")
            shown, length = role if first else "", head[0]
            first = False
            if length == 0:
                self.add(start, shown, f"end of {_dotted(labels)}" if labels else "root .")
                break
            if length >= 192:
                self.pos = start
                start, octets = self.take(2, shown)
                target = int.from_bytes(octets, "big") & 0x3FFF
                tail, fault = _follow(self.octets, target, start)
                labels += tail
                if not fault and size + sum(len(label) + 1 for label in tail) > 255:
                    fault = "the name is longer than 255 octets"
                self.add(start, shown, f"pointer → 0x{target:04x}: {_dotted(labels)}", fault)
                self.fields[-1] = dataclasses.replace(self.fields[-1], target=target)
                break
            if length >= 64:
                self.add(start, shown, f"label type {length >> 6:02b}", "a label's first two bits must be 00 or 11")
                raise Cut
            self.pos = start
            start, octets = self.take(length + 1, shown)
            labels.append(octets[1:])
            size += length + 1
            self.add(start, shown, f"label {printable(octets[1:])}",
                     "the name is longer than 255 octets" if size > 255 >= size - length - 1 else "")  # fmt: skip
        return _dotted(labels)

    def add_rest(self, name: str, describe: Callable[[bytes], str]) -> None:
        start, octets = self.take(self.end - self.pos, name)
        self.add(start, name, describe(octets))

    def rest(self, name: str) -> None:
        self.add_rest(name, lambda o: plural(len(o), "octet"))

    def rest_text(self, name: str) -> None:
        self.add_rest(name, printable)

    def u8(self, name: str) -> None:
        self.number(1, name)

    def u16(self, name: str) -> None:
        self.number(2, name)

    def u32(self, name: str) -> None:
        self.number(4, name)

    def u48(self, name: str) -> None:
        self.number(6, name, _moment)

    def seconds(self, name: str) -> None:
        self.number(4, name, span)

    def moment(self, name: str) -> None:
        self.number(4, name, _moment)

    def rtype(self, name: str) -> None:
        self.number(2, name, codes.qtype_name)

    def algorithm(self, name: str) -> None:
        self.number(1, name, lambda v: f"{v} {codes.ALGORITHM_NAMES.get(v, 'unassigned')}")

    def digest(self, name: str) -> None:
        self.number(1, name, lambda v: f"{v} {codes.DIGEST_NAMES.get(v, 'unassigned')}")

    def key_flags(self, name: str) -> None:
        words = ((0x0100, "zone key"), (0x0080, "revoked"), (0x0001, "SEP"))
        self.number(2, name, lambda v: f"{v} " + (", ".join(w for bit, w in words if v & bit) or "no flag"))

    def address4(self, name: str) -> None:
        start, octets = self.take(4, name)
        self.add(start, name, str(ipaddress.IPv4Address(octets)))

    def address6(self, name: str) -> None:
        start, octets = self.take(16, name)
        self.add(start, name, str(ipaddress.IPv6Address(octets)))

    def text(self, name: str) -> None:
        start, head = self.take(1, name)
        if self.pos + head[0] > self.end:
            self.pos = self.end
            self.add(start, name, "cut off", f"announces {plural(head[0], 'octet')}, RDATA ends before")
            raise Cut
        self.pos += head[0]
        self.add(start, name, printable(self.octets[start + 1 : self.pos]))

    def texts(self, name: str) -> None:
        self.text(name)
        while self.pos < self.end:
            self.text("")

    def counted(self, name: str) -> None:
        length = self.number(1, f"{name} length", lambda v: plural(v, "octet"))
        start, octets = self.take(length, name)
        if octets:
            self.add(start, name, octets.hex())

    def counted16(self, name: str) -> None:
        length = self.number(2, f"{name} length", lambda v: plural(v, "octet"))
        start, octets = self.take(length, name)
        if octets:
            self.add(start, name, octets.hex())

    def bitmap(self, name: str) -> None:
        while self.pos < self.end:
            size = self.octets[self.pos + 1] if self.pos + 1 < self.end else 0
            start, window = self.take(2 + size, name)
            head, octets = window[:2], window[2:]
            types = [head[0] << 8 | i << 3 | b for i, o in enumerate(octets) for b in range(8) if o >> (7 - b) & 1]
            fault = "" if 1 <= size <= 32 else "a window has 1 to 32 octets (RFC 4034, section 4.1.2)"
            self.add(start, name, " ".join(map(codes.qtype_name, types)) or "none", fault)
            name = ""

    def svcparams(self, name: str) -> None:
        while self.pos < self.end:
            key = self.number(2, "parameter", lambda v: f"{v} {_SVCPARAMS.get(v, f'key{v}')}")
            length = self.number(2, "length", lambda v: plural(v, "octet"))
            start, octets = self.take(length, "value")
            if octets:
                self.add(start, "value", _svcparam(key, octets))


def _svcparam(key: int, octets: bytes) -> str:
    if key == 3 and len(octets) == 2:
        return str(int.from_bytes(octets, "big"))
    size = {4: 4, 6: 16}.get(key)
    if size and len(octets) % size == 0:
        return ", ".join(str(ipaddress.ip_address(octets[i : i + size])) for i in range(0, len(octets), size))
    if key == 1:
        out, i = [], 0
        while i < len(octets):
            out.append(printable(octets[i + 1 : i + 1 + octets[i]]))
            i += 1 + octets[i]
        return ", ".join(out)
    return printable(octets)


def class_name(number: int) -> str:
    return _CLASSES.get(number, f"CLASS{number}")


def _moment(epoch: int) -> str:
    try:
        return f"{epoch} ({datetime.datetime.fromtimestamp(epoch, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC)"
    except (OverflowError, ValueError):
        return str(epoch)


def _dotted(labels: list[bytes]) -> str:
    escaped = (printable(label)[1:-1].replace(".", "\\.").replace(" ", "\\032") for label in labels)
    return "".join(f"{label}." for label in escaped) or "."


def _follow(octets: bytes, target: int, pointer: int) -> tuple[list[bytes], str]:
    """The labels at a pointer's target. A pointer must lead strictly backwards (RFC 1035, section 4.1.4)."""
    labels: list[bytes] = []
    if target < HEADER_LENGTH:
        return labels, "points into the header, where no name can stand"
    limit = pointer
    while True:
        if target >= limit:
            return labels, "does not point backwards: it would never end"
        limit = pos = target
        while True:
            if pos >= len(octets):
                return labels, "leads to a name that runs past the end of the message"
            length = octets[pos]
            if length == 0:
                return labels, ""
            if length >= 192:
                if pos + 1 >= len(octets):
                    return labels, "leads to a pointer that is cut off"
                target = (length & 63) << 8 | octets[pos + 1]
                if target < HEADER_LENGTH:
                    return labels, "leads to a pointer into the header"
                break
            if length >= 64:
                return labels, "leads to octets that are not a name"
            labels.append(octets[pos + 1 : pos + 1 + length])
            pos += 1 + length

"""Record data from presentation text to wire (RFC 1035, section 5.1); the only module that knows dnspython.

Names in data are absolute when they end in a dot and relative to the zone otherwise, as in a zone file. The wire is
uncompressed and in canonical form (RFC 4034, section 6.2), so the same data has the same bytes however it was written.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Mapping

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT

from controller.diagnostics import did_you_mean
from controller.domains import DomainError, to_ascii
from dnsd.contract import codes

_META = {"OPT", "TKEY", "TSIG", "IXFR", "AXFR", "MAILB", "MAILA", "ANY"}
_LATER = {"RRSIG", "NSEC", "NSEC3", "NSEC3PARAM", "DNAME"}
# Types whose data ends in one name, and where it begins.
_TARGETS = {codes.TYPE_CNAME: 0, codes.TYPE_NS: 0, codes.TYPE_PTR: 0, codes.TYPE_MX: 2, codes.TYPE_SRV: 6}
# Types whose data may be a mapping: field → other accepted words.
_FIELDS: dict[str, dict[str, tuple[str, ...]]] = {
    "MX": {"priority": ("preference",), "exchange": ("target", "value")},
    "SRV": {"priority": (), "weight": (), "port": (), "target": ()},
    "CAA": {"flags": (), "tag": (), "value": ()},
}
_EXAMPLES = {
    "A": "10.0.20.15", "AAAA": "fd00:20::15", "CNAME": "nas", "NS": "ns1", "PTR": "printer.office.example.com.",
    "MX": "10 mail", "SRV": "0 100 389 dc1", "CAA": '0 issue "letsencrypt.org"', "TXT": "any text",
    "SOA": "ns1 hostmaster 1 3600 900 604800 300", "SSHFP": "4 2 123456789abcdef…", "TLSA": "3 1 1 0123456789abcdef…",
    "HTTPS": '1 . alpn="h2,h3"', "SVCB": '1 . alpn="dot"',
}  # fmt: skip


SELF = "self"  # the word for whatever addresses the server itself has


class RecordError(ValueError):
    """Data that cannot be read; `code` is a diagnostic's, `help` a hint, `field` the mapping's key at fault."""

    def __init__(self, message: str, help: str = "", code: str = "E025", field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.help = help
        self.code = code
        self.field = field


def rtype(name: str) -> int:
    """The number of a record type that a zone may hold (TYPE65280 is accepted, RFC 3597); raises RecordError."""
    upper = name.upper()
    if upper in _META:
        raise RecordError(f"{upper} is a query type, not a type of records", "", "E012")
    if upper in _LATER:
        why = "zones are not signed" if upper != "DNAME" else "write a wildcard CNAME, or the names"
        raise RecordError(f"the record type {upper} is not in this version", why, "E030")
    try:
        return codes.qtype_number(upper)
    except KeyError:
        pass
    try:
        return int(dns.rdatatype.from_text(upper))
    except (dns.exception.DNSException, ValueError):
        near = did_you_mean(upper, codes.QTYPES.keys() - _META)
        raise RecordError(f"{name!r} is not a record type", f"did you mean '{near}'?" if near else "", "E012") from None


def rdata(number: int, text: str, origin: bytes) -> bytes:
    """The wire of one record's data; names without a final dot are below `origin` (wire). Raises RecordError."""
    type_name = codes.qtype_name(number)
    if number == codes.TYPE_A or number == codes.TYPE_AAAA:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            raise _unreadable(type_name, text, "") from None
        if address.version != (4 if number == codes.TYPE_A else 6):
            other = "AAAA" if number == codes.TYPE_A else "A"
            raise RecordError(f"{text!r} is an IPv{address.version} address", f"its type is {other}")
        if "%" in text:
            raise RecordError(f"{text!r} has a zone index", "leave out what follows the '%'")
        return address.packed
    if type_name in ("TXT", "SPF") and not text.startswith('"'):
        return _strings(text.encode("utf-8"))
    if not text.isascii() and number in _TARGETS:
        try:
            text = " ".join(to_ascii(word) for word in text.split())
        except DomainError as error:
            raise RecordError(error.message, error.help) from None
    try:
        parsed = dns.rdata.from_text(
            dns.rdataclass.IN, dns.rdatatype.RdataType.make(number), text, _name(origin), relativize=False
        )
        wire = parsed.to_wire(origin=_name(origin), canonicalize=True)
    except (dns.exception.DNSException, ValueError, struct.error) as error:
        raise _unreadable(type_name, text, str(error)) from None
    if wire is None or len(wire) > 65535:
        raise RecordError(f"the {type_name} data is longer than 65535 octets")
    return wire


def shown(number: int, wire: bytes) -> str:
    """Wire data in presentation format, names absolute. An address without octets is `address: self`."""
    if not wire and number in (codes.TYPE_A, codes.TYPE_AAAA):
        return SELF
    try:
        made = dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.RdataType.make(number), wire, 0, len(wire))
        return str(made.to_text())
    except (dns.exception.DNSException, ValueError):
        return f"\\# {len(wire)} {wire.hex()}"


def from_mapping(number: int, fields: Mapping[str, str]) -> str:
    """The presentation text of MX, SRV or CAA data written as a mapping; raises RecordError."""
    type_name = codes.qtype_name(number)
    known = _FIELDS.get(type_name)
    if known is None:
        example = _EXAMPLES.get(type_name, "")
        raise RecordError(
            f"the data of {type_name} is written as a text, not as a block",
            f"for example: {example}" if example else "",
        )
    values: dict[str, str] = {}
    for key, value in fields.items():
        field = next((f for f, others in known.items() if key == f or key in others), "")
        if not field:
            near = did_you_mean(key, known)
            help = f"did you mean '{near}'?" if near else f"known here: {', '.join(known)}"
            raise RecordError(f"unknown key '{key}'", help, "E010", key)
        if field in values:
            raise RecordError(f"'{key}' says the same as another key", f"keep '{field}'", "E012", key)
        values[field] = value
    if type_name == "CAA":
        values.setdefault("flags", "0")
    missing = [field for field in known if field not in values]
    if missing:
        example = ", ".join(f"{field}: …" for field in known)
        raise RecordError(f"the {type_name} data has no '{missing[0]}:'", f"write {{{example}}}", "E011")
    if type_name == "CAA":
        escaped = values["value"].replace("\\", "\\\\").replace('"', '\\"')
        return f'{values["flags"]} {values["tag"]} "{escaped}"'
    return " ".join(values[field] for field in known)


def target(number: int, wire: bytes) -> bytes | None:
    """The name that CNAME, NS, PTR, MX or SRV data points at, as wire; None for other types."""
    start = _TARGETS.get(number)
    return None if start is None else wire[start:]


def soa(zone: bytes, ttl: int) -> bytes:
    """The SOA that a zone without one gets: its own name as MNAME, serial 1 (the table's digest is the real serial).

    MINIMUM is the TTL of negative answers (RFC 2308, section 4): the zone's `ttl`, from 10 s to 1 h.
    """
    mailbox = b"\x0ahostmaster" + zone
    if len(mailbox) > 255:
        mailbox = zone
    return zone + mailbox + struct.pack("!IIIII", 1, 3600, 900, 604800, max(10, min(ttl, 3600)))


def _name(wire: bytes) -> dns.name.Name:
    return dns.name.from_wire(wire, 0)[0]


def _strings(data: bytes) -> bytes:
    """One text as character strings of at most 255 octets (RFC 1035, section 3.3.14)."""
    parts = [data[i : i + 255] for i in range(0, len(data), 255)] or [b""]
    return b"".join(bytes((len(part),)) + part for part in parts)


def _unreadable(type_name: str, text: str, why: str) -> RecordError:
    example = _EXAMPLES.get(type_name, "")
    short = text if len(text) <= 60 else text[:57] + "…"
    reason = f": {why}" if why else ""
    if type_name in ("A", "AAAA"):
        version = 4 if type_name == "A" else 6
        return RecordError(f"{short!r} is not an IPv{version} address", f"for example: {example}")
    return RecordError(f"{short!r} is not {type_name} data{reason}", f"for example: {example}" if example else "")

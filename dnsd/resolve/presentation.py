"""Records as people write them (RFC 1035, section 5; RFC 3597 for types without a form of their own here). Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from dnsd.contract import codes, names
from dnsd.resolve.rrsets import RRset

_NAMES = frozenset((codes.TYPE_NS, codes.TYPE_CNAME, codes.TYPE_PTR, codes.TYPE_DNAME))


def rdata_text(rtype: int, rdata: bytes) -> str:
    """One record's data; what cannot be read is written as RFC 3597 says (section 5)."""
    try:
        writer = _WRITERS.get(rtype)
        if rtype in _NAMES:
            return names.to_text(rdata)
        if writer is not None:
            return writer(rdata)
    except (ValueError, IndexError):
        pass
    return f"\\# {len(rdata)} {rdata.hex()}".rstrip()


def rrset_lines(rrset: RRset) -> list[str]:
    """The RRset's records, `owner ttl type data` each."""
    head = f"{names.to_text(rrset.owner)} {rrset.ttl} {codes.qtype_name(rrset.rtype)}"
    return [f"{head} {rdata_text(rrset.rtype, rdata)}" for rdata in rrset.rdatas]


def _u16(rdata: bytes, at: int) -> int:
    return int.from_bytes(rdata[at : at + 2], "big")


def _end_of_name(rdata: bytes, at: int) -> int:
    while rdata[at]:
        at += 1 + rdata[at]
    return at + 1


def _quoted(octets: bytes) -> str:
    out = []
    for c in octets:
        out.append("\\" + chr(c) if c in b'"\\' else chr(c) if 32 <= c < 127 else f"\\{c:03d}")
    return '"' + "".join(out) + '"'


def _texts(rdata: bytes) -> str:
    out = []
    at = 0
    while at < len(rdata):
        out.append(_quoted(rdata[at + 1 : at + 1 + rdata[at]]))
        at += 1 + rdata[at]
    return " ".join(out)


def _soa(rdata: bytes) -> str:
    second = _end_of_name(rdata, 0)
    third = _end_of_name(rdata, second)
    numbers = [str(int.from_bytes(rdata[third + 4 * i : third + 4 * i + 4], "big")) for i in range(5)]
    return " ".join([names.to_text(rdata[:second]), names.to_text(rdata[second:third]), *numbers])


def _mx(rdata: bytes) -> str:
    return f"{_u16(rdata, 0)} {names.to_text(rdata[2:])}"


def _srv(rdata: bytes) -> str:
    return f"{_u16(rdata, 0)} {_u16(rdata, 2)} {_u16(rdata, 4)} {names.to_text(rdata[6:])}"


def _caa(rdata: bytes) -> str:
    end = 2 + rdata[1]
    return f"{rdata[0]} {rdata[2:end].decode('ascii')} {_quoted(rdata[end:])}"


def _ds(rdata: bytes) -> str:
    return f"{_u16(rdata, 0)} {rdata[2]} {rdata[3]} {rdata[4:].hex().upper()}"


_WRITERS: dict[int, Callable[[bytes], str]] = {
    codes.TYPE_A: lambda rdata: str(ipaddress.IPv4Address(rdata)),
    codes.TYPE_AAAA: lambda rdata: str(ipaddress.IPv6Address(rdata)),
    codes.TYPE_SOA: _soa,
    codes.TYPE_MX: _mx,
    codes.TYPE_SRV: _srv,
    codes.TYPE_TXT: _texts,
    codes.TYPE_CAA: _caa,
    codes.TYPE_DS: _ds,
}

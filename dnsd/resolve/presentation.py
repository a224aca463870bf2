"""Records as people write them (RFC 1035, section 5; RFC 3597 for types without a form of their own here). Pure."""

from __future__ import annotations

import base64
import datetime
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


def _dnskey(rdata: bytes) -> str:
    return f"{_u16(rdata, 0)} {rdata[2]} {rdata[3]} {base64.b64encode(rdata[4:]).decode()}"


def _moment(rdata: bytes, at: int) -> str:
    seconds = int.from_bytes(rdata[at : at + 4], "big")
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y%m%d%H%M%S}"


def _rrsig(rdata: bytes) -> str:
    end = _end_of_name(rdata, 18)
    return (
        f"{codes.qtype_name(_u16(rdata, 0))} {rdata[2]} {rdata[3]} {int.from_bytes(rdata[4:8], 'big')} "
        f"{_moment(rdata, 8)} {_moment(rdata, 12)} {_u16(rdata, 16)} {names.to_text(rdata[18:end])} "
        f"{base64.b64encode(rdata[end:]).decode()}"
    )


def bitmap(rdata: bytes, at: int) -> list[str]:
    """The types of an NSEC or NSEC3 (RFC 4034, section 4.1.2)."""
    types = []
    while at + 2 <= len(rdata):
        window, size = rdata[at], rdata[at + 1]
        for i, octet in enumerate(rdata[at + 2 : at + 2 + size]):
            types += [codes.qtype_name(window << 8 | i << 3 | bit) for bit in range(8) if octet >> (7 - bit) & 1]
        at += 2 + size
    return types


def _nsec(rdata: bytes) -> str:
    end = _end_of_name(rdata, 0)
    return " ".join([names.to_text(rdata[:end]), *bitmap(rdata, end)])


def base32hex(octets: bytes) -> str:
    """As hashed owner names are written (RFC 5155, section 3.3), in lower case."""
    return base64.b32hexencode(octets).decode().rstrip("=").lower()


def _nsec3(rdata: bytes) -> str:
    salt = 5 + rdata[4]
    end = salt + 1 + rdata[salt]
    head = f"{rdata[0]} {rdata[1]} {_u16(rdata, 2)} {rdata[5:salt].hex() or '-'}"
    return " ".join([head, base32hex(rdata[salt + 1 : end]), *bitmap(rdata, end)])


def _nsec3param(rdata: bytes) -> str:
    return f"{rdata[0]} {rdata[1]} {_u16(rdata, 2)} {rdata[5 : 5 + rdata[4]].hex() or '-'}"


def _tlsa(rdata: bytes) -> str:
    return f"{rdata[0]} {rdata[1]} {rdata[2]} {rdata[3:].hex().upper()}"


def _sshfp(rdata: bytes) -> str:
    return f"{rdata[0]} {rdata[1]} {rdata[2:].hex().upper()}"


_SVC_KEYS = ("mandatory", "alpn", "no-default-alpn", "port", "ipv4hint", "ech", "ipv6hint", "dohpath")


def _svcb(rdata: bytes) -> str:
    at = _end_of_name(rdata, 2)
    out = [str(_u16(rdata, 0)), names.to_text(rdata[2:at])]
    while at < len(rdata):
        key, length = _u16(rdata, at), _u16(rdata, at + 2)
        value = rdata[at + 4 : at + 4 + length]
        if len(value) != length:
            raise ValueError
        word = _SVC_KEYS[key] if key < len(_SVC_KEYS) else f"key{key}"
        text = _svc_value(key, value)
        out.append(f"{word}={text}" if text else word)
        at += 4 + length
    return " ".join(out)


def _svc_value(key: int, value: bytes) -> str:
    """RFC 9460, section 7 and appendix A."""
    if key == 0:
        numbers = [_u16(value, at) for at in range(0, len(value), 2)]
        return ",".join(_SVC_KEYS[n] if n < len(_SVC_KEYS) else f"key{n}" for n in numbers)
    if key == 1:
        parts, at = [], 0
        while at < len(value):
            parts.append(value[at + 1 : at + 1 + value[at]])
            at += 1 + value[at]
        plain = all(chr(c).isalnum() or c in b"-./" for part in parts for c in part)
        return b",".join(parts).decode("ascii") if plain else _quoted(value)
    if key == 3 and len(value) == 2:
        return str(_u16(value, 0))
    size = {4: 4, 6: 16}.get(key)
    if size and len(value) % size == 0:
        return ",".join(str(ipaddress.ip_address(value[at : at + size])) for at in range(0, len(value), size))
    if key == 5:
        return base64.b64encode(value).decode()
    return _quoted(value) if value else ""


_WRITERS: dict[int, Callable[[bytes], str]] = {
    codes.TYPE_A: lambda rdata: str(ipaddress.IPv4Address(rdata)),
    codes.TYPE_AAAA: lambda rdata: str(ipaddress.IPv6Address(rdata)),
    codes.TYPE_SOA: _soa,
    codes.TYPE_MX: _mx,
    codes.TYPE_SRV: _srv,
    codes.TYPE_TXT: _texts,
    codes.TYPE_CAA: _caa,
    codes.TYPE_DS: _ds,
    codes.QTYPES["CDS"]: _ds,
    codes.QTYPES["DNSKEY"]: _dnskey,
    codes.QTYPES["CDNSKEY"]: _dnskey,
    codes.TYPE_RRSIG: _rrsig,
    codes.QTYPES["NSEC"]: _nsec,
    codes.QTYPES["NSEC3"]: _nsec3,
    codes.QTYPES["NSEC3PARAM"]: _nsec3param,
    codes.QTYPES["TLSA"]: _tlsa,
    codes.QTYPES["SSHFP"]: _sshfp,
    codes.QTYPES["SVCB"]: _svcb,
    codes.QTYPES["HTTPS"]: _svcb,
}

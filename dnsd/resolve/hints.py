"""Root hints: where resolving begins when nothing is known (RFC 9609).

Pure: texts and pairs in, `Hints` out; the built-in ones are the root servers' addresses as published by IANA.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable

from dnsd.contract import codes, names

# Names in lower-case wire form, each with its addresses as texts.
Hints = tuple[tuple[bytes, tuple[str, ...]], ...]

_BUILTIN = (
    ("a", "198.41.0.4", "2001:503:ba3e::2:30"), ("b", "170.247.170.2", "2801:1b8:10::b"),
    ("c", "192.33.4.12", "2001:500:2::c"), ("d", "199.7.91.13", "2001:500:2d::d"),
    ("e", "192.203.230.10", "2001:500:a8::e"), ("f", "192.5.5.241", "2001:500:2f::f"),
    ("g", "192.112.36.4", "2001:500:12::d0d"), ("h", "198.97.190.53", "2001:500:1::53"),
    ("i", "192.36.148.17", "2001:7fe::53"), ("j", "192.58.128.30", "2001:503:c27::2:30"),
    ("k", "193.0.14.129", "2001:7fd::1"), ("l", "199.7.83.42", "2001:500:9f::42"),
    ("m", "202.12.27.33", "2001:dc3::35"),
)  # fmt: skip


class HintsError(ValueError):
    """Hints that cannot be used; the message says which line and why."""


def builtin() -> Hints:
    """The thirteen root servers."""
    return tuple((names.from_text(f"{letter}.root-servers.net"), (v4, v6)) for letter, v4, v6 in _BUILTIN)


def from_pairs(pairs: Iterable[tuple[str, tuple[str, ...]]]) -> Hints:
    """Hints from (name, addresses) as the settings have them; raises HintsError."""
    out: dict[bytes, tuple[str, ...]] = {}
    for text, addresses in pairs:
        try:
            name = names.from_text(text)
            out[name] = out.get(name, ()) + tuple(str(ipaddress.ip_address(address)) for address in addresses)
        except ValueError as error:
            raise HintsError(f"root hint {text!r}: {error}") from None
    if not any(out.values()):
        raise HintsError("the root hints hold no address; write at least one server with its address")
    return tuple(out.items())


def from_text(text: str) -> Hints:
    """Hints from a file like IANA's named.root: NS records of the root, A and AAAA of those; raises HintsError."""
    servers: dict[bytes, list[str]] = {}
    addresses: dict[bytes, list[str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition(";")[0].split()
        if not words or words[0].startswith("$"):
            continue
        owner, rest = words[0], [word for word in words[1:] if not word.isdigit() and word.upper() != "IN"]
        try:
            if len(rest) != 2 or line[:1].isspace():
                raise HintsError("not `owner [ttl] [IN] type data`")
            kind, data = rest[0].upper(), rest[1]
            if kind == "NS" and owner == ".":
                servers.setdefault(names.from_text(data), [])
            elif kind in ("A", "AAAA"):
                address = ipaddress.ip_address(data)
                if address.version != (4 if kind == "A" else 6):
                    raise HintsError(f"{data!r} is no address for {kind}")
                addresses.setdefault(names.from_text(owner), []).append(str(address))
            else:
                raise HintsError(f"a {kind} record of {owner} is no hint; hints are NS of the root, A and AAAA")
        except ValueError as error:
            raise HintsError(f"line {number}: {error}") from None
    for name in servers:
        servers[name] += addresses.get(name, [])
    if not any(servers.values()):
        raise HintsError("there is no root server with an address (`. NS name` and `name A address`)")
    return tuple((name, tuple(found)) for name, found in servers.items())


@functools.lru_cache(maxsize=4096)
def usable(address: str, use_ipv4: bool, use_ipv6: bool, query_localhost: bool) -> bool:
    """Whether a server may live at this address: its family is in use and it can be somebody's own.

    Loopback only by leave of `query_localhost`: a delegation to 127.0.0.1 would make us ask ourselves.
    """
    found = ipaddress.ip_address(address)
    if not (use_ipv4 if found.version == 4 else use_ipv6):
        return False
    if found.version == 6 and (found.ipv4_mapped is not None or found.is_link_local):
        return False  # a link-local address needs an interface; a mapped one is IPv4 in disguise
    if found.is_loopback:
        return query_localhost
    if found.version == 4 and (found.packed[0] == 0 or found.packed[0] >= 240):
        return False
    return not (found.is_unspecified or found.is_multicast)


def address_text(rtype: int, rdata: bytes) -> str:
    """The address in an A or AAAA record's rdata."""
    return str(ipaddress.IPv4Address(rdata) if rtype == codes.TYPE_A else ipaddress.IPv6Address(rdata))

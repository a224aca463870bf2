"""Addresses as people write them: members of groups, ids of clients, servers. Pure; no name is ever looked up."""

from __future__ import annotations

import ipaddress
import re

from controller.ruleset import Address, Server

_MAC = re.compile(r"([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}|([0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]{4}")
_SCHEME = re.compile(r"([a-z][a-z0-9+]*)://", re.IGNORECASE)


class MemberError(ValueError):
    """A text that is no member or server; `code` is a diagnostic's, `help` a hint."""

    def __init__(self, message: str, help: str = "", code: str = "E024") -> None:
        super().__init__(message)
        self.message = message
        self.help = help
        self.code = code


def address(text: str) -> Address | None:
    """The address that a text is, or None. Zone indexes (`%eth0`) are none."""
    if not text or text[0] not in "0123456789abcdefABCDEF:" or "%" in text:
        return None
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def network(text: str) -> tuple[int, int, int] | None:
    """(version, first, last) of an address, a network or `first-last`; None when it is none of them.

    Raises MemberError for what is nearly one: bits beyond the prefix, a reversed range, a MAC address.
    """
    single = address(text)
    if single is not None:
        return single.version, int(single), int(single)
    if _MAC.fullmatch(text):
        raise MemberError(f"the MAC address {text!r} is not in this version", "write the client's addresses", "E030")
    if "/" in text:
        try:
            net = ipaddress.ip_network(text)
        except ValueError:
            try:
                loose = ipaddress.ip_network(text, strict=False)
            except ValueError:
                help = "a network is written 10.0.0.0/24 or fd00::/64"
                raise MemberError(f"{text!r} is not a network", help) from None
            words = f"{text!r} has bits set beyond its prefix"
            help = f"write {loose} for the network, or {text.partition('/')[0]} for one address"
            raise MemberError(words, help) from None
        return net.version, int(net.network_address), int(net.broadcast_address)
    first_text, dash, last_text = (part.strip() for part in text.partition("-"))
    first = address(first_text) if dash else None
    if first is not None:
        last = address(last_text)
        if last is None:
            tail = f"{first_text.rpartition('.')[0]}.{last_text}" if last_text.isdigit() and first.version == 4 else ""
            hint = f"write {first_text}-{tail}" if tail else "a range is written 10.0.0.10-10.0.0.19"
            raise MemberError(f"{text!r} is not a range of addresses", hint)
        if first.version != last.version:
            words = f"{text!r} begins in IPv{first.version} and ends in IPv{last.version}"
            raise MemberError(words, "write two ranges")
        if int(first) > int(last):
            raise MemberError(f"the range {text!r} ends before it begins", f"write {last}-{first}")
        return first.version, int(first), int(last)
    if re.fullmatch(r"[0-9.]+", text) or text.count(":") > 1:
        hint = "an address has four numbers from 0 to 255, such as 10.0.0.7" if ":" not in text else "as in fd00::7"
        raise MemberError(f"{text!r} is not an address", hint)
    return None


def server(text: str) -> Server:
    """A server: IP, IP:port or [v6]:port; raises MemberError for everything else, host names included."""
    if text in ("recurse", "dhcp"):
        raise MemberError(f"the word {text!r} stands alone", f"write `{text}` or servers, not both", "E012")
    scheme = _SCHEME.match(text)
    if scheme:
        words = f"the upstream {text!r} is not in this version"
        raise MemberError(words, "plain DNS to an address: 192.0.2.53 or 192.0.2.53:5353", "E030")
    host, port = text, "53"
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise MemberError(f"{text!r} is not a server", "write [fd00::53]:5353")
        port = rest[1:] if rest else "53"
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    found = address(host)
    if found is None:
        if re.search("[a-z]", host, re.IGNORECASE) and "%" not in text and ":" not in host:
            raise MemberError(
                f"{text!r} is a host name; a server must be an address",
                "looking up a server's name would need the server; write IP, IP:port or [v6]:port",
            )
        raise MemberError(f"{text!r} is not a server", "write IP, IP:port or [v6]:port")
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise MemberError(f"{port!r} is not a port", "a port is a number from 1 to 65535")
    if found.is_unspecified or found.is_multicast or found == ipaddress.IPv4Address(0xFFFFFFFF):
        raise MemberError(f"{text!r} cannot be a server", "write the address of a resolver")
    return Server(found, int(port))

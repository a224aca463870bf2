"""Single values of the node's settings from what people write: durations, sizes, addresses to listen on, networks.

Pure. Each function returns the value or raises ValueError with a sentence; `settings` knows which key has which.
"""

from __future__ import annotations

import ipaddress
import os.path
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# What the word `private` stands for in `allow` (RFC 1918, 6598, 3927, 4193, 4291, 1122).
PRIVATE: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16",
        "::1/128", "fc00::/7", "fe80::/10",
    )
)  # fmt: skip


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(\d+)(ms|s|m|h|d|w)")
_SIZES = {"": 1, "B": 1, "K": 1 << 10, "KIB": 1 << 10, "KB": 1000, "M": 1 << 20, "MIB": 1 << 20, "MB": 1000**2,
          "G": 1 << 30, "GIB": 1 << 30, "GB": 1000**3}  # fmt: skip


class ItemErrors(ValueError):
    """Several items of a list that cannot be used, each with its own sentence. `problems`: (index, sentence)."""

    def __init__(self, problems: Sequence[tuple[int, str]]) -> None:
        super().__init__("; ".join(sentence for _, sentence in problems))
        self.problems = tuple(problems)


def each(items: Sequence[object], read: Callable[[Any], T]) -> tuple[T, ...]:
    """Read every item of a list; raises ItemErrors with all that cannot be read."""
    out: list[T] = []
    problems: list[tuple[int, str]] = []
    for index, item in enumerate(items):
        try:
            out.append(read(item))
        except ValueError as error:
            problems.append((index, str(error)))
    if problems:
        raise ItemErrors(problems)
    return tuple(out)


def duration(value: object) -> float:
    """Read `30s`, `1h30m`, `250ms` or a number of seconds; raises ValueError with a sentence."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e10:
        return float(value)
    if isinstance(value, str):
        text = value.strip()
        if text.isascii() and text.isdigit() and len(text) <= 10:
            return float(text)
        total, end = 0.0, 0
        for match in _DURATION.finditer(text):
            if match.start() != end:
                break
            total, end = total + int(match[1]) * _UNITS[match[2]], match.end()
        if end and end == len(text) and total < 1e10:
            return total
    raise ValueError(f"{show(value)} is not a duration; write 30s, 5m, 1h30m, 7d or a number of seconds")


def size(value: object) -> int:
    """Read `64MiB`, `500MB` or a number of octets; raises ValueError with a sentence."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d{1,15})\s*([A-Za-z]*)\s*", value)):
        unit = _SIZES.get(match[2].upper())
        if unit is not None:
            return int(match[1]) * unit
    raise ValueError(f"{show(value)} is not a size; write 64MiB, 500MB or a number of octets")


def split_listen(text: str) -> tuple[str, int]:
    """Split `address:port`, `[v6]:port`, `interface:port`, `interface/addresses:port` or `*:53` into (host, port).

    Raises ValueError with a sentence. An IPv6 address comes without its brackets. `eth0:53` is one socket bound to the
    device, `eth0/addresses:53` one socket for each address that the interface has, following them as they change.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise ValueError(f"{text!r} is not [address]:port, for example [::1]:53")
        port = rest[1:]
        try:
            if ipaddress.ip_address(host).version != 6:
                raise ValueError
        except ValueError:
            raise ValueError(f"{host!r} in {text!r} is not an IPv6 address") from None
    else:
        host, colon, port = text.rpartition(":")
        if not colon:
            raise ValueError(f"{text!r} has no port; write {text or '127.0.0.1'}:53")
        if ":" in host:
            raise ValueError(f"{text!r} is ambiguous; write an IPv6 address in brackets: [{host}]:{port}")
        if not host:
            raise ValueError(f"{text!r} has no address; write *{text} for all addresses")
        if re.fullmatch(r"[0-9.]+", host):
            try:
                ipaddress.IPv4Address(host)
            except ValueError:
                raise ValueError(f"{host!r} in {text!r} is not an IPv4 address") from None
        elif host != "*" and not re.fullmatch(r"[^\s/:]{1,15}(/addresses)?", host):
            if re.fullmatch(r"[^\s/:]{1,15}/[^/]*", host):
                name = host.partition("/")[0]
                raise ValueError(f"{text!r} is not known here; write {name}:{port} or {name}/addresses:{port}")
            raise ValueError(f"{host!r} in {text!r} is neither an address nor an interface's name")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f"{port!r} in {text!r} is not a port (0 to 65535)")
    return host, int(port)


def show(value: object) -> str:
    """A value as a message shows it."""
    if value is None:
        return "nothing (null)"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def text_of(value: object) -> str:
    """A text that is not empty."""
    if isinstance(value, str) and value:
        return value
    raise ValueError(f"{show(value)} is not a text")


def truth(value: object) -> bool:
    """true or false, from a variable also as text."""
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise ValueError(f"{show(value)} is neither true nor false")


def whole(value: object, low: int, high: int) -> int:
    """A whole number within limits."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise ValueError(f"{show(value)} is not a whole number from {low} to {high}")


def texts(value: object) -> tuple[str, ...]:
    """A list of texts, from a variable separated by commas."""
    if isinstance(value, str):
        value = [item.strip() for item in value.split(",") if item.strip()]
    if isinstance(value, (list, tuple)):
        return each(value, text_of)
    raise ValueError(f"{show(value)} is not a list of texts")


def listens(value: object) -> tuple[str, ...]:
    """Addresses to listen on; see `split_listen`."""
    items = value if isinstance(value, (list, tuple)) else texts(value)
    if not items:
        raise ValueError("there must be at least one address to listen on, for example 127.0.0.1:5335")
    known: set[str] = set()

    def read(item: object) -> str:
        text = text_of(item)
        split_listen(text)
        if text in known:
            raise ValueError(f"{text!r} is listed twice")
        known.add(text)
        return text

    return each(items, read)


def endpoint(value: object) -> str:
    """An address and a port."""
    text = text_of(value)
    host, _ = split_listen(text)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"{text!r} must be address:port, for example 127.0.0.1:5338") from None
    return text


def loopback(value: object) -> str:
    """An address on this machine and a port."""
    text = endpoint(value)
    if not ipaddress.ip_address(split_listen(text)[0]).is_loopback:
        raise ValueError(f"{text!r} is not loopback; a broker elsewhere needs TLS, which is not in this version")
    return text


def workers(value: object) -> int:
    """A number of processes; 0 for auto."""
    return 0 if value == "auto" else whole(value, 1, 256)


def networks(value: object) -> tuple[Network, ...]:
    """Networks, or the word private for `PRIVATE`."""
    def read(item: object) -> tuple[Network, ...]:
        text = text_of(item)
        if text == "private":
            return PRIVATE
        try:
            return (ipaddress.ip_network(text),)
        except ValueError:
            try:
                loose = ipaddress.ip_network(text, strict=False)
            except ValueError:
                raise ValueError(f"{text!r} is neither a network nor the word private") from None
            raise ValueError(f"{text!r} has bits set beyond its prefix; did you mean {loose}?") from None

    items = value if isinstance(value, (list, tuple)) else texts(value)
    return tuple(dict.fromkeys(network for networks_of in each(items, read) for network in networks_of))


def choice(*words: str) -> Callable[[object], str]:
    """A reader for one of these words."""

    def read(value: object) -> str:
        if value is False and "off" in words:  # YAML 1.1 reads the word off as false
            return "off"
        if value in words:
            return str(value)
        raise ValueError(f"{show(value)} is not one of: {', '.join(words)}")

    return read


def hints(value: object) -> str | tuple[tuple[str, tuple[str, ...]], ...]:
    """Root hints: the word builtin, a file, or (name, addresses) pairs."""
    if isinstance(value, str):
        return text_of(value)
    if isinstance(value, list) and value:
        return each(value, _server)
    raise ValueError(f"{show(value)} is not builtin, a file, or a list of {{name, addresses}}")


def _server(item: object) -> tuple[str, tuple[str, ...]]:
    if not isinstance(item, Mapping) or set(item) != {"name", "addresses"}:
        raise ValueError(f"{show(item)} is not {{name: …, addresses: […]}}")
    addresses = texts(item["addresses"])
    for address in addresses:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise ValueError(f"{address!r} is not an address; write one such as 198.41.0.4 or 2001:503:ba3e::2:30") from None
    return text_of(item["name"]), addresses


def anchors(value: object) -> str | tuple[str, ...]:
    """Trust anchors: the word builtin, a file, or texts."""
    return value if isinstance(value, str) and value else texts(value)


def git_url(value: object, base: str) -> str:
    """A git URL; a path on this machine is made absolute (`host:path` and `scheme://` are not paths)."""
    text = text_of(value)
    if "://" in text or re.match(r"[^/]+:", text):
        return text
    return os.path.normpath(os.path.join(base, os.path.expanduser(text)))


def inside(value: object) -> str:
    """A path inside a repository, "" for its top."""
    text = "" if value in (None, "", ".") else text_of(value).strip("/")
    if text and os.path.normpath(text).split("/")[0] == "..":
        raise ValueError(f"{text!r} leaves the repository")
    return "" if not text else os.path.normpath(text)

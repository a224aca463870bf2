"""What the servers are given and what they are asked: the same names in every run, and the questions as packets.

Rule: everything here is a function of its arguments; two runs on two machines ask the same questions.
"""

from __future__ import annotations

import dataclasses
import pathlib
import random
import struct

ZONE = "bench.test"  # what the upstream server has
MANY = f"many.{ZONE}"  # a wildcard there: every name has an address
NONE = f"none.{ZONE}"  # nothing there: every name below does not exist
FRESH, CASE, COOKIE = 1, 2, 4  # what the client changes in each question it sends (client.c)

_WORDS = ("ads", "track", "pixel", "cdn", "stat", "metric", "beacon", "promo", "offer", "click", "banner", "sync")
_TOPS = ("com", "net", "org", "io", "info")
_NOERROR, _NXDOMAIN = 0, 3


@dataclasses.dataclass(frozen=True, slots=True)
class Data:
    """What every server is given. Names in `cached` and below MANY live in the zone of the upstream server."""

    blocked: list[str]
    local: dict[str, str]
    redirect: dict[str, str]
    cached: dict[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """One kind of question. `rcode` None: whatever the server thinks right. `records`: of the answer section, each."""

    name: str
    title: str
    rcode: int | None
    records: int | None
    warm: tuple[str, ...] = ()  # the cases whose questions must be in the cache before this is measured


CASES = {
    case.name: case
    for case in (
        Case("cached", "cached forwarded answer", _NOERROR, 1, ("cached",)),
        Case("cached-edns", "the same, with EDNS", _NOERROR, 1, ("cached-edns",)),
        Case("local", "local record", _NOERROR, 1),
        Case("local-edns", "the same, with EDNS", _NOERROR, 1),
        Case("redirect", "redirect to an address", _NOERROR, 1),
        Case("redirect-edns", "the same, with EDNS", _NOERROR, 1),
        Case("blocked", "blocked name", _NXDOMAIN, 0),
        Case("blocked-edns", "the same, with EDNS", _NXDOMAIN, 0),
        Case("below", "random label below a blocked name", _NXDOMAIN, 0),
        Case("uncached", "uncached, forwarded to a local Knot", _NOERROR, 1),
        Case("mixed", "mixed: 60 % cached, 25 % blocked, 10 % local, 5 % uncached", None, None, ("cached",)),
        Case("absent", "random label below a forwarded zone (does not exist)", _NXDOMAIN, 0),
        Case("any", "ANY for a forwarded name", None, None, ("any",)),
        Case("large", "EDNS with 400 octets of padding, cached", _NOERROR, 1, ("cached-edns", "large")),
        Case("mixedcase", "0x20 mixed case, cached", _NOERROR, 1, ("cached",)),
        Case("cookies", "DNS cookies, cached", _NOERROR, 1, ("cached-edns",)),
        Case("miss", "cached answer that no rule names (20,000 different names)", _NOERROR, 1, ("miss",)),
    )
}


def blocked_names(count: int) -> list[str]:
    """Names of plausible shape, none below another; a longer list begins with the shorter one."""
    out = []
    for i in range(count):
        x = i * 2654435761 % (1 << 32)  # a permutation of 32-bit numbers: no name twice
        word, top = _WORDS[x % 12], _TOPS[x % 5]
        out.append(f"{word}{x:x}.{top}" if x & 6 else f"{word}.s{x:x}.{top}")
    return out


def make(blocked: int, local: int = 1000) -> Data:
    """So many blocked names and local records, and always 1,000 redirects and 1,000 names of the upstream's zone."""
    address = (f"10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}" for i in range(1, 1 << 20))
    return Data(
        blocked_names(blocked),
        {f"host-{i}.local.test": next(address) for i in range(local)},
        {f"old-{i}.moved.test": next(address) for i in range(1000)},
        {f"www-{i}.{ZONE}": next(address) for i in range(1000)},
    )


def packet(name: str, qtype: int = 1, edns: bool = False, flags: int = 0, padding: int = 0) -> bytes:
    """One question as the client reads it: u16 length, u16 what to change in it, message."""
    wire = b"".join(bytes((len(part),)) + part.encode() for part in name.split(".")) + b"\0"
    edns = edns or bool(flags & COOKIE) or padding > 0
    message = struct.pack("!HHHHHH", 0, 0x0100, 1, 0, 0, int(edns)) + wire + struct.pack("!HH", qtype, 1)
    if edns:
        options = struct.pack("!HH", 12, padding) + bytes(padding) if padding else b""
        options += struct.pack("!HH", 10, 8) + bytes(8) if flags & COOKIE else b""  # the cookie is what ends the packet
        message += b"\0" + struct.pack("!HHIH", 41, 1232, 0, len(options)) + options
    return struct.pack("<HH", len(message), flags) + message


def packets(data: Data, case: str) -> list[bytes]:
    """The questions of a case, in the order in which they are asked, over and over."""
    chance = random.Random(case)
    sample = chance.sample(data.blocked, min(20_000, len(data.blocked)))
    fresh = "00000000"  # the client writes a number there
    match case.removesuffix("-edns"):
        case "cached" | "local" | "redirect" as kind:
            names = list(getattr(data, kind))
            return [packet(name, edns=case.endswith("-edns")) for name in names]
        case "blocked":
            return [packet(name, edns=case.endswith("-edns")) for name in sample]
        case "below":
            return [packet(f"{fresh}.{name}", flags=FRESH) for name in sample]
        case "uncached":
            return [packet(f"{fresh}.{MANY}", flags=FRESH)]
        case "absent":
            return [packet(f"{fresh}.{NONE}", flags=FRESH)]
        case "any":
            return [packet(name, qtype=255) for name in data.cached]
        case "large":
            return [packet(name, padding=400) for name in data.cached]
        case "mixedcase":
            return [packet(name, flags=CASE) for name in data.cached]
        case "cookies":
            return [packet(name, flags=COOKIE) for name in data.cached]
        case "miss":
            return [packet(f"m{i:x}.{MANY}") for i in range(20_000)]
        case "mixed":
            kinds = chance.choices(("cached", "blocked", "local", "uncached"), (60, 25, 10, 5), k=20_000)
            pools = {"cached": list(data.cached), "blocked": data.blocked, "local": list(data.local)}
            return [
                packet(f"{fresh}.{MANY}", flags=FRESH) if kind == "uncached" else packet(chance.choice(pools[kind]))
                for kind in kinds
            ]
    raise ValueError(case)


def write_packets(folder: pathlib.Path, data: Data) -> None:
    """A file for each case."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        (folder / case).write_bytes(b"".join(packets(data, case)))

"""What changes without a release: encode, decode, compute.

The agent is the only writer of a node's facts; they are swapped whole, and `decide` reads them by
offset (compiled), so the table stays immutable and the query path reads no clock and no calendar.
Pure: the time is an argument; only the time zone database is read from the system.

Layout (all integers little-endian): 16 u32 words of header
    0 magic "FACT"  1 major  2 length  3 version low  4 version high  5 gates: count  6 gates: offset
    7 v4: count  8 v4: offset  9 v6: count  10 v6: offset  11 own: count  12 own: offset
    13 overrides: count  14 overrides: offset  15 flags
then, at 64, 8 u32 words:
    16 lease: count  17 lease: offset  18 next gates: count  19 next gates: offset
    20 generation of gates, low  21 high  22 generation of next gates, low  23 high
    24 self: count  25 self: offset  26 to 31 zero
Sections are 8-aligned, in any place after byte 128:
    gates      one byte each, in the gate order of the committed table: 1 open, 0 closed
    next gates the same for the table that is prepared, if any. A reader uses them when its table's generation is
               theirs, and `gates` otherwise: so table and gates change in the same batch at COMMIT
    v4         allowed clients, pairs of u32 (first, last), sorted, disjoint, not adjacent
    v6         allowed clients, pairs of 16 octets in network order, sorted, disjoint; never ::ffff:0:0/96
    own        our own addresses, 16 octets each (IPv4 as ::ffff:0:0/96), sorted, unique
    overrides  client address 16 octets, class u32; sorted by address, unique
    lease      DNS servers of the DHCP leases: address 16 octets, port u16, u16 number of the interface that a
               link-local address belongs to (0: none); in order of preference
    self       those of our own addresses that `address: self` in a zone answers with, 16 octets each; IPv4 first,
               sorted, unique, at most 32
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import ipaddress
import itertools
import json
import math
import struct
import zoneinfo
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MAGIC = b"FACT"
MAJOR = 2
HEADER = 64
_WORDS = 32
_START = 4 * _WORDS  # where sections may begin
LIMIT = 60_000  # what one half of the shared memory's facts region is sure to hold

# Word numbers, for readers by offset.
WORD_VERSION = 3
WORD_GATES = 5
WORD_V4 = 7
WORD_V6 = 9
WORD_OWN = 11
WORD_OVERRIDES = 13
WORD_FLAGS = 15
WORD_LEASE = 16
WORD_NEXT_GATES = 18
WORD_GENERATION = 20
WORD_NEXT_GENERATION = 22
WORD_SELF = 24

MOST_SELF = 32
FLAG_SPECIAL_USE = 1  # keep the names of RFC 6303 and RFC 6761 at home

_V4_MAPPED = b"\x00" * 10 + b"\xff\xff"
_RECHECK_S = 3600  # at the latest: time zone data may change under a running process

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class FactsError(ValueError):
    """Bytes that are not facts, or facts that cannot be encoded; the text says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """One version of a node's facts. Addresses are 16 octets, IPv4 as ::ffff:0:0/96 (RFC 4291, section 2.5.5.2).

    `generation` and `next_generation` are what the workers' tables are installed under, 0 for none.
    """

    version: int = 0
    gates: bytes = b""
    flags: int = 0
    v4: tuple[tuple[int, int], ...] = ()
    v6: tuple[tuple[bytes, bytes], ...] = ()
    own: tuple[bytes, ...] = ()
    overrides: tuple[tuple[bytes, int], ...] = ()
    lease: tuple[tuple[bytes, int, int], ...] = ()
    generation: int = 0
    next_gates: bytes = b""
    next_generation: int = 0
    self_addresses: tuple[bytes, ...] = ()

    @property
    def lease_servers(self) -> tuple[tuple[str, int], ...]:
        """The leases' DNS servers as (address, port); a link-local address has its interface's number."""
        return tuple((f"{unpacked(a)}%{index}" if index else str(unpacked(a)), port) for a, port, index in self.lease)


def packed(address: str | ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    """An address as the 16 octets that facts, the query path and the decision ring use."""
    parsed = ipaddress.ip_address(address) if isinstance(address, str) else address
    return _V4_MAPPED + parsed.packed if parsed.version == 4 else parsed.packed


def unpacked(address: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address that these 16 octets are; mapped ones come back as IPv4."""
    if address[:12] == _V4_MAPPED:
        return ipaddress.IPv4Address(address[12:])
    return ipaddress.IPv6Address(address)


def intervals(networks: Iterable[Network]) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[bytes, bytes], ...]]:
    """Networks as sorted, disjoint, not adjacent intervals: (v4, v6) as `Facts` holds them."""
    found: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
    for network in networks:
        first, last = int(network.network_address), int(network.broadcast_address)
        found[network.version].append((first, last))
    v6 = _merged(found[6])
    return (
        tuple(_merged(found[4])),
        tuple((first.to_bytes(16, "big"), last.to_bytes(16, "big")) for first, last in v6),
    )


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if out and first <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(out[-1][1], last))
        else:
            out.append((first, last))
    return out


# --- bytes ------------------------------------------------------------------------------------------------------------


def encode(facts: Facts) -> bytes:
    """The bytes of these facts; raises FactsError when they are out of order, out of range or too long."""
    numbers = (facts.version, facts.generation, facts.next_generation)
    if not all(0 <= number < 2**64 for number in numbers) or not 0 <= facts.flags < 2**32:
        raise FactsError("version, generation or flags are out of range")
    body = bytearray(_START)
    words = [0] * _WORDS

    def place(word: int, count: int, data: bytes) -> None:
        body.extend(b"\x00" * (-len(body) % 8))
        words[word], words[word + 1] = count, len(body)
        body.extend(data)

    try:
        place(WORD_GATES, len(facts.gates), facts.gates)
        place(WORD_NEXT_GATES, len(facts.next_gates), facts.next_gates)
        place(WORD_V4, len(facts.v4), b"".join(struct.pack("<II", *pair) for pair in facts.v4))
        place(WORD_V6, len(facts.v6), b"".join(first + last for first, last in facts.v6))
        place(WORD_OWN, len(facts.own), b"".join(facts.own))
        overrides = b"".join(address + struct.pack("<I", klass) for address, klass in facts.overrides)
        place(WORD_OVERRIDES, len(facts.overrides), overrides)
        place(WORD_LEASE, len(facts.lease), b"".join(a + struct.pack("<HH", *rest) for a, *rest in facts.lease))
        place(WORD_SELF, len(facts.self_addresses), b"".join(facts.self_addresses))
    except struct.error as error:
        raise FactsError(f"a number is out of range: {error}") from None
    body.extend(b"\x00" * (-len(body) % 8))
    words[:3] = [int.from_bytes(MAGIC, "little"), MAJOR, len(body)]
    for word, number in zip((WORD_VERSION, WORD_GENERATION, WORD_NEXT_GENERATION), numbers, strict=True):
        words[word], words[word + 1] = number & 0xFFFFFFFF, number >> 32
    words[WORD_FLAGS] = facts.flags
    struct.pack_into(f"<{_WORDS}I", body, 0, *words)
    data = bytes(body)
    if len(data) > LIMIT:
        raise FactsError(f"facts of {len(data)} bytes do not fit into {LIMIT}")
    if decode(data) != facts:
        raise FactsError("an address is not 16 octets long")
    return data


def decode(data: bytes | bytearray | memoryview) -> Facts:
    """Read facts and check every offset and order; raises FactsError. Bytes after `length` are ignored."""
    data = bytes(data)
    if len(data) < _START:
        raise FactsError(f"{len(data)} bytes are too few for a header of {_START}")
    words = struct.unpack_from(f"<{_WORDS}I", data)
    if data[:4] != MAGIC:
        raise FactsError("the magic is missing: these are not facts")
    if words[1] != MAJOR:
        raise FactsError(f"layout {words[1]} is not {MAJOR}, the one that this version reads")
    if not _START <= words[2] <= len(data):
        raise FactsError(f"length {words[2]} does not fit into {len(data)} bytes")
    data = data[: words[2]]

    def section(word: int, size: int, what: str) -> list[bytes]:
        count, offset = words[word], words[word + 1]
        if offset % 8 or offset < _START or offset + count * size > len(data):
            raise FactsError(f"{what} ({count} at {offset}) lie outside the facts")
        return [data[at : at + size] for at in range(offset, offset + count * size, size)]

    def number(word: int) -> int:
        return int(words[word]) | int(words[word + 1]) << 32

    gates = b"".join(section(WORD_GATES, 1, "gates"))
    next_gates = b"".join(section(WORD_NEXT_GATES, 1, "next gates"))
    if (gates + next_gates).strip(b"\x00\x01"):
        raise FactsError("a gate is neither 0 nor 1")
    v4 = tuple(struct.unpack("<II", pair) for pair in section(WORD_V4, 8, "v4 clients"))
    v6 = tuple((pair[:16], pair[16:]) for pair in section(WORD_V6, 32, "v6 clients"))
    _ordered([(first, last) for first, last in v4], "v4 clients")
    _ordered([(int.from_bytes(a, "big"), int.from_bytes(b, "big")) for a, b in v6], "v6 clients")
    own = tuple(section(WORD_OWN, 16, "own addresses"))
    overrides = tuple((e[:16], int.from_bytes(e[16:], "little")) for e in section(WORD_OVERRIDES, 20, "overrides"))
    for addresses, what in ((own, "own addresses"), (tuple(a for a, _ in overrides), "overrides")):
        if any(a >= b for a, b in itertools.pairwise(addresses)):
            raise FactsError(f"{what} are not sorted")
    lease = tuple((e[:16], *struct.unpack("<HH", e[16:])) for e in section(WORD_LEASE, 20, "lease servers"))
    self_addresses = tuple(section(WORD_SELF, 16, "addresses of self"))
    order = [(address[:12] != _V4_MAPPED, address) for address in self_addresses]
    if len(order) > MOST_SELF or any(a >= b for a, b in itertools.pairwise(order)):
        raise FactsError("addresses of self are too many or not sorted")
    return Facts(
        version=number(WORD_VERSION),
        gates=gates,
        flags=words[WORD_FLAGS],
        v4=v4,
        v6=v6,
        own=own,
        overrides=overrides,
        lease=lease,
        generation=number(WORD_GENERATION),
        next_gates=next_gates,
        next_generation=number(WORD_NEXT_GENERATION),
        self_addresses=self_addresses,
    )


def _ordered(spans: Sequence[tuple[int, int]], what: str) -> None:
    if any(first > last for first, last in spans) or any(a[1] >= b[0] for a, b in itertools.pairwise(spans)):
        raise FactsError(f"{what} are not sorted and disjoint")


# --- schedules and expiry ---------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def _zone(name: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise FactsError(
            f"time zone {name!r} is not known on this machine: install the time zone database (Debian: tzdata)"
        ) from None


def gates_from_json(data: bytes | str, now_s: float) -> tuple[bytes, float]:
    """`gates` of the table's own text, `{"gates": [...]}` (`Table.gates_json()`); raises FactsError."""
    if not data:
        return b"", math.inf
    try:
        entries = json.loads(data)["gates"]
    except (ValueError, KeyError, TypeError) as error:
        raise FactsError(f"the table's schedules are not readable: {error}") from None
    return gates(entries, now_s)


def gates(entries: Sequence[Mapping[str, Any]], now_s: float) -> tuple[bytes, float]:
    """Which gates are open at `now_s` (UTC epoch seconds), one byte each in order, and when to ask again.

    An entry is `{"schedule": name, "windows": [...]}` (open while any window is), `{"expires": second}` (open before
    that second), or both (open while both are). The second result is the first second at which a gate flips, at most
    an hour away when a schedule is among them, `math.inf` when nothing will ever flip. Raises FactsError.
    """
    out = bytearray()
    ask_again = math.inf
    for entry in entries:
        is_open = True
        try:
            if "windows" in entry:
                is_open, flip = _schedule(entry["windows"], now_s)
                ask_again = min(ask_again, flip)
            if "expires" in entry:
                is_open = is_open and now_s < entry["expires"]
                if now_s < entry["expires"]:
                    ask_again = min(ask_again, float(entry["expires"]))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError) as error:
            if isinstance(error, FactsError):
                raise
            raise FactsError(f"gate {len(out)} is not readable: {error!r}") from None
        out.append(is_open)
    return bytes(out), ask_again


def is_open(windows: Sequence[Mapping[str, Any]], now_s: float) -> bool:
    """Whether any of these windows is open: while the wall clock of the window's zone shows a time in it.

    So an hour that a clock change skips opens nothing, and one that it repeats opens twice. A window belongs to the
    weekday (0 = Monday) on which it starts; it runs over midnight if start > end, round the clock if both are equal.
    """
    return any(_window_open(window, now_s) for window in windows)


def _window_open(window: Mapping[str, Any], now_s: float) -> bool:
    local = datetime.datetime.fromtimestamp(math.floor(now_s), _zone(window["timezone"]))
    minute = local.hour * 60 + local.minute
    start, end, days = window["start"], window["end"], window["weekdays"]
    if start < end:
        return local.weekday() in days and start <= minute < end
    return (local.weekday() in days and minute >= start) or ((local.weekday() - 1) % 7 in days and minute < end)


def _schedule(windows: Sequence[Mapping[str, Any]], now_s: float) -> tuple[bool, float]:
    """Open now? And the first later second at which that changes (at most `_RECHECK_S` away, inf for no windows)."""
    state = is_open(windows, now_s)
    if not windows:
        return state, math.inf
    limit = math.floor(now_s) + _RECHECK_S
    candidates: set[int] = set()
    for window in windows:
        candidates |= _boundaries(_zone(window["timezone"]), {window["start"], window["end"]}, math.floor(now_s), limit)
    for second in sorted(candidates):
        if is_open(windows, second) != state:
            return state, float(second)
    return state, float(limit)


def _boundaries(zone: zoneinfo.ZoneInfo, minutes: set[int], after: int, until: int) -> set[int]:
    """The seconds in (after, until] at which the zone's wall clock reaches one of these minutes, or jumps."""
    found: set[int] = set()
    low, high = (datetime.datetime.fromtimestamp(second, zone).utcoffset() for second in (after, until))
    if low != high:  # the clock jumps in between: find the second by halving
        a, b = after, until
        while b - a > 1:
            middle = (a + b) // 2
            if datetime.datetime.fromtimestamp(middle, zone).utcoffset() == low:
                a = middle
            else:
                b = middle
        found.add(b)
    for offset in {low, high}:
        shift = int(offset.total_seconds()) if offset else 0
        for day in range((after + shift) // 86400, (until + shift) // 86400 + 1):
            found |= {day * 86400 + minute * 60 - shift for minute in minutes}
    return {second for second in found if after < second <= until}

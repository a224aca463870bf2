"""DNS messages out of a packet capture: pcap and pcapng, Ethernet and friends, IPv4 and IPv6, UDP and TCP. Pure.

Lenient: what is not DNS, or not understood, is counted and passed over; only a file that is no capture raises.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import struct
from collections.abc import Iterator

PORTS = frozenset((53, 5353, 5355))  # DNS, mDNS (RFC 6762), LLMNR (RFC 4795)
MAGICS = (b"\xa1\xb2\xc3\xd4", b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\x4d\x3c\xb2\xa1", b"\x0a\x0d\x0d\x0a")
_SECTION = 0x0A0D0D0A
_ETHERNET, _NULL, _LOOP, _SLL, _SLL2 = 1, 0, 108, 113, 276
_RAW = frozenset((12, 14, 101, 228, 229))
_VLAN = frozenset((0x8100, 0x88A8, 0x9100))
_UDP, _TCP = 17, 6
_EXTENSIONS = frozenset((0, 43, 60, 135))  # IPv6: hop-by-hop, routing, destination, mobility
_SYN = 2
_LARGEST_STREAM = 8 << 20


class CaptureError(ValueError):
    """The octets are no capture, or a broken one; a sentence."""


@dataclasses.dataclass(frozen=True, slots=True)
class Captured:
    """One DNS message. `number`: of its packet, from 1; `time_ns` since 1970; ends as `address:port`."""

    number: int
    time_ns: int
    source: str
    target: str
    transport: str
    octets: bytes
    missing: int = 0


@dataclasses.dataclass(slots=True)
class Capture:
    """What was found: messages in the order of their packets, and how many packets were something else."""

    messages: list[Captured]
    packets: int = 0
    others: int = 0
    notes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class _Packet:
    number: int
    time_ns: int
    link: int
    octets: bytes
    whole: int  # how long it was on the wire


@dataclasses.dataclass(slots=True)
class _Stream:
    """One direction of a TCP connection."""

    first: _Packet
    start: int | None = None
    parts: list[tuple[int, bytes]] = dataclasses.field(default_factory=list)
    size: int = 0


def is_capture(data: bytes) -> bool:
    """Whether it begins like one."""
    return data[:4] in MAGICS


def read(data: bytes, ports: frozenset[int] = PORTS) -> Capture:
    """Find the DNS messages from and to these ports; raises CaptureError."""
    packets = _pcapng(data) if data[:4] == MAGICS[4] else _pcap(data)
    found = Capture([])
    streams: dict[tuple[str, str], _Stream] = {}
    for packet in packets:
        found.packets += 1
        try:
            taken = _take(packet, ports, streams, found)
        except (struct.error, IndexError, ValueError):
            taken = False  # cut off in a header
        found.others += not taken
    for (source, target), stream in streams.items():
        found.messages += _split(source, target, stream, found)
    found.messages.sort(key=lambda message: message.number)
    return found


# --- files ------------------------------------------------------------------------------------------------------------


def _pcap(data: bytes) -> Iterator[_Packet]:
    if data[:4] not in MAGICS[:4] or len(data) < 24:
        raise CaptureError("this is no pcap file")
    order = ">" if data[:1] == b"\xa1" else "<"
    unit = 1 if b"\x3c" in data[1:3] else 1000
    link = struct.unpack_from(order + "I", data, 20)[0] & 0x0FFFFFFF
    at, number = 24, 0
    while at + 16 <= len(data):
        seconds, parts, length, whole = struct.unpack_from(order + "IIII", data, at)
        number += 1
        yield _Packet(number, seconds * 1_000_000_000 + parts * unit, link, data[at + 16 : at + 16 + length], whole)
        at += 16 + length


def _pcapng(data: bytes) -> Iterator[_Packet]:
    order, at, number = "<", 0, 0
    links: list[tuple[int, float]] = []
    while at + 12 <= len(data):
        if data[at : at + 4] == MAGICS[4]:
            mark = data[at + 8 : at + 12]
            if mark not in (b"\x1a\x2b\x3c\x4d", b"\x4d\x3c\x2b\x1a"):
                raise CaptureError("this pcapng file has a section without a byte-order mark")
            order, links = (">" if mark[0] == 0x1A else "<"), []
        kind, length = struct.unpack_from(order + "II", data, at)
        if length < 12 or length % 4 or at + length > len(data):
            break  # cut off: what came before is whole
        body = data[at + 8 : at + length - 4]
        if kind == 1:
            links.append((struct.unpack_from(order + "H", body)[0], _resolution(body, order)))
        elif kind == 6 and len(body) >= 20:
            which, high, low, size, whole = struct.unpack_from(order + "IIIII", body)
            link, unit_ns = links[which] if which < len(links) else (_ETHERNET, 1000.0)
            number += 1
            yield _Packet(number, int((high << 32 | low) * unit_ns), link, body[20 : 20 + size], whole)
        elif kind == 3 and links and len(body) >= 4:
            whole = struct.unpack_from(order + "I", body)[0]
            number += 1
            yield _Packet(number, 0, links[0][0], body[4 : 4 + whole], whole)
        at += length


def _resolution(body: bytes, order: str) -> float:
    """Nanoseconds of a time stamp's unit: the option if_tsresol, microseconds without it."""
    at = 8
    while at + 4 <= len(body):
        code, length = struct.unpack_from(order + "HH", body, at)
        if code == 9 and length == 1 and at + 4 < len(body):
            value = body[at + 4]
            return float(1e9 / (2 ** (value & 127) if value & 128 else 10**value))
        if code == 0:
            break
        at += 4 + (length + 3 & ~3)
    return 1000.0


# --- packets ----------------------------------------------------------------------------------------------------------


def _take(packet: _Packet, ports: frozenset[int], streams: dict[tuple[str, str], _Stream], found: Capture) -> bool:
    """Take the DNS out of a packet; False when it is something else."""
    ip = _network(packet)
    if not ip:
        return False
    if ip[0] >> 4 == 4:
        length, fragment = struct.unpack_from(">H2xH", ip, 2)
        protocol, at = ip[9], (ip[0] & 15) * 4
        ends = str(ipaddress.IPv4Address(ip[12:16])), str(ipaddress.IPv4Address(ip[16:20]))
        pieces = bool(fragment & 0x3FFF)
        ip = ip[: length or None]
    elif ip[0] >> 4 == 6:
        protocol, at = ip[6], 40
        ends = f"[{ipaddress.IPv6Address(ip[8:24])}]", f"[{ipaddress.IPv6Address(ip[24:40])}]"
        ip = ip[: 40 + int.from_bytes(ip[4:6], "big")]
        pieces = False
        while protocol in _EXTENSIONS or protocol == 44:
            pieces = pieces or protocol == 44
            protocol, at = ip[at], at + (8 if protocol == 44 else 8 + ip[at + 1] * 8)
    else:
        return False
    source, target = struct.unpack_from(">HH", ip, at)
    if protocol not in (_UDP, _TCP) or not {source, target} & ports:
        return False
    if pieces:
        found.notes.append(f"packet {packet.number} is a fragment of an IP packet, and was passed over")
        return False
    ends = f"{ends[0]}:{source}", f"{ends[1]}:{target}"
    if protocol == _UDP:
        size = struct.unpack_from(">H", ip, at + 4)[0]
        octets = ip[at + 8 : at + max(8, size)]
        missing = max(0, size - 8 - len(octets))
        found.messages.append(Captured(packet.number, packet.time_ns, *ends, "UDP", octets, missing))
        return True
    _segment(packet, ip[at:], streams, ends)
    return True


def _network(packet: _Packet) -> bytes:
    """The IP packet in it; nothing when there is none."""
    octets, link = packet.octets, packet.link
    if link in _RAW:
        return octets
    if link in (_NULL, _LOOP):
        return octets[4:]
    if link == _ETHERNET:
        kind, at = int.from_bytes(octets[12:14], "big"), 14
        while kind in _VLAN:
            kind, at = int.from_bytes(octets[at + 2 : at + 4], "big"), at + 4
    elif link == _SLL:
        kind, at = int.from_bytes(octets[14:16], "big"), 16
    elif link == _SLL2:
        kind, at = int.from_bytes(octets[0:2], "big"), 20
    else:
        return b""
    return octets[at:] if kind in (0x0800, 0x86DD) else b""


def _segment(
    packet: _Packet, tcp: bytes, streams: dict[tuple[str, str], _Stream], ends: tuple[str, str]
) -> None:  # fmt: skip
    sequence = int.from_bytes(tcp[4:8], "big")
    payload = tcp[(tcp[12] >> 4) * 4 :]
    stream = streams.setdefault(ends, _Stream(packet))
    if tcp[13] & _SYN:
        stream.start = sequence + 1
    elif payload and stream.size < _LARGEST_STREAM:
        if not stream.parts:
            stream.first = packet
        stream.parts.append((sequence, payload))
        stream.size += len(payload)


def _split(source: str, target: str, stream: _Stream, found: Capture) -> Iterator[Captured]:
    """The messages of one direction, in order, up to the first gap."""
    if not stream.parts:
        return
    start = stream.parts[0][0] if stream.start is None else stream.start
    whole = bytearray()
    for sequence, payload in sorted(stream.parts, key=lambda part: (part[0] - start) & 0xFFFFFFFF):
        offset = (sequence - start) & 0xFFFFFFFF
        if offset > len(whole):
            found.notes.append(
                f"segments are missing in the TCP connection {source} → {target}; what follows is left out"
            )
            break
        whole += payload[len(whole) - offset :]
    at = 0
    while at + 2 <= len(whole):
        length = int.from_bytes(whole[at : at + 2], "big")
        octets = bytes(whole[at + 2 : at + 2 + length])
        yield Captured(stream.first.number, stream.first.time_ns, source, target, "TCP", octets, length - len(octets))
        at += 2 + length

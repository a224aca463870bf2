"""Captures: the messages in them, whatever the link, and nothing but a sentence for what is none."""

from __future__ import annotations

import io
import ipaddress
import json
import struct
import sys

import dns.message
import dns.rrset
import hypothesis
import pytest
from hypothesis import strategies as st

from dnsd import capture
from dnsd import dissect as verb
from dnsd.capture import Capture, CaptureError

QUERY = dns.message.make_query("www.example.com", "A", id=7).to_wire()
NOW_NS = 1_795_410_000_123_456_000


def udp(payload: bytes, source: int = 40000, target: int = 53) -> bytes:
    return struct.pack(">HHHH", source, target, 8 + len(payload), 0) + payload


def tcp(payload: bytes, sequence: int, flags: int = 0x10, source: int = 40000) -> bytes:
    return struct.pack(">HHIIBBHHH", source, 53, sequence, 0, 5 << 4, flags, 512, 0, 0) + payload


def ip4(payload: bytes, protocol: int = 17, fragment: int = 0) -> bytes:
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, fragment, 64, protocol, 0,
                       bytes((192, 0, 2, 1)), bytes((192, 0, 2, 53)))  # fmt: skip
    return head + payload


def ip6(payload: bytes, protocol: int = 17) -> bytes:
    options = bytes((protocol, 0)) + bytes(6)  # a hop-by-hop header before it
    address = ipaddress.IPv6Address("2001:db8::1").packed
    return struct.pack(">IHBB", 6 << 28, 8 + len(payload), 0, 64) + address + address + options + payload


def ethernet(packet: bytes, vlan: bool = False) -> bytes:
    kind = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
    return bytes(12) + (b"\x81\x00\x00\x05" if vlan else b"") + kind + packet


def pcap(*packets: bytes, link: int = 1, order: str = "<", nano: bool = False) -> bytes:
    out = struct.pack(order + "IHHiIII", 0xA1B23C4D if nano else 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    for packet in packets:
        seconds, rest = divmod(NOW_NS, 1_000_000_000)
        out += struct.pack(order + "IIII", seconds, rest if nano else rest // 1000, len(packet), len(packet)) + packet
    return out


def pcapng(*packets: bytes, link: int = 1, order: str = "<") -> bytes:
    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        return struct.pack(order + "II", kind, 12 + len(body)) + body + struct.pack(order + "I", 12 + len(body))

    out = block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
    out += block(1, struct.pack(order + "HHI", link, 0, 0) + struct.pack(order + "HHB3x", 9, 1, 9) + bytes(4))
    for packet in packets:
        stamp = struct.pack(order + "IIIII", 0, NOW_NS >> 32, NOW_NS & 0xFFFFFFFF, len(packet), len(packet))
        out += block(6, stamp + packet)
    return out + block(5, bytes(8))


@pytest.mark.parametrize("data", [
    pcap(ethernet(ip4(udp(QUERY)))), pcap(ethernet(ip4(udp(QUERY))), order=">"),
    pcap(ethernet(ip4(udp(QUERY)), vlan=True), nano=True), pcap(ethernet(ip6(udp(QUERY)))),
    pcap(ip4(udp(QUERY)), link=101), pcap(bytes(14) + b"\x08\x00" + ip4(udp(QUERY)), link=113),
    pcap(b"\x08\x00" + bytes(18) + ip4(udp(QUERY)), link=276), pcap(bytes(4) + ip6(udp(QUERY)), link=0),
    pcapng(ethernet(ip4(udp(QUERY)))), pcapng(ethernet(ip6(udp(QUERY))), order=">"),
])  # fmt: skip
def test_a_message_is_found_in_every_wrapping(data: bytes) -> None:
    """Link types, byte orders, VLAN tags, IPv6 extension headers, pcap and pcapng: the same octets and time."""
    (message,) = capture.read(data).messages
    assert message.octets == QUERY and message.transport == "UDP" and message.number == 1
    assert message.source.endswith(":40000") and message.target.endswith(":53")
    assert abs(message.time_ns - NOW_NS) < 1000


def test_tcp_is_put_together() -> None:
    """Segments out of order, sent twice, with several messages in one and one message in several."""
    large = dns.message.make_response(dns.message.make_query("large.example", "TXT"))
    large.answer.append(dns.rrset.from_text("large.example.", 60, "IN", "TXT", *(f"{n}{'x' * 200}" for n in range(9))))
    wire = large.to_wire()
    stream = b"".join(struct.pack(">H", len(m)) + m for m in (QUERY, wire, QUERY))
    pieces = [(1001 + at, stream[at : at + 500]) for at in range(0, len(stream), 500)]
    order = [pieces[1], pieces[0], pieces[0], *pieces[2:]]
    packets = [tcp(b"", 1000, 2), *(tcp(data, sequence) for sequence, data in order)]
    found = capture.read(pcap(*(ethernet(ip4(packet, 6)) for packet in packets)))
    assert [message.octets for message in found.messages] == [QUERY, wire, QUERY] and not found.notes

    gap = capture.read(pcap(*(ethernet(ip4(tcp(data, at), 6)) for at, data in (pieces[0], *pieces[2:]))))
    assert gap.messages[0].octets == QUERY and gap.messages[1].missing and "segments are missing" in gap.notes[0]


def test_what_is_something_else_is_counted() -> None:
    """Other ports, other protocols, fragments and ARP are passed over; another port can be named."""
    arp = bytes(12) + b"\x08\x06" + bytes(28)
    other, ping, piece = ip4(udp(QUERY, 1000, 5335)), ip4(b"\x08\x00", 1), ip4(udp(QUERY), fragment=0x2000)
    data = pcap(ethernet(other), ethernet(ping), arp, ethernet(piece), ethernet(ip4(udp(QUERY))))
    found = capture.read(data)
    assert (found.packets, found.others, len(found.messages)) == (5, 4, 1) and "fragment" in found.notes[0]
    assert [message.number for message in capture.read(data, frozenset((5335,))).messages] == [1]


@hypothesis.given(st.sampled_from([pcap, pcapng]), st.binary(max_size=80), st.lists(st.tuples(st.integers(0, 400),
                  st.integers(0, 255)), max_size=6), st.integers(0, 400))  # fmt: skip
def test_no_file_does_more_than_be_refused(make: object, tail: bytes, edits: list[tuple[int, int]], cut: int) -> None:
    """Any damage: messages, or a CaptureError, and nothing else."""
    assert callable(make)
    data = bytearray(make(ethernet(ip4(udp(QUERY))), ethernet(ip4(tcp(b"\0\5hello", 1), 6)), tail))
    for at, value in edits:
        if at < len(data):
            data[at] = value
    data = data[: max(4, len(data) - cut)]
    try:
        assert isinstance(capture.read(bytes(data)), Capture)
    except CaptureError as error:
        assert str(error)


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str, data: bytes
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    code = verb.main(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_verb_reads_captures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each message with its packet, time and ends; one alone by number; the same as JSON; a sentence for none."""
    data = pcapng(ethernet(ip4(udp(QUERY))), ethernet(ip6(udp(QUERY, 50000))))
    code, out, _ = run(monkeypatch, capsys, data=data)
    assert code == 0 and "packet 1  2026-11-23 05:00:00.123456 UTC  192.0.2.1:40000 → 192.0.2.53:53  UDP" in out
    assert "packet 2" in out and "[2001:db8::1]:50000" in out
    code, out, _ = run(monkeypatch, capsys, "--packet", "2", "--format", "json", "-", data=data)
    (value,) = json.loads(out)
    assert value["captured"]["packet"] == 2 and value["length"] == len(QUERY)
    code, _, err = run(monkeypatch, capsys, "--packet", "9", data=data)
    assert code == 2 and "packet 9 holds no DNS message; these do: 1, 2" in err
    code, _, err = run(monkeypatch, capsys, "--port", "5335", data=data)
    assert code == 2 and "none of the 2 packets is DNS from or to port 5335" in err
    code, _, err = run(monkeypatch, capsys, "--port", "53", data=QUERY)
    assert code == 2 and "this is none" in err


def test_pointers_are_drawn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A line leads from each pointer to the label it stands for; crossing lines stay whole; JSON has the place."""
    response = dns.message.make_response(dns.message.make_query("www.example.com", "MX", id=7))
    response.answer.append(dns.rrset.from_text("www.example.com.", 300, "IN", "MX", "10 mail.example.com."))
    response.additional.append(dns.rrset.from_text("mail.example.com.", 300, "IN", "A", "192.0.2.1"))
    wire = response.to_wire()
    _, out, _ = run(monkeypatch, capsys, wire.hex(), data=b"")
    lines = {line[line.index("0x") :][:6]: line for line in out.splitlines() if " 0x0" in line}
    assert lines["0x000c"].lstrip().startswith("╭▸ 0x000c") and "▸ 0x0010" in lines["0x0010"]
    assert "─ 0x0021" in lines["0x0021"] and "pointer → 0x000c: www.example.com." in lines["0x0021"]
    for line in out.splitlines():
        assert "─│─" not in line
    _, out, _ = run(monkeypatch, capsys, "--format", "json", wire.hex(), data=b"")
    assert [field["target"] for field in json.loads(out)["fields"] if "target" in field][:2] == [12, 16]
    _, out, _ = run(monkeypatch, capsys, QUERY.hex(), data=b"")
    assert out.splitlines()[3].startswith("0x0000")

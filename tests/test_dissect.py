"""The verb `dissect`: what it says about good packets, bad packets and its own input."""

from __future__ import annotations

import io
import json
import sys

import dns.edns
import dns.flags
import dns.message
import dns.rrset
import hypothesis
import pytest
from hypothesis import strategies as st

from dnsd import dissect as verb
from dnsd.dissection import dissect
from dnsd.dissection_fields import RDATA, Reader

QUERY = bytes.fromhex("1234 0100 0001 0000 0000 0000 03777777 076578616d706c65 00 0001 0001")

SAMPLES = [
    ("A", "192.0.2.1", "192.0.2.1"), ("AAAA", "2001:db8::1", "2001:db8::1"),
    ("MX", "10 mail.example.", "mail.example."), ("SRV", "0 5 389 dc.example.", "389"),
    ("CAA", '0 issue "ca.example"', '"ca.example"'), ("TXT", '"a b" "c"', '"a b"'),
    ("SOA", "m.example. r.example. 1 7200 3600 1209600 3600", "7200 s (2h)"),
    ("DS", "12345 13 2 " + "ab" * 32, "13 ECDSAP256SHA256"), ("DNSKEY", "257 3 15 " + "A" * 43 + "=", "zone key, SEP"),
    ("NSEC3", "1 1 0 - " + "0" * 32 + " A RRSIG", "A RRSIG"), ("NSEC3PARAM", "1 0 0 aabb", "aabb"),
    ("SSHFP", "4 2 " + "cd" * 32, "32 octets"), ("TLSA", "3 1 1 " + "cd" * 32, "32 octets"),
    ("NAPTR", '1 2 "S" "SIP" "" s.example.', '"SIP"'), ("HTTPS", "1 . alpn=h2 ipv6hint=2001:db8::5", "2001:db8::5"),
    ("RRSIG", "A 13 2 300 20300101000000 20290101000000 1 example. " + "A" * 86 + "==", "2030-01-01 00:00:00"),
    ("URI", '1 2 "https://a.example/"', '"https://a.example/"'), ("HINFO", '"x" "y"', '"x"'),
    ("CNAME", "a.example.", "a.example."), ("NSEC", "b.example. A TYPE1234", "TYPE1234"),
]  # fmt: skip


def answer(rtype: str, text: str) -> bytes:
    """A response with one record, made by dnspython as an independent judge."""
    response = dns.message.make_response(dns.message.make_query("www.example", rtype))
    response.answer.append(dns.rrset.from_text("www.example.", 300, "IN", rtype, text))
    return response.to_wire()


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: list[str], stdin: bytes = b"") -> (
    tuple[int, str, str]
):
    """Run the verb with this standard input; returns exit code, output, errors."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
    code = verb.main(argv)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_header_bits_are_drawn_one_by_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A query's flags show the position and the meaning of each bit."""
    code, out, _ = run(monkeypatch, capsys, [QUERY.hex(" ")])

    assert code == 0
    assert ".... ...1 .... ....      RD" in out
    assert "recursion desired" in out
    assert "0x000c  03 77 77 77              qname" in out
    assert out.endswith("well formed: every octet is accounted for\n")


@pytest.mark.parametrize(("rtype", "text", "shown"), SAMPLES)
def test_rdata_of_known_types(rtype: str, text: str, shown: str) -> None:
    """Each known type is split into its fields, with nothing left over."""
    dissection = dissect(answer(rtype, text))

    assert not dissection.faults
    assert any(shown in field.meaning for field in dissection.fields)


def test_every_layout_has_a_reader() -> None:
    """Each kind of field that a layout names exists."""
    assert all(hasattr(Reader, kind) for layout in RDATA.values() for kind, _ in layout)


def test_pointers_show_where_they_lead() -> None:
    """A compressed owner shows its target's offset and the whole name."""
    dissection = dissect(answer("A", "192.0.2.1"))

    assert "pointer → 0x000c: www.example." in [field.meaning for field in dissection.fields]


def test_options_are_named_in_words() -> None:
    """EDE, cookie, NSID, client subnet and keepalive are explained, also an unknown option."""
    response = dns.message.make_response(dns.message.make_query("ads.example", "A"))
    response.use_edns(
        0, dns.flags.DO, 1232,
        options=[
            dns.edns.EDEOption(15, "ads policy.yaml:32 main@sha1:132f4e7"),
            dns.edns.CookieOption(b"12345678", b"s" * 16),
            dns.edns.NSIDOption(b"gw-1"), dns.edns.ECSOption("192.0.2.0", 24), dns.edns.GenericOption(65001, b"\x00x"),
            dns.edns.GenericOption(11, b"\x00\x64"), dns.edns.GenericOption(12, bytes(4)),
            dns.edns.GenericOption(19, b"\x02\x00\x00\x00\x00\x2a"),
        ],
    )  # fmt: skip
    dissection = dissect(response.to_wire())
    rows = {(field.name, field.meaning) for field in dissection.fields}

    assert not dissection.faults
    assert {
        ("EDE code", "15 Blocked"), ("EDE text", '"ads policy.yaml:32 main@sha1:132f4e7"'),
        ("client cookie", b"12345678".hex()), ("NSID", '"gw-1"'), ("address", "192.0.2.0/24"),
        ("timeout", "10 s"), ("padding", "zeros"), ("serial", "42"), ("data", '"\\000x"'), ("flags", "DO"),
    } <= rows  # fmt: skip


@pytest.mark.parametrize(
    ("octets", "offset", "words"),
    [
        (b"", 0, "has 0 left"),
        (QUERY[:7], 6, "needs 2 octets, the message has 1 left"),
        (QUERY[:-1], len(QUERY) - 2, "has 1 left"),
        (QUERY + b"\x00", len(QUERY), "more octets than the header's counts"),
        (QUERY[:5] + b"\x02" + QUERY[6:], len(QUERY), "announces 2 here, the message ends after 1"),
        (QUERY[:12] + b"\xc0\x0c\x00\x01\x00\x01", 12, "does not point backwards"),
        (QUERY[:12] + b"\xc0\x04\x00\x01\x00\x01", 12, "points into the header"),
        (QUERY[:12] + b"\x41abc\x00\x00\x01\x00\x01", 12, "first two bits must be 00 or 11"),
        (QUERY[:12] + b"\x3f" + b"a" * 63 + (b"\x3f" + b"b" * 63) * 3 + b"\x00\x00\x01\x00\x01", 12 + 3 * 64, "255"),
        (QUERY[:12] + b"\x05ab", 12, "needs 6 octets, the message has 3 left"),
    ],
)
def test_faults_are_placed(octets: bytes, offset: int, words: str) -> None:
    """A malformed packet names its fault at the offset where it stands."""
    fault = dissect(octets).faults[0]

    assert fault.offset == offset
    assert words in fault.fault


def test_a_fault_in_rdata_does_not_hide_what_follows() -> None:
    """A record whose RDATA is wrong is marked, and the next record is still read."""
    response = dns.message.make_response(dns.message.make_query("x.example", "A"))
    bad = dns.rrset.from_text("x.example.", 1, "IN", "TYPE65280", "\\# 3 010203")
    response.answer += [bad, dns.rrset.from_text("x.example.", 1, "IN", "AAAA", "2001:db8::9")]
    wire = response.to_wire().replace(b"\xff\x00", b"\x00\x01", 1)
    dissection = dissect(wire)

    assert [field.fault for field in dissection.faults] == ["needs 4 octets, the field that contains it has 3 left"]
    assert any(field.meaning == "2001:db8::9" for field in dissection.fields)


def covered(octets: bytes) -> bool:
    """Whether the fields cover the octets without a gap or an overlap."""
    position = 0
    for field in dissect(octets).fields:
        if field.offset != position:
            return False
        position += len(field.octets)
    return position == len(octets)


@hypothesis.given(st.binary(max_size=120))
@hypothesis.settings(max_examples=150, deadline=None)
def test_any_octets_are_covered(octets: bytes) -> None:
    """Whatever the input, nothing is raised and every octet belongs to exactly one field."""
    assert covered(octets)


@hypothesis.given(
    st.sampled_from(SAMPLES), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4),
    st.integers(0, 20),
)  # fmt: skip
@hypothesis.settings(max_examples=200, deadline=None)
def test_damaged_packets_are_covered(sample: tuple[str, str, str], edits: list[tuple[int, int]], cut: int) -> None:
    """The same for real packets with octets changed and the end cut off."""
    octets = bytearray(answer(*sample[:2]))
    for place, value in edits:
        octets[place % len(octets)] = value

    assert covered(bytes(octets[: len(octets) - cut]))


@pytest.mark.parametrize(
    "stdin",
    [
        QUERY, QUERY.hex().encode(), QUERY.hex(":").encode() + b"\n",
        b"\\x" + QUERY.hex("x").replace("x", "\\x").encode(),
        (b"00000000: 1234 0100 0001 0000 0000 0000 0377 7777  .4...........www\n"
        b"00000010: 0765 7861 6d70 6c65 0000 0100 01         .example.....\n"),
        (b"00000000  12 34 01 00 00 01 00 00  00 00 00 00 03 77 77 77  |.4...........www|\n"
        b"00000010  07 65 78 61 6d 70 6c 65  00 00 01 00 01           |.example.....|\n0000001d\n"),
    ],
)  # fmt: skip
def test_standard_input_in_any_usual_form(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stdin: bytes
) -> None:
    """Raw octets, hexadecimal with separators and the dumps of xxd and hexdump -C read the same."""
    code, out, _ = run(monkeypatch, capsys, ["-"], stdin)

    assert (code, "end of www.example." in out) == (0, True)


def test_base64_and_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Unpadded URL base64, as DoH has it, works; JSON carries the same fields."""
    code, out, _ = run(monkeypatch, capsys, ["--base64", "--format", "json", "EjQBAAABAAAAAAAAA3d3dwdleGFtcGxlAAABAAE"])
    value = json.loads(out)

    assert code == 0
    assert (value["length"], value["malformed"], value["fields"][0]["octets"]) == (len(QUERY), False, "1234")


def test_tcp_stream(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With --tcp each message of a stream is read; without it, the output says what the prefix looks like."""
    framed = len(QUERY).to_bytes(2, "big") + QUERY
    assert run(monkeypatch, capsys, ["--tcp", "-"], framed * 2)[:1] == (0,)

    code, out, _ = run(monkeypatch, capsys, ["-"], framed)
    assert code == 1
    assert "is read with --tcp" in out


@pytest.mark.parametrize(
    ("argv", "words"),
    [(["12xy"], "'x' is not a hexadecimal digit"), (["123"], "one is missing"), ([""], "empty"),
     (["--base64", "@@"], "not base64"), (["--tcp", "0005 12"], "announces a message of 5 octets")],
)  # fmt: skip
def test_unreadable_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: list[str], words: str
) -> None:
    """Input that is not a packet ends with one sentence and exit code 2."""
    code, out, err = run(monkeypatch, capsys, argv)

    assert (code, out) == (2, "")
    assert words in err


def test_no_colour_unless_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe gets no escape sequences, the coloured form has the same words."""
    _, out, _ = run(monkeypatch, capsys, [QUERY.hex()])
    assert "\x1b" not in out

    coloured = "\n".join(verb.render_text(dissect(QUERY), colour=True))
    assert "\x1b[" in coloured

"""Parsing questions and writing responses: what clients see on the wire, judged by dnspython."""

from __future__ import annotations

import dataclasses
import ipaddress
import random
import struct

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import hypothesis
import hypothesis.strategies as st
import pytest

from controller.ruleset import Record, Redirection, Reply, Zone
from dnsd.contract import codes, facts, names
from dnsd.contract.query import Query
from tests.contract import rulesets
from tests.contract.deciding import Desk
from tests.contract.rulesets import N, where
from tests.contract.test_verdict import FORWARD, allow, block, rule


def office(*extra: Record) -> Zone:
    """A zone with a wildcard, CNAMEs inside and outside, and whatever else."""
    apex = N("office.example")
    return Zone(
        apex, where(40), 300, True,
        (
            *rulesets.soa_records(apex),
            rulesets.address_record("printer.office.example", "10.0.20.15"),
            rulesets.address_record("nas.office.example", "fd00:20::5"),
            rulesets.address_record("*.apps.office.example", "10.0.20.40"),
            rulesets.address_record("deep.tree.office.example", "10.0.20.41"),
            Record(N("www.office.example"), codes.TYPE_CNAME, 60, N("alias.office.example"), "", where(44)),
            Record(N("alias.office.example"), codes.TYPE_CNAME, 60, N("printer.office.example"), "", where(45)),
            Record(N("gone.office.example"), codes.TYPE_CNAME, 60, N("nothing.office.example"), "", where(46)),
            *extra,
        ),
    )  # fmt: skip


def parsed(wire: bytes) -> dns.message.Message:
    """The response as dnspython reads it, every octet used."""
    return dns.message.from_wire(wire)


@pytest.fixture
def desk() -> Desk:
    """An office."""
    return Desk(rulesets.ruleset([block("ads", "ads.example")], zones=[office()], forwards=FORWARD))


def section(message: dns.message.Message, which: str) -> list[str]:
    """A section's records as text."""
    return [f"{r.name} {r.ttl} {dns.rdatatype.to_text(r.rdtype)} {item}" for r in getattr(message, which) for item in r]


@pytest.mark.parametrize(
    ("qname", "qtype", "rcode", "answer", "negative"),
    [
        ("printer.office.example", 1, "NOERROR", ["printer.office.example. 300 A 10.0.20.15"], False),
        ("printer.office.example", 28, "NOERROR", [], True),
        ("nas.office.example", 28, "NOERROR", ["nas.office.example. 300 AAAA fd00:20::5"], False),
        ("x.apps.office.example", 1, "NOERROR", ["x.apps.office.example. 300 A 10.0.20.40"], False),
        ("y.x.apps.office.example", 1, "NOERROR", ["y.x.apps.office.example. 300 A 10.0.20.40"], False),
        ("x.apps.office.example", 16, "NOERROR", [], True),
        ("apps.office.example", 1, "NOERROR", [], True),
        ("tree.office.example", 1, "NOERROR", [], True),
        ("x.tree.office.example", 1, "NXDOMAIN", [], True),
        ("nope.office.example", 1, "NXDOMAIN", [], True),
        ("15.20.0.10.in-addr.arpa", 12, "NOERROR", ["15.20.0.10.in-addr.arpa. 300 PTR printer.office.example."], False),
        ("15.20.0.10.in-addr.arpa", 1, "NOERROR", [], True),
        (
            "www.office.example", 1, "NOERROR",
            ["www.office.example. 60 CNAME alias.office.example.", "alias.office.example. 60 CNAME printer.office.example.",
             "printer.office.example. 300 A 10.0.20.15"], False,
        ),
        (
            "www.office.example", 16, "NOERROR",
            ["www.office.example. 60 CNAME alias.office.example.", "alias.office.example. 60 CNAME printer.office.example."], True,
        ),
        ("www.office.example", 5, "NOERROR", ["www.office.example. 60 CNAME alias.office.example."], False),
        ("gone.office.example", 1, "NXDOMAIN", ["gone.office.example. 60 CNAME nothing.office.example."], True),
    ],
)  # fmt: skip
def test_own_zone(desk: Desk, qname: str, qtype: int, rcode: str, answer: list[str], negative: bool) -> None:
    """RFC 1034 and RFC 4592 in an own zone: data, NODATA, NXDOMAIN, wildcards, CNAME chains; AA, and a SOA when negative."""
    message = parsed(desk.ask(N(qname), qtype))

    assert dns.rcode.to_text(message.rcode()) == rcode
    assert section(message, "answer") == answer
    assert bool(message.authority) == negative
    assert message.flags & dns.flags.AA
    if negative:
        assert message.authority[0].rdtype == codes.TYPE_SOA
        assert message.authority[0].ttl == 10


def test_case_is_echoed_and_matched_without(desk: Desk) -> None:
    """The question comes back as it was asked, letter for letter (0x20), and matches whatever its case."""
    packet = bytearray(dns.message.make_query("PrInTeR.oFFice.EXAMPLE", "A").to_wire())
    q = Query(packet)
    q.parse(0, len(packet))
    q.client[10:12] = memoryview(b"\xff\xff")
    desk.chain.decide(desk.table, desk.view, q, desk.v)
    wire = bytes(desk.out[: desk.responder.write(desk.table, q, desk.v, 0, 512)])

    assert b"\x07PrInTeR\x06oFFice\x07EXAMPLE" in wire
    assert parsed(wire).answer[0][0].address == "10.0.20.15"


@pytest.mark.parametrize(
    ("reply", "rcode", "answer"),
    [
        (codes.REPLY_NXDOMAIN, "NXDOMAIN", []),
        (codes.REPLY_NODATA, "NOERROR", []),
        (codes.REPLY_ZERO, "NOERROR", ["b.example. 10 A 0.0.0.0"]),
        (codes.REPLY_REFUSED, "REFUSED", []),
    ],
)
def test_replies_say_who_decided(reply: int, rcode: str, answer: list[str]) -> None:
    """Every kind of block carries EDE 15 with rule, file:line and revision, and only for those who speak EDNS."""
    desk = Desk(rulesets.ruleset([block("b", "b.example", reply=Reply(reply))]))
    message = parsed(desk.ask(N("b.example")))

    assert dns.rcode.to_text(message.rcode()) == rcode
    assert section(message, "answer") == answer
    option = next(o for o in message.options if isinstance(o, dns.edns.EDEOption))
    assert (int(option.code), option.text) == (15, "b rules.d/x.yaml:10 main@sha1:0")
    assert not message.flags & dns.flags.AA


def test_drop_is_silence() -> None:
    """`reply: drop` answers nothing."""
    desk = Desk(rulesets.ruleset([block("b", "b.example", reply=Reply(codes.REPLY_DROP))]))

    assert desk.ask(N("b.example")) == b""


def test_addresses_and_redirects_are_forged_answers() -> None:
    """Address replies and redirects carry EDE 4; other types are NODATA; a name gives CNAME and our own addresses."""
    redirect = dataclasses.replace(
        rule("r", codes.RULE_REDIRECT, "p.example", "c.example"),
        redirections=(
            Redirection((ipaddress.IPv4Address("10.0.50.1"), ipaddress.IPv4Address("10.0.50.2"))),
            Redirection(name=N("printer.office.example")),
        ),
    )
    reply = Reply(codes.REPLY_ADDRESSES, (ipaddress.IPv6Address("fd00::9"),))
    desk = Desk(rulesets.ruleset([redirect, block("b", "b.example", reply=reply)], zones=[office()]))
    message = parsed(desk.ask(N("p.example")))
    assert section(message, "answer") == ["p.example. 10 A 10.0.50.1", "p.example. 10 A 10.0.50.2"]
    assert [int(o.code) for o in message.options] == [4]
    assert parsed(desk.ask(N("p.example"), 28)).authority[0].rdtype == codes.TYPE_SOA
    answer = section(parsed(desk.ask(N("c.example"))), "answer")
    assert answer == ["c.example. 10 CNAME printer.office.example.", "printer.office.example. 300 A 10.0.20.15"]
    message = parsed(desk.ask(N("b.example"), 28))
    assert (section(message, "answer"), int(message.options[0].code)) == (["b.example. 10 AAAA fd00::9"], 4)
    assert parsed(desk.ask(N("b.example"), 1)).rcode() == 0


def test_truncation() -> None:
    """What does not fit is cut to header, question and OPT with TC; a longer limit has it whole."""
    many = [rulesets.address_record("big.office.example", f"10.9.{i // 200}.{i % 200}") for i in range(300)]
    desk = Desk(rulesets.ruleset([], zones=[office(*many)]))
    desk.out = bytearray(65535)
    desk.responder = type(desk.responder)(desk.out, b"")
    short = parsed(desk.ask(N("big.office.example"), limit=1232))
    assert short.flags & dns.flags.TC
    assert not short.answer
    assert short.edns == 0
    assert len(parsed(desk.ask(N("big.office.example"), limit=65535)).answer[0]) == 300


@pytest.mark.parametrize(
    ("mutate", "rcode"),
    [
        (lambda p: p[:2] + b"\x29\x00" + p[4:], dns.rcode.NOTIMP),
        (lambda p: p[:4] + b"\x00\x02" + p[6:], dns.rcode.FORMERR),
        (lambda p: p[:4] + b"\x00\x00" + p[6:], dns.rcode.FORMERR),
        (lambda p: p[:12] + b"\xc0\x0c" + p[14:], dns.rcode.FORMERR),
        (lambda p: p[:12] + b"\x7f" + p[13:], dns.rcode.FORMERR),
        (lambda p: p[:-3], dns.rcode.FORMERR),
        (lambda p: p[:11] + b"\x02" + p[12:] + p[-11:], dns.rcode.FORMERR),
        (lambda p: p[:-5] + b"\x01" + p[-4:], dns.rcode.BADVERS),
    ],
)
def test_malformed(desk: Desk, mutate: object, rcode: int) -> None:
    """A packet that breaks the rules is answered as they say (RFC 1035, RFC 6891), and the next one as if nothing was."""
    packet = mutate(dns.message.make_query("b.example", "A", use_edns=0).to_wire())  # type: ignore[operator]
    q = Query(bytearray(packet))
    q.parse(0, len(packet))
    desk.chain.decide(desk.table, desk.view, q, desk.v)
    wire = bytes(desk.out[: desk.responder.write(desk.table, q, desk.v, 0, 512)])

    assert wire[:2] == packet[:2]
    full = (wire[3] & 15) | (wire[-6] << 4 if wire[11] else 0)
    assert full == rcode
    assert desk.ask(N("printer.office.example"))


def test_silence_for_what_is_no_question(desk: Desk) -> None:
    """Responses, and what is shorter than a header, are not answered: two servers would talk for ever."""
    for packet in (b"", b"\x00" * 11, b"\x00\x01\x80\x00" + b"\x00" * 20):
        q = Query(bytearray(packet + b"\x00" * 16))
        assert q.parse(0, len(packet)) == codes.ACTION_DROP


@pytest.mark.parametrize(("qtype", "rcode"), [(252, "REFUSED"), (251, "REFUSED"), (255, "NOERROR")])
def test_meta_types(desk: Desk, qtype: int, rcode: str) -> None:
    """Transfers are refused; ANY gets the minimal answer of RFC 8482."""
    message = parsed(desk.ask(N("printer.office.example"), qtype))

    assert dns.rcode.to_text(message.rcode()) == rcode
    assert section(message, "answer") == (['printer.office.example. 3600 HINFO "RFC8482" ""'] if qtype == 255 else [])


def test_no_edns_no_opt(desk: Desk) -> None:
    """A question without OPT gets a response without (RFC 6891, section 6.1.1), at most 512 octets."""
    packet = dns.message.make_query("ads.example", "A", use_edns=False).to_wire()
    q = Query(bytearray(packet))
    q.parse(0, len(packet))
    desk.chain.decide(desk.table, desk.view, q, desk.v)
    message = parsed(bytes(desk.out[: desk.responder.write(desk.table, q, desk.v, 0, 512)]))

    assert (message.edns, message.options) == (-1, ())
    assert desk.responder.size_limit(q) == 512


@hypothesis.given(st.binary(max_size=600), st.integers(0, 600))
@hypothesis.settings(max_examples=300)
def test_any_octets(data: bytes, cut: int) -> None:
    """Whatever arrives is parsed or refused, never an exception; what is answered is a well-formed response."""
    desk = _fuzz_desk()
    base = bytearray(dns.message.make_query("x.ads.example", "A", use_edns=0, want_dnssec=True).to_wire())
    mixed = base[: cut % (len(base) + 1)] + data
    q = Query(bytearray(mixed + b"\x00" * 8))
    q.parse(0, len(mixed))
    desk.chain.decide(desk.table, desk.view, q, desk.v)
    if desk.v.action in (codes.ACTION_FORWARD, codes.ACTION_ALIAS):
        return
    length = desk.responder.write(desk.table, q, desk.v, 0, desk.responder.size_limit(q))
    if length:
        wire = bytes(desk.out[:length])
        assert wire[:2] == bytes(mixed[:2])
        assert struct.unpack(">H", wire[2:4])[0] & 0x8000
        if wire[5] == 1:
            parsed(wire)


_kept: list[Desk] = []


def _fuzz_desk() -> Desk:
    if not _kept:
        _kept.append(
            Desk(rulesets.ruleset([block("ads", "ads.example"), allow("a", "x.y.ads.example")], zones=[office()]))
        )
    return _kept[0]


def test_longest_names() -> None:
    """A qname of 255 octets and 127 labels is looked up like any other."""
    longest = b"\x01a" * 127 + b"\x00"
    desk = Desk(rulesets.ruleset([block("b", "a.a.a"), block("c", names.to_text(longest))]))
    message = parsed(desk.ask(longest))
    assert (message.rcode(), desk.rule) == (dns.rcode.NXDOMAIN, "c")
    rng = random.Random(5)
    name = names.join([bytes(rng.randrange(256) for _ in range(63)) for _ in range(3)] + [b"x" * 61])
    parsed(desk.ask(name, 1, str(facts.unpacked(facts.packed("10.0.0.1")))))

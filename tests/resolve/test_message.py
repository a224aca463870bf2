"""Reading upstream responses: what is kept, how long, and that nothing but FormError comes of hostile octets."""

from __future__ import annotations

import dns.message
import dns.rrset
import hypothesis
import hypothesis.strategies as st
import pytest

from dnsd.contract import names
from dnsd.resolve.message import FormError, bounded, read, read_name, records


def wire(*records: str, rcode: int = 0, edns: bool = True) -> bytes:
    """A response to www.example.com A; `authority` for SOA and NS, answer for the rest."""
    message = dns.message.make_response(dns.message.make_query("www.example.com", "A", use_edns=0 if edns else False))
    message.set_rcode(rcode)
    for text in records:
        owner, ttl, rtype, rdata = text.split(" ", 3)
        where = message.authority if rtype in ("SOA", "NS") else message.answer
        where.append(dns.rrset.from_text(owner, int(ttl), "IN", rtype, rdata))
    return message.to_wire()


SOA = "example.com. 900 SOA ns.example.com. host.example.com. 1 2 3 4 120"


@pytest.mark.parametrize(
    ("records", "rcode", "ttl"),
    [
        (["www.example.com. 300 A 192.0.2.1"], 0, 300),
        (["www.example.com. 300 CNAME x.example.com.", "x.example.com. 60 A 192.0.2.1"], 0, 60),
        ([SOA], 3, 120),
        ([SOA], 0, 120),
        (["www.example.com. 30 CNAME x.example.com.", SOA], 0, 30),
        ([], 3, 0),
        ([], 0, 0),
        (["example.com. 300 NS ns.example.com."], 0, 0),
        (["www.example.com. 300 A 192.0.2.1"], 2, 0),
        (["www.example.com. 0 A 192.0.2.1"], 0, 0),
    ],
)
def test_lifetime(records: list[str], rcode: int, ttl: int) -> None:
    """Positive answers live as long as their lowest TTL, negative ones as RFC 2308 says, others not at all."""
    assert read(wire(*records, rcode=rcode)).ttl == ttl


def test_places() -> None:
    """TTL and pointer places lead to TTLs and pointers in the body, with OPT taken out."""
    packet = wire("www.example.com. 300 CNAME x.example.com.", "x.example.com. 61 A 192.0.2.1")
    answer = read(packet)

    assert [int.from_bytes(answer.body[p : p + 4], "big") for p in answer.ttls] == [300, 61]
    assert answer.pointers
    assert all(answer.body[p] >= 192 for p in answer.pointers)
    assert (answer.answers, answer.authorities, answer.additionals, answer.edns) == (2, 0, 0, True)
    assert [names.to_text(r.owner) for r in records(packet)] == ["www.example.com", "x.example.com"]


@pytest.mark.parametrize(
    "name",
    [
        b"\xc0\x00",
        b"\xc0\x02\xc0\x00",
        b"\x01a\xc0\x02",
        b"\x40a",
        b"\x3f",
        b"\x01a",
        b"\xc0",
        b"",
        b"\x3f" + b"a" * 63 + b"\xc0\x00",
    ],
)
def test_bad_names(name: bytes) -> None:
    """Loops, forward pointers, unknown label kinds and names that end nowhere are FormErrors."""
    with pytest.raises(FormError):
        read_name(name, 0)


@hypothesis.given(st.binary(max_size=200), st.integers(0, 200), st.integers(0, 255))
@hypothesis.settings(max_examples=400)
def test_any_octets(data: bytes, at: int, octet: int) -> None:
    """Random octets, and a good response with one octet changed, are read or refused by FormError, nothing else."""
    good = bytearray(wire("www.example.com. 300 CNAME x.example.com.", "x.example.com. 61 A 192.0.2.1", SOA))
    good[at % len(good)] = octet
    for packet in (data, bytes(good), bytes(good[:at])):
        try:
            answer = read(packet)
        except FormError:
            continue
        assert all(p + 4 <= len(answer.body) for p in answer.ttls)
        assert all(p + 2 <= len(answer.body) for p in answer.pointers)


def test_bounds_of_ttls() -> None:
    """Every TTL comes into the bounds, in all sections; 0 and what is above 2³¹ stay or become 0; else nothing changes."""
    packet = wire(
        "www.example.com. 5 CNAME a.example.com.", "a.example.com. 0 A 192.0.2.1", "b.example.com. 9999 A 192.0.2.2", SOA
    )
    told = bounded(packet, 60, 3600)
    before, after = dns.message.from_wire(packet), dns.message.from_wire(told)
    assert [rrset.ttl for rrset in (*after.answer, *after.authority)] == [60, 0, 3600, 900]
    assert (after.answer, after.authority) == (before.answer, before.authority) and len(told) == len(packet)
    assert after.edns == 0 and bounded(packet, 0, 86400) == packet
    at = records(packet)[0].ttl_at
    assert dns.message.from_wire(bounded(packet[:at] + b"\x80" + packet[at + 1 :], 60, 3600)).answer[0].ttl == 0
    assert bounded(packet[:-1], 60, 3600) == packet[:-1]

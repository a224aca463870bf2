"""Messages read into RRsets and written from them, judged by dnspython; hostile ones end in FormError, soon."""

from __future__ import annotations

import random
import struct
import time

import dns.message
import dns.name
import dns.rdata
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsd.contract import codes, names
from dnsd.resolve import rrsets
from dnsd.resolve.message import FormError, read
from dnsd.resolve.presentation import rdata_text, rrset_lines

RECORDS = (
    "example.test. 300 IN A 192.0.2.1", "example.test. 200 IN A 192.0.2.2", "example.test. 300 IN AAAA 2001:db8::1",
    "example.test. 300 IN MX 10 Mail.example.test.", "example.test. 300 IN NS ns.example.test.",
    "example.test. 300 IN SOA ns.example.test. host.example.test. 1 2 3 4 60", "a.example.test. 300 IN CNAME b.test.",
    '_s._tcp.example.test. 300 IN SRV 1 2 3 host.example.test.', 'example.test. 300 IN TXT "a b" "c\\"d"',
    'example.test. 300 IN CAA 0 issue "ca.test"', "x.example.test. 300 IN DNAME y.test.",
    "1.2.0.192.in-addr.arpa. 300 IN PTR Host.example.test.",
    "example.test. 300 IN DS 1 8 2 49FD46E6C4B45C55D4AC49FD46E6C4B45C55D4AC49FD46E6C4B45C55D4AC1234",
)  # fmt: skip


def message(*lines: str, section: str = "answer") -> bytes:
    """A response to `example.test. A` with these records, compressed by dnspython."""
    response = dns.message.make_response(dns.message.make_query("example.test.", "A"))
    for line in lines:
        owner, ttl, rclass, rtype, data = line.split(None, 4)
        getattr(response, section).append(dns.rrset.from_text(owner, int(ttl), rclass, rtype, data))
    return response.to_wire()


@pytest.mark.parametrize("line", RECORDS)
def test_records_survive_reading_and_printing(line: str) -> None:
    """What dnspython writes, compressed, is read and printed as dnspython prints it."""
    found = rrsets.parse(message(line)).answer[0]
    owner, _, rclass, rtype, data = line.split(None, 4)
    wanted = dns.rrset.from_text(owner, 300, rclass, rtype, data)
    assert names.to_text(found.owner) + "." == owner.lower()
    assert found.rdatas[0] == wanted[0].to_wire()
    text = rdata_text(found.rtype, found.rdatas[0])
    assert dns.rdata.from_text(rclass, rtype, text, origin=dns.name.root, relativize=False) == wanted[0]


def test_one_ttl_for_an_rrset() -> None:
    """Of different TTLs in one RRset the lowest counts (RFC 2181, section 5.2), and no record counts twice."""
    found = rrsets.parse(message(RECORDS[0], RECORDS[1], RECORDS[0])).answer
    assert len(found) == 1 and found[0].ttl == 200 and len(found[0].rdatas) == 2


def test_written_responses_are_read_again() -> None:
    """A response of ours is read by dnspython, by the cache's reader and by ourselves, and says the same."""
    parsed = rrsets.parse(message(*RECORDS))
    wire = rrsets.response(names.from_text("example.test"), 1, 0, parsed.answer, parsed.answer[5:6], True)
    judged = dns.message.from_wire(wire)
    assert sum(len(rrset) for rrset in judged.answer) == len(RECORDS)
    assert read(wire).answers == len(RECORDS)
    assert rrsets.parse(wire).answer == parsed.answer


def test_the_case_of_the_question_is_not_kept_in_records() -> None:
    """A name that points into a question of random case is read in lower case; a name of its own case keeps it."""
    wire = bytearray(message(RECORDS[3], RECORDS[5]))
    wire[12:26] = b"\x07eXaMPlE\x04TeSt\x00"
    found = rrsets.parse(bytes(wire))
    assert found.question == b"\x07eXaMPlE\x04TeSt\x00"
    assert found.answer[0].rdatas[0][2:] == b"\x04Mail\x07example\x04test\x00"
    assert found.answer[1].rdatas[0].startswith(b"\x02ns\x07example\x04test\x00")


def test_a_question_to_an_authority() -> None:
    """RD is clear; EDNS is there with its size and DO unless the size is 0."""
    query = dns.message.from_wire(rrsets.question(names.from_text("a.test"), 28, 1232, True))
    assert (query.flags, query.edns, query.payload, query.ednsflags) == (0, 0, 1232, 0x8000)
    assert dns.message.from_wire(rrsets.question(names.from_text("a.test"), 28, 0, True)).edns == -1


def test_pointer_chains_cost_no_time() -> None:
    """Thousands of names that each follow thousands of pointers are refused at once."""
    body = b"".join(struct.pack("!H", 0xC000 | max(12, 29 + 2 * i - 2)) for i in range(8000))
    first = b"\x00" + struct.pack("!HHIH", 16, 1, 0, len(body)) + body
    second = struct.pack("!H", 0xC000 | (29 + 2 * 7900)) + struct.pack("!HHIH", 1, 1, 0, 4) + bytes(4)
    wire = struct.pack("!HHHHHH", 0, 0x8000, 1, 2000, 0, 0) + b"\x00\x00\x01\x00\x01" + first + second * 1999
    began = time.process_time()
    with pytest.raises(FormError):
        rrsets.parse(wire)
    assert time.process_time() - began < 0.5


@given(st.integers(0, 2**32), st.integers(1, 12))
def test_damaged_messages_are_read_or_refused(seed: int, blows: int) -> None:
    """Whatever is done to a message, it is read or it is a FormError, and what is read can be written and printed."""
    chance = random.Random(seed)
    wire = bytearray(message(*chance.sample(RECORDS, 6)))
    for _ in range(blows):
        wire[chance.randrange(2, len(wire))] = chance.randrange(256)
    try:
        found = rrsets.parse(bytes(wire[: chance.randrange(12, len(wire) + 1)]))
    except FormError:
        return
    for rrset in found.answer + found.authority + found.additional:
        assert rrset_lines(rrset)
    dns.message.from_wire(
        rrsets.response(names.ROOT, codes.TYPE_A, 0, [r for r in found.answer if r.rtype == 1], (), False)
    )


@pytest.mark.parametrize(("rtype", "skipped"), [(46, 18), (47, 0)])
def test_names_that_may_not_be_compressed_are_not(rtype: int, skipped: int) -> None:
    """A pointer in an RRSIG's or NSEC's rdata would lead elsewhere in what we write: such a message is malformed."""
    head = struct.pack("!6H", 0, 0x8400, 1, 1, 0, 0) + b"\x01a\x00\x00\x01\x00\x01"
    for name, good in ((b"\x01b\x00", True), (b"\xc0\x0c\x00\x00", False), (b"\x01b\x05\x00", False)):
        rdata = bytes(skipped) + name
        wire = head + b"\xc0\x0c" + struct.pack("!HHIH", rtype, 1, 60, len(rdata)) + rdata
        if good:
            assert rrsets.parse(wire).answer[0].rdatas == (rdata,)
        else:
            with pytest.raises(FormError):
                rrsets.parse(wire)


def test_nothing_follows_a_name_that_is_the_whole_rdata() -> None:
    """A CNAME with octets behind its name would be a name with its end in the middle: such a message is malformed."""
    head = struct.pack("!6H", 0, 0x8400, 1, 1, 0, 0) + b"\x01a\x00\x00\x01\x00\x01"
    for rtype, start in ((5, b""), (2, b""), (39, b""), (15, b"\x00\x0a"), (33, bytes(6))):
        for rest in (b"", b"\x0c\x16"):
            rdata = start + b"\x01b\x00" + rest
            wire = head + b"\xc0\x0c" + struct.pack("!HHIH", rtype, 1, 60, len(rdata)) + rdata
            if rest:
                with pytest.raises(FormError):
                    rrsets.parse(wire)
            else:
                assert rrsets.parse(wire).answer[0].rdatas == (rdata,)

"""Towards those who ask: cookies, the server's name, and how much one address may ask."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator

import dns.edns
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdataclass
import pytest

from dnsd.contract import codes, query
from dnsd.contract.cookies import Cookies
from tests.serve.test_hotpath import NOW_MS, Bench

SECRET = bytes.fromhex("e5e973e5a6b2a43f48e7dc849e37bfcf")


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A query path with cookies and a name."""
    made = Bench()
    made.hot.set_clients("box.office", SECRET, 0)
    yield made
    made.server.close()
    made.client.close()


def asked(address: str, cookie: str) -> query.Query:
    """A question with a cookie, from an address."""
    option = dns.edns.GenericOption(10, bytes.fromhex(cookie))
    wire = dns.message.make_query("a.example", "A", use_edns=0, options=[option]).to_wire()
    made = query.Query(bytearray(wire))
    assert made.parse(0, len(wire)) == 0
    packed = ipaddress.ip_address(address).packed
    query.set_client(made, packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed)
    return made


@pytest.mark.parametrize(
    ("secret", "address", "now", "cookie", "wanted"),
    [
        (SECRET.hex(), "198.51.100.100", 1559731985, "2464c4abcf10c957", "010000005cf79f111f8130c3eee29480"),
        (
            SECRET.hex(), "198.51.100.100", 1559734385, "2464c4abcf10c957010000005cf79f111f8130c3eee29480",
            "010000005cf7a871d4a564a1442aca77",
        ),
        (
            "445536bcd2513298075a5d379663c962", "2001:db8:220:1:59de:d0f4:8769:82b8", 1559741961, "22681ab97d52c298",
            "010000005cf7c609a6bb79d16625507a",
        ),
    ],
)  # fmt: skip
def test_the_examples_of_the_standard(secret: str, address: str, now: int, cookie: str, wanted: str) -> None:
    """RFC 9018, appendix A: the same server cookies to the bit, over IPv4 and IPv6."""
    out = bytearray(40)
    assert Cookies(bytes.fromhex(secret)).write(asked(address, cookie), memoryview(out), 4, now) == 32
    assert out[4:32].hex() == "000a0018" + cookie[:16] + wanted


def test_a_cookie_counts_for_its_address_and_its_hour() -> None:
    """Another address, another client cookie, an hour later, or one octet else: it is no proof (RFC 9018, section 4.3)."""
    cookies = Cookies(SECRET)
    good = "2464c4abcf10c957010000005cf79f111f8130c3eee29480"
    made = 1559731985
    assert cookies.valid(asked("198.51.100.100", good), made + 3600)
    assert not cookies.valid(asked("198.51.100.100", good), made + 3601)
    assert not cookies.valid(asked("198.51.100.100", good), made - 301)
    assert not cookies.valid(asked("198.51.100.101", good), made)
    assert not cookies.valid(asked("198.51.100.100", "25" + good[2:]), made)
    assert not cookies.valid(asked("198.51.100.100", good[:-2] + "81"), made)
    assert not cookies.valid(asked("198.51.100.100", good[:16]), made)


def test_every_answer_to_a_cookie_brings_one_that_is_taken_next_time(bench: Bench) -> None:
    """Local, blocked and refused alike; without a cookie in the question there is none in the answer."""
    for name in ("printer.office.example", "www.ads.example"):
        (plain,) = bench.ask(dns.message.make_query(name, "A", use_edns=0))
        assert not [option for option in plain.options if option.otype == 10]
        sent = dns.message.make_query(name, "A", use_edns=0, options=[dns.edns.GenericOption(10, b"12345678")])
        (answer,) = bench.ask(sent)
        (found,) = [option.to_wire() for option in answer.options if option.otype == 10]
        assert len(found) == 24
        assert found[:8] == b"12345678"
        (again,) = bench.ask(
            dns.message.make_query(name, "A", use_edns=0, options=[dns.edns.GenericOption(10, found)])
        )
        assert again.rcode() == answer.rcode()


def test_malformed_options_are_a_format_error(bench: Bench) -> None:
    """A cookie of 9 octets (RFC 7873, section 5.2.2) and an option that ends behind the packet: FORMERR."""
    for size in (0, 7, 9, 15, 41):
        sent = dns.message.make_query("a.example", "A", use_edns=0, options=[dns.edns.GenericOption(10, bytes(size))])
        (answer,) = bench.ask(sent)
        assert answer.rcode() == dns.rcode.FORMERR
    wire = dns.message.make_query("a.example", "A", use_edns=0, options=[dns.edns.GenericOption(65001, b"abc")]).to_wire()
    bench.client.send(wire[:-4] + b"\x09" + wire[-3:])
    bench.hot.batch(bench.server.fileno())
    assert dns.message.from_wire(bench.client.recv(512)).rcode() == dns.rcode.FORMERR


def test_the_server_says_who_it_is_and_what_it_serves_when_it_may(bench: Bench) -> None:
    """NSID (RFC 5001) and id.server, version and served revision in class CH (RFC 4892); switched off it says nothing."""
    sent = dns.message.make_query("printer.office.example", "A", use_edns=0, options=[dns.edns.GenericOption(3, b"")])
    (answer,) = bench.ask(sent)
    assert [option.to_wire() for option in answer.options if option.otype == 3] == [b"box.office"]
    (answer,) = bench.ask(dns.message.make_query("printer.office.example", "A", use_edns=0))
    assert not [option for option in answer.options if option.otype == 3]

    def chaos(name: str) -> dns.message.Message:
        (answer,) = bench.ask(dns.message.make_query(name, "TXT", rdclass=dns.rdataclass.CH))
        return answer

    assert '"box.office"' in str(chaos("id.server").answer[0])
    assert '"main@sha1:abc"' in str(chaos("revision.server").answer[0])
    assert "NexoralDNS" in str(chaos("version.bind").answer[0])
    bench.hot.set_clients("", b"", 0)
    for name in ("id.server", "hostname.bind", "version.bind", "version.server", "revision.server"):
        assert chaos(name).rcode() == dns.rcode.REFUSED
    (answer,) = bench.ask(sent)
    assert not answer.options


def test_who_asks_too_much_is_told_to_use_tcp(bench: Bench) -> None:
    """Ten a second: the eleventh is truncated, a moment later the next one is answered; TCP and cookies are not held back."""
    bench.hot.set_clients("", SECRET, 10)
    name = "printer.office.example"
    plain = dns.message.make_query(name, "A")
    for _ in range(10):
        (answer,) = bench.ask(plain)
        assert answer.answer
    (answer,) = bench.ask(plain)
    assert answer.flags & dns.flags.TC
    assert not answer.answer
    assert answer.rcode() == dns.rcode.NOERROR
    assert bench.counters[codes.COUNT_RATE_LIMITED] == 1
    client = ipaddress.ip_address("127.0.0.1").packed
    over_tcp = bench.hot.stream(plain.to_wire(), bytes(10) + b"\xff\xff" + client)
    assert over_tcp is not None
    assert dns.message.from_wire(over_tcp).answer
    first = dns.message.make_query(name, "A", use_edns=0, options=[dns.edns.GenericOption(10, b"12345678")])
    (answer,) = bench.ask(first)
    assert answer.flags & dns.flags.TC  # it has to show a cookie first, and is given one with that
    (cookie,) = [option.to_wire() for option in answer.options if option.otype == 10]
    (answer,) = bench.ask(dns.message.make_query(name, "A", use_edns=0, options=[dns.edns.GenericOption(10, cookie)]))
    assert answer.answer
    bench.hot.clock(1099, 1_700_000_000_099)
    (answer,) = bench.ask(plain)
    assert answer.flags & dns.flags.TC
    bench.hot.clock(1101, 1_700_000_000_101)
    (answer,) = bench.ask(plain)
    assert answer.answer


def test_another_address_is_not_held_back(bench: Bench) -> None:
    """Each address has its own measure."""
    bench.hot.set_clients("", b"", 2)
    wire = dns.message.make_query("printer.office.example", "A").to_wire()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.2", 0))
        other.settimeout(2)
        other.connect(bench.server.getsockname())
        for _ in range(3):
            bench.client.send(wire)
        other.send(wire)
        bench.hot.batch(bench.server.fileno())
        flags = [dns.message.from_wire(bench.client.recv(512)).flags & dns.flags.TC for _ in range(3)]
        assert [bool(flag) for flag in flags] == [False, False, True]
        assert dns.message.from_wire(other.recv(512)).answer


def test_a_late_answer_brings_a_cookie_of_now(bench: Bench) -> None:
    """An answer that an upstream gave after the batch: its cookie is taken next time."""
    sent = dns.message.make_query("far.example.com", "A", use_edns=0, options=[dns.edns.GenericOption(10, b"12345678")])
    miss = bench.miss(sent)
    answer = dns.message.from_wire(bench.hot.finish(miss, dns.message.make_response(sent).to_wire()))
    (cookie,) = [option.to_wire() for option in answer.options if option.otype == 10]
    assert Cookies(SECRET).valid(asked("127.0.0.1", cookie.hex()), NOW_MS // 1000)

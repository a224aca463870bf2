"""Recursion on the compiled path, over real sockets: a client, the query path, and authorities on port 53 of 127/8."""

from __future__ import annotations

import itertools
import os
import random
import socket
import time
from collections.abc import Callable, Generator, Iterator

import dns.flags
import dns.message
import dns.rrset
import pytest

from controller.compiler import compile_table
from controller.ruleset import Forward
from dnsd.contract import codes, names
from dnsd.resolve.config import Config
from dnsd.resolve.forwarder import UDP, Ask, Outcome, Reply
from dnsd.resolve.resolver import Resolver
from dnsd.resolve.rrcache import Delegation, RRCache
from dnsd.resolve.rrsets import at_or_below, question
from dnsd.resolve.shortcut import Journey, Shortcut
from dnsd.serve.chance import Chance
from dnsd.serve.flights import Flights
from dnsd.serve.loop import Loop
from dnsd.serve.shortpath import ShortPath
from dnsd.serve.upstream import Upstream
from tests.contract import rulesets
from tests.contract.rulesets import where
from tests.contract.test_verdict import block
from tests.resolve.fuzz import mutated
from tests.serve.nameserver import Nameserver

WALL_MS = 1_700_000_000_000
TEST = names.from_text("test")
ZONE = """\
test. 900 SOA ns.test. host.test. 1 3600 600 86400 300
a.test. 300 A 192.0.2.1
a-name-of-many-letters.test. 300 A 192.0.2.1
many.test. 300 A 192.0.2.1
many.test. 300 A 192.0.2.2
text.test. 300 TXT "one" "two"
mail.test. 300 MX 10 mx.mail.test.
none.test. 0 A 192.0.2.9
alias.test. 300 CNAME a.test.
deep.er.test. 300 A 192.0.2.7
sub.test. 300 NS ns.sub.test.
ns.sub.test. 300 A {second}
"""
_NUMBERS = itertools.count(random.SystemRandom().randrange(10_000))
Script = Callable[[bytes, str], "bytes | list[bytes] | None"]


class Authority:
    """A zone's answers, and what is wrong with them."""

    def __init__(self, text: str) -> None:
        self.rrsets: dict[tuple[str, int], dns.rrset.RRset] = {}
        for line in text.splitlines():
            owner, ttl, rtype, data = line.split(None, 3)
            key = (owner, dns.rdatatype.from_text(rtype))
            found = dns.rrset.from_text(owner, int(ttl), "IN", rtype, data)
            self.rrsets.setdefault(key, found).update(found)
        self.change: Callable[[dns.message.Message], dns.message.Message | bytes | list[bytes] | None] = lambda said: said
        self.asked: list[tuple[str, int, str]] = []

    @property
    def over_tcp(self) -> bool:
        """Whether the last question came over TCP."""
        return self.asked[-1][2] == "tcp"

    def __call__(self, wire: bytes, transport: str) -> bytes | list[bytes] | None:
        query = dns.message.from_wire(wire)
        name, rtype = query.question[0].name.to_text().lower(), query.question[0].rdtype
        self.asked.append((name, int(rtype), transport))
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        if name.endswith("sub.test.") and ("test.", dns.rdatatype.SOA) in self.rrsets:
            response.flags &= ~dns.flags.AA
            response.authority.append(self.rrsets["sub.test.", dns.rdatatype.NS])
            response.additional.append(self.rrsets["ns.sub.test.", dns.rdatatype.A])
        elif (name, rtype) in self.rrsets:
            response.answer.append(self.rrsets[name, rtype])
        elif (name, dns.rdatatype.CNAME) in self.rrsets:
            response.answer.append(self.rrsets[name, dns.rdatatype.CNAME])
        else:
            if not any(owner == name or owner.endswith("." + name) for owner, _ in self.rrsets):
                response.set_rcode(3)
            response.authority.append(next(s for (_, kind), s in self.rrsets.items() if kind == dns.rdatatype.SOA))
        random.seed(1)  # the order of an RRset's records is drawn when it is written
        said = self.change(response)
        return said.to_wire() if isinstance(said, dns.message.Message) else said


class Office:
    """A worker's query path with its resolver, who knows of the zone test. and nothing else."""

    def __init__(self, short: bool = True, **config: bool) -> None:
        number = next(_NUMBERS) % 10_000
        self.hosts = [f"127.{100 + number % 100}.{number // 100}.{k}" for k in (1, 2)]
        self.zone = Authority(ZONE.format(second=self.hosts[1]))
        self.below = Authority("sub.test. 900 SOA ns.sub.test. h.sub.test. 1 2 3 4 300\nx.sub.test. 300 A 192.0.2.8\n")
        self.servers = [Nameserver(self.zone, self.hosts[0], 53), Nameserver(self.below, self.hosts[1], 53)]
        self.counters = memoryview(bytearray(8 * codes.COUNTERS)).cast("Q")
        self.path = ShortPath(0, self.counters, bytearray(64 + 320 * 16), bytearray(1 << 18), "box")
        self.path.set_facts(rulesets.everyone(special=False))
        forward = Forward(names.ROOT, where(50), (), recurse=True)
        blobs = compile_table(rulesets.ruleset([block("ads", "ads.example")], forwards=[forward]))
        self.path.install(blobs.policy, blobs.names, 7, "main@sha1:abc")
        settings = {"query_localhost": True, "use_ipv6": False, "priming": False, "case_randomisation": True} | config
        self.cache = RRCache(1 << 20)
        self.cache.clock(WALL_MS // 1000)
        self.know(self.hosts[0])
        hints = ((b"\x02ns\x04root\x00", (f"{self.hosts[0]}9",)),)  # nobody listens there
        self.resolver = Resolver(Config(**settings), hints, Chance(), self.cache)
        self.shortcut = Shortcut(self.resolver)
        if short:
            self.path.shortcut = self.shortcut
        self.loop = Loop()
        self.upstream = Upstream(self.loop, self.counters, self.now_ms)
        self.ahead_ms = 0
        self.flights = Flights(
            self.path, self.upstream, self.counters, self.now_ms, self.path.send, self.resolver, shortcut=self.shortcut
        )
        if short:
            self.path.journey = self.flights.journey
        self.server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.server.bind(("127.0.0.1", 0))
        self.misses = 0
        self.clients: list[socket.socket] = []

    def know(self, *addresses: str) -> None:
        """The delegation of test., as its parent told it."""
        named = tuple((names.from_text(f"ns{k}.test"), (address,)) for k, address in enumerate(addresses))
        self.cache.put_delegation(Delegation(TEST, tuple(name for name, _ in named), named, self.cache.now, 3600))

    def now_ms(self) -> int:
        """The monotonic clock."""
        return time.monotonic_ns() // 1_000_000 + self.ahead_ms

    def round(self) -> None:
        """What a worker does in a round."""
        self.path.clock(self.now_ms(), WALL_MS)
        self.path.batch(self.server.fileno())
        self.path.receive()
        self.loop.run_once(0.002, lambda: None)
        self.path.clock(self.now_ms(), WALL_MS)
        self.upstream.expire(self.now_ms())
        self.path.expire()
        for retry in self.path.handed():
            self.flights.resume(retry)
        taken, self.path.misses[:] = list(self.path.misses), []
        self.misses += len(taken)
        for miss in taken:
            self.flights.take(miss)

    def send(self, name: str, qtype: str = "A", **words: bool) -> socket.socket:
        """A client's question."""
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.connect(self.server.getsockname())
        client.settimeout(0)
        query = dns.message.make_query(name, qtype, use_edns=0, want_dnssec=words.get("do", False), id=7)
        if words.get("cd"):
            query.flags |= dns.flags.CD
        client.send(query.to_wire())
        self.clients.append(client)
        return client

    def answer(self, client: socket.socket) -> bytes:
        """What a client gets; rounds until then."""
        end = time.monotonic() + 8
        while time.monotonic() < end:
            self.round()
            try:
                return client.recv(4096)
            except BlockingIOError:
                continue
        raise AssertionError("no answer")

    def ask(self, name: str, qtype: str = "A", **words: bool) -> dns.message.Message:
        """A client's question and its answer."""
        return dns.message.from_wire(self.answer(self.send(name, qtype, **words)))

    def close(self) -> None:
        """Close everything."""
        self.path.close()
        self.upstream.close()
        self.loop.close()
        for each in (*self.servers, self.server, *self.clients):
            each.close()


@pytest.fixture
def make() -> Iterator[Callable[..., Office]]:
    """Offices, closed at the end."""
    made: list[Office] = []

    def new(short: bool = True, **config: bool) -> Office:
        made.append(Office(short, **config))
        return made[-1]

    yield new
    for office in made:
        office.close()


PLAIN = [
    ("a.test", "A"), ("mAnY.tEsT", "A"), ("text.test", "TXT"), ("mail.test", "MX"), ("a.test", "AAAA"),
    ("no.test", "A"), ("test", "SOA"), ("er.test", "TXT"), ("deep.er.test", "A"),
]  # fmt: skip
OTHERS = [
    ("alias.test", "A"), ("x.sub.test", "A"), ("none.of.these.test", "A"), ("a.test", "DS"), ("a.test", "ANY"),
    ("y.sub.test", "A"), ("alias.test", "CNAME"), ("none.test", "A"),
]  # fmt: skip


def test_a_client_gets_the_same_octets_by_either_way(make: Callable[..., Office]) -> None:
    """The octets and the number of questions are those without it; nothing leaves the compiled path, journeys neither."""
    short, long = make(), make(short=False)
    for number, (name, qtype) in enumerate((*PLAIN, *OTHERS)):
        for words in ({}, {"do": True}, {"cd": True}):
            before = [len(office.zone.asked) + len(office.below.asked) for office in (short, long)]
            misses, asked = short.misses, short.path.cache.stored
            one, other = (office.answer(office.send(name, qtype, **words)) for office in (short, long))
            assert one == other, (name, qtype, words)
            after = [len(office.zone.asked) + len(office.below.asked) for office in (short, long)]
            assert after[0] - before[0] == after[1] - before[1], (name, qtype, words)
            if number < len(PLAIN) and not words:
                assert short.path.cache.stored == asked + 1 and after[0] == before[0] + max(1, name.count("."))
            if not words and qtype != "CNAME":
                assert short.misses == misses, (name, qtype)
    for (name, rtype), entry in long.cache._entries.items():
        assert short.cache._entries[name, rtype].value == entry.value
    assert short.path.under_way == 0 and not short.shortcut.busy and short.path.flights.waiting == 0


def _truncated(said: dns.message.Message) -> dns.message.Message:
    said.flags |= dns.flags.TC
    said.answer.clear()
    return said


def _lowercase(said: dns.message.Message) -> dns.message.Message:
    said.question[0].name = said.question[0].name.canonicalize()
    return said


def _without(flag: int) -> Callable[[dns.message.Message], dns.message.Message]:
    def change(said: dns.message.Message) -> dns.message.Message:
        said.flags &= ~flag
        return said

    return change


def _failing(rcode: int) -> Callable[[dns.message.Message], dns.message.Message]:
    def change(said: dns.message.Message) -> dns.message.Message:
        said.answer.clear()
        said.authority.clear()
        said.set_rcode(rcode)
        return said

    return change


@pytest.mark.parametrize(
    "change",
    [_truncated, _lowercase, _without(dns.flags.AA), _failing(1), _failing(2), _failing(5), lambda said: None],
    ids=["truncated", "lowercase", "no AA", "FORMERR", "SERVFAIL", "REFUSED", "silence"],
)
def test_what_is_not_plain_is_not_asked_twice(make: Callable[..., Office], change: Callable[..., object]) -> None:
    """The generator goes on with the reply: the client's rcode and the questions to authorities are those without it."""
    offices = make(), make(short=False)
    for office in offices:
        office.zone.change = lambda said, office=office: said if office.zone.over_tcp else change(said)  # type: ignore[assignment]
    said = [office.ask("a-name-of-many-letters.test") for office in offices]
    assert said[0].rcode() == said[1].rcode() and said[0].answer == said[1].answer
    asked = [(office.zone.asked, office.below.asked) for office in offices]
    assert asked[0] == asked[1]
    assert offices[0].misses == 0 and not offices[0].shortcut.busy
    assert offices[0].path.under_way == 0 and len(offices[0].flights) == 0


def test_a_forged_answer_is_not_taken(make: Callable[..., Office]) -> None:
    """Another id, another name, another type, a question again: the right one is waited for, and counts."""
    office = make()

    def forged(said: dns.message.Message) -> list[bytes]:
        wire = said.to_wire()
        lie = dns.message.from_wire(wire)
        lie.answer = [dns.rrset.from_text(said.question[0].name, 300, "IN", "A", "6.6.6.6")]
        lie.id = said.id ^ 1
        other = dns.message.from_wire(lie.to_wire())
        other.id = said.id
        other.question = dns.message.make_query("b.test", "A").question
        type_ = dns.message.from_wire(other.to_wire())
        type_.question = dns.message.make_query(said.question[0].name, "TXT").question
        query = bytearray(lie.to_wire())
        query[:2], query[2] = wire[:2], query[2] & 127
        return [lie.to_wire(), other.to_wire(), type_.to_wire(), bytes(query), b"", b"\x00" * 11, wire]

    office.zone.change = forged
    assert str(office.ask("a.test").answer[0][0]) == "192.0.2.1"
    assert office.counters[codes.COUNT_UPSTREAM_MISMATCHES] == 6 and office.misses == 0
    office.zone.change = lambda said: said if office.zone.over_tcp else forged(said)[:2] * 20 + forged(said)[-1:]
    assert str(office.ask("many.test").answer[0][0])[:8] == "192.0.2."
    assert [transport for *_, transport in office.zone.asked[-2:]] == ["udp", "tcp"]  # somebody guesses: over TCP


def test_what_comes_along_is_not_believed(make: Callable[..., Office]) -> None:
    """Records of other names beside the answer are neither remembered nor passed on."""
    office = make()

    def more(said: dns.message.Message) -> dns.message.Message:
        for section, text in (
            (said.answer, "www.bank. 300 A 6.6.6.6"), (said.authority, "bank. 300 NS evil.test."),
            (said.authority, "test. 300 NS evil.test."), (said.additional, "evil.test. 300 A 6.6.6.6"),
            (said.additional, "many.test. 300 A 6.6.6.6"),
        ):  # fmt: skip
            owner, ttl, rtype, data = text.split()
            section.append(dns.rrset.from_text(owner, int(ttl), "IN", rtype, data))
        return said

    office.zone.change = more
    answer = office.ask("a.test")
    assert [str(rrset) for rrset in answer.answer] == ["a.test. 300 IN A 192.0.2.1"]
    assert not answer.authority and not answer.additional
    assert set(office.cache._entries) == {(names.from_text("a.test"), 1)} and set(office.cache._delegations) == {TEST}
    assert office.misses == 0


def test_identical_questions_share_one_and_each_question_has_its_port(make: Callable[..., Office]) -> None:
    """Three clients, one question; each name from a port of its own; what a generator works on is not asked too."""
    office = make()
    clients = [office.send("a.test") for _ in range(3)]
    said = [dns.message.from_wire(office.answer(client)).answer for client in clients]
    assert said[0] and said[0] == said[1] == said[2]
    assert len(office.zone.asked) == 1 and office.counters[codes.COUNT_COALESCED] == 2
    for k in range(20):
        assert office.ask(f"n{k}.test").rcode() == 3
    ports = [port for _, _, port in office.servers[0].questions]
    assert len(set(ports)) >= len(ports) - 2 >= 19  # the kernel may draw one twice
    assert len(office.path.lanes.free) == office.path.lanes.size and not any(office.path.lanes.servers)
    many = names.from_text("many.test")
    office.shortcut.enter(many, 1)
    client = office.send("many.test")
    assert office.answer(client) and office.misses == 1
    office.shortcut.leave(many, 1)
    assert not office.shortcut.is_busy(many, 1)


def test_what_is_denied_or_failed_is_not_asked(make: Callable[..., Office]) -> None:
    """Below an NXDOMAIN nobody is asked (RFC 8020), and what failed a moment ago not again (RFC 9520)."""
    office = make()
    assert office.ask("no.test").rcode() == 3 and office.misses == 0
    assert office.ask("x.no.test").rcode() == 3 and len(office.zone.asked) == 1
    office.zone.change = _failing(2)
    assert office.ask("a.test").rcode() == 2
    asked = len(office.zone.asked)
    assert office.ask("a.test").rcode() == 2 and len(office.zone.asked) == asked


def test_a_silent_server_costs_one_wait_and_both_ways_learn_from_it(make: Callable[..., Office]) -> None:
    """The next server answers the same client; the silent one is remembered, the other's round-trip time too."""
    office = make()
    dead = office.hosts[0][:-1] + "9"
    office.know(dead, office.hosts[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((dead, 53))
        infra = office.resolver.infra
        for k in range(500):
            assert office.ask(f"n{k}.test").rcode() == 3
            if (dead, 53) in infra._standing:
                break
    assert infra.srtt_ms((office.hosts[0], 53)) is not None and infra._standing[dead, 53].timeouts == 1
    assert office.path.under_way == 0


def test_mutated_replies_break_nothing(make: Callable[..., Office]) -> None:
    """Octets changed at random behind the header: every client is answered, and nothing outside the zone remembered."""
    office = make()
    seed = int(os.environ.get("SEED", "5"))
    chance = random.Random(seed)
    office.zone.change = lambda said: (wire := said.to_wire())[:2] + mutated(wire, chance)[2:]
    clients = [office.send(f"{name}{k}.test" if k & 1 else f"{name}.test") for k in range(40) for name in ("many", "a")]
    begun = time.monotonic()
    for client in clients:
        while True:
            office.round()
            try:
                client.recv(4096)
                break
            except BlockingIOError:
                assert time.monotonic() - begun < 20, seed
                office.ahead_ms += 20
    assert all(at_or_below(name, TEST) for name, _ in office.cache._entries), seed
    assert all(at_or_below(zone, TEST) for zone in office.cache._delegations), seed
    assert office.path.under_way == 0


def test_a_fault_of_ours_is_answered_and_told(make: Callable[..., Office]) -> None:
    """A resolution that raises after its first question: SERVFAIL at once, nothing is held up, and the worker hears of it."""
    office = make()

    def broken(*words: object, **more: object) -> Generator[Ask, Reply, Outcome]:
        yield Ask((office.hosts[0], 53), question(names.from_text("a.test"), 43, 1232, True), UDP, 500, fresh=True)
        raise ValueError("a fault")

    office.path.journey = lambda *words: Journey(broken())
    clients = [office.send("a.test", "DS") for _ in range(2)]
    with pytest.raises(ValueError, match="a fault"):
        office.answer(clients[0])
    assert [dns.message.from_wire(client.recv(4096)).rcode() for client in clients] == [2, 2]
    assert office.path.under_way == 0
    office.path.journey = office.flights.journey
    assert office.ask("a.test").rcode() == 0 and len(office.flights) == 0

"""The query path over real sockets: batches, cache, aliases, what is left for the worker, counters and ring."""

from __future__ import annotations

import dataclasses
import ipaddress
import socket
import struct
from collections.abc import Iterator

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rrset
import pytest

from controller.compiler import compile_table
from controller.ruleset import Forward, Guard, Protection, Record, Redirection, Server
from dnsd.contract import codes, facts
from dnsd.serve.latepath import LatePath, Miss
from tests.contract import rulesets
from tests.contract.rulesets import N, where
from tests.contract.test_answer import office
from tests.contract.test_verdict import FORWARD, block, rule

NOW_MS = 1_700_000_000_000


class Bench:
    """A hot path, its socket, and a client."""

    def __init__(self, *, table: bool = True) -> None:
        self.counters = memoryview(bytearray(8 * codes.COUNTERS)).cast("Q")
        self.ring = bytearray(64 + 320 * 16)
        self.hot = LatePath(0, self.counters, self.ring, bytearray(1 << 18), "box")
        self.hot.clock(1000, NOW_MS)
        self.server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.server.bind(("127.0.0.1", 0))
        self.client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.client.settimeout(2)
        self.client.connect(self.server.getsockname())
        self.hot.set_facts(rulesets.everyone())
        if table:
            redirect = dataclasses.replace(
                rule("r", codes.RULE_REDIRECT, "google.example"),
                redirections=(Redirection(name=N("safe.other.example")),),
            )
            zone = office(Record(N("ext.office.example"), codes.TYPE_CNAME, 60, N("far.away.example"), "", where(44)))
            blobs = compile_table(
                rulesets.ruleset([block("ads", "ads.example"), redirect], zones=[zone], forwards=FORWARD)
            )
            self.hot.install(blobs.policy, blobs.names, 7, "main@sha1:abc")

    def ask(self, *queries: dns.message.Message) -> list[dns.message.Message]:
        """Send queries, let one batch run, return what came back."""
        for query in queries:
            self.client.send(query.to_wire())
        before = len(self.hot.misses)
        assert self.hot.batch(self.server.fileno()) == len(queries)
        expected = len(queries) - (len(self.hot.misses) - before)
        return [dns.message.from_wire(self.client.recv(4096)) for _ in range(expected)]

    def miss(self, query: dns.message.Message) -> Miss:
        """Send a query that nothing here can answer."""
        assert self.ask(query) == []
        found: Miss = self.hot.misses.pop()
        return found


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A bench with an office's table."""
    made = Bench()
    yield made
    made.server.close()
    made.client.close()


def upstream(miss: Miss, *records: str, rcode: int = 0) -> bytes:
    """What an upstream would answer, compressed as dnspython does."""
    query = dns.message.make_query(dns.name.from_wire(miss.sname, 0)[0], miss.qtype, use_edns=0)
    message = dns.message.make_response(query)
    message.set_rcode(rcode)
    for text in records:
        owner, ttl, rtype, rdata = text.split(" ", 3)
        where = {"SOA": message.authority, "NS": message.authority}.get(rtype, message.answer)
        where.append(dns.rrset.from_text(owner, int(ttl), "IN", rtype, rdata))
    return message.to_wire(max_size=65535)


def texts(message: dns.message.Message, which: str = "answer") -> list[str]:
    """Records as text."""
    return [f"{r.name} {r.ttl} {dns.rdatatype.to_text(r.rdtype)} {i}" for r in getattr(message, which) for i in r]


def query(name: str, qtype: str = "A", **kwargs: object) -> dns.message.Message:
    """A question with EDNS."""
    return dns.message.make_query(name, qtype, use_edns=kwargs.pop("use_edns", 0), **kwargs)  # type: ignore[arg-type]


def test_a_batch_of_mixed_questions(bench: Bench) -> None:
    """Sixty-four datagrams of every kind in one batch are each answered, garbage too."""
    for i in range(60):
        bench.client.send(query(["printer.office.example", "x.ads.example", "nope.office.example"][i % 3]).to_wire())
    bench.client.send(b"")
    bench.client.send(b"\x00" * 12)
    bench.client.send(b"\xff" * 700)
    bench.client.send(query("www.elsewhere.example").to_wire())

    assert bench.hot.batch(bench.server.fileno()) == 64
    answers = [bench.client.recv(4096) for _ in range(61)]
    assert len(bench.hot.misses) == 1
    assert sum(dns.message.from_wire(a).rcode() == dns.rcode.NXDOMAIN for a in answers) == 40
    assert (bench.counters[codes.COUNT_BLOCKED], bench.counters[codes.COUNT_LOCAL]) == (20, 40)


def test_forwarded_then_cached(bench: Bench) -> None:
    """A miss is finished from the upstream's answer; the next asker gets it from the cache with its TTL aged."""
    asked = query("Www.Elsewhere.Example")
    miss = bench.miss(asked)
    assert (miss.sname, miss.qtype, miss.rd, miss.fd) == (N("www.elsewhere.example"), 1, True, bench.server.fileno())
    raw = upstream(
        miss, "www.elsewhere.example. 300 CNAME host.elsewhere.example.", "host.elsewhere.example. 200 A 192.0.2.9"
    )
    bench.hot.store(miss, raw)
    bench.hot.send(miss, bench.hot.finish(miss, raw))
    first = dns.message.from_wire(bench.client.recv(4096))
    assert asked.is_response(first)
    assert texts(first)[1].lower() == "host.elsewhere.example. 200 a 192.0.2.9"
    bench.hot.clock(2000, NOW_MS + 50_000)
    (second,) = bench.ask(query("WWW.elsewhere.example", id=77))
    expected = ["WWW.elsewhere.example. 250 CNAME host.elsewhere.example.", "host.elsewhere.example. 150 A 192.0.2.9"]
    assert texts(second) == expected
    assert second.flags & dns.flags.RA
    assert not second.flags & (dns.flags.AA | dns.flags.AD)
    assert bench.counters[codes.COUNT_CACHE_HITS] == 1
    bench.hot.clock(3000, NOW_MS + 201_000)
    assert bench.miss(query("www.elsewhere.example"))


def test_an_extended_error_stays_with_a_cached_answer(bench: Bench) -> None:
    """What was said of an answer (RFC 8914) is said again from the cache, to who speaks EDNS; a long text is cut."""
    for number, (ede, text) in enumerate(((1, "a.example is signed by 99"), (0, ""), (27, "x" * 300), (-1, "unsaid"))):
        asked = query(f"n{number}.elsewhere.example", use_edns=0)
        miss = bench.miss(asked)
        raw = upstream(miss, f"n{number}.elsewhere.example. 300 A 192.0.2.9")
        bench.hot.store(miss, raw, ede, text)
        bench.hot.send(miss, bench.hot.finish(miss, raw, ede, text))
        first = dns.message.from_wire(bench.client.recv(4096))
        (second,) = bench.ask(asked)
        for message in (first, second):
            assert texts(message) == [f"n{number}.elsewhere.example. 300 A 192.0.2.9"]
            said = [(int(option.code), option.text or "") for option in message.options]
            assert said == ([(ede, text[:120])] if ede >= 0 else [])
        (plain,) = bench.ask(query(f"n{number}.elsewhere.example", use_edns=False))
        assert texts(plain) == texts(first) and plain.edns < 0
    assert bench.counters[codes.COUNT_CACHE_HITS] == 8


def test_do_is_part_of_the_key(bench: Bench) -> None:
    """An answer for a client without DO is not given to one with."""
    miss = bench.miss(query("www.elsewhere.example"))
    bench.hot.store(miss, upstream(miss, "www.elsewhere.example. 300 A 192.0.2.9"))
    with_do = bench.miss(query("www.elsewhere.example", want_dnssec=True))

    assert with_do.do
    assert with_do.key != miss.key


@pytest.mark.parametrize(
    ("asked", "chain"),
    [
        ("images.google.example", "images.google.example. 10 CNAME safe.other.example."),
        ("ext.office.example", "ext.office.example. 60 CNAME far.away.example."),
    ],
)
def test_aliases_are_finished_with_their_target(bench: Bench, asked: str, chain: str) -> None:
    """A redirect to a name, or our CNAME to a foreign one: the CNAME and the target's records, pointers moved."""
    miss = bench.miss(query(asked))
    target = chain.rsplit(maxsplit=1)[-1]
    raw = upstream(
        miss,
        f"{target} 100 CNAME a.deep.{target}",
        f"a.deep.{target} 90 A 192.0.2.1",
        f"{target} 80 NS ns1.a.deep.{target}",
    )
    bench.hot.store(miss, raw)
    bench.hot.send(miss, bench.hot.finish(miss, raw))
    for message in (dns.message.from_wire(bench.client.recv(4096)), *bench.ask(query(asked))):
        assert texts(message) == [chain, f"{target} 100 CNAME a.deep.{target}", f"a.deep.{target} 90 A 192.0.2.1"]
        assert texts(message, "authority") == [f"{target} 80 NS ns1.a.deep.{target}"]
    assert bench.counters[codes.COUNT_CACHE_HITS] == 1


def test_no_answer_from_upstream(bench: Bench) -> None:
    """When all fail, SERVFAIL with the reason; a malformed answer is the same and is never remembered."""
    miss = bench.miss(query("www.elsewhere.example"))
    message = dns.message.from_wire(bench.hot.finish(miss, None, 22, "no answer from 127.0.0.1"))
    assert message.rcode() == dns.rcode.SERVFAIL
    assert [(int(o.code), o.text) for o in message.options] == [(22, "no answer from 127.0.0.1")]
    bad = upstream(miss, "www.elsewhere.example. 300 A 192.0.2.9")[:-3]
    bench.hot.store(miss, bad)
    assert dns.message.from_wire(bench.hot.finish(miss, bad)).rcode() == dns.rcode.SERVFAIL
    assert bench.miss(query("www.elsewhere.example"))


def test_without_recursion_desired(bench: Bench) -> None:
    """A question without RD gets what is in the cache and is never the reason for an upstream query."""
    asked = query("www.elsewhere.example", flags=0)
    (refused,) = bench.ask(asked)
    assert refused.rcode() == dns.rcode.REFUSED
    miss = bench.miss(query("www.elsewhere.example"))
    bench.hot.store(miss, upstream(miss, "www.elsewhere.example. 300 A 192.0.2.9"))
    assert texts(bench.ask(asked)[0])


def test_over_tcp(bench: Bench) -> None:
    """A stream's question has no size limit but the stream's; misses carry fd -1; silence is empty."""
    client = facts.packed("127.0.0.1")
    assert dns.message.from_wire(bench.hot.stream(query("printer.office.example").to_wire(), client)).answer
    assert bench.hot.stream(query("www.elsewhere.example").to_wire(), client) is None
    miss = bench.hot.misses.pop()
    assert miss.fd == -1
    many = [f"www.elsewhere.example. 300 A 10.1.{i // 200}.{i % 200}" for i in range(400)]
    message = dns.message.from_wire(bench.hot.finish(miss, upstream(miss, *many)))
    assert len(message.answer[0]) == 400
    assert bench.hot.stream(b"\x00" * 5, client) == b""


def test_large_answers_are_truncated_over_udp(bench: Bench) -> None:
    """The client's size holds for relayed answers too."""
    miss = bench.miss(query("www.elsewhere.example", use_edns=False))
    many = [f"www.elsewhere.example. 300 A 10.1.0.{i}" for i in range(60)]
    raw = upstream(miss, *many)
    message = dns.message.from_wire(bench.hot.finish(miss, raw))

    assert message.flags & dns.flags.TC
    assert not message.answer


def test_before_the_first_table() -> None:
    """Without a table every question gets SERVFAIL with EDE 14, and malformed ones what they deserve."""
    bench = Bench(table=False)
    (message,) = bench.ask(query("a.example"))
    assert (message.rcode(), int(message.options[0].code)) == (dns.rcode.SERVFAIL, codes.EDE_NOT_READY)
    bench.client.send(b"\x00" * 12)
    bench.hot.batch(bench.server.fileno())
    assert bench.client.recv(512)[3] & 15 == dns.rcode.FORMERR


def test_a_refused_table_leaves_the_old_one(bench: Bench) -> None:
    """What is no table is refused, and nothing changes."""
    digest = bench.hot.digest
    with pytest.raises(Exception, match="header"):
        bench.hot.install(b"", b"", 8, "x")

    assert (bench.hot.digest, bench.hot.generation) == (digest, 7)
    assert texts(bench.ask(query("printer.office.example"))[0])


def test_chaos(bench: Bench) -> None:
    """Class CH: id.server and version only (RFC 4892)."""
    (identity,) = bench.ask(query("id.server", "TXT", rdclass=dns.rdataclass.CH))
    assert identity.answer[0][0].strings == (b"box",)
    (other,) = bench.ask(query("authors.bind", "TXT", rdclass=dns.rdataclass.CH))
    assert other.rcode() == dns.rcode.REFUSED


def test_decisions_in_the_ring(bench: Bench) -> None:
    """Each decision leaves who asked what, who decided, and under which generation."""
    bench.ask(query("x.ads.example"), query("printer.office.example", "AAAA"))
    assert struct.unpack_from("<Q", bench.ring, 0) == (2,)
    seq, wall, client, qtype, stage, action, rcode, tcp, hit, number, listed, _, _, generation = (
        struct.unpack_from("<QQ16sHBBHBBIIIIQ", bench.ring, 64)
    )
    assert (seq, wall, client, qtype) == (1, NOW_MS, facts.packed("127.0.0.1"), 1)
    assert (stage, action, rcode, tcp, hit) == (codes.STAGE_POLICY, codes.ACTION_NXDOMAIN, 3, 0, 0)
    assert (bench.hot.info.rule(number - 1).name, listed, generation) == ("ads", 0, 7)
    length = bench.ring[64 + 64]
    assert bench.ring[64 + 65 : 64 + 65 + length] == N("x.ads.example")
    (second,) = struct.unpack_from("<I", bench.ring, 64 + 320 + 48)
    assert bench.hot.info.where(second) == "rules.d/x.yaml:41"
    for _ in range(40):
        bench.ask(query("x.ads.example"))
    assert struct.unpack_from("<Q", bench.ring, 0) == (42,)


def test_one_cached_answer_two_clients() -> None:
    """Two client classes share a cached answer and get different verdicts; a new table takes effect on it at once."""
    bench = Bench(table=False)
    staff = rulesets.Group("staff", where(2), False, (rulesets.network("127.0.0.1/32"),))
    rules = [block("cloak", "tracker.example", applies=("staff",))]
    guard = Guard(where(70))

    def release(generation: int, protection: Protection) -> None:
        one = rulesets.ruleset(rules, groups={"staff": staff}, forwards=FORWARD, protection=protection)
        blobs = compile_table(one)
        bench.hot.install(blobs.policy, blobs.names, generation, "main@sha1:abc")

    release(1, Protection(cname=guard, rebinding=guard))
    client = facts.packed("10.9.9.9")
    assert bench.hot.stream(query("www.elsewhere.example").to_wire(), client) is None
    miss = bench.hot.misses.pop()
    raw = upstream(
        miss, "www.elsewhere.example. 300 CNAME x.tracker.example.", "x.tracker.example. 300 A 198.51.100.7"
    )
    bench.hot.store(miss, raw)
    assert dns.message.from_wire(bench.hot.finish(miss, raw)).rcode() == dns.rcode.NOERROR
    for _ in range(2):
        (message,) = bench.ask(query("www.elsewhere.example"))
        assert (message.rcode(), message.options[0].text) == (dns.rcode.NXDOMAIN, "cloak rules.d/x.yaml:10 main@sha1:abc")
        other = bench.hot.stream(query("www.elsewhere.example").to_wire(), client)
        assert other is not None and len(dns.message.from_wire(other).answer) == 2
    assert bench.counters[codes.COUNT_BLOCKED] == 2
    release(2, Protection())
    assert len(bench.ask(query("www.elsewhere.example"))[0].answer) == 2
    refused = Guard(where(72), (), (rulesets.network("198.51.100.0/24"),))
    release(3, Protection(networks=refused))
    (message,) = bench.ask(query("www.elsewhere.example"))
    assert (message.rcode(), len(message.answer)) == (dns.rcode.NOERROR, 0)
    assert message.options[0].text == "protect.networks rules.d/x.yaml:72 main@sha1:abc"


def test_a_rebinding_answer_is_refused_when_it_comes_and_from_the_cache(bench: Bench) -> None:
    """A private address in a public name is NODATA for the first asker and for the next."""
    made = Bench(table=False)
    blobs = compile_table(rulesets.ruleset([], forwards=FORWARD, protection=Protection(rebinding=Guard(where(70)))))
    made.hot.install(blobs.policy, blobs.names, 1, "r")
    miss = made.miss(query("evil.example"))
    raw = upstream(miss, "evil.example. 300 A 192.168.1.1")
    made.hot.store(miss, raw)
    first = dns.message.from_wire(made.hot.finish(miss, raw))
    (second,) = made.ask(query("evil.example"))
    for message in (first, second):
        assert (message.rcode(), message.answer, int(message.options[0].code)) == (dns.rcode.NOERROR, [], 15)


def test_the_cache_knows_who_was_asked() -> None:
    """Another lease, or other servers in the rules, and the answers of those before are not given; a forward entry
    that only gets another number keeps its answers."""
    bench = Bench(table=False)
    lan = Forward(N("lan"), where(51), (), dhcp=True)

    def release(generation: int, *forwards: Forward) -> None:
        blobs = compile_table(rulesets.ruleset([], forwards=list(forwards)))
        bench.hot.install(blobs.policy, blobs.names, generation, "main@sha1:abc")

    def lease(*servers: str) -> None:
        before = facts.decode(rulesets.everyone())
        found = tuple((facts.packed(server), 53, 0) for server in servers)
        bench.hot.set_facts(facts.encode(dataclasses.replace(before, lease=found)))

    def address(name: str, learn: str = "") -> str:
        answers = bench.ask(query(name))
        if answers:
            return str(answers[0].answer[0][0])
        miss = bench.hot.misses.pop()
        if learn:
            bench.hot.store(miss, upstream(miss, f"{name}. 300 A {learn}"))
        return ""

    release(1, *FORWARD, lan)
    lease("10.1.0.1")
    assert address("nas.lan", "192.0.2.1") == "" and address("nas.lan") == "192.0.2.1"
    assert address("www.example", "192.0.2.9") == "" and address("www.example") == "192.0.2.9"
    lease("10.2.0.1")
    assert address("nas.lan", "192.0.2.2") == "" and address("nas.lan") == "192.0.2.2"
    lease()
    assert address("nas.lan") == ""
    lease("10.1.0.1")
    assert address("nas.lan") == "192.0.2.1"
    release(2, Forward(N("corp.lan"), where(52), FORWARD[0].servers), *FORWARD, lan)
    assert (address("nas.lan"), address("www.example")) == ("192.0.2.1", "192.0.2.9")
    release(3, Forward(N("."), where(53), (Server(ipaddress.IPv4Address("127.0.0.2")),)), lan)
    assert (address("nas.lan"), address("www.example")) == ("192.0.2.1", "")

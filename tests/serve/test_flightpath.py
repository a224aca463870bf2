"""Forwarding on the compiled path, over real sockets: a client, the query path, a scripted upstream server."""

from __future__ import annotations

import collections
import ipaddress
import socket
import struct
import time
from collections.abc import Callable, Iterator

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from controller.compiler import compile_table
from controller.ruleset import Forward, Server
from dnsd.contract import codes
from dnsd.serve.flightpath import FlightPath
from dnsd.serve.handoff import LATE, Retry
from tests.contract import rulesets
from tests.contract.rulesets import N
from tests.contract.test_verdict import FORWARD, block
from tests.serve.nameserver import Nameserver, respond

WALL_MS = 1_700_000_000_000


def silent(wire: bytes, transport: str) -> bytes | None:
    """A server that never answers."""
    return None


class Bench:
    """A flight path with a table, a socket for clients, and the server that every route leads to."""

    def __init__(self, script: Callable[[bytes, str], bytes | list[bytes] | None] = lambda wire, _: respond(wire)) -> None:
        self.upstream = Nameserver(script)
        self.counters = memoryview(bytearray(8 * codes.COUNTERS)).cast("Q")
        self.ring = bytearray(64 + 320 * 16)
        self.path = FlightPath(0, self.counters, self.ring, bytearray(1 << 18), "box")
        self.path.set_facts(rulesets.everyone())
        self.blocked: list[str] = []
        self.install(7)
        self.edns, self.doubtful = True, False
        self.chosen = 0
        self.way = 0
        self.patience_ms = 200
        self.ahead_ms = 0
        self.others: list[Nameserver] = []
        self.proven: list[tuple[str, int]] = []
        self.path.chooser = self.choose
        self.path.proven = self.proven.append
        self.server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.server.bind(("127.0.0.1", 0))
        self.clients: list[socket.socket] = []
        self.tick()

    def install(self, generation: int, *blocked: str) -> None:
        """Another table."""
        rules = [block(f"b{i}", name) for i, name in enumerate(blocked)] or [block("ads", "ads.example")]
        blobs = compile_table(rulesets.ruleset(rules, forwards=FORWARD))
        self.path.install(blobs.policy, blobs.names, generation, "main@sha1:abc")

    def choose(self, route: int) -> tuple[int, int, list[tuple[tuple[str, int], bool, bool]]] | None:
        """The servers for every route."""
        self.chosen += 1
        servers = (self.upstream, *self.others)
        return self.way, self.patience_ms, [(server.address, self.edns, self.doubtful) for server in servers]

    def tick(self) -> None:
        """Tell the path what time it is."""
        self.path.clock(time.monotonic_ns() // 1_000_000 + self.ahead_ms, WALL_MS + self.ahead_ms)

    def client(self) -> socket.socket:
        """A new client."""
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.settimeout(2)
        made.connect(self.server.getsockname())
        self.clients.append(made)
        return made

    def ask(self, *names: str, qtype: str = "A", **kwargs: object) -> list[socket.socket]:
        """A client for each name asks; one batch."""
        askers = []
        for name in names:
            asker = self.client()
            asker.send(dns.message.make_query(name, qtype, use_edns=kwargs.pop("use_edns", 0), **kwargs).to_wire())  # type: ignore[arg-type]
            askers.append(asker)
        self.tick()
        assert self.path.batch(self.server.fileno()) == len(names)
        return askers

    def until(self, condition: Callable[[], bool]) -> list[Retry]:
        """Receive and expire until something is true; what was handed over meanwhile."""
        end = time.monotonic() + 5
        handed: list[Retry] = []
        while not condition() and not handed:
            assert time.monotonic() < end, "it did not happen"
            self.tick()
            self.path.receive()
            self.path.expire()
            handed += self.path.handed()
            time.sleep(0.001)
        return handed

    def answer(self, asker: socket.socket) -> dns.message.Message:
        """What a client gets."""
        assert self.until(lambda: self.path.under_way == 0) == []
        return dns.message.from_wire(asker.recv(4096))

    def close(self) -> None:
        """Close everything."""
        self.path.close()
        for upstream in (self.upstream, *self.others):
            upstream.close()
        self.server.close()
        for asker in self.clients:
            asker.close()


@pytest.fixture
def make() -> Iterator[Callable[..., Bench]]:
    """Benches, closed at the end."""
    made: list[Bench] = []

    def new(*script: Callable[[bytes, str], bytes | list[bytes] | None]) -> Bench:
        made.append(Bench(*script))
        return made[-1]

    yield new
    for bench in made:
        bench.close()


def test_a_miss_is_asked_answered_and_remembered(make: Callable[..., Bench]) -> None:
    """One upstream question, the client's own id and spelling in the answer, then a hit."""
    bench = make()
    (asker,) = bench.ask("WwW.Example.Com", id=77)
    answer = bench.answer(asker)
    assert (answer.id, str(answer.question[0].name), str(answer.answer[0][0])) == (77, "WwW.Example.Com.", "192.0.2.80")
    assert bench.path.misses == [] and bench.path.flights.waiting == 0
    (again,) = bench.ask("www.example.com")
    assert str(bench.answer(again).answer[0][0]) == "192.0.2.80"
    assert len(bench.upstream.questions) == 1
    counted = [bench.counters[c] for c in (codes.COUNT_CACHE_MISSES, codes.COUNT_CACHE_HITS, codes.COUNT_CACHE_STORED)]
    assert counted == [1, 1, 1]
    assert struct.unpack_from("<Q", bench.ring, 0) == (2,)


def test_what_the_upstream_is_asked(make: Callable[..., Bench]) -> None:
    """Lower case, RD, EDNS of 1232 octets, DO and CD as the client had them; none of EDNS to a server that has none."""
    bench = make()
    (asker,) = bench.ask("Www.Example.Com", want_dnssec=True, flags=dns.flags.RD | dns.flags.CD)
    bench.answer(asker)
    asked = dns.message.from_wire(bench.upstream.questions[0][0])
    assert str(asked.question[0].name) == "www.example.com."
    assert asked.flags & 0xFFFF == dns.flags.RD | dns.flags.CD
    assert (asked.payload, asked.ednsflags) == (1232, dns.flags.DO)
    bench.edns = False
    bench.path.forget_routes()
    (asker,) = bench.ask("plain.example.com")
    bench.answer(asker)
    assert dns.message.from_wire(bench.upstream.questions[1][0]).edns == -1


def test_ids_and_ports_are_drawn_at_random(make: Callable[..., Bench]) -> None:
    """Ids and ports repeat no more than chance has it; at most sixteen questions of one batch share a port."""
    bench = make()
    for i in range(0, 200, 50):
        bench.ask(*(f"n{i + k}.example.com" for k in range(50)))
        bench.until(lambda: bench.path.under_way == 0)
    ids = {wire[:2] for wire, _, _ in bench.upstream.questions}
    shared = collections.Counter(port for _, _, port in bench.upstream.questions)
    assert len(bench.upstream.questions) == 200 and len(ids) > 190 and 12 <= len(shared) <= 16
    for i in range(100):
        bench.ask(f"o{i}.example.com")
    bench.until(lambda: bench.path.under_way == 0)
    alone = {port for _, _, port in bench.upstream.questions[200:]}
    assert len(bench.upstream.questions) == 300 and 50 < len(alone) <= 100


def test_identical_questions_share_a_flight(make: Callable[..., Bench]) -> None:
    """Sixty askers, one upstream question, sixty answers, each with its own id."""
    bench = make()
    askers = bench.ask(*["same.example.com"] * 60)
    answers = [bench.answer(asker) for asker in askers]
    assert {str(answer.answer[0][0]) for answer in answers} == {"192.0.2.80"}
    assert len(bench.upstream.questions) == 1 and bench.counters[codes.COUNT_COALESCED] == 59


def test_forged_answers_are_ignored_until_they_are_too_many(make: Callable[..., Bench]) -> None:
    """Another id, name or type does not count and is counted; a flood of them sends the question to TCP."""

    def forger(wire: bytes, transport: str) -> list[bytes]:
        good = respond(wire)
        other_id = bytes([good[0] ^ 1]) + good[1:]
        other_name = bytearray(good)
        other_name[13] ^= 1
        other_type = respond(wire.replace(b"\x00\x00\x01\x00\x01", b"\x00\x00\x1c\x00\x01"))
        return [other_id, bytes(other_name), other_type, b"\x00", good] if b"few" in wire else [other_id] * 40

    bench = make(forger)
    (asker,) = bench.ask("few.example.com")
    assert str(bench.answer(asker).answer[0][0]) == "192.0.2.80"
    assert bench.counters[codes.COUNT_UPSTREAM_MISMATCHES] == 4
    bench.ask("flood.example.com")
    (retry,) = bench.until(lambda: False)
    assert retry.wire is not None and retry.wire[2] & 2 and len(retry.misses) == 1


@pytest.mark.parametrize(
    ("script", "error", "tc", "rcode"),
    [
        (silent, "timeout", None, None),
        (lambda wire, _: respond(wire, rcode=2), "", 0, 2),
        (lambda wire, _: respond(wire, rcode=5), "", 0, 5),
        (lambda wire, _: respond(wire, tc=True), "", 2, 0),
        (lambda wire, _: wire[:2] + b"\x80\x01" + bytes(8), "", 0, 1),
    ],
)
def test_what_is_no_answer_is_handed_over(
    make: Callable[..., Bench], script: Callable[[bytes, str], bytes], error: str, tc: int | None, rcode: int | None
) -> None:
    """Silence, failures and truncation go to the generators with all who wait; nobody joins, no second flight starts."""
    bench = make(script)
    bench.ask("bad.example.com", "bad.example.com")
    (retry,) = bench.until(lambda: False)
    assert (retry.error, retry.server, len(retry.misses)) == (error, bench.upstream.address, 2)
    assert (retry.wire[2] & 2, retry.wire[3] & 15) == (tc, rcode) if retry.wire else tc is None
    assert {miss.sname for miss in retry.misses} == {N("bad.example.com")} and retry.misses[0].key == retry.misses[1].key
    assert bench.path.under_way == 1
    bench.ask("bad.example.com")
    assert len(bench.path.misses) == 1 and len(bench.upstream.questions) == 1
    bench.path.landed(retry.flight)
    assert (bench.path.under_way, bench.path.flights.waiting) == (0, 0)
    wire = bench.path.finish(retry.misses[1], None, 22, "no")
    bench.path.send(retry.misses[1], wire)
    assert dns.message.from_wire(bench.clients[1].recv(512)).rcode() == dns.rcode.SERVFAIL


def test_nobody_listens(make: Callable[..., Bench]) -> None:
    """An ICMP error is known at once, not after the timeout."""
    bench = make()
    bench.upstream.close()
    start = time.monotonic()
    bench.ask("gone.example.com")
    (retry,) = bench.until(lambda: False)
    assert retry.error == "unreachable" and time.monotonic() - start < 0.15
    bench.upstream = Nameserver()


def test_answers_that_may_not_be_remembered(make: Callable[..., Bench]) -> None:
    """TTL 0 and denials without a SOA are relayed to all who waited, and asked again for the next."""

    def unkind(wire: bytes, transport: str) -> bytes:
        if b"zero" not in wire:
            return respond(wire, rcode=3)
        message = dns.message.make_response(dns.message.from_wire(wire))
        message.answer.append(dns.rrset.from_text(message.question[0].name, 0, "IN", "A", "192.0.2.1"))
        return message.to_wire()

    bench = make(unkind)
    for name in ("zero.example.com", "denied.example.com"):
        for _ in range(2):
            for asker in bench.ask(name, name):
                answer = bench.answer(asker)
                assert answer.rcode() == (0 if "zero" in name else 3)
                assert all(record.ttl == 0 for record in answer.answer)
    assert len(bench.upstream.questions) == 4 and bench.counters[codes.COUNT_CACHE_STORED] == 0


def test_a_table_that_comes_meanwhile_decides(make: Callable[..., Bench]) -> None:
    """A name that the new table blocks is blocked for those who asked before; others wait for another answer or get it."""
    bench = make()
    bad, good = bench.ask("x.bad.example", "y.good.example")
    bench.install(8, "bad.example")
    assert bench.until(lambda: bench.path.under_way == 0) == []
    assert dns.message.from_wire(bad.recv(512)).rcode() == dns.rcode.NXDOMAIN
    if bench.path.misses:  # the new table's seed is another: the generators ask again
        assert bench.path.misses[0].sname == N("y.good.example")
    else:
        assert dns.message.from_wire(good.recv(512)).answer


def test_an_answer_that_is_malformed_is_handed_over(make: Callable[..., Bench]) -> None:
    """The header and question are right, the rest is not: the generator's answer says so."""
    bench = make(lambda wire, _: respond(wire)[:-16])
    bench.ask("bad.example.com")
    (retry,) = bench.until(lambda: False)
    assert retry.wire is not None and retry.error == ""


def test_overload_is_answered_at_once(make: Callable[..., Bench]) -> None:
    """More askers of one name than may wait get SERVFAIL and are counted; long questions go another way."""
    bench = make(silent)
    for _ in range(17):
        bench.ask(*["many.example.com"] * 64)
    assert bench.counters[codes.COUNT_OVERLOADED] == 17 * 64 - 1024
    assert bench.path.flights.waiting == 1024
    last = dns.message.from_wire(bench.clients[-1].recv(512))
    assert (last.rcode(), last.options[0].text) == (dns.rcode.SERVFAIL, "too many questions are under way")
    bench.ask("padded.example.com", pad=600)
    assert len(bench.path.misses) == 1


def test_sockets_are_retired(make: Callable[..., Bench]) -> None:
    """A socket is closed after a thousand questions or a minute, when nobody waits for it any more."""
    bench = make()
    bench.ask(*(f"a{i}.example.com" for i in range(64)))
    bench.until(lambda: bench.path.under_way == 0)
    lanes = bench.path.lanes
    before = {slot for slot in range(lanes.size) if lanes.lines.fds[slot] >= 0} if hasattr(lanes.lines, "fds") else set()
    now = time.monotonic_ns() // 1_000_000 + 61_000
    for _ in range(1000):
        lanes.settle(lanes.draw(0, now), 0)
    assert all(lanes.asked[slot] < 1000 for slot in before) and sum(w > 0 for w in lanes.waiting) == 0
    assert len(lanes.free) >= lanes.size - 128
    slot = lanes.draw(0, now)
    lanes.asked[slot] = 1000
    lanes.retire(slot)
    assert slot not in lanes.free
    lanes.settle(slot, 0)
    assert slot in lanes.free


def test_a_doubtful_server_that_answers_is_proven(make: Callable[..., Bench]) -> None:
    """The chooser is asked once for a route, and told once when a server under suspicion answers."""
    bench = make()
    bench.doubtful = True
    for i in range(3):
        (asker,) = bench.ask(f"d{i}.example.com")
        bench.answer(asker)
    assert bench.proven == [bench.upstream.address] and bench.chosen == 1


def slow(wire: bytes, transport: str) -> bytes | None:
    """A server that answers late."""
    time.sleep(0.05)
    return respond(wire, address="192.0.2.99")


def test_a_race_is_won_by_the_first_answer(make: Callable[..., Bench]) -> None:
    """All servers are asked, the first answer holds, the late one harms nobody and is no forgery."""
    bench = make(slow)
    bench.others, bench.way = [Nameserver(), Nameserver(silent)], 3
    (asker,) = bench.ask("race.example.com")
    assert str(bench.answer(asker).answer[0][0]) == "192.0.2.80"
    everybody = (bench.upstream, *bench.others)
    bench.until(lambda: [len(server.questions) for server in everybody] == [1, 1, 1])
    time.sleep(0.08)  # the late answer
    bench.tick()
    bench.path.receive()
    assert not any(strange > 0 for strange in bench.path.lanes.strange) and not any(bench.path.lanes.waiting)
    assert bench.path.flights.under_way == 0 and bench.path.next_ms() is None


def test_in_a_race_failures_count_only_when_all_have_failed(make: Callable[..., Bench]) -> None:
    """SERVFAIL of one and silence of another wait for the third; when none is left the generators go on."""
    bench = make(lambda wire, _: respond(wire, 2))
    bench.others, bench.way = [Nameserver(slow), Nameserver(silent)], 3
    (asker,) = bench.ask("race.example.com")
    assert str(bench.answer(asker).answer[0][0]) == "192.0.2.99"
    bench.others[0].script = silent
    bench.ask("lost.example.com")
    (retry,) = bench.until(lambda: False)
    assert (retry.wire, retry.error, len(retry.misses)) == (None, "timeout", 1)
    assert len(bench.path.silent()) == 1 and not any(bench.path.lanes.waiting)
    bench.path.landed(retry.flight)
    assert bench.path.under_way == 0 and bench.path.next_ms() is None


def test_spread_asks_everybody_and_neighbours_together(make: Callable[..., Bench]) -> None:
    """Two servers get about half each; sixteen neighbours of a batch go to one of them."""
    bench = make()
    bench.others, bench.way = [Nameserver()], 1
    for i in range(60):
        bench.ask(f"s{i}.example.com")
        bench.until(lambda: bench.path.under_way == 0)
    assert 12 < len(bench.upstream.questions) < 48
    before = len(bench.upstream.questions)
    bench.ask(*(f"b{i}.example.com" for i in range(16)))
    bench.until(lambda: bench.path.under_way == 0)
    assert len(bench.upstream.questions) - before in (0, 16)


def test_the_fastest_is_asked_and_another_now_and_then(make: Callable[..., Bench]) -> None:
    """Of 96 questions three go to who is not the fastest, and both are measured."""
    bench = make()
    bench.others, bench.way = [Nameserver()], 2
    for i in range(0, 96, 4):
        bench.ask(*(f"f{i + k}.example.com" for k in range(4)))
        bench.until(lambda: bench.path.under_way == 0)
    assert len(bench.others[0].questions) == 3
    measured = {server for server, rtt in bench.path.rtts() if rtt < 100}
    assert measured == {bench.upstream.address, bench.others[0].address}


def test_a_pool_that_another_server_has_taken_is_not_used_for_the_first(make: Callable[..., Bench]) -> None:
    """With more servers than pools no question goes to the server of another forward entry."""
    bench = make()
    servers = [Nameserver() for _ in range(18)]
    bench.others = servers
    bench.path.chooser = lambda route: (0, 200, [(bench.path.info.route(route).servers[0], True, False)])
    forwards = [
        Forward(N(f"f{i}.example"), rulesets.where(i + 1), (Server(ipaddress.ip_address(host), port),))
        for i, (host, port) in enumerate(server.address for server in servers)
    ]
    blobs = compile_table(rulesets.ruleset([block("ads", "ads.example")], forwards=forwards))
    bench.path.install(blobs.policy, blobs.names, 8, "main@sha1:abc")
    routes = {bench.path.info.route(number).name.rstrip("."): number for number in range(1, 19)}
    for turn in range(2):
        for name, number in routes.items():
            bench.ask(f"t{turn}.{name}")
            bench.until(lambda: bench.path.under_way == 0)
            server = next(one for one in servers if one.address == bench.path.info.route(number).servers[0])
            asked = dns.message.from_wire(server.questions[-1][0])
            assert asked.question[0].name.to_text() == f"t{turn}.{name}."


def test_what_is_asked_for_near_its_end_is_renewed_once(make: Callable[..., Bench]) -> None:
    """A hit in the last tenth of 60 s brings one question, whoever asks meanwhile; before that and when off, none."""
    bench = make()
    bench.path.prefetch = 1
    bench.answer(bench.ask("www.example.com")[0])
    for ahead_ms, asked in ((53_000, 1), (54_500, 2)):
        bench.ahead_ms = ahead_ms
        answers = [bench.answer(asker) for asker in bench.ask(*["www.example.com"] * 5)]
        assert {answer.answer[0].ttl for answer in answers} == {60 - ahead_ms // 1000}
        assert len(bench.upstream.questions) == asked
    assert bench.answer(bench.ask("www.example.com")[0]).answer[0].ttl == 60
    assert bench.counters[codes.COUNT_PREFETCHES] == 1 and bench.path.flights.waiting == 0
    bench.path.prefetch = 0
    bench.ahead_ms += 59_000
    bench.answer(bench.ask("www.example.com")[0])
    assert len(bench.upstream.questions) == 2


def test_a_renewal_that_fails_is_not_repeated(make: Callable[..., Bench]) -> None:
    """Silence: the answer is served until its end, and nobody is handed over."""
    bench = make()
    bench.path.prefetch = 1
    bench.answer(bench.ask("www.example.com")[0])
    bench.upstream.script = silent
    bench.ahead_ms = 55_000
    for _ in range(3):
        assert bench.answer(bench.ask("www.example.com")[0]).answer[0].ttl == 5
    assert len(bench.upstream.questions) == 2 and bench.path.handed() == [] and bench.path.under_way == 0


def test_short_times_are_not_renewed(make: Callable[..., Bench]) -> None:
    """An answer for less than ten seconds is asked for when it is wanted."""
    bench = make(lambda wire, _: respond(wire, ttl=9))
    bench.path.prefetch = 1
    bench.answer(bench.ask("www.example.com")[0])
    bench.ahead_ms = 8_900
    bench.answer(bench.ask("www.example.com")[0])
    assert len(bench.upstream.questions) == 1


def test_a_client_that_has_waited_gets_what_is_past_its_time(make: Callable[..., Bench]) -> None:
    """After 1.8 s: TTL 30, EDE 3; the question goes on and its late answer is remembered (RFC 8767, section 5)."""
    bench = make()
    bench.path.stale_s, bench.patience_ms = 86400, 4000
    bench.answer(bench.ask("www.example.com")[0])
    bench.upstream.script = silent
    bench.ahead_ms = 61_000
    (asker,) = bench.ask("www.example.com")
    bench.ahead_ms += 1_700
    bench.until(lambda: bench.path.expire() or True)
    asker.setblocking(False)
    with pytest.raises(BlockingIOError):
        asker.recv(512)
    bench.ahead_ms += 200
    bench.until(lambda: bench.path.flights.waiting == 0)
    asker.settimeout(2)
    answer = dns.message.from_wire(asker.recv(512))
    assert (answer.answer[0].ttl, [int(option.code) for option in answer.options]) == (30, [3])
    assert bench.path.under_way == 1 and bench.counters[codes.COUNT_STALE] == 1
    question, _, port = bench.upstream.questions[-1]
    bench.upstream.send(respond(question, address="192.0.2.81"), port)
    assert str(bench.answer(bench.ask("www.example.com")[0]).answer[0][0]) == "192.0.2.81"


def stale_answer(bench: Bench, name: str) -> dns.message.Message | None:
    """What one gets whose question has come to nothing."""
    bench.ask(name)
    (retry,) = bench.until(lambda: False)
    wire = bench.path.overdue(retry.misses[0], True)
    bench.path.landed(retry.flight)
    return None if wire is None else dns.message.from_wire(wire)


def test_after_a_failure_what_is_past_its_time_serves_for_a_while_but_not_for_ever(make: Callable[..., Bench]) -> None:
    """Then nobody waits for 30 s; `max_stale` counts from the end of its time; NXDOMAIN has its own code."""
    bench = make(lambda wire, _: respond(wire, 3, ttl=20, soa=True) if b"gone" in wire else respond(wire, ttl=20))
    bench.path.stale_s = 100
    for name in ("www.example.com", "gone.example.com"):
        bench.answer(bench.ask(name)[0])
    bench.upstream.script = silent
    bench.ahead_ms = 25_000
    answer = stale_answer(bench, "www.example.com")
    assert answer is not None and answer.answer[0].ttl == 30 and [int(option.code) for option in answer.options] == [3]
    asked = len(bench.upstream.questions)
    for ahead_ms in (25_000, 54_000):
        bench.ahead_ms = ahead_ms
        answer = bench.answer(bench.ask("www.example.com")[0])
        assert answer.answer[0].ttl == 30 and [int(option.code) for option in answer.options] == [3]
    assert len(bench.upstream.questions) == asked
    bench.ahead_ms = 119_000
    assert stale_answer(bench, "www.example.com") is not None
    bench.ahead_ms = 151_000
    assert stale_answer(bench, "www.example.com") is None


def test_what_a_rule_blocks_now_is_not_served_past_its_time(make: Callable[..., Bench]) -> None:
    """The verdict comes first, for who waits and for who comes later."""
    bench = make()
    bench.path.stale_s = 86400
    bench.answer(bench.ask("www.example.com")[0])
    bench.upstream.script = silent
    bench.ahead_ms = 61_000
    (asker,) = bench.ask("www.example.com")
    bench.install(8, "www.example.com")
    assert bench.answer(asker).rcode() == 3
    bench.install(9)
    bench.ask("www.example.com")
    (retry,) = bench.until(lambda: False)
    bench.path.landed(retry.flight)
    bench.install(10, "www.example.com")
    late = dns.message.from_wire(bench.path.overdue(retry.misses[0], True) or b"")
    assert late.rcode() == 3 and not late.answer
    assert bench.answer(bench.ask("www.example.com")[0]).rcode() == 3


def test_what_is_off_serves_nothing_past_its_time(make: Callable[..., Bench]) -> None:
    """`serve_stale: false`: silence stays silence."""
    bench = make()
    bench.answer(bench.ask("www.example.com")[0])
    bench.upstream.script = silent
    bench.ahead_ms = 61_000
    assert stale_answer(bench, "www.example.com") is None


def test_a_late_answer_is_heard_by_a_mate(make: Callable[..., Bench]) -> None:
    """What was handed over for silence goes on being listened for, and its answer follows the flight; then nothing is left."""
    late = Nameserver(lambda wire, _: (time.sleep(0.3), respond(wire))[1])
    bench = make(silent)
    bench.upstream = late
    bench.ask("late.example.com")
    (retry,) = bench.until(lambda: False)
    assert (retry.wire, retry.error, len(retry.misses)) == (None, "timeout", 1)
    (heard,) = bench.until(lambda: False)
    assert (heard.flight, heard.server, heard.error, heard.misses) == (retry.flight, late.address, LATE, [])
    assert heard.wire is not None and dns.message.from_wire(heard.wire).answer
    bench.path.landed(retry.flight)
    assert bench.path.under_way == 0 and not any(bench.path.lanes.waiting) and bench.path.next_ms() is None


def test_nobody_listens_once_the_flight_has_landed(make: Callable[..., Bench]) -> None:
    """A second try that is answered ends the first one, whose answer is then late and not a forgery."""
    bench = make(silent)
    bench.ask("gone.example.com")
    (retry,) = bench.until(lambda: False)
    assert any(bench.path.lanes.waiting)
    bench.path.landed(retry.flight)
    assert not any(bench.path.lanes.waiting) and bench.path.next_ms() is None
    assert bench.counters[codes.COUNT_UPSTREAM_TIMEOUTS] == 1


@pytest.mark.parametrize(("ttl", "told"), [(5, 60), (300, 300), (1_000_000, 3600), (0, 0)])
def test_ttls_are_told_as_the_settings_bound_them(make: Callable[..., Bench], ttl: int, told: int) -> None:
    """What is told is as long as what is remembered: for who waited and for who asks again; 0 stays 0."""
    bench = make(lambda wire, _: respond(wire, ttl=ttl))
    bench.path.set_limits(60, 3600)
    (asker,) = bench.ask("bounds.example.com")
    assert bench.answer(asker).answer[0].ttl == told
    if ttl:
        bench.ahead_ms = 2000
        (asker,) = bench.ask("bounds.example.com")
        assert bench.answer(asker).answer[0].ttl == told - 2
        assert len(bench.upstream.questions) == 1

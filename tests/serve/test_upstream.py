"""Upstream sockets and single flight, against scripted servers on loopback."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from dnsd.contract import codes, names
from dnsd.resolve.forwarder import TCP, UDP, Ask, Outcome, Reply, query
from dnsd.serve import flights as flights_module
from dnsd.serve import upstream as upstream_module
from dnsd.serve.flights import NOBODY, Flights
from dnsd.serve.loop import Loop
from dnsd.serve.upstream import Upstream
from tests.serve.nameserver import nameserver, respond

WIRE = query(names.from_text("www.example.com"), 1, 1, False, False)


def now_ms() -> int:
    """The monotonic clock in milliseconds."""
    return time.monotonic_ns() // 1_000_000


class Bench:
    """A loop with an Upstream, and the replies that came."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.counters = memoryview(bytearray(8 * codes.COUNTERS)).cast("Q")
        self.upstream = Upstream(self.loop, self.counters, now_ms)
        self.replies: list[Reply] = []

    def ask(self, server: tuple[str, int], transport: str = UDP, timeout_ms: int = 1000, wire: bytes = WIRE) -> None:
        """Start one question."""
        self.upstream.ask(Ask(server, wire, transport, timeout_ms), self.replies.append)

    def until(self, condition: Callable[[], bool], patience_s: float = 5.0) -> None:
        """Turn the loop until something is true."""
        end = time.monotonic() + patience_s
        while not condition():
            assert time.monotonic() < end, "it did not happen"
            due = self.upstream.next_ms()
            wait_s = 0.05 if due is None else max(0.0, min(0.05, (due - now_ms()) / 1000))
            self.loop.run_once(wait_s, lambda: self.upstream.expire(now_ms()))

    def close(self) -> None:
        """Close what is open."""
        self.upstream.close()
        self.loop.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A bench for one test."""
    made = Bench()
    yield made
    made.close()


def test_questions_leave_from_many_ports_with_many_ids(bench: Bench) -> None:
    """A forger has to guess port and id; both spread widely, and every answer finds its question."""
    with nameserver() as server:
        for i in range(300):
            bench.ask(server.address)
            if i % 50 == 49:
                bench.until(lambda i=i: len(bench.replies) == i + 1)  # type: ignore[misc]
        assert all(reply.wire is not None for reply in bench.replies)
        assert len({port for _, _, port in server.questions}) > 80
        assert len({wire[:2] for wire, _, _ in server.questions}) > 280
    assert bench.counters[codes.COUNT_UPSTREAM_QUERIES] == bench.counters[codes.COUNT_UPSTREAM_ANSWERS] == 300
    assert bench.upstream.pending == 0 and bench.upstream.next_ms() is None


def test_forged_answers_are_counted_and_do_not_end_the_wait(bench: Bench) -> None:
    """A wrong id or a wrong question from the right address is ignored; the true answer still arrives."""

    def script(wire: bytes, transport: str) -> list[bytes]:
        good = respond(wire)
        other_id = bytes((wire[0] ^ 1,)) + good[1:]
        return [other_id, good.replace(b"example", b"exbmple"), b"\x00", good]

    with nameserver(script) as server:
        bench.ask(server.address)
        bench.until(lambda: bool(bench.replies))
    assert bench.replies[0].wire is not None and b"example" in bench.replies[0].wire
    assert bench.counters[codes.COUNT_UPSTREAM_MISMATCHES] == 3


def test_silence_ends_at_the_timeout(bench: Bench) -> None:
    """No answer: the reply says timeout, after the time that was asked for."""
    with nameserver(lambda wire, transport: None) as server:
        start = now_ms()
        bench.ask(server.address, timeout_ms=120)
        bench.until(lambda: bool(bench.replies))
    assert bench.replies[0].wire is None and bench.replies[0].error == "timeout"
    assert 115 <= now_ms() - start < 1000
    assert bench.counters[codes.COUNT_UPSTREAM_TIMEOUTS] == 1


def test_a_closed_port_is_unreachable_at_once(bench: Bench) -> None:
    """ICMP port unreachable arrives as ECONNREFUSED on the connected socket; nobody waits for the timeout."""
    with nameserver() as server:
        closed = server.address
    start = now_ms()
    for transport in (UDP, TCP):
        bench.ask(closed, transport, timeout_ms=5000)
    bench.until(lambda: len(bench.replies) == 2)
    assert [reply.error for reply in bench.replies] == ["unreachable", "unreachable"]
    assert now_ms() - start < 1000


def test_an_impossible_server_fails_without_an_exception(bench: Bench) -> None:
    """No route to an address family or to broadcast is an answer, not a crash."""
    bench.ask(("255.255.255.255", 53))
    bench.until(lambda: len(bench.replies) == 1)
    assert bench.replies[0].error == "unreachable"


def test_tcp_answers_may_come_in_pieces(bench: Bench) -> None:
    """Length and message are put together from any number of segments."""
    listener = socket.create_server(("127.0.0.1", 0))
    bench.ask(listener.getsockname()[:2], TCP, timeout_ms=3000)
    connection, _ = listener.accept()
    bench.loop.run_once(0.5, lambda: None)
    connection.settimeout(2)
    wire = connection.recv(4096)[2:]
    answer = respond(wire)
    framed = len(answer).to_bytes(2) + answer
    for i in range(0, len(framed), 7):
        connection.sendall(framed[i : i + 7])
        bench.loop.run_once(0.01, lambda: None)
    bench.until(lambda: bool(bench.replies))
    assert bench.replies[0].wire == answer
    connection.close()
    listener.close()


def test_a_tcp_server_that_hangs_up_or_lies_is_broken(bench: Bench) -> None:
    """End of stream and an answer to another question end the ask at once."""
    for said in (b"", b"\x00\x0cno question!", b"\x00"):
        listener = socket.create_server(("127.0.0.1", 0))
        bench.ask(listener.getsockname()[:2], TCP, timeout_ms=3000)
        connection, _ = listener.accept()
        bench.loop.run_once(0.5, lambda: None)
        connection.settimeout(2)
        connection.recv(4096)
        connection.sendall(said)
        connection.close()
        listener.close()
        bench.until(lambda: bool(bench.replies))
        assert bench.replies.pop().error == "broken"


def test_sockets_are_retired_and_what_waits_on_them_still_lands(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its share of questions a socket is replaced, but answers to what it has asked are read."""
    monkeypatch.setattr(upstream_module, "RETIRE_QUERIES", 3)
    bench.upstream._size = 1
    with nameserver() as server:
        for _ in range(9):
            bench.ask(server.address)
        bench.until(lambda: len(bench.replies) == 9)
        assert all(reply.wire for reply in bench.replies)
        assert len({port for _, _, port in server.questions}) == 3
    assert not bench.upstream._sockets  # the last one was retired too


# --- single flight --------------------------------------------------------------------------------


@dataclass
class FakeMiss:
    """What leaves the query path."""

    sname: bytes
    client: int
    qtype: int = 1
    qclass: int = 1
    do: bool = False
    cd: bool = False
    route: int = 0
    fd: int = 0
    started_ms: int = 0
    token: Any = None
    key: bytes = b""

    def __post_init__(self) -> None:
        self.key = self.sname


@dataclass
class FakeRoute:
    """One route of the table."""

    servers: tuple[tuple[str, int], ...]
    name: str = "."
    timeout_ms: int = 1000
    kind: str = "forward"
    strategy: str = "failover"
    dnssec: bool = False


@dataclass
class FakeAnswers:
    """The query path's part, noted down."""

    used: FakeRoute
    stored: list[bytes] = field(default_factory=list)

    def route(self, number: int) -> FakeRoute:
        """The one route."""
        return self.used

    def finish(self, miss: Any, response: bytes | None, ede: int, text: str) -> bytes:
        """A readable answer."""
        return b"%d:" % miss.client + (b"ok" if response else b"%d %s" % (ede, text.encode()))

    def bound(self, response: bytes) -> bytes:
        """No bounds here."""
        return response

    def store(self, miss: Any, response: bytes, ede: int = -1, text: str = "", bounded: bool = False) -> None:
        """Note it."""
        self.stored.append(response)

    def overdue(self, miss: Any, failed: bool) -> bytes | None:
        """An older answer to odd clients."""
        return b"%d:old%s" % (miss.client, b"+" if failed else b"") if miss.client % 2 else None


def flights_on(bench: Bench, route: FakeRoute) -> tuple[Flights, FakeAnswers, list[bytes]]:
    """Flights over a bench, and the answers that clients get."""
    answers, sent = FakeAnswers(route), []  # type: tuple[FakeAnswers, list[bytes]]
    flights = Flights(answers, bench.upstream, bench.counters, now_ms, lambda miss, wire: sent.append(wire))
    return flights, answers, sent


def test_identical_questions_fly_once_and_all_askers_are_answered(bench: Bench) -> None:
    """Fifty clients, one upstream question, fifty answers, one store."""
    name = names.from_text("www.example.com")
    with nameserver() as server:
        flights, answers, sent = flights_on(bench, FakeRoute((server.address,)))
        for client in range(50):
            flights.take(FakeMiss(name, client))
        assert len(flights) == 1
        bench.until(lambda: len(sent) == 50)
        assert sorted(sent) == sorted(b"%d:ok" % client for client in range(50))
        assert len(server.questions) == 1 and len(answers.stored) == 1
    assert bench.counters[codes.COUNT_COALESCED] == 49 and len(flights) == 0 and flights.askers == 0


def test_failure_reaches_every_asker_and_is_not_stored(bench: Bench) -> None:
    """When all servers fail each asker gets the same EDE and text."""
    with nameserver(lambda wire, transport: respond(wire, 2)) as server:
        flights, answers, sent = flights_on(bench, FakeRoute((server.address,)))
        for client in range(3):
            flights.take(FakeMiss(names.from_text("x.test"), client))
        bench.until(lambda: len(sent) == 3)
        host, port = server.address
    assert sent[1] == b"1:22 %s:%d SERVFAIL" % (host.encode(), port)
    assert not answers.stored


def test_flights_and_askers_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the bound a client is told at once, and it is counted."""
    monkeypatch.setattr(flights_module, "FLIGHTS", 2)
    monkeypatch.setattr(flights_module, "ASKERS_PER_FLIGHT", 2)
    with nameserver(lambda wire, transport: None) as server:
        flights, _, sent = flights_on(bench, FakeRoute((server.address,)))
        for client, label in enumerate(("a", "b", "c", "a", "a")):
            flights.take(FakeMiss(names.from_text(label), client))
        assert [wire[:2] for wire in sent] == [b"2:", b"4:"]
        assert bench.counters[codes.COUNT_OVERLOADED] == 2
        flights.abandon("the worker is leaving")
        assert len(sent) == 5 and len(flights) == 0 and flights.askers == 0


def test_truncated_answers_are_fetched_over_tcp(bench: Bench) -> None:
    """UDP with TC, then TCP to the same server, and the client gets the whole answer."""
    with nameserver(lambda wire, transport: respond(wire, tc=transport == "udp")) as server:
        flights, answers, sent = flights_on(bench, FakeRoute((server.address,)))
        flights.take(FakeMiss(names.from_text("big.test"), 1))
        bench.until(lambda: bool(sent))
        assert sent == [b"1:ok"] and not answers.stored[0][2] & 2
        assert [transport for _, transport, _ in server.questions] == ["udp", "tcp"]


def test_a_dead_server_is_followed_by_a_live_one(bench: Bench) -> None:
    """Failover: first a closed port, then silence, then an answer; the next question asks the good one first."""
    with nameserver() as closed:
        dead = closed.address
    with nameserver(lambda wire, transport: None) as silent, nameserver() as live:
        flights, _, sent = flights_on(bench, FakeRoute((dead, silent.address, live.address), timeout_ms=150))
        flights.take(FakeMiss(names.from_text("a.test"), 1))
        bench.until(lambda: bool(sent))
        start = now_ms()
        flights.take(FakeMiss(names.from_text("b.test"), 2))
        bench.until(lambda: len(sent) == 2)
        assert sent == [b"1:ok", b"2:ok"] and now_ms() - start < 120


def test_a_race_over_the_generators_is_won_by_the_first_good_answer(bench: Bench) -> None:
    """Silence and SERVFAIL beside an answer cost nothing; TC leads to TCP at the winner; all bad: the bad answer."""
    with (
        nameserver(lambda wire, transport: None) as silent, nameserver(lambda wire, transport: respond(wire, 2)) as bad,
        nameserver(lambda wire, transport: respond(wire, tc=transport == "udp")) as good,
    ):  # fmt: skip
        route = FakeRoute((silent.address, bad.address, good.address), timeout_ms=400, strategy="race")
        flights, answers, sent = flights_on(bench, route)
        start = now_ms()
        flights.take(FakeMiss(names.from_text("a.test"), 1))
        bench.until(lambda: bool(sent))
        assert sent == [b"1:ok"] and now_ms() - start < 300 and not answers.stored[0][2] & 2
        bench.until(lambda: [len(server.questions) for server in (silent, bad, good)] == [1, 1, 2])
        flights, _, sent = flights_on(bench, FakeRoute((silent.address, bad.address), timeout_ms=150, strategy="race"))
        flights.take(FakeMiss(names.from_text("b.test"), 1))
        bench.until(lambda: bool(sent))
        assert b"SERVFAIL" in sent[0]


def test_without_a_lease_there_is_nobody_to_ask(bench: Bench) -> None:
    """`forward: dhcp` while no lease names a server: SERVFAIL with an error that says so; other kinds are refused."""
    flights, _, sent = flights_on(bench, FakeRoute((), kind="dhcp"))
    flights.take(FakeMiss(names.from_text("a.test"), 1))
    assert b"22 no DHCP lease names a DNS server" in sent[0]
    flights, _, sent = flights_on(bench, FakeRoute((), kind="pigeon"))
    flights.take(FakeMiss(names.from_text("a.test"), 1))
    assert b"not in this version" in sent[0]


class FakeResolver:
    """Ends as it is told to, when it is told to."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.server = server
        self.outcome = Outcome(None, 22, "nobody answers")
        self.renewed: list[bool] = []

    def resolve(
        self, sname: bytes, qtype: int, do: bool, cd: bool, now_ms: int, renew: bool = False, realms: Any = None,
        tried: object = None,
    ) -> Any:
        """One ask, then the outcome."""
        self.renewed.append(renew)
        yield Ask(self.server, query(sname, 1, 1, do, cd), UDP, 5000)
        return self.outcome


class BrokenResolver(FakeResolver):
    """Has a fault of its own, before or after its first ask."""

    def resolve(self, *words: Any, **more: Any) -> Any:
        """Ends in an exception."""
        if self.server[1] != 0:
            yield from super().resolve(*words, **more)
        raise ValueError("a fault")


class Gate:
    """A server that waits until it is told to answer."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def __call__(self, wire: bytes, transport: str) -> bytes:
        self.open.wait(5)
        return respond(wire)


def recursing(
    bench: Bench, server: tuple[str, int], stale: bool
) -> tuple[Flights, FakeAnswers, list[bytes], FakeResolver]:
    """Flights of recursion."""
    answers, sent, resolver = FakeAnswers(FakeRoute((), kind="recurse")), [], FakeResolver(server)
    send = lambda miss, wire: sent.append(wire)  # noqa: E731
    flights = Flights(answers, bench.upstream, bench.counters, now_ms, send, resolver, stale)  # type: ignore[arg-type]
    return flights, answers, sent, resolver


def test_recursion_that_fails_is_made_up_for_by_older_answers_but_not_when_it_refuses(bench: Bench) -> None:
    """A failure: who has an older answer gets it. Bogus data, and `serve_stale: false`: SERVFAIL for everybody."""
    with nameserver() as server:
        for outcome, stale, wanted in (
            (Outcome(None, 22, "silence"), True, {b"0:22 silence", b"1:old+", b"3:old+"}),
            (Outcome(None, 6, "forged", bogus=True), True, {b"0:6 forged", b"1:6 forged", b"3:6 forged"}),
            (Outcome(None, 22, "silence"), False, {b"0:22 silence", b"1:22 silence", b"3:22 silence"}),
        ):
            flights, _, sent, resolver = recursing(bench, server.address, stale)
            resolver.outcome = outcome
            for client in (0, 1, 3):
                flights.take(FakeMiss(names.from_text("www.example.com"), client))
            bench.until(lambda sent=sent: len(sent) == 3)
            assert set(sent) == wanted and flights.askers == 0 and len(flights) == 0


def test_a_fault_of_ours_is_answered_too_and_holds_nobody(bench: Bench) -> None:
    """An exception while resolving: SERVFAIL at once to all who wait, no flight is left, and the worker hears of it."""
    with nameserver() as server:
        for address in (server.address, ("127.0.0.1", 0)):
            answers, sent = FakeAnswers(FakeRoute((), kind="recurse")), []
            send = lambda miss, wire, sent=sent: sent.append(wire)  # noqa: E731
            flights = Flights(
                answers, bench.upstream, bench.counters, now_ms, send, BrokenResolver(address), False  # type: ignore[arg-type]
            )
            with pytest.raises(ValueError, match="a fault"):
                flights.take(FakeMiss(names.from_text("www.example.com"), 0))
                flights.take(FakeMiss(names.from_text("www.example.com"), 1))
                bench.until(lambda sent=sent: len(sent) == 2)
            assert sent and all(b"a fault of this server" in wire for wire in sent)
            assert flights.askers == 0 and len(flights) == 0


def test_who_has_waited_long_enough_gets_an_older_answer_and_the_question_goes_on(bench: Bench) -> None:
    """After 1.8 s, and at once for who comes later; the answer that comes at last is for the others and the cache."""
    script = Gate()
    with nameserver(script) as server:
        flights, answers, sent, resolver = recursing(bench, server.address, True)
        resolver.outcome = Outcome(b"answer")
        for client in (0, 1):
            flights.take(FakeMiss(names.from_text("www.example.com"), client))
        assert flights.next_ms() == 1800
        flights.expire(1799)
        assert sent == []
        flights.expire(1800)
        assert sent == [b"1:old"] and flights.next_ms() is None and flights.askers == 1
        flights.take(FakeMiss(names.from_text("www.example.com"), 3))
        assert sent == [b"1:old", b"3:old"] and flights.askers == 1
        script.open.set()
        bench.until(lambda: len(sent) == 3)
        assert sent[2] == b"0:ok" and answers.stored == [b"answer"] and flights.askers == 0


def test_a_renewal_answers_nobody(bench: Bench) -> None:
    """The resolver is told to ask anew; what comes is remembered; failures are nobody's business."""
    with nameserver() as server:
        flights, answers, sent, resolver = recursing(bench, server.address, True)
        for outcome in (Outcome(b"answer"), Outcome(None, 22, "silence")):
            resolver.outcome = outcome
            flights.take(FakeMiss(names.from_text("www.example.com"), 1, fd=NOBODY))
            flights.take(FakeMiss(names.from_text("www.example.com"), 1, fd=NOBODY))
            assert len(flights) == 1
            bench.until(lambda: len(flights) == 0)
        assert (sent, answers.stored, resolver.renewed, flights.askers) == ([], [b"answer"], [True, True], 0)

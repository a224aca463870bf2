"""Forwarding as clients of a real node see it: dead servers, strategies, answers past their time, refreshed ones."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import time
from collections.abc import Callable, Iterator

import dns.edns
import dns.message
import dns.query
import pytest

from controller.check import check_snapshot
from controller.compiler import Blobs, compile_table
from tests.controller.golden import TODAY, of_texts
from tests.serve.nameserver import Nameserver, nameserver, respond
from tests.serve.node import Node, node


def compiled(text: str) -> Blobs:
    """A rule file as a table."""
    checked = check_snapshot(of_texts(rules=text), TODAY)
    assert checked.ruleset is not None, checked.diagnostics
    return compile_table(checked.ruleset)


def place(server: Nameserver) -> str:
    """A server as rules name it."""
    return f'"127.0.0.1:{server.address[1]}"'


@contextlib.contextmanager
def forwarding(folder: pathlib.Path, text: str, **settings: object) -> Iterator[Node]:
    """A node of one worker with these rules."""
    with node(folder, workers=1, **settings) as made:
        made.publish(blobs=compiled(text))
        made.start()
        yield made


class Switch:
    """A server's script that can be silenced."""

    def __init__(self, address: str = "192.0.2.80", ttl: int = 60) -> None:
        self.silent = False
        self.ttl = ttl
        self.address = address
        self.names: list[str] = []

    def __call__(self, wire: bytes, transport: str) -> bytes | None:
        self.names.append(str(dns.message.from_wire(wire).question[0].name))
        return None if self.silent else respond(wire, address=self.address, ttl=self.ttl)


@pytest.mark.parametrize("delay_s", [0.9, 1.6])
def test_a_slow_server_is_heard_although_it_was_asked_again(tmp_path: pathlib.Path, delay_s: float) -> None:
    """The answer to the first question counts while the second is under way, once; and the server is not ill."""

    asked: list[str] = []

    def slow(wire: bytes, transport: str) -> bytes | None:
        asked.append(str(dns.message.from_wire(wire).question[0].name))
        if asked[-1] == "far.example.com." and len(asked) == 1:
            time.sleep(delay_s)
        return respond(wire) if asked.count("far.example.com.") < 2 else None

    with nameserver(slow) as server, forwarding(tmp_path, f"forward: {{.: [{place(server)}]}}\n") as made:
        asked.clear()
        began = time.monotonic()
        assert made.ask("far.example.com", timeout=4) == "192.0.2.80"
        assert delay_s <= time.monotonic() - began < delay_s + 0.4  # the second question is never answered
        assert made.ask("far.example.com", timeout=0.5) == "192.0.2.80"  # from the cache
        made.until(lambda: len(asked) == 2)


def test_a_dead_server_costs_one_client_one_timeout_and_is_back_after_a_probe(tmp_path: pathlib.Path) -> None:
    """The first client waits for the second server, nobody after that; a probe, not a client, finds it alive."""
    first, second = Switch("192.0.2.1"), Switch("192.0.2.2")
    with nameserver(first) as a, nameserver(second) as b:
        text = f"forward:\n  .: {{upstreams: [{place(a)}, {place(b)}], timeout: 300ms}}\n"
        with forwarding(tmp_path, text) as made:
            first.silent = True
            first.names.clear()
            begin = time.monotonic()
            assert made.ask("one.example.com") == "192.0.2.2" and 0.25 < time.monotonic() - begin < 0.9
            for i in range(30):
                begin = time.monotonic()
                assert made.ask(f"n{i}.example.com") == "192.0.2.2" and time.monotonic() - begin < 0.2
            made.until(lambda: first.names.count(".") >= 1 and made.ask("more.example.com") == "192.0.2.2")
            assert {name for name in first.names if name != "."} == {"one.example.com."}
            first.silent = False

            def returned() -> bool:
                made.ask(f"t{time.monotonic_ns()}.example.com")
                return first.names[-1].startswith("t")

            made.until(returned, 10)


def test_the_strategies_of_a_table_are_carried_out(tmp_path: pathlib.Path) -> None:
    """`race` asks both, `spread` each about half the time, `failover` the first, `fastest` the faster one."""

    def slow(script: Callable[[bytes, str], bytes | None]) -> Callable[[bytes, str], bytes | None]:
        def late(wire: bytes, transport: str) -> bytes | None:
            time.sleep(0.03)
            return script(wire, transport)

        return late

    first, second = Switch("192.0.2.1"), Switch("192.0.2.2")
    with nameserver(slow(first)) as a, nameserver(second) as b:
        both = f"upstreams: [{place(a)}, {place(b)}]"
        text = "forward:\n" + "".join(
            f"  {name}.test: {{{both}, strategy: {name}}}\n" for name in ("failover", "race", "spread", "fastest")
        )
        with forwarding(tmp_path, text) as made:
            assert {made.ask(f"n{i}.failover.test") for i in range(5)} == {"192.0.2.1"} and not second.names
            assert {made.ask(f"n{i}.race.test") for i in range(5)} == {"192.0.2.2"}
            made.until(lambda: sum("race" in name for name in first.names) == 5)
            spread = [made.ask(f"n{i}.spread.test") for i in range(40)]
            assert 5 < spread.count("192.0.2.1") < 35
            made.until(lambda: made.ask(f"n{time.monotonic_ns()}.fastest.test") == "192.0.2.2")
            fastest = [made.ask(f"m{i}.fastest.test") for i in range(40)]
            assert fastest.count("192.0.2.2") >= 36


def full(made: Node, name: str, tcp: bool = False) -> dns.message.Message:
    """The whole answer."""
    query = dns.message.make_query(name, "A", use_edns=0)
    ask = dns.query.tcp if tcp else dns.query.udp
    return ask(query, "127.0.0.1", port=made.port, timeout=6)


def test_when_every_server_is_dead_the_last_answer_serves_until_one_is_back(tmp_path: pathlib.Path) -> None:
    """Stale over UDP and TCP with EDE 3, at once after the first; a name that was never known gets SERVFAIL."""
    script = Switch(ttl=1)
    with nameserver(script) as server:
        text = f"forward:\n  .: {{upstreams: [{place(server)}], timeout: 600ms}}\n"
        with forwarding(tmp_path, text) as made:
            assert made.ask("www.example.com") == made.ask("tcp.example.com") == "192.0.2.80"
            script.silent = True
            time.sleep(1.2)  # the answers' time
            for name, tcp in (("www.example.com", False), ("tcp.example.com", True)):
                begin = time.monotonic()
                late = full(made, name, tcp)
                assert late.answer[0].ttl == 30 and [int(option.code) for option in late.options] == [3]
                assert time.monotonic() - begin < 1.5
                begin = time.monotonic()
                assert full(made, name, tcp).answer[0].ttl == 30 and time.monotonic() - begin < 0.2
            assert full(made, "new.example.com").rcode() == 2
            script.silent = False
            made.until(lambda: made.ask("other.example.com") == "192.0.2.80")


def test_a_slow_server_is_outrun_by_the_last_answer(tmp_path: pathlib.Path) -> None:
    """With a long timeout a client waits 1.8 s at most when there is an older answer."""
    script = Switch(ttl=1)
    with nameserver(script) as server:
        text = f"forward:\n  .: {{upstreams: [{place(server)}], timeout: 4s}}\n"
        with forwarding(tmp_path, text) as made:
            assert made.ask("www.example.com") == "192.0.2.80"
            script.silent = True
            time.sleep(1.2)  # the answer's time
            begin = time.monotonic()
            assert full(made, "www.example.com").answer[0].ttl == 30
            assert 1.7 < time.monotonic() - begin < 2.5


def test_serve_stale_off_means_servfail(tmp_path: pathlib.Path) -> None:
    """`resolver.serve_stale: false`."""
    script = Switch(ttl=1)
    with nameserver(script) as server:
        text = f"forward:\n  .: {{upstreams: [{place(server)}], timeout: 300ms}}\n"
        with forwarding(tmp_path, text, resolver={"serve_stale": False}) as made:
            assert made.ask("www.example.com") == "192.0.2.80"
            script.silent = True
            time.sleep(1.2)  # the answer's time
            assert full(made, "www.example.com").rcode() == 2


def test_a_tcp_client_is_told_how_long_it_may_stay_and_answers_overtake(tmp_path: pathlib.Path) -> None:
    """edns-tcp-keepalive (RFC 7828) for who asks, in answers at once and late ones, never over UDP; RFC 7766, 7."""

    def slow(wire: bytes, transport: str) -> bytes:
        time.sleep(0.3)
        return respond(wire)

    with nameserver(slow) as server:
        text = f"forward:\n  .: {place(server)}\nzones:\n  office.test:\n    records: {{printer: 10.0.0.1}}\n"
        with forwarding(tmp_path, text) as made:
            wanted = [dns.edns.GenericOption(11, b"")]
            queries = [
                dns.message.make_query("www.example.com", "A", use_edns=0, options=wanted, id=1),
                dns.message.make_query("printer.office.test", "A", use_edns=0, options=wanted, id=2),
                dns.message.make_query("printer.office.test", "A", use_edns=0, id=3),
                dns.message.make_query("printer.office.test", "A", use_edns=-1, id=4),
            ]
            with socket.create_connection(("127.0.0.1", made.port), timeout=5) as stream:
                stream.sendall(b"".join(query.to_wire(prepend_length=True) for query in queries))
                answers = [dns.message.from_wire(read(stream)) for _ in queries]
            assert [answer.id for answer in answers] == [2, 3, 4, 1]
            told = {answer.id: [(int(o.otype), o.to_wire()) for o in answer.options] for answer in answers}
            assert told == {1: [(11, b"\x00\x64")], 2: [(11, b"\x00\x64")], 3: [], 4: []}
            assert all(answer.rcode() == 0 and answer.answer for answer in answers)
            over_udp = dns.query.udp(queries[1], "127.0.0.1", port=made.port, timeout=5)
            assert over_udp.answer and not over_udp.options


def read(stream: socket.socket) -> bytes:
    """One message of a TCP stream."""
    length = int.from_bytes(stream.recv(2, socket.MSG_WAITALL))
    return stream.recv(length, socket.MSG_WAITALL)

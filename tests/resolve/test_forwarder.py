"""The forwarder: scripted servers, no sockets, time as an argument."""

import dataclasses
import struct
from collections.abc import Callable

import dns.flags
import dns.message
import dns.rdatatype
from hypothesis import given
from hypothesis import strategies as st

from dnsd.contract import codes, names
from dnsd.resolve.forwarder import TCP, UDP, Ask, Outcome, Reply, forward, matches, query
from dnsd.resolve.upstreams import FAILOVER, RACE, Servers

NAME = names.from_text("www.example.com")
A, B, C = ("192.0.2.1", 53), ("192.0.2.2", 53), ("2001:db8::3", 5353)


def answer(ask: Ask, rcode: int = 0, tc: bool = False) -> bytes:
    """What a server could say to this question."""
    message = dns.message.from_wire(ask.wire)
    response = dns.message.make_response(message)
    response.set_rcode(rcode)
    if tc:
        response.flags |= dns.flags.TC
    return response.to_wire()


def play(
    script: Callable[[Ask], bytes | str | None],
    servers: list[tuple[str, int]],
    known: Servers | None = None,
    now_ms: int = 1000,
    timeout_ms: int = 800,
    do: bool = False,
    cd: bool = False,
    strategy: str = FAILOVER,
    tried: tuple[str, int] | None = None,
) -> tuple[Outcome, list[Ask], int]:
    """Run one question against a script; returns outcome, the asks and the time it took."""
    known = known or Servers()
    question = forward(NAME, codes.TYPE_A, codes.CLASS_IN, do, cd, servers, timeout_ms, known, now_ms, strategy, tried)
    start, asks = now_ms, []
    try:
        ask = next(question)
        while True:
            asks.append(ask)
            said = next((said for one in (ask.server, *ask.rivals) if (said := script(dataclasses.replace(ask, server=one)))), None)
            winner = next((one for one in ask.rivals if script(dataclasses.replace(ask, server=one))), None)
            if said is None:
                now_ms += ask.timeout_ms
                reply = Reply(None, now_ms, "timeout")
            elif isinstance(said, str):
                reply = Reply(None, now_ms, said)
            else:
                now_ms += 5
                reply = Reply(said, now_ms, server=None if script(ask) else winner)
            ask = question.send(reply)
    except StopIteration as stop:
        return stop.value, asks, now_ms - start


def test_the_first_server_is_asked_over_udp_with_edns() -> None:
    """RD is set, DO and CD are copied, 1232 octets are offered, the id is left to the sender."""
    outcome, asks, _ = play(answer, [A, B], do=True, cd=True)
    assert outcome.response is not None and [ask.server for ask in asks] == [A]
    assert asks[0].transport == UDP
    message = dns.message.from_wire(asks[0].wire)
    assert message.id == 0 and message.flags == dns.flags.RD | dns.flags.CD
    assert message.edns == 0 and message.payload == 1232 and message.ednsflags == dns.flags.DO
    assert message.question[0].to_text() == "www.example.com. IN A"


def test_a_silent_server_is_followed_by_the_next() -> None:
    """Timeout leads to the second server, and the next question asks that one first."""
    known = Servers()
    script = lambda ask: None if ask.server == A else answer(ask)  # noqa: E731
    outcome, asks, took = play(script, [A, B], known)
    assert outcome.response is not None and [ask.server for ask in asks] == [A, B] and took == 805
    _, asks, _ = play(script, [A, B], known, now_ms=1900)
    assert [ask.server for ask in asks] == [B]


def test_connection_refused_costs_no_time() -> None:
    """ECONNREFUSED goes to the next server at once."""
    outcome, asks, took = play(lambda ask: "unreachable" if ask.server == A else answer(ask), [A, B])
    assert outcome.response is not None and took == 5 and len(asks) == 2


def test_servfail_and_refused_of_one_server_lead_to_the_next() -> None:
    """A broken server does not decide while another one is left, and is not punished as silent."""
    for rcode in (codes.RCODE_SERVFAIL, codes.RCODE_REFUSED):
        known = Servers()
        outcome, asks, _ = play(lambda ask, r=rcode: answer(ask, r if ask.server == A else 0), [A, B], known)
        assert outcome.response is not None and [ask.server for ask in asks] == [A, B]
        assert known.order([A, B], 2000) == [A, B]


def test_nxdomain_is_an_answer() -> None:
    """Only failures of the server lead on; NXDOMAIN does not."""
    outcome, asks, _ = play(lambda ask: answer(ask, codes.RCODE_NXDOMAIN), [A, B])
    assert outcome.response is not None and len(asks) == 1


def test_formerr_is_retried_without_edns_and_remembered() -> None:
    """A server that chokes on OPT is asked again without, and without from then on (RFC 6891, section 6.2.2)."""
    known = Servers()
    script = lambda ask: answer(ask, codes.RCODE_FORMERR if dns.message.from_wire(ask.wire).edns == 0 else 0)  # noqa: E731
    outcome, asks, _ = play(script, [A], known)
    assert outcome.response is not None and [dns.message.from_wire(ask.wire).edns for ask in asks] == [0, -1]
    _, asks, _ = play(script, [A], known)
    assert [dns.message.from_wire(ask.wire).edns for ask in asks] == [-1]
    _, asks, _ = play(script, [A], known, now_ms=16 * 60_000)
    assert len(asks) == 2


def test_truncation_leads_to_tcp_at_the_same_server() -> None:
    """TC means that the same server is asked over TCP (RFC 7766, section 5)."""
    outcome, asks, _ = play(lambda ask: answer(ask, tc=ask.transport == UDP), [A, B])
    assert outcome.response is not None
    assert [(ask.server, ask.transport) for ask in asks] == [(A, UDP), (A, TCP)]


def test_truncation_over_tcp_is_no_answer() -> None:
    """A server that truncates over TCP as well is broken; the next one is asked."""
    outcome, asks, _ = play(lambda ask: answer(ask, tc=ask.server == A), [A, B])
    assert outcome.response is not None and asks[-1].server == B and len(asks) == 3


def test_a_single_server_is_asked_twice_within_its_timeout() -> None:
    """One lost packet is repaired although there is no second server."""
    seen: list[Ask] = []

    def script(ask: Ask) -> bytes | None:
        seen.append(ask)
        return None if len(seen) == 1 else answer(ask)

    outcome, asks, took = play(script, [A], timeout_ms=900)
    assert outcome.response is not None and len(asks) == 2 and took == 305
    outcome, asks, took = play(lambda ask: None, [A], timeout_ms=900)
    assert outcome.response is None and took == 900


def test_when_all_fail_the_text_names_the_servers() -> None:
    """EDE 22 for silence and refusals, 23 when nothing could even be reached (RFC 8914)."""
    words = {A: None, B: "unreachable"}
    outcome, _, _ = play(lambda ask: words[ask.server] if ask.server in words else answer(ask, 2), [A, B, C])
    assert outcome == Outcome(None, 22, "192.0.2.1 timed out, 192.0.2.2 unreachable, [2001:db8::3]:5353 SERVFAIL")
    outcome, _, _ = play(lambda ask: "unreachable", [A, B])
    assert outcome.ede == 23
    assert play(lambda ask: None, [])[0].ede == 22


def test_the_whole_takes_no_longer_than_five_seconds() -> None:
    """Many silent servers with long timeouts do not add up."""
    servers = [(f"192.0.2.{i}", 53) for i in range(9)]
    outcome, asks, took = play(lambda ask: None, servers, timeout_ms=2000)
    assert outcome.response is None and took == 5000 and len(asks) == 3


def test_in_a_race_all_are_asked_together_and_the_winner_is_asked_on() -> None:
    """Four at a time, those who live first; TCP only to who has answered; who was silent is known to be ill."""
    five = [A, B, C, ("192.0.2.4", 53), ("192.0.2.5", 53)]
    known = Servers()
    known.failed(A, 900)
    outcome, asks, _ = play(lambda ask: answer(ask, tc=ask.transport == UDP) if ask.server == C else None, five, known,
                            strategy=RACE)  # fmt: skip
    assert outcome.response is not None
    assert {asks[0].server, *asks[0].rivals} == {B, C, five[3], five[4]}
    assert [(ask.server, ask.transport, ask.rivals) for ask in asks[1:]] == [(C, TCP, ())]
    outcome, asks, took_ms = play(lambda ask: answer(ask) if ask.server == A else None, five, known, strategy=RACE)
    assert outcome.response is not None and asks[1].server == A and took_ms == 805
    assert all(known.doubtful(server) for server in five[1:]) and not known.doubtful(A)


def test_after_a_race_that_somebody_else_made_the_others_race() -> None:
    """`tried` alone comes first; then those who are left run together, also those that were silent in that race."""
    outcome, asks, _ = play(lambda ask: answer(ask) if ask.server == C else None, [A, B, C], strategy=RACE, tried=A)
    assert outcome.response is not None
    assert [(ask.server, ask.rivals) for ask in asks] == [(A, ()), (B, (C,))]


def test_a_response_must_repeat_the_question() -> None:
    """Name (in any case), qtype and qclass are compared; QR and opcode too (RFC 5452, section 9.1)."""
    asked = query(NAME, 1, 1, False, False)
    good = answer(Ask(A, asked, UDP, 1))
    assert matches(asked, good)
    assert matches(asked, good.replace(b"example", b"eXAMPle"))
    assert not matches(asked, asked)
    assert not matches(asked, good.replace(b"example", b"exbmple"))
    assert not matches(asked, answer(Ask(A, query(NAME, 28, 1, False, False), UDP, 1)))
    assert not matches(asked, answer(Ask(A, query(names.parent(NAME), 1, 1, False, False), UDP, 1)))
    assert not matches(asked, good[:20])
    bare = struct.pack("!HHHHHH", 0, 0x8001, 0, 0, 0, 0)
    assert matches(asked, bare)
    assert not matches(asked, struct.pack("!HHHHHH", 0, 0x8000, 0, 0, 0, 0))


@given(st.binary(max_size=80), st.booleans())
def test_no_response_makes_matching_fail(noise: bytes, prefix: bool) -> None:
    """Any octets are either a match or not; nothing is raised."""
    asked = query(NAME, 1, 1, True, False)
    matches(asked, (asked[:2] + b"\x80\x00\x00\x01" if prefix else b"") + noise)

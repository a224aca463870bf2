"""Validation over a forwarder: an upstream that does not validate, and the same verdicts as from the root."""

from __future__ import annotations

import struct

import dns.flags
import dns.message
import dns.rdatatype

from dnsd.contract import names
from dnsd.resolve.aggressive import Denials
from dnsd.resolve.config import Config
from dnsd.resolve.forwarded import Upstream
from dnsd.resolve.forwarder import Ask, Outcome, Reply, matches
from dnsd.resolve.resolver import Resolver
from dnsd.resolve.upstreams import FAILOVER, Servers
from dnsd.resolve.validator import BOGUS, Validator
from tests.resolve.signed import NOW, Play
from tests.resolve.test_validator import CASES, _state, shared, trust

A, B = ("192.0.2.1", 53), ("192.0.2.2", 53)


class Forwarding:
    """Our resolver over an upstream that resolves from the root and validates nothing. `dead`: who never answers."""

    def __init__(self, *negative: str) -> None:
        self.upstream = Play(shared(), None)
        validator = Validator(trust(shared(), *negative), 3600.0, Denials())
        self.dead: set[tuple[str, int]] = set()
        self.spoil = lambda message: None
        known = Upstream((A, B), 800, FAILOVER, Servers())
        self.resolver = Resolver(Config(), (), lambda n: 0, validator=validator, upstream=known)
        self.resolver.cache.clock(NOW)
        self.now_ms = 1000
        self.asks: list[Ask] = []

    def reply(self, ask: Ask) -> Reply:
        """What the upstream says."""
        self.asks.append(ask)
        if ask.server in self.dead:
            self.now_ms += ask.timeout_ms
            return Reply(None, self.now_ms, "timeout")
        self.now_ms += 5
        query = dns.message.from_wire(ask.wire)
        assert query.flags == dns.flags.RD | dns.flags.CD and query.ednsflags == dns.flags.DO
        question = query.question[0]
        outcome = self.upstream.ask(str(question.name), dns.rdatatype.to_text(question.rdtype), cd=True)
        if outcome.response is None:
            response = dns.message.make_response(query)
            response.set_rcode(2)
            return Reply(response.to_wire(), self.now_ms)
        wire = struct.pack("!H", 0) + outcome.response[2:]
        message = dns.message.from_wire(wire)
        if self.spoil(message) is not None:
            wire = message.to_wire(max_size=65535)
        assert matches(ask.wire, wire)
        return Reply(wire, self.now_ms)

    def ask(self, text: str, rtype: str = "A", do: bool = True, cd: bool = False) -> Outcome:
        """A client's question."""
        run = self.resolver.resolve(names.from_text(text), int(dns.rdatatype.from_text(rtype)), do, cd, self.now_ms)
        try:
            ask = next(run)
            while True:
                ask = run.send(self.reply(ask))
        except StopIteration as stop:
            outcome: Outcome = stop.value
            return outcome


def test_verdicts_are_those_of_recursion() -> None:
    """Every case of the world of good and broken zones: state and EDE, from an empty cache and from a full one."""
    full = Forwarding()
    different = []
    for case in CASES:
        for forwarding in (Forwarding(), full):
            outcome = forwarding.ask(case.name, case.type)
            state = BOGUS if outcome.response is None else _state(dns.message.from_wire(outcome.response))
            if (state, outcome.ede) != (case.state, case.ede):
                different.append((str(case), state, outcome.ede, outcome.text))
    assert different == []


def test_a_dead_server_is_followed_by_a_live_one_and_stays_last() -> None:
    """Failover below validation: one timeout for the whole chain of look-ups, not one for each."""
    forwarding = Forwarding()
    forwarding.dead = {A}
    assert forwarding.ask("www.good.test").response is not None
    assert sum(ask.server == A for ask in forwarding.asks) == 1 and len(forwarding.asks) > 3


def test_when_nobody_answers_it_is_no_refusal_and_not_remembered() -> None:
    """Silence is told apart from bogus data, and the next question is asked again."""
    forwarding = Forwarding()
    forwarding.dead = {A, B}
    outcome = forwarding.ask("www.good.test")
    assert outcome.response is None and not outcome.bogus and outcome.ede == 22
    forwarding.dead = set()
    assert forwarding.ask("www.good.test").response is not None
    outcome = forwarding.ask("www.old.test")
    assert outcome.response is None and outcome.bogus
    again = forwarding.ask("www.old.test")
    assert again.bogus and again.ede == 13


def test_a_client_that_validates_by_itself_gets_what_there_is() -> None:
    """CD: one question, no verdict; AD is never copied from the upstream."""
    forwarding = Forwarding()
    forwarding.spoil = lambda message: setattr(message, "flags", message.flags | dns.flags.AD) or message
    outcome = forwarding.ask("www.old.test", cd=True)
    assert len(forwarding.asks) == 1 and outcome.response is not None
    assert not dns.message.from_wire(outcome.response).flags & dns.flags.AD


def test_an_upstream_that_lies_or_strips_signatures_is_found_out() -> None:
    """An address that was changed, and signatures that are missing: bogus, with the code that says so."""

    def strip(message: dns.message.Message) -> dns.message.Message:
        message.answer = [rrset for rrset in message.answer if rrset.rdtype != dns.rdatatype.RRSIG]
        return message

    forwarding = Forwarding()
    forwarding.spoil = strip
    outcome = forwarding.ask("www.good.test")
    assert outcome.response is None and outcome.bogus and outcome.ede in (9, 10)


def test_a_negative_trust_anchor_leaves_a_name_out() -> None:
    """Names that the settings leave out are not validated over forwarders either."""
    assert Forwarding("old.test").ask("www.old.test").response is not None

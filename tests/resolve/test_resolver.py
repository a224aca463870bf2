"""The resolver against scripted worlds: every scenario, and hostile ones that nobody wrote by hand."""

from __future__ import annotations

import random

import dns.message
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsd.contract import codes, names
from dnsd.resolve import budget
from dnsd.resolve.forwarder import Ask, Reply
from dnsd.resolve.rrsets import parse
from tests.resolve import world as worlds

SCENARIOS = list(worlds.scenarios())
SHORTENED: list[int] = []  # questions of each scenario that needed no generator


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.title for scenario in SCENARIOS])
def test_scenario(scenario: worlds.Scenario) -> None:
    """The scenario plays as written, and with the shortcut of the compiled path too: the same answers and questions."""
    worlds.play(scenario)
    SHORTENED.append(worlds.play(scenario, worlds.World(short=True)))


def test_the_shortcut_is_taken() -> None:
    """Some scenarios hold a question that it answers alone: it has been tried above."""
    assert len(SHORTENED) < len(SCENARIOS) or sum(map(bool, SHORTENED)) > 10


def test_there_are_enough_scenarios() -> None:
    """The set does not shrink, and no two cases have one title."""
    assert len(SCENARIOS) >= 75
    assert len({scenario.title for scenario in SCENARIOS}) == len(SCENARIOS)


def _office() -> worlds.World:
    """A root, a zone test. at two servers, and a zone child.test."""
    world = worlds.World()
    root, test = worlds.Zone(worlds.absolute(".")), worlds.Zone(worlds.absolute("test."))
    for line in ("test. NS ns1.test.", "test. NS ns2.test.", "ns1.test. A 1.0.0.2", "ns2.test. A 1.0.0.3"):
        root.add(worlds.record(line))
        test.add(worlds.record(line))
    for line in ("www.test. A 192.0.2.1", "a.b.test. TXT x", "alias.test. CNAME www.test.", "old.test. DNAME b.test."):
        test.add(worlds.record(line))
    world.host("1.0.0.1").zones.append(root)
    world.host("1.0.0.2").zones.append(test)
    world.host("1.0.0.3").zones.append(test)
    return world


def test_the_fastest_server_is_asked_most_and_the_other_not_forgotten() -> None:
    """Of two servers the faster gets most questions; the slower is still explored."""
    world = _office()
    world.host("1.0.0.3").slow_ms = 200
    zone = world.host("1.0.0.2").zones[0]
    counts = {"1.0.0.2": 0, "1.0.0.3": 0}
    for number in range(300):
        zone.add(worlds.record(f"n{number}.test. A 192.0.2.1"))
        assert world.ask(f"n{number}.test", "A").response is not None
        counts[world.asks[-1].server[0]] += 1
    assert counts["1.0.0.2"] > 240
    assert counts["1.0.0.3"] >= 3


def test_the_question_is_what_an_authority_expects() -> None:
    """RD is clear, the id is left to the sender, EDNS says the size that is set, DO follows `dnssec` or the client."""
    for dnssec, do in ((False, False), (True, False), (False, True)):
        world = _office()
        world.config["dnssec"] = dnssec
        world.ask("www.test", "A", do)
        for ask in world.asks:
            query = dns.message.from_wire(ask.wire)
            assert query.id == 0 and query.flags == 0 and ask.fresh
            assert query.payload == 1232
            assert bool(query.ednsflags & 0x8000) is (dnssec or do)


def test_a_renewal_asks_the_authority_again_and_keeps_what_it_says() -> None:
    """What is remembered of the name is passed over, delegations are not; the newer answer serves from then on."""
    world = _office()
    world.config["case_randomisation"] = False
    assert world.ask("www.test", "A").response is not None and len(world.asks) == 2
    assert world.ask("www.test", "A").response is not None and len(world.asks) == 0
    for host in ("1.0.0.2", "1.0.0.3"):
        world.host(host).zones[0] = zone = worlds.Zone(worlds.absolute("test."))
        zone.add(worlds.record("www.test. A 192.0.2.2"))
    question = world.resolver.resolve(names.from_text("www.test"), 1, False, False, world.mono_ms, renew=True)
    renewed = world.play(question)
    assert len(world.asks) == 1
    for outcome in (renewed, world.ask("www.test", "A")):
        assert outcome.response is not None
        assert str(dns.message.from_wire(outcome.response).answer[0][0]) == "192.0.2.2"
    assert len(world.asks) == 0


def test_a_response_is_what_an_upstream_would_send() -> None:
    """RA and RD are set, the question is repeated, dnspython reads it, and signatures come only with DO."""
    world = _office()
    zone = world.host("1.0.0.2").zones[0]
    zone.add(worlds.record("www.test. RRSIG A 8 2 3600 20300101000000 20200101000000 1 test. AAAA"))
    world.host("1.0.0.3").dead = True
    script = {
        "answer": ["www.test. A 192.0.2.1", "www.test. RRSIG A 8 2 3600 20300101000000 20200101000000 1 test. AAAA"]
    }
    world.host("1.0.0.2").scripted[worlds.absolute("www.test."), "A"] = script
    for do, types in ((False, {1}), (True, {1, 46})):
        outcome = world.ask("www.test", "A", do)
        assert outcome.response is not None
        response = dns.message.from_wire(outcome.response)
        assert response.flags & 0x8580 == 0x8180
        assert {int(rrset.rdtype) for rrset in response.answer} == types
        assert response.question[0].name.to_text() == "www.test."


def test_the_trace_tells_each_step() -> None:
    """Every question to a server is a step with its zone, server, time and what it said."""
    world = _office()
    trace: list[worlds.Step] = []
    world.ask("alias.test", "A", trace=trace)
    asks = [step for step in trace if step.kind == "ask"]
    assert [(step.zone, step.said) for step in asks] == [(names.ROOT, "referral"), (b"\x04test\x00", "answer")]
    assert asks[0].cut == b"\x04test\x00" and dict(asks[0].glue)[b"\x03ns1\x04test\x00"] == ("1.0.0.2",)
    assert asks[1].rtt_ms == 10 and [rrset.rtype for rrset in asks[1].rrsets] == [5, 1]
    assert trace[-1].kind == "result" and trace[-1].said == "NOERROR"


# --- hostile servers --------------------------------------------------------------------------------------------------

_NAMES = (
    ".",
    "test.",
    "www.test.",
    "a.b.test.",
    "b.test.",
    "ns1.test.",
    "evil.",
    "ns.evil.",
    "alias.test.",
    "old.test.",
)
_RECORDS = st.builds(
    lambda owner, kind, target, ttl: f"{owner} {ttl} "
    + {
        "A": "A 1.0.0.7", "NS": f"NS {target}", "CNAME": f"CNAME {target}", "DNAME": f"DNAME {target}",
        "SOA": f"SOA {target} {target} 1 2 3 4 60", "DS": "DS 1 8 2 " + "00" * 32,
    }[kind],
    st.sampled_from(_NAMES), st.sampled_from(("A", "NS", "CNAME", "DNAME", "SOA", "DS")), st.sampled_from(_NAMES),
    st.sampled_from((0, 1, 3600, 2**31 - 1)),
)  # fmt: skip
_SCRIPTS = st.fixed_dictionaries(
    {
        "rcode": st.lists(st.sampled_from(("NOERROR", "NXDOMAIN", "SERVFAIL", "REFUSED", "FORMERR")), min_size=1),
        "flags": st.lists(st.sampled_from(("aa", "", "ra", "aa tc", "aa ra")), min_size=1),
        "answer": st.lists(_RECORDS, max_size=4),
        "authority": st.lists(_RECORDS, max_size=6),
        "additional": st.lists(_RECORDS, max_size=4),
    }
)  # fmt: skip


@given(
    scripts=st.lists(_SCRIPTS, min_size=1, max_size=12),
    seed=st.integers(0, 2**32),
    minimise=st.booleans(),
    case=st.booleans(),
    damage=st.integers(0, 3),
)
def test_no_server_can_break_or_hold_it(
    scripts: list[dict[str, list[str]]], seed: int, minimise: bool, case: bool, damage: int
) -> None:
    """Whatever servers answer, whole or damaged, a question ends within its budget with an answer or a reason."""
    world = _office()
    world.config.update(qname_minimisation=minimise, case_randomisation=case, priming=bool(seed & 1))
    chance = random.Random(seed)

    def reply(ask: Ask) -> Reply:
        world.asks.append(ask)
        world.wait(chance.choice((0.001, 0.02, 0.2)))
        roll = chance.randrange(12)
        if roll == 0:
            world.wait(ask.timeout_ms / 1000)
            return Reply(None, world.mono_ms, "timeout")
        if roll == 1:
            return Reply(None, world.mono_ms, chance.choice(("unreachable", "broken")))
        host = worlds.Host(zones=world.hosts["1.0.0.2"].zones)
        asked = dns.message.from_wire(ask.wire).question[0]
        if roll > 3:
            host.scripted[worlds.absolute(asked.name.to_text().lower()), "*"] = chance.choice(scripts)
        wire = host.answer(ask)
        assert isinstance(wire, bytes)
        if damage and chance.randrange(4) < damage:
            spoilt = bytearray(wire)
            for _ in range(chance.randrange(1, 6)):
                spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
            wire = bytes(spoilt[: chance.randrange(1, len(spoilt) + 1)] if damage == 3 else spoilt)
        return Reply(wire, world.mono_ms)

    for qname, qtype in (("www.test", 1), ("x.old.test", 28), ("test", 43), ("a.b.test", 16), (".", 2)):
        world.asks.clear()
        began_ms = world.mono_ms
        outcome = world.play(world.resolver.resolve(names.from_text(qname), qtype, False, False, world.mono_ms), reply)
        assert len(world.asks) <= budget.ASKS
        assert world.mono_ms - began_ms <= budget.DEADLINE_MS + 500
        if outcome.response is None:
            assert outcome.ede != codes.EDE_NONE and outcome.text
        else:
            parse(outcome.response)  # what is inside of a TXT's rdata is passed on as its owner wrote it
        world.wait(6)


def test_lies_about_other_zones_are_never_remembered() -> None:
    """After hundreds of answers with records of a foreign zone nothing of it is in the cache."""
    world = _office()
    lies = ["www.bank. A 203.0.113.66", "bank. NS ns.evil.", "ns.evil. A 1.0.0.66", "test. NS ns.evil."]
    for number in range(50):
        script = {"answer": [f"n{number}.test. A 192.0.2.1", *lies[:2]], "authority": lies[1:3], "additional": lies}
        world.host("1.0.0.2").scripted[worlds.absolute(f"n{number}.test."), "A"] = script
        world.host("1.0.0.3").scripted[worlds.absolute(f"n{number}.test."), "A"] = script
        assert world.ask(f"n{number}.test", "A").response is not None
    cache = world.resolver.cache
    assert cache.get(names.from_text("www.bank"), codes.TYPE_A, rank=1) is None
    assert cache.get(names.from_text("bank"), codes.TYPE_NS, rank=1) is None
    cut = cache.delegation(names.from_text("www.bank"))
    assert cut is None or cut.zone == names.ROOT

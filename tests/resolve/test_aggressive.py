"""Aggressive use of NSEC and NSEC3 (RFC 8198): what was proven for one name answers for others, and only that."""

from __future__ import annotations

import random

import dns.flags
import dns.message
import dns.rcode
import pytest
from dns.rdatatype import NSEC, NSEC3, RRSIG, SOA, A

from dnsd.contract import codes, names
from dnsd.resolve.aggressive import Denials
from dnsd.resolve.validator import BOGUS, Validator
from tests.resolve.signed import Play, Server, World, Zone
from tests.resolve.test_validator import CASES, LEAF, ROOT, TOP, _state, internet, shared, trust


def player(*negative: str, limit: int = 4096) -> Play:
    """Our resolver in the shared internet, which keeps what is proven."""
    return Play(shared(), Validator(trust(shared(), *negative), denials=Denials(limit)))


def answer(play: Play, text: str, rtype: str = "A", do: bool = True, cd: bool = False) -> dns.message.Message:
    """The response to a question; it must be one."""
    outcome = play.ask(text, rtype, do, cd)
    assert outcome.response is not None, outcome.text
    return dns.message.from_wire(outcome.response)


def free(play: Play, text: str, rtype: str = "A") -> dns.message.Message:
    """The secure response to a question that nobody is asked about."""
    before = play.asks
    response = answer(play, text, rtype)
    assert play.asks == before, f"{text} {rtype} was asked"
    assert response.flags & dns.flags.AD
    return response


@pytest.mark.parametrize("seed", range(2))
def test_every_verdict_is_the_same_whatever_was_asked_before(seed: int) -> None:
    """The validator's whole table in random order, thrice over: state, EDE and rcode as without."""
    play, chance = player(), random.Random(seed)
    cases = CASES * 3
    chance.shuffle(cases)
    before = 0
    for case in cases:
        outcome = play.ask(case.name, case.type)
        play.resolver.cache.flush(lambda name: chance.random() < 0.5)
        if case.state == BOGUS:
            assert outcome.response is None and outcome.ede in (case.ede, 13), (case, outcome.text)
            continue
        assert outcome.response is not None, (case, outcome.text)
        response = dns.message.from_wire(outcome.response)
        assert (_state(response), dns.rcode.to_text(response.rcode())) == (case.state, case.rcode), (case, outcome.text)
        assert outcome.ede == case.ede
        before += any(step.text.startswith("proven by") for step in play.steps)
    assert before > 20  # it was used, too


@pytest.mark.parametrize("apex", ["good.test", "hash.test", "salt.test"])
def test_a_flood_of_names_costs_a_question_for_each_gap(apex: str) -> None:
    """120 random names below a signed zone: no more questions than it has NSEC or NSEC3 records; each proven whole."""
    play, chance = player(), random.Random(7)
    play.ask(f"www.{apex}")
    zone = next(zone for zone in shared().servers[LEAF].zones if zone.apex.to_text() == f"{apex}.")
    gaps = sum(rtype in (NSEC, NSEC3) for _, rtype in zone.rrsets)
    begun = play.asks
    for _ in range(120):
        text = "".join(chance.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=8))
        response = answer(play, f"{text}.{apex}" if chance.random() < 0.7 else f"deep.{text}.{apex}")
        assert response.rcode() == dns.rcode.NXDOMAIN and response.flags & dns.flags.AD
        kinds = {rrset.rdtype for rrset in response.authority}
        assert kinds == {SOA, RRSIG, NSEC if apex == "good.test" else NSEC3}
    assert play.asks - begun <= gaps


def test_types_empty_names_and_wildcards() -> None:
    """NODATA, empty non-terminals and the data of wildcards come from what is known, with AD and the proof."""
    for apex in ("good.test", "hash.test"):
        play = player()
        answer(play, f"www.{apex}", "TXT")
        assert free(play, f"www.{apex}", "MX").rcode() == dns.rcode.NOERROR
        answer(play, f"b.ent.{apex}")
        assert free(play, f"b.ent.{apex}", "MX").rcode() == dns.rcode.NOERROR
        answer(play, f"foo.wild.{apex}")
        answer(play, f"foo.wild.{apex}", "MX")
        for number in range(20):
            answer(play, f"n{number}.wild.{apex}")
        begun = play.asks
        for number in range(20, 60):
            response = answer(play, f"n{number}.wild.{apex}")
            assert response.find_rrset("answer", response.question[0].name, 1, A)[0].address == "192.0.2.2"
            assert response.flags & dns.flags.AD and {NSEC, NSEC3} & {rrset.rdtype for rrset in response.authority}
            assert answer(play, f"n{number}.wild.{apex}", "MX").flags & dns.flags.AD
        assert play.asks - begun <= 8
        answer(play, f"foo.wc.{apex}")
        for number in range(20):
            response = answer(play, f"n{number}.wc.{apex}")
            assert [rrset.rdtype for rrset in response.answer if rrset.rdtype != RRSIG] == [5, A]


def test_unsigned_delegations_are_not_denied() -> None:
    """What is delegated is asked for there, whatever is known above; opt-out proves nothing about other names."""
    for apex in ("good.test", "hash.test", "out.test"):
        play = player()
        for text in ("aaa", "none", "sub1", "su", "zzz"):
            play.ask(f"{text}.{apex}")
        response = answer(play, f"www.sub.{apex}")
        assert response.rcode() == dns.rcode.NOERROR and not response.flags & dns.flags.AD
    play = player()
    for _ in range(2):
        assert not answer(play, "none.out.test").flags & dns.flags.AD
        before = play.asks
        play.resolver.cache.flush(lambda name: True)
        answer(play, "none2.out.test")
        assert play.asks > before


def test_who_validates_himself_is_not_told_what_we_infer() -> None:
    """CD: the zone's server is asked."""
    play = player()
    answer(play, "none.good.test")
    before = play.asks
    assert answer(play, "nonf.good.test", cd=True).rcode() == dns.rcode.NXDOMAIN and play.asks > before


def test_below_a_negative_trust_anchor_nothing_is_inferred() -> None:
    """The zone above may deny a name; who set the anchor says that it exists all the same (RFC 7646)."""
    play = player("nonf.good.test")
    answer(play, "none.good.test")
    assert free(play, "noneg.good.test").rcode() == dns.rcode.NXDOMAIN
    before = play.asks
    assert not answer(play, "x.nonf.good.test").flags & dns.flags.AD and play.asks > before


def test_nothing_lasts_longer_than_its_records() -> None:
    """TTLs count down from the NSEC and the SOA's minimum; afterwards, or when the clock went back, it is asked."""
    play = player()
    answer(play, "none.good.test")
    clock = play.resolver.cache.now
    play.resolver.cache.clock(clock + 100)
    assert {rrset.ttl for rrset in free(play, "nonf.good.test").authority} == {200}
    play.resolver.cache.clock(clock + 301)
    before = play.asks
    answer(play, "nong.good.test")
    assert play.asks > before
    play.resolver.cache.clock(clock)
    before = play.asks
    answer(play, "nonh.good.test")
    assert play.asks > before


def test_a_long_nsec_ends_with_the_soa() -> None:
    """RFC 9077: an NSEC of a day in a zone whose negative answers last five minutes denies for five minutes."""
    zone = Zone("test", f"test NS ns.test\nns.test A {TOP}\na.test A 192.0.2.1\nz.test A 192.0.2.2")
    for key in [key for key in zone.rrsets if key[1] == NSEC]:
        zone.rrsets[key].ttl = 86400
        zone.resign(*key)
    root = Zone(".", f". NS ns\nns A {ROOT}\ntest NS ns.test\nns.test A {TOP}\n{zone.ds()}")
    world = World({ROOT: Server(root), TOP: Server(zone)})
    play = Play(world, Validator(trust(world), denials=Denials()))
    answer(play, "none.test")
    assert max(rrset.ttl for rrset in free(play, "nonf.test").authority) <= 300
    play.resolver.cache.clock(play.resolver.cache.now + 400)
    before = play.asks
    answer(play, "nong.test")
    assert play.asks > before


def test_memory_is_bounded_and_can_be_forgotten() -> None:
    """No more records than the limit; a flushed name is asked for again."""
    play = player(limit=5)
    for text in ("a", "b2", "c", "none", "ms", "t", "y", "zz"):
        for apex in ("good.test", "hash.test"):
            answer(play, f"{text}.{apex}")
    denials = play.resolver.validator.memory.denials  # type: ignore[union-attr]
    assert len(denials) == 5
    play = player(limit=2)  # zones are counted, too
    for text in ("none.good.test", "none.hash.test", "none.test", "none", "nonf.good.test"):
        answer(play, text)
        assert len(play.resolver.validator.memory.denials) <= 2  # type: ignore[union-attr]
    play = player()
    for apex in ("good.test", "hash.test"):
        answer(play, f"none.{apex}")
        denials = play.resolver.validator.memory.denials  # type: ignore[union-attr]
        assert denials.find(names.from_text(f"none.{apex}"), codes.TYPE_A, play.resolver.cache.now) is not None
        assert denials.doubt(names.from_text(f"none.{apex}"), play.resolver.cache.now) > 0
        assert denials.find(names.from_text(f"none.{apex}"), codes.TYPE_A, play.resolver.cache.now) is None
        answer(play, f"nonf.{apex}")
    assert denials.forget(lambda name: True) > 0 and not len(denials)


def test_bogus_proofs_teach_nothing() -> None:
    """What did not stand validation is not kept: the next name is asked for, and refused by itself."""
    world = internet()
    play = Play(world, Validator(trust(world), denials=Denials()))
    zone = next(zone for zone in world.servers[LEAF].zones if zone.apex.to_text() == "good.test.")
    for key in [key for key in zone.sigs if key[1] == NSEC]:
        del zone.sigs[key]
    assert play.ask("none.good.test").response is None
    before = play.asks
    assert play.ask("nonf.good.test").response is None and play.asks > before

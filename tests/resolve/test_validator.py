"""Validation of whole answers, played without sockets in a world of signed and broken zones; and Unbound's opinion."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import random
import selectors
import subprocess

import dns.dnssec
import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rrset
import pytest
from dns.rdatatype import DNSKEY, DS, NSEC, NSEC3, RRSIG, SOA, A

from dnsd.resolve import anchors, signatures
from dnsd.resolve.forwarder import Outcome
from dnsd.resolve.validator import BOGUS, INSECURE, SECURE, Validator
from tests.resolve.signed import DAY, NOW, Play, Server, Signer, World, Zone, name, serving

ROOT, TOP, LEAF = "127.77.0.1", "127.77.0.2", "127.77.0.3"
PAST, FUTURE = (NOW - 3 * DAY, NOW - DAY), (NOW + DAY, NOW + 3 * DAY)
HOST = "www.{0} A 192.0.2.1\nns.{0} A 127.77.0.3\n{0} NS ns.{0}\n"
RICH = HOST + """
alias.{0} CNAME www.{0}
away.{0} CNAME www.plain.test
broken.{0} CNAME www.old.test
*.wild.{0} A 192.0.2.2
x.wild.{0} TXT "nearer"
*.wc.{0} CNAME www.{0}
a.b.ent.{0} A 192.0.2.3
tree.{0} DNAME {0}
sub.{0} NS ns.sub.{0}
ns.sub.{0} A 127.77.0.3
{0} MX 10 WWW.{0}
"""


def _spoiled(apex: str, section: str, *types: int) -> object:
    """Take records of these types out of a section of every response about a zone."""
    end = name(apex)

    def change(query: dns.message.Message, response: dns.message.Message) -> None:
        if query.question[0].name.is_subdomain(end):
            held: list[dns.rrset.RRset] = getattr(response, section)
            held[:] = [
                r for r in held if r.rdtype not in types and not (r.rdtype == RRSIG and r[0].type_covered in types)
            ]

    return change


def internet() -> World:
    """The root, two top-level zones, and below them one zone for each thing that can be right or wrong."""
    leaves: dict[str, Zone] = {}
    ds: dict[str, list[str]] = {}

    def leaf(apex: str, text: str = HOST, *, delegate: bool = True, digest: str = "SHA256", **kw: object) -> Zone:
        zone = Zone(apex, text.format(apex), **kw)  # type: ignore[arg-type]
        leaves[apex] = zone
        ds[apex] = [zone.ds(digest)] if delegate else []
        return zone

    leaf("under.good.test")
    leaf("sub.good.test", signed=False, delegate=False)
    leaf("sub.nonsec.test", signed=False, delegate=False)
    under = f"under.good.test NS ns.under.good.test\nns.under.good.test A {LEAF}\n{ds['under.good.test'][0]}\n"
    leaf("good.test", RICH + under)
    for apex, iterations, salt in (("hash.test", 0, ""), ("salt.test", 5, "aabb"), ("often.test", 160, "")):
        leaf(apex, RICH, nsec3=(iterations, salt, False))
        leaf(f"sub.{apex}", signed=False, delegate=False)
    leaf("out.test", RICH, nsec3=(0, "", True))
    leaf("sub.out.test", signed=False, delegate=False)
    leaf("plain.test", signed=False, delegate=False)
    leaf("plain.out", signed=False, delegate=False)
    leaf("good.out")
    leaf("pretend.test", signed=False)
    leaf("island.test", delegate=False)
    leaf("old.test", times=PAST)
    leaf("soon.test", times=FUTURE)
    leaf("late.test", times=(NOW - DAY, NOW - 1800))
    leaf("sha1.test", digest="SHA1")
    for algorithm in (5, 7, 8, 10, 14, 15, 16):
        leaf(f"alg{algorithm}.test", algorithm=algorithm)
    leaf("nobit.test", flags=1)
    leaf("wrongkey.test")
    ds["wrongkey.test"] = [leaves["wrongkey.test"].ds(key=Signer.make())]
    leaf("baddigest.test")
    ds["baddigest.test"] = [ds["baddigest.test"][0].replace(" 13 2 ", " 13 99 ")]
    leaf("badalg.test")
    ds["badalg.test"] = [ds["badalg.test"][0].replace(" 13 2 ", " 253 2 ")]
    mixed = leaf("mixed.test")  # the DS with SHA-1 is right, the one with SHA-256 is not
    wrong = mixed.ds().rpartition(" ")[0] + " " + "00" * 32
    ds["mixed.test"] = [mixed.ds("SHA1"), wrong]
    either = leaf("either.test")  # of two DS one is of a key that is not there
    ds["either.test"] = [either.ds(), either.ds(key=Signer.make())]

    zone = leaf("nosig.test")
    del zone.sigs[name("www.nosig.test"), A]
    zone = leaf("forged.test")
    zone.rrsets[name("www.forged.test"), A] = dns.rrset.from_text("www.forged.test.", 3600, "IN", "A", "203.0.113.9")
    zone = leaf("stranger.test")
    zone.resign(name("www.stranger.test"), A, by=Signer.make())
    zone = leaf("oldhost.test")
    zone.resign(name("www.oldhost.test"), A, times=PAST)
    zone = leaf("oldkeys.test")
    zone.resign(name("oldkeys.test"), DNSKEY, times=PAST)
    zone = leaf("backwards.test")
    zone.resign(name("www.backwards.test"), A, times=(NOW + DAY, NOW - DAY))
    zone = leaf("oldsoa.test")
    zone.resign(name("oldsoa.test"), SOA, times=PAST)
    zone = leaf("nokeys.test")
    del zone.rrsets[name("nokeys.test"), DNSKEY]

    top_text = ""
    out_text = ""
    for apex in leaves:
        if apex.count(".") > 1:
            continue
        lines = "\n".join((f"{apex} NS ns.{apex}", f"ns.{apex} A {LEAF}", *ds[apex])) + "\n"
        if apex.endswith(".out"):
            out_text += lines
        else:
            top_text += lines
    for apex in ("nonsec.test", "nonsec3.test", "wildless.test", "stripped.test"):
        made = leaf(apex, RICH, nsec3=(0, "", False) if apex == "nonsec3.test" else None)
        top_text += f"{apex} NS ns.{apex}\nns.{apex} A {LEAF}\n{made.ds()}\n"
    top = Zone("test", f"test NS ns.test\nns.test A {TOP}\n" + top_text)
    out = Zone("out", f"out NS ns.out\nns.out A {TOP}\n" + out_text, nsec3=(0, "", True))
    delegations = f"test NS ns.test\nns.test A {TOP}\n{top.ds()}\nout NS ns.out\nns.out A {TOP}\n{out.ds()}"
    root = Zone(".", f". NS ns\nns A {ROOT}\n{delegations}")
    servers = {ROOT: Server(root), TOP: Server(top, out), LEAF: Server(*leaves.values())}
    servers[LEAF].changes = [
        _spoiled("nonsec.test", "authority", NSEC), _spoiled("nonsec3.test", "authority", NSEC3),
        _spoiled("wildless.test", "authority", NSEC),
    ]  # type: ignore[list-item] # fmt: skip
    servers[TOP].changes = [_spoiled("stripped.test", "authority", DS), _spoiled("stripped.test", "answer", DS)]  # type: ignore[list-item]
    return World(servers)


@functools.cache
def shared() -> World:
    """One internet for all tests that do not change it."""
    return internet()


def trust(world: World, *negative: str) -> anchors.Anchors:
    """The anchors of a world: its root's DS."""
    return anchors.from_texts([world.servers[world.root].zones[0].ds()], negative)


def player(*negative: str, skew_s: float = 3600.0, minimised: bool = False) -> Play:
    """Our resolver in the shared internet, knowing nothing yet."""
    return Play(shared(), Validator(trust(shared(), *negative), skew_s), minimised)


@functools.cache
def experienced(minimised: bool) -> Play:
    """One that knows what it has learned in earlier tests."""
    return player(minimised=minimised)


@dataclasses.dataclass(frozen=True)
class Case:
    """A question, what it is worth, and the EDE; `unbound` where its verdict differs on purpose."""

    name: str
    type: str
    state: str
    ede: int = -1
    rcode: str = "NOERROR"
    unbound: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.type} {self.state}"


def _rich(apex: str, state: str = SECURE, nodata: str = "", ede: int = -1) -> list[Case]:
    """The questions that one well-made zone answers in every way; `nodata`: what its proofs are worth."""
    less = nodata or state
    return [
        Case(f"www.{apex}", "A", state),
        Case(f"alias.{apex}", "A", state),
        Case(apex, "MX", state),
        Case(f"away.{apex}", "A", INSECURE),
        Case(f"broken.{apex}", "A", BOGUS, 7),
        Case(f"foo.wild.{apex}", "A", less, ede),
        Case(f"bar.foo.wild.{apex}", "A", less, ede),
        Case(f"foo.wc.{apex}", "A", less, ede),
        Case(f"foo.wild.{apex}", "MX", less, ede),
        Case(f"x.wild.{apex}", "A", state, ede),
        Case(f"www.{apex}", "TXT", state, ede),
        Case(f"b.ent.{apex}", "A", state, ede),
        Case(f"none.{apex}", "A", less, ede, "NXDOMAIN"),
        Case(f"a.b.c.none.{apex}", "A", less, ede, "NXDOMAIN"),
        Case(f"www.tree.{apex}", "A", state),
        Case(f"www.sub.{apex}", "A", INSECURE),
        Case(f"none.sub.{apex}", "A", INSECURE, rcode="NXDOMAIN"),
        Case(f"sub.{apex}", "DS", less, ede),
        Case(apex, "DNSKEY", state),
        Case(apex, "NSEC3PARAM", state, ede),
    ]


CASES = [
    *_rich("good.test"),
    *_rich("hash.test"),
    *_rich("salt.test"),
    *_rich("out.test", nodata=INSECURE),
    Case("www.often.test", "A", SECURE),
    Case("none.often.test", "A", INSECURE, 27, "NXDOMAIN"),
    Case("foo.wild.often.test", "A", INSECURE, 27),
    Case("www.often.test", "TXT", INSECURE, 27),
    Case("www.sub.often.test", "A", INSECURE, 27),
    Case("www.under.good.test", "A", SECURE),
    Case("none.under.good.test", "A", SECURE, rcode="NXDOMAIN"),
    Case("under.good.test", "DS", SECURE),
    Case("www.plain.test", "A", INSECURE),
    Case("none.plain.test", "A", INSECURE, rcode="NXDOMAIN"),
    Case("plain.test", "DS", SECURE),
    Case("www.plain.out", "A", INSECURE),
    Case("www.good.out", "A", SECURE),
    Case("none.out", "A", INSECURE, rcode="NXDOMAIN"),
    Case("none.test", "A", SECURE, rcode="NXDOMAIN"),
    Case("none", "A", SECURE, rcode="NXDOMAIN"),
    Case("www.pretend.test", "A", BOGUS, 9),
    Case("www.island.test", "A", INSECURE),
    Case("www.old.test", "A", BOGUS, 7),
    Case("none.old.test", "A", BOGUS, 7),
    Case("www.soon.test", "A", BOGUS, 8),
    Case("www.late.test", "A", SECURE),
    Case("www.sha1.test", "A", SECURE),
    Case("www.alg5.test", "A", SECURE),
    Case("www.alg7.test", "A", SECURE),
    Case("www.alg8.test", "A", SECURE),
    Case("www.alg10.test", "A", SECURE),
    Case("www.alg14.test", "A", SECURE),
    Case("www.alg15.test", "A", SECURE),
    Case("www.alg16.test", "A", SECURE),
    Case("www.nobit.test", "A", BOGUS, 11),
    Case("www.wrongkey.test", "A", BOGUS, 9),
    Case("www.baddigest.test", "A", INSECURE, 2),
    Case("www.badalg.test", "A", INSECURE, 1),
    # RFC 4509, section 3: SHA-1 is ignored beside SHA-256; Unbound does so only with harden-algo-downgrade.
    Case("www.mixed.test", "A", BOGUS, 9, unbound=SECURE),
    Case("www.either.test", "A", SECURE),
    Case("www.nosig.test", "A", BOGUS, 10),
    Case("www.forged.test", "A", BOGUS, 6),
    Case("www.stranger.test", "A", BOGUS, 9),
    Case("www.oldhost.test", "A", BOGUS, 7),
    Case("none.oldhost.test", "A", SECURE, rcode="NXDOMAIN"),
    Case("www.oldkeys.test", "A", BOGUS, 7),
    Case("www.backwards.test", "A", BOGUS, 25),
    Case("none.oldsoa.test", "A", BOGUS, 7),
    Case("www.nokeys.test", "A", BOGUS, 9),
    Case("www.nonsec.test", "A", SECURE),
    Case("none.nonsec.test", "A", BOGUS, 12),
    Case("www.nonsec.test", "TXT", BOGUS, 12),
    Case("www.sub.nonsec.test", "A", BOGUS, 12),
    Case("none.nonsec3.test", "A", BOGUS, 12),
    Case("www.nonsec3.test", "TXT", BOGUS, 12),
    Case("foo.wild.nonsec3.test", "A", BOGUS, 12),
    Case("foo.wild.wildless.test", "A", BOGUS, 12),
    Case("www.stripped.test", "A", BOGUS, 12),
]


def _state(response: dns.message.Message) -> str:
    if response.rcode() == dns.rcode.SERVFAIL:
        return BOGUS
    return SECURE if response.flags & dns.flags.AD else INSECURE


def test_every_answer_is_worth_what_its_proofs_are_to_one_who_knows_nothing() -> None:
    """The whole table again, each case with a resolver that has nothing in its memory."""
    for case in CASES:
        outcome = player(minimised=True).ask(case.name, case.type)
        if case.state == BOGUS:
            assert (outcome.response, outcome.ede) == (None, case.ede), (case, outcome.text)
        else:
            response = dns.message.from_wire(outcome.response or b"")
            assert (_state(response), outcome.ede) == (case.state, case.ede), (case, outcome.text)


@pytest.mark.parametrize("minimised", [False, True], ids=["plain", "minimised"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_answer_is_worth_what_its_proofs_are(case: Case, minimised: bool) -> None:
    """State, EDE and rcode of an answer from a zone that is right, or wrong in one way; the same from the cache."""
    play = experienced(minimised)
    for _ in range(2):
        outcome = play.ask(case.name, case.type)
        if case.state == BOGUS:
            assert outcome.response is None
            assert outcome.ede in (case.ede, 13), outcome.text
            continue
        assert outcome.response is not None, outcome.text
        response = dns.message.from_wire(outcome.response)
        found = (_state(response), outcome.ede, dns.rcode.to_text(response.rcode()))
        assert found == (case.state, case.ede, case.rcode), outcome.text


# --- settings, and what clients ask for ----------------------------------------------------------------------------


def _flags(outcome: Outcome) -> int:
    assert outcome.response is not None, outcome.text
    return dns.message.from_wire(outcome.response).flags


def test_a_client_that_validates_itself_gets_what_there_is() -> None:
    """CD: the data as it came, with signatures and without AD, also when it has just failed for somebody else."""
    play = player()
    assert play.ask("www.forged.test").response is None
    outcome = play.ask("www.forged.test", cd=True)
    response = dns.message.from_wire(outcome.response or b"")
    assert {rrset.rdtype for rrset in response.answer} == {A, RRSIG} and not response.flags & dns.flags.AD
    assert not _flags(play.ask("www.good.test", cd=True)) & dns.flags.AD


def test_signatures_only_for_those_who_ask_for_them() -> None:
    """Without DO no RRSIG, NSEC or proof is in the response, and it was validated all the same."""
    play = player()
    for text in ("www.good.test", "none.good.test", "foo.wild.hash.test"):
        response = dns.message.from_wire(play.ask(text, do=False).response or b"")
        assert {r.rdtype for r in (*response.answer, *response.authority)} <= {A, SOA}
        assert response.flags & dns.flags.AD
    signed = dns.message.from_wire(play.ask("foo.wild.hash.test", do=True).response or b"")
    assert {r.rdtype for r in signed.authority} == {NSEC3, RRSIG}  # the proof that goes with a wildcard


def test_a_negative_trust_anchor_ends() -> None:
    """Below one nothing is validated (RFC 7646); the day after its end everything is again."""
    play = player("forged.test until 2026-09-21T16:00:00Z", "old.test")
    assert not _flags(play.ask("www.forged.test")) & dns.flags.AD
    assert not _flags(play.ask("www.old.test")) & dns.flags.AD
    assert _flags(play.ask("www.good.test")) & dns.flags.AD
    play = player("forged.test until 2026-09-21")
    assert play.ask("www.forged.test").response is None


def test_the_skew_is_the_settings() -> None:
    """A signature that ended half an hour ago holds with a skew of an hour, not with one of a minute."""
    assert _flags(player(skew_s=3600).ask("www.late.test")) & dns.flags.AD
    assert player(skew_s=60).ask("www.late.test").ede == 7


def test_signatures_end_by_the_wall_clock() -> None:
    """What was secure is refused when its signatures have expired, whatever is remembered of it."""
    play = player()
    assert _flags(play.ask("www.good.test")) & dns.flags.AD
    play.resolver.cache.clock(NOW + 3 * DAY)
    assert play.ask("www.good.test").ede == 7
    play.resolver.cache.clock(NOW)
    play.now_ms += 600_000
    assert _flags(play.ask("www.good.test")) & dns.flags.AD


def test_a_failure_is_remembered_for_seconds_only() -> None:
    """Bogus: at once again from memory without asking anybody (RFC 9520), and mended as soon as the zone is."""
    world = internet()
    play = Play(world, Validator(trust(world)))
    assert play.ask("www.nosig.test").ede == 10
    asks = play.asks
    assert play.ask("www.nosig.test").ede == 13 and play.asks == asks
    zone = next(zone for zone in world.servers[LEAF].zones if zone.apex == name("nosig.test"))
    zone.resign(name("www.nosig.test"), A)
    play.now_ms += 6000
    assert _flags(play.ask("www.nosig.test")) & dns.flags.AD


def test_no_anchor_no_validation() -> None:
    """Without anchors nobody is asked for keys, and nothing is secure."""
    play = Play(shared(), Validator(anchors.NONE))
    before = [len(server.asked) for server in shared().servers.values()]
    assert not _flags(play.ask("www.good.test")) & dns.flags.AD
    asked = [server.asked[n:] for server, n in zip(shared().servers.values(), before, strict=True)]
    assert not any(rtype in (DS, DNSKEY) for each in asked for _, rtype in each)


def test_anchors_below_the_root() -> None:
    """A DNSKEY or a DS of any zone begins a chain there; the rest of the names is nobody's to vouch for."""
    island = next(zone for zone in shared().servers[LEAF].zones if zone.apex == name("island.test"))
    for text in (island.ds(), f"island.test. 3600 IN DNSKEY {island.key.dnskey}"):
        play = Play(shared(), Validator(anchors.from_texts([text])))
        assert _flags(play.ask("www.island.test")) & dns.flags.AD
        assert not _flags(play.ask("www.good.test")) & dns.flags.AD
    wrong = anchors.from_texts([island.ds(key=Signer.make())])
    assert Play(shared(), Validator(wrong)).ask("www.island.test").ede == 9


@pytest.mark.parametrize("algorithm", [1, 3])
def test_retired_algorithms_only_where_an_anchor_names_them(algorithm: int) -> None:
    """RSAMD5 and DSA make a zone insecure (RFC 9904), except where the operator has written such a key down."""
    zone = Zone("retired.test", HOST.format("retired.test"), algorithm=algorithm)
    top = Zone("test", f"test NS ns.test\nns.test A {TOP}\nretired.test NS ns.retired.test\n{zone.ds()}\n")
    top.add(f"ns.retired.test A {LEAF}")
    root = Zone(".", f". NS ns\nns A {ROOT}\ntest NS ns.test\nns.test A {TOP}\n{top.ds()}")
    world = World({ROOT: Server(root), TOP: Server(top), LEAF: Server(zone)})
    outcome = Play(world, Validator(trust(world))).ask("www.retired.test")
    assert not _flags(outcome) & dns.flags.AD and outcome.ede == 1
    play = Play(world, Validator(anchors.from_texts([root.ds(), zone.ds()])))
    assert _flags(play.ask("www.retired.test")) & dns.flags.AD


def test_that_there_is_no_ds_is_told_with_a_soa() -> None:
    """RFC 2308, section 2.2: a client that asks for the DS gets a SOA, also when a referral has told us already."""
    plain = Zone("plain", "plain NS ns.plain\nns.plain A 192.0.2.102\nwww.plain A 192.0.2.1", signed=False)
    root = Zone(".", ". NS ns\nns A 192.0.2.101\nplain NS ns.plain\nns.plain A 192.0.2.102")
    play = Play(World({"192.0.2.101": Server(root), "192.0.2.102": Server(plain)}), Validator(anchors.from_texts((root.ds(),))))
    for question in (("www.plain", "A"), ("plain", "DS"), ("other.plain", "A"), ("plain", "DS")):
        outcome = play.ask(*question)
        assert outcome.response is not None
        if question[1] == "DS":
            message = dns.message.from_wire(outcome.response)
            assert {SOA, NSEC} <= {rrset.rdtype for rrset in message.authority} and message.flags & dns.flags.AD
    assert play.asks <= 6


def test_what_is_too_weak_makes_a_zone_insecure() -> None:
    """SHA-1 switched off (RFC 9905) and RSA keys that are too short: insecure with EDE 1 or 2, never bogus."""
    weak = signatures.Policy(sha1=False)
    short = signatures.Policy(rsa_bits=2048)
    for policy, text, ede in (
        (weak, "www.alg5.test", 1), (weak, "www.alg7.test", 1), (weak, "www.sha1.test", 2), (short, "www.alg8.test", 1),
        (short, "www.alg10.test", 1), (short, "none.alg8.test", 1),
    ):  # fmt: skip
        play = Play(shared(), Validator(trust(shared()), policy=policy))
        for _ in range(2):
            outcome = play.ask(text)
            assert not _flags(outcome) & dns.flags.AD and outcome.ede == ede, (text, outcome.text)
    for policy, text in ((weak, "www.alg8.test"), (weak, "www.good.test"), (short, "www.alg14.test")):
        assert _flags(Play(shared(), Validator(trust(shared()), policy=policy)).ask(text)) & dns.flags.AD
    zone = next(zone for zone in shared().servers[LEAF].zones if zone.apex == name("alg5.test"))
    named = anchors.from_texts([shared().servers[ROOT].zones[0].ds(), zone.ds()])
    assert _flags(Play(shared(), Validator(named, policy=weak)).ask("www.alg5.test")) & dns.flags.AD


def test_the_end_of_a_negative_trust_anchor_is_the_end_of_its_answers() -> None:
    """An answer that was let through lasts no longer than the anchor that let it, and says which (EDE 0, RFC 7646)."""
    play = player("forged.test until 2026-09-21T14:14:20Z")  # a minute from now
    for _ in range(2):
        outcome = play.ask("www.forged.test")
        response = dns.message.from_wire(outcome.response or b"")
        assert {rrset.ttl for rrset in response.answer} == {60}
        assert (outcome.ede, outcome.text) == (0, "a negative trust anchor is set for forged.test")
    play.resolver.cache.clock(NOW + 60)
    assert play.ask("www.forged.test").ede == 6


def test_an_anchor_that_fails_is_named() -> None:
    """None of the root's keys is the one that was trusted: EDE 9, and the text says that it is the trust anchor."""
    wrong = anchors.from_texts([f". DS {Zone('.', '').ds().partition(' DS ')[2]}"])
    outcome = Play(shared(), Validator(wrong)).ask("www.good.test")
    assert (outcome.response, outcome.ede) == (None, 9)
    assert outcome.text == ". has none of the keys that the trust anchor vouches for"


def test_without_an_anchor_above_it_is_indeterminate() -> None:
    """Only an island is anchored: everything else is neither secure nor proven insecure (EDE 5)."""
    island = next(zone for zone in shared().servers[LEAF].zones if zone.apex == name("island.test"))
    outcome = Play(shared(), Validator(anchors.from_texts([island.ds()]))).ask("www.good.test")
    assert not _flags(outcome) & dns.flags.AD and outcome.ede == 5


def test_no_more_questions_than_the_chain_has_links() -> None:
    """The DS of a referral is used: three zones cost three answers and three sets of keys, a second name one."""
    play = player()
    play.ask("www.good.test")
    assert play.asks == 6
    play.ask("x.wild.good.test", "TXT")
    assert play.asks == 7
    play.ask("www.plain.test")  # the referral proves that there is no DS
    assert play.asks == 9


# --- servers that mean harm ----------------------------------------------------------------------------------------


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    real = signatures.verify

    def verify(by: signatures.Key, sig: signatures.Signature, octets: bytes) -> bool:
        calls.append(by.tag)
        return real(by, sig, octets)

    monkeypatch.setattr(signatures, "verify", verify)
    return calls


def test_keys_and_signatures_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """KeyTrap: a hundred keys of one tag and a hundred signatures cost eight checks for an RRset, not ten thousand."""
    calls = _counted(monkeypatch)
    world = internet()
    zone = next(zone for zone in world.servers[LEAF].zones if zone.apex == name("good.test"))
    second = Signer.make(flags=256)
    real = second.dnskey
    keys = zone.rrsets[name("good.test"), DNSKEY]
    for n in range(1, 400):
        octets = bytearray(real.key)  # type: ignore[attr-defined]
        at = n // 100 * 4  # a carry in the sum spoils some: four places give enough
        octets[at] ^= n & 0x7F
        octets[at + 2] = (octets[at + 2] + real.key[at] - octets[at]) & 0xFF  # type: ignore[attr-defined]
        if len(keys) > 100:
            break
        twin = real.replace(key=bytes(octets))
        if dns.dnssec.key_id(twin) == dns.dnssec.key_id(real):
            keys.add(twin)
    assert len(keys) > 30
    zone.resign(name("good.test"), DNSKEY)
    host = (name("www.good.test"), A)
    zone.resign(*host, by=second)
    sig = zone.sigs[host][0]
    forged = [sig.replace(signature=bytes([n]) * len(sig.signature)) for n in range(100)]  # type: ignore[attr-defined]
    zone.sigs[host] = dns.rrset.from_rdata_list(host[0], 3600, forged)
    outcome = Play(world, Validator(trust(world))).ask("www.good.test")
    assert outcome.response is None and outcome.ede == 6
    assert len(calls) < 40


def test_hashes_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name of very many labels below a zone of NSEC3 costs a bounded number of hashes."""
    text = ".".join("a" * 120) + ".salt.test"
    calls = []
    real = signatures.hashed
    monkeypatch.setattr(signatures, "hashed", lambda *parts: calls.append(parts) or real(*parts))
    outcome = player().ask(text)
    assert outcome.response is not None or outcome.ede == 6
    assert 0 < len(calls) <= 160


@pytest.mark.parametrize("seed", range(4))
def test_a_changed_response_is_never_secure(seed: int) -> None:
    """Whatever an attacker between us and the servers changes: it is noticed, or it changes nothing that matters."""
    chance = random.Random(seed)
    truth: dict[str, set[str]] = {}
    names_of = ["www.good.test", "foo.wild.good.test", "none.hash.test", "foo.wild.salt.test", "www.sub.out.test"]
    for text in names_of:
        response = dns.message.from_wire(player().ask(text).response or b"")
        truth[text] = {str(r) for r in response.answer if r.rdtype == A} | {dns.rcode.to_text(response.rcode())}
    world = internet_of(shared())

    def spoil(query: dns.message.Message, response: dns.message.Message) -> None:
        if chance.random() < 0.5:
            return
        section = chance.choice([s for s in (response.answer, response.authority) if s] or [response.answer])
        if not section:
            return
        at = chance.randrange(len(section))
        rrset = section[at]
        action = chance.randrange(4)
        if action == 0:
            del section[at]
        elif action == 1:
            wire = bytearray(rrset[0].to_wire())
            wire[chance.randrange(len(wire))] ^= 1 << chance.randrange(8)
            with contextlib.suppress(dns.exception.DNSException, ValueError):
                rdata = dns.rdata.from_wire(dns.rdataclass.IN, rrset.rdtype, bytes(wire), 0, len(wire))
                section[at] = dns.rrset.from_rdata(rrset.name, rrset.ttl, rdata)
        elif action == 2:
            section[at] = dns.rrset.from_rdata_list(query.question[0].name, rrset.ttl, list(rrset))
        else:
            response.set_rcode(chance.choice([dns.rcode.NOERROR, dns.rcode.NXDOMAIN]))

    for server in world.servers.values():
        server.changes = [spoil]
    for _ in range(10):
        for text in names_of:
            play = Play(world, Validator(trust(world)))
            outcome = play.ask(text)
            if outcome.response is None:
                continue
            response = dns.message.from_wire(outcome.response)
            if response.flags & dns.flags.AD:
                found = {str(r) for r in response.answer if r.rdtype == A} | {dns.rcode.to_text(response.rcode())}
                assert _without_ttl(found) == _without_ttl(truth[text]), (text, seed)


def _without_ttl(found: set[str]) -> set[str]:
    return {" ".join(word for n, word in enumerate(text.split()) if n != 1) for text in found}


def internet_of(world: World) -> World:
    """The same zones behind other servers."""
    return World({address: Server(*server.zones) for address, server in world.servers.items()})


# --- another validator's opinion -----------------------------------------------------------------------------------

PORT = 5391
UNBOUND = """
server:
  interface: 127.77.0.9@{port}
  do-ip6: no
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: ""
  use-syslog: no
  verbosity: 0
  num-threads: 1
  module-config: "validator iterator"
  root-hints: "{folder}/hints"
  trust-anchor-file: "{folder}/anchor"
  val-override-date: "{now}"
  do-not-query-localhost: no
  qname-minimisation: no
  local-zone: "test." nodefault
  trust-anchor-signaling: no
  root-key-sentinel: no
  aggressive-nsec: no
  max-udp-size: 4096
remote-control:
  control-enable: no
"""


@pytest.fixture(scope="module")
def unbound(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Unbound, resolving in our world."""
    folder: pathlib.Path = tmp_path_factory.mktemp("unbound")
    world = shared()
    (folder / "hints").write_text(f". 3600 NS ns.\nns. 3600 A {ROOT}\n")
    (folder / "anchor").write_text(world.servers[ROOT].zones[0].ds() + "\n")
    (folder / "unbound.conf").write_text(UNBOUND.format(port=PORT, folder=folder, now=NOW))
    with serving(world):
        with subprocess.Popen(["unbound", "-d", "-c", str(folder / "unbound.conf")], stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            try:
                query = dns.message.make_query("ns.test", "A")
                for _ in range(50):
                    try:
                        dns.query.udp(query, "127.77.0.9", 0.2, PORT)
                        break
                    except (dns.exception.Timeout, OSError):
                        selectors.DefaultSelector().select(0.05)
                else:
                    process.kill()
                    pytest.fail(f"Unbound does not start: {process.stderr.read().decode()}")
                yield
            finally:
                process.terminate()


@pytest.mark.usefixtures("unbound")
def test_unbound_comes_to_the_same_verdicts() -> None:
    """Every case of the table, asked of Unbound in the same world: same rcode and AD, or it is explained."""
    different = []
    for case in CASES:
        query = dns.message.make_query(case.name, case.type, want_dnssec=True, use_edns=True, payload=4096)
        response = dns.query.udp(query, "127.77.0.9", 5, PORT)
        state = case.unbound or case.state
        expected = ("SERVFAIL" if state == BOGUS else case.rcode, state)
        if (dns.rcode.to_text(response.rcode()), _state(response)) != expected:
            different.append((case.name, case.type, expected, dns.rcode.to_text(response.rcode()), _state(response)))
    assert not different

"""Names that are met on the way of a recursion and that are ours, or a forward entry's: asked where they belong."""

from __future__ import annotations

import dns.message
import dns.rrset

from dnsd.contract import codes, names
from dnsd.resolve import steps
from dnsd.resolve.anchors import from_texts
from dnsd.resolve.config import Config
from dnsd.resolve.forwarded import Upstream
from dnsd.resolve.infra import Infra
from dnsd.resolve.realms import Forwarded, Own
from dnsd.resolve.resolver import Resolver
from dnsd.resolve.rrcache import RRCache
from dnsd.resolve.steps import Step
from dnsd.resolve.upstreams import FAILOVER, Servers
from dnsd.resolve.validator import Validator
from tests.resolve import world as worlds
from tests.resolve.signed import NOW, Play, Server
from tests.resolve.signed import World as SignedWorld
from tests.resolve.signed import Zone as SignedZone

CORP = "5.5.5.5"  # the server of the forward entry corp.example


class Rules:
    """A table's word: own names with their records, and a forward entry."""

    def __init__(self, own: dict[str, str], entry: str = "corp.example", validated: bool = False) -> None:
        self.own = {names.from_text(name): text for name, text in own.items()}
        self.entry = names.from_text(entry)
        over = Upstream(((CORP, 53),), 500, FAILOVER, Servers(), validated)
        self.relay = Resolver(Config(), (), lambda n: 0, RRCache(1 << 20), Infra(), None, over)
        self.relay.cache.clock(NOW)
        self.validated = validated
        self.asked: list[str] = []

    def __call__(self, name: bytes, qtype: int) -> Own | Forwarded | None:
        """See `dnsd.resolve.realms`."""
        self.asked.append(names.to_text(name))
        if name == self.entry or names.is_below(name, self.entry):
            return Forwarded(self.relay, self.validated, names.to_text(self.entry))
        text = self.own.get(name)
        if text is None:
            return None
        query = dns.message.make_query(names.to_text(name), codes.qtype_name(qtype), use_edns=False)
        response = dns.message.make_response(query, recursion_available=True)
        if text:
            response.answer.append(dns.rrset.from_text(names.to_text(name) + ".", 60, "IN", *text.split(None, 1)))
        else:
            response.set_rcode(3)
        return Own(response.to_wire(), "office.example")


def _world(*test: str, corp: tuple[str, ...] = ("host.corp.example. A 10.9.9.9",)) -> worlds.World:
    """A root, a zone test. with these records, and the forward entry's server."""
    world = worlds.World()
    root, zone, inside = (worlds.Zone(worlds.absolute(apex)) for apex in (".", "test.", "corp.example."))
    for line in ("test. NS ns.test.", "ns.test. A 1.0.0.2"):
        root.add(worlds.record(line))
        zone.add(worlds.record(line))
    for line in test:
        zone.add(worlds.record(line))
    for line in corp:
        inside.add(worlds.record(line))
    world.host("1.0.0.1").zones.append(root)
    world.host("1.0.0.2").zones.append(zone)
    world.host(CORP).zones.append(inside)
    world.host(CORP).habits.add("ra")
    return world


def _said(world: worlds.World, qname: str, trace: list[Step] | None = None) -> list[str]:
    outcome = world.ask(qname, "A", trace=trace)
    assert outcome.response is not None, outcome.text
    return [str(rdata) for rrset in dns.message.from_wire(outcome.response).answer for rdata in rrset]


def _asked(world: worlds.World) -> list[tuple[str, str]]:
    return [(ask.server[0], str(dns.message.from_wire(ask.wire).question[0].name)) for ask in world.asks]


def test_an_alias_into_a_forward_entry_is_asked_there() -> None:
    """The entry's server is asked for the target, and nobody else; parts are remembered, the whole is not."""
    world = _world("www.test. CNAME host.corp.example.")
    world.realms = Rules({})
    trace: list[Step] = []
    assert _said(world, "www.test", trace) == ["host.corp.example.", "10.9.9.9"]
    assert _asked(world) == [("1.0.0.1", "www.test."), ("1.0.0.2", "www.test."), (CORP, "host.corp.example.")]
    assert any(step.kind == steps.FORWARDED and step.text == "corp.example" for step in trace)
    outcome = world.ask("www.test", "A")
    assert outcome.fleeting and not world.asks
    query = dns.message.from_wire(outcome.response or b"")
    assert len(query.answer) == 2


def test_an_entry_that_is_not_validated_is_asked_to_validate_itself() -> None:
    """Without `dnssec: true` the question to its server has no CD, as a client's own question would not."""
    for validated in (False, True):
        world = _world("www.test. CNAME host.corp.example.")
        world.realms = Rules({}, validated=validated)
        _said(world, "www.test")
        assert bool(dns.message.from_wire(world.asks[-1].wire).flags & dns.flags.CD) is validated


def test_an_alias_into_an_own_zone_is_answered_from_the_table() -> None:
    """Nobody is asked for an own name, whether it has data, leads on, or does not exist; the table is asked each time."""
    world = _world("www.test. CNAME printer.office.example.", "gone.test. CNAME no.office.example.",
                   "on.test. CNAME old.office.example.", "end.test. A 192.0.2.7")  # fmt: skip
    rules = world.realms = Rules({
        "printer.office.example": "A 10.0.20.15", "no.office.example": "", "old.office.example": "CNAME end.test.",
    })  # fmt: skip
    trace: list[Step] = []
    assert _said(world, "www.test", trace) == ["printer.office.example.", "10.0.20.15"]
    assert any(step.kind == steps.OWN and step.text == "office.example" for step in trace)
    rules.own[names.from_text("printer.office.example")] = "A 10.0.20.16"
    assert _said(world, "www.test") == ["printer.office.example.", "10.0.20.16"] and not world.asks
    assert _said(world, "on.test") == ["old.office.example.", "end.test.", "192.0.2.7"]
    outcome = world.ask("gone.test", "A")
    assert dns.message.from_wire(outcome.response or b"").rcode() == 3
    assert not any("office.example" in name for _, name in _asked(world))


def test_a_public_copy_of_a_forwarded_name_does_not_count() -> None:
    """Split horizon: what the authority says beyond the alias is left out, and the entry's server is asked."""
    world = _world("www.test. CNAME host.inside.test.", "host.inside.test. A 192.0.2.99",
                   corp=())  # fmt: skip
    inside = worlds.Zone(worlds.absolute("inside.test."))
    inside.add(worlds.record("host.inside.test. A 10.1.1.1"))
    world.host(CORP).zones.append(inside)
    world.realms = Rules({}, "inside.test")
    assert _said(world, "www.test") == ["host.inside.test.", "10.1.1.1"]
    assert _said(world, "www.test") == ["host.inside.test.", "10.1.1.1"]


def test_a_name_server_is_looked_up_where_its_name_belongs() -> None:
    """Without glue, the address of a name server comes from the forward entry, or from our own zone."""
    for server, own in (("ns.corp.example.", {}), ("ns.office.example.", {"ns.office.example": "A 1.0.0.9"})):
        world = _world(f"child.test. NS {server}", corp=("ns.corp.example. A 1.0.0.9",))
        child = worlds.Zone(worlds.absolute("child.test."))
        child.add(worlds.record("www.child.test. A 192.0.2.3"))
        world.host("1.0.0.9").zones.append(child)
        world.realms = Rules(own)
        assert _said(world, "www.child.test") == ["192.0.2.3"]
        assert not any(address == "1.0.0.1" and name != "www.child.test." for address, name in _asked(world))
        assert not world.ask("www.child.test", "A").fleeting


def test_a_name_server_of_its_own_zone_needs_no_glue_where_we_know_it() -> None:
    """A delegation to a name below itself, without glue, is of use when the name is one of ours."""
    world = _world("child.test. NS ns.child.test.")
    child = worlds.Zone(worlds.absolute("child.test."))
    child.add(worlds.record("www.child.test. A 192.0.2.3"))
    world.host("1.0.0.9").zones.append(child)
    world.realms = Rules({"ns.child.test": "A 1.0.0.9"})
    assert _said(world, "www.child.test") == ["192.0.2.3"]


def test_aliases_that_go_round_between_the_realms_end() -> None:
    """From the authority to the forward entry, to our own zone and back: SERVFAIL, and few questions."""
    world = _world("www.test. CNAME a.corp.example.", corp=("a.corp.example. CNAME b.office.example.",))
    world.realms = Rules({"b.office.example": "CNAME www.test."})
    outcome = world.ask("www.test", "A")
    assert outcome.response is None and "circle" in outcome.text
    assert len(world.asks) <= 4


def test_a_dead_forward_entry_is_named() -> None:
    """When the entry's server is silent, the client is told which server that was."""
    world = _world("www.test. CNAME host.corp.example.")
    world.host(CORP).dead = True
    world.realms = Rules({})
    outcome = world.ask("www.test", "A")
    assert outcome.response is None and CORP in outcome.text


def test_special_names_with_an_entry_of_their_own_are_asked_for_there() -> None:
    """An alias to a special-use name ends at home (RFC 6761), unless a forward entry names it."""
    world = _world("www.test. CNAME host.home.arpa.", corp=())
    world.special = frozenset({names.from_text("home.arpa")})
    zone = worlds.Zone(worlds.absolute("home.arpa."))
    zone.add(worlds.record("host.home.arpa. A 10.2.2.2"))
    world.host(CORP).zones.append(zone)
    outcome = world.ask("www.test", "A")
    assert dns.message.from_wire(outcome.response or b"").rcode() == 3
    world.realms = Rules({}, "home.arpa")
    assert _said(world, "www.test") == ["host.home.arpa.", "10.2.2.2"]


def _signed(forge: bool = False) -> Play:
    """A signed root and a signed zone good. whose aliases lead to our names."""
    good = SignedZone("good", "good NS ns.good\nns.good A 1.0.0.2\nwww.good CNAME nas.office.example\n"
                              "far.good CNAME host.corp.example\nend.good A 192.0.2.8\nloop.good CNAME b.office.example")
    if forge:
        for name in ("www.good.", "end.good."):
            key = next(key for key in good.rrsets if str(key[0]) == name)
            good.rrsets[key] = dns.rrset.from_text(name, 3600, "IN", "CNAME", "b.office.example.") if (
                name == "www.good.") else dns.rrset.from_text(name, 3600, "IN", "A", "203.0.113.66")  # fmt: skip
    root = SignedZone(".", f". NS ns\nns A 1.0.0.1\ngood NS ns.good\nns.good A 1.0.0.2\n{good.ds()}")
    play = Play(SignedWorld({"1.0.0.1": Server(root), "1.0.0.2": Server(good)}), Validator(from_texts((root.ds(),), ())))
    play.realms = Rules({
        "nas.office.example": "A 10.0.0.5", "b.office.example": "CNAME end.good.", "no.office.example": "",
    })  # fmt: skip
    return play


def test_what_the_authorities_say_is_validated_up_to_and_behind_our_names() -> None:
    """The alias has to stand validation, our part is believed, so no AD; what is signed behind our name is checked, too."""
    play = _signed()
    for name, last in (("www.good", "10.0.0.5"), ("loop.good", "192.0.2.8")):
        outcome = play.ask(name)
        message = dns.message.from_wire(outcome.response or b"")
        assert not message.flags & dns.flags.AD
        assert last in [str(rdata) for rrset in message.answer for rdata in rrset]
    assert dns.message.from_wire(play.ask("end.good").response or b"").flags & dns.flags.AD
    forged = _signed(forge=True)
    for name in ("www.good", "loop.good"):
        outcome = forged.ask(name)
        assert outcome.response is None and outcome.bogus, name

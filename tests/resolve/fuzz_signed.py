"""Signed zones under attack, made up by chance: somebody on the wire, and zones whose owner means harm.

Part of `tests.resolve.fuzz`. Invariants. Whoever sits between us and honest servers can make a question fail, but never
make us tell what those servers did not say: an answer about a signed zone is the truth, or there is none, and it is the
truth again when he has gone. Neither colliding keys and signatures (KeyTrap), nor NSEC3 iterations, nor aliases in
circles, nor delegations to sixty strangers (NXNSAttack) cost more than the budgets say.
"""

from __future__ import annotations

import dataclasses
import functools
import random
import time
from collections.abc import Callable

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rrset
from dns.rdatatype import CNAME, DNAME, DNSKEY, DS, NS, NSEC3, RRSIG, TXT, A

from dnsd.contract import names
from dnsd.resolve import anchors, budget, rrcache
from dnsd.resolve.aggressive import Denials
from dnsd.resolve.config import Config
from dnsd.resolve.forwarder import Ask, Outcome, Reply, matches
from dnsd.resolve.hints import from_pairs
from dnsd.resolve.resolver import Resolver
from dnsd.resolve.rrsets import parse
from dnsd.resolve.validator import Validator
from tests.resolve.signed import DAY, NOW, Server, Signer, World, Zone, name, record

ROOT, HONEST, HASHED, EVIL = "1.0.0.1", "1.0.0.9", "1.0.0.10", "6.6.6.6"
CPU_S = 1.0  # of one question; honest ones take some milliseconds
VICTIM_ASKS = 60  # to servers that somebody else's delegation names (RFC 9156 would have two for each name)
_DATA = """\
{0} NS ns.{0}
ns.{0} A {1}
www.{0} A 192.0.2.1
other.{0} A 192.0.2.2
txt.{0} TXT "true"
alias.{0} CNAME www.{0}
*.wild.{0} A 192.0.2.3
x.wild.{0} TXT "nearer"
a.b.ent.{0} A 192.0.2.4
tree.{0} DNAME ent.{0}
plain.{0} NS ns.plain.{0}
ns.plain.{0} A {1}
"""
_LABELS = ["www", "www", "other", "alias", "q.wild", "a.b.tree", "none", "x.wild", "b.ent", "c.d.none", "txt", ""]
_TYPES = ["A", "A", "A", "A", "A", "A", "TXT", "AAAA", "DS", "DNSKEY", "NS", "CNAME"]

Spoiler = Callable[[dns.message.Message, random.Random], None]


@functools.cache
def truth() -> tuple[World, Zone]:
    """The honest world, and its root zone; made once."""
    honest = Zone("honest", _DATA.format("honest", HONEST))
    hashed = Zone("hashed", _DATA.format("hashed", HASHED), nsec3=(3, "ab", False))
    plain = [Zone(f"plain.{z}", f"www.plain.{z} A 192.0.2.9", signed=False) for z in ("honest", "hashed")]
    delegations = f"honest NS ns.honest\nns.honest A {HONEST}\nhashed NS ns.hashed\nns.hashed A {HASHED}\n"
    root = Zone(".", f". NS ns\nns A {ROOT}\n{delegations}{honest.ds()}\n{hashed.ds()}")
    servers = {ROOT: Server(root), HONEST: Server(honest, plain[0]), HASHED: Server(hashed, plain[1])}
    return World(servers), root


class Client:
    """Our resolver with the root's key, and who answers it."""

    def __init__(self, root: Zone, respond: Callable[[Ask], bytes | None], seed: int) -> None:
        self.respond = respond
        chance = random.Random(seed)
        config = Config(
            qname_minimisation=bool(seed & 1), case_randomisation=not seed & 14, priming=False, use_ipv6=False
        )
        known = anchors.from_text(root.ds() + "\n")
        hints = from_pairs([("ns.", (ROOT,))])
        self.resolver = Resolver(config, hints, chance.randrange, validator=Validator(known, denials=Denials(64)))
        self.now_ms = 1000
        self.wall = NOW
        self.asks: list[Ask] = []

    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.now_ms += seconds * 1000
        self.wall += seconds

    def ask(self, text: str, rtype: str, do: bool = True) -> Outcome:
        """A question; AssertionError when it costs more than the budgets say."""
        self.asks.clear()
        self.resolver.cache.clock(self.wall)
        qtype = int(dns.rdatatype.from_text(rtype))
        began_ms, spent_s = self.now_ms, 0.0
        run = self.resolver.resolve(names.from_text(text), qtype, do, False, self.now_ms)
        reply: Reply | None = None
        try:
            while True:
                began_s = time.process_time()
                try:
                    ask = next(run) if reply is None else run.send(reply)
                finally:
                    spent_s += time.process_time() - began_s
                self.asks.append(ask)
                wire = self.respond(ask)
                if wire is not None and matches(ask.wire, wire):
                    self.now_ms += 5
                    reply = Reply(wire, self.now_ms)
                else:
                    self.now_ms += ask.timeout_ms
                    reply = Reply(None, self.now_ms, "timeout")
        except StopIteration as stop:
            outcome: Outcome = stop.value
        assert len(self.asks) <= budget.ASKS, f"{len(self.asks)} asks"
        assert self.now_ms - began_ms <= budget.DEADLINE_MS + 500, f"{self.now_ms - began_ms} ms"
        assert spent_s < CPU_S, f"{spent_s:.2f} s of computing for {text} {rtype}"
        assert outcome.response is not None or outcome.text, "a failure without a reason"
        if outcome.response is not None:
            parse(outcome.response)
        return outcome


def _said(outcome: Outcome) -> tuple[int, frozenset[str]] | None:
    """What a response says: rcode and data, without TTLs; None for a failure."""
    if outcome.response is None:
        return None
    message = dns.message.from_wire(outcome.response)
    data = {
        f"{rrset.name} {rdata.rdtype.name} {rdata}".lower()
        for rrset in message.answer if rrset.rdtype != RRSIG for rdata in rrset
    }  # fmt: skip
    return message.rcode(), frozenset(data)


@functools.lru_cache(4096)
def _respond(address: str, wire: bytes) -> bytes | None:
    server = truth()[0].servers.get(address)
    return server.respond(wire) if server is not None else None


def _upright(ask: Ask) -> bytes | None:
    return _respond(ask.server[0], ask.wire)


@functools.cache
def _true_answer(text: str, rtype: str) -> tuple[int, frozenset[str]]:
    said = _said(Client(truth()[1], _upright, 0).ask(text, rtype))
    assert said is not None, f"{text} {rtype} fails in peace"
    return said


# --- somebody on the wire ---------------------------------------------------------------------------------------------


@functools.cache
def _stolen() -> list[list[dns.rrset.RRset]]:
    """What he has heard before: sections of true answers."""
    heard: list[list[dns.rrset.RRset]] = []

    def listening(ask: Ask) -> bytes | None:
        wire = _upright(ask)
        if wire is not None:
            message = dns.message.from_wire(wire)
            heard.extend(section for section in (message.answer, message.authority) if section)
        return wire

    for zone in ("honest", "hashed"):
        for label in _LABELS:
            for rtype in ("A", "TXT", "DS"):
                Client(truth()[1], listening, 0).ask(f"{label}.{zone}".strip("."), rtype)
    return heard


@functools.cache
def _his() -> Zone:
    """A zone of his own, with a key of his own."""
    return Zone("honest", f"www.honest A 6.6.6.6\nnone.honest A 6.6.6.6\nns.honest A {EVIL}\nhonest NS ns.honest")


def _section(message: dns.message.Message, chance: random.Random) -> list[dns.rrset.RRset]:
    return chance.choice([message.answer, message.answer, message.authority, message.authority, message.additional])


def _without_signatures(message: dns.message.Message, chance: random.Random) -> None:
    for section in (message.answer, message.authority):
        section[:] = [rrset for rrset in section if rrset.rdtype != RRSIG]


def _without_section(message: dns.message.Message, chance: random.Random) -> None:
    _section(message, chance).clear()


def _without_one(message: dns.message.Message, chance: random.Random) -> None:
    section = _section(message, chance)
    if section:
        del section[chance.randrange(len(section))]


def _forged(message: dns.message.Message, chance: random.Random) -> None:
    qname = message.question[0].name
    message.answer.append(dns.rrset.from_text(qname, 300, "IN", "A", "6.6.6.6"))


_LIES = {A: "6.6.6.6", CNAME: "www.evil.", DNAME: "evil.", TXT: "false", NS: "ns.evil."}


def _changed(message: dns.message.Message, chance: random.Random) -> None:
    for rrset in (*message.answer, *message.authority, *message.additional):
        if rrset.rdtype in _LIES:
            rrset.clear()
            rrset.add(dns.rdata.from_text(dns.rdataclass.IN, rrset.rdtype, _LIES[rrset.rdtype]))


def _renamed(message: dns.message.Message, chance: random.Random) -> None:
    for section in (message.answer, message.authority):
        for rrset in section:
            if chance.randrange(2):
                rrset.name = message.question[0].name


def _replayed(message: dns.message.Message, chance: random.Random) -> None:
    section = _section(message, chance)
    if chance.randrange(2):
        section.clear()
    for rrset in chance.choice(_stolen()):
        copy = dns.rrset.from_rdata_list(rrset.name, rrset.ttl, list(rrset))
        if chance.randrange(4) == 0:
            copy.name = message.question[0].name
        section.append(copy)


def _other_signature(message: dns.message.Message, chance: random.Random) -> None:
    for section in (message.answer, message.authority):
        for rrset in section:
            if rrset.rdtype != RRSIG:
                continue
            changed = []
            for sig in rrset:
                for _ in range(chance.choice((1, 1, 40))):
                    field = chance.choice(("labels", "original_ttl", "expiration", "inception", "key_tag", "signature"))
                    value: object = chance.randrange(5) if field == "labels" else chance.randrange(65536)
                    if field in ("expiration", "inception"):
                        value = NOW + chance.randrange(-3 * DAY, 3 * DAY)
                    if field == "signature":
                        value = chance.randbytes(64)
                    changed.append(sig.replace(**{field: value}))
            chance.shuffle(changed)
            keep = list(rrset) if chance.randrange(2) else []
            rrset.clear()
            for sig in changed + keep:
                rrset.add(sig)


def _other_rcode(message: dns.message.Message, chance: random.Random) -> None:
    message.set_rcode(dns.rcode.Rcode(chance.choice((0, 0, 3, 3, 2, 5, 6))))
    message.flags ^= chance.choice((0, dns.flags.AA, dns.flags.AD, dns.flags.RA, dns.flags.TC))


def _his_own(message: dns.message.Message, chance: random.Random) -> None:
    """His zone in the place of the honest one: his keys, his signatures, his DS."""
    fake = _his()
    message.answer.clear()
    message.authority.clear()
    question = message.question[0]
    if question.rdtype == DS:
        message.answer.append(record(fake.apex, 300, "DS", fake.ds().split(None, 2)[2]))
        return
    if question.name.is_subdomain(fake.apex):
        fake.fill(message, question.name, question.rdtype)


def _led_away(message: dns.message.Message, chance: random.Random) -> None:
    """A referral of the zone to his own server, as if it were not signed."""
    message.answer.clear()
    if chance.randrange(2):
        message.authority.clear()
    message.flags &= ~dns.flags.AA
    zone = name(chance.choice(("honest", "hashed", "www.honest", "none.hashed")))
    message.authority.append(record(zone, 300, "NS", "ns.evil"))
    message.additional.append(record(name("ns.evil"), 300, "A", EVIL))


def _hashed_often(message: dns.message.Message, chance: random.Random) -> None:
    for rrset in message.authority:
        if rrset.rdtype == NSEC3:
            changed = [nsec3.replace(iterations=chance.choice((0, 4, 151, 2500, 65535))) for nsec3 in rrset]
            rrset.clear()
            for nsec3 in changed:
                rrset.add(nsec3)


_SPOILERS: tuple[Spoiler, ...] = (
    _without_signatures, _without_section, _without_one, _forged, _changed, _changed, _renamed, _replayed, _replayed,
    _other_signature, _other_rcode, _his_own, _led_away, _hashed_often,
)  # fmt: skip


def on_the_wire(seed: int, mutated: Callable[[bytes, random.Random], bytes]) -> None:
    """Somebody between us and some of the servers, and a few questions; AssertionError when an invariant breaks."""
    chance = random.Random(seed)
    taken = chance.choice(({HONEST}, {HASHED}, {HONEST, HASHED}, {ROOT}, {ROOT, HONEST, HASHED}))
    often = chance.choice((1, 1, 2, 3))
    gone = False

    def respond(ask: Ask) -> bytes | None:
        address = ask.server[0]
        wire = _upright(dataclasses.replace(ask, server=(HONEST, 53)) if address == EVIL else ask)
        if gone or wire is None or (address not in taken and address != EVIL) or chance.randrange(often):
            return wire
        if chance.randrange(12) == 0:
            return None
        message = dns.message.from_wire(wire)
        for _ in range(chance.choice((1, 1, 2, 4))):
            chance.choice(_SPOILERS)(message, chance)
        try:
            spoiled = message.to_wire(max_size=65535)
        except dns.exception.TooBig:
            return None
        return mutated(spoiled, chance) if chance.randrange(8) == 0 else spoiled

    client = Client(truth()[1], respond, seed)
    asked = []
    for _ in range(chance.randrange(2, 9)):
        text = f"{chance.choice(_LABELS)}.{chance.choice(('honest', 'hashed'))}".strip(".")
        rtype = chance.choice(_TYPES)
        asked.append((text, rtype))
        _true_or_failed(client, text, rtype)
        client.wait(chance.choice((0, 1, 400)))
    gone = True
    client.wait(max(2 * rrcache.FAILURE_LIMIT_MS // 1000, 2 * DAY // 24))
    for text, rtype in asked:
        said = _true_or_failed(client, text, rtype)
        assert said is not None, f"{text} {rtype} still fails when he has gone"


def _true_or_failed(client: Client, text: str, rtype: str) -> object:
    outcome = client.ask(text, rtype)
    said = _said(outcome)
    true = _true_answer(text, rtype)
    assert said is None or said == true, f"{text} {rtype}: told {said}, the truth is {true}"
    return said


# --- zones whose owner means harm -------------------------------------------------------------------------------------


def _colliding(key: dns.rdata.Rdata, chance: random.Random) -> dns.rdata.Rdata:
    """An RSA key with the same tag as this one (RFC 4034, appendix B: the tag is a sum)."""
    octets = bytearray(key.key)  # type: ignore[attr-defined]
    for _ in range(4):  # what one pair of octets gains another loses, at the same parity
        one, other = (8 + 2 * chance.randrange(50) for _ in range(2))
        step = chance.randrange(1, 128)
        if octets[one] + step < 256 and octets[other] >= step:
            octets[one] += step
            octets[other] -= step
    return key.replace(key=bytes(octets))


@functools.cache
def _trap_key() -> Signer:
    return Signer.make(8)


def trap(seed: int) -> None:
    """A zone made to cost: keys and signatures that collide, hashes, aliases, strangers; AssertionError as above."""
    chance = random.Random(seed)
    kind = chance.choice(("keys", "keys", "hashes", "aliases", "strangers"))
    text = f"evil NS ns.evil\nns.evil A {EVIL}\nwww.evil A 6.6.6.6\n"
    if kind == "aliases":
        text += "".join(f"c{i}.evil CNAME c{chance.randrange(40)}.evil\n" for i in range(40))
        text += "d.evil DNAME d.d.evil\ne.evil DNAME f.evil\nf.evil DNAME e.evil\n"
    nsec3 = (chance.choice((0, 50, 151, 500)), "aa" * chance.randrange(40), bool(chance.randrange(2)))
    evil = Zone("evil", text, algorithm=8 if kind == "keys" else 13, nsec3=nsec3 if kind == "hashes" else None)
    if kind == "keys":
        _laid(evil, chance)
    world, _ = truth()
    root = Zone(".", f". NS ns\nns A {ROOT}\nevil NS ns.evil\nns.evil A {EVIL}\n{evil.ds()}\n"
                f"honest NS ns.honest\nns.honest A {HONEST}\n{world.servers[HONEST].zones[0].ds()}")  # fmt: skip
    servers = {ROOT: Server(root), EVIL: Server(evil), HONEST: world.servers[HONEST]}

    def respond(ask: Ask) -> bytes | None:
        server = servers.get(ask.server[0])
        if server is None:
            return None
        wire = server.respond(ask.wire)
        return _strangers(wire, chance) if kind == "strangers" and ask.server[0] == EVIL else wire

    client = Client(root, respond, seed)
    for _ in range(3):
        label = {
            "aliases": chance.choice((f"c{chance.randrange(40)}", "x.d", "x.e")),
            "keys": chance.choice(("www", "none")),
            "hashes": ".".join("x" * chance.randrange(1, 60)),
            "strangers": f"x{chance.randrange(99)}.y",
        }[kind]  # fmt: skip
        client.ask(f"{label}.evil", chance.choice(("A", "TXT", "DNSKEY")))
        victims = sum(ask.server[0] == HONEST for ask in client.asks)
        assert victims <= VICTIM_ASKS, f"{victims} questions to somebody else's server"
    assert _said(client.ask("www.honest", "A")) == _true_answer("www.honest", "A")


def _laid(zone: Zone, chance: random.Random) -> None:
    """Many keys of one tag, and as many signatures by it that do not hold, before or behind the one that does."""
    zone.key = _trap_key()
    keys = {_colliding(zone.key.dnskey, chance) for _ in range(chance.choice((2, 30, 120)))}
    zone.rrsets[zone.apex, DNSKEY] = dns.rrset.from_rdata_list(zone.apex, 3600, [zone.key.dnskey, *keys])
    count = chance.choice((2, 30, 120))
    for owner, rtype in list(zone.sigs):
        zone.resign(owner, rtype)
        good = zone.sigs[owner, rtype][0]
        bad = [good.replace(signature=chance.randbytes(128)) for _ in range(count)]
        sigs = [*bad, good] if chance.randrange(2) else [good, *bad]
        zone.sigs[owner, rtype] = dns.rrset.from_rdata_list(owner, 3600, sigs)


def _strangers(wire: bytes, chance: random.Random) -> bytes:
    """A delegation to up to sixty names that somebody else has to look up."""
    message = dns.message.from_wire(wire)
    question = message.question[0]
    if question.rdtype in (DNSKEY, CNAME, NS) or len(question.name) < 3:
        return wire
    message.answer.clear()
    message.authority.clear()
    message.set_rcode(dns.rcode.NOERROR)
    message.flags &= ~dns.flags.AA
    cut = dns.name.Name(question.name[-3:])
    for number in range(chance.choice((2, 20, 60))):
        target = f"n{chance.randrange(1 << 20)}-{number}.{chance.choice(('honest', 'ns.evil', 'wild.honest'))}"
        message.authority.append(record(cut, 60, "NS", target))
    return message.to_wire(max_size=65535)

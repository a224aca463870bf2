"""A world of name servers without sockets, for the resolver's scenarios: zones, servers with bad habits, and a clock.

A scenario is a text (tests/scenarios/*.scenario). Lines that begin at the margin say what is, or what happens next;
the lines indented under one belong to it. Records are `owner [ttl] type rdata`, names absolute, the last dot optional.

    scenario RFC 1034 5.3.3: a name is found from the root down
    config priming=no root=1.0.0.1         settings of the resolver; all extras are off unless said here
    server 1.0.0.1 .                       an address that serves a zone (one line a zone), then habits:
      test. NS ns.test.                        dead unreachable refused servfail noedns lowercase twist noaa ra tc notcp
      ns.test. A 1.0.0.2                       nxent lame upward garbage nosoa minimalfail slow=MS
    on 1.0.0.2 www.test. A                 a scripted answer instead: rcode, flags (aa unless said), answer, authority,
      answer www.test. A 192.0.2.1           additional; `silence` for none
    ask www.test. A [do]                   a client's question, then what is expected of it:
      rcode NOERROR                            rcode; answer RR (all of them, TTLs only if written) or none;
      answer www.test. A 192.0.2.1             authority TYPE or none; ttl N; asks N; asks <= N;
      asks 2                                   asked ADDRESS NAME TYPE; unasked ADDRESS [NAME];
                                               tcp ADDRESS; ede N; text WORDS; within MS
    wait 30 / back 30                      seconds pass / the wall clock alone steps back
    kill ADDRESS / revive ADDRESS          a server dies, a server lives again
    empty ADDRESS                          a server forgets its zones (to be given new ones)
"""

from __future__ import annotations

import dataclasses
import pathlib
import random
from collections.abc import Callable, Generator, Iterator

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from dnsd.contract import names
from dnsd.resolve import hints as hints_of
from dnsd.resolve.config import Config
from dnsd.resolve.forwarder import TCP, UDP, Ask, Outcome, Reply, matches
from dnsd.resolve.infra import Infra
from dnsd.resolve.realms import Realms
from dnsd.resolve.resolver import Resolver
from dnsd.resolve.rrcache import RRCache
from dnsd.resolve.shortcut import Shortcut
from dnsd.resolve.steps import Step

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "scenarios"
_RTT_MS = 10
_FLAGS = {"aa": dns.flags.AA, "ra": dns.flags.RA, "tc": dns.flags.TC, "ad": dns.flags.AD}


def record(text: str) -> dns.rrset.RRset:
    """`owner [ttl] type rdata` as an RRset of one record; the TTL is 3600 unless written."""
    owner, rest = text.split(None, 1)
    ttl = 3600
    word, _, tail = rest.partition(" ")
    if word.isdigit():
        ttl, rest = int(word), tail.strip()
    rtype, _, data = rest.partition(" ")
    return dns.rrset.from_text(absolute(owner), ttl, "IN", rtype, data.strip())


def absolute(text: str) -> dns.name.Name:
    """A name, the last dot optional."""
    return dns.name.from_text(text)


class Zone:
    """An authority's data, answered as RFC 1034, section 4.3.2 says."""

    def __init__(self, apex: dns.name.Name) -> None:
        self.apex = apex
        self.rrsets: dict[tuple[dns.name.Name, dns.rdatatype.RdataType], dns.rrset.RRset] = {}

    def add(self, rrset: dns.rrset.RRset) -> None:
        held = self.rrsets.setdefault(
            (rrset.name, rrset.rdtype), dns.rrset.RRset(rrset.name, rrset.rdclass, rrset.rdtype)
        )
        held.update_ttl(rrset.ttl)
        for rdata in rrset:
            held.add(rdata, rrset.ttl)

    def soa(self) -> dns.rrset.RRset:
        found = self.rrsets.get((self.apex, dns.rdatatype.SOA))
        return found or dns.rrset.from_text(self.apex, 900, "IN", "SOA", "ns. host. 1 3600 600 86400 900")

    def exists(self, name: dns.name.Name) -> bool:
        return any(owner.is_subdomain(name) for owner, _ in self.rrsets)

    def cut(self, name: dns.name.Name, ds: bool) -> dns.rrset.RRset | None:
        """The delegation at or above a name; for DS only one that is strictly above."""
        for i in range(len(self.apex) + 1, len(name) + (0 if ds else 1)):
            found = self.rrsets.get((dns.name.Name(name[-i:]), dns.rdatatype.NS))
            if found is not None:
                return found
        return None

    def fill(
        self, response: dns.message.Message, name: dns.name.Name, rtype: dns.rdatatype.RdataType, nxent: bool
    ) -> None:
        """Answer into a response."""
        for _ in range(20):
            cut = self.cut(name, rtype == dns.rdatatype.DS)
            if cut is not None:
                response.flags &= ~(dns.flags.AA if not response.answer else 0)
                response.authority.append(cut)
                for ns in cut:
                    for kind in (dns.rdatatype.A, dns.rdatatype.AAAA):
                        glue = self.rrsets.get((ns.target, kind))
                        if glue is not None:
                            response.additional.append(glue)
                return
            for i in range(len(self.apex), len(name)):
                dname = self.rrsets.get((dns.name.Name(name[-i:]), dns.rdatatype.DNAME))
                if dname is not None:
                    response.answer.append(dname)
                    try:
                        target = dns.name.Name(name[:-i] + dname[0].target.labels)
                    except dns.exception.DNSException:
                        response.set_rcode(dns.rcode.YXDOMAIN)
                        return
                    cname = dns.rrset.from_text(name, dname.ttl, "IN", "CNAME", target.to_text())
                    response.answer.append(cname)
                    name = target
                    break
            else:
                owner = name
                if not self.exists(name):
                    parent = name.parent()
                    while not self.exists(parent):
                        parent = parent.parent()
                    owner = dns.name.Name((b"*", *parent.labels))
                found = self.rrsets.get((owner, rtype))
                cname_at = self.rrsets.get((owner, dns.rdatatype.CNAME))
                if found is None and cname_at is not None and rtype != dns.rdatatype.CNAME:
                    response.answer.append(_renamed(cname_at, name))
                    name = cname_at[0].target
                elif found is not None:
                    response.answer.append(_renamed(found, name))
                    if name == self.apex and rtype == dns.rdatatype.NS:
                        for ns in found:
                            for kind in (dns.rdatatype.A, dns.rdatatype.AAAA):
                                glue = self.rrsets.get((ns.target, kind))
                                if glue is not None:
                                    response.additional.append(glue)
                    return
                else:
                    terminal = any(held == owner for held, _ in self.rrsets)
                    if not self.exists(owner) or (nxent and not terminal):
                        response.set_rcode(dns.rcode.NXDOMAIN)
                    response.authority.append(self.soa())
                    return
            if not name.is_subdomain(self.apex):
                return


def _renamed(rrset: dns.rrset.RRset, name: dns.name.Name) -> dns.rrset.RRset:
    copy = dns.rrset.RRset(name, rrset.rdclass, rrset.rdtype)
    copy.update(rrset)
    return copy


@dataclasses.dataclass
class Host:
    """One address."""

    zones: list[Zone] = dataclasses.field(default_factory=list)
    habits: set[str] = dataclasses.field(default_factory=set)
    scripted: dict[tuple[dns.name.Name, str], dict[str, list[str]]] = dataclasses.field(default_factory=dict)
    slow_ms: int = _RTT_MS
    dead: bool = False

    def answer(self, ask: Ask) -> bytes | str | None:
        """The response; None for silence, a word for an error."""
        if self.dead or "dead" in self.habits:
            return None
        if "unreachable" in self.habits:
            return "unreachable"
        if ask.transport == TCP and "notcp" in self.habits:
            return "unreachable"
        query = dns.message.from_wire(ask.wire)
        asked = query.question[0]
        if "noedns" in self.habits and query.edns >= 0:
            return (
                dns.message.make_response(dns.message.make_query(asked.name, asked.rdtype)).to_wire()[:2]
                + b"\x80\x01"
                + bytes(8)
            )
        response = dns.message.make_response(query, our_payload=1232)
        response.flags |= dns.flags.AA
        name = dns.name.Name(tuple(label.lower() for label in asked.name))
        self._fill(response, name, asked.rdtype, query)
        if response.flags is None:
            return None
        for habit, flag in (("ra", dns.flags.RA),):
            if habit in self.habits:
                response.flags |= flag
        if "noaa" in self.habits:
            response.flags &= ~dns.flags.AA
        if "tc" in self.habits and ask.transport != TCP:
            response.flags |= dns.flags.TC
            response.answer.clear()
        if "silence" in self.habits:
            return None
        wire = response.to_wire(max_size=65535)
        if "garbage" in self.habits:
            return wire[: max(12, len(wire) - 7)] + b"\xc0"
        end = 12
        while wire[end]:
            end += 1 + wire[end]
        if "lowercase" in self.habits:
            wire = wire[:12] + names.lower(wire[12:end]) + wire[end:]
        if "twist" in self.habits and ask.transport != TCP:
            wire = wire[:12] + wire[12:end].swapcase() + wire[end:]
        return wire

    def _fill(
        self,
        response: dns.message.Message,
        name: dns.name.Name,
        rtype: dns.rdatatype.RdataType,
        query: dns.message.Message,
    ) -> None:
        script = self.scripted.get((name, dns.rdatatype.to_text(rtype))) or self.scripted.get((name, "*"))
        if script is not None:
            if "silence" in script:
                self.habits.add("silence")
                return
            self.habits.discard("silence")
            if "flags" in script:
                response.flags &= ~dns.flags.AA
                for flag in script["flags"][0].split():
                    response.flags |= _FLAGS[flag]
            response.set_rcode(dns.rcode.from_text(script.get("rcode", ["NOERROR"])[0]))
            for section in ("answer", "authority", "additional"):
                for line in script.get(section, ()):
                    getattr(response, section).append(record(line))
            return
        self.habits.discard("silence")
        for habit, rcode in (("refused", "REFUSED"), ("servfail", "SERVFAIL"), ("notimp", "NOTIMP")):
            if habit in self.habits:
                response.set_rcode(dns.rcode.from_text(rcode))
                response.flags &= ~dns.flags.AA
                return
        if "minimalfail" in self.habits and not any(owner == name for zone in self.zones for owner, _ in zone.rrsets):
            response.set_rcode(dns.rcode.SERVFAIL)
            return
        if "lame" in self.habits:
            response.flags &= ~dns.flags.AA
            return
        if "upward" in self.habits:
            response.flags &= ~dns.flags.AA
            response.authority.append(record(". NS ns.nowhere."))
            return
        zones = [zone for zone in self.zones if name.is_subdomain(zone.apex)]
        if rtype == dns.rdatatype.DS and len(zones) > 1:
            zones = [zone for zone in zones if zone.apex != name]
        if not zones:
            response.set_rcode(dns.rcode.REFUSED)
            response.flags &= ~dns.flags.AA
            return
        max(zones, key=lambda zone: len(zone.apex)).fill(response, name, rtype, "nxent" in self.habits)
        if "nosoa" in self.habits:
            response.authority = [rrset for rrset in response.authority if rrset.rdtype != dns.rdatatype.SOA]


class World:
    """Hosts, clocks, and one resolver that is asked."""

    def __init__(self, seed: int = 1, short: bool = False) -> None:
        self.short = short  # whether the shortcut is tried first, as workers do
        self.shortened = 0
        self.hosts: dict[str, Host] = {}
        self.mono_ms = 1_000_000
        self.wall_ms = 1_800_000_000_000
        self.asks: list[Ask] = []
        self.config: dict[str, int] = {
            "qname_minimisation": False, "case_randomisation": False, "priming": False, "dnssec": False,
        }  # fmt: skip
        self.root = ["1.0.0.1"]
        self.special: frozenset[bytes] = frozenset()
        self.min_ttl = 0
        self.slack_s = 0  # by how much time may pass by itself (`wired`)
        self._chance = random.Random(seed)
        self._resolver: Resolver | None = None
        self.realms: Realms | None = None
        self._shortcut: Shortcut | None = None

    @property
    def resolver(self) -> Resolver:
        """Made when it is first asked."""
        if self._resolver is None:
            config = Config(**self.config, special=self.special)  # type: ignore[arg-type]
            hints = hints_of.from_pairs([("ns.root", tuple(self.root))])
            self._resolver = Resolver(config, hints, self._chance.randrange, RRCache(1 << 20, self.min_ttl), Infra())
        return self._resolver

    def host(self, address: str) -> Host:
        """The host at an address, made when there is none."""
        return self.hosts.setdefault(address, Host())

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.mono_ms += round(seconds * 1000)
        self.wall_ms += round(seconds * 1000)

    def reply(self, ask: Ask) -> Reply:
        """What becomes of an ask; time passes with it."""
        self.asks.append(ask)
        host = self.hosts.get(ask.server[0])
        said = host.answer(ask) if host is not None else None
        if isinstance(said, bytes) and host is not None and host.slow_ms <= ask.timeout_ms and matches(ask.wire, said):
            self.wait(host.slow_ms / 1000)
            return Reply(said, self.mono_ms)
        if isinstance(said, str):
            return Reply(None, self.mono_ms, said)
        self.wait(ask.timeout_ms / 1000)
        return Reply(None, self.mono_ms, "timeout")

    def play(self, question: Generator[Ask, Reply, Outcome], reply: Callable[[Ask], Reply] | None = None) -> Outcome:
        """Drive a resolution to its end."""
        try:
            ask = next(question)
            while True:
                told = (reply or self.reply)(ask)
                self.resolver.cache.clock(self.wall_ms // 1000)
                ask = question.send(told)
        except StopIteration as stop:
            outcome: Outcome = stop.value
            return outcome

    def ask(self, qname: str, qtype: str, do: bool = False, trace: list[Step] | None = None) -> Outcome:
        """A client's question."""
        self.asks.clear()
        self.resolver.cache.clock(self.wall_ms // 1000)
        sname = names.from_text(qname if qname != "." else ".")
        return self.look_up(sname, int(dns.rdatatype.from_text(qtype)), do, trace)

    def look_up(
        self,
        sname: bytes,
        qtype: int,
        do: bool = False,
        trace: list[Step] | None = None,
        reply: Callable[[Ask], Reply] | None = None,
    ) -> Outcome:
        """As a worker does it: the shortcut's question first, if it has one, and the generator with what came of it."""
        began_ms = self.mono_ms
        if self._shortcut is None or self._shortcut.resolver is not self.resolver:
            self._shortcut = Shortcut(self.resolver)
        start = self._shortcut.begin(sname, qtype, do, False, began_ms) if self.short else None
        tried = None
        while start is not None:
            asked_ms = self.mono_ms
            told = (reply or self.reply)(Ask(start.server, start.wire, UDP, start.patience_ms, fresh=True))
            self.resolver.cache.clock(self.wall_ms // 1000)
            found = None
            if told.wire is not None:
                found = self._shortcut.end(start, told.wire, told.now_ms - asked_ms, told.now_ms)
            if isinstance(found, bytes):
                if found:
                    self.shortened += 1
                    return Outcome(found)
                start = None
            else:
                tried = start.tried(told.wire, told.error, asked_ms, told.now_ms) if found is None else None
                start = found
        return self.play(self.resolver.resolve(sname, qtype, do, False, began_ms, trace, realms=self.realms, tried=tried), reply)


# --- scenarios --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Line:
    """A line at the margin with those under it."""

    number: int
    words: list[str]
    below: list[str]


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One case."""

    title: str
    file: str
    lines: list[Line]


def scenarios() -> Iterator[Scenario]:
    """All scenarios of all files."""
    for path in sorted(FOLDER.glob("*.scenario")):
        title = ""
        lines: list[Line] = []
        for number, text in enumerate(path.read_text().splitlines(), 1):
            text = text.split(" #")[0].rstrip()
            if not text or text.startswith("#"):
                continue
            if text[0] == " ":
                lines[-1].below.append(text.strip())
                continue
            word, _, rest = text.partition(" ")
            if word == "scenario":
                if title:
                    yield Scenario(title, path.name, lines)
                title, lines = rest, []
            else:
                lines.append(Line(number, text.split(), []))
        if title:
            yield Scenario(title, path.name, lines)


def play(scenario: Scenario, world: World | None = None) -> int:
    """Play a scenario; AssertionError with file and line when something is not as expected.

    Returns how many questions needed no generator.
    """
    world = world or World()
    for line in scenario.lines:
        word, *rest = line.words
        try:
            _VERBS[word](world, rest, line.below)
        except AssertionError as error:
            sent = "\n".join(f"  {a.server[0]} {a.transport} {_asked(a)[0]} {_asked(a)[1]}" for a in world.asks)
            raise AssertionError(f"{scenario.file}:{line.number}: {error}\nasked:\n{sent}") from None
    return world.shortened


def _config(world: World, words: list[str], below: list[str]) -> None:
    short = {"minimisation": "qname_minimisation", "case": "case_randomisation"}
    for word in words:
        key, _, value = word.partition("=")
        if key == "root":
            world.root = value.split(",")
        elif key == "special":
            world.special = frozenset(names.from_text(name) for name in value.split(","))
        elif key == "min_ttl":
            world.min_ttl = int(value)
        elif key == "prefer":
            world.config[key] = int(value)
        else:
            world.config[short.get(key, key)] = value == "yes"


def _server(world: World, words: list[str], below: list[str]) -> None:
    address, apex, *habits = words
    host = world.host(address)
    for habit in habits:
        key, _, value = habit.partition("=")
        if key == "slow":
            host.slow_ms = int(value)
        else:
            host.habits.add(habit)
    zone = Zone(absolute(apex))
    for line in below:
        zone.add(record(line))
    if not any(owner == zone.apex and rtype == dns.rdatatype.SOA for owner, rtype in zone.rrsets):
        zone.add(zone.soa())
    host.zones.append(zone)


def _on(world: World, words: list[str], below: list[str]) -> None:
    address, name, rtype = words
    script: dict[str, list[str]] = {}
    for line in below:
        key, _, value = line.partition(" ")
        script.setdefault(key, []).append(value)
    world.host(address).scripted[absolute(name), rtype] = script


def _asked(ask: Ask) -> tuple[str, str]:
    question = dns.message.from_wire(ask.wire).question[0]
    return question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)


def _ask(world: World, words: list[str], below: list[str]) -> None:
    began_ms = world.mono_ms
    outcome = world.ask(words[0], words[1], "do" in words[2:])
    response = dns.message.from_wire(outcome.response) if outcome.response is not None else None
    rcode = dns.rcode.to_text(response.rcode()) if response is not None else "SERVFAIL"
    answers = list(response.answer) if response is not None else []
    expected: list[dns.rrset.RRset] | None = None
    for line in below:
        key, _, value = line.partition(" ")
        if key == "rcode":
            assert rcode == value, f"rcode {rcode} ({outcome.text}), expected {value}"
        elif key == "answer":
            expected = expected or []
            if value != "none":
                expected.append(record(value))
                if not any(
                    rrset.name == expected[-1].name and rrset.rdtype == expected[-1].rdtype and expected[-1][0] in rrset
                    for rrset in answers
                ):
                    raise AssertionError(f"no {value} in {[str(rrset) for rrset in answers]}")
        elif key == "authority":
            types = {dns.rdatatype.to_text(rrset.rdtype) for rrset in response.authority} if response else set()
            assert types == (set() if value == "none" else set(value.split())), f"authority holds {types}"
        elif key == "ttl":
            found = (answers or (response.authority if response else []))[0].ttl
            assert 0 <= int(value) - found <= world.slack_s, f"TTL {found}, expected {value}"
        elif key == "asks":
            if value.startswith("<="):
                assert len(world.asks) <= int(value[2:]), f"{len(world.asks)} asks"
            else:
                assert len(world.asks) == int(value), f"{len(world.asks)} asks, expected {value}"
        elif key == "asked":
            address, name, rtype = value.split()
            found_asks = [(a.server[0], *_asked(a)) for a in world.asks]
            assert (address, absolute(name).to_text().lower(), rtype) in found_asks, f"never asked {value}"
        elif key == "unasked":
            address, *name_of = value.split()
            hits = [a for a in world.asks if a.server[0] == address]
            if name_of:
                hits = [a for a in hits if _asked(a)[0] == absolute(name_of[0]).to_text().lower()]
            assert not hits, f"asked {value}"
        elif key == "tcp":
            assert any(a.transport == TCP and a.server[0] == value for a in world.asks), "no TCP"
        elif key == "ede":
            assert outcome.ede == int(value), f"EDE {outcome.ede} ({outcome.text}), expected {value}"
        elif key == "text":
            assert value in outcome.text, f"{outcome.text!r} does not hold {value!r}"
        elif key == "within":
            took_ms = world.mono_ms - began_ms
            assert took_ms <= int(value) + 1000 * world.slack_s, f"took {took_ms} ms"
        else:
            raise AssertionError(f"cannot expect {key!r}")
    if expected is not None:
        total = sum(len(rrset) for rrset in answers)
        assert total == len(expected), f"{total} records, expected {len(expected)}: {[str(rrset) for rrset in answers]}"


def _kill(world: World, words: list[str], below: list[str]) -> None:
    world.host(words[0]).dead = True


def _revive(world: World, words: list[str], below: list[str]) -> None:
    world.host(words[0]).dead = False
    world.host(words[0]).habits.clear()


def _empty(world: World, words: list[str], below: list[str]) -> None:
    world.hosts[words[0]] = Host()


def _wait(world: World, words: list[str], below: list[str]) -> None:
    world.wait(float(words[0]))


def _back(world: World, words: list[str], below: list[str]) -> None:
    world.wall_ms -= round(float(words[0]) * 1000)


_VERBS = {
    "config": _config, "server": _server, "on": _on, "ask": _ask, "wait": _wait, "back": _back, "kill": _kill,
    "revive": _revive, "empty": _empty,
}  # fmt: skip

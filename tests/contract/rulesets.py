"""Random rule sets and questions, and an oracle that reads precedence straight from the rules.

The oracle does no indexing and no sorting of its own making: for one question it looks at every rule
and every pattern, as DESIGN's list of steps reads, and takes the best. Slow, and therefore a judge.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import random

from controller.ruleset import (
    BELOW,
    EVERY,
    EXACT,
    LIST,
    SELF_AND_BELOW,
    Address,
    Defaults,
    Forward,
    Group,
    ListText,
    NameList,
    Network,
    Pattern,
    Protection,
    Record,
    Redirection,
    Reply,
    Rule,
    RuleSet,
    Schedule,
    Server,
    Where,
    Window,
    Zone,
)
from dnsd.contract import codes, facts, names

N = names.from_text
LABELS = ("a", "b", "c", "www", "ads")
TOPS = ("example", "net.example", "lan")
QTYPES = (codes.TYPE_A, codes.TYPE_AAAA, codes.TYPE_TXT, codes.TYPE_MX)


def where(line: int, path: str = "rules.d/x.yaml") -> Where:
    """A place."""
    return Where(path, line, 3)


def network(text: str) -> Network:
    """A network from text."""
    parsed = ipaddress.ip_network(text)
    return Network(parsed.version, int(parsed.network_address), int(parsed.broadcast_address), text, where(1))


def soa_records(apex: bytes, ttl: int = 300) -> tuple[Record, ...]:
    """The SOA and NS that every zone has."""
    soa = apex + b"\x0ahostmaster" + apex + (1).to_bytes(4, "big") * 4 + (10).to_bytes(4, "big")
    return (
        Record(apex, codes.TYPE_SOA, ttl, soa, "", where(40)),
        Record(apex, codes.TYPE_NS, ttl, apex, "", where(40)),
    )


def address_record(owner: str, address: str, line: int = 41) -> Record:
    """An A or AAAA record."""
    parsed = ipaddress.ip_address(address)
    rtype = codes.TYPE_A if parsed.version == 4 else codes.TYPE_AAAA
    return Record(N(owner), rtype, 300, parsed.packed, address, where(line))


def ruleset(
    rules: list[Rule],
    *,
    groups: dict[str, Group] | None = None,
    lists: dict[str, list[str]] | None = None,
    zones: list[Zone] | None = None,
    forwards: list[Forward] | None = None,
    schedules: dict[str, Schedule] | None = None,
    reply: int = codes.REPLY_NXDOMAIN,
    protection: Protection | None = None,
) -> RuleSet:
    """A rule set of these parts."""
    texts = {
        name: NameList(name, where(3), (ListText(f"{name}.txt", "domains", "\n".join(members).encode(), where(3)),))
        for name, members in (lists or {}).items()
    }
    return RuleSet(
        groups=groups or {},
        schedules=schedules or {},
        lists=texts,
        rules={rule.name: rule for rule in rules},
        zones={zone.name: zone for zone in zones or []},
        forwards={forward.name: forward for forward in forwards or []},
        defaults=Defaults(Reply(reply), 10, "UTC"),
        protection=protection or Protection(),
    )


def everyone(*, gates: bytes = b"", special: bool = True) -> bytes:
    """Facts in which every address may ask."""
    return facts.encode(
        facts.Facts(
            v4=((0, 2**32 - 1),),
            v6=((bytes(16), b"\xff" * 16),),
            gates=gates,
            flags=facts.FLAG_SPECIAL_USE if special else 0,
        )
    )


# --- random cases -----------------------------------------------------------------------------------------------------


def _name(rng: random.Random) -> str:
    return ".".join([*(rng.choice(LABELS) for _ in range(rng.randint(0, 3))), rng.choice(TOPS)])


def _patterns(rng: random.Random, lists: list[str], redirect: bool) -> list[Pattern]:
    out = []
    for line in range(rng.randint(1, 3)):
        kind = rng.choice([SELF_AND_BELOW] * 4 + [BELOW, EXACT] + ([] if redirect else [LIST, LIST, EVERY]))
        if kind == LIST:
            out.append(Pattern(kind, where(line), value=rng.choice(lists)))
        elif kind == EVERY:
            out.append(Pattern(kind, where(line), text="."))
        else:
            out.append(Pattern(kind, where(line), N(_name(rng))))
    return out


def random_rules(rng: random.Random) -> RuleSet:
    """A rule set of up to eight rules over few names, so that they meet often."""
    lists = {name: sorted({_name(rng) for _ in range(rng.randint(0, 6))}) for name in ("one", "two")}
    groups = {
        name: Group(name, where(2), False, tuple(network(f"10.0.0.{rng.randrange(0, 16, 4)}/30") for _ in range(2)))
        for name in ("g1", "g2", "g3")
    }
    groups["g6"] = Group("g6", where(2), False, (network("fd00::/64"),))
    rules = []
    for number in range(rng.randint(1, 8)):
        action = rng.choice([codes.RULE_BLOCK, codes.RULE_BLOCK, codes.RULE_ALLOW, codes.RULE_REDIRECT])
        patterns = _patterns(rng, list(lists), action == codes.RULE_REDIRECT)
        targets = []
        for _ in patterns:
            addresses: tuple[Address, ...] = (ipaddress.IPv4Address(f"192.0.2.{rng.randint(1, 9)}"),)
            targets.append(Redirection(addresses) if rng.random() < 0.6 else Redirection(name=N(_name(rng))))
        rules.append(
            Rule(
                name=f"r{number}",
                where=where(10 + number),
                action=action,
                patterns=tuple(patterns),
                redirections=tuple(targets) if action == codes.RULE_REDIRECT else (),
                applies=tuple(rng.sample(sorted(groups), rng.choice([0, 0, 1, 2]))),
                exempts=tuple(rng.sample(sorted(groups), rng.choice([0, 0, 0, 1]))),
                schedule=rng.choice([None, None, None, "s1", "s2"]),
                qtypes=tuple(sorted(rng.sample(QTYPES, rng.choice([0, 0, 0, 1, 2])))),
                priority=rng.choice([0, 0, 0, 0, 1, -1, 1000, -1000]),
                reply=rng.choice([None, None, Reply(rng.choice([1, 2, 3, 4, 5]))]),
                expires=rng.choice([None, None, None, 100, 200]),
                enabled=rng.random() < 0.9,
            )
        )
    apex = N("lan")
    zone = Zone(
        apex, where(40), 300, False,
        (*soa_records(apex), address_record("a.lan", "10.1.1.1"), address_record("*.ads.lan", "10.1.1.2"),
         address_record("c.b.lan", "10.1.1.3"), Record(N("www.lan"), codes.TYPE_CNAME, 60, N("c.b.lan"), "", where(44))),
    )  # fmt: skip
    forwards = [Forward(names.ROOT, where(50), (Server(ipaddress.IPv4Address("127.0.0.1"), 5399),))]
    if rng.random() < 0.4:
        forwards.append(Forward(N("c.a.lan"), where(51), (Server(ipaddress.IPv4Address("127.0.0.2")),)))
    window = (Window((0,), 0, 60, "UTC"),)
    return ruleset(
        rules,
        groups=groups,
        lists=lists,
        zones=[zone] if rng.random() < 0.6 else [],
        forwards=forwards,
        schedules={name: Schedule(name, where(5), window) for name in ("s1", "s2")},
        reply=rng.choice([codes.REPLY_NXDOMAIN, codes.REPLY_NODATA, codes.REPLY_ZERO]),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and the facts' open conditions (schedule names and expiry moments that hold)."""

    qname: bytes
    qtype: int
    client: str
    open: frozenset[str | int]


def random_question(rng: random.Random) -> Question:
    """A question that is likely to meet the rules."""
    client = f"10.0.0.{rng.randrange(0, 20)}" if rng.random() < 0.8 else f"fd00::{rng.randrange(1, 9):x}"
    conditions: list[str | int] = [c for c in ("s1", "s2", 100, 200) if rng.random() < 0.6]
    return Question(N(_name(rng)), rng.choice(QTYPES), client, frozenset(conditions))


# --- the oracle -------------------------------------------------------------------------------------------------------


def _matches(pattern: Pattern, qname: bytes, rules: RuleSet) -> list[tuple[int, int, int]]:
    """(written, labels, exact) for each way in which this pattern holds for the qname."""
    at, below = pattern.name == qname, bool(pattern.name) and names.is_below(qname, pattern.name)
    labels = names.count(pattern.name) if pattern.name else 0
    if pattern.kind == EVERY:
        return [(0, 0, 0)]
    if pattern.kind == LIST:
        listed = [N(line) for line in rules.lists[pattern.value].texts[0].data.decode().split("\n") if line]
        return [(0, names.count(name), 0) for name in listed if name == qname or names.is_below(qname, name)]
    if pattern.kind == EXACT:
        return [(1, labels, 1)] if at else []
    if pattern.kind == BELOW:
        return [(1, labels, 0)] if below else []
    return [(1, labels, 0)] if at or below else []


def groups_of(rules: RuleSet, client: str) -> set[str]:
    """The groups that an address is in."""
    address = ipaddress.ip_address(client)
    return {
        group.name
        for group in rules.groups.values()
        if any(n.version == address.version and n.first <= int(address) <= n.last for n in group.networks)
    }


def winner(rules: RuleSet, question: Question, own: bool) -> str | None:
    """The name of the rule that decides, straight from the rules; `own`: only written names count."""
    mine = groups_of(rules, question.client)
    best: tuple[tuple[object, ...], str] | None = None
    for rule in rules.rules.values():
        if not rule.enabled or (rule.applies and mine.isdisjoint(rule.applies)) or not mine.isdisjoint(rule.exempts):
            continue
        if rule.schedule and rule.schedule not in question.open:
            continue
        if rule.expires is not None and rule.expires not in question.open:
            continue
        if rule.qtypes and question.qtype not in rule.qtypes:
            continue
        for position, pattern in enumerate(rule.patterns):
            if rule.redirections and rule.redirections[position].name == question.qname:
                continue
            for written, labels, exact in _matches(pattern, question.qname, rules):
                if own and not written:
                    continue
                order = {codes.RULE_ALLOW: 3, codes.RULE_REDIRECT: 2, codes.RULE_BLOCK: 1}[rule.action]
                steps = (rule.priority, written, bool(rule.applies), (labels, exact), bool(rule.qtypes), order)
                if best is None or steps > best[0] or (steps == best[0] and rule.name < best[1]):
                    best = (steps, rule.name)
    return best[1] if best else None


def is_own(rules: RuleSet, qname: bytes) -> bool:
    """Whether the name is in a zone of ours that no nearer forward entry takes it out of."""
    for suffix in names.suffixes(qname):
        if suffix in rules.zones:
            return True
        if suffix in rules.forwards:
            return False
    return False

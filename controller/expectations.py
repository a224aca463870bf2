"""The `tests` section: questions and what is expected, as `RuleTest` values. Running them is `ruletest`."""

from __future__ import annotations

import ipaddress

from controller import members, people
from controller.diagnostics import did_you_mean
from controller.documents import MAPPING, SCALAR, Node
from controller.domains import DomainError, to_ascii
from controller.domains import name as domain_name
from controller.gather import Gathered, text
from controller.ruleset import Address, RuleSet, RuleTest, Where
from dnsd.contract import codes, names

LOCAL = ipaddress.IPv4Address("127.0.0.1")  # who asks when a test does not say


def build(g: Gathered, ruleset: RuleSet, timezone: str) -> list[RuleTest]:
    """All tests that can be asked; findings go to `g`. `timezone` is for an `at` without an offset."""
    return [test for node in g.tests if (test := _test(g, ruleset, timezone, node)) is not None]


def _test(g: Gathered, ruleset: RuleSet, timezone: str, node: Node) -> RuleTest | None:
    query, name_node = node.get("query"), node.get("name")
    expect, where_expect = _expect(g, ruleset, node.get("expect"))
    given = _given(g, node.get("given"))
    if query is None or query.kind != MAPPING or name_node is None:
        return None
    asked = query.get("name")
    if asked is None or asked.kind != SCALAR or asked.value is None:
        return None
    try:
        qname = _qname(asked.text)
    except DomainError as error:
        g.add(error.code, error.message, asked.where, error.help)
        return None
    qtype = codes.TYPE_A
    type_node = query.get("type")
    if type_node is not None and type_node.kind == SCALAR and type_node.value is not None:
        try:
            qtype = codes.qtype_number(type_node.text)
        except KeyError:
            near = did_you_mean(type_node.text.upper(), codes.QTYPES)
            help = f"did you mean '{near}'?" if near else ""
            g.add("E012", f"{type_node.text!r} is not a query type", type_node.where, help)
            return None
    client = _client(g, ruleset, query.get("client"))
    at: int | None = None
    at_node = query.get("at")
    if at_node is not None and at_node.kind == SCALAR and at_node.value is not None:
        try:
            at = people.parse_at(at_node.text, timezone)
        except ValueError:
            help = "write 2026-03-02T10:00, or with an offset 2026-03-02T10:00+01:00"
            g.add("E012", f"{at_node.text!r} is not a time", at_node.where, help)
            return None
    if client is None:
        return None
    return RuleTest(text(node, "name"), name_node.where, qname, qtype, client, at, given, expect, where_expect)


def _qname(written: str) -> bytes:
    """A question's name: whatever can be asked on the wire, so wider than the names of rules."""
    try:
        return domain_name(written)
    except DomainError as error:
        try:
            return names.from_text(to_ascii(written))
        except names.NameSyntaxError:
            raise error from None


def _client(g: Gathered, ruleset: RuleSet, node: Node | None) -> Address | None:
    if node is None or node.kind != SCALAR or node.value is None:
        return LOCAL
    single = members.address(node.text)
    if single is not None:
        return single
    if not g.reference("client or group", node.text, node.where, g.people()):
        return None
    networks = ruleset.groups[node.text].networks if node.text in ruleset.groups else ()
    if not networks:
        g.add("E012", f"{node.text!r} has no address that could ask", node.where, "write an address")
        return None
    first = networks[0]
    # The first address of a network is the network's own; a host has the next one.
    number = first.first + (1 if first.last > first.first + 1 else 0)
    return ipaddress.IPv4Address(number) if first.version == 4 else ipaddress.IPv6Address(number)


def _given(g: Gathered, node: Node | None) -> dict[str, tuple[bytes, ...]]:
    out: dict[str, tuple[bytes, ...]] = {}
    listed = node.get("lists") if node is not None and node.kind == MAPPING else None
    for name, (key, value) in listed.pairs.items() if listed is not None else ():
        if not g.reference("list", name, key.where, g.entries["lists"]):
            continue
        wire = set()
        for item in value.strings():
            try:
                wire.add(domain_name(item.text))
            except DomainError as error:
                g.add(error.code, error.message, item.where, error.help)
        out[name] = tuple(sorted(wire))
    return out


def _expect(g: Gathered, ruleset: RuleSet, node: Node | None) -> tuple[dict[str, object], dict[str, Where]]:
    """What is expected, normalised: text for words, int for ttl, a tuple of texts for record types and `to`."""
    out: dict[str, object] = {}
    where: dict[str, Where] = {}
    for word, (key, value) in node.pairs.items() if node is not None and node.kind == MAPPING else ():
        where[word] = value.where
        if word == "ttl":
            out[word] = g.ttl(value)
        elif word in ("action", "rule", "rcode"):
            if value.kind != SCALAR or value.value is None:
                continue
            out[word] = value.text
            if word == "rule":
                g.reference("rule", value.text, value.where, g.rules)
            elif word == "rcode":
                out[word] = value.text.upper()
                if value.text.upper() not in codes.RCODES:
                    near = did_you_mean(value.text.upper(), codes.RCODES)
                    help = f"did you mean '{near}'?" if near else f"one of: {', '.join(codes.RCODES)}"
                    g.add("E012", f"{value.text!r} is not an rcode", value.where, help)
        elif word == "to":
            out[word] = tuple(item.text for item in value.strings())
        elif word.isupper():
            try:
                codes.qtype_number(word)
            except KeyError:
                near = did_you_mean(word, codes.QTYPES)
                g.add("E010", f"unknown key '{word}'", key.where, f"did you mean '{near}'?" if near else "")
                continue
            out[word] = tuple(item.text for item in value.strings())
    return out, where

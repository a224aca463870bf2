"""Checks over a whole rule set: contradictions, circles, what can never be reached, and lint.

Pure: today's date is an argument, and only lint looks at it. Nothing in a list's content is ever an error here,
because a list changes without a commit.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Iterator, Sequence

from controller import lint
from controller.classes import flatten
from controller.diagnostics import Diagnostic, found, in_order
from controller.ruleset import (
    BELOW,
    EXACT,
    LIST,
    SELF_AND_BELOW,
    Forward,
    Record,
    Rule,
    RuleSet,
    RuleTest,
    Where,
    Window,
    Zone,
)
from dnsd.contract import codes, names


def check(ruleset: RuleSet, today: datetime.date | None = None, tests: Sequence[RuleTest] = ()) -> list[Diagnostic]:
    """All findings about a rule set, in order of place. Without `today` nothing is said about expiry."""
    enabled = [rule for rule in ruleset.rules.values() if rule.enabled]
    out: list[Diagnostic] = []
    tied = set()
    for finding, pair in _ties(ruleset, enabled):
        out.append(finding)
        tied.add(pair)
    for zone in ruleset.zones.values():
        out += _aliases(zone)
    out += _circles(ruleset)
    out += _forwards(ruleset, enabled)
    out += lint.twice(ruleset)
    out += lint.shadowed(enabled, tied)
    out += lint.unused(ruleset, tests)
    out += lint.empty(ruleset)
    out += lint.own_names(ruleset, enabled)
    out += _targets(ruleset, enabled)
    if today is not None:
        out += lint.expiry(enabled, today)
    return in_order(out)


# --- contradictions ---------------------------------------------------------------------------------------------------


def _answer(ruleset: RuleSet, rule: Rule, index: int) -> tuple[object, ...]:
    """What a client gets from one pattern of a rule, apart from the TTL."""
    if rule.action == codes.RULE_BLOCK:
        reply = rule.reply or ruleset.defaults.reply
        return reply.code, reply.addresses
    if rule.action == codes.RULE_REDIRECT:
        target = rule.redirections[index]
        return target.addresses, target.name
    return ()


def _ties(ruleset: RuleSet, rules: Iterable[Rule]) -> Iterator[tuple[Diagnostic, tuple[str, str]]]:
    """Rules that only step (7), their names, tells apart, with different answers.

    An error when they meet over the same written domain and `when` and `except` are equal or absent in one;
    lint otherwise, and always for lists.
    """
    seen: dict[tuple[object, ...], list[tuple[Rule, int]]] = {}
    for rule in sorted(rules, key=lambda r: r.where):
        for index, pattern in enumerate(rule.patterns):
            # At one name `x` equals `*.x`, and `=x` stands by itself.
            kind = EXACT if pattern.kind == EXACT else BELOW if pattern.kind == SELF_AND_BELOW else pattern.kind
            place = (rule.priority, rule.action, rule.applies, rule.qtypes, kind, pattern.name, pattern.value)
            for other, other_index in seen.get(place, ()):
                if other.name == rule.name:
                    continue
                if _answer(ruleset, other, other_index) == _answer(ruleset, rule, index):
                    continue
                if not _meet(ruleset, other.schedule, rule.schedule):
                    continue
                yield _tie(other, other_index, rule, index), (min(other.name, rule.name), max(other.name, rule.name))
            seen.setdefault(place, []).append((rule, index))


def _tie(first: Rule, first_index: int, second: Rule, index: int) -> Diagnostic:
    pattern = second.patterns[index]
    met = _equal_or_absent(first.schedule or "", second.schedule or "") and _equal_or_absent(
        first.exempts, second.exempts
    )
    related = [(first.patterns[first_index].where, f"rule {first.name!r} says otherwise")]
    words = f"rules {first.name!r} and {second.name!r} give different answers for {pattern.text!r} to the same clients"
    if met and pattern.kind != LIST:
        return found("E026", words, pattern.where, "give one of them a higher priority, or delete one", related)
    winner = min(first.name, second.name)
    help = f"{winner!r} wins because its name sorts first; give one of them a higher priority"
    return found("W108", words, pattern.where, help, related)


def _meet(ruleset: RuleSet, one: str | None, other: str | None) -> bool:
    """Whether two schedules may be open at the same moment. With different time zones: assumed."""
    if one is None or other is None or one == other:
        return True
    first, second = ruleset.schedules[one].windows, ruleset.schedules[other].windows
    if len({window.timezone for window in (*first, *second)}) > 1:
        return True
    ranges = [list(_week(window)) for window in second]
    return any(a < d and c < b for window in first for a, b in _week(window) for listed in ranges for c, d in listed)


def _week(window: Window) -> Iterator[tuple[int, int]]:
    """A window as ranges of minutes of the week; what runs over Sunday midnight is at both ends."""
    week = 7 * 1440
    length = (window.end - window.start) % 1440 or 1440
    for day in window.weekdays:
        start = day * 1440 + window.start
        yield start, min(start + length, week)
        if start + length > week:
            yield 0, start + length - week


def _equal_or_absent(one: object, other: object) -> bool:
    return one == other or not one or not other


def _aliases(zone: Zone) -> Iterator[Diagnostic]:
    """CNAME: alone at its name, one of it, never at the apex (RFC 1034, section 3.6.2; RFC 2181, section 10.1)."""
    by_owner: dict[bytes, list[Record]] = {}
    for record in zone.records:
        by_owner.setdefault(record.owner, []).append(record)
    for owner, unordered in by_owner.items():
        listed = sorted(unordered, key=lambda r: r.where)
        aliases = [r for r in listed if r.rtype == codes.TYPE_CNAME]
        if not aliases:
            continue
        name = names.to_text(owner)
        alias = aliases[0]
        if owner == zone.name:
            help = "the zone's own name has a SOA and a NS; write its addresses instead"
            yield found("E027", f"{name} is a zone, so it cannot be an alias (CNAME)", alias.where, help)
        elif len(aliases) > 1:
            related = [(alias.where, "the first one")]
            yield found("E027", f"{name} has more than one CNAME", aliases[1].where, "keep one", related)
        others = [r for r in listed if r.rtype != codes.TYPE_CNAME]
        if others and owner != zone.name:
            other = others[0]
            words = f"{name} has a CNAME and also {codes.qtype_name(other.rtype)} data"
            help = "an alias stands alone: move the other data to the name it points at"
            yield found("E027", words, alias.where, help, [(other.where, "the other data")])


def _owner_zone(ruleset: RuleSet, name: bytes) -> Zone | None:
    for suffix in names.suffixes(name):
        zone = ruleset.zones.get(suffix)
        if zone is not None:
            return zone
    return None


class _Owners:
    """Exact and wildcard lookups over all own zones."""

    def __init__(self, ruleset: RuleSet) -> None:
        self.ruleset = ruleset
        self.aliases = {
            r.owner: r for zone in ruleset.zones.values() for r in zone.records if r.rtype == codes.TYPE_CNAME
        }
        self.existing = {s for zone in ruleset.zones.values() for r in zone.records for s in names.suffixes(r.owner)}

    def match(self, name: bytes) -> bytes | None:
        """The owner that answers for a name: itself, or the wildcard at its closest encloser (RFC 4592); or None."""
        if name in self.existing:
            return name
        for suffix in names.suffixes(name)[1:]:
            if suffix in self.existing:
                wildcard = b"\x01*" + suffix
                return wildcard if wildcard in self.existing else None
        return None


def _circles(ruleset: RuleSet) -> Iterator[Diagnostic]:
    """CNAMEs of our own that lead back to themselves."""
    owners = _Owners(ruleset)
    reported: set[bytes] = set()
    for start, alias in sorted(owners.aliases.items()):
        path = [start]
        name = alias.rdata
        while (owner := owners.match(name)) in owners.aliases and owner is not None and owner not in path:
            path.append(owner)
            name = owners.aliases[owner].rdata
        if owner != start or start in reported:
            continue
        reported.update(path)
        chain = " → ".join(names.to_text(step) for step in (*path, start))
        related = [(owners.aliases[step].where, "and on from here") for step in path[1:]]
        yield found(
            "E028", f"these aliases lead in a circle: {chain}", alias.where, "let one of them end in data", related
        )


# --- what can never be reached ----------------------------------------------------------------------------------------


def _two_groups(ruleset: RuleSet, forward: Forward) -> Iterator[Diagnostic]:
    """Clients that are in two groups with different servers for the same names: nothing would say which ones to ask."""
    said: set[tuple[str, ...]] = set()
    variants = {variant.group: variant for variant in forward.variants}
    for members in flatten(ruleset.groups).members if len(variants) > 1 else ():
        mine = [variants[name] for name in members if name in variants]
        if any(ruleset.groups[variant.group].client for variant in mine):
            continue  # its own entry counts more
        different = {dataclasses.replace(variant, group="", where=forward.where) for variant in mine}
        key = tuple(variant.group for variant in mine)
        if len(different) > 1 and key not in said:
            said.add(key)
            one, other = mine[0], mine[1]
            name = names.to_text(forward.name)
            words = f"clients in both {one.group!r} and {other.group!r} have two forward entries for {name}"
            help = "let the groups have no member in common, write the same servers, or name the client itself"
            yield found("E026", words, one.where, help, [(other.where, "the other one")])


def _forwards(ruleset: RuleSet, rules: Iterable[Rule]) -> Iterator[Diagnostic]:
    listed = list(rules)
    for forward in ruleset.forwards.values():
        yield from _two_groups(ruleset, forward)
        zone = _owner_zone(ruleset, forward.name)
        name = names.to_text(forward.name)
        if zone is not None and zone.name == forward.name:
            help = "own names are answered here and never forwarded; delete the forward entry or the zone"
            yield found("E029", f"{name} is forwarded, but we own it", forward.where, help, [(zone.where, "the zone")])
        elif zone is not None:
            # Below an own zone a forward entry is a delegation: it takes its names out of the zone, so none may be there.
            for record in zone.records:
                if record.owner == forward.name or names.is_below(record.owner, forward.name):
                    words = f"{name} is forwarded, but {names.to_text(zone.name)} has records there"
                    help = "a forward entry below an own zone takes all its names out of the zone; delete one of the two"
                    yield found("E029", words, forward.where, help, [(record.where, "a record")])
                    break
        elif forward.name != names.ROOT:
            yield from _stopped(forward.name, forward.where, listed)


def _stopped(name: bytes, where: Where, rules: Sequence[Rule]) -> Iterator[Diagnostic]:
    """A forward entry whose every name is blocked for everyone, at every time."""
    open_below = any(
        p.kind in (SELF_AND_BELOW, BELOW, EXACT) and (p.name == name or names.is_below(p.name, name))
        for rule in rules
        if rule.action != codes.RULE_BLOCK
        for p in rule.patterns
    )
    for rule in rules:
        if (
            rule.action != codes.RULE_BLOCK
            or rule.applies
            or rule.schedule
            or rule.qtypes
            or rule.exempts
            or open_below
        ):
            continue
        for p in rule.patterns:
            if p.kind == SELF_AND_BELOW and (p.name == name or names.is_below(name, p.name)):
                words = f"rule {rule.name!r} blocks all of {names.to_text(name)}, which is forwarded"
                help = "its servers are never asked; delete one of the two"
                yield found("W110", words, p.where, help, [(where, "the forward entry")])
                return


def _targets(ruleset: RuleSet, rules: Iterable[Rule]) -> Iterator[Diagnostic]:
    """Redirects to a name of ours that does not exist."""
    owners = _Owners(ruleset)
    for rule in rules:
        for pattern, target in zip(rule.patterns, rule.redirections, strict=False):
            zone = _owner_zone(ruleset, target.name) if target.name else None
            if zone is not None and owners.match(target.name) is None:
                words = f"{pattern.text!r} is redirected to {names.to_text(target.name)}, which does not exist"
                help = f"add it to the zone {names.to_text(zone.name)}, or redirect to another name"
                yield found("W112", words, pattern.where, help, [(zone.where, "the zone")])

"""Lint over a whole rule set: what works and was probably not meant. Pure; never an error, whatever a list holds."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence

from controller import lists
from controller.diagnostics import Diagnostic, found, plural
from controller.ruleset import BELOW, EVERY, EXACT, LIST, SELF_AND_BELOW, Pattern, Rule, RuleSet, RuleTest
from dnsd.contract import codes, names

EXPIRES_SOON_DAYS = 14
_WORDS = {codes.RULE_BLOCK: "blocks", codes.RULE_ALLOW: "allows", codes.RULE_REDIRECT: "redirects"}
_RANK = {codes.RULE_ALLOW: 0, codes.RULE_REDIRECT: 1, codes.RULE_BLOCK: 2}  # step (6) of the precedence


def twice(ruleset: RuleSet) -> Iterator[Diagnostic]:
    """The same target twice in one rule."""
    for rule in ruleset.rules.values():
        seen: dict[tuple[str, bytes, str], Pattern] = {}
        for pattern in rule.patterns:
            first = seen.setdefault((pattern.kind, pattern.name, pattern.value), pattern)
            if first is not pattern:
                words = f"rule {rule.name!r} {_WORDS[rule.action]} {pattern.text!r} twice"
                yield found("W102", words, pattern.where, "delete one", [(first.where, "the first one")])


def shadowed(rules: Sequence[Rule], tied: set[tuple[str, str]]) -> Iterator[Diagnostic]:
    """Patterns that never decide, because another rule always wins where they match."""
    index: dict[tuple[str, bytes, str], list[tuple[Rule, Pattern]]] = {}
    for rule in rules:
        if rule.expires_on is None:
            for pattern in rule.patterns:
                index.setdefault((pattern.kind, pattern.name, pattern.value), []).append((rule, pattern))
    for rule in rules:
        covered: list[tuple[Pattern, Rule, Pattern]] = []
        for pattern in rule.patterns:
            for other, by in _over(index, pattern):
                pair = (min(other.name, rule.name), max(other.name, rule.name))
                if other is not rule and pair not in tied and _wins(other, by, rule, pattern):
                    covered.append((pattern, other, by))
                    break
        if len(covered) == len(rule.patterns) > 1 and len({other.name for _, other, _ in covered}) == 1:
            other, by = covered[0][1], covered[0][2]
            words = f"rule {rule.name!r} never decides: rule {other.name!r} always wins"
            yield found(
                "W101", words, rule.where, "delete it, or change its priority", [(by.where, f"rule {other.name!r}")]
            )
            continue
        for pattern, other, by in covered:
            same = other.action == rule.action and by.text == pattern.text
            words = f"rule {rule.name!r} {'repeats' if same else 'never decides for'} {pattern.text!r}, "
            words += f"which rule {other.name!r} {'already covers' if same else 'always decides'}"
            words += " for the same clients and times" if same else ""
            yield found("W101", words, pattern.where, "remove one", [(by.where, f"rule {other.name!r}")])


def _over(
    index: dict[tuple[str, bytes, str], list[tuple[Rule, Pattern]]], pattern: Pattern
) -> Iterator[tuple[Rule, Pattern]]:
    """Every (rule, pattern) that matches wherever `pattern` matches."""
    yield from index.get((EVERY, names.ROOT, ""), ())
    if pattern.kind == LIST:
        yield from index.get((LIST, b"", pattern.value), ())
    elif pattern.kind in (SELF_AND_BELOW, BELOW, EXACT):
        if pattern.kind != SELF_AND_BELOW:
            yield from index.get((pattern.kind, pattern.name, ""), ())
        for suffix in names.suffixes(pattern.name)[:-1]:
            yield from index.get((SELF_AND_BELOW, suffix, ""), ())
            if suffix != pattern.name:
                yield from index.get((BELOW, suffix, ""), ())


def _wins(a: Rule, by: Pattern, b: Rule, pattern: Pattern) -> bool:
    """Whether rule `a` through `by` wins over `b` through `pattern` for every client, type and moment of `b`."""
    everyone = not a.applies or (bool(b.applies) and set(b.applies) <= set(a.applies))
    every_type = not a.qtypes or (bool(b.qtypes) and set(b.qtypes) <= set(a.qtypes))
    always = a.schedule is None or a.schedule == b.schedule
    if not (everyone and every_type and always and set(a.exempts) <= set(b.exempts)):
        return False
    if a.priority != b.priority:
        return a.priority > b.priority
    written, other = by.kind not in (LIST, EVERY), pattern.kind not in (LIST, EVERY)
    if written != other:
        return written
    if bool(a.applies) != bool(b.applies):
        return bool(a.applies)
    if by.kind == EVERY and pattern.kind == LIST:
        return False  # any name of a list has more labels
    one, two = (names.count(p.name) if p.name else 0 for p in (by, pattern))
    if one != two or (by.kind == EXACT) != (pattern.kind == EXACT):
        return one > two
    if bool(a.qtypes) != bool(b.qtypes):
        return bool(a.qtypes)
    if a.action != b.action:
        return _RANK[a.action] < _RANK[b.action]
    return a.name < b.name


def unused(ruleset: RuleSet, tests: Sequence[RuleTest]) -> Iterator[Diagnostic]:
    """Groups, schedules and lists that no rule uses (groups: and no forward entry)."""
    rules = ruleset.rules.values()
    people = {name for rule in rules for name in (*rule.applies, *rule.exempts)}
    people.update(variant.group for forward in ruleset.forwards.values() for variant in forward.variants)
    schedules = {rule.schedule for rule in rules}
    used = {p.value for rule in rules for p in rule.patterns if p.kind == LIST}
    used.update(name for test in tests for name in test.given)
    for group in ruleset.groups.values():
        # A client may be written down for its name alone; it is shown on the status page.
        if not group.client and group.name not in people:
            yield found("W103", f"no rule uses the group {group.name!r}", group.where, "name it in 'for', or delete it")
    for schedule in ruleset.schedules.values():
        if schedule.name not in schedules:
            help = "name it in 'when', or delete it"
            yield found("W103", f"no rule uses the schedule {schedule.name!r}", schedule.where, help)
    for listed in ruleset.lists.values():
        if listed.name not in used:
            help = f"use it as list:{listed.name}, or delete it"
            yield found("W103", f"no rule uses the list {listed.name!r}", listed.where, help)


def empty(ruleset: RuleSet) -> Iterator[Diagnostic]:
    """Groups without addresses and lists without names."""
    for group in ruleset.groups.values():
        if not group.networks:
            noun = "client" if group.client else "group"
            yield found("W106", f"the {noun} {group.name!r} has no address", group.where, "no client is ever in it")
    for listed in ruleset.lists.values():
        if not lists.names(listed):
            yield found("W106", f"the list {listed.name!r} has no name in it", listed.where, "it matches nothing")


def own_names(ruleset: RuleSet, rules: Iterable[Rule]) -> Iterator[Diagnostic]:
    """Lists that hold a zone of ours: harmless, and good to know."""
    blocking: dict[str, Pattern] = {}
    for rule in rules:
        if rule.action == codes.RULE_BLOCK:
            for p in rule.patterns:
                if p.kind == LIST:
                    blocking.setdefault(p.value, p)
    for zone in ruleset.zones.values():
        for value, pattern in sorted(blocking.items()):
            listed = lists.names(ruleset.lists[value])
            for suffix in names.suffixes(zone.name)[:-1]:
                if suffix in listed:
                    own, name = names.to_text(zone.name), names.to_text(suffix)
                    words = f"list:{value} has {name}, and we own {own}"
                    help = "harmless: a list never decides about an own name, only a name written in a rule does"
                    yield found("W107", words, pattern.where, help, [(zone.where, "the zone")])
                    break


def expiry(rules: Iterable[Rule], today: datetime.date) -> Iterator[Diagnostic]:
    """Rules that have expired, or will soon."""
    for rule in rules:
        if rule.expires_on is None:
            continue
        days = (rule.expires_on - today).days
        if days < 0:
            words = f"rule {rule.name!r} expired on {rule.expires_on}"
            yield found("W104", words, rule.where, "delete it, or give it a later day")
        elif days <= EXPIRES_SOON_DAYS:
            soon = f"in {plural(days, 'day')}" if days else "today"
            yield found("W105", f"rule {rule.name!r} expires {soon}", rule.where, f"its last day is {rule.expires_on}")

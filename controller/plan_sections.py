"""The parts of a plan that are compared as written: rules, records, forwards, lists, schedules.

All of it is read from compiled tables, so two revisions, two folders and two table files compare alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from controller import explain, records
from controller.candidates import Candidates
from controller.decider import server_text
from dnsd.contract import codes, layout, names
from dnsd.contract.tableinfo import RuleInfo, TableInfo

ADDED, REMOVED, CHANGED = "added", "removed", "changed"


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """Something that is added, removed or changed: what it is, how it was, how it will be, and where it is written."""

    kind: str
    what: str
    before: str = ""
    after: str = ""
    where: str = ""


def memberships(side: Candidates) -> Iterator[tuple[bytes, tuple[str, ...]]]:
    """Every listed name with the lists that it is in."""
    known: dict[int, tuple[str, ...]] = {}
    for name, listset in side.listed_names():
        if listset not in known:
            known[listset] = tuple(side.info.lists[number][0] for number in side.lists_of(listset))
        yield name, known[listset]


_Value = TypeVar("_Value")


def diff(
    before: dict[str, tuple[_Value, str]], after: dict[str, tuple[_Value, str]], text: Callable[[_Value], str]
) -> Iterator[Change]:
    """Changes between mappings of name → (value, place)."""
    for name in sorted({*before, *after}):
        if name not in before:
            yield Change(ADDED, name, "", text(after[name][0]), after[name][1])
        elif name not in after:
            yield Change(REMOVED, name, text(before[name][0]), "", before[name][1])
        elif before[name][0] != after[name][0]:
            yield Change(CHANGED, name, text(before[name][0]), text(after[name][0]), after[name][1])


def rules(side: Candidates) -> dict[str, tuple[tuple[RuleInfo, tuple[str, ...], int], str]]:
    """Each rule without its place and number, with its patterns as written and its priority."""
    patterns: dict[int, dict[str, set[str]]] = {}
    priority: dict[int, int] = {}

    def note(candidate: Any, name: str, how: str) -> None:
        arrow = _leads_to(side, candidate.arg)
        patterns.setdefault(candidate.rule, {}).setdefault(name + arrow, set()).add(how)
        priority[candidate.rule] = candidate.priority

    for name, node in side.nodes.items():
        for below in (False, True):
            for candidate in side.all(side.node_set(node, below)):
                note(candidate, names.to_text(name), "below" if below else "=" if candidate.exact else "self")
    for listset in range(side.table.count(layout.SECTION_LISTSETS)):
        for candidate in side.all(side.listset_set(listset, False)):
            note(candidate, f"list:{side.info.lists[candidate.listed][0]}", "self")
    out = {}
    for number in range(side.info.rules()):
        rule = side.info.rule(number)
        texts = []
        for text, hows in sorted(patterns.get(number, {}).items()):
            texts.append(text if "self" in hows or text == "." else f"={text}" if "=" in hows else f"*.{text}")
        bare = dataclasses.replace(rule, number=0, where="", description="", ticket="", owner="")
        out[rule.name] = ((bare, tuple(texts), priority.get(number, 0)), rule.where)
    return out


def _leads_to(side: Candidates, owner: int) -> str:
    if not owner:
        return ""
    target = _owner_entries(side, owner)
    return " → " + ", ".join(dict.fromkeys(text for _, _, text in target))


def rule_text(value: tuple[RuleInfo, tuple[str, ...], int]) -> str:
    """A rule in one line."""
    rule, patterns, priority = value
    if not patterns:
        return f"{rule.action} nothing (disabled, or its lists are empty)"
    shown = ", ".join(patterns[:6]) + (f" and {len(patterns) - 6} more" if len(patterns) > 6 else "")
    parts = [f"{rule.action} {shown}"]
    if rule.groups:
        parts.append(f"for {', '.join(rule.groups)}")
    if rule.exempts:
        parts.append(f"except {', '.join(rule.exempts)}")
    if rule.schedule:
        parts.append(f"when {rule.schedule}")
    if rule.qtypes:
        parts.append(f"types {', '.join(map(codes.qtype_name, rule.qtypes))}")
    if priority:
        parts.append(f"priority {priority}")
    if rule.action == "block" and not rule.reply.endswith("(default)"):
        parts.append(f"reply {rule.reply}")
    if rule.expires is not None:
        parts.append(f"expires {rule.expires}")
    if rule.ttl != 10:
        parts.append(f"ttl {rule.ttl}")
    return ", ".join(parts)


def _owner_entries(side: Candidates, owner: int) -> list[tuple[str, int, str]]:
    """The records of an owner: (type, TTL, data)."""
    words = side.table.part(layout.SECTION_OWNERS).cast("I")
    at = owner - 1
    out = []
    for k in range(words[at + layout.OWNER_ENTRIES]):
        entry = at + layout.OWNER_HEAD + k * layout.ENTRY_WORDS
        qtype = words[entry + layout.ENTRY_QTYPE]
        if qtype == layout.ENTRY_OTHER:
            qtype = codes.TYPE_CNAME
        for rr in side.info.entry(entry + 1)[0]:
            if rr.owner is None and rr.rtype == qtype:
                out.append((codes.qtype_name(rr.rtype), rr.ttl, records.shown(rr.rtype, rr.rdata)))
    return out


def own_records(side: Candidates) -> dict[tuple[str, str], tuple[frozenset[tuple[int, str]], str]]:
    """All own records: (owner, type) → the set of (TTL, data), and the place."""
    out: dict[tuple[str, str], tuple[frozenset[tuple[int, str]], str]] = {}
    zones = side.table.part(layout.SECTION_ZONES).cast("I")
    for name, node in side.nodes.items():
        zone = side.node_zone(node)
        made = zone >= 0 and zones[zone * layout.ZONE_WORDS + layout.ZONE_FLAGS] & layout.ZONE_SOLO
        for owner, prefix in ((side.node_owner(node), ""), (side.node_wild(node), "*.")):
            found: dict[str, set[tuple[int, str]]] = {}
            for rtype, ttl, text in _owner_entries(side, owner) if owner else ():
                if not (made and rtype == "SOA"):  # of a reverse name that `ptr: auto` makes: nobody wrote it
                    found.setdefault(rtype, set()).add((ttl, text))
            for rtype, data in found.items():
                out[prefix + names.to_text(name), rtype] = (frozenset(data), side.info.owner_where(owner))
    return out


def diff_records(
    before: dict[tuple[str, str], tuple[frozenset[tuple[int, str]], str]],
    after: dict[tuple[str, str], tuple[frozenset[tuple[int, str]], str]],
) -> Iterator[Change]:
    """Changes between two answers of `own_records`."""
    def text(data: Iterable[tuple[int, str]]) -> str:
        ttls = {ttl for ttl, _ in data}
        return ", ".join(sorted(item for _, item in data)) + f" (TTL {', '.join(map(str, sorted(ttls)))})"

    named_before = {f"{owner} {rtype}": value for (owner, rtype), value in before.items()}
    named_after = {f"{owner} {rtype}": value for (owner, rtype), value in after.items()}
    return diff(named_before, named_after, text)


def routes(info: TableInfo) -> dict[str, tuple[str, str]]:
    """Each forward entry in one line."""
    out = {}
    for number in range(1, info.table.count(layout.SECTION_ROUTES) + 1):
        route = info.route(number)
        text = route.kind
        if route.kind == "forward":
            servers = ", ".join(server_text(*server) for server in route.servers)
            text = f"{servers} ({route.strategy}, {route.timeout_ms} ms{', dnssec' if route.dnssec else ''})"
        out[f"{route.name} for {route.group}" if route.group else route.name] = (text, route.where)
    return out


def lists(old: Candidates, new: Candidates) -> Iterator[Change]:
    """Lists that come, go or have another content, with how many names they gain and lose."""
    before = {name: (count, where) for name, where, count in old.info.lists}
    after = {name: (count, where) for name, where, count in new.info.lists}
    if old.table.names_digest == new.table.names_digest and before.keys() == after.keys():
        return
    contents: list[dict[str, set[bytes]]] = []
    for side in (old, new):
        members: dict[str, set[bytes]] = {}
        for name, lists in memberships(side):
            for one in lists:
                members.setdefault(one, set()).add(name)
        contents.append(members)
    for title in sorted({*before, *after}):
        was, will = contents[0].get(title, set()), contents[1].get(title, set())
        if title not in before or title not in after or was != will:
            kind = ADDED if title not in before else REMOVED if title not in after else CHANGED
            gained, lost = len(will - was), len(was - will)
            where = (after.get(title) or before[title])[1]
            yield Change(kind, title, f"{len(was)} names", f"{len(will)} names (+{gained} −{lost})", where)


def schedules(info: TableInfo) -> dict[str, tuple[str, str]]:
    """Each schedule that a rule uses, in one line."""
    out = {}
    for gate in info.gates:
        if "schedule" in gate:
            windows: Any = gate["windows"]
            texts = [explain.window_text(window) for window in windows]
            out[str(gate["schedule"])] = ("; ".join(texts), "")
    return out

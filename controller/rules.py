"""Documents to a `RuleSet`: every section read, every reference resolved, every default filled in.

A part that is wrong is reported and left out, and the rest is still read, so one run shows everything. When there
was any error there is no rule set. Shapes are the schema's business: what it refuses is stepped over here.
"""

from __future__ import annotations

import datetime
import hashlib
import os.path
from collections.abc import Sequence

from controller import documents as documents_module
from controller import expectations, forwards, lists, members, people, protection, zones
from controller.diagnostics import Diagnostic, did_you_mean
from controller.documents import MAPPING, SCALAR, SEQUENCE, Document, Node
from controller.domains import DomainError
from controller.domains import name as domain_name
from controller.domains import pattern as domain_pattern
from controller.gather import Gathered, text
from controller.ruleset import (
    EXACT,
    LIST,
    Address,
    Defaults,
    ListText,
    NameList,
    Pattern,
    Redirection,
    Reply,
    Rule,
    RuleSet,
    RuleTest,
    Snapshot,
    Zone,
)
from dnsd.contract import codes, names

RULE_TTL = 10  # of answers that rules make, when nothing is written (DESIGN, section 4)
_ACTIONS = {"block": codes.RULE_BLOCK, "allow": codes.RULE_ALLOW, "redirect": codes.RULE_REDIRECT}


def build(
    snapshot: Snapshot, documents: Sequence[Document] | None = None
) -> tuple[RuleSet | None, list[RuleTest], list[Diagnostic]]:
    """Read all of a snapshot's documents (parsed here when not given) into one rule set, its tests, and findings.

    The rule set is None when there is an error in what was read here.
    """
    if documents is None:
        documents = [documents_module.parse(path, data) for path, data in sorted(snapshot.files.items())]
    g = Gathered(documents)
    defaults, written_zone, written_ttl = _defaults(g)
    groups = people.build_groups(g)
    schedules = people.build_schedules(g, defaults.timezone)
    name_lists = {name: _list(g, snapshot, name, *entry) for name, entry in g.entries["lists"].items()}
    rules = [_rule(g, defaults, *entry) for entry in g.rules.values()]
    own = _zones(g, written_ttl if written_ttl is not None else zones.DEFAULT_TTL)
    forwarded = forwards.build(g)
    ruleset = RuleSet(
        groups=dict(sorted(groups.items())),
        schedules=dict(sorted(schedules.items())),
        lists=dict(sorted(name_lists.items())),
        rules={rule.name: rule for rule in sorted((r for r in rules if r is not None), key=lambda r: r.name)},
        zones=dict(sorted(own.items())),
        forwards=dict(sorted(forwarded.items())),
        defaults=defaults,
        protection=protection.build(g),
    )
    clock = people.clock_zone(written_zone, schedules.values())
    tests = expectations.build(g, ruleset, clock)
    failed = any(finding.is_error for finding in g.found)
    return (None if failed else ruleset), tests, g.found


def clock_zone(ruleset: RuleSet) -> str:
    """The time zone of an `at` without an offset, for `explain` and tests."""
    written = ruleset.defaults.timezone if ruleset.defaults.timezone != "UTC" else None
    return people.clock_zone(written, ruleset.schedules.values())


def _defaults(g: Gathered) -> tuple[Defaults, str | None, int | None]:
    """The defaults, and the time zone and TTL as far as they are written."""
    entries = g.entries["defaults"]
    zone: str | None = None
    if "timezone" in entries and people.check_timezone(g, entries["timezone"][1]):
        zone = entries["timezone"][1].text
    ttl = g.ttl(entries["ttl"][1]) if "ttl" in entries else None
    reply = _reply(g, entries["reply"][1]) if "reply" in entries else None
    made = Defaults(reply or Reply(codes.REPLY_NXDOMAIN), RULE_TTL if ttl is None else ttl, zone or "UTC")
    return made, zone, ttl


def _reply(g: Gathered, node: Node) -> Reply | None:
    """How a blocked name is answered: a word, an address, or addresses."""
    nodes = node.strings()
    if len(nodes) == 1 and nodes[0].text in codes.REPLIES:
        return Reply(codes.REPLIES[nodes[0].text])
    addresses: list[Address] = []
    for item in nodes:
        single = members.address(item.text)
        if single is None:
            near = did_you_mean(item.text, codes.REPLIES)
            help = f"did you mean '{near}'?" if near else ""
            if item.text in codes.REPLIES:
                words = f"'{item.text}' cannot stand beside other replies"
            else:
                words = f"{item.text!r} is not one of: {', '.join(codes.REPLIES)}, or an address"
            g.add("E012", words, item.where, help)
            return None
        if single not in addresses:
            addresses.append(single)
    return (
        Reply(codes.REPLY_ADDRESSES, tuple(sorted(addresses, key=lambda a: (a.version, int(a))))) if addresses else None
    )


def _list(g: Gathered, snapshot: Snapshot, name: str, key: Node, node: Node) -> NameList:
    texts: list[ListText] = []
    domains = node.get("domains") if node.kind == MAPPING else None
    if domains is not None:
        inline = []
        for item in domains.strings():
            try:
                inline.append(names.to_text(domain_name(item.text)))
            except DomainError as error:
                g.add(error.code, error.message, item.where, error.help)
        texts.append(ListText(key.path, lists.DOMAINS, "\n".join(inline).encode("ascii"), domains.where))
    file = node.get("file") if node.kind == MAPPING else None
    if file is not None and file.kind == SCALAR and file.value is not None:
        data = _list_file(g, snapshot, node, file)
        if data is not None:
            path = os.path.normpath(os.path.join(os.path.dirname(key.path), file.text))
            texts.append(ListText(path, text(node, "format") or lists.AUTO, data, file.where))
    entries_node = node.get("max_entries") if node.kind == MAPPING else None
    most = entries_node.value if entries_node is not None and isinstance(entries_node.value, int) else 0
    made = NameList(name, key.where, tuple(texts), most, text(node, "description"))
    if texts and all(t.format in (lists.AUTO, lists.HOSTS, lists.DOMAINS) for t in texts):
        found_names, lint = lists.read(made)
        g.found.extend(lint)
        if most and entries_node is not None and len(found_names) > most:
            words = f"the list {name!r} has {len(found_names):,} names; max_entries is {most:,}"
            g.add("E012", words, entries_node.where, "look at what changed in the list, or raise max_entries")
    return made


def _list_file(g: Gathered, snapshot: Snapshot, node: Node, file: Node) -> bytes | None:
    try:
        data = snapshot.read(file.text, file.path)
    except FileNotFoundError:
        folder = os.path.dirname(file.path) or "."
        g.add("E006", f"there is no file {file.text!r}", file.where, f"the path is relative to this file, in {folder}/")
        return None
    except PermissionError as error:
        reason = error.strerror or str(error) or "it may not be read"
        g.add(
            "E006", f"the file {file.text!r} cannot be read: {reason}", file.where, "keep it in the folder of the rules"
        )
        return None
    except OSError as error:
        g.add("E006", f"the file {file.text!r} cannot be read: {error.strerror or error}", file.where)
        return None
    wanted = text(node, "sha256").lower()
    if len(wanted) == 64 and (got := hashlib.sha256(data).hexdigest()) != wanted:
        pin = node.get("sha256")
        help = f"look at what changed in it; the file now has {got}"
        g.add("E012", f"the file {file.text!r} does not have this SHA-256", pin.where if pin else file.where, help)
    return data


def _pattern(g: Gathered, node: Node) -> Pattern | None:
    try:
        kind, name, value = domain_pattern(node.text)
    except DomainError as error:
        g.add(error.code, error.message, node.where, error.help)
        return None
    if kind == LIST and not g.reference("list", value, node.where, g.entries["lists"]):
        return None
    return Pattern(kind, node.where, name, value, node.text)


def _rule(g: Gathered, defaults: Defaults, key: Node, node: Node) -> Rule | None:
    actions = [word for word in _ACTIONS if word in node.pairs]
    action = actions[0] if len(actions) == 1 else ""
    patterns: list[Pattern] = []
    redirections: list[Redirection] = []
    for word in actions:
        target = node.pairs[word][1]
        if word == "redirect":
            for pattern_node, value in target.pairs.values() if target.kind == MAPPING else ():
                pattern = _pattern(g, pattern_node)
                redirection = _redirection(g, value)
                if pattern is None or redirection is None:
                    continue
                if pattern.kind == EXACT and redirection.name == pattern.name:
                    help = "the name would be its own alias; delete the line"
                    g.add("E028", f"{pattern.text!r} is redirected to itself", value.where, help)
                    continue
                patterns.append(pattern)
                redirections.append(redirection)
        elif target.kind in (SCALAR, SEQUENCE):
            patterns += [p for item in target.strings() if (p := _pattern(g, item)) is not None]
    applies = _references(g, node, "for")
    exempts = _references(g, node, "except")
    when = node.get("when")
    schedule = None
    named = when is not None and when.kind == SCALAR and when.value is not None
    if when is not None and named and g.reference("schedule", when.text, when.where, g.entries["schedules"]):
        schedule = when.text
    reply_node, ttl_node, enabled = node.get("reply"), node.get("ttl"), node.get("enabled")
    reply = _reply(g, reply_node) if reply_node is not None else None
    if reply_node is not None and action in ("allow", "redirect"):
        help = "delete it; a redirect's answer is its target" if action == "redirect" else "delete it"
        g.add("E012", f"'reply' is for block; this rule says {action}", node.key("reply").where, help)
    ttl = g.ttl(ttl_node) if ttl_node is not None else None
    priority = node.get("priority")
    day = _day(g, node.get("expires"))
    if not action:
        return None
    return Rule(
        name=key.text if key.kind == SCALAR else "",
        where=key.where,
        action=_ACTIONS[action],
        patterns=tuple(patterns),
        redirections=tuple(redirections),
        applies=applies,
        exempts=exempts,
        schedule=schedule,
        qtypes=_qtypes(g, node.get("types")),
        priority=priority.value if priority is not None and isinstance(priority.value, int) else 0,
        reply=reply,
        ttl=defaults.ttl if ttl is None else ttl,
        expires=people.end_of_day(day, defaults.timezone) if day is not None else None,
        expires_on=day,
        enabled=enabled is None or enabled.value is not False,
        description=text(node, "description"),
        ticket=text(node, "ticket"),
        owner=text(node, "owner"),
    )


def _references(g: Gathered, node: Node, key: str) -> tuple[str, ...]:
    listed = node.get(key)
    known = g.people()
    out = [
        item.text
        for item in (listed.strings() if listed is not None else ())
        if g.reference("group or client", item.text, item.where, known)
    ]
    return tuple(sorted(set(out)))


def _redirection(g: Gathered, node: Node) -> Redirection | None:
    """An address, several addresses, or one name."""
    nodes = node.strings()
    addresses: list[Address] = []
    for item in nodes:
        single = members.address(item.text)
        if single is not None:
            if single not in addresses:
                addresses.append(single)
            continue
        if len(nodes) > 1:
            g.add("E012", f"{item.text!r} is not an address", item.where, "several targets must be addresses")
            return None
        try:
            return Redirection((), domain_name(item.text))
        except DomainError as error:
            g.add(error.code, error.message, item.where, error.help or "a target is an address or a name")
            return None
    return Redirection(tuple(sorted(addresses, key=lambda a: (a.version, int(a))))) if addresses else None


def _qtypes(g: Gathered, node: Node | None) -> tuple[int, ...]:
    out = set()
    for item in node.strings() if node is not None else ():
        try:
            number = codes.qtype_number(item.text)
        except KeyError:
            near = did_you_mean(item.text.upper(), codes.QTYPES)
            help = f"did you mean '{near}'?" if near else "write types such as A, AAAA, HTTPS or TYPE65280"
            g.add("E012", f"{item.text!r} is not a query type", item.where, help)
            continue
        out.add(number)
    return tuple(sorted(out))


def _day(g: Gathered, node: Node | None) -> datetime.date | None:
    if node is None or node.kind != SCALAR or not isinstance(node.value, str):
        return None
    try:
        day = datetime.date.fromisoformat(node.text)
        if not 1970 < day.year < 9999:
            raise ValueError
    except ValueError:
        g.add("E012", f"{node.text!r} is not a day such as 2027-01-31", node.where)
        return None
    return day


def _zones(g: Gathered, default_ttl: int) -> dict[bytes, Zone]:
    out: dict[bytes, Zone] = {}
    keys: dict[bytes, Node] = {}
    for key, node in g.zones:
        try:
            name = names.ROOT if key.text == "." else domain_name(key.text)
        except DomainError as error:
            g.add(error.code, error.message, key.where, error.help)
            continue
        if name == names.ROOT:
            help = "name the zone, for example office.example.com"
            g.add("E012", "the root is not a zone that we can own", key.where, help)
        elif name in keys:
            g.twice("zone", names.to_text(name), key, keys[name])
        elif node.kind == MAPPING:
            keys[name] = key
            out[name] = zones.build(name, key.where, node, default_ttl, g.ttl, g.found)
    return out

"""Rules to the two blobs of a table: deterministic, and independent of the order of files and rules.

`names` holds everything that came from lists, `policy` all the rest; an edited rule makes a new
policy blob and leaves the names blob as it is. What a query will find is prepared here as far as it
can be: candidates per name and client class in the order of precedence, answers as wire bytes.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from array import array
from collections.abc import Iterable, Mapping, Sequence

from controller import protect
from controller.answers import Answers, own_zones, self_names
from controller.blob import Strings, assemble, meaning_of, words
from controller.classes import Classes, flatten
from controller.names_blob import NamesBlob, names_blob
from controller.ruleset import BELOW, EVERY, EXACT, LIST, SELF_AND_BELOW, Forward, Rule, RuleSet, Where
from dnsd.contract import codes, index, layout, names
from dnsd.contract.special import special_names
from dnsd.contract.table import Table


@dataclasses.dataclass(frozen=True, slots=True)
class Blobs:
    """A compiled table. `digest` names these bytes, `meaning` what they decide (both hex, from the header)."""

    policy: bytes
    names: bytes | bytearray
    digest: str
    meaning: str


# --- candidates -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class _Candidate:
    """A rule at one name; ordered by precedence (largest first when reversed)."""

    high: int
    exact: int
    low: int
    rule: int
    listed: int
    arg: int


class _Sets:
    """Builds SECTION_SETS and SECTION_CANDIDATES, each different set once."""

    def __init__(self, masks: Sequence[int], conditional: Sequence[bool], classes: int) -> None:
        self._masks = masks
        self._conditional = conditional
        self._every = (1 << classes) - 1
        self.words: list[int] = []
        self.candidates: list[int] = []
        self._sets: dict[tuple[_Candidate, ...], int] = {}
        self._runs: dict[tuple[_Candidate, ...], int] = {(): 0}

    def _run(self, candidates: tuple[_Candidate, ...]) -> tuple[int, int]:
        first = self._runs.get(candidates)
        if first is None:
            first = self._runs[candidates] = len(self.candidates) // layout.CANDIDATE_WORDS
            for c in candidates:
                self.candidates += [c.rule, c.high, c.low, c.exact | (c.listed + 1) << 8, c.arg]
        return first, len(candidates)

    def _for_class(self, ordered: Sequence[_Candidate], number: int) -> tuple[_Candidate, ...]:
        """What may decide for one class: the rules that apply to it, up to the first that always holds."""
        out = []
        for candidate in ordered:
            if self._masks[candidate.rule] >> number & 1:
                out.append(candidate)
                if not self._conditional[candidate.rule] and not candidate.arg:
                    break
        return tuple(out)

    def number(self, found: Iterable[_Candidate]) -> int:
        """The set number (word offset + 1) of these candidates; 0 for none."""
        ordered = tuple(sorted(set(found), reverse=True))
        if not ordered:
            return 0
        known = self._sets.get(ordered)
        if known is not None:
            return known
        unlike = 0
        for candidate in ordered:
            mask = self._masks[candidate.rule]
            unlike |= (~mask & self._every) if mask & 1 else mask
        default = self._for_class(ordered, 0)
        rows: list[int] = []
        count = number = 0
        while unlike:
            if unlike & 1:
                mine = self._for_class(ordered, number)
                if mine != default:
                    rows += [number, *self._run(mine)]
                    count += 1
            unlike >>= 1
            number += 1
        at = len(self.words)
        self.words += [*self._run(ordered), *self._run(default), count, *rows]
        self._sets[ordered] = at + 1
        return at + 1

    def sections(self) -> dict[int, tuple[bytes, int]]:
        """The finished sections."""
        return {
            layout.SECTION_SETS: (words(self.words), len(self._sets)),
            layout.SECTION_CANDIDATES: (words(self.candidates), len(self.candidates) // layout.CANDIDATE_WORDS),
        }


# --- gates ------------------------------------------------------------------------------------------------------------


def _gates(rules: RuleSet) -> tuple[dict[str | int, int], bytes, int]:
    """Gate numbers + 1 by schedule name or expiry, the section's JSON, and how many gates there are."""
    active = [rule for rule in rules.rules.values() if rule.enabled]
    numbers: dict[str | int, int] = {}
    described: list[dict[str, object]] = []
    for name in sorted({rule.schedule for rule in active if rule.schedule}):
        numbers[name] = len(numbers) + 1
        windows = [
            {"weekdays": list(w.weekdays), "start": w.start, "end": w.end, "timezone": w.timezone}
            for w in rules.schedules[name].windows
        ]
        described.append({"schedule": name, "windows": windows})
    for moment in sorted({rule.expires for rule in active if rule.expires is not None}):
        numbers[moment] = len(numbers) + 1
        described.append({"expires": moment})
    text = json.dumps({"gates": described}, separators=(",", ":"), sort_keys=True)
    return numbers, text.encode(), len(described)


# --- the policy blob --------------------------------------------------------------------------------------------------


class _Policy:
    """One compilation of the policy blob; the steps in `build`'s order."""

    def __init__(self, rules: RuleSet, named: NamesBlob) -> None:
        self.rules = rules
        self.named = named
        self.strings = Strings()
        self.wheres: dict[tuple[str, int, int], int] = {}
        self.ordered: list[Rule] = [rules.rules[name] for name in sorted(rules.rules)]
        self.forwards: list[Forward] = [rules.forwards[name] for name in sorted(rules.forwards, key=names.order)]
        self.route_numbers = {forward.name: number for number, forward in enumerate(self.forwards)}
        self.routes = [*self.forwards, *(variant for forward in self.forwards for variant in forward.variants)]
        self.zones = own_zones(rules)
        self.special = special_names()
        self.classes: Classes = flatten(rules.groups)
        self.spared = protect.spared(rules.protection)
        self.nodes, self.offsets, self.name_bytes = self._names()
        self.answers = Answers(self.zones, self.routed, lambda name: self.offsets[name])

    def where(self, where: Where | None) -> int:
        """The number of a place + 1; 0 for none."""
        if where is None:
            return 0
        key = (where.path, where.line, where.column)
        return self.wheres.setdefault(key, len(self.wheres)) + 1

    def routed(self, name: bytes) -> tuple[int, int]:
        """(route number + 1, labels of its name) for `name`; (0, -1) when no forward entry covers it."""
        for suffix in names.suffixes(name):
            if suffix in self.route_numbers:
                return self.route_numbers[suffix] + 1, names.count(suffix)
        return 0, -1

    def _names(self) -> tuple[dict[bytes, int], dict[bytes, int], bytes]:
        """Node numbers, the offset of every name, and the names' bytes."""
        nodes = {names.ROOT} | set(self.special) | set(self.rules.forwards) | set(self.spared)
        others: set[bytes] = set()
        for rule in self.ordered:
            nodes.update(pattern.name for pattern in rule.patterns if pattern.name)
            others.update(redirection.name for redirection in rule.redirections if redirection.name)
            if rule.action != codes.RULE_BLOCK:
                for pattern in rule.patterns:
                    if pattern.name:
                        nodes.update(names.suffixes(pattern.name))
        for zone in self.zones.values():
            nodes |= zone.exists
            for owned in itertools.chain(zone.owners.values(), zone.wildcards.values()):
                others.update(rdata for _, rdata in owned.rrsets.get(codes.TYPE_CNAME, ()))
        offsets: dict[bytes, int] = {}
        at = 0
        for name in sorted(nodes | others):
            offsets[name] = at
            at += len(name)
        return {name: number for number, name in enumerate(sorted(nodes))}, offsets, b"".join(sorted(nodes | others))

    def build(self) -> bytes:
        """The blob."""
        gates, gates_json, gates_count = _gates(self.rules)
        rank = {
            rule.name: number
            for number, rule in enumerate(
                sorted(
                    sorted(self.ordered, key=lambda rule: rule.name, reverse=True),
                    key=lambda rule: (bool(rule.qtypes), rule.action),
                ),
                1,
            )
        }
        masks = [self.classes.mask(rule.applies, rule.exempts) for rule in self.ordered]
        conditional = [bool(r.schedule or r.expires is not None or r.qtypes) for r in self.ordered]
        sets = _Sets(masks, conditional, len(self.classes.members))
        at_self: dict[bytes, list[_Candidate]] = {}
        at_below: dict[bytes, list[_Candidate]] = {}
        by_list: dict[str, list[_Candidate]] = {}
        exceptions: set[bytes] = set()
        for number, rule in enumerate(self.ordered):
            if rule.enabled:
                self._candidates(number, rule, rank[rule.name], at_self, at_below, by_list, exceptions)

        rule_words: list[int] = []
        qtypes: list[int] = []
        for number, rule in enumerate(self.ordered):
            self._rule(number, rule, gates, qtypes, rule_words)
        zone_words, zone_infos, owner_of, wild_of, zone_numbers = self._zone_sections()
        node_words: list[int] = []
        for name in self.nodes:
            exists = any(name in self.zones[s].exists for s in names.suffixes(name) if s in self.zones)
            flags = layout.FLAG_EXISTS if exists else 0
            flags |= layout.FLAG_EXCEPTION_BELOW if name in exceptions else 0
            flags |= self.special.get(name, 0) << layout.FLAG_SPECIAL_SHIFT
            flags |= self.spared.get(name, 0) << layout.FLAG_SPARED_SHIFT
            node_words += [
                self.offsets[name], sets.number(at_self.get(name, ())), sets.number(at_below.get(name, ())),
                zone_numbers.get(name, 0), owner_of.get(name, 0), wild_of.get(name, 0),
                self.route_numbers.get(name, -1) + 1, flags,
            ]  # fmt: skip
        listset_words: list[int] = []
        for listset in self.named.listsets:
            found = [c for n in listset for c in by_list.get(self.named.lists[n], ())]
            listset_words += [sets.number(found)] * 2
        node_offsets = array("I", (self.offsets[name] for name in self.nodes))
        slots, seed = index.build(self.name_bytes, node_offsets, 0, array("I", range(1, len(self.nodes) + 1)))
        names_digest = bytes(self.named.data[layout.H_DIGEST : layout.H_DIGEST + 32])
        sections: dict[int, tuple[bytes, int]] = {
            layout.SECTION_INDEX: (slots, len(self.nodes)),
            layout.SECTION_NODES: (words(node_words), len(self.nodes)),
            layout.SECTION_NAMES: (self.name_bytes, len(self.offsets)),
            layout.SECTION_RULES: (words(rule_words), len(self.ordered)),
            layout.SECTION_QTYPES: (words(qtypes), len(qtypes)),
            layout.SECTION_ZONES: (words(zone_words), len(zone_words) // layout.ZONE_WORDS),
            layout.SECTION_LISTSETS: (words(listset_words), len(self.named.listsets)),
            layout.SECTION_GATES: (gates_json, gates_count),
            layout.SECTION_PATTERNS: (b"", 0),
            layout.SECTION_PROTECT: protect.section(self.rules.protection),
            layout.SECTION_ZONE_INFO: (words(zone_infos), len(zone_words) // layout.ZONE_WORDS),
        }
        sections.update(sets.sections())
        ours, where = self_names(self.rules)
        if ours.rrsets:
            sections[layout.SECTION_SELF] = (words([self.answers.owner(ours.rrsets, where=where)]), 1)
        sections.update(self._route_sections())
        sections.update(self.answers.sections(self.where))
        sections.update(self._group_sections())
        sections.update(self._info_sections())
        sections.update(self._where_sections())
        sections.update(self.strings.sections())
        return assemble(layout.MAGIC_POLICY, sections, seed, meaning_of(sections, names_digest), names_digest)

    def _candidates(
        self,
        number: int,
        rule: Rule,
        low: int,
        at_self: dict[bytes, list[_Candidate]],
        at_below: dict[bytes, list[_Candidate]],
        by_list: dict[str, list[_Candidate]],
        exceptions: set[bytes],
    ) -> None:
        """Put one rule's patterns where `decide` will find them."""
        for position, pattern in enumerate(rule.patterns):
            written = pattern.kind in (SELF_AND_BELOW, BELOW, EXACT)
            high = (rule.priority + 1000) << 2 | written << 1 | bool(rule.applies)
            arg = 0
            if rule.redirections:
                arg = self._redirection(number, rule, position)
            if pattern.kind == LIST:
                listed = self.named.lists.index(pattern.value)
                by_list.setdefault(pattern.value, []).append(_Candidate(high, 0, low, number, listed, arg))
                continue
            candidate = _Candidate(high, int(pattern.kind == EXACT), low, number, -1, arg)
            name = names.ROOT if pattern.kind == EVERY else pattern.name
            if pattern.kind != BELOW:
                at_self.setdefault(name, []).append(candidate)
            if pattern.kind != EXACT:
                at_below.setdefault(name, []).append(candidate)
            if written and rule.action != codes.RULE_BLOCK:
                exceptions.update(names.suffixes(name)[1:])
                if pattern.kind == BELOW:
                    exceptions.add(name)
        if rule.action != codes.RULE_BLOCK and any(p.kind in (LIST, EVERY) for p in rule.patterns):
            # A list may let through names below anything; what is blocked as "every name" must not deny them.
            exceptions.add(names.ROOT)

    def _redirection(self, number: int, rule: Rule, position: int) -> int:
        redirection = rule.redirections[position]
        where = rule.patterns[position].where
        if redirection.addresses:
            return self.answers.addresses(redirection.addresses, rule.ttl, where=where, rule=number)
        cname = {codes.TYPE_CNAME: [(rule.ttl, redirection.name)]}
        return self.answers.owner(cname, where=where, rule=number, target=redirection.name)

    def _rule(
        self, number: int, rule: Rule, gates: Mapping[str | int, int], qtypes: list[int], out: list[int]
    ) -> None:
        reply = rule.reply or self.rules.defaults.reply
        arg = 0
        if rule.action == codes.RULE_BLOCK and reply.code == codes.REPLY_ADDRESSES:
            arg = self.answers.addresses(reply.addresses, rule.ttl, where=rule.where, rule=number)
        when = gates.get(rule.schedule, 0) if rule.schedule else 0
        expires = gates.get(rule.expires, 0) if rule.expires is not None else 0
        out += [
            rule.action, reply.code + (0 if rule.reply else 256), rule.ttl, when, expires,
            len(qtypes), len(rule.qtypes), arg,
        ]  # fmt: skip
        qtypes += sorted(rule.qtypes)

    def _zone_sections(
        self,
    ) -> tuple[list[int], list[int], dict[bytes, int], dict[bytes, int], dict[bytes, int]]:
        """Zones' words and infos, and by name: owner, wildcard owner, zone number + 1."""
        zone_words: list[int] = []
        infos: list[int] = []
        owner_of: dict[bytes, int] = {}
        wild_of: dict[bytes, int] = {}
        numbers: dict[bytes, int] = {}
        for number, name in enumerate(sorted(self.zones)):
            zone = self.zones[name]
            numbers[name] = number + 1
            offset, length = self.answers.soa(zone)
            zone_words += [self.nodes[name], offset, length, layout.ZONE_SOLO if zone.solo else 0]
            infos += [self.where(zone.where), 0]
            for owners, out in ((zone.owners, owner_of), (zone.wildcards, wild_of)):
                for owner in sorted(owners):
                    owned = owners[owner]
                    # A zone below this one answers for its own names.
                    if owned.rrsets and self.answers.zone_of(owner) is zone:
                        out[owner] = self.answers.owner(owned.rrsets, where=owned.where, zone=number)
        return zone_words, infos, owner_of, wild_of, numbers

    def _route_sections(self) -> dict[int, tuple[bytes, int]]:
        routes: list[int] = []
        servers: list[bytes] = []
        infos: list[int] = []
        for forward in self.routes:
            kind = layout.KIND_RECURSE if forward.recurse else layout.KIND_DHCP if forward.dhcp else layout.KIND_FORWARD
            strategy = layout.STRATEGIES.index(forward.strategy)
            routes += [
                kind, self.offsets[forward.name], strategy, forward.timeout_ms, int(forward.dnssec),
                len(servers), len(forward.servers), int(forward.name == names.ROOT or forward.recurse),
            ]  # fmt: skip
            for server in forward.servers:
                packed = server.address.packed
                mapped = b"\x00" * 10 + b"\xff\xff" + packed if len(packed) == 4 else packed
                servers.append(words([server.address.version, server.port]) + mapped)
            infos += [self.where(forward.where), self.strings.number(forward.group) + 1 if forward.group else 0]
        sections = {
            layout.SECTION_ROUTES: (words(routes), len(self.routes)),
            layout.SECTION_SERVERS: (b"".join(servers), len(servers)),
            layout.SECTION_ROUTE_INFO: (words(infos), len(self.routes)),
        }
        classes = self._route_classes()
        if classes:
            sections[layout.SECTION_ROUTE_CLASSES] = (words(classes), len(classes) // layout.ROUTE_CLASS_WORDS)
        return sections

    def _route_classes(self) -> list[int]:
        """Which route stands in for which, by client class: a client's own counts more than its group's."""
        out: list[int] = []
        at = len(self.forwards)
        for number, forward in enumerate(self.forwards):
            chosen: dict[int, int] = {}
            numbered = [(variant, at + place) for place, variant in enumerate(forward.variants)]
            at += len(forward.variants)
            numbered.sort(key=lambda item: (not self.rules.groups[item[0].group].client, item[0].group))
            for variant, route in numbered:
                mask = self.classes.mask((variant.group,), ())
                for client_class in range(len(self.classes.members)):
                    if mask >> client_class & 1:
                        chosen.setdefault(client_class, route)
            out += [word for c in sorted(chosen) for word in (number + 1, c, chosen[c] + 1)]
        return out

    def _group_sections(self) -> dict[int, tuple[bytes, int]]:
        ordered = sorted(self.rules.groups)
        numbers = {name: number for number, name in enumerate(ordered)}
        infos: list[int] = []
        for name in ordered:
            group = self.rules.groups[name]
            infos += [self.strings.number(name), self.where(group.where), int(group.client), 0]
        sections = self.classes.sections(numbers)
        sections[layout.SECTION_GROUP_INFO] = (words(infos), len(ordered))
        return sections

    def _info_sections(self) -> dict[int, tuple[bytes, int]]:
        """What people read of rules and lists, and the texts of Extended DNS Errors."""
        group_numbers = {name: number for number, name in enumerate(sorted(self.rules.groups))}
        infos: list[int] = []
        named: list[int] = []
        texts = bytearray()
        for rule in self.ordered:
            text = f"{rule.name} {rule.where}".encode()
            number = self.strings.number
            infos += [
                number(rule.name), self.where(rule.where), len(texts), len(text), number(rule.description),
                number(rule.ticket), number(rule.owner), number(rule.schedule or ""), len(named), len(rule.applies),
                len(named) + len(rule.applies), len(rule.exempts),
            ]  # fmt: skip
            named += [group_numbers[name] for name in (*sorted(rule.applies), *sorted(rule.exempts))]
            texts += text
        guards = protect.infos(self.rules.protection, self.where, texts)
        list_infos: list[int] = []
        for name, size in zip(self.named.lists, self.named.sizes, strict=True):
            list_infos += [self.strings.number(name), self.where(self.rules.lists[name].where), size, 0]
        return {
            layout.SECTION_RULE_INFO: (words(infos), len(self.ordered)),
            layout.SECTION_RULE_GROUPS: (words(named), len(named)),
            layout.SECTION_TEXTS: (bytes(texts), len(self.ordered)),
            layout.SECTION_PROTECT_INFO: (words(guards), 3),
            layout.SECTION_LIST_INFO: (words(list_infos), len(self.named.lists)),
        }

    def _where_sections(self) -> dict[int, tuple[bytes, int]]:
        flat = [word for path, line, column in self.wheres for word in (self.strings.number(path), line, column, 0)]
        return {layout.SECTION_WHERES: (words(flat), len(self.wheres))}


def compile_table(rules: RuleSet, given: Mapping[str, Sequence[bytes]] | None = None) -> Blobs:
    """Compile a rule set. `given` replaces the contents of lists by name (for rule tests)."""
    named = names_blob(rules, given)
    policy = _Policy(rules, named).build()
    table = Table(policy, named.data)
    return Blobs(policy, named.data, table.digest, table.meaning)

"""What would change between two compiled tables: names, rules, records, routes, lists, clients.

Decisions are compared, not text: `decide` is asked about every name that either table mentions, for
each kind of client and at each state of the schedules in the coming week. What is too much is
sampled, and the plan says so. How a plan prints is in `plan_text`.
"""

from __future__ import annotations

import bisect
import dataclasses
import ipaddress
import itertools
from collections.abc import Callable, Iterator, Sequence

from controller import plan_sections as sections
from controller.candidates import Candidates
from controller.decider import Decider, Outcome
from controller.plan_sections import CHANGED, Change
from controller.ruleset import Address
from dnsd.contract import codes, facts, layout, names
from dnsd.contract.table import Table
from dnsd.contract.tableinfo import TableInfo

ASKS = 400_000  # questions a plan may put to both tables: a few seconds
PROBES = 64  # names of one kind that are looked at before all of the kind are
KINDS = 24  # kinds of clients
MOMENTS = 8
_WEEK_S, _STEP_S = 7 * 86400, 1800
# Stands for "below this name", and for every name that nobody wrote down.
_BELOW = b"\x0bbelow-probe"
_OTHER = b"\x10any-other-name-x\x07example\x00"

EFFECTS = ("blocked", "unblocked", "other")


@dataclasses.dataclass(frozen=True, slots=True)
class NameChange:
    """A name that is decided otherwise. `was` and `will` are the first context's; `who` are the kinds of clients.

    `effect` is blocked, unblocked or other.
    """

    name: str
    effect: tuple[str, ...]
    qtype: str
    was: Outcome
    will: Outcome
    who: tuple[str, ...]
    always: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """All changes. `blocked`, `unblocked` and `other` count names; `shown` are the first of them in words, a name more
    than once when it changes in one way for some clients and in another for others."""

    same_bytes: bool
    same_meaning: bool
    blocked: int
    unblocked: int
    other: int
    total: int
    shown: tuple[NameChange, ...]
    rules: tuple[Change, ...]
    records: tuple[Change, ...]
    routes: tuple[Change, ...]
    lists: tuple[Change, ...]
    clients: tuple[Change, ...]
    schedules: tuple[Change, ...]
    notes: tuple[str, ...]

    @property
    def unshown(self) -> int:
        """How many names are counted and not in `shown`."""
        return self.total - len({change.name for change in self.shown})

    @property
    def changes(self) -> bool:
        """Whether anything changes that a client or an administrator could notice."""
        return bool(self.blocked or self.unblocked or self.other or self.rules or self.records or self.routes
                    or self.lists or self.clients or self.schedules)  # fmt: skip


def compare(before: Table, after: Table, now: float, shown: int = 50) -> Plan:
    """The plan from one table to another; `now` begins the week whose schedules are looked at."""
    if before.digest == after.digest or before.meaning == after.meaning:
        return Plan(before.digest == after.digest, True, 0, 0, 0, 0, (), (), (), (), (), (), (), ())
    old, new = Candidates(before), Candidates(after)
    kinds, clients = _clients(old.info, new.info)
    notes: list[str] = []
    if len(kinds) > KINDS:
        notes.append(f"{KINDS} of {len(kinds)} kinds of clients were asked for")
        kinds = kinds[:KINDS]
    moments = _moments(before, after, now)
    if len(moments) > MOMENTS:
        notes.append(f"{MOMENTS} of {len(moments)} states of the schedules in the coming week were asked for")
        moments = moments[:MOMENTS]
    asker = _Asker(before, after, moments, kinds, _qtypes(old.info, new.info))
    record_changes = tuple(sections.diff_records(sections.own_records(old), sections.own_records(new)))
    route_changes = tuple(sections.diff(sections.routes(old.info), sections.routes(new.info), str))
    # What the records and forwards below say already is not said again name by name.
    told = {change.what.partition(" ")[0] for change in record_changes}
    told |= {prefix + change.what.partition(" ")[0] for change in route_changes for prefix in ("", "*.")}
    found = {
        name: asker.effects(name) for name in _names(old, new, asker, notes)
        if asker.effects(name) != ("other",) or _shown(name) not in told
    }  # fmt: skip
    # `x` and `*.x` that change alike are one row.
    below = {name for name in found if _BELOW + name in found and asker.same(name, _BELOW + name)}
    rows = [
        name for name in found
        if not (name.startswith(_BELOW) and name[len(_BELOW) :] in below) and not asker.implied(name)
    ]  # fmt: skip
    rows.sort(key=lambda name: (name != _OTHER, EFFECTS.index(found[name][0]), names.order(name)))
    return Plan(
        same_bytes=False, same_meaning=False,
        blocked=sum("blocked" in found[name] for name in rows),
        unblocked=sum("unblocked" in found[name] for name in rows),
        other=sum(found[name] == ("other",) for name in rows),
        total=len(rows),
        shown=tuple(change for name in rows[:shown] for change in asker.describe(name, name in below)),
        rules=tuple(sections.diff(sections.rules(old), sections.rules(new), sections.rule_text)),
        records=record_changes, routes=route_changes,
        lists=tuple(sections.lists(old, new)), clients=tuple(clients),
        schedules=tuple(sections.diff(sections.schedules(old.info), sections.schedules(new.info), str)),
        notes=tuple(notes),
    )  # fmt: skip


# --- who, when, what type ---------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """Clients that both tables treat alike: one of them, and a name for them."""

    address: Address
    label: str


def _starts(info: TableInfo, version: int) -> tuple[list[int], list[int]]:
    """First addresses of the table's client intervals, and their classes."""
    section, step = ((layout.SECTION_CLIENTS4, layout.CLIENT4_WORDS) if version == 4
                     else (layout.SECTION_CLIENTS6, layout.CLIENT6_WORDS))  # fmt: skip
    flat = list(info.table.part(section).cast("I"))
    firsts, classes = [0], [0]
    for at in range(0, len(flat), step):
        first = 0
        for word in flat[at : at + step - 1]:
            first = first << 32 | word
        if first == 0:
            classes[0] = flat[at + step - 1]
            continue
        firsts.append(first)
        classes.append(flat[at + step - 1])
    return firsts, classes


def _clients(old: TableInfo, new: TableInfo) -> tuple[list[Kind], list[Change]]:
    """The kinds of clients, and the address ranges whose groups change."""
    kinds: dict[tuple[tuple[str, ...], tuple[str, ...]], Address] = {}
    changes: list[Change] = []
    old_groups, new_groups = old.classes() or [()], new.classes() or [()]
    for version in (4, 6):
        make: Callable[[int], Address] = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
        end = (1 << (32 if version == 4 else 128)) - 1
        before, after = _starts(old, version), _starts(new, version)
        starts = sorted({*before[0], *after[0]})
        for first, following in itertools.zip_longest(starts, starts[1:]):
            was = old_groups[before[1][bisect.bisect_right(before[0], first) - 1]]
            will = new_groups[after[1][bisect.bisect_right(after[0], first) - 1]]
            kinds.setdefault((was, will), make(first))
            if was != will:
                last = make(end if following is None else following - 1)
                what = str(make(first)) if last == make(first) else f"{make(first)}-{last}"
                if changes and changes[-1].before == _groups(was) and changes[-1].after == _groups(will):
                    begin = changes[-1].what.partition("-")[0]
                    if ipaddress.ip_address(changes[-1].what.rpartition("-")[2]) + 1 == make(first):
                        changes.pop()
                        what = f"{begin}-{last}"
                changes.append(Change(CHANGED, what, _groups(was), _groups(will)))
    out = [Kind(address, _groups(will) if was == will else f"{_groups(was)} → {_groups(will)}")
           for (was, will), address in kinds.items()]  # fmt: skip
    return out, changes


def _groups(groups: Sequence[str]) -> str:
    return "+".join(groups) if groups else "everyone else"


def _moments(before: Table, after: Table, now: float) -> list[float]:
    """Moments of the coming week, one for each different state of the schedules and expiries; the first is now."""
    seen: dict[tuple[bytes, bytes], float] = {}
    gates = (before.gates_json(), after.gates_json())
    if all(not text or b"[]" in text for text in gates):
        return [now]
    for moment in [now] + [now - now % _STEP_S + step for step in range(_STEP_S, _WEEK_S, _STEP_S)]:
        state = (facts.gates_from_json(gates[0], moment)[0], facts.gates_from_json(gates[1], moment)[0])
        seen.setdefault(state, moment)
    return list(seen.values())


def _qtypes(*infos: TableInfo) -> list[int]:
    """A, and one of each set of types that some rule is limited to."""
    out = [codes.TYPE_A]
    for info in infos:
        for number in range(info.rules()):
            out += [qtype for qtype in info.rule(number).qtypes[:2] if qtype not in out]
    return out[:6]


# Where a name is decided otherwise: number of the moment, kind of client, qtype, what it was and what it will be.
_Context = tuple[int, Kind, int, str, str]

# --- names ------------------------------------------------------------------------------------------------------------


class _Asker:
    """Puts the same question to both tables in every context."""

    def __init__(
        self, before: Table, after: Table, moments: Sequence[float], kinds: Sequence[Kind], qtypes: Sequence[int]
    ) -> None:
        self.pairs = [(Decider(before, moment), Decider(after, moment)) for moment in moments]
        self.kinds = kinds
        self.qtypes = qtypes
        self.contexts = len(moments) * len(kinds) * len(qtypes)
        self._known: dict[bytes, list[_Context]] = {}

    def changes(self, name: bytes) -> bool:
        """Whether any context decides otherwise; the contexts are remembered."""
        if name in self._known:
            return bool(self._known[name])
        differing = []
        for number, (old, new) in enumerate(self.pairs):
            for kind in self.kinds:
                old.put(kind.address)
                new.put(kind.address)
                for qtype in self.qtypes:
                    was, will = _signature(old, name, qtype), _signature(new, name, qtype)
                    if was != will:
                        differing.append((number, kind, qtype, str(was[0]), str(will[0])))
        if differing:
            self._known[name] = differing
        return bool(differing)

    def effects(self, name: bytes) -> tuple[str, ...]:
        """What changes about a name for somebody, the most noticeable first: blocked, unblocked, other."""
        found = {_effect(context) for context in self._known[name]}
        return tuple(effect for effect in EFFECTS if effect in found)

    def same(self, name: bytes, other: bytes) -> bool:
        """Whether two names change alike in every context."""
        return self.changes(name) and self.changes(other) and self._known[name] == self._known[other]

    def implied(self, name: bytes) -> bool:
        """Whether a name changes as every name does that nobody wrote down."""
        if name == _OTHER or not self.changes(_OTHER):
            return False
        mine, others = ([(*context[:3], _effect(context)) for context in self._known[one]] for one in (name, _OTHER))
        return mine == others

    def describe(self, name: bytes, below: bool) -> Iterator[NameChange]:
        """The most noticeable change in words, and whom it is about; each of what different clients get otherwise."""
        effects = self.effects(name)
        differing = [context for context in self._known[name] if _effect(context) == effects[0]]
        firsts = {context[1].label: context for context in reversed(differing)}  # the first of each kind of clients
        ways: list[tuple[Outcome, Outcome, int, list[str]]] = []
        for label in dict.fromkeys(context[1].label for context in differing):
            number, kind, qtype, _, _ = firsts[label]
            old, new = (decider.outcome(name, qtype, kind.address) for decider in self.pairs[number])
            for was, will, _, who in ways:
                if _noticed(was) == _noticed(old) and _noticed(will) == _noticed(new):
                    who.append(label)
                    break
            else:
                ways.append((old, new, qtype, [label]))
        for was, will, qtype, who in ways:
            moments = {context[0] for context in differing if context[1].label in who}
            yield NameChange(
                _shown(name) + (" and below" if below else ""), effects, codes.qtype_name(qtype), was, will,
                ("everyone",) if len(who) == len(self.kinds) else tuple(who), len(moments) == len(self.pairs),
            )  # fmt: skip


def _noticed(outcome: Outcome) -> Outcome:
    """What a client notices of it, whichever rule it comes from."""
    return dataclasses.replace(outcome, rule=None, where="", listed="", matched="")


def _effect(context: _Context) -> str:
    was, will = context[3:]
    if (was == "block") == (will == "block"):
        return "other"
    return "blocked" if will == "block" else "unblocked"


def _shown(name: bytes) -> str:
    if name == _OTHER:
        return "(every other name)"
    return "*." + names.to_text(name[len(_BELOW) :]) if name.startswith(_BELOW) else names.to_text(name)


def _signature(decider: Decider, name: bytes, qtype: int) -> tuple[object, ...]:
    """What a client would notice of a decision; equal for equal treatment, whichever rule it comes from."""
    v = decider.ask(name, qtype)
    if v.stage == codes.STAGE_POLICY:
        what = "block" if v.rule_action == codes.RULE_BLOCK else "redirect"
    else:
        what = codes.STAGE_NAMES[v.stage]
    if v.action in (codes.ACTION_FORWARD, codes.ACTION_RECURSE):
        route = decider.info.route(v.route)
        return what, v.action, route.kind, route.servers, route.strategy, route.dnssec
    if v.action == codes.ACTION_ALIAS:
        servers = decider.info.route(v.route).servers if v.route else ()
        entry = tuple((rr.owner, rr.rtype, rr.ttl, rr.rdata) for rr in decider.info.entry(v.entry)[0])
        return what, v.action, entry, servers
    if v.action == codes.ACTION_ANSWER:
        return what, v.action, decider.response()
    return what, v.action, v.ttl if v.stage == codes.STAGE_POLICY else 0


def _names(old: Candidates, new: Candidates, asker: _Asker, notes: list[str]) -> list[bytes]:
    """Every name that is decided otherwise, as far as the budget of questions goes."""
    written = {*old.nodes, *new.nodes} - {names.ROOT}
    asked = list(written) + [_BELOW + name for name in written if len(name) + len(_BELOW) < names.MAX_NAME] + [_OTHER]
    budget = max(ASKS // (2 * asker.contexts), 4 * PROBES)
    if len(asked) > budget:
        notes.append(f"{budget} of {len(asked)} written names were asked for, evenly spread")
        asked = _spread(sorted(asked), budget)
    found = [name for name in asked if asker.changes(name)]
    budget = max(budget - len(asked), 4 * PROBES)
    for members in _listed(old, new):
        probes = members if len(members) <= PROBES else _spread(members, PROBES)
        if not any(asker.changes(name) for name in probes):
            if len(probes) < len(members):
                _note(notes, len(members), len(probes), "none of them is decided otherwise")
            continue
        chosen = members if len(members) <= budget else _spread(members, budget)
        found += [name for name in chosen if asker.changes(name) and name not in written]
        if len(chosen) < len(members):
            _note(notes, len(members), len(chosen), "the counts are of those")
    return found


def _note(notes: list[str], many: int, few: int, text: str) -> None:
    notes.append(f"{few} of {many} names that are in the same lists as each other were asked for; {text}")


def _spread(members: Sequence[bytes], count: int) -> list[bytes]:
    step = len(members) / count
    return [members[int(i * step)] for i in range(count)]


def _listed(old: Candidates, new: Candidates) -> list[list[bytes]]:
    """Listed names in groups that are in the same lists before, and in the same lists after."""
    before = dict(sections.memberships(old))
    after = before if old.table.names_digest == new.table.names_digest else dict(sections.memberships(new))
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[bytes]] = {}
    for name, lists in before.items():
        groups.setdefault((lists, after.get(name, ())), []).append(name)
    if after is not before:
        for name, lists in after.items():
            if name not in before:
                groups.setdefault(((), lists), []).append(name)
    # Names that come or go are asked for first, while there is budget.
    return [groups[key] for key in sorted(groups, key=lambda key: (key[0] == key[1], key))]

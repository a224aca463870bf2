"""Who decides about a name, and why: every rule that could, and the step of precedence at which it lost.

The verdict comes from `decide` itself; this module names the reasons. Its text is what people read on the command
line and on the status page.
"""

from __future__ import annotations

import dataclasses
import datetime
import zoneinfo
from collections.abc import Mapping
from typing import Any

from controller.candidates import Candidate, Candidates
from controller.decider import Decider, Outcome
from controller.ruleset import Address, Group
from dnsd.contract import codes, layout, names
from dnsd.contract.facts import Network
from dnsd.contract.table import Table
from dnsd.contract.tableinfo import RuleInfo, TableInfo

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_ORDER = {"allow": 3, "redirect": 2, "block": 1}
DECIDES, LOSES, NOT = "decides", "loses", "does not apply"
_SHOWN = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A candidate: what it is, whether it decides, loses or does not apply, and why. `step` is 1 to 7 of precedence."""

    rule: str
    action: str
    where: str
    matched: str
    listed: str
    status: str
    reason: str
    step: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Explanation:
    """Everything about one question."""

    qname: str
    qtype: str
    client: str
    at: float
    zone: str
    revision: str
    groups: tuple[str, ...]
    found: tuple[str, ...]
    rows: tuple[Row, ...]
    outcome: Outcome
    elsewhere: tuple[str, ...] = ()  # of a name that we resolve: names on the way that are not asked for from the root


def explain(
    table: Table, qname: bytes, qtype: int, client: Address, at: float, *, revision: str = "",
    groups: Mapping[str, Group] | None = None, allow: tuple[Network, ...] | None = None, special_use: bool = True,
    zone: str = "UTC",
) -> Explanation:  # fmt: skip
    """Explain one question of one client at one moment (UTC epoch seconds; shown in `zone`).

    `groups` adds the networks that put the client into its groups; `allow` are the clients that may ask at all.
    """
    decider = Decider(table, at, allow=allow, special_use=special_use)
    outcome = decider.outcome(qname, qtype, client)
    candidates = Candidates(table)
    asked = decider.table.class_of(decider.query)
    mine = candidates.info.classes()[asked] if asked < len(candidates.info.classes()) else ()
    rows: tuple[Row, ...] = ()
    if outcome.stage not in ("shape", "client"):
        decider.query.hash()
        rows = tuple(_Judge(decider, candidates, qname, qtype, mine).rows())
    return Explanation(
        names.to_text(qname), codes.qtype_name(qtype), str(client), at, zone, revision,
        tuple(_membership(name, client, groups) for name in mine), tuple(_found(qname, decider, candidates)), rows,
        outcome, _elsewhere(candidates.info) if outcome.action == "recurse" else (),
    )  # fmt: skip


def _elsewhere(info: TableInfo) -> tuple[str, ...]:
    """Own zones and other forward entries: an alias, or a name server's name, may lead into them while we resolve."""
    kinds = (info.route(number) for number in range(1, info.route_count + 1))
    found = [route.name for route in kinds if route.kind != "recurse" and not route.group]
    flags = info.table.part(layout.SECTION_ZONES).cast("I")[layout.ZONE_FLAGS :: layout.ZONE_WORDS]
    found += [names.to_text(info.zone(number)[0]) for number, flag in enumerate(flags) if not flag & layout.ZONE_SOLO]
    return tuple(dict.fromkeys(found))


def _membership(name: str, client: Address, groups: Mapping[str, Group] | None) -> str:
    group = groups.get(name) if groups else None
    for network in group.networks if group else ():
        if network.version == client.version and network.first <= int(client) <= network.last:
            return f"{name} ({network.text})"
    return name


def _found(qname: bytes, decider: Decider, candidates: Candidates) -> list[str]:
    """Where the name, or one above it, is mentioned."""
    out: list[str] = []
    zone = route = ""
    for label, suffix in enumerate(names.suffixes(qname)):
        listset = candidates.find_listset(decider.query, label)
        if listset >= 0:
            for number in candidates.lists_of(listset):
                out.append(f"list:{candidates.info.lists[number][0]} ({names.to_text(suffix)})")
        node = candidates.nodes.get(suffix)
        if node is None:
            continue
        if candidates.node_zone(node) >= 0 and not zone and not route:
            apex, where = candidates.info.zone(candidates.node_zone(node))
            # A reverse name made by `ptr: auto` is a zone of just itself.
            zone = f"our zone {names.to_text(apex)} ({where})"
        if candidates.node_route(node) and not route and not zone:
            found = candidates.info.route(candidates.node_route(node))
            route = f"forward {found.name} ({found.where})"
    return out + [text for text in (zone, route) if text]


def time_zone(table: Table, default: str = "") -> str:
    """The zone in which people write times for this table: `default`, or the schedules' when they agree, or UTC."""
    if default and default != "UTC":
        return default
    used = {
        window["timezone"] for gate in TableInfo(table).gates for window in gate.get("windows", ()) if window  # type: ignore[attr-defined]
    }
    return used.pop() if len(used) == 1 else "UTC"


def moment(text: str, zone: str) -> float:
    """A time as people write it (`2026-03-02T10:00`, an offset or Z where they want one) as UTC epoch seconds.

    Raises ValueError with a sentence.
    """
    try:
        parsed = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a time; write it like 2026-03-02T10:00") from None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=zoneinfo.ZoneInfo(zone))).timestamp()


class _Judge:
    """Names what became of each candidate for one question."""

    def __init__(
        self, decider: Decider, candidates: Candidates, qname: bytes, qtype: int, groups: tuple[str, ...]
    ) -> None:
        self.decider = decider
        self.candidates = candidates
        self.qname = qname
        self.qtype = qtype
        self.groups = groups
        self.own = decider.verdict.stage == codes.STAGE_LOCAL and not decider.verdict.special

    def rows(self) -> list[Row]:
        """One row a rule: at its best matching name. The decider first, then losers, then what does not apply."""
        v = self.decider.verdict
        best: dict[int, tuple[bytes, Candidate, int, str]] = {}
        for suffix, candidate, labels in self.candidates.matches(self.qname, self.decider.query):
            why_not = self.why_not(candidate)
            known = best.get(candidate.rule)
            if known is None or (not why_not, candidate.rank(labels)) > (not known[3], known[1].rank(known[2])):
                best[candidate.rule] = (suffix, candidate, labels, why_not)
        winner = best.get(v.rule) if v.rule >= 0 else None
        order = {DECIDES: 0, LOSES: 1, NOT: 2}
        made = []
        for number, (suffix, candidate, labels, why_not) in best.items():
            info = self.candidates.info.rule(number)
            listed = self.candidates.info.lists[candidate.listed][0] if candidate.listed >= 0 else ""
            status, reason, step = NOT, why_not, None
            if number == v.rule:
                status, reason = DECIDES, "decides"
            elif not why_not:
                status = LOSES
                reason, step = self.lost(suffix, candidate, labels, info, winner)
            row = Row(info.name, info.action, info.where, names.to_text(suffix), listed, status, reason, step)
            made.append((order[status], -candidate.rank(labels), row))
        return [row for _, _, row in sorted(made, key=lambda item: item[:2])]

    def why_not(self, candidate: Candidate) -> str:
        """Why a candidate does not apply; empty when it does."""
        rule = self.candidates.info.rule(candidate.rule)
        exempt = [name for name in rule.exempts if name in self.groups]
        if rule.groups and not any(name in self.groups for name in rule.groups):
            return f"not for this client (for {', '.join(rule.groups)})"
        if exempt:
            return f"not for this client (except {', '.join(exempt)})"
        if rule.qtypes and self.qtype not in rule.qtypes:
            return f"not for {codes.qtype_name(self.qtype)} (types {', '.join(map(codes.qtype_name, rule.qtypes))})"
        if rule.expires is not None and self.decider.at >= rule.expires:
            moment = datetime.datetime.fromtimestamp(rule.expires, datetime.UTC)
            return f"expired ({moment:%Y-%m-%d %H:%M} UTC)"
        if rule.schedule and not self.open(rule.schedule):
            return f"not now ({self.schedule(rule.schedule)})"
        if candidate.arg and self.candidates.redirect_target(candidate) == self.qname:
            return "a redirect does not apply to its own target"
        return ""

    def gate(self, schedule: str) -> tuple[int, dict[str, Any]]:
        """A schedule's gate number + 1, and what the table says of it."""
        for number, gate in enumerate(self.candidates.info.gates, 1):
            if gate.get("schedule") == schedule:
                return number, gate
        return 0, {}

    def open(self, schedule: str) -> bool:
        """Whether a schedule is open at the moment asked about."""
        return bool(self.decider.facts.gate(self.gate(schedule)[0]))

    def schedule(self, name: str) -> str:
        """A schedule in words: `lunch is mon-fri 12:00-13:00 Europe/Amsterdam`."""
        windows = self.gate(name)[1].get("windows") or []
        texts = [window_text(window) for window in windows]
        return f"{name} is {'; '.join(texts)}" if texts else f"{name} has no hours"

    def lost(
        self, suffix: bytes, candidate: Candidate, labels: int, info: RuleInfo,
        winner: tuple[bytes, Candidate, int, str] | None,
    ) -> tuple[str, int | None]:  # fmt: skip
        """The step of precedence at which an applying candidate lost, in words."""
        own = "loses: the name is our own, and only a name written in a rule decides about it"
        if winner is None:
            return own if self.own else "loses: a later stage decides", None
        name, best, depth, _ = winner
        if candidate.rank(labels) > best.rank(depth):
            return own, None
        rule = self.candidates.info.rule(best.rule)
        if candidate.priority != best.priority:
            return f"loses (1): priority {candidate.priority} is below {best.priority}", 1
        if candidate.written != best.written:
            what = "a listed name" if candidate.listed >= 0 else "'.'"
            return f"loses (2): {what} yields to one written in the rule", 2
        if bool(info.groups) != bool(rule.groups):
            return "loses (3): a rule for everyone yields to one for a group or client", 3
        if labels != depth:
            return f"loses (4): {names.to_text(suffix)} is less exact than {names.to_text(name)}", 4
        if candidate.exact != best.exact:
            return f"loses (4): {names.to_text(suffix)} yields to ={names.to_text(name)}", 4
        if bool(info.qtypes) != bool(rule.qtypes):
            return "loses (5): a rule for every type yields to one with types", 5
        if info.action != rule.action:
            return f"loses (6): {info.action} yields to {rule.action}", 6
        return "loses (7): its name sorts later", 7


def window_text(window: Mapping[str, Any]) -> str:
    """A window of a schedule: `mon-fri 12:00-13:00 Europe/Amsterdam`."""
    return f"{_days(window['weekdays'])} {_clock(window['start'])}-{_clock(window['end'])} {window['timezone']}"


def _days(numbers: list[int]) -> str:
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{_DAYS[numbers[0]]}-{_DAYS[numbers[-1]]}"
    return ",".join(_DAYS[number] for number in numbers)


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


# --- words ------------------------------------------------------------------------------------------------------------


def result(outcome: Outcome) -> str:
    """What the client gets, in one line."""
    out = outcome.actions[0]
    route = ""
    if outcome.route:
        words = [outcome.route.strategy] if outcome.route.strategy != "failover" else []
        words += ["validated"] if outcome.route.dnssec else []
        servers = ", ".join(outcome.servers) or outcome.route.kind
        servers += f": {', '.join(words)}" if words else ""
        route = f"forward {outcome.route.name} ({servers})" if outcome.servers else servers
        route += f" for {outcome.route.group}" if outcome.route.group else ""
    if outcome.stage == "client":
        return "refuse -> REFUSED: the client is not in the node's `allow` setting"
    if outcome.action == "drop":
        return f"{out} -> no answer at all"
    if outcome.action == "alias":
        first = outcome.answers[-1] if outcome.answers else None
        return f"{out} -> CNAME {first.text if first else outcome.target}, then {route or 'no route'} for it"
    if outcome.action in ("forward", "recurse"):
        return f"{out} -> {route}" if out == "allow" else route
    if outcome.action == "servfail":
        return "SERVFAIL: no forward entry covers this name"
    if outcome.answers:
        data = ", ".join(dict.fromkeys(f"{item.rtype} {item.text}" for item in outcome.answers))
        return f"{out} -> {data}, TTL {outcome.answers[0].ttl}"
    empty = f"{outcome.rcode} (no data)" if outcome.rcode == "NOERROR" else outcome.rcode
    ttl = f", TTL {outcome.authorities[0].ttl}" if outcome.authorities else ""
    return f"{out} -> {empty}{ttl}"


def source(outcome: Outcome) -> str:
    """Where the answer comes from, when no rule decided."""
    if outcome.special:
        return "a special-use name, kept at home (RFC 6303, RFC 6761)"
    if outcome.zone:
        return f"our zone {outcome.zone}, {outcome.where}"
    if outcome.stage == "route" and outcome.where:
        return outcome.where
    return ""


def to_text(explanation: Explanation) -> str:
    """The explanation as lines for people."""
    e = explanation
    moment = datetime.datetime.fromtimestamp(e.at, zoneinfo.ZoneInfo(e.zone))
    lines = [f"{e.qname} {e.qtype} asked by {e.client} on {moment:%a %Y-%m-%d at %H:%M} {e.zone}"]
    lines.append(f"{e.client} is in: {', '.join(e.groups)}" if e.groups else f"{e.client} is in no group")
    lines.append(f"{e.qname} is in: {', '.join(e.found)}" if e.found else f"{e.qname} is mentioned nowhere")
    if e.rows:
        cells = [
            (row.action, row.rule, row.where, (f"list:{row.listed} " if row.listed else "") + row.matched,
             "decides" if row.status == DECIDES else row.reason)
            for row in e.rows
        ]  # fmt: skip
        widths = [max(len(cell[i]) for cell in cells) for i in range(4)]
        lines.append("")
        for row, cell in zip(e.rows, cells, strict=True):
            mark = "→" if row.status == DECIDES else "·" if row.status == LOSES else " "
            columns = "  ".join(f"{cell[i]:<{widths[i]}}" for i in range(4))
            lines.append(f"{mark} {columns}  {cell[4]}")
    else:
        lines.append("no rule mentions it")
    lines.append("")
    line = f"result: {result(e.outcome)}"
    if source(e.outcome):
        line += f"   [{source(e.outcome)}]"
    lines.append(line)
    if e.elsewhere:
        more = f" and {len(e.elsewhere) - _SHOWN} more" if len(e.elsewhere) > _SHOWN else ""
        lines.append(f"aliases and name servers in {', '.join(e.elsewhere[:_SHOWN])}{more} are answered as the rules say")
    if e.revision:
        lines.append(f"revision {e.revision}")
    return "\n".join(lines) + "\n"


def to_json(explanation: Explanation) -> dict[str, Any]:
    """The explanation as JSON values."""
    e, outcome = explanation, explanation.outcome
    return {
        "name": e.qname, "type": e.qtype, "client": e.client, "revision": e.revision,
        "at": datetime.datetime.fromtimestamp(e.at, datetime.UTC).isoformat().replace("+00:00", "Z"),
        "groups": list(e.groups), "found": list(e.found),
        "candidates": [dataclasses.asdict(row) for row in e.rows],
        "result": {
            "text": result(outcome), "action": outcome.actions[0], "stage": outcome.stage, "does": outcome.action,
            "rcode": outcome.rcode, "rule": outcome.rule.name if outcome.rule else "", "where": outcome.where,
            "list": outcome.listed, "zone": outcome.zone, "servers": list(outcome.servers), "target": outcome.target,
            "answers": [str(data) for data in outcome.answers],
        },
        "elsewhere": list(e.elsewhere),
    }  # fmt: skip

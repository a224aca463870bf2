"""A plan for people: as lines, as Markdown for a pull request, as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from controller import explain
from controller.decider import Outcome
from controller.plan import NameChange, Plan
from controller.plan_sections import ADDED, CHANGED, REMOVED, Change

_SIGNS = {ADDED: "+", REMOVED: "−", CHANGED: "~"}
_SHOWN = 40  # changes of one section in Markdown and text; JSON has all
_SECTIONS = (
    ("rules", "Rules"), ("records", "Records"), ("routes", "Forwards"), ("lists", "Lists"), ("clients", "Clients"),
    ("schedules", "Schedules"),
)  # fmt: skip


def summary(plan: Plan) -> str:
    """One line: `+1203 −18 names blocked, 2 records changed, 1 forward removed`."""
    if plan.same_bytes:
        return "nothing changes: the tables are the same"
    if plan.same_meaning:
        return "nothing changes for clients: only comments, descriptions, rule names or places differ"
    parts = []
    if plan.blocked or plan.unblocked:
        signs = [f"+{plan.blocked}"] * bool(plan.blocked) + [f"−{plan.unblocked}"] * bool(plan.unblocked)
        single = plan.blocked + plan.unblocked == 1
        parts.append(f"{' '.join(signs)} name{'' if single else 's'} blocked")
    if plan.other:
        parts.append(f"{_count(plan.other, 'name')} answered otherwise")
    for field, one in (("records", "record"), ("routes", "forward"), ("rules", "rule"), ("lists", "list"),
                       ("schedules", "schedule")):  # fmt: skip
        changes: Sequence[Change] = getattr(plan, field)
        for kind in (ADDED, REMOVED, CHANGED):
            number = sum(change.kind == kind for change in changes)
            if number:
                parts.append(f"{_count(number, one)} {kind}")
    if plan.clients:
        parts.append(f"{_count(len(plan.clients), 'client range')} in other groups")
    return ", ".join(parts) or "nothing changes for clients"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _who(change: NameChange) -> str:
    who = ", ".join(change.who[:4]) + (f" and {len(change.who) - 4} more" if len(change.who) > 4 else "")
    return ("" if who == "everyone" else f"for {who}") + ("" if change.always else " at some times")


def _decided(outcome: Outcome) -> str:
    text = explain.result(outcome)
    if outcome.rule:
        text += f" by {outcome.rule.name}" + (f" (list:{outcome.listed})" if outcome.listed else "")
    return text


def _name_sign(change: NameChange) -> str:
    return "+" if "blocked" in change.effect else "−" if "unblocked" in change.effect else "~"


def to_text(plan: Plan, before: str, after: str) -> str:
    """The plan as lines."""
    return "\n".join(_lines(plan, before, after)) + "\n"


def _lines(plan: Plan, before: str, after: str) -> Iterator[str]:
    yield f"plan: {before} → {after}"
    yield summary(plan)
    if plan.shown:
        yield ""
        yield "Names (+ gets blocked, − no longer blocked, ~ answered otherwise)"
        width = min(60, max(len(change.name) for change in plan.shown))
        for change in plan.shown:
            type_text = "" if change.qtype == "A" else f" {change.qtype}"
            line = f"  {_name_sign(change)} {change.name:<{width}}{type_text}  {_who(change)}".rstrip()
            yield line
            yield f"      was   {_decided(change.was)}"
            yield f"      will  {_decided(change.will)}" + (f"   {change.will.where}" if change.will.where else "")
        if plan.unshown:
            yield f"  … and {plan.unshown} more names"
    for field, title in _SECTIONS:
        changes: Sequence[Change] = getattr(plan, field)
        if not changes:
            continue
        yield ""
        yield title
        for row in changes[:_SHOWN]:
            where = f"   {row.where}" if row.where else ""
            if row.kind == CHANGED:
                yield f"  ~ {row.what}{where}"
                yield f"      was   {row.before}"
                yield f"      will  {row.after}"
            else:
                yield f"  {_SIGNS[row.kind]} {row.what}: {row.after or row.before}{where}"
        if len(changes) > _SHOWN:
            yield f"  … and {len(changes) - _SHOWN} more"
    if plan.notes:
        yield ""
        for note in plan.notes:
            yield f"note: {note}"


def _code(text: str) -> str:
    """Text as an inline code span that cannot be broken out of, also inside a table."""
    clean = text.replace("|", "\\|").replace("\n", " ").replace("\r", " ")
    fence = "`"
    while fence in clean:
        fence += "`"
    pad = " " if clean.startswith("`") or clean.endswith("`") else ""
    return f"{fence}{pad}{clean}{pad}{fence}" if clean else ""


def to_markdown(plan: Plan, before: str, after: str) -> str:
    """The plan as GitHub and GitLab Markdown, for a pull request or a job summary."""
    return "\n".join(_markdown(plan, before, after)) + "\n"


def _markdown(plan: Plan, before: str, after: str) -> Iterator[str]:
    yield "### DNS plan"
    yield ""
    yield f"**{summary(plan)}**"
    yield ""
    yield f"{_code(before)} → {_code(after)}"
    if plan.shown:
        total = plan.total
        more = f", the first {total - plan.unshown} of {total}" if plan.unshown else ""
        yield from _begin(f"Names{more}", len(plan.shown) <= 12)
        yield "| | name | clients | was | will be | written at |"
        yield "|---|---|---|---|---|---|"
        for change in plan.shown:
            name = change.name if change.qtype == "A" else f"{change.name} {change.qtype}"
            cells = (_name_sign(change), _code(name), _code(_who(change)) or "everyone", _code(_decided(change.was)),
                     _code(_decided(change.will)), _code(change.will.where))  # fmt: skip
            yield f"| {' | '.join(cells)} |"
        yield from _end()
    for field, title in _SECTIONS:
        changes: Sequence[Change] = getattr(plan, field)
        if not changes:
            continue
        more = f", the first {_SHOWN} of {len(changes)}" if len(changes) > _SHOWN else ""
        yield from _begin(title + more, len(changes) <= 12)
        yield "| | what | was | will be | written at |"
        yield "|---|---|---|---|---|"
        for row in changes[:_SHOWN]:
            texts = map(_code, (row.what, row.before, row.after, row.where))
            yield f"| {' | '.join((_SIGNS[row.kind], *texts))} |"
        yield from _end()
    if plan.notes:
        yield ""
        for note in plan.notes:
            yield f"> {note}  "


def _begin(title: str, open: bool) -> Iterator[str]:
    yield ""
    yield f"<details{' open' if open else ''}><summary>{title}</summary>"
    yield ""


def _end() -> Iterator[str]:
    yield ""
    yield "</details>"


def to_json(plan: Plan, before: str, after: str) -> dict[str, Any]:
    """The plan as JSON values."""
    return {
        "from": before, "to": after, "summary": summary(plan), "changes": plan.changes,
        "names": {
            "blocked": plan.blocked, "unblocked": plan.unblocked, "other": plan.other,
            "shown": [
                {
                    "name": change.name, "type": change.qtype, "effect": list(change.effect),
                    "clients": list(change.who), "always": change.always, "before": _decided(change.was),
                    "after": _decided(change.will), "where": change.will.where,
                }
                for change in plan.shown
            ],
        },
        **{field: [dataclasses.asdict(change) for change in getattr(plan, field)] for field, _ in _SECTIONS},
        "notes": list(plan.notes),
    }  # fmt: skip

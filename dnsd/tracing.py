"""The steps of a resolution as a tree for people and as JSON values. Pure: `trace` asks and prints."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

from dnsd.contract import codes, names
from dnsd.resolve import scrub, steps
from dnsd.resolve.presentation import rdata_text, rrset_lines
from dnsd.resolve.rrsets import RRset
from dnsd.resolve.steps import Step

Paint = Callable[[str, str], str]  # style (SGR), text

_BOLD, _DIM, _GREEN, _BLUE, _RED, _YELLOW = "1", "2", "32", "36", "31", "33"
_GOOD = frozenset((scrub.ANSWER, scrub.ALIAS))
_OF_CHAINS = frozenset((codes.TYPE_DS, codes.QTYPES["DNSKEY"]))
_SHOWN = 6  # records of one answer, servers of one referral
_WORDS = {
    "timeout": "no answer in time", "unreachable": "unreachable", "broken": "the connection broke",
    scrub.NODATA: "no data of this type", scrub.NXDOMAIN: "there is no such name", scrub.LAME: "lame",
    scrub.BROKEN: "of no use",
}  # fmt: skip


@dataclasses.dataclass(slots=True)
class _Node:
    """A line of the tree with what hangs below it; `notes` stand under it without a branch of their own."""

    text: str
    notes: list[str] = dataclasses.field(default_factory=list)
    below: list[_Node] = dataclasses.field(default_factory=list)
    zone: bytes | None = None


def tree(trace: Iterable[Step], paint: Paint) -> Iterator[str]:
    """The lines of the tree: a branch for each name looked for, in it a branch for each zone on the way down."""
    roots: list[_Node] = []
    open_names: dict[int, _Node] = {}  # by depth: the name that is looked for
    path: dict[int, list[_Node]] = {}  # by depth: the zones down to where we are
    for step in trace:
        depth = step.depth
        if step.kind == steps.LOOKUP:
            node = _Node(_name(step, paint))
            above = path.get(depth - 1) or ([open_names[depth - 1]] if depth and depth - 1 in open_names else [])
            (above[-1].below if depth and above else roots).append(node)
            open_names[depth], path[depth] = node, []
            continue
        if depth not in open_names or step.kind in (steps.RESULT, steps.ADDRESSES):
            continue
        if step.kind == steps.ASK:
            zones = path[depth]
            while zones and zones[-1].zone != step.zone and not names.is_below(step.zone, zones[-1].zone or names.ROOT):
                zones.pop()
            if not zones or zones[-1].zone != step.zone:
                said = paint(_DIM, " the root") if step.zone == names.ROOT else ""
                node = _Node(paint(_BOLD, names.to_text(step.zone)) + said, zone=step.zone)
                (zones[-1].below if zones else open_names[depth].below).append(node)
                zones.append(node)
            zones[-1].below.append(_Node(_asked(step, paint), list(_came(step, paint))))
        elif step.kind == steps.CACHED:
            lines = _lines(step.rrsets)
            open_names[depth].below.append(_Node(paint(_DIM, f"known already: {step.said}"), lines))
        elif step.kind == steps.VALIDATED:
            colour = {"secure": _GREEN, "bogus": _RED}.get(step.said, _YELLOW)
            why = f": {step.text}" if step.text else ""
            open_names[depth].below.append(_Node(f"DNSSEC: {paint(colour, step.said)}{why}"))
        elif step.kind == steps.FAILED and depth:
            open_names[depth].below.append(_Node(paint(_RED, f"cannot be resolved: {step.text}")))
    for root in roots:
        yield root.text
        yield from _drawn(root, "", paint)


def _drawn(node: _Node, indent: str, paint: Paint) -> Iterator[str]:
    bar = "│ " if node.below else "  "
    for note in node.notes:
        yield f"{paint(_DIM, indent + bar)} {note}"
    for number, child in enumerate(node.below):
        last = number == len(node.below) - 1
        yield paint(_DIM, indent + ("└─ " if last else "├─ ")) + child.text
        yield from _drawn(child, indent + ("   " if last else "│  "), paint)


def _name(step: Step, paint: Paint) -> str:
    text = f"{names.to_text(step.name)} {codes.qtype_name(step.qtype)}"
    if step.said == scrub.ALIAS:
        return f"{paint(_BOLD, text)} {paint(_DIM, 'where the alias leads')}"
    if step.qtype in _OF_CHAINS:
        return f"{paint(_BOLD, text)} {paint(_DIM, 'for the chain of trust')}" if step.depth else paint(_BOLD, text)
    return f"{paint(_BOLD, text)} {paint(_DIM, 'the address of a name server')}" if step.depth else paint(_BOLD, text)


def _asked(step: Step, paint: Paint) -> str:
    server = f"{names.to_text(step.server_name)} {step.server[0] if step.server else ''}"
    over = " over TCP" if step.transport == "tcp" else ""
    took = f"{max(step.rtt_ms, 0)} ms" if step.rtt_ms >= 1 else "under 1 ms" if step.rtt_ms == 0 else "…"
    asked = f"{names.to_text(step.name)} {codes.qtype_name(step.qtype)}?"
    return f"{asked} {paint(_DIM, f'{server}{over}')} {paint(_YELLOW, took)}"


def _came(step: Step, paint: Paint) -> Iterator[str]:
    """What the server said, in words and records."""
    if step.said == scrub.REFERRAL:
        yield f"{paint(_BLUE, 'referral')} to {paint(_BOLD, names.to_text(step.cut))}"
        glue = dict(step.glue)
        for name in step.servers[:_SHOWN]:
            addresses = " ".join(glue.get(name, ())) or "no glue"
            yield f"   {names.to_text(name)} {paint(_DIM, addresses)}"
        if len(step.servers) > _SHOWN:
            yield paint(_DIM, f"   and {len(step.servers) - _SHOWN} more")
        return
    if step.said in _GOOD:
        for line in _lines(step.rrsets):
            yield paint(_GREEN, line)
        return
    words = _WORDS.get(step.said, step.said) + (f": {step.text}" if step.text else "")
    yield paint(_YELLOW if step.said in (scrub.NODATA, scrub.NXDOMAIN) else _RED, words)
    for line in _lines(step.rrsets):
        yield paint(_DIM, line)


def _lines(rrsets: Sequence[RRset]) -> list[str]:
    lines = [line for rrset in rrsets for line in rrset_lines(rrset)]
    shown = [line if len(line) <= 100 else line[:97] + "…" for line in lines[:_SHOWN]]
    return shown + ([f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else [])


# --- JSON -------------------------------------------------------------------------------------------------------------


def step_values(step: Step) -> dict[str, object]:
    """One step as JSON values; what a step does not have is left out."""
    values: dict[str, object] = {
        "kind": step.kind, "depth": step.depth, "name": names.to_text(step.name), "type": codes.qtype_name(step.qtype),
    }  # fmt: skip
    if step.kind == steps.ASK:
        values["zone"] = names.to_text(step.zone)
        values["server"] = {
            "name": names.to_text(step.server_name), "address": step.server[0] if step.server else "",
            "transport": step.transport,
        }  # fmt: skip
        values["rtt_ms"] = step.rtt_ms if step.rtt_ms >= 0 else None
    if step.said:
        values["said"] = step.said
    if step.text:
        values["text"] = step.text
    if step.said == scrub.REFERRAL:
        glue = dict(step.glue)
        values["cut"] = names.to_text(step.cut)
        values["servers"] = [
            {"name": names.to_text(name), "glue": list(glue.get(name, ()))} for name in step.servers
        ]  # fmt: skip
    if step.rrsets:
        values["records"] = [rrset_values(rrset) for rrset in step.rrsets]
    return values


def rrset_values(rrset: RRset) -> dict[str, object]:
    """An RRset as JSON values."""
    return {
        "owner": names.to_text(rrset.owner), "type": codes.qtype_name(rrset.rtype), "ttl": rrset.ttl,
        "data": [rdata_text(rrset.rtype, rdata) for rdata in rrset.rdatas],
    }  # fmt: skip

"""A resolution as text for a terminal and as JSON values. Pure; `trace` asks and prints."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator

from dnsd.contract import codes, names
from dnsd.resolve import scrub, steps
from dnsd.resolve.forwarder import Outcome
from dnsd.resolve.presentation import rdata_text
from dnsd.resolve.rrsets import Message, RRset, parse
from dnsd.resolve.steps import Step
from dnsd.tracing_tree import BAD, DIM, GOOD, INFO, STRONG, TONES, WARN, Line, Node, record_lines, tree

Paint = Callable[[str, str], str]  # style (SGR), text
_SGR = {STRONG: "1", DIM: "2", GOOD: "32", INFO: "36", BAD: "31", WARN: "33"}


@dataclasses.dataclass(frozen=True, slots=True)
class Resolution:
    """A question, the way to its answer, and how long it took; `note` is something to add for people."""

    name: bytes
    qtype: int
    outcome: Outcome
    took_ms: int
    steps: tuple[Step, ...]
    note: str = ""

    @property
    def message(self) -> Message | None:
        """The answer; None when there is none."""
        return parse(self.outcome.response) if self.outcome.response is not None else None

    @property
    def rcode(self) -> str:
        """The answer's response code by name."""
        message = self.message
        return codes.rcode_name(message.rcode) if message is not None else "SERVFAIL"

    @property
    def asks(self) -> list[Step]:
        """The questions that went out."""
        return [step for step in self.steps if step.kind == steps.ASK]

    @property
    def verdict(self) -> Step | None:
        """What validation said of the whole; None when nothing was validated."""
        return next((step for step in reversed(self.steps) if step.kind == steps.VALIDATED), None)

    @property
    def cost(self) -> str:
        """What it took, in words."""
        servers = len({step.server for step in self.asks})
        return f"{_plural(len(self.asks), 'question')} to {_plural(servers, 'server')} in {self.took_ms} ms"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


# --- text -------------------------------------------------------------------------------------------------------------


def text(resolution: Resolution, colour: bool) -> list[str]:
    """The tree, then the answer and what it took."""

    def paint(style: str, words: str) -> str:
        return f"\x1b[{style}m{words}\x1b[0m" if colour and style and words else words

    lines = list(drawn(resolution.steps, paint))
    lines.append("")
    message = resolution.message
    if message is None:
        lines.append(f"{paint('1;31', 'SERVFAIL')} {paint('2', resolution.cost)}")
        lines.append(resolution.outcome.text)
    else:
        verdict = resolution.verdict
        state = f" {paint(_SGR[TONES.get(verdict.said, WARN)], verdict.said)}" if verdict is not None else ""
        tone = "1;32" if message.rcode == 0 else "1;33"
        lines.append(f"{paint(tone, codes.rcode_name(message.rcode))}{state} {paint('2', resolution.cost)}")
        lines += [line for rrset in message.answer for line in record_lines(rrset)]
        if not message.answer:
            lines += [paint("2", line) for rrset in message.authority for line in record_lines(rrset)]
    if resolution.note:
        lines += ["", resolution.note]
    return lines


def drawn(trace: Iterable[Step], paint: Paint) -> Iterator[str]:
    """The lines of the tree, with branches."""

    def words(line: Line) -> str:
        return "".join(paint(_SGR.get(style, ""), part) for style, part in line)

    def below(node: Node, indent: str) -> Iterator[str]:
        bar = "│ " if node.below else "  "
        for note in node.notes:
            yield f"{paint('2', indent + bar)} {words(note)}"
        for number, child in enumerate(node.below):
            last = number == len(node.below) - 1
            yield paint("2", indent + ("└─ " if last else "├─ ")) + words(child.line)
            yield from below(child, indent + ("   " if last else "│  "))

    for root in tree(trace):
        yield words(root.line)
        yield from below(root, "")


# --- JSON -------------------------------------------------------------------------------------------------------------


def values(resolution: Resolution) -> dict[str, object]:
    """The whole as JSON values."""
    message = resolution.message
    found: dict[str, object] = {
        "name": names.to_text(resolution.name),
        "type": codes.qtype_name(resolution.qtype),
        "rcode": resolution.rcode,
        "ms": resolution.took_ms,
        "asked": len(resolution.asks),
        "answer": [rrset_values(rrset) for rrset in message.answer] if message is not None else [],
        "authority": [rrset_values(rrset) for rrset in message.authority] if message is not None else [],
        "steps": [step_values(step) for step in resolution.steps],
    }
    if resolution.verdict is not None:
        found["validation"] = resolution.verdict.said
    if message is None:
        outcome = resolution.outcome
        meaning = codes.EDE_NAMES.get(outcome.ede, "")
        found["error"] = {"ede": outcome.ede, "meaning": meaning, "text": outcome.text}
    return found


def step_values(step: Step) -> dict[str, object]:
    """One step as JSON values; what a step does not have is left out."""
    values: dict[str, object] = {
        "kind": step.kind, "depth": step.depth, "name": names.to_text(step.name), "type": codes.qtype_name(step.qtype),
    }  # fmt: skip
    if step.kind == steps.ASK:
        values["zone"] = names.to_text(step.zone)
        values["server"] = {
            "name": names.to_text(step.server_name) if step.server_name else "",
            "address": step.server[0] if step.server else "",
            "transport": step.transport,
        }  # fmt: skip
        values["rtt_ms"] = step.rtt_ms if step.rtt_ms >= 0 else None
        values["took_ms"] = max(step.took_ms, step.rtt_ms, 0)
    if step.said:
        values["said"] = step.said
    if step.text:
        values["text"] = step.text
    if step.keys:
        values["keys"] = list(step.keys)
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

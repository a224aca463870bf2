"""One snapshot checked from bytes to a rule set: the same call for `check`, the controller and the rules' pipeline."""

from __future__ import annotations

import dataclasses
import datetime
import re

from controller import checks, documents, rules, schema
from controller.diagnostics import Diagnostic, in_order
from controller.documents import Document
from controller.ruleset import RuleSet, RuleTest, Snapshot

_ALLOW = re.compile(rb"#\s*nexoraldns:\s*allow\s+([EW][0-9]{3}(?:[\s,]+[EW][0-9]{3})*)")

# A file that did not change is not read again: (path, bytes) → what was found in it.
_kept: dict[tuple[str, bytes], tuple[Document, list[Diagnostic]]] = {}


@dataclasses.dataclass(frozen=True, slots=True)
class CheckResult:
    """`ruleset` is None when there are errors; `diagnostics` are in order of place; `tests` those that can be asked."""

    ruleset: RuleSet | None
    tests: tuple[RuleTest, ...]
    diagnostics: tuple[Diagnostic, ...]

    @property
    def errors(self) -> int:
        """How many findings reject the rules."""
        return sum(d.is_error for d in self.diagnostics)


def check_snapshot(snapshot: Snapshot, today: datetime.date | None = None) -> CheckResult:
    """Parse, validate, build and check everything at once. `today` is for lint on expiry; without it the clock's."""
    global _kept
    kept: dict[tuple[str, bytes], tuple[Document, list[Diagnostic]]] = {}
    for path, data in sorted(snapshot.files.items()):
        known = _kept.get((path, data))
        if known is None:
            document = documents.parse(path, data)
            known = document, schema.check(document)
        kept[path, data] = known
    _kept = kept
    read = [document for document, _ in kept.values()]
    found = [finding for document in read for finding in document.diagnostics]
    for _, shape in kept.values():
        found += _new(shape, found)
    ruleset, tests, findings = rules.build(snapshot, read)
    found += _new(findings, found)
    if any(finding.is_error for finding in found):
        # Lint on top of errors would mostly be their consequence ("never used").
        return CheckResult(None, tuple(tests), tuple(in_order(_allowed(snapshot, found))))
    assert ruleset is not None
    found += checks.check(ruleset, today or datetime.datetime.now(datetime.UTC).date(), tests)
    found = _allowed(snapshot, found)
    failed = any(finding.is_error for finding in found)
    return CheckResult(None if failed else ruleset, tuple(tests), tuple(in_order(found)))


def _new(findings: list[Diagnostic], known: list[Diagnostic]) -> list[Diagnostic]:
    """Findings at places where nothing has been said yet: the first word on a value is the most basic one."""
    said = {(d.where.path, d.where.line, d.where.column) for d in known if d.is_error}
    return [d for d in findings if (d.where.path, d.where.line, d.where.column) not in said]


def _allowed(snapshot: Snapshot, findings: list[Diagnostic]) -> list[Diagnostic]:
    """Leave out lint that a comment allows: `# nexoraldns: allow W101` on the line above, or at the line's end."""
    marked = {path: data.split(b"\n") for path, data in snapshot.files.items() if b"nexoraldns:" in data}
    out = []
    for finding in findings:
        lines = marked.get(finding.where.path)
        if lines is not None and not finding.is_error:
            number = finding.where.line
            near = b"\n".join(lines[max(number - 2, 0) : number])
            if any(finding.code.encode() in match[1] for match in _ALLOW.finditer(near)):
                continue
        out.append(finding)
    return out

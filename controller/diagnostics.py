"""The catalogue of what can be wrong with rule files, and the value that carries one finding.

Codes are stable: scripts, editors and `# nexoraldns: allow W101` comments depend on them. This module
knows no rule, no YAML and no file; how findings print is in `rendering`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping

from controller.ruleset import Where

ERROR, WARNING = "error", "warning"

CATALOGUE: dict[str, str] = {
    "E001": "The file is not YAML",
    "E002": "A key is written twice in one block",
    "E003": "A YAML feature that rule files do not use",
    "E004": "The file is not plain UTF-8 text",
    "E005": "The file is too large or nested too deeply",
    "E006": "A file cannot be read",
    "E010": "Unknown key",
    "E011": "A key is missing",
    "E012": "A value that is not allowed",
    "E013": "A value of the wrong kind",
    "E020": "The same name is defined twice",
    "E021": "A reference to something that does not exist",
    "E022": "Exactly one of several keys is needed",
    "E023": "Not a domain name",
    "E024": "Not an address, network or range",
    "E025": "A record that cannot be read",
    "E026": "Two rules contradict each other",
    "E027": "A CNAME that cannot stand there",
    "E028": "Names that point at each other in a circle",
    "E029": "A forward that can never be reached",
    "E030": "Not in this version",
    "E040": "A rule test fails",
    "W101": "A rule that never decides",
    "W102": "The same target twice",
    "W103": "Defined but never used",
    "W104": "A rule that has expired",
    "W105": "A rule that expires soon",
    "W106": "Empty: nothing can match",
    "W107": "A list names something that we own",
    "W108": "A tie that only the rules' names decide",
    "W109": "List lines that were left out",
    "W110": "A rule stops something that we need",
    "W111": "A relative name that was probably meant to be absolute",
    "W112": "A record with a surprising effect",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding: `code` of CATALOGUE, `severity` "error" or "warning", a sentence, the place, a hint.

    `related` are further places with a short remark each ("the first one").
    """

    code: str
    severity: str
    message: str
    where: Where
    help: str = ""
    related: tuple[tuple[Where, str], ...] = ()

    @property
    def is_error(self) -> bool:
        """Whether this finding rejects the rules."""
        return self.severity == ERROR

    @property
    def title(self) -> str:
        """The catalogue's title of the code."""
        return CATALOGUE.get(self.code, self.code)


class RulesRejected(Exception):
    """The rules cannot be used; `diagnostics` says why, all at once."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__(summary(self.diagnostics))


def found(
    code: str, message: str, where: Where, help: str = "", related: Iterable[tuple[Where, str]] = ()
) -> Diagnostic:
    """Make a finding whose severity follows from its code (E: error, W: warning)."""
    if code not in CATALOGUE:
        raise KeyError(code)
    return Diagnostic(code, ERROR if code[0] == "E" else WARNING, message, where, help, tuple(related))


def in_order(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Sort by file, place and code; the same finding is kept once."""
    unique = dict.fromkeys(diagnostics)
    return sorted(unique, key=lambda d: (d.where.path, d.where.line, d.where.column, d.code, d.message))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The known word that `word` was most likely meant to be, or ""."""
    choices = sorted(set(known))
    close = difflib.get_close_matches(word, choices, 1, 0.6)
    if not close:
        lowered = {choice.lower(): choice for choice in choices}
        close = [lowered[near] for near in difflib.get_close_matches(word.lower(), lowered, 1, 0.6)]
    if not close and len(word) >= 3:
        close = [choice for choice in choices if choice.lower().startswith(word.lower())]
    return close[0] if close else ""


def plural(number: int, noun: str) -> str:
    """`1 error`, `2 errors`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def summary(diagnostics: Iterable[Diagnostic]) -> str:
    """Count them: `2 errors, 1 warning`."""
    listed = list(diagnostics)
    errors = sum(d.is_error for d in listed)
    return f"{plural(errors, 'error')}, {plural(len(listed) - errors, 'warning')}"


def render(
    diagnostics: Iterable[Diagnostic], sources: Mapping[str, bytes], format: str = "text", *, color: bool = False
) -> str:
    """Print findings as one of `rendering.FORMATS`; `sources` are the files whose lines may be shown."""
    from controller import rendering

    return rendering.render(list(diagnostics), sources, format, color=color)

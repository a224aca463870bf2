"""Findings in the formats that people, editors and pipelines read. Values in, text out; no file is opened here.

`text` is the same everywhere: on the terminal, in the controller's log and on the status page.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from xml.sax.saxutils import escape, quoteattr

from controller.diagnostics import CATALOGUE, Diagnostic, in_order, summary
from controller.ruleset import Where

MAX_SHOWN = 140  # columns of a source line; longer ones are cut around the place
# GitHub shows at most 10 errors and 10 warnings a step; what is above goes into the closing line.
GITHUB_MAX = 10


def render(
    diagnostics: Sequence[Diagnostic], sources: Mapping[str, bytes], format: str = "text", *, color: bool = False
) -> str:
    """Print findings, sorted by place; raises ValueError for a format that does not exist."""
    if format not in FORMATS:
        raise ValueError(f"{format!r} is not a format; there are {', '.join(FORMATS)}")
    ordered = in_order(diagnostics)
    if format == "text":
        return _text(ordered, sources, color)
    return FORMATS[format](ordered, sources)


# --- text -------------------------------------------------------------------------------------------------------------

_RED, _YELLOW, _BLUE, _BOLD, _PLAIN = "\x1b[1;31m", "\x1b[1;33m", "\x1b[1;34m", "\x1b[1m", "\x1b[0m"


def _width(text: str) -> int:
    """How many columns a terminal uses."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text if c > "\u1100")
    return len(text) + wide - sum(unicodedata.combining(c) != 0 for c in text if c > "\u0300")


def _clean(text: str) -> str:
    """Nothing in a rule file may speak to the terminal that shows it."""
    return "".join(c if c.isprintable() else " " if c == "\t" else "\ufffd" for c in text)


def _lines(sources: Mapping[str, bytes], cache: dict[str, list[str]], path: str) -> list[str]:
    if path not in cache:
        data = sources.get(path)
        cache[path] = data.decode("utf-8", "replace").split("\n") if data is not None else []
    return cache[path]


def _snippet(where: Where, lines: list[str], gutter: int, mark: str, paint: Callable[[str, str], str]) -> list[str]:
    if not 0 < where.line <= len(lines):
        return []
    line = lines[where.line - 1].rstrip("\r")
    start = min(max(where.column - 1, 0), len(line))
    end = where.end_column - 1 if where.end_line in (0, where.line) and where.end_column else len(line)
    end = min(max(end, start + 1), max(len(line), start + 1))
    if len(line) > MAX_SHOWN:
        cut = max(0, min(start - 20, len(line) - MAX_SHOWN))
        head, line = ("…" if cut else ""), line[cut : cut + MAX_SHOWN]
        line, start, end = head + line, start - cut + len(head), min(end - cut, MAX_SHOWN) + len(head)
    shown = _clean(line)
    pad = " " * _width(shown[:start])
    carets = "^" * max(1, _width(shown[start:end]))
    bar = paint(_BLUE, "|")
    return [
        f"{' ' * gutter} {bar}",
        f"{paint(_BLUE, str(where.line).rjust(gutter))} {bar} {shown}",
        f"{' ' * gutter} {bar} {pad}{paint(mark, carets)}",
    ]


def _text(diagnostics: Sequence[Diagnostic], sources: Mapping[str, bytes], color: bool) -> str:
    def paint(code: str, text: str) -> str:
        return f"{code}{text}{_PLAIN}" if color and text else text

    cache: dict[str, list[str]] = {}
    blocks = []
    for d in diagnostics:
        mark = _RED if d.is_error else _YELLOW
        gutter = max(len(str(place.line)) for place in (d.where, *(place for place, _ in d.related)))
        out = [f"{paint(mark, f'{d.severity}[{d.code}]')}{paint(_BOLD, ': ' + _clean(d.message))}"]
        out.append(f"{' ' * gutter}{paint(_BLUE, '-->')} {d.where.path}:{d.where.line}:{d.where.column}")
        out += _snippet(d.where, _lines(sources, cache, d.where.path), gutter, mark, paint)
        for place, remark in d.related:
            out.append(
                f"{' ' * gutter}{paint(_BLUE, ':::')} {place.path}:{place.line}:{place.column}: {_clean(remark)}"
            )
            out += _snippet(place, _lines(sources, cache, place.path), gutter, _BLUE, paint)
        if d.help:
            out.append(f"{' ' * gutter} {paint(_BLUE, '=')} {paint(_BOLD, 'help')}: {_clean(d.help)}")
        blocks.append("\n".join(out))
    return "\n\n".join(blocks) + ("\n" if blocks else "")


# --- for machines -----------------------------------------------------------------------------------------------------


def _short(diagnostics: Sequence[Diagnostic], sources: Mapping[str, bytes]) -> str:
    lines = []
    for d in diagnostics:
        help = f" ({d.help})" if d.help else ""
        message = _clean(d.message + help)
        lines.append(f"{d.where.path}:{d.where.line}:{d.where.column}: {d.severity}[{d.code}]: {message}\n")
    return "".join(lines)


def _place(where: Where) -> dict[str, object]:
    return {
        "path": where.path, "line": where.line, "column": where.column,
        "end_line": where.end_line or where.line, "end_column": where.end_column or where.column,
    }  # fmt: skip


def _json(diagnostics: Sequence[Diagnostic], sources: Mapping[str, bytes]) -> str:
    errors = sum(d.is_error for d in diagnostics)
    listed = [
        {
            "code": d.code, "severity": d.severity, "title": d.title, "message": d.message, **_place(d.where),
            "help": d.help, "related": [{**_place(place), "message": remark} for place, remark in d.related],
        }
        for d in diagnostics
    ]  # fmt: skip
    value = {"files": len(sources), "errors": errors, "warnings": len(diagnostics) - errors, "diagnostics": listed}
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _github(diagnostics: Sequence[Diagnostic], sources: Mapping[str, bytes]) -> str:
    """Workflow commands: annotations at the exact line of a pull request."""

    def data(text: str) -> str:
        return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")

    def field(text: str) -> str:
        return data(text).replace(":", "%3A").replace(",", "%2C")

    lines = []
    for severity in ("error", "warning"):
        chosen = [d for d in diagnostics if d.severity == severity]
        for d in chosen[:GITHUB_MAX]:
            where = d.where
            place = f"file={field(where.path)},line={where.line},endLine={where.end_line or where.line}"
            if where.end_line in (0, where.line):
                place += f",col={where.column},endColumn={max(where.end_column - 1, where.column)}"
            message = d.message + (f"\nhelp: {d.help}" if d.help else "")
            lines.append(f"::{severity} {place},title={field(f'{d.code}: {d.title}')}::{data(message)}\n")
        if len(chosen) > GITHUB_MAX:
            lines.append(f"::{severity} title=More::{len(chosen) - GITHUB_MAX} more of them are in this step's log\n")
            rest = _short(chosen[GITHUB_MAX:], sources)
            lines.append(rest)
    return "".join(lines)


def _gitlab(diagnostics: Sequence[Diagnostic], sources: Mapping[str, bytes]) -> str:
    """A Code Quality report (the subset of Code Climate's format that GitLab reads)."""
    seen: dict[str, int] = {}
    listed = []
    for d in diagnostics:
        # A fingerprint must survive lines moving, and still tell two equal findings of one file apart.
        key = f"{d.code}\0{d.where.path}\0{d.message}"
        seen[key] = seen.get(key, 0) + 1
        listed.append(
            {
                "description": f"{d.message} ({d.help})" if d.help else d.message,
                "check_name": d.code,
                "fingerprint": hashlib.sha256(f"{key}\0{seen[key]}".encode()).hexdigest()[:32],
                "severity": "major" if d.is_error else "minor",
                "location": {
                    "path": d.where.path,
                    "lines": {"begin": d.where.line, "end": d.where.end_line or d.where.line},
                },
            }
        )
    return json.dumps(listed, indent=2, ensure_ascii=False) + "\n"


def _sarif(diagnostics: Sequence[Diagnostic], sources: Mapping[str, bytes]) -> str:
    """SARIF 2.1.0, for code scanning."""

    def location(where: Where) -> dict[str, object]:
        region = {"startLine": where.line, "startColumn": where.column}
        if where.end_line and where.end_column:
            region |= {"endLine": where.end_line, "endColumn": where.end_column}
        uri = re.sub(r"[^A-Za-z0-9._~/-]", lambda match: "".join(f"%{b:02X}" for b in match[0].encode()), where.path)
        return {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": region}}

    rules = [{"id": code, "shortDescription": {"text": title}} for code, title in CATALOGUE.items()]
    results = []
    for d in diagnostics:
        text = f"{d.message}. {d.help}" if d.help else d.message
        result: dict[str, object] = {
            "ruleId": d.code, "level": d.severity, "message": {"text": text}, "locations": [location(d.where)],
        }  # fmt: skip
        if d.related:
            result["relatedLocations"] = [{**location(p), "message": {"text": remark}} for p, remark in d.related]
        results.append(result)
    run = {
        "tool": {"driver": {"name": "nexoraldns check", "rules": rules}},
        "columnKind": "unicodeCodePoints",
        "results": results,
    }
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return json.dumps({"$schema": schema, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False) + "\n"


def _junit(diagnostics: Sequence[Diagnostic], sources: Mapping[str, bytes]) -> str:
    """One test case a file; an error is a failure, a warning is part of the case's output."""
    paths = sorted({*sources, *(d.where.path for d in diagnostics)})
    failed = {d.where.path for d in diagnostics if d.is_error}
    out = ['<?xml version="1.0" encoding="utf-8"?>']
    out.append(
        f'<testsuite name="nexoraldns check" tests="{len(paths)}" failures="{len(failed)}" errors="0" skipped="0">'
    )
    for path in paths:
        own = [d for d in diagnostics if d.where.path == path]
        out.append(f'  <testcase classname="check" name={quoteattr(path)} file={quoteattr(path)}>')
        errors = [d for d in own if d.is_error]
        warnings = [d for d in own if not d.is_error]
        if errors:
            text = escape(_text(errors, sources, False))
            out.append(f"    <failure message={quoteattr(summary(errors))}>{text}</failure>")
        if warnings:
            out.append(f"    <system-out>{escape(_text(warnings, sources, False))}</system-out>")
        out.append("  </testcase>")
    out.append("</testsuite>")
    return "\n".join(out) + "\n"


def _plain_text(diagnostics: Sequence[Diagnostic], sources: Mapping[str, bytes]) -> str:
    return _text(diagnostics, sources, False)


FORMATS: dict[str, Callable[[Sequence[Diagnostic], Mapping[str, bytes]], str]] = {
    "text": _plain_text, "short": _short, "json": _json, "github": _github, "gitlab": _gitlab, "sarif": _sarif,
    "junit": _junit,
}  # fmt: skip

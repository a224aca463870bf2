"""A YAML parser's complaint in words for people who write rules.

The parser says where it gave up and what it waited for; what the author did wrong stands in the text at
that place. So this module looks at the text first and at the parser's words only to tell cases apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from controller.diagnostics import Diagnostic, found, plural
from controller.ruleset import Where

_SPECIAL = {
    "*": "an alias", "&": "an anchor", "!": "a tag", "|": "a block of text", ">": "a folded text", "%": "a directive",
    "@": "reserved", "`": "reserved",
}  # fmt: skip


def _plain_end(line: str, start: int) -> int:
    """Where an unquoted value that begins at `start` was meant to end: before a comment, `, ` or a closing bracket."""
    match = re.compile(r"(?:[^\s,\]}]|,(?=\S))+").match(line, start)
    return match.end() if match else min(len(line), start + 1)


def explain_syntax(
    path: str, text: str, place: tuple[int, int], opened: tuple[int, int], problem: str
) -> tuple[Diagnostic, int | None]:
    """Make the E001 for a syntax error. `place` and `opened` are (line, column) from 0: where the parser
    stopped, and where the construct that it was reading begins.

    Also returns the index in `text` of a character that alone is in the way, or None.
    """
    lines = text.split("\n")
    special = _special(lines, place, opened, problem)
    if special is None or _tab(lines, place, opened, problem) is not None:
        return _explain(path, lines, place, opened, problem), None
    (row, column), end, value = special
    help = f"put quotes around it: \"{value}\" ('{value[0]}' has a meaning of its own in YAML: {_SPECIAL[value[0]]})"
    where = Where(path, row + 1, column + 1, row + 1, max(end, column + 1) + 1)
    message = f"{value!r} is not plain text in YAML"
    return found("E001", message, where, help), sum(len(line) + 1 for line in lines[:row]) + column


def _tab(lines: list[str], place: tuple[int, int], opened: tuple[int, int], problem: str) -> tuple[int, int] | None:
    """The place of a tab in the indentation of one of the lines at fault."""
    for near in (place[0], opened[0]):
        indent = re.match(r"[ ]*\t\s*", lines[near]) if near < len(lines) else None
        if indent and ("token" in problem or "tab" in problem or "indentation" in problem or near == place[0]):
            return near, indent[0].index("\t")
    return None


def _explain(path: str, lines: list[str], place: tuple[int, int], opened: tuple[int, int], problem: str) -> Diagnostic:
    row, column = place

    def line_at(number: int) -> str:
        return lines[number].rstrip("\r") if number < len(lines) else ""

    def refuse(message: str, at: tuple[int, int], end: int, help: str = "") -> Diagnostic:
        where = Where(path, at[0] + 1, at[1] + 1, at[0] + 1, max(end, at[1] + 1) + 1)
        return found("E001", message, where, help)

    tab = _tab(lines, place, opened, problem)
    if tab is not None:
        return refuse("a tab is used for indentation", tab, tab[1] + 1, "YAML only takes spaces here; use two")
    if "end of stream" in problem or "document indicator" in problem:
        quote = line_at(opened[0])[opened[1] : opened[1] + 1]
        if quote in ("'", '"'):
            help = f"add the second {quote} at the end of the value"
            return refuse(f"the quote {quote} that opens here is never closed", opened, len(line_at(opened[0])), help)
    if "escape" in problem:
        help = "in double quotes a backslash begins an escape; use single quotes, or write it twice"
        return refuse("this backslash is not an escape that YAML knows", place, column + 1, help)
    bracket = re.search(r"did not find expected ',' or '([\]}])'", problem)
    if bracket:
        mark = line_at(opened[0])[opened[1] : opened[1] + 1]
        if row == opened[0] and column < len(line_at(row)):
            help = "put a comma between values, and quotes around a value that holds : , [ ] { } or #"
            return refuse(f"a ',' or '{bracket[1]}' is missing here", place, _plain_end(line_at(row), column), help)
        return refuse(f"the '{mark}' that opens here is never closed", opened, opened[1] + 1, f"add the '{bracket[1]}'")
    if "mapping values are not allowed" in problem:
        return _colon(line_at(row), line_at(row - 1) if row else "", place, refuse)
    if "sequence entries are not allowed" in problem:
        return refuse(
            "a list cannot begin on the line of its key", place, column + 1, "put '- ' on a line of its own below"
        )
    if "expected '-'" in problem and column == opened[1]:
        help = "every line of this block must begin with '- ', or must be indented further"
        return refuse("a list and keys are mixed in one block", place, _plain_end(line_at(row), column), help)
    if "expected key" in problem or "expected '-'" in problem:
        before = line_at(row)[:column]
        if before.strip():
            help = "put quotes around the whole value; inside single quotes write '' for one quote"
            return refuse("text follows the end of a quoted value", place, len(line_at(row)), help)
        above = next((line for line in reversed(lines[:row]) if line.strip()), "")
        spaces = plural(len(above) - len(above.lstrip()), "space")
        help = f"it stands {plural(column, 'space')} in, the line above {spaces}; keys of one block line up"
        return refuse("this line's indentation fits no block", place, _plain_end(line_at(row), column), help)
    character = line_at(row)[column : column + 1]
    if character in tuple("]},"):
        return refuse(f"there is nothing that this '{character}' could close or separate", place, column + 1)
    if row >= len(lines) - 1 and not character:
        return refuse("the file ends in the middle of a value", (max(row - 1, 0), 0), len(line_at(row - 1)))
    return refuse(
        f"this is not YAML: {problem}", place, _plain_end(line_at(row), column), "put quotes around the value"
    )


def _special(
    lines: list[str], place: tuple[int, int], opened: tuple[int, int], problem: str
) -> tuple[tuple[int, int], int, str] | None:
    """A value that begins with a character that YAML keeps for itself: its place, end and text."""
    for row, column in (opened, place):
        if row >= len(lines):
            continue
        line = lines[row].rstrip("\r")
        first = line[column : column + 1]
        if first in _SPECIAL:
            if first in "|>" and "comment or line break" not in problem and "token" not in problem:
                continue
            end = _plain_end(line, column)
            return (row, column), end, line[column:end]
    return None


def _colon(line: str, above: str, place: tuple[int, int], refuse: Callable[..., Diagnostic]) -> Diagnostic:
    """`mapping values are not allowed`: a second colon in the line, or a key below a value."""
    row, column = place
    head = line[:column]
    if ":" in head:
        start = len(head) - len(head.split(": ", 1)[-1].lstrip()) if ": " in head else 0
        help = f'put quotes around the value: "{line[start:].strip()}"'
        return refuse("a second ': ' in one line", (row, column), column + 1, help)
    start = len(head) - len(head.lstrip())
    if ":" in above:
        spaces = plural(len(above) - len(above.lstrip()), "space")
        help = f"the line above already has a value; put this key {spaces} in, like the one above"
        return refuse("this key is indented below a value", (row, start), column, help)
    help = "the line above has no ':'; a key is written 'key: value'"
    return refuse("this key follows a line that is no key", (row, start), column, help)

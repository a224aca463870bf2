"""Facts about checks over the whole set: what is an error, what is lint, and what is neither."""

import datetime

import pytest

from controller import check
from tests.controller import golden

PEOPLE = (
    "groups: {a: {members: [10.0.0.0/24]}, b: {members: [10.0.1.0/24]}}\n"
    "schedules: {day: {start: 08:00, end: 18:00}, noon: {start: 12:00, end: 13:00}, "
    "night: {start: 18:00, end: 08:00}}\n"
)
USED = "  - {name: zz, for: [a, b], when: day, allow: zz.example}\n  - {name: zy, when: noon, allow: zy.example}\n"
USED += "  - {name: zx, when: night, allow: zx.example}\n"


def found(rules: str, today: datetime.date = golden.TODAY) -> list[str]:
    """The codes found for these rules among known groups and schedules."""
    snapshot = golden.of_texts(a=f"{PEOPLE}rules:\n{USED}{rules}")
    return [d.code for d in check.check_snapshot(snapshot, today).diagnostics]


def pair(one: str, two: str) -> list[str]:
    """What two rules `r` and `s` say together."""
    return found(f"  - {{name: r, {one}}}\n  - {{name: s, {two}}}\n")


def test_a_contradiction() -> None:
    """The same domain, different answers, nothing but the names to decide: refused."""
    assert pair("block: x.example", "block: x.example, reply: refused") == ["E026"]
    assert pair("block: ['.'], for: a", "block: ['.'], for: a, reply: drop") == ["E026"]


def test_x_equals_below_x() -> None:
    """`x` and `*.x` are equal below x; `=x` stands by itself."""
    assert pair("block: x.example, reply: zero", "block: '*.x.example'") == ["E026"]
    assert "E026" not in pair("block: x.example, reply: zero", "block: '=x.example'")


@pytest.mark.parametrize(
    "two",
    [
        "block: x.example, reply: refused, priority: 1",
        "block: x.example, reply: refused, for: a",
        "block: x.example, reply: refused, types: A",
        "block: y.x.example, reply: refused",
        "allow: x.example",
        "block: x.example, reply: refused, enabled: false",
    ],
)
def test_decided_before_the_names(two: str) -> None:
    """Priority, `for`, more labels, `types` and the action decide before step (7)."""
    assert "E026" not in pair("block: x.example", two) and "W108" not in pair("block: x.example", two)


def test_the_same_answer_is_no_contradiction() -> None:
    """A repeat is lint, also when one rule writes out the default."""
    assert pair("block: x.example", "block: x.example, reply: nxdomain") == ["W101"]


def test_schedules_and_exceptions() -> None:
    """`when` and `except` equal or absent in one: an error; different ones: lint, or nothing when they never meet."""
    assert pair("block: x.example, when: day", "block: x.example, reply: zero, when: day") == ["E026"]
    assert pair("block: x.example, when: day", "block: x.example, reply: zero") == ["E026"]
    assert pair("block: x.example, when: day", "block: x.example, reply: zero, when: noon") == ["W108"]
    assert pair("block: x.example, when: day", "block: x.example, reply: zero, when: night") == []
    assert pair("block: x.example, except: a", "block: x.example, reply: zero, except: b") == ["W108"]


def test_a_list_never_makes_an_error() -> None:
    """Ties over lists are lint: lists change without a commit."""
    lists = "lists: {l: {domains: [x.example]}}\n"
    snapshot = golden.of_texts(
        a=f"{lists}rules:\n  - {{name: r, block: list:l}}\n  - {{name: s, block: list:l, reply: zero}}\n"
    )
    result = check.check_snapshot(snapshot, golden.TODAY)
    assert [d.code for d in result.diagnostics] == ["W108"] and result.ruleset is not None


@pytest.mark.parametrize(
    ("one", "two", "codes"),
    [
        ("block: x.example, priority: 5", "allow: y.x.example", ["W101"]),
        ("block: x.example, priority: 5, for: a", "allow: y.x.example", []),
        ("block: x.example, priority: 5, when: day", "allow: y.x.example", []),
        ("block: x.example, priority: 5, except: a", "allow: y.x.example", []),
        ("block: x.example, priority: 5, types: A", "allow: y.x.example", []),
        ("block: x.example, priority: 5, expires: 2030-01-01", "allow: y.x.example", []),
        ("block: '=x.example', priority: 5", "allow: x.example", []),
        ("block: x.example, priority: 5", "allow: '=x.example'", ["W101"]),
        ("block: x.example", "allow: y.x.example", []),
        ("allow: x.example", "block: x.example", ["W101"]),
        ("allow: x.example, for: a", "block: x.example", []),
        ("allow: x.example", "block: x.example, for: a", []),
        ("block: ['.'], for: a", "allow: x.example, for: a", []),
        ("block: ['.'], priority: 1", "allow: x.example", ["W101"]),
    ],
)
def test_shadowed(one: str, two: str, codes: list[str]) -> None:
    """A rule is reported only when another one wins for every client, type and moment."""
    got = pair(one, two)
    # `.` with a priority also stands over the rules that every case has.
    assert [code for code in got if code == "W101"][: len(codes) or None] == codes or (not codes and "W101" not in got)


def test_expiry_is_lint_only() -> None:
    """The same rules are accepted on every day."""
    rule = "  - {name: r, allow: x.example, expires: 2026-03-10}\n"
    days = [datetime.date(2026, 1, 1), datetime.date(2026, 3, 1), datetime.date(2026, 3, 11)]
    assert [found(rule, day) for day in days] == [[], ["W105"], ["W104"]]


def test_expired_rules_still_contradict() -> None:
    """Errors do not depend on the day, so that a good revision cannot turn bad by itself."""
    two = "  - {name: r, block: x.example, expires: 2020-01-01}\n  - {name: s, block: x.example, reply: zero}\n"
    assert "E026" in found(two)


def test_a_redirect_below_itself_is_fine() -> None:
    """duckduckgo.com to safe.duckduckgo.com: a redirect does not apply to its own target."""
    assert found('  - {name: r, redirect: {"x.example": safe.x.example}}\n') == []

"""`plan`: decisions are compared, not text."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess

import pytest
from click.testing import CliRunner

from controller import plan, plan_text, subject
from controller.cli.plan import command

BASE = """\
version: 1
groups: {staff: {members: [10.0.10.0/24]}}
schedules: {lunch: {timezone: UTC, weekdays: [mon, tue, wed, thu, fri, sat, sun], start: "12:00", end: "13:00"}}
lists: {ads: {domains: [ads.example, two.ads.example]}}
rules:
  - {name: ads, block: [list:ads]}
  - {name: games, for: staff, block: [games.example]}
zones:
  office.example:
    ttl: 5m
    ptr: auto
    records: {printer: 10.0.20.15, nas: 10.0.20.6}
forward: {corp.example: 10.1.0.53, .: 192.0.2.53}
"""


def table(tmp_path: pathlib.Path, text: str, name: str) -> subject.Subject:
    """These rules, compiled."""
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    (folder / "rules.yaml").write_text(text)
    return subject.from_path(str(folder))


def made(tmp_path: pathlib.Path, before: str, after: str, now: float = 0.0) -> plan.Plan:
    """The plan from one text to another."""
    return plan.compare(table(tmp_path, before, "a").table, table(tmp_path, after, "b").table, now)


def changed(tmp_path: pathlib.Path, old: str, new: str) -> plan.Plan:
    """The plan for one replacement in the rules above."""
    assert old in BASE
    return made(tmp_path, BASE, BASE.replace(old, new))


def test_same_rules_and_comments_change_nothing(tmp_path: pathlib.Path) -> None:
    """The same rules are the same table; a comment or a description changes nothing for clients."""
    same = table(tmp_path, BASE, "a").table
    assert plan_text.summary(plan.compare(same, same, 0.0)) == "nothing changes: the tables are the same"

    commented = changed(tmp_path, "rules:\n", "# why\nrules:\n")
    assert not commented.changes
    assert "nothing changes for clients" in plan_text.summary(commented)


def test_blocked_and_unblocked_names(tmp_path: pathlib.Path) -> None:
    """Names that get blocked and names that no longer are, each counted once, with the rule at fault."""
    found = changed(tmp_path, "[ads.example, two.ads.example]", "[ads.example, new.example]")
    # two.ads.example stays blocked: a listed name means everything below.
    assert (found.blocked, found.unblocked) == (1, 0)
    assert plan_text.summary(found) == "+1 name blocked, 1 list changed"

    gone = changed(tmp_path, "  - {name: games, for: staff, block: [games.example]}\n", "")
    assert (gone.blocked, gone.unblocked, gone.shown[0].name) == (0, 1, "games.example and below")
    assert gone.shown[0].who == ("staff",)
    assert [(change.kind, change.what) for change in gone.rules] == [("removed", "games")]


def test_records_and_forwards_are_told_once(tmp_path: pathlib.Path) -> None:
    """A changed record and its reverse name, and a changed forward, are not repeated among the names."""
    found = changed(tmp_path, "printer: 10.0.20.15", "printer: 10.0.20.16")
    assert {(change.kind, change.what) for change in found.records} == {
        ("changed", "printer.office.example A"), ("added", "16.20.0.10.in-addr.arpa PTR"),
        ("removed", "15.20.0.10.in-addr.arpa PTR"),
    }  # fmt: skip
    assert found.shown == ()

    forward = changed(tmp_path, "corp.example: 10.1.0.53, ", "")
    assert [(change.kind, change.what) for change in forward.routes] == [("removed", "corp.example")]
    assert plan_text.summary(forward) == "1 forward removed"
    group = changed(tmp_path, "corp.example: 10.1.0.53", "corp.example: {upstreams: 10.1.0.53, for: {staff: 10.1.0.54}}")
    assert [(change.kind, change.what) for change in group.routes] == [("added", "corp.example for staff")]
    assert group.shown == () and "10.1.0.54" in group.routes[0].after


def test_everything_else_is_a_name_too(tmp_path: pathlib.Path) -> None:
    """A rule for every name, or another server for everything, shows as every other name."""
    found = changed(tmp_path, "block: [games.example]", 'block: ["."]')
    assert [(change.name, change.effect) for change in found.shown] == [("(every other name)", ("blocked",))]


def test_clients_that_get_different_things_have_a_row_each(tmp_path: pathlib.Path) -> None:
    """Servers that change for a group, and others for one of its clients: each row says what those it names get."""
    rules = """\
version: 1
groups: {kids: {members: [10.0.10.0/24]}}
clients: {tablet: {ids: [10.0.10.7]}}
forward: {".": {upstreams: 192.0.2.53, for: {kids: 192.0.2.3, tablet: recurse}}}
"""
    found = made(tmp_path, rules, rules.replace("192.0.2.3,", "192.0.2.4,").replace("recurse", "192.0.2.5"))
    assert found.total == 1 and found.unshown == 0
    rows = {change.who: (change.was.route, change.will.route) for change in found.shown}
    servers = {who: tuple(tuple(ip for ip, _ in route.servers) if route else () for route in both) for who, both in rows.items()}
    assert servers == {
        ("kids",): (("192.0.2.3",), ("192.0.2.4",)),
        ("kids+tablet",): ((), ("192.0.2.5",)),
    }


def test_schedules_are_looked_at_for_a_week(tmp_path: pathlib.Path) -> None:
    """A rule that only holds at lunch changes names at some times, whatever the hour of the plan."""
    found = changed(
        tmp_path, "block: [games.example]}", "block: [games.example]}\n  - {name: l, for: staff, when: lunch, "
        "allow: [games.example]}",
    )  # fmt: skip
    (games,) = [change for change in found.shown if change.name.startswith("games.example")]

    assert (games.effect, games.always, games.who) == (("unblocked",), False, ("staff",))
    assert [(change.kind, change.what) for change in found.schedules] == [("added", "lunch")]


def test_clients_that_move(tmp_path: pathlib.Path) -> None:
    """A range that leaves a group is named, and what that means for names as well."""
    found = changed(tmp_path, "10.0.10.0/24", "10.0.10.0/25")
    (clients,) = found.clients

    assert (clients.what, clients.before, clients.after) == ("10.0.10.128-10.0.10.255", "staff", "everyone else")
    assert found.unblocked == 1


def test_another_rule_with_the_same_effect_is_no_name_change(tmp_path: pathlib.Path) -> None:
    """When a name is treated alike by another rule, only the rules differ."""
    found = changed(
        tmp_path, "  - {name: games, for: staff, block: [games.example]}\n",
        "  - {name: games, for: staff, block: [other.example]}\n"
        "  - {name: play, for: staff, block: [games.example]}\n",
    )  # fmt: skip

    assert [change.name for change in found.shown] == ["other.example and below"]
    assert [(change.kind, change.what) for change in found.rules] == [("changed", "games"), ("added", "play")]


def test_large_lists_are_sampled_and_say_so(tmp_path: pathlib.Path) -> None:
    """Names that are in the same lists before and after are sampled, with a note; those that come are all asked."""
    many = ", ".join(f"n{i}.many.example" for i in range(500))
    before = BASE.replace("[ads.example, two.ads.example]", f"[{many}]")
    found = made(tmp_path, before, before.replace("n499.many", "m499.many"))

    assert (found.blocked, found.unblocked) == (1, 1)
    assert found.notes == (
        "64 of 499 names that are in the same lists as each other were asked for; none of them is decided otherwise",
    )


def test_formats(tmp_path: pathlib.Path) -> None:
    """Text, Markdown and JSON carry the same; text from rules cannot break out of the Markdown."""
    found = changed(tmp_path, "list:ads", "list:ads, 'x.example'")
    text = plan_text.to_text(found, "A", "B")
    assert text.startswith("plan: A → B\n+1 name blocked, 1 rule changed\n")
    assert "+ x.example and below" in text
    assert "will  block -> NXDOMAIN, TTL 10 by ads" in text

    markdown = plan_text.to_markdown(found, "a`|<b>", "B")
    assert "**+1 name blocked, 1 rule changed**" in markdown
    assert "``a`\\|<b>``" in markdown
    assert markdown.count("<details") == markdown.count("</details>") == 2

    value = plan_text.to_json(found, "A", "B")
    assert json.loads(json.dumps(value))["names"]["blocked"] == 1


@pytest.fixture
def repository(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A git repository with two commits of the rules, and an uncommitted change."""
    folder = tmp_path / "repository"
    (folder / "rules.d").mkdir(parents=True)
    monkeypatch.chdir(folder)
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null",
                   **{f"GIT_{who}_{what}": "x@example.com" for who in ("AUTHOR", "COMMITTER")
                      for what in ("NAME", "EMAIL")}}  # fmt: skip

    def git(*words: str) -> None:
        subprocess.run(["git", *words], check=True, capture_output=True, env=environment)

    git("init", "-q", "-b", "main")
    for text in (BASE, BASE.replace("printer: 10.0.20.15", "printer: 10.0.20.16")):
        (folder / "rules.d" / "rules.yaml").write_text(text)
        git("add", ".")
        git("commit", "-q", "-m", "rules")
    (folder / "rules.d" / "rules.yaml").write_text(BASE.replace("games.example", "play.example"))
    return folder


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "~ games"),
        (["HEAD"], "~ games"),
        (["HEAD~1", "HEAD"], "printer.office.example A"),
        (["HEAD~1..HEAD"], "printer.office.example A"),
        (["HEAD~1..", "--path", "rules.d"], "printer.office.example A"),
    ],
)
def test_verb_over_git(repository: pathlib.Path, argv: list[str], words: str) -> None:
    """Revisions, ranges and the working folder, from the repository's top or from a folder in it."""
    result = CliRunner().invoke(command, argv)

    assert (result.exit_code, words in result.output) == (0, True), result.output


def test_verb_exit_codes(repository: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """0 planned; with --exit-code 2 for changes and 1 when it could not run; unknown things are refused in words."""
    runner = CliRunner()
    assert runner.invoke(command, ["HEAD~1", "HEAD", "--exit-code"]).exit_code == 2
    assert runner.invoke(command, ["HEAD", "HEAD", "--exit-code"]).exit_code == 0

    missing = runner.invoke(command, ["nonesuch", "HEAD"])
    assert (missing.exit_code, "nonesuch" in missing.output) == (2, True)
    assert runner.invoke(command, ["nonesuch", "HEAD", "--exit-code"]).exit_code == 1
    assert "not in this version" in runner.invoke(command, ["--queries", "x.log"]).output

    (repository / "rules.d" / "rules.yaml").write_text("version: 1\nrulse: []\n")
    broken = runner.invoke(command, ["HEAD"])
    assert (broken.exit_code, "E010" in broken.output) == (1, True)


def test_verb_over_tables_and_folders(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two folders, or a compiled table and a folder, compare alike."""
    monkeypatch.chdir(tmp_path)
    old = table(tmp_path, BASE, "a")
    table(tmp_path, BASE.replace("games.example", "play.example"), "b")
    (tmp_path / "a.table").write_bytes(old.blobs.policy)
    (tmp_path / "a.table.names").write_bytes(old.blobs.names)
    runner = CliRunner()
    folders = runner.invoke(command, ["a", "b"]).output.splitlines()[1:]
    tables = runner.invoke(command, ["a.table", "b"]).output.splitlines()[1:]

    assert folders == tables
    assert folders[0] == "+1 −1 names blocked, 1 rule changed"

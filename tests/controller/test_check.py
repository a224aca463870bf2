"""Facts about the verb `check` and the formats in which findings print."""

import json
import os
import pathlib
import subprocess
import sys
import xml.etree.ElementTree

import pytest

from controller import diagnostics
from controller.diagnostics import found
from controller.rendering import FORMATS
from controller.ruleset import Where

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
GOOD = "version: 1\nrules:\n  - {name: r, block: x.example}\n"
BAD = "version: 1\nrules:\n  - {name: r, block: [list:nope]}\n"
LINT = "version: 1\nlists: {l: {domains: [x.example]}}\n"

SOURCES = {"a.yaml": "version: 1\nkey: 例え value\tx\n".encode()}
LISTED = [
    found("E012", "one: 100% wrong", Where("a.yaml", 2, 9, 2, 14), "say, it", [(Where("a.yaml", 1, 1, 1, 8), "here")]),
    found("W103", "two", Where("a.yaml", 1, 1, 1, 8)),
]


def run(folder: pathlib.Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `nexoraldns check` in a folder."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("NEXORALDNS", "GITHUB"))}
    return subprocess.run(
        [sys.executable, "-m", "controller.cli", "check", *words], cwd=folder, text=True, capture_output=True,
        env={**environ, "PYTHONPATH": str(ROOT), **more}, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with rules.d."""
    (tmp_path / "rules.d").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("text", "words", "code"),
    [
        (GOOD, (), 0),
        (BAD, (), 1),
        (LINT, (), 0),
        (LINT, ("--strict",), 3),
        (BAD, ("--strict",), 1),
        (GOOD, ("nowhere",), 2),
    ],
)
def test_exit_codes(folder: pathlib.Path, text: str, words: tuple[str, ...], code: int) -> None:
    """0 fine, 1 errors, 2 could not run, 3 lint with --strict."""
    (folder / "rules.d" / "a.yaml").write_text(text)
    done = run(folder, *words)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_github_is_chosen_in_its_pipeline(folder: pathlib.Path) -> None:
    """Under GITHUB_ACTIONS=true findings are annotations at the exact line, relative to the repository."""
    (folder / "rules.d" / "a.yaml").write_text(BAD)
    done = run(folder, GITHUB_ACTIONS="true")
    assert done.stdout.startswith("::error file=rules.d/a.yaml,line=3,endLine=3,col=23,endColumn=31,title=E021%3A ")


def test_no_colour_in_a_pipe(folder: pathlib.Path) -> None:
    """Colour is for terminals only."""
    (folder / "rules.d" / "a.yaml").write_text(BAD)
    assert "\x1b" not in run(folder).stdout


def test_settings_are_checked(folder: pathlib.Path) -> None:
    """--config checks the file of settings, with places, and the rules that it names."""
    (folder / "rules.d" / "a.yaml").write_text(GOOD)
    file = folder / "node.yaml"
    file.write_text('listen: ["127.0.0.1:53"]\nsource: {directory: rules.d}\n')
    done = run(folder, "--config", "node.yaml")
    assert done.returncode == 0 and "2 files checked" in done.stdout
    file.write_text("listen: [nowhere]\nwrokers: 3\ncache: {size: 12}\n")
    done = run(folder, "--config", "node.yaml", "--format", "short")
    assert done.returncode == 1
    assert [line.split(": ")[0] for line in done.stdout.splitlines()] == [
        "node.yaml:1:10",
        "node.yaml:2:1",
        "node.yaml:3:15",
    ]


def test_what_only_the_dns_half_can_read_is_checked_too(folder: pathlib.Path) -> None:
    """Trust anchors and root hints that dnsd would refuse to start with are found by `check`, each at its place."""
    (folder / "rules.d" / "a.yaml").write_text(GOOD)
    (folder / "node.yaml").write_text(
        "resolver:\n  root_hints: nofile\n  trust_anchors:\n"
        '    - ". DS 1 8 2 zz"\n    - ". DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D"\n'
        '    - foo\n  negative_trust_anchors: ["a..b", x until 2036-01-01, y until soon]\n'
    )
    done = run(folder, "--config", "node.yaml", "--format", "short")
    assert done.returncode == 1, done.stderr
    places = [line.split(": ")[0] for line in done.stdout.splitlines()]
    assert places == ["node.yaml:2:15", "node.yaml:4:7", "node.yaml:6:7", "node.yaml:7:28", "node.yaml:7:56"]
    (folder / "node.yaml").write_text(
        "workers: no\nresolver: {trust_anchors: [], root_hints: [{name: a.b, addresses: [192.0.2.1]}]}\n"
    )
    done = run(folder, "--config", "node.yaml", "--format", "short")
    assert [line.split(": ")[0] for line in done.stdout.splitlines()] == ["node.yaml:1:10"]


def test_text_points_at_the_value() -> None:
    """Carets stand under exactly the value, wide characters included."""
    lines = diagnostics.render(LISTED, SOURCES, "text").splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("error[E012]"))
    assert lines[at + 1] == " --> a.yaml:2:9"
    assert lines[at + 3] == "2 | key: 例え value x" and lines[at + 4] == "  | " + " " * 10 + "^" * 5
    assert lines[at + 5] == " ::: a.yaml:1:1: here"


def test_colour_only_when_asked() -> None:
    """The coloured text is the plain text with escapes in it."""
    import re

    coloured = diagnostics.render(LISTED, SOURCES, "text", color=True)
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == diagnostics.render(LISTED, SOURCES, "text") != coloured


def test_a_file_cannot_speak_to_the_terminal() -> None:
    """Escapes in a source line are not passed on."""
    sources = {"a.yaml": b"x: \x1b]0;owned\x07\n"}
    assert "\x1b" not in diagnostics.render([found("E004", "x \x1b[31m", Where("a.yaml", 1, 1, 1, 2))], sources, "text")


def test_machine_formats() -> None:
    """Each format is what its readers parse, and says the same."""
    made = {form: diagnostics.render(LISTED, SOURCES, form) for form in FORMATS}
    assert made["short"].splitlines()[1] == "a.yaml:2:9: error[E012]: one: 100% wrong (say, it)"
    value = json.loads(made["json"])
    assert (value["errors"], value["warnings"]) == (1, 1)
    assert (
        value["diagnostics"][1] | {"code": "E012", "line": 2, "column": 9, "end_column": 14} == value["diagnostics"][1]
    )
    assert "::error file=a.yaml,line=2,endLine=2,col=9,endColumn=13,title=E012%3A" in made["github"]
    assert "100%25 wrong%0Ahelp" in made["github"]
    gitlab = json.loads(made["gitlab"])
    assert {entry["severity"] for entry in gitlab} == {"major", "minor"} and len(
        {e["fingerprint"] for e in gitlab}
    ) == 2
    sarif = json.loads(made["sarif"])
    assert [r["ruleId"] for r in sarif["runs"][0]["results"]] == ["W103", "E012"]
    suite = xml.etree.ElementTree.fromstring(made["junit"])
    assert suite.get("failures") == "1" and suite.find("testcase/failure") is not None


def test_nothing_found_is_valid_in_every_format() -> None:
    """Without findings the machine formats are still complete documents."""
    for form in ("json", "gitlab", "sarif"):
        json.loads(diagnostics.render([], SOURCES, form))
    xml.etree.ElementTree.fromstring(diagnostics.render([], SOURCES, "junit"))
    assert diagnostics.render([], SOURCES, "text") == ""

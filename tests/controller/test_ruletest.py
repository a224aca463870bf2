"""The tests beside the rules: what passes, what fails, and how a failure reads."""

from __future__ import annotations

import json
import pathlib
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from click.testing import CliRunner

from controller import ruletest, subject
from controller.cli.test import command

RULES = """\
version: 1
groups: {staff: {members: [10.0.10.0/24]}}
lists: {ads: {domains: [ads.example]}}
rules:
  - {name: ads, block: [list:ads]}
  - {name: pictures, allow: [ok.ads.example]}
  - {name: search, redirect: {www.search.example: safe.search.example, wiki.example: intranet.office.example}}
  - {name: portal, redirect: {portal.example: 10.0.50.1}}
  - {name: kiosk, for: staff, block: [kiosk.example], reply: refused}
  - {name: silent, block: [silent.example], reply: drop}
  - {name: unreached, block: [never.example]}
zones:
  office.example:
    ttl: 5m
    records:
      printer: 10.0.20.15
      nas: [10.0.20.6, 10.0.20.7]
      intranet: {type: CNAME, value: nas}
      "@": {type: MX, value: 10 mail.example.}
forward: {corp.example: [10.1.0.53, "10.1.0.54:5353"], .: 192.0.2.53}
"""


def loaded(tmp_path: pathlib.Path, tests: list[dict[str, Any]]) -> subject.Subject:
    """The rules above with these tests beside them."""
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "tests").mkdir(exist_ok=True)
    (tmp_path / "tests" / "office.yaml").write_text(json.dumps({"tests": tests}, indent=1))
    return subject.from_path(str(tmp_path))


def one(tmp_path: pathlib.Path, query: dict[str, Any], expect: dict[str, Any], **more: Any) -> list[str]:
    """The failures of a single test, as `key: expected E, got G`."""
    found = loaded(tmp_path, [{"name": "t", "query": query, "expect": expect, **more}])
    assert found.ruleset is not None
    (result,) = ruletest.results(found.ruleset, found.blobs, found.tests)
    return [f"{failure.key}: expected {failure.expected}, got {failure.got}" for failure in result.failures]


@pytest.mark.parametrize(
    ("query", "expect"),
    [
        ({"name": "x.ads.example"}, {"action": "block", "rule": "ads", "rcode": "NOERROR"}),
        ({"name": "ok.ads.example"}, {"action": "allow", "rule": "pictures", "to": ["192.0.2.53"]}),
        ({"name": "www.search.example"}, {"action": "redirect", "CNAME": "safe.search.example."}),
        ({"name": "wiki.example"}, {"CNAME": ["intranet.office.example."], "A": ["10.0.20.7", "10.0.20.6"]}),
        ({"name": "portal.example"}, {"action": "redirect", "A": ["10.0.50.1"], "ttl": "10s"}),
        ({"name": "kiosk.example", "client": "staff"}, {"action": "block", "rcode": "REFUSED"}),
        ({"name": "kiosk.example", "client": "staff"}, {"action": "refuse"}),
        ({"name": "silent.example"}, {"action": "drop"}),
        ({"name": "printer.office.example"}, {"action": "answer", "A": ["10.0.20.15"], "ttl": 300}),
        ({"name": "printer.office.example", "type": "AAAA"}, {"action": "answer", "rcode": "NOERROR", "AAAA": []}),
        ({"name": "office.example", "type": "MX"}, {"MX": ["10 mail.example."]}),
        ({"name": "x.corp.example"}, {"action": "forward", "to": ["10.1.0.54:5353", "10.1.0.53"]}),
        ({"name": "elsewhere.example"}, {"action": "forward", "to": "192.0.2.53:53"}),
    ],
)
def test_expectations_that_are_met(tmp_path: pathlib.Path, query: dict[str, Any], expect: dict[str, Any]) -> None:
    """Every key of `expect` can be met, by data in any order."""
    assert one(tmp_path, query, expect) == []


@pytest.mark.parametrize(
    ("query", "expect", "failures"),
    [
        ({"name": "ads.example"}, {"action": "allow", "rule": "pictures"},
         ["action: expected allow, got block", "rule: expected 'pictures', got 'ads'"]),
        ({"name": "elsewhere.example"}, {"rcode": "NXDOMAIN", "rule": "ads"},
         ["rcode: expected NXDOMAIN, got (whatever the upstream server says)", "rule: expected 'ads', got none"]),
        ({"name": "silent.example"}, {"rcode": "NXDOMAIN"}, ["rcode: expected NXDOMAIN, got none: no answer at all"]),
        ({"name": "nas.office.example"}, {"A": ["10.0.20.6"], "ttl": 60},
         ["A: expected 10.0.20.6, got 10.0.20.6, 10.0.20.7", "ttl: expected 60 s, got 300 s"]),
        ({"name": "x.corp.example"}, {"to": ["10.1.0.53"]}, ["to: expected 10.1.0.53, got 10.1.0.53, 10.1.0.54:5353"]),
        ({"name": "elsewhere.example"}, {"A": ["192.0.2.1"]},
         ["A: expected 192.0.2.1, got (whatever the upstream server says)"]),
    ],
)  # fmt: skip
def test_expectations_that_are_not_met(
    tmp_path: pathlib.Path, query: dict[str, Any], expect: dict[str, Any], failures: list[str]
) -> None:
    """A failure says what was expected and what came; all of a test's failures come at once."""
    assert one(tmp_path, query, expect) == failures


def test_given_lists_replace_the_content(tmp_path: pathlib.Path) -> None:
    """With `given` a list holds just these names, for this test alone."""
    given = {"lists": {"ads": ["new.example"]}}
    assert one(tmp_path, {"name": "new.example"}, {"rule": "ads"}, given=given) == []
    assert one(tmp_path, {"name": "ads.example"}, {"action": "forward"}, given=given) == []
    assert one(tmp_path, {"name": "ads.example"}, {"rule": "ads"}) == []


def test_failures_are_errors_at_the_expectation(tmp_path: pathlib.Path) -> None:
    """`run` gives one error a failed expectation, placed at its value."""
    found = loaded(tmp_path, [{"name": "the printer", "query": {"name": "printer.office.example"},
                               "expect": {"A": ["10.0.20.16"]}}])  # fmt: skip
    assert found.ruleset is not None
    (error,) = ruletest.run(found.ruleset, found.blobs, found.tests)

    assert (error.code, error.is_error) == ("E040", True)
    assert error.message == "test 'the printer': A is 10.0.20.15, expected 10.0.20.16"
    line = (tmp_path / "tests" / "office.yaml").read_text().splitlines()[error.where.line - 1]
    assert "10.0.20.16" in line or '"A"' in line


def test_verb(tmp_path: pathlib.Path) -> None:
    """The verb prints pass and FAIL with the explanation, coverage, JSON and JUnit, and exits 1 on a failure."""
    tests = [
        {"name": "ads", "query": {"name": "ads.example"}, "expect": {"rule": "ads"}},
        {"name": "lunch", "query": {"name": "ads.example"}, "expect": {"action": "allow"}},
    ]
    loaded(tmp_path, tests)
    runner = CliRunner()
    text = runner.invoke(command, [str(tmp_path), "--coverage"])
    assert text.exit_code == 1
    assert "pass  ads" in text.output
    assert "FAIL  lunch" in text.output
    assert "expected allow, got block" in text.output
    assert "| → block  ads" in text.output
    assert "coverage: 1 of 7 rules decide in a test" in text.output
    assert "no test reaches  unreached" in text.output
    assert "1 of 2 tests failed" in text.output

    value = json.loads(runner.invoke(command, [str(tmp_path), "--coverage", "--format", "json"]).output)
    assert (value["tests"], value["failed"]) == (2, 1)
    assert "unreached" in value["not_reached"]

    suite = ET.fromstring(runner.invoke(command, [str(tmp_path), "--format", "junit"]).output)
    assert suite.attrib["failures"] == "1"
    assert suite.find("testcase/failure") is not None

    assert runner.invoke(command, [str(tmp_path), "-k", "ads"]).exit_code == 0
    assert runner.invoke(command, [str(tmp_path), "-k", "nothing"]).exit_code == 2


def test_rules_with_errors_and_without_tests(tmp_path: pathlib.Path) -> None:
    """Rules that cannot be used exit 1 with their errors; rules without tests say how to write one."""
    (tmp_path / "rules.yaml").write_text("version: 1\nrulse: []\n")
    broken = CliRunner().invoke(command, [str(tmp_path)])
    assert (broken.exit_code, "E010" in broken.output) == (1, True)

    (tmp_path / "rules.yaml").write_text("version: 1\n")
    empty = CliRunner().invoke(command, [str(tmp_path)])
    assert (empty.exit_code, "has no tests" in empty.output) == (0, True)

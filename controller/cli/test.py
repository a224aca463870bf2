"""`nexoraldns test`: the tests beside the rules, and which rules no test reaches."""

from __future__ import annotations

import json
import os
import sys
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import click

from controller.cli import config_option, fail

if TYPE_CHECKING:
    from controller.ruletest import Result
    from controller.subject import Subject


@click.command("test")
@click.argument("path", required=False)
@click.option("-k", "wanted", metavar="TEXT", default="", help="Only tests with TEXT in their name.")
@click.option("--coverage", is_flag=True, help="Also name the rules that no test reaches.")
@click.option("--format", "form", type=click.Choice(["text", "junit", "json"]), default="text", show_default=True)
@config_option
def command(path: str | None, wanted: str, coverage: bool, form: str, config: str | None) -> None:
    """Run the tests beside the rules in PATH (a folder or a file; default ./rules.d or the source of the settings).

    A test that fails shows what was expected, what came, and why.

    \b
    Examples: nexoraldns test --coverage
              nexoraldns test rules.d -k lunch
              nexoraldns test --format junit > report.xml
    Exit codes: 0 all pass, 1 a test fails or the rules have errors, 2 could not run.
    """
    from controller import node, ruletest, subject

    try:
        found = subject.from_path(path or subject.default_path(node.read(config)))
    except node.NodeError as error:
        fail(str(error))
    except subject.SubjectError as error:
        click.echo(str(error) if error.code == 1 else f"nexoraldns: {error}", err=True)
        raise SystemExit(error.code) from None
    if found.ruleset is None:
        fail(f"{found.label} is a compiled table; tests are beside the rules, so give a folder")
    assert found.ruleset is not None
    chosen = [test for test in found.tests if wanted.lower() in test.name.lower()]
    if found.tests and not chosen:
        fail(f"no test has {wanted!r} in its name; there are {len(found.tests)} tests")
    tested = ruletest.results(found.ruleset, found.blobs, chosen)
    missed = ruletest.coverage(found.ruleset, tested) if coverage else []
    failed = sum(bool(result.failures) for result in tested)
    if form == "json":
        click.echo(json.dumps(_json(tested, missed if coverage else None), indent=2, ensure_ascii=False))
    elif form == "junit":
        click.echo(_junit(tested))
    else:
        _print(found, tested)
        if coverage:
            _print_coverage(found, missed)
    raise SystemExit(1 if failed else 0)


def _explained(result: Result, found: Subject) -> str:
    from controller import explain
    from dnsd.contract.table import Table

    table = Table(result.blobs.policy, result.blobs.names)
    test = result.test
    assert found.ruleset is not None
    return explain.to_text(explain.explain(
        table, test.qname, test.qtype, test.client, result.at, groups=found.ruleset.groups,
        zone=explain.time_zone(table, found.timezone),
    ))  # fmt: skip


def _print(found: Subject, tested: list[Result]) -> None:
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def paint(style: str, text: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if colour else text

    if not tested:
        click.echo(
            f"{found.label} has no tests. Write what the rules are meant to do, for instance in "
            f"{found.label}/tests/office.yaml:\n\n  tests:\n    - name: the printer\n"
            "      query: {name: printer.office.example.com}\n      expect: {A: [10.0.20.15]}"
        )
        return
    for result in tested:
        if not result.failures:
            click.echo(f"{paint('32', 'pass')}  {result.test.name}")
            continue
        click.echo(f"{paint('1;31', 'FAIL')}  {paint('1', result.test.name)}   {result.test.where}")
        width = max(len(failure.key) for failure in result.failures)
        for failure in result.failures:
            where = result.test.expect_where.get(failure.key, result.test.where)
            click.echo(f"      {where}: {failure.key:<{width}}  expected {failure.expected}, got {failure.got}")
        for line in _explained(result, found).rstrip().splitlines():
            click.echo(f"      {paint('2', '|')} {line}".rstrip())
    failed = sum(bool(result.failures) for result in tested)
    count = f"{len(tested)} test{'' if len(tested) == 1 else 's'}"
    click.echo("")
    click.echo(paint("1;31", f"{failed} of {count} failed") if failed else paint("32", f"{count} passed"))


def _print_coverage(found: Subject, missed: list[str]) -> None:
    assert found.ruleset is not None
    rules = [rule for rule in found.ruleset.rules.values() if rule.enabled]
    click.echo(f"coverage: {len(rules) - len(missed)} of {len(rules)} rules decide in a test")
    width = max(map(len, missed), default=0)
    for name in missed:
        click.echo(f"  no test reaches  {name:<{width}}  {found.ruleset.rules[name].where}")


def _json(tested: list[Result], missed: list[str] | None) -> dict[str, object]:
    from controller import ruletest

    rows = [
        {
            "name": result.test.name, "where": str(result.test.where), "passed": not result.failures,
            "got": ruletest.reason(result),
            "failures": [
                {"key": failure.key, "expected": failure.expected, "got": failure.got,
                 "where": str(result.test.expect_where.get(failure.key, result.test.where))}
                for failure in result.failures
            ],
        }
        for result in tested
    ]  # fmt: skip
    failed = sum(bool(result.failures) for result in tested)
    value: dict[str, object] = {"tests": len(tested), "failed": failed, "results": rows}
    return value if missed is None else {**value, "not_reached": missed}


def _junit(tested: list[Result]) -> str:
    from controller import ruletest

    failed = sum(bool(result.failures) for result in tested)
    suite = ET.Element("testsuite", name="nexoraldns", tests=str(len(tested)), failures=str(failed), errors="0")
    for result in tested:
        where = result.test.where
        case = ET.SubElement(suite, "testcase", classname=where.path, name=result.test.name, file=where.path,
                             line=str(where.line), time="0")  # fmt: skip
        if result.failures:
            texts = [f"{f.key}: expected {f.expected}, got {f.got}" for f in result.failures]
            failure = ET.SubElement(case, "failure", message="; ".join(texts))
            failure.text = f"{where}: {ruletest.reason(result)}"
    ET.indent(suite)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True)

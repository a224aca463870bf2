"""`nexoraldns doctor`: is this machine fit to serve, and what to do if not."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from typing import TYPE_CHECKING

import click

from controller.cli import config_option

if TYPE_CHECKING:
    from controller.machine import Finding

_SIGNS = {"ok": ("✓", "32"), "note": ("·", "2"), "warning": ("!", "33"), "problem": ("✗", "1;31")}


@click.command("doctor")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@config_option
def command(form: str, config: str | None) -> None:
    """Check this machine: ports, rights, buffers, clock, compiled or not. Changes nothing.

    \b
    Examples: nexoraldns doctor
              nexoraldns doctor --config /etc/nexoraldns.yaml --format json
    Marks: ✓ fine, · for information, ! could be better, ✗ a problem.
    Exit codes: 0 no problem, 1 a problem.
    """
    from controller import doctor, machine, node
    from dnsd.contract import settings as node_settings

    findings = []
    try:
        settings = node.read(config)
    except node.NodeError as error:
        remedy = "correct it; the rest is about the defaults"
        findings.append(machine.Finding("problem", "Settings", str(error), remedy))
        settings = node_settings.load(None, os.getcwd(), {})
    else:
        path = config or os.environ.get(node.VARIABLE)
        findings.append(machine.Finding("ok", "Settings", path or "the defaults"))
    findings += doctor.examine(settings)
    problems = sum(finding.level == "problem" for finding in findings)
    warnings = sum(finding.level == "warning" for finding in findings)
    if form == "json":
        rows = [dataclasses.asdict(finding) for finding in findings]
        click.echo(json.dumps({"problems": problems, "warnings": warnings, "findings": rows}, indent=2))
    else:
        _print(findings)
        click.echo(_summary(problems, warnings))
    raise SystemExit(1 if problems else 0)


def _print(rows: list[Finding]) -> None:
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    width = max(len(row.check) for row in rows)
    margin = " " * (width + 4)
    for row in rows:
        sign, style = _SIGNS[row.level]
        if colour:
            sign = f"\x1b[{style}m{sign}\x1b[0m"
        first, *rest = row.text.splitlines() or [""]
        click.echo(f"{sign} {row.check:<{width}}  {first}")
        for line in rest:
            click.echo(f"{margin}{line}")
        if row.remedy and row.level in ("warning", "problem"):
            click.echo(f"{margin}→ {row.remedy}")


def _summary(problems: int, warnings: int) -> str:
    if not problems and not warnings:
        return "\nThis machine is fit to serve."
    parts = [f"{count} {word}{'' if count == 1 else 's'}" for count, word in
             ((problems, "problem"), (warnings, "warning")) if count]  # fmt: skip
    return f"\n{', '.join(parts)}; " + ("the arrows say what to do." if problems else "it will serve as it is.")

"""`nexoraldns explain`: who decides about a name, and why."""

from __future__ import annotations

import ipaddress
import json
import os
import sys
import time
from typing import TYPE_CHECKING

import click

from controller.cli import config_option, fail

if TYPE_CHECKING:
    from controller.ruleset import Address, RuleSet

_STYLES = {"→": "1", "·": "0", " ": "2"}


@click.command("explain")
@click.argument("name")
@click.argument("path", required=False)
@click.option("--type", "qtype", default="A", show_default=True, help="The query type.")
@click.option("--client", default="127.0.0.1", show_default=True, help="Who asks: an address, a client or a group.")
@click.option("--at", "moment", metavar="TIME", help="When: 2026-03-02T10:00, in the rules' time zone. Default: now.")
@click.option("--live", is_flag=True, help="Ask the table that is active on this machine, not the files.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@config_option
def command(
    name: str, path: str | None, qtype: str, client: str, moment: str | None, live: bool, form: str, config: str | None
) -> None:
    """Show who decides about NAME, every rule that could have, and the step of precedence at which it lost.

    PATH is a folder or file of rules or a compiled table; default: the source of the settings (./rules.d).

    \b
    Examples: nexoraldns explain ads.example --client 10.0.10.21 --type A
              nexoraldns explain www.facebook.com --client staff --at 2026-03-02T12:15
              nexoraldns explain printer.office.example.com --live
    Steps of precedence: 1 priority, 2 written before listed, 3 for before everyone, 4 the longer name,
    5 types before all types, 6 allow, redirect, block, 7 the rule's name.
    Exit codes: 0 explained, 1 errors in the rules, 2 could not run.
    """
    from controller import explain, node, subject
    from controller.domains import DomainError
    from controller.domains import name as domain_name
    from dnsd.contract import codes

    try:
        number = codes.qtype_number(qtype)
    except KeyError:
        fail(f"{qtype!r} is not a query type; write A, AAAA, MX … or TYPE65280")
    try:
        qname = b"\0" if name == "." else domain_name(name)
    except DomainError as error:
        fail(f"{error.message}; {error.help}" if error.help else error.message)
    try:
        settings = node.read(config)
        if live and path:
            fail("--live asks the active table; leave out the path")
        found = subject.from_live(settings) if live else subject.from_path(path or subject.default_path(settings))
    except node.NodeError as error:
        fail(str(error))
    except subject.SubjectError as error:
        click.echo(str(error) if error.code == 1 else f"nexoraldns: {error}", err=True)
        raise SystemExit(error.code) from None
    zone = explain.time_zone(found.table, found.timezone)
    try:
        at = explain.moment(moment, zone) if moment else time.time()
    except ValueError as error:
        fail(str(error))
    groups = found.ruleset.groups if found.ruleset else None
    explanation = explain.explain(
        found.table, qname, number, _address(client, found.ruleset), at, revision=found.revision, groups=groups,
        allow=settings.allow, special_use=settings.resolver.special_use, zone=zone,
    )  # fmt: skip
    if form == "json":
        click.echo(json.dumps(explain.to_json(explanation), indent=2, ensure_ascii=False))
        return
    text = explain.to_text(explanation)
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        text = _coloured(text)
    click.echo(text, nl=False)


def _address(text: str, ruleset: RuleSet | None) -> Address:
    """An address, or the first one of a client or group of these rules."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        pass
    known = ruleset.groups if ruleset else {}
    if text in known and known[text].networks:
        network = known[text].networks[0]
        return ipaddress.IPv4Address(network.first) if network.version == 4 else ipaddress.IPv6Address(network.first)
    if text in known:
        fail(f"'{text}' has no address; give one: --client 10.0.0.1")
    if not known:
        fail(f"{text!r} is not an address, and a compiled table knows no members; give an address")
    from controller.diagnostics import did_you_mean

    near = did_you_mean(text, known)
    fail(f"{text!r} is no address, client or group" + (f"; did you mean '{near}'?" if near else ""))
    raise SystemExit(2)


def _coloured(text: str) -> str:
    out = []
    for line in text.splitlines():
        if line[:2] in ("→ ", "· ", "  ") and len(line) > 2:
            line = f"\x1b[{_STYLES[line[0]]}m{line}\x1b[0m"
        elif line.startswith("result: "):
            line = f"\x1b[1m{line}\x1b[0m"
        out.append(line)
    return "\n".join(out) + "\n"

"""`nexoraldns cache`: what every worker remembers for a name, and making them forget it; by way of the broker."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import click

from controller.cli import config_option, fail


@click.group("cache")
@config_option
def command(config: str | None) -> None:
    """Show what the workers' caches hold for a name, or have them forget it.

    Each worker has two: whole answers, and (when we resolve ourselves) RRsets, denials, delegations and failures.

    \b
    Example: nexoraldns cache show www.example.com
             nexoraldns cache show example.com --below --format json
             nexoraldns cache flush www.example.com A
             nexoraldns cache flush example.com --below
    Exit codes: 0 done, 1 a worker did not answer, 2 it could not be asked.
    """


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.argument("qtype", metavar="[TYPE]", required=False),
        click.argument("name", metavar="NAME"),
        click.option("--below", is_flag=True, help="Also every name below it."),
        click.option("--node", metavar="NAME", default="", help="Only this node; default: every node."),
        click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True),
        config_option,
    ):
        function = option(function)
    return function


@command.command("show")
@_options
def show(name: str, qtype: str | None, below: bool, node: str, form: str, config: str | None) -> None:
    """Show what is remembered for a name: types, TTLs left, routes, and what validation found.

    \b
    Example: nexoraldns cache show www.example.com
    """
    answer = _ask("show", name, qtype, below, node, config)
    if form == "json":
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        _tell(answer, name)
    raise SystemExit(1 if _errors(answer) else 0)


@command.command("flush")
@_options
def flush(name: str, qtype: str | None, below: bool, node: str, form: str, config: str | None) -> None:
    """Forget what is remembered for a name (and the NXDOMAIN of a name above, which denies it too).

    \b
    Example: nexoraldns cache flush example.com --below
    """
    answer = _ask("flush", name, qtype, below, node, config)
    if form == "json":
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        for each in answer["nodes"]:
            count = sum(worker.get("forgotten", 0) for worker in each["workers"])
            where = name + (" and below" if below else "") + (f" {qtype.upper()}" if qtype else "")
            click.echo(f"{each['node']}: {_plural(count, 'thing')} about {where} forgotten by "
                       f"{_plural(len(each['workers']), 'worker')}")  # fmt: skip
        for error in _errors(answer):
            click.echo(error, err=True)
    raise SystemExit(1 if _errors(answer) else 0)


def _ask(op: str, name: str, qtype: str | None, below: bool, node: str, config: str | None) -> dict[str, Any]:
    from controller import node as nodes
    from controller import release
    from controller.domains import DomainError
    from controller.domains import name as domain_name
    from dnsd.contract import codes, names

    try:
        wire = b"\0" if name == "." else domain_name(name)
    except DomainError as error:
        fail(f"cache: {error.message}" + (f"; {error.help}" if error.help else ""))
    if qtype:
        try:
            codes.qtype_number(qtype)
        except KeyError:
            fail(f"cache: {qtype!r} is not a record type; write A, AAAA, MX … or TYPE65280")
    try:
        settings = nodes.read(config)
    except nodes.NodeError as error:
        fail(str(error))
    question = {"op": op, "name": names.to_text(wire), "type": qtype or "", "below": below, "node": node}
    try:
        return release.command(settings, "cache", question)
    except release.CommandError as error:
        fail(f"{error}; is `nexoraldns run` up, and are broker.connect and broker.keys those of its settings?")


def _errors(answer: Mapping[str, Any]) -> list[str]:
    found = [f"{node['node']}: {node['error']}" for node in answer["nodes"] if node.get("error")]
    for node in answer["nodes"]:
        found += [f"{node['node']} worker {w['slot']}: {w['error']}" for w in node["workers"] if w.get("error")]
    return found


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _tell(answer: Mapping[str, Any], name: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    from controller.cli.status import screen

    console = screen()
    for node in answer["nodes"]:
        table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
        for title in ("WORKER", "CACHE", "NAME", "TYPE", "TTL", "WHAT", "KNOWN FROM", "VALIDATION"):
            table.add_column(title, justify="right" if title in ("WORKER", "TTL") else "left")
        count = 0
        for worker in node["workers"]:
            for row in worker.get("rows", ()):
                count += 1
                table.add_row(*map(escape, (str(worker["slot"]), row["cache"], row["name"], row["type"],
                                            str(row["ttl"]), _what(row), _from(row), _validation(row))))  # fmt: skip
        console.print(f"[bold]{escape(node['node'])}[/]")
        if count:
            console.print(table)
        elif node["workers"] and not node.get("error"):
            console.print(f"  nothing is remembered for {escape(name)}")
        for worker in node["workers"]:
            if worker.get("more"):
                console.print(
                    f"[dim]worker {worker['slot']}: {worker['more']} more; narrow it by TYPE[/]"
                )
    for error in _errors(answer):
        click.echo(error, err=True)


def _what(row: Mapping[str, Any]) -> str:
    if row["cache"] == "answers":
        stale = ", past its time" if row.get("stale") else ""
        return f"{row['rcode']}, {_plural(row['records'], 'record')}{stale}"
    if row["kind"] == "rrset":
        shown = ", ".join(row["data"][:3])
        more = row["records"] - min(3, len(row["data"]))
        return (shown if len(shown) <= 70 else shown[:69] + "…") + (f" and {more} more" if more else "")
    if row["kind"] == "delegation":
        return "delegation to " + ", ".join(row["data"][:4])
    if row["kind"] == "failure":
        return f"failed: {row['text']}"
    return "there is no such name" if row["kind"] == "nxdomain" else "no data of this type"


def _from(row: Mapping[str, Any]) -> str:
    if row["cache"] == "answers":
        bits = " ".join(word for word, key in (("DO", "do"), ("CD", "cd")) if row[key])
        route = f"route {row['route']}" if row["route"] else "a route of before"
        return f"{route} {bits}".rstrip()
    if row.get("proven"):
        return f"{row['by']}: NSEC of other names"
    if row["kind"] in ("nxdomain", "nodata"):
        return f"SOA of {row['by']}" if row["by"] else ""
    return str(row.get("rank", ""))


def _validation(row: Mapping[str, Any]) -> str:
    if row["cache"] == "answers":
        return "secure (AD)" if row["ad"] else ""
    return str(row.get("validation", ""))

"""`nexoraldns status`: what is served, by whom, and what was refused; read from the status page's API."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping
from typing import Any

import click

from controller.cli import config_option, fail


def fetch(config: str | None) -> dict[str, Any]:
    """The controller's snapshot; ends the program with a sentence and exit code 2 when there is none."""
    import urllib.error
    import urllib.request

    from controller import greeting, node

    try:
        settings = node.read(config)
    except node.NodeError as error:
        fail(str(error))
    host, port = greeting.reachable(settings.status.listen)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/api/v1/status"
    # Never through a proxy: this is our own machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", error)
        fail(f"no controller answers at {url} ({why}); start one with `nexoraldns run`, or give its --config")
    return found


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def age(text: str) -> str:
    """An RFC 3339 time as `5 min ago`; empty when it is none."""
    from controller import clock

    moment = clock.parse(text)
    return clock.ago(moment, now()) if moment is not None else ""


STYLES = {"active": "green", "refused": "red", "superseded": "dim", "seen": "yellow"}


def screen() -> Any:
    """Where text for people goes: as wide as the terminal, and as wide as needed where nobody watches."""
    from rich.console import Console

    here = Console(highlight=False)
    return here if here.is_terminal or os.environ.get("COLUMNS") else Console(highlight=False, width=1000)


def _row(row: Mapping[str, Any]) -> str:
    from rich.markup import escape

    who = f" by {escape(row['author'])}" if row.get("author") else ""
    what = f" “{escape(row['subject'])}”" if row.get("subject") else ""
    return f"[bold]{escape(row['short'])}[/]{what}{who}"


@click.command("status")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@config_option
def command(form: str, config: str | None) -> None:
    """Show what is served, by whom, and what was refused.

    \b
    Example: nexoraldns status
    Exit codes: 0 the newest revision is served everywhere, 1 it is not, 2 no controller answers.
    """
    snapshot = fetch(config)
    if form == "json":
        click.echo(json.dumps(snapshot, indent=2, ensure_ascii=False))
    else:
        show(snapshot)
    raise SystemExit(0 if healthy(snapshot) else 1)


def healthy(snapshot: Mapping[str, Any]) -> bool:
    """Whether the newest revision is active and every worker of every connected node serves its table."""
    active, newest = snapshot.get("active"), snapshot.get("newest")
    if not active or (newest and newest["number"] != active["number"]):
        return False
    nodes = [node for node in snapshot.get("nodes", ()) if node.get("connected", True)]
    digests = {worker.get("digest") for node in nodes for worker in node.get("workers", ())}
    return bool(nodes) and digests <= {active["digest"]}


_ANCHOR_STYLES = {"valid": "green", "configured": "green", "addpend": "yellow", "missing": "yellow", "revoked": "red"}


def _anchors(console: Any, snapshot: Mapping[str, Any]) -> None:
    """The trust anchors of each node; one line for several nodes that have the same."""
    from rich.markup import escape

    said: dict[tuple[str, ...], list[str]] = {}
    for node in snapshot.get("nodes", ()):
        lines = []
        for row in node.get("anchors", ()):
            state = str(row.get("state", ""))
            moment = row.get("trusted_from") or row.get("since")
            word = "trusted from" if row.get("trusted_from") else "since"
            when = f", {word} {datetime.datetime.fromtimestamp(moment, datetime.UTC):%Y-%m-%d}" if moment else ""
            failure = f" [red]{escape(str(row['failure']))}[/]" if row.get("failure") else ""
            style = _ANCHOR_STYLES.get(state, "dim")
            lines.append(f"{escape(str(row.get('zone')))} key {row.get('tag')}: [{style}]{state}[/]{when}{failure}")
        if lines:
            said.setdefault(tuple(lines), []).append(str(node.get("name", "")))
    for keys, nodes in said.items():
        of = f" of {escape(', '.join(nodes))}" if len(snapshot.get("nodes", ())) > 1 else ""
        console.print(f"\nDNSSEC trust anchors{of}")
        for line in keys:
            console.print(f"  {line}")


def show(snapshot: Mapping[str, Any]) -> None:
    """The snapshot on a terminal."""
    from rich.markup import escape
    from rich.table import Table

    from controller import clock

    console = screen()
    active, newest = snapshot.get("active"), snapshot.get("newest")
    if active:
        console.print(f"[green]●[/] {_row(active)}")
        count = active.get("warnings", 0)
        warnings = f", {count} warning{'s' * (count != 1)}" if count else ""
        since = clock.parse(active["since"])
        at = since.astimezone().strftime(" since %H:%M") if since is not None else ""
        console.print(
            f"  active{at} ({age(active['since'])}), generation {active['generation']}, "
            f"table {active['digest'][:12]}{warnings}"
        )
    else:
        console.print("[yellow]○[/] no revision is active yet")
    if newest and (not active or newest["number"] != active["number"]):
        style = STYLES.get(newest["state"], "yellow")
        console.print(f"[{style}]●[/] {_row(newest)}")
        console.print(f"  newest, [{style}]{newest['state']}[/] {age(newest['since'])}")
        if newest.get("problems_text"):
            console.print(escape(newest["problems_text"].rstrip()), style="default", soft_wrap=True)
    if snapshot.get("suspended"):
        console.print("[yellow]![/] suspended: new revisions wait for `nexoraldns resume`")
    for problem in snapshot.get("problems", ()):
        if problem["key"] != "refused":
            help_text = f" ({escape(problem['help'])})" if problem["help"] else ""
            console.print(f"[red]![/] {escape(problem['message'])}{help_text}")
    console.print()
    if snapshot.get("nodes"):
        table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
        for title, justify in (("NODE", "left"), ("WORKER", "right"), ("PID", "right"), ("STATE", "left"),
                               ("GENERATION", "right"), ("TABLE", "left"), ("QUERIES", "right")):  # fmt: skip
            table.add_column(title, justify=justify)  # type: ignore[arg-type]
        for node in snapshot["nodes"]:
            workers = node.get("workers") or [{}]
            for number, worker in enumerate(workers):
                digest = str(worker.get("digest") or "")
                right = active is not None and digest == active["digest"]
                connected = "" if node.get("connected", True) else " (away)"
                queries = worker.get("queries")
                table.add_row(
                    escape(node.get("name", "") + connected) if number == 0 else "",
                    str(worker.get("slot", "")), str(worker.get("pid", "")), str(worker.get("state", "–")),
                    str(worker.get("generation", "–")),
                    f"[{'green' if right else 'yellow'}]{digest[:12] or '–'}[/]",
                    f"{queries:,}" if isinstance(queries, int) else "",
                )  # fmt: skip
        console.print(table)
    else:
        console.print("no node is connected: start `nexoraldns dnsd`, or look at its log")
    _anchors(console, snapshot)
    counters = snapshot.get("counters", {})
    asked = counters.get("queries_udp", 0) + counters.get("queries_tcp", 0)
    if asked:
        named = [name for name in ("local", "blocked", "redirected", "allowed") if counters.get(name)]
        parts = [f"{counters[name]:,} {name}" for name in named]
        hits, misses = counters.get("cache_hits", 0), counters.get("cache_misses", 0)
        if hits + misses:
            parts.append(f"{100 * hits // (hits + misses)} % of the rest from the cache")
        console.print(
            f"\n{asked:,} {'query' if asked == 1 else 'queries'}" + (f": {', '.join(parts)}" if parts else "")
        )

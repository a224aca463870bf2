"""`nexoraldns history`: the latest revisions and what became of each, and of addresses and leases."""

from __future__ import annotations

import json
from typing import Any

import click

from controller.cli import config_option
from controller.cli.status import STYLES, age, fetch, screen


@click.command("history")
@click.option("-n", "count", type=click.IntRange(1), default=20, show_default=True, help="How many of each.")
@click.option("--text", "with_text", is_flag=True, help="With every refusal's words.")
@click.option("--revisions", "only", flag_value="history", help="Revisions alone; JSON has them by default.")
@click.option("--events", "only", flag_value="events", help="Events of addresses and leases alone.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@config_option
def command(count: int, with_text: bool, only: str | None, form: str, config: str | None) -> None:
    """Show the latest revisions, newest first, and what became of each; then what became of addresses and leases.

    \b
    Example: nexoraldns history -n 5 --text
             nexoraldns history --events --format json
    """
    snapshot = fetch(config)
    if form == "json":
        click.echo(json.dumps(snapshot.get(only or "history", [])[:count], indent=2, ensure_ascii=False))
        return
    console = screen()
    events = snapshot.get("events", [])[:count]
    if only != "events":
        _revisions(console, snapshot.get("history", [])[:count], with_text)
    if only == "events" and not events:
        console.print("no address and no lease has changed yet")
    elif only != "history" and events:
        if only is None:
            console.print()
        _events(console, events)


def _events(console: Any, rows: list[dict[str, Any]]) -> None:
    """What became of addresses and leases, in the page's words."""
    from rich.markup import escape
    from rich.table import Table

    from controller.status import view

    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("TOLD", "BY", "EVENT", "NODE", "CHANGE"):
        table.add_column(title, overflow="fold", no_wrap=title in ("TOLD", "BY"))
    for row in rows:
        where = f" on {row['interface']}" if row.get("interface") else ""
        table.add_row(
            age(row["time"]), escape(str(row.get("source", ""))), escape(f"{row.get('reason', '')}{where}"),
            escape(str(row.get("node", ""))), escape(view.event_text(row)),
        )  # fmt: skip
    console.print(table)


def _revisions(console: Any, rows: list[dict[str, Any]], with_text: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    if not rows:
        console.print("no revision has been seen yet")
        return
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for title, least in (("SEEN", 9), ("REVISION", 12), ("STATE", 10), ("TOOK", 7), ("BY", 4), ("SUBJECT", 10)):
        # On a narrow terminal the long columns go on in the next line: nothing is cut off, no column disappears.
        table.add_column(title, overflow="fold", no_wrap=title in ("SEEN", "TOOK", "BY"), min_width=least)
    for row in rows:
        state = row["state"]
        more = f" ({row['errors']} error{'s' * (row['errors'] != 1)})" if state == "refused" and row["errors"] else ""
        more = f" (generation {row['generation']})" if state == "active" else more
        table.add_row(
            age(row["seen"]), escape(row["short"]), f"[{STYLES.get(state, 'yellow')}]{state}[/]{more}",
            f"{row['duration_ms']:.0f} ms", escape(row["author"]), escape(row["subject"]),
        )  # fmt: skip
        if with_text and row["text"]:
            console.print(table)
            console.print(escape(row["text"].rstrip()) + "\n", soft_wrap=True)
            fresh = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
            for _ in table.columns:
                fresh.add_column(overflow="fold")
            table = fresh
    if table.row_count:
        console.print(table)

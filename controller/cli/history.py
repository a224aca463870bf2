"""`nexoraldns history`: the latest revisions and what became of each."""

from __future__ import annotations

import json

import click

from controller.cli import config_option
from controller.cli.status import STYLES, age, fetch, screen


@click.command("history")
@click.option("-n", "count", type=click.IntRange(1), default=20, show_default=True, help="How many revisions.")
@click.option("--text", "with_text", is_flag=True, help="With every refusal's words.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@config_option
def command(count: int, with_text: bool, form: str, config: str | None) -> None:
    """Show the latest revisions, newest first, and what became of each.

    \b
    Example: nexoraldns history -n 5 --text
    """
    rows = fetch(config).get("history", [])[:count]
    if form == "json":
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    from rich.markup import escape
    from rich.table import Table

    console = screen()
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

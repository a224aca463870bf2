"""`nexoraldns suspend`: one question to the controller, through the broker."""

from __future__ import annotations

import click

from controller.cli import config_option
from controller.cli.operator import ask


@click.command("suspend")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@config_option
def command(form: str, config: str | None) -> None:
    """Ask the controller to hold still: new revisions are seen, nothing is published.

    \b
    Example: nexoraldns suspend
    Exit codes: 0 done, 1 the controller refused, 2 it could not be asked.
    """
    ask("suspend", form, config)

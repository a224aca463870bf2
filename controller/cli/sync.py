"""`nexoraldns sync`: one question to the controller, through the broker."""

from __future__ import annotations

import click

from controller.cli import config_option
from controller.cli.operator import ask


@click.command("sync")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@config_option
def command(form: str, config: str | None) -> None:
    """Ask the controller to look at its source now, and say what it found.

    \b
    Example: nexoraldns sync
    Exit codes: 0 done, 1 the controller refused, 2 it could not be asked.
    """
    ask("sync", form, config)

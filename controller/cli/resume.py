"""`nexoraldns resume`: one question to the controller, through the broker."""

from __future__ import annotations

import click

from controller.cli import config_option
from controller.cli.operator import ask


@click.command("resume")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@config_option
def command(form: str, config: str | None) -> None:
    """Ask the controller to go on after suspend.

    \b
    Example: nexoraldns resume
    Exit codes: 0 done, 1 the controller refused, 2 it could not be asked.
    """
    ask("resume", form, config)

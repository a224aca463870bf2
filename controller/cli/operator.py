"""What sync, retry, suspend and resume share: one command to the controller through its broker, as role operator."""

from __future__ import annotations

import json

import click

from controller.cli import fail


def ask(verb: str, form: str, config: str | None) -> None:
    """Send the command and print the answer; exit code 1 when the controller refuses, 2 when it cannot be asked."""
    from controller import node, release

    try:
        settings = node.read(config)
    except node.NodeError as error:
        fail(str(error))
    try:
        answer = release.command(settings, verb)
    except release.CommandError as error:
        fail(f"{error}; is `nexoraldns run` up, and are broker.connect and broker.keys those of its settings?")
    if form == "json":
        click.echo(json.dumps(answer, ensure_ascii=False))
    else:
        click.echo(answer.get("message", ""), err=not answer.get("ok", True))
    raise SystemExit(0 if answer.get("ok", True) else 1)

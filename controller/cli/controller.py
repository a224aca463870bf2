"""`nexoraldns controller`: the controller half alone, in the foreground."""

from __future__ import annotations

import click

from controller.cli import config_option


@click.command("controller")
@config_option
def command(config: str | None) -> None:
    """Serve the controller: source, builds, broker and status page. dnsd connects to its broker.

    \b
    Example: nexoraldns controller --config /etc/nexoraldns/controller.yaml
    SIGHUP looks at the source again; SIGTERM ends it with exit code 0.
    """
    from controller.__main__ import serve

    raise SystemExit(serve(config))

"""`hook install|remove|status`: the DHCP clients' stubs. `hook` alone is what those stubs call (controller.hooks)."""

from __future__ import annotations

import json
import os

import click

from controller.cli.frame import config_option, fail
from controller.hooks import places

_HELP = """What the DHCP clients of this machine call, and what puts it in place.

`nexoraldns hook` without a word below is for the stubs: it reads the client's environment, tells the broker (or leaves
a file for the controller) and ends with exit code 0 within 2 s, whatever happens.
"""


@click.group(help=_HELP, epilog="Example: sudo nexoraldns hook install --config /etc/nexoraldns/nexoraldns.yaml")
def command() -> None:
    """The group."""


_root = click.option("--root", metavar="DIR", default="/", type=click.Path(file_okay=False, exists=True),
                     help="Another root of the file system, for images.")  # fmt: skip
_clients = click.option("--client", "clients", multiple=True, type=click.Choice(list(places.CLIENTS)),
                        help="Only this client; may be given again. Default: all that are here.")  # fmt: skip


def _places(root: str, clients: tuple[str, ...]) -> list[places.Place]:
    try:
        found = places.places(root, clients)
    except places.HookError as error:
        fail(str(error))
    if not found:
        fail(f"no DHCP client with hooks is installed under {root} (known: {', '.join(places.CLIENTS)}); without one "
             "nothing is lost: dnsd follows the kernel's addresses by itself")  # fmt: skip
    return found


@command.command(epilog="Example: nexoraldns hook install --client dhclient")
@_root
@_clients
@click.option("--program", metavar="FILE", help="What the stubs start; default: this program.")
@config_option
def install(root: str, clients: tuple[str, ...], program: str | None, config: str | None) -> None:
    """Put the stubs in place; again, it updates them. Exit code 2 when that cannot be done."""
    found = _places(root, clients)
    if config is not None:
        config = os.path.abspath(config)
        if os.path.abspath(root) == "/" and not os.path.isfile(config):
            fail(f"{config} is not there; give the settings that dnsd runs with as --config FILE")
    words = (os.path.abspath(program),) if program else places.this_program()
    try:
        said = places.install(root, found, places.Program(words, config or ""))
    except places.HookError as error:
        fail(str(error))
    for path, word in said:
        click.echo(f"{word}: {path}")
    for place in found:
        if place.stub == "udhcpc.sh":
            click.echo(f"udhcpc here runs one script only: start it as `udhcpc -s {place.path}`")


@command.command(epilog="Example: nexoraldns hook remove")
@_root
@_clients
def remove(root: str, clients: tuple[str, ...]) -> None:
    """Take the stubs away; nothing else is touched. Exit code 2 when that cannot be done."""
    try:
        said = places.remove(root, _places(root, clients))
    except places.HookError as error:
        fail(str(error))
    for path, word in said:
        click.echo(f"{word}: {path}")


@command.command(epilog="Example: nexoraldns hook status --format json")
@_root
@_clients
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="How it is shown.")
def status(root: str, clients: tuple[str, ...], form: str) -> None:
    """Show which stubs are in place. Exit code 0 when all are and work, 1 when not, 2 when that cannot be told."""
    try:
        found = places.look(root, _places(root, clients))
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")
    if form == "json":
        rows = [{"client": f.place.client, "path": f.place.path, "state": f.state, "problem": f.problem} for f in found]
        click.echo(json.dumps({"hooks": rows}, indent=2))
    else:
        for each in found:
            line = f"{each.place.client:<15} {each.state:<10} {each.place.path}"
            click.echo(f"{line}: {each.problem}" if each.problem else line)
    raise SystemExit(0 if all(each.state == "installed" and not each.problem for each in found) else 1)

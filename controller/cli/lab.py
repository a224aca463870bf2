"""`nexoraldns lab`: a miniature Internet on loopback to resolve in, to break and to mend; nothing goes out."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

from controller.cli import config_option, fail, with_packages
from controller.cli.lab_up import FOLDER, serve, short, show

_SERVED_S = 10.0


def folder_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--folder DIR`, as every verb of the lab has it."""
    return click.option(
        "--folder", metavar="DIR", type=click.Path(file_okay=False, path_type=pathlib.Path), callback=_folder,
        help=f"Where the lab keeps its zones and keys; default: {FOLDER}, or `lab` in the state of --config.",
    )(function)  # fmt: skip


def _folder(ctx: click.Context, _: click.Parameter, given: pathlib.Path | None) -> pathlib.Path:
    config = ctx.parent.params.get("config") if ctx.parent is not None else None
    if given is not None or config is None:
        return given or pathlib.Path(FOLDER)
    from controller import node

    try:
        return pathlib.Path(node.read(config).state) / "lab"
    except node.NodeError as error:
        fail(str(error))


@click.group("lab")
@config_option
def command(config: str | None) -> None:
    """A miniature Internet on loopback: real root, TLD and leaf servers, signed zones, and some broken on purpose.

    \b
    nexoraldns lab up                        start it; Ctrl-C ends it
    nexoraldns lab list                      what there is, and what is broken
    nexoraldns lab trace www.farm.lab        from the root down, every step
    nexoraldns lab trace www.lame.lab        a delegation that is broken
    nexoraldns lab fix lame                  mend it, then trace it again
    nexoraldns lab break circle              two aliases that lead to each other
    nexoraldns lab zone farm.lab --edit      change a zone: what you save is signed and served
    nexoraldns lab exec dig @127.53.0.53 www.farm.lab    any program, where the lab is

    NSD and Knot serve it (apt-get install nsd knot; one of them is enough). With root it is on 127.53.0.0/24; without,
    in a network namespace of its own, which these verbs enter. Nothing leaves the machine.

    \b
    Exit codes: 0 done, 1 a name could not be resolved, 2 it could not be done.
    """


# --- up ---------------------------------------------------------------------------------------------------------------


@command.command("up")
@click.option("--resolver/--no-resolver", default=True, help="Also run a node of ours that knows only this Internet.")
@click.option("--fresh", is_flag=True, help="Begin anew: every zone as it was at first, everything broken again.")
@folder_option
def up(resolver: bool, fresh: bool, folder: pathlib.Path) -> None:
    """Start the lab, in the foreground. What is edited in its zones is signed and served when it is saved.

    \b
    Example: nexoraldns lab up
    Exit codes: 0 ended by Ctrl-C or SIGTERM, 2 it could not run.
    """
    from controller.lab import place, servers

    folder = folder.absolute()
    words = [sys.executable, "-m", "controller.cli", "lab", "up", "--folder", str(folder)]
    words += [] if resolver else ["--no-resolver"]
    words += ["--fresh"] if fresh else []
    os.environ.update(with_packages(os.environ))
    try:
        servers.programs()
        inside = place.settle(words)
        claim = place.Claim(folder)
    except (place.PlaceError, servers.ServersError, OSError) as error:
        fail(f"lab: {error}")
    try:
        if fresh:
            for part in ("zones", "served", "run", "state", "keys"):
                shutil.rmtree(folder / part, ignore_errors=True)
        asyncio.run(serve(folder, claim, inside, resolver))
    except (place.PlaceError, servers.ServersError, OSError) as error:
        fail(f"lab: {error}")
    finally:
        claim.release()


# --- what there is ----------------------------------------------------------------------------------------------------


@command.command("list")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@folder_option
def list_(form: str, folder: pathlib.Path) -> None:
    """Show the servers and zones, and what is broken.

    \b
    Example: nexoraldns lab list
    Exit codes: 0 shown, 2 no lab has been here.
    """
    from controller.cli.status import screen
    from controller.lab import place, world, zonefiles

    here = place.find(folder)
    if here is None and not (folder / "zones").is_dir():
        _none(folder)
    if form == "json":
        click.echo(json.dumps({
            "up": here is not None, "base": here.base if here else None,
            "servers": [{"name": s.name, "address": f"{here.base}.{s.host}" if here else None, "zones": list(s.zones)}
                        for s in world.SERVERS],
            "cases": [{"case": c.name, "broken": zonefiles.state(folder, c), "name": c.ask[0], "type": c.ask[1],
                       "zone": c.file, "sentence": c.sentence, "file": str(zonefiles.path(folder, c.file))}
                      for c in world.CASES],
        }, indent=2))  # fmt: skip
        return
    console = screen()
    show(folder, console, here.base if here else "")
    if here is None:
        console.print("\n[yellow]the lab is closed[/]; open it with [cyan]nexoraldns lab up[/]")


# --- breaking and mending ---------------------------------------------------------------------------------------------


@command.command("break")
@click.argument("cases", metavar="CASE...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Break everything.")
@folder_option
def break_(cases: Sequence[str], every: bool, folder: pathlib.Path) -> None:
    """Break something: its lines in the zone's text are written over, and served when this returns.

    \b
    Example: nexoraldns lab break bogus
    Exit codes: 0 done, 2 it could not be done.
    """
    _turn(cases, every, True, folder)


@command.command("fix")
@click.argument("cases", metavar="CASE...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Mend everything.")
@folder_option
def fix(cases: Sequence[str], every: bool, folder: pathlib.Path) -> None:
    """Mend something that is broken.

    \b
    Example: nexoraldns lab fix lame
    Exit codes: 0 done, 2 it could not be done.
    """
    _turn(cases, every, False, folder)


def _turn(cases: Sequence[str], every: bool, broken: bool, folder: pathlib.Path) -> None:
    import difflib

    from controller.lab import place, world, zonefiles

    verb = "break" if broken else "fix"
    if not (folder / "zones").is_dir():
        _none(folder)
    if not cases and not every:
        fail(f"lab: which case? For example `nexoraldns lab {verb} lame`; there are: {', '.join(world.BY_NAME)}")
    for name in cases:
        if name not in world.BY_NAME:
            near = difflib.get_close_matches(name, world.BY_NAME, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(world.BY_NAME)}"
            fail(f"lab: there is no case {name!r}; {hint}")
    here = place.find(folder)
    base = here.base if here else place.BASE
    wanted = list(world.BY_NAME) if every else list(dict.fromkeys(cases))
    changed: dict[str, str] = {}
    before = _served(folder)
    for name in wanted:
        case = world.BY_NAME[name]
        if zonefiles.state(folder, case) == broken:
            click.echo(f"{name} is {'broken' if broken else 'mended'} already")
            continue
        try:
            file = zonefiles.turn(folder, case, broken, base)
        except (zonefiles.ZoneError, OSError) as error:
            fail(f"lab: {error}")
        changed[name] = case.file
        click.echo(f"{name}: {case.sentence}" if broken else f"{name} is mended in {short(file)}")
    if here is None:
        click.echo("the lab is closed: this will be served after `nexoraldns lab up`")
    elif changed and not _wait(lambda: all(_served(folder).get(z) != before.get(z) for z in changed.values())):
        fail("lab: written, but not served yet; `lab up` says in its terminal what is wrong with the zone")
    for name in list(changed)[:3]:
        case = world.BY_NAME[name]
        click.echo(f"  see it: nexoraldns lab trace {' '.join(case.ask)}")


def _served(folder: pathlib.Path) -> dict[str, str]:
    try:
        found = json.loads((folder / "served.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _wait(condition: Callable[[], bool]) -> bool:
    tick = threading.Event()
    for _ in range(int(_SERVED_S / 0.05)):
        if condition():
            return True
        tick.wait(0.05)
    return False


# --- zones, traces, programs ------------------------------------------------------------------------------------------


@command.command("zone")
@click.argument("name", required=False)
@click.option("--edit", is_flag=True, help="Open the zone's text in $EDITOR.")
@click.option("--served", is_flag=True, help="Show the zone as it is served: signed, and broken where it is.")
@click.option("--path", "only_path", is_flag=True, help="Print where the text is, and nothing else.")
@folder_option
def zone(name: str | None, edit: bool, served: bool, only_path: bool, folder: pathlib.Path) -> None:
    """Show the text of a zone (or of the zone that a name is in), or edit it; without NAME, where each zone is.

    \b
    Example: nexoraldns lab zone farm.lab --edit
             nexoraldns lab zone bogus.lab --served
    Exit codes: 0 shown or saved, 1 what was saved is not served: it says why, 2 there is no lab, or no editor.
    """
    from controller.lab import world, zonefiles

    if not (folder / "zones").is_dir():
        _none(folder)
    if name is None:
        for each in world.zones():
            click.echo(f"{each:<16} {short(zonefiles.path(folder, each))}")
        return
    found = world.zone_of(name)
    if found == "." and name != ".":
        fail(f"lab: no zone of the lab holds {name}; `nexoraldns lab zone` lists them")
    place = folder / "served" / f"{found.strip('.') or 'root'}.zone" if served else zonefiles.path(folder, found)
    if only_path:
        click.echo(str(place))
    elif edit and not served:
        _edit(place, found)
    else:
        try:
            click.echo(place.read_text(encoding="utf-8"), nl=False)
        except OSError as error:
            fail(f"lab: {place}: cannot be read: {error.strerror}")


def _edit(place: pathlib.Path, zone: str) -> None:
    """Let somebody edit a zone's text, and say here, not in the terminal of `lab up` alone, what is wrong with it."""
    from controller.lab import signing, zonefiles

    try:
        before = place.read_bytes()
        click.edit(filename=str(place))
        data = place.read_bytes()
    except click.ClickException as error:
        fail(f"lab: {error.message}; set EDITOR to an editor of yours")
    except OSError as error:
        fail(f"lab: {place}: cannot be read: {error.strerror}")
    if data == before:
        click.echo("nothing was changed")
        return
    try:
        text = data.decode()
        marks = zonefiles.marks(text, short(place))
        signing.served(zone, text, marks, None, {}, 1, 0, short(place))
    except (zonefiles.ZoneError, UnicodeDecodeError) as error:
        click.echo(f"nexoraldns: lab: {error}", err=True)
        click.echo("  what was served before is served on; edit it again", err=True)
        raise SystemExit(1) from None
    click.echo(f"saved; a lab that is up serves it at once: nexoraldns lab trace {zone} SOA")


@command.command("trace", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": True})
@click.argument("words", metavar="NAME [TYPE] [OPTIONS]", nargs=-1, required=True, type=click.UNPROCESSED)
@folder_option
def trace(words: Sequence[str], folder: pathlib.Path) -> None:
    """Resolve a name from the lab's root down and show each step; options as of `nexoraldns trace`.

    \b
    Example: nexoraldns lab trace www.bogus.lab
             nexoraldns lab trace far.shop TXT --format svg -o far.svg
    Exit codes: 0 resolved, 1 could not be resolved, 2 could not run.
    """
    config = str((folder / "node.yaml").absolute())
    _enter(folder, [sys.executable, "-m", "dnsd", "trace", *words, "--config", config])


@command.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("words", metavar="PROGRAM [ARGUMENTS]", nargs=-1, required=True, type=click.UNPROCESSED)
@folder_option
def exec_(words: Sequence[str], folder: pathlib.Path) -> None:
    """Run a program where the lab can be reached.

    \b
    Example: nexoraldns lab exec dig @127.53.0.2 farm.lab NS
             nexoraldns lab exec bash
    """
    _enter(folder, list(words))


def _enter(folder: pathlib.Path, words: list[str]) -> NoReturn:
    from controller.lab import place

    here = place.find(folder)
    if here is None:
        _none(folder)
    whole = here.enter(words)
    sys.stdout.flush()
    try:
        os.execvpe(whole[0], whole, with_packages(os.environ))  # noqa: S606
    except OSError as error:
        fail(f"lab: {whole[0]}: {error.strerror}")


def _none(folder: pathlib.Path) -> NoReturn:
    fail(f"no lab is up in {short(folder)}; start one with `nexoraldns lab up` (in another terminal)")

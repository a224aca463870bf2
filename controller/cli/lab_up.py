"""The lab in the foreground: servers, a node of ours, what there is to see, and what is edited served at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

import click

from controller.cli import fail

FOLDER = os.path.join(".nexoraldns", "lab")
_ANSWER_S = 15.0


async def serve(folder: pathlib.Path, claim: Any, inside: bool, resolver: bool) -> None:
    from controller.lab import place
    from controller.lab.laboratory import Laboratory
    from controller.lab.zonefiles import ZoneError

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    before = claim.before()
    laboratory = Laboratory(folder, place.base(before or place.BASE))
    node: subprocess.Popen[bytes] | None = None
    try:
        try:
            await laboratory.start(before)
        except ZoneError as error:
            fail(f"lab: {error}\n(`nexoraldns lab up --fresh` begins anew)")
        if resolver:
            node = _node(folder)
        here = place.Place(os.getpid(), laboratory.base, inside)
        claim.say(here)
        served = node is not None and await _answers(folder, node)
        _greet(folder, here, served)
        following = asyncio.create_task(laboratory.follow(lambda text: click.echo(f"  · {text}")))
        stopping = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait({following, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (following, stopping):
            task.cancel()
        if following in done:
            following.result()  # raises what ended it
        click.echo("\n  the lab is closed; its zones stay in " + short(folder / "zones"))
    finally:
        if node is not None and node.poll() is None:
            node.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.communicate(timeout=8)
        laboratory.end()


def _node(folder: pathlib.Path) -> subprocess.Popen[bytes]:
    """A node that knows no other Internet."""
    from controller.lab.servers import end_with_us

    rules = folder / "rules.d"
    rules.mkdir(exist_ok=True)
    if not (rules / "lab.yaml").exists():
        text = "# The lab's node: everything from the lab's root down.\nversion: 1\nforward: {\".\": recurse}\n"
        (rules / "lab.yaml").write_text(text, encoding="utf-8")
    with open(folder / "run" / "resolver.log", "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "controller.cli", "run", "--config", str(folder / "node.yaml")],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, start_new_session=True,
            preexec_fn=end_with_us,  # noqa: PLW1509 (it only calls prctl)
        )  # fmt: skip


async def _answers(folder: pathlib.Path, node: subprocess.Popen[bytes]) -> bool:
    from controller import greeting
    from controller import node as nodes

    settings = nodes.read(str(folder / "node.yaml"))
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _ANSWER_S
    while node.poll() is None and loop.time() < deadline:
        if await greeting.answers(settings):
            return True
        await asyncio.sleep(0.1)
    click.echo(f"lab: the resolver does not answer; see {short(folder / 'run' / 'resolver.log')}", err=True)
    return False


def _greet(folder: pathlib.Path, here: Any, served: bool) -> None:
    from controller.cli.status import screen

    console = screen()
    console.print(f"\n[bold]A miniature Internet is up[/] on {here.base}.0/24", highlight=False, end="")
    console.print(" [dim]in a namespace of its own; Ctrl-C ends it[/]" if here.inside else " [dim]Ctrl-C ends it[/]")
    show(folder, console, here.base)
    farm = short(folder / "zones" / "farm.lab.zone")
    more = "" if str(folder) == os.path.abspath(FOLDER) else f" --folder {short(folder)}"
    lab = "nexoraldns lab"
    console.print("\n[bold]Three things to try[/] [dim]in another terminal[/]\n")
    console.print(f"  1. [cyan]{lab} trace www.farm.lab{more}[/]   [dim]from the root down, signed all the way[/]")
    console.print(f"  2. [cyan]{lab} trace www.lame.lab{more}[/]   [dim]then[/] [cyan]{lab} fix lame{more}[/] "
                  "[dim]and trace it again[/]")  # fmt: skip
    console.print(
        f"  3. [cyan]{lab} zone farm.lab --edit{more}[/] [dim]add a record to {farm}, save, and ask for it[/]"
    )
    if served:
        ask = f"dig @{here.base}.53 www.farm.lab +dnssec"
        ask = f"{lab} exec{more} -- {ask}" if here.inside else ask
        console.print(f"\n  A resolver of ours answers too: [cyan]{ask}[/]")
    console.print()
    sys.stdout.flush()


def _tree(world: Any) -> list[tuple[str, str, Any]]:
    """The zones as they are delegated: branches, zone, server; the clinic's in one line."""
    clinic = world.SERVERS[-1]
    rows = [("", ".", world.servers_of("."))]
    for top in ("lab.", "shop."):
        last = top == "shop."
        rows.append(("└─ " if last else "├─ ", top, world.servers_of(top)))
        bar = "   " if last else "│  "
        below = [zone for zone in world.zones() if zone.endswith(f".{top}") and zone not in clinic.zones]
        below += [f"{len(clinic.zones)} zones to break and mend"] if top == "lab." else []
        for number, zone in enumerate(below):
            server = world.servers_of(zone) if zone.endswith(".") else clinic
            rows.append((bar + ("└─ " if number == len(below) - 1 else "├─ "), zone, server))
    return rows


def show(folder: pathlib.Path, console: Any, base: str) -> None:
    from rich.table import Table

    from controller.lab import world, zonefiles

    console.print()
    for indent, zone, server in _tree(world):
        shown = "the root" if zone == "." else zone.rstrip(".")
        address = f"{base}.{server.host}" if base else f"….{server.host}"
        console.print(f"  [dim]{indent}[/][bold]{shown}[/]{' ' * (34 - len(indent) - len(shown))}[dim]{address}[/]")
    console.print()
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("  CASE", "NOW", "ASK FOR", "WHAT IS BROKEN"):
        table.add_column(title, no_wrap=title != "WHAT IS BROKEN")
    for case in world.CASES:
        state = zonefiles.state(folder, case)
        word = {True: "[red]broken[/]", False: "[green]mended[/]", None: "[dim]edited[/]"}[state]
        table.add_row(f"  {case.name}", word, f"{case.ask[0]} {case.ask[1]}", case.sentence)
    console.print(table)


def short(path: pathlib.Path) -> str:
    """A path as people like it: relative when it is below where they are."""
    near = os.path.relpath(path)
    return near if not near.startswith("..") else str(path)

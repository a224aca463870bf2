"""The command line's frame: which verbs there are; loads the one file that is the verb that was asked for.

`dnsd`, `trace` and `dissect` belong to the other half and are handed to `python -m dnsd`. Every verb is a click
command called `command` in `controller/cli/<verb>.py`; each has its own --help with an example.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

# What `--help` lists, in the order in which a new user meets them. A verb of a later version is refused by name.
VERBS: dict[str, str] = {
    "run": "Serve: controller, broker, dnsd and status page in one go",
    "check": "Check rule files: schema, meaning, lint; all problems at once",
    "test": "Run the tests beside the rules",
    "plan": "Show what would change between two revisions, folders or tables",
    "explain": "Show who decides about a name, and why",
    "compile": "Make a table file from rules, and print its digest",
    "status": "Show what is served, by whom, and what was refused",
    "history": "Show the latest revisions and what became of them",
    "sync": "Ask the controller to look at its source now",
    "retry": "Ask the controller to try a refused revision again",
    "suspend": "Ask the controller to hold still",
    "resume": "Ask the controller to go on",
    "cache": "Show what the workers remember for a name, or have them forget it",
    "controller": "Serve the controller half alone",
    "dnsd": "Serve the DNS half alone",
    "trace": "Resolve a name from the root and draw each step",
    "lab": "A miniature Internet on loopback: resolve, break and mend delegations",
    "dissect": "Show a DNS packet byte by byte",
    "hook": "Install, remove or look at the DHCP clients' hooks",
    "doctor": "Check this machine: ports, rights, buffers, clock",
}
LATER = ("tail", "top")
DNSD = ("dnsd", "trace", "dissect")


class Verbs(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in DNSD:
            return _handed_over(cmd_name)
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"controller.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        verb = args[0]
        if verb in LATER:
            raise click.UsageError(f"'{verb}' is not in this version", ctx)
        if verb not in VERBS:
            near = difflib.get_close_matches(verb, VERBS, 1, 0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(VERBS)}"
            raise click.UsageError(f"there is no verb '{verb}'; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Without importing sixteen modules.
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


def _handed_over(verb: str) -> click.Command:
    @click.command(
        verb,
        help=VERBS[verb],
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False},
    )
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    def command(words: Sequence[str]) -> None:
        hand_over(verb, words)

    return command


def hand_over(verb: str, words: Sequence[str]) -> NoReturn:
    """Become `python -m dnsd`; does not return."""
    environment = with_packages(os.environ)
    rest = list(words) if verb == "dnsd" else [verb, *words]
    if sys.stdout is not None:  # `>&-`
        sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "dnsd", *rest], environment)  # noqa: S606


def with_packages(environ: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    """The environment with our packages first on the path, so that a child finds what we were started from."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return {**environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, environ.get("PYTHONPATH", ""))))}


def config_option(function: click.decorators.FC) -> click.decorators.FC:
    """`--config FILE`, as every verb has it. (The name of the parameter is `config`.)"""
    return click.option(
        "--config", metavar="FILE", type=click.Path(dir_okay=False), default=None, envvar="NEXORALDNS_CONFIG",
        help="The node's settings; default: NEXORALDNS_CONFIG, else the built-in ones.",
    )(function)  # fmt: skip


def fail(message: str) -> NoReturn:
    """Say why nothing could be done, and end with exit code 2."""
    click.echo(message if ": error" in message or "error[" in message else f"nexoraldns: {message}", err=True)
    raise SystemExit(2)


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from dnsd import __version__

        click.echo(f"nexoraldns {__version__}")
        ctx.exit()


@click.group(
    cls=Verbs,
    help="A DNS server for a LAN whose rules live in git.",
    epilog="Example: nexoraldns run, then dig @127.0.0.1 -p 5335 example.com. Each verb has its own --help.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Print it.")
def main_group() -> None:
    """The program."""

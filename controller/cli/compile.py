"""`nexoraldns compile`: rules to a table file, with its digest."""

from __future__ import annotations

import json
import os
import sys

import click

from controller.cli import config_option, fail


@click.command("compile")
@click.argument("path", required=False)
@click.option("-o", "--output", metavar="FILE", required=True, help="Where the table goes; its names go to FILE.names.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@config_option
def command(path: str | None, output: str, form: str, config: str | None) -> None:
    """Make a table file from the rules in PATH (a folder or a file; default ./rules.d or the source of the settings).

    The same rules in any order of files give the same bytes.

    \b
    Example: nexoraldns compile rules.d -o office.table
    Exit codes: 0 written, 1 errors in the rules, 2 could not run.
    """
    from controller import build, node, source, source_folder
    from controller.cli import progress

    if path is None:
        try:
            path = node.read(config).source.directory
        except node.NodeError as error:
            fail(str(error))
        if path is None:
            fail("the source in the settings is a git repository; say which folder: nexoraldns compile rules.d -o FILE")
    shown = os.path.basename(os.path.abspath(path))  # provenance must not depend on where the folder stands
    try:
        found = source_folder.snapshot_of(path, shown)
    except source.SourceError as error:
        fail(f"{error.message}; {error.help}" if error.help else error.message)
    if found.refusals:
        from controller.diagnostics import render

        click.echo(render(found.refusals, {}), err=True, nl=False)
        raise SystemExit(1)
    with progress.shown():
        built = build.build(found.snapshot)
    if built.text:
        click.echo(built.text.rstrip("\n"), err=True)
    if built.blobs is None:
        click.echo("nothing was written", err=True)
        raise SystemExit(1)
    for name, data in ((output, built.blobs.policy), (f"{output}.names", built.blobs.names)):
        try:
            temporary = f"{name}.{os.getpid()}.part"
            with open(temporary, "wb") as file:
                file.write(data)
            os.replace(temporary, name)
        except OSError as error:
            fail(f"{name} cannot be written: {error.strerror}")
    if form == "json":
        files = {"policy": output, "names": f"{output}.names"}
        click.echo(json.dumps({"digest": built.blobs.digest, "meaning": built.blobs.meaning, **files}))
    else:
        click.echo(built.blobs.digest)
        if sys.stderr.isatty():
            sizes = f"{len(built.blobs.policy):,} and {len(built.blobs.names):,} octets"
            click.echo(f"wrote {output} and {output}.names, {sizes}", err=True)

"""`nexoraldns plan`: what would change between two folders, revisions or tables."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import click

from controller.cli import config_option

if TYPE_CHECKING:
    from controller.subject import Subject
    from dnsd.contract.settings import Settings


@click.command("plan")
@click.argument("before", metavar="[FROM]", required=False)
@click.argument("after", metavar="[TO]", required=False)
@click.option("--path", "within", metavar="PATH", help="Where the rules are in the repository, for git revisions.")
@click.option(
    "--format", "form", type=click.Choice(["text", "markdown", "json"]), default="text", show_default=True,
    help="markdown is for a pull request or a job summary.",
)  # fmt: skip
@click.option("--exit-code", "wants_code", is_flag=True, help="Exit 2 when something changes, 1 when it could not run.")
@click.option("--names", "shown", type=click.IntRange(0, 100_000), default=50, show_default=True,
              help="How many names to show.")  # fmt: skip
@click.option("--queries", metavar="LOG", hidden=True)
@config_option
def command(
    before: str | None, after: str | None, within: str | None, form: str, wants_code: bool, shown: int,
    queries: str | None, config: str | None,
) -> None:  # fmt: skip
    """Show what would change from FROM to TO: names, rules, records, forwards, lists, clients.

    Each is a folder or file of rules, a compiled table, a git revision, or the word `live` for the table that is
    active on this machine. FROM..TO is understood. Without TO: the rules as they lie in the folder now; without
    both: from the last commit to the folder, or from the live table where there is no git.

    \b
    Examples: nexoraldns plan
              nexoraldns plan HEAD~1
              nexoraldns plan --format markdown origin/main..HEAD
              nexoraldns plan live rules.d --exit-code
    Exit codes: 0 planned, 1 errors in the rules, 2 could not run; with --exit-code: 0 nothing changes,
    2 something does, 1 anything else.
    """
    from controller import node, plan, plan_text, subject

    try:
        if queries:
            raise subject.SubjectError("--queries is not in this version")
        settings = node.read(config)
        if before and not after and ".." in before and not os.path.exists(before):
            before, _, after = before.replace("...", "..").partition("..")
            before, after = before or "HEAD", after or "HEAD"
        old, new = _subjects(before, after, within, settings)
    except (node.NodeError, subject.SubjectError) as error:
        code = getattr(error, "code", 2)
        click.echo(str(error) if code == 1 else f"nexoraldns: {error}", err=True)
        raise SystemExit(1 if wants_code else code) from None
    made = plan.compare(old.table, new.table, time.time(), shown)
    labels = _label(old), _label(new)
    if form == "json":
        click.echo(json.dumps(plan_text.to_json(made, *labels), indent=2, ensure_ascii=False))
    elif form == "markdown":
        click.echo(plan_text.to_markdown(made, *labels), nl=False)
    else:
        click.echo(plan_text.to_text(made, *labels), nl=False)
    raise SystemExit(2 if wants_code and made.changes else 0)


def _label(found: Subject) -> str:
    return f"{found.label} ({found.revision})" if found.revision and found.revision != found.label else found.label


def _subjects(
    before: str | None, after: str | None, within: str | None, settings: Settings
) -> tuple[Subject, Subject]:
    """Both sides, the newer first, so that its errors are what a person sees."""
    new = _one(after, within, settings) if after else _folder(within, settings)
    if before:
        return _one(before, within, settings), new
    from controller import source, source_git, subject

    try:
        source_git.top_of(".")
    except source.SourceError:
        return subject.from_live(settings), new
    return _one("HEAD", within, settings), new


def _folder(within: str | None, settings: Settings) -> Subject:
    from controller import source_git, subject

    if within is None:
        return subject.from_path(_rules_folder(settings))
    # --path is meant from the repository's top, wherever in it we stand.
    try:
        return subject.from_path(os.path.join(source_git.top_of("."), within))
    except Exception:
        return subject.from_path(within)


def _rules_folder(settings: Settings) -> str:
    """The rules' folder here: the settings', or the top of a repository without such a folder."""
    from controller import subject

    if settings.source.directory is None:
        return settings.source.git.path if settings.source.git else "rules.d"
    path = subject.default_path(settings)
    # A repository that holds nothing but rules may have them at its top.
    if not os.path.exists(path) and os.path.exists(".git"):
        return "."
    return path


def _one(text: str, within: str | None, settings: Settings) -> Subject:
    """A folder, file or table if there is one by that name, the live table, or a git revision."""
    from controller import source, source_git, subject

    if os.path.exists(text):
        return subject.from_path(text)
    if text == "live":
        return subject.from_live(settings)
    try:
        top = source_git.top_of(".")
    except source.SourceError:
        raise subject.SubjectError(
            f"there is no {text!r} here, and this is not a git repository; give folders, compiled tables, or `live`"
        ) from None
    if within is None:
        within = os.path.relpath(os.path.abspath(_rules_folder(settings)), os.path.abspath(top))
        if within.startswith(".."):
            raise subject.SubjectError("the rules are not in this git repository; name their folder with --path")
    return subject.from_revision(top, text, "" if within == "." else within)

"""`nexoraldns check`: schema, meaning and lint of rule files, or of the node's settings; all problems at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from controller.cli import config_option, fail, with_packages
from controller.diagnostics import Diagnostic

FORMATS = ("text", "short", "json", "github", "gitlab", "sarif", "junit")


@click.command("check")
@click.argument("path", required=False)
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default=None,
    help="How findings are printed; default: text, or github when GITHUB_ACTIONS=true.",
)  # fmt: skip
@click.option("--strict", is_flag=True, help="Exit with 3 when there are only lint findings.")
@config_option
def command(path: str | None, form: str | None, strict: bool, config: str | None) -> None:
    """Check the rules in PATH (a folder or a file; default ./rules.d or the source of the settings).

    With --config and no PATH the file of settings is checked too.

    \b
    Example: nexoraldns check rules.d --format short
    Exit codes: 0 fine, 1 errors in the files, 2 could not run, 3 lint findings with --strict.
    """
    chosen = form or ("github" if os.environ.get("GITHUB_ACTIONS") == "true" else "text")
    sources: dict[str, bytes] = {}
    findings: list[Diagnostic] = []
    if config is not None and path is None:
        findings += _settings(config, sources)
    if path is None and not any(d.is_error for d in findings):
        path = _default_path(config)
    if path is not None:
        findings += _rules(path, sources)
    _report(findings, sources, chosen)
    if any(d.is_error for d in findings):
        raise SystemExit(1)
    if strict and findings:
        raise SystemExit(3)


def _settings(config: str, sources: dict[str, bytes]) -> list[Diagnostic]:
    """What is wrong with a file of settings: its shape, then what its values mean."""
    from controller import documents, schema
    from controller.diagnostics import found
    from controller.ruleset import Where
    from dnsd.contract import settings

    try:
        with open(config, "rb") as file:
            data = file.read()
    except OSError as error:
        fail(f"{config}: {error.strerror}; give the file of settings with --config FILE")
    shown = _shown(config)
    sources[shown] = data
    document = documents.parse(shown, data)
    findings = [*document.diagnostics, *schema.check(document, schema.NODE)]
    root = document.root
    if document.diagnostics or (root is not None and not isinstance(root.value, dict)):
        return findings
    said = {(d.where.line, d.where.column) for d in findings}
    mapping = root.value if root is not None and isinstance(root.value, dict) else {}
    problems: list[tuple[str, str]] = []
    try:
        settings.load(mapping, os.path.dirname(os.path.abspath(config)), os.environ)
    except settings.SettingsError as error:
        problems += error.problems
    for key, message in [*problems, *_of_the_dns_half(config, mapping)]:
        where = Where(shown, 1, 1)
        if root is not None and key and not key.startswith(settings.PREFIX):
            name, node = root.at_path(key)
            unknown = message.startswith("unknown")
            where = name.where if unknown and name is not None else node.where
            parent, _, last = key.rpartition(".")
            block = root.at_path(parent)[1] if parent else root
            if unknown and last in block.pairs:
                where = block.key(last).where
        else:
            message = f"{key}: {message}"
        if (where.line, where.column) in said:
            continue
        code = "E030" if "not in this version" in message else "E012"
        sentence, _, help = message.partition("; ")
        findings.append(found(code, sentence, where, help))
    return findings


def _of_the_dns_half(config: str, mapping: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What dnsd would refuse of trust anchors and root hints: it alone can read them, so it is asked."""
    from dnsd.contract import settings

    given = mapping.get("resolver")
    keys = ("root_hints", "trust_anchors", "negative_trust_anchors")
    written = isinstance(given, dict) and any(key in given for key in keys)
    if not written and not any(settings.variable(f"resolver.{key}") in os.environ for key in keys):
        return []
    done = subprocess.run(
        [sys.executable, "-m", "dnsd", "--config", config, "--check"], stdin=subprocess.DEVNULL,
        capture_output=True, text=True, env=with_packages(os.environ), check=False,
    )  # fmt: skip
    if done.returncode:
        fail(f"{config}: trust anchors and root hints could not be checked: {done.stderr.strip()[-300:]}")
    return [(key, message) for key, message in json.loads(done.stdout)]


def _default_path(config: str | None) -> str | None:
    """The folder that the settings name; None when it is a git repository and the settings themselves were checked."""
    from controller import node

    try:
        source = node.read(config).source
    except node.NodeError as error:
        fail(str(error))
    if source.directory is None:
        if config is not None and os.environ.get("NEXORALDNS_CONFIG") != config:
            return None
        fail("the source in the settings is a git repository; say which folder: nexoraldns check rules.d")
    return source.directory


def _shown(path: str) -> str:
    """A path as findings print it: relative to the working directory when it is below it (pipelines need that)."""
    relative = os.path.relpath(path)
    return os.path.normpath(path) if relative.startswith("..") else relative


def _rules(path: str, sources: dict[str, bytes]) -> Sequence[Diagnostic]:
    from controller import check, source, source_folder
    from controller.cli import progress

    try:
        found = source_folder.snapshot_of(path, _shown(path))
    except source.SourceError as error:
        fail(f"{error.message}; {error.help}" if error.help else error.message)
    sources.update(found.snapshot.files)
    if not found.snapshot.files and not found.refusals:
        fail(f"there is no rule file (*.yaml or *.yml) in {path}; name the folder that holds them")
    with progress.shown():
        return [*found.refusals, *check.check_snapshot(found.snapshot).diagnostics]


def _report(findings: Sequence[Diagnostic], sources: Mapping[str, bytes], form: str) -> None:
    from controller.diagnostics import plural, render, summary

    if sys.stdout.encoding.lower().replace("-", "") != "utf8" and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    color = form == "text" and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    text = render(findings, sources, form, color=color)
    click.echo(text, nl=False, color=color or None)
    closing = f"{plural(len(sources), 'file')} checked: {summary(findings)}"
    if form == "text":
        click.echo(f"\n{closing}" if findings else closing)
    elif form == "github":
        click.echo(closing)

"""What a verb is asked about: a folder of rules, a single file, a compiled table, a git revision, the live table.

Whatever it was, it ends as a table that can be asked; where rules were read, they come along.
"""

from __future__ import annotations

import dataclasses
import os

from controller.compiler import Blobs, compile_table
from controller.diagnostics import Diagnostic, render
from controller.ruleset import RuleSet, RuleTest
from controller.source import Found, SourceError, shorten
from dnsd.contract import layout
from dnsd.contract.settings import Settings
from dnsd.contract.table import Table, TableError
from dnsd.contract.verify import verify


class SubjectError(Exception):
    """It cannot be read (exit code 2), or its rules have errors (1). `str()` is what to print."""

    def __init__(self, text: str, code: int = 2) -> None:
        super().__init__(text)
        self.code = code


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """A table, and what it was made from. `revision` is short and may be empty; `ruleset` is None for tables."""

    label: str
    revision: str
    table: Table
    blobs: Blobs
    ruleset: RuleSet | None = None
    tests: tuple[RuleTest, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def timezone(self) -> str:
        """The rules' own default time zone, or nothing."""
        return self.ruleset.defaults.timezone if self.ruleset else ""


def from_found(found: Found, label: str) -> Subject:
    """Compile what a source found. Raises SubjectError with every error when the rules cannot be used."""
    from controller import check

    snapshot = found.snapshot
    if found.refusals:
        raise SubjectError(render(found.refusals, snapshot.files).rstrip(), 1)
    checked = check.check_snapshot(snapshot)
    if checked.ruleset is None or any(one.is_error for one in checked.diagnostics):
        errors = [one for one in checked.diagnostics if one.is_error]
        raise SubjectError(render(errors, snapshot.files).rstrip(), 1)
    blobs = compile_table(checked.ruleset)
    return Subject(
        label, snapshot.revision.short or shorten(snapshot.revision.id), Table(blobs.policy, blobs.names), blobs,
        checked.ruleset, tuple(checked.tests), tuple(checked.diagnostics),
    )  # fmt: skip


def from_path(path: str) -> Subject:
    """A folder or a file of rules, or a compiled table. Raises SubjectError."""
    from controller import source_folder

    if _is_table(path):
        return _from_table(path)
    try:
        return from_found(source_folder.snapshot_of(path), path)
    except SourceError as error:
        raise SubjectError(f"{error.message}; {error.help}" if error.help else error.message) from None


def from_revision(repository: str, revision: str, path: str) -> Subject:
    """The rules of a commit; `path` is relative to the repository's top. Raises SubjectError."""
    from controller import source_git

    try:
        return from_found(source_git.snapshot_at(repository, revision, path), revision)
    except SourceError as error:
        raise SubjectError(f"{error.message}; {error.help}" if error.help else error.message) from None


def from_live(settings: Settings) -> Subject:
    """The table that is active on this machine. Raises SubjectError."""
    from controller import live

    try:
        found = live.read(settings)
    except live.LiveError as error:
        raise SubjectError(str(error)) from None
    table = found.table
    blobs = Blobs(table.policy_buffer, table.names_buffer, table.digest, table.meaning)  # type: ignore[arg-type]
    return Subject(f"the live table (generation {found.generation})", found.revision, table, blobs)


def default_path(settings: Settings) -> str:
    """Where rules are when nobody says: the settings' folder. Raises SubjectError for a git source."""
    if settings.source.directory is None:
        raise SubjectError("the source in the settings is a git repository; say which folder, or use --live")
    relative = os.path.relpath(settings.source.directory)
    return settings.source.directory if relative.startswith("..") else relative


def _is_table(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(8) in (layout.MAGIC_POLICY, layout.MAGIC_NAMES)
    except OSError:
        return False


def _from_table(path: str) -> Subject:
    beside = f"{path}.names"
    try:
        with open(path, "rb") as file:
            policy = file.read()
        with open(beside, "rb") as file:
            names_blob = file.read()
    except OSError as error:
        help = f"a table's names are in the file beside it, {beside}"
        raise SubjectError(f"{error.filename}: {error.strerror}; {help}") from None
    problems = verify(policy, names_blob)
    if problems:
        raise SubjectError(f"{path} is damaged: {problems[0]}")
    try:
        table = Table(policy, names_blob)
    except TableError as error:
        raise SubjectError(f"{path}: {error.reason}") from None
    return Subject(path, "", table, Blobs(policy, names_blob, table.digest, table.meaning))

"""Where rules come from: the words that the folder source and the git source share.

A source yields `Found` (bytes of one revision) or `Trouble` (why there is nothing new) and goes on; it never raises
into the pipeline and it does not know what a rule is. The rule of this file: no watchdog and no git in here.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import posixpath
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Protocol

from controller.diagnostics import Diagnostic, found
from controller.ruleset import Revision, Snapshot, Where

RULE_SUFFIXES = (".yaml", ".yml")

# More would be a mistake (somebody pointed the source at /), and would not fit a table either.
MAX_FILES = 10_000
MAX_FILE_BYTES = 256 << 20

# `file: x` of a list, as block or flow mapping. A hint about what to watch and to hash: too much does no harm, and
# what it misses is reported by the builder, which really reads the lists.
_FILE_KEY = re.compile(
    rb"""(?:^|[\s{,])["']?file["']?\s*:\s*(?:"([^"\n]+)"|'([^'\n]+)'|([^\s"'#,}\]][^\n,}#]*))""", re.M
)


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """One revision as a source found it. Two with equal `content` hold the same bytes (a commit that touches other
    files only, a save without a change). With `refusals` there is nothing to build: something in there may not be
    read at all (a symbolic link, a submodule, a file without rights), and the revision is refused."""

    snapshot: Snapshot
    content: str
    refusals: tuple[Diagnostic, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Trouble:
    """Why a source has nothing new, in one sentence; it goes on trying. `retry_s` is when, 0 = as soon as it can."""

    message: str
    help: str = ""
    retry_s: float = 0.0


class SourceError(Exception):
    """A source that cannot be read right now; `str()` is one sentence, `help` is what to do."""

    def __init__(self, message: str, help: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.help = help


class Source(Protocol):
    """What the pipeline needs of a source."""

    def describe(self) -> str:
        """What people call it: a path, or url and ref."""

    def events(self) -> AsyncIterator[Found | Trouble]:
        """Everything found, for ever: the first one at once, later ones only when the revision changed."""

    async def sync(self) -> str:
        """Look now; returns one sentence about what was found. Raises SourceError when there is nothing to be had."""

    def also(self, paths: Iterable[tuple[str, str]]) -> None:
        """Count more files as part of the source: (path, relative_to) as given to `Snapshot.read`."""


class Alarm:
    """An event with a time limit, on the loop's (monotonic) clock."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """Wait until `ring`, at most `seconds`; says whether it rang, and is quiet again."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)
        rang = self._event.is_set()
        self._event.clear()
        return rang


def is_rule_file(path: str) -> bool:
    """Whether a path below the source is a rule file: .yaml or .yml, and nothing hidden on the way."""
    return path.endswith(RULE_SUFFIXES) and not any(part.startswith(".") for part in path.split("/"))


def references(files: Mapping[str, bytes]) -> list[tuple[str, str]]:
    """The (path, relative_to) of what rule files seem to name by `file:`, sorted, without doubles."""
    found = set()
    for path, data in files.items():
        for match in _FILE_KEY.finditer(data):
            text = next(group for group in match.groups() if group is not None)
            found.add((text.decode("utf-8", "replace").strip(), path))
    return sorted(found)


def nothing_found(place: str) -> SourceError:
    """A source without any rule file: far more often a folder that is not mounted or a wrong path than a wish to have
    no rules, so it changes nothing."""
    return SourceError(
        f"there are no rule files (*.yaml) in {place}",
        "nothing changes; to have no rules, leave one file that says `version: 1`",
    )


def redact(text: str) -> str:
    """Without user and password of a url: error messages, logs and pages travel far."""
    return re.sub(r"(\w+://)[^/@\s]+@", r"\1", text)


def resolve_inside(path: str, relative_to: str) -> str:
    """The repository path of `path` as written in the file `relative_to`; PermissionError outside the repository."""
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(relative_to), path))
    if posixpath.isabs(path) or joined == ".." or joined.startswith("../"):
        raise PermissionError(f"{path} lies outside the repository; put the file into it, beside the rules")
    return joined


def shorten(identity: str) -> str:
    """`main@sha1:132f4e7…` with its hash cut to 12 digits."""
    head, colon, digits = identity.rpartition(":")
    return f"{head}{colon}{digits[:12]}"


def refusal(path: str, message: str, help: str = "") -> Diagnostic:
    """A file of the source that may not be read, as a finding of the catalogue."""
    return found("E006", message, Where(path, 1, 1), help)


__all__ = [
    "Alarm", "Found", "Revision", "Snapshot", "Source", "SourceError", "Trouble",
    "is_rule_file", "nothing_found", "redact", "references", "refusal", "resolve_inside", "shorten",
]  # fmt: skip

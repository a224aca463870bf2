"""The table that is live on this machine, read from what broker and node keep on disk.

Reads only, and by the formats of `broker_store` and of the node's table store; a release that is
replaced while it is being read is read again.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from dnsd.contract.settings import Settings
from dnsd.contract.table import Table, TableError


class LiveError(Exception):
    """No live table can be read; `str()` is one sentence."""


@dataclasses.dataclass(frozen=True, slots=True)
class Live:
    """A live table, and the short text of its revision."""

    table: Table
    revision: str
    generation: int


def read(settings: Settings) -> Live:
    """The active table: the broker's, or else the node's last good one. Raises LiveError."""
    why = ""
    for _ in range(2):
        for folder, release in _releases(settings.state):
            try:
                return _open(folder, release)
            except (OSError, KeyError, TypeError, TableError) as error:
                why = f" ({error})"
    help = "start `nexoraldns run`, or give the --config that it runs with"
    raise LiveError(f"no live table is in {settings.state}{why}; {help}")


def stamp(settings: Settings) -> tuple[int, ...]:
    """Changes when another table becomes active."""
    return tuple(_mtime(os.path.join(settings.state, *parts)) for parts in (_BROKER, _NODE))


_BROKER, _NODE = ("broker", "active.json"), ("tables", "last-good.json")


def _mtime(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _releases(state: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    saved = _json(os.path.join(state, *_BROKER))
    if isinstance(saved.get("active"), dict):
        yield os.path.join(state, "broker", "blobs"), saved["active"]
    releases = _json(os.path.join(state, *_NODE)).get("releases")
    if isinstance(releases, list) and releases:
        yield os.path.join(state, "tables"), max(releases, key=lambda release: release["generation"])


def _json(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            value = json.load(file)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _open(folder: str, release: Mapping[str, Any]) -> Live:
    blobs = {}
    for blob in release["manifest"]["blobs"]:
        with open(os.path.join(folder, blob["digest"]), "rb") as file:
            blobs[blob["name"]] = file.read()
    revision = release["revision"]
    short = str(revision.get("short") or revision.get("revision") or revision.get("id") or "")
    return Live(Table(blobs["policy"], blobs["names"]), short, int(release["generation"]))

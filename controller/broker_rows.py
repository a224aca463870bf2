"""What the broker keeps of nodes and releases while they run: values, and the messages they become.

Whatever a peer said is cut to short scalars before it is kept, so that it can be shown and sent on.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import Any

from controller.broker_peer import Peer
from dnsd.contract import frames, messages
from dnsd.contract.frames import Frame


@dataclasses.dataclass(slots=True)
class Node:
    """What the broker knows of one dnsd, connected or not."""

    name: str
    peer: Peer | None = None
    phase: str = "gone"  # connected, preparing, ready, active, degraded, evicted, gone
    agent: str = ""
    listen: tuple[str, ...] = ()
    generation: int = 0
    digest: str | None = None  # of the manifest that it serves
    workers: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    counters: dict[str, int] = dataclasses.field(default_factory=dict)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    upstreams: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    anchors: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    errors: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    since_ms: int = 0
    seen_ms: int = 0
    refused: set[str] = dataclasses.field(default_factory=set)
    catching_up: asyncio.Task[None] | None = None


@dataclasses.dataclass(slots=True)
class Row:
    """How one node fares in a release."""

    node: str
    phase: str = "waiting"  # waiting, ready, nack, committed, active, evicted, gone
    ms: int = 0
    errors: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    workers: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    fetched: int = 0

    def as_message(self) -> dict[str, Any]:
        """The row as PROGRESS and RESULT carry it."""
        return {"node": self.node, "phase": self.phase, "ms": self.ms, "errors": self.errors[: messages.MAX_ERRORS],
                "workers": self.workers, "fetched": self.fetched}  # fmt: skip


def flat(value: Any) -> dict[str, Any]:
    """The short scalars of something that a peer said: what may be kept and shown without a second look."""
    if not isinstance(value, dict):
        return {}
    kept = {k: v for k, v in value.items() if v is None or isinstance(v, int) or (isinstance(v, str) and len(v) < 2048)}
    return dict(list(kept.items())[:64])


def rows_of(value: Any) -> list[dict[str, Any]]:
    """`flat` for a list of rows, at most 1024."""
    return [flat(row) for row in value[:1024]] if isinstance(value, list) else []


def events_of(value: Any) -> list[dict[str, Any]]:
    """The events in a REPORT that are what an EVENT may be, at most 64, with their `duration_ms` and `queries`."""
    known = {field.rstrip("?") for field in messages.FIELDS[messages.EVENT]}
    kept = []
    for row in value[:64] if isinstance(value, list) else ():
        event = {key: row[key] for key in known & row.keys()}
        with contextlib.suppress(messages.FrameError):
            messages.encode(messages.EVENT, event)
            numbers = {key: n for key in ("duration_ms", "queries") if isinstance(n := row.get(key), int)}
            kept.append({**event, **numbers})
    return kept


class Release:
    """One PUBLISH on its way."""

    def __init__(self, peer: Peer, frame: Frame) -> None:
        self.peer = peer
        self.ident = frame.id
        message = frame.message
        self.generation: int = message["generation"]
        self.reason: str = message["reason"]
        self.revision: dict[str, Any] = flat(message["revision"])
        self.manifest: dict[str, Any] = message["manifest"]
        self.digest = frames.json_digest(self.manifest)
        self.deadline_s = message["deadline_ms"] / 1000
        self.phase = "pending"  # pending, fetching, preparing, committing, done
        self.rows: dict[str, Row] = {}
        self.superseded = False
        self.task: asyncio.Task[None] | None = None

    def progress(self) -> None:
        """Tell the publisher where we are."""
        message = {"generation": self.generation, "phase": self.phase, "rows": self.row_messages()}
        with contextlib.suppress(messages.FrameError):
            if not self.peer.closed:
                self.peer.write(self.peer.codec.answer(messages.PROGRESS, self.ident, message))

    def result(self, state: str, errors: list[dict[str, Any]]) -> None:
        """The last word. Rows that make it too long for a frame are left out, the state never is."""
        self.phase = "done"
        message = {
            "generation": self.generation, "state": state, "rows": self.row_messages(),
            "errors": errors[: messages.MAX_ERRORS], "digest": self.digest,
        }  # fmt: skip
        if self.peer.closed:
            return
        try:
            data = self.peer.codec.answer(messages.RESULT, self.ident, message)
        except messages.FrameError:
            data = self.peer.codec.answer(messages.RESULT, self.ident, {**message, "rows": [], "errors": errors[:5]})
        self.peer.write(data)

    def row_messages(self) -> list[dict[str, Any]]:
        """All rows, by node."""
        return [self.rows[name].as_message() for name in sorted(self.rows)]

"""The node's trust anchors over time (RFC 5011): when to look, what is remembered on disk, what the workers are told.

A worker looks the keys up on our behalf; the state machine is `resolve.rollover`. Looks are due by the wall clock,
which is what the states' times are, and by the monotonic one, so that a clock that was set back delays none. A file
that cannot be read is kept aside and the configured anchors hold.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import dataclasses
import itertools
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from dnsd.contract import names
from dnsd.contract.settings import Settings
from dnsd.resolve import rollover
from dnsd.resolve.anchors import AnchorError, Anchors
from dnsd.resolve.message import FormError
from dnsd.resolve.rollover import Point
from dnsd.resolve.rrsets import parse
from dnsd.resolve.signatures import TYPE_DNSKEY
from dnsd.serve.recursion import trust_anchors

FILE = "trust-anchors.json"
IDLE_S = 3.0  # until the next try when no worker could look, or nothing is resolved here; then twice as long each time
MOST_IDLE_S = 300.0
LEAST_S = 2.0  # between two looks, however the wall clock jumps
PATIENCE_S = 12.0  # for a worker's answer: a question ends within 4 s
_MOST_FILE = 1 << 20

Probe = Callable[[bytes], Awaitable[Mapping[str, Any]]]


def followed(settings: Settings) -> bool:
    """Whether this node follows its trust anchors: by default only the built-in ones."""
    return settings.resolver.follows_anchors


def read(file: str) -> tuple[Point, ...]:
    """The points on disk; () when there is no file. Raises AnchorError, which says why it cannot be used."""
    try:
        with open(file, encoding="utf-8") as opened:
            return rollover.from_text(opened.read(_MOST_FILE))
    except FileNotFoundError:
        return ()
    except UnicodeDecodeError:
        raise AnchorError("it is not UTF-8 text") from None
    except OSError as error:
        raise AnchorError(f"it cannot be read: {error.strerror}") from None


def updated(settings: Settings) -> Settings:
    """The settings with the anchors that the node has learned, for a program beside it; unchanged without any."""
    if not followed(settings):
        return settings
    try:
        points = read(os.path.join(settings.state, FILE))
    except AnchorError:
        return settings
    known = rollover.anchored(points, trust_anchors(settings))
    if not points or not known:
        return settings
    resolver = dataclasses.replace(settings.resolver, trust_anchors=tuple(rollover.lines(known)))
    return dataclasses.replace(settings, resolver=resolver)


class Told(Protocol):
    """What this needs of `agent_workers.Workers`."""

    def running(self) -> list[int]:
        """The slots whose workers run."""

    def tell_one(self, slot: int, message: Mapping[str, Any]) -> None:
        """Send a message to the worker of a slot."""


class Probes:
    """Questions for keys that a worker looks up for us."""

    def __init__(self, workers: Told) -> None:
        self._workers = workers
        self._idents = itertools.count(1)
        self._open: dict[int, asyncio.Future[dict[str, Any]]] = {}

    def hear(self, message: dict[str, Any]) -> None:
        """A worker has answered."""
        found = self._open.get(message.get("ident", 0))
        if found is not None and not found.done():
            found.set_result(message)

    async def ask(self, zone: bytes) -> Mapping[str, Any]:
        """The answer for a zone: `wire` in base64, or `error`, or `idle` when nobody resolves or nobody is there.

        Each time another worker is asked, should one be stuck.
        """
        slots = self._workers.running()
        if not slots:
            return {"idle": True}
        ident = next(self._idents)
        found: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._open[ident] = found
        self._workers.tell_one(slots[ident % len(slots)], {"op": "probe", "ident": ident, "zone": names.to_text(zone)})
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await found
        except TimeoutError:
            return {"idle": True}
        finally:
            del self._open[ident]


class AnchorKeeper:
    """Follows every positive trust anchor of the settings. `probe(zone)` has a worker look up its keys.

    `follows` is false where the settings' anchors are fixed. `told(lines)` is called with the anchors, as records, when
    they are others than before.
    """

    def __init__(
        self, settings: Settings, probe: Probe, told: Callable[[list[str]], None], log: Any,
        wall_s: Callable[[], int] = lambda: time.time_ns() // 1_000_000_000,
        mono_s: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._configured: Anchors = trust_anchors(settings)
        self.follows = followed(settings)
        self._skew = int(settings.resolver.signature_skew_s)
        self._file = os.path.join(settings.state, FILE)
        self._probe, self._told, self._log = probe, told, log
        self._wall_s, self._mono_s = wall_s, mono_s
        self._points: dict[bytes, Point] = {}
        self._next: dict[bytes, float] = {}  # monotonic: not before this
        self._idle: dict[bytes, float] = {}
        self._latest: dict[bytes, float] = {}  # monotonic: at this at the latest
        if self.follows:
            self._load()
        self.lines: list[str] = rollover.lines(self._anchors())

    def _load(self) -> None:
        now = self._wall_s()
        saved: dict[bytes, Point] = {}
        try:
            saved = {point.zone: point for point in read(self._file)}
        except AnchorError as error:
            aside = f"{self._file}.damaged"
            kept = ""
            with contextlib.suppress(OSError):
                os.replace(self._file, aside)
                kept = aside
            self._log.error(
                "what was learned of trust anchors cannot be read; the configured ones hold", file=self._file,
                reason=str(error), kept=kept,
            )  # fmt: skip
        for zone, anchor in self._configured.positive.items():
            self._points[zone] = rollover.resumed(saved.get(zone), anchor, now)

    def _anchors(self) -> Anchors:
        return rollover.anchored(self._points.values(), self._configured)

    def rows(self) -> list[dict[str, Any]]:
        """One row a key of the anchors, for people; also when nothing is followed."""
        if self.follows:
            return rollover.rows(self._points.values())
        fixed = (rollover.begin(anchor, 0) for anchor in self._configured.positive.values())
        return [{**row, "state": "configured"} for row in rollover.rows(fixed)]

    def due(self) -> bytes | None:
        """A zone whose keys are to be looked at now; None when there is none."""
        wall, mono = self._wall_s(), self._mono_s()
        for zone, point in self._points.items():
            if mono < self._next.get(zone, mono):
                continue
            if wall >= point.due or wall < point.tried or mono >= self._latest.get(zone, mono + 1):
                return zone
        return None

    async def look(self, zone: bytes) -> None:
        """Have the keys of a zone looked up and learn from them."""
        before = self._points[zone]
        idle_s = self._idle.get(zone, IDLE_S)
        self._next[zone] = self._mono_s() + idle_s
        answer = await self._probe(zone)
        if answer.get("idle"):
            self._idle[zone] = min(MOST_IDLE_S, 2 * idle_s)
            return
        self._idle.pop(zone, None)
        now = self._wall_s()
        point, changes = self._learned(before, answer, now)
        self._points[zone] = point
        mono = self._mono_s()
        self._next[zone] = mono + LEAST_S
        self._latest[zone] = mono + max(1.0, point.due - now)
        text = names.to_text(zone)
        if point.failure and point.failure != before.failure:
            self._log.warning("a trust anchor's keys could not be looked at", zone=text, reason=point.failure)
        for change in changes:
            level = self._log.warning if change.after in (rollover.MISSING, rollover.REVOKED) else self._log.info
            level(f"trust anchor: {change.text}", zone=text, key=change.tag, was=change.before, now=change.after)
        if point.anchor is None and before.anchor is not None:
            self._log.error("every key of a trust anchor was revoked; below it nothing is validated", zone=text)
        self._save()
        lines = rollover.lines(self._anchors())
        if lines != self.lines:
            self.lines = lines
            self._told(lines)

    def _learned(self, point: Point, answer: Mapping[str, Any], now: int) -> tuple[Point, tuple[rollover.Change, ...]]:
        if answer.get("error"):
            return rollover.failed(point, now, str(answer["error"])[:300]), ()
        try:
            message = parse(base64.b64decode(str(answer.get("wire", "")), validate=True))
        except (FormError, binascii.Error) as error:
            return rollover.failed(point, now, f"the answer is malformed: {error}"), ()
        for rrset in message.answer:
            if rrset.owner == point.zone and rrset.rtype == TYPE_DNSKEY:
                return rollover.observe(point, rrset, now, self._skew)
        return rollover.failed(point, now, "the zone has no keys"), ()

    def _save(self) -> None:
        text = rollover.to_text(self._points.values())
        new = f"{self._file}.new"
        try:
            with open(new, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, self._file)
        except OSError as error:
            self._log.error(
                "what was learned of trust anchors cannot be kept over a restart", file=self._file,
                reason=error.strerror,
            )  # fmt: skip

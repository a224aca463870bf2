"""A question about the workers' caches, put to all of them, answered once (`nexoraldns cache`)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Mapping
from typing import Any, Protocol

PATIENCE_S = 2.0
_MOST = 60_000  # octets of one worker's answer: a control message has 64 KiB
_ALL = 800_000  # of all of them: a frame has 1 MiB


class Told(Protocol):
    """What this needs of `agent_workers.Workers`."""

    def running(self) -> list[int]:
        """The slots whose workers run."""

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send a message to every running worker."""


class Caches:
    """The questions that are under way; several may be."""

    def __init__(self, workers: Told) -> None:
        self._workers = workers
        self._idents = itertools.count(1)
        self._open: dict[int, dict[int, dict[str, Any]]] = {}  # by question and slot
        self._heard = asyncio.Event()

    def hear(self, slot: int, message: dict[str, Any]) -> None:
        """A worker has answered."""
        ident = message.get("ident")
        if isinstance(ident, int) and ident in self._open:
            rest = {key: value for key, value in message.items() if key not in ("op", "ident", "slot")}
            self._open[ident][slot] = {"slot": slot, **rest}
            self._heard.set()

    async def ask(self, question: Mapping[str, Any], patience_s: float = PATIENCE_S) -> list[dict[str, Any]]:
        """One row a worker; a worker that does not answer in time is a row that says so."""
        slots = self._workers.running()
        ident = next(self._idents)
        answers = self._open[ident] = {}
        most = min(_MOST, _ALL // max(1, len(slots)))
        self._workers.tell({**question, "op": "cache", "what": question["op"], "ident": ident, "most": most})
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    while len(answers) < len(slots):
                        self._heard.clear()
                        await self._heard.wait()
        finally:
            del self._open[ident]
        silent = {"error": "the worker did not answer in time"}
        return [answers.get(slot, {"slot": slot, **silent}) for slot in slots]

"""Fake peers for the broker's tests: they speak the real protocol over real sockets, and misbehave on request."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from controller.broker import Broker
from controller.broker_peer import Limits
from controller.release import Publisher
from controller.ruleset import Revision
from dnsd.contract import frames, keys, messages, settings
from dnsd.contract.frames import Frame, Welcomed

REVISION = Revision(id="main@sha1:" + "a" * 40, short="main@aaaaaaaaaaaa", author="Anna", subject="A change")


class FakeBlobs:
    """As much of a compiled table as the broker can tell apart from a real one."""

    def __init__(self, policy: bytes, names: bytes = b"names" * 100) -> None:
        self.policy = policy
        self.names = names
        self.digest = hashlib.sha256(policy + names).hexdigest()
        self.meaning = self.digest


def node_settings(state: Path, **more: Any) -> settings.Settings:
    broker = {"listen": "127.0.0.1:0", "connect": "127.0.0.1:1", "keys": str(state / "broker.keys")}
    return settings.load({"broker": {**broker, **more.pop("broker", {})}, "state": str(state), **more}, str(state), {})


@contextlib.asynccontextmanager
async def broker(state: Path, limits: Limits | None = None, **callbacks: Any) -> AsyncIterator[Broker]:
    it = Broker(node_settings(state), limits=limits, **callbacks)
    await it.start()
    try:
        yield it
    finally:
        await it.stop()


def publisher(it: Broker, probe: Any = None) -> Publisher:
    async def nobody(listen: tuple[str, ...]) -> frozenset[str]:
        return frozenset()

    return Publisher(it._settings, address=f"127.0.0.1:{it.port}", probe=probe or nobody)


def key(state: Path, role: str) -> keys.Key:
    return keys.parse((state / "broker.keys").read_text())[role]


class FakeNode:
    """A node that fetches, says READY and ACTIVE. `prepare` may replace its answer to PREPARE: None is silence."""

    def __init__(self, it: Broker, name: str, *, have: dict[str, Any] | None = None, slots: int = 2) -> None:
        self.it = it
        self.name = name
        self.have = have or {"generation": 0, "digest": None, "epoch": ""}
        self.slots = slots
        self.blobs: dict[str, bytes] = {}
        self.fetched = 0
        self.table = ""
        self.generation = 0
        self.seen: list[str] = []
        self.prepare: Callable[[Frame], Awaitable[tuple[int, dict[str, Any]] | None]] | None = None
        self.commit_silently = False
        self.ended = asyncio.Event()
        self._pending: dict[int, tuple[dict[str, Any], asyncio.Future[Frame] | None]] = {}

    async def __aenter__(self) -> FakeNode:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.it.port)
        secret = key(Path(self.it._settings.state), "node")
        self.codec = frames.Client(
            secret, "node", self.name, os.urandom(32), agent="fake",
            extra={"have": self.have, "listen": ["127.0.0.1:5300"]},
        )  # fmt: skip
        self.writer.write(self.codec.data_to_send())
        self.welcomed = asyncio.get_running_loop().create_future()
        self.tasks = [asyncio.create_task(self._run())]
        self.answers: dict[int, asyncio.Future[Frame]] = {}
        await asyncio.wait_for(self.welcomed, 3)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.writer.close()

    async def _run(self) -> None:
        try:
            while data := await self.reader.read(65536):
                for event in self.codec.receive(data):
                    if isinstance(event, Welcomed):
                        self.welcomed.set_result(event.message)
                    elif isinstance(event, Frame):
                        self._frame(event)
                self.writer.write(self.codec.data_to_send())
        except (ConnectionError, frames.FrameError):
            pass
        finally:
            self.ended.set()

    def rows(self) -> list[dict[str, Any]]:
        row = {"state": "serving", "generation": self.generation, "digest": self.table}
        return [{"slot": slot, "pid": 1000 + slot, **row} for slot in range(self.slots)]

    def _frame(self, frame: Frame) -> None:
        self.seen.append(messages.NAMES[frame.type])
        if frame.response:
            self.answers.pop(frame.id).set_result(frame)
        elif frame.type == messages.PING:
            self.writer.write(self.codec.answer(messages.PONG, frame.id, {}))
        elif frame.type == messages.PREPARE:
            self.tasks.append(asyncio.create_task(self._prepare(frame)))
        elif frame.type == messages.COMMIT and not self.commit_silently:
            self.generation = frame.message["generation"]
            self.table = self.preparing["table"]
            answer = {"generation": self.generation, "digest": frame.message["digest"], "workers": self.rows()}
            self.writer.write(self.codec.answer(messages.ACTIVE, frame.id, answer))

    async def _prepare(self, frame: Frame) -> None:
        self.preparing = frame.message["manifest"]
        if self.prepare is not None:
            answer = await self.prepare(frame)
            if answer is not None:
                self.writer.write(self.codec.answer(answer[0], frame.id, answer[1]))
            return
        for blob in self.preparing["blobs"]:
            if blob["digest"] not in self.blobs:
                data = b""
                while len(data) < blob["size"]:
                    data += (await self.get(blob["digest"], len(data))).data
                assert hashlib.sha256(data).hexdigest() == blob["digest"]
                self.blobs[blob["digest"]] = data
                self.fetched += len(data)
        ready = {"generation": frame.message["generation"], "workers": self.rows(), "fetched": self.fetched}
        self.writer.write(self.codec.answer(messages.READY, frame.id, ready))

    async def get(self, digest: str, offset: int, length: int = 65536) -> Frame:
        ident, data = self.codec.request(messages.GET, {"digest": digest, "offset": offset, "length": length})
        self.answers[ident] = asyncio.get_running_loop().create_future()
        self.writer.write(data)
        return await asyncio.wait_for(self.answers[ident], 3)

    def send(self, kind: int, message: dict[str, Any], **flags: bool) -> None:
        self.writer.write(self.codec.request(kind, message, **flags)[1])


def nack(frame: Frame, text: str) -> tuple[int, dict[str, Any]]:
    errors = [{"code": "build_failed", "message": text}]
    return messages.NACK, {"generation": frame.message["generation"], "errors": errors}


async def until(condition: Callable[[], Any], seconds: float = 3.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)

"""The node's one connection to the broker: for ever tried, never needed.

Back-off from 100 ms to 5 s with full jitter. The link knows frames; what they mean is the agent's
(`Handler`). It may end at any time, and the node goes on serving what it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from dnsd.contract import frames, keys, messages
from dnsd.contract.frames import Frame, Welcomed
from dnsd.contract.keys import Key, KeysError
from dnsd.contract.messages import FrameError
from dnsd.contract.settings import split_listen

FIRST_DELAY_S = 0.1
MOST_DELAY_S = 5.0
_QUEUE_BYTES = 1 << 20
_GETS_IN_FLIGHT = 4


class LinkError(Exception):
    """The connection ended, or the broker refused; one sentence for people."""


class Handler(Protocol):
    """What the link tells the agent. None of these may wait."""

    def on_welcome(self, challenge: dict[str, Any], welcome: dict[str, Any]) -> None: ...
    def on_frame(self, frame: Frame) -> None: ...
    def on_lost(self) -> None: ...


def read_key(path: str, role: str, text: str | None = None) -> Key:
    """The key for a role: from `text` if the supervisor has read the file for us, else from the file, else from
    `<file>.node`, which the controller makes when dnsd runs as another user. Raises KeysError."""
    if text is not None:
        return keys.for_role(keys.parse(text, path), role, path)
    problems = []
    for candidate in (path, path + ".node"):
        try:
            with open(candidate, encoding="utf-8") as file:
                status = os.fstat(file.fileno())
                problem = keys.permission_problem(candidate, status.st_mode, status.st_uid, os.geteuid())
                if problem:
                    raise KeysError(problem)
                return keys.for_role(keys.parse(file.read(), candidate), role, candidate)
        except FileNotFoundError:
            problems.append(f"{candidate} is not there (yet): the controller makes it on its first start")
        except UnicodeDecodeError:
            raise KeysError(f"{candidate} is not text") from None
        except OSError as error:
            problems.append(f"{candidate} cannot be read ({error.strerror}): copy the line `node` from it to a file of "
                            "this user and name that in broker.keys")  # fmt: skip
    raise KeysError(problems[0])


class Link:
    """The broker connection. `run` never returns; `connected` says whether somebody is there."""

    def __init__(
        self,
        address: str,
        key: Callable[[], Key],
        node: str,
        hello: Callable[[], Mapping[str, Any]],
        handler: Handler,
        log: Any,
        *,
        silence_s: float = frames.CLOSE_AFTER_S,
        ping_s: float = frames.PING_AFTER_S,
    ) -> None:
        self._address = address
        self._key = key
        self._node = node
        self._hello = hello
        self._handler = handler
        self._log = log
        self._silence_s = silence_s
        self._ping_s = ping_s
        self._codec: frames.Client | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._answers: dict[int, asyncio.Future[Frame]] = {}
        self._said = ""
        self.connected = False
        self.dropped_reports = 0
        self.fetched = 0  # octets of blobs since the start

    async def run(self) -> None:
        """Connect, serve the connection, and again."""
        failures = 0
        while True:
            reason = await self._once()
            if self.connected:
                failures = 0
                self._end(reason)
            if reason != self._said:
                self._said = reason
                self._log.info("no broker for now; the node goes on with what it has", reason=reason)
            most = min(MOST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures, 10))
            failures += 1
            await asyncio.sleep(random.uniform(0.0, most))

    async def _once(self) -> str:
        try:
            key = self._key()
            host, port = split_listen(self._address)
            async with asyncio.timeout(frames.HANDSHAKE_S):
                reader, writer = await asyncio.open_connection(host, port, limit=1 << 20)
        except (KeysError, ValueError) as error:
            return str(error)
        except TimeoutError:
            return f"nobody answers at {self._address}"
        except OSError as error:
            return f"{self._address}: {os.strerror(error.errno) if error.errno else error}"
        codec = frames.Client(
            key, "node", self._node, os.urandom(frames.NONCE_BYTES), agent="dnsd", extra=self._hello()
        )
        try:
            return await self._serve(reader, writer, codec)
        except TimeoutError:
            return "the broker is silent"
        except FrameError as error:
            with contextlib.suppress(FrameError):
                if not error.remote and codec.open:
                    writer.write(codec.failure(error))
            return error.message
        except OSError as error:
            return f"the connection broke: {error.strerror or error}"
        finally:
            writer.close()
            asyncio.get_running_loop().call_later(1.0, writer.transport.abort)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, codec: frames.Client) -> str:
        loop = asyncio.get_running_loop()
        writer.write(codec.data_to_send())
        deadline = loop.time() + frames.HANDSHAKE_S
        sent = loop.time()
        while True:
            now = loop.time()
            left = (deadline - now) if not codec.open else min(deadline - now, sent + self._ping_s - now)
            data = None
            try:
                async with asyncio.timeout(max(0.0, left)):
                    data = await reader.read(256 << 10)
            except TimeoutError:
                now = loop.time()
                if now >= deadline:
                    raise
            if codec.open and loop.time() >= sent + self._ping_s:
                sent = loop.time()
                writer.write(codec.request(messages.PING, {})[1])
            if data is None:
                continue
            if not data:
                return "the broker hung up"
            deadline = loop.time() + (self._silence_s if codec.open else frames.HANDSHAKE_S)
            for event in codec.receive(data):
                if isinstance(event, Welcomed):
                    deadline = loop.time() + self._silence_s
                    self._codec, self._writer, self.connected, self._said = codec, writer, True, ""
                    self._handler.on_welcome(event.challenge, event.message)
                elif isinstance(event, Frame):
                    reason = self._frame(codec, writer, event)
                    if reason:
                        return reason
            out = codec.data_to_send()
            if out:
                writer.write(out)

    def _frame(self, codec: frames.Client, writer: asyncio.StreamWriter, frame: Frame) -> str:
        if frame.type == messages.PING:
            writer.write(codec.answer(messages.PONG, frame.id, {}))
        elif frame.response:
            answer = self._answers.get(frame.id)
            if answer is not None and not answer.done():
                answer.set_result(frame)
        elif frame.type == messages.BYE:
            return f"the broker said goodbye: {frame.message['reason']}"
        elif frame.type == messages.ERROR:
            return f"the broker closed the connection: {frame.message['message']}"
        else:
            self._handler.on_frame(frame)
        return ""

    def _end(self, reason: str) -> None:
        self.connected = False
        self._codec = self._writer = None
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            if not answer.done():
                answer.set_exception(LinkError(reason))
                answer.exception()
        self._handler.on_lost()

    # --- what the agent sends -----------------------------------------------------------------------------------------

    def answer(self, kind: int, ident: int, message: Mapping[str, Any]) -> None:
        """Answer a request of the broker, if it is still there."""
        if self._codec is not None and self._writer is not None:
            self._writer.write(self._codec.answer(kind, ident, message))

    def report(self, message: Mapping[str, Any]) -> bool:
        """Send a REPORT; False when nobody is there, or when the broker does not keep up."""
        if self._codec is None or self._writer is None:
            return False
        if self._writer.transport.get_write_buffer_size() > _QUEUE_BYTES // 2:
            self.dropped_reports += 1
            return False
        self._writer.write(self._codec.request(messages.REPORT, message, ignorable=True)[1])
        return True

    async def fetch(self, digest: str, data: memoryview, timeout_s: float) -> None:
        """Fill `data` with a blob's octets, unchecked. `timeout_s` is for each part. Raises LinkError."""
        size = len(data)
        places = iter(range(0, size, frames.DATA_LIMIT))

        async def take() -> None:
            for offset in places:
                length = min(frames.DATA_LIMIT, size - offset)
                frame = await self._ask(messages.GET, {"digest": digest, "offset": offset, "length": length}, timeout_s)
                if frame.offset != offset or len(frame.data) != length:
                    raise LinkError(f"the broker answered another part of blob {digest[:12]}")
                data[offset : offset + length] = frame.data
                self.fetched += length

        takers = [asyncio.create_task(take()) for _ in range(_GETS_IN_FLIGHT)]
        try:
            await asyncio.gather(*takers)
        finally:
            for taker in takers:
                taker.cancel()

    async def _ask(self, kind: int, message: Mapping[str, Any], timeout_s: float) -> Frame:
        if self._codec is None or self._writer is None:
            raise LinkError("the connection ended")
        ident, data = self._codec.request(kind, message)
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._answers[ident] = answer
        self._writer.write(data)
        try:
            async with asyncio.timeout(timeout_s):
                frame = await answer
        except TimeoutError:
            raise LinkError("the broker did not send a blob in time") from None
        finally:
            self._answers.pop(ident, None)
        if frame.type == messages.ERROR:
            raise LinkError(frame.message["message"])
        return frame

"""The controller's side of a connection to the broker: publisher, operator, observer.

One connection, opened for one purpose. Frames that are no answers go to `on_frame`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

from dnsd.contract import frames, messages
from dnsd.contract.frames import Frame, Welcomed
from dnsd.contract.keys import Key
from dnsd.contract.messages import FrameError
from dnsd.contract.settings import split_listen


class LinkError(Exception):
    """The broker cannot be reached, is not the right one, or hung up; one sentence for people."""


class BrokerSays(Exception):
    """The broker answered ERROR. `message` is the whole answer."""

    def __init__(self, message: Mapping[str, Any]) -> None:
        super().__init__(message["message"])
        self.code: str = message["code"]
        self.message = dict(message)


class BrokerClient:
    """A logged-in connection; use `async with await BrokerClient.connect(...)`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, codec: frames.Client) -> None:
        self._reader = reader
        self._writer = writer
        self._codec = codec
        self._answers: dict[int, asyncio.Future[Frame]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.challenge: dict[str, Any] = {}
        self.welcome: dict[str, Any] = {}
        self.on_frame: Callable[[Frame], None] | None = None
        self.on_progress: Callable[[dict[str, Any]], None] | None = None

    @classmethod
    async def connect(cls, address: str, key: Key, role: str, node: str = "") -> BrokerClient:
        """Connect, prove, be proved to. Raises LinkError."""
        host, port = split_listen(address)
        try:
            async with asyncio.timeout(frames.HANDSHAKE_S):
                reader, writer = await asyncio.open_connection(host, port, limit=1 << 20)
                codec = frames.Client(key, role, node or socket.gethostname(), os.urandom(frames.NONCE_BYTES),
                                      agent="nexoraldns controller")  # fmt: skip
                client = cls(reader, writer, codec)
                try:
                    await client._shake()
                except BaseException:
                    writer.transport.abort()
                    raise
        except TimeoutError:
            raise LinkError(f"the broker at {address} did not answer within {frames.HANDSHAKE_S:.0f} s") from None
        except OSError as error:
            raise LinkError(
                f"no broker at {address} ({os.strerror(error.errno) if error.errno else error}): "
                "is the controller running?"
            ) from None
        except FrameError as error:
            raise LinkError(f"the broker at {address} did not take us in as {role}: {error.message}") from None
        client._tasks = [asyncio.create_task(client._read()), asyncio.create_task(client._beat())]
        return client

    async def _shake(self) -> None:
        self._writer.write(self._codec.data_to_send())
        while True:
            data = await self._reader.read(64 << 10)
            if not data:
                raise FrameError("bad_frame", "it hung up")
            for event in self._codec.receive(data):
                if isinstance(event, Welcomed):
                    self.challenge, self.welcome = event.challenge, event.message
                    return
            self._writer.write(self._codec.data_to_send())

    async def __aenter__(self) -> BrokerClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(FrameError, OSError):
            self._writer.write(self._codec.request(messages.BYE, {"reason": "done"})[1])
        self._writer.close()

    async def ask(self, kind: int, message: Mapping[str, Any], timeout_s: float) -> Frame:
        """Ask and wait. Raises BrokerSays, LinkError (also when time is up)."""
        ident, data = self._codec.request(kind, message)
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._answers[ident] = answer
        self._writer.write(data)
        try:
            async with asyncio.timeout(timeout_s):
                frame = await answer
        except TimeoutError:
            raise LinkError(f"the broker did not answer {messages.NAMES[kind]} within {timeout_s:.0f} s") from None
        finally:
            self._answers.pop(ident, None)
        if frame.type == messages.ERROR:
            raise BrokerSays(frame.message)
        return frame

    def answer(self, kind: int, ident: int, message: Mapping[str, Any]) -> None:
        """Answer a question of the broker."""
        self._writer.write(self._codec.answer(kind, ident, message))

    def answer_data(self, ident: int, offset: int, data: bytes | memoryview) -> None:
        """Answer a GET of the broker."""
        self._writer.write(self._codec.answer_data(ident, offset, data))

    async def _read(self) -> None:
        reason = "the broker hung up"
        try:
            while True:
                async with asyncio.timeout(frames.CLOSE_AFTER_S):
                    data = await self._reader.read(256 << 10)
                if not data:
                    break
                for event in self._codec.receive(data):
                    if isinstance(event, Frame):
                        reason = self._frame(event) or reason
        except TimeoutError:
            reason = f"the broker was silent for {frames.CLOSE_AFTER_S:.0f} s"
        except OSError as error:
            reason = f"the connection to the broker broke: {error.strerror}"
        except FrameError as error:
            reason = f"the broker talks nonsense: {error.message}"
        finally:
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(LinkError(reason))
                    answer.exception()

    def _frame(self, frame: Frame) -> str | None:
        if frame.type == messages.PING:
            self.answer(messages.PONG, frame.id, {})
        elif frame.type == messages.PROGRESS:
            if self.on_progress is not None:
                self.on_progress(frame.message)
        elif frame.response:
            answer = self._answers.get(frame.id)
            if answer is not None and not answer.done():
                answer.set_result(frame)
        elif frame.type == messages.BYE:
            return f"the broker said goodbye: {frame.message['reason']}"
        elif frame.type == messages.ERROR:
            return f"the broker closed the connection: {frame.message['message']}"
        elif self.on_frame is not None:
            self.on_frame(frame)
        return None

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(frames.PING_AFTER_S)
            self._writer.write(self._codec.request(messages.PING, {})[1])

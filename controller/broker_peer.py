"""One connection of the broker: questions and answers over the codec, with its limits.

Knows frames and queues, not what they mean. Every timer is the event loop's, which is monotonic.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

from dnsd.contract import frames, messages
from dnsd.contract.frames import Frame
from dnsd.contract.messages import FrameError


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What a peer may take; seconds and octets. Tests make them smaller."""

    handshake_s: float = frames.HANDSHAKE_S
    ping_s: float = frames.PING_AFTER_S
    silence_s: float = frames.CLOSE_AFTER_S
    strangers: int = 512  # connections that have not proved anything yet; one more, and the oldest is closed
    peers: int = 1024
    queue_bytes: int = (1 << 20) + frames.DATA_LIMIT
    least_deadline_s: float = 0.05
    most_deadline_s: float = 120.0
    commit_s: float = 5.0
    grace_s: float = 0.5  # after a NACK: how long the others may still say their reasons


class PeerGone(Exception):
    """The connection ended before the answer came."""


class PeerRefused(Exception):
    """The peer answered ERROR."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Peer:
    """A logged-in (or about to be) connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, codec: frames.Server, limits: Limits
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.codec = codec
        self.limits = limits
        self.name = ""
        self.role = ""
        self.closed = False
        self.reason = ""
        self._loop = asyncio.get_running_loop()
        self.received = self.sent = self._loop.time()
        self._answers: dict[int, asyncio.Future[Frame]] = {}
        writer.transport.set_write_buffer_limits(high=512 << 10)

    def write(self, data: bytes) -> None:
        """Queue octets; a peer that does not read them is closed as a slow consumer."""
        if self.closed or not data:
            return
        if self.writer.transport.get_write_buffer_size() > self.limits.queue_bytes:
            self.abort("slow_consumer")
            return
        self.sent = self._loop.time()
        self.writer.write(data)

    def request(self, kind: int, message: Mapping[str, Any], *, ignorable: bool = False) -> int:
        """Send a request whose answer nobody waits for; returns its id."""
        ident, data = self.codec.request(kind, message, ignorable=ignorable)
        self.write(data)
        return ident

    async def ask(self, kind: int, message: Mapping[str, Any], timeout_s: float) -> Frame:
        """Send a request and wait for its answer. Raises TimeoutError, PeerGone, PeerRefused."""
        if self.closed:
            raise PeerGone(self.reason)
        ident, data = self.codec.request(kind, message)
        answer: asyncio.Future[Frame] = self._loop.create_future()
        self._answers[ident] = answer
        try:
            self.write(data)
            async with asyncio.timeout(timeout_s):
                frame = await answer
        finally:
            self._answers.pop(ident, None)
        if frame.type == messages.ERROR:
            raise PeerRefused(frame.message["code"], frame.message["message"])
        return frame

    def resolve(self, frame: Frame) -> bool:
        """Hand an answer to whoever waits for it; False when nobody does any more."""
        answer = self._answers.get(frame.id)
        if answer is None or answer.done():
            return False
        answer.set_result(frame)
        return True

    def fail(self, error: FrameError) -> None:
        """Say why, then close."""
        if not self.closed and not error.remote:
            with contextlib.suppress(FrameError):
                self.write(self.codec.failure(error))
        self.close(error.code)

    def bye(self, reason: str) -> None:
        """End a connection in good order."""
        if not self.closed and self.codec.open:
            self.request(messages.BYE, {"reason": reason})
        self.close(reason)

    def close(self, reason: str) -> None:
        """Flush what fits into a second, then close; everybody who waits gets PeerGone."""
        if self.closed:
            return
        self._end(reason)
        self.writer.close()
        self._loop.call_later(1.0, self.writer.transport.abort)

    def abort(self, reason: str) -> None:
        """Close at once, unsent octets are dropped."""
        if self.closed:
            return
        self._end(reason)
        self.writer.transport.abort()

    def _end(self, reason: str) -> None:
        self.closed = True
        self.reason = reason
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(PeerGone(reason))
                answer.exception()  # somebody may have stopped waiting; that is no error

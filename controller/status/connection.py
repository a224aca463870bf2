"""A connection of the status page that has no patience with a slow client.

The rule: a request arrives within REQUEST_S of its first octet (the first of a connection: of the connection), and its
answer is taken within ANSWER_S; then the connection is cut. Otherwise a few hundred clients that send one octet a minute
would hold every place there is, and `/healthz` would tell a container engine to end a server that is well.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S = 5.0
ANSWER_S = 30.0  # a trace takes as long as a resolution does


class Connection(H11Protocol):
    """Uvicorn's, with the two limits. It closes idle connections between requests by itself."""

    _limit: asyncio.TimerHandle | None = None
    _answering = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait(REQUEST_S)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            if self._limit is None or self._answering:  # the first octets of a next request; more of them win no time
                self._answering = False
                self._wait(REQUEST_S)
        elif not self._answering:
            self._answering = True
            self._wait(ANSWER_S)

    def on_response_complete(self) -> None:
        if not self.transport.get_write_buffer_size():  # else the answer is still to be taken
            self._rest()
        super().on_response_complete()  # begins with what came meanwhile
        if self.cycle is not None and not self.cycle.response_complete:
            self._answering = True
            self._wait(ANSWER_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest()
        super().connection_lost(exc)

    def _wait(self, seconds: float) -> None:
        if self._limit is not None:
            self._limit.cancel()
        self._limit = self.loop.call_later(seconds, self._over)

    def _over(self) -> None:
        answered = self._answering and self.cycle is not None and self.cycle.response_complete
        self._rest()
        if not answered or self.transport.get_write_buffer_size():
            self.transport.abort()

    def _rest(self) -> None:
        self._answering = False
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

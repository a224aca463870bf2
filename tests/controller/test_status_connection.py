"""Facts about slow clients of the status page."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from controller.status import connection
from tests import lan

LONG = b"x" * (8 << 20)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """A short answer, or one longer than any buffer."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": LONG if scope["path"] == "/long" else b"short"})


@contextlib.contextmanager
def page(monkeypatch: pytest.MonkeyPatch, request_s: float = 30.0, answer_s: float = 30.0) -> Iterator[tuple[str, int]]:
    """A server with our connections and these limits, in a thread."""
    monkeypatch.setattr(connection, "REQUEST_S", request_s)
    monkeypatch.setattr(connection, "ANSWER_S", answer_s)
    config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none", http=connection.Connection)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
        thread.start()
        try:
            lan.until(lambda: server.started, 10)
            yield listening.getsockname()
        finally:
            server.should_exit = server.force_exit = True
            thread.join(10)


def test_a_request_that_trickles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not come to the end of a request is cut off, and sending on octet by octet wins no time."""
    with page(monkeypatch, request_s=0.3) as address:
        for begun in (b"", b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET"):
            with socket.create_connection(address) as client:
                client.sendall(begun)
                client.settimeout(0.05)
                ended = False
                for _ in range(200):  # at most 10 s
                    try:
                        ended = client.recv(65536) == b""
                        client.sendall(b"y")
                    except TimeoutError:
                        continue
                    except ConnectionError:
                        ended = True
                    if ended:
                        break
                assert ended, begun


def test_an_answer_that_nobody_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks and does not read is cut off, and what was kept for it is freed."""
    with page(monkeypatch, answer_s=0.3) as address, socket.create_connection(address) as client:
        client.sendall(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n")
        threading.Event().wait(1.0)  # reads nothing
        client.settimeout(10)
        received = 0
        with contextlib.suppress(ConnectionError):
            while data := client.recv(1 << 20):
                received += len(data)
        assert received < len(LONG)


def test_a_request_in_two_parts_and_one_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits do not meet ordinary clients: a late second half, keep-alive, two requests at once."""
    with page(monkeypatch) as address, socket.create_connection(address) as client:
        client.settimeout(10)
        client.sendall(b"GET / HTTP/1.1\r\nHo")
        client.sendall(b"st: a\r\n\r\n")
        read = client.makefile("rb")
        for sent in (b"", b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", b""):
            client.sendall(sent)
            while (line := read.readline()) != b"\r\n":
                assert line
            assert int(read.readline(), 16) == 5 and read.readline() == b"short\r\n"
            assert read.readline() + read.readline() == b"0\r\n\r\n"

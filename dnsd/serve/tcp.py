"""Client connections over TCP (RFC 7766): pipelining, answers in any order, limits.

Knows framing and patience, not DNS: a message is handed to `stream`, which answers at once, later
(through `respond`), or not at all. Time is handed in. A peer that is slow, silent, greedy or does not
read is closed, and nobody else notices.
"""

import dataclasses
import ipaddress
import select
import socket
from collections.abc import Callable
from typing import Any

from dnsd.contract import codes
from dnsd.serve.loop import Loop

CONNECTIONS = 1024  # per worker
PER_CLIENT = 64  # per client address and worker
IN_FLIGHT = 100  # questions of one connection that wait for an upstream server
OUT_BYTES = 256 * 1024  # unread answers of one connection, above which we stop reading from it
IDLE_MS = 10_000  # without a whole message, or without reading our answers (RFC 7766, section 6.2.3)
PRESSURE_IDLE_MS = 2_000  # the same when three quarters of the connections are taken
_SCAN_MS = 500
_PRESSURE = CONNECTIONS * 3 // 4
_ACCEPTS = 32  # per readiness event
_MESSAGES = 64  # per readiness event of one connection
_READ_BYTES = 65537  # one largest message with its length

# Answers a message now (octets), closes (b"") or keeps it for `respond` (None).
Stream = Callable[[bytes, bytes, "Connection"], "bytes | None"]


@dataclasses.dataclass(slots=True, eq=False)
class Connection:
    """One client connection; `client` is its address in 16 octets (IPv4 as ::ffff:a.b.c.d)."""

    sock: socket.socket
    client: bytes
    active_ms: int  # the last whole message, or the last octets the peer took from us
    data: bytearray = dataclasses.field(default_factory=bytearray)
    out: bytearray = dataclasses.field(default_factory=bytearray)
    in_flight: int = 0
    ended: bool = False  # the peer will send no more
    closed: bool = False
    events: int = select.EPOLLIN


class Connections:
    """All client connections of one worker."""

    def __init__(self, loop: Loop, stream: Stream, counters: memoryview, now_ms: Callable[[], int]) -> None:
        self._loop = loop
        self._stream = stream
        self._counters = counters
        self._now_ms = now_ms
        self._connections: dict[int, Connection] = {}
        self._per_client: dict[bytes, int] = {}
        self._scan_ms = 0  # when to look for idle ones
        self._ready: list[Connection] = []  # has a whole message that was not looked at yet

    def __len__(self) -> int:
        return len(self._connections)

    def accept(self, listener: socket.socket) -> None:
        """Take what waits in a listener's backlog; never blocks."""
        for _ in range(_ACCEPTS):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError:
                # The peer gave up, or descriptors ran out: the latter is cured by closing the idlest.
                self._close_idlest()
                return
            self._counters[codes.COUNT_TCP_CONNECTIONS] += 1
            client = _client(address[0])
            if self._per_client.get(client, 0) >= PER_CLIENT or (
                len(self._connections) >= CONNECTIONS and not self._close_idlest()
            ):
                self._counters[codes.COUNT_TCP_REFUSED] += 1
                sock.close()
                continue
            sock.setblocking(False)
            connection = Connection(sock, client, self._now_ms())
            self._connections[sock.fileno()] = connection
            self._per_client[client] = self._per_client.get(client, 0) + 1
            self._loop.add(sock.fileno(), select.EPOLLIN, self._on_ready)

    def respond(self, connection: Connection, wire: bytes) -> None:
        """The late answer to a message for which `stream` returned None; b"" closes the connection."""
        if connection.closed:
            return
        connection.in_flight -= 1
        if not wire:
            self._close(connection)
            return
        if not self._write(connection, wire):
            return
        if connection.data:
            self._ready.append(connection)  # messages may have waited for this one
        self._settle(connection)

    def next_ms(self) -> int | None:
        """When `expire` wants to be called; None without connections."""
        if self._ready:
            return 0
        if not self._connections:
            return None
        return self._scan_ms

    def expire(self, now_ms: int) -> None:
        """Go on with messages that waited, and close who has been idle, slow or unread for too long."""
        waiting, self._ready = self._ready, []
        for connection in waiting:
            if not connection.closed:
                self._read_messages(connection)
        if now_ms < self._scan_ms:
            return
        self._scan_ms = now_ms + _SCAN_MS
        patience_ms = self._patience_ms()
        for connection in list(self._connections.values()):
            if now_ms - connection.active_ms >= patience_ms:
                if connection.in_flight and not connection.out:
                    connection.active_ms = now_ms  # it waits for us, not we for it
                else:
                    self._close(connection)

    def close(self) -> None:
        """Close every connection."""
        for connection in list(self._connections.values()):
            self._close(connection)

    @property
    def busy(self) -> bool:
        """Whether an answer is still owed, or not yet taken by its reader."""
        return any(connection.in_flight or connection.out for connection in self._connections.values())

    @property
    def patience_ms(self) -> int:
        """How long a connection may be idle as things are now."""
        return self._patience_ms()

    def _patience_ms(self) -> int:
        return PRESSURE_IDLE_MS if len(self._connections) >= _PRESSURE else IDLE_MS

    def _on_ready(self, fd: int, events: int) -> None:
        connection = self._connections.get(fd)
        if connection is None:
            return
        if events & select.EPOLLOUT and not self._flush(connection):
            return
        if events & (select.EPOLLERR | select.EPOLLHUP) and not events & select.EPOLLIN:
            self._close(connection)
            return
        if events & select.EPOLLIN:
            try:
                data = connection.sock.recv(_READ_BYTES)
            except BlockingIOError:
                data = None
            except OSError:
                self._close(connection)
                return
            if data == b"":
                connection.ended = True
            elif data:
                connection.data += data
        self._read_messages(connection)

    def _read_messages(self, connection: Connection) -> None:
        data = connection.data
        for _ in range(_MESSAGES):
            if len(data) < 2 or connection.in_flight >= IN_FLIGHT or len(connection.out) >= OUT_BYTES:
                break
            length = int.from_bytes(data[:2])
            if length == 0:
                self._close(connection)
                return
            if len(data) < 2 + length:
                break
            message = bytes(data[2 : 2 + length])
            del data[: 2 + length]
            connection.active_ms = self._now_ms()
            answer = self._stream(message, connection.client, connection)
            if answer is None:
                connection.in_flight += 1
            elif not answer:
                self._close(connection)
                return
            elif not self._write(connection, answer):
                return
        else:
            if len(data) >= 2 and len(data) >= 2 + int.from_bytes(data[:2]):
                self._ready.append(connection)  # its fair share is done; others first
                return
        self._settle(connection)

    def _settle(self, connection: Connection) -> None:
        """Close what has ended, or watch for exactly what is wanted now."""
        if connection.ended and not connection.in_flight and not connection.out:
            if connection not in self._ready:
                self._close(connection)
            return
        events = select.EPOLLOUT if connection.out else 0
        paused = connection.in_flight >= IN_FLIGHT or len(connection.out) >= OUT_BYTES
        if not connection.ended and not paused and len(connection.data) < _READ_BYTES:
            events |= select.EPOLLIN
        if events != connection.events:
            connection.events = events
            self._loop.change(connection.sock.fileno(), events)

    def _write(self, connection: Connection, wire: bytes) -> bool:
        """Send now what the peer takes and keep the rest; False when the connection broke and is closed."""
        framed = len(wire).to_bytes(2) + wire
        if not connection.out:
            try:
                sent = connection.sock.send(framed)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._close(connection)
                return False
            if sent == len(framed):
                return True
            framed = framed[sent:]
        connection.out += framed
        return True

    def _flush(self, connection: Connection) -> bool:
        try:
            sent = connection.sock.send(connection.out)
        except BlockingIOError:
            return True
        except OSError:
            self._close(connection)
            return False
        del connection.out[:sent]
        connection.active_ms = self._now_ms()
        return True

    def _close_idlest(self) -> bool:
        idle = [c for c in self._connections.values() if not c.in_flight and not c.out and not c.data]
        if not idle:
            return False
        self._close(min(idle, key=lambda connection: connection.active_ms))
        return True

    def _close(self, connection: Connection) -> None:
        if connection.closed:
            return
        connection.closed = True
        fd = connection.sock.fileno()
        del self._connections[fd]
        left = self._per_client[connection.client] - 1
        if left:
            self._per_client[connection.client] = left
        else:
            del self._per_client[connection.client]
        self._loop.remove(fd)
        connection.sock.close()


def _client(address: Any) -> bytes:
    parsed = ipaddress.ip_address(str(address).partition("%")[0])
    return parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed

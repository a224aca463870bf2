# cython: wraparound=True, annotation_typing=False
"""The only outgoing sockets: random ports and ids, timeouts, pairing of answers with questions.

Per upstream address a pool of connected UDP sockets on random ports, made when first drawn; each
question draws a random socket and a random id, so a forger has to guess both (RFC 5452). A socket is
retired after 60 s or 1,000 questions; a question of recursion (`Ask.fresh`) has one of its own. TCP asks
get a connection of their own. One epoll, one thread; time is handed in, so this file sets no clock.
"""

import dataclasses
import errno
import heapq
import select
import socket
from collections.abc import Callable

from dnsd.contract import codes
from dnsd.resolve.forwarder import TCP, Ask, Reply, matches
from dnsd.resolve.upstreams import Server
from dnsd.serve.chance import Chance
from dnsd.serve.loop import Loop

POOL = 128  # sockets per upstream address
RETIRE_MS = 60_000
RETIRE_QUERIES = 1000
TCP_LIMIT = 256  # connections to all servers together
_RECEIVES = 32  # per readiness event, so that one server cannot keep the worker

# Our own poverty, not the server's fault.
_SHORTAGE = frozenset((errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOBUFS, errno.EADDRNOTAVAIL))
_UNREACHABLE = "unreachable"
_TIMEOUT = "timeout"
_BROKEN = "broken"

Done = Callable[[Reply], None]


@dataclasses.dataclass(eq=False)
class _Exchange:
    """One question under way; `done` is taken when it is answered."""

    ask: Ask
    done: Done | None
    query_id: int
    pooled: "_Pooled | None" = None
    stream: "_Stream | None" = None


@dataclasses.dataclass(eq=False)
class _Pooled:
    sock: socket.socket
    server: Server
    place: int
    born_ms: int
    asked: int = 0
    retired: bool = False
    waiting: dict[int, _Exchange] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(eq=False)
class _Stream:
    sock: socket.socket
    exchange: _Exchange
    out: bytes
    data: bytearray = dataclasses.field(default_factory=bytearray)


class Upstream:
    """Asks of one worker; `counters` are its own."""

    def __init__(self, loop: Loop, counters: memoryview, now_ms: Callable[[], int], pool: int = POOL) -> None:
        self._loop = loop
        self._counters = counters
        self._now_ms = now_ms
        self._size = pool
        self._pools: dict[Server, list[_Pooled | None]] = {}
        self._sockets: dict[int, _Pooled] = {}
        self._streams: dict[int, _Stream] = {}
        self._timers: list[tuple[int, int, _Exchange]] = []
        self._sequence = 0
        self._chance = Chance()
        self._failed: list[tuple[_Exchange, str]] = []
        self.pending = 0

    def ask(self, ask: Ask, done: Done) -> None:
        """Start an Ask; `done` is called exactly once, later, never from within this call."""
        self._sequence += 1
        exchange = _Exchange(ask, done, self._chance(65536))
        self.pending += 1
        self._counters[codes.COUNT_UPSTREAM_QUERIES] += 1
        heapq.heappush(self._timers, (self._now_ms() + ask.timeout_ms, self._sequence, exchange))
        error = self._connect(exchange) if ask.transport == TCP else self._send(exchange)
        if error:
            self._failed.append((exchange, error))

    def next_ms(self) -> int | None:
        """When `expire` wants to be called (monotonic milliseconds); None when nothing is under way."""
        if self._failed:
            return 0
        while self._timers and self._timers[0][2].done is None:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def expire(self, now_ms: int) -> None:
        """End what has failed at once or waited too long."""
        while self._failed:
            exchange, error = self._failed.pop()
            self._finish(exchange, None, error)
        while self._timers and self._timers[0][0] <= now_ms:
            exchange = heapq.heappop(self._timers)[2]
            if exchange.done is not None:
                self._counters[codes.COUNT_UPSTREAM_TIMEOUTS] += 1
                self._finish(exchange, None, _TIMEOUT)

    def close(self) -> None:
        """Close every socket; asks under way are never answered."""
        for pooled in list(self._sockets.values()):
            self._drop(pooled)
        for stream in list(self._streams.values()):
            self._drop_stream(stream)
        self._pools.clear()
        self._timers.clear()

    # --- UDP --------------------------------------------------------------------------------------

    def _send(self, exchange: _Exchange) -> str:
        pooled = self._fresh(exchange.ask.server) if exchange.ask.fresh else self._draw(exchange.ask.server)
        if pooled is None:
            return _UNREACHABLE
        while exchange.query_id in pooled.waiting:
            exchange.query_id = self._chance(65536)
        wire = exchange.query_id.to_bytes(2) + exchange.ask.wire[2:]
        for attempt in (1, 2):
            try:
                pooled.sock.send(wire)
                break
            except BlockingIOError:
                if pooled.retired:
                    self._drop(pooled)
                return ""  # the queue is full: as good as lost on the way; the timer decides
            except OSError as error:
                # An ICMP error of an earlier question is reported by the next call; this one was not sent yet.
                if attempt == 2 or error.errno != errno.ECONNREFUSED or pooled.retired:
                    if pooled.retired:
                        self._drop(pooled)
                    return _UNREACHABLE
                self._refused(pooled)
        pooled.waiting[exchange.query_id] = exchange
        exchange.pooled = pooled
        pooled.asked += 1
        if pooled.asked >= RETIRE_QUERIES:
            self._retire(pooled)
        return ""

    def _draw(self, server: Server) -> _Pooled | None:
        pool = self._pools.get(server)
        if pool is None:
            pool = self._pools[server] = [None] * self._size
        place = self._chance(self._size)
        pooled = pool[place]
        now_ms = self._now_ms()
        if pooled is not None and now_ms - pooled.born_ms < RETIRE_MS:
            return pooled
        if pooled is not None:
            self._retire(pooled)
        sock = None
        try:
            sock = _socket(server, socket.SOCK_DGRAM)
            sock.connect(server)
        except OSError as error:
            if sock is not None:
                sock.close()
            if error.errno in _SHORTAGE:
                return next((other for other in pool if other is not None), None)  # share rather than fail
            return None
        pooled = _Pooled(sock, server, place, now_ms)
        pool[place] = pooled
        self._sockets[sock.fileno()] = pooled
        self._loop.add(sock.fileno(), select.EPOLLIN, self._readable)
        return pooled

    def _fresh(self, server: Server) -> _Pooled | None:
        """A socket for one question only: it is closed with its answer."""
        sock = None
        try:
            sock = _socket(server, socket.SOCK_DGRAM)
            sock.connect(server)
        except OSError as error:
            if sock is not None:
                sock.close()
            return self._draw(server) if error.errno in _SHORTAGE else None
        pooled = _Pooled(sock, server, -1, self._now_ms(), retired=True)
        self._sockets[sock.fileno()] = pooled
        self._loop.add(sock.fileno(), select.EPOLLIN, self._readable)
        return pooled

    def _readable(self, fd: int, events: int) -> None:
        pooled = self._sockets.get(fd)
        if pooled is None:
            return
        for _ in range(_RECEIVES):
            try:
                wire = pooled.sock.recv(65535)
            except BlockingIOError:
                return
            except OSError:
                self._refused(pooled)
                return
            exchange = pooled.waiting.get(int.from_bytes(wire[:2])) if len(wire) >= 12 else None
            if exchange is None or not matches(exchange.ask.wire, wire):
                self._counters[codes.COUNT_UPSTREAM_MISMATCHES] += 1  # late, or forged: keep waiting
                continue
            self._counters[codes.COUNT_UPSTREAM_ANSWERS] += 1
            self._finish(exchange, wire, "")
            if fd not in self._sockets or not pooled.waiting:
                return

    def _refused(self, pooled: _Pooled) -> None:
        """Nobody listens there (ICMP): everything that waits on this socket has failed."""
        for exchange in list(pooled.waiting.values()):
            self._failed.append((exchange, _UNREACHABLE))
        pooled.waiting.clear()

    def _retire(self, pooled: _Pooled) -> None:
        pooled.retired = True
        pool = self._pools.get(pooled.server)
        if pool is not None and pool[pooled.place] is pooled:
            pool[pooled.place] = None
        if not pooled.waiting:
            self._drop(pooled)

    def _drop(self, pooled: _Pooled) -> None:
        if self._sockets.pop(pooled.sock.fileno(), None) is not None:
            self._loop.forget(pooled.sock.fileno())  # nobody inherits it: closing takes it out of the epoll
            pooled.sock.close()

    # --- TCP (RFC 7766): a fresh connection per ask ------------------------------------------------

    def _connect(self, exchange: _Exchange) -> str:
        if len(self._streams) >= TCP_LIMIT:
            return _BROKEN
        try:
            sock = _socket(exchange.ask.server, socket.SOCK_STREAM)
        except OSError:
            return _UNREACHABLE
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect(exchange.ask.server)
        except BlockingIOError:
            pass  # EINPROGRESS: writable when connected
        except OSError:
            sock.close()
            return _UNREACHABLE
        wire = exchange.query_id.to_bytes(2) + exchange.ask.wire[2:]
        stream = _Stream(sock, exchange, len(wire).to_bytes(2) + wire)
        exchange.stream = stream
        self._streams[sock.fileno()] = stream
        self._loop.add(sock.fileno(), select.EPOLLOUT, self._stream_ready)
        return ""

    def _stream_ready(self, fd: int, events: int) -> None:
        stream = self._streams.get(fd)
        if stream is None:
            return
        try:
            if stream.out:
                error = stream.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    self._finish(stream.exchange, None, _UNREACHABLE)
                    return
                stream.out = stream.out[stream.sock.send(stream.out) :]
                if not stream.out:
                    self._loop.change(fd, select.EPOLLIN)
                return
            data = stream.sock.recv(65537)
        except BlockingIOError:
            return
        except OSError:
            self._finish(stream.exchange, None, _BROKEN)
            return
        stream.data += data
        held = stream.data
        length = int.from_bytes(held[:2]) if len(held) >= 2 else -1
        if 0 <= length <= len(held) - 2:
            wire = bytes(held[2 : 2 + length])
            exchange = stream.exchange
            if int.from_bytes(wire[:2]) == exchange.query_id and matches(exchange.ask.wire, wire):
                self._counters[codes.COUNT_UPSTREAM_ANSWERS] += 1
                self._finish(exchange, wire, "")
            else:
                self._counters[codes.COUNT_UPSTREAM_MISMATCHES] += 1
                self._finish(exchange, None, _BROKEN)
        elif not data:
            self._finish(stream.exchange, None, _BROKEN)

    def _drop_stream(self, stream: _Stream) -> None:
        if self._streams.pop(stream.sock.fileno(), None) is not None:
            self._loop.remove(stream.sock.fileno())
            stream.sock.close()

    # --- both --------------------------------------------------------------------------------------

    def _finish(self, exchange: _Exchange, wire: bytes | None, error: str) -> None:
        done, exchange.done = exchange.done, None
        if done is None:
            return
        self.pending -= 1
        pooled = exchange.pooled
        if pooled is not None:
            pooled.waiting.pop(exchange.query_id, None)
            if pooled.retired and not pooled.waiting:
                self._drop(pooled)
        if exchange.stream is not None:
            self._drop_stream(exchange.stream)
        done(Reply(wire, self._now_ms(), error))


def _socket(server: Server, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    return socket.socket(family, kind | socket.SOCK_NONBLOCK)

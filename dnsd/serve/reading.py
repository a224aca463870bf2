"""Which sockets a worker reads: its own slot's, those of dead siblings, and those that come and go while it serves.

Every worker holds the sockets of all slots, so that it can stand in for a sibling; it watches only those
that are its business now.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable, Iterable, Sequence

from dnsd.serve.listener import Sockets, leave
from dnsd.serve.loop import CLIENTS, Loop, Ready
from dnsd.serve.tcp import Connections

# A socket that is let go is read for so long: what was queued, and the late answers of its questions, leave by it.
LET_GO_MS = 6000


class Reading:
    """`on_udp` is called for a readable datagram socket. `closed(fd)` is told before a descriptor is closed."""

    def __init__(
        self,
        slot: int,
        sockets: Sequence[Sockets],
        loop: Loop,
        connections: Connections,
        on_udp: Ready,
        closed: Callable[[int], None],
    ) -> None:
        self._slot = slot
        self._sockets = sockets
        self._loop = loop
        self._connections = connections
        self._on_udp = on_udp
        self._closed = closed
        self._watched: set[int] = set()
        self._leaving: list[tuple[int, list[socket.socket]]] = []  # (when to close, sockets)

    @property
    def slots(self) -> frozenset[int]:
        """The slots whose sockets are read."""
        return frozenset(self._watched)

    def watch(self, slot: int) -> None:
        """Read this slot's sockets."""
        self._watched.add(slot)
        sockets = self._sockets[slot]
        for udp, tcp in zip(sockets.udp, sockets.tcp, strict=True):
            self._add(slot, udp, tcp)

    def unwatch(self, slot: int) -> None:
        """Somebody else reads them."""
        self._watched.discard(slot)
        for sock in (*self._sockets[slot].udp, *self._sockets[slot].tcp):
            self._loop.remove(sock.fileno())

    def _add(self, slot: int, udp: socket.socket, tcp: socket.socket) -> None:
        # Several siblings may stand in for one slot: EPOLLEXCLUSIVE wakes one of them, not all.
        events = select.EPOLLIN | (select.EPOLLEXCLUSIVE if slot != self._slot else 0)
        self._loop.add(udp.fileno(), events, self._on_udp, CLIENTS)
        self._loop.add(tcp.fileno(), events, lambda fd, ready: self._connections.accept(tcp))

    def listen(self, number: int, slots: Iterable[int], fds: Sequence[int]) -> None:
        """Take new sockets: two descriptors a slot, UDP and TCP. What we have already is closed."""
        wanted = list(slots)
        for place, slot in enumerate(wanted):
            pair = fds[2 * place : 2 * place + 2]
            if len(pair) < 2:
                break
            if not 0 <= slot < len(self._sockets) or number in self._sockets[slot].ids:
                for fd in pair:  # inherited from the supervisor, which had made them before it forked us
                    os.close(fd)
                continue
            udp, tcp = (socket.socket(fileno=fd) for fd in pair)
            self._sockets[slot].add(number, udp, tcp)
            if slot in self._watched:
                self._add(slot, udp, tcp)
        for fd in fds[2 * len(wanted) :]:
            os.close(fd)

    def drop(self, number: int, now_ms: int) -> None:
        """Let sockets go: accept who waits, read what is queued for a while, then close."""
        for slot, sockets in enumerate(self._sockets):
            pair = sockets.take(number)
            if pair is None:
                continue
            udp, tcp = pair
            if slot in self._watched:
                self._connections.accept(tcp)
            self._loop.remove(tcp.fileno())
            tcp.close()
            self._leaving.append((now_ms + LET_GO_MS, [udp]))

    def expire(self, now_ms: int) -> None:
        """Close what has been let go for long enough."""
        while self._leaving and self._leaving[0][0] <= now_ms:
            for sock in self._leaving.pop(0)[1]:
                self._closed(sock.fileno())
                self._loop.remove(sock.fileno())
                sock.close()

    def orphaned(self) -> None:
        """We leave and nobody will read our sockets after us: they leave their groups and are read until then."""
        for slot in self._watched:
            for sock in self._sockets[slot].udp:
                leave(sock)
            for sock in self._sockets[slot].tcp:
                self._connections.accept(sock)
                self._loop.remove(sock.fileno())
                with contextlib.suppress(OSError):
                    sock.close()

"""Datagrams in batches: the compiled `_batch` where it exists, the same in Python elsewhere.

The Python class reads and sends one datagram a system call; everything else is equal, so callers
do not know which one they have (`COMPILED` says it to people).
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from typing import Any

SIZE = 64
IN_STRIDE = 2112
OUT_STRIDE = 1344
LINES = 2048
LINE_IN = 4096
LINE_OUT = 320
_NAME = 28
_CONTROL = 64

__all__ = ["COMPILED", "Batch", "Lines", "Poll", "load", "store"]

_PKTINFO4 = 8  # IP_PKTINFO; Python 3.11 has no name for it


class PythonBatch:
    """64 datagrams: see `_batch.Batch`."""

    def __init__(self) -> None:
        self.size, self.in_stride, self.out_stride = SIZE, IN_STRIDE, OUT_STRIDE
        self.inp = memoryview(bytearray(SIZE * IN_STRIDE))
        self.out = memoryview(bytearray(SIZE * OUT_STRIDE))
        self.lengths = memoryview(bytearray(SIZE * 4)).cast("i")
        self.out_lengths = memoryview(bytearray(SIZE * 4)).cast("i")
        self.clients = memoryview(bytearray(SIZE * 16))
        self.errors = 0
        # Opaque to everybody but this class: the address as text, the control messages packed.
        self.names = memoryview(bytearray(SIZE * _NAME))
        self.name_lengths = memoryview(bytearray(SIZE * 4)).cast("i")
        self.controls = memoryview(bytearray(SIZE * _CONTROL))
        self.control_lengths = memoryview(bytearray(SIZE * 4)).cast("i")
        self.parked = memoryview(bytearray(SIZE * 4)).cast("i")
        self._peers: list[tuple[object, list[tuple[int, int, bytes]]]] = [((), [])] * SIZE
        self._sockets: dict[int, socket.socket] = {}

    def _socket(self, fd: int) -> socket.socket:
        if fd not in self._sockets:
            self._sockets[fd] = socket.socket(fileno=os.dup(fd))
        return self._sockets[fd]

    def forget(self, fd: int) -> None:
        """This descriptor is about to be closed; its number may come back as another socket's."""
        sock = self._sockets.pop(fd, None)
        if sock is not None:
            sock.close()

    def receive(self, fd: int) -> int:
        """Read up to 64 datagrams; returns how many."""
        sock = self._socket(fd)
        n = 0
        while n < SIZE:
            try:
                data, ancillary, _, address = sock.recvmsg(IN_STRIDE, 256, socket.MSG_DONTWAIT)
            except (BlockingIOError, InterruptedError):
                break
            self.inp[n * IN_STRIDE : n * IN_STRIDE + len(data)] = data
            self.lengths[n] = len(data) if address[1] else 0
            self.out_lengths[n] = 0
            if sock.family == socket.AF_INET:
                packed = b"\x00" * 10 + b"\xff\xff" + socket.inet_aton(address[0])
            else:
                packed = socket.inet_pton(socket.AF_INET6, address[0].partition("%")[0])
            self.clients[n * 16 : n * 16 + 16] = packed
            peer = self._peers[n] = (address, list(ancillary))
            name, control = _packed(*peer)
            self.names[n * _NAME : n * _NAME + len(name)] = name
            self.name_lengths[n] = len(name)
            self.controls[n * _CONTROL : n * _CONTROL + len(control)] = control
            self.control_lengths[n] = len(control)
            n += 1
        return n

    def send(self, fd: int, n: int) -> int:
        """Send the answers of the first `n` datagrams that have one."""
        k = 0
        for i in range(n):
            if self.out_lengths[i] > 0:
                k += 1
                wire = self.out[i * OUT_STRIDE : i * OUT_STRIDE + self.out_lengths[i]]
                self.reply(fd, *self._peers[i], wire)
        return k

    def peer(self, i: int) -> tuple[object, list[tuple[int, int, bytes]]]:
        """What `reply` needs later."""
        return self._peers[i]

    def reply(self, fd: int, name: object, control: list[tuple[int, int, bytes]], wire: bytes | memoryview) -> bool:
        """Send one answer; returns whether it left."""
        plain = [_plain(item) for item in control]
        # No route leads back: some DHCP clients add an address first and its route some milliseconds later. The question
        # came through an interface, so the client is there.
        for attempt in (plain, control):
            try:
                self._socket(fd).sendmsg([wire], attempt, socket.MSG_DONTWAIT, name)  # type: ignore[arg-type]
                return True
            except OSError as error:
                if error.errno != errno.ENETUNREACH or plain == control:
                    break
        self.errors += 1
        return False

    def bind(self, names: Any, name_lengths: Any, controls: Any, control_lengths: Any, fds: Any) -> None:
        """Say where the addresses and control messages of clients stand that are answered later, by their numbers."""
        self._parked = (names, name_lengths, controls, control_lengths, fds)

    def parked_peer(self, j: int) -> tuple[object, list[tuple[int, int, bytes]]]:
        """A parked client, as `reply` needs it."""
        names, name_lengths, controls, control_lengths, _ = self._parked
        name = bytes(names[j * _NAME : j * _NAME + name_lengths[j]])
        return _unpacked(name, bytes(controls[j * _CONTROL : j * _CONTROL + control_lengths[j]]))

    def send_parked(self, n: int) -> int:
        """Send the first `n` answers to the parked clients of the numbers in `parked`; returns how many left."""
        sent = 0
        for k in range(n):
            j = self.parked[k]
            wire = self.out[k * OUT_STRIDE : k * OUT_STRIDE + self.out_lengths[k]]
            sent += self.reply(self._parked[4][j], *self.parked_peer(j), wire)
        return sent


class PythonLines:
    """Connected sockets to upstream servers: see `_batch.Lines`."""

    def __init__(self) -> None:
        self.size, self.in_stride, self.out_stride = LINES, LINE_IN, LINE_OUT
        self.inp = memoryview(bytearray(SIZE * LINE_IN))
        self.out = memoryview(bytearray(SIZE * LINE_OUT))
        self.lengths = memoryview(bytearray(SIZE * 4)).cast("i")
        self.lines = memoryview(bytearray(SIZE * 4)).cast("i")
        self.out_lengths = memoryview(bytearray(SIZE * 4)).cast("i")
        self.out_lines = memoryview(bytearray(SIZE * 4)).cast("i")
        self.out_errors = memoryview(bytearray(SIZE * 4)).cast("i")
        self.failed = 0
        self._sockets: dict[int, socket.socket] = {}
        self._lines: dict[int, int] = {}
        self._epoll = select.epoll()
        self.epoll_fd = self._epoll.fileno()

    def open(self, line: int, fd: int) -> None:
        """Take over a connected socket's descriptor."""
        self._sockets[line] = socket.socket(fileno=fd)
        self._lines[fd] = line
        self._epoll.register(fd, select.EPOLLIN)

    def dial(self, line: int, host: str, port: int) -> None:
        """A new socket on a random port, connected to a server; raises OSError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect((host, port))
        except OSError:
            sock.close()
            raise
        self.open(line, sock.detach())

    def close(self, line: int) -> None:
        """Close a socket; its number may be used again."""
        sock = self._sockets.pop(line, None)
        if sock is not None:
            self._lines.pop(sock.fileno())
            self._epoll.unregister(sock.fileno())
            sock.close()

    def end(self) -> None:
        """Close everything."""
        for line in list(self._sockets):
            self.close(line)
        self._epoll.close()

    def send(self, n: int) -> None:
        """Send the first `n` questions."""
        self.failed = 0
        for k in range(n):
            sock = self._sockets[self.out_lines[k]]
            self.out_errors[k] = 0
            wire = self.out[k * LINE_OUT : k * LINE_OUT + self.out_lengths[k]]
            for attempt in (1, 2):
                try:
                    sock.send(wire, socket.MSG_DONTWAIT)
                    break
                except BlockingIOError:
                    break
                except OSError as error:
                    # An ICMP error of an earlier question is reported by the next call; this one was not sent yet.
                    again = attempt == 1 and error.errno == errno.ECONNREFUSED
                    self.failed += 1 if attempt == 1 else 0
                    self.out_errors[k] = -1 if again else error.errno or errno.EIO
                    if not again:
                        break

    def receive(self) -> int:
        """Read up to 64 datagrams from whichever sockets have some; fewer means that there are no more."""
        n = 0
        for fd, _ in self._epoll.poll(0, SIZE):
            line = self._lines[fd]
            while n < SIZE:
                try:
                    wire = self._sockets[line].recv(LINE_IN + 1, socket.MSG_DONTWAIT)
                except (BlockingIOError, InterruptedError):
                    break
                except OSError:
                    self.lengths[n] = -1
                    self.lines[n] = line
                    n += 1
                    continue
                kept = wire[:LINE_IN]
                self.inp[n * LINE_IN : n * LINE_IN + len(kept)] = kept
                self.lengths[n] = len(wire)
                self.lines[n] = line
                n += 1
        return n


class PythonPoll:
    """What is ready on an epoll descriptor: see `_batch.Poll`."""

    def __init__(self, epoll: int) -> None:
        self._epoll = select.epoll.fromfd(os.dup(epoll))
        self.fds = memoryview(bytearray(SIZE * 4)).cast("i")
        self.events = memoryview(bytearray(SIZE * 4)).cast("i")
        self.kinds = memoryview(bytearray(SIZE * 4)).cast("i")
        self.times = memoryview(bytearray(16)).cast("Q")
        self._kind: dict[int, int] = {}

    def mark(self, fd: int, kind: int) -> None:
        """Say what kind a descriptor is."""
        self._kind[fd] = kind

    def wait(self, ms: int) -> int:
        """Wait for at most `ms` milliseconds (-1: for ever); returns how many descriptors are ready."""
        try:
            found = self._epoll.poll(None if ms < 0 else ms / 1000, SIZE)
        except InterruptedError:
            found = []
        for i, (fd, events) in enumerate(found):
            self.fds[i], self.events[i], self.kinds[i] = fd, events, self._kind.get(fd, 0)
        self.now()
        return len(found)

    def now(self) -> None:
        """Read the clocks."""
        self.times[0] = time.monotonic_ns() // 1_000_000
        self.times[1] = time.time_ns() // 1_000_000


def _packed(name: tuple[Any, ...], control: list[tuple[int, int, bytes]]) -> tuple[bytes, bytes]:
    """A client's address and control messages in 28 and 64 octets."""
    packed = b"".join(struct.pack("=iiB", level, kind, len(data)) + data for level, kind, data in control)
    if len(name) == 2:
        return struct.pack("=BH", 4, name[1]) + socket.inet_aton(name[0]), packed
    host = socket.inet_pton(socket.AF_INET6, name[0].partition("%")[0])
    return struct.pack("=BHII", 6, *name[1:4]) + host, packed


def _unpacked(name: bytes, control: bytes) -> tuple[object, list[tuple[int, int, bytes]]]:
    items = []
    while control:
        level, kind, length = struct.unpack_from("=iiB", control)
        items.append((level, kind, control[9 : 9 + length]))
        control = control[9 + length :]
    if name[0] == 4:
        return (socket.inet_ntoa(name[3:7]), struct.unpack_from("=H", name, 1)[0]), items
    port, flow, scope = struct.unpack_from("=HII", name, 1)
    return (socket.inet_ntop(socket.AF_INET6, name[11:27]), port, flow, scope), items


def _plain(item: tuple[int, int, bytes]) -> tuple[int, int, bytes]:
    """A packet info without its interface: answer from the address that was asked."""
    level, kind, data = item
    if level == socket.IPPROTO_IP and kind == _PKTINFO4 and len(data) >= 12:
        return level, kind, struct.pack("=I", 0) + data[8:12] + data[8:12]
    if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO and data[:2] != b"\xfe\x80":
        return level, kind, data[:16] + struct.pack("=I", 0)
    return item


def _load(words: memoryview, index: int) -> int:
    """A shared u64 (one aligned store by one writer; no order promised beyond the interpreter's)."""
    return int(words[index])


def _store(words: memoryview, index: int, value: int) -> None:
    """Write a shared u64."""
    words[index] = value


try:
    if os.environ.get("NEXORALDNS_INTERPRETED") == "1":
        raise ImportError("interpreted on request")
    from dnsd.serve._batch import Batch, Lines, Poll, load, store

    COMPILED = True
except ImportError:
    Batch, Lines, Poll = PythonBatch, PythonLines, PythonPoll
    load, store = _load, _store
    COMPILED = False

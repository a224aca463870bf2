"""Datagrams in batches: the compiled `_batch` where it exists, the same in Python elsewhere.

The Python class reads and sends one datagram a system call; everything else is equal, so callers
do not know which one they have (`COMPILED` says it to people).
"""

from __future__ import annotations

import os
import socket
import struct

SIZE = 64
IN_STRIDE = 2112
OUT_STRIDE = 1344

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
            self._peers[n] = (address, [_plain(item) for item in ancillary])
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
        try:
            self._socket(fd).sendmsg([wire], control, socket.MSG_DONTWAIT, name)  # type: ignore[arg-type]
        except OSError:
            self.errors += 1
            return False
        return True


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
    from dnsd.serve._batch import Batch as Batch
    from dnsd.serve._batch import load as load
    from dnsd.serve._batch import store as store

    COMPILED = True
except ImportError:
    Batch, load, store = PythonBatch, _load, _store  # type: ignore[misc,assignment]
    COMPILED = False

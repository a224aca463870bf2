"""Which socket a question to an upstream server leaves through: pools on random ports, drawn at random, soon retired.

Compiled by Cython with the types in `lanes.pxd`. Per server 128 places; the socket of a place is made
when it is first drawn (the kernel gives it a random port) and retired after 60 s or 1,000 questions:
a forger has to guess port and id (RFC 5452). Up to sixteen questions of one batch leave through what
was drawn for the first of them, in one system call: for each of them the port is as random as before. A
retired socket stays open until nobody waits for it. A question of recursion has a socket of its own
(`dial`), which is closed with its answer.
What is received on a socket and answers nothing that was asked is counted: a socket that gets too
much of it is under attack.
"""

import collections
import os
import socket
from typing import Any

import cython

POOLS = 16
PLACES = 128
RETIRE_MS = 60_000
RETIRE_QUERIES = 1000
STRANGE = 32  # more datagrams that answer nothing than this, late ones put aside: somebody guesses
_RANDOM = 4096
_RESERVE = 128  # numbers; more than datagrams are received at once


class Lanes:
    """The sockets of one worker, by number; `lines` sends and receives (`batch.Lines`)."""

    def __init__(self, lines: Any) -> None:
        self.lines = lines
        size = lines.size
        self.servers: list[Any] = [None] * POOLS  # address and port of each pool in use
        self.size = size
        self.place = memoryview(bytearray(4 * POOLS * PLACES)).cast("i")
        self.owner = memoryview(bytearray(4 * size)).cast("i")
        self.born = memoryview(bytearray(8 * size)).cast("Q")
        self.asked = memoryview(bytearray(4 * size)).cast("i")
        self.waiting = memoryview(bytearray(4 * size)).cast("i")
        self.strange = memoryview(bytearray(4 * size)).cast("i")
        self.pool_waiting = memoryview(bytearray(4 * POOLS)).cast("i")
        self.suspect = memoryview(bytearray(4 * POOLS)).cast("i")
        self.plain = memoryview(bytearray(4 * POOLS)).cast("i")
        self.rtt = memoryview(bytearray(4 * POOLS)).cast("i")
        self.hand = 0
        self.moved = 0
        self.free = collections.deque(range(size))  # who is free longest is taken first
        self.random = memoryview(b"\x00")
        self.random_at = 0
        self.random_size = 0
        for i in range(POOLS * PLACES):
            self.place[i] = -1

    def chance(self) -> cython.int:
        """Sixteen unpredictable bits (the kernel's generator, fetched in bulk)."""
        at: cython.int = self.random_at

        if at + 2 > self.random_size:
            self.random = memoryview(os.urandom(_RANDOM))
            self.random_size = 4096
            at = 0
        self.random_at = at + 2
        return (self.random[at] << 8) | self.random[at + 1]

    def pool(self, server: tuple[str, int]) -> int:
        """The number of a server's pool; -1 when every pool is taken and in use.

        `moved` counts how often a pool was taken from another server: who remembers numbers has to ask again.
        """
        if server in self.servers:
            return self.servers.index(server)
        for _ in range(POOLS):
            number = self.hand
            self.hand = (number + 1) % POOLS
            if self.servers[number] is None or not self.pool_waiting[number]:
                if self.servers[number] is not None:
                    self.empty(number)
                    self.moved += 1
                self.servers[number] = server
                self.suspect[number] = 0
                self.rtt[number] = 0
                return number
        return -1

    def empty(self, pool: int) -> None:
        """Let go of a pool's sockets."""
        for at in range(pool * PLACES, (pool + 1) * PLACES):
            if self.place[at] >= 0:
                self.retire(self.place[at])

    def measured(self, pool: cython.int, took_ms: cython.ulonglong) -> cython.int:
        """A server has answered: its round-trip time, smoothed, in 64ths of a millisecond (never 0: that is unknown)."""
        sample: cython.int = 1 + 64 * (cython.cast(cython.int, took_ms) if took_ms < 10000 else 10000)

        if self.rtt[pool] == 0:
            self.rtt[pool] = sample
        else:
            self.rtt[pool] += (sample - self.rtt[pool]) // 8
        return 0

    def rtts(self) -> list[tuple[object, float]]:
        """Each server that has answered here, and its smoothed round-trip time in milliseconds."""
        pairs = zip(self.servers, self.rtt, strict=True)
        return [(server, rtt / 64) for server, rtt in pairs if server is not None and rtt]

    def draw(self, pool: cython.int, now_ms: cython.ulonglong) -> cython.int:
        """A random socket of a pool, with one more question on its way; -1 when there is none to be had."""
        at: cython.int = pool * 128 + (self.chance() & 127)
        slot: cython.int = self.place[at]

        if slot >= 0 and now_ms - self.born[slot] >= 60000:
            self.retire(slot)
            slot = -1
        if slot < 0:
            slot = self.open(pool, at, now_ms)
            if slot < 0:
                return -1
        self.asked[slot] += 1
        self.waiting[slot] += 1
        self.pool_waiting[pool] += 1
        if self.asked[slot] >= 1000:
            self.retire(slot)
        return slot

    def again(self, pool: cython.int, slot: cython.int) -> cython.int:
        """One more question through a socket that was drawn a moment ago; -1 when it has been retired."""
        if self.owner[slot] < 0 or self.place[self.owner[slot]] != slot or self.owner[slot] >> 7 != pool:
            return -1
        self.asked[slot] += 1
        self.waiting[slot] += 1
        self.pool_waiting[pool] += 1
        if self.asked[slot] >= 1000:
            self.retire(slot)
        return slot

    def open(self, pool: int, at: int, now_ms: int) -> int:
        """A new socket for a place; another of the pool when the system gives none (share rather than fail)."""
        server = self.servers[pool]
        slot = self.free.popleft() if self.free else -1
        sock = None
        try:
            if slot < 0:
                raise OSError("every number is taken")
            family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            sock.connect(server)
            self.lines.open(slot, sock.fileno())
        except OSError:
            if sock is not None:
                sock.close()
            if slot >= 0:
                self.free.append(slot)
            shared = (self.place[i] for i in range(pool * PLACES, (pool + 1) * PLACES))
            return next((slot for slot in shared if slot >= 0), -1)
        sock.detach()
        self.owner[slot] = at
        self.place[at] = slot
        self.born[slot] = now_ms
        self.asked[slot] = 0
        self.waiting[slot] = 0
        self.strange[slot] = 0
        return slot

    def dial(self, host: str, port: cython.int) -> cython.int:
        """A socket for one question only, in no pool: `settle` closes it; -1 when there is none to be had.

        A number comes back only after many others: what was received for the socket that had it is done with by then.
        """
        slot: cython.int

        if len(self.free) <= _RESERVE:
            return -1
        slot = self.free.popleft()
        try:
            self.lines.dial(slot, host, port)
        except OSError:
            self.free.append(slot)
            return -1
        self.owner[slot] = -1
        self.waiting[slot] = 1
        self.strange[slot] = 0
        return slot

    def retire(self, slot: int) -> None:
        """Draw this socket no more; it is closed when nobody waits for it."""
        at = self.owner[slot]
        if at < 0 or self.place[at] != slot:
            return
        self.place[at] = -1
        if self.waiting[slot] == 0:
            self.close(slot)

    def settle(self, slot: cython.int, late: cython.int) -> cython.int:
        """One question fewer waits on a socket; `late`: its answer may still come and is then no attack."""
        self.waiting[slot] -= 1
        if self.owner[slot] < 0:
            self.close(slot)
            return 0
        self.pool_waiting[self.owner[slot] >> 7] -= 1
        self.strange[slot] -= late
        if self.waiting[slot] == 0 and self.place[self.owner[slot]] != slot:
            self.close(slot)
        return 0

    def close(self, slot: cython.int) -> cython.int:
        """Give a socket and its number back."""
        self.lines.close(slot)
        self.free.append(slot)
        return 0

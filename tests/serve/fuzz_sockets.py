"""Hostile upstream servers on real sockets, made up by chance, before a real node: the compiled flight path and its TCP.

    python -m tests.serve.fuzz_sockets [--minutes 5] [--seed N]

Two upstream servers of one forward entry answer questions with what `tests.resolve.fuzz` makes up, and with what only
sockets can do: wrong ids, two answers, none, late ones; over TCP short and long length prefixes, two messages, a dribble of
octets, a reset midway. Invariants: every question is answered within its time with a message that belongs to it; the names
of an own zone keep their answers; no worker dies or is replaced; nothing is left open.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import random
import selectors
import socket
import struct
import sys
import tempfile
import threading
import time

import dns.message
import dns.rcode

from controller.check import check_snapshot
from controller.compiler import compile_table
from controller.ruleset import Revision, Snapshot
from dnsd.resolve.forwarder import Ask
from tests.resolve.fuzz import hostile, mutated
from tests.serve.nameserver import respond
from tests.serve.node import Node

_RULES = """\
version: 1
zones:
  office.test: {{records: {{printer: 10.0.0.1}}}}
forward:
  ".": {{upstreams: ["127.0.0.1:{0}", "127.0.0.1:{1}"], timeout: 300ms}}
"""
_PATIENCE_S = 5.5  # a question's budget, and the way
_ASKERS = 16
_TYPES = ["A", "AAAA", "TXT", "MX", "SOA", "NS"]


class Hostile:
    """One server on UDP and TCP, in a thread; what it does is drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", 0))
        self.port: int = self._udp.getsockname()[1]
        self._tcp = socket.socket()
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._tcp.bind(("127.0.0.1", self.port))
        self._tcp.listen(64)
        self._wake, self._woken = socket.socketpair()
        self.questions = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for sock in (self._udp, self._tcp, self._woken):
                selector.register(sock, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    with contextlib.suppress(OSError, struct.error):
                        if key.fileobj is self._woken:
                            return
                        if key.fileobj is self._udp:
                            wire, client = self._udp.recvfrom(65535)
                            self.questions += 1
                            for said in self._datagrams(wire):
                                self._udp.sendto(said, client)
                        else:
                            self._stream(self._tcp.accept()[0])

    def _answer(self, wire: bytes) -> bytes:
        chance = self._chance
        kind = chance.randrange(4)
        if kind == 0:
            return respond(wire, rcode=chance.choice((0, 2, 3, 5)), soa=bool(chance.randrange(2)))
        said = hostile(Ask(("127.0.0.1", self.port), wire, "udp", 300), chance)
        return said if kind < 3 else mutated(said, chance)

    def _datagrams(self, wire: bytes) -> list[bytes]:
        """What is sent to one question over UDP."""
        chance = self._chance
        kind = chance.randrange(8)
        said = self._answer(wire)
        if kind == 0:
            return []
        if kind == 1:
            return [respond(wire, tc=True)]  # over to TCP
        if kind == 2:
            return [struct.pack("!H", chance.randrange(65536)) + said[2:], said]
        if kind == 3:
            return [said, self._answer(wire), said]
        if kind == 4:
            return [chance.randbytes(chance.randrange(60)), b"", said]
        return [said]

    def _stream(self, connection: socket.socket) -> None:
        """What becomes of one connection."""
        chance = self._chance
        with connection:
            connection.settimeout(0.5)
            kind = chance.randrange(9)
            if kind == 0:
                return
            length = struct.unpack("!H", connection.recv(2, socket.MSG_WAITALL))[0]
            wire = connection.recv(length, socket.MSG_WAITALL)
            self.questions += 1
            said = self._answer(wire)[:65535]
            framed = struct.pack("!H", len(said)) + said
            if kind == 1:
                framed = struct.pack("!H", max(0, len(said) - chance.randrange(1, 30))) + said
            elif kind == 2:
                framed = struct.pack("!H", min(65535, len(said) + chance.randrange(1, 300))) + said
            elif kind == 3:
                framed += framed
            elif kind == 4:
                framed = framed[: chance.randrange(len(framed))]
            elif kind == 5:
                for at in range(min(40, len(framed))):
                    connection.send(framed[at : at + 1])
                framed = framed[40:]
            elif kind == 6:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                framed = framed[: len(framed) // 2]
            elif kind == 7:
                framed = bytes(2) + framed
            connection.sendall(framed)

    def close(self) -> None:
        """End the thread."""
        self._wake.send(b"x")
        self._thread.join()
        for sock in (self._udp, self._tcp, self._wake, self._woken):
            sock.close()


def _open_files(pids: list[int]) -> int:
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


def _round(node: Node, chance: random.Random, number: int) -> None:
    """Some questions at once, and one about an own name; AssertionError when one is not answered as it should be."""
    asked: dict[socket.socket, tuple[dns.message.Message, float]] = {}
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        for i in range(_ASKERS):
            name = "printer.office.test" if i == 0 else f"n{number}-{chance.randrange(8)}.evil"
            query = dns.message.make_query(name, "A" if i == 0 else chance.choice(_TYPES), use_edns=i % 3 - 1)
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.connect(("127.0.0.1", node.port))
            sock.send(query.to_wire())
            asked[sock] = query, time.monotonic()
            selector.register(sock, selectors.EVENT_READ)
        while asked:
            ready = selector.select(_PATIENCE_S)
            assert ready, f"no answer to {next(iter(asked.values()))[0].question[0]}"
            for key, _ in ready:
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                query, _ = asked.pop(sock)
                selector.unregister(sock)
                wire = sock.recv(65535)
                assert wire[:2] == query.to_wire()[:2] and wire[2] & 0x80, "another answer"
                # What an upstream server says within a record's data is its own business; the frame is ours.
                assert wire[4:6] == b"\0\1" and dns.message.from_wire(
                    wire[:4] + wire[4:6] + bytes(6) + wire[12 : 12 + _question_length(wire)]
                ).question == query.question, "another question"
                if query.question[0].name.to_text() == "printer.office.test.":
                    assert str(dns.message.from_wire(wire).answer[0][0]) == "10.0.0.1"


def _question_length(wire: bytes) -> int:
    end = 12
    while wire[end]:
        end += 1 + wire[end]
    return end + 5 - 12


def run(seconds: float, seed: int, folder: pathlib.Path) -> int:
    """Play for so long; how many questions were asked. AssertionError says what broke, by which seed."""
    servers = [Hostile(seed), Hostile(seed + 1)]
    text = _RULES.format(*(server.port for server in servers))
    found = check_snapshot(Snapshot(Revision("r", "r"), {"r.yaml": text.encode()}, lambda path, base: b""))
    assert found.ruleset is not None, found.diagnostics
    node = Node(folder, workers=1)
    chance = random.Random(seed)
    rounds = 0
    try:
        node.publish(blobs=compile_table(found.ruleset))
        node.start()
        pids = node.pids("worker")
        _round(node, chance, 0)
        before = _open_files(pids)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            rounds += 1
            _round(node, chance, rounds)
        assert node.pids("worker") == pids, "a worker was replaced"
        log = node.log()
        assert "Traceback" not in log and "stuck" not in log
        # Each server has a pool of 128 sockets on the compiled path and one for retries; what is beyond is a leak.
        left = _open_files(pids) - before
        assert left <= 4 * 128 + 64, f"{left} files are left open"
    except AssertionError as error:
        raise AssertionError(f"seed {seed}, round {rounds}: {error}\n{node.log()[-4000:]}") from error
    finally:
        node.close()
        for server in servers:
            server.close()
    return rounds * _ASKERS


def main() -> int:
    """The command line."""
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("--minutes", type=float, default=1.0)
    words.add_argument("--seed", type=int, default=None)
    given = words.parse_args()
    seed = random.SystemRandom().randrange(1 << 40) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        print(f"{run(given.minutes * 60, seed, pathlib.Path(folder))} questions: nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())

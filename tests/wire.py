"""Two machines on a virtual wire: network namespaces, and a client that never stops asking.

Each namespace lives as long as the process that holds it; nothing of the host's network is touched.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pathlib
import selectors
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import dns.message

from dnsd.serve.netlink import F_TENTATIVE, SCOPE_GLOBAL, Kernel
from tests.lan import Lan, Process, until

PORT = 5353
_CLONE_NEWNET = 0x40000000


class Machine:
    """A network namespace, held by a process."""

    def __init__(self, folder: pathlib.Path, name: str, *more: str) -> None:
        """`more`: what else it has of its own, as unshare(1) calls it."""
        self.holder = Process(f"{name}-holder", ["unshare", "--net", *more, "sleep", "infinity"], folder)
        self.there = f"/proc/{self.holder.pid}/ns/net"
        here = os.readlink("/proc/self/ns/net")
        until(lambda: os.readlink(self.there) != here, 5, "a network namespace")
        self._batch = subprocess.Popen(
            self.words("ip", "-force", "-batch", "-"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        self.run("ip", "link", "set", "lo", "up")

    def words(self, *words: str) -> list[str]:
        """A command's words, as it is run in this machine."""
        return ["nsenter", f"--net={self.there}", *words]

    def run(self, *words: str) -> str:
        ran = subprocess.run(self.words(*words), capture_output=True, text=True, check=False, timeout=30)
        assert ran.returncode == 0, f"{words}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def ip(self, line: str) -> None:
        """An `ip` command, without the milliseconds that starting a program takes. It has happened soon after."""
        assert self._batch.stdin is not None
        self._batch.stdin.write(line + "\n")
        self._batch.stdin.flush()

    def enter(self) -> None:
        """Make this machine's network that of the calling thread."""
        with open(self.there) as there:
            assert ctypes.CDLL(None, use_errno=True).setns(there.fileno(), _CLONE_NEWNET) == 0

    def inside(self, function: Callable[[], Any]) -> Any:
        """Call a function in a thread that has entered this machine's network."""
        result: list[Any] = []

        def enter() -> None:
            self.enter()
            result.append(function())

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join(20)
        return result[0] if result else None

    def mac(self, device: str) -> str:
        """A device's hardware address."""
        link: str = json.loads(self.run("ip", "-j", "link", "show", "dev", device))[0]["address"]
        return link

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._batch.communicate(timeout=5)
        self.holder.popen.kill()
        self.holder.popen.wait()


class Wire:
    """`server` with `d0` (10.99.0.1) and `client` with `d1` (10.99.0.2), joined."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.server, self.client = Machine(folder, "server"), Machine(folder, "client")
        self.server.run("sysctl", "-qw", "net.ipv4.conf.all.promote_secondaries=1")
        self.join()

    def join(self) -> None:
        """Make the veth pair; also anew, after `ip link del d0`."""
        self.server.run("ip", "link", "add", "d0", "type", "veth", "peer", "name", "d1", "netns",
                        str(self.client.holder.pid))  # fmt: skip
        self.client.run("ip", "addr", "add", "10.99.0.2/16", "dev", "d1")
        self.client.run("ip", "-6", "addr", "add", "fd99::2/64", "dev", "d1", "nodad")
        self.client.run("ip", "link", "set", "d1", "up")
        self.server.run("ip", "addr", "add", "10.99.0.1/16", "dev", "d0")
        self.server.run("ip", "link", "set", "d0", "up")

    def close(self) -> None:
        self.server.close()
        self.client.close()


class NodeThere(Lan):
    """A controller and a dnsd in a machine's network."""

    def __init__(self, machine: Machine, folder: pathlib.Path, settings: Mapping[str, Any], rules: str) -> None:
        self.machine = machine
        super().__init__(folder, settings, {"office.yaml": rules}, git=False)

    def start(self, name: str, *words: str) -> Process:
        command = [sys.executable, "-m", "controller.cli", *(words or (name, "--config", str(self.config)))]
        process = Process(name, self.machine.words(*command), self.folder)
        self.processes.append(process)
        return process

    def get(self, path: str) -> tuple[int, bytes]:
        return self.machine.inside(lambda: super(NodeThere, self).get(path)) or (0, b"")

    def pids(self) -> set[int]:
        return {worker["pid"] for worker in self.workers()}


def _taken(address: str) -> bool:
    """Whether the kernel takes packets for an address. It tells of a new one a moment before that, and on a busy machine
    a millisecond may lie between the two."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            return False
    return True


class Ends(Protocol):
    """Who is asked, and who asks."""

    @property
    def server(self) -> Machine: ...
    @property
    def client(self) -> Machine: ...


class Load:
    """Asks every address that the server's `device` has, from the kernel's word that it has it until the next.

    The client knows the server's hardware address beforehand: this is about the server, not about ARP.
    """

    SOCKETS = 6

    def __init__(
        self, wire: Ends, port: int = PORT, device: str = "d0", name: str = "printer.office.example",
        pause_s: float = 0.002,
    ) -> None:  # fmt: skip
        self._wire = wire
        self._pause_s = pause_s
        self._port = port
        self._device = device
        self._wire_format = dns.message.make_query(name, "A").to_wire()
        self._kernel: Kernel = wire.server.inside(Kernel)
        self._stop = threading.Event()
        self._socks: list[socket.socket] = []
        self.sent: dict[int, tuple[str, float]] = {}
        self.answered: set[int] = set()
        self.added: dict[str, list[float]] = {}
        self.removed: dict[str, list[float]] = {}
        self.wrong_source = 0
        self._thread = threading.Thread(target=lambda: wire.client.inside(self._open))
        self._thread.start()
        self._thread.join()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _open(self) -> bool:
        for family in (socket.AF_INET, socket.AF_INET6):
            for _ in range(self.SOCKETS):
                sock = socket.socket(family, socket.SOCK_DGRAM)
                sock.setblocking(False)
                self._socks.append(sock)
        return True

    def _ask(self) -> None:
        self._wire.server.enter()
        selector = selectors.DefaultSelector()
        for sock in self._socks:
            selector.register(sock, selectors.EVENT_READ)
        selector.register(self._kernel.fileno(), selectors.EVENT_READ)
        active: set[str] = set()
        number = 0
        due = 0.0
        while not self._stop.is_set():
            for key, _ in selector.select(max(0.0, due - time.monotonic())):
                if key.fd != self._kernel.fileno():
                    self._receive(key.fileobj)  # type: ignore[arg-type]
            now = time.monotonic()
            self._kernel.read()
            rows = self._kernel.addresses(self._device)
            told = {row.text for row in rows if not row.flags & F_TENTATIVE and row.scope == SCOPE_GLOBAL}
            there = {address for address in told if address in active or _taken(address)}
            for address in there - active:
                self.added.setdefault(address, []).append(now)
            for address in active - there:
                self.removed.setdefault(address, []).append(now)
            if there - active:
                due = now  # from the first moment
            active = there
            if now < due:
                continue
            due = now + self._pause_s
            for address in sorted(active):
                number += 1
                six = self.SOCKETS if ":" in address else 0
                data = (number & 0xFFFF).to_bytes(2, "big") + self._wire_format[2:]
                self.sent[number] = address, time.monotonic()
                with contextlib.suppress(OSError):
                    self._socks[six + number % self.SOCKETS].sendto(data, (address, self._port))
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            for key, _ in selector.select(0.05):
                if key.fd != self._kernel.fileno():
                    self._receive(key.fileobj)  # type: ignore[arg-type]
        selector.close()

    def _receive(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, peer = sock.recvfrom(4096)
                number = int.from_bytes(data[:2], "big")
                if number in self.sent and self.sent[number][0] == peer[0]:
                    self.answered.add(number)
                else:
                    self.wrong_source += 1

    def end(self) -> None:
        """Stop asking; what is under way is waited for."""
        self._stop.set()
        self._thread.join()
        self._kernel.close()
        for sock in self._socks:
            sock.close()

    def lost(
        self, after_s: float, before_s: float = 0.03, apart: Sequence[tuple[float, float]] = ()
    ) -> list[tuple[str, float]]:
        """Unanswered questions that were sent `after_s` after their address came or later, `before_s` before it went.

        With the address, and how long after it came (seconds). `apart` are times at which there was no link.
        """
        out = []
        for number, (address, at) in self.sent.items():
            if number in self.answered or any(begin <= at <= end for begin, end in apart):
                continue
            came = max((t for t in self.added.get(address, ()) if t <= at), default=0.0)
            goes = min((t for t in self.removed.get(address, ()) if t >= came), default=at + 3600)
            if at >= came + after_s and at <= goes - before_s:
                out.append((address, at - came))
        return out

    def until_answered(self, address: str) -> float:
        """How long after the address came the first question was sent that got its answer (seconds)."""
        came = self.added[address][0]
        return min((at - came for n, (a, at) in self.sent.items() if a == address and n in self.answered), default=99.0)


def ask_tcp(sock: socket.socket) -> str:
    """A question over an open connection; the address in the answer."""
    wire = dns.message.make_query("printer.office.example", "A").to_wire()
    sock.sendall(struct.pack("!H", len(wire)) + wire)
    (length,) = struct.unpack("!H", sock.recv(2, socket.MSG_WAITALL))
    return str(dns.message.from_wire(sock.recv(length, socket.MSG_WAITALL)).answer[0][0])

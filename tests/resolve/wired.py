"""The scenarios of `world` over real sockets: a real node, and scripted servers at their own addresses, port 53.

    unshare -n python -m tests.resolve.wired [--part 1/4] [WORDS OF A TITLE]

It takes every address of the network namespace that it runs in, so that must be one of its own. Each scenario has a new
node (supervisor, agent and a worker with their sockets; its table is on disk, nobody else is needed), forked from this
process, which has imported everything. Questions go over UDP and TCP in turn. When a scenario waits, libfaketime moves
all clocks of the node. Left to `world`: the wall clock alone set back, and special names that the settings cannot say.
Prints a JSON object: what failed, by title; how many were played.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401
import contextlib
import dataclasses
import functools
import glob
import hashlib
import heapq
import json
import os
import pathlib
import re
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

import dns.message
import dns.query
import dns.rcode

import dnsd.__main__ as program
import dnsd.serve.agent
import dnsd.serve.rounds
import dnsd.serve.supervisor  # noqa: F401  all that `run` imports: each node is forked from here
from controller.check import check_snapshot
from controller.compiler import Blobs, compile_table
from controller.ruleset import Revision, Snapshot
from dnsd.contract import codes, frames
from dnsd.contract.settings import Settings, load
from dnsd.resolve.forwarder import TCP, UDP, Ask, Outcome
from dnsd.resolve.steps import Step
from dnsd.serve.store import Saved, TableStore
from tests.resolve import world as worlds

_NODE = ("127.0.0.1", 5353)
_RULES = 'version: 1\nforward: {".": recurse}\nzones:\n  ready.example: {records: {"@": 10.0.0.5}}\n'
_ADDRESS = re.compile(r"\b\d+\.\d+\.\d+\.\d+\b|\b[0-9a-f]+:[0-9a-f:]*:[0-9a-f]*\b")
_PATIENCE_S = 8.0
_IPV6_FREEBIND = 78  # linux/in6.h; Python has no name for it
LEFT = ("back", "special=")  # what is played without sockets only


def played(scenario: worlds.Scenario) -> bool:
    """Whether it can be played here."""
    return not any(word.startswith(LEFT) for line in scenario.lines for word in line.words)


def faketime() -> str:
    """libfaketime's path; AssertionError when it is not installed."""
    found = sorted(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1"))
    assert found, "libfaketime is not here: apt-get install libfaketime"
    return found[0]


def command(*words: str) -> list[str]:
    """How to run this module in a network namespace of its own."""
    alone = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    return [*alone, sys.executable, "-m", "tests.resolve.wired", *words]


@functools.cache
def _table() -> Blobs:
    result = check_snapshot(Snapshot(Revision("r", "r"), {"r.yaml": _RULES.encode()}, lambda path, base: b""))
    assert result.ruleset is not None, result.diagnostics
    return compile_table(result.ruleset)


def save(folder: pathlib.Path) -> None:
    """Put a table on disk, as a node's agent does, by which everything is resolved from the root."""
    blobs = _table()
    store = TableStore(str(folder))
    parts = {"names": blobs.names, "policy": blobs.policy}
    rows = [{"name": n, "digest": hashlib.sha256(d).hexdigest(), "size": len(d)} for n, d in parts.items()]
    for row, data in zip(rows, parts.values(), strict=True):
        store.put(str(row["digest"]), data)
    manifest = {"format": "rt/1", "blobs": rows, "table": blobs.digest, "settings": {}}
    store.commit(Saved(1, "e", frames.json_digest(manifest), manifest, {"short": "r"}))


class Servers:
    """The hosts of a world on sockets, in a thread; every question that arrives stands in `world.asks`."""

    def __init__(self, world: worlds.World, addresses: set[str]) -> None:
        self._world = world
        self._addresses = addresses
        self._selector = selectors.DefaultSelector()
        self._bound: dict[tuple[str, str], socket.socket] = {}
        self._late: list[tuple[float, int, socket.socket, bytes, object]] = []
        self._last: dict[str, bytes] = {}
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, ("wake", ""))
        # What is sent to a port where nobody listens is seen by these only.
        kinds = (socket.IPPROTO_UDP, socket.IPPROTO_TCP)
        self._raw = [socket.socket(socket.AF_INET, socket.SOCK_RAW, kind) for kind in kinds]
        for raw, kind in zip(self._raw, (UDP, TCP), strict=True):
            raw.setblocking(False)
            self._selector.register(raw, selectors.EVENT_READ, ("raw", kind))
        self.sync()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def sync(self) -> None:
        """Listen where the hosts do by now."""
        for address in self._addresses | set(self._world.hosts):
            host = self._world.hosts.get(address)
            habits = host.habits if host is not None else set()
            for kind in (UDP, TCP):
                wanted = "unreachable" not in habits and not (kind == TCP and "notcp" in habits)
                held = self._bound.get((address, kind))
                if wanted and held is None:
                    self._bind(address, kind)
                elif not wanted and held is not None:
                    self._selector.unregister(held)
                    self._bound.pop((address, kind)).close()

    def _bind(self, address: str, kind: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM if kind == UDP else socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        try:
            sock.bind((address, 53))
        except OSError:  # no address of a host: 0.0.0.0, a multicast group
            sock.close()
            return
        if kind == TCP:
            sock.listen(16)
        sock.setblocking(False)
        self._bound[address, kind] = sock
        self._selector.register(sock, selectors.EVENT_READ, (kind, address))

    def _run(self) -> None:
        while True:
            wait_s = max(0.0, self._late[0][0] - time.monotonic()) if self._late else None
            for key, _ in self._selector.select(wait_s):
                kind, address = key.data
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if kind == "wake":
                    return
                with contextlib.suppress(OSError):
                    if kind == "raw":
                        self._unheard(sock.recv(65535), address)
                    elif kind == UDP:
                        wire, client = sock.recvfrom(4096)
                        self._answer(sock, address, UDP, wire, client)
                    else:
                        connection, _ = sock.accept()
                        connection.settimeout(2)
                        length = struct.unpack("!H", connection.recv(2, socket.MSG_WAITALL))[0]
                        self._answer(connection, address, TCP, connection.recv(length, socket.MSG_WAITALL), None)
            while self._late and self._late[0][0] <= time.monotonic():
                _, _, sock, wire, client = heapq.heappop(self._late)
                with contextlib.suppress(OSError):
                    self._send(sock, wire, client)

    def _unheard(self, packet: bytes, kind: str) -> None:
        head = (packet[0] & 15) * 4
        address = socket.inet_ntoa(packet[16:20])
        if (address, kind) in self._bound or address not in self._addresses or packet[head + 2 : head + 4] != b"\0\x35":
            return
        if kind == UDP:
            self._last[address] = packet[head + 8 :]
        elif packet[head + 13] != 0x02:  # of a connection only its SYN
            return
        self._world.asks.append(Ask((address, 53), self._last[address], kind, 0))

    def _answer(self, sock: socket.socket, address: str, kind: str, wire: bytes, client: object) -> None:
        ask = Ask((address, 53), wire, kind, 1_000_000)
        self._last[address] = wire
        self._world.asks.append(ask)
        host = self._world.hosts.get(address)
        said = host.answer(ask) if host is not None else None
        if not isinstance(said, bytes):
            if kind == TCP:
                self._late.append((time.monotonic() + 60, len(self._late), sock, b"", client))  # kept open, silent
                heapq.heapify(self._late)
            return
        said = wire[:2] + said[2:]
        delay_ms = host.slow_ms if host is not None and host.slow_ms > 10 else 0
        if delay_ms:
            heapq.heappush(self._late, (time.monotonic() + delay_ms / 1000, len(self._late), sock, said, client))
        else:
            self._send(sock, said, client)

    def _send(self, sock: socket.socket, wire: bytes, client: object) -> None:
        if client is not None:
            sock.sendto(wire, client)  # type: ignore[arg-type]
        elif wire:
            sock.sendall(struct.pack("!H", len(wire)) + wire)
            sock.close()

    def close(self) -> None:
        """End the thread and close all sockets."""
        self._wake.send(b"x")
        self._thread.join()
        self._selector.close()
        for sock in (*self._bound.values(), *self._raw, self._wake, self._woken, *(late[2] for late in self._late)):
            sock.close()


class Wired(worlds.World):
    """A world whose clock is the real one, and whose resolver is a node behind a socket."""

    def __init__(self, folder: pathlib.Path, addresses: set[str]) -> None:
        super().__init__()
        self.slack_s = 2
        self._folder = folder
        self._addresses = addresses
        self._servers: Servers | None = None
        self._pid = 0
        self._asked = 0
        self._passed_s = 0.0
        self._set_clock()

    @property
    def mono_ms(self) -> int:
        """Now, as the node sees it too."""
        return time.monotonic_ns() // 1_000_000

    @mono_ms.setter
    def mono_ms(self, value: int) -> None:
        pass

    def _set_clock(self) -> None:
        path = pathlib.Path(os.environ["FAKETIME_TIMESTAMP_FILE"])
        new = path.with_name(path.name + ".new")
        new.write_text(f"+{self._passed_s:g}s\n")
        new.rename(path)

    def wait(self, seconds: float) -> None:
        """All clocks of the node move."""
        self._passed_s += seconds
        self._set_clock()

    def _settings(self) -> Settings:
        resolver = {
            **self.config, "root_hints": [{"name": "ns.root", "addresses": self.root}], "trust_anchors": [],
            "special_use": False, "prefetch": False, "serve_stale": False,
        }  # fmt: skip
        if "prefer" in self.config:
            resolver["prefer"] = {4: "ipv4", 6: "ipv6"}.get(int(self.config["prefer"]), "any")
        document = {
            "listen": [f"{_NODE[0]}:{_NODE[1]}"], "workers": 1, "state": "state", "resolver": resolver,
            "cache": {"size": "4MiB", "min_ttl": f"{self.min_ttl}s"}, "clients": {"cookies": False},
        }  # fmt: skip
        return load(document, str(self._folder), {})

    def _start(self) -> None:
        settings = self._settings()
        save(self._folder / "state" / "tables")
        self._pid = os.fork()  # before there is a thread
        if not self._pid:
            with open(self._folder / "log", "wb") as log:
                os.dup2(log.fileno(), 2)
                os.dup2(log.fileno(), 1)
            os._exit(program.run(settings))
        ready = dns.message.make_query("ready.example.", "A")
        end = time.monotonic() + 20
        while True:
            try:
                if dns.query.udp(ready, _NODE[0], 0.05, _NODE[1]).answer:
                    break
            except (OSError, dns.exception.DNSException):
                select.select([], [], [], 0.01)
            assert time.monotonic() < end, "the node did not start:\n" + (self._folder / "log").read_text()
        self._servers = Servers(self, self._addresses)

    def ask(self, qname: str, qtype: str, do: bool = False, trace: list[Step] | None = None) -> Outcome:
        """A client's question: over UDP, every second one over TCP."""
        if not self._pid:
            self._start()
        assert self._servers is not None
        self._servers.sync()
        self.asks.clear()
        query = dns.message.make_query(qname, qtype, use_edns=0, payload=1232, want_dnssec=do)
        self._asked += 1
        try:
            if self._asked % 2:
                response, _ = dns.query.udp_with_fallback(query, _NODE[0], _PATIENCE_S, _NODE[1])
            else:
                response = dns.query.tcp(query, _NODE[0], _PATIENCE_S, _NODE[1])
        except dns.exception.Timeout:
            raise AssertionError(f"no answer within {_PATIENCE_S:g} s") from None
        ede, text = codes.EDE_NONE, ""
        for option in response.options:
            if option.otype == 15:
                ede, text = int(option.code), option.text or ""  # type: ignore[attr-defined]
        if response.rcode() == dns.rcode.SERVFAIL:
            return Outcome(None, ede, text)
        return Outcome(response.to_wire(max_size=65535), ede, text)

    def close(self) -> None:
        """End the node and the servers; AssertionError when the node does not end well."""
        if self._servers is not None:
            self._servers.close()
        if self._pid:
            os.kill(self._pid, signal.SIGTERM)
            _, status = os.waitpid(self._pid, 0)
            assert os.waitstatus_to_exitcode(status) == 0, (self._folder / "log").read_text()
            said = (self._folder / "log").read_text()
            assert "Traceback" not in said and "is replaced" not in said, said


@dataclasses.dataclass
class Report:
    """What was played; what failed, by title."""

    played: int = 0
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)


def _play(scenario: worlds.Scenario, report: Report) -> None:
    """Once; and once more when it fails: on a busy machine an answer may come later than it is waited for."""
    for _ in range(2):
        report.failed.pop(scenario.title, None)
        _play_once(scenario, report)
        if scenario.title not in report.failed:
            break
    report.played += 1


def _play_once(scenario: worlds.Scenario, report: Report) -> None:
    text = "\n".join(word for line in scenario.lines for word in (*line.words, *line.below))
    began = time.monotonic_ns()
    with tempfile.TemporaryDirectory() as folder:
        world = Wired(pathlib.Path(folder), {a for a in _ADDRESS.findall(text) if not a.startswith("127.0.0.1")})
        try:
            try:
                worlds.play(scenario, world)
            finally:
                world.close()
        except Exception as error:
            report.failed[scenario.title] = f"{type(error).__name__}: {error}"
    report.seconds[scenario.title] = round((time.monotonic_ns() - began) / 1e9 - world._passed_s, 2)


def chosen(part: int, parts: int, words: str) -> Iterator[worlds.Scenario]:
    """Every so many scenarios that can be played, with these words in their title."""
    able = [scenario for scenario in worlds.scenarios() if played(scenario) and words in scenario.title]
    yield from able[part - 1 :: parts]


def main(arguments: list[str]) -> int:
    """The command line."""
    part, parts = 1, 1
    if arguments[:1] == ["--part"]:
        part, parts = (int(number) for number in arguments[1].split("/"))
        arguments = arguments[2:]
    if "FAKETIME_TIMESTAMP_FILE" not in os.environ:
        with tempfile.TemporaryDirectory() as folder:
            clock = os.path.join(folder, "clock")
            pathlib.Path(clock).write_text("+0s\n")
            environment = {
                **os.environ, "LD_PRELOAD": faketime(), "FAKETIME_TIMESTAMP_FILE": clock, "FAKETIME_NO_CACHE": "1",
            }  # fmt: skip
            again = [sys.executable, "-m", "tests.resolve.wired", *sys.argv[1:]]
            return subprocess.run(again, env=environment, check=False).returncode
    for words in ("link set lo up", "route add local 0.0.0.0/1 dev lo", "route add local 128.0.0.0/1 dev lo",
                  "-6 route add local ::/1 dev lo", "-6 route add local 8000::/1 dev lo",
                  "-6 addr add 2001:db8::ffff/128 dev lo"):  # fmt: skip
        subprocess.run(["ip", *words.split()], check=True)
    report = Report()
    for scenario in chosen(part, parts, " ".join(arguments)):
        _play(scenario, report)
    print(json.dumps(dataclasses.asdict(report)))
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Parts of a node for the agent's tests: real tables, real shared memory, workers that only map and answer."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import mmap
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from controller.compiler import Blobs, compile_table
from controller.ruleset import (
    LIST,
    SELF_AND_BELOW,
    Defaults,
    ListText,
    NameList,
    Pattern,
    Reply,
    Rule,
    RuleSet,
    Schedule,
    Where,
    Window,
)  # fmt: skip
from dnsd.contract import codes, names
from dnsd.contract.settings import Settings
from dnsd.contract.table import Table
from dnsd.serve.agent import Agent, Inherited
from dnsd.serve.shared import SharedMemory

WHERE = Where("rules.d/policy.yaml", 3, 1)


class Silent:
    """A log that remembers."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda text, **values: self.lines.append((level, text, values))

    def __contains__(self, text: str) -> bool:
        return any(text in line[1] or text in str(line[2]) for line in self.lines)


def table(
    block: str, *, listed: tuple[str, ...] = (), window: Window | None = None, expires: int | None = None
) -> Blobs:
    """A real compiled table with one rule that blocks `block` and the list."""
    patterns = [Pattern(SELF_AND_BELOW, WHERE, names.from_text(block))]
    lists = {}
    if listed:
        lists["ads"] = NameList("ads", WHERE, (ListText("ads.txt", "domains", "\n".join(listed).encode(), WHERE),))
        patterns.append(Pattern(LIST, WHERE, value="ads"))
    schedules = {"lunch": Schedule("lunch", WHERE, (window,))} if window else {}
    rule = Rule(
        "no-ads", WHERE, codes.RULE_BLOCK, tuple(patterns), schedule="lunch" if window else None, expires=expires
    )
    defaults = Defaults(Reply(codes.REPLY_NXDOMAIN), 10, "UTC")
    return compile_table(RuleSet({}, schedules, lists, {"no-ads": rule}, {}, {}, defaults))


class Worker:
    """A worker without sockets: maps what it is given and says what a real one says."""

    def __init__(self, slot: int, sock: socket.socket, shared: SharedMemory, pid: int) -> None:
        self.slot, self.sock, self.shared, self.pid = slot, sock, shared, pid
        self.prepared: tuple[int, Table] | None = None
        self.table: Table | None = None
        self.ops: list[str] = []
        self.facts = 0
        self.refuse = ""
        self.mute = False
        self.names_inodes: list[int] = []
        self.revision = ""
        sock.setblocking(False)

    def start(self) -> None:
        self.shared.starting(self.slot, self.pid, 0)
        self.shared.serving(self.slot)
        asyncio.get_running_loop().add_reader(self.sock.fileno(), self._readable)
        self.say("hello")

    def die(self) -> None:
        asyncio.get_running_loop().remove_reader(self.sock.fileno())
        self.shared.dead(self.slot)

    def say(self, op: str, **more: Any) -> None:
        self.sock.send(json.dumps({"op": op, "slot": self.slot, "pid": self.pid, **more}).encode())

    def _readable(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self.sock, 65536, 4)
        except BlockingIOError:
            return
        message = json.loads(data)
        self.ops.append(message["op"])
        if message["op"] == "prepare":
            parts = [mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ) for fd in fds]
            self.names_inodes.append(os.fstat(fds[1]).st_ino)
            self.revision = message["revision"]
            if self.refuse:
                self.say("nack", generation=message["generation"], errors=[self.refuse])
            elif not self.mute:
                self.prepared = message["generation"], Table(*parts)
                self.say("ready", generation=message["generation"], digest=self.prepared[1].digest)
        elif message["op"] == "facts":
            self.facts = message["version"]
        elif message["op"] == "abort":
            self.prepared = None
        for fd in fds:
            os.close(fd)
        if self.prepared is not None and self.prepared[0] == self.shared.committed[0]:
            generation, self.table = self.prepared
            self.prepared = None
            self.shared.install(self.slot, generation, bytes.fromhex(self.table.digest))
            self.say("active", generation=generation, digest=self.table.digest)


@dataclasses.dataclass
class Running:
    """A running agent with its workers."""

    agent: Agent
    shared: SharedMemory
    workers: list[Worker]
    ends: list[socket.socket]
    supervisor: socket.socket
    log: Silent
    task: asyncio.Task[int]

    def serving(self) -> list[str]:
        return [worker.table.digest if worker.table else "" for worker in self.workers]

    def tables_told(self) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []
        self.supervisor.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                data, fds, _, _ = socket.recv_fds(self.supervisor, 65536, 4)
                told.append(json.loads(data))
                for fd in fds:
                    os.close(fd)
        return [message for message in told if message["op"] == "table"]


@contextlib.asynccontextmanager
async def node(
    settings: Settings, port: int, *, slots: int = 2, shared: SharedMemory | None = None, start: bool = True
) -> AsyncIterator[Running]:
    """An agent against a broker on this port, and `slots` workers."""
    settings = dataclasses.replace(
        settings, broker=dataclasses.replace(settings.broker, connect=f"127.0.0.1:{port}"), state=settings.state
    )
    shared = shared or SharedMemory(slots)
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(slots)]
    mine, agents = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    log = Silent()
    inherited = Inherited([pair[0] for pair in pairs], agents, shared, os.getpid(), listen=("127.0.0.1:5300",))
    agent = Agent(settings, inherited, log)
    # A pid that no process has: killing it does nothing.
    workers = [Worker(slot, pair[1], shared, (1 << 22) + 1 + slot) for slot, pair in enumerate(pairs)]
    task = asyncio.create_task(agent.run())
    try:
        if start:
            for worker in workers:
                worker.start()
        yield Running(agent, shared, workers, [pair[1] for pair in pairs], mine, log, task)
    finally:
        agent._stopped.set()
        await asyncio.wait_for(task, 5)
        for worker in workers:
            with contextlib.suppress(OSError, ValueError):
                asyncio.get_running_loop().remove_reader(worker.sock.fileno())
        for pair in [*pairs, (mine, agents)]:
            for sock in pair:
                sock.close()


def state_of(base: Path, name: str) -> str:
    path = base / name
    path.mkdir(exist_ok=True)
    return str(path)

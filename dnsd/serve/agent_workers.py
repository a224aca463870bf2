"""The agent's end of the workers' control sockets: prepare, commit, abort, and who is silent.

One SOCK_SEQPACKET pair a slot, one JSON object a message, file descriptors by SCM_RIGHTS
(ARCHITECTURE.md, "How processes talk"). A slot is known by its socket, never by what a message says.
A worker that does not answer in time is killed, and the supervisor replaces it.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from dnsd.contract import codes

_MOST_MESSAGE = 64 << 10
_MESSAGES_A_TURN = 64
_LOOK_S = 0.05  # how often a wait looks whether somebody has died meanwhile
DEAD = 0
STATES = {0: "dead", 1: "starting", 2: "serving"}


class Shared(Protocol):
    """What the agent uses of `serve.shared.SharedMemory`."""

    committed: memoryview
    agent_beat: memoryview

    def facts_write(self, data: bytes) -> int: ...
    def facts_read(self) -> bytes: ...
    def slot_state(self, slot: int) -> tuple[int, int, int, int]: ...
    def slot_digest(self, slot: int) -> bytes: ...
    def counters(self, slot: int) -> memoryview: ...
    def ring(self, slot: int) -> memoryview: ...
    def upstreams_read(self, slot: int) -> bytes: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """A verified table in sealed memory. `generation` and `epoch` are the broker's; `local` is what workers see.

    `local` only grows on one node, also when a broker begins to count anew, so two tables never share it.
    """

    generation: int
    epoch: str
    local: int
    manifest_digest: str
    digest: str
    names_digest: str
    revision: str
    policy_fd: int
    names_fd: int
    gates_json: bytes

    def message(self, op: str) -> dict[str, Any]:
        """`prepare` for workers, `table` for the supervisor."""
        return {"op": op, "generation": self.local, "digest": self.digest, "names_digest": self.names_digest,
                "revision": self.revision}  # fmt: skip


@dataclasses.dataclass(slots=True)
class _Slot:
    number: int
    sock: socket.socket
    state: str = ""  # how it stands in the release that runs: "", waiting, ready, nack, active, evicted
    errors: list[str] = dataclasses.field(default_factory=list)
    digest: str = ""
    generation: int = 0


def send(sock: socket.socket, message: Mapping[str, Any], fds: Sequence[int] = ()) -> bool:
    """Send one message without waiting; False when the other end does not take it."""
    data = json.dumps(message, separators=(",", ":")).encode()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        # socket.send_fds ignores its flags in Python 3.11.
        sock.sendmsg([data], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except OSError:
        return False
    return True


class Workers:
    """All slots of the node. `current` gives the table that a worker gets when it says hello."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        shared: Shared,
        current: Callable[[], Loaded | None],
        log: Any,
        kill: Callable[[int, int], None] = os.kill,
        listening: Callable[[int, int], None] = lambda slot, binding: None,
        cached: Callable[[int, dict[str, Any]], None] = lambda slot, message: None,
        probed: Callable[[dict[str, Any]], None] = lambda message: None,
        greeting: Callable[[], Mapping[str, Any] | None] = lambda: None,
    ) -> None:
        self._slots = [_Slot(number, sock) for number, sock in enumerate(sockets)]
        self._shared = shared
        self._current = current
        self._log = log
        self._kill = kill
        self._listening = listening
        self._cached = cached
        self._probed = probed
        self._greeting = greeting  # what every worker is told when it says hello
        self._release: Loaded | None = None  # the one that `prepare` or `commit` waits for
        self._changed = asyncio.Event()

    def start(self) -> None:
        """Listen to the workers; those that run already (the agent was replaced) get the current table."""
        loop = asyncio.get_running_loop()
        for slot in self._slots:
            slot.sock.setblocking(False)
            loop.add_reader(slot.sock.fileno(), self._readable, slot)
        self.give_current()

    def stop(self) -> None:
        """Stop listening."""
        loop = asyncio.get_running_loop()
        for slot in self._slots:
            loop.remove_reader(slot.sock.fileno())

    def give_current(self) -> None:
        """Hand the current table to every worker that runs."""
        for slot in self._slots:
            if self._alive(slot):
                self._catch_up(slot)

    def _alive(self, slot: _Slot) -> bool:
        return self._shared.slot_state(slot.number)[0] != DEAD

    def running(self) -> list[int]:
        """The slots whose workers run."""
        return [slot.number for slot in self._slots if self._alive(slot)]

    def tell_one(self, slot: int, message: Mapping[str, Any]) -> None:
        """Send a message to the worker of a slot."""
        send(self._slots[slot].sock, message)

    def _catch_up(self, slot: _Slot) -> None:
        greeting = self._greeting()
        if greeting is not None:
            send(slot.sock, greeting)
        table = self._current()
        if table is not None:
            send(slot.sock, table.message("prepare"), (table.policy_fd, table.names_fd))
            send(slot.sock, {"op": "commit", "generation": table.local})

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send a message to every running worker."""
        for slot in self._slots:
            if self._alive(slot):
                send(slot.sock, message)

    # --- what workers say ---------------------------------------------------------------------------------------------

    def _readable(self, slot: _Slot) -> None:
        for _ in range(_MESSAGES_A_TURN):
            try:
                data = slot.sock.recv(_MOST_MESSAGE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                self._log.error("a worker's control socket broke", slot=slot.number, error=error.strerror)
                data = b""
            if not data:
                asyncio.get_running_loop().remove_reader(slot.sock.fileno())
                return
            try:
                message = json.loads(data)
                op = message["op"]
                generation = int(message.get("generation", 0))
            except (ValueError, KeyError, TypeError, RecursionError):
                self._log.error("a worker sent a message that is none", slot=slot.number)
                continue
            self._message(slot, op, generation, message)

    def _message(self, slot: _Slot, op: str, generation: int, message: dict[str, Any]) -> None:
        release = self._release
        if op == "hello":
            slot.state, slot.digest, slot.generation = "", "", 0
            self._catch_up(slot)
            # The table that is being prepared follows when the current one is in use: a worker holds one prepared.
            if self._current() is None:
                self._join(slot)
        elif op == "listening":
            if isinstance(message.get("binding"), int):
                self._listening(slot.number, message["binding"])
        elif op == "cached":
            self._cached(slot.number, message)
        elif op == "probed":
            self._probed(message)
        elif op == "ready":
            if release is not None and generation == release.local:
                slot.digest = str(message.get("digest", ""))
                slot.state, slot.errors = "ready", []
                if slot.digest != release.digest:
                    slot.state, slot.errors = "nack", [f"worker {slot.number} mapped table {slot.digest[:12]} instead"]
        elif op == "nack":
            said = message.get("errors")
            errors = [str(text)[:1000] for text in said[:20]] if isinstance(said, list) else []
            if release is not None and generation == release.local:
                slot.state, slot.errors = "nack", errors or ["the worker gave no reason"]
            else:
                self._log.error("a worker refused the current table", slot=slot.number, errors=errors)
        elif op == "active":
            slot.digest, slot.generation = str(message.get("digest", "")), generation
            if release is not None and generation == release.local:
                slot.state = "active"
            elif release is not None and slot.state == "":
                self._join(slot)
        self._changed.set()

    def _join(self, slot: _Slot) -> None:
        """A worker that was forked while a release is being prepared takes part in it."""
        if self._release is not None and slot.state == "":
            table = self._release
            slot.state = "waiting"
            send(slot.sock, table.message("prepare"), (table.policy_fd, table.names_fd))

    # --- the release --------------------------------------------------------------------------------------------------

    async def prepare(self, table: Loaded, timeout_s: float) -> list[str]:
        """Hand a table to all workers and wait until each is ready; returns the reasons of those that refuse it.

        Workers that are silent until the time is up are killed; dead slots are not waited for.
        """
        self._release = table
        for slot in self._slots:
            slot.state, slot.errors = "", []
            if self._alive(slot):
                slot.state = "waiting"
                send(slot.sock, table.message("prepare"), (table.policy_fd, table.names_fd))
        await self._wait(("waiting",), timeout_s, "nack")
        refusals = [f"worker {s.number}: {text}" for s in self._slots if s.state == "nack" for text in s.errors]
        if not refusals:
            self._evict("waiting", "did not prepare the table in time")
        return refusals

    async def commit(self, table: Loaded, timeout_s: float) -> None:
        """Make the table the one that serves: the store to the shared word commits, the messages only wake."""
        self._release = table
        self._shared.committed[0] = table.local
        for slot in self._slots:
            if self._alive(slot):
                if slot.state == "ready":
                    slot.state = "committed"
                elif slot.state != "active":  # came too late to prepare it
                    send(slot.sock, table.message("prepare"), (table.policy_fd, table.names_fd))
                send(slot.sock, {"op": "commit", "generation": table.local})
        await self._wait(("committed",), timeout_s, None)
        self._evict("committed", "did not take the table into use")
        if self._release is table:
            self._release = None

    def abort(self, table: Loaded) -> None:
        """Nobody serves this table."""
        if self._release is table:
            self._release = None
        self.tell({"op": "abort", "generation": table.local})

    async def _wait(self, pending: tuple[str, ...], timeout_s: float, stop: str | None) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while any(slot.state in pending for slot in self._slots):
            if stop is not None and any(slot.state == stop for slot in self._slots):
                return
            left = until - loop.time()
            if left <= 0:
                return
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_LOOK_S, left)):
                    await self._changed.wait()
            for slot in self._slots:
                if slot.state in pending and not self._alive(slot):
                    slot.state = ""  # its replacement says hello

    def _evict(self, state: str, why: str) -> None:
        for slot in self._slots:
            if slot.state != state:
                continue
            slot.state, slot.errors = "evicted", [why]
            pid = self._shared.slot_state(slot.number)[1]
            self._log.warning("a worker is silent and is replaced", slot=slot.number, pid=pid, why=why)
            if pid > 1:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    self._kill(pid, signal.SIGKILL)

    def rows(self, wire_generation: Callable[[int], int], serving_digest: str) -> list[dict[str, Any]]:
        """One row a slot, as READY, ACTIVE and REPORT carry them."""
        rows = []
        for slot in self._slots:
            state, pid, local, _ = self._shared.slot_state(slot.number)
            mapped = self._shared.slot_digest(slot.number).hex() if state != DEAD else ""
            digest = mapped if mapped.strip("0") else slot.digest if state != DEAD else ""
            word = STATES.get(state, "unknown")
            if slot.state == "evicted":
                word = "evicted"
            elif state == 2 and serving_digest and digest != serving_digest:
                word = "behind"
            counters = self._shared.counters(slot.number)
            rows.append({
                "slot": slot.number, "pid": pid, "state": word, "generation": wire_generation(local or slot.generation),
                "digest": digest, "errors": "; ".join(slot.errors) if slot.state in ("nack", "evicted") else "",
                "queries": counters[codes.COUNT_QUERIES_UDP] + counters[codes.COUNT_QUERIES_TCP],
            })  # fmt: skip
        return rows

"""The node's agent: first child of the supervisor, the only one that talks to the broker.

It starts from disk before it asks anybody, verifies each table once, copies it into sealed memory and
hands that to the workers; writes the facts; reports what the workers count. The workers never wait for
it: when it is gone they serve on, and the supervisor makes another.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import dataclasses
import json
import mmap
import os
import signal
import socket
import time
from collections.abc import Sequence
from typing import Any

from dnsd.contract import codes, frames, messages
from dnsd.contract.facts import FactsError, unpacked
from dnsd.contract.frames import Frame
from dnsd.contract.messages import FrameError
from dnsd.contract.settings import Settings
from dnsd.contract.table import Table, TableError
from dnsd.serve import log as logs
from dnsd.serve import telemetry
from dnsd.serve.agent_addresses import MOST_OWN, Addresses, self_addresses
from dnsd.serve.agent_anchors import AnchorKeeper, Probes
from dnsd.serve.agent_caches import Caches
from dnsd.serve.agent_facts import FactsKeeper
from dnsd.serve.agent_leases import Leases, boot_ms
from dnsd.serve.agent_link import Link, read_key
from dnsd.serve.agent_tables import Refused, load, release
from dnsd.serve.agent_workers import Loaded, Shared, Workers, send
from dnsd.serve.listener import place
from dnsd.serve.netlink import Kernel
from dnsd.serve.store import Saved, StoreError, TableStore

REPORT_S = 1.0
COMMIT_S = 2.0
_PR_SET_PDEATHSIG = 1
_KNOWN_GENERATIONS = 16


@dataclasses.dataclass(frozen=True, slots=True)
class Inherited:
    """What the supervisor hands to the agent. Sockets and memory stay the supervisor's: the agent holds its copies.

    `workers`: the agent's ends of the control sockets, by slot. `close`: sockets that the agent must not hold (the
    listening ones, the workers' ends). `listen`: the listen addresses as text, for people and the probe.
    `keys`: the text of the key file, if the supervisor read it before it changed user.
    """

    workers: Sequence[socket.socket]
    supervisor: socket.socket
    shared: Shared
    supervisor_pid: int
    listen: tuple[str, ...] = ()
    close: Sequence[socket.socket] = ()
    keys: str | None = None


def run(settings: Settings, inherited: Inherited) -> int:
    """The agent process; returns its exit code. It ends on SIGTERM and when the supervisor is gone."""
    for sock in inherited.close:
        sock.close()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor hears it too, and sends SIGTERM
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if os.getppid() != inherited.supervisor_pid:
        return 0
    return asyncio.run(Agent(settings, inherited).run())


class Agent:
    """One node's agent; `run` until told to end."""

    def __init__(self, settings: Settings, inherited: Inherited, log: Any = None) -> None:
        self._settings = settings
        self._inherited = inherited
        self._shared = inherited.shared
        self._log = log or logs.logger("agent")
        self._directory = os.path.join(settings.state, "tables")
        self._store: TableStore | None = None
        self._current: Loaded | None = None
        self._saved: Saved | None = None
        self._prepared: tuple[Loaded, Saved] | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()
        self._keeping = asyncio.Lock()
        self._generations: dict[int, int] = {}
        self._provenance: dict[int, telemetry.Provenance] = {}
        self._rings: list[telemetry.RingReader] = []
        self._unread = 0
        # The workers come after the addresses that they are told: who runs is asked when it matters.
        self._addresses = Addresses(self._on_addresses, self._queries, lambda: self._workers.running(), self._log)  # noqa: PLW0108
        self._workers: Workers = Workers(
            inherited.workers, self._shared, lambda: self._current, self._log, listening=self._addresses.listening,
            cached=self._cached, probed=self._on_probed, greeting=self._greeting,
        )  # fmt: skip
        self._probes = Probes(self._workers)
        self._anchors: AnchorKeeper | None = None
        self._caches = Caches(self._workers)
        self._leases = Leases(os.path.join(settings.state, "node-leases.json"))
        self._own: frozenset[bytes] = frozenset()
        self._welcomed = 0.0
        self._looking: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Start from disk, then serve the broker, the workers and the clock."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stopped.set)
        self._watch_supervisor()
        self._facts = FactsKeeper(
            self._shared, self._settings.allow, self._settings.resolver.special_use,
            lambda version: self._workers.tell({"op": "facts", "version": version}),
        )  # fmt: skip
        self._facts.refresh()
        slots = range(len(self._inherited.workers))
        self._rings = [telemetry.RingReader(self._shared.ring(slot), from_start=True) for slot in slots]
        self._anchors = AnchorKeeper(self._settings, self._probes.ask, self._on_anchors, self._log)
        self._tell_supervisor_anchors()
        await self._start_from_disk()
        self._workers.start()
        self._facts.lease_servers(self._leases.servers(self._own))
        try:
            self._addresses.start()
        except OSError as error:
            self._log.warning("the kernel does not tell our addresses", reason=error.strerror)
        host = socket.gethostname()
        self._link = Link(
            self._settings.broker.connect,
            lambda: read_key(self._settings.broker.keys, "node", self._inherited.keys),
            self._store.node_name(host) if self._store else host,
            self._hello,
            self,
            self._log,
        )
        running = [asyncio.create_task(each) for each in (self._link.run(), self._reports(), self._beats())]
        stopped = asyncio.create_task(self._stopped.wait())
        done, _ = await asyncio.wait([*running, stopped], return_when=asyncio.FIRST_COMPLETED)
        self._addresses.stop()
        self._facts.stop()
        self._workers.stop()
        for task in [*running, stopped, *self._tasks]:
            task.cancel()
        for task in done:
            if task is not stopped:
                task.result()  # none ever returns: this raises what ended it
        return 0

    def _watch_supervisor(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(self._inherited.supervisor_pid)
            loop.add_reader(descriptor, self._stopped.set)
        sock = self._inherited.supervisor
        sock.setblocking(False)

        def readable() -> None:
            try:
                data = sock.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                loop.remove_reader(sock.fileno())
                self._stopped.set()
                return
            with contextlib.suppress(ValueError, AttributeError):
                message = json.loads(data)
                if message.get("op") == "rebind":
                    self._addresses.rebound(message)

        loop.add_reader(sock.fileno(), readable)

    # --- trust anchors ------------------------------------------------------------------------------------------------

    def _greeting(self) -> dict[str, Any] | None:
        """What a worker is told before anything else: the trust anchors of now."""
        keeper = self._anchors
        return {"op": "anchors", "lines": keeper.lines} if keeper is not None and keeper.follows else None

    def _on_probed(self, message: dict[str, Any]) -> None:
        self._probes.hear(message)

    def _on_anchors(self, lines: list[str]) -> None:
        self._workers.tell({"op": "anchors", "lines": lines})
        self._tell_supervisor_anchors()

    def _tell_supervisor_anchors(self) -> None:
        """So that a worker forked while we are dead begins with them, too."""
        greeting = self._greeting()
        if greeting is not None:
            send(self._inherited.supervisor, greeting)

    async def _look_at_anchors(self, keeper: AnchorKeeper, zone: bytes) -> None:
        try:
            await keeper.look(zone)
        except Exception as error:  # a fault here must not end the node's only way to its broker
            self._log.error("following a trust anchor failed", error=repr(error))

    # --- addresses and leases -----------------------------------------------------------------------------------------

    def _on_addresses(self, kernel: Kernel) -> None:
        rows = kernel.addresses()
        self._own = frozenset(row.address for row in rows[:MOST_OWN])
        places = [place(text, must_exist=False) for text in self._inherited.listen]
        self._facts.own_addresses(self._own, self_addresses(rows, kernel.links, places))
        self._facts.lease_servers(self._leases.servers(self._own))

    def _on_event(self, event: dict[str, Any]) -> None:
        """A DHCP client said something; the broker has waited until it was quiet."""
        if self._leases.hear(event, boot_ms()):
            servers = self._leases.servers(self._own)
            self._facts.lease_servers(servers)
            texts = [str(unpacked(address)) for address, _, _ in servers]
            self._log.info("the leases' DNS servers", interface=event.get("interface", ""), servers=texts)

    def _queries(self) -> int:
        counters = [self._shared.counters(slot) for slot in range(len(self._inherited.workers))]
        return sum(row[codes.COUNT_QUERIES_UDP] + row[codes.COUNT_QUERIES_TCP] for row in counters)

    def _spawn(self, coroutine: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- disk ---------------------------------------------------------------------------------------------------------

    def _open_store(self) -> TableStore:
        if self._store is None:
            self._store = TableStore(self._directory)
        return self._store

    async def _start_from_disk(self) -> None:
        """Serve the newest release on disk that is whole. Nobody is asked."""
        try:
            store = self._open_store()
        except StoreError as error:
            self._log.error("the node starts without a table", reason=str(error))
            return
        for saved in list(store.releases):
            try:
                loaded = await load(saved, store, None, self._current, self._saved, self._committed())
                self._facts.tables(loaded, None)
            except (Refused, FactsError, TableError) as error:
                reasons = [e["message"] for e in error.errors] if isinstance(error, Refused) else [str(error)]
                self._log.error("a table on disk is not used", generation=saved.generation, reasons=reasons)
                continue
            self._adopt(loaded, saved)
            self._shared.committed[0] = loaded.local
            self._tell_supervisor(loaded)
            self._log.info("serving the last good table", generation=saved.generation, table=loaded.digest[:12])
            break
        for problem in store.problems:
            self._log.error(problem)

    # --- tables -------------------------------------------------------------------------------------------------------

    def _committed(self) -> int:
        return int(self._shared.committed[0])

    def _adopt(self, loaded: Loaded, saved: Saved) -> None:
        """This table is the current one from now on."""
        old, self._current, self._saved, self._prepared = self._current, loaded, saved, None
        if old is not None:
            release(old)
        self._generations[loaded.local] = loaded.generation
        policy = mmap.mmap(loaded.policy_fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
        names = mmap.mmap(loaded.names_fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
        self._provenance[loaded.local] = telemetry.TableNames(Table(policy, names))
        for known in (self._generations, self._provenance):
            while len(known) > _KNOWN_GENERATIONS:
                known.pop(next(iter(known)))
        while len(self._provenance) > 4:  # decisions of the table before may still be in the rings
            self._provenance.pop(next(iter(self._provenance)))

    def _tell_supervisor(self, loaded: Loaded, tries: int = 20) -> None:
        sock = self._inherited.supervisor
        if send(sock, loaded.message("table"), (loaded.policy_fd, loaded.names_fd)) or loaded is not self._current:
            return
        if tries:
            asyncio.get_running_loop().call_later(0.1, self._tell_supervisor, loaded, tries - 1)
        else:
            self._log.error("the supervisor does not take the new table; a worker forked now starts with the older one")

    # --- what the broker says (Handler) -------------------------------------------------------------------------------

    def _hello(self) -> dict[str, Any]:
        saved = self._saved
        have = {"generation": 0, "digest": None, "epoch": ""}
        if saved is not None:
            have = {"generation": saved.generation, "digest": saved.digest, "epoch": saved.epoch}
        return {"have": have, "listen": list(self._inherited.listen[:64])}

    def on_welcome(self, challenge: dict[str, Any], welcome: dict[str, Any]) -> None:
        """We are in."""
        self._welcomed = time.monotonic()
        self._log.info("connected to the broker", active=welcome["active"].get("generation", 0))
        self._report()

    def on_lost(self) -> None:
        """A table that was ready but not committed is dropped: it never becomes active by itself."""
        self._drop_prepared()

    def on_frame(self, frame: Frame) -> None:
        """PREPARE, COMMIT, ABORT, EVENT, CACHE."""
        if frame.type == messages.PREPARE:
            before = self._preparing
            self._drop_prepared()
            self._preparing = self._spawn(self._prepare(frame, before))
        elif frame.type == messages.COMMIT:
            self._commit(frame)
        elif frame.type == messages.ABORT:
            self._drop_prepared()
        elif frame.type == messages.EVENT:
            self._on_event(frame.message)
        elif frame.type == messages.CACHE:
            self._spawn(self._cache(frame))

    def _cached(self, slot: int, message: dict[str, Any]) -> None:
        self._caches.hear(slot, message)

    async def _cache(self, frame: Frame) -> None:
        rows = await self._caches.ask(frame.message)
        with contextlib.suppress(FrameError):
            self._link.answer(messages.CACHE_OK, frame.id, {"workers": rows})

    def _drop_prepared(self) -> None:
        if self._preparing is not None and not self._preparing.done():
            self._preparing.cancel()
        self._preparing = None
        if self._prepared is not None:
            loaded, self._prepared = self._prepared[0], None
            self._workers.abort(loaded)
            self._facts.tables(self._current, None)
            release(loaded)

    async def _prepare(self, frame: Frame, before: asyncio.Task[None] | None) -> None:
        message = frame.message
        if before is not None:
            await asyncio.wait([before])  # it has been cancelled, and tidies up first
        fetched = self._link.fetched
        loop = asyncio.get_running_loop()
        begun = loop.time()
        until = begun + message["deadline_ms"] / 1000 * 0.8  # the broker's clock runs as well
        saved = Saved(message["generation"], message["epoch"], frames.json_digest(message["manifest"]),
                      message["manifest"], message["revision"])  # fmt: skip
        loaded: Loaded | None = None
        try:
            current = self._current
            if current is not None and saved.epoch == current.epoch and saved.generation < current.generation:
                raise Refused("stale_generation", [f"generation {current.generation} is active here"])
            try:
                store = await asyncio.to_thread(self._open_store)
            except StoreError as error:
                raise Refused("internal", [str(error)]) from None
            loaded = await load(saved, store, self._link, self._current, self._saved, self._committed())
            try:
                self._facts.tables(self._current, loaded)
            except FactsError as error:
                raise Refused("build_failed", [str(error)]) from None
            refusals = await self._workers.prepare(loaded, max(0.1, until - loop.time()))
            if refusals:
                raise Refused("build_failed", refusals)
        except BaseException as error:
            if loaded is not None:
                self._workers.abort(loaded)
                self._facts.tables(self._current, None)
                release(loaded)
            if isinstance(error, asyncio.CancelledError):
                raise
            if not isinstance(error, Refused):
                self._log.error("preparing a table failed", error=repr(error))
            errors = error.errors if isinstance(error, Refused) else [{"code": "internal", "message": repr(error)}]
            reasons = [e["message"] for e in errors]
            self._log.warning("a release is refused", generation=saved.generation, reasons=reasons)
            nack = {"generation": saved.generation, "errors": errors, "workers": self._rows()}
            self._link.answer(messages.NACK, frame.id, nack)
            return
        self._prepared = loaded, saved
        answer = {"generation": saved.generation, "workers": self._rows(), "fetched": self._link.fetched - fetched,
                  "build_ms": int((loop.time() - begun) * 1000)}  # fmt: skip
        self._link.answer(messages.READY, frame.id, answer)

    def _commit(self, frame: Frame) -> None:
        generation, digest = frame.message["generation"], frame.message["digest"]
        if self._prepared is None or (self._prepared[1].generation, self._prepared[1].digest) != (generation, digest):
            text = f"generation {generation} is not prepared here"
            answer = {"code": "unknown_generation", "message": text, "fatal": False}
            self._link.answer(messages.ERROR, frame.id, answer)
            return
        loaded, saved = self._prepared
        self._adopt(loaded, saved)
        self._shared.committed[0] = loaded.local
        self._spawn(self._finish_commit(frame.id, loaded, saved))
        self._tell_supervisor(loaded)

    async def _finish_commit(self, ident: int, loaded: Loaded, saved: Saved) -> None:
        await self._workers.commit(loaded, COMMIT_S)
        if loaded is self._current:
            self._facts.tables(loaded, self._prepared[0] if self._prepared else None)
        answer = {"generation": saved.generation, "digest": saved.digest, "workers": self._rows()}
        self._link.answer(messages.ACTIVE, ident, answer)
        self._log.info("a release is active", generation=saved.generation, table=loaded.digest[:12],
                       revision=loaded.revision)  # fmt: skip
        try:
            if self._store is not None:
                async with self._keeping:  # in the order of the releases
                    await asyncio.to_thread(self._store.commit, saved)
        except StoreError as error:
            self._log.error("the release is active but would not survive a restart", reason=str(error))

    # --- reports ------------------------------------------------------------------------------------------------------

    def _rows(self) -> list[dict[str, Any]]:
        serving = self._current.digest if self._current else ""
        return self._workers.rows(lambda local: self._generations.get(local, local), serving)

    async def _beats(self) -> None:
        """Tell the supervisor that this loop turns; what takes long is done in threads."""
        while True:
            self._shared.agent_beat[0] = time.monotonic_ns() // 1_000_000
            await asyncio.sleep(REPORT_S)

    async def _reports(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            # A broker that has just come back has first to say what is new.
            told = self._link.connected and time.monotonic() - self._welcomed >= REPORT_S
            if self._leases.expire(boot_ms(), self._own, told=told):
                self._facts.lease_servers(self._leases.servers(self._own))
            if self._anchors is not None and (self._looking is None or self._looking.done()):
                zone = self._anchors.due()
                if zone is not None:
                    self._looking = self._spawn(self._look_at_anchors(self._anchors, zone))
            self._report()

    def _report(self) -> None:
        if not self._link.connected:
            return
        decisions: list[telemetry.Decision] = []
        for ring in self._rings:
            decisions += ring.read(telemetry.MOST_DECISIONS)
        decisions.sort(key=lambda decision: decision.wall_ms)
        self._unread += max(0, len(decisions) - telemetry.MOST_DECISIONS)
        decisions = decisions[-telemetry.MOST_DECISIONS :]
        privacy = self._settings.querylog.privacy
        rows = [telemetry.describe(decision, self._provenance, privacy) for decision in decisions]
        for row in rows:
            row["generation"] = self._generations.get(row["generation"], row["generation"])
        counters = [self._shared.counters(slot) for slot in range(len(self._inherited.workers))]
        facts = self._facts.written
        with contextlib.suppress(FrameError):
            self._link.report({
                "counters": telemetry.totals(counters),
                "workers": self._rows(),
                "decisions": rows,
                "dropped": self._unread + sum(ring.dropped for ring in self._rings),
                "table": self._current.digest if self._current else "",
                "facts": {"version": facts.version, "gates": len(facts.gates), "open": sum(facts.gates),
                          "own": len(facts.own), "self": len(facts.self_addresses), "lease": len(facts.lease),
                          "changes": self._addresses.changes, "change_ms": self._addresses.last_ms},
                "upstreams": telemetry.upstreams(self._shared.upstreams_read(slot) for slot in range(len(counters))),
                "anchors": self._anchors.rows() if self._anchors is not None else [],
                "events": self._addresses.events(),
            })  # fmt: skip

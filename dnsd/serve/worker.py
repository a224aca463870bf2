"""One worker's event loop: batches of questions, misses, TCP clients, table swaps, siblings' sockets.

Forked by the supervisor with its sockets bound. It needs no file and no clock of its own making, and
nobody else has to be alive for it to answer: agent and supervisor may be gone. The order at the top of
each round is fixed: committed word, facts, clock, questions.
"""

import contextlib
import dataclasses
import functools
import gc
import os
import select
import signal
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from dnsd.contract.settings import Settings
from dnsd.contract.table import TableError
from dnsd.resolve.anchors import AnchorError
from dnsd.resolve.shortcut import Shortcut
from dnsd.serve import control, worker_anchors, worker_cache
from dnsd.serve.batch import load
from dnsd.serve.control import ControlError, Mapped, TableFiles
from dnsd.serve.flights import Flights
from dnsd.serve.listener import Sockets
from dnsd.serve.loop import UPSTREAM, Loop
from dnsd.serve.reading import Reading
from dnsd.serve.recursion import over_forwarders, resolver
from dnsd.serve.shared import SERVING, UPSTREAMS_BYTES, SharedMemory
from dnsd.serve.tcp import Connection, Connections
from dnsd.serve.upstream import Upstream

_NEVER = 2**64 - 1  # a generation that is never committed
HEARTBEAT_MS = 500
WITHOUT_TABLE_MS = 5000  # how long questions wait for the first table
DRAIN_MS = 2000  # how long a leaving worker works on what has begun
SILENT_MS = 5000  # a sibling without a heartbeat this long is dead, for orphans
FAULTS = 50  # between two heartbeats; a worker with more is replaced
_MESSAGES = 16  # control messages a round
_COLLECT = (20_000, 20, 20)  # questions are made of objects that refer to each other, and are let go of by hand


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerPlan:
    """What the supervisor hands to a worker: everything is inherited, nothing is opened.

    `events`: one eventfd per slot. `started_ms`: since when questions can come (monotonic). `parent`: the
    supervisor's pid.
    """

    slot: int
    settings: Settings
    shared: SharedMemory
    sockets: Sequence[Sockets]
    control: socket.socket
    events: Sequence[int]
    arena: Any
    table: TableFiles | None
    parent: int
    started_ms: int
    log: Any
    hotpath: Callable[..., Any]


def run(plan: WorkerPlan) -> int:
    """Serve until SIGTERM; returns the exit code. The caller has reset signals and closed what is not ours."""
    worker = Worker(plan)
    try:
        return worker.run()
    finally:
        worker.close()


class Worker:
    """The state of one worker process."""

    def __init__(self, plan: WorkerPlan) -> None:
        self._plan = plan
        self._slot = plan.slot
        self._shared = plan.shared
        self._log = plan.log
        self._loop = Loop()
        self._counters = plan.shared.counters(plan.slot)
        self._committed = plan.shared.committed
        identity = socket.gethostname()
        self._hotpath = plan.hotpath(plan.slot, self._counters, plan.shared.ring(plan.slot), plan.arena, identity)
        limits = plan.settings.cache
        self._hotpath.set_limits(int(limits.min_ttl_s), int(limits.max_ttl_s), plan.settings.resolver.edns_size)
        self._hotpath.prefetch = int(plan.settings.resolver.prefetch)
        self._hotpath.stale_s = int(limits.max_stale_s) if plan.settings.resolver.serve_stale else 0
        clients = plan.settings.clients
        self._hotpath.set_clients(
            identity if clients.identity == "hostname" else "" if clients.identity == "off" else clients.identity,
            plan.shared.cookie_secret if clients.cookies else b"", clients.rate_limit,
        )  # fmt: skip
        self._upstream = Upstream(self._loop, self._counters, self._clock_ms)
        self._resolver = resolver(plan.settings, len(plan.sockets))
        shortcut = Shortcut(self._resolver)
        self._flights = Flights(
            self._hotpath, self._upstream, self._counters, self._clock_ms, self._answer, self._resolver,
            bool(self._hotpath.stale_s), over_forwarders(plan.settings, len(plan.sockets)), shortcut,
        )  # fmt: skip
        self._hotpath.chooser = self._flights.choose
        self._hotpath.proven = self._flights.proven
        self._hotpath.shortcut = shortcut
        self._hotpath.journey = self._flights.journey
        self._connections = Connections(self._loop, self._stream, self._counters, self._clock_ms)
        self._reading = Reading(
            plan.slot, plan.sockets, self._loop, self._connections, self._on_udp, self._hotpath.socket_batch.forget
        )
        self._serving = False
        self._adopted: set[int] = set()
        self._installed: Mapped | None = None
        self._pending: Mapped | None = None
        self._facts_version = 0
        self._now_ms = 0
        self._beat_ms = 0
        self._leaving_ms = 0  # when SIGTERM came; 0 while we stay
        self._orphan = False
        self._faults = 0  # since the last heartbeat
        self._term_read, self._term_write = socket.socketpair()

    # --- life -------------------------------------------------------------------------------------

    def run(self) -> int:
        """The loop."""
        self._signals()
        gc.set_threshold(*_COLLECT)
        self._tick()
        self._shared.beat(self._slot, self._now_ms)
        self._loop.add(self._plan.control.fileno(), select.EPOLLIN, self._on_control)
        self._loop.add(self._plan.events[self._slot], select.EPOLLIN, self._on_event)
        self._loop.add(self._term_read.fileno(), select.EPOLLIN, self._on_term)
        self._loop.add(self._hotpath.upstream_fd, select.EPOLLIN, self._on_upstream, UPSTREAM)
        self._hotpath.attach(self._loop.poll, self._shared.watched)
        if self._plan.table is not None:
            self._inherit(self._plan.table)
        control.send(self._plan.control, {"op": "hello", "slot": self._slot, "pid": os.getpid()})
        while True:
            if not self._serving and not self._leaving_ms and (self._installed is not None or self._waited()):
                self._serve()
            self._round()
            if self._leaving_ms and self._drained():
                return 0

    def _waited(self) -> bool:
        """Whether a table has been waited for long enough: then questions are answered without one."""
        waited_ms = self._now_ms - self._plan.started_ms
        if waited_ms < WITHOUT_TABLE_MS:
            return False
        # Perhaps it was we who came late (a machine that was stopped or starved), and the table is here already.
        self._on_control(self._plan.control.fileno(), 0)
        self._tick()
        if self._pending is not None:
            return waited_ms >= 2 * WITHOUT_TABLE_MS
        # A sibling that has a table reads our sockets for as long as we do not.
        return not any(slot != self._slot and self._answers(slot) for slot in range(self._shared.slots))

    def _answers(self, slot: int) -> bool:
        """Whether a sibling lives that answers from a table."""
        state, _, generation, _ = self._shared.slot_state(slot)
        return state == SERVING and generation > 0 and not (self._orphan and self._is_gone(slot))

    def _round(self) -> None:
        """Wait, do what is ready, then what is due. A fault of ours costs one packet, not all clients of a slot."""
        try:
            pending = self._pending.generation if self._pending is not None else _NEVER
            left = self._hotpath.serve(self._until_ms(), pending, self._facts_version)
            self._tick()
            if left:
                self._loop.dispatch(left)
            self._timers()
        except Exception as error:
            self._faults += 1
            if self._faults > FAULTS:
                raise
            where = traceback.format_exc(limit=-3)
            self._log.error("a fault in the worker; it goes on", error=repr(error), where=where)

    def close(self) -> None:
        """Give back what is ours."""
        self._connections.close()
        self._upstream.close()
        self._hotpath.close()
        self._loop.close()

    def _signals(self) -> None:
        for sock in (self._term_read, self._term_write):
            sock.setblocking(False)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a terminal sends them to all of us; the supervisor decides
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        signal.set_wakeup_fd(self._term_write.fileno(), warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD))

    def _on_term(self, fd: int, events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            if signal.SIGTERM in self._term_read.recv(64) and not self._leaving_ms:
                self._leave()

    def _until_ms(self) -> int:
        """When something is due that the query path does not do by itself; 0 for now."""
        if self._hotpath.misses:
            return 0
        due = self._beat_ms + HEARTBEAT_MS
        for other in (
            self._upstream.next_ms(), self._hotpath.next_ms(), self._connections.next_ms(), self._flights.next_ms(),
        ):
            if other is not None and other < due:
                due = other
        if self._leaving_ms:
            due = min(due, self._now_ms + 20)
        elif not self._serving and self._now_ms < self._plan.started_ms + WITHOUT_TABLE_MS:
            due = min(due, self._plan.started_ms + WITHOUT_TABLE_MS)  # after that, with each heartbeat
        return due

    def _timers(self) -> None:
        now_ms = self._now_ms = self._clock_ms()
        self._upstream.expire(now_ms)
        self._hotpath.expire()
        self._take_handed()
        self._flights.expire(now_ms)
        self._connections.expire(now_ms)
        self._reading.expire(now_ms)
        self._take_misses()
        if now_ms - self._beat_ms >= HEARTBEAT_MS:
            self._beat_ms = now_ms
            self._faults = 0
            self._flights.refresh()
            self._shared.upstreams_write(self._slot, self._flights.health()[: UPSTREAMS_BYTES - 8])
            self._shared.beat(self._slot, now_ms)
            if os.getppid() != self._plan.parent:
                self._without_supervisor(now_ms)

    @staticmethod
    def _clock_ms() -> int:
        return time.monotonic_ns() // 1_000_000

    # --- the top of each round --------------------------------------------------------------------

    def _tick(self) -> None:
        """Committed word, facts, clock: in this order, before each batch."""
        if self._pending is not None and load(self._committed, 0) == self._pending.generation:
            self._swap()
        if self._shared.facts_version != self._facts_version:
            self._read_facts()
        self._now_ms = self._clock_ms()
        wall_ms = time.time_ns() // 1_000_000
        self._hotpath.clock(self._now_ms, wall_ms)
        self._resolver.cache.clock(wall_ms // 1000)
        self._flights.clock(wall_ms // 1000)

    def _read_facts(self) -> None:
        version = self._shared.facts_version
        try:
            self._hotpath.set_facts(self._shared.facts_read())
        except (ValueError, RuntimeError) as error:
            self._log.error("the facts cannot be used; the old ones stay", error=str(error))
        self._facts_version = version

    def _swap(self) -> None:
        """Serve the prepared table from the next packet on."""
        table, self._pending = self._pending, None
        assert table is not None
        if self._shared.facts_version != self._facts_version:
            self._read_facts()  # they were written for this table too
        try:
            self._hotpath.install(table.policy, table.names, table.generation, table.revision)
        except (TableError, ValueError) as error:
            self._refuse(table.generation, error)
            return
        self._installed = table
        digest = self._hotpath.digest
        self._shared.install(self._slot, table.generation, bytes.fromhex(digest))
        self._say("active", generation=table.generation, digest=digest)

    def _inherit(self, files: TableFiles) -> None:
        """Begin with the table that the supervisor keeps; the agent need not be alive."""
        try:
            self._pending = control.map_table(files, None)
        except TableError as error:
            self._log.error("the supervisor's table cannot be used", error=str(error))
            return
        self._swap()

    # --- questions --------------------------------------------------------------------------------

    def _serve(self) -> None:
        self._serving = True
        self._reading.watch(self._slot)
        self._shared.serving(self._slot)
        for slot, event in enumerate(self._plan.events):
            if slot != self._slot:
                self._wake(event)  # siblings let go of our sockets
        self._siblings()

    def _on_udp(self, fd: int, events: int) -> None:
        """Clients' questions that came together with something else."""
        self._hotpath.drain(fd)

    def _on_upstream(self, fd: int, events: int) -> None:
        """The same for upstream servers' answers."""
        self._hotpath.drain(-1)

    def _take_handed(self) -> None:
        fault: Exception | None = None
        for retry in self._hotpath.handed():
            try:
                self._flights.resume(retry)
            except Exception as error:
                fault = error
        if fault is not None:
            raise fault

    def _stream(self, message: bytes, client: bytes, connection: Connection) -> bytes | None:
        misses = self._hotpath.misses
        before = len(misses)
        self._hotpath.keepalive = self._connections.patience_ms // 100
        answer: bytes | None = self._hotpath.stream(message, client)
        if answer is None:
            for miss in misses[before:]:
                miss.token = connection
        return answer

    def _take_misses(self) -> None:
        misses = self._hotpath.misses
        if misses:
            taken = list(misses)
            misses.clear()
            for miss in taken:
                self._flights.take(miss)

    def _answer(self, miss: Any, wire: bytes) -> None:
        if miss.fd >= 0:
            if wire:
                self._hotpath.send(miss, wire)
        else:
            self._connections.respond(miss.token, wire)

    # --- agent ------------------------------------------------------------------------------------

    def _on_control(self, fd: int, events: int) -> None:
        for _ in range(_MESSAGES):
            try:
                received = control.receive(self._plan.control)
            except ControlError as error:
                self._log.error(str(error))
                continue
            except (EOFError, OSError):
                self._loop.remove(fd)  # agent and supervisor are both gone; we serve on
                return
            if received is None:
                return
            self._message(*received)

    def _message(self, message: dict[str, Any], fds: list[int]) -> None:
        op = message["op"]
        if op == "prepare":
            try:
                files = control.table_files(message, fds)
            except ControlError as error:
                generation = message.get("generation")
                self._refuse(generation if isinstance(generation, int) else 0, error)
                return
            self._prepare(files)
            return
        if op == "listen":
            self._listen(message, fds)
            return
        for unexpected in fds:
            os.close(unexpected)
        if op == "cache":
            self._say("cached", **worker_cache.told(self._hotpath, self._flights.resolvers, message, self._clock_ms()))
            return
        if op == "anchors":
            self._follow(message)
        if op == "probe":
            self._probe(message)
        if op == "drop" and isinstance(message.get("binding"), int):
            self._reading.drop(message["binding"], self._clock_ms())
        if op == "abort" and self._pending is not None and self._pending.generation == message.get("generation"):
            self._pending = None
        # `commit` and `facts` only wake us: the words in shared memory are what counts, and each round reads them.
        self._tick()

    def _follow(self, message: dict[str, Any]) -> None:
        """Other trust anchors than before."""
        try:
            known = worker_anchors.learned(message, self._plan.settings.resolver.negative_trust_anchors)
        except AnchorError as error:
            self._log.error("the agent's trust anchors cannot be used; the old ones stay", error=str(error))
            return
        self._flights.trust(known)

    def _probe(self, message: dict[str, Any]) -> None:
        """The agent wants to see a zone's keys."""
        ident = message.get("ident")
        zone = str(message.get("zone", "."))
        tell = functools.partial(self._probed, ident)
        worker_anchors.probe(self._flights.validating(), self._upstream, zone, self._clock_ms(), tell)

    def _probed(self, ident: object, said: dict[str, Any]) -> None:
        self._say("probed", ident=ident, **said)

    def _listen(self, message: dict[str, Any], fds: list[int]) -> None:
        """New sockets from the supervisor: an address or an interface has come."""
        number, slots = message.get("binding"), message.get("slots")
        if not isinstance(number, int) or not isinstance(slots, list):
            number, slots = -1, []
        self._reading.listen(number, slots, fds)
        self._say("listening", binding=number)

    def _prepare(self, files: TableFiles) -> None:
        served = self._installed
        try:
            table = control.map_table(files, served)
        except TableError as error:
            self._refuse(files.generation, error)
            return
        finally:
            files.close()
        self._say("ready", generation=table.generation, digest=table.digest)
        if served is not None and (served.generation, served.digest) == (table.generation, table.digest):
            self._say("active", generation=served.generation, digest=served.digest)  # an agent that came back asks
            return
        self._pending = table
        self._tick()

    def _refuse(self, generation: int, error: Exception) -> None:
        self._log.error("a table is refused", generation=generation, error=str(error))
        self._say("nack", generation=generation, errors=[str(error)])

    def _say(self, op: str, **values: Any) -> None:
        control.send(self._plan.control, {"op": op, "slot": self._slot, "pid": os.getpid(), **values})

    # --- siblings and the supervisor --------------------------------------------------------------

    def _on_event(self, fd: int, events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(fd)
        self._siblings()

    def _siblings(self) -> None:
        """Read the sockets of every slot that nobody serves, and let go of those that somebody serves again."""
        if not self._serving or self._leaving_ms:
            return
        for slot in range(self._shared.slots):
            if slot == self._slot:
                continue
            alive = self._shared.state(slot) == SERVING and not (self._orphan and self._is_gone(slot))
            if alive and slot in self._adopted:
                self._adopted.discard(slot)
                self._reading.unwatch(slot)
            elif not alive and slot not in self._adopted:
                self._adopted.add(slot)
                self._reading.watch(slot)

    def _is_gone(self, slot: int) -> bool:
        _, pid, _, beat_ms = self._shared.slot_state(slot)
        if self._now_ms - beat_ms > SILENT_MS:
            return True
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False

    def _without_supervisor(self, now_ms: int) -> None:
        """The supervisor is dead: nobody tells us about siblings any more, so we look ourselves."""
        if not self._orphan:
            self._orphan = True
            self._log.warning("the supervisor is gone; serving on until another one takes over")
        self._siblings()

    @staticmethod
    def _wake(event: int) -> None:
        with contextlib.suppress(OSError):
            os.eventfd_write(event, 1)

    # --- leaving ----------------------------------------------------------------------------------

    def _leave(self) -> None:
        """SIGTERM: take no new connections, finish what has begun.

        An orphan's sockets die with the orphans, so they leave their group first and are read until they are
        empty; otherwise the supervisor holds them for our replacement and nothing is lost.
        """
        self._leaving_ms = self._clock_ms()
        self._orphan = os.getppid() != self._plan.parent
        if not self._orphan:
            self._shared.draining(self._slot)
            for slot in (self._slot, *self._adopted):
                self._reading.unwatch(slot)
            for slot, event in enumerate(self._plan.events):
                if slot != self._slot:
                    self._wake(event)  # siblings read our sockets until the replacement does
            return
        self._reading.orphaned()

    def _drained(self) -> bool:
        waited_ms = self._now_ms - self._leaving_ms
        if waited_ms >= DRAIN_MS:
            self._flights.abandon("the server is stopping")
            self._hotpath.abandon()
            for retry in self._hotpath.handed():
                self._flights.refuse(retry, "the server is stopping")
            return True
        if len(self._flights) or self._hotpath.under_way or self._connections.busy:
            return False
        # An orphan goes on reading for a moment: packets that were on their way when it left the group.
        return not self._orphan or waited_ms >= 100

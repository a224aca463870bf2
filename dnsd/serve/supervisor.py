"""The supervisor: sockets and arenas before the fork, then fork, reap, replace.

Single thread, `selectors`, no asyncio, no threads: a fork from anything else breaks signals and epoll
of both sides. It answers no question and knows no table's contents; it keeps what must outlive a
worker (sockets with their queues, cache arenas, the newest table) and hands it to the next one.
"""

import contextlib
import dataclasses
import gc
import os
import resource
import selectors
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from dnsd.contract.settings import Settings
from dnsd.serve import control, listener, privileges, worker
from dnsd.serve.arenas import Arenas
from dnsd.serve.bindings import Bindings
from dnsd.serve.census import AlreadyRunning, Census, Process, end, start_time
from dnsd.serve.control import ControlError, TableFiles
from dnsd.serve.listener import ListenError
from dnsd.serve.privileges import PrivilegeError
from dnsd.serve.shared import SERVING, SharedMemory

QUICK_DEATH_MS = 1000  # a worker that lives shorter than this may be in a crash loop
BACKOFF_MS = (50, 500)  # first and longest pause of a crash loop
AGENT_BACKOFF_MS = (100, 5000)
SILENT_MS = 5000  # without a heartbeat a worker is stuck and is killed
AGENT_SILENT_MS = 60_000  # workers serve on without it, and a slow disk may hold it up: there is no hurry
STOP_MS = 4000  # after SIGTERM; what is left then is killed
_LOOK_MS = 1000
_RESEND_MS = 20  # a worker that did not take a message
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class CannotRun(Exception):
    """dnsd cannot start; the text is one sentence for the user."""


@dataclasses.dataclass(frozen=True, slots=True)
class Programs:
    """What the children run; tests put others in. `agent(settings, inherited)`, `hotpath(slot, counters, ring, …)`."""

    agent: Callable[[Settings, Any], int]
    inherited: Callable[..., Any]
    hotpath: Callable[..., Any]


@dataclasses.dataclass(slots=True)
class _Child:
    """One place for a process: a worker's slot, or the agent's (slot -1)."""

    slot: int
    pid: int = 0
    born_ms: int = 0
    quick_deaths: int = 0
    due_ms: int = 0  # when to fork it again, while pid is 0


def now_ms() -> int:
    """The monotonic clock in milliseconds."""
    return time.monotonic_ns() // 1_000_000


def worker_count(settings: Settings) -> int:
    """How many slots: what is written, or one per core that we may use."""
    return settings.workers or max(1, len(os.sched_getaffinity(0)))


class Supervisor:
    """One node. `run` returns the exit code; CannotRun before anything is served."""

    def __init__(
        self,
        settings: Settings,
        programs: Programs,
        log: Any,
        reload: Callable[[], Settings] | None = None,
    ) -> None:
        self._settings = settings
        self._programs = programs
        self._log = log
        self._reload = reload
        self._pid = os.getpid()
        self._slots = worker_count(settings)
        self._started_ms = now_ms()
        self._keys: str | None = None
        self._table: TableFiles | None = None
        self._anchors: tuple[str, ...] | None = None  # as the agent has followed them
        self._orphans: list[Process] = []
        self._stopping_ms = 0
        self._workers = [_Child(slot) for slot in range(self._slots)]
        self._agent = _Child(-1)
        self._looked_ms = self._started_ms

    # --- start ------------------------------------------------------------------------------------

    def run(self) -> int:
        """Prepare, fork, watch until SIGTERM."""
        self._prepare()
        try:
            self._watch_signals()
            gc.collect()
            gc.freeze()  # so that a collection in a child does not copy the pages of all that is imported
            self._fork_agent()
            for child in self._workers:
                self._fork_worker(child)
            self._log.info(
                "dnsd is up", listen=list(self._settings.listen), workers=self._slots, user=_user(), pid=self._pid
            )
            while True:
                self._turn()
                if self._stopping_ms and not self._agent.pid and not any(child.pid for child in self._workers):
                    break
        finally:
            signal.set_wakeup_fd(-1)
        self._arenas.save(time.time_ns() // 1_000_000)
        self._census.release()
        self._log.info("dnsd has stopped")
        return 0

    def _prepare(self) -> None:
        """Everything that can fail, in the order in which a failure costs least. Raises CannotRun."""
        settings = self._settings
        try:
            places = [listener.place(text, must_exist=False) for text in settings.listen]
            self._keys = self._read_keys()
            low = any(place.port < listener.unprivileged_port_start() for place in places)
            privileges.become(settings.user, low, settings.state)
            self._census = Census(settings.state)
            self._census.acquire()
            self._orphans = self._census.left_behind()
            for process in self._orphans:
                if process.role == "agent":
                    end(process)  # two agents must not share one table store
            now = [where for where in places if not where.follows and (where.device is None or where.index())]
            listener.probe(now, frozenset(process.pid for process in self._orphans))
            _raise_descriptor_limit()
            self._bindings = Bindings(places, self._slots, self._log, now_ms)
            self._bindings.open()
        except (ListenError, PrivilegeError, AlreadyRunning) as error:
            raise CannotRun(str(error)) from None
        except OSError as error:
            raise CannotRun(f"cannot start with the state directory {settings.state}: {error.strerror}") from None
        self._shared = SharedMemory(self._slots)
        self._arenas = Arenas(settings, self._slots, self._log)
        known = self._arenas.load(time.time_ns() // 1_000_000)
        if known:
            self._log.info("answers of the last run are remembered", answers=known)
        self._events = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(self._slots)]
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(self._slots)]
        self._agent_ends = [pair[0] for pair in pairs]
        self._worker_ends = [pair[1] for pair in pairs]
        self._ours, self._agents = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for sock in (*self._agent_ends, *self._worker_ends, self._ours, self._agents):
            sock.setblocking(False)
        # Questions come from now on; on a busy machine seconds may have gone by until here.
        self._started_ms = now_ms()

    def _read_keys(self) -> str | None:
        """The broker's keys, while we are still root: the user that we become may not be able to read them."""
        if self._settings.user is None or os.geteuid() != 0:
            return None
        try:
            with open(self._settings.broker.keys, encoding="utf-8") as file:
                return file.read(1 << 20)
        except (OSError, UnicodeDecodeError):
            return None  # the agent looks again, and says what is wrong

    # --- the loop ---------------------------------------------------------------------------------

    def _watch_signals(self) -> None:
        self._wake_read, self._wake_write = socket.socketpair()
        for sock in (self._wake_read, self._wake_write):
            sock.setblocking(False)
        for number in _SIGNALS:
            signal.signal(number, lambda number, frame: None)
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._selector.register(self._ours, selectors.EVENT_READ)
        kernel = self._bindings.serve(self._hand, lambda message: control.send(self._ours, message))
        if kernel >= 0:
            self._selector.register(kernel, selectors.EVENT_READ, self._bindings)

    def _turn(self) -> None:
        due_ms = self._looked_ms + _LOOK_MS
        if not self._stopping_ms:
            due_ms = min([due_ms, *(c.due_ms for c in (self._agent, *self._workers) if not c.pid)])
            if self._bindings.waiting:
                due_ms = min(due_ms, now_ms() + _RESEND_MS)
        else:
            due_ms = min(due_ms, self._stopping_ms + STOP_MS)
        for key, _ in self._selector.select(max(0, due_ms - now_ms() + 1) / 1000):
            if key.fileobj is self._wake_read:
                self._on_signals()
            elif key.data is not None:
                self._bindings.kernel_readable()
            else:
                self._on_agent()
        self._reap()
        now = now_ms()
        if not self._stopping_ms:
            for child in self._workers:
                if not child.pid and child.due_ms <= now:
                    self._fork_worker(child)
            if not self._agent.pid and self._agent.due_ms <= now:
                self._fork_agent()
        elif now - self._stopping_ms >= STOP_MS:
            self._kill_rest()
        if self._bindings.waiting:
            self._bindings.look()
        if now - self._looked_ms >= _LOOK_MS:
            late_ms = now - self._looked_ms - _LOOK_MS
            self._looked_ms = now
            if not self._stopping_ms:
                self._bindings.look()
            if late_ms < _LOOK_MS:  # we were stopped or starved ourselves: heartbeats say nothing now
                self._look(now)

    def _on_signals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in self._wake_read.recv(4096):
                if number in (signal.SIGTERM, signal.SIGINT):
                    self._stop(signal.Signals(number).name)
                elif number == signal.SIGHUP:
                    self._hang_up()

    def _on_agent(self) -> None:
        while True:
            try:
                received = control.receive(self._ours)
                if received is None:
                    return
                message, fds = received
                if message["op"] == "anchors" and isinstance(message.get("lines"), list):
                    self._anchors = tuple(map(str, message["lines"]))
                if message["op"] != "table":
                    for fd in fds:
                        os.close(fd)
                    continue
                table = control.table_files(message, fds)
            except ControlError as error:
                self._log.error("the agent sent what is no table", error=str(error))
                continue
            except (EOFError, OSError):
                return
            old, self._table = self._table, table
            if old is not None:
                old.close()

    def _look(self, now: int) -> None:
        """Once a second: who is silent, and are our own workers ready to take over from orphans?"""
        for child in self._workers:
            if child.pid:
                silent_ms = now - self._shared.slot_state(child.slot)[3]
                if silent_ms > SILENT_MS:
                    self._log.error("a worker is stuck and is replaced", slot=child.slot, pid=child.pid, ms=silent_ms)
                    _signal(child.pid, signal.SIGKILL)
        beat_ms = int(self._shared.agent_beat[0])  # 0: it is still beginning
        if self._agent.pid and beat_ms and now - beat_ms > AGENT_SILENT_MS:
            self._log.error("the agent is stuck and is replaced", pid=self._agent.pid, ms=now - beat_ms)
            _signal(self._agent.pid, signal.SIGKILL)
        if self._orphans:
            self._orphans = [process for process in self._orphans if start_time(process.pid) == process.started]
            if all(self._shared.state(slot) == SERVING for slot in range(self._slots)):
                for process in self._orphans:
                    end(process)
            self._write_census()

    def _hand(self, slot: int, message: dict[str, Any], fds: Sequence[int]) -> bool:
        """Pass a message to a slot's worker, on the agent's end of its pair; one not forked yet inherits all."""
        return not self._workers[slot].pid or control.send(self._agent_ends[slot], message, fds)

    # --- children ---------------------------------------------------------------------------------

    def _fork(self) -> int:
        """Fork with our signals blocked, so that the child never writes into our wake-up pipe."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
        except OSError as error:
            self._log.error("cannot fork", error=error.strerror)
            pid = -1
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            self._selector.close()
            self._wake_read.close()
            self._wake_write.close()
            self._census.forget()
            self._bindings.forked()
        else:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        return pid

    def _fork_worker(self, child: _Child) -> None:
        slot = child.slot
        # Before the fork, so that child and parent never write the slot at the same time; the child adds its pid.
        self._shared.starting(slot, 0, now_ms())
        pid = self._fork()
        if pid == 0:
            self._be(lambda: self._worker_main(slot))
        self._forked(child, pid)
        if pid > 0:
            self._write_census()

    def _worker_main(self, slot: int) -> int:
        self._shared.starting(slot, os.getpid(), now_ms())
        for other, sock in enumerate(self._worker_ends):
            if other != slot:
                sock.close()
        for sock in (*self._agent_ends, self._ours, self._agents):
            sock.close()
        privileges.drop_all()
        settings = self._settings
        if self._anchors is not None:
            resolver = dataclasses.replace(settings.resolver, trust_anchors=self._anchors)
            settings = dataclasses.replace(settings, resolver=resolver)
        plan = worker.WorkerPlan(
            slot=slot, settings=settings, shared=self._shared, sockets=self._bindings.sockets,
            control=self._worker_ends[slot], events=self._events, arena=self._arenas.arenas[slot], table=self._table,
            parent=self._pid, started_ms=self._started_ms, log=self._log.bind(process="worker", slot=slot),
            hotpath=self._programs.hotpath,
        )  # fmt: skip
        return worker.run(plan)

    def _fork_agent(self) -> None:
        self._shared.agent_beat[0] = 0
        pid = self._fork()
        if pid == 0:
            self._be(self._agent_main)
        self._forked(self._agent, pid)
        if pid > 0:
            self._write_census()

    def _agent_main(self) -> int:
        self._ours.close()
        if os.geteuid() != 0:
            privileges.drop_all()
        close = [sock for slot in self._bindings.sockets for sock in (*slot.udp, *slot.tcp)] + self._worker_ends
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        inherited = self._programs.inherited(
            workers=self._agent_ends, supervisor=self._agents, shared=self._shared, supervisor_pid=self._pid,
            listen=self._settings.listen, close=close, keys=self._keys,
        )  # fmt: skip
        return self._programs.agent(self._settings, inherited)

    def _be(self, main: Callable[[], int]) -> None:
        """Run a child's program and end the process; never returns."""
        code = 1
        try:
            code = main()
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException:
            self._log.bind(pid=os.getpid()).error("a process died of a fault", exc_info=True)
        finally:
            os._exit(code)

    def _forked(self, child: _Child, pid: int) -> None:
        child.born_ms = now_ms()
        if pid > 0:
            child.pid = pid
        else:
            child.due_ms = child.born_ms + BACKOFF_MS[1]

    def _reap(self) -> None:
        """Collect every child that has ended; as PID 1 also strangers."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._agent.pid:
                self._lost(self._agent, status, AGENT_BACKOFF_MS, 0)
            for child in self._workers:
                if pid == child.pid:
                    self._shared.dead(child.slot)
                    self._wake_siblings(child.slot)
                    self._lost(child, status, BACKOFF_MS, 1)

    def _lost(self, child: _Child, status: int, backoff_ms: tuple[int, int], free: int) -> None:
        """Decide when to fork again: at once, and with growing pauses from the death after `free` quick ones."""
        now = now_ms()
        pid, child.pid = child.pid, 0
        child.quick_deaths = child.quick_deaths + 1 if now - child.born_ms < QUICK_DEATH_MS else 0
        over = child.quick_deaths - free
        pause_ms = 0 if over <= 0 else min(backoff_ms[0] << min(over - 1, 10), backoff_ms[1])
        child.due_ms = now + pause_ms
        if not self._stopping_ms:
            what = "the agent" if child.slot < 0 else f"worker {child.slot}"
            self._log.warning(f"{what} ended and is replaced", pid=pid, how=_how(status), pause_ms=pause_ms)

    def _wake_siblings(self, slot: int) -> None:
        for other, event in enumerate(self._events):
            if other != slot:
                with contextlib.suppress(OSError):
                    os.eventfd_write(event, 1)

    def _write_census(self) -> None:
        rows = list(self._orphans)
        for role, child in [("agent", self._agent), *(("worker", child) for child in self._workers)]:
            started = start_time(child.pid) if child.pid else None
            if started is not None:
                rows.append(Process(role, child.pid, started))
        try:
            self._census.write(rows)
        except OSError as error:
            self._log.error("the list of our processes cannot be written", error=error.strerror)

    # --- signals ----------------------------------------------------------------------------------

    def _stop(self, why: str) -> None:
        if self._stopping_ms:
            return
        self._stopping_ms = now_ms()
        self._log.info("stopping", signal=why)
        for process in self._orphans:
            end(process)
        for child in (self._agent, *self._workers):
            if child.pid:
                _signal(child.pid, signal.SIGTERM)

    def _kill_rest(self) -> None:
        for child in (self._agent, *self._workers):
            if child.pid:
                self._log.error("a process did not stop and is killed", pid=child.pid)
                _signal(child.pid, signal.SIGKILL)

    def _hang_up(self) -> None:
        """SIGHUP: read the settings again; take what can be taken, name what needs a restart, lose nothing."""
        if self._reload is None:
            self._log.info("SIGHUP: there is no settings file to read again")
            return
        try:
            new = self._reload()
        except Exception as error:
            self._log.error("SIGHUP: the settings are refused and the old ones stay", error=str(error))
            return
        fixed = [
            key for key in ("listen", "workers", "user", "state", "cache", "resolver")
            if getattr(new, key) != getattr(self._settings, key)
        ]  # fmt: skip
        if fixed:
            self._log.warning("SIGHUP: these settings need a restart", keys=fixed)
        kept = {key: getattr(self._settings, key) for key in fixed}
        new = dataclasses.replace(new, **kept)
        if new == self._settings:
            self._log.info("SIGHUP: no setting that can be changed while running is different")
            return
        self._settings = new
        self._log.info("SIGHUP: new settings; the agent starts again with them, workers serve on")
        if self._agent.pid:
            _signal(self._agent.pid, signal.SIGTERM)


def _raise_descriptor_limit() -> None:
    """Clients over TCP and pools of upstream sockets need more than the usual 1024 descriptors."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    want = 65536 if most == resource.RLIM_INFINITY else min(65536, most)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (want, most))


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit code {os.WEXITSTATUS(status)}"


def _user() -> str:
    return privileges.user_name(os.geteuid())

"""Which processes of this node are alive: `state/dnsd.lock` and `state/dnsd.pids`.

A supervisor that starts finds the workers that an earlier one left behind, and takes over from them.
A pid is believed only together with its start time, because pids are used again. The lock is a POSIX
record lock: it belongs to the supervisor alone, its children do not inherit it, and it dies with it.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import signal
import struct
from typing import Any

_LOCK = "dnsd.lock"
_PIDS = "dnsd.pids"


@dataclasses.dataclass(frozen=True, slots=True)
class Process:
    """A process of ours: its role ("agent" or "worker"), pid and start time in clock ticks since boot."""

    role: str
    pid: int
    started: int


class AlreadyRunning(Exception):
    """Another supervisor uses this state directory; the text is one sentence for the user."""


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (proc(5)); None when it is gone or only a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else int(fields[19])
    except (OSError, IndexError, ValueError):
        return None


class Census:
    """The lock and the list of one state directory."""

    def __init__(self, state: str) -> None:
        self._path = os.path.join(state, _PIDS)
        self._lock_path = os.path.join(state, _LOCK)
        self._lock_fd = -1
        self._boot = _boot_id()

    def acquire(self) -> None:
        """Become the one supervisor of this state directory; raises AlreadyRunning or OSError."""
        fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = self._holder(fd)
            os.close(fd)
            who = f" (pid {pid})" if pid else ""
            raise AlreadyRunning(
                f"another dnsd{who} already runs with the state directory {os.path.dirname(self._path)}; "
                "stop it first, or give this one its own `state`"
            ) from None
        self._lock_fd = fd

    def release(self) -> None:
        """Leave: the list is empty, the lock is free. Only after every process has ended."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def forget(self) -> None:
        """In a forked child: close the inherited descriptor; the lock is not the child's."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def left_behind(self) -> list[Process]:
        """The processes of an earlier supervisor that are still alive, each verified by its start time."""
        try:
            with open(self._path, encoding="utf-8") as file:
                document: Any = json.load(file)
            if document["boot"] != self._boot:
                return []
            rows = [Process(str(row["role"]), int(row["pid"]), int(row["started"])) for row in document["processes"]]
        except (OSError, ValueError, KeyError, TypeError):
            return []
        return [row for row in rows if row.pid > 1 and row.started == start_time(row.pid)]

    def write(self, processes: list[Process]) -> None:
        """Replace the list whole; a full disk costs only the takeover after a crash, so OSError is passed on."""
        document = {
            "boot": self._boot,
            "supervisor": os.getpid(),
            "processes": [dataclasses.asdict(process) for process in processes],
        }
        temporary = f"{self._path}.new"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(document, file)
        os.replace(temporary, self._path)

    @staticmethod
    def _holder(fd: int) -> int:
        # struct flock on 64-bit Linux: type, whence, start, len, pid.
        layout = "hhqqi4x"
        query = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        try:
            return int(struct.unpack(layout, fcntl.fcntl(fd, fcntl.F_GETLK, query))[4])
        except (OSError, struct.error):
            return 0


def end(process: Process, number: signal.Signals = signal.SIGTERM) -> bool:
    """Send a signal to a process that is still the one that was written down; False when it is gone."""
    if start_time(process.pid) != process.started:
        return False
    try:
        os.kill(process.pid, number)
    except OSError:
        return False
    return True


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""

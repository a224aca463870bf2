"""Processes on one core, load on the other, and what the load cost: CPU time, memory, latency.

Rule: a server's cost is that of its whole process tree, read from the kernel's own clocks, never from wall time.
"""

from __future__ import annotations

import array
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Any

from data import CASES
from servers import ECHO, ROOT

SERVER_CORE, CLIENT_CORE = "0", "1"
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def pause(seconds: float) -> None:
    """Wait without a wall clock."""
    select.select([], [], [], seconds)


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait until a condition holds; its value. SystemExit after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"bench: {what} did not happen within {seconds:g} s")
        pause(0.01)
    return value


# --- processes --------------------------------------------------------------------------------------------------------


def tree(root: int) -> list[int]:
    """A process and all its descendants, alive now."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                stat = pathlib.Path(f"/proc/{entry}/stat").read_text()
                children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
    found, pending = [], [root]
    while pending:
        found.append(pending.pop())
        pending += children.get(found[-1], [])
    return found


def cpu_us(root: int) -> dict[int, float]:
    """User plus system time of each process of a tree, all its threads and its children that have ended, in µs."""
    out = {}
    for pid in tree(root):
        with contextlib.suppress(OSError):
            # The CPU clock of another process (clock_getcpuclockid(3)): nanoseconds, where /proc has ticks of 10 ms.
            own = time.clock_gettime((~pid << 3) | 2)
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            out[pid] = 1e6 * (own + (int(fields[13]) + int(fields[14])) * _TICK_S)
    return out


def title(pid: int) -> str:
    """What to call a process: its command line, shortened."""
    with contextlib.suppress(OSError):
        line = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return line[-80:]
    return "ended"


@dataclasses.dataclass(slots=True)
class Mapped:
    """One mapping of a process: the kernel's name (`private` without one), its size and its PSS in KiB."""

    name: str
    size: int = 0
    pss: int = 0

    def is_shared(self, least_kib: int) -> bool:
        """Shared anonymous memory of at least this size (a cache arena; the page of counters is smaller)."""
        return self.name.startswith("/dev/zero") and self.size >= least_kib


def memory_kib(pid: int) -> list[Mapped]:
    """What a process has mapped; nothing when it has ended."""
    out: list[Mapped] = []
    with contextlib.suppress(OSError):
        for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
            words = line.split(None, 5)
            if not words[0].endswith(":"):
                out.append(Mapped(words[5] if len(words) > 5 else "private"))
            elif words[0] == "Size:":
                out[-1].size = int(words[1])
            elif words[0] == "Pss:":
                out[-1].pss = int(words[1])
    return out


class Processes:
    """What was started, each with its log; all of it ends with `close`, by id."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.started: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, words: list[str], cores: str) -> int:
        """Start a server on these cores (as taskset writes them), its output in a file; its pid."""
        environ = {key: value for key, value in os.environ.items() if not key.startswith("NEXORALDNS_")}
        with open(self.folder / f"{name}.log", "wb") as out:
            self.started[name] = subprocess.Popen(
                ["taskset", "-c", cores, *words],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=ROOT, env=environ, start_new_session=True,
            )  # fmt: skip
        return self.started[name].pid

    def alive(self, name: str) -> bool:
        return self.started[name].poll() is None

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-3000:]

    def end(self, name: str) -> None:
        """End a server and everything that it started."""
        process = self.started.pop(name)
        if process.poll() is None:
            members = tree(process.pid)
            process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 6
            while process.poll() is None and time.monotonic() < deadline:
                pause(0.02)
            for member in members:
                with contextlib.suppress(OSError):
                    os.kill(member, signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        for name in list(self.started):
            self.end(name)


# --- questions --------------------------------------------------------------------------------------------------------


def ask(port: int, name: str, timeout_s: float = 0.3) -> tuple[int, list[str]] | None:
    """The rcode and the A records of one question; None when nothing comes back."""
    wire = b"".join(bytes((len(part),)) + part.encode() for part in name.split(".")) + b"\0"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(timeout_s)
        try:
            asker.connect(("127.0.0.1", port))
            asker.send(struct.pack("!HHHHHH", random.randrange(65536), 0x0100, 1, 0, 0, 0) + wire + b"\0\1\0\1")
            reply = asker.recv(4096)
        except OSError:
            return None
    found = []
    at = 12 + len(wire) + 4
    for _ in range(int.from_bytes(reply[6:8], "big")):
        while reply[at] and reply[at] < 192:
            at += reply[at] + 1
        at += 2 if reply[at] else 1
        kind, size = int.from_bytes(reply[at : at + 2], "big"), int.from_bytes(reply[at + 8 : at + 10], "big")
        if kind == 1:
            found.append(socket.inet_ntoa(reply[at + 10 : at + 14]))
        at += 10 + size
    return reply[3] & 15, found


@dataclasses.dataclass(frozen=True, slots=True)
class Latency:
    """Of one paced run: when each question was sent (monotonic, s) and how long its answer took (s; -1: never)."""

    sent: array.array[float]
    took: array.array[float]

    def quantile(self, q: float, begin: float = 0.0, end: float = float("inf")) -> float:
        """In µs, of the answered questions sent between two moments; nan without any."""
        both = zip(self.sent, self.took, strict=True)
        some = sorted(took for sent, took in both if begin <= sent <= end and took >= 0)
        return 1e6 * some[min(int(q * len(some)), len(some) - 1)] if some else float("nan")


class Client:
    """The load client, compiled; it runs on its own core."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.program = folder / "client"
        self.seed = 0
        subprocess.run(["cc", "-O2", "-o", str(self.program), str(ROOT / "bench/client.c")], check=True)

    def words(self, port: int, packets: pathlib.Path, seconds: float, window: int, sockets: int) -> list[str]:
        self.seed = self.seed % 4000 + 1
        return [
            str(self.program), str(port), str(packets), str(seconds), str(window), str(sockets), CLIENT_CORE,
            str(self.seed),
        ]  # fmt: skip

    def load(
        self, port: int, packets: pathlib.Path, seconds: float, window: int = 128, sockets: int = 8
    ) -> dict[str, Any]:
        """A closed loop; what came back."""
        words = self.words(port, packets, seconds, window, sockets)
        ran = subprocess.run(words, capture_output=True, text=True, check=True)
        found: dict[str, Any] = json.loads(ran.stdout)
        return found

    def paced(self, port: int, packets: pathlib.Path, seconds: float, rate: int) -> Paced:
        """Start an open loop: so many questions a second, whatever comes back."""
        words = self.words(port, packets, seconds, 1, 8)
        return Paced([*words, str(rate), str(self.folder / "records")], self.folder / "records")


class Paced:
    """An open loop under way; `finish` waits for it."""

    def __init__(self, words: list[str], records: pathlib.Path) -> None:
        self.records = records
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)

    def finish(self) -> tuple[dict[str, Any], Latency]:
        text, _ = self.process.communicate()
        if self.process.returncode:
            raise SystemExit("bench: the client failed")
        both = array.array("d", self.records.read_bytes())
        return json.loads(text), Latency(both[::2], both[1::2])


def check(client: Client, name: str, port: int, case: str, packets: pathlib.Path) -> None:
    """Ask everything once and see that the answers are right; SystemExit otherwise."""
    if name == ECHO:
        return
    seen: dict[str, Any] = {}
    wanted = CASES[case]
    for _ in range(3):  # the first fills the cache, and may be too much for a server that has never been asked
        seen = client.load(port, packets, 0, window=64)
        right = wanted.rcode is None or seen["rcodes"] == {str(wanted.rcode): seen["answered"]}
        right = right and (wanted.records is None or seen["records"] == wanted.records * seen["answered"])
        if right and seen["lost"] <= 0.01 * seen["sent"]:
            return
    raise SystemExit(f"bench: {name} answers {case} wrongly: {seen}")


def cost(pid: int, run: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """What a run of the client cost a server: µs of CPU for each answer, in all and by process."""
    before = cpu_us(pid)
    seen = run()
    after = cpu_us(pid)
    spent = {member: after[member] - before.get(member, 0.0) for member in after}
    answered = max(1, int(seen["answered"]))
    parts = {f"{member} {title(member)}": round(used / answered, 3) for member, used in spent.items() if used > 100}
    return {"us": sum(spent.values()) / answered, "parts": parts, **seen}

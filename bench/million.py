#!/usr/bin/env python3
"""How long a million blocked names take, from text to serving, and what they weigh: ours beside Unbound.

    python bench/million.py [--names 1000000] [--edits 5] [--large]      figures as JSON on standard output

Measured: Unbound from its start to its first right answer; ours from its start, from the moment a list is saved to the
moment every worker answers from it, and the same for a one-line rule beside it; the size of the table; the memory of
each worker without the table and the cache arena (PSS), with these names and with none. `--large` takes 5,000,000
names, 1,000 rules, 300 groups and 10,000 records. Everything is on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import statistics
import string
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
OURS, PAGE, BROKER, UNBOUND = 15502, 15522, 15512, 15503
CLIENTS = 24  # sockets, so source ports: enough to reach every worker
WORKERS = 2
NXDOMAIN = 3


def names(count: int) -> list[str]:
    """Distinct names of the usual length and shape, the same in every run."""
    rng = random.Random(1)
    words = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(3, 9))) for _ in range(20_000)]
    ends = ("com", "net", "org", "info", "io")
    return [f"{words[i % 20_000]}{i:x}.{words[i * 7919 % 20_000]}.{ends[i % 5]}" for i in range(count)]


def query(name: str) -> bytes:
    """A question for A."""
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    return struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", 1, 1)


def rcodes(port: int, name: str, clients: int = CLIENTS) -> list[int]:
    """The rcode that each of so many sockets gets; -1 for none in time."""
    found = []
    socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(clients)]
    try:
        for sock in socks:
            sock.settimeout(0.05)
            sock.connect(("127.0.0.1", port))
            with contextlib.suppress(OSError):
                sock.send(query(name))
        for sock in socks:
            try:
                found.append(sock.recv(4096)[3] & 15)
            except OSError:
                found.append(-1)
                break  # not there yet: no need to wait for the others
    finally:
        for sock in socks:
            sock.close()
    return found


def until(condition: Callable[[], bool], begun: float, seconds: float, what: str) -> float:
    """Seconds since `begun` when the condition holds."""
    while not condition():
        if time.monotonic() - begun > seconds:
            raise SystemExit(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(0.005)
    return time.monotonic() - begun


def blocked(port: int, name: str, clients: int = CLIENTS) -> bool:
    """Whether every worker blocks this name."""
    found = rcodes(port, name, clients)
    return len(found) == clients and set(found) == {NXDOMAIN}


@contextlib.contextmanager
def running(words: list[str], folder: pathlib.Path, log: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server, ended with the block."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (folder / log).open("wb") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file, cwd=folder, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def unbound(folder: pathlib.Path, listed: list[str]) -> float:
    """Seconds from Unbound's start to its first right answer."""
    program = shutil.which("unbound", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        raise SystemExit("unbound is not installed: sudo apt-get install unbound")
    zones = "".join(f'    local-zone: "{name}" always_nxdomain\n' for name in listed)
    (folder / "unbound.conf").write_text(
        f"""server:
    directory: "{folder}"
    chroot: ""
    username: ""
    pidfile: ""
    interface: 127.0.0.1
    port: {UNBOUND}
    num-threads: {WORKERS}
    so-reuseport: yes
    do-daemonize: no
    use-syslog: no
    access-control: 127.0.0.0/8 allow
    module-config: iterator
{zones}remote-control:
    control-enable: no
"""
    )
    begun = time.monotonic()
    with running([program, "-c", str(folder / "unbound.conf")], folder, "unbound.log"):
        return until(lambda: blocked(UNBOUND, listed[-1], 1), begun, 120, "Unbound's first answer")


def rules(large: bool, edit: int, with_list: bool) -> str:
    """The rule file; `edit` is the line that changes."""
    lines = ["version: 1"]
    if with_list:
        lines += ["lists:", "  blocked: {file: blocked.hosts, format: hosts}"]
    if large:
        lines += ["groups:", *(f"  g{i}: {{members: [10.{i // 200}.{i % 200}.0/24]}}" for i in range(300))]
    lines += ["rules:", f"  - {{name: edited, block: [edit{edit}.example.net]}}"]
    if with_list:
        lines += ["  - {name: blocked, block: [list:blocked]}"]
    if large:
        lines += [f"  - {{name: r{i}, block: [r{i}.example.org], for: [g{i % 300}]}}" for i in range(1000)]
        lines += ["zones:", "  office.test:", "    records:"]
        lines += [f"      h{i}: 10.9.{i // 250}.{i % 250 + 1}" for i in range(10_000)]
    return "\n".join(lines) + "\n"


def save(path: pathlib.Path, text: str) -> float:
    """Save as editors do; the moment."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    fresh.rename(path)
    return time.monotonic()


def status() -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{PAGE}/api/v1/status", timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def weigh() -> dict[str, float]:
    """The heaviest worker, in MiB of PSS: the table's sealed memory, shared memory (arenas, facts), and the rest."""
    heaviest: dict[str, float] = {}
    for worker in (worker for node in status()["nodes"] for worker in node["workers"]):
        weight = {"table": 0.0, "shared": 0.0, "own": 0.0}
        kind = "own"
        for line in pathlib.Path(f"/proc/{worker['pid']}/smaps").read_text().splitlines():
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                shared = "/dev/zero" in line or "/memfd:" in line
                kind = "table" if "memfd:nexoraldns" in line else "shared" if shared else "own"
            elif line.startswith("Pss:"):
                weight[kind] += int(line.split()[1]) / 1024
        if weight["own"] >= heaviest.get("own", 0):
            heaviest = {key: round(value, 1) for key, value in weight.items()}
    return heaviest


def ours(folder: pathlib.Path, listed: list[str], edits: int, large: bool) -> dict[str, Any]:
    """Everything that is measured of ours."""
    source = folder / "rules.d"
    source.mkdir()
    save(source / "rules.yaml", rules(large, 0, False))
    (folder / "node.yaml").write_text(
        json.dumps({
            "listen": [f"127.0.0.1:{OURS}"], "workers": WORKERS, "source": {"directory": str(source)},
            "broker": {"listen": f"127.0.0.1:{BROKER}", "connect": f"127.0.0.1:{BROKER}"},
            "status": {"listen": f"127.0.0.1:{PAGE}"}, "state": str(folder / "state"),
        })
    )  # fmt: skip
    words = [sys.executable, "-m", "controller.cli", "run", "--config", str(folder / "node.yaml")]
    figures: dict[str, Any] = {}
    begun = time.monotonic()
    with running(words, folder, "nexoraldns.log"):
        until(lambda: blocked(OURS, "edit0.example.net"), begun, 60, "our first answer")
        time.sleep(3)
        figures["worker_mib_without_names"] = weigh()
        (source / "blocked.hosts").write_text("".join(f"0.0.0.0 {name}\n" for name in listed))
        begun = save(source / "rules.yaml", rules(large, 0, True))
        figures["list_to_served_s"] = until(lambda: blocked(OURS, listed[-1]), begun, 300, "serving the list")
        time.sleep(4)
        took = []
        for edit in range(1, edits + 1):
            begun = save(source / "rules.yaml", rules(large, edit, True))
            name = f"edit{edit}.example.net"
            took.append(until(lambda name=name: blocked(OURS, name), begun, 60, "serving the edit"))  # type: ignore[misc]
            time.sleep(2)
        figures["edit_to_served_s"] = statistics.median(took)
        figures["edits_s"] = [round(value, 3) for value in took]
        figures["worker_mib"] = weigh()
        tables = [path.stat().st_size for path in (folder / "state" / "tables").iterdir() if len(path.name) == 64]
        figures["table_mib"] = round(max(tables) / 2**20, 1)
        history = (folder / "state" / "history.jsonl").read_text().splitlines()
        figures["steps_of_the_last_edit_ms"] = json.loads(history[-1]).get("steps") if history else None
    begun = time.monotonic()
    with running(words, folder, "again.log"):
        figures["start_from_disk_s"] = until(lambda: blocked(OURS, listed[-1]), begun, 60, "serving from disk")
    shutil.rmtree(folder / "state")
    begun = time.monotonic()
    with running(words, folder, "fresh.log"):
        figures["start_from_text_s"] = until(lambda: blocked(OURS, listed[-1]), begun, 300, "serving from text")
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", type=int, default=1_000_000)
    parser.add_argument("--edits", type=int, default=5)
    parser.add_argument("--large", action="store_true", help="5,000,000 names, 1,000 rules, 300 groups, 10,000 records")
    parser.add_argument("--without-unbound", action="store_true")
    options = parser.parse_args()
    count = 5_000_000 if options.large else options.names
    listed = names(count)
    with tempfile.TemporaryDirectory(prefix="nexoraldns-million-") as place:
        folder = pathlib.Path(place)
        figures = {"names": count, "load": os.getloadavg(), "ours": ours(folder, listed, options.edits, options.large)}
        if not options.without_unbound:
            figures["unbound_start_s"] = round(unbound(folder, listed), 3)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()

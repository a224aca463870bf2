"""Ours alone: does the cost grow with the rules, what memory is it, what does an edit cost those who ask meanwhile?"""

from __future__ import annotations

import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from typing import Any

import data
from compare import knot
from data import CASES, Data
from measure import (
    CLIENT_CORE,
    SERVER_CORE,
    Client,
    Processes,
    ask,
    check,
    cost,
    memory_kib,
    pause,
    tree,
    until,
)
from servers import ECHO, ROOT, Office, Server, one_line, ours

BOTH = f"{SERVER_CORE},{CLIENT_CORE}"
SMALL, MILLION, LARGE = 1_000, 1_000_000, 5_000_000
FLAT_CASES = ("miss", "blocked", "below", "local")
RATE = 5_000
EDITS = 3  # in one round


class Node:
    """One of our nodes, started over its own data."""

    def __init__(self, processes: Processes, name: str, given: Data, office: Office, cores: str) -> None:
        self.name, self.given, self.office, self.cores = name, given, office, cores
        self.processes = processes
        self.folder = processes.folder / name
        self.folder.mkdir()
        self.edits = 0
        words = ours(self.folder, given, office)
        begin = time.monotonic()
        self.pid = processes.start(name, words, BOTH)
        self.wait(given.blocked[-1], (3, []), 300)
        self.started_s = time.monotonic() - begin
        pause(0.5)  # reports of the workers' states
        for member in tree(self.pid):
            # Every thread: children and threads to come inherit it.
            subprocess.run(["taskset", "-acp", cores, str(member)], check=False, capture_output=True)

    def wait(self, name: str, answer: tuple[int, list[str]], seconds: float = 30) -> float:
        """Until so many askers in a row (each with a port of its own) get this answer; the moment of the first."""

        def served() -> bool:
            if not self.processes.alive(self.name):
                raise SystemExit(f"bench: {self.name} ended\n{self.processes.log(self.name)}")
            if '"event": "refused"' in self.processes.log(self.name):
                raise SystemExit("its rules are refused")
            return ask(self.office.port, name) == answer

        first = 0.0
        asked = 0
        while asked < 8 * self.office.workers:
            if ask(self.office.port, name) == answer:
                asked += 1
                continue
            asked = 0
            try:
                until(served, seconds, f"{self.name}: {name} {answer}")
            except SystemExit as error:
                seen = ask(self.office.port, name)
                raise SystemExit(f"{error}; the answer is {seen}\n{self.processes.log(self.name)}") from None
            first = time.monotonic()
        return first or time.monotonic()

    def status(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.office.port + 200}/api/v1/status", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def workers(self) -> list[dict[str, Any]]:
        return [worker for node in self.status()["nodes"] for worker in node["workers"]]

    def edit(self) -> tuple[float, float]:
        """Save a file with one other line; when it was saved and when it was served (monotonic)."""
        self.edits += 1
        path = self.folder / "rules.d/line.yaml"
        fresh = path.with_name(".line.yaml.new")
        fresh.write_text(one_line(self.edits))
        fresh.rename(path)
        saved = time.monotonic()
        return saved, self.wait("line.edit.test", (0, [f"10.255.{self.edits >> 8}.{self.edits & 255}"]))

    def memory(self) -> dict[str, Any]:
        """MiB: the table once, and of each worker the PSS without table and cache arena."""
        table: dict[str, float] = {}
        each = []
        for worker in self.workers():
            mapped = memory_kib(worker["pid"])
            own = [m.pss for m in mapped if not m.name.startswith("/memfd:") and not m.is_shared(8 << 10)]
            each.append(sum(own) / 1024)
            table = {m.name.split()[0]: m.size / 1024 for m in mapped if m.name.startswith("/memfd:nexoraldns-")}
        return {"node": self.name, "names": len(self.given.blocked), "table_mib": table, "workers_mib": each}


def flat(nodes: list[Node], client: Client, packets: dict[str, pathlib.Path], seconds: float, turn: int) -> list[Any]:
    """One round of the same questions to nodes with few and with many rules."""
    out = []
    for case in FLAT_CASES:
        for node in nodes:
            where = packets[node.name]
            for warm in CASES[case].warm:
                client.load(node.office.port, where / warm, 0, window=64)
            port, asked = node.office.port, where / case
            seen = cost(node.pid, lambda port=port, asked=asked: client.load(port, asked, seconds))
            out.append({"node": node.name, "case": case, "round": turn, **seen})
    return out


def swaps(node: Node, client: Client, packets: pathlib.Path, turn: int) -> dict[str, Any]:
    """Edits while questions come in at a steady rate: what was lost, how long answers took before and meanwhile."""
    quiet, apart = 1.0, 0.8
    begin = time.monotonic()
    paced = client.paced(node.office.port, packets / "blocked", quiet + EDITS * apart + 0.5, RATE)
    pause(quiet)
    windows = []
    for number in range(EDITS):
        windows.append(node.edit())
        pause(max(0.0, begin + quiet + (number + 1) * apart - time.monotonic()))
    seen, latency = paced.finish()
    during = [latency.quantile(0.99, saved, served + 0.1) for saved, served in windows]
    return {
        "round": turn, "lost": seen["lost"], "sent": seen["sent"], "edits": EDITS,
        "before_p99": latency.quantile(0.99, begin + 0.2, windows[0][0]), "during_p99": statistics.median(during),
        "swap_p99": statistics.median(latency.quantile(0.99, served - 0.05, served + 0.05) for _, served in windows),
        "worst": max(latency.took), "served_s": [served - saved for saved, served in windows],
    }  # fmt: skip


def shares(node: Node, client: Client, packets: pathlib.Path, seconds: float, turn: int) -> dict[str, Any]:
    """Two workers and 200 client ports: µs for each answer, and what each slot's share of the questions was."""

    def settled() -> dict[int, int]:
        """The workers' counts, once the reports have caught up."""
        before: dict[int, int] = {}
        while True:
            now = {worker["slot"]: worker["queries"] for worker in node.workers()}
            if now == before:
                return now
            before = now
            pause(1.1)

    for _ in range(10):  # each slot has its own cache, and other ports meet other slots
        client.load(node.office.port, packets / "cached", 0, window=200, sockets=200)
    before = settled()
    seen = cost(node.pid, lambda: client.load(node.office.port, packets / "cached", seconds, window=200, sockets=200))
    after = settled()
    asked = [after[slot] - before.get(slot, 0) for slot in sorted(after)]
    return {"round": turn, "shares": [n / max(1, sum(asked)) * len(asked) for n in asked], **seen}


def run(folder: pathlib.Path, client: Client, rounds: int, seconds: float, large: int = LARGE) -> dict[str, Any]:
    """All of it, rounds interleaved; every single measurement."""
    processes = Processes(folder)
    out: dict[str, Any] = {"flat": [], "swaps": [], "shares": [], "memory": [], "started_s": {}}
    packets: dict[str, pathlib.Path] = {}
    nodes: dict[str, Node] = {}

    def add(name: str, blocked: int, local: int, office: Office, cores: str = SERVER_CORE) -> None:
        given = data.make(blocked, local)
        packets[name] = folder / f"packets-{name}"
        data.write_packets(packets[name], given)
        nodes[name] = Node(processes, name, given, office, cores)
        for case in (*FLAT_CASES, "cached"):
            check(client, name, office.port, case, packets[name] / case)
        out["started_s"][name] = nodes[name].started_s
        print(f"{name}: {blocked:,} names, serving after {nodes[name].started_s:.1f} s", file=sys.stderr)

    try:
        with knot(folder, data.make(SMALL)):
            add("small", SMALL, 1000, Office(port=17310))
            add("two", SMALL, 1000, Office(port=17311, workers=2))
            add("million", MILLION, 1000, Office(port=17312))
            add("large", large, 10_000, Office(port=17313, rules=1000, groups=300, lists=5))
            out["large"] = {"names": large, "rules": 1000, "groups": 300, "records": 10_000}
            for turn in range(rounds):
                out["flat"] += flat([nodes["small"], nodes["million"], nodes["large"]], client, packets, seconds, turn)
                one = cost(
                    nodes["small"].pid,
                    lambda: client.load(17310, packets["small"] / "cached", seconds, window=200, sockets=200),
                )
                two = shares(nodes["two"], client, packets["two"], seconds, turn)
                out["shares"].append({"one_us": one["us"], **two})
                out["swaps"].append(swaps(nodes["million"], client, packets["million"], turn))
                print(f"ours: round {turn + 1} of {rounds}", file=sys.stderr)
            out["memory"] = [node.memory() for node in nodes.values()]
    finally:
        processes.close()
    return out


# --- a million names --------------------------------------------------------------------------------------------------


def million(rounds: int) -> list[dict[str, Any]]:
    """What `million.py` says, each round anew: text to serving, a one-line edit, Unbound's start."""
    out = []
    for turn in range(rounds):
        words = [sys.executable, str(ROOT / "bench/million.py"), "--names", str(MILLION), "--edits", "3"]
        ran = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
        out.append(json.loads(ran.stdout))
        print(f"a million names: round {turn + 1} of {rounds}", file=sys.stderr)
    return out


def starts(folder: pathlib.Path, chosen: tuple[Server, ...]) -> list[dict[str, Any]]:
    """Everybody starts once with a million names, one after the other, on both cores: s until right, MiB of PSS."""
    given = data.make(MILLION)
    local, right = next(iter(given.local.items()))
    out: list[dict[str, Any]] = []
    with knot(folder, given):
        for server in chosen:
            if server.name == ECHO:
                continue
            processes = Processes(folder)
            place = folder / f"start-{server.name}"
            place.mkdir()
            words = server.configure(place, given)
            begin = time.monotonic()
            try:
                pid = processes.start(server.name, words, BOTH)

                def started(port: int = server.port) -> bool:
                    return ask(port, given.blocked[-1]) == (3, []) and ask(port, local) == (0, [right])

                until(started, 120, f"{server.name}'s start")
                took = time.monotonic() - begin
                mib = sum(m.pss for member in tree(pid) for m in memory_kib(member)) / 1024
                out.append({"server": server.name, "seconds": took, "mib": mib})
                print(f"{server.title}: {MILLION:,} names, serving after {took:.1f} s", file=sys.stderr)
            except SystemExit as error:
                out.append({"server": server.name, "error": str(error)})
                print(error, file=sys.stderr)
            finally:
                processes.close()
            shutil.rmtree(place)
    return out

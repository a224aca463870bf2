#!/usr/bin/env python3
"""Server CPU per answered query: ours beside Unbound, dnsdist and a bare echo loop, in one run.

    python bench/run.py [--rounds N] [--seconds S] [--only NAME,…] [--save]

Each server is started on core 0 with the same data (100,000 blocked names, 1,000 local records, 1,000 cached answers)
and the load client runs on core 1. Rounds are interleaved, so that a slow minute of the machine hits everybody. The
figure is user plus system time of ALL processes of a server, from /proc/PID/stat, divided by the answers that came
back. It is the median over the rounds, with the smallest and largest beside it. Nothing is said about wall-clock time.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import platform
import random
import select
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from servers import ROOT, SERVERS, UPSTREAM_PORT, Data, Server, upstream

CASES = {"blocked": 3, "local": 0, "cached": 0}  # case → the rcode that is right
TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")
SERVER_CORE, CLIENT_CORE = 0, 1


def make_data() -> Data:
    """The same names in every run: words of plausible length in two to four labels."""
    random_ = random.Random(20261123)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789-"

    def label(low: int, high: int) -> str:
        return "a" + "".join(random_.choices(letters[:36], k=random_.randint(low, high)))

    blocked: dict[str, None] = {}
    while len(blocked) < 100_000:
        middle = [label(2, 8) for _ in range(random_.choice((0, 0, 1, 2)))]
        blocked[".".join([*middle, label(4, 14), random_.choice(("com", "net", "org", "io", "info"))])] = None
    # Names below other blocked names would make the lists of the servers differ.
    whole = set(blocked)
    names = [n for n in blocked if not any(".".join(n.split(".")[i:]) in whole for i in range(1, n.count(".") + 1))]
    address = (f"10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}" for i in range(1, 1 << 20))
    local = {f"host-{i}.local.test": next(address) for i in range(1000)}
    cached = {f"www-{i}.bench.test": next(address) for i in range(1000)}
    return Data(names, local, cached)


def write_packets(path: pathlib.Path, names: list[str], edns: bool) -> None:
    """Questions for A, as the client reads them: u16 length, message."""
    out = bytearray()
    for name in names:
        wire = b"".join(bytes((len(part),)) + part.encode() for part in name.split(".")) + b"\0"
        message = struct.pack("!HHHHHH", 0, 0x0100, 1, 0, 0, int(edns)) + wire + struct.pack("!HH", 1, 1)
        if edns:
            message += b"\0" + struct.pack("!HHIH", 41, 1232, 0, 0)
        out += struct.pack("<H", len(message)) + message
    path.write_bytes(out)


def tree(root: int) -> list[int]:
    """A process and all its descendants, alive now."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = pathlib.Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
    found, pending = [], [root]
    while pending:
        found.append(pending.pop())
        pending += children.get(found[-1], [])
    return found


def cpu_us(pid: int) -> dict[int, float]:
    """User plus system time of each process of the tree, and of its children that have ended, in µs."""
    out = {}
    for member in tree(pid):
        try:
            fields = pathlib.Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        out[member] = sum(int(field) for field in fields[11:15]) * TICK_US
    return out


def title(pid: int) -> str:
    """What to call a process in the JSON: its command line, shortened."""
    try:
        line = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return line[-80:]
    except OSError:
        return "ended"


def answers(port: int, name: str) -> bool:
    """Whether a server gives a record for a name now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(0.3)
        wire = b"".join(bytes((len(part),)) + part.encode() for part in name.split(".")) + b"\0"
        try:
            asker.connect(("127.0.0.1", port))
            asker.send(struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + wire + struct.pack("!HH", 1, 1))
            reply = asker.recv(4096)
        except OSError:
            return False
        return len(reply) > 12 and reply[3] & 15 == 0 and reply[6:8] != b"\0\0"


def pause(seconds: float) -> None:
    """Wait without a wall clock."""
    select.select([], [], [], seconds)


def wait_until_ready(server: Server, process: subprocess.Popen[bytes], data: Data, log: pathlib.Path) -> None:
    """Until the server answers from its own data and from the upstream; SystemExit with its log otherwise."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if server.name == "echo" or all(answers(server.port, next(iter(d))) for d in (data.local, data.cached)):
            return
        pause(0.2)
    tail = log.read_text(errors="replace")[-2000:]
    raise SystemExit(f"bench: {server.name} did not become ready\n{tail}")


class Bench:
    """The started servers, and the measurements."""

    def __init__(self, folder: pathlib.Path, options: argparse.Namespace) -> None:
        self.folder, self.options, self.data = folder, options, make_data()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.client = folder / "client"
        subprocess.run(["cc", "-O2", "-o", str(self.client), str(ROOT / "bench/client.c")], check=True)
        asked = random.Random(1).sample(self.data.blocked, 20_000)
        for case, names in (("blocked", asked), ("local", list(self.data.local)), ("cached", list(self.data.cached))):
            write_packets(folder / case, names, options.edns)

    def start(self, name: str, command: list[str], core: int) -> pathlib.Path:
        """Start a server on one core, its output in a file."""
        log = self.folder / f"{name}.log"
        environ = {key: value for key, value in os.environ.items() if not key.startswith("NEXORALDNS_")}
        with open(log, "wb") as out:
            self.processes[name] = subprocess.Popen(
                ["taskset", "-c", str(core), *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=ROOT,
                env=environ,
                start_new_session=True,
            )
        return log

    def load(self, server: Server, case: str, seconds: float) -> dict[str, object]:
        """Run the client once."""
        ran = subprocess.run(
            [
                str(self.client),
                str(server.port),
                str(self.folder / case),
                str(seconds),
                str(self.options.window),
                "8",
                str(CLIENT_CORE),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        found: dict[str, object] = json.loads(ran.stdout)
        return found

    def check(self, server: Server, case: str) -> None:
        """Ask everything once: warms the caches and proves that the answers are right."""
        if server.name == "echo":
            return
        for _ in range(2):
            seen = self.load(server, case, 0)
        right = seen["rcodes"] == {str(CASES[case]): seen["answered"]}
        right = right and float(str(seen["lost"])) < 0.01 * float(str(seen["sent"]))
        if not right or (case != "blocked" and seen["records"] != seen["answered"]):
            raise SystemExit(f"bench: {server.name} answers {case} wrongly: {seen}")

    def measure(self, server: Server, case: str) -> dict[str, object]:
        """One round: µs of CPU per answer."""
        pid = self.processes[server.name].pid
        before = cpu_us(pid)
        seen = self.load(server, case, self.options.seconds)
        after = cpu_us(pid)
        spent = {member: after[member] - before.get(member, 0.0) for member in after}
        answered = seen["answered"]
        assert isinstance(answered, int)
        if not answered:
            raise SystemExit(f"bench: {server.name} gave no answer for {case}")
        parts = {f"{member} {title(member)}": round(used / answered, 3) for member, used in spent.items() if used}
        return {"server": server.name, "case": case, "us": sum(spent.values()) / answered, "parts": parts, **seen}

    def close(self) -> None:
        """End every process that was started, the whole of its session, by its id."""
        for process in self.processes.values():
            if process.poll() is None:
                members = tree(process.pid)
                process.send_signal(signal.SIGTERM)
                deadline = time.monotonic() + 6
                while process.poll() is None and time.monotonic() < deadline:
                    pause(0.05)
                for member in members:
                    try:
                        os.kill(member, signal.SIGKILL)
                    except OSError:
                        pass
                process.wait()


def table(results: list[dict[str, object]], names: list[str]) -> str:
    """The medians as a Markdown table, with the ratio to ours."""

    def numbers(name: str, case: str) -> list[float]:
        return [float(str(row["us"])) for row in results if row["server"] == name and row["case"] == case]

    lines = ["| server CPU per answer, µs | " + " | ".join(CASES) + " |", "|---|" + "---|" * len(CASES)]
    for name in names:
        cells = []
        for case in CASES:
            found = numbers(name, case)
            ours = numbers("nexoraldns", case)
            if not found:
                cells.append("")
                continue
            middle = statistics.median(found)
            ratio = f", {middle / statistics.median(ours):.2f} × ours" if ours and name != "nexoraldns" else ""
            cells.append(f"{middle:.2f} ({min(found):.2f} to {max(found):.2f}{ratio})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def about(options: argparse.Namespace) -> dict[str, object]:
    """Where and how this was measured."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    versions = {}
    for name, words in (("unbound", ["-V"]), ("dnsdist", ["--version"])):
        found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")
        ran = subprocess.run([found, *words], capture_output=True, text=True, check=False) if found else None
        versions[name] = (ran.stdout + ran.stderr).splitlines()[0].strip() if ran else "not installed"
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "window": options.window,
        "edns": options.edns,
        **versions,
    }


def main() -> int:
    """Measure, print the table, write JSON to bench/out/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of load for each server, case and round")
    parser.add_argument(
        "--window", type=int, default=128, help="questions under way (a default socket buffer holds 256)"
    )
    parser.add_argument("--edns", action="store_true", help="ask with EDNS (ours then names the rule in each block)")
    parser.add_argument("--only", default="", help="names of servers, separated by commas")
    parser.add_argument("--save", action="store_true", help="also write bench/RESULTS.md")
    options = parser.parse_args()
    if (os.cpu_count() or 1) < 2:
        print("bench: two cores are needed, one for the server and one for the client", file=sys.stderr)
        return 2
    chosen = [server for server in SERVERS if not options.only or server.name in options.only.split(",")]
    folder = pathlib.Path(tempfile.mkdtemp(prefix="nexoraldns-bench-"))
    bench = Bench(folder, options)
    results: list[dict[str, object]] = []
    try:
        (folder / "knot").mkdir()
        bench.start("upstream", upstream(folder / "knot", bench.data), CLIENT_CORE)
        deadline = time.monotonic() + 20
        while not answers(UPSTREAM_PORT, next(iter(bench.data.cached))):
            if time.monotonic() > deadline:
                raise SystemExit("bench: Knot did not start\n" + (folder / "upstream.log").read_text(errors="replace"))
            pause(0.1)
        for server in chosen:
            (folder / server.name).mkdir()
            log = bench.start(server.name, server.configure(folder / server.name, bench.data), SERVER_CORE)
            wait_until_ready(server, bench.processes[server.name], bench.data, log)
            for case in server.cases:
                bench.check(server, case)
            print(f"{server.name} is ready, and its answers are right", file=sys.stderr)
        for turn in range(options.rounds):
            for case in CASES:
                for server in chosen:
                    if case in server.cases:
                        results.append(bench.measure(server, case))
            print(f"round {turn + 1} of {options.rounds}", file=sys.stderr)
    finally:
        bench.close()
        shutil.rmtree(folder)
    setting = about(options)
    text = table(results, [server.name for server in chosen])
    print(text)
    out = ROOT / "bench/out"
    out.mkdir(exist_ok=True)
    stamp = str(setting["time"]).replace(":", "").replace("+0000", "Z")
    (out / f"{stamp}.json").write_text(json.dumps({"setting": setting, "results": results}, indent=1) + "\n")
    print(f"\nevery round: {(out / f'{stamp}.json').relative_to(ROOT)}", file=sys.stderr)
    if options.save:
        facts = "\n".join(f"- {key}: {value}" for key, value in setting.items())
        (ROOT / "bench/RESULTS.md").write_text(
            f"# Results of one run\n\nHow they are made: README.md. Smallest and "
            f"largest round in brackets.\n\n{text}\n\n{facts}\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

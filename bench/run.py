#!/usr/bin/env python3
"""What an answer costs: ours beside Unbound, dnsdist, PowerDNS Recursor, Knot Resolver, dnsmasq, BIND and a bare echo.

    python bench/run.py [--rounds N] [--seconds S] [--parts P,…] [--only SERVER,…] [--cases CASE,…] [--save]

The server under test is pinned to core 0, the load client and the upstream to core 1; rounds are interleaved over cases
and servers, so that a slow minute of the machine hits everybody. Parts: compare (everybody, 100,000 names), ours
(1,000, 1 M and 5 M names; swaps, workers, memory), million (text to serving), starts (everybody with 1 M names).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import alone
import compare
import report
from measure import Client
from servers import ROOT, SERVERS, command

PARTS = ("compare", "ours", "million", "starts")


def about(options: argparse.Namespace) -> dict[str, object]:
    """The machine, the versions and the settings of this run."""
    cpu = "unknown"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    versions: dict[str, object] = {}
    for server in SERVERS:
        if server.version:
            words = [command(server.version[0]), *server.version[1:]]
            ran = subprocess.run(words, capture_output=True, text=True, check=False)
            # The recursor and dnsdist say it on standard error, behind time and level.
            lines = [line for line in (ran.stdout + ran.stderr).splitlines() if "ersion" in line or "BIND" in line]
            versions[server.title] = lines[0].strip()[-90:] if lines else "unknown"
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["bench/run.py", *sys.argv[1:]]),
        "rounds": options.rounds, "seconds": options.seconds,
        "cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release(), "load before": os.getloadavg()[0],
        "python": platform.python_version(), "commit": commit.stdout.strip(),
        **versions,
    }  # fmt: skip


def main() -> int:
    """Measure, print the tables, write JSON to bench/out/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.4, help="of load for each server, case and round")
    parser.add_argument("--parts", default=",".join(PARTS), help="which parts, separated by commas")
    parser.add_argument("--only", default="", help="names of servers, separated by commas")
    parser.add_argument("--cases", default="", help="cases of the comparison, separated by commas")
    parser.add_argument("--large", type=int, default=alone.LARGE, help="names of the largest node")
    parser.add_argument("--save", action="store_true", help="also write RESULTS.md, RESULTS.json and RESULTS.svg")
    options = parser.parse_args()
    parts = options.parts.split(",")
    cases = tuple(options.cases.split(",")) if options.cases else compare.COMPARED
    chosen = tuple(server for server in SERVERS if not options.only or server.name in options.only.split(","))
    known = {server.name for server in SERVERS}
    only = options.only.split(",")
    for words, allowed in ((parts, set(PARTS)), (cases, set(compare.COMPARED)), (only, known | {""})):
        if strange := [word for word in words if word not in allowed]:
            there = ", ".join(sorted(allowed - {""}))
            print(f"bench: no such thing as {', '.join(strange)}; there are: {there}", file=sys.stderr)
            return 2
    if (os.cpu_count() or 1) < 2:
        print("bench: two cores are needed, one for the server and one for the client", file=sys.stderr)
        return 2
    # An end from outside unwinds: everything that was started is ended, by its id.
    stopped: list[int] = []

    def stop(number: int, _: object) -> None:
        stopped.append(number)
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    failed: dict[str, str] = {}
    folder = pathlib.Path(tempfile.mkdtemp(prefix="nexoraldns-bench-"))
    begin = time.monotonic()
    out = ROOT / "bench/out"
    out.mkdir(exist_ok=True)
    try:
        found: dict[str, Any] = {"setting": about(options)}
        path = out / (str(found["setting"]["time"]).replace(":", "").replace("+0000", "Z") + ".json")
        client = Client(folder)
        todo: dict[str, Callable[[], Any]] = {
            "compare": lambda: compare.run(folder, client, chosen, cases, options.rounds, options.seconds),
            "ours": lambda: alone.run(folder, client, options.rounds, options.seconds, options.large),
            "million": lambda: alone.million(min(3, options.rounds)),
            "starts": lambda: alone.starts(folder, chosen),
        }
        for part in PARTS:
            if part in parts:
                try:
                    found[part] = todo[part]()
                except (SystemExit, subprocess.CalledProcessError) as error:
                    # What was measured is not thrown away because a later part failed.
                    if stopped:
                        raise
                    print(error, file=sys.stderr)
                    failed[part] = str(error).splitlines()[0]
                found["setting"]["took"] = f"{time.monotonic() - begin:.0f} s"
                path.write_text(json.dumps(found, indent=1) + "\n")  # a run that is ended later keeps its parts
    except FileNotFoundError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(folder)
    found["setting"] |= {f"part {part} failed": why for part, why in failed.items()}
    text = json.dumps(found, indent=1) + "\n"
    path.write_text(text)
    print(report.cost_table(found), report.other_tables(found), report.target_table(found), sep="\n\n")
    print(f"\nevery round: {path.relative_to(ROOT)}; {found['setting']['took']}", file=sys.stderr)
    if options.save:
        (ROOT / "bench/RESULTS.json").write_text(text)
        (ROOT / "bench/RESULTS.md").write_text(report.document(found))
        (ROOT / "bench/RESULTS.svg").write_text(report.drawing(found))
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

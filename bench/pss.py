"""Memory of a running office by number of names: PSS and private memory of each process.

    python bench/pss.py [--names 0 100000 500000] [--workers 4]

For each number of names an office is started from a hosts file, every worker is asked, and /proc/PID/smaps_rollup is
read: PSS (shared pages counted by their share) and private (pages that only this process has). The table is sealed
memory that all workers map, so a worker's private memory must not grow with the names; what grows is shared.
"""

from __future__ import annotations

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from tests import lan

RULES = """\
version: 1
lists:
  many: {file: many.hosts}
rules:
  - name: many
    block: [list:many, first.example]
zones:
  office.example: {records: {printer: 10.0.20.15}}
"""


def memory(pid: int) -> tuple[float, float]:
    """PSS and private memory of a process, in MiB."""
    rows = {}
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        rows[name] = int(rest.split()[0]) / 1024
    return rows["Pss"], rows["Private_Clean"] + rows["Private_Dirty"]


def ask(port: int, names: int, questions: int = 20_000) -> None:
    """Ask every worker, all over the list: what is read of the table is then in memory."""
    with tempfile.NamedTemporaryFile("w", suffix=".queries") as file:
        step = max(1, names // questions)
        file.writelines(f"host{number}.zone{number % 997}.example A\n" for number in range(0, names or 1, step))
        file.write("printer.office.example A\n")
        file.flush()
        words = ["dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", file.name, "-c", "32", "-l", "3"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def measure(names: int, workers: int) -> dict[str, object]:
    """One office with so many names: seconds until served, MiB of each process."""
    with tempfile.TemporaryDirectory(prefix="nexoraldns-pss-") as folder:
        with lan.office(pathlib.Path(folder), {"workers": workers, "cache": {"size": "1MiB"}}, {}) as office:
            with (office.rules / "many.hosts").open("w") as file:
                file.writelines(f"0.0.0.0 host{number}.zone{number % 997}.example\n" for number in range(names))
            office.write("office.yaml", RULES)
            began = time.monotonic()
            controller, dnsd = office.start("controller"), office.start("dnsd")
            lan.until(office._serves_everywhere, 300, "serving")
            ready_s = time.monotonic() - began
            ask(office.dns, names)
            if names:
                last = names - 1
                assert office.dig(f"host{last}.zone{last % 997}.example").rcode == "NXDOMAIN"
            pids = [row["pid"] for row in sorted(office.workers(), key=lambda row: row["slot"])]
            inside = pathlib.Path(f"/proc/{dnsd.pid}/task/{dnsd.pid}/children").read_text().split()
            agent = next(int(pid) for pid in inside if int(pid) not in pids)
            table = sum(
                path.stat().st_size for path in pathlib.Path(folder, ".nexoraldns/tables").iterdir()
                if len(path.name) == 64
            )  # fmt: skip
            parts = {"supervisor": dnsd.pid, "agent": agent, "controller": controller.pid}
            return {
                "names": names, "ready_s": ready_s, "table": table / 2**20, "workers": [memory(pid) for pid in pids],
                **{name: memory(pid) for name, pid in parts.items()},
            }  # fmt: skip


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", type=int, nargs="+", default=[0, 100_000, 500_000])
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    print("MiB; PSS/private of each process, after every worker was asked\n")
    print(f"{'names':>8} {'ready':>7} {'table':>7}  {'worker (median)':>16} {'worker (most)':>15} "
          f"{'agent':>13} {'supervisor':>12} {'controller':>13}")  # fmt: skip
    for names in options.names:
        found = measure(names, options.workers)
        rows = sorted(found["workers"])  # type: ignore[call-overload]
        middle, most = rows[len(rows) // 2], max(rows, key=lambda row: row[1])
        pairs = [middle, most, *(found[name] for name in ("agent", "supervisor", "controller"))]
        texts = [f"{pss:.1f}/{private:.1f}" for pss, private in pairs]  # type: ignore[misc]
        print(f"{names:>8,} {found['ready_s']:>6.1f}s {found['table']:>7.1f}  {texts[0]:>16} {texts[1]:>15} "
              f"{texts[2]:>13} {texts[3]:>12} {texts[4]:>13}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()

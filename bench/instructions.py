#!/usr/bin/env python3
"""Instructions for each packet on the query path, counted by callgrind: the same number on a busy machine.

    python bench/instructions.py [--update]

A fixed set of packets goes through `HotPath.batch` with sockets that are memory. Each kind is run twice with different
lengths, and the difference is what a packet costs; the start, the table's opening and the interpreter are not in it.
Compared with bench/instructions.json: exit code 1 when a kind of packet costs more than 10 % more (`--update` after a
line in CHANGELOG.md says why), 2 when it could not run. Figures of another compiler or Python are shown, not judged.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import data
from servers import ROOT, Office, ours

KEPT = ROOT / "bench/instructions.json"
NAMES = 20_000
SHORT, LONG = 10, 30  # batches of 64
MARGIN = 1.10
_MARK = """#include <valgrind/callgrind.h>
void begin(void) { CALLGRIND_START_INSTRUMENTATION; }
void zero(void) { CALLGRIND_ZERO_STATS; }
void dump(const char *name) { CALLGRIND_DUMP_STATS_AT(name); }
"""


class Memory:
    """Stands in for the sockets: every receive finds the same 64 packets, every send takes all."""

    def __init__(self, real: Any) -> None:
        self.real, self.errors = real, 0

    def fill(self, packets: list[bytes]) -> None:
        for i in range(64):
            packet = packets[i % len(packets)]
            at = i * self.real.in_stride
            self.real.inp[at : at + len(packet)] = packet
            self.real.lengths[i] = len(packet)
            self.real.clients[i * 16 : i * 16 + 16] = b"\0" * 10 + b"\xff\xff\x7f\0\0\1"

    def receive(self, fd: int) -> int:
        return 64

    def send(self, fd: int, n: int) -> int:
        return n

    def peer(self, i: int) -> tuple[bytes, bytes]:
        return b"", b""


def kinds(given: data.Data) -> dict[str, list[bytes]]:
    """The fixed packets, by kind."""

    def messages(case: str) -> list[bytes]:
        return [packet[4:] for packet in data.packets(given, case)[:64]]

    def mixed(wire: bytes) -> bytes:
        return wire[:12] + bytes(c - 32 if c > 96 and i % 2 else c for i, c in enumerate(wire[12:-4])) + wire[-4:]

    out = {case: messages(case) for case in data.CASES if not case.startswith(("mixed", "uncached", "absent", "miss"))}
    out["mixedcase"] = [mixed(wire) for wire in messages("cached")]
    out["malformed"] = [wire[:-3] for wire in messages("blocked")]
    return out


def child(folder: pathlib.Path) -> None:
    """Under callgrind: run every kind in two lengths, and dump after each."""
    sys.path.insert(0, str(ROOT))
    from dnsd.contract import codes
    from dnsd.contract.facts import FLAG_SPECIAL_USE, Facts, encode
    from dnsd.serve import latepath
    from dnsd.serve.latepath import LatePath

    if not latepath.__file__.endswith(".so"):
        raise SystemExit("the query path is not compiled: run ci/setup test")
    mark = ctypes.CDLL(str(folder / "mark.so"))
    counters = memoryview(bytearray(8 * codes.COUNTERS)).cast("Q")
    hot = LatePath(0, counters, bytearray(64 + 320 * 4096), bytearray(1 << 22), "bench")
    hot.clock(1000, 1_700_000_000_000)
    hot.set_clients("bench", bytes(16), 0)
    hot.set_facts(encode(Facts(v4=((0, 2**32 - 1),), flags=FLAG_SPECIAL_USE)))
    hot.install((folder / "table").read_bytes(), (folder / "table.names").read_bytes(), 1, "main@0123456")
    memory = Memory(hot.socket_batch)
    hot.socket_batch = memory
    given = data.make(NAMES)
    for name, packets in kinds(given).items():
        memory.fill(packets)
        hot.batch(0)
        for miss in hot.misses:  # what is not in the cache yet is put there
            question = miss.packet[12 : miss.packet.index(b"\0", 12) + 5]
            answer = miss.packet[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + question
            hot.store(miss, answer + b"\xc0\x0c\0\1\0\1\0\1\x51\x80\0\4\xc0\0\2\1")
        hot.misses.clear()
        hot.batch(0)
        if hot.misses:
            raise SystemExit(f"{name} is not answered from table and cache")
        rcodes = {memory.real.out[i * memory.real.out_stride + 3] & 15 for i in range(64)}
        wanted = data.CASES[name].rcode if name in data.CASES else 1
        if rcodes != {wanted} and wanted is not None:
            raise SystemExit(f"{name} has the rcodes {rcodes}, and should have {wanted}")
        mark.begin()
        for length in (SHORT, LONG):
            mark.zero()
            for _ in range(length):
                hot.batch(0)
            mark.dump(f"{name}/{length}".encode())


def measure(folder: pathlib.Path) -> dict[str, float]:
    """Instructions for each packet, by kind."""
    given = data.make(NAMES)
    ours(folder, given, Office())
    environ = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    compile_ = [sys.executable, "-m", "controller.cli", "compile", str(folder / "rules.d"), "-o", str(folder / "table")]
    subprocess.run(compile_, check=True, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL)
    (folder / "mark.c").write_text(_MARK)
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(folder / "mark.so"), str(folder / "mark.c")], check=True)
    valgrind = [
        "valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/out",
        f"--log-file={folder}/valgrind.log", sys.executable, __file__, "--child", str(folder),
    ]  # fmt: skip
    ran = subprocess.run(valgrind, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"callgrind failed: {(ran.stderr or (folder / 'valgrind.log').read_text())[-2000:]}")
    totals: dict[str, dict[int, int]] = {}
    for path in folder.glob("out.*"):
        text = path.read_text()
        named = re.search(r"^desc: Trigger: Client Request: (\S+)/(\d+)$", text, re.M)
        counted = re.search(r"^(?:totals|summary): (\d+)", text, re.M)
        if named and counted:
            totals.setdefault(named[1], {})[int(named[2])] = int(counted[1])
    return {name: round((both[LONG] - both[SHORT]) / (64 * (LONG - SHORT)), 1) for name, both in totals.items()}


def tools() -> dict[str, str]:
    """What makes figures comparable: compiler, Python, Cython, processor family."""
    compiler = subprocess.run(["cc", "-dumpfullversion"], capture_output=True, text=True, check=True).stdout.strip()
    import Cython

    return {
        "cc": compiler.split(".")[0], "python": ".".join(platform.python_version_tuple()[:2]),
        "cython": ".".join(Cython.__version__.split(".")[:2]), "machine": platform.machine(),
    }  # fmt: skip


def main() -> int:
    """Measure, compare, and say what grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write what was measured to bench/instructions.json")
    parser.add_argument("--child", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child)
        return 0
    if not shutil.which("valgrind"):
        print("instructions: valgrind is not installed: sudo apt-get install valgrind", file=sys.stderr)
        return 2
    folder = pathlib.Path(tempfile.mkdtemp(prefix="nexoraldns-instructions-"))
    try:
        found = measure(folder)
    except (SystemExit, subprocess.CalledProcessError) as error:
        print(f"instructions: {error}", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(folder)
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {"tools": tools(), "instructions": {}}
    comparable = kept["tools"] == tools()
    grown = []
    for name, count in found.items():
        before = kept["instructions"].get(name)
        change = f"{count / before - 1:+.1%}" if before else "new"
        if before and count > MARGIN * before:
            grown.append(name)
            change += "  more than 10 %"
        print(f"{name:14} {count:9.1f} instructions a packet, kept {before or '-':>9}  {change}")
    if options.update:
        KEPT.write_text(json.dumps({"tools": tools(), "instructions": dict(sorted(found.items()))}, indent=1) + "\n")
        return 0
    if not comparable:
        print(f"not judged: kept with {kept['tools']}, this is {tools()}")
        return 0
    if grown:
        print(
            f"instructions: {', '.join(grown)} cost more; if it must be, say why in CHANGELOG.md and run with --update"
        )
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())

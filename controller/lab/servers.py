"""The lab's name servers: NSD and Knot with configurations of their own, started, reloaded, ended by pid."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Mapping, Sequence

from controller.lab import world
from controller.lab.world import Server
from dnsd.contract import names

PROGRAMS = {"nsd": "nsd", "knotd": "knot"}  # the program and its Debian package
_PR_SET_PDEATHSIG = 1
_ASK_S = 0.5


class ServersError(Exception):
    """No name server can be started; one sentence, with what to do."""


def programs() -> dict[str, str]:
    """Which of the programs are installed, with their paths; raises ServersError when none is."""
    found = {name: path for name in PROGRAMS if (path := _program(name)) is not None}
    if not found:
        raise ServersError("the lab's name servers are NSD and Knot, and neither is here: apt-get install nsd knot")
    return found


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


class Running:
    """All name servers of a lab. `served` holds the zones' files, the same names as in `zones`."""

    def __init__(self, folder: pathlib.Path, base: str) -> None:
        self.folder = folder
        self.base = base
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._mute: list[socket.socket] = []

    def served(self, zone: str) -> pathlib.Path:
        """The file that a zone's server reads."""
        return self.folder / "served" / f"{zone.strip('.') or 'root'}.zone"

    def address(self, server: Server) -> str:
        """Where a server listens, port 53."""
        return f"{self.base}.{server.host}"

    def start(self, found: Mapping[str, str], servers: Sequence[Server] = world.SERVERS) -> None:
        """Start each server, the program that it prefers if that is installed; raises ServersError."""
        (self.folder / "run").mkdir(exist_ok=True)
        try:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                mute = socket.socket(socket.AF_INET, kind)
                self._mute.append(mute)
                mute.bind((f"{self.base}.{world.SILENT}", 53))
        except OSError as error:
            raise ServersError(f"{self.base}.{world.SILENT}:53 cannot be bound: {error.strerror}") from None
        for server in servers:
            program = server.program if server.program in found else next(iter(found))
            make = _nsd if program == "nsd" else _knot
            config = self.folder / "run" / f"{server.name}.conf"
            config.write_text(make(self, server), encoding="utf-8")
            words = [found[program], *(["-d"] if program == "nsd" else []), "-c", str(config)]
            with open(self.folder / "run" / f"{server.name}.log", "wb") as log:
                self.processes[server.name] = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
                    preexec_fn=end_with_us,  # noqa: PLW1509 (no thread runs yet, and it only calls prctl)
                )  # fmt: skip

    def ended(self) -> str:
        """The first server that is not there any more, with what it said; an empty text when all are."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                log = (self.folder / "run" / f"{name}.log").read_text(errors="replace").strip().splitlines()
                return f"the name server {name} has ended ({process.returncode}): {' / '.join(log[-3:]) or 'no word'}"
        return ""

    def reload(self, zones: Sequence[str]) -> None:
        """Have the servers of these zones read their files again."""
        for name in {world.servers_of(zone).name for zone in zones}:
            if name in self.processes:
                self.processes[name].send_signal(signal.SIGHUP)

    def serial(self, zone: str) -> int | None:
        """The serial of the zone as its server has it; None when it does not answer (yet)."""
        question = names.from_text(zone) + struct.pack(">HH", 6, 1)
        packet = b"NX" + struct.pack(">HHHHH", 0, 1, 0, 0, 0) + question
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(_ASK_S)
            try:
                sock.connect((self.address(world.servers_of(zone)), 53))
                sock.send(packet)
                answer = sock.recv(4096)
            except OSError:
                return None
        return _serial(answer, 12 + len(question))

    def end(self) -> None:
        """End them all."""
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self.processes.values():
            try:
                process.communicate(timeout=3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
        for mute in self._mute:
            mute.close()


def _serial(answer: bytes, at: int) -> int | None:
    """The serial of the SOA that is the first record of an answer."""
    with contextlib.suppress(IndexError, struct.error):
        if int.from_bytes(answer[6:8], "big") == 0:
            return None
        at = _behind(answer, at)
        rtype, _, _, _ = struct.unpack_from(">HHIH", answer, at)
        if rtype == 6:
            return int(struct.unpack_from(">I", answer, _behind(answer, _behind(answer, at + 10)))[0])
    return None


def _behind(packet: bytes, at: int) -> int:
    """The place behind a name."""
    while packet[at]:
        if packet[at] >= 192:
            return at + 2
        at += 1 + packet[at]
    return at + 1


def end_with_us() -> None:
    """In a child: end when the lab does, however it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    os.umask(0o022)


def _nsd(running: Running, server: Server) -> str:
    run = running.folder / "run"
    lines = [
        "server:", f"  ip-address: {running.address(server)}", "  port: 53", '  username: ""', '  chroot: ""',
        '  pidfile: ""', '  database: ""', f'  zonesdir: "{running.folder}"', f'  xfrdir: "{run}"',
        f'  zonelistfile: "{run}/{server.name}.list"', f'  xfrdfile: "{run}/{server.name}.xfrd"', "  server-count: 1",
        '  logfile: ""', "  hide-version: yes", "remote-control:", "  control-enable: no",
    ]  # fmt: skip
    for zone in server.zones:
        lines += ["zone:", f'  name: "{zone}"', f'  zonefile: "{running.served(zone)}"']
    return "\n".join([*lines, ""])


def _knot(running: Running, server: Server) -> str:
    run = running.folder / "run" / f"{server.name}.d"
    run.mkdir(exist_ok=True)
    lines = [
        "server:", f"  listen: {running.address(server)}@53", f'  rundir: "{run}"', "  udp-workers: 1",
        "  tcp-workers: 1", "  background-workers: 1", "log:", "  - target: stderr", "    any: warning", "database:",
        f'  storage: "{run}"', "zone:",
    ]  # fmt: skip
    for zone in server.zones:
        lines += [f'  - domain: "{zone}"', f'    file: "{running.served(zone)}"', "    zonefile-sync: -1",
                  "    zonefile-load: whole", "    journal-content: none"]  # fmt: skip
    return "\n".join([*lines, ""])

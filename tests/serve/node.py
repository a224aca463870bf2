"""A real supervisor with a small agent for tests: `python -m tests.serve.node FOLDER` and the class that drives it.

The agent reads tables from files and does what the real one does to workers, without a broker. Folder:
`settings.json`, `table.json` {generation, policy, names, abort}, `said.jsonl` (what workers said),
`crash-SLOT` (that slot's worker ends at once), `no-agent` (the agent ends at once).
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import dns.message
import dns.query
import dns.rcode

from controller.check import check_snapshot
from controller.compiler import Blobs, compile_table
from controller.ruleset import Revision, Snapshot
from dnsd.contract import facts
from dnsd.contract.settings import Settings, load

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
RULES = """\
version: 1
zones:
  office.test:
    records:
      printer: {printer}
forward:
  ".": {upstream}
"""


@functools.cache
def table(printer: str = "10.0.0.1", upstream: str = "192.0.2.1:53") -> Blobs:
    """A compiled table in which printer.office.test has this address."""
    text = RULES.format(printer=printer, upstream=upstream)
    result = check_snapshot(Snapshot(Revision("r", "r"), {"r.yaml": text.encode()}, lambda path, base: b""))
    assert result.ruleset is not None, result.diagnostics
    return compile_table(result.ruleset)


# --- inside the node's processes ------------------------------------------------------------------


def _sealed(data: bytes) -> int:
    fd = os.memfd_create("table")
    os.write(fd, data)
    return fd


def agent(settings: Settings, inherited: Any) -> int:
    """The small agent: gives each worker the newest table, commits when all that live are ready."""
    folder = pathlib.Path(settings.state)
    for sock in inherited.close:
        sock.close()
    if (folder / "no-agent").exists():
        return 1
    v4, v6 = facts.intervals(settings.allow)
    inherited.shared.facts_write(facts.encode(facts.Facts(version=1, v4=v4, v6=v6)))
    selector = selectors.DefaultSelector()
    for slot, sock in enumerate(inherited.workers):
        selector.register(sock, selectors.EVENT_READ, slot)
    selector.register(inherited.supervisor, selectors.EVENT_READ, -1)
    current: dict[str, Any] = {}
    fds: list[int] = []
    waiting: set[int] = set()

    def give(slot: int) -> None:
        if (folder / f"withhold-{slot}").exists():
            return
        message = {"op": "prepare", "names_digest": "", "revision": "r", **current}
        with contextlib.suppress(OSError):
            socket.send_fds(inherited.workers[slot], [json.dumps(message).encode()], fds, socket.MSG_DONTWAIT)

    while True:
        inherited.shared.agent_beat[0] = time.monotonic_ns() // 1_000_000
        path = folder / "table.json"
        wanted = json.loads(path.read_text()) if path.exists() else {}
        if wanted.get("generation", 0) > current.get("generation", 0):
            current = {"generation": wanted["generation"], "digest": "told"}
            fds = [_sealed(bytes.fromhex(wanted[key])) for key in ("policy", "names")]
            waiting = {s for s in range(inherited.shared.slots) if inherited.shared.state(s)}
            waiting = {slot for slot in waiting if not (folder / f"withhold-{slot}").exists()}
            for slot in waiting:
                give(slot)
        for key, _ in selector.select(0.02):
            data = key.fileobj.recv(65536)  # type: ignore[union-attr]
            if not data:
                return 0
            if key.data < 0:
                continue
            message = json.loads(data)
            with open(folder / "said.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(message) + "\n")
            if message["op"] == "hello" and current:
                give(key.data)
            if message["op"] == "ready" and not wanted.get("abort"):
                waiting.discard(key.data)
                if not waiting and inherited.shared.committed[0] != current["generation"]:
                    inherited.shared.committed[0] = current["generation"]
                    for sock in inherited.workers:
                        with contextlib.suppress(OSError):
                            sock.send(json.dumps({"op": "commit", "generation": current["generation"]}).encode())
                    message = {"op": "table", "names_digest": "", "revision": "r", **current}
                    socket.send_fds(inherited.supervisor, [json.dumps(message).encode()], fds)
        if os.getppid() != inherited.supervisor_pid:
            return 0


def main() -> int:
    """The node's program."""
    from dnsd.serve import log, supervisor, worker
    from dnsd.serve.agent import Inherited
    from dnsd.serve.rounds import Rounds

    folder = pathlib.Path(sys.argv[1])
    document = json.loads((folder / "settings.json").read_text())
    worker.WITHOUT_TABLE_MS = int(os.environ.get("NODE_WITHOUT_TABLE_MS", "5000"))
    supervisor.SILENT_MS = int(os.environ.get("NODE_SILENT_MS", "5000"))
    supervisor.AGENT_SILENT_MS = int(os.environ.get("NODE_AGENT_SILENT_MS", "60000"))

    def hotpath(slot: int, *rest: Any) -> Any:
        if (folder / f"crash-{slot}").exists():
            os._exit(3)
        return Rounds(slot, *rest)

    log.setup(human=False)
    programs = supervisor.Programs(agent=agent, inherited=Inherited, hotpath=hotpath)

    def reload() -> Settings:
        return load(json.loads((folder / "settings.json").read_text()), str(folder), {})

    try:
        return supervisor.Supervisor(load(document, str(folder), {}), programs, log.logger("supervisor"), reload).run()
    except supervisor.CannotRun as error:
        return log.refuse(str(error))


# --- in the test ----------------------------------------------------------------------------------


def free_port() -> int:
    """A port of 127.0.0.1 that is free over UDP and TCP."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind(("127.0.0.1", 0))
            port: int = udp.getsockname()[1]
            with contextlib.suppress(OSError):
                tcp.bind(("127.0.0.1", port))
                return port


def question(name: str = "printer.office.test", number: int = 1) -> bytes:
    """A question with a chosen id."""
    message = dns.message.make_query(name, "A")
    message.id = number
    return message.to_wire()


class Node:
    """A node in a folder; every process that it starts is ended by `close`."""

    def __init__(self, folder: pathlib.Path, workers: int = 2, port: int | None = None, **settings: Any) -> None:
        self.folder = folder
        self.port = port or free_port()
        document = {"listen": [f"127.0.0.1:{self.port}"], "workers": workers, "state": str(folder), **settings}
        self.settings = document
        (folder / "settings.json").write_text(json.dumps(document))
        self.workers = workers
        self.process: subprocess.Popen[str] | None = None
        self.started: list[subprocess.Popen[str]] = []
        self.generation = 0

    def start(self, wait: bool = True, **environment: str) -> subprocess.Popen[str]:
        """Start a supervisor; with `wait` until every worker serves."""
        with open(self.folder / "log", "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.serve.node", str(self.folder)],
                cwd=ROOT, env={**os.environ, **environment}, stderr=log, text=True,
            )  # fmt: skip
        self.started.append(self.process)
        if wait:
            self.until(self.all_serve, 10)
        return self.process

    def publish(self, printer: str = "10.0.0.1", upstream: str = "192.0.2.1:53", blobs: Blobs | None = None,
                abort: bool = False) -> int:  # fmt: skip
        """Give the agent a new table."""
        made = blobs or table(printer, upstream)
        self.generation += 1
        new = {"generation": self.generation, "policy": made.policy.hex(), "names": made.names.hex(), "abort": abort}
        (self.folder / "new").write_text(json.dumps(new))
        os.replace(self.folder / "new", self.folder / "table.json")
        return self.generation

    def said(self, op: str) -> list[dict[str, Any]]:
        """What workers said to the agent."""
        path = self.folder / "said.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [row for row in rows if row["op"] == op]

    def log(self) -> str:
        """All that was logged."""
        return (self.folder / "log").read_text()

    def pids(self, role: str) -> list[int]:
        """The living processes of a role, as the supervisor wrote them down."""
        with contextlib.suppress(OSError, ValueError):
            document = json.loads((self.folder / "dnsd.pids").read_text())
            return [row["pid"] for row in document["processes"] if row["role"] == role]
        return []

    def all_serve(self) -> bool:
        """Whether answers come from a table over enough ports to have met every slot."""
        return all(self.ask(timeout=0.3) for _ in range(self.workers * 6))

    def ask(self, name: str = "printer.office.test", timeout: float = 2.0) -> str:
        """The address in an answer over UDP from a fresh port, "" for silence, the rcode otherwise."""
        query = dns.message.make_query(name, "A", use_edns=0)
        try:
            response = dns.query.udp(query, "127.0.0.1", port=self.port, timeout=timeout)
        except (dns.exception.Timeout, OSError):
            return ""
        if response.answer:
            return str(response.answer[-1][0])
        return dns.rcode.to_text(response.rcode())

    def until(self, condition: Callable[[], bool], patience_s: float = 6.0) -> None:
        """Wait until something is true."""
        end = time.monotonic() + patience_s
        while not condition():
            assert time.monotonic() < end, f"it did not happen; the log:\n{self.log()}"
            time.sleep(0.02)

    def close(self) -> None:
        """End everything."""
        pids = self.pids("worker") + self.pids("agent")
        for process in self.started:
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(6)
            if process.poll() is None:
                process.kill()
                process.wait()
        for pid in pids:
            with contextlib.suppress(OSError):
                if b"tests.serve.node" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def node(folder: pathlib.Path, workers: int = 2, **settings: Any) -> Iterator[Node]:
    """A node for the length of a `with`."""
    made = Node(folder, workers, **settings)
    try:
        yield made
    finally:
        made.close()


if __name__ == "__main__":
    sys.exit(main())

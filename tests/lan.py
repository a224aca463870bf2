"""A small LAN on loopback for the end-to-end tests: a real controller, a real dnsd, a real upstream, dig and git.

Everything runs in a folder of its own on free ports, is ended by pid, and shows its logs when a test fails.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
_PACKAGES = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
GIT = {
    "GIT_AUTHOR_NAME": "Anna Jansen", "GIT_AUTHOR_EMAIL": "anna@example.com", "GIT_COMMITTER_NAME": "Anna Jansen",
    "GIT_COMMITTER_EMAIL": "anna@example.com", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1",
}  # fmt: skip

RULES = """\
version: 1
lists:
  ads: {domains: [ads.example, tracker.example]}
rules:
  - name: no-ads
    block: [list:ads]
  - name: parcel
    allow: [parcel.ads.example]
  - name: old-name
    redirect: {old.example: 10.0.20.9}
zones:
  office.example:
    ptr: auto
    records:
      printer: 10.0.20.15
      version: {type: TXT, value: one}
"""


def free_port() -> int:
    """A port of loopback that nobody has, over UDP and TCP."""
    while True:
        port = random.randrange(20000, 32000)
        with contextlib.ExitStack() as stack:
            try:
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    stack.enter_context(socket.socket(socket.AF_INET, kind)).bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def until(condition: Callable[[], Any], seconds: float = 10.0, what: str = "") -> Any:
    """Wait for a condition; its value. AssertionError after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what or 'it'} did not happen within {seconds:g} s")
        time.sleep(0.02)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What dig said: rcode, flags, the answer section as (owner, type, data), and everything as text."""

    rcode: str
    flags: frozenset[str]
    records: tuple[tuple[str, str, str], ...]
    text: str

    @property
    def data(self) -> list[str]:
        return [data for _, _, data in self.records]

    @property
    def ede(self) -> str:
        found = re.search(r"EDE: (.*)", self.text)
        return found[1] if found else ""


def dig(port: int, name: str, qtype: str = "A", *options: str, program: str = "dig", timeout_s: int = 3) -> Answer:
    """Ask 127.0.0.1 with dig (or kdig)."""
    words = [program, "@127.0.0.1", "-p", str(port), name, qtype, f"+time={timeout_s}", *options]
    words += ["+tries=1"] if program == "dig" else ["+retry=0"]
    ran = subprocess.run(words, capture_output=True, text=True, check=False, timeout=timeout_s + 5)
    rcode = re.search(r"status: (\w+)", ran.stdout)
    flags = re.search(r"^;; [Ff]lags: ([a-z ]*);", ran.stdout, re.M)
    section = re.search(r"^;; ANSWER SECTION:\n((?:[^;\n].*\n)*)", ran.stdout, re.M)
    records = []
    for line in section[1].splitlines() if section else ():
        owner, _, _, rtype, data = line.split(None, 4)
        records.append((owner, rtype, data))
    return Answer(
        rcode[1] if rcode else "", frozenset(flags[1].split()) if flags else frozenset(), tuple(records), ran.stdout
    )


class Process:
    """A child with its log in a file."""

    def __init__(self, name: str, words: list[str], folder: pathlib.Path, **options: Any) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("NEXORALDNS_")}
        environment["PYTHONPATH"] = _PACKAGES
        for kept in ("NEXORALDNS_INTERPRETED",):
            if kept in os.environ:
                environment[kept] = os.environ[kept]
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, env=environment,
                start_new_session=True, **options,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self.popen.pid

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def end(self, number: int = signal.SIGTERM, seconds: float = 6.0) -> int:
        """Send a signal and wait; the exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise AssertionError(f"{self.name} did not end within {seconds:g} s:\n{self.text()}") from None


class Lan:
    """A controller and a dnsd over rules in a folder or in a git repository. Use `with lan.office(...)`."""

    def __init__(self, folder: pathlib.Path, settings: Mapping[str, Any], rules: Mapping[str, str], git: bool) -> None:
        self.folder = folder
        self.dns, self.page, self.broker = free_port(), free_port(), free_port()
        self.processes: list[Process] = []
        self.rules = folder / ("work/rules.d" if git else "rules.d")
        self.rules.mkdir(parents=True)
        for name, text in rules.items():
            self.write(name, text)
        self.git_url = folder / "rules.git"
        source: dict[str, Any] = {"directory": str(self.rules)}
        if git:
            subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(self.git_url)], check=True)
            self.git("init", "-q", "-b", "main")
            self.git("remote", "add", "origin", str(self.git_url))
            self.push("First rules")
            source = {"git": {"url": str(self.git_url), "poll": "30s"}}
        self.settings: dict[str, Any] = {
            "listen": [f"127.0.0.1:{self.dns}"],
            "workers": 2,
            "source": source,
            "broker": {"listen": f"127.0.0.1:{self.broker}", "connect": f"127.0.0.1:{self.broker}"},
            "status": {"listen": f"127.0.0.1:{self.page}"},
            "cache": {"size": "4MiB"},
            **settings,
        }
        self.config = folder / "node.yaml"
        self.config.write_text(yaml.safe_dump(self.settings))

    # --- rules --------------------------------------------------------------------------------------------------------

    def write(self, name: str, text: str) -> None:
        """Save a rule file the way editors do: beside it, then renamed over it."""
        path = self.rules / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(text)
        fresh.rename(path)

    def git(self, *words: str) -> str:
        ran = subprocess.run(
            ["git", "-C", str(self.folder / "work"), *words],
            check=True, capture_output=True, text=True, env={**os.environ, **GIT},
        )  # fmt: skip
        return ran.stdout.strip()

    def push(self, subject: str) -> str:
        """Commit and push what the work tree holds; the commit's sha."""
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", subject)
        self.git("push", "-q", "-f", "origin", "main")
        return self.git("rev-parse", "HEAD")

    # --- processes ----------------------------------------------------------------------------------------------------

    def start(self, name: str, *words: str) -> Process:
        """Start `run`, `controller` or `dnsd` with this LAN's settings."""
        command = [sys.executable, "-m", "controller.cli", *(words or (name, "--config", str(self.config)))]
        process = Process(name, command, self.folder)
        self.processes.append(process)
        return process

    def verb(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a verb of the command line to its end."""
        return subprocess.run(
            [sys.executable, "-m", "controller.cli", *words, "--config", str(self.config)],
            capture_output=True, text=True, check=False, cwd=self.folder, timeout=30,
            env={**os.environ, "PYTHONPATH": _PACKAGES, "COLUMNS": "160"},
        )  # fmt: skip

    def logs(self) -> str:
        return "\n".join(f"--- {process.name}\n{process.text()}" for process in self.processes)

    # --- asking -------------------------------------------------------------------------------------------------------

    def dig(self, name: str, qtype: str = "A", *options: str, program: str = "dig") -> Answer:
        return dig(self.dns, name, qtype, *options, program=program)

    def everywhere(self, name: str, qtype: str, count: int = 24) -> set[str]:
        """The answers to one question from many client ports, so from every worker."""
        return {" ".join(self.dig(name, qtype, "+short").text.split()) for _ in range(count)}

    def get(self, path: str) -> tuple[int, bytes]:
        """Ask the status page."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.page}{path}", timeout=3) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

    def status(self) -> dict[str, Any]:
        code, body = self.get("/api/v1/status")
        found: dict[str, Any] = json.loads(body) if code == 200 else {}
        return found

    def workers(self) -> list[dict[str, Any]]:
        return [worker for node in self.status().get("nodes", ()) for worker in node["workers"]]

    def answers(self) -> None:
        """Wait until every worker serves the active table."""
        until(lambda: self._serves_everywhere(), 20, "serving")

    def _serves_everywhere(self) -> bool:
        status = self.status()
        active = status.get("active")
        workers = [worker for node in status.get("nodes", ()) for worker in node["workers"]]
        return bool(active) and len(workers) >= self.settings["workers"] and all(
            worker.get("digest") == active["digest"] for worker in workers
        )  # fmt: skip

    def close(self) -> None:
        """End everything that this LAN started."""
        for process in reversed(self.processes):
            with contextlib.suppress(AssertionError):
                process.end()


@contextlib.contextmanager
def office(
    folder: pathlib.Path,
    settings: Mapping[str, Any] | None = None,
    rules: Mapping[str, str] | None = None,
    git: bool = False,
) -> Iterator[Lan]:
    """A LAN whose processes end with the block; their logs are printed when it fails."""
    lan = Lan(folder, settings or {}, rules if rules is not None else {"office.yaml": RULES}, git)
    try:
        yield lan
    except BaseException:
        lan.close()
        print(lan.logs())
        raise
    lan.close()


@contextlib.contextmanager
def upstream(folder: pathlib.Path, records: Mapping[str, str]) -> Iterator[int]:
    """An Unbound that knows just these records (name → type and data); yields its port."""
    program = shutil.which("unbound") or "/usr/sbin/unbound"
    port = free_port()
    data = "\n".join(f'  local-data: "{name} 60 IN {record}"' for name, record in records.items())
    config = folder / "unbound.conf"
    config.write_text(
        f'server:\n  directory: "{folder}"\n  chroot: ""\n  username: ""\n  pidfile: ""\n  interface: 127.0.0.1\n'
        f"  port: {port}\n  do-daemonize: no\n  use-syslog: no\n  access-control: 127.0.0.0/8 allow\n"
        f"  do-not-query-localhost: yes\n  module-config: iterator\n  local-zone: . static\n{data}\n"
        "remote-control:\n  control-enable: no\n"
    )
    process = Process("unbound", [program, "-c", str(config)], folder)
    try:
        until(lambda: dig(port, next(iter(records))).rcode, 10, "an answer from unbound")
        yield port
    finally:
        process.end()

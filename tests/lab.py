"""A lab that is up for a test: `nexoraldns lab up` in a folder, and its verbs."""

from __future__ import annotations

import json
import os
import pathlib
import site
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from controller.lab import world
from tests.lan import ROOT, Process, until

NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]


class Lab:
    """A lab that is up in a folder, and its verbs."""

    def __init__(self, folder: pathlib.Path, before: Sequence[str] = (), python: str = sys.executable,
                 more: Sequence[str] = (), **options: Any) -> None:  # fmt: skip
        self.folder = folder / "lab"
        self.words = [*before, python, "-m", "controller.cli", "lab"]
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}
        if python != sys.executable:
            self.environment["PYTHONPATH"] += os.pathsep + os.pathsep.join(site.getsitepackages())
        self.process = Process("lab-up", ["env", f"PYTHONPATH={self.environment['PYTHONPATH']}", *self.words, "up",
                                          "--folder", str(self.folder), *more], folder, **options)  # fmt: skip

    @staticmethod
    def refused(folder: pathlib.Path, before: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """A lab that cannot be: run to its end, with the system's Python and our packages."""
        path = os.pathsep.join((str(ROOT), *site.getsitepackages()))
        words = [*before, "env", f"PYTHONPATH={path}", "/usr/bin/python3", "-m", "controller.cli", "lab", "up"]
        return subprocess.run(
            [*words, "--folder", str(folder / "lab")], capture_output=True, text=True, check=False, timeout=60,
            cwd=folder,
        )  # fmt: skip

    def answers(self) -> None:
        until(
            lambda: "Three things to try" in self.process.text() or self.process.popen.poll() is not None, 40, "lab up"
        )
        assert "Three things to try" in self.process.text(), self.process.text()

    def verb(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.words, words[0], "--folder", str(self.folder), *words[1:]], capture_output=True, text=True,
            check=False, timeout=60, env=self.environment, cwd=self.folder.parent,
        )  # fmt: skip

    def trace(self, *words: str) -> dict[str, Any]:
        ran = self.verb("trace", *words, "--format", "json")
        assert ran.returncode in (0, 1), ran.stderr
        found: dict[str, Any] = json.loads(ran.stdout)
        return found

    def shown(self, case: world.Case) -> str:
        """What `shows` of a case says."""
        found = self.trace(*case.ask)
        return found["rcode"] if found["rcode"] == "SERVFAIL" else found["validation"]


def python() -> str:
    """An interpreter that nobody may run in a namespace: ours may lie in root's home."""
    for candidate in (sys.executable, "/usr/bin/python3"):
        ran = subprocess.run([*NOBODY, "unshare", "-Urn", candidate, "-c", ""], capture_output=True, check=False)
        if ran.returncode == 0:
            return candidate
    raise AssertionError("no Python that an ordinary user may run in a user namespace")

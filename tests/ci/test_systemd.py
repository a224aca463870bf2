"""Facts about the unit for systemd."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from controller import cli

UNIT = pathlib.Path(__file__).resolve().parent.parent.parent / "ci" / "systemd" / "nexoraldns.service"


def test_the_unit_starts_what_there_is() -> None:
    """The verb is one of ours, and nothing checks rules before: a bad rule file must not keep a node from serving."""
    text = UNIT.read_text()
    (start,) = re.findall(r"^ExecStart=(.*)", text, re.M)
    program, verb, *words = start.split()
    assert program.endswith("/nexoraldns") and verb in cli.VERBS and words == ["--config", "/etc/nexoraldns/node.yaml"]
    assert "ExecStartPre" not in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_unit(tmp_path: pathlib.Path) -> None:
    """systemd itself finds nothing to say about it."""
    text = re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text(), flags=re.M)
    (tmp_path / "nexoraldns.service").write_text(re.sub(r"^(User|Documentation)=.*\n", "", text, flags=re.M))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "nexoraldns.service")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert not [line for line in done.stderr.splitlines() if "nexoraldns.service" in line], done.stderr

"""The sample office: valid without a warning, passes its own tests, and shows what the README says it shows."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent


def _nexoraldns(*words: str, where: pathlib.Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "import sys; from controller.cli import main; sys.exit(main())", *words]
    environ = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    environ.pop("GITHUB_ACTIONS", None)
    return subprocess.run(command, cwd=where, env=environ, capture_output=True, text=True, check=False)


def test_sample_is_clean() -> None:
    """`check --strict` has nothing to say about the sample."""
    ran = _nexoraldns("check", "--strict", "rules.d")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_sample_passes_its_own_tests() -> None:
    """`test` passes, and every rule is reached by a test."""
    ran = _nexoraldns("test", "--coverage", "rules.d")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_explain_shows_who_lost_and_why() -> None:
    """For a desk, ads.example is blocked by `trackers`; `ads` is shown as a loser with the step at which it lost."""
    ran = _nexoraldns("explain", "ads.example", "--client", "10.0.10.21", "--type", "A", "rules.d")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = {
        name: line
        for line in ran.stdout.splitlines()
        for name in ("trackers", "ads", "marketing-sees-ads")
        if re.search(rf"\s{name}\s", line)
    }
    assert set(lines) == {"trackers", "ads", "marketing-sees-ads"}, ran.stdout
    assert "rules.d/presets/ads.yaml:" in lines["ads"]


@pytest.mark.parametrize("path", sorted((ROOT / "rules.d").rglob("*.yaml")), ids=lambda path: path.name)
def test_editors_find_the_schema(path: pathlib.Path) -> None:
    """The first line of each file names its schema, by a path that leads to it."""
    first = path.read_text(encoding="utf-8").splitlines()[0]
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert named is not None, first
    assert (path.parent / named[1]).resolve().is_file(), named[1]

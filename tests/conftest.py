"""What holds for every test: which build of the query path is tested, and no leftovers of the caller's environment."""

from __future__ import annotations

import functools
import os
import pathlib
import subprocess
import sys

import hypothesis
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Continuous integration draws the same examples every time; `just fuzz` draws many, and new ones.
hypothesis.settings.register_profile("default", deadline=None, derandomize=os.environ.get("CI") == "true")
hypothesis.settings.register_profile(
    "fuzz", deadline=None, max_examples=int(os.environ.get("NEXORALDNS_FUZZ", "20000")), print_blob=True
)
hypothesis.settings.load_profile("default")

# The caller's own settings must not reach the processes that tests start.
for _name in [name for name in os.environ if name.startswith("NEXORALDNS_")]:
    if _name not in ("NEXORALDNS_INTERPRETED", "NEXORALDNS_REQUIRE_COMPILED"):
        del os.environ[_name]


@functools.cache
def _uncompiled() -> str:
    """What `ci/compiled` says is not compiled or older than its source; empty when all is well."""
    ran = subprocess.run([sys.executable, str(ROOT / "ci" / "compiled")], capture_output=True, text=True, check=False)
    return ran.stdout.strip() if ran.returncode else ""


def pytest_configure(config: pytest.Config) -> None:
    """Where compiled modules are required, refuse to test anything else."""
    if os.environ.get("NEXORALDNS_REQUIRE_COMPILED") == "1" and (missing := _uncompiled()):
        raise pytest.UsageError(missing)


def pytest_report_header(config: pytest.Config) -> str:
    """Say which build is tested."""
    if os.environ.get("NEXORALDNS_INTERPRETED") == "1":
        return "query path: interpreted (NEXORALDNS_INTERPRETED=1)"
    return f"query path: {_uncompiled().splitlines()[0] if _uncompiled() else 'compiled'}"

"""The fuzzer (`fuzz.py`) for a few seconds; `ci/test` runs it for a minute, `--minutes 60` for an hour."""

from __future__ import annotations

from tests.resolve import fuzz


def test_hostile_upstreams_neither_crash_nor_teach_us_lies() -> None:
    """Random messages and behaviours from a fixed seed: every question ends, and nothing foreign is remembered."""
    behaviours, _ = fuzz.run(4.0, first=1)
    assert behaviours >= 6

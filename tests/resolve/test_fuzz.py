"""The fuzzer (`fuzz.py`) for a few seconds; longer by `python -m tests.resolve.fuzz --minutes 60`."""

from __future__ import annotations

from tests.resolve import fuzz


def test_hostile_upstreams_neither_crash_nor_teach_us_lies() -> None:
    """Random messages and behaviours from a fixed seed: every question ends, and nothing foreign is remembered."""
    behaviours, _ = fuzz.run(6.0, first=1)
    assert behaviours > 20

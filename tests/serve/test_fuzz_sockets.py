"""Hostile upstream servers on real sockets for a few seconds; longer by `python -m tests.serve.fuzz_sockets`."""

from __future__ import annotations

import pathlib

from tests.serve import fuzz_sockets


def test_hostile_servers_on_sockets_leave_every_question_answered(tmp_path: pathlib.Path) -> None:
    """Wrong ids, two answers, broken frames over TCP, resets: own names and everybody's answers, and no worker is lost."""
    assert fuzz_sockets.run(4.0, 1, tmp_path) >= 16

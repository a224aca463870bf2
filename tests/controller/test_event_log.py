"""Events over restarts."""

from __future__ import annotations

from pathlib import Path

from controller.event_log import EventLog


def test_events_survive_a_restart_and_are_bounded(tmp_path: Path) -> None:
    """The newest are there again, the file does not grow without end, and damaged lines are left out."""
    path = tmp_path / "events.jsonl"
    log = EventLog(str(path), bound=5)
    for number in range(40):
        log.put({"time": "2026-03-02T10:00:00Z", "source": "kernel", "duration_ms": number})
    assert [row["duration_ms"] for row in log.rows] == [35, 36, 37, 38, 39]
    assert len(path.read_text().splitlines()) <= 16
    with path.open("a") as file:
        file.write('{"time": 7}\n[]\n{"time": "x"')
    assert EventLog(str(path), bound=5).rows == log.rows


def test_a_full_disk_loses_nothing_that_runs(tmp_path: Path) -> None:
    """Where the file cannot be written the events are still told."""
    log = EventLog(str(tmp_path / "missing" / "events.jsonl"))
    log.put({"time": "2026-03-02T10:00:00Z"})
    assert len(log.rows) == 1
    assert EventLog().rows == []

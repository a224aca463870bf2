"""History and state: bounded, on disk, and true after a restart and after a power cut."""

from __future__ import annotations

import json
import pathlib

import pytest

from controller import clock
from controller.history import ACTIVE, REFUSED, SUPERSEDED, History
from controller.ruleset import Revision
from controller.state import State


def revision(number: int) -> Revision:
    sha = f"{number:040x}"
    return Revision(f"main@sha1:{sha}", f"main@sha1:{sha[:12]}", "main", sha, "Anna", "", "", f"S{number}")


def filled(path: pathlib.Path, count: int, bound: int = 200) -> State:
    state = State(History(str(path), bound))
    for number in range(1, count + 1):
        state.moved(state.seen(revision(number)), ACTIVE, 5.0, digest="ab", generation=number)
    return state


def test_rows_survive_a_restart(tmp_path: pathlib.Path) -> None:
    """What was decided is there again after a restart, and what was active last is known."""
    path = tmp_path / "history.jsonl"
    state = filled(path, 2)
    row = state.moved(state.seen(revision(3)), REFUSED, 7.0, text="error[E021]: …", errors=1)
    again = State(History(str(path)))
    assert again.history.rows == state.history.rows
    assert again.newest == row
    assert again.active is not None and again.active.generation == 2


def test_bounded_in_memory_and_on_disk(tmp_path: pathlib.Path) -> None:
    """Old rows are forgotten, and the file does not grow for ever."""
    path = tmp_path / "history.jsonl"
    state = filled(path, 95, bound=10)
    assert [row.number for row in state.history.rows] == list(range(86, 96))
    assert len(path.read_text().splitlines()) <= 31
    assert [row.number for row in History(str(path), 10).rows] == list(range(86, 96))


def test_a_power_cut_in_the_middle_of_a_line(tmp_path: pathlib.Path) -> None:
    """Half a line is left out, and the line after it is whole."""
    path = tmp_path / "history.jsonl"
    filled(path, 3)
    path.write_bytes(path.read_bytes()[:-40])
    state = State(History(str(path)))
    assert [row.number for row in state.history.rows] == [1, 2]
    state.moved(state.seen(revision(4)), SUPERSEDED, 1.0)
    assert [row.number for row in History(str(path)).rows] == [1, 2, 3]


def test_a_disk_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    """Nothing stops: the rows stay in memory, and the status says why they are not on disk."""
    path = tmp_path / "is-a-folder"
    path.mkdir()
    state = filled(path, 1)
    assert state.active is not None
    assert [problem["key"] for problem in state.snapshot()["problems"]] == ["history"]


def test_the_same_revision_again_is_the_same_row(tmp_path: pathlib.Path) -> None:
    """A restart sees the newest revision again: one row, not two; an older one seen again is a new row."""
    state = filled(tmp_path / "h", 2)
    state.seen(revision(2))
    assert len(state.history.rows) == 2
    state.seen(revision(1))
    assert len(state.history.rows) == 3


def test_snapshot_is_a_value(tmp_path: pathlib.Path) -> None:
    """A snapshot is plain JSON, and does not change when the state does."""
    state = filled(tmp_path / "h", 1)
    nodes = [{"name": "n", "connected": True, "workers": [{"slot": 0, "digest": "ab"}]}]
    state.broker = lambda: {"nodes": nodes, "refused": {"auth_failed": 2}}
    state.report("n", {"blocked": 2}, [{"qname": "a.example"}], [])
    state.report("m", {"blocked": 3, "local": 1}, [{"qname": "b.example"}], [])
    state.event({"source": "kernel", "reason": "address added", "interface": "eth0", "addresses": ["192.0.2.1/24"]})
    before = state.snapshot()
    text = json.dumps(before)
    state.report("n", {"blocked": 9}, [{"qname": "c.example"}], [])
    nodes[0]["name"] = "changed"
    assert json.dumps(before) == text
    assert before["counters"] == {"blocked": 5, "local": 1}
    assert [decision["qname"] for decision in before["decisions"]] == ["b.example", "a.example"]
    assert before["active"]["revision"] == revision(1).id and before["active"]["generation"] == 1
    assert before["broker"] == {"refused": {"auth_failed": 2}}
    assert before["events"][0]["interface"] == "eth0"


def test_decisions_are_shown_in_peoples_units(tmp_path: pathlib.Path) -> None:
    """Epoch milliseconds and microseconds on the wire are a time and milliseconds on the page."""
    state = filled(tmp_path / "h", 1)
    state.report("n", {}, [{"qname": "a.example.", "time_ms": 1767225600123, "latency_us": 1500}, {"qname": "."}])
    root, decision = state.snapshot()["decisions"]
    assert decision == {"node": "n", "qname": "a.example", "time": "2026-01-01T00:00:00.123Z", "ms": 1.5}
    assert root["qname"] == "."


def test_the_brokers_word_counts(tmp_path: pathlib.Path) -> None:
    """What the broker's own state serves is what is active, whatever the history says."""
    state = filled(tmp_path / "h", 2)
    state.resume({"generation": 2, "manifest": {"table": "ab"}, "revision": {}})
    assert state.active is not None and state.active.number == 2
    state.resume({"generation": 7, "manifest": {"table": "cd"}, "revision": {"id": "main@sha1:77", "author": "Tom"}})
    assert (state.active.generation, state.active.digest, state.active.revision.author) == (7, "cd", "Tom")
    state.resume(None)
    assert state.active is None


def test_problems_keep_their_first_time(tmp_path: pathlib.Path) -> None:
    """A problem said twice is one problem, since the first time; it goes when it is gone."""
    state = filled(tmp_path / "h", 1)
    state.problem("source", "unreachable")
    first = state.snapshot()["problems"]
    state.problem("source", "unreachable")
    assert state.snapshot()["problems"] == first
    state.problem("source", "")
    assert state.snapshot()["problems"] == []


def test_ago() -> None:
    """Ages are said as people say them."""
    now = clock.parse("2026-03-02T12:00:00Z")
    said = {}
    for text in ("03-02T12:00:00Z", "03-02T11:59:18Z", "03-02T11:55:00Z", "03-01T11:00:00Z", "02-20T12:00:00Z"):
        moment = clock.parse(f"2026-{text}")
        assert moment is not None and now is not None
        said[text] = clock.ago(moment, now)
    assert list(said.values()) == ["now", "42 s ago", "5 min ago", "yesterday", "10 days ago"]
    assert clock.parse("soon") is None


def test_active_since(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table is active since it began to be served, however often the controller starts or a mistake is taken back."""
    path = tmp_path / "history.jsonl"
    moments = iter(f"2026-11-23T08:00:{second:02}Z" for second in range(60))
    monkeypatch.setattr(clock, "now_text", lambda: next(moments))
    state = filled(path, 1)
    began = state.snapshot()["active"]["since"]
    state.moved(state.seen(revision(2)), REFUSED, 1.0)
    state.moved(state.seen(revision(1)), ACTIVE, 1.0, digest="ab", generation=1)  # taken back
    for _ in range(2):
        state = State(History(str(path)))
        state.moved(state.seen(revision(1)), ACTIVE, 1.0, digest="ab", generation=1)
        assert state.snapshot()["active"]["since"] == began
    state.moved(state.seen(revision(3)), ACTIVE, 1.0, digest="ac", generation=2)
    assert state.snapshot()["active"]["since"] > began

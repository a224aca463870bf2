"""The benchmark's own arithmetic: the questions are well formed, the verdicts follow from the figures."""

from __future__ import annotations

import math
import pathlib
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import dns.message
import pytest

BENCH = pathlib.Path(__file__).resolve().parent.parent / "bench"


@pytest.fixture(autouse=True)
def bench_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark's modules are scripts beside each other; they leave sys.modules with the test."""
    monkeypatch.syspath_prepend(str(BENCH))
    for name in ("alone", "compare", "data", "instructions", "measure", "report", "servers"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_no_blocked_name_is_below_another() -> None:
    """Every server has the same list, whatever it thinks of names below names."""
    import data

    names = data.blocked_names(20_000)
    known = set(names)
    assert len(known) == len(names)
    assert not any(".".join(name.split(".")[i:]) in known for name in names for i in range(1, name.count(".") + 1))
    assert data.blocked_names(1_000) == names[:1_000]


def test_every_question_is_a_dns_message() -> None:
    """Each case's packets parse, with the EDNS options that the case is about."""
    import data

    given = data.make(1_000)
    for case in data.CASES:
        for packet in data.packets(given, case)[:20]:
            message = dns.message.from_wire(packet[4:])
            assert int.from_bytes(packet[:2], "little") == len(packet) - 4
            assert len(message.question) == 1
            assert (message.edns == 0) == (case.endswith("-edns") or case in ("large", "cookies"))
            if packet[2] & data.FRESH:
                assert packet[4 + 12 : 4 + 21] == b"\x0800000000"


def test_a_target_is_met_missed_or_not_measured() -> None:
    """A figure that is missing is never called met."""
    import report

    def found(ours: float) -> dict[str, object]:
        figures = {"nexoraldns": ours, "unbound": 6.0, "dnsdist": 5.0, "echo": 3.0}
        rows = [{"server": name, "case": "cached", "us": us} for name, us in figures.items()]
        return {"setting": {"time": "now"}, "compare": {"costs": rows, "latencies": []}}

    for ours, verdict in ((3.7, "met"), (4.6, "**not met**")):
        rows = report.rows(found(ours))
        assert [row.verdict for row in rows[:2]] == [verdict, verdict]
        assert rows[0].words == f"{ours:.2f} µs, dnsdist 5.00 µs"
        assert {row.verdict for row in rows[2:]} == {"not measured"}
        assert all(math.isnan(row.figure) for row in rows[2:])
    text = report.document(found(4.6))
    assert "Targets: 0 of" in text and "not measured" in text
    ElementTree.fromstring(report.drawing(found(4.6)))


def test_the_client_counts_answers_and_their_time(tmp_path: pathlib.Path) -> None:
    """Against the echo: a closed loop loses nothing, an open loop notes when each answer came."""
    import data
    from measure import Client, ask, until

    given = data.make(1_000)
    data.write_packets(tmp_path / "packets", given)
    client = Client(tmp_path)
    subprocess.run(["cc", "-O1", "-o", str(tmp_path / "echo"), str(BENCH / "echo.c")], check=True)
    echo = subprocess.Popen([str(tmp_path / "echo"), "17398"])
    try:
        until(lambda: ask(17398, "a.test") is not None, 10, "the echo's start")
        seen = client.load(17398, tmp_path / "packets/cached", 0)
        assert (seen["sent"], seen["answered"], seen["lost"]) == (1000, 1000, 0)
        seen, latency = client.paced(17398, tmp_path / "packets/mixed", 0.2, 1000).finish()
        assert seen["sent"] == len(latency.sent) == 200
        assert seen["lost"] == sum(took < 0 for took in latency.took)
        assert list(latency.sent) == sorted(latency.sent)
        assert 0 < latency.quantile(0.5) <= latency.quantile(0.99)
    finally:
        echo.kill()
        echo.wait()

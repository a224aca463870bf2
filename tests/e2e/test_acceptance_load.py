"""What a killed worker costs under load: nothing. And how a node ends under load, and what SIGHUP does."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import time
from collections.abc import Iterator

from tests import lan

ASKED = "printer.office.example A\ntracker.example A\nold.example A\n15.20.0.10.in-addr.arpa PTR\n"


@contextlib.contextmanager
def load(office: lan.Lan, seconds: int, rate: int = 2000, patience_s: int = 10) -> Iterator[dict[str, str]]:
    """dnsperf beside what the block does; afterwards its report is under "text". A query is lost after `patience_s`."""
    asked = office.folder / "queries"
    asked.write_text(ASKED)
    words = ["dnsperf", "-s", "127.0.0.1", "-p", str(office.dns), "-d", str(asked), "-l", str(seconds), "-c", "8"]
    process = subprocess.Popen([*words, "-Q", str(rate), "-t", str(patience_s)], stdout=subprocess.PIPE, text=True)
    report: dict[str, str] = {}
    try:
        yield report
        report["text"], _ = process.communicate(timeout=seconds + 20)
    finally:
        process.kill()
        process.wait()


def _lost(text: str) -> int:
    found = re.search(r"Queries lost:\s+(\d+) ", text)
    assert found is not None, text
    return int(found[1])


def _slowest_s(text: str) -> float:
    found = re.search(r"Average Latency \(s\):\s+\S+ \(min \S+, max (\S+)\)", text)
    assert found is not None, text
    return float(found[1])


def test_a_worker_is_killed_under_load(tmp_path: pathlib.Path) -> None:
    """Both workers in turn are killed with -9 while dnsperf asks: every query is answered, well within a second."""
    with lan.office(tmp_path) as office:
        office.start("run")
        office.answers()
        with load(office, 4) as report:
            for slot in (0, 1):
                time.sleep(1.0)
                os.kill(next(row["pid"] for row in office.workers() if row["slot"] == slot), signal.SIGKILL)
        assert _lost(report["text"]) == 0, report["text"]
        codes = re.search(r"Response codes:\s+(.*)", report["text"])
        assert codes is not None and "SERVFAIL" not in codes[1], report["text"]
        assert _slowest_s(report["text"]) < 1.0, report["text"]


def test_what_was_queued_is_answered_by_the_replacement(tmp_path: pathlib.Path) -> None:
    """A stopped worker's queue survives its death: with one worker only, the replacement answers all of it."""
    with lan.office(tmp_path, {"workers": 1}) as office:
        office.start("run")
        office.answers()
        victim = office.workers()[0]["pid"]
        os.kill(victim, signal.SIGSTOP)
        names = [f"x{number}.tracker.example" for number in range(20)]
        asking = [
            subprocess.Popen(
                ["dig", "@127.0.0.1", "-p", str(office.dns), name, "+time=4", "+tries=1"],
                stdout=subprocess.PIPE, text=True,
            )
            for name in names
        ]  # fmt: skip
        time.sleep(0.7)
        os.kill(victim, signal.SIGKILL)
        for process in asking:
            text, _ = process.communicate(timeout=10)
            assert "status: NXDOMAIN" in text, text


def test_a_crash_loop_of_one_worker(tmp_path: pathlib.Path) -> None:
    """One slot's worker dies again and again for three seconds: nobody waits longer than a second, nothing is lost."""
    with lan.office(tmp_path) as office:
        office.start("run")
        office.answers()
        rows = {row["slot"]: row["pid"] for row in office.workers()}
        parent = int(pathlib.Path(f"/proc/{rows[0]}/stat").read_text().rpartition(")")[2].split()[1])
        children = pathlib.Path(f"/proc/{parent}/task/{parent}/children")
        spared = set(children.read_text().split()) - {str(rows[0])}  # the agent and the other worker
        deaths = 0
        with load(office, 5) as report:
            ends = time.monotonic() + 3.0
            while time.monotonic() < ends:
                for pid in set(children.read_text().split()) - spared:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                        deaths += 1
                time.sleep(0.01)
        assert deaths >= 4
        assert _lost(report["text"]) == 0, report["text"]
        assert _slowest_s(report["text"]) < 1.0, report["text"]
        office.answers()


def test_the_controller_is_killed_under_load(tmp_path: pathlib.Path) -> None:
    """kill -9 of the controller, and of the agent: no query notices; both come back and an edit goes through."""
    with lan.office(tmp_path) as office:
        run = office.start("run")
        office.answers()
        children = pathlib.Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        controller = next(pid for pid in children if b"\0controller\0" in _words(pid))
        dnsd = next(pid for pid in children if b"\0dnsd\0" in _words(pid))
        workers = {str(row["pid"]) for row in office.workers()}
        inside = pathlib.Path(f"/proc/{dnsd}/task/{dnsd}/children").read_text().split()
        agent = next(pid for pid in inside if pid not in workers)
        with load(office, 4) as report:
            time.sleep(0.7)
            os.kill(int(controller), signal.SIGKILL)
            time.sleep(0.7)
            os.kill(int(agent), signal.SIGKILL)
        assert _lost(report["text"]) == 0, report["text"]
        assert _slowest_s(report["text"]) < 1.0, report["text"]
        lan.until(lambda: len(office.workers()) == 2, 15)
        office.write("office.yaml", lan.RULES.replace("value: one", "value: after"))
        lan.until(lambda: office.everywhere("version.office.example", "TXT", 6) == {'"after"'}, 15, "the edit")
        assert {str(row["pid"]) for row in office.workers()} == workers


def _words(pid: str) -> bytes:
    return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()


def test_sigterm_under_load(tmp_path: pathlib.Path) -> None:
    """SIGTERM while dnsperf asks: everything has ended within five seconds, with 0 and no traceback."""
    with lan.office(tmp_path) as office:
        run = office.start("run")
        office.answers()
        pids = [row["pid"] for row in office.workers()]
        with load(office, 2, 5000, 1):
            time.sleep(0.8)
            assert run.end(signal.SIGTERM, 5) == 0
            assert not any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids)
        assert "Traceback" not in run.text()


def test_sighup(tmp_path: pathlib.Path) -> None:
    """SIGHUP reads the settings again: broken ones are refused in words, good ones are taken; no query is lost."""
    with lan.office(tmp_path) as office:
        run = office.start("run")
        office.answers()
        pids = {row["pid"] for row in office.workers()}
        good = office.config.read_text()
        with load(office, 4) as report:
            office.config.write_text(good + "cachee: 1\n")
            os.kill(run.pid, signal.SIGHUP)
            lan.until(lambda: "cachee" in run.text(), 3, "a word about the broken settings")
            office.config.write_text(good + "allow: [127.0.0.0/8]\nquerylog: {privacy: none}\n")
            os.kill(run.pid, signal.SIGHUP)
            time.sleep(1.5)
        assert _lost(report["text"]) == 0, report["text"]
        assert run.popen.poll() is None and "Traceback" not in run.text()
        lan.until(lambda: {row["pid"] for row in office.workers()} == pids, 5, "the same workers")
        office.write("office.yaml", lan.RULES.replace("value: one", "value: after"))
        lan.until(lambda: office.everywhere("version.office.example", "TXT", 6) == {'"after"'}, 10, "the edit")
        office.config.write_text(good + "allow: [10.0.0.0/8]\n")
        os.kill(run.pid, signal.SIGHUP)
        lan.until(lambda: office.dig("printer.office.example").rcode == "REFUSED", 5, "who may ask")

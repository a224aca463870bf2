"""From a saved file to what dig gets from every worker, and what a bad file does: nothing."""

from __future__ import annotations

import pathlib
import re
import signal
import time
from collections.abc import Iterator

import pytest

from tests import lan


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lan.Lan]:
    """`run` over a folder of rules, with an Unbound for everything else."""
    folder = tmp_path_factory.mktemp("office")
    with lan.upstream(folder, {"far.example": "A 192.0.2.99"}) as port:
        rules = lan.RULES + f'forward:\n  ".": "127.0.0.1:{port}"\n'
        with lan.office(folder, rules={"office.yaml": rules, "more.yaml": "version: 1\n"}) as one:
            one.start("run")
            one.answers()
            yield one


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_every_kind_of_answer(office: lan.Lan, transport: str) -> None:
    """A record, its PTR, a blocked name, an exception, a redirect and a forwarded name, over UDP and TCP."""
    assert office.dig("printer.office.example", "A", transport).data == ["10.0.20.15"]
    assert "aa" in office.dig("printer.office.example", "A", transport).flags
    assert office.dig("15.20.0.10.in-addr.arpa", "PTR", transport).data == ["printer.office.example."]
    assert office.dig("x.tracker.example", "A", transport).rcode == "NXDOMAIN"
    # Below ads.example a rule allows a name: saying that nothing exists there would deny it, too (RFC 8020).
    blocked = office.dig("ads.example", "A", transport)
    assert (blocked.rcode, blocked.records) == ("NOERROR", ()) and "Blocked" in blocked.ede
    assert "Blocked" not in office.dig("parcel.ads.example", "A", transport).ede
    assert office.dig("old.example", "A", transport).data == ["10.0.20.9"]
    assert office.dig("far.example", "A", transport).data == ["192.0.2.99"]
    assert office.dig("printer.office.example", "AAAA", transport).records == ()


def test_a_blocked_answer_says_who_decided(office: lan.Lan) -> None:
    """An Extended DNS Error names the rule and its file and line (RFC 8914, code 15)."""
    answer = office.dig("tracker.example")
    assert answer.rcode == "NXDOMAIN"
    assert re.search(r"15 \(Blocked\).*no-ads rules\.d/office\.yaml:\d+", answer.ede), answer.text


def test_kdig_agrees(office: lan.Lan) -> None:
    """Another implementation's client reads our answers."""
    assert office.dig("printer.office.example", "A", program="kdig").data == ["10.0.20.15"]


def test_the_greeting(office: lan.Lan) -> None:
    """`run` prints three things to try once it answers, and they are true."""
    text = lan.until(lambda: (found := office.processes[-1].text()) and "Three things" in found and found, 10)
    words = re.search(r"dig @127\.0\.0\.1 -p (\d+) (\S+)", text)
    assert words is not None and int(words[1]) == office.dns
    assert office.dig(words[2]).rcode == "NOERROR"
    assert f"http://127.0.0.1:{office.page}" in text


def test_a_save_reaches_every_worker_within_a_second(office: lan.Lan) -> None:
    """A changed record is what every worker answers, within a second of the save."""
    for word in ("two", "three", "one"):
        text = (office.rules / "office.yaml").read_text()
        rules = re.sub(r"type: TXT, value: \w+", f"type: TXT, value: {word}", text)
        office.write("office.yaml", rules)
        saved = time.monotonic()
        lan.until(lambda word=word: office.dig("version.office.example", "TXT").data == [f'"{word}"'], 5)  # type: ignore[misc]
        took_s = time.monotonic() - saved
        office.answers()
        assert office.everywhere("version.office.example", "TXT") == {f'"{word}"'}
        assert took_s < 1.0, f"{took_s:.2f} s"


def test_a_broken_file_changes_nothing(office: lan.Lan) -> None:
    """Answers stay; page, log, status and history show the error with its place, in the words of check."""
    before = office.status()["active"]
    office.write("more.yaml", "version: 1\nrules:\n  - {name: bad, block: [list:adz]}\n")
    status = lan.until(lambda: (s := office.status())["newest"]["state"] == "refused" and s, 5, "a refusal")
    text = status["newest"]["problems_text"]
    assert "error[E021]" in text and "rules.d/more.yaml:3:" in text and "did you mean 'ads'" in text
    assert status["active"] == before
    assert office.dig("printer.office.example").data == ["10.0.20.15"]
    checked = office.verb("check", "rules.d")
    assert checked.returncode == 1
    assert text.splitlines()[0] in checked.stdout + checked.stderr
    assert "rules.d/more.yaml:3:" in office.get("/")[1].decode()
    shown = office.verb("status")
    assert shown.returncode == 1 and "rules.d/more.yaml:3:" in shown.stdout
    assert "refused (1 error)" in office.verb("history").stdout
    assert "E021" in office.processes[-1].text()
    office.write("more.yaml", "version: 1\n")
    lan.until(lambda: office.status()["newest"]["state"] == "active", 5, "a good revision again")


def test_decisions_reach_the_page(office: lan.Lan) -> None:
    """A decision is on the page with client, rule, list and place; counters count it."""
    office.dig("tracker.example")

    def seen() -> bool:
        return any(d["qname"] == "tracker.example" and d["rule"] for d in office.status()["decisions"])

    lan.until(seen, 5, "the decision")
    found = next(d for d in office.status()["decisions"] if d["qname"] == "tracker.example" and d["rule"])
    assert found["rule"] == "no-ads" and re.fullmatch(r"rules\.d/office\.yaml:\d+", found["where"])
    assert office.status()["counters"]["blocked"] >= 1


def test_operators(office: lan.Lan) -> None:
    """Suspended, a save waits; resumed, it is served; sync and retry say what there is to say."""
    assert office.verb("suspend").returncode == 0
    rules = (office.rules / "office.yaml").read_text()
    office.write("office.yaml", rules.replace("printer: 10.0.20.15", "printer: 10.0.20.16"))
    lan.until(lambda: office.status()["newest"]["state"] == "seen", 5, "the save")
    assert office.status()["suspended"] and office.dig("printer.office.example").data == ["10.0.20.15"]
    assert office.verb("resume").returncode == 0
    lan.until(lambda: office.dig("printer.office.example").data == ["10.0.20.16"], 5)
    assert office.verb("retry").returncode == 1
    office.write("office.yaml", rules)
    lan.until(lambda: office.dig("printer.office.example").data == ["10.0.20.15"], 5)
    assert office.verb("sync").stdout.startswith("nothing new")


def test_run_ends_with_0(tmp_path: pathlib.Path) -> None:
    """SIGTERM ends everything within five seconds with exit code 0, and leaves no process behind."""
    with lan.office(tmp_path) as one:
        run = one.start("run")
        one.answers()
        pids = [worker["pid"] for worker in one.workers()]
        assert run.end(signal.SIGTERM, 5) == 0
        assert not any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids)
        assert "Traceback" not in run.text()


def test_a_port_in_use(tmp_path: pathlib.Path) -> None:
    """A second `run` on the same ports says so in a sentence and ends with 2; the first goes on."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with lan.office(tmp_path / "a") as first, lan.office(tmp_path / "b") as second:
        first.start("run")
        first.answers()
        second.config.write_text(second.config.read_text().replace(str(second.dns), str(first.dns)))
        run = second.start("run")
        lan.until(lambda: run.popen.poll() is not None, 10, "the end")
        assert run.popen.returncode == 2
        assert "in use" in run.text() and "Traceback" not in run.text()
        assert first.dig("printer.office.example").data == ["10.0.20.15"]


def test_without_rules_yet(tmp_path: pathlib.Path) -> None:
    """Without a folder of rules `run` stays up, answers SERVFAIL with a reason, and begins when there are rules."""
    with lan.office(tmp_path) as one:
        away = one.rules.with_name("away")
        one.rules.rename(away)
        run = one.start("run")
        lan.until(lambda: any("there is no folder" in p["message"] for p in one.status().get("problems", ())), 10)
        lan.until(lambda: (a := one.dig("printer.office.example", "A")).rcode == "SERVFAIL" and "14" in a.ede, 15)
        assert one.get("/readyz")[0] == 503 and one.verb("status").returncode == 1
        away.rename(one.rules)
        one.answers()
        assert one.dig("printer.office.example").data == ["10.0.20.15"]
        assert run.popen.poll() is None


def test_interrupt_from_the_terminal(tmp_path: pathlib.Path) -> None:
    """Ctrl-C reaches every process of the terminal at once; it still ends with 0 and without a traceback."""
    with lan.office(tmp_path) as one:
        run = one.start("run")
        one.answers()
        assert run.end(signal.SIGINT, 5) == 0
        assert "Traceback" not in run.text()

"""Forwarders, aliases across realms, and the cache, with real Unbounds above a real node."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests import lan as lans
from tests.lab import Lab
from tests.lan import Lan, Process, free_port, until

RULES = """\
version: 1
groups: {{kids: {{members: [127.0.1.0/24]}}}}
clients: {{tablet: {{ids: [127.0.1.9]}}}}
zones: {{field.lab: {{records: {{www: 192.0.2.250}}}}, dead.lab: {{records: {{x: 10.0.0.9}}}}}}
protect: {{rebinding: true}}
forward:
  ".": recurse
  nothing.farm.lab: "127.0.0.1:{one}"
  20.10.in-addr.arpa: "127.0.0.1:{one}"
  grouped.example: {{upstreams: "127.0.0.1:{one}", for: {{kids: "127.0.0.1:{two}", tablet: {{upstreams: "127.0.0.1:{three}"}}}}}}
  pair.example: {{upstreams: ["127.0.0.1:{one}", "127.0.0.1:{two}"], timeout: 400ms}}
  raced.example: {{upstreams: ["127.0.0.1:{one}", "127.0.0.1:{two}"], strategy: race, timeout: 400ms}}
  spread.example: {{upstreams: ["127.0.0.1:{one}", "127.0.0.1:{two}"], strategy: spread}}
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Upstream:
    """An Unbound that answers every name of *.example with its own address."""

    port: int
    process: Process

    def asked(self, name: str) -> int:
        """How often it has been asked for a name."""
        return self.process.text().count(f" {name}. ")


@contextlib.contextmanager
def unbound(folder: pathlib.Path, number: int) -> Iterator[Upstream]:
    """Number n answers with 203.0.113.n."""
    folder.mkdir()
    port = free_port()
    zones = "".join(
        f'  local-zone: "{zone}" redirect\n  local-data: "{zone} 60 IN A 203.0.113.{number}"\n'
        for zone in ("grouped.example", "pair.example", "raced.example", "nothing.farm.lab", "spread.example")
    )
    (folder / "unbound.conf").write_text(
        f'server:\n  directory: "{folder}"\n  chroot: ""\n  username: ""\n  pidfile: ""\n  interface: 127.0.0.1\n  port: {port}\n'
        f"  do-daemonize: no\n  use-syslog: no\n  log-queries: yes\n  module-config: iterator\n{zones}"
        '  local-zone: "20.10.in-addr.arpa" static\n  local-data: "15.0.20.10.in-addr.arpa 60 IN PTR printer.office.example."\n'
        f'  local-zone: "short.pair.example" redirect\n  local-data: "short.pair.example 1 IN A 203.0.113.{number}"\n'
        f'  local-zone: "ripe.pair.example" redirect\n  local-data: "ripe.pair.example 10 IN A 203.0.113.{number}"\n'
        "remote-control:\n  control-enable: no\n"
    )
    program = shutil.which("unbound") or "/usr/sbin/unbound"
    process = Process(f"unbound-{number}", [program, "-c", str(folder / "unbound.conf")], folder)
    try:
        until(lambda: lans.dig(port, "x.pair.example").rcode == "NOERROR", 10, "an answer from unbound")
        yield Upstream(port, process)
    finally:
        with contextlib.suppress(OSError):
            os.kill(process.pid, signal.SIGCONT)
        process.end()


@pytest.fixture(scope="module")
def upstreams(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Upstream]]:
    """Three of them."""
    folder = tmp_path_factory.mktemp("upstreams")
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(unbound(folder / str(number), number)) for number in (1, 2, 3)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Real NSD and Knot, with signed zones."""
    found = Lab(tmp_path_factory.mktemp("lab"), more=["--no-resolver"])
    try:
        found.answers()
        yield found
    finally:
        found.process.end()


@pytest.fixture(scope="module")
def lan(lab: Lab, upstreams: list[Upstream], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    """A node with one worker, whose cache outlives it."""
    resolver = yaml.safe_load((lab.folder / "node.yaml").read_text())["resolver"]
    one, two, three = (upstream.port for upstream in upstreams)
    rules = {"office.yaml": RULES.format(one=one, two=two, three=three)}
    settings = {
        "resolver": resolver, "workers": 1, "cache": {"size": "4MiB", "persist": True}, "allow": ["127.0.0.0/23"],
        "clients": {"rate_limit": 300},
    }  # fmt: skip
    with lans.office(tmp_path_factory.mktemp("office"), settings, rules) as office:
        office.start("controller")
        office.start("dnsd")
        office.answers()
        yield office


@pytest.fixture(scope="module")
def ripening(lan: Lan) -> float:
    """Since when an answer of ten seconds is known (monotonic): other tests run while it ripens."""
    assert lan.dig("ripe.pair.example").data
    return time.monotonic()


@pytest.mark.usefixtures("ripening")
def test_clients_of_a_group_are_asked_for_elsewhere(lan: Lan, upstreams: list[Upstream]) -> None:
    """Everybody at the first Unbound, the group at the second, one client at the third; their answers are not mixed."""
    for _ in range(2):
        for source, address in (("127.0.0.1", 1), ("127.0.1.1", 2), ("127.0.1.9", 3), ("127.0.0.1", 1)):
            assert lan.dig("www.grouped.example", "A", "-b", source).data == [f"203.0.113.{address}"], source
    assert [upstream.asked("www.grouped.example") for upstream in upstreams] == [1, 1, 1]
    explained = lan.verb("explain", "www.grouped.example", "--client", "127.0.1.1")
    assert explained.returncode == 0 and "for kids" in explained.stdout, explained.stdout + explained.stderr


def test_a_stopped_server_costs_one_timeout_and_is_back_when_it_goes_on(lan: Lan, upstreams: list[Upstream]) -> None:
    """SIGSTOP: one client waits, the others do not, page and API call it ill; SIGCONT: a probe finds it, and it is first again."""
    first = upstreams[0]

    def ill() -> int:
        rows = [row for node in lan.status()["nodes"] for row in node.get("upstreams", [])]
        return next((row["ill"] for row in rows if row["server"] == f"127.0.0.1:{first.port}"), -1)

    assert lan.dig("a.pair.example").data == ["203.0.113.1"]
    os.kill(first.process.pid, signal.SIGSTOP)
    try:
        for number in range(6):
            began = time.monotonic()
            assert lan.dig(f"b{number}.pair.example").data == ["203.0.113.2"]
            assert time.monotonic() - began < (1.5 if number == 0 else 0.35)
        until(lambda: ill() > 0, 8, "word of the stopped server")
    finally:
        os.kill(first.process.pid, signal.SIGCONT)
    until(lambda: ill() == 0, 8, "word that it is back")
    until(lambda: lan.dig(f"c{time.monotonic_ns()}.pair.example").data == ["203.0.113.1"], 5, "its turn")


def test_a_race_does_not_wait_for_who_is_stopped(lan: Lan, upstreams: list[Upstream]) -> None:
    """Of two that are asked at once the one that lives answers: over UDP, and over TCP as well."""
    os.kill(upstreams[0].process.pid, signal.SIGSTOP)
    try:
        for name, transport in (("a.raced.example", "+notcp"), ("b.raced.example", "+tcp")):
            began = time.monotonic()
            assert lan.dig(name, "A", transport).data == ["203.0.113.2"]
            assert time.monotonic() - began < 0.35
    finally:
        os.kill(upstreams[0].process.pid, signal.SIGCONT)


def test_spread_asks_both(lan: Lan, upstreams: list[Upstream]) -> None:
    """Of forty names each of the two is asked for some."""
    found = [lan.dig(f"n{number}.spread.example").data[0] for number in range(40)]
    assert set(found) == {"203.0.113.1", "203.0.113.2"}


def test_what_is_asked_for_near_its_end_is_fetched_before(lan: Lan, upstreams: list[Upstream], ripening: float) -> None:
    """In the last tenth of its time an answer is renewed behind the client's back: nobody waits for it."""
    while (late := time.monotonic() - ripening) > 9.7:  # a busy machine: once more, from the beginning
        until(lambda: time.monotonic() - ripening > 10.5, 5)  # noqa: B023
        ripening = time.monotonic()
        assert lan.dig("ripe.pair.example").data
    before = upstreams[0].asked("ripe.pair.example")
    until(lambda: time.monotonic() - ripening > 9.2, 10, f"the last tenth ({late:.1f} s are over)")
    assert lan.dig("ripe.pair.example").data
    until(lambda: upstreams[0].asked("ripe.pair.example") == before + 1, 3, "a question for nobody")
    until(lambda: lan.dig("ripe.pair.example").text.split("ANSWER SECTION:\n")[1].split()[1] in ("10", "9"), 2, "a new answer")


def test_when_all_are_stopped_what_was_known_is_served(lan: Lan, upstreams: list[Upstream]) -> None:
    """RFC 8767: past its time, with TTL 30 and EDE 3; what nobody knew is SERVFAIL with the servers' names."""
    assert lan.dig("short.pair.example").data
    for upstream in upstreams[:2]:
        os.kill(upstream.process.pid, signal.SIGSTOP)
    try:
        until(lambda: "Stale" in (answer := lan.dig("short.pair.example")).ede and answer.data, 8, "an answer past its time")
        assert "\t30\t" in re.sub(r"[ \t]+", "\t", lan.dig("short.pair.example").text)
        unknown = lan.dig("never.pair.example")
        assert unknown.rcode == "SERVFAIL" and f"127.0.0.1:{upstreams[0].port} timed out" in unknown.ede
    finally:
        for upstream in upstreams[:2]:
            os.kill(upstream.process.pid, signal.SIGCONT)
    assert lan.verb("cache", "flush", "short.pair.example").returncode == 0  # else it serves for 30 s without asking again
    until(lambda: (answer := lan.dig("short.pair.example")).data and "Stale" not in answer.ede, 10, "a new answer")


def test_strangers_and_floods(lan: Lan) -> None:
    """A client that is not allowed is REFUSED with the reason; a flood is told to ask over TCP, who has a cookie is not."""
    stranger = lan.dig("www.field.lab", "A", "-b", "127.9.9.9")
    assert stranger.rcode == "REFUSED" and "allow" in stranger.ede
    queries = lan.folder / "queries"
    queries.write_text("www.field.lab A\n")
    words = ["dnsperf", "-s", "127.0.0.1", "-p", str(lan.dns), "-d", str(queries), "-q", "20"]
    flood = subprocess.Popen([*words, "-l", "2"], stdout=subprocess.PIPE, text=True)
    try:
        def held_back() -> lans.Answer | None:
            answer = lan.dig("www.field.lab", "A", "+nocookie")
            return answer if "retrying in TCP mode" in answer.text else None

        told = until(held_back, 2, "a truncated answer")
        assert told.data == ["192.0.2.250"] and "(TCP)" in told.text
        cookie = re.search(r"COOKIE: ([0-9a-f]+) \(good\)", lan.dig("www.field.lab", "A", "+cookie", "+tcp").text)
        assert cookie is not None
        known = lan.dig("www.field.lab", "A", f"+cookie={cookie[1]}")
        assert known.data == ["192.0.2.250"] and "(UDP)" in known.text
    finally:
        flood.wait(10)
    # Over TCP nobody is held back: many questions in each connection, pipelined, all answered.
    ran = subprocess.run([*words, "-m", "tcp", "-c", "4", "-n", "2000"], capture_output=True, text=True, check=False, timeout=20)
    assert re.search(r"Queries completed:\s+2000 \(100.00%\)", ran.stdout), ran.stdout


def test_aliases_lead_where_the_rules_say(lan: Lan, upstreams: list[Upstream]) -> None:
    """Real authorities' aliases into our own zone and into a forward entry; `trace` shows both; AD is for neither."""
    for _ in range(2):
        far = lan.dig("far.shop", "A", "+dnssec")
        assert far.data[-1] == "192.0.2.250" and "ad" not in far.flags, far.text
        gone = lan.dig("gone.shop", "A", "+dnssec")
        assert gone.data[-1] == "203.0.113.1" and "ad" not in gone.flags, gone.text
    assert upstreams[0].asked("nothing.farm.lab") == 1
    assert "ad" in lan.dig("door.shop", "A", "+dnssec").flags
    # From outside to a private address: rebinding, although the name is ours.
    for _ in range(2):
        inside = lan.dig("dead.farm.lab")
        assert inside.rcode == "NOERROR" and not inside.data and "protect.rebinding" in inside.ede, inside.text
    assert lan.dig("x.dead.lab").data == ["10.0.0.9"]
    for name, words in (("far.shop", "own zone field.lab"), ("gone.shop", "forward nothing.farm.lab")):
        traced = lan.verb("trace", name)
        assert traced.returncode == 0 and words in traced.stdout, traced.stdout


def test_private_reverse_names(lan: Lan, upstreams: list[Upstream]) -> None:
    """RFC 6303: a forward entry for one of them is asked, all others are answered at home and asked of nobody."""
    assert lan.dig("15.0.20.10.in-addr.arpa", "PTR").data == ["printer.office.example."]
    for name in ("1.1.30.10.in-addr.arpa", "1.1.168.192.in-addr.arpa", "8.e.f.ip6.arpa", "1.d.f.ip6.arpa"):
        answer = lan.dig(name, "PTR")
        assert answer.rcode == "NXDOMAIN" and "SOA" in answer.text, name
        assert not any(upstream.asked(name) for upstream in upstreams)


def test_a_killed_workers_cache_is_its_successors(lan: Lan, upstreams: list[Upstream]) -> None:
    """SIGKILL, also in the midst of stores: what was known is answered without asking anybody, or asked for anew; never wrong."""
    assert lan.dig("kept.pair.example").data == ["203.0.113.1"]
    before = lan.workers()[0]["pid"]
    os.kill(before, signal.SIGKILL)
    until(lambda: lan.workers() and lan.workers()[0]["pid"] != before and lan.dig("kept.pair.example").rcode, 8, "another worker")
    assert lan.dig("kept.pair.example").data == ["203.0.113.1"] and upstreams[0].asked("kept.pair.example") == 1
    for turn in range(3):
        pid = lan.workers()[0]["pid"]
        words = ["dig", "@127.0.0.1", "-p", str(lan.dns), "+tries=1", "+time=1"]
        asked = [[f"f{turn}-{number}-{part}.pair.example" for number in range(40)] for part in range(2)]
        flood = [subprocess.Popen([*words, *found], stdout=subprocess.DEVNULL) for found in asked]
        until(lambda: upstreams[0].asked(f"f{turn}-3-0.pair.example"), 5, "the flood")  # noqa: B023
        os.kill(pid, signal.SIGKILL)
        for process in flood:
            process.wait(60)
        until(lambda: lan.workers() and lan.workers()[0]["pid"] != pid, 8, "another worker")  # noqa: B023
        for number in (0, 3, 20, 39):
            assert lan.dig(f"f{turn}-{number}-0.pair.example").data == ["203.0.113.1"]


def test_the_cache_outlives_the_node_when_it_is_to(lan: Lan, upstreams: list[Upstream]) -> None:
    """`cache.persist`: after SIGTERM and a new start the answers are there, older by as much; after SIGKILL they are not."""
    def restart(number: int) -> None:
        process = next(process for process in reversed(lan.processes) if process.name == "dnsd")
        process.end(number)
        lan.start("dnsd")
        until(lambda: lan.dig("x.field.lab").rcode == "NXDOMAIN", 10, "an answer")

    def ttl() -> int:
        return int(lan.dig("long.pair.example").text.split("ANSWER SECTION:\n")[1].split()[1])

    first = ttl()
    restart(signal.SIGTERM)
    assert ttl() <= first and upstreams[0].asked("long.pair.example") == 1
    assert lan.dig("door.shop", "A", "+dnssec", "+norec").rcode == "NOERROR"
    stopped: Any = next(process for process in reversed(lan.processes) if process.name == "dnsd")
    assert "answers of the last run are remembered" in stopped.text()

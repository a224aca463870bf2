"""`nexoraldns lab`: real servers, every case broken and mended, edits that are served, and no root needed."""

from __future__ import annotations

import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator

import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from controller.lab import place, world
from dnsd.__main__ import read_settings
from dnsd.trace import question, resolve
from tests.lab import NOBODY, Lab, python
from tests.lan import Process, free_port, until

SLOW = ("silent", "dead", "half")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    found = Lab(tmp_path_factory.mktemp("lab"))
    try:
        found.answers()
        yield found
    finally:
        assert found.process.end() == 0, found.process.text()


def test_each_case_is_broken_and_can_be_mended(lab: Lab) -> None:
    """Each case shows what it promises, broken and mended, and so does Unbound with the same root and anchor."""
    assert shown(lab) == {case.name: case.shows[0] for case in world.CASES}
    assert verdicts(lab) == {case.name: case.shows[0] for case in world.CASES if case.name not in SLOW}

    ran = lab.verb("fix", "--all")
    assert ran.returncode == 0, ran.stderr
    mended = {case.name: "NXDOMAIN" if case.name == "nodenial" else case.shows[1] for case in world.CASES}
    assert shown(lab) == {case.name: case.shows[1] for case in world.CASES}
    assert verdicts(lab) == {name: state for name, state in mended.items() if name not in SLOW}

    ran = lab.verb("break", "lame", "nods")
    assert ran.returncode == 0 and "leads to a server that does not serve" in ran.stdout
    assert lab.shown(world.BY_NAME["lame"]) == "SERVFAIL" and lab.shown(world.BY_NAME["nods"]) == "insecure"


def shown(lab: Lab) -> dict[str, str]:
    """What our own resolver says of the cases' questions, as `trace` asks it; waits overlap."""
    settings = read_settings(str(lab.folder / "node.yaml"), {})

    def one(case: world.Case) -> str:
        found = resolve(settings, *question(*case.ask))
        assert found.verdict is not None or found.rcode == "SERVFAIL"
        return found.rcode if found.rcode == "SERVFAIL" or found.verdict is None else found.verdict.said

    with concurrent.futures.ThreadPoolExecutor(len(world.CASES)) as pool:
        return dict(zip([case.name for case in world.CASES], pool.map(one, world.CASES), strict=True))


def verdicts(lab: Lab) -> dict[str, str]:
    """What Unbound says of the cases' questions; not of those for which it waits too long."""
    here = place.find(lab.folder)
    assert here is not None
    run = lab.folder / "unbound"
    run.mkdir(exist_ok=True)
    port = free_port()
    anchor = next(line for line in (lab.folder / "node.yaml").read_text().splitlines() if "trust_anchors" in line)
    ds = json.loads(anchor.partition(": ")[2])["trust_anchors"][0]
    (run / "hints").write_text(f". 3600 NS ns.root-servers.lab.\nns.root-servers.lab. 3600 A {here.base}.1\n")
    (run / "unbound.conf").write_text(
        f'server:\n  interface: 127.0.0.1\n  port: {port}\n  do-daemonize: no\n  chroot: ""\n  username: ""\n'
        f'  pidfile: ""\n  directory: "{run}"\n  use-syslog: no\n  do-not-query-localhost: no\n  do-ip6: no\n'
        f'  root-hints: "{run}/hints"\n  trust-anchor: "{ds}"\n  val-log-level: 2\n'
    )
    unbound = Process("unbound", [shutil.which("unbound") or "/usr/sbin/unbound", "-c", str(run / "unbound.conf")], run)
    found = {}
    try:
        until(lambda: _ask(port, "www.lab", "A") is not None, 10, "Unbound's answer")
        cases = [case for case in world.CASES if case.name not in SLOW]
        with concurrent.futures.ThreadPoolExecutor(len(cases)) as pool:
            responses = list(pool.map(lambda case: _ask(port, *case.ask, timeout_s=30), cases))
        for case, response in zip(cases, responses, strict=True):
            assert response is not None, case.name
            secure = "secure" if response.flags & dns.flags.AD else "insecure"
            rcode = dns.rcode.to_text(response.rcode())
            found[case.name] = secure if rcode == "NOERROR" else rcode
        return found
    finally:
        unbound.end()


def _ask(port: int, name: str, rtype: str, timeout_s: float = 1) -> dns.message.Message | None:
    query = dns.message.make_query(name, rtype, want_dnssec=True)
    try:
        return dns.query.udp(query, "127.0.0.1", timeout_s, port)
    except (OSError, dns.exception.Timeout):
        return None


def test_what_is_saved_is_served(lab: Lab) -> None:
    """A record written into a zone's text resolves, signed; a mistake is told with its line, and the old zone stays."""
    text = pathlib.Path(lab.verb("zone", "www.farm.lab", "--path").stdout.strip())
    good = text.read_text()
    text.write_text(good + "new  A 192.0.2.77\n")
    until(lambda: "farm.lab. is served anew" in lab.process.text(), 10, "the new zone")
    found = lab.trace("new.farm.lab")
    assert found["answer"][0]["data"] == ["192.0.2.77"] and found["validation"] == "secure"

    line = good.count("\n") + 2
    text.write_text(good + "new  A 192.0.2.77\nwrong A 192.0.2.999\n")
    until(lambda: f"{text}:{line}:" in lab.process.text(), 10, "what is wrong")
    assert lab.trace("new.farm.lab")["rcode"] == "NOERROR"
    text.write_text(good)


def test_the_resolver_in_it_answers(lab: Lab) -> None:
    """A node of ours on the lab's own address, port 53, validates from the lab's root."""
    here = place.find(lab.folder)
    assert here is not None
    query = dns.message.make_query("door.shop", "A", want_dnssec=True)
    response = dns.query.udp(query, f"{here.base}.{world.RESOLVER_HOST}", 10)
    assert response.rcode() == dns.rcode.NOERROR and response.flags & dns.flags.AD


def test_the_list_is_for_people_and_programs(lab: Lab) -> None:
    """Each case in one sentence, with its state; the same as JSON."""
    text = lab.verb("list").stdout
    cases = json.loads(lab.verb("list", "--format", "json").stdout)["cases"]
    for case in world.CASES:
        assert case.sentence in text
    assert {row["case"] for row in cases} == set(world.BY_NAME)


def test_mistakes_are_answered_with_what_to_write(lab: Lab, tmp_path: pathlib.Path) -> None:
    """An unknown case, a second lab in the folder, a folder without a lab: one sentence and exit code 2."""
    ran = lab.verb("fix", "lane")
    assert ran.returncode == 2 and "did you mean 'lame'?" in ran.stderr
    ran = lab.verb("up")
    assert ran.returncode == 2 and "is up in" in ran.stderr
    ran = lab.verb("trace", "--folder", str(tmp_path), "www.farm.lab")
    assert ran.returncode == 2 and "nexoraldns lab up" in ran.stderr


def test_nobody_needs_to_be_root(tmp_path: pathlib.Path) -> None:
    """A user without any right has the same lab in a namespace of their own: port 53 of the machine is not touched."""
    folder = tmp_path / "home"
    folder.mkdir()
    for each in (folder, *folder.parents):
        if each == pathlib.Path("/tmp"):
            break
        each.chmod(0o755)
    os.chown(folder, 65534, 65534)
    if subprocess.run([*NOBODY, "unshare", "-Urn", "true"], capture_output=True, check=False).returncode:
        ran = Lab.refused(folder, NOBODY)  # a system that allows nobody a namespace: it is told what to do
        assert ran.returncode == 2 and "sudo nexoraldns lab up" in ran.stderr, ran.stderr
        return
    found = Lab(folder, NOBODY, python())
    try:
        found.answers()
        assert "in a namespace of its own" in found.process.text()
        assert found.shown(world.BY_NAME["bogus"]) == "SERVFAIL"
        assert found.verb("fix", "bogus").returncode == 0
        assert found.shown(world.BY_NAME["bogus"]) == "secure"
        ran = found.verb("exec", "--", "dig", "@127.53.0.53", "www.farm.lab", "+short")
        assert ran.stdout.strip() == "192.0.2.2"
        here = place.find(found.folder)
        assert here is not None and here.inside
    finally:
        found.process.end()

"""The node under libfaketime, as test harnesses start it: signatures hold by the faked date, and timers go on."""

from __future__ import annotations

import json
import os
import pathlib
import re
import sys
import time
from collections.abc import Callable, Iterator

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rrset
import pytest
import yaml
from dns.rdatatype import DNSKEY, A

from tests.lan import Process, free_port, until
from tests.resolve import wired
from tests.resolve.signed import DAY, NOW, Server, Signer, World, Zone, name, serving

ROOT, LEAF = "127.79.1.1", "127.79.1.2"
NEXT = Signer.make()  # the root's next key
Ask = Callable[[str], dns.message.Message]
Move = Callable[[int], None]


def _at(clock: pathlib.Path, when: int) -> None:
    new = clock.with_name("new")
    new.write_text(time.strftime("@%Y-%m-%d %H:%M:%S\n", time.gmtime(when)))
    new.rename(clock)


@pytest.fixture(params=["wall clock", "all clocks"])
def node(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[tuple[Ask, Move, Process]]:
    """A node whose clock stands at the day for which a small world is signed; asks, moves the clock."""
    hosts = "".join(f"{label}.lab A 192.0.2.1\n" for label in ("now", "later", "before", "again", "forged"))
    lab = Zone("lab", f"lab NS ns.lab\nns.lab A {LEAF}\n{hosts}")
    lab.rrsets[name("forged.lab"), A] = dns.rrset.from_text("forged.lab.", 86400, "IN", "A", "203.0.113.9")
    text = f". NS ns\nns A {ROOT}\nlab NS ns.lab\nns.lab A {LEAF}\n{lab.ds()}\n"
    root = Zone(".", text, times=(NOW - 40 * DAY, NOW + 40 * DAY))
    root.rrsets[name("."), DNSKEY].add(NEXT.dnskey)  # type: ignore[arg-type]
    root.resign(name("."), DNSKEY)
    port = free_port()
    settings = {
        "listen": [f"127.0.0.1:{port}"], "workers": 1, "state": "state",
        "resolver": {
            "root_hints": [{"name": "ns.", "addresses": [ROOT]}], "trust_anchors": [root.ds()], "priming": False,
            "query_localhost": True, "special_use": False, "qname_minimisation": False, "trust_anchor_updates": True,
            "negative_trust_anchors": [f"forged.lab until {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(NOW + DAY // 2))}"],
        },
    }  # fmt: skip
    (tmp_path / "node.yaml").write_text(yaml.safe_dump(settings))
    wired.save(tmp_path / "state" / "tables")
    clock = tmp_path / "clock"
    _at(clock, NOW)
    faked = {
        "LD_PRELOAD": wired.faketime(), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1", "TZ": "UTC",
    }  # fmt: skip
    if request.param == "wall clock":
        faked["FAKETIME_DONT_FAKE_MONOTONIC"] = "1"
    words = ["env", *(f"{key}={value}" for key, value in faked.items()), sys.executable, "-m", "dnsd"]

    def ask(text: str) -> dns.message.Message:
        query = dns.message.make_query(text, "A", use_edns=0, want_dnssec=True)
        return dns.query.udp(query, "127.0.0.1", 6, port)

    def moved(when: int) -> None:
        _at(clock, when)

    with serving(World({ROOT: Server(root), LEAF: Server(lab)})):
        process = Process("dnsd", [*words, "--config", str(tmp_path / "node.yaml")], tmp_path)
        try:
            _started(tmp_path)
            yield ask, moved, process
        finally:
            assert process.end() == 0, process.text()


def _started(folder: pathlib.Path) -> None:
    until(lambda: os.path.exists(folder / "state" / "dnsd.pids"), 10, "the node's start")


def _anchors(folder: pathlib.Path) -> list[str]:
    """The states of the root's keys, as the node keeps them."""
    file = folder / "state" / "trust-anchors.json"
    return sorted(key["state"] for zone in json.loads(file.read_text())["zones"] for key in zone["keys"])


def _ede(response: dns.message.Message) -> set[int]:
    return {int(option.code) for option in response.options if option.otype == 15}  # type: ignore[attr-defined]


def test_signatures_hold_by_the_faked_date(node: tuple[Ask, Move, Process]) -> None:
    """AD on the day they are made for; EDE 7 days later, EDE 8 days before; and the same workers serve through it."""
    ask, move, process = node
    response = ask("now.lab")
    assert response.rcode() == 0 and response.flags & dns.flags.AD, response
    move(NOW + 3 * DAY)
    response = ask("later.lab")
    assert response.rcode() == dns.rcode.SERVFAIL and _ede(response) == {7}, response
    move(NOW - 3 * DAY)
    response = ask("before.lab")
    assert response.rcode() == dns.rcode.SERVFAIL and _ede(response) == {8}, response
    move(NOW)
    assert ask("again.lab").flags & dns.flags.AD
    assert "is replaced" not in process.text() and "Traceback" not in process.text()


def test_what_has_an_end_or_a_time_to_wait_follows_the_faked_date(
    node: tuple[Ask, Move, Process], tmp_path: pathlib.Path
) -> None:
    """A negative trust anchor ends, also for what is remembered; a new root key is trusted after 30 days (RFC 5011)."""
    ask, move, process = node
    response = ask("forged.lab")
    assert response.rcode() == 0 and _ede(response) == {0} and response.answer[0].ttl <= DAY // 2
    until((tmp_path / "state" / "trust-anchors.json").exists, 10, "the first look at the root's keys")
    assert _anchors(tmp_path) == ["addpend", "valid"]
    move(NOW + DAY // 2 + 60)
    response = ask("forged.lab")
    assert response.rcode() == dns.rcode.SERVFAIL and _ede(response) == {6}, response
    move(NOW + 29 * DAY)
    until(lambda: "2026-10-20" in (tmp_path / "state" / "trust-anchors.json").read_text(), 15, "another look")
    assert _anchors(tmp_path) == ["addpend", "valid"]
    move(NOW + 31 * DAY)
    until(lambda: _anchors(tmp_path) == ["valid", "valid"], 15, "the new key's being trusted")
    assert "is trusted now" in process.text()


def test_nothing_extra_goes_out_with_the_settings_for_harnesses(tmp_path: pathlib.Path) -> None:
    """The settings that README gives for test harnesses: two servers, two questions, the client's own."""
    readme = (pathlib.Path(__file__).resolve().parents[2] / "README.md").read_text()
    block = re.search(r"```yaml\n(# harness\.yaml.*?)```", readme, re.S)
    assert block is not None
    port = free_port()
    text = block[1].replace("193.0.14.129", ROOT).replace("127.0.0.1:5335", f"127.0.0.1:{port}")
    (tmp_path / "node.yaml").write_text(text)
    wired.save(tmp_path / "state" / "tables")
    lab = Zone("lab", f"lab NS ns.lab\nns.lab A {LEAF}\nwww.lab A 192.0.2.1\n", signed=False)
    root = Zone(".", f". NS ns\nns A {ROOT}\nlab NS ns.lab\nns.lab A {LEAF}\n", signed=False)
    servers = {ROOT: Server(root), LEAF: Server(lab)}
    with serving(World(servers)):
        process = Process("dnsd", [sys.executable, "-m", "dnsd", "--config", str(tmp_path / "node.yaml")], tmp_path)
        try:
            _started(tmp_path)
            for _ in range(2):
                query = dns.message.make_query("www.lab", "A")
                assert str(dns.query.udp(query, "127.0.0.1", 6, port).answer[0][0]) == "192.0.2.1"
        finally:
            assert process.end() == 0, process.text()
    assert servers[ROOT].asked == servers[LEAF].asked == [(name("www.lab"), A)]

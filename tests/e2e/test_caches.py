"""`nexoraldns cache`: what all workers of a running node hold for a name, and making them forget it."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import dns.flags
import dns.message
import dns.query
import pytest
import yaml

from tests import lan as lans
from tests.lab import Lab
from tests.lan import Lan

RULES = {"office.yaml": 'version: 1\nforward: {".": recurse}\n'}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A miniature Internet with zones to mend."""
    found = Lab(tmp_path_factory.mktemp("lab"), more=["--no-resolver"])
    try:
        found.answers()
        yield found
    finally:
        found.process.end()


@pytest.fixture(scope="module")
def lan(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    """An office with two workers that resolve in it."""
    resolver = yaml.safe_load((lab.folder / "node.yaml").read_text())["resolver"]
    with lans.office(tmp_path_factory.mktemp("office"), {"resolver": resolver}, RULES) as office:
        office.start("run")
        office.answers()
        yield office


def ask(lan: Lan, name: str, times: int = 24) -> set[bool]:
    """Ask from many ports, so that both workers are asked; whether AD was set."""
    found = set()
    for _ in range(times):
        response = dns.query.udp(dns.message.make_query(name, "A", want_dnssec=True), "127.0.0.1", 10, lan.dns)
        assert response.rcode() == 0
        found.add(bool(response.flags & dns.flags.AD))
    return found


def rows(lan: Lan, *words: str) -> dict[int, list[dict[str, Any]]]:
    """What each worker holds."""
    ran = lan.verb("cache", "show", *words, "--format", "json")
    assert ran.returncode == 0, ran.stderr
    (node,) = json.loads(ran.stdout)["nodes"]
    return {worker["slot"]: worker["rows"] for worker in node["workers"]}


def test_each_worker_says_what_it_holds(lan: Lan) -> None:
    """Whole answers with route, DO and AD; RRsets with rank and validation; delegations; denials."""
    assert ask(lan, "www.farm.lab") == {True}
    held = rows(lan, "www.farm.lab")
    assert sorted(held) == [0, 1]
    for found in held.values():
        answer = next(row for row in found if row["cache"] == "answers")
        assert (answer["type"], answer["rcode"], answer["route"], answer["do"]) == ("A", "NOERROR", ".", True)
        assert answer["ad"] and 0 < answer["ttl"] <= 300
        rrset = next(row for row in found if row["cache"] == "rrsets")
        assert rrset["data"] == ["192.0.2.2"] and rrset["rank"] == "authoritative"
        assert rrset["signed"] and rrset["validation"] == "secure"
    kinds = {row["kind"] for row in rows(lan, "farm.lab", "--below")[0] if row["cache"] == "rrsets"}
    assert {"rrset", "delegation"} <= kinds
    assert not rows(lan, "www.farm.lab", "TXT")[0]

    text = lan.verb("cache", "show", "www.farm.lab").stdout
    assert "192.0.2.2" in text and "secure" in text and "route ." in text


def test_what_is_flushed_is_looked_up_anew_by_every_worker(lab: Lab, lan: Lan) -> None:
    """A mended delegation shows after a flush: answers, RRsets, delegation and what validation knew are gone."""
    assert ask(lan, "www.nods.lab") == {False}
    assert lab.verb("fix", "nods").returncode == 0
    assert ask(lan, "www.nods.lab") == {False}, "what is remembered is what is served"

    ran = lan.verb("cache", "flush", "nods.lab", "--below")
    assert ran.returncode == 0 and "by 2 workers" in ran.stdout, ran.stdout + ran.stderr
    assert not any(rows(lan, "nods.lab", "--below").values())
    assert ask(lan, "www.nods.lab") == {True}


def test_one_type_alone_is_forgotten(lan: Lan) -> None:
    """`flush NAME TYPE` leaves the other types of the name."""
    ask(lan, "www.lab")
    for _ in range(24):
        dns.query.udp(dns.message.make_query("www.lab", "AAAA"), "127.0.0.1", 10, lan.dns)
    assert lan.verb("cache", "flush", "www.lab", "A").returncode == 0
    for found in rows(lan, "www.lab").values():
        assert {row["type"] for row in found} == {"AAAA"}


def test_a_denial_of_a_name_above_is_forgotten_too(lan: Lan) -> None:
    """RFC 8020: below an NXDOMAIN nothing is, so a flush of the name below must take it along."""
    for _ in range(24):
        dns.query.udp(dns.message.make_query("nothing.field.lab", "A"), "127.0.0.1", 10, lan.dns)
    assert any(row.get("kind") == "nxdomain" for found in rows(lan, "x.nothing.field.lab").values() for row in found)
    assert lan.verb("cache", "flush", "x.nothing.field.lab").returncode == 0
    assert not any(rows(lan, "x.nothing.field.lab").values())


def test_mistakes_and_absent_nodes_are_said_in_a_sentence(lan: Lan, tmp_path: pathlib.Path) -> None:
    """A name that is none, a type that is none, a node that is not there, no controller at all: exit code 2."""
    for words, said in (
        (("bad..name",), "cache: "), (("www.lab", "NOSUCH"), "is not a record type"),
        (("www.lab", "--node", "elsewhere"), "node elsewhere is not connected"),
    ):  # fmt: skip
        ran = lan.verb("cache", "show", *words)
        assert ran.returncode == 2 and said in ran.stderr, ran.stderr
    config = tmp_path / "node.yaml"
    config.write_text(f'broker: {{listen: "127.0.0.1:{lans.free_port()}"}}\n')
    words = [sys.executable, "-m", "controller.cli", "cache", "show", "www.lab", "--config", str(config)]
    environment = {**os.environ, "PYTHONPATH": str(lans.ROOT)}
    ran = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30, env=environment)
    assert ran.returncode == 2 and "is `nexoraldns run` up" in ran.stderr

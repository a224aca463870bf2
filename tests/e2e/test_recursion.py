"""Recursion over real sockets: our workers and a real Unbound resolve the miniature Internet, and agree."""

from __future__ import annotations

import contextlib
import json
import pathlib
import shutil
import time
from collections.abc import Iterator

import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from tests import lan as lans
from tests.internet import Internet, internet
from tests.lan import Lan, Process, free_port, until

RULES = {"office.yaml": 'version: 1\nforward:\n  ".": recurse\nzones:\n  home.example:\n    records: {nas: 10.0.0.5}\n'}

# Name and type, and what a correct resolver says: rcode and the answer's data in order of aliases.
QUESTIONS = [
    ("www.lab.", "A", "NOERROR"), ("www.lab.", "AAAA", "NOERROR"), ("www.lab.", "TXT", "NOERROR"),
    ("mail.lab.", "MX", "NOERROR"), ("nothing.lab.", "A", "NXDOMAIN"), ("below.nothing.lab.", "A", "NXDOMAIN"),
    ("lab.", "NS", "NOERROR"), ("lab.", "SOA", "NOERROR"), ("farm.lab.", "NS", "NOERROR"),
    ("farm.lab.", "DS", "NOERROR"),
    ("www.farm.lab.", "A", "NOERROR"), ("www.farm.lab.", "TXT", "NOERROR"), ("farm.lab.", "MX", "NOERROR"),
    ("x.y.deep.farm.lab.", "A", "NOERROR"), ("deep.farm.lab.", "A", "NOERROR"), ("y.deep.farm.lab.", "AAAA", "NOERROR"),
    ("z.deep.farm.lab.", "A", "NXDOMAIN"), ("large.farm.lab.", "TXT", "NOERROR"), ("c01.farm.lab.", "A", "NOERROR"),
    ("www.field.lab.", "A", "NOERROR"), ("www.field.lab.", "TXT", "NOERROR"), ("no.field.lab.", "A", "NXDOMAIN"),
    ("www.split.lab.", "A", "NOERROR"), ("door.shop.", "A", "NOERROR"), ("door.shop.", "TXT", "NOERROR"),
    ("far.shop.", "A", "NOERROR"), ("gone.shop.", "A", "NXDOMAIN"), ("www.old.shop.", "A", "NOERROR"),
    ("any.wild.shop.", "A", "NOERROR"), ("any.other.wild.shop.", "TXT", "NOERROR"), ("any.wild.shop.", "MX", "NOERROR"),
    ("no.such.tld.", "A", "NXDOMAIN"), (".", "NS", "NOERROR"), (".", "SOA", "NOERROR"),
    ("ns.hosting.shop.", "A", "NOERROR"), ("www.dead.lab.", "A", "SERVFAIL"), ("www.lame.lab.", "A", "SERVFAIL"),
    ("www.lost.lab.", "A", "SERVFAIL"), ("www.ring.lab.", "A", "SERVFAIL"), ("dead.farm.lab.", "A", "SERVFAIL"),
]  # fmt: skip


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    """The miniature Internet."""
    with internet(tmp_path_factory.mktemp("internet")) as started:
        yield started


@pytest.fixture(scope="module")
def lan(net: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    """An office that resolves by itself."""
    folder = tmp_path_factory.mktemp("office")
    with lans.office(folder, {"resolver": net.resolver}, RULES) as office:
        office.start("run")
        office.answers()
        yield office


@contextlib.contextmanager
def unbound(net: Internet, folder: pathlib.Path) -> Iterator[int]:
    """A real Unbound that begins at the same root."""
    port = free_port()
    config = folder / "unbound.conf"
    config.write_text(
        f'server:\n  directory: "{folder}"\n  chroot: ""\n  username: ""\n  pidfile: ""\n  interface: 127.0.0.1\n'
        f"  port: {port}\n  do-daemonize: no\n  use-syslog: no\n  access-control: 127.0.0.0/8 allow\n  do-ip6: no\n"
        f'  do-not-query-localhost: no\n  module-config: iterator\n  root-hints: "{net.hints}"\n'
        "  minimal-responses: yes\nremote-control:\n  control-enable: no\n"
    )
    process = Process("unbound", [shutil.which("unbound") or "/usr/sbin/unbound", "-c", str(config)], folder)
    try:
        until(lambda: lans.dig(port, "www.lab").rcode == "NOERROR", 10, "an answer from unbound")
        yield port
    finally:
        process.end()


def ask(port: int, name: str, qtype: str, timeout_s: float = 10.0, **options: bool) -> dns.message.Message:
    """One question over UDP, over TCP when the answer is cut off."""
    query = dns.message.make_query(name, qtype, use_edns=0, payload=1232, **options)
    response, _ = dns.query.udp_with_fallback(query, "127.0.0.1", timeout=timeout_s, port=port)
    return response


def said(message: dns.message.Message) -> tuple[str, list[str], list[str]]:
    """What matters of a response: rcode, the answer's records without TTL, who denies."""
    answer = sorted(f"{rrset.name} {rdata.rdtype.name} {rdata}".lower() for rrset in message.answer for rdata in rrset)
    denies = sorted(str(rrset.name) for rrset in message.authority if rrset.rdtype == 6)
    return dns.rcode.to_text(message.rcode()), answer, denies


def test_real_servers_are_resolved_as_unbound_does(net: Internet, lan: Lan, tmp_path: pathlib.Path) -> None:
    """For every question of the list we say what Unbound says: rcode, records, and the zone that denies."""
    differences = []
    with unbound(net, tmp_path) as port:
        for name, qtype, rcode in QUESTIONS:
            ours = said(ask(lan.dns, name, qtype))
            assert ours[0] == rcode, (name, qtype, ours)
            if rcode == "SERVFAIL" or name == "www.split.lab.":
                continue  # Unbound takes its time with those (also where one of two servers is dead), and says no more
            theirs = said(ask(port, name, qtype))
            if ours != theirs:
                differences.append((name, qtype, ours, theirs))
    assert not differences


def test_a_recursive_answer_looks_like_one(lan: Lan) -> None:
    """RA and no AA or AD, the TTL runs down, a second client is answered from the cache."""
    first = ask(lan.dns, "www.farm.lab.", "A")
    assert first.flags & dns.flags.RA and not first.flags & (dns.flags.AA | dns.flags.AD)
    assert first.answer[0].ttl <= 300
    began = time.monotonic()
    for _ in range(20):
        assert ask(lan.dns, "www.farm.lab.", "A").answer[0][0].address == "192.0.2.2"
    assert time.monotonic() - began < 2


def test_a_failure_says_why(lan: Lan) -> None:
    """SERVFAIL carries an Extended DNS Error with the zone and what its servers said."""
    response = ask(lan.dns, "www.lame.lab.", "AAAA")
    assert response.rcode() == dns.rcode.SERVFAIL
    texts = [option.text for option in response.options if option.otype == 15]
    assert texts and "lame.lab" in texts[0] and "REFUSED" in texts[0]


def test_a_server_that_never_answers_costs_one_client_only(lan: Lan) -> None:
    """While a dead zone is being asked for, other questions are answered at once."""
    with contextlib.suppress(dns.exception.Timeout):
        ask(lan.dns, "www.silent.lab.", "A", timeout_s=0.05)
    began = time.monotonic()
    assert ask(lan.dns, "x.y.deep.farm.lab.", "AAAA").rcode() == 0
    assert time.monotonic() - began < 1
    assert ask(lan.dns, "www.silent.lab.", "A").rcode() == dns.rcode.SERVFAIL


def test_special_names_and_own_zones_stay_at_home(lan: Lan) -> None:
    """What RFC 6761 and 6303 keep at home never reaches the root, and own names are answered here."""
    assert ask(lan.dns, "printer.test.", "A").rcode() == dns.rcode.NXDOMAIN
    assert ask(lan.dns, "1.0.0.10.in-addr.arpa.", "PTR").rcode() == dns.rcode.NXDOMAIN
    assert str(ask(lan.dns, "nas.home.example.", "A").answer[0][0]) == "10.0.0.5"


def test_trace_draws_the_way(lan: Lan) -> None:
    """`trace` shows each cut, server and answer as a tree, and the same as JSON."""
    ran = lan.verb("trace", "door.shop", "A")
    assert ran.returncode == 0, ran.stderr
    for words in ("shop", "referral", "ns.shops.lab", "www.farm.lab", "192.0.2.2", "ms"):
        assert words in ran.stdout, ran.stdout
    ran = lan.verb("trace", "door.shop", "A", "--json")
    found = json.loads(ran.stdout)
    assert found["rcode"] == "NOERROR" and found["answer"][-1]["data"] == ["192.0.2.2"]
    assert [step["zone"] for step in found["steps"] if step["kind"] == "ask"][-1] == "farm.lab"


def test_trace_tells_of_failure(lan: Lan) -> None:
    """A name that cannot be resolved: exit code 1, the reason, and which server said what."""
    ran = lan.verb("trace", "www.lame.lab")
    assert ran.returncode == 1 and "REFUSED" in ran.stdout and "SERVFAIL" in ran.stdout



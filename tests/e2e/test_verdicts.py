"""Live verdicts in the miniature Internet: ours beside Unbound's, and what delv and drill find in our answers."""

from __future__ import annotations

import pathlib
import random
import shutil
import subprocess
import time
from collections.abc import Iterator

import dns.edns
import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest
from dns.rdatatype import NSEC, RRSIG, SOA

from tests import internet as internets
from tests import lan as lans
from tests.lan import Lan, Process, free_port, until

RULES = {"office.yaml": 'version: 1\nforward:\n  ".": recurse\n'}
# A question, and the Extended DNS Error of its failure (0: none).
QUESTIONS = [
    ("www.lab", "A", 0), ("www.lab", "AAAA", 0), ("www.lab", "TXT", 0), ("lab", "MX", 0), ("lab", "DNSKEY", 0),
    ("lab", "DS", 0), ("nothing.lab", "A", 0), ("a.b.nothing.lab", "A", 0), ("nothing", "A", 0), ("ns.nic.lab", "A", 0),
    ("nic.lab", "A", 0), ("www.farm.lab", "A", 0), ("c01.farm.lab", "A", 0), ("y.deep.farm.lab", "A", 0),
    ("farm.lab", "DS", 0), ("split.lab", "DS", 0), ("door.shop", "A", 0), ("far.shop", "A", 0), ("gone.shop", "A", 0),
    ("www.old.shop", "A", 0), ("foo.wild.shop", "A", 0), ("bar.foo.wild.shop", "TXT", 0), ("foo.wild.shop", "MX", 0),
    ("www.nods.lab", "A", 0), ("www.field.lab", "A", 0), ("field.lab", "DS", 0), ("large.farm.lab", "TXT", 0),
    ("www.bogus.lab", "A", 6),
    ("www.expired.lab", "A", 7), ("www.future.lab", "A", 8), ("www.wrongds.lab", "A", 9),
    ("www.algorithm.lab", "A", 9), ("www.nosig.lab", "A", 10), ("nothing.nodenial.lab", "A", 12),
]  # fmt: skip


@pytest.fixture(scope="module")
def lan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lan, int, pathlib.Path]]:
    """A node that recurses in a signed Internet, the port of an Unbound beside it, a folder with the root's anchor."""
    folder: pathlib.Path = tmp_path_factory.mktemp("verdicts")
    with internets.internet(tmp_path_factory.mktemp("internet"), signed=True) as here:
        anchor = here.anchors[0]
        tag, algorithm, kind, digest = anchor.split()[2:6]
        (folder / "delv.conf").write_text(
            f'trust-anchors {{ . initial-ds {tag} {algorithm} {kind} "{digest}"; }};\n'
        )
        port = free_port()
        (folder / "unbound.conf").write_text(
            f'server:\n  directory: "{folder}"\n  chroot: ""\n  username: ""\n  pidfile: ""\n  interface: 127.0.0.1\n'
            f"  port: {port}\n  do-daemonize: no\n  use-syslog: no\n  access-control: 127.0.0.0/8 allow\n  do-ip6: no\n"
            f'  do-not-query-localhost: no\n  root-hints: "{here.hints}"\n  trust-anchor: "{anchor}"\n'
            "remote-control:\n  control-enable: no\n"
        )
        program = shutil.which("unbound") or "/usr/sbin/unbound"
        unbound = Process("unbound", [program, "-c", str(folder / "unbound.conf")], folder)
        try:
            with lans.office(folder, {"resolver": here.resolver, "workers": 1}, RULES) as office:
                office.start("run")
                office.answers()
                until(lambda: lans.dig(port, "www.lab").rcode == "NOERROR", 10, "an answer from unbound")
                yield office, port, folder
        finally:
            unbound.end()


def ask(port: int, text: str, rtype: str) -> dns.message.Message:
    """One question with DO, over TCP when it must be."""
    query = dns.message.make_query(text, rtype, use_edns=0, want_dnssec=True, payload=1232)
    return dns.query.udp_with_fallback(query, "127.0.0.1", 8, port)[0]


def seen(response: dns.message.Message) -> tuple[str, bool, list[str], set[int]]:
    """What counts: rcode, AD, the answer's records, and which kinds of records prove it."""
    records = sorted(
        f"{rrset.name} {rrset.rdtype} {rdata}".lower() for rrset in response.answer for rdata in rrset
        if rrset.rdtype != RRSIG
    )  # fmt: skip
    proof = {rrset.rdtype for rrset in response.authority} & {SOA, NSEC, RRSIG}
    return dns.rcode.to_text(response.rcode()), bool(response.flags & dns.flags.AD), records, proof


def delv(port: int, folder: pathlib.Path, text: str, rtype: str) -> str:
    """What delv finds when it validates our answers itself."""
    words = ["delv", "@127.0.0.1", "-p", str(port), "-a", str(folder / "delv.conf"), "+root=.", text, rtype]
    ran = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    return ran.stdout + ran.stderr


def test_verdicts_are_those_of_unbound(lan: tuple[Lan, int, pathlib.Path]) -> None:
    """Rcode, AD, records and proofs of each question, twice (the second from memory); our EDE says what is wrong."""
    office, port, _ = lan
    for text, rtype, ede in QUESTIONS:
        for _ in range(2):
            ours = ask(office.dns, text, rtype)
            assert seen(ours) == seen(ask(port, text, rtype)), (text, rtype)
            said = {int(option.code) for option in ours.options if isinstance(option, dns.edns.EDEOption)}
            assert said <= {ede, 13} and bool(said) == bool(ede), (text, rtype, ours.options)


def test_a_flood_below_a_signed_zone_stays_at_home(lan: tuple[Lan, int, pathlib.Path]) -> None:
    """600 random names below Knot's and NSD's signed zones: all denied and secure, a few dozen questions to servers."""
    office, _, _ = lan

    def asked() -> int:
        """Questions to servers, once every worker's last report is in: the node reports each second."""
        told: list[tuple[float, int]] = []

        def steady() -> bool:
            told.append((time.monotonic(), int(office.status()["counters"]["upstream_queries"])))
            now, count = told[-1]
            return any(at < now - 1.5 for at, _ in told) and {n for at, n in told if at > now - 1.5} == {count}

        until(steady, 10, "a steady count")
        return told[-1][1]

    chance = random.Random(11)
    begun = asked()
    for number in range(600):
        label = "".join(chance.choices("abcdefghijklmnopqrstuvwxyz0123456789-", k=10)).strip("-")
        response = ask(office.dns, f"{label}.{('lab', 'farm.lab', 'shop')[number % 3]}", "A")
        assert response.rcode() == dns.rcode.NXDOMAIN and response.flags & dns.flags.AD
    count = asked() - begun
    assert 0 < count < 60, count


@pytest.mark.parametrize(("text", "rtype", "finds"), [
    ("www.lab", "A", "fully validated"), ("www.farm.lab", "TXT", "fully validated"),
    ("inferred1.lab", "A", "negative response, fully validated"),
    ("www.lab", "MX", "negative response, fully validated"),
    ("n1.wild.shop", "A", "fully validated"), ("n2.wild.shop", "A", "fully validated"),
    ("www.field.lab", "A", "unsigned answer"), ("www.bogus.lab", "A", "resolution failed"),
    ("www.expired.lab", "A", "resolution failed"),
])  # fmt: skip
def test_delv_agrees(lan: tuple[Lan, int, pathlib.Path], text: str, rtype: str, finds: str) -> None:
    """Whoever validates by himself has all that he needs, also where we inferred the answer."""
    office, _, folder = lan
    ask(office.dns, text, rtype)
    assert finds in delv(office.dns, folder, text, rtype)


def test_drill_follows_the_chain(lan: tuple[Lan, int, pathlib.Path]) -> None:
    """drill -S finds a way from the answer to the root's key through us."""
    office, _, folder = lan
    keys = ask(office.dns, ".", "DNSKEY").answer[0]
    (folder / "root.key").write_text(f"{keys.name} IN DNSKEY {keys[0]}\n")
    words = ["drill", "-S", "-k", str(folder / "root.key"), "-p", str(office.dns), "@127.0.0.1"]
    good = subprocess.run([*words, "www.lab", "A"], capture_output=True, text=True, check=False, timeout=30).stdout
    bad = subprocess.run([*words, "www.bogus.lab", "A"], capture_output=True, text=True, check=False, timeout=30).stdout
    assert "trusted" in good and "No trusted keys found" not in good, good
    assert "Bogus" in bad or "No trusted keys found" in bad or "SERVFAIL" in bad, bad

"""Validation by real workers over real sockets, of recursion and over a forwarder: AD, CD, EDE and the answer cache."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import time
from collections.abc import Iterator

import dns.edns
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rrset
import pytest
from dns.rdatatype import RRSIG, A

from tests import lan as lans
from tests.lan import Lan, Process, free_port, until
from tests.resolve.signed import DAY, Server, World, Zone, name, serving

ROOT, LEAF = "127.77.1.1", "127.77.1.2"
RULES = 'version: 1\nforward:\n  ".": {}\nzones:\n  home.example:\n    records: {{nas: 10.0.0.5}}\n'


@contextlib.contextmanager
def unbound(folder: pathlib.Path) -> Iterator[str]:
    """An Unbound that resolves from our root and validates nothing; the forward entry for it."""
    port = free_port()
    (folder / "hints").write_text(f". 3600 NS ns.\nns. 3600 A {ROOT}\n")
    config = folder / "unbound.conf"
    config.write_text(
        f'server:\n  directory: "{folder}"\n  chroot: ""\n  username: ""\n  pidfile: ""\n  interface: 127.0.0.1\n'
        f"  port: {port}\n  do-daemonize: no\n  use-syslog: no\n  access-control: 127.0.0.0/8 allow\n  do-ip6: no\n"
        f'  do-not-query-localhost: no\n  module-config: iterator\n  root-hints: "{folder}/hints"\n'
        "remote-control:\n  control-enable: no\n"
    )
    process = Process("unbound", [shutil.which("unbound") or "/usr/sbin/unbound", "-c", str(config)], folder)
    try:
        until(lambda: lans.dig(port, "www.good.lab").rcode == "NOERROR", 10, "an answer from unbound")
        yield f'{{upstreams: "127.0.0.1:{port}", dnssec: true}}'
    finally:
        process.end()


@pytest.fixture(scope="module", params=["recursion", "forwarder"])
def lan(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    """An office whose root is ours, signed at this hour; it resolves by itself, or asks an Unbound and validates."""
    now = int(time.time())
    times = (now - DAY, now + DAY)
    host = "www.{0} A 192.0.2.1\nns.{0} A " + LEAF + "\n{0} NS ns.{0}\n"
    leaves = [Zone(apex, host.format(apex), times=times) for apex in ("good.lab", "forged.lab")]
    leaves.append(Zone("plain.lab", host.format("plain.lab"), signed=False))
    leaves[1].rrsets[name("www.forged.lab"), A] = dns.rrset.from_text("www.forged.lab.", 3600, "IN", "A", "203.0.113.9")
    ds = [leaves[0].ds(), leaves[1].ds()]
    delegations = [f"{zone.apex} NS ns.{zone.apex}\nns.{zone.apex} A {LEAF}" for zone in leaves]
    root = Zone(".", "\n".join([". NS ns", f"ns A {ROOT}", *delegations, *ds]), times=times)
    resolver = {
        "root_hints": [{"name": "ns.", "addresses": [ROOT]}], "query_localhost": True, "use_ipv6": False,
        "trust_anchors": [root.ds()],
    }  # fmt: skip
    folder: pathlib.Path = tmp_path_factory.mktemp("office")
    forwarded = request.param == "forwarder"
    with serving(World({ROOT: Server(root), LEAF: Server(*leaves)})):
        with unbound(tmp_path_factory.mktemp("unbound")) if forwarded else contextlib.nullcontext("recurse") as entry:
            with lans.office(folder, {"resolver": resolver}, {"office.yaml": RULES.format(entry)}) as office:
                office.start("run")
                office.answers()
                yield office


def ask(lan: Lan, text: str, flags: int = 0, do: bool = False) -> dns.message.Message:
    """One question over UDP."""
    query = dns.message.make_query(text, "A", use_edns=True, want_dnssec=do)
    query.flags |= flags
    return dns.query.udp(query, "127.0.0.1", 5, lan.dns)


def test_ad_for_those_who_ask(lan: Lan) -> None:
    """AD or DO in the question: AD in a secure answer; without either none, and CD none; from the cache likewise."""
    for _ in range(3):
        assert ask(lan, "www.good.lab", dns.flags.AD).flags & dns.flags.AD
        signed = ask(lan, "www.good.lab", do=True)
        assert signed.flags & dns.flags.AD and signed.find_rrset("answer", name("www.good.lab"), 1, RRSIG, A)
        assert not ask(lan, "www.good.lab").flags & dns.flags.AD
        assert not ask(lan, "www.good.lab", dns.flags.CD | dns.flags.AD).flags & dns.flags.AD
        assert not ask(lan, "www.plain.lab", dns.flags.AD, do=True).flags & dns.flags.AD
        nothing = ask(lan, "none.good.lab", dns.flags.AD)
        assert nothing.rcode() == dns.rcode.NXDOMAIN and nothing.flags & dns.flags.AD


def test_forged_data_is_refused(lan: Lan) -> None:
    """SERVFAIL with the EDE that says why, from memory 13 (each worker has its own); with CD the data as it is."""
    for _ in range(4):
        response = ask(lan, "www.forged.lab")
        assert response.rcode() == dns.rcode.SERVFAIL
        options = [option for option in response.options if isinstance(option, dns.edns.EDEOption)]
        assert len(options) == 1 and options[0].code in (6, 13) and "does not hold" in (options[0].text or "")
    unchecked = ask(lan, "www.forged.lab", dns.flags.CD)
    assert unchecked.rcode() == dns.rcode.NOERROR and unchecked.answer[0][0].address == "203.0.113.9"


def test_own_names_are_nobody_elses(lan: Lan) -> None:
    """Own data is not validated and never AD."""
    response = ask(lan, "nas.home.example", dns.flags.AD, do=True)
    assert response.answer and not response.flags & dns.flags.AD

"""A node follows its trust anchor's keys (RFC 5011) over restarts: a real node, a signed root, a revoked key."""

from __future__ import annotations

import json
import pathlib
import sys
import time
from collections.abc import Callable

import dns.dnssec
import dns.flags
import dns.message
import dns.query
import dns.rrset
import yaml
from dns.rdatatype import DNSKEY

from dnsd.resolve import anchors, rollover
from tests.lan import Process, free_port, until
from tests.resolve import wired
from tests.resolve.signed import DAY, Server, Signer, World, Zone, name, serving

ROOT = "127.77.2.1"


def _secure(port: int) -> bool:
    query = dns.message.make_query("www.lab", "A", want_dnssec=True)
    response = dns.query.udp(query, "127.0.0.1", 6, port)
    assert response.answer, response
    return bool(response.flags & dns.flags.AD)


def test_a_key_is_trusted_after_its_time_and_another_revoked_over_restarts(tmp_path: pathlib.Path) -> None:
    """30 days after it was seen a key becomes an anchor; the old one revokes itself; a damaged file loses nothing."""
    now = int(time.time())
    root = Zone(".", f". NS ns\nns A {ROOT}\nwww.lab A 192.0.2.1", times=(now - DAY, now + DAY))
    first, second = root.key, Signer.make()
    root.rrsets[name("."), DNSKEY].add(second.dnskey)  # type: ignore[arg-type]
    root.resign(name("."), DNSKEY)
    tags = [dns.dnssec.key_id(each.dnskey) for each in (first, second)]  # type: ignore[arg-type]
    port = free_port()
    settings = {
        "listen": [f"127.0.0.1:{port}"], "workers": 2, "state": "state",
        "resolver": {
            "root_hints": [{"name": "ns.", "addresses": [ROOT]}], "query_localhost": True, "use_ipv6": False,
            "trust_anchors": [root.ds()], "trust_anchor_updates": True,
        },
    }  # fmt: skip
    (tmp_path / "node.yaml").write_text(yaml.safe_dump(settings))
    wired.save(tmp_path / "state" / "tables")
    file = tmp_path / "state" / "trust-anchors.json"
    began = rollover.begin(anchors.from_texts([root.ds()]).positive[b"\x00"], now - 40 * DAY)
    waiting = rollover.Held(rollover.ADDPEND, now - 31 * DAY, second.dnskey.to_wire() or b"")
    file.write_text(rollover.to_text([rollover.Point(b"\x00", (*began.held, waiting))]))

    def states() -> dict[int, str]:
        return {key["tag"]: key["state"] for zone in json.loads(file.read_text())["zones"] for key in zone["keys"]}

    def run(seen: Callable[[Process], None]) -> None:
        """A node from start to end."""
        process = Process("dnsd", [sys.executable, "-m", "dnsd", "--config", str(tmp_path / "node.yaml")], tmp_path)
        try:
            seen(process)
        finally:
            assert process.end() == 0, process.text()

    def trusted(process: Process) -> None:
        until(lambda: states() == {tags[0]: "valid", tags[1]: "valid"}, 10, "the second key's being trusted")
        assert "has been published for its hold-down time" in process.text()
        assert _secure(port)

    def revoked(process: Process) -> None:
        until(lambda: states() == {tags[0]: "revoked", tags[1]: "valid"}, 10, "the first key's being revoked")
        assert "has revoked itself" in process.text() and _secure(port)

    def damaged(process: Process) -> None:
        # Said, kept aside, and the settings' anchor holds again: the revoked key. All keys of the trust point are
        # revoked then: it is as if none had been set (RFC 5011, section 5).
        aside = file.with_name(file.name + ".damaged")
        until(lambda: aside.exists() and file.exists(), 10, "the look at the keys")
        assert "cannot be read; the configured ones hold" in process.text() and states() == {tags[0]: "revoked"}
        until(lambda: "every key of a trust anchor was revoked" in process.text(), 5, "the error")
        until(lambda: not _secure(port), 5, "an answer without AD")

    with serving(World({ROOT: Server(root)})):
        run(trusted)
        # The old key revokes itself; from now on the second one signs. The next look is due.
        gone = Signer(first.private, first.dnskey.replace(flags=257 | 0x80))  # type: ignore[attr-defined]
        root.rrsets[name("."), DNSKEY] = dns.rrset.from_rdata(name("."), 3600, gone.dnskey, second.dnskey)  # type: ignore[arg-type]
        root.key = second
        for owner, rtype in list(root.sigs):
            root.resign(owner, rtype)
        own = list(root.sigs[name("."), DNSKEY])
        root.resign(name("."), DNSKEY, by=gone)
        root.sigs[name("."), DNSKEY].update(dns.rrset.from_rdata_list(name("."), 3600, own))
        document = json.loads(file.read_text())
        document["zones"][0]["due"] = ""
        file.write_text(json.dumps(document))
        run(revoked)
        file.write_text(file.read_text()[:100])
        run(damaged)

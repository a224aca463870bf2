"""A node follows its trust anchor's keys (RFC 5011) over restarts: a real node, a signed root, a revoked key."""

from __future__ import annotations

import json
import pathlib
import time

import dns.rrset
from dns.rdatatype import DNSKEY

from dnsd.resolve import anchors, rollover
from tests import lan as lans
from tests.lan import Lan, until
from tests.resolve.signed import DAY, Server, Signer, World, Zone, name, serving

ROOT = "127.77.2.1"
RULES = {"office.yaml": 'version: 1\nforward:\n  ".": recurse\n'}


def states(office: Lan) -> dict[int, str]:
    """Key tag → state, as the status page's API has them once the keys were looked at."""
    rows = [row for node in office.status().get("nodes", ()) for row in node.get("anchors", ())]
    return {row["tag"]: row["state"] for row in rows if row["probed"] or row["failure"]}


def secure(office: Lan) -> bool:
    """Whether every worker's answer has AD, from names that were not asked before."""
    return all("ad" in office.dig("www.lab", "A", "+adflag").flags for _ in range(6))


def test_a_key_is_trusted_after_its_time_and_another_revoked_over_restarts(tmp_path: pathlib.Path) -> None:
    """30 days after it was seen a key becomes an anchor; the old one revokes itself; a damaged file loses nothing."""
    now = int(time.time())
    times = (now - DAY, now + DAY)
    root = Zone(".", f". NS ns\nns A {ROOT}\nwww.lab A 192.0.2.1", times=times)
    first, second = root.key, Signer.make()
    root.rrsets[name("."), DNSKEY].add(second.dnskey)  # type: ignore[arg-type]
    root.resign(name("."), DNSKEY)
    resolver = {
        "root_hints": [{"name": "ns.", "addresses": [ROOT]}], "query_localhost": True, "use_ipv6": False,
        "trust_anchors": [root.ds()], "trust_anchor_updates": True,
    }  # fmt: skip
    tags = [dns.dnssec.key_id(each.dnskey) for each in (first, second)]  # type: ignore[arg-type]
    file = tmp_path / ".nexoraldns" / "trust-anchors.json"
    file.parent.mkdir()
    began = rollover.begin(anchors.from_texts([root.ds()]).positive[b"\x00"], now - 40 * DAY)
    waiting = rollover.Held(rollover.ADDPEND, now - 31 * DAY, second.dnskey.to_wire() or b"")
    file.write_text(rollover.to_text([rollover.Point(b"\x00", (*began.held, waiting))]))

    def again() -> None:
        """The next look is due, and the node begins anew."""
        office.processes[-1].end()
        document = json.loads(file.read_text())
        document["zones"][0]["due"] = ""
        file.write_text(json.dumps(document))
        office.start("run")
        office.answers()

    with serving(World({ROOT: Server(root)})), lans.office(tmp_path, {"resolver": resolver}, RULES) as office:
        office.start("run")
        office.answers()
        until(lambda: states(office) == {tags[0]: "valid", tags[1]: "valid"}, 10, "the second key's being trusted")
        assert "has been published for its hold-down time" in office.logs()
        assert secure(office)
        shown = office.verb("status").stdout
        assert f". key {tags[1]}: valid" in shown and f">{tags[1]}<" in office.get("/live")[1].decode()

        # The old key revokes itself; from now on the second one signs.
        gone = Signer(first.private, first.dnskey.replace(flags=257 | 0x80))  # type: ignore[attr-defined]
        root.rrsets[name("."), DNSKEY] = dns.rrset.from_rdata(name("."), 3600, gone.dnskey, second.dnskey)  # type: ignore[arg-type]
        root.key = second
        for owner, rtype in list(root.sigs):
            root.resign(owner, rtype)
        own = list(root.sigs[name("."), DNSKEY])
        root.resign(name("."), DNSKEY, by=gone)
        root.sigs[name("."), DNSKEY].update(dns.rrset.from_rdata_list(name("."), 3600, own))
        again()
        until(lambda: states(office) == {tags[0]: "revoked", tags[1]: "valid"}, 10, "the first key's being revoked")
        assert secure(office)

        # Damaged: said, kept aside, and the settings' anchors hold again: the revoked key, so nothing is secure.
        office.processes[-1].end()
        file.write_text(file.read_text()[:100])
        office.start("run")
        office.answers()
        until(file.exists, 10, "the look at the keys")
        assert "cannot be read; the configured ones hold" in office.processes[-1].text()
        assert file.with_name(file.name + ".damaged").exists() and json.loads(file.read_text())["version"] == 1
        # All keys of the trust point were revoked: it is as if none had been set (RFC 5011, section 5).
        until(lambda: not office.dig("www.lab", "A", "+adflag").flags & {"ad"}, 5, "an answer without AD")

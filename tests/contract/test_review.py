"""`review`: what answers from outside have to pass, and what is exempt."""

from __future__ import annotations

import ipaddress

import dns.message
import dns.rrset
import pytest

from controller.ruleset import Forward, Guard, Protection, Server, Zone
from dnsd.contract import codes, facts, layout, names
from dnsd.contract.query import question
from dnsd.contract.review import Reviewer
from dnsd.contract.verify import verify
from dnsd.resolve.message import read
from tests.contract import rulesets
from tests.contract.deciding import Desk
from tests.contract.rulesets import N, where
from tests.contract.test_verdict import FORWARD, allow, block

ALL = Protection(
    rebinding=Guard(where(70), (N("plex.example"),)),
    cname=Guard(where(71), (N("spared.example"),)),
    networks=Guard(where(72), (), (rulesets.network("192.0.2.0/24"), rulesets.network("2001:db8:bad::/48"))),
)


def desk(protection: Protection = ALL) -> Desk:
    """An office with a listed cloak, groups, and two forwards."""
    zone = Zone(N("lan"), where(40), 300, False, rulesets.soa_records(N("lan")))
    corp = Forward(N("corp.example"), where(51), (Server(ipaddress.IPv4Address("127.0.0.2")),))
    groups = {"staff": rulesets.Group("staff", where(2), False, (rulesets.network("10.0.0.0/24"),))}
    return Desk(
        rulesets.ruleset(
            [
                block("trackers", "list:t"), allow("let", "let.example"), block("staff-only", "social.example", applies=("staff",)),
                block("safe", "safe.lan", applies=("staff",)),
                allow("fine", "ok.tracker.example"),
            ],
            lists={"t": ["tracker.example", "lan"]}, groups=groups, zones=[zone], forwards=[*FORWARD, corp], protection=protection,
        )
    )  # fmt: skip


def look(
    one: Desk, qname: str, addresses: tuple[str, ...] = (), cnames: tuple[str, ...] = (), client: str = "10.0.0.1"
) -> int:
    """Decide, then review an answer with these; 1 for an objection (the verdict is in the desk)."""
    q = question(N(qname), 1, facts.packed(client))
    one.chain.decide(one.table, one.view, q, one.v)
    message = dns.message.make_response(dns.message.make_query(qname, "A"))
    owner = f"{qname}."
    for cname in cnames:
        message.answer.append(dns.rrset.from_text(owner, 60, "IN", "CNAME", f"{cname}."))
        owner = f"{cname}."
    for address in addresses:
        rtype = "AAAA" if ":" in address else "A"
        message.answer.append(dns.rrset.from_text(owner, 60, "IN", rtype, address))
    answer = read(message.to_wire())
    data = memoryview(answer.body or b"\0")
    size = len(answer.body)
    return Reviewer().review(
        one.table, one.view, q, one.v, memoryview(N(qname)), data, 0, size, answer.question, answer.answers
    )


@pytest.mark.parametrize(
    ("address", "objection"),
    [
        ("10.0.0.1", 1), ("172.16.0.1", 1), ("172.31.255.255", 1), ("172.32.0.1", 0), ("172.15.0.1", 0), ("192.168.1.1", 1),
        ("100.64.0.1", 1), ("100.128.0.1", 0), ("169.254.9.9", 1), ("127.0.0.1", 1), ("0.0.0.0", 1), ("8.8.8.8", 0),
        ("::1", 1), ("::", 1), ("fd00::1", 1), ("fc00::1", 1), ("fe80::1", 1), ("fec0::1", 0), ("2001:db8::1", 0),
        ("192.0.2.7", 3), ("192.0.3.0", 0), ("2001:db8:bad::1", 3), ("2001:db8:bad:ffff::", 3), ("2001:db8:bae::", 0),
    ],
)  # fmt: skip
def test_addresses(address: str, objection: int) -> None:
    """Private addresses are rebinding, refused networks are refused, everything else passes."""
    one = desk()
    passed = look(one, "www.elsewhere.example", ("9.9.9.9", address))

    assert (passed, one.v.guard) == (int(objection > 0), objection)
    if objection:
        assert (one.v.stage, one.v.action, one.v.rule) == (codes.STAGE_POLICY, codes.ACTION_NODATA, -1)


def test_cname_cloaking() -> None:
    """A CNAME to a blocked name is blocked by that rule, for those whom it concerns; an allow rule there lets it through."""
    one = desk()
    assert look(one, "www.elsewhere.example", ("9.9.9.9",), ("cdn.elsewhere.example", "x.Tracker.example"))
    # NODATA, because a name below the blocked one is let through.
    assert (one.rule, one.v.action, one.v.guard) == ("trackers", codes.ACTION_NODATA, 2)
    assert not look(one, "www.elsewhere.example", ("9.9.9.9",), ("ok.tracker.example",))
    assert look(one, "www.elsewhere.example", (), ("social.example",), "10.0.0.9")
    assert not look(one, "www.elsewhere.example", (), ("social.example",), "10.0.1.9")
    assert not look(one, "www.elsewhere.example", (), ("host.lan",))
    # A list has no say about our own names; a rule that names one has, also behind an alias of others.
    assert look(one, "www.elsewhere.example", (), ("safe.lan",), "10.0.0.9") and one.rule == "safe"
    assert not look(one, "www.elsewhere.example", (), ("safe.lan",), "10.0.1.9")


def test_exempt() -> None:
    """Forwards of named domains, spared names, and for CNAMEs what an allow rule let through."""
    one = desk()
    assert not look(one, "dc1.corp.example", ("10.1.0.5",), ("x.tracker.example",))
    assert not look(one, "a.plex.example", ("192.168.1.5",))
    assert look(one, "a.plex.example", ("192.0.2.5",))
    assert not look(one, "spared.example", ("9.9.9.9",), ("x.tracker.example",))
    assert not look(one, "let.example", ("9.9.9.9",), ("x.tracker.example",))
    assert look(one, "let.example", ("10.0.0.1",))


def test_off_unless_written() -> None:
    """Without `protect` nothing is looked at."""
    one = desk(Protection())
    assert not look(one, "www.elsewhere.example", ("10.0.0.1", "192.0.2.1"), ("x.tracker.example",))
    assert one.table.protect_flags == 0


def test_part_of_the_meaning() -> None:
    """Switching a protection on changes what a table means, and the table verifies."""
    on, off = desk(), desk(Protection())
    assert on.table.meaning != off.table.meaning
    assert verify(on.blobs.policy, on.blobs.names) == []
    assert on.table.protect_flags == layout.PROTECT_REBINDING | layout.PROTECT_CNAME | layout.PROTECT_NETWORKS
    assert names.to_text(N("x")) == "x"

"""`decide`: precedence, own zones, routes, and that both builds and every file order agree."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import pathlib
import random
import subprocess
import sys

import pytest

from controller.ruleset import (
    BELOW,
    EVERY,
    EXACT,
    LIST,
    SELF_AND_BELOW,
    Forward,
    Group,
    Pattern,
    Redirection,
    Reply,
    Rule,
    Server,
)
from dnsd.contract import codes, facts, names, verdict
from dnsd.contract.factsview import FactsView
from dnsd.contract.query import question as make_question
from dnsd.contract.verify import verify
from tests.contract import rulesets
from tests.contract.deciding import Desk
from tests.contract.rulesets import N, where

ROOT = pathlib.Path(__file__).resolve().parents[2]


def rule(name: str, action: int, *patterns: str, **kwargs: object) -> Rule:
    """A rule from the patterns' text."""
    found = []
    for text in patterns:
        if text == ".":
            found.append(Pattern(EVERY, where(1), text=text))
        elif text.startswith("list:"):
            found.append(Pattern(LIST, where(1), value=text[5:], text=text))
        elif text.startswith("*."):
            found.append(Pattern(BELOW, where(1), N(text[2:]), text=text))
        elif text.startswith("="):
            found.append(Pattern(EXACT, where(1), N(text[1:]), text=text))
        else:
            found.append(Pattern(SELF_AND_BELOW, where(1), N(text), text=text))
    return Rule(name, where(10), action, tuple(found), **kwargs)  # type: ignore[arg-type]


def block(name: str, *patterns: str, **kwargs: object) -> Rule:
    """A block rule."""
    return rule(name, codes.RULE_BLOCK, *patterns, **kwargs)


def allow(name: str, *patterns: str, **kwargs: object) -> Rule:
    """An allow rule."""
    return rule(name, codes.RULE_ALLOW, *patterns, **kwargs)


FORWARD = [Forward(names.ROOT, where(50), (Server(ipaddress.IPv4Address("127.0.0.1")),))]


@pytest.mark.parametrize("seed", range(0, 400, 50))
def test_oracle(seed: int) -> None:
    """For random rule sets and questions, the rule that `decide` names is the one a reading of the rules gives."""
    for number in range(seed, seed + 50):
        rng = random.Random(number)
        rules = rulesets.random_rules(rng)
        desk = Desk(rules)
        for _ in range(15):
            question = rulesets.random_question(rng)
            desk.open(question.open)
            desk.ask(question.qname, question.qtype, question.client)
            own = rulesets.is_own(rules, question.qname)

            assert (number, question, desk.rule) == (number, question, rulesets.winner(rules, question, own))


def test_builds_agree() -> None:
    """Interpreted and compiled give the same tables, verdicts and response bytes, to the last bit."""
    outputs = []
    for interpreted in ("0", "1"):
        environment = {**os.environ, "NEXORALDNS_INTERPRETED": interpreted, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tests.contract.deciding", "7000", "60"]
        outputs.append(subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True))

    assert outputs[0].stdout == outputs[1].stdout
    assert outputs[0].stdout.count("\n") == 60


def test_order_of_files_never_matters() -> None:
    """The same rules in another order give the same bytes."""
    for seed in range(20):
        rules = rulesets.random_rules(random.Random(seed))
        shuffled = list(rules.rules.items())
        random.Random(seed + 1).shuffle(shuffled)
        other = dataclasses.replace(
            rules,
            rules=dict(shuffled),
            groups=dict(reversed(rules.groups.items())),
            lists=dict(reversed(rules.lists.items())),
            forwards=dict(reversed(rules.forwards.items())),
        )

        assert Desk(rules).blobs == Desk(other).blobs


def test_meaning_is_without_provenance() -> None:
    """Moving a rule to another line changes the digest and not the meaning."""
    one = Desk(rulesets.ruleset([block("x", "a.example")]))
    two = Desk(rulesets.ruleset([dataclasses.replace(block("x", "a.example"), where=where(99))]))

    assert one.table.digest != two.table.digest
    assert one.table.meaning == two.table.meaning


def test_rules_leave_the_names_blob_alone() -> None:
    """An edited rule makes a new policy blob and the same names blob."""
    lists = {"ads": ["ads.example", "b.example"]}
    one = Desk(rulesets.ruleset([block("x", "list:ads")], lists=lists)).blobs
    two = Desk(rulesets.ruleset([allow("x", "list:ads")], lists=lists)).blobs

    assert one.names == two.names
    assert one.policy != two.policy


def test_kiosk() -> None:
    """`block: ["."]` with an allowed list is an allow-list-only client: a longer listed name beats every name."""
    desk = Desk(
        rulesets.ruleset([block("all", "."), allow("school", "list:school")], lists={"school": ["school.example"]})
    )
    desk.ask(N("x.school.example"))
    assert (desk.rule, desk.v.allowed) == ("school", 1)
    desk.ask(N("school.other"))
    assert (desk.rule, desk.v.action) == ("all", codes.ACTION_NODATA)


@pytest.mark.parametrize(
    ("patterns", "qname", "action"),
    [
        (["x.example"], "x.example", codes.ACTION_NXDOMAIN),
        (["x.example"], "y.x.example", codes.ACTION_NXDOMAIN),
        (["=x.example"], "x.example", codes.ACTION_NODATA),
        (["=x.example"], "y.x.example", codes.ACTION_FORWARD),
        (["*.x.example"], "x.example", codes.ACTION_FORWARD),
        (["*.x.example"], "y.x.example", codes.ACTION_NXDOMAIN),
    ],
)
def test_kinds_of_patterns(patterns: list[str], qname: str, action: int) -> None:
    """`x` is the name and below, `=x` only itself (and NODATA, to deny nothing below), `*.x` only below."""
    desk = Desk(rulesets.ruleset([block("b", *patterns)], forwards=FORWARD))
    desk.ask(N(qname))

    assert desk.v.action == action


def test_nodata_where_nxdomain_would_deny_too_much() -> None:
    """Blocks limited by types, or above an exception, answer NODATA by default; the rule's own reply stands."""
    desk = Desk(rulesets.ruleset([block("b", "b.example"), allow("a", "=www.b.example")], forwards=FORWARD))
    desk.ask(N("x.b.example"))
    assert desk.v.action == codes.ACTION_NODATA
    desk = Desk(rulesets.ruleset([block("b", "b.example", qtypes=(1,))], forwards=FORWARD))
    desk.ask(N("b.example"))
    assert desk.v.action == codes.ACTION_NODATA
    desk.ask(N("b.example"), codes.TYPE_MX)
    assert desk.v.action == codes.ACTION_FORWARD
    strict = block("b", "b.example", qtypes=(1,), reply=Reply(codes.REPLY_NXDOMAIN))
    desk = Desk(rulesets.ruleset([strict], forwards=FORWARD))
    desk.ask(N("b.example"))
    assert desk.v.action == codes.ACTION_NXDOMAIN


def test_listed_names_never_decide_about_own_names() -> None:
    """A list cannot take the printer away; a written rule can."""
    zone = rulesets.Zone(
        N("lan"), where(40), 300, False, (*rulesets.soa_records(N("lan")), rulesets.address_record("p.lan", "10.0.0.9"))
    )
    by_list = Desk(rulesets.ruleset([block("b", "list:ads")], lists={"ads": ["p.lan", "lan"]}, zones=[zone]))
    by_list.ask(N("p.lan"))
    assert (by_list.v.stage, by_list.v.action) == (codes.STAGE_LOCAL, codes.ACTION_ANSWER)
    written = Desk(rulesets.ruleset([block("b", "p.lan")], zones=[zone]))
    written.ask(N("p.lan"))
    assert (written.v.stage, written.v.action) == (codes.STAGE_POLICY, codes.ACTION_NXDOMAIN)


def test_redirect_spares_its_own_target() -> None:
    """www.google.com goes to forcesafesearch.google.com, which is below google.com and is not redirected again."""
    target = N("safe.google.example")
    redirect = dataclasses.replace(
        rule("r", codes.RULE_REDIRECT, "google.example"), redirections=(Redirection(name=target),)
    )
    desk = Desk(rulesets.ruleset([redirect], forwards=FORWARD))
    desk.ask(N("www.google.example"))
    assert (desk.v.action, desk.info.name_at(desk.v.target - 1), desk.v.route) == (codes.ACTION_ALIAS, target, 1)
    desk.ask(target)
    assert (desk.v.action, desk.rule) == (codes.ACTION_FORWARD, None)


def test_forward_below_an_own_zone() -> None:
    """A forward entry below an own zone takes its names out of the zone; at the same name the zone stays."""
    zone = rulesets.Zone(N("lan"), where(40), 300, False, rulesets.soa_records(N("lan")))
    server = (Server(ipaddress.IPv4Address("127.0.0.2")),)
    desk = Desk(
        rulesets.ruleset(
            [],
            zones=[zone],
            forwards=[*FORWARD, Forward(N("ad.lan"), where(1), server), Forward(N("lan"), where(1), server)],
        )
    )
    desk.ask(N("dc1.ad.lan"))
    assert (desk.v.action, desk.info.route(desk.v.route).name) == (codes.ACTION_FORWARD, "ad.lan")
    desk.ask(N("x.lan"))
    assert desk.v.action == codes.ACTION_NXDOMAIN


def test_groups_and_clients_have_servers_of_their_own() -> None:
    """A member's question takes the route of its group, a client's own before that; aliases and names below likewise."""

    def to(address: str, **more: object) -> Forward:
        return Forward(names.ROOT, where(1), (Server(ipaddress.IPv4Address(address)),), **more)  # type: ignore[arg-type]

    kids, tablet = rulesets.network("10.0.1.0/24"), rulesets.network("10.0.1.9/32")
    groups = {
        "kids": Group("kids", where(1), False, (kids,)), "tablet": Group("tablet", where(1), True, (tablet,)),
    }  # fmt: skip
    target = N("forcesafesearch.google.example")
    redirect = rule("r", codes.RULE_REDIRECT, "google.example", redirections=(Redirection((), target),))
    entry = to("127.0.0.1", variants=(to("127.0.0.2", group="kids"), to("127.0.0.3", group="tablet")))
    desk = Desk(rulesets.ruleset([redirect], groups=groups, forwards=[entry]))
    for client, server, group in (
        ("10.0.0.1", "127.0.0.1", ""), ("10.0.1.1", "127.0.0.2", "kids"), ("10.0.1.9", "127.0.0.3", "tablet"),
    ):  # fmt: skip
        for qname in ("example.org", "www.google.example"):
            desk.ask(N(qname), client=client)
            route = desk.info.route(desk.v.route)
            assert (route.servers[0][0], route.group) == (server, group), (client, qname)
    assert not verify(desk.blobs.policy, desk.blobs.names)


def test_who_a_name_on_the_way_belongs_to() -> None:
    """`belongs` knows zones, forward entries and special-use names as `decide` does, and no policy."""
    records = (*rulesets.soa_records(N("lan")), rulesets.address_record("nas.lan", "10.0.0.5"))
    zone = rulesets.Zone(N("lan"), where(40), 300, False, records)
    server = (Server(ipaddress.IPv4Address("127.0.0.2")),)
    desk = Desk(rulesets.ruleset([block("b", "lan", "corp.example", "other.example")], zones=[zone], forwards=[
        Forward(N("corp.example"), where(1), server), Forward(names.ROOT, where(1), (), recurse=True),
    ]))  # fmt: skip
    for qname, action in (("nas.lan", codes.ACTION_ANSWER), ("no.lan", codes.ACTION_NXDOMAIN)):
        v = verdict.Verdict()
        q = make_question(N(qname), 1, facts.packed("10.0.0.1"))
        assert desk.chain.belongs(desk.table, desk.view, q, v) and (v.stage, v.action) == (codes.STAGE_LOCAL, action)
    for qname, kind in (("x.corp.example", "forward"), ("x.test", ""), ("x.other.example", "recurse")):
        v = verdict.Verdict()
        q = make_question(N(qname), 1, facts.packed("10.0.0.1"))
        assert not desk.chain.belongs(desk.table, desk.view, q, v)
        assert (desk.info.route(v.route).kind if v.route else "") == kind, qname


@pytest.mark.parametrize(
    ("qname", "stage", "action"),
    [
        ("x.test", codes.STAGE_LOCAL, codes.ACTION_NXDOMAIN),
        ("5.1.168.192.in-addr.arpa", codes.STAGE_LOCAL, codes.ACTION_NXDOMAIN),
        ("foo.localhost", codes.STAGE_LOCAL, codes.ACTION_ZERO),
        ("dc.home.arpa", codes.STAGE_ROUTE, codes.ACTION_FORWARD),
        ("x.onion", codes.STAGE_ROUTE, codes.ACTION_FORWARD),
        ("example.org", codes.STAGE_ROUTE, codes.ACTION_FORWARD),
    ],
)
def test_special_use_names(qname: str, stage: int, action: int) -> None:
    """They stay at home on the way to `.`, unless a forward entry or an allow rule names them."""
    server = (Server(ipaddress.IPv4Address("127.0.0.2")),)
    rules = rulesets.ruleset([allow("tor", "onion")], forwards=[*FORWARD, Forward(N("home.arpa"), where(1), server)])
    desk = Desk(rules)
    desk.ask(N(qname))

    assert (desk.v.stage, desk.v.action) == (stage, action)


def test_strangers_are_refused() -> None:
    """Who is not in the node's `allow` gets REFUSED before anything is looked up."""
    desk = Desk(rulesets.ruleset([block("b", "b.example")]))
    v4, v6 = facts.intervals([ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")])
    desk.view = FactsView(facts.encode(facts.Facts(v4=v4, v6=v6)))
    for client, refused in [
        ("10.0.0.0", False), ("10.255.255.255", False), ("9.255.255.255", True), ("11.0.0.0", True),
        ("fd00::1", False), ("fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", False), ("fe00::", True), ("2001:db8::1", True),
    ]:  # fmt: skip
        desk.ask(N("b.example"), 1, client)
        assert (client, desk.v.stage == codes.STAGE_CLIENT) == (client, refused)


def test_many_groups_and_rules() -> None:
    """Three hundred overlapping groups and a thousand rules keep the oracle's meaning."""
    rng = random.Random(1)
    groups = {}
    for number in range(300):
        first = rng.randrange(0, 2**12)
        groups[f"g{number}"] = rulesets.Group(
            f"g{number}", where(2), False,
            (rulesets.Network(4, (10 << 24) + first, (10 << 24) + first + rng.randrange(1, 300), "", where(1)),),
        )  # fmt: skip
    rules = rulesets.ruleset(
        [
            rule(
                f"r{number:04}", rng.choice([codes.RULE_BLOCK, codes.RULE_ALLOW]), f"n{rng.randrange(40)}.example", "list:l",
                applies=tuple(rng.sample(sorted(groups), rng.randrange(3))), priority=rng.randrange(-2, 3),
            )
            for number in range(1000)
        ],
        groups=groups, lists={"l": ["example", "n3.example"]}, forwards=FORWARD,
    )  # fmt: skip
    desk = Desk(rules)
    for _ in range(60):
        client = str(ipaddress.IPv4Address((10 << 24) + rng.randrange(2**12)))
        question = rulesets.Question(N(f"x.n{rng.randrange(42)}.example"), 1, client, frozenset())
        desk.ask(question.qname, 1, client)
        assert desk.rule == rulesets.winner(rules, question, False)

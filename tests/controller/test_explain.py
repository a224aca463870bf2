"""`explain`: who decides, and the step at which everybody else lost."""

from __future__ import annotations

import ipaddress
import json
import pathlib
import textwrap

import hypothesis
import pytest
from click.testing import CliRunner
from hypothesis import strategies as st

from controller import check, explain, subject
from controller.cli.explain import command
from controller.compiler import compile_table
from controller.ruleset import Revision, Snapshot
from dnsd.contract import codes, facts, names
from dnsd.contract.table import Table

RULES = """\
version: 1
groups:
  staff: {members: [10.0.10.0/24]}
  boss: {members: [10.0.10.9]}
schedules:
  lunch: {timezone: Europe/Amsterdam, weekdays: [mon, tue, wed, thu, fri], start: "12:00", end: "13:00"}
lists:
  ads: {domains: [ads.example, printer.office.example]}
rules:
  - {name: ads, block: [list:ads]}
  - {name: staff-ads, for: staff, block: [list:ads]}
  - {name: lunch-ads, for: staff, when: lunch, allow: [list:ads]}
  - {name: written, block: [ads.example]}
  - {name: deeper, allow: [a.ads.example]}
  - {name: only-txt, types: [TXT], block: [ads.example], priority: 5}
  - {name: not-boss, except: boss, block: [ads.example]}
  - {name: urgent, for: boss, block: [urgent.example], priority: 10, reply: refused}
  - {name: calm, allow: [urgent.example]}
  - {name: exact, allow: ["=exact.example"]}
  - {name: below, block: [exact.example]}
  - {name: typed, types: [A], block: [typed.example], reply: drop}
  - {name: untyped, allow: [typed.example]}
  - {name: old, redirect: {old.example: new.old.example}}
  - {name: gone, block: [gone.example], expires: 2026-01-01}
zones:
  office.example: {ttl: 5m, records: {printer: 10.0.20.15}}
forward:
  .: 192.0.2.53
  race.example: {upstreams: [192.0.2.1, 192.0.2.2], strategy: race, dnssec: true}
  lan.example: {upstreams: dhcp, strategy: fastest}
"""
MONDAY_LUNCH, MONDAY_TEN = "2026-03-02T12:15", "2026-03-02T10:00"


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> subject.Subject:
    """The rules above, compiled."""
    folder = tmp_path_factory.mktemp("rules.d")
    (folder / "rules.yaml").write_text(RULES)
    return subject.from_path(str(folder))


def ask(
    rules: subject.Subject, name: str, client: str = "10.0.10.21", qtype: str = "A", at: str = MONDAY_TEN
) -> explain.Explanation:
    """Explain one question."""
    assert rules.ruleset is not None
    return explain.explain(
        rules.table, names.from_text(name), codes.qtype_number(qtype), ipaddress.ip_address(client),
        explain.moment(at, "Europe/Amsterdam"), groups=rules.ruleset.groups, zone="Europe/Amsterdam",
    )  # fmt: skip


def row(explanation: explain.Explanation, rule: str) -> explain.Row:
    """The row of a rule."""
    return next(row for row in explanation.rows if row.rule == rule)


@pytest.mark.parametrize(
    ("name", "client", "qtype", "winner", "loser", "step"),
    [
        ("urgent.example", "10.0.10.9", "A", "urgent", "calm", 1),
        ("x.ads.example", "10.0.10.21", "A", "not-boss", "staff-ads", 2),
        ("urgent.example", "10.0.10.9", "A", "urgent", "calm", 1),
        ("a.ads.example", "10.0.10.21", "A", "deeper", "written", 4),
        ("exact.example", "10.0.10.21", "A", "exact", "below", 4),
        ("typed.example", "10.0.10.21", "A", "typed", "untyped", 5),
        ("ads.example", "10.0.10.21", "A", "not-boss", "written", 7),
    ],
)
def test_losers_name_their_step(
    rules: subject.Subject, name: str, client: str, qtype: str, winner: str, loser: str, step: int
) -> None:
    """The deciding rule comes first, and a loser says by which step of precedence it lost."""
    found = ask(rules, name, client, qtype)

    assert (found.rows[0].rule, found.rows[0].status) == (winner, explain.DECIDES)
    assert (row(found, loser).status, row(found, loser).step) == (explain.LOSES, step)


def test_what_is_resolved_may_lead_to_what_is_ours(tmp_path: pathlib.Path) -> None:
    """Where we recurse, explain names the zones and forward entries that count for names on the way; and for whom it asks."""
    (tmp_path / "r.yaml").write_text(
        "version: 1\nzones: {office.example: {ptr: auto, records: {nas: 10.0.0.5}}}\n"
        "groups: {kids: {members: [10.0.1.0/24]}}\n"
        "forward: {.: recurse, corp.example: {upstreams: 10.1.0.53, for: {kids: 10.1.0.54}}, open.example: recurse}\n"
    )
    found = subject.from_path(str(tmp_path))

    def said(name: str, client: str) -> str:
        client_address = ipaddress.ip_address(client)
        return explain.to_text(explain.explain(found.table, names.from_text(name), 1, client_address, 1.8e9))

    assert "aliases and name servers in corp.example, office.example are answered" in said("www.example.org", "10.0.0.1")
    assert "aliases" not in said("www.corp.example", "10.0.0.1")
    assert "forward corp.example (10.1.0.53)" in said("www.corp.example", "10.0.0.1")
    assert "forward corp.example (10.1.0.54) for kids" in said("www.corp.example", "10.0.1.1")


def test_group_and_action_steps(tmp_path: pathlib.Path) -> None:
    """Step 3 is `for` before everyone, step 6 allow before block, both among listed names."""
    (tmp_path / "r.yaml").write_text(textwrap.dedent("""\
        version: 1
        groups: {staff: {members: [10.0.10.0/24]}}
        lists: {ads: {domains: [ads.example]}}
        rules:
          - {name: everyone, allow: [list:ads]}
          - {name: staff-block, for: staff, block: [list:ads]}
          - {name: staff-allow, for: staff, allow: [list:ads]}
        forward: {.: 192.0.2.53}
        """))
    found = ask(subject.from_path(str(tmp_path)), "ads.example")

    assert found.rows[0].rule == "staff-allow"
    assert row(found, "staff-block").step == 6
    assert row(found, "everyone").step == 3


@pytest.mark.parametrize(
    ("name", "rule", "client", "qtype", "words"),
    [
        ("ads.example", "staff-ads", "10.9.9.9", "A", "not for this client (for staff)"),
        ("ads.example", "not-boss", "10.0.10.9", "A", "not for this client (except boss)"),
        ("ads.example", "only-txt", "10.0.10.21", "A", "not for A (types TXT)"),
        ("ads.example", "lunch-ads", "10.0.10.21", "A", "not now (lunch is mon-fri 12:00-13:00 Europe/Amsterdam)"),
        ("new.old.example", "old", "10.0.10.21", "A", "a redirect does not apply to its own target"),
        ("gone.example", "gone", "10.0.10.21", "A", "expired (2026-01-02 00:00 UTC)"),
    ],
)
def test_reasons_for_not_applying(
    rules: subject.Subject, name: str, rule: str, client: str, qtype: str, words: str
) -> None:
    """A candidate that does not apply says why, in words."""
    assert row(ask(rules, name, client, qtype), rule).reason == words


def test_schedule_opens(rules: subject.Subject) -> None:
    """The moment asked about opens schedules."""
    assert row(ask(rules, "ads.example", at=MONDAY_LUNCH), "lunch-ads").status == explain.LOSES


def test_own_names_ignore_lists(rules: subject.Subject) -> None:
    """A listed name does not decide about our own zone, and the row says so."""
    found = ask(rules, "printer.office.example")

    assert found.outcome.actions == ("answer",)
    assert "the name is our own" in row(found, "ads").reason
    assert any(text.startswith("our zone office.example") for text in found.found)


@pytest.mark.parametrize(
    ("name", "client", "words"),
    [
        ("printer.office.example", "10.0.10.21", "answer -> A 10.0.20.15, TTL 300"),
        ("nobody.office.example", "10.0.10.21", "answer -> NXDOMAIN, TTL 300"),
        ("exact.example", "10.0.10.21", "allow -> forward . (192.0.2.53)"),
        ("other.example", "10.0.10.21", "forward . (192.0.2.53)"),
        ("www.race.example", "10.0.10.21", "forward race.example (192.0.2.1, 192.0.2.2: race, validated)"),
        ("www.lan.example", "10.0.10.21", "dhcp: fastest"),
        ("urgent.example", "10.0.10.9", "block -> REFUSED"),
        ("typed.example", "10.0.10.21", "block -> no answer at all"),
        ("old.example", "10.0.10.21", "redirect -> CNAME new.old.example., then forward . (192.0.2.53) for it"),
        ("foo.invalid", "10.0.10.21", "answer -> NXDOMAIN, TTL 10800"),
    ],
)
def test_results_in_one_line(rules: subject.Subject, name: str, client: str, words: str) -> None:
    """Each kind of outcome reads as one line."""
    assert explain.result(ask(rules, name, client).outcome) == words


def test_strangers_are_refused_by_the_node(rules: subject.Subject) -> None:
    """With the node's allow setting, a client outside of it is refused and no rule is weighed."""
    found = explain.explain(
        rules.table, names.from_text("ads.example"), 1, ipaddress.ip_address("203.0.113.1"), 0.0,
        allow=(ipaddress.ip_network("10.0.0.0/8"),),
    )  # fmt: skip

    assert found.rows == ()
    assert "not in the node's `allow` setting" in explain.result(found.outcome)


NAMES = ["a.test", "b.a.test", "c.b.a.test", "b.test"]
PATTERNS = st.sampled_from(
    [sign + name for sign in ("", "=", "*.") for name in NAMES] + [".", "list:l", "list:m"]
)
ONE_RULE = st.fixed_dictionaries(
    {
        "action": st.sampled_from(["block", "allow"]),
        "patterns": st.lists(PATTERNS, min_size=1, max_size=3, unique=True),
    },
    optional={
        "for": st.sampled_from(["g", "h"]), "except": st.sampled_from(["g", "h"]), "priority": st.integers(-1, 1),
        "types": st.sampled_from([["A"], ["TXT"], ["A", "TXT"]]),
    },
)  # fmt: skip


@hypothesis.given(st.lists(ONE_RULE, min_size=1, max_size=6), st.sampled_from(NAMES), st.sampled_from(["A", "TXT"]),
                  st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"]))  # fmt: skip
@hypothesis.settings(max_examples=60, deadline=None)
def test_what_explain_names_is_what_decides(
    made: list[dict[str, object]], qname: str, qtype: str, client: str
) -> None:
    """For random rules, the best applying row is the one that `decide` chose, and nobody outranks it."""
    rules = [
        {"name": f"r{i}", one["action"]: one["patterns"], **{k: one[k] for k in one if k not in ("action", "patterns")}}
        for i, one in enumerate(made)
    ]
    text = json.dumps({
        "version": 1, "groups": {"g": {"members": ["10.0.0.1-10.0.0.2"]}, "h": {"members": ["10.0.0.2"]}},
        "lists": {"l": {"domains": ["a.test"]}, "m": {"domains": ["b.a.test", "b.test"]}},
        "rules": rules, "forward": {".": "192.0.2.1"},
    })  # fmt: skip
    checked = check.check_snapshot(Snapshot(Revision("x", "x"), {"r.yaml": text.encode()}, lambda a, b: b""))
    # Rules that contradict each other are refused; what remains is what tables are made of.
    hypothesis.assume(checked.ruleset is not None)
    assert checked.ruleset is not None
    blobs = compile_table(checked.ruleset)
    table = Table(blobs.policy, blobs.names)
    wire, number, address = names.from_text(qname), codes.qtype_number(qtype), ipaddress.ip_address(client)
    found = explain.explain(table, wire, number, address, 0.0)
    applying = [row for row in found.rows if row.status != explain.NOT]

    assert (found.outcome.rule.name if found.outcome.rule else None) == (applying[0].rule if applying else None)
    assert [row.status for row in applying[1:]] == [explain.LOSES] * (len(applying) - 1)
    assert all(row.step for row in applying[1:])


def test_verb(rules: subject.Subject) -> None:
    """The verb takes a client by group, a time, JSON; and says what is wrong with a bad question."""
    runner = CliRunner()
    text = runner.invoke(command, ["ads.example", rules.label, "--client", "staff", "--at", MONDAY_TEN])
    assert text.exit_code == 0, text.output
    assert "→ block" in text.output
    assert "10.0.10.0 is in: staff (10.0.10.0/24)" in text.output
    assert "loses (2)" in text.output

    value = json.loads(runner.invoke(command, ["ads.example", rules.label, "--format", "json"]).output)
    assert value["result"]["action"] == "block"
    assert value["candidates"][0]["status"] == "decides"

    for argv, words in (
        (["a..b", rules.label], "is not a domain name"),
        (["x", rules.label, "--type", "QQ"], "'QQ' is not a query type"),
        (["x", rules.label, "--client", "staf"], "did you mean 'staff'?"),
        (["x", rules.label, "--at", "noon"], "write it like 2026-03-02T10:00"), (["x", "/nonesuch"], "nonesuch"),
    ):  # fmt: skip
        refused = runner.invoke(command, argv)
        assert (refused.exit_code, words in refused.output) == (2, True), refused.output


def test_verb_reads_a_compiled_table(rules: subject.Subject, tmp_path: pathlib.Path) -> None:
    """A compiled table is explained like its rules; a damaged one is refused with a reason."""
    path = tmp_path / "office.table"
    path.write_bytes(rules.blobs.policy)
    (tmp_path / "office.table.names").write_bytes(rules.blobs.names)
    result = CliRunner().invoke(command, ["ads.example", str(path), "--client", "10.9.9.9"])
    assert (result.exit_code, "→ block" in result.output) == (0, True)

    path.write_bytes(rules.blobs.policy[:-8] + b"\xff" * 8)
    assert CliRunner().invoke(command, ["ads.example", str(path)]).exit_code == 2


def test_times(rules: subject.Subject) -> None:
    """A time without an offset is in the rules' zone, one with an offset is exact."""
    assert explain.time_zone(rules.table) == "Europe/Amsterdam"
    assert explain.moment("2026-03-02T10:00", "Europe/Amsterdam") == explain.moment("2026-03-02T09:00Z", "UTC")
    assert facts.gates_from_json(rules.table.gates_json(), explain.moment(MONDAY_LUNCH, "Europe/Amsterdam"))[0]

"""Facts about rule sets built from files: values, defaults, references, and the golden folders."""

import datetime
import ipaddress
import itertools
import pathlib
import time

import pytest

from controller import check, diagnostics, rules
from controller.ruleset import BELOW, EVERY, EXACT, LIST, SELF_AND_BELOW, RuleSet, Snapshot
from dnsd.contract import codes, names
from tests.controller import golden

BAD = sorted(path for path in (golden.FOLDER / "bad").iterdir() if path.is_dir())
GOOD = sorted(path for path in (golden.FOLDER / "good").iterdir() if path.is_dir())
# Codes that other steps find, and where they are proven.
ELSEWHERE = {"E040": "tests/controller/test_ruletest.py"}


def ruleset(**texts: str) -> RuleSet:
    """The rule set of good texts."""
    result = check.check_snapshot(golden.of_texts(**texts), golden.TODAY)
    assert result.ruleset is not None, diagnostics.render(result.diagnostics, {}, "short")
    return result.ruleset


def found(**texts: str) -> list[str]:
    """The codes found in texts."""
    return [d.code for d in check.check_snapshot(golden.of_texts(**texts), golden.TODAY).diagnostics]


@pytest.mark.parametrize("folder", BAD, ids=lambda path: path.name)
def test_bad_files_say_exactly_this(folder: pathlib.Path) -> None:
    """What `check` prints for a bad folder is its expected.txt, to the column."""
    assert golden.printed(folder) == (folder / "expected.txt").read_text("utf-8")


@pytest.mark.parametrize("folder", BAD, ids=lambda path: path.name)
def test_bad_files_show_their_code(folder: pathlib.Path) -> None:
    """Each folder really shows the code that it is named after."""
    code = folder.name.split("-")[0]
    result = check.check_snapshot(golden.snapshot(folder), golden.TODAY)
    assert code in {d.code for d in result.diagnostics}
    assert (result.ruleset is None) == any(d.is_error for d in result.diagnostics)


def test_every_code_has_a_case() -> None:
    """The catalogue and the golden folders hold the same codes."""
    assert {path.name.split("-")[0] for path in BAD} | ELSEWHERE.keys() == diagnostics.CATALOGUE.keys()


@pytest.mark.parametrize("folder", GOOD, ids=lambda path: path.name)
def test_good_files_say_nothing(folder: pathlib.Path) -> None:
    """Good files have no findings at all."""
    result = check.check_snapshot(golden.snapshot(folder), golden.TODAY)
    assert result.diagnostics == () and result.ruleset is not None


def test_order_of_files_never_matters() -> None:
    """The same sections in any number of files and any order mean the same."""
    parts = {
        "groups: {staff: {members: [10.0.0.0/24]}}\n": "a",
        "rules:\n  - {name: one, for: staff, block: [a.example]}\n": "b",
        "rules:\n  - {name: two, allow: [b.a.example]}\n": "c",
    }
    seen = set()
    for order in itertools.permutations(parts):
        made = ruleset(**dict(zip("abc", order, strict=True)))
        seen.add(
            (tuple(made.rules), tuple(made.groups), tuple(p.name for r in made.rules.values() for p in r.patterns))
        )
    assert len(seen) == 1


def test_patterns() -> None:
    """The five ways to write a domain."""
    made = ruleset(
        a='lists: {l: {domains: [x.example]}}\nrules:\n  - {name: r, block: [A.Example., "*.b", "=c", "list:l", "."]}\n'
    )
    patterns = made.rules["r"].patterns
    assert [p.kind for p in patterns] == [SELF_AND_BELOW, BELOW, EXACT, LIST, EVERY]
    assert [p.name for p in patterns] == [
        names.from_text("a.example"),
        names.from_text("b"),
        names.from_text("c"),
        b"",
        b"\0",
    ]
    assert patterns[3].value == "l"


def test_international_names() -> None:
    """Unicode becomes A-labels by UTS 46, non-transitional: ß is a letter of its own."""
    made = ruleset(a="rules:\n  - {name: r, block: [BÜCHER.example, faß.example, 例え.テスト]}\n")
    assert [names.to_text(p.name) for p in made.rules["r"].patterns] == [
        "xn--bcher-kva.example", "xn--fa-hia.example", "xn--r8jz45g.xn--zckzah",
    ]  # fmt: skip


def test_members() -> None:
    """Addresses, networks, ranges and clients become inclusive ranges."""
    made = ruleset(
        a="groups: {g: {members: [10.0.0.0/30, 10.0.1.5-10.0.1.9, pc]}}\nclients: {pc: {ids: [fd00::1]}}\n"
        "rules: [{name: r, for: g, block: a.example}]\n"
    )
    ip = ipaddress.ip_address
    assert [(n.version, n.first, n.last) for n in made.groups["g"].networks] == [
        (4, int(ip("10.0.0.0")), int(ip("10.0.0.3"))),
        (4, int(ip("10.0.1.5")), int(ip("10.0.1.9"))),
        (6, int(ip("fd00::1")), int(ip("fd00::1"))),
    ]
    assert made.groups["pc"].client and not made.groups["g"].client


def test_defaults() -> None:
    """Unwritten values: everyone, always, priority 0, ttl 10, reply left to the defaults."""
    rule = ruleset(a="rules: [{name: r, block: a.example}]\n").rules["r"]
    assert (rule.applies, rule.schedule, rule.priority, rule.ttl, rule.reply, rule.enabled) == (
        (),
        None,
        0,
        10,
        None,
        True,
    )
    made = ruleset(a="defaults: {ttl: 1m, reply: zero}\nrules: [{name: r, block: a.example}]\nzones: {z.example: {}}\n")
    assert (made.rules["r"].ttl, made.defaults.reply.code, made.zones[names.from_text("z.example")].ttl) == (
        60, codes.REPLY_ZERO, 60)  # fmt: skip


def test_expires_to_the_end_of_the_day() -> None:
    """`expires` holds to midnight in defaults.timezone, daylight saving included."""
    made = ruleset(
        a="defaults: {timezone: Europe/Amsterdam}\n"
        "rules: [{name: w, block: a.example, expires: 2030-01-31}, {name: s, block: b.example, expires: 2030-07-31}]\n"
    )
    utc = datetime.UTC
    assert made.rules["w"].expires == datetime.datetime(2030, 1, 31, 23, tzinfo=utc).timestamp()
    assert made.rules["s"].expires == datetime.datetime(2030, 7, 31, 22, tzinfo=utc).timestamp()


def test_windows() -> None:
    """Days are numbers from Monday, times minutes, and a time zone is always filled in."""
    made = ruleset(
        a="schedules: {n: [{weekdays: [fri, sat], start: 22:00, end: 6:00}, {timezone: Asia/Tokyo, end: 24:00}]}\n"
        "rules: [{name: r, when: n, block: a.example}]\n"
    )
    first, second = made.schedules["n"].windows
    assert (first.weekdays, first.start, first.end, first.timezone) == ((4, 5), 1320, 360, "UTC")
    assert (second.weekdays, second.start, second.end, second.timezone) == (tuple(range(7)), 0, 1440, "Asia/Tokyo")


def test_servers() -> None:
    """A server is an address, with a port when it is not 53; an IPv6 address with a port stands in brackets."""
    made = ruleset(a='forward: {.: [10.0.0.1, "10.0.0.1:5353", "fd00::1", "[fd00::1]:5353"]}\n')
    assert [(str(s.address), s.port) for s in made.forwards[names.ROOT].servers] == [
        ("10.0.0.1", 53), ("10.0.0.1", 5353), ("fd00::1", 53), ("fd00::1", 5353),
    ]  # fmt: skip


def test_servers_for_groups_and_clients() -> None:
    """`for` in a forward entry: a group's or a client's name, and an entry of its own."""
    people = "groups: {kids: {members: [10.0.1.0/24]}}\nclients: {tv: {ids: [10.0.2.1]}}\n"
    made = ruleset(a=people + "forward: {.: {upstreams: 10.0.0.1, for: {tv: recurse, kids: {upstreams: [10.0.0.2],"
                              " strategy: race, timeout: 1s}}}}\n").forwards[names.ROOT]  # fmt: skip
    assert [str(server.address) for server in made.servers] == ["10.0.0.1"]
    kids, tv = made.variants
    assert (kids.group, str(kids.servers[0].address), kids.strategy, kids.timeout_ms) == ("kids", "10.0.0.2", "race", 1000)
    assert (tv.group, tv.recurse, tv.servers) == ("tv", True, ())


def test_tests_are_read() -> None:
    """A test's client, moment and data are resolved; a moment without offset is in the schedules' zone."""
    result = check.check_snapshot(
        golden.of_texts(
            a="clients: {pc: {ids: [10.0.0.7]}}\ngroups: {net: {members: [10.0.1.0/24]}}\n"
            "schedules: {s: {timezone: Europe/Amsterdam, start: 08:00, end: 10:00}}\n"
            "lists: {l: {domains: [l.example]}}\n"
            "rules: [{name: r, when: s, for: net, block: list:l}]\n"
            "tests:\n"
            "  - {name: one, query: {name: a.example, type: aaaa, client: pc, at: 2026-03-02T10:00},"
            " given: {lists: {l: [b.example]}}, expect: {rule: r, A: 10.0.0.1, ttl: 5m}}\n"
            "  - {name: two, query: {name: a.example, client: net, at: 2026-03-02T10:00Z}, expect: {rcode: nxdomain}}\n"
        ),
        golden.TODAY,
    )
    one, two = result.tests
    assert (str(one.client), one.qtype, one.at) == ("10.0.0.7", codes.TYPE_AAAA, 1772442000)
    assert one.given == {"l": (names.from_text("b.example"),)}
    assert one.expect == {"rule": "r", "A": ("10.0.0.1",), "ttl": 300}
    assert (str(two.client), two.at, two.expect) == ("10.0.1.1", 1772445600, {"rcode": "NXDOMAIN"})


def test_a_broken_file_does_not_break_references() -> None:
    """A group that stands in a file with a syntax error is not reported as missing; a typo still is."""
    bad = "groups:\n  staff: {members: [10.0.0.0/24}\n"
    assert found(a=bad, b="rules: [{name: r, for: staff, block: a.example}]\n") == ["E001"]
    assert found(a=bad, b="rules: [{name: r, for: stuff, block: a.example}]\n") == ["E001", "E021"]


def test_a_comment_allows_lint() -> None:
    """`# nexoraldns: allow W103` above the line or at its end silences that lint and no other."""
    assert found(a="lists:\n  # nexoraldns: allow W103\n  l: {domains: [a.example]}\n") == []
    assert found(a="lists:\n  l: {domains: [a.example]}  # nexoraldns: allow W103, W104\n") == []
    assert found(a="lists:\n  l: {domains: [a.example]}  # nexoraldns: allow W104\n") == ["W103"]


def test_max_entries_and_sha256() -> None:
    """A list's own guards are errors: the user asked for them."""
    data = b"a.example\nb.example\n"
    text = (
        "version: 1\nlists: {l: {file: l.txt, max_entries: 1, sha256: '%s'}}\nrules: [{name: r, block: list:l}]\n"
        % ("0" * 64)
    )
    snapshot = Snapshot(golden.of_texts().revision, {"a.yaml": text.encode()}, lambda path, relative_to: data)
    result = check.check_snapshot(snapshot, golden.TODAY)
    assert [(d.code, "max_entries" in d.message) for d in result.diagnostics] == [("E012", True), ("E012", False)]


def test_a_second_check_says_the_same() -> None:
    """Remembered documents give the same findings again."""
    folder = next(path for path in BAD if path.name.startswith("E024"))
    assert golden.printed(folder) == golden.printed(folder)


def test_the_clock_of_explain() -> None:
    """Without a default, the zone that all schedules name is the clock's."""
    made = ruleset(
        a="schedules: {s: {timezone: Asia/Tokyo, start: 08:00, end: 10:00}}\n"
        "rules: [{name: r, when: s, block: a.example}]\n"
    )
    assert rules.clock_zone(made) == "Asia/Tokyo"


def test_two_thousand_rules_are_quick() -> None:
    """2,000 rules are loaded, validated and checked in less than five seconds of CPU on any machine (2 s here)."""
    text = "rules:\n" + "".join(
        f"  - name: rule-{i}\n    block: [ads{i}.example.com, '*.t{i}.example.net']\n    priority: {i % 7}\n"
        for i in range(2000)
    )
    begun = time.process_time()
    assert len(ruleset(a=text).rules) == 2000
    assert time.process_time() - begun < 5.0

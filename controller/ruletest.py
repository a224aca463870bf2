"""The tests beside the rules: each is asked of the compiled table, by the function that the workers run.

A test that fails rejects the revision (`run`); the verb `test` shows what it got and why (`results`).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence

from controller import records
from controller.compiler import Blobs, compile_table
from controller.decider import Data, Decider, Outcome
from controller.diagnostics import Diagnostic, found
from controller.ruleset import RuleSet, RuleTest
from dnsd.contract import codes, names
from dnsd.contract.table import Table

_UPSTREAM = "(whatever the upstream server says)"


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """One expectation that was not met."""

    key: str
    expected: str
    got: str


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """A test, what the table said, and what was expected otherwise (nothing when it passed)."""

    test: RuleTest
    outcome: Outcome
    failures: tuple[Failure, ...]
    blobs: Blobs
    at: float


def results(ruleset: RuleSet, blobs: Blobs, tests: Iterable[RuleTest], now: float | None = None) -> list[Result]:
    """Ask every test. `now` is the clock of tests without `at`."""
    now = time.time() if now is None else now
    compiled: dict[tuple[tuple[str, tuple[bytes, ...]], ...], Blobs] = {(): blobs}
    deciders: dict[tuple[str, float], Decider] = {}
    out = []
    for test in tests:
        given = tuple(sorted(test.given.items()))
        if given not in compiled:
            compiled[given] = compile_table(ruleset, given=dict(given))
        mine = compiled[given]
        at = now if test.at is None else float(test.at)
        decider = deciders.get((mine.digest, at))
        if decider is None:
            decider = deciders[mine.digest, at] = Decider(Table(mine.policy, mine.names), at)
        outcome = decider.outcome(test.qname, test.qtype, test.client)
        out.append(Result(test, outcome, tuple(compare(test.expect, outcome, test.qname)), mine, at))
    return out


def run(ruleset: RuleSet, blobs: Blobs, tests: Iterable[RuleTest], now: float | None = None) -> list[Diagnostic]:
    """Every expectation that is not met, as an error at its place."""
    out = []
    for result in results(ruleset, blobs, tests, now):
        for failure in result.failures:
            where = result.test.expect_where.get(failure.key, result.test.where)
            out.append(found(
                "E040", f"test '{result.test.name}': {failure.key} is {failure.got}, expected {failure.expected}",
                where, reason(result),
            ))  # fmt: skip
    return out


def reason(result: Result) -> str:
    """One line that says who decided."""
    outcome, test = result.outcome, result.test
    asked = f"{names.to_text(test.qname)} {codes.qtype_name(test.qtype)} from {test.client}"
    if outcome.rule:
        through = f" through list:{outcome.listed}" if outcome.listed else ""
        return f"{asked}: {outcome.actions[0]} by rule '{outcome.rule.name}'{through} ({outcome.rule.where})"
    if outcome.zone:
        return f"{asked}: answered from our own zone {outcome.zone} ({outcome.where})"
    if outcome.special:
        return f"{asked}: a special-use name, kept at home (RFC 6303, RFC 6761)"
    if outcome.route:
        return f"{asked}: no rule decides; forward '{outcome.route.name}' ({outcome.where})"
    return f"{asked}: {outcome.action} at stage '{outcome.stage}'"


def coverage(ruleset: RuleSet, tested: Iterable[Result]) -> list[str]:
    """The enabled rules that decided in no test, by name."""
    reached = {result.outcome.rule.name for result in tested if result.outcome.rule}
    return [name for name, rule in sorted(ruleset.rules.items()) if rule.enabled and name not in reached]


# --- expectations -----------------------------------------------------------------------------------------------------


def compare(expect: Mapping[str, object], outcome: Outcome, qname: bytes) -> Iterable[Failure]:
    """Each expectation that the outcome does not meet, in the order in which they are written."""
    for key, wanted in expect.items():
        failure = _compare(key, wanted, outcome, qname)
        if failure is not None:
            yield failure


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list | tuple) else (str(value),)


def _listed(values: Sequence[str]) -> str:
    return ", ".join(values) if values else "nothing"


def _compare(key: str, wanted: object, outcome: Outcome, qname: bytes) -> Failure | None:
    if key == "action":
        met, got = wanted in outcome.actions, outcome.actions[0]
        if outcome.action == "servfail":
            got = "no route: no forward entry covers the name"
        return None if met else Failure(key, str(wanted), got)
    if key == "rule":
        rule = outcome.rule.name if outcome.rule else ""
        return None if rule == str(wanted) else Failure(key, f"'{wanted}'", f"'{rule}'" if rule else "none")
    if key == "rcode":
        rcode = "none: no answer at all" if outcome.action == "drop" else outcome.rcode or _UPSTREAM
        return None if rcode == str(wanted).upper() else Failure(key, str(wanted).upper(), rcode)
    if key == "to":
        expected, servers = sorted(map(_server, _texts(wanted))), sorted(outcome.servers)
        return None if expected == servers else Failure(key, _listed(expected), _listed(servers))
    if key == "ttl":
        ttls = sorted({data.ttl for data in outcome.answers or outcome.authorities})
        met = ttls == [wanted]
        return None if met else Failure(key, f"{wanted} s", _listed([f"{ttl} s" for ttl in ttls]))
    if key == "cname":
        key = "CNAME"
    return _compare_data(key, _texts(wanted), outcome, qname)


def _server(text: str) -> str:
    """A server without the port when it is 53, as outcomes show it."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]:")
        return host if port in ("", "53") else text
    return text.removesuffix(":53") if text.count(":") == 1 else text


def _compare_data(key: str, wanted: tuple[str, ...], outcome: Outcome, qname: bytes) -> Failure | None:
    rtype = codes.qtype_number(key)
    found_data = [data for data in outcome.answers if data.rtype == codes.qtype_name(rtype)]
    if rtype == codes.TYPE_CNAME and len(wanted) == 1:
        # One CNAME is the one at the name asked for; the rest of a chain need not be written out.
        found_data = [data for data in found_data if data.owner == names.to_text(qname)]
    expected = set()
    for text in wanted:
        try:
            expected.add(records.rdata(rtype, text, names.ROOT))
        except records.RecordError as error:
            return Failure(key, text, f"not comparable: {error.message}")
    if expected == {data.rdata for data in found_data}:
        return None
    upstream = not found_data and (outcome.route is not None)
    return Failure(key, _listed(wanted), _UPSTREAM if upstream else _listed(_shown(found_data)))


def _shown(found_data: Iterable[Data]) -> list[str]:
    return [data.text for data in found_data]

"""Ask a compiled rule set a question, outside of any process: for tests, and for holding two builds together."""

from __future__ import annotations

import json
import random
import sys

from controller.compiler import compile_table
from controller.ruleset import RuleSet
from dnsd.contract import codes, facts, layout, verdict
from dnsd.contract.answer import Responder
from dnsd.contract.factsview import FactsView
from dnsd.contract.query import question as make_question
from dnsd.contract.table import Table
from dnsd.contract.tableinfo import TableInfo
from tests.contract import rulesets


class Desk:
    """A table with everything that `decide` needs."""

    def __init__(self, rules: RuleSet, *, facts_bytes: bytes | None = None, revision: bytes = b"main@sha1:0") -> None:
        blobs = compile_table(rules)
        self.blobs = blobs
        self.table = Table(blobs.policy, blobs.names)
        self.info = TableInfo(self.table)
        self.view = FactsView(facts_bytes or rulesets.everyone())
        self.chain = verdict.Chain()
        self.v = verdict.Verdict()
        self.out = bytearray(4096)
        self.responder = Responder(self.out, revision)

    def open(self, conditions: frozenset[str | int]) -> None:
        """Let these schedules and expiries hold."""
        gates = bytes(
            int(gate.get("schedule", gate.get("expires")) in conditions)  # type: ignore[comparison-overlap]
            for gate in self.info.gates
        )
        self.view = FactsView(rulesets.everyone(gates=gates))

    def ask(
        self, qname: bytes, qtype: int = 1, client: str = "10.0.0.1", *, limit: int = 1232, qclass: int = 1
    ) -> bytes:
        """The response's bytes; empty for silence and for what needs an upstream. The verdict is in `v`."""
        q = make_question(qname, qtype, facts.packed(client), qclass=qclass)
        action = self.chain.decide(self.table, self.view, q, self.v)
        if action in (codes.ACTION_FORWARD, codes.ACTION_RECURSE, codes.ACTION_ALIAS):
            return b""
        return bytes(self.out[: self.responder.write(self.table, q, self.v, 0, limit)])

    @property
    def rule(self) -> str | None:
        """The deciding rule's name."""
        return self.info.rule(self.v.rule).name if self.v.rule >= 0 else None


def main() -> None:
    """Print digest, verdict and response of random cases: `deciding FIRST COUNT`, one JSON line a rule set."""
    first, count = int(sys.argv[1]), int(sys.argv[2])
    for seed in range(first, first + count):
        rng = random.Random(seed)
        desk = Desk(rulesets.random_rules(rng))
        rows: list[object] = [desk.blobs.digest]
        for _ in range(12):
            question = rulesets.random_question(rng)
            desk.open(question.open)
            wire = desk.ask(question.qname, question.qtype, question.client)
            v = desk.v
            rows.append([v.stage, v.action, v.rule, v.listed, v.key, v.route, v.target, wire.hex()])
        print(json.dumps(rows))


if __name__ == "__main__":
    assert layout.MAJOR == 1
    main()

"""What upstream resolvers say, looked up instead of what authorities say: so that forwarded answers can be validated.

Pure. Each look-up is one forwarded question with DO and CD: the upstream resolver is to hand over signatures and
proofs, and is not asked for its opinion (RFC 4035, section 3.2.2; RFC 6840, section 5.9).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from dnsd.contract import codes, names
from dnsd.resolve import scrub, steps
from dnsd.resolve.budget import Failed
from dnsd.resolve.forwarder import Ask, Reply, forward
from dnsd.resolve.message import FormError
from dnsd.resolve.rrsets import parse
from dnsd.resolve.scrub import Finding
from dnsd.resolve.upstreams import Server, Servers

if TYPE_CHECKING:
    from dnsd.resolve.resolver import _Question

_PROOFS = frozenset((codes.QTYPES["NSEC"], codes.QTYPES["NSEC3"]))


@dataclasses.dataclass(frozen=True, slots=True)
class Upstream:
    """A forward entry's servers, and how they are asked. `validated`: by us, so they hand over the data as it is."""

    servers: Sequence[Server]
    timeout_ms: int
    strategy: str
    known: Servers
    validated: bool = True


class Relay:
    """The look-ups of one question; stands where `iterate.Walk` stands for recursion."""

    def __init__(self, question: _Question, upstream: Upstream) -> None:
        self._question = question
        self._upstream = upstream

    def find(self, sname: bytes, qtype: int, depth: int) -> Generator[Ask, Reply, Finding]:
        """What the upstream resolvers say of a name and type. Remembers it; raises Failed."""
        question, upstream = self._question, self._upstream
        budget = question.budget
        asking = forward(
            sname, qtype, codes.CLASS_IN, True, upstream.validated, upstream.servers, upstream.timeout_ms,
            upstream.known, budget.now_ms, upstream.strategy,
        )  # fmt: skip
        last: Ask | None = None
        rtt_ms = 0
        try:
            ask = next(asking)
            while True:
                left_ms = budget.ask(ask.timeout_ms)
                if last is not None:
                    self._note(last, sname, qtype, depth, rtt_ms, Finding("asked again"))
                began_ms, last = budget.now_ms, ask
                reply = yield dataclasses.replace(ask, timeout_ms=left_ms)
                budget.now_ms = max(budget.now_ms, reply.now_ms)
                rtt_ms = budget.now_ms - began_ms
                if reply.wire is None:
                    self._note(ask, sname, qtype, depth, -1, Finding(reply.error))
                    last = None
                ask = asking.send(reply)
        except StopIteration as stop:
            outcome = stop.value
        if outcome.response is None:
            raise Failed(outcome.ede, outcome.text)
        try:
            message = parse(outcome.response)
        except FormError as error:
            raise Failed(codes.EDE_INVALID_DATA, f"the upstream's answer is malformed: {error}") from None
        finding = scrub.judge(message, names.ROOT, sname, qtype)
        if finding.kind not in (scrub.ANSWER, scrub.ALIAS, scrub.NODATA, scrub.NXDOMAIN):
            # No SOA: unsigned zones answer so, and resolvers about a DS that a referral has shown to be absent.
            if message.rcode != codes.RCODE_NOERROR or message.answer:
                raise Failed(codes.EDE_INVALID_DATA, f"the upstream's answer makes no sense: {finding.text}")
            finding = Finding(scrub.NODATA, authority=tuple(r for r in message.authority if r.rtype in _PROOFS))
        if last is not None:
            self._note(last, sname, qtype, depth, rtt_ms, finding)
        question.remember(sname, qtype, finding)
        return finding

    def _note(self, ask: Ask, sname: bytes, qtype: int, depth: int, rtt_ms: int, finding: Finding) -> None:
        self._question.note(
            steps.ASK, depth, sname, qtype, zone=names.ROOT, server=ask.server, transport=ask.transport, rtt_ms=rtt_ms,
            said=finding.kind, rrsets=finding.rrsets or finding.authority,
        )  # fmt: skip

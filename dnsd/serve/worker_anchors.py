"""A worker's part in following trust anchors: look a zone's keys up for the agent, and validate by what it learned."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from typing import Any

from dnsd.contract import names
from dnsd.resolve import anchors
from dnsd.resolve.anchors import AnchorError, Anchors
from dnsd.resolve.forwarder import Outcome, Reply
from dnsd.resolve.resolver import Resolver
from dnsd.resolve.signatures import TYPE_DNSKEY
from dnsd.serve.upstream import Upstream

_MOST = 40_000  # octets of an answer that fits a control message in base64


def learned(message: dict[str, Any], negative: Iterable[str]) -> Anchors:
    """The anchors of an `anchors` message, with the settings' negative ones; raises AnchorError."""
    lines = message.get("lines")
    if not isinstance(lines, list):
        raise AnchorError("there are no records in the message")
    return anchors.from_texts([str(line) for line in lines], negative)


def probe(
    resolver: Resolver | None, upstream: Upstream, zone: str, now_ms: int, tell: Callable[[dict[str, Any]], None]
) -> None:
    """Ask for a zone's DNSKEY anew, unvalidated: `tell` is called with the response, or why there is none.

    `resolver` None: nothing is resolved here, so nobody needs to know (`idle`).
    """
    if resolver is None:
        tell({"idle": True})
        return
    question = resolver.resolve(names.from_text(zone), TYPE_DNSKEY, True, True, now_ms, renew=True)

    def step(reply: Reply | None) -> None:
        try:
            ask = next(question) if reply is None else question.send(reply)
        except StopIteration as stop:
            tell(_said(stop.value))
            return
        upstream.ask(ask, step)

    step(None)


def _said(outcome: Outcome) -> dict[str, Any]:
    if outcome.response is None:
        return {"error": outcome.text}
    if len(outcome.response) > _MOST:
        return {"error": f"the keys fill {len(outcome.response)} octets"}
    return {"wire": base64.b64encode(outcome.response).decode()}

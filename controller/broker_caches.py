"""An operator's question about the caches of the nodes' workers, put to every node at once.

A node that does not answer in time has a row that says so; the others' answers are not held up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from controller.broker_rows import Node
from dnsd.contract import messages
from dnsd.contract.frames import Frame

_PATIENCE_S = 5.0  # how long a node may take to ask its workers


class CommandRefused(Exception):
    """A command that cannot be done; the operator gets the text."""


async def ask(nodes: Mapping[str, Node], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What the nodes' workers hold for a name, or that they have forgotten it; raises CommandRefused.

    `arguments` as in COMMAND `cache` (schemas/PROTOCOL.md): node, op, name, type, below.
    """
    question = {"op": "show", "name": "", "type": "", "below": False, **arguments}
    wanted = question.pop("node", "")
    chosen = [node for node in nodes.values() if not wanted or node.name == wanted]
    there = [(node.name, node.peer) for node in chosen if node.peer is not None]
    if not there:
        known = ", ".join(sorted(nodes)) or "none has ever been"
        who = f"node {wanted} is not" if wanted else "no node is"
        raise CommandRefused(f"{who} connected (known: {known})")
    answers = await asyncio.gather(
        *(peer.ask(messages.CACHE, question, _PATIENCE_S) for _, peer in there), return_exceptions=True
    )
    rows = []
    for (name, _), answer in zip(there, answers, strict=True):
        if isinstance(answer, Frame):
            rows.append({"node": name, "workers": answer.message["workers"]})
        else:
            rows.append({"node": name, "workers": [], "error": str(answer) or "it did not answer in time"})
    return {"verb": "cache", "nodes": rows}

"""What a table says of names that are met on the way of a recursion: our own answer, or the forward entry to ask.

Plain Python: such names are few. The order of precedence is `Chain.belongs`; nothing is decided here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

from dnsd.contract import codes, names
from dnsd.contract.answer import Responder
from dnsd.contract.factsview import FactsView
from dnsd.contract.query import question
from dnsd.contract.table import Table
from dnsd.contract.tableinfo import RouteInfo, TableInfo
from dnsd.contract.verdict import Chain, Verdict
from dnsd.resolve.realms import Forwarded, Own
from dnsd.resolve.resolver import Resolver

_LARGEST = 65535


class Live(Protocol):
    """Whoever has a table installed (`serve.hotpath.HotPath`, or `Standing`)."""

    table: Any
    view: Any
    info: Any

    def route(self, number: int) -> Any:
        """The route of this number (+ 1)."""


@dataclasses.dataclass(slots=True)
class Standing:
    """A table that stays as it is."""

    table: Table
    view: FactsView
    info: TableInfo

    def route(self, number: int) -> RouteInfo:
        """As `Live`."""
        return self.info.route(number)


class Belongings:
    """Asks the table that is live at the moment. `over` makes (or remembers) the resolver over a route's servers."""

    def __init__(self, live: Live, over: Callable[[Any], Resolver]) -> None:
        self._live = live
        self._over = over
        self._chain = Chain()
        self._responder = Responder(bytearray(_LARGEST + 1))

    def realm(self, client: bytes, name: bytes, qtype: int) -> Own | Forwarded | None:
        """Who is responsible for a name on the way of this client's question (16 octets, IPv4 mapped); no policy."""
        live = self._live
        if live.table is None or live.info is None:
            return None
        q, v, r = question(name, qtype, client, edns=False), Verdict(), self._responder
        v.client_class = live.table.class_of(q)
        if self._chain.belongs(live.table, live.view, q, v):
            if v.action == codes.ACTION_ALIAS:  # its CNAMEs; whoever asked follows the last of them
                nothing = memoryview(b"\x00")
                length = r.relay(
                    live.table, q, v, 0, _LARGEST, nothing, 0, 0, q.question_end - 12, 0, 0, 0, 0, 0, 0, 0, 0, 0
                )
            else:
                length = r.write(live.table, q, v, 0, _LARGEST)
            zone = live.info.zone(v.zone)[0] if v.zone >= 0 else name
            return Own(bytes(memoryview(r.out_buffer)[:length]), names.to_text(zone))  # type: ignore[arg-type]
        route = live.route(v.route) if v.route else None
        if route is None or route.kind == "recurse":
            return None
        return Forwarded(self._over(route), route.dnssec, route.name)

"""The page's question "why this answer?", put to the table that is live on this machine.

The table is opened once and kept until another one becomes active.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable

from controller import explain, live
from controller.domains import DomainError
from controller.domains import name as domain_name
from dnsd.contract import codes
from dnsd.contract.settings import Settings


class Why:
    """Call it with name, type and client as typed; returns lines of text, raises ValueError with a sentence."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.clock = clock
        self._stamp: tuple[int, ...] = ()
        self._live: live.Live | None = None

    def table(self) -> live.Live:
        """The live table; raises LiveError."""
        stamp = live.stamp(self.settings)
        if self._live is None or stamp != self._stamp:
            self._live, self._stamp = live.read(self.settings), stamp
        return self._live

    def __call__(self, name: str, qtype: str, client: str) -> str:
        try:
            qname = b"\0" if name == "." else domain_name(name)
        except DomainError as error:
            raise ValueError(f"{error.message}; {error.help}" if error.help else error.message) from None
        try:
            number = codes.qtype_number(qtype)
        except KeyError:
            raise ValueError(f"{qtype!r} is not a query type; write A, AAAA, MX … or TYPE65280") from None
        try:
            address = ipaddress.ip_address(client or "127.0.0.1")
        except ValueError:
            raise ValueError(f"{client!r} is not an address") from None
        try:
            found = self.table()
        except live.LiveError as error:
            raise ValueError(str(error)) from None
        return explain.to_text(explain.explain(
            found.table, qname, number, address, self.clock(), revision=found.revision, allow=self.settings.allow,
            special_use=self.settings.resolver.special_use, zone=explain.time_zone(found.table),
        ))  # fmt: skip

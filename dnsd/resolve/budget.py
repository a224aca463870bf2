# cython: wraparound=True, annotation_typing=False
"""What one client's question may cost, and how it ends when that is spent."""

from __future__ import annotations

from dnsd.contract import codes

ASKS = 100  # to all servers together
DEPTH = 8  # name servers whose names have to be found to find name servers
GLUELESS = 5  # names of one delegation that are looked up (NXNSAttack: 2 to 5 are enough, Afek et al. 2020)
ADDRESS_LOOKUPS = 24  # in one question
DEADLINE_MS = 4000  # a stub resolver asks again after 5 s (resolv.conf(5)): by then it is to know


class Failed(Exception):
    """A name cannot be resolved; `ede` (RFC 8914) and `text` tell the client why."""

    def __init__(self, ede: int, text: str) -> None:
        super().__init__(text)
        self.ede = ede
        self.text = text


class Spent(Failed):
    """The whole question has cost too much: nothing more is tried for it."""


class Budget:
    """Counts what a question costs. `now_ms` is the monotonic time that it has come to."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.deadline_ms = now_ms + DEADLINE_MS
        self.asks = 0
        self.address_lookups = 0

    def ask(self, wanted_ms: int) -> int:
        """Count one ask; returns how long it may take; raises Spent."""
        if self.asks >= ASKS:
            raise Spent(codes.EDE_OTHER, f"not resolved after {ASKS} questions to servers")
        left_ms = self.deadline_ms - self.now_ms
        if left_ms <= 0:
            raise Spent(codes.EDE_NO_REACHABLE_AUTHORITY, f"not resolved within {DEADLINE_MS // 1000} s")
        self.asks += 1
        return min(wanted_ms, left_ms)

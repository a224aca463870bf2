"""Which upstream servers live, how fast they are, and in which order a forward entry's strategy asks them.

Pure: time and chance are arguments. A server that was silent or unreachable is asked last, and by no client while
another one lives: probes find out when it is back (`due`), after 1 s, then ever more rarely up to a minute.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

Server = tuple[str, int]  # address and port

FAILOVER = "failover"  # the first that lives, in the order written
FASTEST = "fastest"  # the one with the smallest round-trip time; now and then another, to know its time
RACE = "race"  # several at once, the first answer holds
SPREAD = "spread"  # one of them at random

RACERS = 4  # so many at once, the fastest ones
MOST = 8  # servers among which a first try is made

_PENALTY_MS = 1000  # after the first failure; doubles with each further one
_PENALTY_LIMIT_MS = 60_000
_PLAIN_MS = 15 * 60_000  # how long we remember that a server does not speak EDNS
_WANTED_MS = 60_000  # who has not been wanted for so long is not probed
_REMEMBERED = 4096
_SMOOTH = 8


@dataclasses.dataclass(slots=True)
class Standing:
    """What is known about one server; times are monotonic milliseconds. `rtt_ms` 0: not known."""

    failures: int = 0
    until_ms: int = 0  # no further failure counts, and no probe is sent, before this
    plain_until_ms: int = 0  # asked without EDNS before this
    rtt_ms: float = 0.0
    wanted_ms: int = 0
    probing: bool = False


class Servers:
    """What is known about upstream servers; one per worker, shared by all its questions.

    `chance(n)` is a random number below n.
    """

    def __init__(self, chance: Callable[[int], int] = lambda n: 0) -> None:
        self._chance = chance
        self._standing: dict[Server, Standing] = {}

    def order(self, servers: Sequence[Server], now_ms: int, strategy: str = FAILOVER) -> list[Server]:
        """The order in which to try: as the strategy has it, but servers that failed lately come last."""
        living, ill = self._sorted(servers, now_ms)
        if strategy == SPREAD and len(living) > 1:
            turn = self._chance(len(living))
            living = living[turn:] + living[:turn]
        elif strategy in (FASTEST, RACE):
            living.sort(key=self.rtt_ms)
        return living + ill

    def first(self, servers: Sequence[Server], now_ms: int, strategy: str = FAILOVER) -> list[Server]:
        """Among whom the first try is made, the best in front: those who live, or who has been ill least long."""
        living, ill = self._sorted(servers, now_ms)
        if not living:
            return ill[:1]
        if strategy == FAILOVER:
            return living[:1]
        if strategy in (FASTEST, RACE):
            living.sort(key=self.rtt_ms)
        return living[: RACERS if strategy == RACE else MOST]

    def _sorted(self, servers: Sequence[Server], now_ms: int) -> tuple[list[Server], list[Server]]:
        living: list[Server] = []
        ill: list[tuple[int, int, Server]] = []
        for place, server in enumerate(servers):
            standing = self._standing.get(server)
            if standing is None or standing.failures == 0:
                living.append(server)
            else:
                standing.wanted_ms = now_ms
                ill.append((standing.until_ms, place, server))
        return living, [server for _, _, server in sorted(ill)]

    def due(self, now_ms: int) -> list[Server]:
        """Who is to be probed now; `probed` has to follow for each."""
        found = []
        for server, standing in self._standing.items():
            wanted = now_ms - standing.wanted_ms <= _WANTED_MS
            if standing.failures and now_ms >= standing.until_ms and wanted and not standing.probing:
                standing.probing = True
                found.append(server)
        return found

    def probed(self, server: Server, answered: bool, now_ms: int) -> None:
        """What became of a probe; whatever a server says, it lives."""
        self._of(server).probing = False
        if answered:
            self.answered(server)
        else:
            self.failed(server, now_ms)

    def doubtful(self, server: Server) -> bool:
        """Whether the server's last try was a failure."""
        standing = self._standing.get(server)
        return standing is not None and standing.failures > 0

    def failed(self, server: Server, now_ms: int) -> None:
        """The server was silent or unreachable; it is asked last until it has answered.

        Questions that were under way together count once.
        """
        standing = self._of(server)
        if standing.failures and now_ms < standing.until_ms:
            return
        standing.failures = min(standing.failures + 1, 16)
        standing.until_ms = now_ms + min(_PENALTY_MS << (standing.failures - 1), _PENALTY_LIMIT_MS)
        standing.wanted_ms = now_ms

    def answered(self, server: Server, took_ms: int = -1) -> None:
        """The server lives; it took so long to answer (-1: not known)."""
        standing = self._of(server) if took_ms >= 0 else self._standing.get(server)
        if standing is None:
            return
        standing.failures = 0
        if took_ms >= 0:
            before = standing.rtt_ms
            standing.rtt_ms = before + (took_ms - before) / _SMOOTH if before else max(0.01, float(took_ms))

    def measured(self, times: Iterable[tuple[Server, float]]) -> None:
        """Smoothed round-trip times that somebody else has measured, in milliseconds."""
        for server, rtt_ms in times:
            self._of(server).rtt_ms = rtt_ms

    def rtt_ms(self, server: Server) -> float:
        """The smoothed round-trip time; 0 when it is not known, so that an unknown server is tried soon."""
        standing = self._standing.get(server)
        return standing.rtt_ms if standing is not None else 0.0

    def plain(self, server: Server, now_ms: int) -> bool:
        """Whether the server is known not to understand EDNS."""
        standing = self._standing.get(server)
        return standing is not None and now_ms < standing.plain_until_ms

    def is_plain(self, server: Server, now_ms: int) -> None:
        """Remember for a quarter of an hour that the server answers only without EDNS."""
        self._of(server).plain_until_ms = now_ms + _PLAIN_MS

    def standings(self) -> list[tuple[Server, Standing]]:
        """Everybody something is known of."""
        return list(self._standing.items())

    def _of(self, server: Server) -> Standing:
        standing = self._standing.get(server)
        if standing is None:
            if len(self._standing) >= _REMEMBERED:
                self._standing.clear()  # routes name few servers; this many means that they changed often
            standing = self._standing[server] = Standing()
        return standing

# cython: wraparound=True, annotation_typing=False
"""What is known about authoritative servers: how fast, how reliable, what they do not understand.

Pure: time is handed in (monotonic milliseconds), chance too. One per worker, bounded; what is forgotten is only learnt
again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from dnsd.resolve.upstreams import Server

# Chance as an argument: a number from 0 up to, but not including, the limit.
Chance = Callable[[int], int]

UNKNOWN_MS = 400  # patience with a server never asked before
SHORTEST_MS = 120
LONGEST_MS = 3000
_GUESS_MS = 150  # an unknown server is taken for one of 0 to this: so each is tried soon
_EXPLORE = 20  # one question in so many goes to any server, so that a server that has become fast is noticed
_DEAD_AFTER = 3  # timeouts in a row; from then on the server rests
_REST_MS = 2000  # after that many; doubles with each further one
_REST_LIMIT_MS = 120_000
_PECULIAR_MS = 15 * 60_000  # how long EDNS, case and lameness are remembered
_FAMILY_MS = 60_000
_REMEMBERED = 20_000


@dataclasses.dataclass
class _Standing:
    srtt_ms: float = -1.0  # never measured
    variance_ms: float = 0.0
    timeouts: int = 0  # in a row
    rests_until_ms: int = 0
    plain_until_ms: int = 0  # does not speak EDNS
    caseless_until_ms: int = 0  # answers with the question's name in another case
    tcp_until_ms: int = 0  # cannot be heard over UDP


class Infra:
    """The memory of servers; all times are monotonic milliseconds."""

    def __init__(self, limit: int = _REMEMBERED) -> None:
        self._limit = limit
        self._standing: dict[Server, _Standing] = {}
        self._lame: dict[tuple[Server, bytes], int] = {}
        self._unreachable = {4: 0, 6: 0}  # in a row, by family
        self._family_until_ms = {4: 0, 6: 0}

    def choose(self, servers: Sequence[Server], chance: Chance, now_ms: int) -> Server:
        """One of these (at least one): mostly the fastest; resting servers only when there is nobody else."""
        awake = [server for server in servers if not self.rests(server, now_ms)] or list(servers)
        if len(awake) == 1:
            return awake[0]
        if chance(_EXPLORE) == 0:
            return awake[chance(len(awake))]
        best, least = awake[0], 1e9
        for server in awake:
            standing = self._standing.get(server)
            if standing is None or standing.srtt_ms < 0:
                cost = float(chance(_GUESS_MS))
            else:
                cost = standing.srtt_ms
            if standing is not None and standing.timeouts:
                cost += UNKNOWN_MS * standing.timeouts
            if cost < least:
                best, least = server, cost
        return best

    def rests(self, server: Server, now_ms: int) -> bool:
        """Whether the server was silent several times lately, or nothing of its family can be reached."""
        if now_ms < self._family_until_ms[_family(server)]:
            return True
        standing = self._standing.get(server)
        return standing is not None and now_ms < standing.rests_until_ms

    def patience_ms(self, server: Server) -> int:
        """How long to wait for this server (RFC 6298, doubled with each timeout)."""
        standing = self._standing.get(server)
        if standing is None:
            return UNKNOWN_MS
        if standing.srtt_ms < 0:
            patience = float(UNKNOWN_MS)
        else:
            patience = standing.srtt_ms + max(4 * standing.variance_ms, 60.0)
        return int(min(max(patience, SHORTEST_MS) * (1 << min(standing.timeouts, 4)), LONGEST_MS))

    def srtt_ms(self, server: Server) -> float | None:
        """The smoothed round-trip time; None when never measured."""
        standing = self._standing.get(server)
        return None if standing is None or standing.srtt_ms < 0 else standing.srtt_ms

    def answered(self, server: Server, rtt_ms: int) -> None:
        """The server answered after this time."""
        standing = self._of(server)
        standing.timeouts = 0
        standing.rests_until_ms = 0
        self._unreachable[_family(server)] = 0
        self._family_until_ms[_family(server)] = 0
        if standing.srtt_ms < 0:
            standing.srtt_ms, standing.variance_ms = float(rtt_ms), rtt_ms / 2
        else:
            standing.variance_ms += (abs(standing.srtt_ms - rtt_ms) - standing.variance_ms) / 4
            standing.srtt_ms += (rtt_ms - standing.srtt_ms) / 8

    def silent(self, server: Server, now_ms: int) -> None:
        """The server did not answer in time."""
        standing = self._of(server)
        standing.timeouts += 1
        over = standing.timeouts - _DEAD_AFTER
        if over >= 0:
            standing.rests_until_ms = now_ms + min(_REST_MS << min(over, 16), _REST_LIMIT_MS)

    def unreachable(self, server: Server, now_ms: int) -> None:
        """Nothing could be sent there. Several in a row with no answer between: the whole family rests."""
        family = _family(server)
        self._unreachable[family] += 1
        other = 6 if family == 4 else 4
        if self._unreachable[family] >= _DEAD_AFTER and self._family_until_ms[other] <= now_ms:
            self._family_until_ms[family] = now_ms + _FAMILY_MS
        standing = self._of(server)
        standing.timeouts += 1
        standing.rests_until_ms = now_ms + min(_REST_MS << min(standing.timeouts, 16), _REST_LIMIT_MS)

    # --- peculiarities --------------------------------------------------------------------------------------------

    def speaks_edns(self, server: Server, now_ms: int) -> bool:
        """Whether to ask with EDNS."""
        standing = self._standing.get(server)
        return standing is None or now_ms >= standing.plain_until_ms

    def is_plain(self, server: Server, now_ms: int) -> None:
        """The same question was understood only without EDNS."""
        self._of(server).plain_until_ms = now_ms + _PECULIAR_MS

    def keeps_case(self, server: Server, now_ms: int) -> bool:
        """Whether the server answers with the question's own case."""
        standing = self._standing.get(server)
        return standing is None or now_ms >= standing.caseless_until_ms

    def is_caseless(self, server: Server, now_ms: int) -> None:
        """The server (over a connection, so nobody forged it) answered in another case."""
        self._of(server).caseless_until_ms = now_ms + _PECULIAR_MS

    def wants_tcp(self, server: Server, now_ms: int) -> bool:
        """Whether UDP to this server is known to be of no use."""
        standing = self._standing.get(server)
        return standing is not None and now_ms < standing.tcp_until_ms

    def needs_tcp(self, server: Server, now_ms: int) -> None:
        """UDP was of no use, TCP was."""
        self._of(server).tcp_until_ms = now_ms + _PECULIAR_MS

    def udp_again(self, server: Server) -> None:
        """TCP was of no use either."""
        standing = self._standing.get(server)
        if standing is not None:
            standing.tcp_until_ms = 0

    def is_peculiar(self, server: Server, now_ms: int) -> bool:
        """Whether the server cannot be asked like any other: without EDNS, in lower case, or over TCP only."""
        standing = self._standing.get(server)
        if standing is None:
            return False
        return now_ms < max(standing.plain_until_ms, standing.caseless_until_ms, standing.tcp_until_ms)

    @property
    def knows_lame(self) -> bool:
        """Whether any server is known to be lame for some zone."""
        return bool(self._lame)

    def is_lame(self, server: Server, zone: bytes, now_ms: int) -> bool:
        """Whether the server said lately that it does not serve the zone it is named for."""
        until_ms = self._lame.get((server, zone))
        return until_ms is not None and now_ms < until_ms

    def lame(self, server: Server, zone: bytes, now_ms: int) -> None:
        """The server does not serve the zone."""
        if len(self._lame) >= self._limit:
            self._lame.clear()
        self._lame[server, zone] = now_ms + _PECULIAR_MS

    def serves(self, server: Server, zone: bytes) -> None:
        """The server does serve the zone, whatever it said before."""
        if self._lame:
            self._lame.pop((server, zone), None)

    def _of(self, server: Server) -> _Standing:
        standing = self._standing.get(server)
        if standing is None:
            if len(self._standing) >= self._limit:
                for old in list(self._standing)[: self._limit // 4]:  # the oldest quarter
                    del self._standing[old]
            standing = self._standing[server] = _Standing()
        return standing


def _family(server: Server) -> int:
    return 6 if ":" in server[0] else 4

"""What is remembered of servers: speed, silence, peculiarities."""

from __future__ import annotations

import random

from dnsd.resolve.infra import Infra

FAST, SLOW, OTHER = ("192.0.2.1", 53), ("192.0.2.2", 53), ("192.0.2.3", 53)
SIX = [(f"2001:db8::{number}", 53) for number in range(1, 6)]


def _shares(infra: Infra, servers: list[tuple[str, int]], now_ms: int = 0) -> dict[tuple[str, int], int]:
    chance = random.Random(1)
    counts = dict.fromkeys(servers, 0)
    for _ in range(2000):
        counts[infra.choose(servers, chance.randrange, now_ms)] += 1
    return counts


def test_the_fastest_is_chosen_and_the_others_explored() -> None:
    """Most questions go to the fastest server, a few to each other one."""
    infra = Infra()
    for _ in range(5):
        infra.answered(FAST, 10)
        infra.answered(SLOW, 300)
    shares = _shares(infra, [SLOW, FAST])
    assert shares[FAST] > 1800 and 10 < shares[SLOW] < 100


def test_unknown_servers_are_tried() -> None:
    """A server never asked is tried soon although another is known to be quick enough."""
    infra = Infra()
    infra.answered(FAST, 60)
    shares = _shares(infra, [FAST, OTHER])
    assert shares[OTHER] > 500


def test_patience_follows_what_was_measured() -> None:
    """Unknown: 400 ms; a quick server gets less, doubled with each timeout, never more than 3 s."""
    infra = Infra()
    assert infra.patience_ms(FAST) == 400
    for _ in range(20):
        infra.answered(FAST, 20)
    assert infra.patience_ms(FAST) == 120
    infra.silent(FAST, 0)
    assert infra.patience_ms(FAST) == 240
    for _ in range(10):
        infra.silent(FAST, 0)
    assert infra.patience_ms(FAST) <= 3000


def test_silent_servers_rest() -> None:
    """After three timeouts a server rests, longer each time; an answer wakes it."""
    infra = Infra()
    for _ in range(3):
        infra.silent(FAST, 0)
    assert infra.rests(FAST, 1999) and not infra.rests(FAST, 2000)
    infra.silent(FAST, 2000)
    assert infra.rests(FAST, 5999)
    assert _shares(infra, [FAST, SLOW], 3000)[FAST] == 0
    infra.answered(FAST, 10)
    assert not infra.rests(FAST, 3000)


def test_a_family_that_leads_nowhere_rests() -> None:
    """Three unreachable IPv6 servers in a row: IPv6 rests for a minute, unless IPv4 does too."""
    infra = Infra()
    for server in SIX[:3]:
        infra.unreachable(server, 0)
    assert infra.rests(SIX[4], 59_999) and not infra.rests(SIX[4], 60_000) and not infra.rests(FAST, 0)
    for server in (FAST, SLOW, OTHER):
        infra.unreachable(server, 0)
    assert not infra.rests(("192.0.2.9", 53), 0)


def test_peculiarities_are_forgotten_after_a_while() -> None:
    """EDNS, case, TCP and lameness are remembered for a quarter of an hour."""
    infra = Infra()
    infra.is_plain(FAST, 0)
    infra.is_caseless(FAST, 0)
    infra.needs_tcp(FAST, 0)
    infra.lame(FAST, b"\x04test\x00", 0)
    soon, later = 60_000, 16 * 60_000
    assert not infra.speaks_edns(FAST, soon) and infra.speaks_edns(FAST, later)
    assert not infra.keeps_case(FAST, soon) and infra.keeps_case(FAST, later)
    assert infra.wants_tcp(FAST, soon) and not infra.wants_tcp(FAST, later)
    assert infra.is_lame(FAST, b"\x04test\x00", soon) and not infra.is_lame(FAST, b"\x00", soon)
    assert not infra.is_lame(FAST, b"\x04test\x00", later)
    infra.serves(FAST, b"\x04test\x00")
    assert not infra.is_lame(FAST, b"\x04test\x00", soon)


def test_it_stays_small() -> None:
    """However many servers there are, only so many are remembered."""
    infra = Infra(limit=100)
    for number in range(1000):
        infra.answered((f"10.0.{number // 250}.{number % 250}", 53), 10)
        infra.lame((f"10.0.{number // 250}.{number % 250}", 53), b"\x00", 0)
    assert len(infra._standing) <= 100 and len(infra._lame) <= 100

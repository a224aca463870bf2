"""Health and order of upstream servers: time and chance as arguments."""

from __future__ import annotations

from dnsd.resolve.upstreams import FAILOVER, FASTEST, RACE, RACERS, SPREAD, Servers

A, B, C = ("192.0.2.1", 53), ("192.0.2.2", 53), ("2001:db8::3", 5353)


def test_an_ill_server_is_last_until_it_has_answered() -> None:
    """No client is spent on finding out whether a server is back: the penalty's end brings a probe, not a question."""
    known = Servers()
    known.failed(A, 0)
    assert known.order([A, B], 500) == [B, A] == known.order([A, B], 5000)
    assert known.first([A, B], 5000) == [B] and known.doubtful(A)
    known.answered(A)
    assert known.order([A, B], 5001) == [A, B] and known.first([A, B], 5001) == [A]


def test_probes_come_after_the_penalty_one_at_a_time_and_ever_more_rarely() -> None:
    """1 s, 2 s, 4 s … up to a minute, as long as anybody wants the server."""
    known = Servers()
    known.failed(A, 0)
    assert known.due(999) == [] and known.due(1000) == [A] and known.due(1001) == []
    known.probed(A, False, 3000)
    assert known.due(4999) == [] and known.due(5000) == [A]
    now = 5000
    for _ in range(20):
        known.probed(A, False, now)
        known.order([A, B], now + 59_999)
        assert known.due(now + 60_000) == [A]
        now += 60_000
    known.probed(A, True, now)
    assert known.order([A, B], now) == [A, B] and known.due(now + 100_000) == []


def test_who_is_not_wanted_is_not_probed() -> None:
    """A server of a rule that is gone, or of a house that sleeps, gets no packets from us."""
    known = Servers()
    known.failed(A, 0)
    assert known.due(60_001) == []
    known.order([A, B], 60_002)
    assert known.due(60_003) == [A]


def test_questions_that_fail_together_count_once() -> None:
    """A hundred clients that waited for the same dead server do not make it ill for a minute."""
    known = Servers()
    for moment in range(100):
        known.failed(A, moment)
    assert known.due(1000) == [A]


def test_the_fastest_comes_first_and_the_unknown_before() -> None:
    """Ordered by smoothed round-trip time; who was never asked is tried soon."""
    known = Servers()
    known.answered(A, 40)
    known.answered(B, 10)
    assert known.order([A, B, C], 0, FASTEST) == [C, B, A]
    known.answered(C, 20)
    assert known.order([A, B, C], 0, FASTEST) == [B, C, A] == known.first([A, B, C], 0, FASTEST)
    for _ in range(40):
        known.answered(B, 90)
    assert known.order([A, B, C], 0, FASTEST) == [C, A, B]
    known.failed(C, 0)
    assert known.order([A, B, C], 0, FASTEST) == [A, B, C] and known.first([A, B, C], 0, FASTEST) == [A, B]


def test_spread_begins_anywhere_and_failover_where_it_is_written() -> None:
    """`spread` turns the order by chance; ill servers stay last."""
    known = Servers(lambda n: n - 1)
    assert known.order([A, B, C], 0, SPREAD) == [C, A, B] and known.order([A, B, C], 0, FAILOVER) == [A, B, C]
    known.failed(A, 0)
    assert known.order([A, B, C], 0, SPREAD) == [C, B, A] and known.first([A, B, C], 0, SPREAD) == [B, C]


def test_a_race_has_so_many_runners_and_somebody_runs_when_all_are_ill() -> None:
    """Four at most, the fastest; with nobody alive the one that has been ill least long."""
    known = Servers()
    servers = [(f"192.0.2.{i}", 53) for i in range(10)]
    for i, server in enumerate(servers):
        known.answered(server, 100 - i)
    assert known.first(servers, 0, RACE) == servers[:-RACERS - 1:-1]
    known.failed(B, 5)
    known.failed(A, 0)
    assert known.first([A, B], 6, RACE) == [A]

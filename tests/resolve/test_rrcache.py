"""The memory of RRsets: who replaces whom, how long things live, and that it stays within its bounds."""

from __future__ import annotations

import struct

import pytest

from dnsd.contract import codes, names
from dnsd.resolve import rrcache
from dnsd.resolve.rrcache import Delegation, Denial, RRCache
from dnsd.resolve.rrsets import RRset

WWW = names.from_text("www.test")
TEST = names.from_text("test")


def a(ttl: int = 100, address: bytes = b"\xc0\x00\x02\x01", owner: bytes = WWW) -> RRset:
    return RRset(owner, codes.TYPE_A, ttl, (address,))


def soa(ttl: int = 600, minimum: int = 60) -> RRset:
    rdata = b"\x02ns\x04test\x00\x04host\x04test\x00" + struct.pack("!IIIII", 1, 2, 3, 4, minimum)
    return RRset(TEST, codes.TYPE_SOA, ttl, (rdata,))


def ns(ttl: int = 100) -> RRset:
    return RRset(TEST, codes.TYPE_NS, ttl, (b"\x02ns\x04test\x00",))


@pytest.fixture
def cache() -> RRCache:
    made = RRCache(1 << 20)
    made.clock(1000)
    return made


def test_ttls_run_down_by_the_wall_clock(cache: RRCache) -> None:
    """What is left of a TTL is told, and when nothing is left nothing is."""
    cache.put(a(100), rrcache.AUTHORITATIVE)
    cache.clock(1099)
    found = cache.get(WWW, 1)
    assert found is not None and found.ttl == 1
    cache.clock(1100)
    assert cache.get(WWW, 1) is None and len(cache) == 0


def test_a_clock_that_steps_back_makes_nothing_eternal(cache: RRCache) -> None:
    """After a step back everything lives for its TTL from now, also what is not looked at meanwhile."""
    cache.put(a(100), rrcache.AUTHORITATIVE)
    cache.put_delegation(Delegation(TEST, (), (), 1000, 100))
    cache.clock(10)
    cache.clock(110)
    assert cache.get(WWW, 1) is None and cache.delegation(WWW) is None


def test_lower_ranks_never_replace_higher(cache: RRCache) -> None:
    """RFC 2181, section 5.4.1: what is more trustworthy stays; what is as trustworthy and newer wins."""
    assert cache.put(a(100), rrcache.AUTHORITATIVE)
    assert not cache.put(a(1000, b"\x00" * 4), rrcache.ANSWER)
    assert cache.put(a(50, b"\x01" * 4), rrcache.AUTHORITATIVE)
    found = cache.get(WWW, 1)
    assert found is not None and found.rdatas == (b"\x01" * 4,) and found.ttl == 50


def test_what_came_beside_an_answer_is_no_answer(cache: RRCache) -> None:
    """Glue and authority sections are never told to clients."""
    cache.put(a(), rrcache.ADDITIONAL)
    assert cache.get(WWW, 1) is None
    assert cache.get(WWW, 1, rank=rrcache.ADDITIONAL) is not None


def test_a_zone_does_not_prolong_itself(cache: RRCache) -> None:
    """An NS RRset of the zone's own does not live longer for being heard again (ghost domains)."""
    cache.put(ns(100), rrcache.AUTHORITATIVE)
    cache.clock(1090)
    cache.put(ns(86400), rrcache.AUTHORITATIVE)
    found = cache.get(TEST, 2)
    assert found is not None and found.ttl == 10


def test_signatures_are_not_missed(cache: RRCache) -> None:
    """Who wants signatures is not told what was asked for without; signed data is not replaced by unsigned."""
    cache.put(a(), rrcache.AUTHORITATIVE)
    assert cache.get(WWW, 1, with_do=True) is None
    assert cache.put(a(), rrcache.AUTHORITATIVE, with_do=True)
    assert not cache.put(a(), rrcache.AUTHORITATIVE, with_do=False)
    assert cache.get(WWW, 1, with_do=True) is not None


def test_denials_live_as_the_soa_says(cache: RRCache) -> None:
    """RFC 2308: the lower of the SOA's TTL and MINIMUM, at most three hours; without SOA not at all."""
    cache.deny(WWW, 1, Denial(0, (soa(600, 60),)))
    found = cache.denied(WWW, 1)
    assert found is not None and found.authority[0].ttl == 60
    assert cache.denied(WWW, 28) is None
    cache.clock(1060)
    assert cache.denied(WWW, 1) is None
    cache.deny(WWW, 1, Denial(0, ()))
    assert cache.denied(WWW, 1) is None
    cache.deny(WWW, 1, Denial(3, (soa(10**6, 10**6),)))
    cache.clock(1060 + rrcache.NEGATIVE_LIMIT_S)
    assert cache.denied(WWW, 1) is None


def test_nothing_exists_below_what_does_not_exist(cache: RRCache) -> None:
    """RFC 8020: NXDOMAIN denies every type and every name below; NODATA does not."""
    cache.deny(WWW, 1, Denial(3, (soa(),)))
    assert cache.denied(names.from_text("a.b.www.test"), 16) is not None
    assert cache.denied(TEST, 16) is None
    cache.deny(TEST, 1, Denial(0, (soa(),)))
    assert cache.denied(names.from_text("other.test"), 1) is None


def test_the_deepest_cut_is_found(cache: RRCache) -> None:
    """The nearest delegation at or above a name; one that is over is forgotten; root hints never end."""
    cache.put_delegation(Delegation(names.ROOT, (), (), 0, -1))
    cache.put_delegation(Delegation(TEST, (), (), 1000, 100))
    cut = cache.delegation(WWW)
    assert cut is not None and cut.zone == TEST
    cache.clock(1100)
    cut = cache.delegation(WWW)
    assert cut is not None and cut.zone == names.ROOT


def test_failures_are_remembered_longer_and_longer(cache: RRCache) -> None:
    """RFC 9520: 5 s, doubling while it goes on, at most 5 min, forgotten with a success."""
    now, lasted = 0, []
    for _ in range(9):
        cache.fail(WWW, 1, 22, "nobody answers", now)
        begun = now
        while cache.failed(WWW, 1, now) is not None:
            now += 1000
        lasted.append((now - begun) // 1000)
    assert lasted == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    cache.fail(WWW, 1, 22, "nobody answers", now)
    cache.succeeded(WWW, 1)
    assert cache.failed(WWW, 1, now) is None


def test_ttl_bounds_of_the_settings() -> None:
    """min_ttl and max_ttl hold."""
    cache = RRCache(1 << 20, min_ttl=30, max_ttl=60)
    cache.put(a(1), rrcache.AUTHORITATIVE)
    cache.put(RRset(WWW, 28, 10**6, (bytes(16),)), rrcache.AUTHORITATIVE)
    low, high = cache.get(WWW, 1), cache.get(WWW, 28)
    assert low is not None and high is not None and (low.ttl, high.ttl) == (30, 60)


def test_it_stays_within_its_size() -> None:
    """However much is put in, the memory used stays below the limit, and the newest is there."""
    cache = RRCache(1 << 16)
    for number in range(5000):
        owner = names.from_text(f"n{number}.test")
        cache.put(a(owner=owner), rrcache.AUTHORITATIVE)
        cache.deny(names.from_text(f"d{number}.test"), 1, Denial(3, (soa(),)))
        cache.put_delegation(Delegation(owner, (), (), 0, 100))
        cache.fail(owner, 1, 0, "", 0)
    assert cache.used_bytes <= 1 << 16 and len(cache) < 200
    assert cache.get(names.from_text("n4999.test"), 1) is not None
    cache.put(RRset(WWW, 16, 100, tuple(bytes(200) for _ in range(1000))), rrcache.AUTHORITATIVE)
    assert cache.used_bytes <= 1 << 16


def test_flush_forgets_names(cache: RRCache) -> None:
    """Everything about the names that are meant goes, nothing else."""
    cache.put(a(), rrcache.AUTHORITATIVE)
    cache.put(a(owner=TEST), rrcache.AUTHORITATIVE)
    cache.fail(WWW, 16, 0, "", 0)
    assert cache.flush(lambda name: name == WWW) == 2
    assert cache.get(WWW, 1) is None and cache.get(TEST, 1) is not None

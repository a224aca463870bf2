"""The cache: bounded, keyed by everything that changes an answer, forgetting the oldest, safe to take over."""

from __future__ import annotations

import random

import dns.message
import dns.rrset

from dnsd.contract import names
from dnsd.contract.query import question
from dnsd.resolve.cache import Cache
from dnsd.resolve.message import Response, read

NOW = 1_700_000_000


def response(qname: str, *records: str, rcode: int = 0) -> Response:
    """An upstream's answer."""
    query = dns.message.make_query(qname, "A")
    message = dns.message.make_response(query)
    message.set_rcode(rcode)
    for text in records:
        owner, ttl, rtype, rdata = text.split(" ", 3)
        where = message.authority if rtype == "SOA" else message.answer
        where.append(dns.rrset.from_text(owner, int(ttl), "IN", rtype, rdata))
    return read(message.to_wire())


def hashed(name: bytes) -> int:
    """The hash that the query path would have."""
    q = question(name, 1, bytes(16))
    q.hash()
    return q.hash_policy[0]


def put(cache: Cache, text: str, qtype: int = 1, bits: int = 0, route: int = 1, ttl: int = 300, size: int = 1) -> bool:
    """Store an answer of `size` addresses."""
    name = names.from_text(text)
    answer = response(text, *(f"{text}. 300 A 192.0.2.{i % 250 + 1}" for i in range(size)))
    return cache.store(name, hashed(name), qtype, bits, route, answer, NOW, ttl)


def get(cache: Cache, text: str, qtype: int = 1, bits: int = 0, route: int = 1, now: int = NOW) -> bool:
    """Whether an answer is found."""
    name = names.from_text(text)
    return cache.find(memoryview(name), len(name), hashed(name), qtype, bits, route, now) == 1


def test_key() -> None:
    """qname, qtype, DO, CD and route each make another answer."""
    cache = Cache(bytearray(1 << 17))
    put(cache, "a.example")

    assert get(cache, "a.example")
    assert not get(cache, "b.example")
    assert not get(cache, "a.example", qtype=28)
    assert not get(cache, "a.example", bits=1)
    assert not get(cache, "a.example", bits=2)
    assert not get(cache, "a.example", route=2)


def test_lifetime() -> None:
    """An answer is gone when its TTL is over, ages by the wall clock, and never outlives it when the clock steps back."""
    cache = Cache(bytearray(1 << 17))
    put(cache, "a.example", ttl=60)

    assert get(cache, "a.example", now=NOW + 59)
    assert cache.age == 59
    assert not get(cache, "a.example", now=NOW + 60)
    assert get(cache, "a.example", now=NOW - 5000)
    assert cache.age == 0


def test_stores_replace() -> None:
    """A newer answer takes the older one's place."""
    cache = Cache(bytearray(1 << 17))
    put(cache, "a.example", ttl=60)
    put(cache, "a.example", ttl=600)

    assert get(cache, "a.example", now=NOW + 599)
    (at,) = cache.entries(names.from_text("a.example"))
    assert cache.drop(at)
    assert not get(cache, "a.example")


def test_bounded_and_oldest_first() -> None:
    """Far more answers than fit: no growth, no damage, the newest are there, what is found is what was stored."""
    arena = bytearray(1 << 17)
    cache = Cache(arena)
    rng = random.Random(1)
    for i in range(4_000):
        assert put(cache, f"n{i}.example", size=rng.choice([1, 1, 1, 2, 10, 40]))
        if i > 50 and i % 50 == 0:
            found = sum(get(cache, f"n{i - k}.example") for k in range(10))
            assert found >= 8
            assert get(cache, f"n{i}.example")
            assert bytes(arena[cache.body : cache.body + 2]) == b"\xc0\x0c"
    assert not get(cache, "n5.example")
    assert cache.adopt()


def test_too_large_is_not_kept() -> None:
    """An answer larger than an eighth of the log is left out."""
    cache = Cache(bytearray(1 << 16))

    assert not put(cache, "a.example", size=600)
    assert not get(cache, "a.example")


def test_taken_over_by_a_replacement() -> None:
    """A new worker goes on with its predecessor's arena; a torn or foreign one is cleared."""
    arena = bytearray(1 << 17)
    put(Cache(arena), "a.example")
    assert get(Cache(arena), "a.example")
    torn = bytearray(arena)
    torn[20] = 1  # word 5: a store had begun
    assert not get(Cache(torn), "a.example")
    rng = random.Random(2)
    for _ in range(200):
        noise = bytearray(arena)
        for _ in range(rng.randrange(1, 2000)):
            noise[rng.randrange(len(noise))] = rng.randrange(256)
        cache = Cache(noise)
        get(cache, "a.example")
        put(cache, "b.example")
        assert get(cache, "b.example")


def test_the_index_grows_with_what_is_in_it() -> None:
    """From few buckets to as many as the arena has room for; nothing is lost on the way, and a replacement goes on."""
    arena = bytearray(1 << 22)
    cache = Cache(arena)
    at_first = memoryview(arena).cast("I")[6]
    answer = response("n.example", "n.example. 300 A 192.0.2.1")
    for i in range(1500):
        name = names.from_text(f"n{i}.example")
        assert cache.store(name, hashed(name), 1, 0, 1, answer, NOW, 300)
        if i % 397 == 0:
            assert all(get(cache, f"n{k}.example") for k in range(max(0, i - 200), i + 1))
    assert sum(get(cache, f"n{i}.example") for i in range(1500)) == 1500 - cache.evicted
    assert cache.evicted < 3
    grown = memoryview(arena).cast("I")[6]
    assert at_first < 512 < grown <= cache.buckets
    successor = Cache(arena)
    assert get(successor, "n1499.example")
    assert memoryview(arena).cast("I")[6] == grown
    assert memoryview(arena).cast("I")[7] == sum(get(successor, f"n{i}.example") for i in range(1500))
    successor.clear()
    assert memoryview(arena).cast("I")[6] == at_first

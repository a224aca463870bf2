"""What a worker tells of its caches, and how the agent gathers it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import dns.message
import dns.rrset

from dnsd.contract import codes, names
from dnsd.resolve.aggressive import Denials
from dnsd.resolve.cache import Cache
from dnsd.resolve.config import Config
from dnsd.resolve.message import read
from dnsd.resolve.resolver import Resolver
from dnsd.resolve.rrcache import AUTHORITATIVE, Delegation, Denial
from dnsd.resolve.rrsets import RRset
from dnsd.resolve.validator import Validator
from dnsd.serve import worker_cache
from dnsd.serve.agent_caches import Caches
from tests.resolve.signed import Play
from tests.resolve.test_validator import shared, trust


class HotPath:
    """As much of the query path as this needs."""

    def __init__(self) -> None:
        self.cache = Cache(bytearray(1 << 17))
        self.wall_ms = 1_000_000

    def routes_by_mark(self) -> dict[int, str]:
        return {7: "."}


def name(text: str) -> bytes:
    return names.from_text(text)


def worker() -> tuple[HotPath, list[Resolver]]:
    """A worker with something in its caches."""
    hot = HotPath()
    resolver = Resolver(Config(), (), lambda n: 0)
    resolver.cache.clock(1000)
    response = dns.message.make_response(dns.message.make_query("www.example", "A"))
    response.answer.append(dns.rrset.from_text("www.example.", 60, "IN", "A", "192.0.2.1"))
    answer = read(response.to_wire())
    for number, text in enumerate(("www.example", "a.www.example", "xwww.example", "example")):
        for qtype in (1, 28):
            assert hot.cache.store(name(text), 1234 + number, qtype, 1, 7, answer, 1000, 60)
        resolver.cache.put(RRset(name(text), 1, 60, (bytes((192, 0, 2, number)),)), AUTHORITATIVE)
    soa = RRset(name("example"), codes.TYPE_SOA, 60, (b"\0\0" + bytes(16) + (60).to_bytes(4, "big"),))
    resolver.cache.deny(name("none.example"), 1, Denial(3, (soa,)))
    resolver.cache.put_delegation(Delegation(name("example"), (name("ns.example"),), (), 1000, 60))
    resolver.cache.fail(name("www.example"), 15, 22, "nobody answers", 0)
    return hot, [resolver]


def told(parts: tuple[HotPath, list[Resolver]], what: str, text: str, qtype: str = "", below: bool = False) -> Any:
    message = {"what": what, "name": text, "type": qtype, "below": below, "ident": 5}
    return json.loads(json.dumps(worker_cache.told(*parts, message, 0)))


def test_show_finds_the_name_and_what_is_below_it() -> None:
    """Exactly the name, or whole labels below it; never a name that only ends alike."""
    parts = worker()
    assert {row["name"] for row in told(parts, "show", "www.example")["rows"]} == {"www.example"}
    below = told(parts, "show", "www.example", below=True)["rows"]
    assert {row["name"] for row in below} == {"www.example", "a.www.example"}
    assert {row["name"] for row in told(parts, "show", ".", below=True)["rows"]} >= {"xwww.example", "example"}
    assert {row["type"] for row in told(parts, "show", "www.example", "AAAA")["rows"]} == {"AAAA"}
    kinds = {row.get("kind", "answer") for row in told(parts, "show", "example", below=True)["rows"]}
    assert kinds == {"answer", "rrset", "nxdomain", "delegation", "failure"}


def test_what_is_proven_by_other_names_is_shown_and_forgotten() -> None:
    """A name that nobody asked for, denied by a validated NSEC (RFC 8198): shown, and asked for again after a flush."""
    play = Play(shared(), Validator(trust(shared()), denials=Denials()))
    play.ask("none.good.test")
    parts = HotPath(), [play.resolver]
    (row,) = told(parts, "show", "nonf.good.test")["rows"]
    assert (row["kind"], row["by"], row["proven"], row["validation"]) == ("nxdomain", "good.test", True, "secure")
    assert told(parts, "flush", "nonf.good.test")["forgotten"] > 0
    assert told(parts, "show", "nonf.good.test")["rows"] == []


def test_flush_forgets_and_counts() -> None:
    """What is shown before is gone after; one type alone leaves the others; a denial above goes along."""
    parts = worker()
    assert told(parts, "flush", "www.example", "A")["forgotten"] == 2
    assert {row["type"] for row in told(parts, "show", "www.example")["rows"]} == {"AAAA", "MX"}
    assert told(parts, "flush", "www.example", below=True)["forgotten"] == 5
    assert told(parts, "show", "www.example", below=True)["rows"] == []
    assert told(parts, "flush", "deep.none.example")["forgotten"] == 1
    assert told(parts, "show", "deep.none.example")["rows"] == []
    assert told(parts, "show", "xwww.example")["rows"]


def test_an_answer_fits_into_a_control_message() -> None:
    """However much there is: what does not fit is counted."""
    parts = worker()
    message = {"what": "show", "name": ".", "type": "", "below": True, "ident": 5, "most": 1200}
    answer = worker_cache.told(*parts, message, 0)
    assert len(json.dumps(answer)) < 1400 and answer["more"] > 0


def test_nonsense_is_an_error_and_no_exception() -> None:
    """Whatever the message says."""
    parts = worker()
    for text, qtype in (("a..b", ""), ("x" * 300, ""), ("example", "NOSUCH")):
        assert "makes no sense" in told(parts, "show", text, qtype)["error"]


def test_a_silent_worker_does_not_hold_the_others_back() -> None:
    """The agent answers when all have, or when the time is up, with a row for each."""
    sent: list[Mapping[str, Any]] = []

    class Workers:
        def running(self) -> list[int]:
            return [0, 1, 2]

        def tell(self, message: Mapping[str, Any]) -> None:
            sent.append(message)

    async def run() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        caches = Caches(Workers())
        question = {"op": "show", "name": "example", "type": "", "below": False}

        def answer(*slots: int) -> None:
            for slot in slots:
                caches.hear(slot, {"op": "cached", "slot": slot, "ident": sent[-1]["ident"], "rows": [], "more": 0})
                caches.hear(slot, {"op": "cached", "slot": slot, "ident": 999})

        loop = asyncio.get_running_loop()
        loop.call_later(0.01, answer, 0, 1, 2)
        whole = await caches.ask(question, 5)
        loop.call_later(0.01, answer, 0, 2)
        return whole, await caches.ask(question, 0.1)

    whole, partly = asyncio.run(run())
    assert whole == [{"slot": slot, "rows": [], "more": 0} for slot in range(3)]
    assert [row.get("error", "") for row in partly] == ["", "the worker did not answer in time", ""]

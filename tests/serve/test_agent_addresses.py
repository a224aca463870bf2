"""What the agent makes of the kernel's addresses: which are told to others, and one event a change."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dnsd.contract.facts import packed, unpacked
from dnsd.serve import agent_addresses
from dnsd.serve.agent_addresses import Addresses, self_addresses
from dnsd.serve.listener import place
from dnsd.serve.netlink import F_TEMPORARY, SCOPE_HOST, SCOPE_LINK, Address
from tests.serve.node_parts import Silent

LINKS = {1: "lo", 2: "eth0", 3: "wlan0"}
ROWS = [
    Address(packed("127.0.0.1"), 8, 1, SCOPE_HOST, 0x80),
    Address(packed("10.0.0.9"), 24, 2, 0, 0x80),
    Address(packed("10.0.0.5"), 24, 2, 0, 0x80),
    Address(packed("192.168.7.2"), 24, 3, 0, 0x80),
    Address(packed("2001:db8::5"), 64, 2, 0, 0x80),
    Address(packed("2001:db8::abcd"), 64, 2, 0, F_TEMPORARY),
    Address(packed("fe80::5"), 64, 2, SCOPE_LINK, 0x80),
]
ETH0 = ["10.0.0.5", "10.0.0.9", "2001:db8::5"]


@pytest.mark.parametrize(
    "listen, expected",
    [
        (["eth0:53"], ETH0),
        (["eth0/addresses:53"], ETH0),
        (["*:53"], [*ETH0[:2], "192.168.7.2", ETH0[2]]),
        (["eth0:53", "0.0.0.0:53"], [*ETH0[:2], "192.168.7.2", ETH0[2]]),
        (["10.0.0.9:53", "127.0.0.1:53"], ["10.0.0.9"]),
        (["127.0.0.1:5335"], [*ETH0[:2], "192.168.7.2", ETH0[2]]),
        (["10.9.9.9:53", "wlan0:53"], ["192.168.7.2"]),
    ],
)
def test_self_is_where_we_listen_and_may_be_told(listen: list[str], expected: list[str]) -> None:
    """Never loopback, link-local or privacy addresses; only the interfaces and addresses that are listened on."""
    places = [place(text, must_exist=False) for text in listen]
    assert [str(unpacked(address)) for address in self_addresses(ROWS, LINKS, places)] == expected


class _Kernel:
    def __init__(self) -> None:
        self.rows: dict[str, list[Address]] = {"eth0": [ROWS[2]]}

    def read(self) -> bool:
        return True

    def by_interface(self) -> dict[str, list[Address]]:
        return {name: list(rows) for name, rows in self.rows.items()}


def _watched(kernel: _Kernel, log: Any, told: list[list[str]]) -> Addresses:
    def changed(seen: Any) -> None:
        told.append([str(row) for row in seen.by_interface()["eth0"]])

    made = Addresses(changed, lambda: 40 + len(told), lambda: [0, 1], log)
    made._kernel = kernel  # type: ignore[assignment]
    made._known = {"eth0": ["10.0.0.5/24"]}
    return made


def test_facts_follow_each_step_and_the_event_tells_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Away and there again within the quiet time: two calls at once, one event from old to new."""
    monkeypatch.setattr(agent_addresses, "QUIET_S", 0.05)

    async def body() -> tuple[list[list[str]], list[dict[str, Any]]]:
        kernel, told = _Kernel(), list[list[str]]()
        watched = _watched(kernel, Silent(), told)
        for rows in ([], [ROWS[1]]):
            kernel.rows = {"eth0": rows}
            watched._readable()
        assert not watched.events()
        await asyncio.sleep(0.15)
        return told, watched.events()

    told, events = asyncio.run(body())
    assert told == [[], ["10.0.0.9/24"]] and len(events) == 1
    event = events[0]
    assert (event["source"], event["reason"], event["kind"]) == ("kernel", "replaced", "change")
    assert (event["old"], event["new"], event["interface"]) == (["10.0.0.5/24"], ["10.0.0.9/24"], "eth0")
    assert event["duration_ms"] < 50 and event["queries"] == 2


def test_the_event_waits_until_every_worker_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its duration ends when the last worker has taken its sockets, whichever message comes first."""
    monkeypatch.setattr(agent_addresses, "QUIET_S", 0.04)

    async def body() -> list[dict[str, Any]]:
        kernel, told = _Kernel(), list[list[str]]()
        watched = _watched(kernel, Silent(), told)
        kernel.rows = {"eth0": [ROWS[1], ROWS[2]]}
        watched._readable()
        watched.listening(0, 7)  # a worker is quicker than the supervisor's word
        watched.rebound({"binding": 7, "interface": "eth0", "begun_ms": int(agent_addresses._now_ms())})
        await asyncio.sleep(0.1)
        assert not watched.events()
        watched.listening(1, 7)
        await asyncio.sleep(0.1)
        return watched.events()

    events = asyncio.run(body())
    assert len(events) == 1 and 90 <= events[0]["duration_ms"] < 190 and events[0]["reason"] == "added"


def test_a_silent_worker_does_not_keep_the_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """After two seconds it is told without that worker, and the log says so; nonsense is ignored."""
    monkeypatch.setattr(agent_addresses, "QUIET_S", 0.02)
    monkeypatch.setattr(agent_addresses, "SILENT_S", 0.06)
    log = Silent()

    async def body() -> list[dict[str, Any]]:
        watched = _watched(_Kernel(), log, [])
        watched.rebound({"binding": "x", "interface": 4})
        watched.rebound({"binding": 8, "interface": "eth0", "begun_ms": 1})
        for number in range(1000):
            watched.listening(0, 100 + number)
        await asyncio.sleep(0.2)
        return watched.events()

    asyncio.run(body())
    assert "workers have not taken their new sockets" in log

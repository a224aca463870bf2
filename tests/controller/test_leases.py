"""What is new in what DHCP clients say, and what a restart of the controller remembers of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from controller.broker_events import Events
from controller.leases import Leases

BOUND = {"source": "dhclient", "reason": "BOUND", "interface": "eth0", "kind": "up", "lease": "dhcp4",
         "new": ["10.0.0.5/24"], "dns": ["10.0.0.1"], "search": ["office.example"]}  # fmt: skip


def news(leases: Leases, *events: dict[str, Any], node: str = "n") -> dict[str, Any] | None:
    for event in events:
        leases.hear(node, event)
    return leases.news(node, "eth0")


def test_a_renewal_is_no_news() -> None:
    """The same address and the same servers again, with or without prefix length, are counted and nothing else."""
    leases = Leases()
    first = news(leases, BOUND)
    assert first and first["kind"] == "up" and first["old"] == [] and first["dns"] == ["10.0.0.1"]
    assert news(leases, {**BOUND, "kind": "same", "old": ["10.0.0.5"], "new": ["10.0.0.5"]}) is None
    assert leases.counts["unchanged"] == 1 and leases.counts["up"] == 1


def test_old_addresses_are_remembered_for_clients_that_do_not_tell() -> None:
    """NetworkManager and udhcpc tell no old address: it is what was new last."""
    leases = Leases()
    news(leases, BOUND)
    changed = news(leases, {**BOUND, "source": "udhcpc", "kind": "up", "new": ["10.0.0.9/24"]})
    assert changed and changed["kind"] == "change"
    assert (changed["old"], changed["new"]) == (["10.0.0.5/24"], ["10.0.0.9/24"])


def test_other_servers_at_the_same_address_are_news() -> None:
    """A renewal with other DNS servers is told, as `same`."""
    leases = Leases()
    news(leases, BOUND)
    told = news(leases, {**BOUND, "kind": "same", "dns": ["10.0.0.2"]})
    assert told and told["kind"] == "same" and told["dns"] == ["10.0.0.2"]


def test_within_one_quiet_time_the_last_word_counts() -> None:
    """Lost and had again at once is no news; lost and had elsewhere is one change."""
    leases = Leases()
    down = {**BOUND, "reason": "EXPIRE", "kind": "down", "new": [], "dns": [], "search": []}
    news(leases, BOUND)
    assert news(leases, down, BOUND) is None
    changed = news(leases, down, {**BOUND, "new": ["10.0.0.9/24"]})
    assert changed and changed["kind"] == "change" and changed["old"] == ["10.0.0.5/24"]


def test_the_order_is_that_of_the_calls() -> None:
    """Two programs in the background may arrive in the wrong order, within the quiet time or after it: the later call
    holds. A much earlier time is that of another boot, and counts."""
    down = {**BOUND, "reason": "deconfig", "kind": "down", "new": [], "dns": [], "at": 5000}
    leases = Leases()
    told = news(leases, {**BOUND, "at": 5100}, down)
    assert told and told["kind"] == "up" and "at" not in told
    assert news(leases, down) is None and leases.counts["late"] == 1
    told = news(leases, {**down, "at": 5200})
    assert told and told["kind"] == "down"
    assert news(leases, {**BOUND, "at": 5150}) is None
    leases = Leases()
    news(leases, {**BOUND, "at": 900_000})
    told = news(leases, {**BOUND, "new": ["10.0.0.8/24"], "at": 5000})
    assert told and told["kind"] == "change"


def test_servers_are_those_of_all_leases_of_the_interface() -> None:
    """IPv4 and IPv6 leases come and go by themselves; a word about all of them replaces them."""
    leases = Leases()
    news(leases, BOUND)
    six = {**BOUND, "lease": "dhcp6", "new": ["fd00::5/128"], "dns": ["fd00::1"], "search": []}
    told = news(leases, six)
    assert told and told["dns"] == ["10.0.0.1", "fd00::1"] and told["new"] == ["fd00::5/128"] and told["old"] == []
    told = news(leases, {**six, "kind": "down", "new": [], "dns": []})
    assert told and told["kind"] == "down" and told["dns"] == ["10.0.0.1"] and told["old"] == ["fd00::5/128"]
    told = news(leases, {"source": "networkd", "reason": "off", "interface": "eth0", "kind": "down", "lease": "all"})
    assert told and told["kind"] == "down" and told["dns"] == []
    assert [(event["kind"], event["dns"]) for _, event in leases.current()] == [("down", [])]


def test_the_end_of_what_never_was_is_no_news() -> None:
    """udhcpc begins with deconfig: nobody hears of it."""
    assert news(Leases(), {"source": "udhcpc", "reason": "deconfig", "interface": "eth0", "kind": "down"}) is None


def test_machines_and_interfaces_do_not_mix() -> None:
    """eth0 of another machine is another interface."""
    leases = Leases()
    news(leases, BOUND)
    told = news(leases, {**BOUND, "new": ["10.0.0.7/24"]}, node="other")
    assert told and told["kind"] == "up" and len(list(leases.current())) == 2


def test_a_flood_of_interfaces_and_events_is_bounded() -> None:
    """However many interfaces and events somebody invents, a bounded number is kept."""
    leases = Leases()
    for number in range(600):
        leases.hear("n", {**BOUND, "interface": f"if{number}"})
        leases.news("n", f"if{number}")
        leases.hear("n", BOUND)
    assert len(list(leases.current())) == 256 and leases.counts["heard"] == 1200


def test_a_restart_remembers_and_a_boot_forgets(tmp_path: Path) -> None:
    """The leases are on disk for the next controller; after a boot, or damaged, they are not believed."""

    async def one() -> list[tuple[str, dict[str, Any]]]:
        told: list[tuple[str, dict[str, Any]]] = []
        events = Events(str(tmp_path), lambda node, event, news: told.append((node, event)), quiet_s=0.01)
        known = [event["new"] for _, event in events.leases.current()]
        events.hear("n", {**BOUND, "kind": "same", "old": ["10.0.0.5/24"]})
        await asyncio.sleep(0.05)
        events.stop()
        assert not told or not known
        return told

    assert len(asyncio.run(one())) == 1
    assert asyncio.run(one()) == []
    file = tmp_path / "leases.json"
    saved = json.loads(file.read_text())
    for bad in ({**saved, "boot": "another"}, {**saved, "leases": [{"lease": "x"}, 5]}, [], {"boot": saved["boot"]}):
        file.write_text(json.dumps(bad))
        assert len(asyncio.run(one())) == 1
    file.write_bytes(b"\xff{")
    assert len(asyncio.run(one())) == 1


LEASE = {**BOUND, "lifetime": 600}
DOWN = {"source": "dhclient", "reason": "RELEASE", "interface": "eth0", "kind": "down", "lease": "dhcp4"}


def test_a_lease_that_has_outlived_its_time_has_ended() -> None:
    """Nobody says so, and it is over all the same, a moment later than its client would have said it; a renewal puts
    that off, and who asks is told how much is left."""
    leases = Leases()
    leases.hear("n", LEASE)
    told = leases.news("n", "eth0", 1000)
    assert told and told["lifetime"] == 600 and leases.next_end_ms() == 601_000 + 5000
    leases.hear("n", {**LEASE, "kind": "same"})
    assert leases.news("n", "eth0", 301_000) is None  # a renewal
    assert leases.expire(601_000 + 5000) == []
    assert [event["lifetime"] for _, event in leases.current(801_000)] == [100]
    assert [event["kind"] for _, event in leases.current(1_000_000)] == ["down"]
    assert leases.expire(901_000 + 4999) == [] and leases.expire(901_000 + 5000) == [("n", "eth0")]
    told = leases.news("n", "eth0", 906_000)
    assert told and (told["kind"], told["reason"], told["dns"]) == ("down", "overdue", [])
    assert told["old"] == ["10.0.0.5/24"] and leases.next_end_ms() is None
    leases.hear("n", {**LEASE, "at": 100_000})  # found in a file, long after
    assert leases.news("n", "eth0", 906_000) is None


def test_a_lease_without_a_time_does_not_end_by_itself() -> None:
    """NetworkManager and networkd tell no lifetime, and some leases are for ever."""
    leases = Leases()
    assert "lifetime" not in (news(leases, BOUND) or {})
    assert leases.expire(1 << 50) == [] and leases.next_end_ms() is None


def test_what_has_ended_is_told_to_who_comes_later(tmp_path: Path) -> None:
    """A node that was away while a lease ended hears of it when it is back, also from a controller that was restarted."""

    async def one(*events: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        made = Events(str(tmp_path), lambda node, event, news: None, quiet_s=0.0)
        made.start()
        for event in events:
            made.hear("n", event)
            await asyncio.sleep(0.02)
        made.stop()
        return list(made.current())

    ((_, event),) = asyncio.run(one(BOUND))
    assert (event["kind"], event["dns"]) == ("same", ["10.0.0.1"])
    for more in ([DOWN], []):
        ((_, event),) = asyncio.run(one(*more))
        assert (event["kind"], event["dns"], event["new"]) == ("down", [], [])
    ((_, event),) = asyncio.run(one(BOUND))
    assert event["kind"] == "same"


def test_a_renewal_reaches_nodes_and_nobody_else(tmp_path: Path) -> None:
    """A node must know that the lease goes on; for people it is no news. And nobody says that the next one ends."""
    told: list[tuple[str, int | None, bool]] = []
    now_ms = [1000]

    async def body() -> None:
        events = Events(
            str(tmp_path), lambda node, event, news: told.append((event["kind"], event.get("lifetime"), news)),
            quiet_s=0.0, now_ms=lambda: now_ms[0],
        )  # fmt: skip
        events.start()
        events.hear("n", LEASE)
        await asyncio.sleep(0.02)
        now_ms[0] += 300_000
        events.hear("n", {**LEASE, "kind": "same", "lifetime": 300})
        await asyncio.sleep(0.02)
        now_ms[0] += 304_800  # its end is 200 ms away
        events.hear("n", {**LEASE, "interface": "eth1"})
        end = asyncio.get_running_loop().time() + 5
        while len(told) < 4 and asyncio.get_running_loop().time() < end:
            now_ms[0] += 10
            await asyncio.sleep(0.01)
        events.stop()

    asyncio.run(body())
    assert told == [("up", 600, True), ("same", 300, False), ("up", 600, True), ("down", None, True)]

"""The leases' DNS servers: the last word of each interface counts, and nothing hostile becomes a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dnsd.contract.facts import packed
from dnsd.serve.agent_leases import MOST_SERVERS, Leases


def event(*dns: str, interface: str = "eth0", kind: str = "up", **more: Any) -> dict[str, Any]:
    return {"source": "dhclient", "reason": "BOUND", "interface": interface, "kind": kind, "dns": list(dns), **more}


def test_the_last_word_of_each_interface_counts(tmp_path: Path) -> None:
    """A new list replaces the old one of its interface; `down` takes it away; the same again is nothing."""
    leases = Leases(str(tmp_path / "l"))
    assert leases.hear(event("10.0.0.1", "10.0.0.2"), 0) and not leases.hear(event("10.0.0.1", "10.0.0.2", kind="same"), 0)
    assert leases.hear(event("192.168.1.1", interface="wlan0"), 0)
    assert [a for a, _, _ in leases.servers(())] == [packed("10.0.0.1"), packed("10.0.0.2"), packed("192.168.1.1")]
    assert leases.hear(event(kind="down"), 0)
    assert leases.servers(()) == ((packed("192.168.1.1"), 53, 0),)


def test_it_survives_a_restart_until_the_machine_boots(tmp_path: Path) -> None:
    """Law 1: without a controller the servers are still known; a file of another boot, or a damaged one, is nothing."""
    file = tmp_path / "l"
    Leases(str(file)).hear(event("10.0.0.1"), 0)
    assert len(Leases(str(file)).servers(())) == 1
    text = file.read_text()
    for bad in (text.replace('"boot": "', '"boot": "x'), text[:-5], "[]", '{"boot": 1}', ""):
        file.write_text(bad)
        assert Leases(str(file)).servers(()) == ()


def test_nothing_hostile_becomes_a_server(tmp_path: Path) -> None:
    """We ourselves, loopback, multicast, nonsense and unknown interfaces are left out; the number is bounded."""
    leases = Leases(str(tmp_path / "l"))
    leases.hear(event("10.0.0.7", "127.0.0.53", "::1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "::ffff:127.0.0.1",
                      "fe80::1%no-such", "zz", "10.0.0.1"), 0)  # fmt: skip
    assert leases.servers({packed("10.0.0.7")}) == ((packed("10.0.0.1"), 53, 0),)
    leases.hear(event("fe80::1%lo"), 0)
    assert leases.servers(()) == ((packed("fe80::1"), 53, 1),)
    for number in range(200):
        leases.hear(event(*(f"10.0.{number}.{i}" for i in range(1, 40)), interface=f"if{number}"), 0)
    assert len(leases.servers(())) == MOST_SERVERS


def test_a_lease_that_is_over_is_not_used(tmp_path: Path) -> None:
    """Its time is over: without a broker that could have told of a renewal the kernel's word counts, which still has
    the address or has not; with one it is over. Over a restart too."""
    file = str(tmp_path / "l")
    own = {packed("10.0.0.5")}
    leases = Leases(file)
    assert leases.hear(event("10.0.0.1", new=["10.0.0.5/24"], lifetime=600), 1000)
    assert not leases.hear(event("10.0.0.1", new=["10.0.0.5/24"], kind="same", lifetime=600), 301_000)
    leases = Leases(file)
    assert not leases.expire(901_000, own, told=True) and len(leases.servers(())) == 1
    assert not leases.expire(916_000, own, told=False) and len(leases.servers(())) == 1
    assert leases.expire(916_000, set(), told=False) and leases.servers(()) == ()
    leases.hear(event("10.0.0.1", new=["10.0.0.5/24"], lifetime=600), 1000)
    assert leases.expire(616_000, own, told=True) and leases.servers(()) == () and Leases(file).servers(()) == ()
    leases.hear(event("10.0.0.1", interface="wlan0"), 1000)
    assert not leases.expire(1 << 50, set(), told=True) and len(leases.servers(())) == 1

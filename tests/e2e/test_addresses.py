"""The machine's addresses change and nobody notices: real `ip addr`, a real node, a client that never stops asking.

Namespaces need root. Without it these tests say so and are not run; in CI they fail instead.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import dns.message
import dns.rrset
import pytest

from tests.lan import ROOT, until
from tests.wire import PORT, Load, NodeThere, Wire, ask_tcp

pytestmark = pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="network namespaces need root")

RULES = """\
version: 1
zones:
  office.example:
    ptr: auto
    records:
      printer: 10.0.20.15
      dns: {address: self}
forward:
  lan: dhcp
"""
CHANGES = 100


@pytest.fixture
def wire(tmp_path: pathlib.Path) -> Iterator[Wire]:
    """Two machines; the client knows where the server's addresses are."""
    made = Wire(tmp_path)
    yield made
    made.close()


@contextlib.contextmanager
def serving(wire: Wire, folder: pathlib.Path, listen: str) -> Iterator[NodeThere]:
    """A node in the server's network that serves its rules with two workers."""
    place = folder / "node"
    place.mkdir()
    node = NodeThere(wire.server, place, {"listen": [listen]}, RULES)
    try:
        node.start("run")
        node.answers()
        yield node
    except BaseException:
        node.close()
        print(node.logs())
        raise
    node.close()


def knows(wire: Wire, *addresses: str) -> None:
    """Tell the client the hardware address behind these addresses: this is about the server, not about ARP."""
    mac = wire.server.mac("d0")
    for address in addresses:
        wire.client.run("ip", "neigh", "replace", address, "lladdr", mac, "dev", "d1", "nud", "permanent")


def change(wire: Wire, count: int, pause_s: float = 0.04) -> list[str]:
    """A new address, and then the one before it goes, `count` times; the addresses that came."""
    came = [f"10.99.{1 + i // 200}.{1 + i % 200}" for i in range(count)]
    knows(wire, *came)
    for i, address in enumerate(came):
        wire.server.ip(f"addr add {address}/16 dev d0")
        time.sleep(pause_s)
        if i:
            wire.server.ip(f"addr del {came[i - 1]}/16 dev d0")
            time.sleep(pause_s / 4)
    return came


def dig(wire: Wire, address: str, *words: str) -> str:
    """What the client's dig says."""
    ran = subprocess.run(
        wire.client.words("dig", "+short", "+time=1", "+tries=1", f"@{address}", "-p", str(PORT), *words),
        capture_output=True, text=True, check=False, timeout=10,
    )  # fmt: skip
    return ran.stdout.strip()


@pytest.mark.parametrize(
    "listen, after_s", [(f"*:{PORT}", 0.0), (f"d0:{PORT}", 0.0), (f"d0/addresses:{PORT}", 0.02)],
    ids=["wildcard", "device", "addresses"],
)  # fmt: skip
def test_a_hundred_changes_lose_nothing(wire: Wire, tmp_path: pathlib.Path, listen: str, after_s: float) -> None:
    """No question to an address that is there is lost, from its first moment (20 ms with a socket of its own).

    The new address answers within 50 ms (p99), open connections go on, and no worker is replaced.
    """
    with serving(wire, tmp_path, listen) as node:
        workers = node.pids()
        knows(wire, "10.99.0.1")
        stream = wire.client.inside(lambda: socket.create_connection(("10.99.0.1", PORT), timeout=5))
        assert ask_tcp(stream) == "10.0.20.15"
        load = Load(wire)
        time.sleep(0.2)
        came = change(wire, CHANGES)
        time.sleep(0.2)
        late = dig(wire, came[-1], "+tcp", "printer.office.example")
        load.end()
        assert ask_tcp(stream) == "10.0.20.15"
        stream.close()
        times = sorted(load.until_answered(address) for address in came)
        print(f"{listen}: {len(load.sent)} questions, rebind p50 {statistics.median(times) * 1000:.1f} ms, "
              f"p99 {times[98] * 1000:.1f} ms")  # fmt: skip
        assert late == "10.0.20.15"
        assert load.lost(after_s) == [] and load.wrong_source == 0
        assert len(load.sent) > 2000 and times[98] < 0.05
        assert node.pids() == workers and "is replaced" not in node.logs()


@pytest.mark.parametrize("listen", [f"d0:{PORT}", f"d0/addresses:{PORT}"], ids=["device", "addresses"])
def test_ipv6_addresses_follow(wire: Wire, tmp_path: pathlib.Path, listen: str) -> None:
    """Bound while duplicate address detection still runs, so the first question after it is answered already."""
    with serving(wire, tmp_path, listen):
        knows(wire, "10.99.0.1", "fd99::1", "fd99::7")
        load = Load(wire)
        wire.server.run("ip", "-6", "addr", "add", "fd99::1/64", "dev", "d0")
        wire.server.run("ip", "-6", "addr", "add", "fd99::7/64", "dev", "d0", "nodad")
        until(lambda: {"fd99::1", "fd99::7"} <= load.added.keys(), 8, "both addresses")
        time.sleep(0.5)
        assert dig(wire, "fd99::1", "+tcp", "printer.office.example") == "10.0.20.15"
        load.end()
        assert load.lost(0.02) == [] and load.until_answered("fd99::1") < 0.05


def test_the_event_is_told(wire: Wire, tmp_path: pathlib.Path) -> None:
    """The status page knows old and new addresses, how long it took, and how many questions came meanwhile."""
    with serving(wire, tmp_path, f"d0/addresses:{PORT}") as node:
        knows(wire, "10.99.3.1")
        load = Load(wire)
        wire.server.run("ip", "addr", "add", "10.99.3.1/16", "dev", "d0")
        rows: list[dict[str, Any]] = until(lambda: _events(node, "10.99.3.1/16"), 5, "the event")
        load.end()
        row = rows[0]
        assert (row["kind"], row["interface"], row["reason"]) == ("change", "d0", "added")
        assert "10.99.0.1/16" in row["old"] and "10.99.0.1/16" in row["new"] and row["time"]
        assert 0 <= row["duration_ms"] < 50 and row["queries"] >= 0


def _events(node: NodeThere, address: str) -> list[dict[str, Any]]:
    return [e for e in node.status().get("events", ()) if e["source"] == "kernel" and address in e.get("new", ())]


def test_names_of_the_server_follow(wire: Wire, tmp_path: pathlib.Path) -> None:
    """`address: self` and its PTR answer with what the machine has now, IPv6 once it is known to be unique."""
    with serving(wire, tmp_path, f"*:{PORT}"):
        assert dig(wire, "10.99.0.1", "dns.office.example") == "10.99.0.1"
        wire.server.run("ip", "addr", "add", "10.99.3.2/16", "dev", "d0")
        wire.server.run("ip", "-6", "addr", "add", "fd99::1/64", "dev", "d0")
        until(lambda: dig(wire, "10.99.0.1", "dns.office.example") == "10.99.0.1\n10.99.3.2", 3, "the new address")
        assert dig(wire, "10.99.3.2", "-x", "10.99.3.2") == "dns.office.example."
        until(lambda: dig(wire, "10.99.0.1", "dns.office.example", "AAAA") == "fd99::1", 6, "the IPv6 address")
        wire.server.run("ip", "addr", "del", "10.99.3.2/16", "dev", "d0")
        until(lambda: dig(wire, "10.99.0.1", "dns.office.example") == "10.99.0.1", 3, "the address to go")
        assert dig(wire, "10.99.0.1", "-x", "10.99.3.2") == ""


def test_without_a_lease_the_answer_says_so(wire: Wire, tmp_path: pathlib.Path) -> None:
    """`lan: dhcp` while no lease names a server: SERVFAIL, and an Extended DNS Error in words."""
    with serving(wire, tmp_path, f"*:{PORT}"):
        ran = wire.client.run("dig", "@10.99.0.1", "-p", str(PORT), "nas.lan")
        assert "SERVFAIL" in ran and "no DHCP lease names a DNS server (forward entry lan" in ran


@contextlib.contextmanager
def router(wire: Wire) -> Iterator[None]:
    """The DNS server of the lease, on the client's machine: every name has the address 10.99.0.77."""

    def listening() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("10.99.0.2", 53))
        return sock

    sock: socket.socket = wire.client.inside(listening)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while data_peer := sock.recvfrom(4096):
                question = dns.message.from_wire(data_peer[0])
                response = dns.message.make_response(question)
                name = question.question[0].name
                response.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "10.99.0.77"))
                sock.sendto(response.to_wire(), data_peer[1])

    threading.Thread(target=serve, daemon=True).start()
    yield
    sock.close()


def tell(wire: Wire, node: NodeThere, reason: str, **more: str) -> None:
    """What dhclient tells its hook; the DNS servers are this very machine and the router."""
    lease = {"reason": reason, "interface": "d0", "NEXORALDNS_CONFIG": str(node.config), "PYTHONPATH": str(ROOT)}
    when = "new" if reason == "BOUND" else "old"
    lease |= {f"{when}_ip_address": "10.99.0.1", f"{when}_subnet_mask": "255.255.0.0"} | more
    lease |= {"new_domain_name_servers": "10.99.0.1 10.99.0.2"} if reason == "BOUND" else {}
    words = [f"{key}={value}" for key, value in lease.items()]
    wire.server.run("env", *words, sys.executable, "-m", "controller.cli", "hook")


def test_the_servers_of_the_lease_are_asked(wire: Wire, tmp_path: pathlib.Path) -> None:
    """A hook's event brings the lease's DNS server: `lan: dhcp` asks it, and never us, whom the lease names too."""
    with router(wire), serving(wire, tmp_path, f"*:{PORT}") as node:
        tell(wire, node, "BOUND")
        until(lambda: dig(wire, "10.99.0.1", "nas.lan") == "10.99.0.77", 5, "the lease's server")
        until(lambda: node.status()["nodes"][0]["facts"]["lease"] == 1, 5, "one server, not two")
        tell(wire, node, "EXPIRE")
        # Its answer has 60 s to live in the cache: that belongs to the lease, and nobody gets it any more.
        until(lambda: dig(wire, "10.99.0.1", "nas.lan") == "", 5, "the lease to end")
        until(lambda: node.status()["nodes"][0]["facts"]["lease"] == 0, 5, "the facts")


def test_a_lease_that_nobody_could_tell_of(wire: Wire, tmp_path: pathlib.Path) -> None:
    """The lease ends while the controller is away, then while the node is: each hears of it when it is back. Until then
    the node asks the server that it knows, over its own restart too. A lease that nobody renews ends by itself."""
    place = tmp_path / "node"
    place.mkdir()
    node = NodeThere(wire.server, place, {"listen": [f"*:{PORT}"]}, RULES)
    names = iter(range(1000))  # each is asked once, so the cache knows none

    def asked() -> str:
        return dig(wire, "10.99.0.1", f"tv{next(names)}.lan")

    try:
        with router(wire):
            controller, dnsd = node.start("controller"), node.start("dnsd")
            node.answers()
            tell(wire, node, "BOUND")
            until(lambda: asked() == "10.99.0.77", 5, "the lease's server")
            assert controller.end() == 0
            tell(wire, node, "EXPIRE")
            assert asked() == "10.99.0.77"
            controller = node.start("controller")
            until(lambda: asked() == "", 15, "the end that a file told of")
            tell(wire, node, "BOUND")
            until(lambda: asked() == "10.99.0.77", 5, "the lease's server")
            assert dnsd.end() == 0
            tell(wire, node, "EXPIRE")
            until(lambda: node.status()["events"][0]["kind"] == "down", 5, "the controller to know")
            dnsd = node.start("dnsd")
            until(lambda: node.status()["nodes"][0]["connected"], 10, "the node")
            until(lambda: "no DHCP lease" in wire.client.run("dig", "@10.99.0.1", "-p", str(PORT), "nas.lan"), 5, "it")
            tell(wire, node, "BOUND", new_dhcp_lease_time="2")
            until(lambda: asked() == "10.99.0.77", 5, "the lease's server")
            until(lambda: node.status()["events"][0]["reason"] == "overdue", 12, "its end")
            until(lambda: asked() == "", 2, "the node to know")
    except BaseException:
        node.close()
        print(node.logs())
        raise
    node.close()


@pytest.mark.parametrize("listen", [f"d0:{PORT}", f"d0/addresses:{PORT}"], ids=["device", "addresses"])
def test_an_interface_that_is_made_anew(wire: Wire, tmp_path: pathlib.Path, listen: str) -> None:
    """The interface goes and another of its name comes: both transports answer again, by the same workers."""
    with serving(wire, tmp_path, listen) as node:
        assert dig(wire, "10.99.0.1", "printer.office.example") == "10.0.20.15"
        workers = node.pids()
        for _ in range(2):
            wire.server.run("ip", "link", "del", "d0")
            wire.join()
            until(lambda: dig(wire, "10.99.0.1", "printer.office.example") == "10.0.20.15", 5, "an answer")
            assert dig(wire, "10.99.0.1", "+tcp", "printer.office.example") == "10.0.20.15"
        assert node.pids() == workers and "is replaced" not in node.logs()


def test_an_interface_that_comes_later(wire: Wire, tmp_path: pathlib.Path) -> None:
    """A VPN that is not up yet is no reason not to start; its addresses are listened on when it comes."""
    node = NodeThere(wire.server, tmp_path, {"listen": [f"d0:{PORT}", f"v0:{PORT}", f"w0/addresses:{PORT}"]}, RULES)
    try:
        node.start("run")
        node.answers()
        assert node.logs().count("an interface is not there yet") == 2
        for name, there, net in (("v0", "v1", "10.98.0"), ("w0", "w1", "10.97.0")):
            wire.server.run("ip", "link", "add", name, "type", "veth", "peer", "name", there, "netns",
                            str(wire.client.holder.pid))  # fmt: skip
            for machine, device, host in ((wire.server, name, "1"), (wire.client, there, "2")):
                machine.run("ip", "addr", "add", f"{net}.{host}/24", "dev", device)
                machine.run("ip", "link", "set", device, "up")
            until(lambda net=net: dig(wire, f"{net}.1", "printer.office.example") == "10.0.20.15", 5, "an answer")
            assert dig(wire, f"{net}.1", "+tcp", "printer.office.example") == "10.0.20.15"
    except BaseException:
        print(node.logs())
        raise
    finally:
        node.close()


_LOW = """
import os, pathlib, subprocess, sys, time
sys.path.insert(0, sys.argv[1])
from tests.serve.node import node

def sh(line):
    subprocess.run(line, shell=True, check=True)

def dig(address, how=""):
    line = f"dig +short +time=1 +tries=1 {how} @{address} printer.office.test"
    return subprocess.run(line.split(), capture_output=True, text=True).stdout.strip()

with node(pathlib.Path(sys.argv[2]), listen=["d0/addresses:53"], user="nobody") as made:
    made.publish()
    made.start(wait=False)
    made.until(lambda: dig("10.99.0.1") == "10.0.0.1")
    for number in range(3):
        sh(f"ip addr add 10.99.4.{number + 1}/16 dev d0")
        made.until(lambda: dig(f"10.99.4.{number + 1}") == "10.0.0.1")
        assert dig(f"10.99.4.{number + 1}", "+tcp") == "10.0.0.1"
    for role in ("worker", "agent"):
        for pid in made.pids(role):
            assert os.stat(f"/proc/{pid}").st_uid != 0
    made.process.kill()
    print("fine")
"""


def test_a_user_without_privileges_follows_too(wire: Wire) -> None:
    """`user: nobody` and port 53: the supervisor has kept just enough to bind what comes later."""
    with tempfile.TemporaryDirectory(prefix="nexoraldns-") as folder:
        os.chmod(folder, 0o777)
        script = pathlib.Path(folder) / "script.py"
        script.write_text(_LOW)
        ran = subprocess.run(
            wire.server.words(sys.executable, str(script), str(ROOT), folder),
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert ran.stdout.strip().endswith("fine"), ran.stdout + ran.stderr


@pytest.mark.parametrize(
    "listen", [f"*:{PORT}", f"d0:{PORT}", f"d0/addresses:{PORT}"], ids=["wildcard", "device", "addresses"]
)
def test_an_address_that_comes_before_its_route(wire: Wire, tmp_path: pathlib.Path, listen: str) -> None:
    """dhcpcd adds an address first and the route to its network some 20 ms later: whoever asks meanwhile is answered
    through the interface that the question came through."""
    with serving(wire, tmp_path, listen):
        knows(wire, "10.99.3.1")
        wire.server.run("ip", "addr", "del", "10.99.0.1/16", "dev", "d0")
        wire.server.run("ip", "addr", "add", "10.99.3.1/16", "dev", "d0", "noprefixroute")
        until(lambda: dig(wire, "10.99.3.1", "printer.office.example") == "10.0.20.15", 3, "an answer without a route")
        assert wire.server.run("ip", "route", "show").strip() == ""

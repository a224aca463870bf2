"""The box gets a new lease and the LAN keeps its DNS: real DHCP clients, whole nodes, and an asker that never stops.

Three machines with the same DHCP client, one for each way of listening, go through everything that can become of a
lease. Each runs a node as an unprivileged user with two workers; every address that it has is asked all the while,
and a TCP connection to an address that stays is kept open from the beginning to the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.dhcp_office import CLIENTS, DNS, SERVER, Host, Machine, Office, Row, release, renew
from tests.lan import Process, until
from tests.wire import Load, ask_tcp

LISTEN = {
    "wildcard": ["*:53"],
    "device": ["eth0:53", "lan0:53"],
    "addresses": ["eth0/addresses:53", "lan0/addresses:53"],
}
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
EXPIRY_S = {"dhclient": 8, "dhcpcd": 20}  # udhcpc takes no lease below two minutes; its end is told as a release is

pytestmark = pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="network namespaces need root")


@dataclasses.dataclass(frozen=True)
class Ends:
    """A node's machine and who asks it."""

    server: Machine
    client: Machine


class Talk:
    """A TCP connection over which somebody asks, now and again, from the beginning to the end."""

    def __init__(self, asker: Machine, address: str) -> None:
        self._sock: socket.socket = asker.inside(lambda: socket.create_connection((address, 53), timeout=5))
        self._over = threading.Event()
        self.heard = 0
        self.broken = ""
        self._thread = threading.Thread(target=self._talk)
        self._thread.start()

    def _talk(self) -> None:
        try:
            while not self._over.wait(0.5):  # a server may close what is idle, and ours does after 10 s
                assert ask_tcp(self._sock) == "10.0.20.15"
                self.heard += 1
        except (OSError, struct.error, AssertionError) as error:
            self.broken = f"after {self.heard} answers: {error!r}"

    def end(self) -> None:
        self._over.set()
        self._thread.join()
        self._sock.close()


class Box:
    """One machine with its node, its DHCP client, and what is asked of it."""

    def __init__(self, office: Office, mode: str, number: int) -> None:
        self.office = office
        self.mode = mode
        self.number = number
        self.first, self.second, self.fixed = (f"10.77.0.{base + number}" for base in (51, 61, 41))
        self.still = f"10.78.{number}.1"
        folder = office.folder / mode
        self.host = Host(folder, {"listen": LISTEN[mode], "workers": 2, "user": "nobody"}, RULES)
        os.chmod(folder, 0o755)
        office.join(self.host)
        for address in (self.first, self.second, self.fixed, self.still, f"10.78.{number}.9"):
            device = "eth0" if address.startswith("10.77.") else f"lan{number}"
            there = self.host.mac("eth0" if device == "eth0" else "lan0")
            office.asker.run("ip", "neigh", "replace", address, "lladdr", there, "dev", device, "nud", "permanent")
        self.process = self.host.verb("run")
        self.apart: list[tuple[float, float]] = []
        self.loads: list[Load] = []
        self.client: Process

    def begin(self) -> None:
        """The node serves: note its workers, open the connection, begin to ask."""
        until(lambda: sum(bool(worker.get("digest")) for worker in self.host.workers()) == 2, 30, "serving")
        self.pids = self.worker_pids()
        for pid in self.pids:
            assert os.stat(f"/proc/{pid}").st_uid != 0
        ends = Ends(self.host, self.office.asker)
        self.talk = Talk(self.office.asker, self.still)
        self.loads = [Load(ends, 53, device, pause_s=0.005) for device in ("eth0", "lan0")]

    def worker_pids(self) -> set[int]:
        return {worker["pid"] for worker in self.host.workers()}

    def has(self, *addresses: str) -> bool:
        return self.host.addresses() == list(addresses)

    def kernel(self) -> list[dict[str, Any]]:
        """The events that the kernel's word made, of eth0, oldest first."""
        return [row for row in self.host.rows("kernel") if row["interface"] == "eth0"]

    def came(self, address: str) -> bool:
        """Whether the last events say that an address came."""
        return _last(self.kernel(), address) == "came"

    def went(self, address: str) -> bool:
        return _last(self.kernel(), address) == "went"

    def end(self) -> None:
        for load in self.loads:
            load.end()
        self.talk.end()


def _last(rows: list[dict[str, Any]], address: str) -> str:
    """What became of an address in the end: `came`, `went`, or nothing."""
    found = ""
    for row in rows:
        old, new = (any(text.partition("/")[0] == address for text in row[key]) for key in ("old", "new"))
        found = "came" if new and not old else "went" if old and not new else found
    return found


@pytest.fixture
def office() -> Iterator[Office]:
    """The DHCP server and the asker; in a folder that an ordinary user may enter."""
    with tempfile.TemporaryDirectory(prefix="nexoraldns-") as folder:
        os.chmod(folder, 0o755)
        it = Office(pathlib.Path(folder))
        try:
            yield it
        finally:
            it.close()
            print(it.logs())


def everywhere(boxes: list[Box], seconds: float, what: str, holds: Callable[[Box], Any]) -> None:
    """Wait until something is true of every box."""
    for box in boxes:
        until(lambda box=box: holds(box), seconds, f"{what} ({box.mode})")


@pytest.mark.parametrize("name", CLIENTS)
def test_nobody_notices(office: Office, name: str) -> None:
    """Lease, renewal, another address, a change by hand, a link that goes and comes, release, expiry: no question to an
    address that is there is lost (20 ms after it came where it has a socket of its own), a connection to an address
    that stays goes on, no worker is replaced, and every change is told."""
    boxes = [Box(office, mode, number) for number, mode in enumerate(LISTEN)]
    try:
        for box in boxes:
            box.begin()
        _go_through(office, boxes, name)
        for box in boxes:
            box.end()
    except BaseException:
        for box in boxes:
            with contextlib.suppress(Exception):
                box.end()
        raise
    for box in boxes:
        after_s = 0.02 if box.mode == "addresses" else 0.0
        eth0, lan0 = box.loads
        print(f"{name} {box.mode}: {len(eth0.sent) + len(lan0.sent)} questions, {len(box.kernel())} changes, "
              f"at most {max(row['duration_ms'] for row in box.kernel())} ms")  # fmt: skip
        assert eth0.lost(after_s, apart=box.apart) == [] and lan0.lost(after_s) == []
        assert eth0.wrong_source == lan0.wrong_source == 0
        assert len(eth0.answered) > 200 and len(lan0.answered) > 1000
        assert all(row["duration_ms"] < 50 and row["queries"] >= 0 and row["time"] for row in box.kernel())
        assert box.worker_pids() == box.pids and "is replaced" not in box.process.text()
        assert box.host.counts().get("values_refused", 0) == 0


def _go_through(office: Office, boxes: list[Box], name: str) -> None:
    def connections() -> None:
        for box in boxes:
            heard = box.talk.heard
            until(lambda heard=heard, box=box: box.talk.broken or box.talk.heard > heard, 5, "an answer over TCP")
            assert box.talk.broken == ""

    def dns(box: Box) -> list[str]:
        return office.asker.run("dig", "+short", f"@{box.still}", "dns.office.example").split()

    # A lease.
    office.give({box.host: box.first for box in boxes})
    dnsmasq = office.dnsmasq()
    for box in boxes:
        box.client = CLIENTS[name](box.host)
    everywhere(boxes, 20, "the lease", lambda box: box.has(box.first))
    up: dict[Box, Row] = {box: ("up", [], [f"{box.first}/24"], DNS) for box in boxes}
    everywhere(boxes, 10, "the client's word", lambda box: box.host.events(name) == [up[box]])
    everywhere(boxes, 5, "the kernel's word", lambda box: box.came(box.first))
    everywhere(boxes, 5, "its own name", lambda box: box.first in dns(box))
    connections()

    # The same address again: no event, no socket.
    changes = {box: len(box.kernel()) for box in boxes}
    for box in boxes:
        renew(name, box.client)
    everywhere(boxes, 15, "a renewal", lambda box: box.host.counts().get("unchanged", 0) >= 1)
    for box in boxes:
        assert box.host.events(name) == [up[box]] and len(box.kernel()) == changes[box]

    # Another address.
    office.give({box.host: box.second for box in boxes}, dnsmasq)
    for box in boxes:
        renew(name, box.client)
    everywhere(boxes, 30, "another address", lambda box: box.has(box.second))
    # With a NAK in between the client has no address for a moment, and may say so.
    everywhere(boxes, 10, "the client's word", lambda box: box.host.events(name)[-1][2] == [f"{box.second}/24"])
    for box in boxes:
        change = ("change", [f"{box.first}/24"], [f"{box.second}/24"], DNS)
        both = [("down", [f"{box.first}/24"], [], []), ("up", [], [f"{box.second}/24"], DNS)]
        assert box.host.events(name)[1:] in ([change], both)
    everywhere(boxes, 5, "the kernel's word", lambda box: box.went(box.first) and box.came(box.second))
    everywhere(boxes, 5, "its own name", lambda box: box.second in dns(box) and box.first not in dns(box))
    for box in boxes:
        answer = office.asker.run("dig", "+short", f"@{box.still}", "-x", box.second).split()
        assert answer == ["dns.office.example."]
    connections()

    # By hand, beside the client: on its interface, and on one that has none.
    for box in boxes:
        box.host.run("ip", "addr", "add", f"{box.fixed}/24", "dev", "eth0")
        box.host.run("ip", "addr", "add", f"10.78.{box.number}.9/24", "dev", "lan0")
    everywhere(boxes, 5, "the kernel's word", lambda box: box.came(box.fixed))
    for box in boxes:
        box.host.run("ip", "addr", "del", f"{box.fixed}/24", "dev", "eth0")
        box.host.run("ip", "addr", "del", f"10.78.{box.number}.9/24", "dev", "lan0")
    everywhere(boxes, 5, "the kernel's word", lambda box: box.went(box.fixed))
    connections()

    # The link goes and comes. dhcpcd gives its address up meanwhile, the others keep it.
    begun = time.monotonic() - 0.03
    for box in boxes:
        office.server.run("ip", "link", "set", f"port{box.number}", "down")
    everywhere(boxes, 5, "no link", lambda box: not box.host.up("eth0"))
    if name == "dhcpcd":
        everywhere(boxes, 10, "no address", lambda box: box.has())
        everywhere(boxes, 10, "the client's word", lambda box: box.host.events(name)[-1][0] == "down")
    for box in boxes:
        office.server.run("ip", "link", "set", f"port{box.number}", "up")
    everywhere(boxes, 5, "the link", lambda box: box.host.up("eth0") and office.server.up(f"port{box.number}"))
    for box in boxes:
        box.apart.append((begun, time.monotonic()))
    everywhere(boxes, 20, "its address", lambda box: box.has(box.second))
    again: dict[Box, Row] = {box: ("up", [], [f"{box.second}/24"], DNS) for box in boxes}
    if name == "dhcpcd":
        everywhere(boxes, 10, "the client's word", lambda box: box.host.events(name)[-1] == again[box])
    answered = {box: len(box.loads[0].answered) for box in boxes}
    everywhere(boxes, 5, "answers", lambda box: len(box.loads[0].answered) > answered[box] + 20)
    connections()

    # Released.
    for box in boxes:
        release(box.host, name, box.client)
    gone: dict[Box, Row] = {box: ("down", [f"{box.second}/24"], [], []) for box in boxes}
    everywhere(boxes, 15, "the release", lambda box: box.has() and box.host.events(name)[-1] == gone[box])
    everywhere(boxes, 5, "the kernel's word", lambda box: box.went(box.second))
    everywhere(boxes, 5, "its own name", lambda box: dns(box) == [box.still])
    connections()

    # A lease that nobody renews.
    if name in EXPIRY_S:
        for box in boxes:
            with contextlib.suppress(AssertionError):
                box.client.end()
        dnsmasq.end(signal.SIGKILL)
        server = office.short_leases(EXPIRY_S[name])
        for box in boxes:
            box.client = CLIENTS[name](box.host)
        everywhere(boxes, 20, "the lease", lambda box: box.has(box.second))
        everywhere(  # dhclient remembers that it had this address before
            boxes, 10, "its word", lambda box: box.host.events(name)[-1][2:] == ([f"{box.second}/24"], [SERVER])
        )
        server.end(signal.SIGKILL)
        everywhere(boxes, EXPIRY_S[name] + 20, "its end", lambda box: box.host.events(name)[-1] == gone[box])
        assert all(box.has() for box in boxes)
        everywhere(boxes, 5, "the kernel's word", lambda box: box.went(box.second))
        connections()

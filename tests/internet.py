"""A miniature Internet on loopback: a root, two top-level domains and their children, served by real NSD and Knot.

Each has an address of its own in 127/8 and listens on port 53 there, as resolvers expect; binding it needs root.
Some of it is broken on purpose:

    .            NSD    delegates lab. and shop. (shop's name server lies below lab.)
    lab.         Knot   delegates: farm (glue), field (glueless, served below shop.), split (one of two servers is
                        dead), lame (its server refuses), dead (nobody listens), silent (a socket that never answers),
                        lost (no glue where glue is needed), ring (needs shop's ring, which needs lab's ring)
    shop.        Knot   aliases to lab., a DNAME, a wildcard
    farm.lab.    NSD    records, an answer too large for UDP, an empty non-terminal, aliases in a circle
    field.lab.   NSD    found only through ns.hosting.shop.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import random
import shutil
import socket
from collections.abc import Iterator
from typing import Any

import dns.message
import dns.query

from tests.lan import Process, until

_SOA = "@ 3600 IN SOA ns.{zone} host.{zone} 1 3600 600 86400 60"


@dataclasses.dataclass(frozen=True)
class Internet:
    """Where it is. `root` is the root server's address; `addresses` by what lives there."""

    folder: pathlib.Path
    root: str
    addresses: dict[str, str]
    processes: tuple[Process, ...]

    @property
    def resolver(self) -> dict[str, Any]:
        """The settings' `resolver` for this Internet."""
        return {
            "root_hints": [{"name": "ns.root-servers.lab", "addresses": [self.root]}],
            "query_localhost": True,
            "use_ipv6": False,
            "trust_anchors": [],
        }

    @property
    def hints(self) -> pathlib.Path:
        """The same hints as a file like named.root."""
        return self.folder / "root.hints"


def _zones(base: str) -> dict[str, dict[str, list[str]]]:
    """Server → zone → lines."""
    large = [f'large 60 IN TXT "{number:03d}{"x" * 180}"' for number in range(40)]
    chain = [f"c{number:02d} IN CNAME c{number + 1:02d}" for number in range(1, 10)] + ["c10 IN A 192.0.2.10"]
    return {
        "root": {
            ".": [
                "@ IN NS ns.root-servers.lab.", f"ns.root-servers.lab. IN A {base}.1",
                "lab. IN NS ns.nic.lab.", f"ns.nic.lab. IN A {base}.2",
                "shop. IN NS ns.shops.lab.", f"ns.shops.lab. IN A {base}.3",
            ]
        },
        "lab": {
            "lab.": [
                "@ IN NS ns.nic", f"ns.nic IN A {base}.2", f"ns.shops IN A {base}.3", f"ns.root-servers IN A {base}.1",
                "farm IN NS ns.farm", f"ns.farm IN A {base}.4",
                "field IN NS ns.hosting.shop.",
                "split IN NS ns1.split", "split IN NS ns2.split",
                f"ns1.split IN A {base}.9", f"ns2.split IN A {base}.4",
                "lame IN NS ns.lame", f"ns.lame IN A {base}.4",
                "dead IN NS ns.dead", f"ns.dead IN A {base}.9",
                "silent IN NS ns.silent", f"ns.silent IN A {base}.8",
                "lost IN NS ns.lost",
                "ring IN NS ns.ring.shop.",
                "www IN A 192.0.2.1", "www IN AAAA 2001:db8::1", "mail IN MX 10 www",
            ]
        },
        "shop": {
            "shop.": [
                "@ IN NS ns.shops.lab.", f"ns.hosting IN A {base}.5",
                "ring IN NS ns.ring.lab.",
                "door IN CNAME www.farm.lab.", "far IN CNAME www.field.lab.", "gone IN CNAME nothing.farm.lab.",
                "old IN DNAME farm.lab.", "*.wild IN A 192.0.2.33", "*.wild IN TXT wild", "a.*.odd IN A 192.0.2.34",
            ]
        },
        "farm": {
            "farm.lab.": [
                "@ IN NS ns", f"ns IN A {base}.4", "@ IN MX 10 mail", "mail IN A 192.0.2.25", "www IN A 192.0.2.2",
                "www IN TXT hello", "x.y.deep IN A 192.0.2.3", "a IN CNAME b", "b IN CNAME a",
                "dead IN CNAME x.dead.lab.",
                *large, *chain,
            ],
            "split.lab.": ["@ IN NS ns1", "@ IN NS ns2", "www IN A 192.0.2.4"],
        },
        "field": {"field.lab.": ["@ IN NS ns.hosting.shop.", "www IN A 192.0.2.5", "www 0 IN TXT short"]},
    }  # fmt: skip


def _nsd(folder: pathlib.Path, name: str, address: str, zones: dict[str, pathlib.Path]) -> Process:
    config = folder / f"{name}.conf"
    text = (
        f'server:\n  ip-address: {address}\n  port: 53\n  username: ""\n  chroot: ""\n  pidfile: ""\n  database: ""\n'
        f'  zonesdir: "{folder}"\n  xfrdir: "{folder}"\n  zonelistfile: "{folder}/{name}.list"\n  server-count: 1\n'
        f'  xfrdfile: "{folder}/{name}.xfrd"\n  logfile: ""\nremote-control:\n  control-enable: no\n'
    )
    for zone, path in zones.items():
        text += f'zone:\n  name: "{zone}"\n  zonefile: "{path}"\n'
    config.write_text(text)
    return Process(name, [_program("nsd"), "-d", "-c", str(config)], folder)


def _knot(folder: pathlib.Path, name: str, address: str, zones: dict[str, pathlib.Path]) -> Process:
    config = folder / f"{name}.conf"
    run = folder / f"{name}.run"
    run.mkdir()
    text = (
        f'server:\n  listen: {address}@53\n  rundir: "{run}"\n  udp-workers: 1\n  tcp-workers: 1\n'
        f'  background-workers: 1\nlog:\n  - target: stderr\n    any: warning\ndatabase:\n  storage: "{run}"\nzone:\n'
    )
    for zone, path in zones.items():
        text += f'  - domain: "{zone}"\n    file: "{path}"\n    zonefile-sync: -1\n    zonefile-load: whole\n'
    config.write_text(text)
    return Process(name, [_program("knotd"), "-c", str(config)], folder)


def _program(name: str) -> str:
    return shutil.which(name) or f"/usr/sbin/{name}"


def _free_network() -> str:
    """Three octets of 127/8 that nobody serves DNS in."""
    while True:
        base = f"127.{random.randrange(16, 250)}.{random.randrange(250)}"
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind((f"{base}.1", 53))
        except PermissionError:
            raise
        except OSError:
            continue
        return base


def _serves(address: str, zone: str) -> bool:
    try:
        answer = dns.query.udp(dns.message.make_query(zone, "SOA"), address, timeout=0.5)
    except (OSError, dns.exception.DNSException):
        return False
    return bool(answer.answer)


@contextlib.contextmanager
def internet(folder: pathlib.Path) -> Iterator[Internet]:
    """Start it in a folder; everything ends with the block."""
    base = _free_network()
    numbers = {"root": 1, "lab": 2, "shop": 3, "farm": 4, "field": 5}
    addresses = {name: f"{base}.{number}" for name, number in numbers.items()}
    (folder / "root.hints").write_text(f". 3600 NS ns.root-servers.lab.\nns.root-servers.lab. 3600 A {base}.1\n")
    processes = []
    with contextlib.ExitStack() as stack:
        mute = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        mute.bind((f"{base}.8", 53))
        for name, zones in _zones(base).items():
            files = {}
            for zone, lines in zones.items():
                path = folder / f"{name}-{zone.strip('.') or 'root'}.zone"
                soa = _SOA.format(zone=zone if zone != "." else "root-servers.lab.")
                path.write_text(f"$ORIGIN {zone}\n$TTL 300\n" + "\n".join([soa, *lines]) + "\n")
                files[zone] = path
            start = _knot if name in ("lab", "shop") else _nsd
            process = start(folder, name, addresses[name], files)
            processes.append(process)
            stack.callback(process.end)
        for name, zones in _zones(base).items():
            for zone in zones:
                until(lambda name=name, zone=zone: _serves(addresses[name], zone), 10, f"{name} serving {zone}")  # type: ignore[misc]
        yield Internet(folder, addresses["root"], addresses, tuple(processes))

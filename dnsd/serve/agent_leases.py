"""The DNS servers of the machine's leases, as DHCP clients told them through hook and broker.

The broker sends the latest word about each interface, also to a node that has just connected. It is kept on disk
until the machine boots again: the controller is not required, and a client's next word may be hours away. A lease that
has outlived its time is not used; only while no broker could have told that it goes on, the kernel is believed, which
still has its address. All of it came from a DHCP server: what cannot be a server of ours (we ourselves above all) is
left out. Times are milliseconds since the boot.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import json
import os
import socket
import time
from collections.abc import Mapping, Set
from typing import Any

from dnsd.contract.facts import packed

MOST_INTERFACES = 64
MOST_SERVERS = 16
_PORT = 53
_BOOT = "/proc/sys/kernel/random/boot_id"

GRACE_MS = 15_000  # the broker's word about the end, if there is one, comes first

Server = tuple[bytes, int, int]


def boot_ms() -> int:
    """Now. Sleep counts: a lease grows old while the machine sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class _Lease:
    """What is known of one interface's leases together. `ends_ms` 0: nobody has said."""

    dns: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    ends_ms: int = 0


_NONE = _Lease(())


class Leases:
    """`file` holds what is known over restarts."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._leases: dict[str, _Lease] = {}
        self._boot = _read(_BOOT).strip()
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            saved = json.loads(_read(file))
            if saved["boot"] == self._boot:
                for name, row in saved["leases"].items():
                    dns, addresses = (tuple(map(str, row[key])) for key in ("dns", "addresses"))
                    self._keep(name, _Lease(dns, addresses, int(row["ends_ms"])))

    def hear(self, event: Mapping[str, Any], now_ms: int) -> bool:
        """Take in an EVENT of the broker (checked by the codec); True when the servers are others now."""
        name, before = str(event.get("interface", "")), dict(self._leases)
        gone = event.get("kind") == "down" and not event.get("dns")
        ends_ms = now_ms + 1000 * event["lifetime"] if "lifetime" in event else 0
        servers = () if gone else tuple(event.get("dns", ())[:MOST_SERVERS])
        self._keep(name, _Lease(servers, tuple(event.get("new", ())), ends_ms))
        if self._leases == before:
            return False
        self._save()
        return self._leases.get(name, _NONE).dns != before.get(name, _NONE).dns

    def expire(self, now_ms: int, own: Set[bytes], *, told: bool) -> bool:
        """Forget what has outlived its time; True when that was something. `told`: a broker is there to say more."""
        over = [
            name for name, lease in self._leases.items()
            if 0 < lease.ends_ms <= now_ms - GRACE_MS and (told or not own & _packed(lease.addresses))
        ]  # fmt: skip
        for name in over:
            del self._leases[name]
        if over:
            self._save()
        return bool(over)

    def _keep(self, name: str, lease: _Lease) -> None:
        self._leases.pop(name, None)
        if lease.dns:
            self._leases[name] = lease
        while len(self._leases) > MOST_INTERFACES:
            del self._leases[next(iter(self._leases))]

    def servers(self, own: Set[bytes]) -> tuple[Server, ...]:
        """Address, port and interface number (0 unless link-local) of each server that may be asked.

        `own` are our addresses: a DHCP server that names this very machine must not make it ask itself.
        """
        found: dict[Server, None] = {}
        for name, lease in sorted(self._leases.items()):
            for text in lease.dns:
                server = _server(text, name)
                if server is not None and server[0] not in own:
                    found[server] = None
        return tuple(found)[:MOST_SERVERS]

    def _save(self) -> None:
        leases = {name: dataclasses.asdict(lease) for name, lease in self._leases.items()}
        text = json.dumps({"boot": self._boot, "leases": leases})
        with contextlib.suppress(OSError):  # without it only a restart without a controller is poorer
            with open(f"{self._file}.new", "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(f"{self._file}.new", self._file)


def _packed(addresses: tuple[str, ...]) -> set[bytes]:
    found = set()
    for text in addresses:
        with contextlib.suppress(ValueError):
            found.add(packed(text.partition("/")[0].partition("%")[0]))
    return found


def _server(text: str, interface: str) -> Server | None:
    host, _, zone = text.partition("/")[0].partition("%")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    if address.is_unspecified or address.is_multicast or address.is_loopback or str(address) == "255.255.255.255":
        return None
    index = 0
    if address.version == 6 and address.is_link_local:
        try:
            index = socket.if_nametoindex(zone or interface)
        except OSError:
            return None
        if index > 0xFFFF:
            return None
    return packed(address), _PORT, index


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""

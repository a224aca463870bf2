"""The DNS servers of the machine's leases, as DHCP clients told them through hook and broker.

The broker sends the latest word about each interface, also to a node that has just connected. It is kept on disk
until the machine boots again: the controller is not required, and a client's next word may be hours away. All of it
came from a DHCP server: what cannot be a server of ours (we ourselves above all) is left out.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import socket
from collections.abc import Collection, Mapping
from typing import Any

from dnsd.contract.facts import packed

MOST_INTERFACES = 64
MOST_SERVERS = 16
_PORT = 53
_BOOT = "/proc/sys/kernel/random/boot_id"

Server = tuple[bytes, int, int]


class Leases:
    """`file` holds what is known over restarts."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._servers: dict[str, list[str]] = {}
        self._boot = _read(_BOOT).strip()
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            saved = json.loads(_read(file))
            if saved["boot"] == self._boot:
                for name, servers in saved["leases"].items():
                    self._keep(name, [text for text in servers if isinstance(text, str)])

    def hear(self, event: Mapping[str, Any]) -> bool:
        """Take in an EVENT of the broker (checked by the codec); True when the servers are others now."""
        before = dict(self._servers)
        gone = event.get("kind") == "down" and not event.get("dns")
        self._keep(str(event.get("interface", "")), [] if gone else list(event.get("dns", ())))
        if self._servers == before:
            return False
        self._save()
        return True

    def _keep(self, name: str, servers: list[str]) -> None:
        self._servers.pop(name, None)
        if servers:
            self._servers[name] = servers[:MOST_SERVERS]
        while len(self._servers) > MOST_INTERFACES:
            del self._servers[next(iter(self._servers))]

    def servers(self, own: Collection[bytes]) -> tuple[Server, ...]:
        """Address, port and interface number (0 unless link-local) of each server that may be asked.

        `own` are our addresses: a DHCP server that names this very machine must not make it ask itself.
        """
        found: dict[Server, None] = {}
        for name, texts in sorted(self._servers.items()):
            for text in texts:
                server = _server(text, name)
                if server is not None and server[0] not in own:
                    found[server] = None
        return tuple(found)[:MOST_SERVERS]

    def _save(self) -> None:
        text = json.dumps({"boot": self._boot, "leases": self._servers})
        with contextlib.suppress(OSError):  # without it only a restart without a controller is poorer
            with open(f"{self._file}.new", "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(f"{self._file}.new", self._file)


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

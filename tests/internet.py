"""A miniature Internet on loopback for tests: the product's lab (`controller.lab`), all of it broken; signed or not.

Each server has an address of its own in 127/8 and listens on port 53 there, as resolvers expect; binding it needs root.
What lives where, and what is broken on purpose, is in `controller/lab/world.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pathlib
import random
from collections.abc import Iterator
from typing import Any

from controller.lab import place, world
from controller.lab.laboratory import Laboratory


@dataclasses.dataclass(frozen=True)
class Internet:
    """Where it is. `root` is the root server's address; `addresses` by what lives there."""

    folder: pathlib.Path
    root: str
    addresses: dict[str, str]
    anchors: tuple[str, ...] = ()

    @property
    def resolver(self) -> dict[str, Any]:
        """The settings' `resolver` for this Internet."""
        return {
            "root_hints": [{"name": "ns.root-servers.lab", "addresses": [self.root]}],
            "query_localhost": True,
            "use_ipv6": False,
            "trust_anchors": list(self.anchors),
        }

    @property
    def hints(self) -> pathlib.Path:
        """The same hints as a file like named.root."""
        return self.folder / "root.hints"


@contextlib.contextmanager
def internet(folder: pathlib.Path, signed: bool = False) -> Iterator[Internet]:
    """Start it in a folder; everything ends with the block."""
    laboratory = Laboratory(
        folder, place.base(f"127.{random.randrange(100, 250)}.{random.randrange(250)}"), signed=signed
    )
    addresses = {server.name: laboratory.running.address(server) for server in world.SERVERS}
    root = addresses["root"]
    (folder / "root.hints").write_text(f". 3600 NS ns.root-servers.lab.\nns.root-servers.lab. 3600 A {root}\n")
    try:
        asyncio.run(laboratory.start())
        yield Internet(folder, root, addresses, (laboratory.anchor(),) if signed else ())
    finally:
        laboratory.end()

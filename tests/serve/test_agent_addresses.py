"""Our own addresses, from the kernel."""

from __future__ import annotations

import asyncio
import struct

from hypothesis import given
from hypothesis import strategies as st

from dnsd.contract.facts import packed
from dnsd.serve import agent_addresses
from dnsd.serve.agent_addresses import Addresses


def message(family: int, attributes: list[tuple[int, bytes]], kind: int = 20) -> bytes:
    body = struct.pack("=BBBBI", family, 24, 0, 0, 1)
    for number, value in attributes:
        body += struct.pack("=HH", 4 + len(value), number) + value + b"\x00" * (-len(value) % 4)
    return struct.pack("=IHHII", 16 + len(body), kind, 2, 1, 0) + body


def test_the_kernel_tells_our_addresses() -> None:
    """A dump names at least the loopback address, without any privilege."""

    async def body() -> set[bytes]:
        told: asyncio.Future[set[bytes]] = asyncio.get_running_loop().create_future()
        addresses = Addresses(told.set_result)
        addresses.start()
        try:
            return await asyncio.wait_for(told, 3)
        finally:
            addresses.stop()

    assert packed("127.0.0.1") in asyncio.run(body())


def test_point_to_point_links_give_our_end() -> None:
    """IFA_LOCAL is ours; IFA_ADDRESS may be the peer's."""
    v4 = message(2, [(1, bytes((10, 0, 0, 2))), (2, bytes((10, 0, 0, 1)))])
    v6 = message(10, [(1, bytes(15) + b"\x01")])
    done = struct.pack("=IHHII", 16, 3, 0, 1, 0)
    assert agent_addresses.read_addresses(v4 + v6) == ({packed("10.0.0.1"), packed("::1")}, False)
    assert agent_addresses.read_addresses(v4 + done)[1]
    assert agent_addresses.texts({packed("10.0.0.1"), packed("::1")}) == ["10.0.0.1", "::1"]


@given(st.binary(max_size=200), st.integers(0, 60))
def test_any_octets_are_read_without_a_fault(octets: bytes, length: int) -> None:
    """Whatever comes: a set of addresses of 16 octets."""
    for data in (octets, struct.pack("=IHHII", length, 20, 0, 1, 0) + octets):
        found, _ = agent_addresses.read_addresses(data)
        assert all(len(address) == 16 for address in found)

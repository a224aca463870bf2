"""Interfaces and addresses from the kernel: what its messages say, whatever they hold."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsd.contract.facts import packed
from dnsd.serve import netlink
from dnsd.serve.netlink import Address, Kernel


def row(family: int, attributes: list[tuple[int, bytes]], flags: int = 0, scope: int = 0, index: int = 1) -> bytes:
    """The body of an address message."""
    body = struct.pack("=BBBBI", family, 24, flags, scope, index)
    for number, value in attributes:
        body += struct.pack("=HH", 4 + len(value), number) + value + b"\x00" * (-len(value) % 4)
    return body


def test_the_kernel_tells_interfaces_and_addresses() -> None:
    """A dump names at least the loopback interface and its address, without any privilege."""
    kernel = Kernel()
    try:
        assert kernel.index("lo") == 1 and kernel.links[1] == "lo" and kernel.index("no-such") == 0
        assert packed("127.0.0.1") in {address.address for address in kernel.addresses("lo")}
        assert kernel.by_interface()["lo"] == kernel.addresses("lo")
        assert not kernel.read()
    finally:
        kernel.close()


def test_point_to_point_links_give_our_end() -> None:
    """IFA_LOCAL is ours; IFA_ADDRESS may be the peer's."""
    v4 = netlink.address(row(2, [(1, bytes((10, 0, 0, 2))), (2, bytes((10, 0, 0, 1)))]))
    v6 = netlink.address(row(10, [(1, bytes(15) + b"\x01")]))
    assert v4 == Address(packed("10.0.0.1"), 24, 1, 0, 0) and str(v4) == "10.0.0.1/24"
    assert v6 is not None and v6.text == "::1" and not v6.lasting
    assert netlink.address(row(28, [(1, bytes(6))])) is None and netlink.address(b"") is None


@pytest.mark.parametrize(
    "flags, usable, lasting",
    [(0x80, True, True), (0xC0, True, False), (0x01, True, False), (0x20, True, False), (0x48, False, False)],
)
def test_flags_say_what_an_address_is_good_for(flags: int, usable: bool, lasting: bool) -> None:
    """Tentative, temporary and deprecated ones are ours but told to nobody; one found elsewhere is not ours."""
    wide = (8, struct.pack("=I", flags))
    found = netlink.address(row(10, [(1, packed("2001:db8::7")), wide]))
    assert found is not None and (found.usable, found.lasting) == (usable, lasting)


def test_a_secondary_address_is_no_privacy_address() -> None:
    """The same bit means two things: secondary for IPv4, temporary for IPv6."""
    found = netlink.address(row(2, [(2, bytes((10, 0, 0, 7)))], flags=0x81))
    assert found is not None and found.lasting
    local = netlink.address(row(2, [(2, bytes((169, 254, 0, 7)))], scope=netlink.SCOPE_LINK))
    assert local is not None and local.usable and not local.lasting


@given(st.binary(max_size=200), st.integers(0, 60), st.integers(16, 22))
def test_any_octets_are_read_without_a_fault(octets: bytes, length: int, kind: int) -> None:
    """Whatever comes: messages, addresses of 16 octets, or nothing."""
    for data in (octets, struct.pack("=IHHII", length, kind, 0, 1, 0) + octets):
        for message in netlink.messages(data):
            found = netlink.address(message.body)
            assert found is None or len(found.address) == 16
            netlink.link(message.body)

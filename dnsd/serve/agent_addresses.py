"""Which addresses are ours, as the kernel says it: rtnetlink, a dump at the start and a dump after each change.

The kernel's events are only a nudge: each is answered by asking for everything again, so a lost event
(ENOBUFS) costs nothing but time. Layouts: rtnetlink(7), linux/rtnetlink.h, linux/if_addr.h.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

from dnsd.contract.facts import packed, unpacked

_RTM_NEWADDR, _RTM_GETADDR = 20, 22
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST_DUMP = 0x301
_GROUPS = 0x10 | 0x100  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_HEADER = struct.Struct("=IHHII")
_IFADDR = struct.Struct("=BBBBI")
SETTLE_S = 0.02  # addresses often change in bunches


def read_addresses(data: bytes) -> tuple[set[bytes], bool]:
    """The addresses (16 octets each) in the octets of a dump, and whether the dump ends in them."""
    found: set[bytes] = set()
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            break
        if kind in (_NLMSG_DONE, _NLMSG_ERROR):
            return found, True
        if kind == _RTM_NEWADDR and length >= _HEADER.size + _IFADDR.size:
            address = _address(data[at + _HEADER.size : at + length])
            if address is not None:
                found.add(address)
        at += (length + 3) & ~3
    return found, False


def _address(body: bytes) -> bytes | None:
    """IFA_LOCAL if there is one (the peer's address is in IFA_ADDRESS on point-to-point links), else IFA_ADDRESS."""
    sizes: dict[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 16}
    size = sizes.get(body[0])
    values: dict[int, bytes] = {}
    at = _IFADDR.size
    while size and at + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, at)
        if length < 4:
            break
        values[kind] = body[at + 4 : at + length]
        at += (length + 3) & ~3
    raw = values.get(_IFA_LOCAL, values.get(_IFA_ADDRESS, b""))
    if size is None or len(raw) != size:
        return None
    return packed(socket.inet_ntop(body[0], raw))


def texts(addresses: set[bytes]) -> list[str]:
    """The addresses as text, for the log."""
    return sorted(str(unpacked(address)) for address in addresses)


class Addresses:
    """Tells `changed` our addresses at the start and whenever they are different."""

    def __init__(self, changed: Callable[[set[bytes]], None]) -> None:
        self._changed = changed
        self._known: set[bytes] | None = None
        self._collected: set[bytes] = set()
        self._sock: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Subscribe and ask. Raises OSError where there is no rtnetlink (some sandboxes)."""
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
        try:
            sock.bind((0, _GROUPS))
            self._sock = sock
            self._ask()
        except OSError:
            sock.close()
            self._sock = None
            raise
        asyncio.get_running_loop().add_reader(sock.fileno(), self._readable)

    def stop(self) -> None:
        """Unsubscribe."""
        if self._timer is not None:
            self._timer.cancel()
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            self._sock.close()
            self._sock = None

    def _ask(self) -> None:
        self._timer = None
        self._collected = set()
        if self._sock is not None:
            body = _IFADDR.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
            header = _HEADER.pack(_HEADER.size + len(body), _RTM_GETADDR, _NLM_F_REQUEST_DUMP, 1, 0)
            with contextlib.suppress(BlockingIOError):
                self._sock.send(header + body)

    def _readable(self) -> None:
        assert self._sock is not None
        try:
            data = self._sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:  # ENOBUFS: events were lost
            data = b""
        sequence = _HEADER.unpack_from(data)[3] if len(data) >= _HEADER.size else 0
        if sequence != 1:  # an event, or a gap: ask for everything, once things have settled
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(SETTLE_S, self._ask)
            return
        found, done = read_addresses(data)
        self._collected |= found
        if done and self._collected != self._known:
            self._known = self._collected
            self._changed(set(self._collected))

"""Interfaces and addresses as the kernel says them: rtnetlink, a dump at the start, then every change as it happens.

Stdlib only: four message kinds of one family are read and two requests are sent, which is less than what
a netlink package would have to be loaded and trusted for. A lost event (ENOBUFS) is answered by asking
for everything again. Layouts: rtnetlink(7), linux/rtnetlink.h, linux/if_addr.h.
"""

from __future__ import annotations

import dataclasses
import select
import socket
import struct
from collections.abc import Iterator

from dnsd.contract.facts import packed, unpacked

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST_DUMP = 0x301
_NLM_F_DUMP_INTR = 0x10
_GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFLA_IFNAME = 3
_HEADER = struct.Struct("=IHHII")
_IFADDR = struct.Struct("=BBBBI")
_IFINFO = struct.Struct("=BxHiII")
_RECEIVE = 1 << 18
_BUFFER = 1 << 20
_DUMP_TRIES = 5
_DUMP_WAIT_S = 1.0
SO_RCVBUFFORCE = 33

# linux/if_addr.h; 0x01 means "secondary" for IPv4 and "temporary" for IPv6 (a privacy address, RFC 8981).
F_TEMPORARY, F_DAD_FAILED, F_DEPRECATED, F_TENTATIVE = 0x01, 0x08, 0x20, 0x40
SCOPE_GLOBAL, SCOPE_LINK, SCOPE_HOST = 0, 253, 254


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Address:
    """One address of one interface: 16 octets (IPv4 mapped), prefix length, the interface's number, scope, flags."""

    address: bytes
    prefix: int
    index: int
    scope: int
    flags: int

    @property
    def v6(self) -> bool:
        """Whether it is an IPv6 address."""
        return unpacked(self.address).version == 6

    @property
    def usable(self) -> bool:
        """Whether it is ours: false when duplicate address detection found it elsewhere (RFC 4862, section 5.4)."""
        return not self.flags & F_DAD_FAILED

    @property
    def lasting(self) -> bool:
        """Whether others may be told of it: global, found unique, not deprecated, and no privacy address."""
        if self.scope != SCOPE_GLOBAL or unpacked(self.address).is_loopback:
            return False
        hidden = F_TENTATIVE | F_DAD_FAILED | F_DEPRECATED | (F_TEMPORARY if self.v6 else 0)
        return not self.flags & hidden

    @property
    def text(self) -> str:
        """The address as people read it."""
        return str(unpacked(self.address))

    def __str__(self) -> str:
        return f"{self.text}/{self.prefix}"


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """One netlink message: its kind, flags, the number of the request that it answers (0 for an event), its body."""

    kind: int
    flags: int
    sequence: int
    body: bytes


def messages(data: bytes) -> Iterator[Message]:
    """The messages in what one receive gave; stops at the first that does not fit."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            return
        yield Message(kind, flags, sequence, data[at + _HEADER.size : at + length])
        at += (length + 3) & ~3


def _attributes(body: bytes, at: int) -> dict[int, bytes]:
    values: dict[int, bytes] = {}
    while at + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, at)
        if length < 4:
            break
        values[kind & 0x3FFF] = body[at + 4 : at + length]
        at += (length + 3) & ~3
    return values


def address(body: bytes) -> Address | None:
    """The address of an RTM_NEWADDR or RTM_DELADDR; None for other families and for what does not fit.

    IFA_LOCAL if there is one (on point-to-point links IFA_ADDRESS is the peer's), else IFA_ADDRESS.
    """
    if len(body) < _IFADDR.size:
        return None
    family, prefix, flags, scope, index = _IFADDR.unpack_from(body)
    sizes: dict[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 16}
    size = sizes.get(family)
    values = _attributes(body, _IFADDR.size)
    raw = values.get(_IFA_LOCAL, values.get(_IFA_ADDRESS, b""))
    if size is None or len(raw) != size:
        return None
    wide = values.get(_IFA_FLAGS, b"")  # the header has room for eight flags only
    if len(wide) == 4:
        flags = int.from_bytes(wide, "little" if struct.pack("=H", 1)[0] else "big")
    return Address(packed(socket.inet_ntop(family, raw)), prefix, index, scope, flags)


def link(body: bytes) -> tuple[int, str] | None:
    """The (number, name) of an RTM_NEWLINK or RTM_DELLINK; None for what is not about an interface as a whole."""
    if len(body) < _IFINFO.size:
        return None
    family, _, index, _, _ = _IFINFO.unpack_from(body)
    name = _attributes(body, _IFINFO.size).get(_IFLA_IFNAME, b"").rstrip(b"\0")
    if family != socket.AF_UNSPEC or not name:  # AF_BRIDGE: a port left its bridge, the interface lives on
        return None
    return index, name.decode("utf-8", "replace")


class Kernel:
    """What the kernel says, kept current: `links` (number → name) and `rows` (every address).

    `read` takes in what has happened; it never blocks. Raises OSError where there is no rtnetlink (some sandboxes).
    """

    def __init__(self) -> None:
        self.links: dict[int, str] = {}
        self.rows: dict[tuple[int, bytes, int], Address] = {}
        self._sequence = 0
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
        try:
            try:
                self._sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _BUFFER)
            except OSError:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            self._sock.bind((0, _GROUPS))
            self.refresh()
        except BaseException:
            self._sock.close()
            raise

    def fileno(self) -> int:
        """The descriptor that becomes readable when something has happened."""
        return self._sock.fileno()

    def close(self) -> None:
        """Listen no more."""
        self._sock.close()

    def read(self) -> bool:
        """Take in all events that wait; returns whether there were any that concern interfaces or addresses."""
        told = False
        while True:
            try:
                data, (sender, _) = self._sock.recvfrom(_RECEIVE)
            except BlockingIOError:
                return told
            except OSError:  # ENOBUFS: events were lost
                self.refresh()
                told = True
                continue
            if sender == 0:  # the kernel itself; nobody else can tell us anything
                for message in messages(data):
                    told |= self._take(message)

    def refresh(self) -> None:
        """Forget everything and ask for all of it. Raises OSError when the kernel does not answer."""
        for _ in range(_DUMP_TRIES):
            self.links, self.rows = {}, {}
            # Events that come in between stand in the queue in the order in which they happened.
            if self._dump(RTM_GETLINK, _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0)) and self._dump(
                RTM_GETADDR, _IFADDR.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
            ):
                return

    def _dump(self, kind: int, body: bytes) -> bool:
        """Ask and read to the end; False when the kernel says that things changed while it told them."""
        self._sequence += 1
        whole = True
        self._sock.send(_HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST_DUMP, self._sequence, 0) + body)
        while True:
            if not select.select([self._sock], [], [], _DUMP_WAIT_S)[0]:
                raise TimeoutError("the kernel does not tell its addresses")
            try:
                data, (sender, _) = self._sock.recvfrom(_RECEIVE)
            except BlockingIOError:
                continue
            except OSError:
                return False  # ENOBUFS
            for message in messages(data) if sender == 0 else ():
                ours = message.sequence == self._sequence
                if ours and message.flags & _NLM_F_DUMP_INTR:
                    whole = False
                if ours and message.kind == _NLMSG_ERROR:
                    raise OSError(-int.from_bytes(message.body[:4], "little", signed=True), "rtnetlink")
                if ours and message.kind == _NLMSG_DONE:
                    return whole
                self._take(message)

    def _take(self, message: Message) -> bool:
        if message.kind in (RTM_NEWADDR, RTM_DELADDR):
            row = address(message.body)
            if row is None:
                return False
            key = (row.index, row.address, row.prefix)
            if message.kind == RTM_NEWADDR:
                self.rows[key] = row
            else:
                self.rows.pop(key, None)
            return True
        if message.kind in (RTM_NEWLINK, RTM_DELLINK):
            found = link(message.body)
            if found is None:
                return False
            index, name = found
            if message.kind == RTM_NEWLINK:
                self.links[index] = name
            else:
                self.links.pop(index, None)
                self.rows = {key: row for key, row in self.rows.items() if row.index != index}
            return True
        return False

    def index(self, name: str) -> int:
        """The number of the interface that has this name now; 0 for none."""
        return next((index for index, known in self.links.items() if known == name), 0)

    def addresses(self, interface: str | None = None) -> list[Address]:
        """The addresses that are ours, of one interface or of all, sorted."""
        index = None if interface is None else self.index(interface)
        return sorted(row for row in self.rows.values() if row.usable and (index is None or row.index == index))

    def by_interface(self) -> dict[str, list[Address]]:
        """The addresses that are ours by the name of their interface."""
        found: dict[str, list[Address]] = {name: [] for name in self.links.values()}
        for row in sorted(self.rows.values()):
            if row.usable:
                found.setdefault(self.links.get(row.index, str(row.index)), []).append(row)
        return found

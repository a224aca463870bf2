"""A worker's end of its control socket: tables come in, readiness goes out.

One SOCK_SEQPACKET message is one JSON object, tables are two descriptors beside it (ARCHITECTURE.md,
"How processes talk"). This file maps and opens a table next to the one that is served; when to swap is
the worker's decision.
"""

import array
import contextlib
import dataclasses
import json
import mmap
import os
import socket
from collections.abc import Sequence
from typing import Any

from dnsd.contract.table import Table, TableError

MESSAGE_BYTES = 65536
_FDS = 64  # a table has two, new listening sockets two a slot


@dataclasses.dataclass(frozen=True, slots=True)
class TableFiles:
    """A table as it travels: descriptors of the two sealed blobs and what the agent says about them."""

    generation: int
    digest: str
    names_digest: str
    revision: str
    policy_fd: int
    names_fd: int

    def close(self) -> None:
        """Close the descriptors; mappings stay."""
        for fd in (self.policy_fd, self.names_fd):
            with contextlib.suppress(OSError):
                os.close(fd)


@dataclasses.dataclass(frozen=True, slots=True)
class Mapped:
    """A table that is mapped and opened; `digest` was read from its header."""

    generation: int
    digest: str
    names_digest: str
    revision: str
    policy: Any
    names: Any


class ControlError(Exception):
    """A message that cannot be used; the text says why."""


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and its descriptors; None when there is none. ControlError for one that makes no sense."""
    try:
        data, fds, _, _ = socket.recv_fds(sock, MESSAGE_BYTES, _FDS, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
    except (BlockingIOError, InterruptedError):
        return None
    if not data:
        raise EOFError("the other end is gone")
    try:
        message = json.loads(data)
        if not isinstance(message, dict) or not isinstance(message.get("op"), str):
            raise ValueError("no op")
    except ValueError as error:
        for fd in fds:
            os.close(fd)
        raise ControlError(f"a control message makes no sense: {error}") from None
    return message, fds


def send(sock: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> bool:
    """Send a message, with descriptors, without waiting; False when the other end does not read."""
    data = json.dumps(message, separators=(",", ":")).encode()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        # socket.send_fds ignores its flags in Python 3.11.
        sock.sendmsg([data], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except OSError:
        return False
    return True


def table_files(message: dict[str, Any], fds: list[int]) -> TableFiles:
    """The table of a `prepare` or `table` message; closes the descriptors and raises ControlError when it is none."""
    try:
        if len(fds) != 2:
            raise ControlError(f"a table comes with two descriptors, not {len(fds)}")
        generation = message["generation"]
        if not isinstance(generation, int) or not 0 < generation < 1 << 64:
            raise ControlError("a table has a generation, a number above 0")
        digest, names_digest, revision = (message.get(key, "") for key in ("digest", "names_digest", "revision"))
        if not (isinstance(digest, str) and isinstance(names_digest, str) and isinstance(revision, str)):
            raise ControlError("digest, names_digest and revision are texts")
    except (ControlError, KeyError) as error:
        for fd in fds:
            os.close(fd)
        raise ControlError(str(error)) from None
    return TableFiles(generation, digest, names_digest, revision, policy_fd=fds[0], names_fd=fds[1])


def map_table(files: TableFiles, beside: Mapped | None) -> Mapped:
    """Map and open a table, in constant time; raises TableError. The descriptors may be closed afterwards.

    A names blob that is mapped already (`beside`) is used again, so a small edit costs no page faults.
    """
    try:
        policy = _map(files.policy_fd)
        names = None
        if beside is not None and files.names_digest and beside.names_digest == files.names_digest:
            names = beside.names
        if names is None:
            names = _map(files.names_fd)
    except (OSError, ValueError) as error:
        raise TableError(f"the table cannot be mapped: {error}") from None
    table = Table(policy, names)
    return Mapped(files.generation, table.digest, table.names_digest, files.revision, policy, names)


def _map(fd: int) -> mmap.mmap:
    # Private: a write-sealed file cannot be mapped shared before Linux 6.7. The pages are the same.
    return mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)

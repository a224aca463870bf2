"""Where the lab is: addresses of 127/8 with port 53 when we may bind it, else a user and network namespace of its own.

Delegations have no ports, so name servers must have 53. Who is neither root nor may bind it gets a namespace in which
they are: everything else of the machine stays as it is, and the lab is reached through `enter`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import random
import shutil
import socket
import struct
import subprocess
import sys

BASE = "127.53.0"
_INSIDE = "NEXORALDNS_LAB_INSIDE"
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1


class PlaceError(Exception):
    """The lab cannot be here; one sentence, with what to do."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A lab that is up. `base`: three octets of 127/8; `inside`: it has a network namespace of its own."""

    pid: int
    base: str
    inside: bool

    def enter(self, words: list[str]) -> list[str]:
        """The words that run a command where the lab can be reached."""
        if not self.inside:
            return words
        return ["nsenter", "--preserve-credentials", "-U", "-n", "-t", str(self.pid), "--", *words]


def settle(words: list[str]) -> bool:
    """Make sure that port 53 can be bound: False here and now, True inside a namespace; or becomes `words` inside one.

    Raises PlaceError when neither can be had.
    """
    if os.environ.pop(_INSIDE, "") == "1":
        _raise_loopback()
        return True
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((f"127.{random.randrange(60, 250)}.{random.randrange(250)}.1", 53))
        return False
    except PermissionError:
        pass
    except OSError:
        return False  # somebody has that very address: the right is there
    unshare = shutil.which("unshare")
    if unshare is None or shutil.which("nsenter") is None:
        raise PlaceError(
            "port 53 needs root, or `unshare` and `nsenter` for a namespace of your own: apt-get install util-linux"
        )
    tried = subprocess.run([unshare, "-Urn", "--", "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        raise PlaceError(
            "port 53 needs root here, because this system does not let you make a namespace "
            f"({tried.stderr.strip() or 'no reason given'}): sudo nexoraldns lab up"
        )
    sys.stdout.flush()
    os.execve(unshare, [unshare, "-Urn", "--", *words], {**os.environ, _INSIDE: "1"})  # noqa: S606


def _raise_loopback() -> None:
    """A new network namespace has a loopback interface that is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack_from("16sH", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def base(wanted: str = BASE) -> str:
    """Three octets of 127/8 where nobody serves DNS: the wanted ones if they are free."""
    for _ in range(500):
        if all(_free(f"{wanted}.{host}") for host in (1, 2, 3, 4, 5, 6, 8, 53)):
            return wanted
        wanted = f"127.{random.randrange(60, 250)}.{random.randrange(250)}"
    raise PlaceError("every address of 127/8 that was tried has a DNS server already")


def _free(address: str) -> bool:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as sock:
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((address, 53))
            except OSError:
                return False
    return True


class Claim:
    """The lab's folder, held by one `lab up` at a time."""

    def __init__(self, folder: pathlib.Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = open(folder / "lab.json", "a+", encoding="utf-8")  # noqa: SIM115 (held as long as the lab)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise PlaceError(f"a lab is up in {folder} already; `nexoraldns lab list` shows it") from None

    def before(self) -> str:
        """The base of the lab that was here before; an empty text for none."""
        self._file.seek(0)
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return str(json.load(self._file)["base"])
        return ""

    def say(self, place: Place) -> None:
        """Write down where the lab is."""
        self._file.seek(0)
        self._file.truncate()
        json.dump(dataclasses.asdict(place), self._file)
        self._file.flush()

    def release(self) -> None:
        """Let go of the folder."""
        self._file.close()


def find(folder: pathlib.Path) -> Place | None:
    """The lab that is up in a folder; None when none is."""
    try:
        with open(folder / "lab.json", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None  # nobody holds it
            except BlockingIOError:
                values = json.load(file)
        return Place(int(values["pid"]), str(values["base"]), bool(values["inside"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None

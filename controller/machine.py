"""What the kernel says of this machine: its files under /proc, capabilities, who holds a port; and a finding about it.

Reads only. `Machine.root` lets tests show it another machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import os
import pathlib

OK, NOTE, WARNING, PROBLEM = "ok", "note", "warning", "problem"


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `remedy` is what to do when `level` is warning or problem."""

    level: str
    check: str
    text: str
    remedy: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Machine:
    """Where the system's files are: `/` outside of tests. `packages` is where dnsd's modules lie."""

    root: pathlib.Path = pathlib.Path("/")
    packages: pathlib.Path = pathlib.Path(__file__).resolve().parent.parent / "dnsd"

    def read(self, path: str) -> str | None:
        """A system file's text, or None."""
        try:
            return (self.root / path.lstrip("/")).read_text()
        except (OSError, UnicodeDecodeError):
            return None

    def number(self, path: str) -> int | None:
        """A system file that holds a number, or None."""
        text = self.read(path)
        return int(text) if text is not None and text.strip().isdigit() else None

    def has_capability(self, bit: int) -> bool:
        """Whether this process has the capability in effect."""
        for line in (self.read("/proc/self/status") or "").splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> bit & 1)
        return os.geteuid() == 0


def holders(machine: Machine, protocol: str, port: int) -> list[tuple[str, str]]:
    """Who has sockets on a port: (address, `name (pid)`), as far as this user may see."""
    found: dict[str, str] = {}
    for table in (protocol, f"{protocol}6"):
        for line in (machine.read(f"/proc/net/{table}") or "").splitlines()[1:]:
            columns = line.split()
            address, _, digits = columns[1].partition(":")
            # UDP has no LISTEN state; of TCP only listeners (0A) matter, not connections.
            if int(digits, 16) == port and (protocol == "udp" or columns[3] == "0A"):
                found[columns[9]] = _readable(address)
    if not found:
        return []
    names = dict.fromkeys(found, "a process of another user or namespace")
    for entry in machine.root.glob("proc/[0-9]*"):
        links = []
        with contextlib.suppress(OSError):  # another user's process
            for path in (entry / "fd").iterdir():
                with contextlib.suppress(OSError):  # closed meanwhile
                    links.append(os.readlink(path))
        for link in links:
            if link.startswith("socket:[") and link[8:-1] in found:
                command = (machine.read(f"/proc/{entry.name}/comm") or "?").strip()
                names[link[8:-1]] = f"{command} ({entry.name})"
    return sorted({(found[inode], names[inode]) for inode in found})


def _readable(address: str) -> str:
    octets = b"".join(bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8))
    return str(ipaddress.ip_address(octets))

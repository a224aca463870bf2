"""Who has a port: read from /proc, to name the process in an error.

Only as good as our permissions: the descriptors of other users' processes are visible to root alone,
so every answer may be incomplete, and nothing but messages and the adoption of our own old workers
depends on it.
"""

import dataclasses
import os

_TCP_LISTEN = "0A"


@dataclasses.dataclass(frozen=True, slots=True)
class Holder:
    """A process that has a port bound; `pid` is 0 and `name` empty when the kernel does not tell us."""

    pid: int
    name: str
    uid: int


def sockets(port: int, transport: str) -> dict[int, int]:
    """Inode → uid of every socket bound to a port (`transport` is "udp" or "tcp"; TCP: listening ones)."""
    found: dict[int, int] = {}
    for table in (transport, transport + "6"):
        try:
            with open(f"/proc/net/{table}", encoding="ascii") as file:
                rows = file.read().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            field = row.split()
            if int(field[1].rpartition(":")[2], 16) == port and (transport == "udp" or field[3] == _TCP_LISTEN):
                found[int(field[9])] = int(field[7])
    return found


def holders(port: int, transport: str) -> list[Holder]:
    """The processes that have a port bound, lowest pid first; a Holder with pid 0 where none could be named."""
    wanted = sockets(port, transport)
    unnamed = set(wanted)
    found: dict[int, Holder] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            for fd in os.listdir(f"/proc/{entry}/fd"):
                link = os.readlink(f"/proc/{entry}/fd/{fd}")
                if not link.startswith("socket:["):
                    continue
                inode = int(link[8:-1])
                if inode in wanted:
                    unnamed.discard(inode)
                    found[int(entry)] = Holder(int(entry), _name(int(entry)), wanted[inode])
        except OSError:
            continue  # it ended, or belongs to somebody else
    out = [found[pid] for pid in sorted(found)]
    out += [Holder(0, "", uid) for uid in sorted({wanted[inode] for inode in unnamed})]
    return out


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""

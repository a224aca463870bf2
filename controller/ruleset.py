"""The typed, normalised rules: what `rules` makes of accepted documents and the compiler reads.

Values only. Every name in here is absolute, lower case and in wire format (`dnsd.contract.names`),
every reference is resolved to exist, every default is filled in, every duration is in seconds.
"""

from __future__ import annotations

import dataclasses
import datetime
import ipaddress
from collections.abc import Callable, Mapping

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Where:
    """A place in a rule file: path as users see it, lines and columns from 1, end exclusive."""

    path: str
    line: int
    column: int
    end_line: int = 0
    end_column: int = 0

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclasses.dataclass(frozen=True, slots=True)
class Revision:
    """Where a set of rules came from: a git commit, or the checksum of a folder.

    `id` is what people and logs see: `main@sha1:132f4e7…` (full hash) or `rules.d@sha256:…`.
    `short` is the same with the hash cut to 12 digits. Times are RFC 3339, UTC.
    """

    id: str
    short: str
    ref: str = ""
    sha: str = ""
    author: str = ""
    email: str = ""
    time: str = ""
    subject: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """All the bytes of one revision. `files` maps a path (as diagnostics print it) to a rule file's bytes.

    `read(path, relative_to)` returns the bytes of another file of the same source (a list's `file`), and raises
    FileNotFoundError, PermissionError (outside the repository) or OSError.
    """

    revision: Revision
    files: Mapping[str, bytes]
    read: Callable[[str, str], bytes]


@dataclasses.dataclass(frozen=True, slots=True)
class Network:
    """An inclusive range of addresses of one family, as integers."""

    version: int
    first: int
    last: int
    text: str
    where: Where


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """A group, or a client (`client` true): they share one namespace. `networks` has its members' networks too."""

    name: str
    where: Where
    client: bool
    networks: tuple[Network, ...]
    macs: tuple[str, ...] = ()
    description: str = ""
    owner: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """One weekly window. `weekdays`: 0 = Monday. Minutes since midnight; over midnight if start > end."""

    weekdays: tuple[int, ...]
    start: int
    end: int
    timezone: str


@dataclasses.dataclass(frozen=True, slots=True)
class Schedule:
    """A named set of windows; open when any window is."""

    name: str
    where: Where
    windows: tuple[Window, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class ListText:
    """One source of a list's names: the raw bytes of a file, or inline domains joined by line feeds."""

    path: str
    format: str
    data: bytes
    where: Where


@dataclasses.dataclass(frozen=True, slots=True)
class NameList:
    """A named list. Its texts are parsed by `lists`, once per digest."""

    name: str
    where: Where
    texts: tuple[ListText, ...]
    max_entries: int = 0
    description: str = ""


# How a pattern matches: the name and below, only below, only itself, a list, every name, a regular expression.
SELF_AND_BELOW, BELOW, EXACT, LIST, EVERY, REGEX = "self+below", "below", "exact", "list", "every", "regex"


@dataclasses.dataclass(frozen=True, slots=True)
class Pattern:
    """One entry of a rule's block, allow or redirect. `name` for the first three kinds, `value` for list and regex."""

    kind: str
    where: Where
    name: bytes = b""
    value: str = ""
    text: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """How a blocked name is answered: a code of `codes.REPLY_*`, and addresses for REPLY_ADDRESSES."""

    code: int
    addresses: tuple[Address, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Redirection:
    """Where one pattern of a redirect goes: addresses, or a name."""

    addresses: tuple[Address, ...] = ()
    name: bytes = b""


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `action` is a code of `codes.RULE_*`; `redirections` is parallel to `patterns` for redirects.

    `reply` is None when the rule does not say; `expires` is the first second (UTC epoch) at which it no longer holds.
    `applies` (for) and `exempts` (except) name groups and clients; empty `applies` means everyone.
    """

    name: str
    where: Where
    action: int
    patterns: tuple[Pattern, ...]
    redirections: tuple[Redirection, ...] = ()
    applies: tuple[str, ...] = ()
    exempts: tuple[str, ...] = ()
    schedule: str | None = None
    qtypes: tuple[int, ...] = ()
    priority: int = 0
    reply: Reply | None = None
    ttl: int = 10
    expires: int | None = None
    expires_on: datetime.date | None = None
    enabled: bool = True
    description: str = ""
    ticket: str = ""
    owner: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """One resource record of an own zone; `owner` may begin with the label `*` (RFC 4592). `text` is for people."""

    owner: bytes
    rtype: int
    ttl: int
    rdata: bytes
    text: str
    where: Where


@dataclasses.dataclass(frozen=True, slots=True)
class Zone:
    """A zone we own. Its apex has a SOA and a NS among `records` (made when missing). `ptr_auto` as written."""

    name: bytes
    where: Where
    ttl: int
    ptr_auto: bool
    records: tuple[Record, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """An upstream server."""

    address: Address
    port: int = 53

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 and self.port != 53 else str(self.address)
        return host if self.port == 53 else f"{host}:{self.port}"


@dataclasses.dataclass(frozen=True, slots=True)
class Forward:
    """Who is asked for `name` and everything below. `recurse`: nobody, we resolve; `dhcp`: the lease's servers."""

    name: bytes
    where: Where
    servers: tuple[Server, ...]
    strategy: str = "failover"
    timeout_ms: int = 2000
    dnssec: bool = False
    recurse: bool = False
    dhcp: bool = False
    group: str = ""  # for whom this one is, of `variants`
    variants: tuple[Forward, ...] = ()  # who is asked instead for members of a group or for a client, by its name


@dataclasses.dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where nothing else is written."""

    reply: Reply
    ttl: int
    timezone: str


@dataclasses.dataclass(frozen=True, slots=True)
class Guard:
    """One protection that is switched on: where it is written, and the domains (each with all below) it spares."""

    where: Where
    spared: tuple[bytes, ...] = ()
    networks: tuple[Network, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Protection:
    """What is looked at in answers from outside; None is off. `networks.networks` are the refused ones."""

    rebinding: Guard | None = None
    cname: Guard | None = None
    networks: Guard | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class RuleSet:
    """Everything one revision says; all mappings are keyed by name and sorted by it."""

    groups: Mapping[str, Group]
    schedules: Mapping[str, Schedule]
    lists: Mapping[str, NameList]
    rules: Mapping[str, Rule]
    zones: Mapping[bytes, Zone]
    forwards: Mapping[bytes, Forward]
    defaults: Defaults
    protection: Protection = Protection()


# --- rule tests (`tests` of a rule file or rules.d/tests/*.yaml) ------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class RuleTest:
    """One test beside the rules. `client` is an address (a client's or group's name is resolved to its first).

    `at` is the virtual clock as UTC epoch seconds (None: now). `given` replaces list contents (list name → wire names).
    `expect` holds the keys as written (`action`, `rule`, `rcode`, `to`, `ttl`, qtype names …), values normalised to
    text, int or tuple of text.
    """

    name: str
    where: Where
    qname: bytes
    qtype: int
    client: Address
    at: int | None
    given: Mapping[str, tuple[bytes, ...]]
    expect: Mapping[str, object]
    expect_where: Mapping[str, Where]

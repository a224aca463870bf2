"""A compiled table as people read it: rule names, places, groups, lists, routes, records.

Plain Python over `Table.part`, never on the query path. Numbers are those of `layout`.
"""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
import json
import struct

from dnsd.contract import codes, layout, names
from dnsd.contract.layout import STRATEGIES
from dnsd.contract.table import Table


@dataclasses.dataclass(frozen=True, slots=True)
class RuleInfo:
    """A rule. `where` is `path:line`; `groups` and `exempts` are names; `schedule` is empty for always."""

    number: int
    name: str
    where: str
    action: str
    reply: str
    ttl: int
    qtypes: tuple[int, ...]
    schedule: str
    expires: int | None
    groups: tuple[str, ...]
    exempts: tuple[str, ...]
    description: str
    ticket: str
    owner: str


@dataclasses.dataclass(frozen=True, slots=True)
class RouteInfo:
    """A forward entry: `kind` is forward, recurse or dhcp; servers are (address, port). `group`: for whom; "" for all."""

    name: str
    where: str
    kind: str
    servers: tuple[tuple[str, int], ...]
    strategy: str
    timeout_ms: int
    dnssec: bool
    group: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class RRset:
    """Ready records as read back: (owner or None for the qname, qtype, ttl, rdata)."""

    owner: bytes | None
    rtype: int
    ttl: int
    rdata: bytes


class TableInfo:
    """Reads what a table says of itself. Cheap to make; results are remembered where they are asked for often."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def _words(self, section: int) -> memoryview:
        return self.table.part(section).cast("I")

    def string(self, number: int) -> str:
        """Text by number."""
        offsets = self._words(layout.SECTION_STRINGS)
        return bytes(self.table.part(layout.SECTION_STRING_BYTES)[offsets[number] : offsets[number + 1]]).decode()

    @functools.cached_property
    def wheres(self) -> list[tuple[str, int, int]]:
        """All places: (path, line, column)."""
        flat = self._words(layout.SECTION_WHERES)
        return [(self.string(flat[i]), flat[i + 1], flat[i + 2]) for i in range(0, len(flat), layout.WHERE_WORDS)]

    def where(self, number: int) -> str:
        """`path:line` of a place's number + 1; empty for 0."""
        if number <= 0:
            return ""
        path, line, _ = self.wheres[number - 1]
        return f"{path}:{line}"

    @functools.cached_property
    def gates(self) -> list[dict[str, object]]:
        """What each gate stands for."""
        gates: list[dict[str, object]] = json.loads(self.table.gates_json())["gates"]
        return gates

    @functools.cached_property
    def groups(self) -> list[str]:
        """Names of groups and clients by number."""
        flat = self._words(layout.SECTION_GROUP_INFO)
        return [self.string(flat[i]) for i in range(0, len(flat), layout.GROUP_INFO_WORDS)]

    def classes(self) -> list[tuple[str, ...]]:
        """The groups of each client class."""
        flat = self._words(layout.SECTION_CLASSES)
        n = self.table.count(layout.SECTION_CLASSES)
        base = n + 1
        return [tuple(self.groups[g] for g in flat[base + flat[c] : base + flat[c + 1]]) for c in range(n)]

    @functools.cached_property
    def lists(self) -> list[tuple[str, str, int]]:
        """Each list: (name, where, how many names)."""
        flat = self._words(layout.SECTION_LIST_INFO)
        step = layout.LIST_INFO_WORDS
        return [(self.string(flat[i]), self.where(flat[i + 1]), flat[i + 2]) for i in range(0, len(flat), step)]

    def rules(self) -> int:
        """How many rules there are."""
        return self.table.count(layout.SECTION_RULES)

    @functools.lru_cache(maxsize=4096)  # noqa: B019  (a TableInfo lives as long as its table)
    def rule(self, number: int) -> RuleInfo:
        """One rule."""
        words = self._words(layout.SECTION_RULES)[number * layout.RULE_WORDS : (number + 1) * layout.RULE_WORDS]
        info = self._words(layout.SECTION_RULE_INFO)
        info = info[number * layout.RULE_INFO_WORDS : (number + 1) * layout.RULE_INFO_WORDS]
        named = self._words(layout.SECTION_RULE_GROUPS)
        first = words[layout.RULE_QTYPES_FIRST]
        qtypes = self._words(layout.SECTION_QTYPES)[first : first + words[layout.RULE_QTYPES_COUNT]]
        gate = words[layout.RULE_GATE_EXPIRES]
        reply = words[layout.RULE_REPLY]
        expires = self.gates[gate - 1]["expires"] if gate else None
        return RuleInfo(
            number=number,
            name=self.string(info[0]),
            where=self.where(info[1]),
            action=codes.RULE_ACTION_NAMES[words[layout.RULE_ACTION]],
            reply=codes.REPLY_NAMES[reply & 255] + (" (default)" if reply >= 256 else ""),
            ttl=words[layout.RULE_TTL],
            qtypes=tuple(qtypes),
            schedule=self.string(info[7]),
            expires=expires if isinstance(expires, int) else None,
            groups=tuple(self.groups[g] for g in named[info[8] : info[8] + info[9]]),
            exempts=tuple(self.groups[g] for g in named[info[10] : info[10] + info[11]]),
            description=self.string(info[4]),
            ticket=self.string(info[5]),
            owner=self.string(info[6]),
        )

    def name_at(self, offset: int) -> bytes:
        """The wire name at an offset of SECTION_NAMES."""
        part = self.table.part(layout.SECTION_NAMES)
        end = offset
        while part[end]:
            end += part[end] + 1
        return bytes(part[offset : end + 1])

    def node_name(self, number: int) -> bytes:
        """A node's name."""
        return self.name_at(self._words(layout.SECTION_NODES)[number * layout.NODE_WORDS + layout.NODE_NAME])

    @property
    def route_count(self) -> int:
        """How many forward entries there are."""
        return len(self._words(layout.SECTION_ROUTES)) // layout.ROUTE_WORDS

    def route(self, number: int) -> RouteInfo:
        """A forward entry by its number + 1, as `Verdict.route` has it."""
        words = self._words(layout.SECTION_ROUTES)[(number - 1) * layout.ROUTE_WORDS : number * layout.ROUTE_WORDS]
        servers = []
        part = self.table.part(layout.SECTION_SERVERS)
        for i in range(words[layout.ROUTE_SERVERS_COUNT]):
            at = (words[layout.ROUTE_SERVERS_FIRST] + i) * layout.SERVER_WORDS * 4
            version, port = struct.unpack_from("<II", part, at)
            packed = bytes(part[at + 8 : at + 24])
            address = ipaddress.IPv4Address(packed[12:]) if version == 4 else ipaddress.IPv6Address(packed)
            servers.append((str(address), port))
        group = self._words(layout.SECTION_ROUTE_INFO)[(number - 1) * layout.ROUTE_INFO_WORDS + 1]
        kinds = {layout.KIND_FORWARD: "forward", layout.KIND_RECURSE: "recurse", layout.KIND_DHCP: "dhcp"}
        return RouteInfo(
            name=names.to_text(self.name_at(words[layout.ROUTE_NAME])),
            where=self.where(self._words(layout.SECTION_ROUTE_INFO)[(number - 1) * layout.ROUTE_INFO_WORDS]),
            kind=kinds[words[layout.ROUTE_KIND]],
            servers=tuple(servers),
            strategy=STRATEGIES[words[layout.ROUTE_STRATEGY]],
            timeout_ms=words[layout.ROUTE_TIMEOUT],
            dnssec=bool(words[layout.ROUTE_DNSSEC]),
            group=self.string(group - 1) if group else "",
        )

    def owner_where(self, owner: int) -> str:
        """Where the records of an owner (word offset + 1, as `Verdict.owner` has it) were written."""
        number = self._words(layout.SECTION_OWNERS)[owner - 1 + layout.OWNER_NUMBER]
        return self.where(self._words(layout.SECTION_OWNER_INFO)[number * layout.OWNER_INFO_WORDS])

    def zone(self, number: int) -> tuple[bytes, str]:
        """A zone's name and where it was written."""
        node = self._words(layout.SECTION_ZONES)[number * layout.ZONE_WORDS + layout.ZONE_NODE]
        where = self._words(layout.SECTION_ZONE_INFO)[number * layout.ZONE_INFO_WORDS]
        return self.node_name(node), self.where(where)

    def of_self(self, entry: int) -> bool:
        """Whether an entry (word offset + 1) answers with our own addresses (`address: self`)."""
        return bool(self._words(layout.SECTION_OWNERS)[entry - 1 + layout.ENTRY_RCODE] >> 16)

    def entry(self, entry: int) -> tuple[list[RRset], list[RRset]]:
        """The (answer, authority) records of an entry (word offset + 1, as `Verdict.entry` has it)."""
        words = self._words(layout.SECTION_OWNERS)[entry - 1 : entry - 1 + layout.ENTRY_WORDS]
        first = words[layout.ENTRY_OFFSET]
        data = bytes(self.table.part(layout.SECTION_ANSWERS)[first : first + words[layout.ENTRY_LENGTH]])
        counts = words[layout.ENTRY_COUNTS]
        records: list[RRset] = []
        at = 0
        while at < len(data):
            owner: bytes | None = None
            if data[at] >= 192:
                at += 2
            else:
                end = at
                while data[end]:
                    end += data[end] + 1
                owner = data[at : end + 1]
                at = end + 1
            rtype, _, ttl, length = struct.unpack_from(">HHIH", data, at)
            records.append(RRset(owner, rtype, ttl, data[at + 10 : at + 10 + length]))
            at += 10 + length
        template = words[layout.ENTRY_RCODE] >> 16
        if template:  # `address: self`: the addresses are in the facts
            end = first + words[layout.ENTRY_LENGTH] + template
            head = bytes(self.table.part(layout.SECTION_ANSWERS)[end - template : end])
            rtype, _, ttl, _ = struct.unpack(">HHIH", head[-10:])
            records.insert(counts & 0xFFFF, RRset(None if head[0] >= 192 else head[:-10], rtype, ttl, b""))
            counts += 1
        return records[: counts & 0xFFFF], records[counts & 0xFFFF :]

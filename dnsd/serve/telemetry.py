"""Read what the workers leave in shared memory: counters and the rings of decisions.

A ring has one writer, the slot's worker, and one reader, the agent; nothing is locked. A record's first
word is its number plus one and is written last, so a record that is being overwritten shows itself and
counts as dropped. Only this file knows the record's layout on the reading side.

    header, 64 octets: u64 number of records ever written
    record k, 320 octets at 64 + (k % N) * 320: u64 k + 1 | u64 wall ms | 16 client | u16 qtype | u8 stage |
    u8 action | u16 rcode | u8 proto | u8 flags | u32 rule + 1 | u32 list + 1 | u32 where + 1 | u32 latency µs |
    u64 generation | u8 length of the qname | the qname in wire format
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import json
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from dnsd.contract import codes, facts, names
from dnsd.contract.table import Table
from dnsd.contract.tableinfo import TableInfo

HEADER_BYTES = 64
RECORD_BYTES = 320
MOST_DECISIONS = 200  # in one report

_RECORD = struct.Struct("<QQ16sHBBHBBIIIIQB")
_QNAME_AT = _RECORD.size  # 65
_FLAG_CACHED = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """One answered query, as its worker noted it; numbers are indexes into the table of `generation`, -1 for none."""

    wall_ms: int
    client: bytes
    qname: bytes
    qtype: int
    stage: int
    action: int
    rcode: int
    tcp: bool
    cached: bool
    rule: int
    list: int
    where: int
    latency_us: int
    generation: int


class RingReader:
    """Follows one slot's ring. `dropped` counts the records that were overwritten before they were read."""

    def __init__(self, ring: memoryview, *, from_start: bool = False) -> None:
        self._ring = ring
        self._words = ring[:8].cast("Q")
        self._size = (len(ring) - HEADER_BYTES) // RECORD_BYTES
        self._next = 0 if from_start else int(self._words[0])
        self.dropped = 0

    def read(self, most: int) -> list[Decision]:
        """The newest decisions since the last call, at most `most`, oldest first; the others are counted as dropped."""
        written = int(self._words[0])
        if written < self._next:  # the ring was made anew
            self._next = 0
        first = max(self._next, written - most, written - self._size)
        self.dropped += first - self._next
        self._next = written
        out = []
        for number in range(first, written):
            decision = self._record(number)
            if decision is None:
                self.dropped += 1
            else:
                out.append(decision)
        return out

    def _record(self, number: int) -> Decision | None:
        at = HEADER_BYTES + number % self._size * RECORD_BYTES
        record = bytes(self._ring[at : at + RECORD_BYTES])
        again = int.from_bytes(self._ring[at : at + 8], "little")
        (sequence, wall, client, qtype, stage, action, rcode, proto, flags, rule, list_, where, latency, generation,
         length) = _RECORD.unpack_from(record)  # fmt: skip
        qname = record[_QNAME_AT : _QNAME_AT + length]
        if sequence != number + 1 or again != sequence or not _is_name(qname):
            return None
        return Decision(
            wall_ms=wall, client=client, qname=qname, qtype=qtype, stage=stage, action=action, rcode=rcode,
            tcp=proto == 1, cached=bool(flags & _FLAG_CACHED), rule=rule - 1, list=list_ - 1, where=where - 1,
            latency_us=latency, generation=generation,
        )  # fmt: skip


def _is_name(qname: bytes) -> bool:
    at = 0
    while at < len(qname):
        if qname[at] == 0:
            return at == len(qname) - 1
        if qname[at] > names.MAX_LABEL:
            return False
        at += 1 + qname[at]
    return False


class Provenance(Protocol):
    """What a decision's numbers mean in one table."""

    def rule_name(self, number: int) -> str: ...
    def list_name(self, number: int) -> str: ...
    def where_text(self, number: int) -> str: ...


class TableNames:
    """Provenance read from a compiled table."""

    def __init__(self, table: Table) -> None:
        self._info = TableInfo(table)

    def rule_name(self, number: int) -> str:
        """A rule's name; raises IndexError."""
        if number >= self._info.rules():
            raise IndexError(number)
        return self._info.rule(number).name

    def list_name(self, number: int) -> str:
        """A list's name; raises IndexError."""
        return self._info.lists[number][0]

    def where_text(self, number: int) -> str:
        """`path:line`; raises IndexError."""
        return self._info.where(number + 1)


def describe(decision: Decision, tables: Mapping[int, Provenance], privacy: str = "full") -> dict[str, Any]:
    """A decision as REPORT carries it. `tables` maps the workers' generations to their tables.

    `privacy` other than `full` leaves the client out; the subnet stays for `prefix` (/24 and /64).
    """
    table = tables.get(decision.generation)
    rule = list_ = where = ""
    if table is not None:
        try:
            rule = table.rule_name(decision.rule) if decision.rule >= 0 else ""
            list_ = table.list_name(decision.list) if decision.list >= 0 else ""
            where = table.where_text(decision.where) if decision.where >= 0 else ""
        except (IndexError, KeyError, ValueError):
            pass  # a record of a table with the same generation number from before a restart
    return {
        "time_ms": decision.wall_ms,
        "client": _client(decision.client, privacy),
        "qname": names.to_text(decision.qname),
        "qtype": codes.qtype_name(decision.qtype),
        "stage": codes.STAGE_NAMES.get(decision.stage, str(decision.stage)),
        "action": codes.ACTION_NAMES.get(decision.action, str(decision.action)),
        "rcode": codes.rcode_name(decision.rcode),
        "proto": "tcp" if decision.tcp else "udp",
        "cached": decision.cached,
        "rule": rule,
        "list": list_,
        "where": where,
        "latency_us": decision.latency_us,
        "generation": decision.generation,
    }


def _client(address: bytes, privacy: str) -> str:
    client = facts.unpacked(address)
    if privacy == "full":
        return str(client)
    if privacy == "prefix":
        prefix = 24 if client.version == 4 else 64
        return str(ipaddress.ip_network(f"{client}/{prefix}", strict=False))
    return ""


def totals(counters: Iterable[memoryview]) -> dict[str, int]:
    """The counters of all slots, added up, by name."""
    sums = [0] * codes.COUNTERS
    for row in counters:
        for number in range(codes.COUNTERS):
            sums[number] += row[number]
    return dict(zip(codes.COUNTER_NAMES, sums, strict=True))


def upstreams(said: Iterable[bytes]) -> list[dict[str, int | str]]:
    """What the workers know of upstream servers: how many asked each, for how many it is ill, its time in µs."""
    servers: dict[str, list[tuple[int, int]]] = {}
    for data in said:
        with contextlib.suppress(ValueError, TypeError):
            for host, port, failures, rtt_us in json.loads(data or b"[]"):
                text = host if port == 53 else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                servers.setdefault(text, []).append((failures, rtt_us))
    out: list[dict[str, int | str]] = []
    for server, rows in sorted(servers.items()):
        times = [rtt_us for _, rtt_us in rows if rtt_us]
        out.append({
            "server": server, "workers": len(rows), "ill": sum(failures > 0 for failures, _ in rows),
            "failures": max(failures for failures, _ in rows), "rtt_us": sum(times) // len(times) if times else 0,
        })  # fmt: skip
    return out

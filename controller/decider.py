"""A compiled table asked like a worker asks it: one question, one client, one moment; and what became of it in words.

The verdict is `dnsd.contract.verdict`'s, the answer's octets are `dnsd.contract.answer`'s; nothing is
decided here. `explain`, `plan`, the rule tests and the status page stand on this module.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterable

from controller import records
from controller.ruleset import Address
from dnsd.contract import codes, facts, names
from dnsd.contract.answer import Responder
from dnsd.contract.factsview import FactsView
from dnsd.contract.query import Query
from dnsd.contract.table import Table
from dnsd.contract.tableinfo import RouteInfo, RuleInfo, TableInfo
from dnsd.contract.verdict import Chain, Verdict

_SPACE = 65535
_EVERY_V4 = ((0, 0xFFFFFFFF),)
_EVERY_V6 = ((bytes(16), b"\xff" * 16),)
# Stand for the addresses that the server will have (RFC 5737, RFC 3849): nobody knows them before it runs.
_SELF = (facts.packed("192.0.2.53"), facts.packed("2001:db8::53"))


@dataclasses.dataclass(frozen=True, slots=True)
class Data:
    """One record of an answer: owner and data as people read them, and the data's octets."""

    owner: str
    rtype: str
    ttl: int
    text: str
    rdata: bytes

    def __str__(self) -> str:
        return f"{self.owner} {self.ttl} {self.rtype} {self.text}"


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What a client gets. `actions` are the words that rule tests use, the most telling first.

    `rcode` is empty when nobody answers (drop) or an upstream server does; `where` is `path:line` of what decided;
    `listed` names the list and `matched` the name that the rule's match began at; `target` is whom a redirect's or
    an own CNAME asks for upstream.
    """

    actions: tuple[str, ...]
    stage: str
    action: str
    rcode: str = ""
    rule: RuleInfo | None = None
    where: str = ""
    listed: str = ""
    matched: str = ""
    zone: str = ""
    special: bool = False
    answers: tuple[Data, ...] = ()
    authorities: tuple[Data, ...] = ()
    route: RouteInfo | None = None
    target: str = ""

    @property
    def servers(self) -> tuple[str, ...]:
        """The servers of the route, the port only when it is not 53."""
        return tuple(server_text(*server) for server in self.route.servers) if self.route else ()


def server_text(host: str, port: int) -> str:
    """A server as rule files write it."""
    if port == 53:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Decider:
    """A table at one moment (`at`, UTC epoch seconds). `allow` are the clients that may ask, everybody when None.

    Raises FactsError for schedules whose time zones are not known here.
    """

    def __init__(
        self, table: Table, at: float, *, allow: Iterable[facts.Network] | None = None, special_use: bool = True
    ) -> None:
        self.table = table
        self.info = TableInfo(table)
        self.at = at
        gates, self.next_flip_s = facts.gates_from_json(table.gates_json(), at)
        v4, v6 = (_EVERY_V4, _EVERY_V6) if allow is None else facts.intervals(allow)
        flags = facts.FLAG_SPECIAL_USE if special_use else 0
        self.facts = FactsView(facts.encode(facts.Facts(1, gates, flags, v4, v6, self_addresses=_SELF)))
        self.chain = Chain()
        self.verdict = Verdict()
        self._packet = bytearray(512)
        self.query = Query(self._packet)
        self._out = bytearray(_SPACE)
        self._responder = Responder(self._out)

    def put(self, client: Address) -> None:
        """The client that asks from now on."""
        self.query.client[:] = memoryview(facts.packed(client))

    def ask(self, qname: bytes, qtype: int) -> Verdict:
        """The verdict for a plain question; the object is the same at each call."""
        n = 12 + len(qname)
        # RD, one question, class IN: what a stub resolver sends.
        self._packet[:12] = b"\x00\x00\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
        self._packet[12:n] = qname
        self._packet[n : n + 4] = qtype.to_bytes(2, "big") + b"\x00\x01"
        self.query.parse(0, n + 4)
        self.chain.decide(self.table, self.facts, self.query, self.verdict)
        return self.verdict

    def response(self) -> bytes:
        """The answer to the last question, when nobody else has to be asked for it; empty for silence."""
        return bytes(self._out[: self._responder.write(self.table, self.query, self.verdict, 0, _SPACE)])

    def outcome(self, qname: bytes, qtype: int, client: Address) -> Outcome:
        """Ask, and say in words what comes of it."""
        self.put(client)
        v = self.ask(qname, qtype)
        info = self.info
        rule = info.rule(v.rule) if v.rule >= 0 else None
        route = None
        if v.route and (v.stage == codes.STAGE_ROUTE or v.action == codes.ACTION_ALIAS):
            route = info.route(v.route)
        rcode = ""
        answers: tuple[Data, ...] = ()
        authorities: tuple[Data, ...] = ()
        target = ""
        if v.action == codes.ACTION_ALIAS:
            found, _ = info.entry(v.entry)
            answers = tuple(_data(rr.owner or qname, rr.rtype, rr.ttl, rr.rdata) for rr in found)
            target = names.to_text(info.name_at(v.target - 1))
        elif v.action not in (codes.ACTION_FORWARD, codes.ACTION_RECURSE, codes.ACTION_DROP):
            answers, authorities = read_answer(self.response())
            if v.action == codes.ACTION_ANSWER and info.of_self(v.entry):
                answers = tuple(_unnamed(answer) for answer in answers)
            rcode = codes.rcode_name(self._responder.rcode)
        where, zone = rule.where if rule and not v.allowed else "", ""
        if v.stage == codes.STAGE_LOCAL and not v.special:
            apex, zone_where = info.zone(v.zone) if v.zone >= 0 else (qname, "")
            zone = names.to_text(apex)
            where = (info.owner_where(v.owner) if v.owner else "") or zone_where
        elif v.stage == codes.STAGE_ROUTE:
            where = route.where if route else ""
        matched = ""
        if rule:
            matched = names.to_text(names.join(names.split(qname)[v.label :]))
        return Outcome(
            actions=_actions(v), stage=codes.STAGE_NAMES[v.stage], action=codes.ACTION_NAMES[v.action], rcode=rcode,
            rule=rule, where=where, listed=info.lists[v.listed][0] if v.listed >= 0 else "", matched=matched,
            zone=zone, special=bool(v.stage == codes.STAGE_LOCAL and v.special), answers=answers,
            authorities=authorities, route=route, target=target,
        )  # fmt: skip


def _actions(v: Verdict) -> tuple[str, ...]:
    how = {codes.ACTION_REFUSED: "refuse", codes.ACTION_DROP: "drop", codes.ACTION_FORWARD: "forward",
           codes.ACTION_RECURSE: "recurse"}.get(v.action, "answer")  # fmt: skip
    if v.action in (codes.ACTION_SERVFAIL, codes.ACTION_FORMERR, codes.ACTION_NOTIMP, codes.ACTION_BADVERS):
        how = "refuse"
    if v.stage == codes.STAGE_POLICY:
        first = "block" if v.rule_action == codes.RULE_BLOCK else "redirect"
        return (first, how) if how in ("refuse", "drop") else (first,)
    return ("allow", how) if v.allowed else (how,)


def _data(owner: bytes, rtype: int, ttl: int, rdata: bytes) -> Data:
    return Data(names.to_text(owner), codes.qtype_name(rtype), ttl, records.shown(rtype, rdata), rdata)


def _unnamed(answer: Data) -> Data:
    """An address of `address: self` as the rules have it: the word."""
    if answer.rdata not in (_SELF[0][12:], _SELF[1]):
        return answer
    return dataclasses.replace(answer, text=records.SELF, rdata=b"")


def read_answer(response: bytes) -> tuple[tuple[Data, ...], tuple[Data, ...]]:
    """The answer and authority records of a response that `answer` made: of RDATA, only a SOA's may be compressed."""
    if not response:
        return (), ()
    counts = struct.unpack_from("!HHHH", response, 4)
    at = 12
    for _ in range(counts[0]):
        _, at = _name(response, at)
        at += 4
    out: list[Data] = []
    for _ in range(counts[1] + counts[2]):
        owner, at = _name(response, at)
        rtype, _, ttl, length = struct.unpack_from("!HHIH", response, at)
        start, at = at + 10, at + 10 + length
        rdata = response[start:at]
        if rtype == codes.TYPE_SOA:
            mname, start = _name(response, start)
            rname, start = _name(response, start)
            rdata = mname + rname + response[start:at]
        out.append(_data(owner, rtype, ttl, rdata))
    return tuple(out[: counts[1]]), tuple(out[counts[1] :])


def _name(message: bytes, at: int) -> tuple[bytes, int]:
    labels: list[bytes] = []
    end = 0
    while message[at]:
        if message[at] >= 192:
            end = end or at + 2
            at = (message[at] & 63) << 8 | message[at + 1]
            continue
        labels.append(message[at + 1 : at + 1 + message[at]])
        at += 1 + message[at]
    return names.join(labels), end or at + 1

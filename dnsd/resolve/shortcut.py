# cython: wraparound=True, annotation_typing=False
"""A question that one datagram answers: whom to ask, and what the reply means, without a generator.

Pure. `begin` finds what `resolver` would ask first, if that is the whole question, put to a zone that is known, whose
servers have no peculiarities, and whose data nobody's keys vouch for. `end` reads the reply with the same functions,
remembers the same, and makes the same response. Whatever is not as plain as that is left to the generator, which
takes the reply as `Tried`: nothing is asked twice, and nothing that the generator would not have asked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator

from dnsd.contract import codes, names
from dnsd.resolve import addresses, scrub
from dnsd.resolve.exchange import randomised
from dnsd.resolve.forwarder import Ask, Outcome, Reply, Tried
from dnsd.resolve.message import FormError
from dnsd.resolve.minimise import minimised
from dnsd.resolve.resolver import BOGUS_BIT, Resolver, remember
from dnsd.resolve.rrcache import Delegation
from dnsd.resolve.rrsets import FLAG_TC, Message, parse, question, response
from dnsd.resolve.upstreams import Server

# Asked elsewhere than at the zone itself, answered otherwise than by their RRset, or part of the proof of others.
_APART = frozenset((24, 30, 39, 41, 43, 46, 47, 50, *range(128, 256)))
_ZONES = 1024
FAULT = "a fault of this server, which its log tells of"
_LONGEST_MS = 1500  # for all steps; a generator's question has to end in time, too (`budget`)


@dataclasses.dataclass(frozen=True)
class Start:
    """`wire` (id 0) goes to `server`, which is asked as an authority of `cut`; `cased` is the name in it.

    `away`: nobody's keys vouch for the name. `qname` is the whole name or, the `asked`th time, no more of it than the
    server needs to know (RFC 9156). The first question was asked at `begun_ms`.
    """

    sname: bytes
    qtype: int
    do: bool
    cd: bool
    away: bool
    cut: Delegation
    qname: bytes
    asked: int
    server: Server
    cased: bytes
    wire: bytes
    patience_ms: int
    begun_ms: int

    def tried(self, wire: bytes | None, error: str, began_ms: int, now_ms: int) -> Tried:
        """What came of it, for the generator."""
        qtype = self.qtype if self.qname == self.sname else codes.TYPE_A
        return Tried(self.server, self.cased, qtype, began_ms, Reply(wire, now_ms, error))


class Journey:
    """A resolution on its way: what it asks for next, or its outcome. Whoever has the reply goes on with it.

    A fault of ours is an outcome, too, for those who wait; `fault` is for whoever writes the log.
    """

    def __init__(self, question: Generator[Ask, Reply, Outcome]) -> None:
        self.question = question
        self.ask: Ask | None = None
        self.outcome: Outcome | None = None
        self.fault: Exception | None = None
        self.go_on(None)

    def go_on(self, reply: Reply | None) -> None:
        """This has become of `ask` (None: there was none yet)."""
        self.ask = None
        try:
            self.ask = self.question.send(reply)  # type: ignore[arg-type]
        except StopIteration as stop:
            self.outcome = stop.value
        except Exception as fault:
            self.outcome = Outcome(None, codes.EDE_OTHER, FAULT)
            self.fault = fault


@dataclasses.dataclass
class _Zone:
    """The addresses of a delegation's servers, as they were known in one second of the wall clock."""

    cut: Delegation
    now: int
    servers: list[Server]


class Shortcut:
    """Of one worker's resolver. `busy` counts what generators work on, by name and type: that is never begun here."""

    def __init__(self, resolver: Resolver) -> None:
        self.busy: dict[tuple[bytes, int], int] = {}
        self.resolver = resolver
        self._cache = resolver.cache
        self._infra = resolver.infra
        self._config = resolver.config
        self._zones: dict[bytes, _Zone] = {}

    def clock(self, now: int) -> None:
        """The wall clock, in seconds."""
        self._cache.clock(now)

    def enter(self, sname: bytes, qtype: int) -> None:
        """A generator has begun to work on a question."""
        self.busy[sname, qtype] = self.busy.get((sname, qtype), 0) + 1

    def leave(self, sname: bytes, qtype: int) -> None:
        """It is done."""
        left = self.busy.pop((sname, qtype), 1) - 1
        if left:
            self.busy[sname, qtype] = left

    def is_busy(self, sname: bytes, qtype: int) -> bool:
        """Whether a generator works on it."""
        return bool(self.busy) and (sname, qtype) in self.busy

    def begin(self, sname: bytes, qtype: int, do: bool, cd: bool, now_ms: int) -> Start | None:
        """Whom to ask for a name (lower case) and type; None when that takes more thought. `now_ms` is monotonic."""
        cache, validator = self._cache, self.resolver.validator
        signed = do or self._config.dnssec or (validator is not None and not cd)
        if qtype in _APART:
            return None
        if cache.failed(sname, qtype, now_ms) is not None or cache.failed(sname, qtype | BOGUS_BIT, now_ms) is not None:
            return None
        if cache.get(sname, qtype, signed) is not None or cache.get(sname, codes.TYPE_CNAME, signed) is not None:
            return None
        if cache.dname(sname, signed) is not None or cache.denied(sname, qtype, signed) is not None:
            return None
        cut = cache.delegation(sname)
        if cut is None or cut.zone == names.ROOT:
            return None
        away = validator is None or cd or validator.looks_away(sname, cache.now)
        if not away:
            # The whole question is a generator's, and what was proven of other names may answer it (RFC 8198).
            assert validator is not None
            unknown = self._config.qname_minimisation and validator.denied(sname, qtype, cache.now) is None
            if not unknown:
                return None
        return self._ask(sname, qtype, do, cd, away, cut, cut.zone, 0, now_ms, now_ms)

    def _ask(
        self,
        sname: bytes,
        qtype: int,
        do: bool,
        cd: bool,
        away: bool,
        cut: Delegation,
        near: bytes,
        asked: int,
        begun_ms: int,
        now_ms: int,
    ) -> Start | None:
        """The walk's next question in a zone, when `near` is the longest name that is known to exist."""
        cache, infra, config = self._cache, self._infra, self._config
        if not config.qname_minimisation:
            qname = sname
        else:
            while True:
                qname = minimised(sname, near, asked)
                if qname == sname or not addresses.exists(qname, cache):
                    break
                near = qname
        if qname == sname and not away:
            return None
        servers = self._servers(cut)
        if infra.knows_lame:
            servers = [server for server in servers if not infra.is_lame(server, cut.zone, now_ms)]
        awake = [server for server in servers if not infra.rests(server, now_ms)]
        if not awake:
            return None
        server = infra.choose(addresses.preferred(awake, config), self.resolver.chance, now_ms)
        if infra.is_peculiar(server, now_ms):
            return None
        cased = randomised(qname, self.resolver.chance) if config.case_randomisation else qname
        signed = do or config.dnssec or (self.resolver.validator is not None and not cd)
        wire = question(cased, qtype if qname == sname else codes.TYPE_A, config.edns_size, signed)
        patience_ms = infra.patience_ms(server)
        return Start(sname, qtype, do, cd, away, cut, qname, asked, server, cased, wire, patience_ms, begun_ms)

    def end(self, start: Start, reply: bytes, rtt_ms: int, now_ms: int) -> bytes | Start | None:
        """What the generator would make of a reply: the response, or the next question; None when it has to look at it.

        Nothing at all (b"") when the reply is understood, and what comes next is the generator's.
        """
        sname, qtype, qname, zone = start.sname, start.qtype, start.qname, start.cut.zone
        cache, config = self._cache, self._config
        signed = start.do or config.dnssec or (self.resolver.validator is not None and not start.cd)
        try:
            message = parse(reply)
        except FormError:
            return None
        if message.question != start.cased or message.flags & FLAG_TC or not message.aa:
            return None
        if message.rcode != codes.RCODE_NOERROR and message.rcode != codes.RCODE_NXDOMAIN:
            return None
        if qname != sname:
            return self._step(start, message, rtt_ms, now_ms, signed)
        finding = scrub.judge(message, zone, sname, qtype, config.harden_glue)
        rcode = codes.RCODE_NOERROR
        if finding.kind == scrub.ANSWER:
            kept = finding.rrsets
        elif finding.kind == scrub.NODATA or finding.kind == scrub.NXDOMAIN:
            kept = finding.authority
            if finding.kind == scrub.NXDOMAIN:
                rcode = codes.RCODE_NXDOMAIN
        else:
            return None
        if len(kept) != 1 or kept[0].sigs:
            return None
        self._infra.answered(start.server, rtt_ms)
        self._infra.serves(start.server, zone)
        remember(cache, signed, sname, qtype, finding)
        cache.succeeded(sname, qtype)
        cache.succeeded(sname, qtype | BOGUS_BIT)
        return response(sname, qtype, rcode, finding.rrsets, finding.authority, start.do)

    def _step(self, start: Start, message: Message, rtt_ms: int, now_ms: int, signed: bool) -> bytes | Start | None:
        """As `end`, of a reply about a part of the name."""
        finding = scrub.judge(message, start.cut.zone, start.qname, codes.TYPE_A, self._config.harden_glue)
        if finding.kind != scrub.NODATA and finding.kind != scrub.ANSWER:
            return None
        following = None
        if now_ms - start.begun_ms < _LONGEST_MS:
            following = self._ask(
                start.sname, start.qtype, start.do, start.cd, start.away, start.cut, start.qname, start.asked + 1,
                start.begun_ms, now_ms,
            )
        if finding.kind == scrub.NODATA:
            remember(self._cache, signed, start.qname, codes.TYPE_A, finding)
        elif following is None:
            return None  # the generator does not remember that, either
        self._infra.answered(start.server, rtt_ms)
        self._infra.serves(start.server, start.cut.zone)
        return b"" if following is None else following

    def _servers(self, cut: Delegation) -> list[Server]:
        """Addresses of the zone's servers; looked for once a second."""
        zone = self._zones.get(cut.zone)
        if zone is None or zone.cut is not cut or zone.now != self._cache.now:
            if len(self._zones) >= _ZONES:
                self._zones.clear()
            servers = list(dict.fromkeys([server for server, _ in addresses.known(cut, self._cache, self._config)]))
            zone = self._zones[cut.zone] = _Zone(cut, self._cache.now, servers)
        return zone.servers

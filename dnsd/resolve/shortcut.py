# cython: wraparound=True, annotation_typing=False
"""A question that one datagram answers: whom to ask, and what the reply means, without a generator.

Pure. `begin` finds what `resolver` would ask first, if that is the whole question, put to a zone that is known, whose
servers have no peculiarities, and whose data nobody's keys vouch for. `end` reads the reply with the same functions,
remembers the same, and makes the same response. Whatever is not as plain as that is left to the generator, which
takes the reply as `Tried`: nothing is asked twice, and nothing that the generator would not have asked.
"""

from __future__ import annotations

import dataclasses

from dnsd.contract import codes, names
from dnsd.resolve import addresses, scrub
from dnsd.resolve.exchange import randomised
from dnsd.resolve.forwarder import Reply, Tried
from dnsd.resolve.message import FormError
from dnsd.resolve.minimise import minimised
from dnsd.resolve.resolver import BOGUS_BIT, Resolver, remember
from dnsd.resolve.rrcache import Delegation
from dnsd.resolve.rrsets import FLAG_TC, parse, question, response
from dnsd.resolve.upstreams import Server

# Asked elsewhere than at the zone itself, answered otherwise than by their RRset, or part of the proof of others.
_APART = frozenset((24, 30, 39, 41, 43, 46, 47, 50, *range(128, 256)))
_ZONES = 1024


@dataclasses.dataclass(frozen=True)
class Start:
    """`wire` (id 0) goes to `server`, which is asked as an authority of `zone`; `cased` is the name in it."""

    sname: bytes
    qtype: int
    do: bool
    cd: bool
    zone: bytes
    server: Server
    cased: bytes
    wire: bytes
    patience_ms: int

    def tried(self, wire: bytes | None, error: str, began_ms: int, now_ms: int) -> Tried:
        """What came of it, for the generator."""
        return Tried(self.server, self.cased, self.qtype, began_ms, Reply(wire, now_ms, error))


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

    def begin(self, sname: bytes, qtype: int, do: bool, cd: bool, now_ms: int) -> Start | None:
        """Whom to ask for a name (lower case) and type; None when that takes more thought. `now_ms` is monotonic."""
        cache, infra, config = self._cache, self._infra, self._config
        validator = self.resolver.validator
        validates = validator is not None and not cd
        signed = do or config.dnssec or validates
        if qtype in _APART or (self.busy and (sname, qtype) in self.busy):
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
        if config.qname_minimisation:
            near = cut.zone
            while True:
                qname = minimised(sname, near, 0)
                if qname == sname:
                    break
                if not addresses.exists(qname, cache):
                    return None
                near = qname
        if validates and not validator.looks_away(sname, cache.now):  # type: ignore[union-attr]
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
        cased = randomised(sname, self.resolver.chance) if config.case_randomisation else sname
        wire = question(cased, qtype, config.edns_size, signed)
        return Start(sname, qtype, do, cd, cut.zone, server, cased, wire, infra.patience_ms(server))

    def end(self, start: Start, reply: bytes, rtt_ms: int) -> bytes | None:
        """The response that the generator would make of a reply to the question; None when it has to look at it."""
        sname, qtype = start.sname, start.qtype
        cache, config, validator = self._cache, self._config, self.resolver.validator
        validates = validator is not None and not start.cd
        try:
            message = parse(reply)
        except FormError:
            return None
        if message.question != start.cased or message.flags & FLAG_TC or not message.aa:
            return None
        if message.rcode != codes.RCODE_NOERROR and message.rcode != codes.RCODE_NXDOMAIN:
            return None
        finding = scrub.judge(message, start.zone, sname, qtype, config.harden_glue)
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
        if validates and not validator.looks_away(sname, cache.now):  # type: ignore[union-attr]
            return None
        self._infra.answered(start.server, rtt_ms)
        self._infra.serves(start.server, start.zone)
        remember(cache, start.do or config.dnssec or validates, sname, qtype, finding)
        cache.succeeded(sname, qtype)
        cache.succeeded(sname, qtype | BOGUS_BIT)
        return response(sname, qtype, rcode, finding.rrsets, finding.authority, start.do)

    def _servers(self, cut: Delegation) -> list[Server]:
        """Addresses of the zone's servers; looked for once a second."""
        zone = self._zones.get(cut.zone)
        if zone is None or zone.cut is not cut or zone.now != self._cache.now:
            if len(self._zones) >= _ZONES:
                self._zones.clear()
            servers = list(dict.fromkeys([server for server, _ in addresses.known(cut, self._cache, self._config)]))
            zone = self._zones[cut.zone] = _Zone(cut, self._cache.now, servers)
        return zone.servers

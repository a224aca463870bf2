# cython: wraparound=True
"""The walk from a known zone cut down to the zone that has the answer (RFC 1034, section 5.3.3).

Pure. Delegations are the parent's word (so a zone that its parent took back ends with the parent's TTL); a child's own
NS RRset is tried only when everybody its parent names has failed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING

from dnsd.contract import codes, names
from dnsd.resolve import rrcache, scrub, steps
from dnsd.resolve.addresses import MOST, PORT, elsewhere, exists, known, may_ask, preferred, types
from dnsd.resolve.budget import ADDRESS_LOOKUPS, DEPTH, GLUELESS, Failed, Spent
from dnsd.resolve.exchange import exchange
from dnsd.resolve.forwarder import Ask, Reply, Tried
from dnsd.resolve.hints import address_text
from dnsd.resolve.minimise import MINIMISED, minimised
from dnsd.resolve.rrcache import Delegation
from dnsd.resolve.rrsets import Message, at_or_below
from dnsd.resolve.scrub import Finding
from dnsd.resolve.upstreams import Server

if TYPE_CHECKING:
    from dnsd.resolve.resolver import _Question

_TRIES = 2  # a server that did not answer is asked this often, and once more over TCP when there is nobody else
_CUTS = 64  # zone cuts on one walk; a name has at most 127 labels, a real one some six zones
_PRIME_AGAIN_MS = 60_000  # after priming failed
_NETWORK_WORDS = frozenset(("unreachable", "broken"))


@dataclasses.dataclass
class _Server:
    """One address of a delegation while it is being asked."""

    address: Server
    name: bytes
    tries: int = 0
    word: str = ""  # why it is of no use

    @property
    def silent(self) -> bool:
        return self.word == "timeout"


class Walk:
    """The walks of one question (its own, and those for the addresses of name servers)."""

    def __init__(self, question: _Question) -> None:
        self._question = question
        self._resolver = question.resolver
        self._config = question.resolver.config
        self._cache = question.resolver.cache
        self._infra = question.resolver.infra
        self._budget = question.budget

    def find(self, sname: bytes, qtype: int, depth: int) -> Generator[Ask, Reply, Finding]:
        """What the authority says of a name and type: ANSWER, ALIAS, NODATA or NXDOMAIN. Remembers it; raises Failed.

        The parent side of a zone cut is the authority for DS (RFC 4035, section 3.1.4.1).
        """
        above = names.parent(sname) if qtype == codes.TYPE_DS else sname
        cut, remembered = yield from self._start(above, depth)
        try:
            return (yield from self._descend(cut, sname, qtype, depth))
        except Spent:
            raise
        except Failed as failure:
            # What we remembered may have changed meanwhile: once more, from the parent.
            if not remembered or cut.zone == names.ROOT:
                raise
            self._cache.drop_delegation(cut.zone)
            again, _ = yield from self._start(names.parent(cut.zone), depth)
            return (yield from self._descend(again, sname, qtype, depth, (cut, failure)))

    def _descend(
        self,
        cut: Delegation,
        sname: bytes,
        qtype: int,
        depth: int,
        before: tuple[Delegation, Failed] | None = None,
    ) -> Generator[Ask, Reply, Finding]:
        """From a cut down. `before`: a delegation that has just failed; when it comes again nothing has changed."""
        asked = 0 if self._config.qname_minimisation else MINIMISED
        near = cut.zone  # the longest name on the way that is known to exist
        for _ in range(_CUTS):
            while True:
                qname = minimised(sname, near, asked)
                full = qname == sname
                if not full and exists(qname, self._cache):
                    near = qname
                    continue
                try:
                    finding = yield from self._ask_zone(cut, qname, qtype if full else codes.TYPE_A, depth)
                except Spent:
                    raise
                except Failed:
                    if full:
                        raise
                    asked = MINIMISED  # some servers answer nothing but what they know (RFC 9156, section 2.3)
                    continue
                if full or finding.kind == scrub.REFERRAL:
                    break
                if finding.kind == scrub.NXDOMAIN:
                    if cut.zone == names.ROOT and finding.authoritative:
                        # The root's servers do not err about that (RFC 8020), and need not know more of the name.
                        self._question.remember(qname, qtype, finding)
                        return finding
                    asked = MINIMISED  # an empty non-terminal, to a server that denies those
                    continue
                if finding.kind == scrub.ALIAS and finding.rrsets[0].rtype == codes.TYPE_DNAME:
                    self._question.remember(qname, codes.TYPE_A, finding)
                    return _redirected(sname, qtype, finding)
                if finding.kind == scrub.NODATA:
                    self._question.remember(qname, codes.TYPE_A, finding)
                near = qname
                asked += 1
            if finding.kind != scrub.REFERRAL:
                self._question.remember(sname, qtype, finding)
                return finding
            cut = Delegation(finding.cut, finding.servers, finding.glue, self._cache.now, finding.ttl)
            self._cache.put_delegation(cut)
            self._question.remember_ds(finding)
            if before is not None and (cut.zone, cut.servers, cut.glue) == _same(before[0]):
                raise before[1]
            near = cut.zone
        raise Failed(codes.EDE_OTHER, f"more than {_CUTS} zone cuts above {names.to_text(sname)}")

    # --- where to begin --------------------------------------------------------------------------------------------

    def _start(self, name: bytes, depth: int) -> Generator[Ask, Reply, tuple[Delegation, bool]]:
        """The deepest usable delegation at or above a name, and whether it comes from the cache."""
        while True:
            cut = self._cache.delegation(name)
            if cut is None:
                return (yield from self._root(depth)), False
            if cut.zone == names.ROOT or self._usable(cut):
                return cut, True
            name = names.parent(cut.zone)

    def _usable(self, cut: Delegation) -> bool:
        """Whether its servers can be found without asking its servers."""
        with_glue = {name for name, addresses in cut.glue if addresses}
        return any(
            name in with_glue or not at_or_below(name, cut.zone) or self._question.owned(name, codes.TYPE_A)
            for name in cut.servers
        )

    def _root(self, depth: int) -> Generator[Ask, Reply, Delegation]:
        """The root's servers: from priming (RFC 9609), or else from the hints."""
        resolver = self._resolver
        hints = Delegation(names.ROOT, tuple(name for name, _ in resolver.hints), resolver.hints, self._cache.now, -1)
        now_ms = self._budget.now_ms
        begun_ms = resolver.primed_ms
        if not self._config.priming or (begun_ms is not None and now_ms - begun_ms < _PRIME_AGAIN_MS):
            return hints  # or somebody else is at it
        resolver.primed_ms = now_ms
        try:
            finding = yield from self._ask_zone(hints, names.ROOT, codes.TYPE_NS, depth)
        except Spent:
            raise
        except Failed:
            return hints
        if finding.kind != scrub.ANSWER or not finding.authoritative:
            return hints
        resolver.primed_ms = None  # when its TTL is over, at once again
        ns = finding.rrsets[-1]
        told = dict(finding.glue)
        hinted = dict(resolver.hints)
        servers = tuple(names.lower(rdata) for rdata in ns.rdatas[: scrub.SERVERS])
        glue = tuple((name, told.get(name) or hinted.get(name, ())) for name in servers)
        if not any(addresses for _, addresses in glue):
            return hints
        self._question.remember(names.ROOT, codes.TYPE_NS, finding)
        cut = Delegation(names.ROOT, servers, glue, self._cache.now, ns.ttl)
        self._cache.put_delegation(cut)
        return cut

    # --- one zone --------------------------------------------------------------------------------------------------

    def _ask_zone(self, cut: Delegation, qname: bytes, qtype: int, depth: int) -> Generator[Ask, Reply, Finding]:
        """Ask the zone's servers until one says something usable; raises Failed when none does."""
        infra, question = self._infra, self._question
        servers = {address: _Server(address, name) for address, name in known(cut, self._cache, self._config)}
        unknown = self._nameless(cut, servers)
        second: Finding | None = None  # not authoritative: only if nobody has better
        last_chance = parents_asked = False
        tried = question.already(qname, qtype)
        if tried is not None and tried.server in servers:
            finding = yield from self._ask_server(servers[tried.server], cut, qname, qtype, depth, tried)
            if finding is not None:
                self._told(finding, tried.server, cut, servers, qname, qtype)
                if finding.reliable:
                    return finding
            second = finding
        while True:
            now_ms = self._budget.now_ms
            open_ = [server for server in servers.values() if self._worth(server, cut.zone, last_chance)]
            fresh = [server for server in open_ if not server.tries]
            awake = [server for server in fresh if not infra.rests(server.address, now_ms)]
            if question.avoided:
                awake = [server for server in awake if server.address not in question.avoided]
            if not awake and second is None and (more := next(unknown, None)) is not None:
                yield from self._find_addresses(cut, *more, depth, servers)
                continue
            candidates = awake or fresh or open_
            if not candidates or (second is not None and not awake):
                if second is not None:
                    return second
                if not parents_asked:
                    parents_asked = True
                    more_servers = [one for one in elsewhere(cut, self._cache, self._config) if one[0] not in servers]
                    servers.update((address, _Server(address, name)) for address, name in more_servers)
                    if more_servers:
                        continue
                if not last_chance and any(self._lame_before(server, cut.zone) for server in servers.values()):
                    last_chance = True  # all that are left were lame a while ago: that may have been mended
                    continue
                raise self._failure(cut, servers.values())
            least = min(server.tries for server in candidates)
            wanted = preferred([server.address for server in candidates if server.tries == least], self._config)
            chosen = infra.choose(wanted, self._resolver.chance, now_ms)
            finding = yield from self._ask_server(servers[chosen], cut, qname, qtype, depth)
            if finding is None:
                continue
            self._told(finding, chosen, cut, servers, qname, qtype)
            if finding.reliable:
                return finding
            second = second or finding

    def _told(
        self, finding: Finding, by: Server, cut: Delegation, servers: dict[Server, _Server], qname: bytes, qtype: int
    ) -> None:
        """Remember who said it, for when it does not stand validation."""
        sources = self._question.sources
        if sources is None:
            return
        about = (finding.cut, codes.TYPE_DS) if finding.kind == scrub.REFERRAL else (qname, qtype)
        found = {server.name for server in servers.values()}
        more = any(name not in found and not at_or_below(name, cut.zone) for name in cut.servers)
        sources[about] = (by, tuple(servers), more)

    def _worth(self, server: _Server, zone: bytes, last_chance: bool) -> bool:
        if server.word and not server.silent:
            return False
        if not last_chance and not server.tries and self._lame_before(server, zone):
            return False
        return server.tries < _TRIES + 1

    def _lame_before(self, server: _Server, zone: bytes) -> bool:
        return not server.tries and self._infra.is_lame(server.address, zone, self._budget.now_ms)

    def _failure(self, cut: Delegation, servers: Iterable[_Server]) -> Failed:
        tried = list(servers)
        zone = names.to_text(cut.zone)
        if not tried:
            return Failed(codes.EDE_NO_REACHABLE_AUTHORITY, f"no address of a name server of {zone} can be found")
        said = [f"{server.address[0]} {_WORDS.get(server.word, server.word or 'was lame')}" for server in tried[:4]]
        network = all(server.word in _NETWORK_WORDS for server in tried)
        more = f" and {len(tried) - 4} more" if len(tried) > 4 else ""
        ede = codes.EDE_NETWORK_ERROR if network else codes.EDE_NO_REACHABLE_AUTHORITY
        return Failed(ede, f"no name server of {zone} answers: {', '.join(said)}{more}")

    def _ask_server(
        self, server: _Server, cut: Delegation, qname: bytes, qtype: int, depth: int, tried: Tried | None = None
    ) -> Generator[Ask, Reply, Finding | None]:
        """Ask one server, unless it has been (`tried`); None when what it says is of no use."""
        config, infra = self._config, self._infra
        server.tries += 1
        if server.tries > _TRIES:
            infra.needs_tcp(server.address, self._budget.now_ms)
        begun_ms = self._budget.now_ms
        message, word, transport, rtt_ms = yield from exchange(
            server.address, qname, qtype, edns_size=config.edns_size, do=self._question.signed,
            randomise=config.case_randomisation, infra=infra, chance=self._resolver.chance, budget=self._budget,
            tried=tried,
        )  # fmt: skip
        if message is None:
            server.word = word
            if server.tries > _TRIES:
                server.word = "timeout over UDP and TCP"
                infra.udp_again(server.address)
            self._note(server, cut, qname, qtype, depth, transport, rtt_ms, begun_ms, Finding(word))
            return None
        if qname == names.ROOT and qtype == codes.TYPE_NS and cut.ttl < 0:
            finding = _primed(message, scrub.judge(message, cut.zone, qname, qtype))
        else:
            finding = scrub.judge(message, cut.zone, qname, qtype, config.harden_glue)
        self._note(server, cut, qname, qtype, depth, transport, rtt_ms, begun_ms, finding)
        if finding.kind in (scrub.LAME, scrub.BROKEN):
            server.word = finding.text
            if finding.kind == scrub.LAME:
                infra.lame(server.address, cut.zone, self._budget.now_ms)
            return None
        if finding.kind == scrub.REFERRAL and not at_or_below(qname, finding.cut):
            server.word = "a referral to somewhere else"
            return None
        infra.serves(server.address, cut.zone)
        if not finding.reliable:
            server.word = "not authoritative"
        return finding

    # --- addresses of name servers -----------------------------------------------------------------------------------

    def _nameless(self, cut: Delegation, servers: dict[Server, _Server]) -> Generator[tuple[bytes, int]]:
        """Which (name, type) to look up for further addresses, in order, as far as the budget allows.

        All names for one family, then for the other; at last what the zone itself says of its servers.
        """
        if cut.ttl < 0:
            return
        tried: set[bytes] = set()
        for rtype in types(self._config):
            own = self._cache.get(cut.zone, codes.TYPE_NS, False, rrcache.AUTHORITY)
            child = tuple(names.lower(rdata) for rdata in own.rdatas[: scrub.SERVERS]) if own is not None else ()
            for name in dict.fromkeys((*cut.servers, *child)):
                owned = self._question.owned(name, rtype)
                if at_or_below(name, cut.zone) and name in cut.servers and not owned:
                    continue  # only the zone itself could tell, and that is what we look for
                if name not in tried and len(tried) >= GLUELESS:
                    continue
                kept = not owned and self._config.at_home(name)
                if kept or any(server.name == name for server in servers.values()):
                    continue
                tried.add(name)
                yield name, rtype

    def _find_addresses(
        self, cut: Delegation, name: bytes, rtype: int, depth: int, servers: dict[Server, _Server]
    ) -> Generator[Ask, Reply, None]:
        question, budget = self._question, self._budget
        key = (name, rtype)
        if depth >= DEPTH or key in question.resolving or budget.address_lookups >= ADDRESS_LOOKUPS:
            return
        if self._cache.failed(name, rtype, budget.now_ms) is not None:
            return
        budget.address_lookups += 1
        question.resolving.add(key)
        question.note(steps.ADDRESSES, depth, name, rtype, zone=cut.zone)
        try:
            result = yield from question.lookup(name, rtype, depth + 1)
        except Spent:
            raise
        except Failed as failure:
            question.note(steps.FAILED, depth + 1, name, rtype, text=failure.text)
            if not question.resolving - {key}:  # inside another look-up a circle may be the reason, not the name
                self._cache.fail(name, rtype, failure.ede, failure.text, budget.now_ms)
            return
        finally:
            question.resolving.discard(key)
        for rrset in result.answer:
            if rrset.rtype == rtype:
                for rdata in rrset.rdatas[:MOST]:
                    text = address_text(rtype, rdata)
                    if may_ask(text, self._config):
                        servers.setdefault((text, PORT), _Server((text, PORT), name))

    def _note(
        self, server: _Server, cut: Delegation, qname: bytes, qtype: int, depth: int, transport: str, rtt_ms: int,
        begun_ms: int, finding: Finding,
    ) -> None:  # fmt: skip
        if self._question.trace is None:
            return
        self._question.note(
            steps.ASK, depth, qname, qtype, zone=cut.zone, server=server.address, server_name=server.name,
            transport=transport, rtt_ms=rtt_ms, took_ms=self._budget.now_ms - begun_ms,
            said=finding.kind, text=finding.text, cut=finding.cut,
            servers=finding.servers, glue=finding.glue, rrsets=finding.rrsets or finding.authority,
        )  # fmt: skip


_WORDS: dict[str, str] = {"timeout": "timed out", "unreachable": "is unreachable", "broken": "broke the connection"}


def _same(cut: Delegation) -> tuple[bytes, tuple[bytes, ...], tuple[tuple[bytes, tuple[str, ...]], ...]]:
    return cut.zone, cut.servers, cut.glue


def _redirected(sname: bytes, qtype: int, finding: Finding) -> Finding:
    """A DNAME that was met on the way to `sname`, applied to `sname` itself."""
    dname = finding.rrsets[0]
    target = scrub.substitute(sname, dname)
    if target is None:
        return dataclasses.replace(finding, rrsets=(dname,), target=sname)
    made = scrub.synthesized(sname, dname, target)
    if qtype == codes.TYPE_CNAME:
        return dataclasses.replace(finding, kind=scrub.ANSWER, rrsets=(dname, made), target=b"")
    return dataclasses.replace(finding, kind=scrub.ALIAS, rrsets=(dname, made), target=target)


def _primed(message: Message, finding: Finding) -> Finding:
    """The root's NS with the addresses that came along (RFC 9609, section 4)."""
    glue: dict[bytes, list[str]] = {}
    if finding.kind == scrub.ANSWER:
        wanted = {names.lower(rdata) for rdata in finding.rrsets[-1].rdatas}
        for rrset in message.additional:
            if rrset.owner in wanted and rrset.rtype in (codes.TYPE_A, codes.TYPE_AAAA):
                glue.setdefault(rrset.owner, []).extend(address_text(rrset.rtype, rdata) for rdata in rrset.rdatas[:8])
    return dataclasses.replace(finding, glue=tuple((name, tuple(found)) for name, found in glue.items()))

# cython: wraparound=True
"""One question resolved from the root down, as a generator: aliases, cache, and what the client is told.

Pure: it yields `Ask` and is sent `Reply` (`forwarder`); the wall clock stands in the cache, time comes with each reply,
chance is an argument. The walk through the zones is in `iterate`. Nothing a server sends raises out of here or makes it
go on for ever: each question has a budget.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Generator

from dnsd.contract import codes, names
from dnsd.resolve import rrcache, scrub, sentinel, steps
from dnsd.resolve.anchors import Anchors
from dnsd.resolve.budget import Budget, Failed, Spent
from dnsd.resolve.chain import Found, Zone
from dnsd.resolve.config import Config
from dnsd.resolve.forwarded import Relay, Upstream
from dnsd.resolve.forwarder import Ask, Outcome, Reply, Tried
from dnsd.resolve.hints import Hints
from dnsd.resolve.infra import Chance, Infra
from dnsd.resolve.iterate import Walk
from dnsd.resolve.realms import Forwarded, Own, Realms, end_of, own_answer
from dnsd.resolve.rrcache import Denial, RRCache
from dnsd.resolve.rrsets import FLAG_AD, RRset, response
from dnsd.resolve.steps import Step
from dnsd.resolve.upstreams import Server
from dnsd.resolve.validator import BOGUS, INSECURE, Validator, Verdict

__all__ = ["BOGUS_BIT", "Resolver", "Result", "remember"]

_CHAINS = frozenset((codes.TYPE_DS, codes.QTYPES["DNSKEY"]))
# Not for those who did not set DO (RFC 4035, section 3.2.1).
_SIGNED_ONLY = frozenset((codes.QTYPES["NSEC"], codes.QTYPES["NSEC3"]))
_YXDOMAIN = codes.RCODES["YXDOMAIN"]
_TURNS = 3  # so often other servers are asked for what did not stand validation
_INFERRED = "proven by what is known of other names"
BOGUS_BIT = 1 << 16  # beside a qtype: the failure of validation, which a question with CD set does not share


@dataclasses.dataclass(frozen=True)
class Result:
    """What a name resolves to: the chain of aliases with what is at its end, or what proves that there is nothing."""

    rcode: int
    answer: tuple[RRset, ...]
    authority: tuple[RRset, ...] = ()


class Resolver:
    """What all questions of one worker share. `hints` may be replaced at any time."""

    def __init__(
        self,
        config: Config,
        hints: Hints,
        chance: Chance,
        cache: RRCache | None = None,
        infra: Infra | None = None,
        validator: Validator | None = None,
        upstream: Upstream | None = None,
    ) -> None:
        self.config = config
        self.hints = hints
        self.chance = chance
        self.cache = RRCache() if cache is None else cache
        self.infra = Infra() if infra is None else infra
        self.validator = validator  # None: nothing is validated
        self.upstream = upstream  # who is asked; None: the authorities
        self.primed_ms: int | None = None  # when priming was last begun

    def trust(self, anchors: Anchors) -> None:
        """Validate by other trust anchors from now on; nothing changes where nothing is validated."""
        if self.validator is not None and self.validator.trust(anchors):
            self.cache.forget_failures()

    def resolve(
        self,
        sname: bytes,
        qtype: int,
        do: bool,
        cd: bool,
        now_ms: int,
        trace: list[Step] | None = None,
        renew: bool = False,
        realms: Realms | None = None,
        tried: Tried | None = None,
    ) -> Generator[Ask, Reply, Outcome]:
        """Resolve one question of class IN (`sname` lower case); the Outcome's response is what an upstream would send.

        `do`: the client wants signatures. `cd`: it validates by itself. The response has AD set when everything in it
        is secure, whoever asks. `now_ms` is monotonic. `renew`: what is known about the name itself is asked for anew.
        `realms`: who is responsible for names that are met on the way; without it the authorities are for all of them.
        `tried`: a question that has been asked already (`shortcut`), and is not asked again.
        """
        validates = bool(self.validator) and not cd
        question = _Question(self, do or validates or self.config.dnssec, now_ms, trace)
        question.infers = validates
        question.renewed = sname if renew else b""
        question.realms = realms
        question.tried = tried
        if tried is not None:  # what it has cost counts, whether its reply is of use or not
            question.budget.now_ms = max(now_ms, tried.reply.now_ms)
        question.sources = {} if validates and self.upstream is None else None
        cached, bogus = self.cache.failed(sname, qtype, now_ms), False
        if cached is None and validates:
            cached, bogus = self.cache.failed(sname, qtype | BOGUS_BIT, now_ms), True
        if cached is not None:
            question.note(steps.FAILED, 0, sname, qtype, said="cached", text=cached[1])
            return Outcome(None, codes.EDE_CACHED_ERROR, f"failed a moment ago: {cached[1]}", bogus)
        try:
            result = yield from question.lookup(sname, qtype, 0)
        except Failed as failure:
            if self.upstream is None:  # else it is known which servers are ill, and a name is not to blame
                self.cache.fail(sname, qtype, failure.ede, failure.text, question.budget.now_ms)
            question.note(steps.FAILED, 0, sname, qtype, text=failure.text)
            return Outcome(None, failure.ede, failure.text)
        self.cache.succeeded(sname, qtype)
        ede, text, flags = codes.EDE_NONE, "", 0
        if validates:
            try:
                verdict = yield from question.proven(sname, qtype, result)
            except Failed as failure:  # the budget is spent
                self.cache.fail(sname, qtype | BOGUS_BIT, failure.ede, failure.text, question.budget.now_ms)
                return Outcome(None, failure.ede, failure.text)
            ede, text = verdict.ede, verdict.text
            if verdict.state == BOGUS:
                for name, rtype in verdict.blame:
                    self.cache.forget(name, rtype)
                self.cache.fail(sname, qtype | BOGUS_BIT, ede, text, question.budget.now_ms)
                return Outcome(None, ede, text, True)
            self.cache.succeeded(sname, qtype | BOGUS_BIT)
            if verdict.secure and self.validator is not None and sentinel.denies(sname, qtype, self.validator.anchors):
                return Outcome(None, codes.EDE_OTHER, "what this name says of our root keys is not so (RFC 8509)", True)
            result = Result(verdict.rcode, verdict.answer, verdict.authority)
            if verdict.until:  # then everything is validated again
                result = _ending(result, verdict.until - self.cache.now)
            flags = FLAG_AD if verdict.secure else 0
        if trace is not None:
            said = codes.rcode_name(result.rcode)
            question.note(steps.RESULT, 0, sname, qtype, said=said, rrsets=result.answer or result.authority)
        authority = result.authority
        answer = result.answer
        if sum(rrset.rtype == codes.TYPE_DNAME for rrset in answer) > 1:  # one that was applied twice is told once
            answer = tuple({(rrset.owner, rrset.rtype): rrset for rrset in reversed(answer)}.values())[::-1]
        if not do:
            if authority:
                authority = tuple(rrset for rrset in authority if rrset.rtype not in _SIGNED_ONLY)
        else:  # what shows that a wildcard was right to answer
            authority += tuple(dict.fromkeys(proof for rrset in result.answer for proof in rrset.proofs))
        wire = response(sname, qtype, result.rcode, answer, authority, do, flags)
        return Outcome(wire, ede, text, fleeting=bool(question.elsewhere))


def _ending(result: Result, left_s: int) -> Result:
    """The same, for so many seconds at most."""
    answer, authority = (
        tuple(rrset.lasting(min(rrset.ttl, max(0, left_s))) for rrset in section)
        for section in (result.answer, result.authority)
    )
    return Result(result.rcode, answer, authority)


class _Question:
    """One client's question: its budget, and the names that it looks up on the way."""

    def __init__(self, resolver: Resolver, signed: bool, now_ms: int, trace: list[Step] | None) -> None:
        self.resolver = resolver
        self.cache = resolver.cache
        self.signed = signed
        self.budget = Budget(now_ms)
        self.trace = trace
        self.resolving: set[tuple[bytes, int]] = set()
        self.inferred = False  # and whether it has
        self.infers = False  # whether what was proven before may answer it (RFC 8198)
        self.renewed = b""  # the name of which nothing that is remembered is good enough
        self.realms: Realms | None = None
        self.elsewhere: set[bytes] = set()  # names of the answer that others than the authorities are responsible for
        self.unproven: set[bytes] = set()  # those of them that nobody validates
        self.realm: Forwarded | None = None  # the forward entry over whose servers this looks up
        self.tried: Tried | None = None
        # Who said what of a name and type (of a zone's DS: who referred to it), who else might have been asked, and
        # whether there are servers whose addresses were not looked up.
        self.sources: dict[tuple[bytes, int], tuple[Server, tuple[Server, ...], bool]] | None = None
        self.avoided: set[Server] = set()  # who told what did not stand validation
        self.turns = 0

    def already(self, qname: bytes, qtype: int) -> Tried | None:
        """This question, if it has been asked before the resolution began; once."""
        tried = self.tried
        if tried is None or tried.qtype != qtype or names.lower(tried.cased) != qname:
            return None
        self.tried = None
        return tried

    def walk(self) -> Walk | Relay:
        """Who looks up for it: the walk from the root down, or a forward entry's servers."""
        resolver = self.resolver
        return Walk(self) if resolver.upstream is None else Relay(self, resolver.upstream)

    def lookup(self, sname: bytes, qtype: int, depth: int) -> Generator[Ask, Reply, Result]:
        """Follow aliases until there is an answer or none; raises Failed."""
        if self.trace is not None:
            self.note(steps.LOOKUP, depth, sname, qtype)
        chain: list[RRset] = []
        seen = {sname}
        there = self._realm(sname, qtype, depth) if depth and self.realms is not None else self
        while True:
            result: Result | None = None
            found: tuple[RRset, ...] = ()
            target = b""
            if isinstance(there, Own):
                result, found, target = self._own(there, sname, qtype, depth)
            elif depth or sname != self.renewed:
                result, found, target = there._known(sname, qtype, depth)
            if result is not None:
                if there is not self:
                    self._is_elsewhere(there, sname, result.answer, depth)
                return Result(result.rcode, (*chain, *result.answer), result.authority) if chain else result
            if target and there is not self:
                self._is_elsewhere(there, sname, found, depth)
            if not target:
                assert isinstance(there, _Question)
                finding = yield from there.walk().find(sname, qtype, depth)
                if there is not self:
                    self._is_elsewhere(there, sname, finding.rrsets, depth)
                if finding.kind in (scrub.NODATA, scrub.NXDOMAIN):
                    rcode = codes.RCODE_NXDOMAIN if finding.kind == scrub.NXDOMAIN else codes.RCODE_NOERROR
                    return Result(rcode, tuple(chain), finding.authority)
                found, target = finding.rrsets, finding.target
                if there is self and self.realms is not None and len(found) > 1:
                    found, target = self._up_to_realm(found, target, qtype)
                if not target:
                    return Result(codes.RCODE_NOERROR, (*chain, *found))
            chain += found
            if found[-1].rtype == codes.TYPE_DNAME:
                return Result(_YXDOMAIN, tuple(chain))  # the name that it leads to is too long
            # A DNAME and the CNAME made of it are one step.
            aliases = sum(rrset.rtype == codes.TYPE_CNAME for rrset in chain)
            if target in seen or any(rrset.owner == target for rrset in chain):
                raise Failed(codes.EDE_OTHER, f"the aliases of {names.to_text(chain[0].owner)} go round in a circle")
            if aliases > scrub.CHAIN:
                raise Failed(codes.EDE_OTHER, f"more than {scrub.CHAIN} aliases in a row")
            seen.add(target)
            sname = target
            self.note(steps.LOOKUP, depth, sname, qtype, said=scrub.ALIAS)
            there = self._realm(sname, qtype, depth) if self.realms is not None else self
            if there is self and self.resolver.config.at_home(sname):
                return Result(codes.RCODE_NXDOMAIN, tuple(chain))

    def _realm(self, name: bytes, qtype: int, depth: int) -> Own | _Question:
        """Who is responsible for a name on the way: our table, look-ups over a forward entry's servers, or ourselves.

        A chain of trust is followed where the data comes from: with the authorities, but for a forward entry whose
        answers are validated.
        """
        assert self.realms is not None
        proving = qtype in _CHAINS and depth == 1
        realm = self.realms(names.parent(name) if proving and qtype == codes.TYPE_DS else name, qtype)
        if realm is None or (proving and not (isinstance(realm, Forwarded) and realm.validated)):
            return self
        if isinstance(realm, Own):
            return realm
        return self._over(realm, name, qtype, depth)

    def _up_to_realm(
        self, found: tuple[RRset, ...], target: bytes, qtype: int
    ) -> tuple[tuple[RRset, ...], bytes]:
        """An authority's answer up to the alias that leads to a name it has no word about here, and that name."""
        assert self.realms is not None
        for at, rrset in enumerate(found[:-1]):
            if rrset.rtype == codes.TYPE_CNAME and qtype != codes.TYPE_CNAME:
                name = names.lower(rrset.rdatas[0])
                if self.realms(name, qtype) is not None:
                    return found[: at + 1], name
        return found, target

    def _over(self, realm: Forwarded, name: bytes, qtype: int, depth: int) -> _Question:
        """The same question's look-ups over a forward entry's servers: its memory, our budget."""
        there = _Question(realm.resolver, True, self.budget.now_ms, self.trace)
        there.budget = self.budget
        there.resolving = self.resolving
        there.realm = realm
        self.note(steps.FORWARDED, depth, name, qtype, text=realm.name)
        return there

    def owned(self, name: bytes, qtype: int) -> bool:
        """Whether somebody else than the authorities is responsible for a name server's name."""
        return self.realms is not None and self.realms(name, qtype) is not None

    def _own(self, own: Own, sname: bytes, qtype: int, depth: int) -> tuple[Result | None, tuple[RRset, ...], bytes]:
        """What our table says of a name, as `_known`."""
        rcode, answer, authority, target = own_answer(own, sname, qtype)
        if self.trace is not None:
            self.note(steps.OWN, depth, sname, qtype, said=codes.rcode_name(rcode), text=own.zone, rrsets=answer)
        if target:
            return None, answer, target
        return Result(rcode, answer, authority), (), b""

    def _is_elsewhere(self, there: Own | _Question, sname: bytes, found: tuple[RRset, ...], depth: int) -> None:
        """Remember whose word a part of the client's answer is."""
        if depth:
            return
        theirs = {sname, *(rrset.owner for rrset in found)}
        self.elsewhere |= theirs
        if isinstance(there, Own) or there.realm is None or not there.realm.validated:
            self.unproven |= theirs

    def _known(self, sname: bytes, qtype: int, depth: int) -> tuple[Result | None, tuple[RRset, ...], bytes]:
        """What the cache says: a result; or an alias and where it leads; or nothing."""
        cache = self.cache
        rrset = cache.get(sname, qtype, self.signed)
        if rrset is not None:
            if self.trace is not None:
                self.note(steps.CACHED, depth, sname, qtype, said=scrub.ANSWER, rrsets=(rrset,))
            return Result(codes.RCODE_NOERROR, (rrset,)), (), b""
        if qtype != codes.TYPE_CNAME:
            alias = cache.get(sname, codes.TYPE_CNAME, self.signed)
            if alias is not None:
                self.note(steps.CACHED, depth, sname, qtype, said=scrub.ALIAS, rrsets=(alias,))
                return None, (alias,), names.lower(alias.rdatas[0])
        dname = cache.dname(sname, self.signed)
        if dname is not None:
            self.note(steps.CACHED, depth, sname, qtype, said=scrub.ALIAS, rrsets=(dname,))
            target = scrub.substitute(sname, dname)
            if target is None:
                return Result(_YXDOMAIN, (dname,)), (), b""
            made = (dname, scrub.synthesized(sname, dname, target))
            if qtype == codes.TYPE_CNAME:
                return Result(codes.RCODE_NOERROR, made), (), b""
            return None, made, target
        denial = cache.denied(sname, qtype, self.signed)
        if denial is not None and not depth and qtype == codes.TYPE_DS and not _has_soa(denial.authority):
            denial = None  # known from a referral: enough for us, but a client's answer wants a SOA (RFC 2308, section 2.2)
        if denial is not None:
            said = scrub.NXDOMAIN if denial.rcode == codes.RCODE_NXDOMAIN else scrub.NODATA
            self.note(steps.CACHED, depth, sname, qtype, said=said, rrsets=denial.authority)
            return Result(denial.rcode, (), denial.authority), (), b""
        if self.infers:
            return self._inferred(sname, qtype, depth)
        return None, (), b""

    def _inferred(self, sname: bytes, qtype: int, depth: int) -> tuple[Result | None, tuple[RRset, ...], bytes]:
        """As `_known`: what NSEC and NSEC3 records of other answers say of this question."""
        validator = self.resolver.validator
        assert validator is not None
        evidence = validator.denied(sname, qtype, self.cache.now)
        if evidence is None:
            return None, (), b""
        self.inferred = True
        if evidence.answer:
            alias = evidence.answer[0]
            if alias.rtype == codes.TYPE_CNAME and qtype != codes.TYPE_CNAME:
                self.note(steps.CACHED, depth, sname, qtype, said=scrub.ALIAS, rrsets=evidence.answer, text=_INFERRED)
                return None, evidence.answer, names.lower(alias.rdatas[0])
            said = scrub.ANSWER
        else:
            said = scrub.NXDOMAIN if evidence.rcode == codes.RCODE_NXDOMAIN else scrub.NODATA
        rrsets = evidence.answer or evidence.authority
        self.note(steps.CACHED, depth, sname, qtype, said=said, rrsets=rrsets, text=_INFERRED)
        return Result(evidence.rcode, evidence.answer, evidence.authority), (), b""

    def proven(self, sname: bytes, qtype: int, result: Result) -> Generator[Ask, Reply, Verdict]:
        """As `validated`; what is bogus is asked of other servers, where there are some: one of them may be out of step,
        or somebody sits on the way to one of them."""
        verdict = yield from self.validated(sname, qtype, result)
        if verdict.state == BOGUS and self.inferred:
            self.infers = False  # what was proven of other names does not do: the zone's servers are asked
            result = yield from self.lookup(sname, qtype, 0)
            verdict = yield from self.validated(sname, qtype, result)
        self.infers = self.infers and verdict.state != BOGUS
        while verdict.state == BOGUS and self.has_others((*verdict.blame, (sname, qtype))):
            try:
                result = yield from self.lookup(sname, qtype, 0)
                verdict = yield from self.validated(sname, qtype, result)
            except Failed:
                break  # what was found first is told
        return verdict

    def has_others(self, blame: tuple[tuple[bytes, int], ...]) -> bool:
        """Forget what did not stand validation and avoid who told it; whether there is somebody else to ask."""
        if self.sources is None or self.turns >= _TURNS:
            return False
        self.turns += 1
        others: set[Server] = set()
        more = False
        for name, rtype in blame:
            self.cache.forget(name, rtype)
            source = self.sources.pop((name, rtype), None)
            if source is not None:
                self.avoided.add(source[0])
                others.update(source[1])
                more = more or source[2]
        return more or not others <= self.avoided

    def validated(self, sname: bytes, qtype: int, result: Result) -> Generator[Ask, Reply, Verdict]:
        """What the whole answer is worth; raises Spent."""
        if self.unproven:
            verdict = yield from self._validated_parts(sname, qtype, result)
        else:
            verdict = yield from self._judged(sname, qtype, result)
        if self.trace is not None:
            self._note_trust(verdict)
        self.note(steps.VALIDATED, 0, sname, qtype, said=verdict.state, text=verdict.text)
        return verdict

    def _validated_parts(self, sname: bytes, qtype: int, result: Result) -> Generator[Ask, Reply, Verdict]:
        """As `validated`, for an answer that is in part ours, or a forward entry's that is not validated.

        Each run of the authorities' own records is judged; the rest is believed, and makes the whole insecure.
        """
        runs = [(theirs, tuple(run)) for theirs, run in itertools.groupby(result.answer, self._is_unproven)]
        end = end_of(result.answer, sname, qtype)
        if end and end not in self.unproven and runs[-1][0]:
            runs.append((False, ()))  # what shows that there is nothing at the end
        rcode, authority, name = result.rcode, result.authority, sname
        kept: list[RRset] = []
        zones: tuple[Zone, ...] = ()
        for theirs, run in runs:
            if theirs:
                kept += run
            else:
                last = run is runs[-1][1]
                part = Result(rcode, run, authority) if last else Result(codes.RCODE_NOERROR, run)
                judged = yield from self._judged(name, qtype, part, not last or end in self.unproven)
                zones += judged.zones
                if judged.state == BOGUS:
                    return judged
                kept += judged.answer
                if last:
                    rcode, authority = judged.rcode, judged.authority
            name = end_of(run, name, qtype) or name
        return Verdict(INSECURE, rcode, tuple(kept), authority, zones=zones)

    def _is_unproven(self, rrset: RRset) -> bool:
        return rrset.owner in self.unproven

    def _judged(
        self, sname: bytes, qtype: int, result: Result, believed: bool = False
    ) -> Generator[Ask, Reply, Verdict]:
        """Let the validator judge, and look up what it asks for; raises Spent. `believed`: see `Validator.judge`."""
        validator = self.resolver.validator
        assert validator is not None
        known = validator.plain(sname, qtype, result.answer, self.cache.now) if self.trace is None else None
        if known is not None:
            return Verdict(known.state, result.rcode, result.answer, result.authority, known.ede, known.text)
        last = next((rrset for rrset in reversed(result.answer) if rrset.rtype == codes.TYPE_CNAME), None)
        believed = believed or (
            last is not None
            and names.lower(last.rdatas[0]) not in self.elsewhere
            and self.resolver.config.at_home(names.lower(last.rdatas[0]))
        )
        judging = validator.judge(sname, qtype, result.rcode, result.answer, result.authority, self.cache.now, believed)
        try:
            need = next(judging)
            while True:
                need = judging.send((yield from self._found(need.name, need.rtype)))
        except StopIteration as stop:
            verdict: Verdict = stop.value
        return verdict

    def _note_trust(self, verdict: Verdict) -> None:
        for zone in verdict.zones:
            self.note(
                steps.TRUST, 0, zone.apex, codes.TYPE_DS, said=zone.state, text=zone.text, keys=zone.vouched
            )
        if verdict.state == BOGUS and verdict.blame:
            name, rtype = verdict.blame[0]
            self.note(steps.TRUST, 0, name, rtype, said=verdict.state, text=verdict.text)

    def _found(self, name: bytes, rtype: int) -> Generator[Ask, Reply, Found]:
        """Look up a DS or DNSKEY for the validator; raises Spent."""
        failure = self.cache.failed(name, rtype, self.budget.now_ms)
        if failure is not None:
            return Found(failure=failure)
        try:
            result = yield from self.lookup(name, rtype, 1)
        except Spent:
            raise
        except Failed as failed:
            if self.resolver.upstream is None:
                self.cache.fail(name, rtype, failed.ede, failed.text, self.budget.now_ms)
            return Found(failure=(failed.ede, failed.text))
        return Found(result.answer, result.authority)

    def remember_ds(self, referral: scrub.Finding) -> None:
        """Put what a referral says about the DS of the zone below into the cache: the parent is its authority."""
        if not self.signed:
            return
        for rrset in referral.authority:
            if rrset.rtype == codes.TYPE_DS:
                if rrset.owner == referral.cut:
                    self.cache.put(rrset, rrcache.ANSWER, True)
                return
        known = self.cache.denied(referral.cut, codes.TYPE_DS, True)
        if known is not None and _has_soa(known.authority):
            return
        self.cache.deny(referral.cut, codes.TYPE_DS, Denial(codes.RCODE_NOERROR, referral.authority, True))

    def remember(self, sname: bytes, qtype: int, finding: scrub.Finding) -> None:
        """Put what was found for `sname` into the cache, with the rank that it has."""
        remember(self.cache, self.signed, sname, qtype, finding)

    def note(self, kind: str, depth: int, name: bytes, qtype: int, **values: object) -> None:
        """Write a step when somebody wants to see them."""
        if self.trace is not None:
            self.trace.append(Step(kind, depth, name, qtype, **values))  # type: ignore[arg-type]


def _has_soa(authority: tuple[RRset, ...]) -> bool:
    return any(rrset.rtype == codes.TYPE_SOA for rrset in authority)


def remember(cache: RRCache, signed: bool, sname: bytes, qtype: int, finding: scrub.Finding) -> None:
    """Put what was found for `sname` into the cache, with the rank that it has; `signed`: it was asked with DO."""
    rank = rrcache.AUTHORITATIVE if finding.authoritative else rrcache.ANSWER
    if finding.kind in (scrub.NODATA, scrub.NXDOMAIN):
        rcode = codes.RCODE_NXDOMAIN if finding.kind == scrub.NXDOMAIN else codes.RCODE_NOERROR
        cache.deny(sname, qtype, Denial(rcode, finding.authority, signed))
        return
    made = False  # a CNAME behind a DNAME is made by us each time
    for rrset in finding.rrsets:
        if not made:
            cache.put(rrset, rank, signed)
            # RFC 2181, section 5.4.1: only the first RRset of the chain is covered by AA.
            rank = rrcache.ANSWER
        made = rrset.rtype == codes.TYPE_DNAME  # one that was asked for is the last

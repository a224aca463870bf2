# cython: wraparound=True
"""What a whole answer is worth: secure, insecure, bogus or indeterminate (RFC 4033, section 5; RFC 4035, section 5).

Pure: it yields `Need` and is sent `Found` (`chain`); the resolver answers those by looking up like for anybody else.
Every RRset of a chain of aliases is looked at, then what proves that nothing is behind it; the worst of them counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator

from dnsd.contract import codes, names
from dnsd.resolve import denial, signatures
from dnsd.resolve.aggressive import Denials, Evidence
from dnsd.resolve.anchors import Anchors
from dnsd.resolve.chain import (
    BOGUS,
    INDETERMINATE,
    INSECURE,
    SECURE,
    Bogus,
    Chain,
    Flaw,
    Found,
    Memory,
    Need,
    Trust,
    Zone,
)
from dnsd.resolve.rrsets import RRset, at_or_below
from dnsd.resolve.signatures import Policy

__all__ = ["BOGUS", "INDETERMINATE", "INSECURE", "SECURE", "Validator", "Verdict"]

_RRSIG = codes.TYPE_RRSIG
_YXDOMAIN = codes.RCODES["YXDOMAIN"]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the answer is worth, and why. `answer` and `authority` last no longer than their signatures.

    `ede` may tell of an insecure answer too (RFC 8914: 1, 2, 27). `blame`: what to forget when it is BOGUS.
    `until`: when a negative trust anchor ends that made it insecure; 0 for none. `zones`: the zones whose trust was looked
    at, for those who want to see the way.
    """

    state: str
    rcode: int
    answer: tuple[RRset, ...]
    authority: tuple[RRset, ...]
    ede: int = codes.EDE_NONE
    text: str = ""
    blame: tuple[tuple[bytes, int], ...] = ()
    zones: tuple[Zone, ...] = ()
    until: int = 0

    @property
    def secure(self) -> bool:
        """Whether the AD bit may be set (RFC 6840, section 5.8)."""
        return self.state == SECURE


class Validator:
    """Validates for one worker. `skew_s`: how far the clocks of signers and ours may differ.

    `denials`: where what was proven is kept for other names (RFC 8198); None for nowhere.
    """

    def __init__(
        self, anchors: Anchors, skew_s: float = 3600.0, denials: Denials | None = None, policy: Policy | None = None
    ) -> None:
        self.anchors = anchors
        self.skew_s = int(skew_s)
        self.policy = Policy() if policy is None else policy
        self.memory = Memory(denials)

    def __bool__(self) -> bool:
        """Without a trust anchor there is nothing to validate by."""
        return bool(self.anchors)

    def trust(self, anchors: Anchors) -> bool:
        """Take other anchors, and forget what was found out with the old ones; False when they are the same."""
        if anchors == self.anchors:
            return False
        self.anchors = anchors
        self.memory.forget()
        return True

    def denied(self, sname: bytes, qtype: int, now: int) -> Evidence | None:
        """What was proven already and answers this question, too; to be judged like any answer."""
        denials = self.memory.denials
        if denials is None:
            return None
        evidence: Evidence | None = denials.find(sname, qtype, now)
        if evidence is None:
            return None
        anchor = self.anchors.nearest(sname, now)
        if anchor is None or anchor.negative or not at_or_below(evidence.apex, anchor.zone):
            return None  # below a negative trust anchor, or another one, it proves nothing
        return evidence

    def plain(self, sname: bytes, qtype: int, answer: tuple[RRset, ...], now: int) -> Zone | None:
        """The zone that makes an unsigned answer of one RRset insecure, when all that `judge` would ask is known."""
        if len(answer) != 1 or qtype in (_RRSIG, codes.TYPE_DS):
            return None
        rrset: RRset = answer[0]
        if rrset.sigs or rrset.rtype != qtype or rrset.owner != sname:
            return None
        anchor = self.anchors.nearest(sname, now)
        if anchor is None or anchor.negative:
            return None
        name = sname
        while at_or_below(name, anchor.zone):
            zone = self.memory.zone(name, now)
            if zone is not None:
                return zone if zone.state == INSECURE else None
            if name == names.ROOT:
                break
            name = names.parent(name)
        return None

    def looks_away(self, name: bytes, now: int) -> bool:
        """Whether it is known already that nobody's keys vouch for what is at a name: `judge` lets it pass unsigned.

        And has nothing to say of it: a negative trust anchor, or none, or algorithms that are not supported.
        """
        anchor = self.anchors.nearest(name, now)
        if anchor is None or anchor.negative:
            return False
        while at_or_below(name, anchor.zone):
            zone = self.memory.zone(name, now)
            if zone is not None:
                return bool(zone.state == INSECURE and zone.ede == codes.EDE_NONE)
            if name == names.ROOT:
                break
            name = names.parent(name)
        return False

    def judge(
        self,
        sname: bytes,
        qtype: int,
        rcode: int,
        answer: tuple[RRset, ...],
        authority: tuple[RRset, ...],
        now: int,
        believed: bool = False,
    ) -> Generator[Need, Found, Verdict]:
        """Judge an answer at `now` (wall clock, seconds); never raises.

        `believed`: that nothing is behind the aliases is known by ourselves (a name kept at home), without proof.
        """
        chain = Chain(self.anchors, self.memory, now, self.skew_s, self.policy)
        task = _Task(chain)
        try:
            verdict = yield from task.judge(sname, qtype, rcode, answer, authority, believed)
            return dataclasses.replace(verdict, zones=tuple(chain.seen.values()), until=chain.ends)
        except Bogus as bogus:
            blame = bogus.blame + tuple((rrset.owner, rrset.rtype) for rrset in answer) + task.asked
            zones = tuple(chain.seen.values())
            return Verdict(BOGUS, rcode, answer, authority, bogus.ede, bogus.text, blame, zones)


class _Task:
    """One answer being judged."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._worst = Zone(names.ROOT, SECURE)
        self.asked: tuple[tuple[bytes, int], ...] = ()

    def judge(
        self,
        sname: bytes,
        qtype: int,
        rcode: int,
        answer: tuple[RRset, ...],
        authority: tuple[RRset, ...],
        believed: bool,
    ) -> Generator[Need, Found, Verdict]:
        """See `Validator.judge`; raises Bogus."""
        kept: list[RRset] = []
        name = sname
        ended = rcode == _YXDOMAIN
        for at, rrset in enumerate(answer):
            made = at > 0 and answer[at - 1].rtype == codes.TYPE_DNAME and rrset.rtype == codes.TYPE_CNAME
            if made and names.is_below(rrset.owner, answer[at - 1].owner):
                kept.append(dataclasses.replace(rrset, ttl=kept[-1].ttl, sigs=()))  # we made it of the DNAME
            else:
                kept.append((yield from self._rrset(rrset)))
            if rrset.rtype == qtype and rrset.owner == name:
                ended = True
            elif rrset.rtype == codes.TYPE_CNAME:
                name = names.lower(rrset.rdatas[0])
        if not ended and not believed:
            self.asked = ((name, qtype),)
            rcode, authority = yield from self._nothing(name, qtype, rcode, authority)
        elif believed:
            self._weigh(Zone(name, INSECURE))
        worst = self._worst
        return Verdict(worst.state, rcode, tuple(kept), authority, worst.ede, worst.text)

    def _weigh(self, zone: Zone) -> None:
        """An answer is worth no more than its weakest part."""
        if zone.state != SECURE and (self._worst.state == SECURE or self._worst.ede == codes.EDE_NONE):
            self._worst = zone

    def _zone_of(self, rrset: RRset) -> Trust:
        """The zone that an RRset belongs to: the one that says it signed it, else the one that is found there."""
        anchor = self._chain.anchors.nearest(rrset.owner, self._chain.now)
        signer = self._chain.signer(rrset, anchor) if anchor is not None and not anchor.negative else None
        if signer is not None:
            return (yield from self._chain.zone(signer))
        above = rrset.rtype == codes.TYPE_DS
        return (yield from self._chain.enclosing(names.parent(rrset.owner) if above else rrset.owner))

    def _rrset(self, rrset: RRset) -> Generator[Need, Found, RRset]:
        """Judge one RRset of the answer; raises Bogus."""
        if rrset.rtype == _RRSIG:
            self._weigh(Zone(rrset.owner, INDETERMINATE, text="signatures are not signed"))
            return rrset
        zone = yield from self._zone_of(rrset)
        self._weigh(zone)
        if zone.state != SECURE:
            return rrset
        signed = self._chain.check(rrset, zone)
        blame = (rrset.owner, rrset.rtype)
        if isinstance(signed, Flaw):
            raise Bogus(signed.ede, signed.text, blame)
        if signatures.source_name(rrset.owner, signed.labels) != rrset.owner:
            # From a wildcard: it must be proven that nothing nearer exists (RFC 4035, section 5.3.4).
            proofs, good, flaw = self._chain.proofs(zone, rrset.proofs)
            said = proofs.wildcard(rrset.owner, signed.labels)
            if said == denial.FAILS:
                what = f"{names.to_text(rrset.owner)} {codes.qtype_name(rrset.rtype)}"
                if flaw is not None:
                    raise Bogus(flaw.ede, f"that {what} comes from a wildcard is not proven: {flaw.text}", blame)
                raise Bogus(codes.EDE_NSEC_MISSING, f"that {what} comes from a wildcard is not proven", blame)
            self._less(said, zone)
            rrset = dataclasses.replace(rrset, proofs=good)
            if self._chain.denials is not None and said == denial.PROVEN:
                owner = signatures.source_name(rrset.owner, signed.labels) or rrset.owner
                lasting = rrset.lasting(min(rrset.ttl, signed.ttl))
                self._chain.denials.keep_wildcard(zone.apex, owner, lasting, self._chain.now)
        return rrset.lasting(min(rrset.ttl, signed.ttl))

    def _nothing(
        self, name: bytes, qtype: int, rcode: int, authority: tuple[RRset, ...]
    ) -> Generator[Need, Found, tuple[int, tuple[RRset, ...]]]:
        """Judge the proof that a name does not exist, or has no such type; raises Bogus."""
        zone = yield from self._zone_of_nothing(name, qtype, authority)
        self._weigh(zone)
        if zone.state != SECURE:
            return rcode, authority
        what = names.to_text(name)
        if rcode != codes.RCODE_NXDOMAIN:
            what += f" {codes.qtype_name(qtype)}"
        blame = (name, qtype)
        kept: list[RRset] = []
        for rrset in authority:
            if rrset.rtype == codes.TYPE_SOA:
                signed = self._chain.check(rrset, zone)
                if isinstance(signed, Flaw):
                    raise Bogus(signed.ede, signed.text, blame)
                kept.append(rrset.lasting(min(rrset.ttl, signed.ttl)))
                if self._chain.denials is not None and rrset.owner == zone.apex:
                    self._chain.denials.keep_soa(kept[-1], self._chain.now)
        proofs, good, flaw = self._chain.proofs(zone, authority)
        said = denial.FAILS
        if rcode == codes.RCODE_NXDOMAIN:
            said = proofs.nxdomain(name)
        if said == denial.FAILS:
            said = proofs.nodata(name, qtype)
            if rcode == codes.RCODE_NXDOMAIN and said == denial.OPT_OUT:
                said = denial.FAILS  # that room is for what is not signed, not for a wildcard nobody spoke of
            elif rcode == codes.RCODE_NXDOMAIN and said != denial.FAILS:
                rcode = codes.RCODE_NOERROR  # the name does exist: a server that denies empty non-terminals
        if said == denial.FAILS:
            if flaw is not None:
                raise Bogus(flaw.ede, f"that there is no {what} is not proven: {flaw.text}", blame)
            raise Bogus(codes.EDE_NSEC_MISSING, f"that there is no {what} is not proven", blame)
        self._less(said, zone)
        return rcode, (*kept, *good)

    def _zone_of_nothing(self, name: bytes, qtype: int, authority: tuple[RRset, ...]) -> Trust:
        above = qtype == codes.TYPE_DS and name != names.ROOT
        anchor = self._chain.anchors.nearest(name, self._chain.now)
        best: bytes | None = None
        if anchor is not None and not anchor.negative:
            for rrset in authority:
                signer = self._chain.signer(rrset, anchor)
                if signer is None or not at_or_below(name, signer) or (above and signer == name):
                    continue
                if best is None or len(signer) > len(best):
                    best = signer
        if best is not None:
            return (yield from self._chain.zone(best))
        return (yield from self._chain.enclosing(names.parent(name) if above else name))

    def _less(self, said: str, zone: Zone) -> None:
        """A proof that leaves room makes the answer insecure."""
        if said == denial.OPT_OUT:
            self._weigh(Zone(zone.apex, INSECURE, text=f"{names.to_text(zone.apex)} leaves unsigned delegations out"))
        elif said == denial.TOO_MANY:
            ede = codes.EDE_UNSUPPORTED_NSEC3_ITERATIONS
            self._weigh(Zone(zone.apex, INSECURE, ede=ede, text=denial.too_often(zone.apex)))

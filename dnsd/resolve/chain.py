# cython: wraparound=True
"""From a trust anchor down to a zone's keys: DS, DNSKEY, and proofs that a zone is not signed (RFC 4035, section 5).

Pure: it yields `Need` for the records that it wants to see and is sent `Found`; the wall clock and the anchors are
arguments. What it is told comes from strangers: only what an anchor's keys vouch for is believed, and what one question
may make us compute is bounded (KeyTrap, CVE-2023-50387 and 50868).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterable
from typing import Final

from dnsd.contract import codes, names
from dnsd.resolve import denial, signatures
from dnsd.resolve.aggressive import Denials
from dnsd.resolve.anchors import Anchor, Anchors
from dnsd.resolve.rrsets import RRset, at_or_below
from dnsd.resolve.signatures import TYPE_DNSKEY, TYPE_DS, Key, Signature

# RFC 4035, section 4.3.
SECURE: Final = "secure"
INSECURE: Final = "insecure"
BOGUS: Final = "bogus"
INDETERMINATE: Final = "indeterminate"

SIGNATURES = 96  # checked for one question; an honest chain of aliases through several zones needs some thirty
SIGNATURES_RRSET = 8  # checked for one RRset
COLLISIONS = 4  # keys of one zone with the same tag and algorithm that are tried
DIGESTS = 32  # computed for one DS RRset
HASHES = 160  # of NSEC3, for one question
MEMORY_S = 3600  # how long what is known of a zone is kept at most
_ZONES = 4096
_PROVED = 8192

_USUAL = signatures.Policy()

Trust = Generator["Need", "Found", "Zone"]


@dataclasses.dataclass(frozen=True)
class Need:
    """A look-up that validation asks for: the answer is a `Found`."""

    name: bytes
    rtype: int


@dataclasses.dataclass(frozen=True)
class Found:
    """What a look-up gave, unvalidated; `failure` is (EDE, text) when it gave nothing."""

    answer: tuple[RRset, ...] = ()
    authority: tuple[RRset, ...] = ()
    failure: tuple[int, str] | None = None

    def rrset(self, owner: bytes, rtype: int) -> RRset | None:
        """The RRset of this name and type in the answer."""
        return next((rrset for rrset in self.answer if rrset.rtype == rtype and rrset.owner == owner), None)


@dataclasses.dataclass(frozen=True)
class Zone:
    """What is known of a zone: its keys when it is SECURE, why not otherwise; until a second of the wall clock.

    `vouched`: the tags of those keys that its DS records, or the trust anchor, vouch for; `text` says which of the two.
    """

    apex: bytes
    state: str
    keys: tuple[Key, ...] = ()
    until: int = 0
    ede: int = codes.EDE_NONE
    text: str = ""
    vouched: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Signed:
    """A signature holds: by how many labels the owner was signed, and for how many seconds it may be kept."""

    labels: int
    ttl: int


@dataclasses.dataclass(frozen=True)
class Flaw:
    """No signature holds, and why."""

    ede: int
    text: str


class Bogus(Exception):
    """Data that its zone's keys do not vouch for; `blame` are the (name, type) that ought to be fetched anew."""

    def __init__(self, ede: int, text: str, *blame: tuple[bytes, int]) -> None:
        super().__init__(text)
        self.ede = ede
        self.text = text
        self.blame = blame


class Work:
    """What one question may compute."""

    def __init__(self) -> None:
        self.signatures = 0
        self.hashes = 0

    def sign(self) -> None:
        """Count a signature check; raises Bogus when there were too many."""
        self.signatures += 1
        if self.signatures > SIGNATURES:
            raise Bogus(codes.EDE_DNSSEC_BOGUS, f"more than {SIGNATURES} signatures would have to be checked")

    def hashed(self, name: bytes, salt: bytes, iterations: int) -> bytes:
        """A counted NSEC3 hash; raises Bogus when there were too many."""
        self.hashes += 1
        if self.hashes > HASHES:
            raise Bogus(codes.EDE_DNSSEC_BOGUS, f"more than {HASHES} NSEC3 hashes would have to be computed")
        return signatures.hashed(name, salt, iterations)


class Memory:
    """What all questions of a worker share: zones and RRsets that were validated. Bounded; the oldest goes first."""

    def __init__(self, denials: Denials | None = None) -> None:
        self.denials = denials  # None: what was proven is not used for other names
        self._zones: dict[bytes, Zone] = {}
        self._proved: dict[tuple[object, ...], Signature] = {}

    def zone(self, name: bytes, now: int) -> Zone | None:
        """What is known of the zone that a name is in, the name having been asked for before."""
        zone = self._zones.get(name)
        if zone is None or not now < zone.until <= now + MEMORY_S:  # a clock that was set back ends it too
            return None
        return zone

    def keep(self, name: bytes, zone: Zone) -> None:
        """Remember the zone of a name; bogus ones are looked at again each time (RFC 9520 bounds that elsewhere)."""
        if zone.state == BOGUS:
            return
        if len(self._zones) >= _ZONES:
            self._zones.pop(next(iter(self._zones)))
        self._zones[name] = zone

    def proof(self, what: tuple[object, ...]) -> Signature | None:
        """The signature that was found to be good for exactly these records and keys."""
        return self._proved.get(what)

    def keep_proof(self, what: tuple[object, ...], sig: Signature) -> None:
        """Remember a good signature."""
        if len(self._proved) >= _PROVED:
            self._proved.pop(next(iter(self._proved)))
        self._proved[what] = sig

    def flush(self, matches: Callable[[bytes], bool]) -> int:
        """Forget what is known of the zones of these names; returns how many that were."""
        gone = [name for name in self._zones if matches(name)]
        for name in gone:
            del self._zones[name]
        return len(gone) + (self.denials.forget(matches) if self.denials is not None else 0)

    def state(self, rrset: RRset, now: int) -> str:
        """What validation has found of an RRset: secure or insecure; empty when it has not been looked at."""
        for rdata in rrset.sigs:
            sig = signatures.signature(rdata)
            zone = self.zone(sig.signer, now) if sig is not None else None
            if zone is not None and zone.state != SECURE:
                return zone.state
            identity = (rrset.owner, rrset.rtype, rrset.rdatas, rrset.sigs, zone.apex, zone.keys) if zone else ()
            if zone is not None and identity in self._proved:
                return SECURE
        if not rrset.sigs:
            for name in names.suffixes(rrset.owner):
                known = self.zone(name, now)
                if known is not None and known.state != SECURE:
                    return known.state
        return ""

    def forget(self) -> None:
        """Forget everything, for new anchors."""
        self._zones.clear()
        self._proved.clear()
        if self.denials is not None:
            self.denials.clear()


class Chain:
    """The chains of trust of one question, at one moment."""

    def __init__(
        self, anchors: Anchors, memory: Memory, now: int, skew: int, policy: signatures.Policy = _USUAL
    ) -> None:
        self.now = now
        self.work = Work()
        self.anchors = anchors
        self.ends = 0  # when a negative trust anchor ends that was relied upon; 0 for none
        self.seen: dict[bytes, Zone] = {}  # the zones that were looked at, for those who want to see the way
        self._policy = policy
        self._algorithms = anchors.algorithms
        if not policy.sha1:
            self._algorithms -= signatures.SHA1_ALGORITHMS - anchors.named
        self._memory = memory
        self.denials = memory.denials
        self._skew = skew

    # --- signatures ------------------------------------------------------------------------------------------------

    def check(self, rrset: RRset, zone: Zone) -> Signed | Flaw:
        """Whether one of the zone's keys made one of the RRset's signatures (RFC 4035, section 5.3); raises Bogus."""
        identity = (rrset.owner, rrset.rtype, rrset.rdatas, rrset.sigs, zone.apex, zone.keys)
        known = self._memory.proof(identity)
        if known is not None and not signatures.in_time(known, self.now, self._skew):
            return self._signed(known)
        what = f"{names.to_text(rrset.owner)} {codes.qtype_name(rrset.rtype)}"
        where = names.to_text(zone.apex)
        flaw = Flaw(codes.EDE_RRSIGS_MISSING, f"{what} is not signed by {where}")
        left = SIGNATURES_RRSET
        for rdata in rrset.sigs[: 4 * SIGNATURES_RRSET]:
            sig = signatures.signature(rdata)
            if sig is None or sig.covered != rrset.rtype or sig.signer != zone.apex:
                continue
            if not at_or_below(rrset.owner, zone.apex) or sig.algorithm not in self._algorithms:
                continue
            late = signatures.in_time(sig, self.now, self._skew)
            if late:
                flaw = Flaw(late, f"the signature of {what} {_TIMES[late]}")
                continue
            octets = signatures.signed_octets(sig, rrset.owner, rrset.rtype, rrset.rdatas)
            keys = [key for key in zone.keys if key.tag == sig.tag and key.algorithm == sig.algorithm]
            if octets is None:
                flaw = Flaw(codes.EDE_DNSSEC_BOGUS, f"the signature of {what} is for a longer name")
            elif not keys:
                flaw = Flaw(codes.EDE_DNSKEY_MISSING, f"{where} has no key {sig.tag}, which signed {what}")
            for by in keys[:COLLISIONS] if octets is not None else ():
                if not left:
                    return Flaw(codes.EDE_DNSSEC_BOGUS, f"{what} has too many signatures that do not hold")
                left -= 1
                self.work.sign()
                if signatures.verify(by, sig, octets or b""):
                    self._memory.keep_proof(identity, sig)
                    return self._signed(sig)
                flaw = Flaw(codes.EDE_DNSSEC_BOGUS, f"the signature of {what} by key {sig.tag} does not hold")
        return flaw

    def _signed(self, sig: Signature) -> Signed:
        # RFC 4035, section 5.3.3: never longer than the signature holds; within the skew, for a moment.
        return Signed(sig.labels, min(sig.original_ttl, max(1, signatures.seconds_left(sig, self.now))))

    def proofs(self, zone: Zone, authority: Iterable[RRset]) -> tuple[denial.Proofs, tuple[RRset, ...], Flaw | None]:
        """The signed NSEC and NSEC3 of a zone; the same as RRsets; and what is wrong with one that was left out."""
        good: list[RRset] = []
        flaw: Flaw | None = None
        for rrset in authority:
            if rrset.rtype in (signatures.TYPE_NSEC, signatures.TYPE_NSEC3):
                found = self.check(rrset, zone)
                if isinstance(found, Flaw):
                    flaw = flaw or found
                elif signatures.source_name(rrset.owner, found.labels) == rrset.owner:
                    good.append(rrset.lasting(min(rrset.ttl, found.ttl)))
                    if self.denials is not None:
                        self.denials.keep(zone.apex, good[-1], self.now)
        return denial.Proofs(zone.apex, good, self.work.hashed), tuple(good), flaw

    # --- zones -----------------------------------------------------------------------------------------------------

    def signer(self, rrset: RRset, anchor: Anchor) -> bytes | None:
        """The zone that says it signed the RRset: at or above its owner (above, for DS), at or below the anchor."""
        best: bytes | None = None
        for rdata in rrset.sigs[: 4 * SIGNATURES_RRSET]:
            sig = signatures.signature(rdata)
            if sig is None or not at_or_below(rrset.owner, sig.signer) or not at_or_below(sig.signer, anchor.zone):
                continue
            if rrset.rtype == TYPE_DS and sig.signer == rrset.owner:
                continue
            if best is None or len(sig.signer) > len(best):
                best = sig.signer
        return best

    def zone(self, name: bytes) -> Trust:
        """What is known of the zone at a name that somebody says is a zone's; raises Bogus.

        Begins below: the DS says who signed it, and so on up to an anchor or a zone that is known. An ancestor that
        signs a DS vouches for the zone, whatever lies between.
        """
        known = self._memory.zone(name, self.now)
        if known is not None:
            self.seen[known.apex] = known
            return known
        anchor = self.anchors.nearest(name, self.now)
        if anchor is None or anchor.negative:
            return self._unvalidated(name, anchor)
        if anchor.zone == name:
            zone = yield from self._anchored(anchor)
        else:
            found = yield Need(name, TYPE_DS)
            above: Zone | None = None
            for rrset in (*found.answer, *found.authority):
                signer = self.signer(rrset, anchor)
                if signer is not None and names.is_below(name, signer):
                    above = yield from self.zone(signer)
                    break
            if above is None:
                above = yield from self.enclosing(names.parent(name))
            zone = yield from self._below(above, name, found)
        self._memory.keep(name, zone)
        self.seen[zone.apex] = zone
        return zone

    def enclosing(self, name: bytes) -> Trust:
        """What is known of the zone that a name lies in, when nothing says which that is; raises Bogus.

        Begins at the anchor and goes down a label at a time, because it ends at the first unsigned delegation.
        """
        anchor = self.anchors.nearest(name, self.now)
        if anchor is None or anchor.negative:
            return self._unvalidated(name, anchor)
        above = [suffix for suffix in names.suffixes(name) if at_or_below(suffix, anchor.zone)]
        known = next(((at, zone) for at, n in enumerate(above) if (zone := self._memory.zone(n, self.now))), None)
        if known is not None:
            at, zone = known
        else:
            at = len(above) - 1
            zone = yield from self.zone(anchor.zone)
        for child in reversed(above[:at]):
            if zone.state != SECURE:
                return zone
            found = yield Need(child, TYPE_DS)
            zone = yield from self._below(zone, child, found)
            self._memory.keep(child, zone)
            self.seen[zone.apex] = zone
        return zone

    def _unvalidated(self, name: bytes, anchor: Anchor | None) -> Zone:
        if anchor is None:
            ede, text = codes.EDE_DNSSEC_INDETERMINATE, f"no trust anchor is above {names.to_text(name)}"
            return Zone(name, INDETERMINATE, ede=ede, text=text)
        end = self.anchors.negative.get(anchor.zone)
        if end is not None and (not self.ends or end < self.ends):
            self.ends = end
        text = f"a negative trust anchor is set for {names.to_text(anchor.zone)}"
        return Zone(anchor.zone, INSECURE, ede=codes.EDE_OTHER, text=text)

    def _anchored(self, anchor: Anchor) -> Trust:
        if not any(key[3] in self._algorithms for key in anchor.keys):
            usable, ede, why = self._usable(anchor.ds)
            if not usable:
                text = f"the trust anchor of {names.to_text(anchor.zone)} {why}"
                return Zone(anchor.zone, INSECURE, until=self.now + MEMORY_S, ede=ede, text=text)
        found = yield Need(anchor.zone, TYPE_DNSKEY)
        zone = self._keys(anchor.zone, found, anchor.ds, anchor.keys, self.now + MEMORY_S, True)
        return zone if zone.state != SECURE else dataclasses.replace(zone, text="the trust anchor")

    def _below(self, above: Zone, name: bytes, found: Found) -> Trust:
        """What a zone's answer for DS says of a name in it or right below it."""
        if above.state != SECURE:
            return above
        text = names.to_text(name)
        blame = (name, TYPE_DS)
        if found.failure is not None:
            raise Bogus(found.failure[0], f"whether {text} is signed cannot be found out: {found.failure[1]}", blame)
        ds = found.rrset(name, TYPE_DS)
        if ds is not None:
            signed = self.check(ds, above)
            if isinstance(signed, Flaw):
                raise Bogus(signed.ede, signed.text, blame)
            if signatures.source_name(name, signed.labels) != name:
                raise Bogus(codes.EDE_DNSSEC_BOGUS, f"{text} DS was made from a wildcard", blame)
            until = self._until(min(ds.ttl, signed.ttl), above)
            usable, ede, why = self._usable(ds.rdatas)
            if not usable:
                return Zone(name, INSECURE, until=until, ede=ede, text=f"{text} {why}")
            keys = yield Need(name, TYPE_DNSKEY)
            return self._keys(name, keys, usable, (), until)
        if found.answer and found.answer[0].rtype != TYPE_DS and at_or_below(name, found.answer[0].owner):
            # An alias, or below one: no zone begins here (a zone's apex has no CNAME).
            signed = self.check(found.answer[0], above)
            if isinstance(signed, Flaw):
                raise Bogus(signed.ede, signed.text, blame, (found.answer[0].owner, found.answer[0].rtype))
            return dataclasses.replace(above, until=self._until(min(found.answer[0].ttl, signed.ttl), above))
        proofs, good, flaw = self.proofs(above, found.authority)
        said = proofs.no_ds(name)
        until = self._until(min((rrset.ttl for rrset in good), default=0), above)
        if said == denial.NO_CUT:
            return dataclasses.replace(above, until=until)
        if said == denial.TOO_MANY:
            ede = codes.EDE_UNSUPPORTED_NSEC3_ITERATIONS
            return Zone(name, INSECURE, until=until, ede=ede, text=denial.too_often(above.apex))
        if said in (denial.INSECURE_CUT, denial.OPT_OUT):
            return Zone(name, INSECURE, until=until, text=f"{text} is not signed")
        if flaw is not None:
            raise Bogus(flaw.ede, f"that {text} is not signed is not proven: {flaw.text}", blame)
        where = names.to_text(above.apex)
        raise Bogus(codes.EDE_NSEC_MISSING, f"{where} does not prove that {text} is not signed", blame)

    def _until(self, ttl: int, above: Zone) -> int:
        return min(self.now + min(ttl, MEMORY_S), above.until)

    def _usable(self, records: Iterable[bytes]) -> tuple[tuple[bytes, ...], int, str]:
        """The DS records that we can follow (RFC 4035, section 5.2); SHA-1 not beside better ones (RFC 4509, 3)."""
        known = [ds for ds in records if len(ds) > 4 and ds[2] in self._algorithms]
        if not known:
            return (), codes.EDE_UNSUPPORTED_DNSKEY_ALGORITHM, "is signed with algorithms that are not supported"
        usable = [
            ds for ds in known
            if ds[3] in signatures.DIGESTS and (self._policy.sha1 or ds[3] != signatures.SHA1_DIGEST)
        ]  # fmt: skip
        if not usable:
            return (), codes.EDE_UNSUPPORTED_DS_DIGEST, "has a DS with a digest that is not supported"
        better = [ds for ds in usable if ds[3] != 1]
        return tuple(better or usable), codes.EDE_NONE, ""

    def _keys(
        self, apex: bytes, found: Found, ds: tuple[bytes, ...], trusted: tuple[bytes, ...], until: int,
        anchored: bool = False,
    ) -> Zone:  # fmt: skip
        """The zone's keys, when one that is vouched for by DS or by an anchor signed them; raises Bogus."""
        text = names.to_text(apex)
        blame = ((apex, TYPE_DNSKEY), (apex, TYPE_DS))
        if found.failure is not None:
            raise Bogus(found.failure[0], f"the keys of {text} cannot be found: {found.failure[1]}", *blame)
        rrset = found.rrset(apex, TYPE_DNSKEY)
        if rrset is None:
            raise Bogus(codes.EDE_DNSKEY_MISSING, f"{text} is to be signed, and has no keys", *blame)
        keys = tuple(key for rdata in rrset.rdatas if (key := signatures.key(rdata)) is not None)
        good = tuple(key for key in keys if key.signs_zone and not key.revoked and key.algorithm in self._algorithms)
        vouched = [key for key in good if key.rdata in trusted]
        digests = DIGESTS
        for record in self._usable(ds)[0] if ds else ():
            tag = int.from_bytes(record[:2], "big")
            for key in good:
                if key.tag == tag and key.algorithm == record[2] and key not in vouched and digests:
                    digests -= 1
                    if signatures.digest(apex, key.rdata, record[3]) == record[4:]:
                        vouched.append(key)
        if not vouched:
            if keys and not any(key.signs_zone for key in keys):
                raise Bogus(codes.EDE_NO_ZONE_KEY_BIT, f"no key of {text} has the Zone Key bit", *blame)
            by = "the trust anchor vouches for" if anchored else "its DS records vouch for"
            raise Bogus(codes.EDE_DNSKEY_MISSING, f"{text} has none of the keys that {by}", *blame)
        strong = tuple(key for key in vouched if self._policy.strong(key))
        if not strong:
            ede = codes.EDE_UNSUPPORTED_DNSKEY_ALGORITHM
            why = f"{text} is signed with RSA keys of fewer than {self._policy.rsa_bits} bits"
            return Zone(apex, INSECURE, until=min(until, self.now + min(rrset.ttl, MEMORY_S)), ede=ede, text=why)
        good = tuple(key for key in good if self._policy.strong(key))
        signed = self.check(rrset, Zone(apex, SECURE, strong))
        if isinstance(signed, Flaw):
            raise Bogus(signed.ede, signed.text, *blame)
        lasts = min(until, self.now + min(rrset.ttl, signed.ttl, MEMORY_S))
        return Zone(apex, SECURE, good, lasts, text="its DS", vouched=tuple(key.tag for key in strong))


_TIMES = {
    codes.EDE_SIGNATURE_EXPIRED: "has expired",
    codes.EDE_SIGNATURE_NOT_YET_VALID: "is not valid yet",
    codes.EDE_SIGNATURE_EXPIRED_BEFORE_VALID: "expires before it is valid",
}

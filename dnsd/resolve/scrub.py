# cython: wraparound=True
"""What of a response may be believed, and what it means: bailiwick, glue, and the kind of answer it is.

Pure, no state: a message and what was asked of whom in, a `Finding` out. A server may speak about its zone and what is
below, about nothing else (RFC 2181, section 5.4.1; RFC 5452, section 6).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from dnsd.contract import codes, names
from dnsd.resolve.hints import address_text
from dnsd.resolve.rrsets import FLAG_RA, Message, RRset, at_or_below

ANSWER = "answer"  # `rrsets` ends in what was asked for
ALIAS = "alias"  # `rrsets` ends in a CNAME or DNAME that leads to `target`
NODATA = "nodata"
NXDOMAIN = "nxdomain"
REFERRAL = "referral"
LAME = "lame"  # the server does not serve the zone
BROKEN = "broken"  # an answer that makes no sense

CHAIN = 16  # aliases in one answer, and in one question's whole chain
SERVERS = 16  # NS of one delegation that are looked at; the largest in the wild has 13 at the top
_ADDRESSES = 8  # of one name server
_PROOFS = frozenset((codes.QTYPES["NSEC"], codes.QTYPES["NSEC3"]))
_NO_DATA_BESIDE = frozenset((codes.TYPE_CNAME, codes.TYPE_RRSIG))  # what makes an answer broken, not one of other types
_YXDOMAIN = codes.RCODES["YXDOMAIN"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a response means. `authority` proves a negative answer, or holds a referral's DS; `text` says why it is bad.

    `reliable` is false for an answer that is only taken when nobody has a better one (RFC 2181: not authoritative).
    """

    kind: str
    rrsets: tuple[RRset, ...] = ()
    target: bytes = b""
    authority: tuple[RRset, ...] = ()
    servers: tuple[bytes, ...] = ()
    glue: tuple[tuple[bytes, tuple[str, ...]], ...] = ()
    cut: bytes = b""
    ttl: int = 0
    authoritative: bool = False
    reliable: bool = True
    text: str = ""


def judge(message: Message, zone: bytes, qname: bytes, qtype: int, harden_glue: bool = True) -> Finding:
    """Read the response of a server of `zone` to this question (`qname` lower case, at or below `zone`)."""
    rcode = message.rcode
    if rcode not in (codes.RCODE_NOERROR, codes.RCODE_NXDOMAIN, _YXDOMAIN):
        kind = LAME if rcode in (codes.RCODE_REFUSED, codes.RCODES["NOTAUTH"]) else BROKEN
        return Finding(kind, text=codes.rcode_name(rcode))
    reliable = message.aa or not message.flags & FLAG_RA
    chain = _follow(message.answer, zone, qname, qtype)
    if chain is not None:
        rrsets, target = tuple(_with_proofs(message, zone, rrset) for rrset in chain[0]), chain[1]
        if not target:
            return Finding(ANSWER, rrsets, authoritative=message.aa, reliable=reliable)
        return Finding(ALIAS, rrsets, target, authoritative=message.aa, reliable=reliable)
    if rcode == _YXDOMAIN:
        return Finding(BROKEN, text="YXDOMAIN without the DNAME that would explain it")
    soa = next(
        (
            rrset
            for rrset in message.authority
            if rrset.rtype == codes.TYPE_SOA and at_or_below(qname, rrset.owner) and at_or_below(rrset.owner, zone)
        ),
        None,
    )
    if rcode == codes.RCODE_NXDOMAIN:
        return Finding(
            NXDOMAIN,
            authority=_proofs(message, zone, soa),
            authoritative=message.aa,
            reliable=reliable and _sure(message, soa),
        )
    ns = _nearest_ns(message.authority, qname)
    if soa is None and ns is not None and not _answers(message.answer, qname):
        if names.is_below(ns.owner, zone):
            if qtype == codes.TYPE_DS and ns.owner == qname:
                # The parent does not know the type; it is the one to know whether there is a DS, and shows none.
                shown = _referral(message, zone, ns, harden_glue).authority
                return Finding(NODATA, authority=shown, authoritative=message.aa)
            return _referral(message, zone, ns, harden_glue)
        if not message.aa or names.is_below(zone, ns.owner):
            where = "to itself" if ns.owner == zone else "upwards"
            return Finding(LAME, text=f"a referral {where}, to {names.to_text(ns.owner)}")
    if soa is not None or (message.aa and not message.answer):
        # A SOA alone shows an authority too: some servers forget AA on negative answers.
        return Finding(NODATA, authority=_proofs(message, zone, soa), authoritative=message.aa, reliable=reliable)
    if message.answer and all(rrset.owner == qname and rrset.rtype not in _NO_DATA_BESIDE for rrset in message.answer):
        # Records of other types than asked for: not of this one then, unless somebody else has some.
        return Finding(NODATA, authoritative=message.aa, reliable=False)
    if message.answer:
        return Finding(BROKEN, text="an answer to another question")
    return Finding(LAME, text="an empty answer without authority")


def _sure(message: Message, soa: RRset | None) -> bool:
    return message.aa or soa is not None


def _answers(section: Iterable[RRset], qname: bytes) -> bool:
    return any(rrset.owner == qname for rrset in section)


def _nearest_ns(section: Iterable[RRset], qname: bytes) -> RRset | None:
    """The NS RRset whose owner is nearest to the qname, from above."""
    best: RRset | None = None
    for rrset in section:
        above = rrset.rtype == codes.TYPE_NS and at_or_below(qname, rrset.owner)
        if above and (best is None or len(rrset.owner) > len(best.owner)):
            best = rrset
    return best


def _follow(section: Iterable[RRset], zone: bytes, qname: bytes, qtype: int) -> tuple[tuple[RRset, ...], bytes] | None:
    """The RRsets that are about the qname, in order, and where they lead: b"" when they end in the answer.

    None when there is nothing about the qname. What is not in the zone, or not on the way, is not looked at.
    """
    by_name: dict[tuple[bytes, int], RRset] = {}
    dnames: list[RRset] = []
    for rrset in section:
        if at_or_below(rrset.owner, zone):
            by_name[rrset.owner, rrset.rtype] = rrset
            if rrset.rtype == codes.TYPE_DNAME and len(rrset.rdatas) == 1:
                dnames.append(rrset)
    chain: list[RRset] = []
    name = qname
    seen = {qname}
    while len(chain) < CHAIN:
        dname = next((rrset for rrset in dnames if names.is_below(name, rrset.owner)), None)
        found = by_name.get((name, qtype)) if dname is None else None  # below a DNAME there is nothing else
        if found is not None:
            return (*chain, found), b""
        cname = by_name.get((name, codes.TYPE_CNAME))
        if dname is not None:
            # The CNAME that a server makes of a DNAME proves nothing: we make our own (RFC 6672, section 3.1).
            target = substitute(name, dname)
            chain.append(dname)
            if target is None:
                return tuple(chain), name  # too long: whoever follows the DNAME finds that out
            chain.append(synthesized(name, dname, target))
            if qtype == codes.TYPE_CNAME:
                return tuple(chain), b""  # it is what was asked for, as other resolvers see it too
        elif cname is not None and len(cname.rdatas) == 1:
            chain.append(cname)
            target = names.lower(cname.rdatas[0])
        else:
            break
        if target in seen:
            return tuple(chain), target
        seen.add(target)
        name = target
        if not at_or_below(name, zone):
            break
    return (tuple(chain), name) if chain else None


def substitute(name: bytes, dname: RRset) -> bytes | None:
    """The name that a DNAME makes of a name below its owner; None when it is too long (RFC 6672, section 2.2)."""
    target = name[: len(name) - len(dname.owner)] + names.lower(dname.rdatas[0])
    return target if len(target) <= names.MAX_NAME else None


def synthesized(name: bytes, dname: RRset, target: bytes) -> RRset:
    """The CNAME for clients that do not know DNAME (RFC 6672, section 3.1)."""
    return RRset(name, codes.TYPE_CNAME, dname.ttl, (target,))


def _with_proofs(message: Message, zone: bytes, rrset: RRset) -> RRset:
    """An RRset that was made from a wildcard, with what the authority section has to say about that."""
    if not rrset.sigs or not rrset.from_wildcard:
        return rrset
    proofs = tuple(proof for proof in message.authority if proof.rtype in _PROOFS and at_or_below(proof.owner, zone))
    return RRset(rrset.owner, rrset.rtype, rrset.ttl, rrset.rdatas, rrset.sigs, proofs)


def _proofs(message: Message, zone: bytes, soa: RRset | None) -> tuple[RRset, ...]:
    """The SOA and what else of the authority section proves a negative answer."""
    if soa is None:
        return ()
    others = [rrset for rrset in message.authority if rrset.rtype in _PROOFS and at_or_below(rrset.owner, zone)]
    # RFC 2308, section 3: the SOA of a negative answer lives as long as the answer.
    ttl = min(soa.ttl, int.from_bytes(soa.rdatas[0][-4:], "big"))
    return (RRset(soa.owner, soa.rtype, ttl, soa.rdatas[:1], soa.sigs), *others)


def _referral(message: Message, zone: bytes, ns: RRset, harden_glue: bool) -> Finding:
    """A delegation of a zone below, with the glue that this server may give.

    Glue counts for names that are in the NS RRset, and (with `harden_glue`) only when they lie in the zone that the
    server is asked for: so a delegation of com may bring addresses below net from a server of the root.
    """
    wanted: dict[bytes, list[str]] = {}
    for rdata in ns.rdatas[:SERVERS]:
        wanted[names.lower(rdata)] = []
    ttl = ns.ttl
    for rrset in message.additional:
        addresses = wanted.get(rrset.owner)
        if addresses is None or rrset.rtype not in (codes.TYPE_A, codes.TYPE_AAAA):
            continue
        if harden_glue and not at_or_below(rrset.owner, zone):
            continue
        addresses += [address_text(rrset.rtype, rdata) for rdata in rrset.rdatas[:_ADDRESSES]]
        if at_or_below(rrset.owner, ns.owner):
            ttl = min(ttl, rrset.ttl)  # without this address the delegation cannot be used: they end together
    proofs = tuple(
        rrset
        for rrset in message.authority
        if (rrset.rtype == codes.TYPE_DS or rrset.rtype in _PROOFS) and at_or_below(rrset.owner, zone)
    )
    return Finding(
        REFERRAL,
        authority=proofs,
        servers=tuple(wanted),
        glue=tuple((name, tuple(addresses)) for name, addresses in wanted.items() if addresses),
        cut=ns.owner,
        ttl=ttl,
        authoritative=message.aa,
    )

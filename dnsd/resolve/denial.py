# cython: wraparound=True
"""What NSEC and NSEC3 records prove about a name that has no such data (RFC 4035, 5155, 6840, 9276).

Pure, and about proofs only: the records handed in have valid signatures of the zone, and were not made from a wildcard.
Each answer is one of the words below; a proof that does not hold is FAILS, and the caller says bogus.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from dnsd.contract import codes, names
from dnsd.resolve import signatures
from dnsd.resolve.rrsets import RRset, at_or_below

PROVEN = "proven"
OPT_OUT = "opt-out"  # true, but an unsigned delegation may hide there (RFC 5155, section 6)
TOO_MANY = "too many iterations"  # of the hash: treated as insecure (RFC 9276, section 3.2)
FAILS = "fails"
# What `no_ds` finds beside OPT_OUT, TOO_MANY and FAILS.
INSECURE_CUT = "insecure delegation"
NO_CUT = "no delegation"

ITERATIONS = 50  # RFC 9276: 0 is right, more than this nobody computes any more

_NS, _CNAME, _SOA, _DS, _DNAME = codes.TYPE_NS, codes.TYPE_CNAME, codes.TYPE_SOA, codes.TYPE_DS, codes.TYPE_DNAME
_OPT_OUT_BIT = 1
_BASE32HEX = b"0123456789abcdefghijklmnopqrstuv"

Hash = Callable[[bytes, bytes, int], bytes]  # name, salt, iterations; may raise when its budget is spent


@dataclasses.dataclass(frozen=True)
class _Nsec:
    """An NSEC record: nothing is between `owner` and `next`."""

    owner: bytes
    next: bytes
    types: bytes

    def has(self, rtype: int) -> bool:
        return _in_bitmap(self.types, rtype)


@dataclasses.dataclass(frozen=True)
class _Nsec3:
    """An NSEC3 record: no hash is between `owner` and `next`."""

    owner: bytes
    next: bytes
    opt_out: bool
    types: bytes

    def has(self, rtype: int) -> bool:
        return _in_bitmap(self.types, rtype)


@dataclasses.dataclass(frozen=True)
class Parameters:
    """How an NSEC3 record was made (RFC 5155, section 3.1); `owner` and `next` are hashes."""

    owner: bytes
    next: bytes
    opt_out: bool
    iterations: int
    salt: bytes
    types: bytes


def parameters(rrset: RRset) -> Parameters | None:
    """Read an NSEC3; None for one of an unknown hash or unknown flags, or that is malformed (RFC 5155, 8.1, 8.2)."""
    rdata: bytes = rrset.rdatas[0]
    if len(rdata) < 6 or rdata[0] != 1 or rdata[1] & ~_OPT_OUT_BIT:
        return None
    salt_end = 5 + rdata[4]
    if len(rdata) <= salt_end:
        return None
    types_at = salt_end + 1 + rdata[salt_end]
    following = rdata[salt_end + 1 : types_at]
    own = _from_base32hex(rrset.owner[1 : 1 + rrset.owner[0]])
    if own is None or len(own) != len(following):
        return None
    iterations = int.from_bytes(rdata[2:4], "big")
    return Parameters(own, following, bool(rdata[1] & _OPT_OUT_BIT), iterations, rdata[5:salt_end], rdata[types_at:])


class Proofs:
    """The NSEC and NSEC3 records of one zone in one answer."""

    def __init__(self, apex: bytes, rrsets: Iterable[RRset], hashed: Hash = signatures.hashed) -> None:
        self._apex = apex
        self._nsecs: list[_Nsec] = []
        self._nsec3s: dict[bytes, _Nsec3] = {}
        self._salt = b""
        self._iterations = -1
        self._hashed = hashed
        self.too_many = False
        for rrset in rrsets:
            if rrset.rtype == signatures.TYPE_NSEC and at_or_below(rrset.owner, apex):
                self._nsecs += [nsec for rdata in rrset.rdatas[:1] if (nsec := _nsec(rrset.owner, rdata)) is not None]
            elif rrset.rtype == signatures.TYPE_NSEC3 and names.parent(rrset.owner) == apex and rrset.owner != apex:
                self._add_nsec3(rrset)

    def encloser(self, name: bytes) -> bytes | None:
        """The closest encloser of a name that an NSEC covers."""
        for nsec in self._nsecs:
            found = self._encloser_nsec(nsec, name)
            if found is not None:
                return found
        return None

    def __bool__(self) -> bool:
        return bool(self._nsecs or self._nsec3s or self.too_many)

    def _add_nsec3(self, rrset: RRset) -> None:
        """Take an NSEC3; all must have the same parameters (RFC 5155, section 8.2)."""
        read = parameters(rrset)
        if read is None:
            return
        if read.iterations > ITERATIONS:
            self.too_many = True
            return
        if self._iterations < 0:
            self._iterations, self._salt = read.iterations, read.salt
        elif (read.iterations, read.salt) != (self._iterations, self._salt):
            return
        self._nsec3s[read.owner] = _Nsec3(read.owner, read.next, read.opt_out, read.types)

    # --- questions -------------------------------------------------------------------------------------------------

    def nodata(self, name: bytes, qtype: int) -> str:
        """That the name (at or below the apex) has no such type, nor has the wildcard that would stand for it."""
        if self.too_many:
            return TOO_MANY
        if self._nsec3s:
            found = self._nodata_nsec3(name, qtype)
            if found != FAILS:
                return found
        return self._nodata_nsec(name, qtype)

    def nxdomain(self, name: bytes) -> str:
        """That neither the name exists nor a wildcard for it."""
        if self.too_many:
            return TOO_MANY
        for nsec in self._nsecs:
            encloser = self._encloser_nsec(nsec, name)
            if encloser is not None and not at_or_below(nsec.next, name):
                wildcard = b"\x01*" + encloser
                for other in self._nsecs:
                    if self._covers(other, wildcard) and not at_or_below(other.next, wildcard):
                        return PROVEN
        closest = self._closest(name)
        if closest is not None:
            encloser, cover = closest
            if self._nsec3_covering(b"\x01*" + encloser) is not None:
                return OPT_OUT if cover.opt_out else PROVEN
        return FAILS

    def wildcard(self, name: bytes, labels: int) -> str:
        """That nothing nearer to the name exists than the wildcard of this many labels, the `*` not counted."""
        if self.too_many:
            return TOO_MANY
        encloser = signatures.ancestor(name, labels)
        if any(self._encloser_nsec(nsec, name) == encloser for nsec in self._nsecs):
            return PROVEN
        if self._nsec3s:
            cover = self._nsec3_covering(signatures.ancestor(name, labels + 1))
            if cover is not None:
                return OPT_OUT if cover.opt_out else PROVEN
        return FAILS

    def no_ds(self, name: bytes) -> str:
        """What the parent proves of a name below its apex that has no DS: INSECURE_CUT, NO_CUT, OPT_OUT, TOO_MANY."""
        if self.too_many:
            return TOO_MANY
        for nsec in self._nsecs:
            if nsec.owner == name:
                return _cut(nsec)
            if self._covers(nsec, name):
                return NO_CUT
        if self._nsec3s:
            match = self._nsec3_matching(name)
            if match is not None:
                return _cut(match)
            closest = self._closest(name)
            if closest is not None:
                return OPT_OUT if closest[1].opt_out else NO_CUT
        return FAILS

    # --- NSEC ------------------------------------------------------------------------------------------------------

    def _nodata_nsec(self, name: bytes, qtype: int) -> str:
        for nsec in self._nsecs:
            if nsec.owner == name:
                return PROVEN if _lacks(nsec, qtype, name) else FAILS
            if self._covers(nsec, name) and names.is_below(nsec.next, name):
                return PROVEN  # an empty non-terminal
        for nsec in self._nsecs:
            encloser = self._encloser_nsec(nsec, name)
            if encloser is not None:
                wildcard = b"\x01*" + encloser
                for other in self._nsecs:
                    if other.owner == wildcard and _lacks(other, qtype, name):
                        return PROVEN
                    if self._covers(other, wildcard) and names.is_below(other.next, wildcard):
                        return PROVEN  # the wildcard is an empty non-terminal
        return FAILS

    def _covers(self, nsec: _Nsec, name: bytes) -> bool:
        """Whether the NSEC says that there is no such owner; not what is below a zone cut or DNAME (RFC 6840, 4.1)."""
        if names.is_below(name, nsec.owner) and (nsec.has(_DNAME) or (nsec.has(_NS) and not nsec.has(_SOA))):
            return False
        owner, following, wanted = names.order(nsec.owner), names.order(nsec.next), names.order(name)
        if owner < following:
            return owner < wanted < following
        # The last NSEC of a zone leads back to its apex.
        return nsec.next == self._apex and owner < wanted

    def _encloser_nsec(self, nsec: _Nsec, name: bytes) -> bytes | None:
        """The closest encloser that an NSEC covering the name shows: what the name shares with one of its ends."""
        if not self._covers(nsec, name):
            return None
        one, other = _shared(name, nsec.owner), _shared(name, nsec.next)
        found = one if len(one) >= len(other) else other
        return found if at_or_below(found, self._apex) else None

    # --- NSEC3 -----------------------------------------------------------------------------------------------------

    def _nodata_nsec3(self, name: bytes, qtype: int) -> str:
        match = self._nsec3_matching(name)
        if match is not None:
            return PROVEN if _lacks(match, qtype, name) else FAILS
        closest = self._closest(name)
        if closest is None:
            return FAILS
        encloser, cover = closest
        wildcard = self._nsec3_matching(b"\x01*" + encloser)
        if wildcard is not None and _lacks(wildcard, qtype, name):
            return OPT_OUT if cover.opt_out else PROVEN
        # RFC 5155, section 8.6, and for empty non-terminals of unsigned delegations likewise.
        return OPT_OUT if cover.opt_out and wildcard is None else FAILS

    def _closest(self, name: bytes) -> tuple[bytes, _Nsec3] | None:
        """The closest provable encloser and the record that covers the next closer name (RFC 5155, section 8.3)."""
        if not self._nsec3s or not at_or_below(name, self._apex):
            return None
        nearer = name
        while nearer != self._apex:
            encloser = names.parent(nearer)
            match = self._nsec3_matching(encloser)
            if match is not None:
                if match.has(_DNAME) or (match.has(_NS) and not match.has(_SOA)):
                    return None
                cover = self._nsec3_covering(nearer)
                return None if cover is None else (encloser, cover)
            nearer = encloser
        return None

    def _nsec3_matching(self, name: bytes) -> _Nsec3 | None:
        return self._nsec3s.get(self._hashed(name, self._salt, self._iterations))

    def _nsec3_covering(self, name: bytes) -> _Nsec3 | None:
        wanted = self._hashed(name, self._salt, self._iterations)
        for nsec3 in self._nsec3s.values():
            if nsec3.owner < nsec3.next:
                covers = nsec3.owner < wanted < nsec3.next
            else:
                covers = wanted > nsec3.owner or wanted < nsec3.next
            if covers:
                return nsec3
        return None


def too_often(apex: bytes) -> str:
    """The sentence for TOO_MANY."""
    return f"{names.to_text(apex)} hashes names more than {ITERATIONS} times"


def _lacks(record: _Nsec | _Nsec3, qtype: int, name: bytes) -> bool:
    """Whether the types at the name do without this one, and the record is from the right side of a zone cut."""
    if record.has(qtype) or record.has(_CNAME):
        return False
    if qtype == _DS:
        return not record.has(_SOA) or name == names.ROOT  # the child knows nothing of its DS (RFC 6840, section 4.4)
    return not record.has(_NS) or record.has(_SOA)


def _cut(record: _Nsec | _Nsec3) -> str:
    if record.has(_DS) or record.has(_SOA):
        return FAILS
    return INSECURE_CUT if record.has(_NS) and not record.has(_CNAME) else NO_CUT


def _nsec(owner: bytes, rdata: bytes) -> _Nsec | None:
    at = 0
    while at < len(rdata) and rdata[at]:
        at += 1 + rdata[at]
    if at >= len(rdata) or at >= names.MAX_NAME:
        return None
    return _Nsec(owner, names.lower(rdata[: at + 1]), rdata[at + 1 :])


def _in_bitmap(bitmap: bytes, rtype: int) -> bool:
    """RFC 4034, section 4.1.2; what comes behind a malformed block is not there."""
    window, place = rtype >> 8, (rtype & 255) >> 3
    at = 0
    while at + 2 <= len(bitmap):
        length = bitmap[at + 1]
        if bitmap[at] == window:
            if place >= length or at + 2 + place >= len(bitmap):
                return False
            return bool(bitmap[at + 2 + place] & (0x80 >> (rtype & 7)))
        at += 2 + length
    return False


def _shared(one: bytes, other: bytes) -> bytes:
    """The deepest name at or above both."""
    while not at_or_below(other, one):
        one = names.parent(one)
    return one


def _from_base32hex(text: bytes) -> bytes | None:
    """RFC 4648, section 7, lower case without padding."""
    bits = 0
    for char in text:
        value = _BASE32HEX.find(char)
        if value < 0:
            return None
        bits = bits << 5 | value
    octets = len(text) * 5 // 8
    return (bits >> (len(text) * 5 - octets * 8)).to_bytes(octets, "big")

# cython: wraparound=True, annotation_typing=False
"""Keys, digests and signatures of DNSSEC: canonical form, and what the cryptography says (RFC 4034, RFC 6840).

Pure, and the only module of dnsd that knows dnspython: it reads keys and trust anchors; cryptography checks signatures.
Who must have signed what is the business of `chain` and `validator`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import struct
from typing import Any, Final

import dns.dnssecalgs
import dns.exception
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.zonefile

from dnsd.contract import codes, names
from dnsd.resolve.rrsets import RDATA_NAMES

TYPE_DS: Final = codes.TYPE_DS
TYPE_DNSKEY: Final = codes.QTYPES["DNSKEY"]
TYPE_NSEC: Final = codes.QTYPES["NSEC"]
TYPE_NSEC3: Final = codes.QTYPES["NSEC3"]

# RFC 9904 and 9905, "implement for validation": RSASHA1 too, though nobody may sign with it any more (`Policy`).
ALGORITHMS: Final = frozenset((5, 7, 8, 10, 13, 14, 15, 16))
# RSAMD5 and DSA must not be used (RFC 9904): only where a trust anchor names them, which somebody wrote on purpose.
RETIRED: Final = frozenset((1, 3, 6))
# RSASHA1 and RSASHA1-NSEC3-SHA1; and the digest type SHA-1.
SHA1_ALGORITHMS: Final = frozenset((5, 7))
SHA1_DIGEST: Final = 1
# Digest types of DS that can be checked: SHA-1, SHA-256, SHA-384.
DIGESTS: Final[dict[int, str]] = {1: "sha1", 2: "sha256", 4: "sha384"}

_RSA = frozenset((1, 5, 7, 8, 10))
_RSA_OCTETS = 512  # RFC 3110, section 2: at most 4096 bits
_EXPONENT_OCTETS = 8  # a longer exponent is there to cost us time

# Types whose names are folded to lower case (RFC 4034, section 6.2, without NSEC: RFC 6840, section 5.1).
_FOLDED = {**RDATA_NAMES, 24: "99n", 46: "99n"}
_NAPTR = codes.QTYPES["NAPTR"]


@dataclasses.dataclass(frozen=True)
class Policy:
    """What is too weak to count: it makes a zone insecure, like what is not supported (RFC 9905, section 2).

    `sha1`: whether SHA-1 counts, in signatures and in DS. `rsa_bits`: RSA keys shorter than this do not.
    """

    sha1: bool = True
    rsa_bits: int = 512

    def strong(self, by: Key) -> bool:
        """Whether a key is long enough."""
        return by.algorithm not in _RSA or rsa_bits(by.rdata) >= self.rsa_bits


@dataclasses.dataclass(frozen=True)
class Key:
    """A DNSKEY (RFC 4034, section 2)."""

    rdata: bytes
    flags: int
    algorithm: int
    tag: int

    @property
    def signs_zone(self) -> bool:
        """Whether it may sign the data of its zone: the Zone Key bit, protocol 3."""
        return bool(self.flags & 0x0100) and self.rdata[2] == 3

    @property
    def revoked(self) -> bool:
        """RFC 5011, section 7: a revoked key says nothing any more."""
        return bool(self.flags & 0x0080)


@dataclasses.dataclass(frozen=True)
class Signature:
    """An RRSIG (RFC 4034, section 3.1); `head` is its rdata before the signer, `signer` lower case."""

    covered: int
    algorithm: int
    labels: int
    original_ttl: int
    expiration: int
    inception: int
    tag: int
    head: bytes
    signer: bytes
    octets: bytes


def key(rdata: bytes) -> Key | None:
    """Read a DNSKEY's rdata; None when it is too short."""
    if len(rdata) < 5:
        return None
    return Key(rdata, int.from_bytes(rdata[:2], "big"), rdata[3], key_tag(rdata))


@functools.lru_cache(maxsize=8192)
def signature(rdata: bytes) -> Signature | None:
    """Read an RRSIG's rdata; None when it is malformed."""
    if len(rdata) < 20:
        return None
    end = _name_end(rdata, 18)
    if end < 0:
        return None
    covered, algorithm, labels, ttl, expiration, inception, tag = struct.unpack_from("!HBBIIIH", rdata)
    signer = names.lower(rdata[18:end])
    return Signature(covered, algorithm, labels, ttl, expiration, inception, tag, rdata[:18], signer, rdata[end:])


def key_tag(rdata: bytes) -> int:
    """The key tag (RFC 4034, appendix B)."""
    if len(rdata) > 3 and rdata[3] == 1:
        return int.from_bytes(rdata[-3:-1], "big")
    total = sum(rdata[0::2]) * 256 + sum(rdata[1::2])
    return (total + (total >> 16 & 0xFFFF)) & 0xFFFF


def digest(owner: bytes, key_rdata: bytes, kind: int) -> bytes | None:
    """A DS record's digest of a key (RFC 4034, section 5.1.4); None for a kind that is not known."""
    algorithm = DIGESTS.get(kind)
    if algorithm is None:
        return None
    return hashlib.new(algorithm, owner + key_rdata, usedforsecurity=False).digest()


def hashed(name: bytes, salt: bytes, iterations: int) -> bytes:
    """The hash of a name in NSEC3 (RFC 5155, section 5)."""
    out = hashlib.sha1(name + salt, usedforsecurity=False).digest()
    for _ in range(iterations):
        out = hashlib.sha1(out + salt, usedforsecurity=False).digest()
    return out


def in_time(sig: Signature, now: int, skew: int) -> int:
    """0 when the signature holds `now` (wall clock, seconds); else the EDE code that says why not.

    Serial numbers of 32 bits (RFC 4034, section 3.1.5): right until 68 years around now.
    """
    if _after(sig.inception, sig.expiration) > 0:
        return codes.EDE_SIGNATURE_EXPIRED_BEFORE_VALID
    if _after(now, sig.expiration) > skew:
        return codes.EDE_SIGNATURE_EXPIRED
    if _after(sig.inception, now) > skew:
        return codes.EDE_SIGNATURE_NOT_YET_VALID
    return 0


def seconds_left(sig: Signature, now: int) -> int:
    """How long the signature still holds."""
    return _after(sig.expiration, now)


def signed_octets(sig: Signature, owner: bytes, rtype: int, rdatas: tuple[bytes, ...]) -> bytes | None:
    """What was signed (RFC 4034, section 3.1.8.1); None when the owner has fewer labels than the signature says."""
    source = source_name(owner, sig.labels)
    if source is None:
        return None
    head = source + struct.pack("!HHI", rtype, codes.CLASS_IN, sig.original_ttl)
    parts = [sig.head, sig.signer]
    for rdata in sorted({canonical(rtype, rdata) for rdata in rdatas}):
        parts += (head, len(rdata).to_bytes(2, "big"), rdata)
    return b"".join(parts)


def source_name(owner: bytes, labels: int) -> bytes | None:
    """The name that an RRset was signed under: its owner, or the wildcard that it was made from (RFC 4035, 5.3.2)."""
    have = names.count(owner) - (owner[:2] == b"\x01*")
    if labels > have:
        return None
    if labels == have:
        return owner
    return b"\x01*" + ancestor(owner, labels)


def ancestor(name: bytes, labels: int) -> bytes:
    """The name's last labels, so many of them."""
    for _ in range(names.count(name) - labels):
        name = names.parent(name)
    return name


def canonical(rtype: int, rdata: bytes) -> bytes:
    """The rdata with its names in lower case (RFC 4034, section 6.2); malformed rdata as it is."""
    if rtype == _NAPTR:
        at = 4
        for _ in range(3):
            if at >= len(rdata):
                return rdata
            at += 1 + rdata[at]
        return rdata[:at] + names.lower(rdata[at:])
    pattern = _FOLDED.get(rtype)
    if pattern is None:
        return rdata
    at = 0
    out = b""
    for part in pattern:
        if part == "n":
            end = _name_end(rdata, at)
            if end < 0:
                return rdata
            out += names.lower(rdata[at:end])
        elif part.isdigit():
            end = at + int(part)
            out += rdata[at:end]
        at = end
    return out + rdata[at:]


def verify(by: Key, sig: Signature, octets: bytes) -> bool:
    """Whether this key made this signature over these octets. A key that cannot be read made none."""
    public = _public(by.rdata)
    if public is None:
        return False
    try:
        public.verify(sig.octets, octets)
    except Exception:  # whatever a hostile key or signature makes the libraries raise, it is no proof
        return False
    return True


@functools.lru_cache(maxsize=1024)
def _public(rdata: bytes) -> Any:
    if rdata[3] in _RSA and not _rsa_is_sane(rdata[4:]):
        return None
    try:
        read: Any = dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.DNSKEY, rdata, 0, len(rdata))
        return dns.dnssecalgs.get_algorithm_cls_from_dnskey(read).public_cls.from_dnskey(read)
    except Exception:  # see `verify`
        return None


def rsa_bits(rdata: bytes) -> int:
    """The length of an RSA key's modulus (RFC 3110, section 2); 0 for a malformed key."""
    octets = rdata[4:]
    if len(octets) < 3:
        return 0
    length, at = octets[0], 1
    if length == 0:
        length, at = int.from_bytes(octets[1:3], "big"), 3
    return int.from_bytes(octets[at + length :], "big").bit_length()


def _rsa_is_sane(octets: bytes) -> bool:
    if len(octets) < 3:
        return False
    length, at = octets[0], 1
    if length == 0:
        length, at = int.from_bytes(octets[1:3], "big"), 3
    return length <= _EXPONENT_OCTETS and len(octets) - at - length <= _RSA_OCTETS


def records(text: str) -> list[tuple[bytes, int, bytes]]:
    """DS and DNSKEY records from presentation format, as (owner, type, rdata); raises ValueError with a sentence."""
    try:
        found = dns.zonefile.read_rrsets(text, rdclass=None, default_ttl=0, relativize=False)
    except (dns.exception.DNSException, ValueError) as error:
        raise ValueError(str(error) or type(error).__name__) from None
    out = []
    for rrset in found:
        if rrset.rdtype not in (TYPE_DS, TYPE_DNSKEY) or rrset.rdclass != dns.rdataclass.IN:
            raise ValueError(f"{rrset.name} {dns.rdatatype.to_text(rrset.rdtype)} is neither a DS nor a DNSKEY record")
        owner = names.lower(rrset.name.to_wire() or names.ROOT)
        out += [(owner, int(rrset.rdtype), rdata.to_wire() or b"") for rdata in rrset]
    return out


def _after(a: int, b: int) -> int:
    """a - b in serial arithmetic (RFC 1982)."""
    return ((a - b + 0x80000000) & 0xFFFFFFFF) - 0x80000000


def _name_end(data: bytes, at: int) -> int:
    """The place behind an uncompressed name; -1 when it is none."""
    begin = at
    while at < len(data):
        n = data[at]
        if n == 0:
            return at + 1 if at + 1 - begin <= names.MAX_NAME else -1
        if n > names.MAX_LABEL:
            return -1
        at += 1 + n
    return -1

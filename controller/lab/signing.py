"""A zone's text becomes the zone that is served: keys, signatures, DS in the parent, and the flaws asked for.

Owner of dnspython here, and of the cryptography that makes keys.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re

import dns.dnssec
import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.rdtypes.ANY.DNSKEY
import dns.rdtypes.ANY.DS
import dns.zone
import dns.zonefile
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from controller.lab.zonefiles import Marks, ZoneError

ALGORITHM = 13  # ECDSAP256SHA256
DAY_S = 86400
LASTS_S = 14 * DAY_S
_DS, _RRSIG, _NSEC, _SOA = (dns.rdatatype.from_text(word) for word in ("DS", "RRSIG", "NSEC", "SOA"))
_WHERE = re.compile(r"^<string>:\d+: ?")


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """A zone's one key: it signs the keys and everything else (RFC 9499: a combined signing key)."""

    private: ec.EllipticCurvePrivateKey
    dnskey: dns.rdtypes.ANY.DNSKEY.DNSKEY


def key(folder: pathlib.Path, zone: str) -> Key:
    """The zone's key; made the first time."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{zone.strip('.') or 'root'}.pem"
    try:
        private = serialization.load_pem_private_key(place.read_bytes(), None)
    except (FileNotFoundError, ValueError):
        private = ec.generate_private_key(ec.SECP256R1())
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with open(place, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(pem)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    return Key(private, _dnskey(private))


def _dnskey(private: ec.EllipticCurvePrivateKey) -> dns.rdtypes.ANY.DNSKEY.DNSKEY:
    return dns.dnssec.make_dnskey(private.public_key(), ALGORITHM, 257)


def ds(zone: str, known: Key, marks: Marks) -> tuple[str, ...]:
    """The DS that the parent holds for the zone, in presentation form, as its marks want it."""
    if marks.unsigned or marks.ds[:1] == ("none",):
        return ()
    # A key that nobody has: the same one each time, so that the parent's zone does not change by itself.
    dnskey = known.dnskey if marks.ds[:1] != ("wrong",) else _dnskey(ec.derive_private_key(_NOBODYS, ec.SECP256R1()))
    made: dns.rdata.Rdata = dns.dnssec.make_ds(dns.name.from_text(zone), dnskey, "SHA256")
    if marks.ds[:1] == ("algorithm",):
        made = made.replace(algorithm=int(marks.ds[1]))
    return (str(made.to_text()),)


_NOBODYS = 0x4E65786F72616C  # a private key for the DS of a key that no zone has


def served(
    zone: str, text: str, marks: Marks, known: Key | None, children: dict[str, tuple[str, ...]], serial: int, now: int,
    file: str,
) -> str:  # fmt: skip
    """The zone as its server gets it. `children`: DS by delegated zone; `known` None: nothing is signed.

    `serial` takes the place of the SOA's; `now` in seconds. Raises ZoneError, with `file` and the line.
    """
    origin = dns.name.from_text(zone)
    try:
        found = dns.zone.from_text(text, origin, relativize=False, check_origin=True)
        soa = found.find_rdataset(origin, _SOA)
        found.replace_rdataset(origin, dns.rdataset.from_rdata(soa.ttl, soa[0].replace(serial=serial)))
        if known is None:
            return str(found.to_text(relativize=False))
        for child, texts in children.items():
            owner = dns.name.from_text(child)
            if texts and found.get_rdataset(owner, dns.rdatatype.NS) is not None:
                found.replace_rdataset(owner, dns.rdataset.from_text("IN", "DS", 300, *texts))
        if not marks.unsigned:
            _sign(found, marks, known, now)
            _flaw(found, origin, marks)
        return str(found.to_text(relativize=False))
    except dns.zone.NoSOA:
        raise ZoneError(f"{file}: the zone has no SOA record") from None
    except dns.zone.NoNS:
        raise ZoneError(f"{file}: the zone has no NS record at its apex") from None
    except (dns.exception.DNSException, ValueError, KeyError, NotImplementedError) as error:
        said = _WHERE.sub("", str(error) or type(error).__name__)
        raise ZoneError(f"{file}:{_line(text, origin)}: {said}") from None


def _line(text: str, origin: dns.name.Name) -> int:
    """Where the first mistake is: all before that line can be read (dnspython names the line after it, or none)."""
    lines = text.splitlines(keepends=True)
    for number in range(len(lines), 0, -1):
        try:
            dns.zone.from_text("".join(lines[: number - 1]), origin, relativize=False, check_origin=False)
        except (dns.exception.DNSException, ValueError):
            continue
        return number
    return 1


def _sign(zone: dns.zone.Zone, marks: Marks, known: Key, now: int) -> None:
    begins, ends = now - 3600, now + LASTS_S
    if marks.signatures == "expired":
        begins, ends = now - 30 * DAY_S, now - 2 * DAY_S
    elif marks.signatures == "future":
        begins, ends = now + 2 * DAY_S, now + 30 * DAY_S
    dns.dnssec.sign_zone(zone, keys=[(known.private, known.dnskey)], dnskey_ttl=300, inception=begins, expiration=ends)


def _flaw(zone: dns.zone.Zone, origin: dns.name.Name, marks: Marks) -> None:
    """Break what was signed."""
    for owner, rtype, data in marks.tamper:
        kind = dns.rdatatype.from_text(rtype)
        name = dns.name.from_text(owner, origin)
        rdata = dns.rdata.from_text(dns.rdataclass.IN, kind, data, origin, relativize=False)
        zone.replace_rdataset(name, dns.rdataset.from_rdata(zone.find_rdataset(name, kind).ttl, rdata))
    for owner, rtype in marks.unsign:
        zone.delete_rdataset(dns.name.from_text(owner, origin), _RRSIG, dns.rdatatype.from_text(rtype))
    if marks.no_denial:
        for name in list(zone.nodes):
            zone.delete_rdataset(name, _NSEC)
            zone.delete_rdataset(name, _RRSIG, _NSEC)

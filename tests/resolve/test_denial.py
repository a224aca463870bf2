"""What single NSEC and NSEC3 records prove, and what they do not although it looks like it."""

from __future__ import annotations

import dns.dnssec
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import pytest

from dnsd.contract import codes, names
from dnsd.resolve.denial import FAILS, INSECURE_CUT, NO_CUT, OPT_OUT, PROVEN, TOO_MANY, Proofs
from dnsd.resolve.rrsets import RRset

APEX = "zone.test"


def rrset(line: str) -> RRset:
    """`owner TYPE rdata`, names absolute without the last dot."""
    owner, rtype, data = line.split(None, 2)
    rdata = dns.rdata.from_text("IN", rtype, data, origin=dns.name.root, relativize=False)
    return RRset(names.from_text(owner), int(rdata.rdtype), 300, (rdata.to_wire() or b"",))


def nsec(*lines: str) -> Proofs:
    """Proofs from NSEC records written as `owner next types`."""
    return Proofs(names.from_text(APEX), [rrset(line.replace(" ", " NSEC ", 1)) for line in lines])


def nsec3(*lines: str, flags: int = 0, iterations: int = 0, salt: str = "-", hash: int = 1) -> Proofs:
    """Proofs from NSEC3 records: `name types` matches a name, `-name` covers one."""
    out = []
    for line in lines:
        name, _, types = line.partition(" ")
        text = dns.dnssec.nsec3_hash(name.lstrip("-"), "" if salt == "-" else salt, iterations, 1)
        number = int.from_bytes(_decoded(text), "big")
        first = number - 1 if name.startswith("-") else number
        last = _encoded(number + 1)
        out.append(rrset(f"{_encoded(first)}.{APEX} NSEC3 {hash} {flags} {iterations} {salt} {last} {types}"))
    return Proofs(names.from_text(APEX), out)


def _decoded(text: str) -> bytes:
    value = 0
    for char in text.lower():
        value = value << 5 | "0123456789abcdefghijklmnopqrstuv".index(char)
    return value.to_bytes(20, "big")


def _encoded(number: int) -> str:
    return "".join("0123456789abcdefghijklmnopqrstuv"[number >> shift & 31] for shift in range(155, -1, -5))


def said(proofs: Proofs, what: str) -> str:
    """Ask `nodata NAME TYPE`, `nxdomain NAME`, `wildcard NAME LABELS` or `no_ds NAME`."""
    word, name, *rest = what.split()
    wire = names.from_text(name)
    if word == "nodata":
        return proofs.nodata(wire, codes.qtype_number(rest[0]))
    if word == "wildcard":
        return proofs.wildcard(wire, int(rest[0]))
    return proofs.nxdomain(wire) if word == "nxdomain" else proofs.no_ds(wire)


NSEC_CASES = [
    ("nodata a.zone.test A", PROVEN, ["a.zone.test c.zone.test TXT NSEC RRSIG"]),
    ("nodata a.zone.test TXT", FAILS, ["a.zone.test c.zone.test TXT NSEC RRSIG"]),
    ("nodata a.zone.test A", FAILS, ["a.zone.test c.zone.test CNAME NSEC RRSIG"]),
    # The parent's NSEC at a delegation says nothing about the child's types; the child's nothing about its DS.
    ("nodata sub.zone.test A", FAILS, ["sub.zone.test x.zone.test NS NSEC RRSIG"]),
    ("nodata sub.zone.test DS", PROVEN, ["sub.zone.test x.zone.test NS NSEC RRSIG"]),
    ("nodata zone.test DS", FAILS, ["zone.test a.zone.test NS SOA NSEC RRSIG"]),
    ("nodata ent.zone.test A", PROVEN, ["d.zone.test a.ent.zone.test A NSEC RRSIG"]),
    ("nodata q.w.zone.test A", PROVEN, ["a.w.zone.test z.w.zone.test A NSEC", "*.w.zone.test a.w.zone.test TXT NSEC"]),
    ("nodata q.w.zone.test A", FAILS, ["a.w.zone.test z.w.zone.test A NSEC", "*.w.zone.test a.w.zone.test A NSEC"]),
    ("nodata b.zone.test A", FAILS, ["a.zone.test c.zone.test A NSEC"]),
    ("nxdomain b.zone.test", PROVEN, ["a.zone.test c.zone.test A NSEC", "zone.test a.zone.test SOA NS NSEC"]),
    ("nxdomain b.zone.test", FAILS, ["a.zone.test c.zone.test A NSEC"]),  # no word about the wildcard
    ("nxdomain z.zone.test", PROVEN, ["y.zone.test zone.test A NSEC", "zone.test a.zone.test SOA NS NSEC"]),
    ("nxdomain z.zone.test", FAILS, ["y.zone.test a.zone.test A NSEC", "zone.test a.zone.test SOA NS NSEC"]),
    ("nxdomain b.zone.test", FAILS, ["a.zone.test x.b.zone.test A NSEC", "zone.test a.zone.test SOA NS NSEC"]),
    # RFC 6840, section 4.1: the NSEC above a zone cut or a DNAME denies nothing below.
    ("nxdomain x.sub.zone.test", FAILS, ["sub.zone.test z.zone.test NS NSEC", "zone.test a.zone.test SOA NS NSEC"]),
    ("nxdomain x.tree.zone.test", FAILS, ["tree.zone.test z.zone.test DNAME NSEC", "zone.test a.zone.test SOA NSEC"]),
    ("nxdomain b.other.test", FAILS, ["a.zone.test zone.test A NSEC", "zone.test a.zone.test SOA NS NSEC"]),
    ("wildcard b.w.zone.test 3", PROVEN, ["a.w.zone.test c.w.zone.test A NSEC"]),
    ("wildcard b.w.zone.test 2", FAILS, ["a.w.zone.test c.w.zone.test A NSEC"]),  # *.w.zone.test would be nearer
    ("wildcard b.w.zone.test 2", PROVEN, ["a.zone.test x.zone.test A NSEC"]),
    ("no_ds sub.zone.test", INSECURE_CUT, ["sub.zone.test x.zone.test NS NSEC"]),
    ("no_ds sub.zone.test", FAILS, ["sub.zone.test x.zone.test NS DS NSEC"]),
    ("no_ds sub.zone.test", FAILS, ["sub.zone.test x.zone.test NS SOA NSEC"]),  # the child's own
    ("no_ds host.zone.test", NO_CUT, ["host.zone.test x.zone.test A NSEC"]),
    ("no_ds b.zone.test", NO_CUT, ["a.zone.test c.zone.test A NSEC"]),
    ("no_ds x.sub.zone.test", FAILS, ["sub.zone.test z.zone.test NS NSEC"]),
    ("no_ds b.zone.test", FAILS, []),
]


@pytest.mark.parametrize(("what", "expected", "lines"), NSEC_CASES)
def test_nsec(what: str, expected: str, lines: list[str]) -> None:
    """An NSEC proves what RFC 4035, section 5.4 and RFC 6840 say, and nothing else."""
    assert said(nsec(*lines), what) == expected


NSEC3_CASES = [
    ("nodata a.zone.test A", PROVEN, ["a.zone.test TXT"]),
    ("nodata a.zone.test TXT", FAILS, ["a.zone.test TXT"]),
    ("nodata sub.zone.test A", FAILS, ["sub.zone.test NS"]),
    ("nodata sub.zone.test DS", PROVEN, ["sub.zone.test NS"]),
    ("nodata ent.zone.test A", PROVEN, ["ent.zone.test"]),
    ("nodata q.zone.test A", PROVEN, ["zone.test SOA", "-q.zone.test A", "*.zone.test TXT"]),
    ("nodata q.zone.test TXT", FAILS, ["zone.test SOA", "-q.zone.test A", "*.zone.test TXT"]),
    ("nxdomain q.zone.test", PROVEN, ["zone.test SOA", "-q.zone.test A", "-*.zone.test A"]),
    ("nxdomain b.a.q.zone.test", PROVEN, ["zone.test SOA", "-q.zone.test A", "-*.zone.test A"]),
    ("nxdomain q.zone.test", FAILS, ["zone.test SOA", "-q.zone.test A"]),
    ("nxdomain q.zone.test", FAILS, ["-q.zone.test A", "-*.zone.test A"]),
    ("nxdomain q.zone.test", FAILS, ["zone.test SOA", "-*.zone.test A"]),
    # The closest encloser may not be a delegation or a DNAME (RFC 5155, section 8.3).
    ("nxdomain x.sub.zone.test", FAILS, ["sub.zone.test NS", "-x.sub.zone.test A", "-*.sub.zone.test A"]),
    ("nxdomain x.tree.zone.test", FAILS, ["tree.zone.test DNAME", "-x.tree.zone.test A", "-*.tree.zone.test A"]),
    ("nxdomain b.other.test", FAILS, ["zone.test SOA", "-b.other.test A", "-*.other.test A"]),
    ("wildcard q.zone.test 2", PROVEN, ["-q.zone.test A"]),
    ("wildcard q.w.zone.test 2", FAILS, ["-q.w.zone.test A"]),
    ("no_ds sub.zone.test", INSECURE_CUT, ["sub.zone.test NS"]),
    ("no_ds sub.zone.test", FAILS, ["sub.zone.test NS DS"]),
    ("no_ds host.zone.test", NO_CUT, ["host.zone.test A"]),
    ("no_ds q.zone.test", NO_CUT, ["zone.test SOA", "-q.zone.test A"]),
]


@pytest.mark.parametrize(("what", "expected", "lines"), NSEC3_CASES)
@pytest.mark.parametrize(("iterations", "salt"), [(0, "-"), (3, "aabbcc")])
def test_nsec3(what: str, expected: str, lines: list[str], iterations: int, salt: str) -> None:
    """An NSEC3 proves what RFC 5155, section 8 says, and nothing else."""
    assert said(nsec3(*lines, iterations=iterations, salt=salt), what) == expected


def test_opt_out_leaves_room() -> None:
    """Where the next closer name may be an unsigned delegation nothing is secure (RFC 5155, sections 6 and 9.2)."""
    proofs = nsec3("zone.test SOA", "-q.zone.test A", "-*.zone.test A", flags=1)
    for what in ("nxdomain q.zone.test", "no_ds q.zone.test", "wildcard q.zone.test 2", "nodata q.zone.test DS"):
        assert said(proofs, what) == OPT_OUT, what
    assert said(nsec3("a.zone.test TXT", flags=1), "nodata a.zone.test A") == PROVEN


def test_too_many_iterations_are_not_computed() -> None:
    """More than fifty: every question is answered so, and no hash is computed (RFC 9276, section 3.2)."""
    lines = ["zone.test SOA", "-q.zone.test A", "-*.zone.test A"]
    assert said(nsec3(*lines, iterations=50), "nxdomain q.zone.test") == PROVEN
    proofs = nsec3(*lines, iterations=51)
    for what in ("nxdomain q.zone.test", "no_ds q.zone.test", "wildcard q.zone.test 2", "nodata q.zone.test A"):
        assert said(proofs, what) == TOO_MANY, what


@pytest.mark.parametrize(("flags", "hash"), [(2, 1), (0, 2)])
def test_unknown_hashes_and_flags_are_not_there(flags: int, hash: int) -> None:
    """RFC 5155, sections 8.1 and 8.2."""
    proofs = nsec3("zone.test SOA", "-q.zone.test A", "-*.zone.test A", flags=flags, hash=hash)
    assert not proofs and said(proofs, "nxdomain q.zone.test") == FAILS


def test_malformed_records_prove_nothing() -> None:
    """Every beginning of a good record's rdata is read without an exception."""
    hashed = f"{_encoded(5)}.{APEX} NSEC3 1 0 0 aabb {_encoded(9)} A CAA"
    for line in ("a.zone.test NSEC c.zone.test A TXT CAA", hashed):
        whole = rrset(line)
        for n in range(len(whole.rdatas[0])):
            cut = RRset(whole.owner, whole.rtype, 300, (whole.rdatas[0][:n],))
            proofs = Proofs(names.from_text(APEX), [cut])
            for what in ("nodata a.zone.test CAA", "nxdomain b.zone.test", "no_ds b.zone.test"):
                said(proofs, what)

"""Facts about record data and own zones."""

import dns.rdata
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import check, records
from controller.ruleset import Record
from dnsd.contract import codes, names
from tests.controller import golden

ZONE = names.from_text("office.example.com")


def of_zone(text: str) -> dict[tuple[str, str], list[Record]]:
    """The records of one zone, by (owner, type)."""
    result = check.check_snapshot(golden.of_texts(a=f"zones:\n  office.example.com:\n{text}"), golden.TODAY)
    assert result.ruleset is not None, result.diagnostics
    out: dict[tuple[str, str], list[Record]] = {}
    for record in result.ruleset.zones[ZONE].records:
        out.setdefault((names.to_text(record.owner), codes.qtype_name(record.rtype)), []).append(record)
    return out


@pytest.mark.parametrize(
    ("rtype", "text", "wire"),
    [
        ("A", "10.0.0.1", b"\x0a\0\0\1"),
        ("AAAA", "fd00::1", b"\xfd" + b"\0" * 14 + b"\1"),
        ("CNAME", "NAS", b"\3nas" + ZONE),
        ("CNAME", "@", ZONE),
        ("CNAME", "WWW.Example.NET.", names.from_text("www.example.net")),
        ("CNAME", "bücher", b"\x0dxn--bcher-kva" + ZONE),
        ("MX", "10 mail", b"\0\x0a\4mail" + ZONE),
        ("SRV", "1 2 389 dc1.corp.example.", b"\0\1\0\2\1\x85" + names.from_text("dc1.corp.example")),
        ("CAA", '0 issue "letsencrypt.org"', b"\0\5issueletsencrypt.org"),
        ("TXT", "floor 3, rack 2", b"\x0ffloor 3, rack 2"),
        ("TXT", '"a b" "c"', b"\3a b\1c"),
        ("TXT", "x" * 300, b"\xff" + b"x" * 255 + b"\x2d" + b"x" * 45),
        ("TXT", "back\\slash; ü", b"\x0eback\\slash; \xc3\xbc"),
        ("TYPE65280", "\\# 3 abcdef", b"\xab\xcd\xef"),
    ],
)
def test_wire(rtype: str, text: str, wire: bytes) -> None:
    """Presentation text becomes canonical, uncompressed wire."""
    assert records.rdata(records.rtype(rtype), text, ZONE) == wire


@given(st.binary(min_size=1, max_size=400))
def test_text_of_any_octets_stays(data: bytes) -> None:
    """A TXT written as one text comes back octet for octet."""
    text = data.decode("utf-8", "replace")
    if text.startswith('"'):
        return
    wire = records.rdata(codes.TYPE_TXT, text, ZONE)
    parsed = dns.rdata.from_wire(1, codes.TYPE_TXT, wire, 0, len(wire))
    assert b"".join(parsed.strings).decode("utf-8") == text


def test_soa_and_ns_are_made() -> None:
    """A zone without them gets a SOA and a NS that name the zone itself; MINIMUM is the zone's ttl."""
    made = of_zone("    ttl: 2m\n    records: {a: 10.0.0.1}\n")
    (soa,), (ns,) = made["office.example.com", "SOA"], made["office.example.com", "NS"]
    assert soa.rdata.startswith(ZONE + b"\x0ahostmaster" + ZONE) and int.from_bytes(soa.rdata[-4:], "big") == 120
    assert ns.rdata == ZONE
    assert made["a.office.example.com", "A"][0].ttl == 120


def test_written_soa_and_ns_stay() -> None:
    """What is written at the apex is not made again."""
    made = of_zone(
        '    records: {"@": [{type: SOA, value: ns me 9 1 2 3 4}, {type: NS, values: [ns, ns2.example.]}], '
        "ns: 10.0.0.1}\n"
    )
    assert len(made["office.example.com", "SOA"]) == 1 and len(made["office.example.com", "NS"]) == 2
    assert made["office.example.com", "SOA"][0].text.split()[2] == "9"


def test_owners() -> None:
    """Owners are relative, `@` and the empty text are the zone, a final dot makes them absolute."""
    made = of_zone(
        '    records: {"@": 10.0.0.1, a.b: 10.0.0.2, "*.apps": 10.0.0.3, '
        "C.office.example.com.: 10.0.0.4, _x._tcp: 10.0.0.5}\n"
    )
    assert {owner for owner, rtype in made if rtype == "A"} == {
        "office.example.com", "a.b.office.example.com", "*.apps.office.example.com", "c.office.example.com",
        "_x._tcp.office.example.com",
    }  # fmt: skip


def test_mappings() -> None:
    """MX, SRV and CAA values may be mappings, with octoDNS's words too."""
    made = of_zone(
        "    records:\n"
        "      m: {type: MX, values: [{priority: 10, exchange: x}, {preference: 20, exchange: y.example.}]}\n"
        "      s: {type: SRV, value: {priority: 0, weight: 1, port: 2, target: x}}\n"
        "      c: {type: CAA, value: {tag: issue, value: ';'}}\n"
        "      x: 10.0.0.1\n"
    )
    assert [r.text for r in made["m.office.example.com", "MX"]] == ["10 x.office.example.com.", "20 y.example."]
    assert made["s.office.example.com", "SRV"][0].text == "0 1 2 x.office.example.com."
    assert made["c.office.example.com", "CAA"][0].text == '0 issue ";"'


def test_one_ttl_a_set() -> None:
    """Different TTLs in one set become the smallest (RFC 2181, section 5.2)."""
    made = of_zone("    records: {a: [{type: A, ttl: 60, value: 10.0.0.1}, {type: A, ttl: 1h, value: 10.0.0.2}]}\n")
    assert [r.ttl for r in made["a.office.example.com", "A"]] == [60, 60]


def test_order_of_records_never_matters() -> None:
    """The same records in another order are the same zone, places aside."""
    one = of_zone("    records: {a: [10.0.0.1, 10.0.0.2], b: 10.0.0.3}\n")
    two = of_zone("    records: {b: 10.0.0.3, a: [10.0.0.2, 10.0.0.1]}\n")
    assert [[r.rdata for r in listed] for listed in one.values()] == [
        [r.rdata for r in listed] for listed in two.values()
    ]


@pytest.mark.parametrize("rtype", ["ANY", "AXFR", "OPT", "RRSIG", "DNAME", "NOPE"])
def test_types_that_no_zone_holds(rtype: str) -> None:
    """Query types, unknown words and what is not in this version are refused."""
    with pytest.raises(records.RecordError):
        records.rtype(rtype)

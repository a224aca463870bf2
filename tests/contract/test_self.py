"""`address: self`: names and reverse names that follow the machine's own addresses, from rules to octets."""

from __future__ import annotations

import ipaddress

import dns.flags
import dns.message
import dns.rcode
import pytest

from controller.check import check_snapshot
from controller.compiler import compile_table
from controller.ruleset import Revision, Snapshot
from dnsd.contract import facts, names, query
from dnsd.contract.answer import Responder
from dnsd.contract.factsview import FactsView
from dnsd.contract.table import Table
from dnsd.contract.tableinfo import TableInfo
from dnsd.contract.verdict import Chain, Verdict
from dnsd.contract.verify import verify

RULES = """\
version: 1
zones:
  office.test:
    ptr: auto
    records:
      dns: {address: self}
      www: {type: CNAME, value: dns}
      ns: [{address: self, ttl: 30}, {type: TXT, value: hi}]
      "*.apps": {address: self}
      printer: 10.0.0.7
  quiet.test:
    records:
      dns: {address: self}
  8.0.10.in-addr.arpa:
    records:
      "1": {type: PTR, value: router.office.test.}
rules:
  - name: captive
    redirect: {captive.example: dns.office.test}
  - name: hide
    block: [6.0.0.10.in-addr.arpa]
forward:
  10.in-addr.arpa: 10.9.9.9
"""
OWN = ("10.0.0.5", "10.0.0.6", "10.0.0.7", "10.0.8.1", "10.0.8.2", "2001:db8::5")


@pytest.fixture(scope="module")
def table() -> Table:
    """The rules above, compiled and verified."""
    result = check_snapshot(Snapshot(Revision("r", "r"), {"r.yaml": RULES.encode()}, lambda path, base: b""))
    assert result.ruleset is not None, result.diagnostics
    blobs = compile_table(result.ruleset)
    assert verify(blobs.policy, blobs.names) == []
    return Table(blobs.policy, blobs.names)


def ask(
    table: Table, name: str, qtype: str, own: tuple[str, ...] = OWN, size: int = 1232
) -> tuple[str, list[str], bool]:
    """(rcode, records in the answer, AA) of one question, read by dnspython."""
    view = FactsView(facts.encode(facts.Facts(
        1, v4=((0, 0xFFFFFFFF),), v6=((bytes(16), b"\xff" * 16),), self_addresses=tuple(map(facts.packed, own))
    )))  # fmt: skip
    wire = dns.message.make_query(name, qtype).to_wire()
    q = query.Query(bytearray(wire))
    query.set_client(q, facts.packed("10.0.0.99"))
    q.parse(0, len(wire))
    verdict, chain, out = Verdict(), Chain(), bytearray(4096)
    action = chain.decide(table, view, q, verdict)
    if action not in (1, 2, 3, 4, 5) and verdict.route:
        return "forwarded", [], False
    length = Responder(out).write(table, q, verdict, 0, size)
    message = dns.message.from_wire(bytes(out[:length]))
    records = [f"{rrset.name} {rrset.ttl} {rr}" for rrset in message.answer for rr in rrset]
    return dns.rcode.to_text(message.rcode()), records, bool(message.flags & dns.flags.AA)


def test_the_name_has_the_addresses_of_now(table: Table) -> None:
    """A and AAAA are those of the facts, with the TTL as written or 60; NODATA without one of the type."""
    rcode, records, aa = ask(table, "dns.office.test", "A")
    assert (rcode, aa) == ("NOERROR", True)
    assert records == [f"dns.office.test. 60 {address}" for address in OWN[:5]]
    assert ask(table, "ns.office.test", "AAAA")[1] == ["ns.office.test. 30 2001:db8::5"]
    assert ask(table, "x.apps.office.test", "AAAA")[1] == ["x.apps.office.test. 60 2001:db8::5"]
    assert ask(table, "dns.office.test", "AAAA", own=OWN[:5]) == ("NOERROR", [], True)
    assert ask(table, "dns.office.test", "A", own=()) == ("NOERROR", [], True)
    assert ask(table, "ns.office.test", "TXT")[1] == ['ns.office.test. 300 "hi"']


def test_aliases_lead_to_them(table: Table) -> None:
    """A CNAME of the zone and a redirect end in the same addresses; without any, in the zone's negative answer."""
    assert ask(table, "www.office.test", "AAAA")[1] == [
        "www.office.test. 300 dns.office.test.", "dns.office.test. 60 2001:db8::5",
    ]  # fmt: skip
    assert ask(table, "captive.example", "A", own=("10.0.0.5",))[1] == [
        "captive.example. 10 dns.office.test.", "dns.office.test. 60 10.0.0.5",
    ]  # fmt: skip
    assert ask(table, "www.office.test", "A", own=()) == ("NOERROR", ["www.office.test. 300 dns.office.test."], True)


def test_reverse_names_follow(table: Table) -> None:
    """PTRs of each own address, IPv4 and IPv6, for the names of zones with `ptr: auto`; other types are NODATA."""
    for address in ("10.0.0.5", "2001:db8::5"):
        reverse = ipaddress.ip_address(address).reverse_pointer
        rcode, records, aa = ask(table, reverse, "PTR")
        assert (rcode, aa) == ("NOERROR", True)
        assert records == [f"{reverse}. 30 ns.office.test.", f"{reverse}. 30 dns.office.test."]
        assert ask(table, reverse.upper(), "A") == ("NOERROR", [], True)
    assert ask(table, "5.0.0.10.in-addr.arpa", "PTR", own=OWN[1:])[0] == "forwarded"


def test_what_somebody_wrote_counts_more(table: Table) -> None:
    """A PTR that is written or comes from a fixed record stays; an own zone around the address is filled in."""
    assert ask(table, "7.0.0.10.in-addr.arpa", "PTR")[1] == ["7.0.0.10.in-addr.arpa. 300 printer.office.test."]
    assert ask(table, "1.8.0.10.in-addr.arpa", "PTR")[1] == ["1.8.0.10.in-addr.arpa. 300 router.office.test."]
    assert ask(table, "2.8.0.10.in-addr.arpa", "PTR")[1][0] == "2.8.0.10.in-addr.arpa. 30 ns.office.test."
    assert ask(table, "3.8.0.10.in-addr.arpa", "PTR")[0] == "NXDOMAIN"
    assert ask(table, "6.0.0.10.in-addr.arpa", "PTR")[1] == []  # a rule names it


def test_an_answer_that_does_not_fit_is_cut(table: Table) -> None:
    """Thirty addresses in 512 octets: TC, no half record."""
    many = tuple(f"10.0.0.{i}" for i in range(1, 31))
    assert len(ask(table, "dns.office.test", "A", own=many)[1]) == 30
    assert ask(table, "dns.office.test", "A", own=many, size=400)[1] == []


def test_people_read_the_word(table: Table) -> None:
    """What a table says of itself shows the entry as an address without octets."""
    chain, verdict = Chain(), Verdict()
    q = query.question(names.from_text("dns.office.test"), 1, facts.packed("10.0.0.9"))
    view = FactsView(facts.encode(facts.Facts(1, v4=((0, 0xFFFFFFFF),), self_addresses=(facts.packed("10.0.0.5"),))))
    chain.decide(table, view, q, verdict)
    info = TableInfo(table)
    assert info.of_self(verdict.entry)
    assert [(rr.owner, rr.rtype, rr.ttl, rr.rdata) for rr in info.entry(verdict.entry)[0]] == [(None, 1, 60, b"")]

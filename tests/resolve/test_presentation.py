"""Records as people write them are what another program reads back."""

from __future__ import annotations

import dns.name
import dns.rdata
import dns.rdatatype
import pytest

from dnsd.resolve.presentation import rdata_text

RECORDS = [
    ("DNSKEY", "257 3 13 mdsswUyr3DPW132mOi8V9xESWE8jTo0dxCjjnopKl+GqJxpVXckHAeF+KkxLbxILfDLUT0rAK9iUzy1L53eKGQ=="),
    ("CDNSKEY", "0 3 0 AA=="),
    ("DS", "60485 5 1 2BB183AF5F22588179A53B0A98631FAD1A292118"),
    ("CDS", "0 0 0 00"),
    ("RRSIG", "A 13 3 300 20261201000000 20261101000000 1234 example. qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq"),
    ("NSEC", "b.example. A NS RRSIG NSEC TYPE1234"),
    ("NSEC3", "1 1 12 AABBCCDD 2vptu5timamqttgl4luu9kg21e0aor3s A RRSIG"),
    ("NSEC3", "1 0 0 - 2vptu5timamqttgl4luu9kg21e0aor3s"),
    ("NSEC3PARAM", "1 0 0 -"),
    ("TLSA", "3 1 1 " + "AB" * 32),
    ("SSHFP", "4 2 " + "CD" * 32),
    ("HTTPS", '1 . alpn="h2,h3" port="8443" ipv4hint="192.0.2.1,192.0.2.2" ipv6hint="2001:db8::1" mandatory="alpn"'),
    ("SVCB", "0 svc.example.net."),
    ("SVCB", '16 a.example. key667="hello\\210qoo"'),
    ("CAA", '0 issue "letsencrypt.org"'),
    ("SRV", "0 5 5060 sip.example."),
    ("MX", "10 mail.example."),
    ("SOA", "ns.example. host.example. 1 2 3 4 5"),
    ("TXT", '"a \\"quoted\\" text" "\\255"'),
]


@pytest.mark.parametrize(("rtype", "text"), RECORDS)
def test_what_is_written_reads_back_as_the_same_octets(rtype: str, text: str) -> None:
    """dnspython reads our text of a record into the octets that it was written from."""
    rdata = dns.rdata.from_text("IN", rtype, text)
    ours = rdata_text(dns.rdatatype.from_text(rtype), rdata.to_wire())
    again = dns.rdata.from_text("IN", rtype, ours, origin=dns.name.root, relativize=False)

    assert not ours.startswith("\\#")
    assert again == rdata


@pytest.mark.parametrize("rtype", sorted({rtype for rtype, _ in RECORDS}))
def test_cut_off_data_is_written_as_octets(rtype: str) -> None:
    """Whatever a server sends: a text, never an exception (RFC 3597, section 5)."""
    number = dns.rdatatype.from_text(rtype)
    whole = dns.rdata.from_text("IN", rtype, next(text for kind, text in RECORDS if kind == rtype)).to_wire()
    assert whole
    for length in range(len(whole)):
        assert isinstance(rdata_text(number, whole[:length]), str)

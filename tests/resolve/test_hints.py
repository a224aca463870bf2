"""Root hints: built in, from a file, from pairs; and which addresses may be asked."""

from __future__ import annotations

import pytest

from dnsd.contract import names
from dnsd.resolve import hints

NAMED_ROOT = """\
;  This file holds the information on root name servers
.                        3600000      NS    A.ROOT-SERVERS.NET.
A.ROOT-SERVERS.NET.      3600000      A     198.41.0.4
A.ROOT-SERVERS.NET.      3600000      AAAA  2001:503:ba3e::2:30
. 3600000 IN NS B.ROOT-SERVERS.NET.
B.ROOT-SERVERS.NET. IN A 170.247.170.2 ; new in 2023
"""


def test_the_built_in_ones() -> None:
    """Thirteen servers, each with an address of both families."""
    found = hints.builtin()
    assert len(found) == 13 and all(len(addresses) == 2 for _, addresses in found)


def test_a_file_as_iana_publishes_it() -> None:
    """Names, both families, comments, with and without TTL and class."""
    found = dict(hints.from_text(NAMED_ROOT))
    assert found[names.from_text("a.root-servers.net")] == ("198.41.0.4", "2001:503:ba3e::2:30")
    assert found[names.from_text("b.root-servers.net")] == ("170.247.170.2",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no root server with an address"),
        (". NS a.root.", "no root server with an address"),
        (". NS a.root.\na.root. A 1.2.3", "line 2"),
        (". NS a.root.\na.root. A 2001:db8::1", "no address for A"),
        ("test.", "not `owner"),
        ("test. TXT a", "is no hint"),
        (". NS a..root.", "line 1"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(text: str, words: str) -> None:
    """What is wrong and where."""
    with pytest.raises(hints.HintsError, match=words):
        hints.from_text(text)


def test_pairs_are_checked() -> None:
    """A list without any address, or with a name that is none, is refused."""
    assert hints.from_pairs([("ns.lab", ("127.0.0.1",))]) == ((b"\x02ns\x03lab\x00", ("127.0.0.1",)),)
    for pairs in ([("ns.lab", ())], [("a..b", ("192.0.2.1",))], [("a", ("192.0.2.256",))]):
        with pytest.raises(hints.HintsError):
            hints.from_pairs(pairs)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", True), ("10.0.0.1", True), ("2001:db8::1", True), ("127.0.0.1", False), ("::1", False),
        ("0.0.0.0", False), ("::", False), ("224.0.0.1", False), ("255.255.255.255", False), ("ff02::1", False),
        ("240.0.0.1", False), ("::ffff:127.0.0.1", False), ("fe80::1", False),
    ],
)  # fmt: skip
def test_which_addresses_may_be_asked(address: str, expected: bool) -> None:
    """Nobody lives at loopback (unless allowed), at all-zero, at multicast or at mapped addresses."""
    assert hints.usable(address, True, True, False) is expected
    family = hints.usable(address, ":" in address, ":" not in address, True)
    assert not family

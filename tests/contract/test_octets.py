"""Runs of octets: what is copied, folded and compared, and that no range leaves its buffer."""

import pytest

from dnsd.contract import query
from dnsd.contract.names import from_text
from dnsd.contract.query import Query


def test_a_name_is_folded_whole_and_octets_beside_the_letters_stay() -> None:
    """A to Z in lower case at every length and place, "@", "[" and octets above 127 as they are."""
    for size in range(1, 64):
        label = bytes((64 + (i * 7 + size) % 30 if i % 3 else 250 - i) for i in range(size))
        for room in (0, 1, 15, 40):
            packet = b"\0\0\1\0\0\1" + bytes(6) + bytes((size,)) + label + b"\0\0\1\0\1"
            q = Query(bytearray(packet + bytes(room)))
            assert q.parse(0, len(packet)) == 0
            wanted = bytes(c + 32 if 65 <= c <= 90 else c for c in label)
            assert bytes(q.name[: q.name_length]) == bytes((size,)) + wanted + b"\0"


def test_the_longest_name_and_one_octet_more() -> None:
    """255 octets of wire name are a question, 256 are a format error (RFC 1035, section 2.3.4)."""
    longest = (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"b" * 61 + b"\0"
    for name, fault in ((longest, False), (longest[:-63] + b"\x3e" + b"b" * 62 + b"\0", True), (b"\1a" * 127 + b"\0", False)):
        packet = b"\0\0\1\0\0\1" + bytes(6) + name + b"\0\1\0\1"
        q = Query(bytearray(packet))
        assert bool(q.parse(0, len(packet))) is fault
        assert q.labels == (0 if fault else (127 if name[0] == 1 else 4))


def test_a_packet_that_says_it_is_longer_than_its_buffer_is_an_error_not_a_read_behind_it() -> None:
    """Bounds are checked on what is read, not on what a caller promised."""
    packet = b"\0\0\1\0\0\1" + bytes(6) + b"\3abc"
    with pytest.raises(IndexError):
        Query(bytearray(packet)).parse(0, len(packet) + 40)


def test_suffix_hashes_do_not_depend_on_what_was_parsed_before() -> None:
    """A `Query` is used again and again; a shorter name after a longer one hashes as in a new one."""
    q = Query(bytearray(512))
    for text in ("a-long-label.of.another.example", "b.example", "x", "a-long-label.of.another.example"):
        wire = from_text(text)
        packet = b"\0\0\1\0\0\1" + bytes(6) + wire + b"\0\1\0\1"
        memoryview(q.buf)[: len(packet)] = packet
        assert q.parse(0, len(packet)) == 0
        q.hash()
        fresh = query.question(wire, 1, bytes(16))
        fresh.hash()
        assert list(q.hash_policy[: q.labels + 1]) == list(fresh.hash_policy[: q.labels + 1])

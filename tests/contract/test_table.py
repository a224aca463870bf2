"""Tables as bytes: what is damaged or foreign is refused with a reason, and never read out of bounds."""

from __future__ import annotations

import hashlib
import random
import struct

import pytest

from controller.compiler import compile_table
from controller.names_blob import compile_names
from dnsd.contract import index, layout, names
from dnsd.contract.query import question
from dnsd.contract.table import Table, TableError
from dnsd.contract.verify import verify
from tests.contract import rulesets
from tests.contract.deciding import Desk
from tests.contract.rulesets import N
from tests.contract.test_verdict import block


def resealed(blob: bytes) -> bytes:
    """The same bytes with a digest that fits them."""
    digest = hashlib.sha256(blob[: layout.H_DIGEST] + blob[layout.H_DIGEST + 32 :]).digest()
    return blob[: layout.H_DIGEST] + digest + blob[layout.H_DIGEST + 32 :]


def test_good_tables_verify() -> None:
    """Whatever the compiler makes passes the check."""
    for seed in range(40):
        blobs = compile_table(rulesets.random_rules(random.Random(seed)))

        assert verify(blobs.policy, blobs.names) == []


def test_every_damaged_octet_is_noticed() -> None:
    """Any changed octet anywhere is refused."""
    blobs = compile_table(rulesets.random_rules(random.Random(3)))
    rng = random.Random(4)
    for blob in (blobs.policy, blobs.names):
        for _ in range(150):
            at = rng.randrange(len(blob))
            bad = blob[:at] + bytes((blob[at] ^ 1 << rng.randrange(8),)) + blob[at + 1 :]
            pair = (bad, blobs.names) if blob is blobs.policy else (blobs.policy, bad)
            assert verify(*pair)


def test_lies_with_a_fitting_digest_do_no_harm() -> None:
    """A table of a liar (digests fit, numbers do not) is refused, or can be asked anything without reading out of bounds."""
    rng = random.Random(9)
    refused = 0
    for seed in range(250):
        rules = rulesets.random_rules(random.Random(seed % 25))
        blobs = compile_table(rules)
        start = layout.HEADER_SIZE
        at = rng.randrange(start, len(blobs.policy) - 4) & ~3
        bad = bytearray(blobs.policy)
        struct.pack_into("<I", bad, at, rng.choice([0, 1, 2, 7, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, rng.randrange(2**32)]))
        policy = resealed(bytes(bad))
        if verify(policy, blobs.names):
            refused += 1
            continue
        desk = Desk(rules)
        desk.table = Table(policy, blobs.names)
        for _ in range(10):
            asked = rulesets.random_question(rng)
            desk.ask(asked.qname, asked.qtype, asked.client, limit=4000)
    assert refused > 50


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda b: b[:100], "less than a header"),
        (lambda b: b"GARBAGE!" + b[8:], "it is no policy blob"),
        (lambda b: b[:8] + b"\x02\x00\x00\x00" + b[12:], "format 2.0"),
        (lambda b: b[:-8], "it has"),
        (lambda b: b + b"\x00" * 8, "it has"),
        (lambda b: b[: layout.H_SECTIONS] + b"\xff\xff\x00\x00" + b[layout.H_SECTIONS + 4 :], "directory"),
    ],
)
def test_foreign_files(change: object, says: str) -> None:
    """What is no table, or one of another version, is refused in one sentence."""
    blobs = compile_table(rulesets.ruleset([block("b", "b.example")]))
    bad = change(blobs.policy)  # type: ignore[operator]

    with pytest.raises(TableError, match=says):
        Table(bad, blobs.names)
    assert says in verify(bad, blobs.names)[0]


def test_blobs_that_do_not_belong_together() -> None:
    """A policy blob is refused beside another names blob."""
    one = compile_table(rulesets.ruleset([block("b", "list:l")], lists={"l": ["a.example"]}))
    two = compile_table(rulesets.ruleset([block("b", "list:l")], lists={"l": ["b.example"]}))

    with pytest.raises(TableError, match="another names blob"):
        Table(one.policy, two.names)


def test_index_and_query_hash_alike() -> None:
    """The hash that places a name is the hash that looks it up, for every seed."""
    scratch = memoryview(bytearray(4 * 132)).cast("I")
    for text in (".", "a", "www.example.com", "x" * 63 + ".y"):
        for seed in (0, 1, 77, 2**32 - 1):
            q = question(N(text), 1, bytes(16))
            q.seed_policy, q.seed_names = seed, (seed + 1) % 2**32
            q.hash()
            assert q.hash_policy[0] == index.suffix_hash(memoryview(N(text)), 0, seed, scratch)
            assert q.hash_names[0] == index.suffix_hash(memoryview(N(text)), 0, (seed + 1) % 2**32, scratch)


def test_collisions_get_another_seed() -> None:
    """Names prepared to meet in one slot are spread by another seed, and found."""
    scratch = memoryview(bytearray(4 * 132)).cast("I")
    slots = 1 << 11
    wanted: list[bytes] = []
    number = 0
    while len(wanted) < 120:
        name = N(f"n{number}.example")
        number += 1
        if index.suffix_hash(memoryview(name), 0, 0, scratch) % slots == 5:
            wanted.append(name)
    filler = [N(f"f{i}.example") for i in range(800)]
    blob = compile_names({"l": sorted(wanted + filler)})
    assert struct.unpack_from("<I", blob.data, layout.H_SEED)[0] > 0
    desk = Desk(rulesets.ruleset([block("b", "list:l")], lists={"l": [names.to_text(n) for n in wanted + filler]}))
    for name in wanted[:10]:
        desk.ask(name)
        assert desk.rule == "b"


def test_names_of_several_lists() -> None:
    """A name knows all the lists that it is on."""
    blob = compile_names({"a": [N("x.y"), N("z")], "b": [N("z")], "c": []})

    assert sorted(blob.listsets) == [(0,), (0, 1)]
    assert (blob.lists, blob.sizes) == (("a", "b", "c"), (2, 1, 0))

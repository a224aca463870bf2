"""Facts about the names of lists as flat buffers, and the names blob made of them."""

import importlib.util
import pathlib
import random
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import lists, listscan, names_blob, segments
from controller.names_blob import compile_names
from dnsd.contract import index, layout, names
from dnsd.contract.table import read_header
from dnsd.contract.verify import _Parts, _verify_names

_NAMES = st.lists(st.integers(0, 60).map(lambda i: names.from_text(f"n{i}.example")), max_size=40)


def contents(blob: names_blob.NamesBlob) -> dict[bytes, set[str]]:
    """What a names blob says, read slot by slot: name → the lists that it is on."""
    view = memoryview(bytes(blob.data))
    directory = read_header(view, layout.MAGIC_NAMES, "names")
    problems: list[str] = []
    _verify_names(_Parts(view, directory, problems), len(blob.listsets))
    assert problems == []
    offset, size, _ = directory[layout.NAMES_INDEX]
    slots = view[offset : offset + size].cast("I")[layout.INDEX_HEAD :]
    offset, size, _ = directory[layout.NAMES_RECORDS]
    records = view[offset : offset + size]
    out = {}
    for ref in (ref for ref in slots[1::2] if ref):
        at = (ref - 1) * 4
        name = bytes(records[at + 4 : at + 4 + listscan.size_of(records[at + 4 :], 0)])
        listset = blob.listsets[records[at : at + 4].cast("I")[0]]
        assert name not in out
        out[name] = {blob.lists[number] for number in listset}
    return out


@given(st.dictionaries(st.sampled_from("abcdef"), _NAMES, max_size=6))
def test_property_a_blob_holds_what_the_lists_hold(listed: dict[str, list[bytes]]) -> None:
    """Every name once, with exactly the lists that it is on; sets that no name has do not occur."""
    blob = compile_names(listed)
    expected: dict[bytes, set[str]] = {}
    for name, members in listed.items():
        for member in members:
            expected.setdefault(member, set()).add(name)
    assert contents(blob) == expected
    assert {tuple(blob.lists[n] for n in s) for s in blob.listsets} == {tuple(sorted(s)) for s in expected.values()}
    assert blob.sizes == tuple(len(set(listed[name])) for name in blob.lists)


@given(st.dictionaries(st.sampled_from("abc"), _NAMES, min_size=1, max_size=3), st.randoms())
def test_property_order_makes_no_difference(listed: dict[str, list[bytes]], chance: random.Random) -> None:
    """The same names in any order, with repetitions, give the same bytes."""
    shuffled = {name: members + members[:5] for name, members in listed.items()}
    for members in shuffled.values():
        chance.shuffle(members)
    assert compile_names(dict(reversed(shuffled.items()))).data == compile_names(listed).data


# Two names whose hashes for seed 0 are equal, found by trying.
COLLIDING = [names.from_text("n1422783.example"), names.from_text("n1639198.example")]


def test_equal_keys_are_told_apart() -> None:
    """Names with the same hash stay different names, in one list and over several."""
    pairs = COLLIDING
    assert segments.sort_key(pairs[0]) == segments.sort_key(pairs[1])
    both = segments.of([*pairs, *reversed(pairs)])
    assert list(both) == sorted(pairs) and pairs[0] in both and pairs[1] in both
    blob = compile_names({"a": pairs, "b": pairs[:1], "c": pairs[1:]})
    assert contents(blob) == {pairs[0]: {"a", "b"}, pairs[1]: {"a", "c"}}


def test_long_runs_are_sorted() -> None:
    """A run of many equal keys is put in order, however it was prepared."""
    written = [names.from_text(f"x{i}.example") for i in range(300)]
    wire = b"".join(written)
    offsets = segments.numbers(0)
    at = 0
    for name in written:
        offsets.append(at)
        at += len(name)
    refs = segments.numbers(0)
    refs.extend(random.Random(5).sample(range(300), 300))
    places, out, marks = segments.numbers(300), bytearray(len(wire)), segments.numbers(8)
    assert listscan.gather(wire, offsets, segments.numbers(300), refs, out, places, marks) == 300
    assert bytes(out) == b"".join(sorted(written))


@pytest.fixture
def interpreted() -> types.ModuleType:
    """The scanner as plain Python."""
    path = pathlib.Path(lists.__file__).with_name("listscan.py")
    spec = importlib.util.spec_from_file_location("plain_listscan", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_interpreted_and_compiled_agree(interpreted: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same text as plain Python gives the same bytes."""
    rng = random.Random(8)
    words = ["a.Example", "b.c.example", "1.2.3.4", "x..y", "\u00fc.example", "y" * 70, "localhost", "z."]
    texts = [
        "".join(f"{rng.choice(('', '0.0.0.0 ', '::1 '))}{rng.choice(words)}{rng.choice((chr(10), ' #c' + chr(13)))}"
                f"n{rng.randrange(99)}.example\n" for _ in range(200)).encode()
        for _ in range(3)
    ]  # fmt: skip

    def made() -> tuple[bytes, list[object]]:
        read = [lists.parse([("auto", text, "x")]) for text in texts]
        listed = {str(number): part for number, (part, _) in enumerate(read)}
        return bytes(compile_names(listed).data), [lint for _, lint in read]

    compiled = made()
    for module in (lists, segments, names_blob):
        monkeypatch.setattr(module, "listscan", interpreted)
    assert made() == compiled


def test_records_that_lie_are_found() -> None:
    """A slot to nowhere, a listset that does not exist, a name that does not end, an index without an empty slot."""
    blob = compile_names({"l": [names.from_text("a.example")]})
    directory = read_header(memoryview(blob.data), layout.MAGIC_NAMES, "names")
    start, size, _ = directory[layout.NAMES_INDEX]
    first, length, _ = directory[layout.NAMES_RECORDS]
    slots = memoryview(bytearray(blob.data[start : start + size])).cast("I")[layout.INDEX_HEAD :]
    records = bytearray(blob.data[first : first + length])
    used = next(i for i in range(1, len(slots), 2) if slots[i])
    assert index.check_records(slots, records, 1) == 0
    assert index.check_records(slots, records, 0) == 2
    assert index.check_records(slots, records[:8], 1) == 3
    assert index.check_records(slots, records[:4] + b"\x40" + records[5:], 1) == 3
    slots[used] = 2**32 - 1
    assert index.check_records(slots, records, 1) == 1
    slots[used] = 1
    for i in range(1, len(slots), 2):
        slots[i] = 1
    assert index.check_records(slots, records, 1) == 4

"""The names blob: everything that came from lists, laid out in place. An edited rule leaves it as it is.

Same names, same bytes, whatever the order of lines, files and lists' texts; see `schemas/TABLE.md`.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from array import array
from collections.abc import Iterable, Mapping

from controller import lists, listscan, segments
from controller.blob import close, frame, words
from controller.ruleset import RuleSet
from controller.segments import Names, Union
from dnsd.contract import index, layout


@dataclasses.dataclass(frozen=True, slots=True)
class NamesBlob:
    """The names blob, the lists it knows in their order, and each listset's lists."""

    data: bytearray
    lists: tuple[str, ...]
    listsets: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]


def compile_names(listed: Mapping[str, Names | Iterable[bytes]]) -> NamesBlob:
    """The names blob of these lists (wire names, any order). A listed name means itself and all below it."""
    ordered = sorted(listed)
    parts = {name: part if isinstance(part, Names) else segments.of(part) for name, part in listed.items()}
    filled = [number for number, name in enumerate(ordered) if parts[name]]
    union = Union([parts[ordered[number]] for number in filled])
    # Listsets are numbered as if each were a number with a bit for every list.
    members = [None if m is None else tuple(filled[part] for part in m) for m in union.members]
    used = sorted((m for m in members if m is not None), key=lambda m: m[::-1])
    place = {m: number for number, m in enumerate(used)}
    numbers = array("I", (0 if m is None else place[m] for m in members))
    firsts = list(itertools.accumulate((len(listset) for listset in used), initial=0))
    listsets = words(firsts + [number for listset in used for number in listset])
    named = json.dumps({"lists": ordered}, separators=(",", ":")).encode()
    data = _lay_out(union, numbers, listsets, len(used), named, len(ordered))
    return NamesBlob(data, tuple(ordered), tuple(used), tuple(len(parts[name]) for name in ordered))


def _lay_out(
    union: Union, numbers: array[int], listsets: bytes, used: int, named: bytes, known: int
) -> bytearray:
    count = len(union)
    size = listscan.records_size(union.wire, union.places, union.refs)
    log2, seed = index.size(count), 0
    while True:
        data, parts = frame(
            layout.MAGIC_NAMES,
            {
                layout.NAMES_INDEX: (4 * layout.INDEX_HEAD + (8 << log2), count),
                layout.NAMES_RECORDS: (size, count),
                layout.NAMES_LISTSETS: (len(listsets), used),
                layout.NAMES_LISTS: (len(named), known),
            },
        )
        records = parts[layout.NAMES_RECORDS]
        refs = segments.numbers(count)
        listscan.records(union.wire, union.places, union.refs, union.sets, numbers, records, refs)
        places = segments.numbers(0) if seed == 0 else array("I", ((ref - 1) * 4 for ref in refs))
        slots = parts[layout.NAMES_INDEX]
        if seed == 0:
            whole = index.fill(slots, log2, 0, union.wire, union.places, 0, refs, union.keys)
        else:
            whole = index.fill(slots, log2, seed, records, places, 4, refs)
        if whole:
            break
        seed += 1
        if seed % 16 == 0:
            log2 += 1
    parts[layout.NAMES_LISTSETS][:] = listsets
    parts[layout.NAMES_LISTS][:] = named
    close(data, seed)
    return data


# What the last names blobs were made of: (list, digest of its names); the blobs themselves are big.
_kept: dict[tuple[tuple[str, bytes], ...], NamesBlob] = {}
_KEPT_OCTETS = 128 << 20


def names_blob(rules: RuleSet, given: Mapping[str, Iterable[bytes]] | None = None) -> NamesBlob:
    """The names blob of all lists. `given` replaces the contents of lists (and is not remembered).

    The very same object comes back as long as the lists hold the same names, however their texts have changed.
    """
    listed: dict[str, Names | Iterable[bytes]] = {
        name: given[name] if given and name in given else lists.names(one) for name, one in rules.lists.items()
    }
    if given:
        return compile_names(listed)
    key = tuple((name, lists.names(one).digest) for name, one in sorted(rules.lists.items()))
    blob = _kept.pop(key, None)
    if blob is None:
        blob = compile_names(listed)
        while _kept and sum(len(old.data) for old in _kept.values()) + len(blob.data) > _KEPT_OCTETS:
            _kept.pop(next(iter(_kept)))
        while len(_kept) > 1:
            _kept.pop(next(iter(_kept)))
    _kept[key] = blob
    return blob

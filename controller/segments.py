"""The names of one list, millions of them, as three flat buffers: sorted, distinct, cheap to keep and to merge.

The order is that of `dnsd.contract.index.sort_keys`, then of the octets: it depends on the names alone, and an index
over names in this order is filled in a few sweeps. The loops over names are in `controller.listscan`.
"""

from __future__ import annotations

import bisect
import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence

from controller import listscan
from dnsd.contract import index

_MARKS = 8


class Names:
    """An immutable set of wire names. `names[i]` and iteration give them in the set's own order, `sorted` any other.

    `wire` holds them one after another, `places` where each begins, `keys` each one's sort key.
    """

    __slots__ = ("_digest", "keys", "places", "wire")

    def __init__(self, wire: bytes | bytearray, places: array[int], keys: array[int]) -> None:
        self.wire = wire
        self.places = places
        self.keys = keys
        self._digest = b""

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> bytes:
        at = self.places[number]
        return bytes(self.wire[at : at + listscan.size_of(memoryview(self.wire)[at : at + 256], 0)])

    def __iter__(self) -> Iterator[bytes]:
        for number in range(len(self.places)):
            yield self[number]

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, bytes) or not self.places:
            return False
        key = sort_key(name)
        number = bisect.bisect_left(self.keys, key)
        while number < len(self.keys) and self.keys[number] == key:
            if self[number] == name:
                return True
            number += 1
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Names) and self.wire == other.wire

    __hash__ = None  # type: ignore[assignment]

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the names in their order: the same for every text that holds the same names."""
        if not self._digest:
            self._digest = hashlib.sha256(self.wire).digest()
        return self._digest


class Collector:
    """Collects names in any order, as octets with offsets, and makes a `Names` of them."""

    def __init__(self) -> None:
        self.wire = bytearray()
        self.places = array("I")

    def add(self, name: bytes) -> None:
        """One name."""
        self.places.append(len(self.wire))
        self.wire += name

    def extend(self, wire: memoryview, places: memoryview) -> None:
        """Names one after another, with the places of each in `wire` (u32)."""
        base = len(self.wire)
        self.wire += wire
        if base:
            moved = array("I", bytes(places.cast("B")))
            listscan.shift(moved, base)
            self.places.extend(moved)
        else:
            self.places.frombytes(places.cast("B"))

    def finish(self, without: Iterable[bytes] = ()) -> Names:
        """The distinct names, sorted, but those in `without`."""
        count = len(self.places)
        keys = numbers(count)
        index.sort_keys(self.wire, self.places, memoryview(bytearray(4 * 132)).cast("I"), keys)
        keys, refs = order(keys, array("I", range(count)))
        for name in without:
            self._remove(name, keys, refs)
        wire = bytearray(len(self.wire))
        places = numbers(len(keys))
        marks = numbers(_MARKS)
        kept = listscan.gather(self.wire, self.places, keys, refs, wire, places, marks)
        del wire[marks[1] :], places[kept:], keys[kept:]
        return Names(wire, places, keys)

    def _remove(self, name: bytes, keys: array[int], refs: array[int]) -> None:
        key = sort_key(name)
        first = bisect.bisect_left(keys, key)
        last = bisect.bisect_right(keys, key, first)
        if first == last:
            return
        others = array("I", (ref for ref in refs[first:last] if not self.wire.startswith(name, self.places[ref])))
        refs[first:last] = others
        del keys[first + len(others) : last]


def of(names: Iterable[bytes]) -> Names:
    """A `Names` of wire names."""
    collector = Collector()
    for name in names:
        collector.add(name)
    return collector.finish()


def numbers(count: int) -> array[int]:
    """So many u32, all zero."""
    return array("I", bytes(4)) * count


def sort_key(name: bytes) -> int:
    """The sort key of one name."""
    keys = numbers(1)
    index.sort_keys(name, numbers(1), numbers(132), keys)
    return keys[0]


def order(keys: array[int], refs: array[int]) -> tuple[array[int], array[int]]:
    """Pairs sorted by key; the arguments are used up."""
    keys2, refs2 = numbers(len(keys)), numbers(len(keys))
    listscan.sort_pairs(keys, refs, keys2, refs2, numbers(3 * 2048))
    return keys2, refs2


class Union:
    """Several `Names` merged: what a names blob is written from.

    `sets[i]` is the set (an index into `members`) of the lists that hold the i-th name; `members` is None where no
    name has that set.
    """

    def __init__(self, parts: Sequence[Names]) -> None:
        self.members: list[tuple[int, ...] | None] = []
        if len(parts) == 1:
            part = parts[0]
            self.wire, self.places, self.keys = part.wire, part.places, part.keys
            self.refs = array("I", range(len(part)))
            self.sets = numbers(len(part))
            self.members = [(0,)]
            return
        self.wire = bytearray().join(part.wire for part in parts)
        self.places = array("I")
        keys, owners = array("I"), array("I")
        base = 0
        for number, part in enumerate(parts):
            places = part.places[:]
            listscan.shift(places, base)
            self.places.extend(places)
            keys.extend(part.keys)
            owners.extend(array("I", [number]) * len(part))
            base += len(part.wire)
        self.keys, self.refs = order(keys, array("I", range(len(keys))))
        self.sets = numbers(len(self.keys))
        self._unite(owners, len(parts))

    def _unite(self, owners: array[int], lists: int) -> None:
        found: list[tuple[int, ...]] = [()]
        known: dict[tuple[int, ...], int] = {(): 0}
        steps = numbers(lists)
        marks = numbers(_MARKS)
        while True:
            count = listscan.unite(
                self.wire, self.places, self.keys, self.refs, owners, steps, lists, self.sets, marks
            )
            if marks[2] == 0:
                break
            was, owner = marks[2] - 1, marks[3]
            members = (*found[was], owner)
            if members not in known:
                known[members] = len(found)
                found.append(members)
                steps.extend(numbers(lists))
            steps[was * lists + owner] = known[members]
        # The empty set has number 0 while sets are found, and none afterwards.
        used = bytearray(len(found))
        listscan.lower(self.sets, count, used)
        del self.keys[count:], self.refs[count:], self.sets[count:]
        self.members = [members if flag else None for members, flag in zip(found[1:], used, strict=False)]

    def __len__(self) -> int:
        return len(self.refs)

"""Flatten groups and clients into disjoint address intervals, each with a client class.

A class is a set of groups; an address's class is the union of all members that match it. Class 0 is
"in no group". Pure; the same groups in any order give the same classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from controller.ruleset import Group
from dnsd.contract import layout

from . import blob


@dataclasses.dataclass(frozen=True, slots=True)
class Classes:
    """`members[c]` are the names of class c's groups; `v4` and `v6` the intervals' (first address, class)."""

    members: tuple[tuple[str, ...], ...]
    v4: tuple[tuple[int, int], ...]
    v6: tuple[tuple[int, int], ...]

    def mask(self, applies: Iterable[str], exempts: Iterable[str]) -> int:
        """The classes that a rule with this `for` and `except` applies to, as bits."""
        wanted, spared = frozenset(applies), frozenset(exempts)
        out = 0
        for number, groups in enumerate(self.members):
            if (not wanted or not wanted.isdisjoint(groups)) and spared.isdisjoint(groups):
                out |= 1 << number
        return out

    def sections(self, numbers: Mapping[str, int]) -> dict[int, tuple[bytes, int]]:
        """The three sections; `numbers` gives each group its number."""
        v4 = [word for first, number in self.v4 for word in (first, number)]
        v6: list[int] = []
        for first, number in self.v6:
            v6 += [first >> 96, first >> 64 & 0xFFFFFFFF, first >> 32 & 0xFFFFFFFF, first & 0xFFFFFFFF, number]
        firsts, flat = [0], []
        for groups in self.members:
            flat += [numbers[group] for group in groups]
            firsts.append(len(flat))
        return {
            layout.SECTION_CLIENTS4: (blob.words(v4), len(self.v4)),
            layout.SECTION_CLIENTS6: (blob.words(v6), len(self.v6)),
            layout.SECTION_CLASSES: (blob.words(firsts + flat), len(self.members)),
        }


def _sweep(groups: Iterable[Group], version: int) -> list[tuple[int, tuple[str, ...]]]:
    """(first address, names) of each stretch in which the set of groups does not change, ascending."""
    events: dict[int, list[tuple[int, str]]] = {}
    for group in groups:
        for network in group.networks:
            if network.version == version:
                events.setdefault(network.first, []).append((1, group.name))
                events.setdefault(network.last + 1, []).append((-1, group.name))
    depth: dict[str, int] = {}
    out: list[tuple[int, tuple[str, ...]]] = []
    limit = 1 << (32 if version == 4 else 128)
    for address in sorted(events):
        for step, name in events[address]:
            depth[name] = depth.get(name, 0) + step
            if not depth[name]:
                del depth[name]
        names = tuple(sorted(depth))
        if address < limit and (not out or out[-1][1] != names):
            out.append((address, names))
    return out


def flatten(groups: Mapping[str, Group]) -> Classes:
    """The client classes of these groups."""
    v4 = _sweep(groups.values(), 4)
    v6 = _sweep(groups.values(), 6)
    members = sorted({names for _, names in v4 + v6} | {()})
    numbers = {names: number for number, names in enumerate(members)}
    return Classes(
        members=tuple(members),
        v4=tuple((first, numbers[names]) for first, names in v4),
        v6=tuple((first, numbers[names]) for first, names in v6),
    )

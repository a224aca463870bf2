"""What a compiled table holds about names: which rules could decide, and every name that anything mentions.

Reads the table's sections by the constants of `dnsd.contract.layout`; which candidate decides is
`dnsd.contract.verdict`'s business and is not computed here.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

from dnsd.contract import layout, names
from dnsd.contract.layout import MAGIC_NAMES
from dnsd.contract.query import Query
from dnsd.contract.table import Table, read_header
from dnsd.contract.tableinfo import TableInfo


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """A rule at one name. `high` and `low` are parts of its rank, `arg` its redirect's owner or 0."""

    rule: int
    high: int
    low: int
    exact: bool
    listed: int
    arg: int

    @property
    def priority(self) -> int:
        """The rule's priority."""
        return (self.high >> 2) - 1000

    @property
    def written(self) -> bool:
        """Whether the name is written in the rule (not in a list, not `.`)."""
        return bool(self.high & 2)

    def rank(self, labels: int) -> int:
        """The number that larger wins by, at a name of so many labels; as `Chain.consider` makes it."""
        return ((self.high << 8 | labels * 2 + self.exact) << 32) | self.low


class Candidates:
    """The sets of a table, by name."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.info = TableInfo(table)
        self._sets = table.part(layout.SECTION_SETS).cast("I")
        self._candidates = table.part(layout.SECTION_CANDIDATES).cast("I")
        self._nodes = table.part(layout.SECTION_NODES).cast("I")
        self._listsets = table.part(layout.SECTION_LISTSETS).cast("I")
        names_view = memoryview(table.names_buffer)  # type: ignore[arg-type]
        directory = read_header(names_view, MAGIC_NAMES, "names")
        self._names = names_view
        self._name_words = names_view.cast("I")
        self._index, _, self.listed_count = directory[layout.NAMES_INDEX]
        self._records, self._records_size, _ = directory[layout.NAMES_RECORDS]

    @functools.cached_property
    def nodes(self) -> dict[bytes, int]:
        """Every name that anything but a list mentions, with its number."""
        return {self.info.node_name(n): n for n in range(self.table.count(layout.SECTION_NODES))}

    def listed_names(self) -> Iterator[tuple[bytes, int]]:
        """Every listed name with its listset, in order."""
        data = bytes(self._names[self._records : self._records + self._records_size])
        at = 0
        while at + 4 < len(data):
            end = at + 4
            while data[end]:
                end += data[end] + 1
            yield data[at + 4 : end + 1], int.from_bytes(data[at : at + 4], "little")
            at = (end + 4) & ~3

    def lists_of(self, listset: int) -> tuple[int, ...]:
        """The numbers of the lists that a listset stands for."""
        return self._listset_members[listset]

    @functools.cached_property
    def _listset_members(self) -> list[tuple[int, ...]]:
        directory = read_header(self._names, MAGIC_NAMES, "names")
        offset, size, count = directory[layout.NAMES_LISTSETS]
        flat = self._names[offset : offset + size].cast("I")
        base = count + 1
        return [tuple(flat[base + flat[i] : base + flat[i + 1]]) for i in range(count)]

    def node_set(self, node: int, below: bool) -> int:
        """The set of a node, for the name itself or for names below it; 0 for none."""
        at = node * layout.NODE_WORDS
        return self._nodes[at + (layout.NODE_SET_BELOW if below else layout.NODE_SET_SELF)]

    def listset_set(self, listset: int, below: bool) -> int:
        """The same for a listset."""
        return self._listsets[listset * layout.LISTSET_WORDS + below]

    def node_zone(self, node: int) -> int:
        """The zone number whose apex this node is, or -1."""
        return self._nodes[node * layout.NODE_WORDS + layout.NODE_ZONE] - 1

    def node_owner(self, node: int) -> int:
        """The records at a node: an owner's word offset + 1, or 0."""
        return self._nodes[node * layout.NODE_WORDS + layout.NODE_OWNER]

    def node_wild(self, node: int) -> int:
        """The records of `*.` at a node: an owner's word offset + 1, or 0."""
        return self._nodes[node * layout.NODE_WORDS + layout.NODE_WILD]

    def node_route(self, node: int) -> int:
        """The route number + 1 of a forward entry for this name, or 0."""
        return self._nodes[node * layout.NODE_WORDS + layout.NODE_ROUTE]

    def all(self, number: int) -> list[Candidate]:
        """Every candidate of a set, whoever the client is, best first."""
        if number == 0:
            return []
        at = number - 1
        first, count = self._sets[at + layout.SET_ALL_FIRST], self._sets[at + layout.SET_ALL_COUNT]
        out = []
        for k in range(first, first + count):
            c = k * layout.CANDIDATE_WORDS
            info = self._candidates[c + layout.CANDIDATE_INFO]
            out.append(Candidate(
                self._candidates[c + layout.CANDIDATE_RULE], self._candidates[c + layout.CANDIDATE_HIGH],
                self._candidates[c + layout.CANDIDATE_LOW], bool(info & 1), (info >> 8) - 1,
                self._candidates[c + layout.CANDIDATE_ARG],
            ))  # fmt: skip
        return out

    def find_listset(self, query: Query, label: int) -> int:
        """The listset of the qname's suffix from a label, or -1. `query.hash()` has been called for this table."""
        wanted = bytes(query.name[query.label[label] : query.name_length])
        head = self._index // 4
        words = self._name_words
        mask = (1 << words[head + layout.INDEX_LOG2]) - 1
        hashed = query.hash_names[label]
        slot = hashed & mask
        for _ in range(words[head + layout.INDEX_MAX_RUN] + 1):
            at = head + layout.INDEX_HEAD + 2 * slot
            if words[at + 1] == 0:
                return -1
            if words[at] == hashed:
                record = self._records + (words[at + 1] - 1) * 4
                if bytes(self._names[record + 4 : record + 4 + len(wanted)]) == wanted:
                    return words[record // 4]
            slot = (slot + 1) & mask
        return -1

    def redirect_target(self, candidate: Candidate) -> bytes:
        """The name that a redirect leads to; empty when it leads to addresses, or is none."""
        if not candidate.arg:
            return b""
        owners = self.table.part(layout.SECTION_OWNERS).cast("I")
        at = owners[candidate.arg - 1 + layout.OWNER_TARGET]
        return self.info.name_at(at - 1) if at else b""

    def matches(self, qname: bytes, query: Query) -> Iterator[tuple[bytes, Candidate, int]]:
        """Every candidate that could decide about a qname: (matching name, candidate, how many labels it has).

        `query` holds the qname, hashed for this table (as after `Decider.ask`).
        """
        for label, suffix in enumerate(names.suffixes(qname)):
            below = label > 0
            labels = names.count(suffix)
            node = self.nodes.get(suffix)
            if node is not None:
                for candidate in self.all(self.node_set(node, below)):
                    yield suffix, candidate, labels
            listset = self.find_listset(query, label)
            if listset >= 0:
                for candidate in self.all(self.listset_set(listset, below)):
                    yield suffix, candidate, labels

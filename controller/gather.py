"""The sections of all documents merged into one: any file may hold any section, the same name twice is an error.

Also what every section's reader needs: the findings so far, references with "did you mean", durations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from controller.diagnostics import Diagnostic, did_you_mean, found
from controller.documents import MAPPING, SCALAR, SEQUENCE, Document, Node
from controller.ruleset import Where
from dnsd.contract import settings

MAX_TTL = 2**31 - 1  # RFC 2181, section 8

# A named thing: the node of its name, and the node of what it is.
Entry = tuple[Node, Node]


class Gathered:
    """Merged sections and findings. `entries[section]` maps names to entries; `rules` and `tests` are in file order."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self.found: list[Diagnostic] = []
        self.entries: dict[str, dict[str, Entry]] = {
            "groups": {}, "clients": {}, "schedules": {}, "lists": {}, "defaults": {}, "protect": {},
        }  # fmt: skip
        self.zones: list[Entry] = []
        self.forwards: list[Entry] = []
        self.rules: dict[str, Entry] = {}
        self.tests: list[Node] = []
        # What a file that could not be read in full may define: a missing name that occurs in it proves nothing.
        self._unknown = b"\n".join(document.data for document in documents if document.broken)
        self._people: dict[str, Node] = {}
        for document in sorted(documents, key=lambda d: d.path):
            if document.root is not None and document.root.kind == MAPPING:
                self._take(document.root)

    def add(
        self, code: str, message: str, where: Where, help: str = "", related: Iterable[tuple[Where, str]] = ()
    ) -> None:
        """Note a finding."""
        self.found.append(found(code, message, where, help, related))

    def _take(self, root: Node) -> None:
        for section, entries in self.entries.items():
            node = root.get(section)
            if node is None or node.kind != MAPPING:
                continue
            for name, (key, value) in node.pairs.items():
                people = section in ("groups", "clients")
                seen = self._people if people else {n: e[0] for n, e in entries.items()} if name in entries else {}
                noun = {"defaults": "default", "protect": "protection"}.get(section, section[:-1])
                if self._twice(noun, name, key, seen):
                    continue
                entries[name] = (key, value)
                if people:
                    self._people[name] = key
        for section, target in (("zones", self.zones), ("forward", self.forwards)):
            node = root.get(section)
            if node is not None and node.kind == MAPPING:
                target.extend(node.pairs.values())
        rules = root.get("rules")
        for item in rules.items if rules is not None and rules.kind == SEQUENCE else ():
            name_node = item.get("name") if item.kind == MAPPING else None
            if name_node is None or name_node.kind != SCALAR or name_node.value is None:
                # Without a name there is still something to check in it.
                if item.kind == MAPPING:
                    self.rules[f"\0{item.where.path}:{item.where.line}:{item.where.column}"] = (item, item)
                continue
            name = name_node.text
            first = self.rules.get(name)
            if first is not None and self._twice("rule", name, name_node, {name: first[0]}):
                continue
            self.rules[name] = (name_node, item)
        tests = root.get("tests")
        if tests is not None and tests.kind == SEQUENCE:
            self.tests.extend(item for item in tests.items if item.kind == MAPPING)

    def _twice(self, noun: str, name: str, key: Node, seen: Mapping[str, Node]) -> bool:
        first = seen.get(name)
        if first is None:
            return False
        help = "rename or delete one; nothing is ever overwritten silently"
        if noun in ("group", "client"):
            words = f"there is already a group or client called {name!r}"
            help = "groups and clients share one namespace; rename or delete one"
        elif noun == "default":
            words = f"the default {name!r} is set twice"
        else:
            words = f"there is already a {noun} called {name!r}"
        self.add("E020", words, key.where, help, [(first.where, "the first one")])
        return True

    def twice(self, noun: str, name: str, key: Node, first: Node) -> None:
        """Note that `key` defines what `first` has defined."""
        self._twice(noun, name, key, {name: first})

    def reference(self, noun: str, name: str, where: Where, known: Mapping[str, Entry] | Sequence[str]) -> bool:
        """Whether `name` exists among `known`; notes E021 when not."""
        if name in known:
            return True
        if self._unknown and name.encode("utf-8", "replace") in self._unknown:
            return False
        near = did_you_mean(name, known)
        help = ""
        if near:
            entry = known[near] if isinstance(known, Mapping) else None
            help = f"did you mean '{near}'?" + (f" ({entry[0].where})" if entry is not None else "")
        elif len(known) <= 8:
            help = f"there are: {', '.join(sorted(known))}" if known else f"no {noun} is defined anywhere"
        self.add("E021", f"there is no {noun} called {name!r}", where, help)
        return False

    def people(self) -> dict[str, Entry]:
        """Groups and clients by name: one namespace."""
        return {**self.entries["groups"], **self.entries["clients"]}

    def ttl(self, node: Node) -> int | None:
        """A TTL in seconds; None after a finding (or when the schema has one)."""
        value = self.seconds(node)
        if value is None:
            return None
        if value != int(value):
            self.add("E012", f"{node.text!r} is not a whole number of seconds", node.where)
            return None
        if value > MAX_TTL:
            self.add("E012", f"{node.text!r} is more than a TTL can be", node.where, f"at most {MAX_TTL} seconds")
            return None
        return int(value)

    def seconds(self, node: Node) -> float | None:
        """A duration in seconds; None when it is none (the schema says so)."""
        if node.kind != SCALAR:
            return None
        try:
            return settings.duration(node.text if isinstance(node.value, str) else node.value)
        except ValueError as error:
            self.add("E012", str(error), node.where)
            return None


def text(node: Node | None, key: str) -> str:
    """The text of a scalar key, "" when it is missing."""
    value = node.get(key) if node is not None and node.kind == MAPPING else None
    return value.text if value is not None and value.kind == SCALAR and value.value is not None else ""

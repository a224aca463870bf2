"""Rule files from bytes to nodes that know their place; the only module that knows PyYAML.

The rule: nothing is guessed. Only the types of YAML 1.2's core schema exist (so `18:00`, `no` and a MAC
address stay text), a key is always text, and what YAML would do silently (losing a repeated key,
expanding aliases, building objects from tags) is refused with a place and a hint.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import yaml

from controller.diagnostics import Diagnostic, found
from controller.ruleset import Where
from controller.yaml_words import explain_syntax

MAX_BYTES = 1 << 20  # of one file (DESIGN, section 4)
MAX_DEPTH = 20  # the deepest rule file that means anything has 8 levels

# libyaml has the same marks and is several times as fast; it is missing in some builds of PyYAML.
_Parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_INTEGER = re.compile(r"[-+]?[0-9]{1,18}|0o[0-7]{1,20}|0x[0-9a-fA-F]{1,15}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_CONSTANTS: dict[str, object] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ufffe\uffff]")

MAPPING, SEQUENCE, SCALAR = "mapping", "sequence", "scalar"


class Node:
    """One value of a file. `value` is plain Python (dict, list, str, int, float, bool, None); `text` as written.

    `pairs` (mappings) keeps key and value nodes by key text; `items` (sequences) the elements.
    """

    __slots__ = ("_span", "items", "kind", "pairs", "path", "quoted", "text", "value")

    def __init__(self, kind: str, path: str, span: tuple[int, int, int, int], value: object) -> None:
        self.kind = kind
        self.path = path
        self.value = value
        self.text = ""
        self.quoted = False
        self.pairs: dict[str, tuple[Node, Node]] = {}
        self.items: list[Node] = []
        self._span = span

    @property
    def where(self) -> Where:
        """The place of exactly this value; of a block only its first line."""
        return Where(self.path, *self._span)

    def get(self, key: str) -> Node | None:
        """The value node of a key, or None."""
        pair = self.pairs.get(key)
        return pair[1] if pair else None

    def key(self, key: str) -> Node:
        """The node of the key itself; raises KeyError."""
        return self.pairs[key][0]

    def strings(self) -> list[Node]:
        """The scalars of a value that may be one scalar or a sequence of them (others are left out)."""
        if self.kind == SCALAR:
            return [] if self.value is None else [self]
        return [item for item in self.items if item.kind == SCALAR and item.value is not None]

    def at_path(self, path: str) -> tuple[Node | None, Node]:
        """`at` for a path of keys and indexes with dots between, such as `listen.0`."""
        return self.at(int(step) if step.isdigit() else step for step in path.split("."))

    def at(self, steps: Iterator[str | int]) -> tuple[Node | None, Node]:
        """Walk keys and indexes; returns (key node of the last step, value node), as far as it goes."""
        key: Node | None = None
        node = self
        for step in steps:
            if node.kind == MAPPING and str(step) in node.pairs:
                key, node = node.pairs[str(step)]
            elif node.kind == SEQUENCE and isinstance(step, int) and step < len(node.items):
                key, node = None, node.items[step]
            else:
                break
        return key, node


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """One file: its nodes (None when it is empty or unreadable) and what was wrong on this level.

    `broken`: its content is not fully known, so references to what it may define prove nothing.
    """

    path: str
    data: bytes
    root: Node | None
    diagnostics: tuple[Diagnostic, ...] = ()
    broken: bool = False


def parse(path: str, data: bytes) -> Document:
    """Read one file; problems are in the result's `diagnostics`, nothing is raised."""

    def refuse(code: str, message: str, line: int, column: int, length: int, help: str) -> Document:
        where = Where(path, line, column, line, column + length)
        return Document(path, data, None, (found(code, message, where, help),), True)

    if len(data) > MAX_BYTES:
        words = f"the file has {len(data):,} bytes; the limit is {MAX_BYTES:,}"
        return refuse("E005", words, 1, 1, 1, "put long lists of names into a file of their own and name it in 'lists'")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return refuse("E004", "the file is UTF-16, not UTF-8", 1, 1, 1, "save it as UTF-8 (without a byte order mark)")
    if data.startswith(b"\xef\xbb\xbf"):
        help = "save it as UTF-8 without a BOM; some editors call that 'UTF-8', others 'UTF-8 without signature'"
        return refuse("E004", "the file begins with a byte order mark (BOM)", 1, 1, 1, help)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, len(before.rpartition(b"\n")[2].decode("utf-8")) + 1
        words = f"the byte 0x{data[error.start]:02x} is not UTF-8"
        return refuse("E004", words, line, column, 1, "save the file as UTF-8 (it looks like Latin-1 or Windows-1252)")
    control = _CONTROL.search(text)
    if control:
        before_text = text[: control.start()]
        line, column = before_text.count("\n") + 1, len(before_text.rpartition("\n")[2]) + 1
        words = f"the control character U+{ord(control[0]):04X} has no place in a rule file"
        return refuse("E004", words, line, column, 1, "delete it; it may have come along with a copied text")
    syntax: list[Diagnostic] = []
    while True:
        builder = _Builder(path)
        try:
            root = builder.build(text)
        except yaml.MarkedYAMLError as error:
            mark, context = error.problem_mark or error.context_mark, error.context_mark
            place = (mark.line, mark.column) if mark else (0, 0)
            opened = (context.line, context.column) if context else place
            one, at = explain_syntax(path, text, place, opened, error.problem or error.context or "")
            syntax.append(one)
            if at is not None and len(syntax) < 20:
                # An unquoted `*.example.com`: step over its first character, so that one run shows every one of them.
                text = text[:at] + "x" + text[at + 1 :]
                continue
            return Document(path, data, None, (*syntax, *builder.diagnostics), True)
        except yaml.YAMLError as error:
            return refuse("E001", f"the file is not YAML: {error}", 1, 1, 1, "")
        except _TooDeep as error:
            return Document(path, data, None, (*syntax, *builder.diagnostics, error.diagnostic), True)
        every = (*syntax, *builder.diagnostics)
        return Document(path, data, root, every, bool(every))


class _TooDeep(Exception):
    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


def plain(text: str) -> object:
    """The value of an unquoted scalar by YAML 1.2's core schema (section 10.3.2)."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] in "0123456789+-.":
        if _INTEGER.fullmatch(text):
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if _FLOAT.fullmatch(text) and not text.lower().endswith(("inf", "nan")):
            return float(text)
    return text


class _Builder:
    """Events to nodes, with an explicit stack; collects what rule files do not use."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.diagnostics: list[Diagnostic] = []

    def build(self, text: str) -> Node | None:
        root: Node | None = None
        stack: list[Node] = []
        keys: list[Node | None] = []  # per open mapping: the key that waits for its value
        parser = _Parser(text)
        documents = 0
        try:
            while (event := parser.get_event()) is not None:
                kind = type(event)
                if kind is yaml.ScalarEvent:
                    node = self._scalar(event)
                elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                    node = self._collection(event, MAPPING if kind is yaml.MappingStartEvent else SEQUENCE)
                    if len(stack) >= MAX_DEPTH:
                        words = f"blocks are nested more than {MAX_DEPTH} levels deep here"
                        raise _TooDeep(found("E005", words, node.where, "a rule file needs at most 8"))
                elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                    node = stack.pop()
                    keys.pop()
                    self._close(node, event)
                    continue
                elif kind is yaml.AliasEvent:
                    node = self._alias(event)
                else:
                    if kind is yaml.DocumentStartEvent:
                        documents += 1
                        if documents == 2:
                            where = Where(self.path, event.start_mark.line + 1, 1, event.start_mark.line + 1, 4)
                            help = "delete the '---' line, or put what follows into a file of its own"
                            self._refuse("the file holds more than one YAML document", where, help)
                    continue
                if stack:
                    self._attach(stack[-1], keys, node)
                elif documents == 1:
                    root = node
                if node.kind != SCALAR:
                    stack.append(node)
                    keys.append(None)
        finally:
            parser.dispose()
        if root is not None and root.kind == SCALAR and root.value is None:
            return None
        return root

    def _refuse(self, message: str, where: Where, help: str) -> None:
        self.diagnostics.append(found("E003", message, where, help))

    def _attach(self, parent: Node, keys: list[Node | None], node: Node) -> None:
        if parent.kind == SEQUENCE:
            parent.items.append(node)
            parent.value.append(node.value)  # type: ignore[attr-defined]
            return
        key = keys[-1]
        if key is None:
            keys[-1] = node
            if node.kind != SCALAR:
                self._refuse("a key must be plain text", node.where, "put quotes around it if it is meant as text")
            elif node.text == "<<" and not node.quoted:
                help = "write the keys out; rule files do not merge blocks"
                self._refuse("'<<' (merge) is not used in rule files", node.where, help)
            return
        keys[-1] = None
        if key.kind != SCALAR:
            return
        first = parent.pairs.get(key.text)
        if first is not None:
            help = f"the first one is on line {first[0].where.line}; the file would silently lose one of them"
            words = f"the key {key.text!r} is written twice in this block"
            self.diagnostics.append(found("E002", words, key.where, help))
            return
        parent.pairs[key.text] = (key, node)
        parent.value[key.text] = node.value  # type: ignore[index]

    def _scalar(self, event: Any) -> Node:
        start, end = event.start_mark, event.end_mark
        node = Node(SCALAR, self.path, (start.line + 1, start.column + 1, end.line + 1, end.column + 1), None)
        text = event.value
        node.text = text
        if event.style:  # quoted, literal or folded; None or "" for plain
            node.quoted = True
            node.value = text
        else:
            node.value = plain(text)
        if event.anchor is not None or event.tag is not None:
            self._marks(event, node)
        return node

    def _collection(self, event: Any, kind: str) -> Node:
        start, end = event.start_mark, event.end_mark
        span = (start.line + 1, start.column + 1, end.line + 1, end.column + 1)
        node = Node(kind, self.path, span, {} if kind == MAPPING else [])
        node.quoted = bool(event.flow_style)
        if event.anchor is not None or event.tag is not None:
            self._marks(event, node)
        return node

    def _close(self, node: Node, event: Any) -> None:
        """A flow collection ends at its bracket; of a block only the first key or element is shown."""
        line, column, _, _ = node._span
        if node.quoted:
            node._span = (line, column, event.end_mark.line + 1, event.end_mark.column + 1)
            return
        first = next(iter(node.pairs.values()))[0] if node.pairs else node.items[0] if node.items else None
        if first is not None:
            node._span = first._span

    def _marks(self, event: Any, node: Node) -> None:
        if event.anchor is not None:
            help = f'write the value out where it is needed; if it is text, put quotes around it: "&{event.anchor}"'
            self._refuse(f"the anchor '&{event.anchor}' is not used in rule files", self._first(event), help)
        elif event.tag not in (None, "!"):
            short = str(event.tag).replace("tag:yaml.org,2002:", "!!")
            help = f'leave it out; if it is text, put quotes around it: "{short}"'
            self._refuse(f"the tag '{short}' is not used in rule files", self._first(event), help)

    def _first(self, event: Any) -> Where:
        mark = event.start_mark
        return Where(self.path, mark.line + 1, mark.column + 1, mark.line + 1, mark.column + 2)

    def _alias(self, event: Any) -> Node:
        start, end = event.start_mark, event.end_mark
        node = Node(SCALAR, self.path, (start.line + 1, start.column + 1, end.line + 1, end.column + 1), None)
        help = f'write the value out; if it is a wildcard, put quotes around it: "*.{event.anchor}"'
        self._refuse(f"the alias '*{event.anchor}' is not used in rule files", node.where, help)
        node.value = node.text = f"*{event.anchor}"  # not null: that would be a second finding
        return node

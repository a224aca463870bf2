"""List texts to sorted wire names. On the path from a save to the first answer: no Python object per name.

A list is written by others and changes by itself: nothing in it is ever an error. Plain lines are read by
`controller.listscan`; every other line is looked at here. Lines that are no names are left out and reported as lint,
at most a few of them with their place.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable

from controller import listscan, segments
from controller.diagnostics import Diagnostic, found, plural
from controller.domains import DomainError
from controller.domains import name as domain_name
from controller.ruleset import ListText, NameList, Where
from controller.segments import Collector, Names

AUTO, HOSTS, DOMAINS = "auto", "hosts", "domains"
MAX_REPORTED = 20

_LABEL = rb"[a-z0-9_-]{1,63}"
_NAME = rb"(" + _LABEL + rb"(?:\." + _LABEL + rb")*)"
_TAIL = rb"\.?[ \t\r]*(?:#.*)?"
# Addresses that hosts files use to mean "blocked".
_NULL = rb"(?:0\.0\.0\.0|127\.0\.0\.1|::1?|0)"
# A line with one name, as `listscan.scan` reads it; here for a final dot, and for names that end in a number.
_LINES = {
    HOSTS: re.compile(rb"[ \t]*" + _NULL + rb"[ \t]+" + _NAME + _TAIL),
    DOMAINS: re.compile(rb"[ \t]*" + _NAME + _TAIL),
    AUTO: re.compile(rb"[ \t]*(?:" + _NULL + rb"[ \t]+)?" + _NAME + _TAIL),
}
_NULLS = {b"0.0.0.0", b"127.0.0.1", b"::", b"::1", b"0"}
_BOM = b"\xef\xbb\xbf"
# What every hosts file has besides its list (RFC 6761, section 6.3; Debian's and StevenBlack's hosts).
_USUAL = frozenset(
    (
        b"localhost localhost.localdomain localhost4 localhost6 localhost6.localdomain6 local broadcasthost "
        b"ip6-localhost ip6-loopback ip6-localnet ip6-mcastprefix ip6-allnodes ip6-allrouters ip6-allhosts 0.0.0.0"
    ).split()
)


def _wire(name: bytes) -> bytes:
    return b"".join(bytes((len(part),)) + part for part in name.split(b".")) + b"\0"


_USUAL_WIRE = frozenset(map(_wire, _USUAL))
_FOLD = listscan.fold_table()
# The scanner works on pieces of this many octets: its buffers stay in the processor's cache, a build can be
# interrupted between two, and somebody can be told how far it is.
_PIECE = 1 << 20
_ODD = 4096

# Told (octets read, octets in all) of the text that is being read, once for each piece.
progress: Callable[[int, int], None] = lambda read, size: None  # noqa: E731 - a place for somebody's function

# digest of a list's texts → its names; bounded by the number of names kept.
_cache: dict[bytes, tuple[Names, list[Diagnostic]]] = {}
_CACHE_NAMES = 4_000_000
# Digests of texts, known by the very object: the same text is not hashed again.
_digests: dict[int, tuple[bytes, bytes]] = {}
_CACHE_DIGESTS = 64
_CACHE_TEXTS = 64 << 20  # octets


def parse(texts: Iterable[tuple[str, bytes, str]]) -> tuple[Names, list[Diagnostic]]:
    """Read (format, bytes, path) texts into one set of distinct lower-case wire names, and lint."""
    collector = Collector()
    lint: list[Diagnostic] = []
    for format, data, path in texts:
        shape = _detect(data) if format == AUTO else format
        _scan(data, shape, collector, _Report(path, lint))
    return collector.finish(_USUAL_WIRE), lint


def names(namelist: NameList) -> Names:
    """The names of a list, parsed once per content."""
    return read(namelist)[0]


def read(namelist: NameList) -> tuple[Names, list[Diagnostic]]:
    """The names of a list and the lint of its lines, parsed once per content."""
    digest = hashlib.sha256()
    for text in namelist.texts:
        digest.update(f"{text.format}\0{text.path}\0{len(text.data)}\0".encode())
        digest.update(text_digest(text))
    key = digest.digest()
    if key in _cache:
        _cache[key] = _cache.pop(key)  # used last
        return _cache[key]
    value = parse((text.format, text.data, text.path) for text in namelist.texts)
    _cache[key] = value
    total = sum(len(kept) for kept, _ in _cache.values())
    while total > _CACHE_NAMES and len(_cache) > 1:
        oldest = next(iter(_cache))
        total -= len(_cache.pop(oldest)[0])
    return value


def text_digest(text: ListText) -> bytes:
    """The SHA-256 of a text's octets."""
    known = _digests.pop(id(text.data), None)
    if known is None or known[0] is not text.data:
        known = text.data, hashlib.sha256(text.data).digest()
        while len(_digests) >= _CACHE_DIGESTS or sum(len(data) for data, _ in _digests.values()) > _CACHE_TEXTS:
            _digests.pop(next(iter(_digests)))
    _digests[id(text.data)] = known
    return known[1]


def _detect(data: bytes) -> str:
    """Hosts or domains by the first lines that say something; AUTO when both occur."""
    kinds = set()
    text = data[:65536].lower().removeprefix(_BOM).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for line in text.split(b"\n")[:2000]:
        words = line.split(b"#", 1)[0].split()
        if len(words) >= 2 and (words[0] in _NULLS or re.fullmatch(rb"[0-9.]+|[0-9a-f]*:[0-9a-f:%a-z]*", words[0])):
            kinds.add(HOSTS)
        elif len(words) == 1:
            kinds.add(DOMAINS)
    return kinds.pop() if len(kinds) == 1 else AUTO


def _scan(text: bytes, shape: str, collector: Collector, report: _Report) -> None:
    """The names of one text to `collector`; lines that are not plain go the slow way."""
    at = len(_BOM) if text.startswith(_BOM) else 0
    wire = memoryview(bytearray(_PIECE * 2))
    places = memoryview(bytearray(_PIECE * 2)).cast("I")
    odd = memoryview(bytearray(12 * _ODD)).cast("I")
    marks = segments.numbers(8)
    marks[3] = 1
    while at < len(text):
        marks[0] = marks[1] = marks[2] = 0
        end = min(len(text), at + _PIECE)
        at = listscan.scan(
            text, at, end, int(shape == HOSTS), int(shape != DOMAINS), _FOLD, wire, places, odd, marks
        )
        count, octets, odds, _ = marks[:4]
        collector.extend(wire[:octets], places[:count])
        for i in range(0, 3 * odds, 3):
            _line(text[odd[i] : odd[i + 1]].lower(), odd[i + 2], shape, collector, report)
        progress(min(at, len(text)), len(text))
    report.close()


def _line(raw: bytes, number: int, shape: str, collector: Collector, report: _Report) -> None:
    """A line that is not plain."""
    match = _LINES[shape].fullmatch(raw)
    if match is None:
        _rest(raw, number, shape, collector, report)
        return
    name = match[1]
    # 0.0.0.0 and other addresses look like names; a numeric last label is never a top-level domain.
    if not name.rpartition(b".")[2].isdigit() and len(name) <= 253:
        collector.add(_wire(name))


class _Report:
    """Lint of one text: the first few lines with their place, then a count."""

    def __init__(self, path: str, lint: list[Diagnostic]) -> None:
        self.path = path
        self.lint = lint
        self.bad = 0

    def add(self, line: bytes, number: int, length: int, why: str) -> None:
        """Remember one line that was left out."""
        self.bad += 1
        if self.bad <= MAX_REPORTED:
            shown = line[:60].decode("utf-8", "replace")
            where = Where(self.path, number, 1, number, 1 + length)
            self.lint.append(found("W109", f"{shown!r} is left out: {why}", where))

    def close(self) -> None:
        """Say how many more there were."""
        if self.bad > MAX_REPORTED:
            more = plural(self.bad - MAX_REPORTED, "more line")
            where = Where(self.path, 1, 1)
            self.lint.append(found("W109", f"{more} of this list are left out", where, "is its format right?"))


def _rest(raw: bytes, number: int, shape: str, collector: Collector, report: _Report) -> None:
    """Comments, several names in a line, international names, mistakes."""
    line = raw.split(b"#", 1)[0].strip()
    if not line or line.startswith((b"!", b";")):
        return
    words = line.split()
    why = ""
    if shape != DOMAINS and len(words) >= 2 and words[0] in _NULLS:
        words = words[1:]
    elif (
        shape != DOMAINS
        and len(words) >= 2
        and re.fullmatch(rb"[0-9.]+|[0-9a-f]*:[0-9a-f:.]*(%[a-z0-9]+)?", words[0])
    ):
        if all(word in _USUAL for word in words[1:]):
            return
        why = "its address is not 0.0.0.0"
    elif shape == HOSTS:
        why = "a line in hosts format is '0.0.0.0 name'"
    elif len(words) > 1:
        why = "a line holds one name"
    if not why:
        for word in words:
            if word in _USUAL:
                continue
            try:
                collector.add(domain_name(word.decode("utf-8")))
            except DomainError as error:
                why = error.help or error.message
            except UnicodeDecodeError:
                why = "it is not UTF-8"
    if why:
        report.add(line, number, len(raw), why)

"""List texts to sorted wire names, as they were read first: the oracle of `controller.lists`.

A list is written by others and changes by itself: nothing in it is ever an error. Lines that are no names are left
out and reported as lint, at most a few of them with their place.
"""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Iterable

from controller.diagnostics import Diagnostic, found, plural
from controller.domains import DomainError
from controller.domains import name as domain_name
from controller.ruleset import Where

AUTO, HOSTS, DOMAINS = "auto", "hosts", "domains"
MAX_REPORTED = 20

_LABEL = rb"[a-z0-9_-]{1,63}"
_NAME = rb"(" + _LABEL + rb"(?:\." + _LABEL + rb")*)"
_TAIL = rb"\.?[ \t\r]*(?:#.*)?$"
# Addresses that hosts files use to mean "blocked".
_NULL = rb"(?:0\.0\.0\.0|127\.0\.0\.1|::1?|0)"
_HOSTS_LINE = re.compile(rb"^[ \t]*" + _NULL + rb"[ \t]+" + _NAME + _TAIL, re.MULTILINE)
_DOMAIN_LINE = re.compile(rb"^[ \t]*" + _NAME + _TAIL, re.MULTILINE)
_ANY_LINE = re.compile(rb"^[ \t]*(?:" + _NULL + rb"[ \t]+)?" + _NAME + _TAIL, re.MULTILINE)
_NULLS = {b"0.0.0.0", b"127.0.0.1", b"::", b"::1", b"0"}
# The same without looking at labels: quick, and right for nearly every line of a real list (checked afterwards).
_QUICK = rb"([a-z0-9_.-]+)[ \t]*(?:#.*)?$"
_QUICK_LINES = {
    HOSTS: re.compile(rb"^[ \t]*" + _NULL + rb"[ \t]+" + _QUICK, re.MULTILINE),
    DOMAINS: re.compile(rb"^[ \t]*" + _QUICK, re.MULTILINE),
    AUTO: re.compile(rb"^[ \t]*(?:" + _NULL + rb"[ \t]+)?" + _QUICK, re.MULTILINE),
}
_CHUNK = 1 << 18
_WIRE = re.compile(rb"[^\0]+\0")
_DIGITS = bytes(48 if 48 <= c <= 57 else c for c in range(256))
# What every hosts file has besides its list (RFC 6761, section 6.3; Debian's and StevenBlack's hosts).
_USUAL = frozenset(
    (
        b"localhost localhost.localdomain localhost4 localhost6 localhost6.localdomain6 local broadcasthost "
        b"ip6-localhost ip6-loopback ip6-localnet ip6-mcastprefix ip6-allnodes ip6-allrouters ip6-allhosts 0.0.0.0"
    ).split()
)
_USUAL_WIRE = frozenset(b"".join(bytes((len(part),)) + part for part in name.split(b".")) + b"\0" for name in _USUAL)

def parse(texts: Iterable[tuple[str, bytes, str]]) -> tuple[list[bytes], list[Diagnostic]]:
    """Read (format, bytes, path) texts into one sorted list of distinct lower-case wire names, and lint."""
    # Keys only: a dictionary keeps the text's order, and sorting what lies in order in memory is quicker.
    joined: dict[bytes, None] = {}
    odd: list[bytes] = []
    lint: list[Diagnostic] = []
    for format, data, path in texts:
        text = data.lower().removeprefix(b"\xef\xbb\xbf")
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        shape = _detect(text) if format == AUTO else format
        _chunks(text, shape, path, joined, odd, lint)
    joined.update(dict.fromkeys(odd))
    for usual in _USUAL_WIRE:
        joined.pop(usual, None)
    return sorted(joined), lint


def _detect(text: bytes) -> str:
    """Hosts or domains by the first lines that say something; AUTO when both occur."""
    kinds = set()
    for line in text[:65536].split(b"\n")[:2000]:
        words = line.split(b"#", 1)[0].split()
        if len(words) >= 2 and (words[0] in _NULLS or re.fullmatch(rb"[0-9.]+|[0-9a-f]*:[0-9a-f:%a-z]*", words[0])):
            kinds.add(HOSTS)
        elif len(words) == 1:
            kinds.add(DOMAINS)
    return kinds.pop() if len(kinds) == 1 else AUTO


def _chunks(
    text: bytes, shape: str, path: str, joined: dict[bytes, None], odd: list[bytes], lint: list[Diagnostic]
) -> None:
    """The names of one text to `joined`; what is not a plain line goes the slow way to `odd` and `lint`."""
    exact = _HOSTS_LINE if shape == HOSTS else _DOMAIN_LINE if shape == DOMAINS else _ANY_LINE
    quick = _QUICK_LINES[shape]
    report = _Report(path, lint)
    start, first_line = 0, 1
    if text and not text.endswith(b"\n"):
        text += b"\n"
    while start < len(text):
        end = text.find(b"\n", min(start + _CHUNK, len(text) - 1)) + 1
        chunk = text[start:end]
        lines = chunk.count(b"\n")
        names = quick.findall(chunk)
        if len(names) != lines or not _plain(names):
            names = exact.findall(chunk)
            if any(name.rpartition(b".")[2].isdigit() for name in names):
                # 0.0.0.0 and other addresses look like names; a numeric last label is never a top-level domain.
                names = [name for name in names if not name.rpartition(b".")[2].isdigit()]
            rest = exact.sub(b"", chunk)
            if not rest.isspace():
                _rest(rest, shape, first_line, odd, report)
        joined.update(dict.fromkeys(_to_wire(names)))
        start, first_line = end, first_line + lines
    report.close()


def _plain(names: list[bytes]) -> bool:
    """Whether all of these are names: no empty or long label, no dot at an end, no number as top-level domain."""
    text = b"\n" + b"\n".join(names) + b"\n"
    if b".." in text or b"\n." in text or b".\n" in text or b"0\n" in text.translate(_DIGITS):
        return False
    return max(map(len, names)) <= 63 or max(map(len, text.replace(b"\n", b".").split(b"."))) <= 63


def _to_wire(found_names: list[bytes]) -> list[bytes]:
    """Texts to wire names, all at once; the only Python step per label is one store.

    Names are joined with two dots, so every dot stands before a label, the empty one at each name's end included:
    overwriting each dot with the length of its label makes the wire of all names in one buffer.
    """
    if not found_names:
        return []
    wire = bytearray(b"." + b"..".join(found_names) + b"..")
    lengths = list(map(len, wire.split(b".")))
    dots = map(operator.add, itertools.accumulate(lengths), itertools.count())
    for dot, length in zip(dots, itertools.islice(lengths, 1, None)):  # noqa: B905 - `dots` has one more
        wire[dot] = length
    names = _WIRE.findall(wire)
    if max(map(len, names)) > 255:
        names = [name for name in names if len(name) <= 255]
    return names


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


def _rest(rest: bytes, shape: str, first_line: int, odd: list[bytes], report: _Report) -> None:
    """The lines that the one pass did not match: comments, several names in a line, international names, mistakes."""
    for number, raw in enumerate(rest.split(b"\n"), first_line):
        if not raw or raw.isspace():
            continue
        line = raw.split(b"#", 1)[0].strip()
        if not line or line.startswith((b"!", b";")):
            continue
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
                continue
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
                    odd.append(domain_name(word.decode("utf-8")))
                except DomainError as error:
                    why = error.help or error.message
                except UnicodeDecodeError:
                    why = "it is not UTF-8"
        if why:
            report.add(line, number, len(raw), why)

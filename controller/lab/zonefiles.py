"""The zones' texts on disk, which learners read and edit: where they are, what their `;@` lines say, breaking, mending.

Whatever else somebody wrote into a zone is left alone: only the lines between a case's marks are written over.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import tempfile

from controller.lab import world
from controller.lab.world import Case

_MARK = re.compile(r"^;@\s*(.*?)\s*(?:;.*)?$")
_WORDS = {
    "unsigned": 0, "no-denial": 0, "ds": 1, "signatures": 1, "tamper": 3, "unsign": 2, "case": 2, "end": 1,
}  # fmt: skip


class ZoneError(Exception):
    """A zone's text that cannot be used: `file:line: what is wrong`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Marks:
    """What the `;@` lines of a zone say. `cases`: name → whether it is broken."""

    unsigned: bool = False
    no_denial: bool = False
    ds: tuple[str, ...] = ()
    signatures: str = ""
    tamper: tuple[tuple[str, str, str], ...] = ()
    unsign: tuple[tuple[str, str], ...] = ()
    cases: tuple[tuple[str, bool], ...] = ()


def path(folder: pathlib.Path, zone: str) -> pathlib.Path:
    """Where a zone's text is."""
    return folder / "zones" / f"{zone.strip('.') or 'root'}.zone"


def prepare(folder: pathlib.Path, base: str, before: str = "") -> None:
    """Write the texts that are not there yet; a changed address of the lab is changed in those that are."""
    (folder / "zones").mkdir(parents=True, exist_ok=True)
    for zone in world.zones():
        place = path(folder, zone)
        if not place.exists():
            write(place, world.source(zone).replace("{base}", base))
        elif before and before != base:
            text = place.read_text(encoding="utf-8")
            write(place, re.sub(rf"(?<![0-9.]){re.escape(before)}(?=\.[0-9])", base, text))


def write(place: pathlib.Path, text: str) -> None:
    """Replace a file as a whole: nobody reads half of it."""
    with tempfile.NamedTemporaryFile("w", dir=place.parent, prefix=".", encoding="utf-8", delete=False) as file:
        file.write(text)
        os.fchmod(file.fileno(), 0o644)
    pathlib.Path(file.name).replace(place)


def marks(text: str, name: str) -> Marks:
    """Read the `;@` lines; raises ZoneError. `name` is how the file is called in errors."""
    found = Marks()
    for number, line in enumerate(text.splitlines(), 1):
        match = _MARK.match(line)
        if match is None:
            continue
        word, *rest = match[1].split() or [""]
        if word not in _WORDS:
            raise ZoneError(f"{name}:{number}: `;@ {word}` means nothing here; there are {', '.join(_WORDS)}")
        if len(rest) < _WORDS[word]:
            raise ZoneError(f"{name}:{number}: `;@ {word}` needs {_WORDS[word]} more words, as in `{_EXAMPLES[word]}`")
        found = _with(found, word, rest, f"{name}:{number}")
    return found


_EXAMPLES = {
    "ds": ";@ ds none", "signatures": ";@ signatures expired", "tamper": ";@ tamper www A 203.0.113.66",
    "unsign": ";@ unsign www A", "case": ";@ case lame broken", "end": ";@ end lame",
}  # fmt: skip


def _with(found: Marks, word: str, rest: list[str], where: str) -> Marks:
    if word == "unsigned":
        return dataclasses.replace(found, unsigned=True)
    if word == "no-denial":
        return dataclasses.replace(found, no_denial=True)
    if word == "signatures":
        if rest[0] not in ("expired", "future"):
            raise ZoneError(f"{where}: signatures are `expired` or `future`, not {rest[0]!r}")
        return dataclasses.replace(found, signatures=rest[0])
    if word == "ds":
        good = rest[0] in ("none", "wrong") or (rest[0] == "algorithm" and len(rest) > 1 and rest[1].isdigit())
        if not good or (rest[0] == "algorithm" and not 0 < int(rest[1]) < 256):
            raise ZoneError(f"{where}: write `;@ ds none`, `;@ ds wrong` or `;@ ds algorithm 8`")
        return dataclasses.replace(found, ds=tuple(rest[:2]))
    if word == "tamper":
        return dataclasses.replace(found, tamper=(*found.tamper, (rest[0], rest[1], " ".join(rest[2:]))))
    if word == "unsign":
        return dataclasses.replace(found, unsign=(*found.unsign, (rest[0], rest[1])))
    if word == "case":
        return dataclasses.replace(found, cases=(*found.cases, (rest[0], rest[1] == "broken")))
    return found


def state(folder: pathlib.Path, case: Case) -> bool | None:
    """Whether a case is broken now; None when its marks are gone from the zone's text."""
    place = path(folder, case.file)
    try:
        found = dict(marks(place.read_text(encoding="utf-8"), place.name).cases)
    except (OSError, ZoneError):
        return None
    return found.get(case.name)


def turn(folder: pathlib.Path, case: Case, broken: bool, base: str) -> pathlib.Path:
    """Break or mend a case in its zone's text; the file. Raises ZoneError when its marks are not there any more."""
    place = path(folder, case.file)
    lines = place.read_text(encoding="utf-8").splitlines()
    begin = next((at for at, line in enumerate(lines) if line.split()[:3] == [";@", "case", case.name]), None)
    end = next((at for at, line in enumerate(lines) if line.split()[:3] == [";@", "end", case.name]), None)
    if begin is None or end is None or end < begin:
        raise ZoneError(
            f"{place}: the lines `;@ case {case.name} …` and `;@ end {case.name}` are gone; "
            "put them back, or begin anew with `nexoraldns lab up --fresh`"
        )
    lines[begin : end + 1] = [line.replace("{base}", base) for line in world.case_lines(case, broken)]
    write(place, "\n".join(lines) + "\n")
    return place

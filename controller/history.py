"""Revisions and what became of each: bounded, in memory and in `state/history.jsonl`.

A row is written again when its state changes; the last line about a number is what holds. Nothing here decides.
"""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

from controller.ruleset import Revision

BOUND = 200
# The text of a refusal is for people, who read the first pages of it.
MAX_TEXT = 64 << 10

SEEN, VALID, COMPILED, TESTED, ACTIVE, REFUSED, SUPERSEDED = (
    "seen", "valid", "compiled", "tested", "active", "refused", "superseded",
)  # fmt: skip
FINAL = (ACTIVE, REFUSED, SUPERSEDED)


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One state that a revision reached: when (RFC 3339), and after how many milliseconds since it was seen."""

    state: str
    time: str
    ms: float


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One revision. `text` holds all diagnostics in the words of `check`; `reason` is one sentence, if there is one."""

    number: int
    revision: Revision
    state: str = SEEN
    steps: tuple[Step, ...] = ()
    text: str = ""
    errors: int = 0
    warnings: int = 0
    tests: int = 0
    digest: str = ""
    generation: int = 0
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """What /api/v1/status shows of it."""
        steps = [dataclasses.asdict(step) for step in self.steps]
        fields = ("number", "state", "text", "errors", "warnings", "tests", "digest", "generation", "reason")
        revision = dataclasses.asdict(self.revision)
        return {
            "revision": revision.pop("id"),
            **revision,
            **{name: getattr(self, name) for name in fields},
            "steps": steps,
            "seen": steps[0]["time"] if steps else "",
            "since": steps[-1]["time"] if steps else "",
            "duration_ms": steps[-1]["ms"] if steps else 0,
            "problems_text": self.text or self.reason,
        }


def _from_line(line: str) -> Row:
    value = json.loads(line)
    value["revision"] = Revision(**value["revision"])
    value["steps"] = tuple(Step(**step) for step in value["steps"])
    return Row(**value)


class History:
    """The rows, oldest first. `problem` says why they are not on disk, when they are not."""

    def __init__(self, path: str, bound: int = BOUND) -> None:
        self.path = path
        self.bound = bound
        self.problem = ""
        self._rows: dict[int, Row] = {}
        self._lines = 0
        self._load()

    @property
    def rows(self) -> list[Row]:
        return list(self._rows.values())

    def last(self, *states: str) -> Row | None:
        """The newest row, or the newest that is in one of `states`."""
        return next((row for row in reversed(self._rows.values()) if not states or row.state in states), None)

    def next_number(self) -> int:
        return max(self._rows, default=0) + 1

    def put(self, row: Row) -> None:
        """Keep a row, in place of one with its number; on disk when its state is final."""
        if len(row.text) > MAX_TEXT:
            row = dataclasses.replace(row, text=row.text[:MAX_TEXT] + "\n… (see `nexoraldns check` for the rest)\n")
        self._rows[row.number] = row
        while len(self._rows) > self.bound:
            del self._rows[next(iter(self._rows))]
        if row.state in FINAL:
            self._write(row)

    def _load(self) -> None:
        try:
            with open(self.path, encoding="utf-8") as file:
                lines = file.readlines()
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            self.problem = f"{self.path} cannot be read: {error}"
            return
        for line in lines:
            try:
                row = _from_line(line)
            except (ValueError, TypeError, KeyError):
                continue  # half a line: the power went
            self._rows.pop(row.number, None)
            self._rows[row.number] = row
        self._lines = len(lines)
        for number in sorted(self._rows)[: -self.bound]:
            del self._rows[number]
        self._rows = dict(sorted(self._rows.items()))

    def _write(self, row: Row) -> None:
        try:
            if self._lines >= 3 * self.bound:
                temporary = f"{self.path}.new"
                kept = [row for row in self._rows.values() if row.state in FINAL]
                with open(temporary, "w", encoding="utf-8") as file:
                    file.writelines(_line(row) for row in kept)
                os.rename(temporary, self.path)
                self._lines = len(kept)
            else:
                os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
                with open(self.path, "ab+") as raw:
                    # A line cut by a power failure must not swallow the next one.
                    cut = raw.tell() > 0 and (raw.seek(-1, os.SEEK_END), raw.read(1))[1] != b"\n"
                    raw.write((b"\n" if cut else b"") + _line(row).encode())
                self._lines += 1
            self.problem = ""
        except OSError as error:
            self.problem = f"{self.path} cannot be written: {error.strerror}"


def _line(row: Row) -> str:
    return json.dumps(dataclasses.asdict(row), ensure_ascii=False) + "\n"

"""Events of addresses and leases over restarts: bounded, in `state/events.jsonl`, oldest first.

What cannot be written is kept in memory all the same; what cannot be read is left out.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from typing import Any

BOUND = 200
_MOST_LINE = 65536


class EventLog:
    """`rows` holds the newest. Without a path nothing is written."""

    def __init__(self, path: str = "", bound: int = BOUND) -> None:
        self._path = path
        self._bound = bound
        self._lines = 0
        self.rows: list[dict[str, Any]] = []
        if path:
            self._load()

    def put(self, event: Mapping[str, Any]) -> None:
        """Keep one more."""
        self.rows.append(dict(event))
        del self.rows[: -self._bound]
        if not self._path:
            return
        with contextlib.suppress(OSError, ValueError, TypeError):
            if self._lines >= 3 * self._bound:
                with open(f"{self._path}.new", "w", encoding="utf-8") as file:
                    file.writelines(json.dumps(row) + "\n" for row in self.rows)
                os.replace(f"{self._path}.new", self._path)
                self._lines = len(self.rows)
            else:
                with open(self._path, "a", encoding="utf-8") as file:
                    file.write(json.dumps(event) + "\n")
                self._lines += 1

    def _load(self) -> None:
        with contextlib.suppress(OSError), open(self._path, encoding="utf-8", errors="replace") as file:
            for line in file:
                self._lines += 1
                with contextlib.suppress(ValueError, RecursionError):
                    row = json.loads(line[:_MOST_LINE])
                    if isinstance(row, dict) and isinstance(row.get("time"), str):
                        self.rows.append(row)
        del self.rows[: -self._bound]

"""A line on the terminal while long lists are read; nothing where nobody looks, and nothing for short ones."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from controller import lists

_PATIENCE_S = 0.4
_WIDTH = 24


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Show how far the reading of lists is, on standard error when that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    begun = time.monotonic()
    drawn = False

    def draw(read: int, size: int) -> None:
        nonlocal drawn
        if time.monotonic() - begun < _PATIENCE_S:
            return
        drawn = True
        sys.stderr.write(f"\rreading lists {bar(read, size)} {read >> 20:,} of {size >> 20:,} MiB ")
        sys.stderr.flush()

    before, lists.progress = lists.progress, draw
    try:
        yield
    finally:
        lists.progress = before
        if drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def bar(read: int, size: int) -> str:
    """A bar of fixed width."""
    full = _WIDTH * read // max(1, size)
    return "█" * full + "░" * (_WIDTH - full)

"""Standard output of the verbs that people and scripts read.

The rule: an exit code says what was found out, never how much of it was read. Whoever stops reading (`| head -1`), or
closed our output before we began (`>&-`), changes nothing; an output that cannot be written (a full disk) ends the
program with exit code 2 and a sentence, not with the 1 that means mistakes in the files.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

_CANNOT_RUN = 2


class OutputError(Exception):
    """Standard output cannot be written. `str()` says why."""


class _Output(io.FileIO):
    """Descriptor 1. What comes after the first failure is thrown away: it has been said."""

    gone = False

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if self.gone:
            return size
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            self.gone = True
            return size
        except BlockingIOError:
            raise
        except OSError as error:
            self.gone = True
            raise OutputError(error.strerror or str(error)) from None


def _guarded() -> Any:
    now = sys.stdout
    if now is None:
        return open(os.devnull, "w", encoding="utf-8")
    if type(now) is not io.TextIOWrapper or type(now.buffer) not in (io.BufferedWriter, io.FileIO):
        return now  # somebody (a test) reads along
    now.flush()
    # A terminal that does not know an arrow shows a question mark in its place.
    errors = "replace" if now.errors == "strict" else now.errors
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(now.fileno(), "w", closefd=False)), encoding=now.encoding, errors=errors,
        line_buffering=now.line_buffering, write_through=now.write_through,
    )  # fmt: skip


@contextlib.contextmanager
def guarded(program: str) -> Iterator[None]:
    """For the length of a `with`, `sys.stdout` keeps the rule of this module. `program` begins the sentence on stderr."""
    before, sys.stdout = sys.stdout, _guarded()
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OutputError as error:
        with contextlib.suppress(OSError):
            print(f"{program}: the output cannot be written: {error}", file=sys.stderr, flush=True)
        raise SystemExit(_CANNOT_RUN) from None
    finally:
        sys.stdout = before

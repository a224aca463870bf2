"""Standard output of the verbs that people and scripts read.

The rule: an exit code says what was found out, never how much of it was read. Whoever stops reading (`| head -1`), or
closed our output before we began (`>&-`), changes nothing; an output that cannot be written (a full disk) ends the
program with exit code 2 and a sentence, not with the 1 that means mistakes in the files. Ctrl-C ends it by that signal
(a shell shows 130), as it does with every other program, and without a traceback.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

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


def _interrupted() -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
    raise SystemExit(128 + signal.SIGINT)  # it is blocked


@contextlib.contextmanager
def guarded(program: str) -> Iterator[None]:
    """For the length of a `with`, standard output and Ctrl-C keep the rule of this module. `program` begins the sentence
    on stderr. What the block imports is covered, too: a program is stopped most often while it starts."""
    before, sys.stdout = sys.stdout, _guarded()
    interrupts: list[int] = []

    def interrupt(number: int, _: object) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGINT, interrupt)
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OutputError as error:
        with contextlib.suppress(OSError):
            print(f"{program}: the output cannot be written: {error}", file=sys.stderr, flush=True)
        raise SystemExit(_CANNOT_RUN) from None
    except KeyboardInterrupt:
        _interrupted()
    except SystemExit as end:
        if interrupts and end.code == 1:  # click has caught it and made this of it
            _interrupted()
        raise
    finally:
        sys.stdout = before
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)

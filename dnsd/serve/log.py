"""dnsd's log: structlog to stderr, for people on a terminal and as JSON lines otherwise.

The only owner of structlog in dnsd. A line leaves in one `write` (many processes share the
stream), and a log that nobody reads any more never stops a server: a failed write is dropped.
"""

import os
import sys
from typing import Any

import structlog

_STDERR = 2


class _Descriptor:
    """A structlog logger that writes each event to a file descriptor, whole, and ignores its death."""

    def __init__(self, fd: int = _STDERR) -> None:
        self._fd = fd

    def msg(self, message: str) -> None:
        """Write one line."""
        try:
            os.write(self._fd, (message + "\n").encode("utf-8", "backslashreplace"))
        except OSError:
            pass  # there is nobody left to tell

    log = debug = info = warning = error = critical = exception = msg


def setup(human: bool | None = None, fd: int = _STDERR) -> None:
    """Choose the format: `human` True or False, None for "is stderr a terminal". Call once per program."""
    if human is None:
        human = os.isatty(fd)
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if human else "iso", utc=not human),
    ]
    if human:
        colours = "NO_COLOR" not in os.environ and os.isatty(fd)
        processors.append(structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=0))
    else:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(20),
        logger_factory=lambda *args: _Descriptor(fd),
        cache_logger_on_first_use=False,
    )


def logger(process: str, **values: Any) -> Any:
    """A logger whose lines say which process writes: `supervisor`, `agent`, `worker` …"""
    return structlog.get_logger().bind(process=process, **values)


def refuse(message: str) -> int:
    """Say in one sentence why the program cannot run; returns the exit code 2."""
    print(f"dnsd: {message}", file=sys.stderr, flush=True)
    return 2

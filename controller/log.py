"""The controller's log: structlog to stderr, for people on a terminal and as JSON lines otherwise.

A refusal's text is many lines in the words of `check`: a person gets it below the line, a machine in the key `text`.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import Any

import structlog

_STDERR = 2


class _Descriptor:
    """Writes each event whole (the other half shares the stream); a log nobody reads any more stops nothing."""

    def msg(self, message: str) -> None:
        try:
            os.write(_STDERR, (message + "\n").encode("utf-8", "backslashreplace"))
        except OSError:
            pass

    log = debug = info = warning = error = critical = exception = msg


class _ForPeople:
    def __init__(self) -> None:
        colours = "NO_COLOR" not in os.environ and os.isatty(_STDERR)
        self._render = structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=0)

    def __call__(self, logger: Any, name: str, event: MutableMapping[str, Any]) -> str:
        text = str(event.pop("text", "")).rstrip()
        line = str(self._render(logger, name, event))
        return f"{line}\n{text}\n" if text else line


def setup(human: bool | None = None) -> None:
    """Choose the format: `human` True or False, None for "is stderr a terminal". Call once per program."""
    if human is None:
        human = os.isatty(_STDERR)
    stamp = structlog.processors.TimeStamper(fmt="%H:%M:%S" if human else "iso", utc=not human)
    processors: list[Any] = [structlog.processors.add_log_level, stamp]
    if human:
        processors.append(_ForPeople())
    else:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(20),
        logger_factory=lambda *arguments: _Descriptor(),
        cache_logger_on_first_use=False,
    )

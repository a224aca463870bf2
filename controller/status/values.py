"""Single values of a snapshot: what is there or a harmless nothing, and moments, durations and counts for people.

Pure: the time is an argument. Nothing here raises, whatever the value is.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping
from typing import Any


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is a mapping, otherwise an empty one."""
    return value if isinstance(value, Mapping) else {}


def rows(value: object) -> list[Mapping[str, Any]]:
    """The mappings in a list; anything else is left out."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list | tuple) else []


def whole(value: object) -> int:
    """A number, or 0 for what is not one."""
    return int(value) if isinstance(value, int | float) else 0


def instant(value: object) -> datetime.datetime | None:
    """A time as RFC 3339 text, seconds or milliseconds since 1970; None when it is none of these."""
    try:
        if isinstance(value, str) and value:
            if value.isascii() and value.replace(".", "", 1).isdigit():
                return instant(float(value))
            parsed = datetime.datetime.fromisoformat(value)
            return parsed if parsed.tzinfo else parsed.replace(tzinfo=datetime.UTC)
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            return datetime.datetime.fromtimestamp(value / 1000 if value > 1e11 else value, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None


def ago(moment: datetime.datetime, now: datetime.datetime) -> str:
    """How long ago, in one unit: `just now`, `14 min ago`, `3 days ago`."""
    seconds = (now - moment).total_seconds()
    if seconds < 0:
        return "just now" if seconds > -5 else "in the future"
    if seconds < 5:
        return "just now"
    return span(seconds) + " ago"


def span(seconds: float) -> str:
    """A duration in its largest unit."""
    for size, unit, many in ((86400, "day", "days"), (3600, "h", "h"), (60, "min", "min"), (1, "s", "s")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit if count == 1 else many}"
    return "0 s"


def grouped(value: object) -> str:
    """An integer with thin spaces between its thousands."""
    return f"{whole(value):,}".replace(",", "\u202f")


@dataclasses.dataclass(frozen=True, slots=True)
class When:
    """A moment for people (`text`), exactly (`full`) and for machines (`iso`); all empty when unknown."""

    text: str = ""
    full: str = ""
    iso: str = ""
    clock: str = ""


def when(value: object, now: datetime.datetime) -> When:
    """Show a moment of the snapshot relative to now, and exactly in the server's time zone."""
    moment = instant(value)
    if moment is None:
        return When()
    local = moment.astimezone(now.tzinfo)
    # A decision of another day must not look like one of today.
    clock = f"{local:%H:%M:%S}" if local.date() == now.date() else f"{local:%-d %b %H:%M}"
    return When(ago(moment, now), f"{local:%Y-%m-%d %H:%M:%S %Z}", moment.isoformat(), clock)

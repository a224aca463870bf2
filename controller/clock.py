"""The wall clock as people read it. Timers use the loop's monotonic clock, never this."""

from __future__ import annotations

import datetime


def now_text() -> str:
    """This moment, RFC 3339 in UTC with milliseconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse(text: str) -> datetime.datetime | None:
    """Read an RFC 3339 time; None when it is none."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except (ValueError, TypeError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=datetime.UTC)


def ago(moment: datetime.datetime, now: datetime.datetime) -> str:
    """How long ago, in the two words that people say: `now`, `42 s ago`, `5 min ago`, `3 h ago`, `2 days ago`."""
    seconds = int((now - moment).total_seconds())
    if seconds < 1:
        return "now"
    for limit, unit, size in ((60, "s", 1), (3600, "min", 60), (86400, "h", 3600)):
        if seconds < limit:
            return f"{seconds // size} {unit} ago"
    days = seconds // 86400
    return "yesterday" if days == 1 else f"{days} days ago"

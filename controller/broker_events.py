"""EVENTs on their way through the broker: 250 ms of quiet, what is new to the nodes, the rest only counted.

A lease whose time is over ends here, if nobody says so before: on a clock that no setting of the time moves.

Keeps what it knows in `<state>/leases.json` until the machine boots again: after a restart of both halves the
client's next word may be half a lease away, and `forward: dhcp` needs the servers now.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from controller.leases import Leases

QUIET_S = 0.25
LOOK_S = 60.0  # at least: the loop's clock stands still while a machine sleeps, leases do not
_MOST_BYTES = 1 << 20
_BOOT = "/proc/sys/kernel/random/boot_id"


def boot_ms() -> int:
    """Milliseconds since the boot, sleep included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class Events:
    """`tell(node, event, news)` is called in the event loop for each piece of news, and, with `news` false, for what
    only nodes need to hear: that a lease goes on."""

    def __init__(
        self, state: str, tell: Callable[[str, dict[str, Any], bool], None], quiet_s: float = QUIET_S,
        now_ms: Callable[[], int] = boot_ms,
    ) -> None:  # fmt: skip
        self._file = os.path.join(state, "leases.json")
        self._tell = tell
        self._quiet_s = quiet_s
        self._now_ms = now_ms
        self._ends: asyncio.TimerHandle | None = None
        self._timers: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self.leases = Leases()
        self._boot = _read(_BOOT, 64).strip()
        with contextlib.suppress(ValueError, LookupError, TypeError):
            saved = json.loads(_read(self._file, _MOST_BYTES))
            if saved["boot"] == self._boot:
                self.leases.restore(saved["leases"])

    def hear(self, node: str, event: Mapping[str, Any]) -> bool:
        """Take an EVENT in; True when it joins others of its interface."""
        coalesced = self.leases.hear(node, event)
        place = (node, str(event.get("interface", "")))
        if place not in self._timers:
            self._timers[place] = asyncio.get_running_loop().call_later(self._quiet_s, self._quiet, place)
        return coalesced

    def _quiet(self, place: tuple[str, str]) -> None:
        self._timers.pop(place, None)
        now_ms = self._now_ms()
        event = self.leases.news(*place, now_ms)
        if event is not None:
            self._tell(place[0], event, True)
        else:
            goes_on = self.leases.standing(place, now_ms)
            if goes_on is None or "lifetime" not in goes_on:
                return
            self._tell(place[0], goes_on, False)
        self._save()
        self._look_later()

    def current(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What a node that has just connected must know."""
        return self.leases.current(self._now_ms())

    def start(self) -> None:
        """Watch the ends of the leases, those of before a restart too."""
        self._look()

    def _look(self) -> None:
        for place in self.leases.expire(self._now_ms()):
            if place not in self._timers:
                self._quiet(place)
        self._look_later()

    def _look_later(self) -> None:
        if self._ends is not None:
            self._ends.cancel()
            self._ends = None
        end_ms = self.leases.next_end_ms()
        if end_ms is not None:
            wait_s = min(max(0.0, (end_ms - self._now_ms()) / 1000), LOOK_S) + 0.05
            self._ends = asyncio.get_running_loop().call_later(wait_s, self._look)

    def stop(self) -> None:
        """What is waiting is taken in, told to nobody, and kept."""
        if self._ends is not None:
            self._ends.cancel()
        for place, timer in list(self._timers.items()):
            timer.cancel()
            self.leases.news(*place, self._now_ms())
        if self._timers:
            self._save()
        self._timers.clear()

    def _save(self) -> None:
        text = json.dumps({"boot": self._boot, "leases": self.leases.save()})
        with contextlib.suppress(OSError):  # without it only a restart is poorer
            with open(f"{self._file}.new", "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(f"{self._file}.new", self._file)


def _read(path: str, most: int) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(most).decode("utf-8", "replace")
    except OSError:
        return ""

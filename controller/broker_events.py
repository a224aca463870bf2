"""EVENTs on their way through the broker: 250 ms of quiet, what is new to the nodes, the rest only counted.

Keeps what it knows in `<state>/leases.json` until the machine boots again: after a restart of both halves the
client's next word may be half a lease away, and `forward: dhcp` needs the servers now.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from controller.leases import Leases

QUIET_S = 0.25
_MOST_BYTES = 1 << 20
_BOOT = "/proc/sys/kernel/random/boot_id"


class Events:
    """`tell(node, event)` is called for each piece of news, in the event loop."""

    def __init__(self, state: str, tell: Callable[[str, dict[str, Any]], None], quiet_s: float = QUIET_S) -> None:
        self._file = os.path.join(state, "leases.json")
        self._tell = tell
        self._quiet_s = quiet_s
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
        del self._timers[place]
        event = self.leases.news(*place)
        if event is not None:
            self._save()
            self._tell(place[0], event)

    def stop(self) -> None:
        """What is waiting is taken in, told to nobody, and kept."""
        for place, timer in list(self._timers.items()):
            timer.cancel()
            self.leases.news(*place)
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

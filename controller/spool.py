"""EVENTs that hooks left as files while no broker answered: read once, in order, then removed.

A file's name is the time in nanoseconds at which it was left; the folder belongs to the controller's user and to root.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any

from dnsd.contract import messages

LOOK_S = 1.0
_BOOT = "/proc/sys/kernel/random/boot_id"
_MOST_BYTES = 64 << 10
_MOST_FILES = 256


class Spool:
    """`run` looks once a second, for ever; `hear(machine, event)` gets each EVENT."""

    def __init__(self, state: str, hear: Callable[[str, dict[str, Any]], object]) -> None:
        self._folder = os.path.join(state, "events")
        self._hear = hear
        self._seen = 0
        self._boot = ""
        with contextlib.suppress(OSError), open(_BOOT, encoding="ascii") as file:
            self._boot = file.read(64).strip()
        self.taken = 0
        self.stale = 0
        self.refused = 0

    def prepare(self) -> None:
        """Make the folder, so that it is the controller's. Trouble is the hooks' to find."""
        with contextlib.suppress(OSError):
            os.mkdir(self._folder, 0o700)

    async def run(self) -> None:
        """Look, and again, on the monotonic clock."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        """Take what is there. A folder that has not changed since costs one stat."""
        try:
            changed = os.stat(self._folder).st_mtime_ns
            if changed == self._seen:
                return
            names = sorted(name for name in os.listdir(self._folder) if name.endswith(".json"))
        except OSError:
            return
        for name in names[:_MOST_FILES]:
            self._take(os.path.join(self._folder, name))
        if len(names) <= _MOST_FILES:
            # Removing has changed it as well; whoever came in meanwhile is found because its name still ends so.
            with contextlib.suppress(OSError):
                now = os.stat(self._folder).st_mtime_ns
                left = any(name.endswith(".json") for name in os.listdir(self._folder))
                self._seen = 0 if left else now

    def _take(self, path: str) -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                data = file.read(_MOST_BYTES + 1)
            if len(data) > _MOST_BYTES:
                raise messages.FrameError("too_large", "no EVENT is that long")
            event = messages.decode(messages.EVENT, data)
        except (OSError, messages.FrameError):
            self.refused += 1
        else:
            # `at` counts from the boot, and a lease of before it is had no more: its client asks anew.
            boot = event.pop("boot", None)
            if boot != self._boot:
                event.pop("at", None)
            if boot in (self._boot, None):
                self.taken += 1
                self._hear(socket.gethostname(), event)
            else:
                self.stale += 1
        with contextlib.suppress(OSError):
            os.unlink(path)

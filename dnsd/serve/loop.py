"""A worker's epoll: which function is called when a descriptor is ready.

Single thread; timers are the caller's, who says how long a wait may take. Nothing here looks at a
clock, so a faked one changes nothing.
"""

import contextlib
import select
from collections.abc import Callable

Ready = Callable[[int, int], None]  # descriptor, events


class Loop:
    """Descriptors and their functions; level-triggered."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._ready: dict[int, Ready] = {}

    def add(self, fd: int, events: int, ready: Ready) -> None:
        """Call `ready(fd, events)` when one of `events` (EPOLLIN …) happens."""
        self._ready[fd] = ready
        try:
            self._epoll.register(fd, events)
        except FileExistsError:
            self._epoll.modify(fd, events)

    def change(self, fd: int, events: int) -> None:
        """Wait for other events of a watched descriptor."""
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Forget a descriptor; call it before closing (an inherited copy would keep an epoll entry alive)."""
        if self._ready.pop(fd, None) is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)

    def watches(self, fd: int) -> bool:
        """Whether a descriptor is watched."""
        return fd in self._ready

    def run_once(self, timeout_s: float, before: Callable[[], None]) -> int:
        """Wait for at most `timeout_s` (0: only look), call `before`, then what is ready; returns how many were."""
        try:
            events = self._epoll.poll(timeout_s, 64)
        except InterruptedError:
            events = []
        before()
        for fd, event in events:
            ready = self._ready.get(fd)
            if ready is not None:  # an earlier function of this round may have removed it
                ready(fd, event)
        return len(events)

    def close(self) -> None:
        """Close the epoll descriptor; the watched ones stay open."""
        self._epoll.close()

"""A worker's epoll: which function is called when a descriptor is ready.

Single thread; timers are the caller's, who says how long a wait may take. What time it is, `poll` reads
when it has waited; nobody else looks at a clock for it.
"""

import contextlib
import math
import select
from collections.abc import Callable

from dnsd.serve.batch import Poll

Ready = Callable[[int, int], None]  # descriptor, events

# What a descriptor is, for who waits on `Loop.poll` without asking for functions (`Rounds.serve`).
OTHER, CLIENTS, UPSTREAM = 0, 1, 2


class Loop:
    """Descriptors and their functions; level-triggered."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.poll = Poll(self._epoll.fileno())
        self._ready: dict[int, Ready] = {}

    def add(self, fd: int, events: int, ready: Ready, kind: int = OTHER) -> None:
        """Call `ready(fd, events)` when one of `events` (EPOLLIN …) happens."""
        self._ready[fd] = ready
        self.poll.mark(fd, kind)
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
            self.poll.mark(fd, OTHER)
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)

    def forget(self, fd: int) -> None:
        """Forget a descriptor that is closed next, and that no other process has: a system call less than `remove`."""
        self._ready.pop(fd, None)

    def watches(self, fd: int) -> bool:
        """Whether a descriptor is watched."""
        return fd in self._ready

    def run_once(self, timeout_s: float, before: Callable[[], None]) -> int:
        """Wait for at most `timeout_s` (0: only look), call `before`, then what is ready; returns how many were."""
        n: int = self.poll.wait(math.ceil(timeout_s * 1000))
        before()
        return self.dispatch(n)

    def dispatch(self, n: int) -> int:
        """Call the functions of the first `n` descriptors that `poll` has found ready; returns `n`."""
        found = [(self.poll.fds[i], self.poll.events[i]) for i in range(n)]
        for fd, event in found:
            ready = self._ready.get(fd)
            if ready is not None:  # an earlier function of this round may have removed it
                ready(fd, event)
        return n

    def close(self) -> None:
        """Close the epoll descriptor; the watched ones stay open."""
        self._epoll.close()

"""A worker's round as long as only questions and upstream servers' answers come: wait, read, answer.

Compiled by Cython with the types in `rounds.pxd`: no interpreter between two batches. Whatever else is to be done
(another descriptor, a timer, a miss, a table or facts that have come) goes back to the loop of `serve.worker`.
"""

import cython

if not cython.compiled:
    from dnsd.serve.shortpath import ShortPath


class Rounds(ShortPath):
    """A query path that waits by itself; `attach` first."""

    def attach(self, poll: object, watch: object) -> None:
        """Say what `serve` waits on (`batch.Poll`), and where the committed generation and the facts' version stand."""
        self.poll = poll
        self.times = poll.times  # type: ignore[attr-defined]
        self.ready_fds = poll.fds  # type: ignore[attr-defined]
        self.ready_kinds = poll.kinds  # type: ignore[attr-defined]
        self.watch = memoryview(watch)  # type: ignore[arg-type]

    def serve(self, until_ms: int, generation: int, version: int) -> int:
        """Wait, and answer for as long as nothing comes but questions and the answers of upstream servers.

        Returns how many descriptors `poll` has found ready that the caller must see to; 0 when it is `until_ms`
        (monotonic; 0: only look) or something else is due: misses, flights to take over, `generation` committed, facts
        of another `version`. What was not read then is found ready again.
        """
        i: cython.int
        n: cython.int
        wait: cython.longlong
        upstream: cython.int

        self.soonest = until_ms
        self.awaited_generation = generation
        self.known_version = version
        self.poll.now()
        self.mono_ms = self.times[0]
        while True:
            wait = 0
            if not self.more and self.soonest > self.mono_ms:
                # Rounded up: waking a moment early would turn the last millisecond into a busy loop.
                wait = self.soonest - self.mono_ms + 1
            n = self.poll.wait(wait)
            if self.changed():
                return n
            upstream = self.more
            for i in range(n):
                if self.ready_kinds[i] == 0:
                    return n
                if self.ready_kinds[i] == 2:
                    upstream = 1
            for i in range(n):
                if self.ready_kinds[i] == 1 and self.drain(self.ready_fds[i]):
                    return 0
            if upstream and self.drain(-1):
                return 0
            if self.mono_ms >= self.soonest:
                return 0

    def changed(self) -> cython.int:
        """Take over the time that `poll` has read; 1 when a table or facts have come that are not in use yet."""
        self.tell(self.times[0], self.times[1])
        return 1 if self.watch[0] == self.awaited_generation or self.watch[1] != self.known_version else 0

    def drain(self, fd: cython.int) -> cython.int:
        """Read a socket of clients, or with -1 the upstream servers', for eight batches at most: others wait, too.

        Returns 1 when there is something to do that is not done here.
        """
        turn: cython.int
        received: cython.int

        for turn in range(8):
            if turn:
                self.poll.now()
                if self.changed():
                    return 1
            if fd >= 0:
                received = self.batch(fd)
            else:
                received = self.receive()
                self.more = received == 64  # the sockets tell only once that they have something
            if self.misses or self.handoff.pending:
                return 1
            if received < 64:
                return 0
        return 0

# cython: annotation_typing=False
"""Unpredictable numbers: the kernel's, fetched in bulk.

Ids, the case of questions and the choice of servers are secrets before forgers (RFC 5452). An object belongs to the
process that made it: what is left in it after a fork would be the same twice.
"""

import os

import cython  # noqa: F401  (for the .pxd beside)

_BULK = 4096


class Chance:
    """Call it with a limit: a number from 0 up to, but not including, the limit (at most 2**30)."""

    def __init__(self) -> None:
        self._octets = b""
        self._at = 0

    def bits32(self) -> int:
        """Thirty-two random bits."""
        at = self._at
        if at + 4 > len(self._octets):
            self._octets = os.urandom(_BULK)
            at = 0
        self._at = at + 4
        octets = self._octets
        high = octets[at + 2] << 8 | octets[at + 3]
        return high * 65536 + (octets[at] << 8 | octets[at + 1])

    def __call__(self, limit: int) -> int:
        """Equally likely, all of them: what would make some likelier is drawn again."""
        fair = 4294967296 - 4294967296 % limit
        while True:
            bits = self.bits32()
            if bits < fair:
                return bits % limit

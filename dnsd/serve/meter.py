"""How many questions a second an address asks: a token bucket for each, in a table of fixed size.

Compiled by Cython with the types in `meter.pxd`. One worker's; no clock of its own. Two addresses that share a place
take it from each other, and the one that comes begins with a full bucket: a wrong guess lets a question pass, it
never holds one back. IPv6 clients are counted by /64 (RFC 4291: one link), IPv4 by address.
"""

import cython

if not cython.compiled:
    from dnsd.contract.query import Query

PLACES = 4096


class Meter:
    """`rate` questions a second and address, and as many at once; 0 lets everything pass."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.full = 1000 * rate  # in thousandths of a question
        self.who = memoryview(bytearray(8 * PLACES)).cast("Q")
        self.left = memoryview(bytearray(8 * PLACES)).cast("q")
        self.seen = memoryview(bytearray(8 * PLACES)).cast("Q")

    def spent(self, q: Query, now_ms: cython.ulonglong) -> cython.int:
        """Take one question off the client's bucket; 1 when there was none left."""
        low: cython.ulonglong = 4294967295
        spread: cython.ulonglong = 2654435761
        who: cython.ulonglong = q.client_words[0]
        place: cython.int
        left: cython.longlong
        most: cython.longlong = self.full

        if who == 0:
            who = q.client_words[1]  # an IPv4 address, mapped
        place = cython.cast(cython.int, ((((who & low) ^ (who >> 32)) * spread) & low) >> 20)
        if self.who[place] != who:
            self.who[place] = who
            self.seen[place] = now_ms
            self.left[place] = most - 1000
            return 0
        left = self.left[place]
        if now_ms > self.seen[place]:
            if now_ms - self.seen[place] >= 1000:
                left = most
            else:
                left += cython.cast(cython.longlong, now_ms - self.seen[place]) * self.rate
            if left > most:
                left = most
            self.seen[place] = now_ms
        if left < 1000:
            self.left[place] = left
            return 1
        self.left[place] = left - 1000
        return 0

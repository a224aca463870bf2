"""Facts as the query path reads them: by offset, from the bytes that `facts.encode` made.

Compiled by Cython with the types in `factsview.pxd`. Immutable; a worker makes a new view when the
agent has written a new version.
"""

import cython

if not cython.compiled:
    from dnsd.contract.query import Query

from dnsd.contract.facts import (
    FLAG_SPECIAL_USE,
    MAGIC,
    WORD_FLAGS,
    WORD_GATES,
    WORD_NEXT_GATES,
    WORD_NEXT_GENERATION,
    WORD_SELF,
    WORD_V4,
    WORD_V6,
    FactsError,
    unpacked,
)
from dnsd.contract.names import from_text

REVERSE = 80  # octets for one reverse name; the longest (ip6.arpa) has 74


class FactsView:
    """One version of a node's facts, for the table of `generation`; raises FactsError when the bytes are no facts."""

    def __init__(self, data: bytes, generation: int = 0) -> None:
        if len(data) < 128 or len(data) % 8 or data[:4] != MAGIC:
            raise FactsError("these bytes are no facts")
        view = memoryview(data)
        words = view.cast("I")
        if words[2] != len(data):
            raise FactsError("facts of another length than they say")
        for word, size in ((WORD_GATES, 1), (WORD_NEXT_GATES, 1), (WORD_V4, 8), (WORD_V6, 32), (WORD_SELF, 16)):
            if words[word + 1] + words[word] * size > len(data) or words[word + 1] % 4:
                raise FactsError("facts that point outside of themselves")
        self.buffer = data
        self.version = words[3]
        self.data = view
        self.words = words
        following = words[WORD_NEXT_GENERATION] | words[WORD_NEXT_GENERATION + 1] << 32
        gates = WORD_NEXT_GATES if generation and following == generation else WORD_GATES
        self.gates_count = words[gates]
        self.gates = words[gates + 1]
        self.v4_count = words[WORD_V4]
        self.v4 = words[WORD_V4 + 1] // 4
        self.v6_count = words[WORD_V6]
        self.v6 = words[WORD_V6 + 1]
        first = words[WORD_SELF + 1]
        addresses = [bytes(data[at : at + 16]) for at in range(first, first + 16 * words[WORD_SELF], 16)]
        self.own_at = first
        self.own6 = len(addresses)
        self.own4 = sum(unpacked(address).version == 4 for address in addresses)
        self.own6 -= self.own4
        reverse = [from_text(unpacked(address).reverse_pointer).ljust(REVERSE, b"\0") for address in addresses]
        self.reverse = memoryview(b"".join(reverse) or b"\0")
        self.special_use = 1 if words[WORD_FLAGS] & FLAG_SPECIAL_USE else 0

    def gate(self, number: cython.uint) -> cython.int:
        """Whether gate `number` - 1 is open; 0 stands for no condition, and a gate the facts do not know is closed."""
        if number == 0:
            return 1
        if number > cython.cast(cython.uint, self.gates_count):
            return 0
        return self.data[self.gates + number - 1]

    def own(self, qtype: cython.int) -> cython.int:
        """How many addresses `address: self` gives for a question of this type (A, AAAA)."""
        return self.own4 if qtype == 1 else self.own6

    def own_octet(self, qtype: cython.int, number: cython.int, k: cython.int) -> cython.int:
        """Octet `k` of one of those addresses: of 4 for A, of 16 for AAAA."""
        if qtype == 1:
            return self.data[self.own_at + 16 * number + 12 + k]
        return self.data[self.own_at + 16 * (self.own4 + number) + k]

    def is_own(self, q: Query) -> cython.int:
        """Whether the qname is the reverse name (RFC 1035, 3.5; RFC 3596, 2.5) of one of those addresses."""
        i: cython.int
        k: cython.int

        if q.labels != 6 and q.labels != 34:
            return 0
        for i in range(self.own4 + self.own6):
            k = 0
            # Equal octets up to the final zero are equal labels, since lengths are among the octets.
            while k < q.name_length and k < 80 and self.reverse[80 * i + k] == q.name[k]:
                k += 1
            if k == q.name_length:
                return 1
        return 0

    def may_ask(self, q: Query) -> cython.int:
        """Whether the client's address is among those that this node answers."""
        lo: cython.int = 0
        hi: cython.int
        mid: cython.int
        at: cython.int
        k: cython.int
        before: cython.int
        a: cython.uint

        if q.client_words[0] == 0 and q.client[8] == 0 and q.client[9] == 0 and q.client[10] == 255 and q.client[11] == 255:
            a = q.client[12]
            a = (a << 24) | (q.client[13] << 16) | (q.client[14] << 8) | q.client[15]
            hi = self.v4_count
            while lo < hi:
                mid = (lo + hi) // 2
                if self.words[self.v4 + 2 * mid] <= a:
                    lo = mid + 1
                else:
                    hi = mid
            if lo == 0:
                return 0
            return 1 if a <= self.words[self.v4 + 2 * (lo - 1) + 1] else 0
        hi = self.v6_count
        while lo < hi:
            mid = (lo + hi) // 2
            at = self.v6 + 32 * mid
            before = 1
            for k in range(16):
                if self.data[at + k] != q.client[k]:
                    before = 1 if self.data[at + k] < q.client[k] else 0
                    break
            if before:
                lo = mid + 1
            else:
                hi = mid
        if lo == 0:
            return 0
        at = self.v6 + 32 * (lo - 1) + 16
        for k in range(16):
            if self.data[at + k] != q.client[k]:
                return 1 if q.client[k] < self.data[at + k] else 0
        return 1

"""Raw answers in one arena: offsets only, one writer, bounded in bytes.

Compiled by Cython with the types in `cache.pxd`. The arena is shared memory that the supervisor
made: a replacement worker takes it over as it is (`Cache.adopt` checks it first). Answers are kept
below policy: the verdict comes before the cache, in every query, so a new table needs no flush.
The key is everything that changes an answer: qname, qtype, DO, CD, route (qclass is always IN). The route is a mark of
who is asked and how, never the number of a forward entry: other servers, another key.

Layout: a head of 16 words, buckets of four (hash, offset) pairs, then a log that is written
round and round; what is overwritten is forgotten first. An entry, in words: size, hash, name
length | seconds that it is served past its time << 8 | being renewed << 31, qtype, DO and CD bits, route, question length, body length, rcode | AD << 16 | Extended DNS Error + 1 << 17 | length of its text << 24, answers, authorities |
additionals << 16, TTL places | pointer places << 16, stored (s), expires (s), and the stamp of the last review (two words); then
name, TTL places, pointer places (u16, most significant first), body, and the text of the Extended DNS Error.
"""

import struct

import cython

if not cython.compiled:
    from dnsd.contract.octets import copy, equal

from dnsd.resolve.message import Response

MAGIC = 0x4E584341
HEAD_WORDS = 16
ENTRY_WORDS = 16
_WAYS = 4
STALE = 2147483647  # the age of what is served past its time
FRESH, RIPE, OVERDUE, LAPSED = range(4)  # what `event` says
_FIRST = 256  # buckets in use at the beginning


MOST_TEXT = 120  # octets of an Extended DNS Error's text


def extended(rcode: int, ede: int, text: bytes) -> int:
    """An rcode with its AD bit, as entries and `Responder.relay` have it, with an Extended DNS Error; -1 for none."""
    return rcode | (ede + 1 & 127) << 17 | (min(len(text), MOST_TEXT) << 24 if ede >= 0 else 0)


def below_labels(name: bytes, size: int) -> bool:
    """Whether the last `size` octets of a name begin at a label."""
    at = 0
    while at < len(name) - size:
        at += 1 + name[at]
    return at == len(name) - size


class Cache:
    """A cache over `arena` (a writable buffer of at least 64 KiB); raises ValueError for a smaller one."""

    def __init__(self, arena: object) -> None:
        view = memoryview(arena)  # type: ignore[arg-type]
        if len(view) < 65536:
            raise ValueError(f"a cache arena of {len(view)} bytes is too small; 64 KiB is the least")
        self.arena = view
        words = view.cast("I")
        self.words = words
        # An eighth of the arena indexes the rest: 32 bytes a bucket of four answers of about 256 bytes.
        buckets = 1 << max(8, (len(view) // 256).bit_length() - 1)
        self.buckets = buckets
        self.mask = _FIRST - 1
        self.log = HEAD_WORDS + buckets * 2 * _WAYS
        self.end = len(words)
        self.stored = 0
        self.evicted = 0
        self.body = 0
        self.length = 0
        self.question = 0
        self.rcode = 0
        self.answers = 0
        self.authorities = 0
        self.additionals = 0
        self.ttls = 0
        self.ttl_count = 0
        self.pointers = 0
        self.pointer_count = 0
        self.age = 0
        self.event = 0
        self.entry = 0
        if not self.adopt():
            self.clear()

    def clear(self) -> None:
        """Forget everything.

        Head: magic, size, write place, oldest entry, end of the previous round, torn, buckets in use, answers in them.
        """
        for i in range(HEAD_WORDS + _FIRST * 2 * _WAYS):  # the other buckets are cleared when they are needed
            self.words[i] = 0
        self.mask = _FIRST - 1
        self.words[1] = self.end
        self.words[2] = self.log
        self.words[3] = self.log
        self.words[4] = self.log
        self.words[6] = _FIRST
        self.words[0] = MAGIC

    def adopt(self) -> bool:
        """Whether the arena holds a cache of this shape that can be gone on with; a torn one is cleared by the caller."""
        words = self.words
        i: cython.uint
        at: cython.uint
        live: cython.uint = 0
        places: cython.uint
        size: cython.ulonglong
        used: cython.uint
        end: cython.uint = self.end
        log: cython.uint = self.log

        if words[0] != MAGIC or words[1] != self.end or words[5]:
            return False
        if not all(self.log <= words[i] <= self.end for i in (2, 3, 4)):
            return False
        used = words[6]
        if used & (used - 1) or not _FIRST <= used <= self.buckets:
            return False
        self.mask = used - 1
        for i in range(16, 16 + used * 8, 2):
            at = words[i + 1]
            if at == 0:
                continue
            if at < log or at > end - 16 or words[at + 1] != words[i]:
                return False
            if words[at] < 16 or words[at] > end - at:
                return False
            places = (words[at + 11] & 65535) + (words[at + 11] >> 16)
            size = words[at + 7]
            size += 64 + (words[at + 2] & 255) + 2 * places + (words[at + 8] >> 24)
            if size > 4 * cython.cast(cython.ulonglong, words[at]):
                return False
            live += 1
        words[7] = live
        return True

    def forget_reviews(self) -> int:
        """No answer has passed a review: their stamps are another node's. Returns how many answers there are."""
        w = self.words
        i: cython.uint
        at: cython.uint

        for i in range(16, 16 + (self.mask + 1) * 8, 2):
            at = w[i + 1]
            if at:
                w[at + 14] = 0
                w[at + 15] = 0
        return int(w[7])

    def mixed(self, h: cython.uint, qtype: cython.int, bits: cython.int, route: cython.int) -> cython.uint:
        """The qname's hash with the rest of the key."""
        mask: cython.ulonglong = 4294967295
        m: cython.ulonglong = h
        prime: cython.ulonglong = 16777619
        m = ((m ^ cython.cast(cython.ulonglong, qtype * 4 + bits)) * prime) & mask
        m = ((m ^ cython.cast(cython.ulonglong, route)) * prime) & mask
        return cython.cast(cython.uint, m ^ (m >> 15))

    def same(
        self,
        at: cython.uint,
        name: cython.const[cython.uchar][::1],
        name_length: cython.int,
        qtype: cython.int,
        bits: cython.int,
        route: cython.int,
    ) -> cython.int:
        """Whether the entry at word `at` has exactly this key."""
        if self.words[at + 2] & 255 != cython.cast(cython.uint, name_length):
            return 0
        if self.words[at + 3] != cython.cast(cython.uint, qtype):
            return 0
        if self.words[at + 4] != cython.cast(cython.uint, bits) or self.words[at + 5] != cython.cast(cython.uint, route):
            return 0
        return equal(self.arena, 4 * (at + 16), name, 0, name_length)

    def seek(
        self,
        name: cython.const[cython.uchar][::1],
        name_length: cython.int,
        mixed: cython.uint,
        qtype: cython.int,
        bits: cython.int,
        route: cython.int,
    ) -> cython.uint:
        """The word of the entry with this key, expired or not; 0 when there is none."""
        slot: cython.uint = 16 + (mixed & self.mask) * 8
        k: cython.uint
        at: cython.uint

        for k in range(4):
            at = self.words[slot + 2 * k + 1]
            if at and self.words[slot + 2 * k] == mixed and self.same(at, name, name_length, qtype, bits, route):
                return at
        return 0

    def find(
        self,
        name: cython.const[cython.uchar][::1],
        name_length: cython.int,
        h: cython.uint,
        qtype: cython.int,
        bits: cython.int,
        route: cython.int,
        now: cython.uint,
    ) -> cython.int:
        """Look an answer up; its parts are then in this object's attributes (places in the arena). 1 when found.

        `bits` is DO | CD << 1, `h` the qname's hash, `now` wall clock seconds. An expired answer is not found.
        `event`: 0 nothing special, 1 a tenth of its time is left, 2 it is past its time (`prolong`; its age is STALE
        then), 3 not found, but it has been here and is expired.
        """
        at: cython.uint = self.seek(name, name_length, self.mixed(h, qtype, bits, route), qtype, bits, route)
        lives: cython.uint

        self.event = 0
        if at == 0:
            return 0
        if now >= self.words[at + 13]:
            self.event = 3
            return 0
        # Stored times are clamped to now when the wall clock stepped back.
        self.age = now - self.words[at + 12] if now > self.words[at + 12] else 0
        lives = self.words[at + 13] - self.words[at + 12]
        if self.words[at + 13] - now <= lives // 10 and lives >= 10 and self.words[at + 2] >> 8 == 0:
            self.event = 1
        elif (self.words[at + 2] >> 8) & 8388607:
            self.event = 2
            self.age = 2147483647
        self.take(at, name_length)
        return 1

    def take(self, at: cython.uint, name_length: cython.int) -> cython.int:
        """Say where the parts of the entry at word `at` stand."""
        self.entry = at
        self.question = self.words[at + 6]
        self.length = self.words[at + 7]
        self.rcode = self.words[at + 8]
        self.answers = self.words[at + 9]
        self.authorities = self.words[at + 10] & 65535
        self.additionals = self.words[at + 10] >> 16
        self.ttl_count = self.words[at + 11] & 65535
        self.pointer_count = self.words[at + 11] >> 16
        self.ttls = 4 * (at + 16) + name_length
        self.pointers = self.ttls + 2 * self.ttl_count
        self.body = self.pointers + 2 * self.pointer_count
        return 0

    def find_stale(
        self,
        name: cython.const[cython.uchar][::1],
        name_length: cython.int,
        h: cython.uint,
        qtype: cython.int,
        bits: cython.int,
        route: cython.int,
        now: cython.uint,
        most: cython.uint,
    ) -> cython.int:
        """As `find`, for an answer whose time has been over for less than `most` seconds (RFC 8767)."""
        at: cython.uint = self.seek(name, name_length, self.mixed(h, qtype, bits, route), qtype, bits, route)
        ended: cython.uint

        if at == 0:
            return 0
        ended = self.words[at + 13] - ((self.words[at + 2] >> 8) & 8388607)
        if now >= ended and now - ended >= most:
            return 0
        self.event = 2
        self.age = 2147483647
        self.take(at, name_length)
        return 1

    def prolong(self, now: cython.uint, seconds: cython.uint) -> cython.int:
        """Let `find` go on finding what `find_stale` has found, for so long: nobody had a newer one just now."""
        w = self.words
        at: cython.uint = self.entry
        late: cython.uint = now + seconds - (w[at + 13] - ((w[at + 2] >> 8) & 8388607))

        if late <= 8388607:
            w[at + 2] = (w[at + 2] & 255) | (late << 8)
            w[at + 13] = now + seconds
        return 0

    def renewing(self) -> cython.int:
        """Somebody asks for a newer one of what `find` has found last: `event` is 1 for it no more."""
        top: cython.uint = 1

        self.words[self.entry + 2] |= top << 31
        return 0

    def passed(self, first: cython.uint, second: cython.uint) -> cython.int:
        """Whether the answer that `find` found last has passed a review with this stamp."""
        return 1 if self.words[self.entry + 14] == first and self.words[self.entry + 15] == second else 0

    def stamp(self, first: cython.uint, second: cython.uint) -> cython.int:
        """Remember that it has."""
        self.words[self.entry + 14] = first
        self.words[self.entry + 15] = second
        return 0

    def drop(self, at: cython.uint) -> cython.int:
        """Take the entry at word `at` out of the index, if it is still there."""
        w = self.words
        slot: cython.uint = 16 + (w[at + 1] & self.mask) * 8
        k: cython.uint
        for k in range(4):
            if w[slot + 2 * k + 1] == at:
                w[slot + 2 * k + 1] = 0
                w[slot + 2 * k] = 0
                w[7] -= 1
                return 1
        return 0

    def grow(self) -> cython.int:
        """Use twice as many buckets: what is in one of them stays there or goes to its new twin."""
        w = self.words
        count: cython.uint = self.mask + 1
        i: cython.uint
        k: cython.uint
        slot: cython.uint

        for i in range(count):
            slot = 16 + i * 8
            for k in range(4):
                w[slot + 8 * count + 2 * k] = 0
                w[slot + 8 * count + 2 * k + 1] = 0
                if w[slot + 2 * k + 1] and w[slot + 2 * k] & count:
                    w[slot + 8 * count + 2 * k] = w[slot + 2 * k]
                    w[slot + 8 * count + 2 * k + 1] = w[slot + 2 * k + 1]
                    w[slot + 2 * k] = 0
                    w[slot + 2 * k + 1] = 0
        self.mask = 2 * count - 1
        w[6] = 2 * count
        return 0

    def reserve(self, h: cython.uint, size: cython.uint) -> cython.int:
        """Make room for an entry of `size` words and put it into the index under hash `h`; returns its word, 0 for none.

        Overwrites the oldest entries. Of four answers in one bucket the oldest gives way.
        """
        w = self.words
        at: cython.uint
        oldest: cython.uint
        slot: cython.uint
        k: cython.uint
        pick: cython.uint = 0
        age: cython.uint
        best: cython.uint

        if size > (self.end - self.log) // 8:
            return 0
        w[5] = 1  # torn until the store is complete: a worker killed here leaves an arena that is not adopted
        at = w[2]
        oldest = w[3]
        if at + size > self.end:
            # The round is over: what is left of the last one behind the write place goes.
            while oldest >= at and oldest < w[4]:
                self.evicted += self.drop(oldest)
                oldest += w[oldest]
            w[4] = at
            at = self.log
            oldest = self.log
        while oldest >= at and oldest < w[4] and oldest < at + size:
            self.evicted += self.drop(oldest)
            oldest += w[oldest]
        if at + size > w[4]:
            w[4] = at + size
            oldest = at + size
        w[2] = at + size
        w[3] = oldest
        slot = 16 + (h & self.mask) * 8
        # Few buckets while there are few answers: the processor's own caches hold them then.
        while (
            4 * w[7] > self.mask
            and self.mask + 1 < cython.cast(cython.uint, self.buckets)
            and w[slot + 1] and w[slot + 3] and w[slot + 5] and w[slot + 7]
        ):  # fmt: skip
            self.grow()
            slot = 16 + (h & self.mask) * 8
        w[7] += 1
        best = 0
        for k in range(4):
            if w[slot + 2 * k + 1] == 0:
                pick = k
                break
            age = w[slot + 2 * k + 1]
            age = at - age if age <= at else at + self.end - age
            if age >= best:
                best = age
                pick = k
        else:
            w[7] -= 1  # one for another
            self.evicted += 1
        w[slot + 2 * pick] = h
        w[slot + 2 * pick + 1] = at
        return cython.cast(cython.int, at)

    def entries(self, name: bytes, below: bool = False) -> list[int]:
        """The words of the answers about a name (`below`: and about every name below it), expired or not."""
        w = self.words
        size: cython.uint = len(name)
        wide: cython.int = 1 if below else 0
        wanted: cython.const[cython.uchar][::1] = name
        slot: cython.uint
        at: cython.uint
        length: cython.uint
        base: cython.uint
        k: cython.uint
        found = []

        for slot in range(16, 16 + 8 * (self.mask + 1), 2):
            at = w[slot + 1]
            if at == 0:
                continue
            length = w[at + 2] & 255
            if length < size or (length > size and not wide):
                continue
            base = 4 * (at + 16) + length - size
            k = 0
            while k < size and self.arena[base + k] == wanted[k]:
                k += 1
            if k == size and (length == size or below_labels(bytes(self.arena[4 * (at + 16) : base + size]), size)):
                found.append(at)
        return found

    def entry_at(self, at: int) -> tuple[bytes, int, int, int, int, int, int, int]:
        """An answer's name, qtype, DO and CD bits, route, rcode (bit 16: AD), answers, when it expires, and for how many
        seconds before that it was past its time already.
        """
        w = self.words
        name = bytes(self.arena[4 * (at + 16) : 4 * (at + 16) + (w[at + 2] & 255)])
        return name, w[at + 3], w[at + 4], w[at + 5], w[at + 8], w[at + 9], w[at + 13], (w[at + 2] >> 8) & 8388607

    def put(
        self,
        name: cython.const[cython.uchar][::1],
        name_length: cython.int,
        h: cython.uint,
        qtype: cython.int,
        bits: cython.int,
        route: cython.int,
        data: cython.const[cython.uchar][::1],
        body: cython.int,
        length: cython.int,
        question: cython.int,
        rcode: cython.int,
        answers: cython.int,
        authorities: cython.int,
        additionals: cython.int,
        ttls: cython.int,
        ttl_count: cython.int,
        pointers: cython.int,
        pointer_count: cython.int,
        now: cython.uint,
        ttl: cython.uint,
    ) -> cython.int:
        """Remember an answer for `ttl` seconds from `now`; its word, 0 when it is too large to be kept.

        `length` octets of records at `data[body:]`, and behind them the text whose length is in `rcode`; at `data[ttls:]` and `data[pointers:]` places in them, u16, most
        significant first (as `message.Reader` leaves them).
        """
        w = self.words
        mixed: cython.uint = self.mixed(h, qtype, bits, route)
        size: cython.uint
        at: cython.uint = self.seek(name, name_length, mixed, qtype, bits, route)
        to: cython.int

        if at:
            self.drop(at)
        length += rcode >> 24  # the text goes with the records
        size = 16 + cython.cast(cython.uint, name_length + 2 * (ttl_count + pointer_count) + length + 3) // 4
        at = cython.cast(cython.uint, self.reserve(mixed, size))
        if at == 0:
            return 0
        w[at] = size
        w[at + 1] = mixed
        w[at + 2] = name_length
        w[at + 3] = qtype
        w[at + 4] = bits
        w[at + 5] = route
        w[at + 6] = question
        w[at + 7] = length - (rcode >> 24)
        w[at + 8] = rcode
        w[at + 9] = answers
        w[at + 10] = authorities | (additionals << 16)
        w[at + 11] = ttl_count | (pointer_count << 16)
        w[at + 12] = now
        w[at + 13] = now + ttl
        w[at + 14] = 0
        w[at + 15] = 0
        to = copy(self.arena, 4 * (cython.cast(cython.int, at) + 16), name, 0, name_length)
        to = copy(self.arena, to, data, ttls, 2 * ttl_count)
        to = copy(self.arena, to, data, pointers, 2 * pointer_count)
        copy(self.arena, to, data, body, length)
        w[5] = 0
        self.stored += 1
        return cython.cast(cython.int, at)

    def store(
        self, name: bytes, h: int, qtype: int, bits: int, route: int, response: Response, now: int, ttl: int,
        ede: int = -1, text: bytes = b"",
    ) -> bool:  # fmt: skip
        """Remember a response for `ttl` seconds from `now`; False when it is too large to be kept.

        `ede` and `text`: the Extended DNS Error that goes with it (`extended`).
        """
        if len(response.ttls) > 0xFFFF or len(response.pointers) > 0xFFFF or ttl <= 0:
            return False
        ttls = struct.pack(f">{len(response.ttls)}H", *response.ttls)
        pointers = struct.pack(f">{len(response.pointers)}H", *response.pointers)
        data = memoryview(ttls + pointers + response.body + (text[:MOST_TEXT] if ede >= 0 else b"") + b"\x00")
        body = len(ttls) + len(pointers)
        at = self.put(
            memoryview(name), len(name), h, qtype, bits, route, data, body, len(response.body), response.question,
            extended(response.rcode, ede, text), response.answers, response.authorities, response.additionals, 0, len(response.ttls),
            len(ttls), len(response.pointers), now, ttl,
        )  # fmt: skip
        return bool(at)

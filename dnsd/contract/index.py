"""Build the hash index over names that `table` probes.

Compiled by Cython with the types in `index.pxd`, because it runs once per listed name. Names are
placed in the order given (sorted), so equal names give equal bytes; the seed is the smallest
number that keeps every probe run within the layout's bound, so no prepared collision survives it.
"""

import cython

if not cython.compiled:
    from dnsd.contract.layout import INDEX_HEAD, MAX_RUN


def suffix_hash(data, at: cython.uint, seed: cython.uint, labels) -> cython.uint:
    """Hash the wire name at `data[at:]`; equals `Query.hash_*[0]` for that qname. `labels` is scratch for 129 words.

    `labels[128]` is left holding the number of labels.
    """
    mask: cython.ulonglong = 4294967295
    prime: cython.ulonglong = 16777619
    basis: cython.ulonglong = 2166136261
    spread: cython.ulonglong = 2654435761
    mix1: cython.ulonglong = 2246822507
    h: cython.ulonglong
    m: cython.ulonglong
    n: cython.uint = 0
    i: cython.uint = at
    k: cython.uint
    size: cython.uint

    while data[i]:
        labels[n] = i
        n += 1
        i += data[i] + 1
    labels[128] = n
    h = basis ^ ((spread * seed) & mask)
    while n > 0:
        n -= 1
        i = labels[n]
        size = data[i] + 1
        for k in range(size):
            h = ((h ^ data[i + k]) * prime) & mask
    m = ((h ^ (h >> 16)) * mix1) & mask
    return cython.cast(cython.uint, m ^ (m >> 13))


def place(
    data,
    offsets,
    skip: cython.uint,
    refs,
    seed: cython.uint,
    mask: cython.uint,
    slots,
    labels,
    limit: cython.uint,
) -> cython.int:
    """Fill empty `slots`; name i stands at `data[offsets[i] + skip:]` and is referred to as `refs[i]` (from 1).

    Returns the longest probe run, or -1 as soon as one exceeds `limit`. `labels` is scratch of 132 words (see
    `suffix_hash`); the label counts that occur are added to its words 129 and 130, a bit each.
    """
    i: cython.uint
    h: cython.uint
    slot: cython.uint
    run: cython.uint
    longest: cython.uint = 0
    n: cython.uint
    one: cython.uint = 1

    for i in range(len(offsets)):
        h = suffix_hash(data, offsets[i] + skip, seed, labels)
        n = labels[128]
        if n > 63:
            n = 63
        if n < 32:
            labels[129] |= one << n
        else:
            labels[130] |= one << (n - 32)
        slot = h & mask
        run = 0
        while slots[2 * slot + 1]:
            slot = (slot + 1) & mask
            run += 1
            if run > limit:
                return -1
        slots[2 * slot] = h
        slots[2 * slot + 1] = refs[i]
        if run > longest:
            longest = run
    return longest


def build(data: bytes, offsets, skip: int, refs) -> tuple[bytes, int]:
    """The index section's bytes, and its seed. `offsets` and `refs` are buffers of u32; at most half the slots are used."""
    count = len(offsets)
    log2 = max(3, (2 * count - 1).bit_length() if count else 3)
    seed = 0
    while True:
        slots = memoryview(bytearray(8 << log2)).cast("I")
        labels = memoryview(bytearray(4 * 132)).cast("I")
        run = place(memoryview(data), offsets, skip, refs, seed, (1 << log2) - 1, slots, labels, MAX_RUN)
        if run >= 0:
            head = memoryview(bytearray(4 * INDEX_HEAD)).cast("I")
            head[0], head[1], head[2], head[3] = log2, run, labels[129], labels[130]
            return bytes(head.cast("B")) + bytes(slots.cast("B")), seed
        seed += 1
        if seed % 16 == 0:
            log2 += 1

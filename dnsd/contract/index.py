"""Build the hash index over names that `table` probes.

Compiled by Cython with the types in `index.pxd`, because it runs once per listed name. Names are
placed in the order given (sorted), so equal names give equal bytes; the seed is the smallest
number that keeps every probe run within the layout's bound, so no prepared collision survives it.
"""

import cython

if not cython.compiled:
    from dnsd.contract.layout import INDEX_HEAD, MAX_RUN

# What `check_records` can find.
RECORD_PROBLEMS = (
    "",
    "a slot of the names index refers to no record",
    "a listed name's listset does not exist",
    "a record of the names blob holds no name",
    "the names index has no empty slot",
)


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


def sort_keys(data, offsets, labels, keys) -> cython.int:
    """Write the sort key of every name: its hash for seed 0, turned left by ten bits.

    Names in this order come close to the order of their first slots, whatever the number of slots, so an index of
    millions is filled in a few sweeps and not at random. `labels` is scratch of 132 words.
    """
    i: cython.uint
    h: cython.uint
    zero: cython.uint = 0

    for i in range(len(offsets)):
        h = suffix_hash(data, offsets[i], zero, labels)
        keys[i] = ((h & 4194303) << 10) | (h >> 22)
    return 0


def place_keyed(keys, refs, mask: cython.uint, slots, limit: cython.uint) -> cython.int:
    """`place` for seed 0 and names whose sort keys are known."""
    i: cython.uint
    h: cython.uint
    slot: cython.uint
    run: cython.uint
    longest: cython.uint = 0

    for i in range(len(keys)):
        h = (keys[i] >> 10) | ((keys[i] & 1023) << 22)
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


def count_labels(data, offsets, skip: cython.uint, labels) -> cython.int:
    """Add the label counts that occur to words 129 and 130 of `labels`, as `place` does."""
    i: cython.uint
    at: cython.uint
    n: cython.uint
    low: cython.uint = 0
    high: cython.uint = 0
    one: cython.uint = 1

    for i in range(len(offsets)):
        at = offsets[i] + skip
        n = 0
        while data[at] and n < 63:
            at += data[at] + 1
            n += 1
        if n < 32:
            low |= one << n
        else:
            high |= one << (n - 32)
    labels[129] |= low
    labels[130] |= high
    return 0


def check_records(slots, records, listsets: cython.uint) -> cython.int:
    """Check what every slot of a names index refers to; 0 when all is well, else a number of `RECORD_PROBLEMS`."""
    i: cython.uint
    at: cython.uint
    last: cython.uint
    listset: cython.uint
    ref: cython.ulonglong
    size: cython.ulonglong = len(records)
    empty: cython.uint = 0

    for i in range(len(slots) // 2):
        ref = slots[2 * i + 1]
        if ref == 0:
            empty = 1
            continue
        ref = (ref - 1) * 4
        if ref + 5 > size:
            return 1
        at = cython.cast(cython.uint, ref)
        listset = records[at + 3]
        listset = (listset << 8) | records[at + 2]
        listset = (listset << 8) | records[at + 1]
        listset = (listset << 8) | records[at]
        if listset >= listsets:
            return 2
        at += 4
        last = at + 254
        if last >= size:
            last = cython.cast(cython.uint, size) - 1
        while at <= last and records[at]:
            if records[at] > 63:
                return 3
            at += records[at] + 1
        if at > last:
            return 3
    return 0 if empty else 4


def size(count: int) -> int:
    """log2 of the number of slots for so many names: at most half of them are used."""
    return max(3, (2 * count - 1).bit_length() if count else 3)


def build(data: bytes, offsets, skip: int, refs) -> tuple[bytes, int]:
    """The index section's bytes, and its seed. `offsets` and `refs` are buffers of u32."""
    log2 = size(len(offsets))
    seed = 0
    while True:
        section = bytearray(4 * INDEX_HEAD + (8 << log2))
        if fill(section, log2, seed, data, offsets, skip, refs):
            return bytes(section), seed
        seed += 1
        if seed % 16 == 0:
            log2 += 1


def fill(section, log2: int, seed: int, data, offsets, skip: int, refs, keys=None) -> bool:
    """Write an index into `section` (zero, of the right length); False when this seed gives too long a run.

    `keys` are the names' sort keys, if the caller has them: they save hashing again for seed 0.
    """
    words = memoryview(section).cast("I")
    slots = words[INDEX_HEAD:]
    labels = memoryview(bytearray(4 * 132)).cast("I")
    if keys is not None and seed == 0:
        run = place_keyed(keys, refs, (1 << log2) - 1, slots, MAX_RUN)
        if run >= 0:
            count_labels(data, offsets, skip, labels)
    else:
        run = place(data, offsets, skip, refs, seed, (1 << log2) - 1, slots, labels, MAX_RUN)
    if run < 0:
        return False
    words[0], words[1], words[2], words[3] = log2, run, labels[129], labels[130]
    return True

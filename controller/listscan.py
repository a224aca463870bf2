"""Millions of names at once: text to wire, sorted, made distinct, merged and laid out, without an object per name.

Compiled by Cython with the types in `listscan.pxd`; the same text runs interpreted, slowly. Names stand one after
another in a buffer and are known by their offsets. They are sorted by `index.sort_keys`, names with equal keys by
their octets. All buffers come from the caller (`controller.segments`), which also takes the lines that are not plain.
"""

import cython

# Classes of characters in the table `fold`; from 5 on it is the character itself, in lower case.
DOT, BLANK, END, HASH = 1, 2, 3, 4


def fold_table() -> bytes:
    """Each octet's class for `scan`, or the octet in lower case when it may stand in a label."""
    table = bytearray(256)
    for c in range(256):
        if 97 <= c <= 122 or 48 <= c <= 57 or c in (45, 95):
            table[c] = c
        elif 65 <= c <= 90:
            table[c] = c + 32
    table[46], table[35] = DOT, HASH
    table[32] = table[9] = BLANK
    table[10] = table[13] = END
    return bytes(table)


def scan(
    text, at: cython.uint, end: cython.uint, hosts: cython.int, nulls: cython.int, fold, wire, offsets, odd, marks
) -> cython.uint:
    """Read whole lines from `at` until one begins at or after `end`; returns where the next one begins.

    Plain names go to `wire`, with their places in `offsets`; any other line that says something goes to `odd` as
    (begin, end, line number). `nulls`: a name may have a null address before it; `hosts`: it must. `marks` counts on:
    names, octets, odd lines, lines. Stops early when a buffer is nearly full.
    """
    size: cython.uint = len(text)
    i: cython.uint
    k: cython.uint
    line: cython.uint
    o: cython.uint
    label: cython.uint
    start: cython.uint
    n: cython.uint = marks[0]
    w: cython.uint = marks[1]
    odds: cython.uint = marks[2]
    number: cython.uint = marks[3]
    c: cython.uint
    letters: cython.uint
    plain: cython.int
    most_names: cython.uint = len(offsets)
    most_octets: cython.uint = len(wire)
    most_odd: cython.uint = len(odd)

    while at < end:
        if n >= most_names or w + 260 > most_octets or 3 * odds + 3 > most_odd:
            break
        line = at
        i = at
        while i < size and fold[text[i]] == 2:
            i += 1
        plain = 1
        if i < size and fold[text[i]] != 3 and text[i] != 35 and text[i] != 33 and text[i] != 59:
            if nulls:
                # 0.0.0.0, 127.0.0.1, ::, ::1 or 0, and a blank after it
                k = i
                if text[i] == 48:
                    if i + 7 < size and text[i + 1] == 46 and text[i + 2] == 48 and text[i + 3] == 46:
                        if text[i + 4] == 48 and text[i + 5] == 46 and text[i + 6] == 48:
                            k = i + 7
                    else:
                        k = i + 1
                elif text[i] == 49:
                    if i + 9 < size and text[i + 1] == 50 and text[i + 2] == 55 and text[i + 3] == 46:
                        if text[i + 4] == 48 and text[i + 5] == 46 and text[i + 6] == 48 and text[i + 7] == 46:
                            if text[i + 8] == 49:
                                k = i + 9
                elif text[i] == 58:
                    if i + 2 < size and text[i + 1] == 58:
                        k = i + 2
                        if text[i + 2] == 49:
                            k = i + 3
                if k > i and k < size and fold[text[k]] == 2:
                    i = k
                    while i < size and fold[text[i]] == 2:
                        i += 1
                elif hosts:
                    plain = 0
            if plain:
                start = w
                label = w
                o = w + 1
                letters = 0
                while True:
                    c = 3
                    if i < size:
                        c = fold[text[i]]
                    if c > 4:
                        if o - start > 253:
                            plain = 0
                            break
                        wire[o] = c
                        o += 1
                        if c < 48 or c > 57:
                            letters = 1
                    elif c == 1:
                        if o == label + 1 or o - label > 64 or o - start > 252:
                            plain = 0
                            break
                        wire[label] = o - label - 1
                        label = o
                        o += 1
                        letters = 0
                    else:
                        break
                    i += 1
                # An empty label, a final dot, a number as top-level domain: all these want a closer look.
                if c == 0 or letters == 0 or o == label + 1 or o - label > 64:
                    plain = 0
                if plain:
                    while i < size and fold[text[i]] == 2:
                        i += 1
                    if i < size and fold[text[i]] != 3 and text[i] != 35:
                        plain = 0
                if plain:
                    wire[label] = o - label - 1
                    wire[o] = 0
                    offsets[n] = start
                    n += 1
                    w = o + 1
        while i < size and text[i] != 10 and text[i] != 13:
            i += 1
        if not plain:
            odd[3 * odds] = line
            odd[3 * odds + 1] = i
            odd[3 * odds + 2] = number
            odds += 1
        if i + 1 < size and text[i] == 13 and text[i + 1] == 10:
            i += 1
        at = i + 1
        number += 1
    marks[0] = n
    marks[1] = w
    marks[2] = odds
    marks[3] = number
    return at


def sort_pairs(keys, refs, keys2, refs2, counts) -> cython.int:
    """Sort pairs by key, keeping the order of equals, into `keys2` and `refs2`. `counts` is scratch: 3 * 2048 words."""
    size: cython.uint = len(keys)
    i: cython.uint
    k: cython.uint
    d: cython.uint
    low: cython.uint = 0
    middle: cython.uint = 0
    high: cython.uint = 0
    was: cython.uint

    for i in range(3 * 2048):
        counts[i] = 0
    for i in range(size):
        k = keys[i]
        counts[k & 2047] += 1
        counts[2048 + ((k >> 11) & 2047)] += 1
        counts[4096 + (k >> 22)] += 1
    for i in range(2048):
        was = counts[i]
        counts[i] = low
        low += was
        was = counts[2048 + i]
        counts[2048 + i] = middle
        middle += was
        was = counts[4096 + i]
        counts[4096 + i] = high
        high += was
    for i in range(size):
        k = keys[i]
        d = k & 2047
        keys2[counts[d]] = k
        refs2[counts[d]] = refs[i]
        counts[d] += 1
    for i in range(size):
        k = keys2[i]
        d = 2048 + ((k >> 11) & 2047)
        keys[counts[d]] = k
        refs[counts[d]] = refs2[i]
        counts[d] += 1
    for i in range(size):
        k = keys[i]
        d = 4096 + (k >> 22)
        keys2[counts[d]] = k
        refs2[counts[d]] = refs[i]
        counts[d] += 1
    return 0


def size_of(data, at: cython.uint) -> cython.uint:
    """How many octets the name at `at` has."""
    i: cython.uint = at

    while data[i]:
        i += data[i] + 1
    return i + 1 - at


def compare(data, a: cython.uint, b: cython.uint) -> cython.int:
    """The order of two names by their octets: -1, 0 or 1."""
    left: cython.uint = 1

    while data[a] == data[b]:
        left -= 1
        if left == 0:
            if data[a] == 0:
                return 0
            left = data[a] + 1
        a += 1
        b += 1
    return -1 if data[a] < data[b] else 1


def by_name(data, offsets, refs, first: cython.uint, last: cython.uint) -> cython.int:
    """Sort `refs[first:last]` by name, then by number (shell sort: nobody can make that slow)."""
    gap: cython.uint = 1
    i: cython.uint
    j: cython.uint
    ref: cython.uint
    other: cython.uint
    sign: cython.int

    while gap < (last - first) // 3:
        gap = 3 * gap + 1
    while gap:
        for i in range(first + gap, last):
            ref = refs[i]
            j = i
            while j >= first + gap:
                other = refs[j - gap]
                sign = compare(data, offsets[other], offsets[ref])
                if sign < 0 or (sign == 0 and other < ref):
                    break
                refs[j] = other
                j -= gap
            refs[j] = ref
        gap //= 3
    return 0


def gather(data, offsets, keys, refs, wire, places, marks) -> cython.uint:
    """Copy names in the order of sorted `refs` to `wire`, each once; `keys` follow. Returns how many.

    `refs` are numbers into `offsets`; marks[1] gets the octets written.
    """
    size: cython.uint = len(keys)
    removed: cython.uint = 4294967295
    first: cython.uint = 0
    last: cython.uint
    i: cython.uint
    k: cython.uint
    at: cython.uint
    before: cython.uint
    length: cython.uint
    n: cython.uint = 0
    w: cython.uint = 0
    key: cython.uint

    while first < size:
        key = keys[first]
        last = first + 1
        while last < size and keys[last] == key:
            last += 1
        if last - first > 1:
            by_name(data, offsets, refs, first, last)
        before = removed
        for i in range(first, last):
            at = offsets[refs[i]]
            if before != removed and compare(data, at, before) == 0:
                continue
            before = at
            length = size_of(data, at)
            places[n] = w
            keys[n] = key
            n += 1
            for k in range(length):
                wire[w + k] = data[at + k]
            w += length
        first = last
    marks[1] = w
    return n


def unite(data, offsets, keys, refs, owners, steps, lists: cython.uint, sets, marks) -> cython.uint:
    """Make one of equal names of several lists: `keys`, `refs` and `sets` are written from the front. Returns how many.

    `owners[ref]` is the list that a name came from; `steps[set * lists + owner]` is the number of the set that has this
    list too, 0 while nobody has asked for it (set 0 is empty). An unknown step ends the call with marks[2] and
    marks[3] saying which (set + 1, owner); marks[0] and marks[1] are where to go on: pairs read, names written.
    """
    size: cython.uint = len(keys)
    first: cython.uint = marks[0]
    last: cython.uint
    i: cython.uint
    n: cython.uint = marks[1]
    number: cython.uint
    step: cython.uint
    key: cython.uint

    marks[2] = 0
    while first < size:
        key = keys[first]
        last = first + 1
        while last < size and keys[last] == key:
            last += 1
        if last - first > 1:
            by_name(data, offsets, refs, first, last)
        for i in range(first, last):
            number = 0
            if n > 0 and keys[n - 1] == key and compare(data, offsets[refs[i]], offsets[refs[n - 1]]) == 0:
                number = sets[n - 1]
            step = steps[number * lists + owners[refs[i]]]
            if step == 0:
                marks[0] = i
                marks[1] = n
                marks[2] = number + 1
                marks[3] = owners[refs[i]]
                return n
            if number == 0:
                keys[n] = key
                refs[n] = refs[i]
                n += 1
            sets[n - 1] = step
        first = last
    marks[0] = first
    marks[1] = n
    return n


def records_size(data, offsets, refs) -> cython.ulonglong:
    """How many octets `records` writes."""
    i: cython.uint
    total: cython.ulonglong = 0

    for i in range(len(refs)):
        total += (size_of(data, offsets[refs[i]]) + 7) // 4 * 4
    return total


def records(data, offsets, refs, sets, numbers, out, places) -> cython.uint:
    """Write the records of a names blob: listset number (u32), the name, zeros up to a multiple of four.

    `numbers[sets[i]]` is the listset of the i-th name; `places[i]` gets the record's offset / 4 + 1. `out` is zero.
    """
    i: cython.uint
    k: cython.uint
    at: cython.uint
    length: cython.uint
    number: cython.uint
    w: cython.uint = 0

    for i in range(len(refs)):
        number = numbers[sets[i]]
        places[i] = w // 4 + 1
        out[w] = number & 255
        out[w + 1] = (number >> 8) & 255
        out[w + 2] = (number >> 16) & 255
        out[w + 3] = number >> 24
        w += 4
        at = offsets[refs[i]]
        length = size_of(data, at)
        for k in range(length):
            out[w + k] = data[at + k]
        w += (length + 3) // 4 * 4
    return w


def shift(values, by: cython.uint) -> cython.int:
    """Add a number to each of these."""
    i: cython.uint

    for i in range(len(values)):
        values[i] += by
    return 0


def lower(values, count: cython.uint, used) -> cython.int:
    """Take one from each of the first `count`, and set `used` where the result says."""
    i: cython.uint

    for i in range(count):
        values[i] -= 1
        used[values[i]] = 1
    return 0

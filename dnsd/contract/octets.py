"""Move, fold and compare runs of octets: both ranges are checked once, and then nobody looks at each octet again.

Compiled by Cython with the types in `octets.pxd`. The query path's copies all go through here, so this is
where bounds are kept. Raises IndexError for a range that leaves its buffer.
"""

import cython

if cython.compiled:
    from cython.cimports.libc.string import memcmp, memmove


def copy(
    out: cython.uchar[::1], at: cython.int, data: cython.const[cython.uchar][::1], first: cython.int, length: cython.int
) -> cython.int:
    """Copy `length` octets from `data[first:]` to `out[at:]`; returns where the next one goes."""
    if length < 0 or first < 0 or at < 0 or length > data.shape[0] - first or length > out.shape[0] - at:
        raise IndexError
    if length == 0:
        return at
    if cython.compiled:
        memmove(cython.address(out[at]), cython.address(data[first]), length)
    else:
        out[at : at + length] = data[first : first + length]
    return at + length


def equal(
    one: cython.const[cython.uchar][::1],
    at: cython.int,
    two: cython.const[cython.uchar][::1],
    first: cython.int,
    length: cython.int,
) -> cython.int:
    """Whether `length` octets from `one[at:]` and `two[first:]` are the same; what would leave a buffer is not."""
    if length < 0 or first < 0 or at < 0 or length > two.shape[0] - first or length > one.shape[0] - at:
        return 0
    if length == 0:
        return 1
    if cython.compiled:
        return memcmp(cython.address(one[at]), cython.address(two[first]), length) == 0
    return 1 if one[at : at + length] == two[first : first + length] else 0


def fold(
    out: cython.uchar[::1], data: cython.const[cython.uchar][::1], first: cython.int, length: cython.int
) -> cython.int:
    """Copy `length` octets from `data[first:]` to the beginning of `out`, A to Z in lower case; returns `length`.

    A whole wire name may be folded at once: the octet of a label's length is less than "A" (RFC 4343, section 3).
    What stands in `out` behind them, up to a multiple of 16, may be overwritten.
    """
    # Of a pointer's width: only then does the C compiler see one step an octet, and take sixteen at a time.
    k: cython.Py_ssize_t
    at: cython.Py_ssize_t = first
    c: cython.uchar
    whole: cython.Py_ssize_t = (length + 15) & -16

    if length < 0 or first < 0 or length > data.shape[0] - first or length > out.shape[0]:
        raise IndexError
    # Whole vectors where both buffers have room for them: there is no rest to be done octet by octet.
    if whole > data.shape[0] - first or whole > out.shape[0]:
        whole = length
    with cython.boundscheck(False):
        for k in range(whole):
            c = data[at + k]
            out[k] = c + 32 if 65 <= c <= 90 else c
    return length

"""SipHash-2-4 (Aumasson and Bernstein, 2012): a keyed hash of a few octets.

Compiled by Cython with the types in `siphash.pxd`; interpreted and compiled text wrap alike, because every sum is
masked to 64 bits.
"""

import cython


def siphash(
    data: cython.const[cython.uchar][::1],
    first: cython.int,
    length: cython.int,
    k0: cython.ulonglong,
    k1: cython.ulonglong,
) -> cython.ulonglong:
    """Hash `length` octets of `data[first:]` under the key (`k0`, `k1`); raises IndexError for what is not there."""
    low: cython.ulonglong = 4294967295
    mask: cython.ulonglong = (low << 32) | low
    v0: cython.ulonglong = 8317987319222330741
    v1: cython.ulonglong = 7237128888997146477
    v2: cython.ulonglong = 7816392313619706465
    v3: cython.ulonglong = 8387220255154660723
    m: cython.ulonglong
    octet: cython.ulonglong
    word: cython.int
    _turn: cython.int
    rounds: cython.int
    k: cython.int
    words: cython.int = length // 8 + 2  # the last one ends the message, the one after it is the final rounds

    if first < 0 or length < 0 or length > data.shape[0] - first:
        raise IndexError
    v0 ^= k0
    v1 ^= k1
    v2 ^= k0
    v3 ^= k1
    for word in range(words):
        m = 0
        rounds = 2
        if word == words - 1:
            v2 ^= 255
            rounds = 4
        else:
            for k in range(8):
                if 8 * word + k < length:
                    octet = data[first + 8 * word + k]
                    m |= octet << (8 * k)
            if word == words - 2:
                octet = length & 255
                m |= octet << 56
        v3 ^= m
        for _turn in range(rounds):
            v0 = (v0 + v1) & mask
            v1 = ((v1 << 13) & mask) | (v1 >> 51)
            v1 ^= v0
            v0 = ((v0 << 32) & mask) | (v0 >> 32)
            v2 = (v2 + v3) & mask
            v3 = ((v3 << 16) & mask) | (v3 >> 48)
            v3 ^= v2
            v0 = (v0 + v3) & mask
            v3 = ((v3 << 21) & mask) | (v3 >> 43)
            v3 ^= v0
            v2 = (v2 + v1) & mask
            v1 = ((v1 << 17) & mask) | (v1 >> 47)
            v1 ^= v2
            v2 = ((v2 << 32) & mask) | (v2 >> 32)
        v0 ^= m
    return v0 ^ v1 ^ v2 ^ v3

"""DNS cookies of the server's side (RFC 7873, in the form of RFC 9018): who has one really has that address.

Compiled by Cython with the types in `cookies.pxd`. Nothing is stored: a server cookie is a keyed hash of client
cookie, time and address. All nodes with the same secret know each other's.
"""

import cython

if not cython.compiled:
    from dnsd.contract.octets import copy
    from dnsd.contract.query import Query
    from dnsd.contract.siphash import siphash


class Cookies:
    """Makes and checks cookies under a `secret` of 16 octets; raises ValueError for another length."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 16:
            raise ValueError(f"a cookie secret has 16 octets, not {len(secret)}")
        self.k0 = int.from_bytes(secret[:8], "little")
        self.k1 = int.from_bytes(secret[8:], "little")
        self.data = memoryview(bytearray(32))

    def hashed(self, q: Query) -> cython.ulonglong:
        """The hash of what stands in `data[:16]` (client cookie, version, time) and the client's address.

        Four octets of address for IPv4, sixteen for IPv6.
        """
        mapped: cython.int = 1
        k: cython.int

        if q.client_words[0] != 0 or q.client[10] != 255 or q.client[11] != 255 or q.client[8] != 0 or q.client[9] != 0:
            mapped = 0
        if mapped:
            copy(self.data, 16, q.client, 12, 4)
            return siphash(self.data, 0, 20, self.k0, self.k1)
        for k in range(16):
            self.data[16 + k] = q.client[k]
        return siphash(self.data, 0, 32, self.k0, self.k1)

    def valid(self, q: Query, now: cython.uint) -> cython.int:
        """Whether the question brings a server cookie that we gave to this address within the last hour."""
        made: cython.uint
        hash_: cython.ulonglong
        given: cython.ulonglong = 0
        octet: cython.ulonglong
        k: cython.int

        if q.cookie == 0 or q.cookie_length != 24 or q.buf[q.cookie + 8] != 1:
            return 0
        made = q.buf[q.cookie + 12]
        made = (made << 24) | (q.buf[q.cookie + 13] << 16) | (q.buf[q.cookie + 14] << 8) | q.buf[q.cookie + 15]
        # An older one is not taken, nor one that is so far in the future (RFC 9018, section 4.3).
        if made > now + 300 or now > made + 3600:
            return 0
        copy(self.data, 0, q.buf, q.cookie, 16)
        hash_ = self.hashed(q)
        for k in range(8):
            octet = q.buf[q.cookie + 16 + k]
            given |= octet << (8 * k)
        return 1 if given == hash_ else 0

    def write(self, q: Query, out: cython.uchar[::1], at: cython.int, now: cython.uint) -> cython.int:
        """Write the cookie option for the client of `q` to `out[at:]`: 28 octets; returns where the next one goes."""
        hash_: cython.ulonglong
        k: cython.int

        copy(self.data, 0, q.buf, q.cookie, 8)
        self.data[8] = 1
        self.data[9] = self.data[10] = self.data[11] = 0
        self.data[12] = (now >> 24) & 255
        self.data[13] = (now >> 16) & 255
        self.data[14] = (now >> 8) & 255
        self.data[15] = now & 255
        hash_ = self.hashed(q)
        out[at] = 0
        out[at + 1] = 10
        out[at + 2] = 0
        out[at + 3] = 24
        at = copy(out, at + 4, self.data, 0, 16)
        for k in range(8):
            out[at + k] = (hash_ >> (8 * k)) & 255
        return at + 8

"""Parse one question packet into a reusable `Query`, and hash the suffixes of its qname.

Ordinary Python, compiled by Cython with the types in `query.pxd` and bounds checks on. A `Query`
is made once and filled again and again: it allocates nothing per packet. It does not know tables
or rules; what it finds wrong is left in `fault` as the action of `codes` that answers it.

Two traps of this style: a literal above 2**31 - 1 turns a C expression into Python integers, so
such constants stand in typed locals; and arithmetic is done in 32-bit lanes of a `ulonglong`, so
that interpreted and compiled text wrap alike.
"""

import cython

if not cython.compiled:
    from dnsd.contract.codes import (
        ACTION_BADVERS,
        ACTION_DROP,
        ACTION_FORMERR,
        ACTION_NONE,
        ACTION_NOTIMP,
        OPCODE_QUERY,
        TYPE_OPT,
    )
    from dnsd.contract.octets import fold

MAX_LABELS = 128


class Query:
    """One question: where it stands in `buf`, and what it asks.

    `buf` holds packets, `base` is where this one begins. `name` is the qname in lower case, wire format;
    `label[i]` the offset in it of label i (`label[labels]` is the root's). `hash_policy[i]` and `hash_names[i]`
    hash the suffix that begins at label i, with the seed of either blob's index. `client` is the asker's address, 16 bytes,
    IPv4 mapped. `options` is where the EDNS options begin in `buf`. `fault` is ACTION_NONE or how to refuse.
    `cookie` is where a cookie of `cookie_length` octets stands in `buf` (0: none), `nsid` 1 when the
    server's name is asked, `keepalive` 1 when it is asked how long a connection may be idle.
    `hashed` is 1 when the hashes are of this name and of these seeds.
    """

    def __init__(self, buf: object) -> None:
        self.buf = memoryview(buf)  # type: ignore[arg-type]
        self.name = memoryview(bytearray(256))
        client = memoryview(bytearray(16))
        self.client = client
        self.client_words = client.cast("Q")
        self.label = memoryview(bytearray(4 * 132)).cast("I")
        self.hash_policy = memoryview(bytearray(4 * 132)).cast("I")
        self.hash_names = memoryview(bytearray(4 * 132)).cast("I")
        self.seed_policy = 0
        self.seed_names = 0
        self.base = 0
        self.length = 0
        self.flags = 0
        self.opcode = 0
        self.labels = 0
        self.name_length = 0
        self.question_end = 0
        self.qtype = 0
        self.qclass = 0
        self.edns = 0
        self.udp_size = 512
        self.edns_version = 0
        self.do = 0
        self.options = 0
        self.options_length = 0
        self.fault = 0
        self.hashed = 0
        self.cookie = 0
        self.cookie_length = 0
        self.nsid = 0
        self.keepalive = 0

    def parse(self, base: cython.int, length: cython.int) -> cython.int:
        """Read the packet of `length` octets at `base`; returns `fault` (ACTION_NONE when it is a fair question).

        RFC 1035, section 4.1; RFC 6891, section 6.1 (one OPT at most, owner root, version 0).
        """
        at: cython.int = base + 12
        n: cython.int
        labels: cython.int = 0
        flags: cython.int
        end: cython.int = base + length

        self.base = base
        self.length = length
        self.labels = 0
        self.name_length = 0
        self.question_end = 0
        self.qtype = 0
        self.qclass = 0
        self.edns = 0
        self.udp_size = 512
        self.edns_version = 0
        self.do = 0
        self.options_length = 0
        self.hashed = 0
        self.cookie = 0
        self.nsid = 0
        self.keepalive = 0
        self.fault = ACTION_NONE
        # Too short to have a header, or an answer: silence, or two servers would answer each other for ever.
        if length < 12:
            self.flags = 0
            self.fault = ACTION_DROP
            return ACTION_DROP
        flags = (self.buf[base + 2] << 8) | self.buf[base + 3]
        self.flags = flags
        if flags & 0x8000:
            self.fault = ACTION_DROP
            return ACTION_DROP
        self.opcode = (flags >> 11) & 15
        if self.opcode != OPCODE_QUERY:
            self.fault = ACTION_NOTIMP
            return ACTION_NOTIMP
        self.fault = ACTION_FORMERR
        if self.buf[base + 4] != 0 or self.buf[base + 5] != 1:
            return ACTION_FORMERR

        while True:
            if at >= end:
                return ACTION_FORMERR
            n = self.buf[at]
            if n == 0:
                break
            # A question is the first name in the packet: there is nothing that it could point to.
            if n > 63 or at + n >= end or at - base + n > 265:
                return ACTION_FORMERR
            self.label[labels] = at - base - 12
            labels += 1
            at += n + 1
        n = at - base - 12
        self.label[labels] = n
        at += 1
        if at + 4 > end:
            return ACTION_FORMERR
        self.labels = labels
        self.name_length = fold(self.name, self.buf, base + 12, n + 1)
        self.qtype = (self.buf[at] << 8) | self.buf[at + 1]
        self.qclass = (self.buf[at + 2] << 8) | self.buf[at + 3]
        self.question_end = at + 4
        n = self.buf[base + 6] | self.buf[base + 7] | self.buf[base + 8] | self.buf[base + 9]
        if n | self.buf[base + 10] | self.buf[base + 11]:
            return self.read_additional(at + 4, end)
        self.fault = ACTION_NONE
        return ACTION_NONE

    def skip_name(self, at: cython.int, end: cython.int) -> cython.int:
        """The offset behind the name at `at`, or 0 when it runs out of the packet."""
        n: cython.int
        while at < end:
            n = self.buf[at]
            if n == 0:
                return at + 1
            if n >= 192:
                return at + 2 if at + 2 <= end else 0
            if n > 63:
                return 0
            at += 1 + n
        return 0

    def read_additional(self, at: cython.int, end: cython.int) -> cython.int:
        """Walk over what follows the question, in search of the OPT record; returns `fault`."""
        k: cython.int
        start: cython.int
        rtype: cython.int
        rdlength: cython.int
        before: cython.int
        total: cython.int

        before = (
            (self.buf[self.base + 6] << 8) + self.buf[self.base + 7] + (self.buf[self.base + 8] << 8) + self.buf[self.base + 9]
        )
        total = before + (self.buf[self.base + 10] << 8) + self.buf[self.base + 11]
        self.fault = ACTION_FORMERR
        # The loop ends with the packet at the latest: each record takes at least 11 octets of it.
        for k in range(total):
            start = at
            at = self.skip_name(at, end)
            if at == 0 or at + 10 > end:
                return ACTION_FORMERR
            rtype = (self.buf[at] << 8) | self.buf[at + 1]
            rdlength = (self.buf[at + 8] << 8) | self.buf[at + 9]
            if at + 10 + rdlength > end:
                return ACTION_FORMERR
            if rtype == TYPE_OPT:
                if k < before or self.edns or self.buf[start] != 0:
                    return ACTION_FORMERR
                self.edns = 1
                self.udp_size = (self.buf[at + 2] << 8) | self.buf[at + 3]
                if self.udp_size < 512:
                    self.udp_size = 512
                self.edns_version = self.buf[at + 5]
                self.do = (self.buf[at + 6] >> 7) & 1
                self.options = at + 10
                self.options_length = rdlength
                if rdlength and self.read_options(at + 10, at + 10 + rdlength):
                    return ACTION_FORMERR
            at += 10 + rdlength
        self.fault = ACTION_NONE
        if self.edns and self.edns_version > 0:
            self.fault = ACTION_BADVERS
        return self.fault

    def read_options(self, at: cython.int, end: cython.int) -> cython.int:
        """Find the options that concern us among those of the OPT record; returns 1 when they are malformed.

        RFC 6891, section 6.1.2; RFC 7873, section 5.2.2 (a cookie has 8, or 16 to 40 octets); RFC 5001; RFC 7828.
        """
        code: cython.int
        length: cython.int

        while at < end:
            if at + 4 > end:
                return 1
            code = (self.buf[at] << 8) | self.buf[at + 1]
            length = (self.buf[at + 2] << 8) | self.buf[at + 3]
            at += 4
            if length > end - at:
                return 1
            if code == 10:
                if length != 8 and (length < 16 or length > 40):
                    return 1
                if self.cookie == 0:  # a second one is not looked at
                    self.cookie = at
                    self.cookie_length = length
            elif code == 3:
                self.nsid = 1
            elif code == 11:
                self.keepalive = 1
            at += length
        return 0

    def hash(self) -> cython.int:
        """Hash every suffix, from the root up: FNV-1a over (length, octets), seeded, then mixed. Returns 0.

        The same function places names in the indexes (`index.suffix_hash`); a test holds them together.
        """
        i: cython.int

        self.hashed = 1
        self.hash_with(self.seed_policy, self.hash_policy)
        if self.seed_names != self.seed_policy:
            return self.hash_with(self.seed_names, self.hash_names)
        for i in range(self.labels + 1):
            self.hash_names[i] = self.hash_policy[i]
        return 0

    def hash_with(self, seed: cython.uint, hashes: cython.uint[::1]) -> cython.int:
        """Hash every suffix with one seed into `hashes`; returns 0."""
        mask: cython.ulonglong = 4294967295
        prime: cython.ulonglong = 16777619
        basis: cython.ulonglong = 2166136261
        spread: cython.ulonglong = 2654435761
        mix1: cython.ulonglong = 2246822507
        h: cython.ulonglong
        m: cython.ulonglong
        i: cython.int = self.labels
        k: cython.int
        at: cython.int
        end: cython.int = self.label[i]

        if end > 255:
            raise IndexError
        h = basis ^ ((spread * seed) & mask)
        while True:
            m = ((h ^ (h >> 16)) * mix1) & mask
            hashes[i] = cython.cast(cython.uint, m ^ (m >> 13))
            if i == 0:
                return 0
            i -= 1
            at = self.label[i]
            # Inside of `name`, which has 256 octets: every label begins before `end`.
            with cython.boundscheck(False):
                for k in range(at, end):
                    h = ((h ^ self.name[k]) * prime) & mask
            end = at


def question(qname: bytes, qtype: int, client: bytes, *, edns: bool = True, qclass: int = 1) -> Query:
    """A `Query` for a question that no packet carried: what `explain`, `plan` and the rule tests ask.

    `qname` is a wire name, `client` 16 octets (IPv4 mapped).
    """
    packet = bytearray(b"\x00\x00\x01\x00\x00\x01\x00\x00\x00\x00\x00")
    packet.append(1 if edns else 0)
    packet += qname + qtype.to_bytes(2, "big") + qclass.to_bytes(2, "big")
    if edns:
        packet += b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00"
    query = Query(packet)
    query.parse(0, len(packet))
    set_client(query, client)
    return query


def set_client(query: Query, client: bytes) -> None:
    """Say who asks: 16 octets, IPv4 mapped."""
    i: cython.int
    view: cython.const[cython.uchar][::1] = memoryview(client)
    for i in range(16):
        query.client[i] = view[i]

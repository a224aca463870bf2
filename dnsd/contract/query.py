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

MAX_LABELS = 128


class Query:
    """One question: where it stands in `buf`, and what it asks.

    `buf` holds packets, `base` is where this one begins. `name` is the qname in lower case, wire format;
    `label[i]` the offset in it of label i (`label[labels]` is the root's). `hash_policy[i]` and `hash_names[i]`
    hash the suffix that begins at label i, with the seed of either blob's index. `client` is the asker's address, 16 bytes,
    IPv4 mapped. `options` is where the EDNS options begin in `buf`. `fault` is ACTION_NONE or how to refuse.
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

    def parse(self, base: cython.int, length: cython.int) -> cython.int:
        """Read the packet of `length` octets at `base`; returns `fault` (ACTION_NONE when it is a fair question).

        RFC 1035, section 4.1; RFC 6891, section 6.1 (one OPT at most, owner root, version 0).
        """
        buf = self.buf
        i: cython.int
        n: cython.int
        c: cython.int
        out: cython.int
        counts: cython.int
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
        self.fault = ACTION_NONE
        # Too short to have a header, or an answer: silence, or two servers would answer each other for ever.
        if length < 12:
            self.flags = 0
            self.fault = ACTION_DROP
            return ACTION_DROP
        self.flags = (buf[base + 2] << 8) | buf[base + 3]
        if self.flags & 0x8000:
            self.fault = ACTION_DROP
            return ACTION_DROP
        self.opcode = (self.flags >> 11) & 15
        if self.opcode != OPCODE_QUERY:
            self.fault = ACTION_NOTIMP
            return ACTION_NOTIMP
        if buf[base + 4] != 0 or buf[base + 5] != 1:
            self.fault = ACTION_FORMERR
            return ACTION_FORMERR

        i = base + 12
        out = 0
        while True:
            if i >= end:
                self.labels = 0
                self.fault = ACTION_FORMERR
                return ACTION_FORMERR
            n = buf[i]
            if n == 0:
                break
            # A question is the first name in the packet: there is nothing that it could point to.
            if n > 63 or i + n >= end or out + n + 2 > 255:
                self.labels = 0
                self.fault = ACTION_FORMERR
                return ACTION_FORMERR
            self.label[self.labels] = out
            self.labels += 1
            self.name[out] = n
            out += 1
            i += 1
            while n > 0:
                c = buf[i]
                if 65 <= c <= 90:
                    c += 32
                self.name[out] = c
                out += 1
                i += 1
                n -= 1
        self.label[self.labels] = out
        self.name[out] = 0
        self.name_length = out + 1
        i += 1
        if i + 4 > end:
            self.labels = 0
            self.fault = ACTION_FORMERR
            return ACTION_FORMERR
        self.qtype = (buf[i] << 8) | buf[i + 1]
        self.qclass = (buf[i + 2] << 8) | buf[i + 3]
        self.question_end = i + 4
        counts = buf[base + 6] | buf[base + 7] | buf[base + 8] | buf[base + 9] | buf[base + 10] | buf[base + 11]
        if counts:
            return self.read_additional(i + 4, end)
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
        buf = self.buf
        k: cython.int
        start: cython.int
        rtype: cython.int
        rdlength: cython.int
        before: cython.int
        total: cython.int

        before = (
            (buf[self.base + 6] << 8) + buf[self.base + 7] + (buf[self.base + 8] << 8) + buf[self.base + 9]
        )
        total = before + (buf[self.base + 10] << 8) + buf[self.base + 11]
        self.fault = ACTION_FORMERR
        # The loop ends with the packet at the latest: each record takes at least 11 octets of it.
        for k in range(total):
            start = at
            at = self.skip_name(at, end)
            if at == 0 or at + 10 > end:
                return ACTION_FORMERR
            rtype = (buf[at] << 8) | buf[at + 1]
            rdlength = (buf[at + 8] << 8) | buf[at + 9]
            if at + 10 + rdlength > end:
                return ACTION_FORMERR
            if rtype == TYPE_OPT:
                if k < before or self.edns or buf[start] != 0:
                    return ACTION_FORMERR
                self.edns = 1
                self.udp_size = (buf[at + 2] << 8) | buf[at + 3]
                if self.udp_size < 512:
                    self.udp_size = 512
                self.edns_version = buf[at + 5]
                self.do = (buf[at + 6] >> 7) & 1
                self.options = at + 10
                self.options_length = rdlength
            at += 10 + rdlength
        self.fault = ACTION_NONE
        if self.edns and self.edns_version > 0:
            self.fault = ACTION_BADVERS
        return self.fault

    def hash(self) -> cython.int:
        """Hash every suffix, from the root up: FNV-1a over (length, octets), seeded, then mixed. Returns 0.

        The same function places names in the indexes (`index.suffix_hash`); a test holds them together.
        """
        name = self.name
        mask: cython.ulonglong = 4294967295
        prime: cython.ulonglong = 16777619
        basis: cython.ulonglong = 2166136261
        spread: cython.ulonglong = 2654435761
        mix1: cython.ulonglong = 2246822507
        h: cython.ulonglong
        m: cython.ulonglong
        i: cython.int
        k: cython.int
        n: cython.int
        at: cython.int

        i = self.labels
        h = basis ^ ((spread * self.seed_policy) & mask)
        while True:
            m = ((h ^ (h >> 16)) * mix1) & mask
            self.hash_policy[i] = cython.cast(cython.uint, m ^ (m >> 13))
            if i == 0:
                break
            i -= 1
            at = self.label[i]
            n = name[at] + 1
            for k in range(n):
                h = ((h ^ name[at + k]) * prime) & mask
        if self.seed_names == self.seed_policy:
            for i in range(self.labels + 1):
                self.hash_names[i] = self.hash_policy[i]
            return 0
        i = self.labels
        h = basis ^ ((spread * self.seed_names) & mask)
        while True:
            m = ((h ^ (h >> 16)) * mix1) & mask
            self.hash_names[i] = cython.cast(cython.uint, m ^ (m >> 13))
            if i == 0:
                break
            i -= 1
            at = self.label[i]
            n = name[at] + 1
            for k in range(n):
                h = ((h ^ name[at + k]) * prime) & mask
        return 0


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

"""`review`: the second, shorter chain, on answers that came from outside.

Compiled by Cython with the types in `review.pxd`. In this order, first objection wins:

    cname       one of its CNAMEs leads to a name that policy blocks for this client
    rebinding   a private address in a public name
    networks    an address in a network that the rules refuse

It walks over the raw answer's records as the cache keeps them. The verdict becomes the objection's:
stage policy, and for the last two `guard` instead of a rule. The cache remembers for whom an answer
has passed, so a hit is walked over only once for each table, version of the facts and client class.
"""

import cython

if not cython.compiled:
    from dnsd.contract.codes import (
        ACTION_ALIAS,
        ACTION_NODATA,
        REPLY_NODATA,
        RULE_BLOCK,
        STAGE_POLICY,
        TYPE_A,
        TYPE_AAAA,
        TYPE_CNAME,
    )
    from dnsd.contract.factsview import FactsView
    from dnsd.contract.layout import (
        CANDIDATE_RULE,
        PROTECT_CNAME,
        PROTECT_HEAD,
        PROTECT_NETWORKS,
        PROTECT_REBINDING,
        ROUTE_REVIEWED,
        ROUTE_WORDS,
        RULE_ACTION,
        RULE_WORDS,
    )
    from dnsd.contract.query import Query
    from dnsd.contract.table import Table
    from dnsd.contract.verdict import Chain, Match, Verdict


class Reviewer:
    """Reviews one answer after the other; allocates nothing while it does."""

    def __init__(self) -> None:
        self.chain = Chain()
        self.scratch = Verdict()
        self.target = Query(bytearray(16))
        self.address = memoryview(bytearray(16))

    def wanted(self, t: Table, v: Verdict) -> cython.int:
        """Which protections (layout.PROTECT_* bits) this verdict's answer has to pass; 0 for none.

        Own zones, redirects and forwards of named domains are exempt; what an allow rule let through is not looked at
        for CNAMEs.
        """
        flags: cython.uint
        if t.protect_flags == 0 or v.route == 0 or v.action == ACTION_ALIAS:
            return 0
        if not t.words[t.routes + (v.route - 1) * ROUTE_WORDS + ROUTE_REVIEWED]:
            return 0
        flags = t.protect_flags & ~cython.cast(cython.uint, v.spared)
        if v.allowed:
            flags &= PROTECT_REBINDING | PROTECT_NETWORKS
        return cython.cast(cython.int, flags)

    def review(
        self,
        t: Table,
        f: FactsView,
        q: Query,
        v: Verdict,
        sname: cython.const[cython.uchar][::1],
        data: cython.const[cython.uchar][::1],
        body: cython.int,
        length: cython.int,
        question: cython.int,
        answers: cython.int,
    ) -> cython.int:
        """Look at an answer section: `answers` records at `data[body:]`; 1 when `v` is now an objection, 0 if it may pass.

        `sname` is the name that was asked for (lower case) and `question` the length of the question section that stood
        in front of the records, into which compression pointers may lead. Records that are not well-formed end the walk:
        nobody could use them either.
        """
        flags: cython.int = self.wanted(t, v)
        at: cython.int = body
        end: cython.int = body + length
        n: cython.int
        rtype: cython.int
        size: cython.int

        if flags == 0:
            return 0
        while answers > 0:
            answers -= 1
            while at < end:
                n = data[at]
                if n >= 192:
                    at += 2
                    break
                at += n + 1
                if n == 0:
                    break
            if at + 10 > end:
                return 0
            rtype = (data[at] << 8) | data[at + 1]
            size = (data[at + 8] << 8) | data[at + 9]
            at += 10
            if at + size > end:
                return 0
            if rtype == TYPE_CNAME:
                if flags & PROTECT_CNAME and self.load(sname, data, body, end, question, at):
                    if self.name(t, f, q, v):
                        return 1
            elif (rtype == TYPE_A and size == 4) or (rtype == TYPE_AAAA and size == 16):
                self.address_at(data, at, size)
                if flags & PROTECT_REBINDING and self.private(self.address, 0):
                    return self.guarded(t, v, 1)
                if flags & PROTECT_NETWORKS and self.refused(t, self.address, 0):
                    return self.guarded(t, v, 3)
            at += size
        return 0

    def address_at(self, data: cython.const[cython.uchar][::1], at: cython.int, size: cython.int) -> cython.int:
        """Put an address into `address`, as 16 octets."""
        k: cython.int
        for k in range(12):
            self.address[k] = 255 if k >= 10 else 0
        for k in range(size):
            self.address[16 - size + k] = data[at + k]
        return 0

    def load(
        self,
        sname: cython.const[cython.uchar][::1],
        data: cython.const[cython.uchar][::1],
        body: cython.int,
        end: cython.int,
        question: cython.int,
        at: cython.int,
    ) -> cython.int:
        """Make `target` the name at `data[at:]`, decompressed and in lower case; 0 when it is none."""
        x: Query = self.target
        inside: cython.int = 0  # 1 while the name goes on in the question
        hops: cython.int = 0
        k: cython.int = 0
        n: cython.int
        c: cython.int
        place: cython.int

        x.labels = 0
        while True:
            if inside:
                if at >= question - 4:
                    return 0
                n = sname[at]
            else:
                if at >= end:
                    return 0
                n = data[at]
            if n >= 192:
                if inside or at + 1 >= end or hops >= 32:
                    return 0
                hops += 1
                place = ((n & 63) << 8) | data[at + 1]
                if place < 12:
                    return 0
                if place < 12 + question:
                    inside = 1
                    at = place - 12
                else:
                    at = body + place - 12 - question
                continue
            if n > 63 or k + n + 1 > 255:
                return 0
            x.label[x.labels] = k
            x.name[k] = n
            k += 1
            at += 1
            if n == 0:
                x.name_length = k
                return 1
            x.labels += 1
            while n > 0:
                if inside:
                    if at >= question - 4:
                        return 0
                    c = sname[at]
                else:
                    if at >= end:
                        return 0
                    c = data[at]
                if 65 <= c <= 90:
                    c += 32
                x.name[k] = c
                k += 1
                at += 1
                n -= 1

    def guarded(self, t: Table, v: Verdict, guard: cython.int) -> cython.int:
        """Make the verdict the objection of a protection: NODATA, for the name exists."""
        v.stage = STAGE_POLICY
        v.action = ACTION_NODATA
        v.rule = -1
        v.rule_action = RULE_BLOCK
        v.reply = REPLY_NODATA
        v.guard = guard
        v.listed = -1
        v.label = 0
        v.ttl = 10
        v.zone = -1
        v.owner = 0
        v.entry = 0
        v.route = 0
        return 1

    def private(self, data: cython.const[cython.uchar][::1], at: cython.int) -> cython.int:
        """Loopback, RFC 1918, RFC 6598, link-local, ULA, 0/8 and the IPv6 forms of them."""
        k: cython.int
        a: cython.int
        b: cython.int
        zeros: cython.int = 1

        for k in range(10):
            if data[at + k]:
                zeros = 0
                break
        if zeros and ((data[at + 10] == 255 and data[at + 11] == 255) or (data[at + 10] == 0 and data[at + 11] == 0)):
            a = data[at + 12]
            b = data[at + 13]
            if a == 0 or a == 10 or a == 127:
                # ::, ::1 and ::ffff:0.0.0.0 up to 0.255.255.255 are among these.
                return 1
            if a == 172 and 16 <= b <= 31:
                return 1
            if a == 192 and b == 168:
                return 1
            if a == 100 and 64 <= b <= 127:
                return 1
            if a == 169 and b == 254:
                return 1
            return 0
        a = data[at]
        b = data[at + 1]
        if a == 252 or a == 253:
            return 1
        return 1 if a == 254 and (b & 192) == 128 else 0

    def refused(self, t: Table, data: cython.const[cython.uchar][::1], at: cython.int) -> cython.int:
        """Whether the address is in one of the refused networks (few, written by hand: looked at one by one)."""
        k: cython.uint
        i: cython.int
        place: cython.uint
        n4: cython.uint = t.words[t.protect + 1]
        n6: cython.uint = t.words[t.protect + 2]
        a: cython.uint
        low: cython.int
        high: cython.int
        mapped: cython.int = 1

        for i in range(10):
            if data[at + i]:
                mapped = 0
                break
        if mapped and data[at + 10] == 255 and data[at + 11] == 255:
            a = data[at + 12]
            a = (a << 24) | (data[at + 13] << 16) | (data[at + 14] << 8) | data[at + 15]
            for k in range(n4):
                place = t.protect + PROTECT_HEAD + 2 * k
                if t.words[place] <= a and a <= t.words[place + 1]:
                    return 1
            return 0
        for k in range(n6):
            place = t.protect + PROTECT_HEAD + 2 * n4 + 8 * k
            low = 0
            high = 0
            for i in range(4):
                a = data[at + 4 * i]
                a = (a << 24) | (data[at + 4 * i + 1] << 16) | (data[at + 4 * i + 2] << 8) | data[at + 4 * i + 3]
                if low == 0 and a != t.words[place + i]:
                    low = 1 if a > t.words[place + i] else -1
                if high == 0 and a != t.words[place + 4 + i]:
                    high = 1 if a > t.words[place + 4 + i] else -1
            if low >= 0 and high <= 0:
                return 1
        return 0

    def name(self, t: Table, f: FactsView, q: Query, v: Verdict) -> cython.int:
        """Whether policy blocks the CNAME target in `target` for the asker; then `v` is that rule's."""
        x: Query = self.target
        w: Verdict = self.scratch
        best: Match = self.chain.any
        c: cython.uint

        x.qtype = q.qtype
        x.seed_policy = t.seed_policy
        x.seed_names = t.seed_names
        x.hash()
        w.reset()
        w.client_class = v.client_class
        if self.chain.walk(t, f, x, w):
            # One of our own names: it is not for a list to say, as when it is asked for itself.
            best = self.chain.written
        if best.key == 0:
            return 0
        c = best.candidate
        if t.words[t.rules + t.words[c + CANDIDATE_RULE] * RULE_WORDS + RULE_ACTION] != RULE_BLOCK:
            return 0
        self.chain.policy(t, f, x, w, best)
        v.stage = STAGE_POLICY
        v.action = w.action
        v.rule = w.rule
        v.rule_action = w.rule_action
        v.reply = w.reply
        v.listed = w.listed
        v.key = w.key
        v.ttl = w.ttl
        v.label = 0
        v.zone = -1
        v.owner = w.owner
        v.entry = w.entry
        v.route = 0
        v.guard = 2
        return 1

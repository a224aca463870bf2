"""`review`: the second, shorter chain, on answers that came from outside.

Compiled by Cython with the types in `review.pxd`. In this order, first objection wins:

    cname       one of its CNAMEs leads to a name that policy blocks for this client
    rebinding   a private address in a public name
    networks    an address in a network that the rules refuse

What is looked at is prepared when an answer is stored: `addresses` of 16 octets each (IPv4 mapped),
then the `cnames`' names, lower case and uncompressed. The verdict becomes the objection's: stage
policy, and for the last two `guard` instead of a rule.
"""

import cython

if not cython.compiled:
    from dnsd.contract.codes import (
        ACTION_ALIAS,
        ACTION_NODATA,
        REPLY_NODATA,
        RULE_BLOCK,
        STAGE_POLICY,
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
    from dnsd.contract.verdict import Chain, Verdict


class Reviewer:
    """Reviews one answer after the other; allocates nothing while it does."""

    def __init__(self) -> None:
        self.chain = Chain()
        self.scratch = Verdict()
        self.target = Query(bytearray(16))

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
        data: cython.const[cython.uchar][::1],
        at: cython.int,
        addresses: cython.int,
        cnames: cython.int,
    ) -> cython.int:
        """Look at an answer's addresses and CNAME targets at `data[at:]`; 1 when `v` is now an objection, 0 if it may pass."""
        flags: cython.int = self.wanted(t, v)
        k: cython.int
        n: cython.int
        place: cython.int

        if flags == 0:
            return 0
        if flags & PROTECT_CNAME and cnames:
            place = at + 16 * addresses
            for _ in range(cnames):
                if self.name(t, f, q, v, data, place):
                    return 1
                n = data[place]
                while n:
                    place += n + 1
                    n = data[place]
                place += 1
        for k in range(addresses):
            place = at + 16 * k
            if flags & PROTECT_REBINDING and self.private(data, place):
                return self.guarded(t, v, 1)
            if flags & PROTECT_NETWORKS and self.refused(t, data, place):
                return self.guarded(t, v, 3)
        return 0

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

    def name(
        self, t: Table, f: FactsView, q: Query, v: Verdict, data: cython.const[cython.uchar][::1], at: cython.int
    ) -> cython.int:
        """Whether policy blocks this CNAME target for the asker; then `v` is that rule's."""
        x: Query = self.target
        w: Verdict = self.scratch
        n: cython.int
        k: cython.int = 0
        c: cython.uint

        x.labels = 0
        while True:
            n = data[at + k]
            x.label[x.labels] = k
            x.name[k] = n
            k += 1
            if n == 0:
                break
            x.labels += 1
            while n > 0:
                x.name[k] = data[at + k]
                k += 1
                n -= 1
        x.name_length = k
        x.qtype = q.qtype
        x.seed_policy = t.seed_policy
        x.seed_names = t.seed_names
        x.hash()
        w.reset()
        w.client_class = v.client_class
        if self.chain.walk(t, f, x, w) or self.chain.any.key == 0:
            # One of our own names: it is not for a list to say, and what we own is no cloak.
            return 0
        c = self.chain.any.candidate
        if t.words[t.rules + t.words[c + CANDIDATE_RULE] * RULE_WORDS + RULE_ACTION] != RULE_BLOCK:
            return 0
        self.chain.policy(t, f, x, w, self.chain.any)
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

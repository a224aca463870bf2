"""A verdict becomes a response packet, written into a buffer that is there already.

Compiled by Cython with the types in `answer.pxd`, bounds checks on. The response echoes the
question as it was asked (case included), carries OPT exactly when the question did (RFC 6891,
section 6.1.1), says who decided in an Extended DNS Error (RFC 8914) where policy changed the answer,
and is cut down to header, question and TC when it does not fit (RFC 2181, section 9).
"""

import cython

if not cython.compiled:
    from dnsd.contract.codes import (
        ACTION_ANSWER,
        ACTION_BADVERS,
        ACTION_CHAOS,
        ACTION_DROP,
        ACTION_FORMERR,
        ACTION_MINIMAL,
        ACTION_NODATA,
        ACTION_NOTIMP,
        ACTION_NXDOMAIN,
        ACTION_REFUSED,
        ACTION_ZERO,
        CLASS_IN,
        EDE_BLOCKED,
        EDE_FORGED_ANSWER,
        EDE_NONE,
        EDE_OTHER,
        EDE_PROHIBITED,
        EDE_STALE_ANSWER,
        EDE_STALE_NXDOMAIN,
        RCODE_BADVERS,
        RCODE_FORMERR,
        RCODE_NOERROR,
        RCODE_NOTIMP,
        RCODE_NXDOMAIN,
        RCODE_REFUSED,
        RCODE_SERVFAIL,
        REPLY_ADDRESSES,
        RULE_BLOCK,
        RULE_REDIRECT,
        SPECIAL_LOCALHOST,
        STAGE_CLIENT,
        STAGE_LOCAL,
        STAGE_POLICY,
        TYPE_A,
        TYPE_HINFO,
        TYPE_OPT,
        TYPE_SOA,
    )
    from dnsd.contract.factsview import FactsView
    from dnsd.contract.layout import (
        ENTRY_COUNTS,
        ENTRY_LENGTH,
        ENTRY_OFFSET,
        ENTRY_RCODE,
        PROTECT_INFO_WORDS,
        RULE_INFO_WORDS,
        ZONE_SOA_LENGTH,
        ZONE_SOA_OFFSET,
        ZONE_WORDS,
    )
    from dnsd.contract.octets import copy
    from dnsd.contract.query import Query
    from dnsd.contract.table import Table
    from dnsd.contract.verdict import Verdict

_NO_ROUTE = b"no forward entry covers this name"
# RNAME (the root), serial, refresh, retry and expire of the SOA that is made for a name that policy denies.
_MADE_SOA = b"".join((b"\x00", *(number.to_bytes(4, "big") for number in (1, 3600, 600, 86400))))
_NOT_ALLOWED = b"this client is not in the node's allow setting"


class Responder:
    """Writes responses into `out`. `rcode` and `truncated` say what the last one was. `cookies` (or None) makes cookies as of
    `now` (seconds, wall clock). `keepalive`: how long the connection that this goes out by may be idle, in tenths of a
    second (RFC 7828), 0 for none."""

    def __init__(self, out: object, revision: bytes = b"", edns_size: int = 1232) -> None:
        self.out_buffer = out
        self.out = memoryview(out)  # type: ignore[arg-type]
        self.edns_size = edns_size
        self.rcode = 0
        self.truncated = 0
        self.authentic = 0
        self.at = 0
        self.base = 0
        self.end = 0
        self.ede = EDE_NONE
        self.ede_info = 0
        self.ede_text = memoryview(b"\x00")
        self.ede_text_at = 0
        self.ede_text_length = 0
        self.made_soa = memoryview(_MADE_SOA)
        self.cookies = None
        self.keepalive = 0
        self.now = 0
        self.set_identity(b"")
        self.set_revision(revision)

    def set_revision(self, revision: bytes) -> None:
        """The text that says which revision decides, at the end of Extended DNS Errors (64 octets at most)."""
        self.revision_length = min(len(revision), 64)
        self.revision = memoryview(revision + b"\x00")

    def set_identity(self, identity: bytes) -> None:
        """What NSID tells (RFC 5001), 64 octets at most; nothing: the option is not answered."""
        self.identity_length = min(len(identity), 64)
        self.identity = memoryview(identity + b"\x00")

    def size_limit(self, q: Query) -> cython.int:
        """How long a response over UDP may be for this question (RFC 6891, section 6.2.5)."""
        if not q.edns:
            return 512
        return q.udp_size if q.udp_size < self.edns_size else self.edns_size

    def u16(self, value: cython.uint) -> cython.int:
        """Append 16 bits."""
        at: cython.int = self.at
        self.out[at] = (value >> 8) & 255
        self.out[at + 1] = value & 255
        self.at = at + 2
        return 0

    def u32(self, value: cython.uint) -> cython.int:
        """Append 32 bits."""
        at: cython.int = self.at
        self.out[at] = (value >> 24) & 255
        self.out[at + 1] = (value >> 16) & 255
        self.out[at + 2] = (value >> 8) & 255
        self.out[at + 3] = value & 255
        self.at = at + 4
        return 0

    def copy(self, data: cython.const[cython.uchar][::1], first: cython.int, length: cython.int) -> cython.int:
        """Append octets of a buffer."""
        self.at = copy(self.out, self.at, data, first, length)
        return 0

    def owner(self, q: Query, label: cython.int) -> cython.int:
        """Append the qname's suffix from `label` as a compression pointer (RFC 1035, section 4.1.4)."""
        if label >= q.labels:
            self.out[self.at] = 0
            self.at += 1
            return 0
        return self.u16(49152 + 12 + q.label[label])

    def begin(self, q: Query, base: cython.int, limit: cython.int) -> cython.int:
        """Leave room for the header and echo the question."""
        n: cython.int = 0

        self.base = base
        self.end = base + limit
        self.truncated = 0
        self.authentic = 0
        self.ede = EDE_NONE
        self.ede_info = 0
        self.ede_text_at = 0
        self.ede_text_length = 0
        if q.question_end:
            n = q.question_end - q.base - 12
        self.at = copy(self.out, base + 12, q.buf, q.base + 12, n)
        return 0

    def decided_by(self, t: Table, v: Verdict) -> cython.int:
        """Let the Extended DNS Error name the rule, or the protection, that decided."""
        if v.rule >= 0:
            self.ede_info = t.rule_info + v.rule * RULE_INFO_WORDS + 2
        elif v.guard and t.protect_info:
            self.ede_info = t.protect_info + (v.guard - 1) * PROTECT_INFO_WORDS + 1
        return 0

    def room(self, q: Query) -> cython.int:
        """How many octets records may still take, OPT with a cookie but without its other options put aside."""
        if not q.edns:
            return self.end - self.at
        return self.end - self.at - (39 if q.cookie and self.cookies is not None else 11)

    def finish(
        self, t: Table | None, q: Query, aa: cython.int, answers: cython.int, authorities: cython.int, additionals: cython.int
    ) -> cython.int:
        """Write OPT and header; returns the response's length."""
        base: cython.int = self.base
        length: cython.int
        opt: cython.int
        text: cython.uint = 0
        size: cython.int = 0
        rcode: cython.int = self.rcode

        if self.truncated:
            answers = authorities = additionals = 0
            self.at = base + 12
            if q.question_end:
                self.at = base + q.question_end - q.base
        if q.edns:
            opt = self.at
            self.out[self.at] = 0
            self.at += 1
            self.u16(TYPE_OPT)
            self.u16(self.edns_size)
            self.out[self.at] = rcode >> 4
            self.out[self.at + 1] = 0
            self.out[self.at + 2] = 128 if q.do else 0
            self.out[self.at + 3] = 0
            self.at += 6  # the last two are the length of what follows
            if q.cookie and self.cookies is not None and self.at + 28 <= self.end:
                self.at = self.cookies.write(q, self.out, self.at, self.now)
            if q.nsid and self.identity_length and self.at + 4 + self.identity_length <= self.end:
                self.u16(3)
                self.u16(self.identity_length)
                self.copy(self.identity, 0, self.identity_length)
            if q.keepalive and self.keepalive and self.at + 6 <= self.end:
                self.u32((11 << 16) | 2)
                self.u16(self.keepalive)
            if self.ede != EDE_NONE:
                length = 6 + self.ede_text_length
                if self.ede_info:
                    text = t.texts + t.words[self.ede_info]
                    size = t.words[self.ede_info + 1]
                    length = 6 + size + 1 + self.revision_length
                if self.at + length > self.end:
                    # The text is a courtesy: give it up before the code.
                    size = 0
                    self.ede_info = 0
                    self.ede_text_length = 0
                    length = 6
                if self.at + length <= self.end:
                    self.u16(15)
                    self.u16(length - 4)
                    self.u16(self.ede)
                    if self.ede_info:
                        self.copy(t.policy, text, size)
                        self.out[self.at] = 32
                        self.at += 1
                        self.copy(self.revision, 0, self.revision_length)
                    else:
                        self.copy(self.ede_text, self.ede_text_at, self.ede_text_length)
            length = self.at - opt - 11
            self.out[opt + 9] = length >> 8
            self.out[opt + 10] = length & 255
            additionals += 1
        self.out[base] = q.buf[q.base]
        self.out[base + 1] = q.buf[q.base + 1]
        # QR, opcode and RD as asked, AA, TC.
        self.out[base + 2] = 128 | ((q.flags >> 8) & 121) | (4 if aa else 0) | (2 if self.truncated else 0)
        # RA; AD when everything was validated here; CD as asked (RFC 4035, section 3.2.2).
        self.out[base + 3] = 128 | (32 if self.authentic else 0) | (q.flags & 16) | (rcode & 15)
        self.out[base + 4] = 0
        self.out[base + 5] = 1 if q.question_end else 0
        self.out[base + 6] = answers >> 8
        self.out[base + 7] = answers & 255
        self.out[base + 8] = authorities >> 8
        self.out[base + 9] = authorities & 255
        self.out[base + 10] = additionals >> 8
        self.out[base + 11] = additionals & 255
        return self.at - base

    def soa(self, t: Table, q: Query, v: Verdict) -> cython.int:
        """Append the SOA that tells how long a negative answer holds (RFC 2308); returns how many records that made."""
        zone: cython.uint
        length: cython.int

        if v.zone >= 0:
            zone = t.zones + v.zone * ZONE_WORDS
            length = t.words[zone + ZONE_SOA_LENGTH]
            if length + 2 > self.room(q):
                self.truncated = 1
                return 0
            self.owner(q, v.label)
            self.copy(t.policy, t.answers + t.words[zone + ZONE_SOA_OFFSET], length)
            return 1
        if self.room(q) < 40:
            self.truncated = 1
            return 0
        # A made one for a name that policy denies: MNAME is the owner itself, RNAME the root (no mailbox).
        self.owner(q, v.label)
        self.u32((TYPE_SOA << 16) | CLASS_IN)
        self.u32(v.ttl)
        self.u16(22 if v.label >= q.labels else 23)
        self.owner(q, v.label)
        self.copy(self.made_soa, 0, 17)
        self.u32(v.ttl)
        return 1

    def minimal(self) -> cython.int:
        """Append RFC 8482's answer to ANY."""
        rdata: cython.const[cython.uchar][::1] = memoryview(b"\x07RFC8482\x00")
        self.u16(49164)
        self.u16(TYPE_HINFO)
        self.u16(CLASS_IN)
        self.u32(3600)
        self.u16(9)
        return self.copy(rdata, 0, 9)

    def prefix(self, t: Table, v: Verdict) -> cython.int:
        """Append an entry's ready records."""
        at: cython.uint = t.owners + v.entry - 1
        return self.copy(t.policy, t.answers + t.words[at + ENTRY_OFFSET], t.words[at + ENTRY_LENGTH])

    def own_size(self, t: Table, q: Query, v: Verdict) -> cython.int:
        """How many octets the records of `address: self` take in the entry that was chosen; 0 when it has none."""
        template: cython.int = t.words[t.owners + v.entry - 1 + ENTRY_RCODE] >> 16
        if template == 0 or v.facts is None:
            return 0
        return v.facts.own(q.qtype) * (template + (4 if q.qtype == TYPE_A else 16))

    def own(self, t: Table, q: Query, v: Verdict) -> cython.int:
        """Append one record for each of our addresses of the type: the entry's head, and the address from the facts."""
        f: FactsView = v.facts
        at: cython.uint = t.owners + v.entry - 1
        first: cython.int = t.answers + t.words[at + ENTRY_OFFSET] + t.words[at + ENTRY_LENGTH]
        length: cython.int = t.words[at + ENTRY_RCODE] >> 16
        octets: cython.int = 4 if q.qtype == TYPE_A else 16
        n: cython.int = f.own(q.qtype)
        i: cython.int
        k: cython.int

        for i in range(n):
            self.copy(t.policy, first, length)
            for k in range(octets):
                self.out[self.at + k] = f.own_octet(q.qtype, i, k)
            self.at += octets
        return 0

    def write(self, t: Table | None, q: Query, v: Verdict, base: cython.int, limit: cython.int) -> cython.int:
        """Write the response to a verdict that needs nobody else; returns its length, 0 for silence.

        `base` is where in `out`, `limit` the greatest length. Not for ACTION_FORWARD, ACTION_RECURSE, ACTION_ALIAS.
        """
        answers: cython.int = 0
        authorities: cython.int = 0
        aa: cython.int = 0
        at: cython.uint
        k: cython.int
        octets: cython.int

        if v.action == ACTION_DROP:
            return 0
        self.begin(q, base, limit)
        if v.stage == STAGE_POLICY:
            self.ede = EDE_BLOCKED
            self.decided_by(t, v)
            if v.rule_action == RULE_REDIRECT or (v.rule_action == RULE_BLOCK and v.reply == REPLY_ADDRESSES):
                self.ede = EDE_FORGED_ANSWER
        self.rcode = RCODE_NOERROR
        if v.stage == STAGE_LOCAL and (v.zone >= 0 or v.own):
            aa = 1
        if v.action == ACTION_ANSWER:
            at = t.owners + v.entry - 1
            self.rcode = t.words[at + ENTRY_RCODE] & 65535
            octets = self.own_size(t, q, v)
            if cython.cast(cython.int, t.words[at + ENTRY_LENGTH]) + octets > self.room(q):
                self.truncated = 1
            else:
                self.prefix(t, v)
                if octets:
                    self.own(t, q, v)
                answers = t.words[at + ENTRY_COUNTS] & 65535
                if octets:
                    answers += v.facts.own(q.qtype)
                authorities = t.words[at + ENTRY_COUNTS] >> 16
        elif v.action == ACTION_NXDOMAIN:
            self.rcode = RCODE_NXDOMAIN
            authorities = self.soa(t, q, v)
        elif v.action == ACTION_NODATA:
            authorities = self.soa(t, q, v)
        elif v.action == ACTION_ZERO:
            octets = 4 if q.qtype == TYPE_A else 16
            self.u16(49164)
            self.u16(q.qtype)
            self.u16(CLASS_IN)
            self.u32(v.ttl)
            self.u16(octets)
            for k in range(octets):
                self.out[self.at + k] = 0
            if v.special == SPECIAL_LOCALHOST:
                self.out[self.at + octets - 1] = 1
                if octets == 4:
                    self.out[self.at] = 127
            self.at += octets
            answers = 1
        elif v.action == ACTION_MINIMAL:
            self.minimal()
            answers = 1
        elif v.action == ACTION_REFUSED:
            self.rcode = RCODE_REFUSED
            if v.stage == STAGE_CLIENT:
                self.ede = EDE_PROHIBITED
                self.ede_text = memoryview(_NOT_ALLOWED)
                self.ede_text_length = len(_NOT_ALLOWED)
        elif v.action == ACTION_CHAOS:
            self.rcode = RCODE_REFUSED
        elif v.action == ACTION_NOTIMP:
            self.rcode = RCODE_NOTIMP
        elif v.action == ACTION_FORMERR:
            self.rcode = RCODE_FORMERR
        elif v.action == ACTION_BADVERS:
            self.rcode = RCODE_BADVERS
        else:
            self.rcode = RCODE_SERVFAIL
            self.ede = EDE_OTHER
            self.ede_text = memoryview(_NO_ROUTE)
            self.ede_text_length = len(_NO_ROUTE)
        return self.finish(t, q, aa, answers, authorities, 0)

    def fail(
        self, q: Query, rcode: cython.int, ede: cython.int, text: bytes, base: cython.int, limit: cython.int
    ) -> cython.int:
        """Write an error that no table decided; returns its length."""
        self.begin(q, base, limit)
        self.rcode = rcode
        self.ede = ede
        if text:
            self.ede_text = memoryview(text)
            self.ede_text_length = len(text)
        return self.finish(None, q, 0, 0, 0, 0)

    def truncate(self, q: Query, base: cython.int, limit: cython.int) -> cython.int:
        """Write an answer that says nothing but "ask over TCP"; returns its length."""
        self.begin(q, base, limit)
        self.rcode = RCODE_NOERROR
        self.truncated = 1
        return self.finish(None, q, 0, 0, 0, 0)

    def get_u16(self, data: cython.const[cython.uchar][::1], at: cython.int) -> cython.int:
        """Sixteen bits of a buffer, most significant first."""
        return (data[at] << 8) | data[at + 1]

    def relay(
        self,
        t: Table,
        q: Query,
        v: Verdict,
        base: cython.int,
        limit: cython.int,
        data: cython.const[cython.uchar][::1],
        body: cython.int,
        length: cython.int,
        question: cython.int,
        rcode: cython.int,
        answers: cython.int,
        authorities: cython.int,
        additionals: cython.int,
        ttls: cython.int,
        ttl_count: cython.int,
        pointers: cython.int,
        pointer_count: cython.int,
        age: cython.uint,
    ) -> cython.int:
        """Write a response from a raw answer: `length` octets of records at `data[body:]`; returns its length.

        `rcode` has bit 16 set when AD was, from bit 17 on the code of an Extended DNS Error + 1 (7 bits), then the length of
        its text, which stands behind the records. `question` is how long the question section was in front of them. At `data[ttls:]` stand the TTLs' places, at `data[pointers:]` the
        compression pointers', both as u16 from `body` on. `age` seconds are taken off each TTL; 2147483647 says that the
        answer is past its time, and gets TTL 30 and an Extended DNS Error (RFC 8767, section 4). When `v` has an entry (an alias), its CNAMEs
        come first and the pointers are moved to where the names stand now.
        """
        start: cython.int
        k: cython.int
        at: cython.int
        ttl: cython.uint
        entry: cython.uint
        target_at: cython.int
        extra: cython.int = 0

        self.begin(q, base, limit)
        self.rcode = rcode & 65535
        if rcode >> 17:
            self.ede = ((rcode >> 17) & 127) - 1
            self.ede_text_length = rcode >> 24
            if self.ede_text_length:
                self.ede_text = data
                self.ede_text_at = body + length
        if age == 2147483647:
            self.ede = EDE_STALE_NXDOMAIN if self.rcode == RCODE_NXDOMAIN else EDE_STALE_ANSWER
            self.ede_text_length = 0
        # Only what was validated here comes with it (`resolve.forwarder` and `flightpath` take it off); told to those
        # who ask (RFC 6840, sections 5.7 and 5.8).
        if rcode & 65536 and not v.entry and (q.do or q.flags & 32):
            self.authentic = 1 if age != 2147483647 else 0
        if v.stage == STAGE_POLICY and v.rule_action == RULE_REDIRECT:
            self.ede = EDE_FORGED_ANSWER
            self.ede_text_length = 0
            self.decided_by(t, v)
        if v.entry:
            entry = t.owners + v.entry - 1
            extra = t.words[entry + ENTRY_LENGTH]
        if extra + length > self.room(q):
            self.truncated = 1
            self.authentic = 0
            return self.finish(t, q, 0, 0, 0, 0)
        if v.entry:
            entry = t.owners + v.entry - 1
            self.prefix(t, v)
            answers += t.words[entry + ENTRY_COUNTS] & 65535
        start = self.at
        self.copy(data, body, length)
        for k in range(ttl_count):
            at = start + self.get_u16(data, ttls + 2 * k)
            ttl = self.out[at]
            ttl = (ttl << 24) | (self.out[at + 1] << 16) | (self.out[at + 2] << 8) | self.out[at + 3]
            ttl = ttl - age if ttl > age else 0
            if age == 2147483647:
                ttl = 30
            self.out[at] = (ttl >> 24) & 255
            self.out[at + 1] = (ttl >> 16) & 255
            self.out[at + 2] = (ttl >> 8) & 255
            self.out[at + 3] = ttl & 255
        if v.entry:
            # The last CNAME's rdata is the target's name, written out: it ends where the records begin.
            target_at = start - base - (question - 4)
            self.relocate(q, data, body, question, pointers, pointer_count, start, target_at)
        return self.finish(t, q, 0, answers, authorities, additionals)

    def relocate(
        self,
        q: Query,
        data: cython.const[cython.uchar][::1],
        body: cython.int,
        question: cython.int,
        pointers: cython.int,
        pointer_count: cython.int,
        start: cython.int,
        target_at: cython.int,
    ) -> cython.int:
        """Move each compression pointer: into the question, to the CNAME's target; else with the records."""
        k: cython.int
        at: cython.int
        place: cython.int
        moved: cython.int = (start - self.base) - (12 + question)

        for k in range(pointer_count):
            at = start + self.get_u16(data, pointers + 2 * k)
            place = ((self.out[at] & 63) << 8) | self.out[at + 1]
            if place < 12 + question:
                place = place - 12 + target_at
            else:
                place += moved
            if place > 16383:
                self.truncated = 1
                return 0
            self.out[at] = 192 | (place >> 8)
            self.out[at + 1] = place & 255
        return 0

"""`decide`: who answers a query, and how. The one place that knows precedence.

Compiled by Cython with the types in `verdict.pxd`; workers, `explain`, `plan`, the rule tests and
the status page call the same function. It takes a table, the facts and a parsed question, and
fills a `Verdict` that it is given: no clock, no allocation, no work per rule. The chain, first
verdict wins:

    shape    malformed, opcode, class, ANY, transfers       cheap refusals before any lookup
    client   may this address ask at all; which class       before anything is told to a stranger
    local    zones we own                                   a listed name never decides about an own
                                                            name, a name written in a rule does
    policy   allow, block, redirect                         a blocked name never leaves the house
    route    forward or recurse                             always decides
"""

import cython

if not cython.compiled:
    from dnsd.contract.codes import (
        ACTION_ALIAS,
        ACTION_ANSWER,
        ACTION_CHAOS,
        ACTION_DROP,
        ACTION_FORWARD,
        ACTION_MINIMAL,
        ACTION_NODATA,
        ACTION_NONE,
        ACTION_NXDOMAIN,
        ACTION_RECURSE,
        ACTION_REFUSED,
        ACTION_SERVFAIL,
        ACTION_ZERO,
        CLASS_CH,
        CLASS_IN,
        REPLY_DEFAULT,
        REPLY_DROP,
        REPLY_NODATA,
        REPLY_NXDOMAIN,
        REPLY_REFUSED,
        REPLY_ZERO,
        RULE_ALLOW,
        RULE_BLOCK,
        SPECIAL_LOCALHOST,
        SPECIAL_NONE,
        SPECIAL_NXDOMAIN,
        STAGE_CLIENT,
        STAGE_LOCAL,
        STAGE_POLICY,
        STAGE_ROUTE,
        STAGE_SHAPE,
        TYPE_A,
        TYPE_AAAA,
        TYPE_ANY,
        TYPE_AXFR,
        TYPE_IXFR,
        TYPE_MAILA,
        TYPE_MAILB,
        TYPE_OPT,
    )
    from dnsd.contract.factsview import FactsView
    from dnsd.contract.layout import (
        CANDIDATE_ARG,
        CANDIDATE_HIGH,
        CANDIDATE_INFO,
        CANDIDATE_LOW,
        CANDIDATE_RULE,
        CANDIDATE_WORDS,
        ENTRY_OTHER,
        ENTRY_QTYPE,
        ENTRY_RCODE,
        ENTRY_ROUTE,
        ENTRY_TARGET,
        ENTRY_WORDS,
        FLAG_EXCEPTION_BELOW,
        FLAG_EXISTS,
        FLAG_SPARED_SHIFT,
        FLAG_SPECIAL_SHIFT,
        KIND_RECURSE,
        LISTSET_WORDS,
        NODE_FLAGS,
        NODE_OWNER,
        NODE_ROUTE,
        NODE_SET_BELOW,
        NODE_SET_SELF,
        NODE_WILD,
        NODE_WORDS,
        NODE_ZONE,
        OWNER_ENTRIES,
        OWNER_HEAD,
        OWNER_TARGET,
        ROUTE_KIND,
        ROUTE_WORDS,
        RULE_ACTION,
        RULE_ARG,
        RULE_GATE_EXPIRES,
        RULE_GATE_WHEN,
        RULE_QTYPES_COUNT,
        RULE_QTYPES_FIRST,
        RULE_REPLY,
        RULE_TTL,
        RULE_WORDS,
        SET_CLASSES,
        SET_COUNT,
        SET_FIRST,
        SET_HEAD,
        ZONE_FLAGS,
        ZONE_SOLO,
        ZONE_WORDS,
    )
    from dnsd.contract.query import Query
    from dnsd.contract.table import Table


class Verdict:
    """What was decided. Filled by `Chain.decide`, again and again.

    `stage` and `action` are codes of `codes`. `rule` is the number of the deciding rule or -1 (an allow rule is named
    although a later stage answers; `allowed` says so), `listed` the number of the list that the name came from or -1, `label` the label of
    the qname at which the matching name begins (for a regular expression 0), `key` the rule's rank. `zone`, `owner` (word offset + 1), `entry` (word offset + 1) and `node` say
    what of the table is answered; `route` which route (number + 1), `target` (offset + 1 of a name) whom to ask for when the action is
    ACTION_ALIAS. `spared` are the protections (layout.PROTECT_*) that do not concern this name; `guard` is 1 to 3 when `review` objected because of
    rebinding, a CNAME or a refused network. `own` is 1 when the qname is the reverse name of one of our addresses,
    `facts` those that were asked.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> cython.int:
        """Forget the last verdict."""
        self.stage = 0
        self.action = 0
        self.rule = -1
        self.allowed = 0
        self.rule_action = 0
        self.reply = 0
        self.listed = -1
        self.label = 0
        self.ttl = 0
        self.key = 0
        self.client_class = 0
        self.zone = -1
        self.zone_label = -1
        self.owner = 0
        self.entry = 0
        self.node = -1
        self.route = 0
        self.target = 0
        self.special = 0
        self.special_label = -1
        self.spared = 0
        self.guard = 0
        self.own = 0
        self.facts = None
        return 0


class Match:
    """The best candidate so far."""

    def __init__(self) -> None:
        self.key = 0
        self.candidate = 0
        self.label = 0
        self.exception_below = 0


class Chain:
    """The chain of stages, with the two best candidates that it keeps while it walks up the qname."""

    def __init__(self) -> None:
        self.any = Match()
        self.written = Match()

    def decide(self, t: Table, f: FactsView, q: Query, v: Verdict) -> cython.int:
        """Fill `v` for the parsed question `q`; returns the action. Hashes `q` with the table's seeds."""
        own: cython.int
        mine: cython.uint = 0
        at: cython.uint

        v.stage = STAGE_SHAPE
        v.action = q.fault
        v.rule = -1
        v.allowed = 0
        v.rule_action = 0
        v.reply = 0
        v.listed = -1
        v.label = 0
        v.ttl = 0
        v.key = 0
        v.client_class = 0
        v.zone = -1
        v.zone_label = -1
        v.owner = 0
        v.entry = 0
        v.node = -1
        v.route = 0
        v.target = 0
        v.special = SPECIAL_NONE
        v.special_label = -1
        v.spared = 0
        v.guard = 0
        v.own = 0
        v.facts = f
        if q.fault != ACTION_NONE:
            return v.action
        # A stranger learns nothing, not even our version; but FORMERR and the like cost less than the look-up.
        v.stage = STAGE_CLIENT
        if not f.may_ask(q):
            v.action = ACTION_REFUSED
            return v.action
        v.stage = STAGE_SHAPE
        if q.qclass != CLASS_IN:
            v.action = ACTION_CHAOS if q.qclass == CLASS_CH else ACTION_REFUSED
            return v.action
        if q.qtype == TYPE_ANY:
            v.action = ACTION_MINIMAL
            return v.action
        if q.qtype == TYPE_AXFR or q.qtype == TYPE_IXFR or q.qtype == TYPE_MAILA or q.qtype == TYPE_MAILB:
            v.action = ACTION_REFUSED
            return v.action
        if q.qtype == TYPE_OPT or q.qtype == 0:
            v.action = ACTION_REFUSED
            return v.action

        v.client_class = t.class_of(q)
        t.hash(q)
        own = self.walk(t, f, q, v)
        if t.own_ptr and own < 2 and f.is_own(q):
            mine = t.own_ptr
        if own or mine:
            if self.written.key and self.policy(t, f, q, v, self.written):
                return v.action
            return self.local(t, f, q, v, own, mine)
        v.zone = -1
        if self.any.key and self.policy(t, f, q, v, self.any):
            return v.action
        if v.special != SPECIAL_NONE and not (v.allowed and v.label <= v.special_label and v.listed < 0):
            v.stage = STAGE_LOCAL
            if v.special == SPECIAL_LOCALHOST and (q.qtype == TYPE_A or q.qtype == TYPE_AAAA):
                v.action = ACTION_ZERO
            elif v.special == SPECIAL_NXDOMAIN:
                v.action = ACTION_NXDOMAIN
            else:
                v.action = ACTION_NODATA
            v.label = v.special_label
            v.ttl = 10800
            return v.action
        v.stage = STAGE_ROUTE
        v.special = SPECIAL_NONE
        if v.route == 0:
            v.action = ACTION_SERVFAIL
            return v.action
        if t.route_class_count:
            v.route = t.route_for(v.route, v.client_class)
        at = t.routes + (v.route - 1) * ROUTE_WORDS
        v.action = ACTION_RECURSE if t.words[at + ROUTE_KIND] == KIND_RECURSE else ACTION_FORWARD
        return v.action

    def belongs(self, t: Table, f: FactsView, q: Query, v: Verdict) -> cython.int:
        """Who has the word about a name that an answer from outside leads to; `v` is fresh, with its client's class.

        As `decide`, without client and policy: nobody asks for this name, and `review` sees the whole answer. Returns
        1 for an own name, whose answer is in `v` as there; 0 when the word is the route's (`v.route`, 0 for none).
        """
        own: cython.int
        mine: cython.uint = 0

        v.facts = f
        t.hash(q)
        own = self.walk(t, f, q, v)
        if t.own_ptr and own < 2 and f.is_own(q):
            mine = t.own_ptr
        if own or mine:
            self.local(t, f, q, v, own, mine)
            return 1
        v.zone = -1
        v.stage = STAGE_ROUTE
        if v.special != SPECIAL_NONE:  # it stays at home, but not by an answer of ours
            v.route = 0
        elif v.route:
            v.route = t.route_for(v.route, v.client_class)
        return 0

    def walk(self, t: Table, f: FactsView, q: Query, v: Verdict) -> cython.int:
        """From the qname up to the root: two probes a suffix. Returns 1 when the qname is in an own zone, 2 when it has records.

        Leaves the best candidates in `any` and `written`, the zone, the closest encloser's wildcard or the
        qname's own records in `v.owner`, the route in `v.route`. What lies nearer to the qname wins between
        zone, route and special-use name; at one name the zone does.
        """
        i: cython.int
        n: cython.int
        ls: cython.int
        flags: cython.uint
        below: cython.int
        at: cython.uint
        number: cython.uint
        labels: cython.int = q.labels
        encloser: cython.int = -1
        route_label: cython.int = -1
        special_label: cython.int = -1
        wild: cython.uint = 0
        owner: cython.uint = 0
        zone: cython.uint

        self.any.key = 0
        self.written.key = 0
        for i in range(labels + 1):
            below = 0
            if t.labels_policy[labels - i]:
                n = t.find_node(q, i)
                if n >= 0:
                    at = t.nodes + n * NODE_WORDS
                    flags = t.words[at + NODE_FLAGS]
                    below = flags & FLAG_EXCEPTION_BELOW
                    v.spared |= (flags >> FLAG_SPARED_SHIFT) & 7
                    number = t.words[at + (NODE_SET_SELF if i == 0 else NODE_SET_BELOW)]
                    if number:
                        self.consider(t, f, q, v, number, i, below)
                    if flags & FLAG_EXISTS and encloser < 0:
                        # The closest encloser (RFC 4592, section 3.3.1), if a zone turns up above it.
                        encloser = i
                        v.node = n
                        owner = t.words[at + NODE_OWNER]
                        wild = t.words[at + NODE_WILD]
                    if t.words[at + NODE_ROUTE] and route_label < 0:
                        route_label = i
                        v.route = t.words[at + NODE_ROUTE]
                    if (flags >> FLAG_SPECIAL_SHIFT) & 15 and special_label < 0:
                        special_label = i
                        v.special = (flags >> FLAG_SPECIAL_SHIFT) & 15
                    zone = t.words[at + NODE_ZONE]
                    if zone and v.zone < 0:
                        if i == 0 or not t.words[t.zones + (zone - 1) * ZONE_WORDS + ZONE_FLAGS] & ZONE_SOLO:
                            v.zone = zone - 1
                            v.zone_label = i
            if t.labels_names[labels - i]:
                ls = t.find_listset(q, i)
                if ls >= 0:
                    number = t.words[t.listsets + ls * LISTSET_WORDS + (0 if i == 0 else 1)]
                    if number:
                        self.consider(t, f, q, v, number, i, below)
        if v.zone >= 0 and (route_label < 0 or v.zone_label <= route_label):
            if encloser == 0:
                v.owner = owner
            elif encloser <= v.zone_label:
                v.owner = wild
                if not wild:
                    v.node = -1
            v.special = SPECIAL_NONE
            return 2 if encloser == 0 and owner else 1
        v.node = -1
        if v.special != SPECIAL_NONE:
            # RFC 6761: special on the way to everybody, not on the way to those who were named for it.
            if not f.special_use or (route_label >= 0 and route_label < labels):
                v.special = SPECIAL_NONE
            v.special_label = special_label
        return 0

    def consider(
        self, t: Table, f: FactsView, q: Query, v: Verdict, number: cython.uint, i: cython.int, below: cython.int
    ) -> cython.int:
        """Let the best candidate that holds, of one set for the client's class, compete with the best so far."""
        at: cython.uint = t.sets + number - 1
        lo: cython.uint = 0
        hi: cython.uint
        mid: cython.uint
        first: cython.uint
        count: cython.uint
        c: cython.uint
        high: cython.ulonglong
        low: cython.ulonglong
        key: cython.ulonglong
        mine: cython.uint = v.client_class

        first = t.words[at + SET_FIRST]
        count = t.words[at + SET_COUNT]
        hi = t.words[at + SET_CLASSES]
        while lo < hi:
            mid = (lo + hi) // 2
            c = at + SET_HEAD + 3 * mid
            if t.words[c] == mine:
                first = t.words[c + 1]
                count = t.words[c + 2]
                break
            if t.words[c] < mine:
                lo = mid + 1
            else:
                hi = mid
        for mid in range(count):
            c = t.candidates + (first + mid) * CANDIDATE_WORDS
            if not self.holds(t, f, q, c):
                continue
            high = t.words[c + CANDIDATE_HIGH]
            low = t.words[c + CANDIDATE_LOW]
            key = (q.labels - i) * 2 + (t.words[c + CANDIDATE_INFO] & 1)
            key = (((high << 8) | key) << 32) | low
            # Keys are never 0: low ranks begin at 1.
            if key > self.any.key:
                self.any.key = key
                self.any.candidate = c
                self.any.label = i
                self.any.exception_below = below
            if high & 2 and key > self.written.key:
                self.written.key = key
                self.written.candidate = c
                self.written.label = i
                self.written.exception_below = below
            return 1
        return 0

    def holds(self, t: Table, f: FactsView, q: Query, at: cython.uint) -> cython.int:
        """Whether the candidate at word `at` applies now, to this qtype, and is no redirect onto itself."""
        rule: cython.uint = t.rules + t.words[at + CANDIDATE_RULE] * RULE_WORDS
        n: cython.uint
        k: cython.uint
        first: cython.uint

        if t.words[rule + RULE_GATE_WHEN] and not f.gate(t.words[rule + RULE_GATE_WHEN]):
            return 0
        if t.words[rule + RULE_GATE_EXPIRES] and not f.gate(t.words[rule + RULE_GATE_EXPIRES]):
            return 0
        n = t.words[rule + RULE_QTYPES_COUNT]
        if n:
            first = t.qtypes + t.words[rule + RULE_QTYPES_FIRST]
            for k in range(n):
                if t.words[first + k] == cython.cast(cython.uint, q.qtype):
                    break
            else:
                return 0
        if t.words[at + CANDIDATE_ARG] and self.is_target(t, q, t.words[at + CANDIDATE_ARG]):
            return 0
        return 1

    def is_target(self, t: Table, q: Query, owner: cython.uint) -> cython.int:
        """Whether the qname is the name that this redirect leads to."""
        at: cython.uint = t.words[t.owners + owner - 1 + OWNER_TARGET]
        k: cython.int

        if at == 0:
            return 0
        at += t.node_names - 1
        for k in range(q.name_length):
            if t.policy[at + k] != q.name[k]:
                return 0
        return 1

    def policy(self, t: Table, f: FactsView, q: Query, v: Verdict, best: Match) -> cython.int:
        """Carry out the winning candidate; returns 0 for an allow rule, which leaves the answer to later stages."""
        c: cython.uint = best.candidate
        number: cython.uint = t.words[c + CANDIDATE_RULE]
        rule: cython.uint = t.rules + number * RULE_WORDS
        info: cython.uint = t.words[c + CANDIDATE_INFO]

        v.stage = STAGE_POLICY
        v.rule = number
        v.rule_action = t.words[rule + RULE_ACTION]
        v.listed = cython.cast(cython.int, info >> 8) - 1
        v.label = best.label
        v.key = best.key
        v.ttl = t.words[rule + RULE_TTL]
        if v.rule_action == RULE_ALLOW:
            v.allowed = 1
            return 0
        v.node = -1
        v.route = 0
        v.special = SPECIAL_NONE
        if v.rule_action != RULE_BLOCK:
            v.zone = -1
            self.answer_from(t, f, q, v, t.words[c + CANDIDATE_ARG])
            return 1
        v.reply = t.words[rule + RULE_REPLY]
        if v.reply >= 256:
            # The rule itself does not say, `defaults` does; but NXDOMAIN (RFC 8020) and everything else that denies
            # a whole name would deny what is beside it (other types, names below `=name`) or let through below it.
            v.reply -= 256
            if info & 1 or t.words[rule + RULE_QTYPES_COUNT] or best.exception_below:
                v.reply = REPLY_NODATA
        v.owner = 0
        v.zone = -1
        if v.reply == REPLY_NXDOMAIN or v.reply == REPLY_DEFAULT:
            v.action = ACTION_NXDOMAIN
        elif v.reply == REPLY_NODATA:
            v.action = ACTION_NODATA
        elif v.reply == REPLY_ZERO:
            v.action = ACTION_ZERO if q.qtype == TYPE_A or q.qtype == TYPE_AAAA else ACTION_NODATA
        elif v.reply == REPLY_REFUSED:
            v.action = ACTION_REFUSED
        elif v.reply == REPLY_DROP:
            v.action = ACTION_DROP
        else:
            self.answer_from(t, f, q, v, t.words[rule + RULE_ARG])
        return 1

    def local(
        self, t: Table, f: FactsView, q: Query, v: Verdict, zone: cython.int, mine: cython.uint
    ) -> cython.int:
        """Answer from the own zone in `v.zone`; an own name of another type is NODATA, never forwarded.

        `mine` is the owner of our own addresses' PTR records when the qname is such an address: it stands in the own
        zone that covers it, if there is one (`zone` is not 0), and is its own apex otherwise.
        """
        v.stage = STAGE_LOCAL
        v.route = 0
        v.special = SPECIAL_NONE
        v.label = v.zone_label
        if mine:
            v.own = 1
            v.node = -1
            if not zone:
                v.zone = -1
                v.label = 0
                v.ttl = 60
            return self.answer_from(t, f, q, v, mine)
        if v.owner:
            return self.answer_from(t, f, q, v, v.owner)
        v.action = ACTION_NODATA if v.node >= 0 else ACTION_NXDOMAIN
        return v.action

    def answer_from(self, t: Table, f: FactsView, q: Query, v: Verdict, owner: cython.uint) -> cython.int:
        """Choose among an owner's entries by qtype. `address: self` is no entry while we have no address of the type."""
        at: cython.uint = t.owners + owner - 1
        n: cython.uint = t.words[at + OWNER_ENTRIES]
        k: cython.uint
        entry: cython.uint

        v.owner = owner
        for k in range(n):
            entry = at + OWNER_HEAD + k * ENTRY_WORDS
            if (
                t.words[entry + ENTRY_QTYPE] == cython.cast(cython.uint, q.qtype)
                or t.words[entry + ENTRY_QTYPE] == ENTRY_OTHER
            ):
                if t.words[entry + ENTRY_RCODE] >> 16 and not f.own(q.qtype):
                    continue
                v.entry = entry - t.owners + 1
                v.action = ACTION_ANSWER
                if t.words[entry + ENTRY_TARGET]:
                    v.action = ACTION_ALIAS
                    v.target = t.words[entry + ENTRY_TARGET]
                    v.route = t.words[entry + ENTRY_ROUTE]
                    if v.route and t.route_class_count:
                        v.route = t.route_for(v.route, v.client_class)
                return v.action
        v.action = ACTION_NODATA
        return v.action

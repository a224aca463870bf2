"""Questions under way and who waits for them: fixed tables, found by key, by socket and id, and by deadline.

Compiled by Cython with the types in `flighttable.pxd`. Nothing is allocated after the start: numbers of
flights and joiners come from free lists, and when there are none left the caller has to refuse.
A flight may have mates: the same question, under way to other servers at the same time; they have no key and
no joiners of their own. A flight's key is everything that changes its answer (`route` is the mark that
stands for it in the cache). A joiner keeps its client's packet, address and control message until it is answered.
"""

import cython

FREE = 0
FLYING = 1
HANDED = 2  # somebody else works on it: nobody joins, nobody starts another

FLIGHTS = 4096
JOINERS = 16384
JOINERS_PER_FLIGHT = 1024
PACKET = 512  # a longer question goes another way
NAME = 28
CONTROL = 64
_BUCKETS = 8192
_SPOKES = 512
_SPOKE_MS = 16  # the wheel turns once in 8 s; nobody waits longer than 5


def _ints(count: int, value: int = 0) -> memoryview:
    """A row of int."""
    row = memoryview(bytearray(4 * count)).cast("i")
    if value:
        for i in range(count):
            row[i] = value
    return row


class FlightTable:
    """Flights and joiners by number; -1 stands for none."""

    def __init__(self, flights: int = FLIGHTS, joiners: int = JOINERS) -> None:
        self.flights = flights
        self.joiners = joiners
        self.under_way = 0
        self.waiting = 0
        self.state = _ints(flights)
        self.name = memoryview(bytearray(256 * flights))
        self.name_length = _ints(flights)
        self.hash = memoryview(bytearray(4 * flights)).cast("I")
        self.qtype = _ints(flights)
        self.bits = _ints(flights)
        self.route = _ints(flights)
        self.generation = memoryview(bytearray(8 * flights)).cast("Q")
        self.slot = _ints(flights)
        self.query_id = _ints(flights)
        self.pool = _ints(flights)
        self.deadline = memoryview(bytearray(8 * flights)).cast("Q")
        self.until = memoryview(bytearray(8 * flights)).cast("Q")
        self.sent = memoryview(bytearray(8 * flights)).cast("Q")
        self.lead = _ints(flights, -1)
        self.mate = _ints(flights, -1)
        self.first = _ints(flights)
        self.last = _ints(flights)
        self.count = _ints(flights)
        self.by_key = _ints(_BUCKETS, -1)
        self.by_id = _ints(_BUCKETS, -1)
        self.spokes = _ints(_SPOKES, -1)
        self.key_next = _ints(flights)
        self.id_next = _ints(flights)
        self.spoke_next = _ints(flights)
        self.spoke_before = _ints(flights)
        self.spoke_at = 0
        self.free_flight = -1
        self.fresh_flight = 0
        self.next = _ints(joiners)
        self.fd = _ints(joiners)
        self.length = _ints(joiners)
        self.packet = memoryview(bytearray(PACKET * joiners))
        self.client = memoryview(bytearray(16 * joiners)).cast("Q")
        self.started = memoryview(bytearray(8 * joiners)).cast("Q")
        self.names = memoryview(bytearray(NAME * joiners))
        self.name_lengths = _ints(joiners)
        self.controls = memoryview(bytearray(CONTROL * joiners))
        self.control_lengths = _ints(joiners)
        self.free_joiner = -1
        self.fresh_joiner = 0

    # --- by key ---------------------------------------------------------------------------------------------------

    def bucket(self, h: cython.uint, qtype: cython.int, bits: cython.int, route: cython.int) -> cython.int:
        """Where the flights with this key hang."""
        mask: cython.ulonglong = 8191
        m: cython.ulonglong = h
        m = m ^ (m >> 15) ^ cython.cast(cython.ulonglong, qtype * 37 + bits * 11 + (route & 65535) * 101)
        return cython.cast(cython.int, m & mask)

    def find(
        self,
        name: cython.const[cython.uchar][::1],
        length: cython.int,
        h: cython.uint,
        qtype: cython.int,
        bits: cython.int,
        route: cython.int,
        generation: cython.ulonglong,
    ) -> cython.int:
        """The flight with exactly this key."""
        f: cython.int = self.by_key[self.bucket(h, qtype, bits, route)]
        k: cython.int
        base: cython.int
        same: cython.int

        while f >= 0:
            if (
                self.hash[f] == h
                and self.name_length[f] == length
                and self.qtype[f] == qtype
                and self.bits[f] == bits
                and self.route[f] == route
                and self.generation[f] == generation
            ):
                base = 256 * f
                same = 1
                for k in range(length):
                    if self.name[base + k] != name[k]:
                        same = 0
                        break
                if same:
                    return f
            f = self.key_next[f]
        return -1

    def start(
        self,
        name: cython.const[cython.uchar][::1],
        length: cython.int,
        h: cython.uint,
        qtype: cython.int,
        bits: cython.int,
        route: cython.int,
        generation: cython.ulonglong,
    ) -> cython.int:
        """A new flight, not sent yet and with nobody on board; -1 when there are as many as may be."""
        f: cython.int = self.fresh()
        k: cython.int
        b: cython.int

        if f < 0:
            return -1
        self.under_way += 1
        for k in range(length):
            self.name[256 * f + k] = name[k]
        self.name_length[f] = length
        self.hash[f] = h
        self.qtype[f] = qtype
        self.bits[f] = bits
        self.route[f] = route
        self.generation[f] = generation
        b = self.bucket(h, qtype, bits, route)
        self.key_next[f] = self.by_key[b]
        self.by_key[b] = f
        return f

    def fresh(self) -> cython.int:
        """A number that is free; -1 when there is none."""
        f: cython.int = self.free_flight

        if f >= 0:
            self.free_flight = self.key_next[f]
        elif self.fresh_flight < self.flights:
            f = self.fresh_flight
            self.fresh_flight += 1
        else:
            return -1
        self.state[f] = FLYING
        self.slot[f] = -1
        self.first[f] = -1
        self.last[f] = -1
        self.count[f] = 0
        self.lead[f] = -1
        self.mate[f] = -1
        return f

    def double(self, f: cython.int) -> cython.int:
        """A mate for a flight: the same question, not sent yet; -1 when there are as many flights as may be."""
        g: cython.int = self.fresh()
        k: cython.int

        if g < 0:
            return -1
        for k in range(self.name_length[f]):
            self.name[256 * g + k] = self.name[256 * f + k]
        self.name_length[g] = self.name_length[f]
        self.hash[g] = self.hash[f]
        self.qtype[g] = self.qtype[f]
        self.bits[g] = self.bits[f]
        self.route[g] = self.route[f]
        self.generation[g] = self.generation[f]
        self.lead[g] = f
        self.mate[g] = self.mate[f]
        self.mate[f] = g
        return g

    def release(self, f: cython.int) -> cython.int:
        """Forget a flight (or a mate); its joiners and its mates are the caller's."""
        b: cython.int
        g: cython.int

        if f < 0 or self.state[f] == FREE:
            return 0
        self.recall(f)
        if self.lead[f] >= 0:
            g = self.lead[f]
            while self.mate[g] != f:
                g = self.mate[g]
            self.mate[g] = self.mate[f]
            self.state[f] = FREE
            self.key_next[f] = self.free_flight
            self.free_flight = f
            return 0
        b = self.bucket(self.hash[f], self.qtype[f], self.bits[f], self.route[f])
        g = self.by_key[b]
        if g == f:
            self.by_key[b] = self.key_next[f]
        else:
            while self.key_next[g] != f:
                g = self.key_next[g]
            self.key_next[g] = self.key_next[f]
        self.state[f] = FREE
        self.under_way -= 1
        self.key_next[f] = self.free_flight
        self.free_flight = f
        return 0

    # --- by socket and id, and by deadline ------------------------------------------------------------------------

    def send(
        self,
        f: cython.int,
        slot: cython.int,
        query_id: cython.int,
        pool: cython.int,
        deadline: cython.ulonglong,
        now: cython.ulonglong,
    ) -> cython.int:
        """The flight's question leaves through a socket, with an id that is no other's there, until `deadline` (ms)."""
        b: cython.int = query_id & 8191
        s: cython.int

        self.slot[f] = slot
        self.query_id[f] = query_id
        self.pool[f] = pool
        self.deadline[f] = deadline
        self.until[f] = deadline
        self.sent[f] = now
        self.id_next[f] = self.by_id[b]
        self.by_id[b] = f
        s = cython.cast(cython.int, (deadline // 16) & 511)
        self.spoke_before[f] = -1
        self.spoke_next[f] = self.spokes[s]
        if self.spokes[s] >= 0:
            self.spoke_before[self.spokes[s]] = f
        self.spokes[s] = f
        return 0

    def hasten(self, f: cython.int, deadline: cython.ulonglong) -> cython.int:
        """Let `due` find a flight earlier than that, once; `until` keeps its time."""
        until: cython.ulonglong = self.until[f]
        slot: cython.int = self.slot[f]

        self.recall(f)
        self.send(f, slot, self.query_id[f], self.pool[f], deadline, self.sent[f])
        self.until[f] = until
        return 0

    def match(self, slot: cython.int, query_id: cython.int) -> cython.int:
        """The flight that waits on this socket for this id."""
        f: cython.int = self.by_id[query_id & 8191]

        while f >= 0:
            if self.slot[f] == slot and self.query_id[f] == query_id:
                return f
            f = self.id_next[f]
        return -1

    def on_slot(self, slot: cython.int, first: cython.int) -> cython.int:
        """The next flight, from number `first` on, that waits on this socket."""
        f: cython.int

        for f in range(first, self.fresh_flight):
            if self.slot[f] == slot and self.state[f] == 1:
                return f
        return -1

    def recall(self, f: cython.int) -> cython.int:
        """Wait no longer for the flight's answer."""
        b: cython.int
        g: cython.int

        if self.slot[f] < 0:
            return 0
        b = self.query_id[f] & 8191
        g = self.by_id[b]
        if g == f:
            self.by_id[b] = self.id_next[f]
        else:
            while self.id_next[g] != f:
                g = self.id_next[g]
            self.id_next[g] = self.id_next[f]
        if self.spoke_before[f] >= 0:
            self.spoke_next[self.spoke_before[f]] = self.spoke_next[f]
        else:
            self.spokes[cython.cast(cython.int, (self.deadline[f] // 16) & 511)] = self.spoke_next[f]
        if self.spoke_next[f] >= 0:
            self.spoke_before[self.spoke_next[f]] = self.spoke_before[f]
        self.slot[f] = -1
        return 0

    def hand(self, f: cython.int) -> cython.int:
        """Somebody else works on the flight from now on; its key stays taken until `release`."""
        self.recall(f)
        self.state[f] = HANDED
        return 0

    def due(self, now: cython.ulonglong) -> cython.int:
        """A flight whose deadline has come; call it again until there is none."""
        tick: cython.ulonglong = now // 16
        f: cython.int

        if self.spoke_at == 0 or self.spoke_at + 512 < tick:
            self.spoke_at = tick - 511 if tick > 511 else 0
        while self.spoke_at <= tick:
            f = self.spokes[cython.cast(cython.int, self.spoke_at & 511)]
            while f >= 0:
                if self.deadline[f] <= now:
                    return f
                f = self.spoke_next[f]
            if self.spoke_at == tick:
                break
            self.spoke_at += 1
        return -1

    def next_ms(self) -> cython.ulonglong:
        """The earliest deadline at or after which `due` has something (to within one spoke); 0 when nothing is under way."""
        k: cython.ulonglong
        f: cython.int
        best: cython.ulonglong = 0

        for k in range(512):
            f = self.spokes[cython.cast(cython.int, (self.spoke_at + k) & 511)]
            while f >= 0:
                if best == 0 or self.deadline[f] < best:
                    best = self.deadline[f]
                f = self.spoke_next[f]
            if best:
                return best
        return 0

    # --- joiners --------------------------------------------------------------------------------------------------

    def join(self, f: cython.int) -> cython.int:
        """A new joiner of a flight; -1 when there are as many as may be."""
        j: cython.int = self.free_joiner

        if self.count[f] >= 1024:
            return -1
        if j >= 0:
            self.free_joiner = self.next[j]
        elif self.fresh_joiner < self.joiners:
            j = self.fresh_joiner
            self.fresh_joiner += 1
        else:
            return -1
        self.waiting += 1
        self.next[j] = -1
        if self.last[f] >= 0:
            self.next[self.last[f]] = j
        else:
            self.first[f] = j
        self.last[f] = j
        self.count[f] += 1
        return j

    def excuse(self, f: cython.int, j: cython.int, before: cython.int) -> cython.int:
        """A joiner, who stands behind `before` (-1: is the first), waits no more; `leave` has to follow."""
        if before < 0:
            self.first[f] = self.next[j]
        else:
            self.next[before] = self.next[j]
        if self.last[f] == j:
            self.last[f] = before
        self.count[f] -= 1
        return 0

    def leave(self, j: cython.int) -> cython.int:
        """A joiner is answered; returns the one behind it."""
        following: cython.int = self.next[j]

        self.next[j] = self.free_joiner
        self.free_joiner = j
        self.waiting -= 1
        return following

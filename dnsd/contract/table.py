"""Open a compiled table and look names and clients up in it.

Compiled by Cython with the types in `table.pxd`. Opening is O(1): it trusts bytes that
`verify.verify` has passed once, and checks only that header, length and directory fit. What
the numbers mean is in `layout`; what a match decides is in `verdict`; what a person wants to
read of a table (rule names, places) is in `tableinfo`. This file knows neither files nor sockets.
"""

import struct

import cython

if not cython.compiled:
    from dnsd.contract.layout import (
        CLIENT4_WORDS,
        CLIENT6_WORDS,
        DIRECTORY_ENTRY,
        H_DIGEST,
        H_MAJOR,
        H_MEANING,
        H_NAMES_DIGEST,
        H_SEED,
        HEADER_SIZE,
        INDEX_HEAD,
        INDEX_LABELS_HI,
        INDEX_LABELS_LO,
        INDEX_LOG2,
        INDEX_MAX_RUN,
        MAJOR,
        NAMES_INDEX,
        NAMES_LISTSETS,
        NAMES_RECORDS,
        NODE_NAME,
        NODE_WORDS,
        OWNER_INFO_WORDS,
        OWNER_NUMBER,
        PROTECT_INFO_WORDS,
        ROUTE_CLASS_WORDS,
        RULE_INFO_WORDS,
        SECTION_ANSWERS,
        SECTION_CANDIDATES,
        SECTION_CLIENTS4,
        SECTION_CLIENTS6,
        SECTION_GATES,
        SECTION_INDEX,
        SECTION_LIMIT,
        SECTION_LISTSETS,
        SECTION_NAMES,
        SECTION_NODES,
        SECTION_OWNER_INFO,
        SECTION_OWNERS,
        SECTION_PROTECT,
        SECTION_PROTECT_INFO,
        SECTION_QTYPES,
        SECTION_ROUTE_CLASSES,
        SECTION_ROUTES,
        SECTION_RULE_INFO,
        SECTION_RULES,
        SECTION_SELF,
        SECTION_SETS,
        SECTION_TEXTS,
        SECTION_ZONE_INFO,
        SECTION_ZONES,
        ZONE_INFO_WORDS,
    )
    from dnsd.contract.octets import equal
    from dnsd.contract.query import Query

from dnsd.contract.layout import MAGIC_NAMES, MAGIC_POLICY


class TableError(Exception):
    """Bytes that are not a table this version can serve; `reason` says why in one sentence."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read_header(blob: object, magic: bytes, what: str) -> dict[int, tuple[int, int, int]]:
    """Check a blob's header and directory; returns section → (offset, length, count). Raises TableError. O(sections)."""
    view = memoryview(blob)  # type: ignore[arg-type]
    if len(view) < HEADER_SIZE:
        raise TableError(f"the {what} blob has {len(view)} bytes, less than a header")
    if bytes(view[:8]) != magic:
        raise TableError(f"the {what} blob begins with {bytes(view[:8])!r}, not {magic!r}: it is no {what} blob")
    major, minor, length, sections = struct.unpack_from("<IIQI", view, H_MAJOR)
    if major != MAJOR:
        raise TableError(f"the {what} blob has format {major}.{minor}; this version reads format {MAJOR}")
    if length != len(view) or length % 8:
        raise TableError(f"the {what} blob says it has {length} bytes, but there are {len(view)}")
    if sections > SECTION_LIMIT or HEADER_SIZE + DIRECTORY_ENTRY * sections > length:
        raise TableError(f"the {what} blob's directory of {sections} sections does not fit")
    directory: dict[int, tuple[int, int, int]] = {}
    for i in range(sections):
        number, offset, size, count = struct.unpack_from("<IIII", view, HEADER_SIZE + DIRECTORY_ENTRY * i)
        if offset % 8 or offset + size > length or offset < HEADER_SIZE + DIRECTORY_ENTRY * sections:
            raise TableError(f"section {number} of the {what} blob lies outside of it")
        if number in directory:
            raise TableError(f"section {number} of the {what} blob is there twice")
        directory[number] = (offset, size, count)
    return directory


class Table:
    """A compiled table over two buffers, which it keeps alive. Immutable.

    `digest` (hex, from the policy header) names exactly these bytes, the names blob included; `meaning` is equal for
    tables that differ only in provenance. Raises TableError.
    """

    def __init__(self, policy: object, names: object) -> None:
        view = memoryview(policy)  # type: ignore[arg-type]
        names_view = memoryview(names)  # type: ignore[arg-type]
        directory = read_header(view, MAGIC_POLICY, "policy")
        names_directory = read_header(names_view, MAGIC_NAMES, "names")
        for number in range(1, SECTION_LISTSETS + 1):
            if number not in directory:
                raise TableError(f"section {number} of the policy blob is missing")
        for number in (NAMES_INDEX, NAMES_RECORDS, NAMES_LISTSETS):
            if number not in names_directory:
                raise TableError(f"section {number} of the names blob is missing")
        if bytes(view[H_NAMES_DIGEST : H_NAMES_DIGEST + 32]) != bytes(names_view[H_DIGEST : H_DIGEST + 32]):
            raise TableError("the policy blob belongs to another names blob")
        self.policy_buffer = policy
        self.names_buffer = names
        self.policy = view
        words = view.cast("I")
        name_words = names_view.cast("I")
        self.words = words
        self.names = names_view
        self.name_words = name_words
        self.digest = bytes(view[H_DIGEST : H_DIGEST + 32]).hex()
        self.meaning = bytes(view[H_MEANING : H_MEANING + 32]).hex()
        self.names_digest = bytes(view[H_NAMES_DIGEST : H_NAMES_DIGEST + 32]).hex()
        self.seed_policy = struct.unpack_from("<I", view, H_SEED)[0]
        self.seed_names = struct.unpack_from("<I", names_view, H_SEED)[0]

        self.section = memoryview(bytearray(4 * SECTION_LIMIT)).cast("I")
        self.section_bytes = memoryview(bytearray(4 * SECTION_LIMIT)).cast("I")
        self.section_count = memoryview(bytearray(4 * SECTION_LIMIT)).cast("I")
        for number, (offset, size, count) in directory.items():
            if number < SECTION_LIMIT:
                self.section[number] = offset
                self.section_bytes[number] = size
                self.section_count[number] = count
        self.index = self.section[SECTION_INDEX] // 4
        self.index_mask = (1 << words[self.index + INDEX_LOG2]) - 1
        self.index_run = words[self.index + INDEX_MAX_RUN]
        self.nodes = self.section[SECTION_NODES] // 4
        self.node_names = self.section[SECTION_NAMES]
        self.sets = self.section[SECTION_SETS] // 4
        self.candidates = self.section[SECTION_CANDIDATES] // 4
        self.rules = self.section[SECTION_RULES] // 4
        self.qtypes = self.section[SECTION_QTYPES] // 4
        self.owners = self.section[SECTION_OWNERS] // 4
        self.zones = self.section[SECTION_ZONES] // 4
        self.routes = self.section[SECTION_ROUTES] // 4
        self.route_classes = self.section[SECTION_ROUTE_CLASSES] // 4
        self.route_class_count = self.section_bytes[SECTION_ROUTE_CLASSES] // (4 * ROUTE_CLASS_WORDS)
        self.answers = self.section[SECTION_ANSWERS]
        self.clients4 = self.section[SECTION_CLIENTS4] // 4
        self.clients4_count = self.section_count[SECTION_CLIENTS4]
        self.clients6 = self.section[SECTION_CLIENTS6] // 4
        self.clients6_count = self.section_count[SECTION_CLIENTS6]
        self.listsets = self.section[SECTION_LISTSETS] // 4
        self.listset_count = self.section_count[SECTION_LISTSETS]
        self.own_ptr = words[self.section[SECTION_SELF] // 4] if self.section_bytes[SECTION_SELF] else 0
        self.texts = self.section[SECTION_TEXTS]
        self.rule_info = self.section[SECTION_RULE_INFO] // 4
        self.owner_info = self.section[SECTION_OWNER_INFO] // 4
        self.zone_info = self.section[SECTION_ZONE_INFO] // 4
        self.protect = self.section[SECTION_PROTECT] // 4
        self.protect_info = self.section[SECTION_PROTECT_INFO] // 4
        self.protect_flags = words[self.protect] if self.section_bytes[SECTION_PROTECT] else 0
        offset, size, count = names_directory[NAMES_INDEX]
        self.names_index = offset // 4
        self.names_count = count
        self.names_mask = (1 << name_words[self.names_index + INDEX_LOG2]) - 1
        self.names_run = name_words[self.names_index + INDEX_MAX_RUN]
        self.names_records = names_directory[NAMES_RECORDS][0]
        # Which label counts occur at all: a suffix of another length needs no probe.
        self.labels_policy = memoryview(bytearray(4 * 130)).cast("I")
        self.labels_names = memoryview(bytearray(4 * 130)).cast("I")
        self.spread_labels(self.labels_policy, words[self.index + INDEX_LABELS_LO], words[self.index + INDEX_LABELS_HI])
        lo, hi = (name_words[self.names_index + word] for word in (INDEX_LABELS_LO, INDEX_LABELS_HI))
        self.spread_labels(self.labels_names, lo, hi)

    def part(self, number: int) -> memoryview:
        """The bytes of a section of the policy blob (empty when it has none)."""
        offset = self.section[number]
        return memoryview(self.policy_buffer)[offset : offset + self.section_bytes[number]]  # type: ignore[arg-type]

    def count(self, number: int) -> int:
        """How many items that section says it has."""
        return self.section_count[number]

    def gates_json(self) -> bytes:
        """What each gate stands for: the input of `facts.gates`."""
        return bytes(self.part(SECTION_GATES))

    @staticmethod
    def spread_labels(flags: object, lo: int, hi: int) -> None:
        """Two words of bits as one word a label count; 63 labels and more share the last bit."""
        bits = lo | hi << 32
        for i in range(130):
            flags[i] = bits >> min(i, 63) & 1  # type: ignore[index]

    def hash(self, q: Query) -> cython.int:
        """Hash the question's suffixes with this table's seeds, unless that is done; returns 0."""
        if q.hashed == 0 or q.seed_policy != self.seed_policy or q.seed_names != self.seed_names:
            q.seed_policy = self.seed_policy
            q.seed_names = self.seed_names
            q.hash()
        return 0

    def approach(self, q: Query) -> cython.int:
        """Hash the question's suffixes, and have the processor fetch the slots that will be probed; returns 0.

        A slot of a large index is far away in memory: fetched while the question before this one is worked on, it
        costs nothing.
        """
        i: cython.int
        at: cython.uint

        self.hash(q)
        if cython.compiled:
            for i in range(q.labels + 1):
                if self.labels_policy[q.labels - i]:
                    at = self.index + INDEX_HEAD + 2 * (q.hash_policy[i] & self.index_mask)
                    prefetch(cython.address(self.words[at]))  # noqa: F821 (in table.pxd)
                if self.labels_names[q.labels - i]:
                    at = self.names_index + INDEX_HEAD + 2 * (q.hash_names[i] & self.names_mask)
                    prefetch(cython.address(self.name_words[at]))  # noqa: F821
        return 0

    def find_node(self, q: Query, i: cython.int) -> cython.int:
        """The number of the node whose name is the qname's suffix from label i, or -1."""
        h: cython.uint = q.hash_policy[i]
        at: cython.uint
        ref: cython.uint
        slot: cython.uint = h & self.index_mask
        name: cython.uint
        start: cython.int
        n: cython.int
        run: cython.uint = 0

        start = q.label[i]
        n = q.name_length - start
        while run <= self.index_run:
            at = self.index + INDEX_HEAD + 2 * slot
            ref = self.words[at + 1]
            if ref == 0:
                return -1
            if self.words[at] == h:
                name = self.node_names + self.words[self.nodes + (ref - 1) * NODE_WORDS + NODE_NAME]
                # Equal octets up to the final zero are equal labels, since lengths are among the octets.
                if equal(self.policy, name, q.name, start, n):
                    return cython.cast(cython.int, ref - 1)
            slot = (slot + 1) & self.index_mask
            run += 1
        return -1

    def find_listset(self, q: Query, i: cython.int) -> cython.int:
        """The number of the listset of the listed name that is the qname's suffix from label i, or -1."""
        h: cython.uint = q.hash_names[i]
        at: cython.uint
        ref: cython.uint
        slot: cython.uint = h & self.names_mask
        record: cython.uint
        start: cython.int
        n: cython.int
        run: cython.uint = 0

        start = q.label[i]
        n = q.name_length - start
        while run <= self.names_run:
            at = self.names_index + INDEX_HEAD + 2 * slot
            ref = self.name_words[at + 1]
            if ref == 0:
                return -1
            if self.name_words[at] == h:
                record = self.names_records + (ref - 1) * 4
                if equal(self.names, record + 4, q.name, start, n):
                    return cython.cast(cython.int, self.name_words[record // 4])
            slot = (slot + 1) & self.names_mask
            run += 1
        return -1

    def where_of(self, rule: cython.int, guard: cython.int, owner: cython.int, zone: cython.int) -> cython.uint:
        """The number of the place + 1 where a rule, or else a protection, or else an owner (word offset + 1), or else a zone, was written."""
        number: cython.uint
        if rule >= 0 and self.rule_info:
            return self.words[self.rule_info + rule * RULE_INFO_WORDS + 1]
        if guard > 0 and self.protect_info:
            return self.words[self.protect_info + (guard - 1) * PROTECT_INFO_WORDS]
        if owner > 0 and self.owner_info:
            number = self.words[self.owners + owner - 1 + OWNER_NUMBER]
            return self.words[self.owner_info + number * OWNER_INFO_WORDS]
        if zone >= 0 and self.zone_info:
            return self.words[self.zone_info + zone * ZONE_INFO_WORDS]
        return 0

    def route_for(self, route: cython.uint, client_class: cython.uint) -> cython.uint:
        """The route (number + 1) that stands in for this one for clients of this class; the same where none does."""
        lo: cython.uint = 0
        hi: cython.uint = self.route_class_count
        mid: cython.uint
        at: cython.uint

        while lo < hi:
            mid = (lo + hi) // 2
            at = self.route_classes + mid * ROUTE_CLASS_WORDS
            if self.words[at] == route and self.words[at + 1] == client_class:
                return self.words[at + 2]
            if self.words[at] < route or (self.words[at] == route and self.words[at + 1] < client_class):
                lo = mid + 1
            else:
                hi = mid
        return route

    def be32(self, q: Query, at: cython.int) -> cython.uint:
        """Four octets of the client's address as a number."""
        high: cython.uint = q.client[at]
        return (high << 24) | (q.client[at + 1] << 16) | (q.client[at + 2] << 8) | q.client[at + 3]

    def class_of(self, q: Query) -> cython.int:
        """The client class of the asker's address: the last interval that begins at or before it."""
        lo: cython.uint = 0
        hi: cython.uint
        mid: cython.uint
        at: cython.uint
        a: cython.uint
        k: cython.int
        differs: cython.int
        mapped: cython.uint = 65535

        if self.clients4_count + self.clients6_count == 0:
            return 0
        if self.be32(q, 8) == mapped and q.client_words[0] == 0:
            a = self.be32(q, 12)
            hi = self.clients4_count
            while lo < hi:
                mid = (lo + hi) // 2
                if self.words[self.clients4 + mid * CLIENT4_WORDS] <= a:
                    lo = mid + 1
                else:
                    hi = mid
            if lo == 0:
                return 0
            return cython.cast(cython.int, self.words[self.clients4 + (lo - 1) * CLIENT4_WORDS + 1])
        hi = self.clients6_count
        while lo < hi:
            mid = (lo + hi) // 2
            at = self.clients6 + mid * CLIENT6_WORDS
            differs = 0
            for k in range(4):
                a = self.be32(q, 4 * k)
                if self.words[at + k] != a:
                    differs = -1 if self.words[at + k] < a else 1
                    break
            if differs <= 0:
                lo = mid + 1
            else:
                hi = mid
        if lo == 0:
            return 0
        return cython.cast(cython.int, self.words[self.clients6 + (lo - 1) * CLIENT6_WORDS + 4])

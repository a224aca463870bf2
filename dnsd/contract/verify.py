"""Check a table's every offset once, so that nobody needs to afterwards.

The agent calls this when a table arrives or is read from disk; a table that passes can be served
without a read outside of it. Returns problems as sentences, all of them. Plain Python over whole
sections; the one loop over the names of lists is `index.check_records` (compiled).
"""

from __future__ import annotations

import hashlib
import json
from array import array

from dnsd.contract import index, layout
from dnsd.contract.layout import MAGIC_NAMES, MAGIC_POLICY
from dnsd.contract.table import TableError, read_header

Buffer = bytes | bytearray | memoryview


def _digest_ok(blob: memoryview) -> bool:
    digest = hashlib.sha256(blob[: layout.H_DIGEST])
    digest.update(blob[layout.H_DIGEST + 32 :])
    return digest.digest() == bytes(blob[layout.H_DIGEST : layout.H_DIGEST + 32])


def _wire_name_fits(data: memoryview, at: int) -> bool:
    end = min(len(data), at + 255)
    while at < end:
        if data[at] == 0:
            return True
        if data[at] > 63:
            return False
        at += data[at] + 1
    return False


class _Parts:
    """The sections of one blob, and the problems found in them."""

    def __init__(self, blob: memoryview, directory: dict[int, tuple[int, int, int]], problems: list[str]) -> None:
        self.blob = blob
        self.directory = directory
        self.problems = problems

    def words(self, section: int, each: int = 1) -> memoryview:
        """A section as words; its count must fit `each` words an item."""
        offset, size, count = self.directory.get(section, (0, 0, 0))
        if size % 4 or (each > 1 and size != count * each * 4):
            self.problems.append(f"section {section} has {size} bytes for {count} items of {each * 4}")
            return memoryview(b"").cast("I")
        return self.blob[offset : offset + size].cast("I")

    def bytes(self, section: int) -> memoryview:
        """A section as bytes."""
        offset, size, _ = self.directory.get(section, (0, 0, 0))
        return self.blob[offset : offset + size]

    def below(self, what: str, values: object, limit: int) -> None:
        """All these numbers must be below a limit."""
        top = max(values, default=-1)  # type: ignore[call-overload]
        if top >= limit:
            self.problems.append(f"{what} {top} is out of range (below {limit})")

    def slots(self, section: int, what: str) -> memoryview | None:
        """The slots of an index whose head holds together."""
        words = self.words(section)
        if len(words) < layout.INDEX_HEAD or words[layout.INDEX_LOG2] > 31:
            self.problems.append(f"the {what} index has no head")
            return None
        slots = words[layout.INDEX_HEAD :]
        if len(slots) != 2 << words[layout.INDEX_LOG2] or words[layout.INDEX_MAX_RUN] > layout.MAX_RUN:
            self.problems.append(f"the {what} index has {len(slots) // 2} slots, its head says otherwise")
            return None
        return slots

    def index(self, section: int, references: int, what: str) -> None:
        """An index: size, mask, run bound, references, at least one empty slot."""
        slots = self.slots(section, what)
        if slots is None:
            return
        refs = array("I", slots)[1::2]
        if refs.count(0) == 0:
            self.problems.append(f"the {what} index has no empty slot")
        self.below(f"the {what} index's reference", refs, references + 1)


def verify(policy: Buffer, names: Buffer, *, names_verified: bool = False) -> list[str]:
    """Everything that is wrong with these two blobs as a table; empty when they may be served.

    `names_verified` says that exactly these bytes of the names blob passed before: an edited rule leaves them so.
    """
    problems: list[str] = []
    policy_view, names_view = memoryview(policy), memoryview(names)
    try:
        policy_directory = read_header(policy_view, MAGIC_POLICY, "policy")
        names_directory = read_header(names_view, MAGIC_NAMES, "names")
    except TableError as error:
        return [error.reason]
    for what, view in (("policy", policy_view), ("names", names_view)):
        if view is names_view and names_verified:
            continue
        if not _digest_ok(view):
            problems.append(f"the {what} blob's bytes do not have the digest that its header says: it is damaged")
    mine = bytes(policy_view[layout.H_NAMES_DIGEST : layout.H_NAMES_DIGEST + 32])
    if mine != bytes(names_view[layout.H_DIGEST : layout.H_DIGEST + 32]):
        problems.append("the policy blob belongs to another names blob")
    for number in range(1, layout.SECTION_LISTSETS + 1):
        if number not in policy_directory:
            problems.append(f"section {number} of the policy blob is missing")
    for number in (layout.NAMES_INDEX, layout.NAMES_RECORDS, layout.NAMES_LISTSETS):
        if number not in names_directory:
            problems.append(f"section {number} of the names blob is missing")
    if problems:
        return problems
    listsets = names_directory[layout.NAMES_LISTSETS][2]
    if not names_verified:
        _verify_names(_Parts(names_view, names_directory, problems), listsets)
    _verify_policy(_Parts(policy_view, policy_directory, problems), listsets)
    return problems


def _verify_names(parts: _Parts, listsets: int) -> None:
    """Every slot leads to a record that holds a name and a listset that exists."""
    slots = parts.slots(layout.NAMES_INDEX, "names")
    if slots is None:
        return
    problem = index.check_records(slots, parts.bytes(layout.NAMES_RECORDS), listsets)
    if problem:
        parts.problems.append(index.RECORD_PROBLEMS[problem])


def _verify_policy(parts: _Parts, listsets: int) -> None:
    """Every reference from one section into another."""
    names = parts.bytes(layout.SECTION_NAMES)
    nodes = parts.words(layout.SECTION_NODES, layout.NODE_WORDS)
    sets = parts.words(layout.SECTION_SETS)
    candidates = parts.words(layout.SECTION_CANDIDATES, layout.CANDIDATE_WORDS)
    rules = parts.words(layout.SECTION_RULES, layout.RULE_WORDS)
    owners = parts.words(layout.SECTION_OWNERS)
    zones = parts.words(layout.SECTION_ZONES, layout.ZONE_WORDS)
    routes = parts.words(layout.SECTION_ROUTES, layout.ROUTE_WORDS)
    servers = parts.words(layout.SECTION_SERVERS, layout.SERVER_WORDS)
    answers = parts.bytes(layout.SECTION_ANSWERS)
    qtypes = parts.words(layout.SECTION_QTYPES)
    classes = parts.directory[layout.SECTION_CLASSES][2]
    pairs = parts.words(layout.SECTION_LISTSETS, layout.LISTSET_WORDS)
    rule_count = len(rules) // layout.RULE_WORDS
    parts.index(layout.SECTION_INDEX, len(nodes) // layout.NODE_WORDS, "policy")
    if len(pairs) != listsets * layout.LISTSET_WORDS:
        parts.problems.append(f"{len(pairs) // layout.LISTSET_WORDS} listset rows for {listsets} listsets")
    try:
        gates = len(json.loads(bytes(parts.bytes(layout.SECTION_GATES)))["gates"])
    except (ValueError, KeyError, TypeError):
        parts.problems.append("the gates are not readable")
        return

    starts = _owner_starts(parts, owners, len(answers), len(names), len(routes) // layout.ROUTE_WORDS)
    set_starts = _set_starts(parts, sets, len(candidates) // layout.CANDIDATE_WORDS, classes)

    def column(words: memoryview, width: int, place: int) -> list[int]:
        return array("I", words)[place::width].tolist()

    for offset in column(nodes, layout.NODE_WORDS, layout.NODE_NAME):
        if not _wire_name_fits(names, offset):
            parts.problems.append(f"a node's name at {offset} is not a name")
            break
    for place in (layout.NODE_SET_SELF, layout.NODE_SET_BELOW):
        _among(parts, "a node's set", column(nodes, layout.NODE_WORDS, place), set_starts)
    for place in (layout.NODE_OWNER, layout.NODE_WILD):
        _among(parts, "a node's owner", column(nodes, layout.NODE_WORDS, place), starts)
    zone_count, route_count = len(zones) // layout.ZONE_WORDS, len(routes) // layout.ROUTE_WORDS
    parts.below("a node's zone", column(nodes, layout.NODE_WORDS, layout.NODE_ZONE), zone_count + 1)
    parts.below("a node's route", column(nodes, layout.NODE_WORDS, layout.NODE_ROUTE), route_count + 1)
    _among(parts, "a listset's set", pairs.tolist(), set_starts)
    parts.below("a candidate's rule", column(candidates, layout.CANDIDATE_WORDS, layout.CANDIDATE_RULE), rule_count)
    _among(parts, "a redirect's owner", column(candidates, layout.CANDIDATE_WORDS, layout.CANDIDATE_ARG), starts)
    _among(parts, "a reply's owner", column(rules, layout.RULE_WORDS, layout.RULE_ARG), starts)
    for place in (layout.RULE_GATE_WHEN, layout.RULE_GATE_EXPIRES):
        parts.below("a rule's gate", column(rules, layout.RULE_WORDS, place), gates + 1)
    for place in range(0, len(rules), layout.RULE_WORDS):
        first, count = rules[place + layout.RULE_QTYPES_FIRST], rules[place + layout.RULE_QTYPES_COUNT]
        if first + count > len(qtypes):
            parts.problems.append("a rule's qtypes lie outside of their section")
        action, reply = rules[place + layout.RULE_ACTION], rules[place + layout.RULE_REPLY] & 255
        if action not in (1, 2, 3) or reply > 6 or (action == 1 and reply == 6 and not rules[place + layout.RULE_ARG]):
            parts.problems.append(f"rule {place // layout.RULE_WORDS} has an action or reply that does not exist")
    for place in range(0, len(candidates), layout.CANDIDATE_WORDS):
        rule = candidates[place]
        if rule < rule_count and rules[rule * layout.RULE_WORDS] == 2 and not candidates[place + layout.CANDIDATE_ARG]:
            parts.problems.append("a redirect leads nowhere")
            break
    for place in range(0, len(zones), layout.ZONE_WORDS):
        if zones[place + 1] + zones[place + 2] > len(answers) or zones[place] >= len(nodes) // layout.NODE_WORDS:
            parts.problems.append("a zone's SOA or name lies outside of its section")
    triples = parts.words(layout.SECTION_ROUTE_CLASSES, layout.ROUTE_CLASS_WORDS)
    keys = list(zip(triples[0::3], triples[1::3], strict=True))
    if any(not 0 < number <= route_count for number in (*triples[0::3], *triples[2::3])) or keys != sorted(set(keys)):
        parts.problems.append("routes for client classes lead to no route, or are out of order")
    for place in range(0, len(routes), layout.ROUTE_WORDS):
        last = routes[place + layout.ROUTE_SERVERS_FIRST] + routes[place + layout.ROUTE_SERVERS_COUNT]
        if last > len(servers) // layout.SERVER_WORDS or not _wire_name_fits(names, routes[place + layout.ROUTE_NAME]):
            parts.problems.append("a route's servers or name lie outside of their section")
    for section, width in (
        (layout.SECTION_CLIENTS4, layout.CLIENT4_WORDS),
        (layout.SECTION_CLIENTS6, layout.CLIENT6_WORDS),
    ):
        parts.below("a client interval's class", column(parts.words(section, width), width, width - 1), classes)
    _among(parts, "the owner of our own addresses' names", parts.words(layout.SECTION_SELF).tolist(), starts)
    protect = parts.words(layout.SECTION_PROTECT)
    if len(protect) and (len(protect) < 3 or len(protect) != 3 + 2 * protect[1] + 8 * protect[2] or protect[0] > 7):
        parts.problems.append("the protections lie outside of their section")
    _verify_provenance(parts, rule_count)


def _among(parts: _Parts, what: str, values: list[int], starts: frozenset[int]) -> None:
    wrong = set(values) - starts
    if wrong:
        parts.problems.append(f"{what} begins at {min(wrong)}, where none does")


def _owner_starts(parts: _Parts, owners: memoryview, answers: int, names: int, routes: int) -> frozenset[int]:
    """Where owners begin (word offset + 1, and 0 for none); checks what they refer to."""
    starts = {0}
    at = 0
    data = parts.bytes(layout.SECTION_NAMES)
    while at < len(owners):
        starts.add(at + 1)
        end = at + layout.OWNER_HEAD + owners[at] * layout.ENTRY_WORDS
        if at + layout.OWNER_HEAD > len(owners) or end > len(owners):
            parts.problems.append("an owner's entries lie outside of their section")
            break
        target = owners[at + layout.OWNER_TARGET]
        if target and not _wire_name_fits(data, target - 1):
            parts.problems.append("a redirect's target is not a name")
        for entry in range(at + layout.OWNER_HEAD, end, layout.ENTRY_WORDS):
            template = owners[entry + layout.ENTRY_RCODE] >> 16
            if owners[entry + layout.ENTRY_OFFSET] + owners[entry + layout.ENTRY_LENGTH] + template > answers:
                parts.problems.append("an entry's records lie outside of their section")
            name = owners[entry + layout.ENTRY_TARGET]
            if owners[entry + layout.ENTRY_ROUTE] > routes or (name and not _wire_name_fits(data, name - 1)):
                parts.problems.append("an alias leads to no name or route")
        at = end
    return frozenset(starts)


def _set_starts(parts: _Parts, sets: memoryview, candidates: int, classes: int) -> frozenset[int]:
    """Where sets begin (word offset + 1, and 0 for none); checks their runs."""
    starts = {0}
    at = 0
    while at < len(sets):
        starts.add(at + 1)
        if at + layout.SET_HEAD > len(sets):
            parts.problems.append("a set lies outside of its section")
            break
        end = at + layout.SET_HEAD + 3 * sets[at + layout.SET_CLASSES]
        if end > len(sets):
            parts.problems.append("a set's classes lie outside of their section")
            break
        runs = [(sets[at], sets[at + 1]), (sets[at + 2], sets[at + 3])]
        runs += [(sets[i + 1], sets[i + 2]) for i in range(at + layout.SET_HEAD, end, 3)]
        if any(first + count > candidates for first, count in runs):
            parts.problems.append("a set's candidates lie outside of their section")
        parts.below("a set's class", [sets[i] for i in range(at + layout.SET_HEAD, end, 3)], classes)
        at = end
    return frozenset(starts)


def _verify_provenance(parts: _Parts, rule_count: int) -> None:
    offsets = parts.words(layout.SECTION_STRINGS)
    data = parts.bytes(layout.SECTION_STRING_BYTES)
    strings = max(0, len(offsets) - 1)
    if not len(offsets) or list(offsets) != sorted(offsets) or offsets[-1] > len(data):
        parts.problems.append("the strings are out of order")
        return
    wheres = parts.words(layout.SECTION_WHERES, layout.WHERE_WORDS)
    parts.below("a place's file", array("I", wheres)[0 :: layout.WHERE_WORDS].tolist(), strings)
    infos = parts.words(layout.SECTION_RULE_INFO, layout.RULE_INFO_WORDS)
    if len(infos) != rule_count * layout.RULE_INFO_WORDS:
        parts.problems.append("rules without names")
        return
    texts = len(parts.bytes(layout.SECTION_TEXTS))
    guards = parts.words(layout.SECTION_PROTECT_INFO, layout.PROTECT_INFO_WORDS)
    for place in range(0, len(guards), layout.PROTECT_INFO_WORDS):
        if guards[place + 1] + guards[place + 2] > texts or guards[place + 2] > 4096:
            parts.problems.append("a protection's text lies outside of its section")
    if len(guards) != 3 * layout.PROTECT_INFO_WORDS and len(parts.words(layout.SECTION_PROTECT)):
        parts.problems.append("protections without their texts")
    for place in range(0, len(infos), layout.RULE_INFO_WORDS):
        if infos[place + 2] + infos[place + 3] > texts or infos[place] >= strings or infos[place + 3] > 4096:
            parts.problems.append("a rule's name or text lies outside of its section")

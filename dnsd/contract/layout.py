"""The byte layout of a compiled table: where everything stands in its two blobs.

Constants only; `schemas/TABLE.md` explains them for a reader in another language. All numbers
are little-endian u32 "words" unless said otherwise; every offset is in bytes from the start of
its section unless said otherwise; sections begin at multiples of 8. Adding a section raises the
minor version, changing one the major. `layout.pxd` beside this file is written by `ci/generate-pxd`.
"""

MAGIC_POLICY = b"NXPOLICY"
MAGIC_NAMES = b"NXNAMES\x00"

# --- generated into layout.pxd from here ------------------------------------------------

MAJOR = 1
MINOR = 0

# Header, byte offsets. The digest is SHA-256 of the whole blob without the 32 bytes of the digest itself.
H_MAGIC = 0
H_MAJOR = 8
H_MINOR = 12
H_LENGTH = 16  # u64
H_SECTIONS = 24
H_SEED = 28
H_DIGEST = 32
H_MEANING = 64  # policy: SHA-256 of the names digest and all sections below SECTION_PROVENANCE
H_NAMES_DIGEST = 96  # policy: the digest of the names blob that it belongs to
HEADER_SIZE = 128
DIRECTORY_ENTRY = 16  # words: section, offset from the start of the blob, length, count

# Sections of the policy blob that decide something.
SECTION_INDEX = 1
SECTION_NODES = 2
SECTION_NAMES = 3
SECTION_SETS = 4
SECTION_CANDIDATES = 5
SECTION_RULES = 6
SECTION_QTYPES = 7
SECTION_OWNERS = 8
SECTION_ZONES = 9
SECTION_ROUTES = 10
SECTION_SERVERS = 11
SECTION_ANSWERS = 12
SECTION_CLIENTS4 = 13
SECTION_CLIENTS6 = 14
SECTION_CLASSES = 15  # words: first[classes + 1], then group numbers
SECTION_LISTSETS = 16
SECTION_GATES = 17  # JSON: what each gate stands for
SECTION_PATTERNS = 18  # regular expressions as DFA tables; empty in this version
SECTION_PROTECT = 19  # words: PROTECT_* flags, refused IPv4 intervals, refused IPv6 intervals, then the intervals (first, last)
SECTION_SELF = 20  # word: the owner (word offset + 1 in SECTION_OWNERS) of the PTR records for our own addresses; may be missing
SECTION_ROUTE_CLASSES = 21  # triples of words, ascending: route number + 1, client class, route number + 1 for that class; may be missing
# Sections from here on say where things come from and decide nothing.
SECTION_PROVENANCE = 32
SECTION_STRINGS = 32
SECTION_STRING_BYTES = 33
SECTION_WHERES = 34
SECTION_RULE_INFO = 35
SECTION_GROUP_INFO = 36
SECTION_LIST_INFO = 37
SECTION_OWNER_INFO = 38
SECTION_ROUTE_INFO = 39
SECTION_ZONE_INFO = 40
SECTION_TEXTS = 41  # ready texts for Extended DNS Errors
SECTION_RULE_GROUPS = 42  # words: numbers of the groups that rules name
SECTION_PROTECT_INFO = 43
SECTION_LIMIT = 48  # one more than the highest number

# Sections of the names blob.
NAMES_INDEX = 1
NAMES_RECORDS = 2
NAMES_LISTSETS = 3
NAMES_LISTS = 4  # JSON: the lists by name

# An index (policy and names): these words, then the slots of two words each: hash, reference + 1 (0 = empty).
# Policy: the reference is a node's number. Names: a record's offset / 4.
INDEX_LOG2 = 0
INDEX_MAX_RUN = 1
INDEX_LABELS_LO = 2  # bit n: some stored name has n labels (31 and 63 stand for "that or more" in the last bit)
INDEX_LABELS_HI = 3
INDEX_HEAD = 4
MAX_RUN = 64  # a seed is accepted when no probe run is longer

# A node: a name that anything but a list mentions.
NODE_NAME = 0  # offset in SECTION_NAMES
NODE_SET_SELF = 1  # set number, 0 = none: candidates when the qname is this name
NODE_SET_BELOW = 2  # candidates when the qname is below it
NODE_ZONE = 3  # zone number + 1 when this is an apex
NODE_OWNER = 4  # word offset + 1 in SECTION_OWNERS
NODE_WILD = 5  # the same for the owner `*.name`
NODE_ROUTE = 6  # route number + 1
NODE_FLAGS = 7
NODE_WORDS = 8
FLAG_EXISTS = 1  # the name exists in an own zone (records, or an empty non-terminal)
FLAG_EXCEPTION_BELOW = 2  # a rule allows or redirects a written name below this one
FLAG_SPECIAL_SHIFT = 4  # bits 4 to 7: codes.SPECIAL_*
FLAG_SPARED_SHIFT = 8  # bits 8 to 10: PROTECT_* that spare this name and everything below

# A set: candidates by client class. Words: first and count of all of them (for explaining), first and count for
# classes not listed, number of listed classes, then per listed class (ascending): class, first, count.
SET_ALL_FIRST = 0
SET_ALL_COUNT = 1
SET_FIRST = 2
SET_COUNT = 3
SET_CLASSES = 4
SET_HEAD = 5

# A candidate: a rule that may decide, best first. The key is (high, labels * 2 + exact, low), larger wins.
CANDIDATE_RULE = 0
CANDIDATE_HIGH = 1  # (priority + 1000) << 2 | written << 1 | has `for`
CANDIDATE_LOW = 2  # dense rank of (with types, action, name)
CANDIDATE_INFO = 3  # bit 0: exact (`=name`); bits 8 and up: list number + 1
CANDIDATE_ARG = 4  # redirect: word offset + 1 in SECTION_OWNERS
CANDIDATE_WORDS = 5

# A rule.
RULE_ACTION = 0
RULE_REPLY = 1
RULE_TTL = 2
RULE_GATE_WHEN = 3  # gate number + 1, 0 = always
RULE_GATE_EXPIRES = 4
RULE_QTYPES_FIRST = 5
RULE_QTYPES_COUNT = 6
RULE_ARG = 7  # reply with addresses: word offset + 1 in SECTION_OWNERS
RULE_WORDS = 8

# An owner: what is answered for one name, by qtype. Words: entries, number, zone number + 1, target; then entries.
OWNER_ENTRIES = 0
OWNER_NUMBER = 1
OWNER_ZONE = 2
OWNER_TARGET = 3  # offset + 1 in SECTION_NAMES: a redirect's target, to which the redirect does not apply
OWNER_HEAD = 4
ENTRY_QTYPE = 0  # ENTRY_OTHER: every other qtype (always the last entry)
ENTRY_OFFSET = 1  # in SECTION_ANSWERS: resource records, owners C00C (the qname) or written out
ENTRY_LENGTH = 2
ENTRY_COUNTS = 3  # answers | authorities << 16
ENTRY_RCODE = 4  # rcode | length << 16 of a record that follows the ready ones, RDATA left out: once per address of `self`
ENTRY_TARGET = 5  # offset + 1 in SECTION_NAMES: the answer ends in a CNAME to this name, which is not ours
ENTRY_ROUTE = 6  # route number + 1 for that name
ENTRY_WORDS = 7
ENTRY_OTHER = 65536

# A zone.
ZONE_NODE = 0
ZONE_SOA_OFFSET = 1  # in SECTION_ANSWERS: type, class, TTL (the negative one), rdlength, rdata; the owner comes before
ZONE_SOA_LENGTH = 2
ZONE_FLAGS = 3
ZONE_WORDS = 4
ZONE_SOLO = 1  # owns exactly its apex (a reverse name made by `ptr: auto`)

# A route.
ROUTE_KIND = 0
ROUTE_NAME = 1  # offset in SECTION_NAMES
ROUTE_STRATEGY = 2
ROUTE_TIMEOUT = 3  # ms
ROUTE_DNSSEC = 4
ROUTE_SERVERS_FIRST = 5
ROUTE_SERVERS_COUNT = 6
ROUTE_REVIEWED = 7  # 1: answers from there come from outside and are reviewed
ROUTE_WORDS = 8
ROUTE_CLASS_WORDS = 3
KIND_FORWARD = 1
KIND_RECURSE = 2
KIND_DHCP = 3
SERVER_VERSION = 0
SERVER_PORT = 1
SERVER_ADDRESS = 2  # 16 bytes, network order, IPv4 mapped
SERVER_WORDS = 6

PROTECT_REBINDING = 1
PROTECT_CNAME = 2
PROTECT_NETWORKS = 4
PROTECT_HEAD = 3

CLIENT4_WORDS = 2  # first address, class; ascending; up to the next one's first address
CLIENT6_WORDS = 5  # first address as four words (most significant first), class

# Provenance. A where: file (string number), line, column, 0. Infos refer to strings and wheres by number.
WHERE_WORDS = 4
RULE_INFO_WORDS = 12  # name, where, text offset, text length, description, ticket, owner, schedule, for: first, count, except: first, count
GROUP_INFO_WORDS = 4  # name, where, 1 for a client, 0
LIST_INFO_WORDS = 4  # name, where, entries, 0
OWNER_INFO_WORDS = 2  # where + 1, rule + 1
ROUTE_INFO_WORDS = 2  # where + 1, string number + 1 of the group that it is for (0: everybody)
ZONE_INFO_WORDS = 2  # where + 1, 0
PROTECT_INFO_WORDS = 4  # for rebinding, cname, networks: where + 1, text offset, text length, 0
LISTSET_WORDS = 2  # set for the name itself, set for names below

# --- generated into layout.pxd up to here -----------------------------------------------

STRATEGIES: tuple[str, ...] = ("failover", "fastest", "race", "spread")

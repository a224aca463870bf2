"""Every number that has a name: qtypes, rcodes, EDE codes, actions, stages, counters.

Pure data. The constants that compiled modules use stand in the first part as plain integers;
`codes.pxd` beside this file repeats that part for Cython and is written by `ci/generate-pxd`
(a test fails when the two differ).
"""

# --- generated into codes.pxd from here -------------------------------------------------

# Opcodes and classes (RFC 1035, section 3.2.4 and 4.1.1; RFC 6895).
OPCODE_QUERY = 0
CLASS_IN = 1
CLASS_CH = 3
CLASS_ANY = 255

# Query types that the query path itself must know.
TYPE_A = 1
TYPE_NS = 2
TYPE_CNAME = 5
TYPE_SOA = 6
TYPE_PTR = 12
TYPE_HINFO = 13
TYPE_MX = 15
TYPE_TXT = 16
TYPE_AAAA = 28
TYPE_SRV = 33
TYPE_DNAME = 39
TYPE_OPT = 41
TYPE_DS = 43
TYPE_RRSIG = 46
TYPE_TKEY = 249
TYPE_TSIG = 250
TYPE_IXFR = 251
TYPE_AXFR = 252
TYPE_MAILB = 253
TYPE_MAILA = 254
TYPE_ANY = 255
TYPE_CAA = 257

# Response codes (RFC 6895, section 2.3).
RCODE_NOERROR = 0
RCODE_FORMERR = 1
RCODE_SERVFAIL = 2
RCODE_NXDOMAIN = 3
RCODE_NOTIMP = 4
RCODE_REFUSED = 5
RCODE_BADVERS = 16

# Extended DNS Error codes (RFC 8914, section 4) that we send.
EDE_NONE = -1
EDE_OTHER = 0
EDE_STALE_ANSWER = 3
EDE_FORGED_ANSWER = 4
EDE_NOT_READY = 14
EDE_BLOCKED = 15
EDE_PROHIBITED = 18
EDE_STALE_NXDOMAIN = 19
EDE_NO_REACHABLE_AUTHORITY = 22
EDE_NETWORK_ERROR = 23

# Stages of the first chain, in the order in which they are asked.
STAGE_SHAPE = 1
STAGE_CLIENT = 2
STAGE_LOCAL = 3
STAGE_POLICY = 4
STAGE_ROUTE = 5

# What `decide` says is to be done with a query.
ACTION_NONE = 0
ACTION_ANSWER = 1  # ready wire bytes of the table
ACTION_NXDOMAIN = 2  # made here, with a SOA
ACTION_NODATA = 3  # made here, with a SOA
ACTION_ZERO = 4  # 0.0.0.0 or ::
ACTION_REFUSED = 5
ACTION_DROP = 6
ACTION_NOTIMP = 7
ACTION_FORMERR = 8
ACTION_BADVERS = 9
ACTION_SERVFAIL = 10  # no table, or no route
ACTION_MINIMAL = 11  # RFC 8482: HINFO for ANY
ACTION_CHAOS = 12  # a question of class CH that we answer
ACTION_FORWARD = 13
ACTION_RECURSE = 14
ACTION_ALIAS = 15  # ready CNAME bytes, and the target still has to be asked for by `route`

# What a rule does.
RULE_BLOCK = 1
RULE_REDIRECT = 2
RULE_ALLOW = 3

# How a blocked name is answered.
REPLY_DEFAULT = 0
REPLY_NXDOMAIN = 1
REPLY_NODATA = 2
REPLY_ZERO = 3
REPLY_REFUSED = 4
REPLY_DROP = 5
REPLY_ADDRESSES = 6

# What a name kept at home means (RFC 6303, RFC 6761).
SPECIAL_NONE = 0
SPECIAL_NXDOMAIN = 1
SPECIAL_LOCALHOST = 2
SPECIAL_NODATA = 3

# Counters: one u64 per name and worker slot. A counter's place never changes, new ones are added at the end.
COUNT_QUERIES_UDP = 0
COUNT_QUERIES_TCP = 1
COUNT_MALFORMED = 2
COUNT_LOCAL = 3
COUNT_ALLOWED = 4
COUNT_BLOCKED = 5
COUNT_REDIRECTED = 6
COUNT_REFUSED = 7
COUNT_DROPPED = 8
COUNT_CACHE_HITS = 9
COUNT_CACHE_MISSES = 10
COUNT_UPSTREAM_QUERIES = 11
COUNT_UPSTREAM_ANSWERS = 12
COUNT_UPSTREAM_TIMEOUTS = 13
COUNT_UPSTREAM_MISMATCHES = 14
COUNT_COALESCED = 15
COUNT_SERVFAIL = 16
COUNT_NXDOMAIN = 17
COUNT_TRUNCATED = 18
COUNT_SEND_ERRORS = 19
COUNT_DECISIONS_DROPPED = 20
COUNT_TCP_CONNECTIONS = 21
COUNT_TCP_REFUSED = 22
COUNT_OVERLOADED = 23
COUNT_SPECIAL = 24
COUNT_CACHE_STORED = 25
COUNT_STALE = 26
COUNT_PREFETCHES = 27
COUNT_PROBES = 28
COUNT_RATE_LIMITED = 29
COUNTERS = 30  # how many there are

# --- generated into codes.pxd up to here ------------------------------------------------

# Extended DNS Error codes that only resolving gives.
EDE_UNSUPPORTED_DNSKEY_ALGORITHM = 1
EDE_UNSUPPORTED_DS_DIGEST = 2
EDE_DNSSEC_INDETERMINATE = 5
EDE_DNSSEC_BOGUS = 6
EDE_SIGNATURE_EXPIRED = 7
EDE_SIGNATURE_NOT_YET_VALID = 8
EDE_DNSKEY_MISSING = 9
EDE_RRSIGS_MISSING = 10
EDE_NO_ZONE_KEY_BIT = 11
EDE_NSEC_MISSING = 12
EDE_CACHED_ERROR = 13
EDE_INVALID_DATA = 24
EDE_SIGNATURE_EXPIRED_BEFORE_VALID = 25
EDE_UNSUPPORTED_NSEC3_ITERATIONS = 27

QTYPES: dict[str, int] = {
    "A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "HINFO": 13, "MX": 15, "TXT": 16, "RP": 17, "AFSDB": 18,
    "SIG": 24, "KEY": 25, "AAAA": 28, "LOC": 29, "SRV": 33, "NAPTR": 35, "KX": 36, "CERT": 37, "DNAME": 39,
    "OPT": 41, "APL": 42, "DS": 43, "SSHFP": 44, "IPSECKEY": 45, "RRSIG": 46, "NSEC": 47, "DNSKEY": 48,
    "DHCID": 49, "NSEC3": 50, "NSEC3PARAM": 51, "TLSA": 52, "SMIMEA": 53, "HIP": 55, "CDS": 59, "CDNSKEY": 60,
    "OPENPGPKEY": 61, "CSYNC": 62, "ZONEMD": 63, "SVCB": 64, "HTTPS": 65, "SPF": 99, "EUI48": 108, "EUI64": 109,
    "TKEY": 249, "TSIG": 250, "IXFR": 251, "AXFR": 252, "MAILB": 253, "MAILA": 254, "ANY": 255, "URI": 256,
    "CAA": 257, "TA": 32768, "DLV": 32769,
}  # fmt: skip
_QTYPE_NAMES = {number: name for name, number in QTYPES.items()}

RCODES: dict[str, int] = {
    "NOERROR": 0, "FORMERR": 1, "SERVFAIL": 2, "NXDOMAIN": 3, "NOTIMP": 4, "REFUSED": 5, "YXDOMAIN": 6,
    "YXRRSET": 7, "NXRRSET": 8, "NOTAUTH": 9, "NOTZONE": 10, "BADVERS": 16, "BADCOOKIE": 23,
}  # fmt: skip
_RCODE_NAMES = {number: name for name, number in RCODES.items()}

# DNSSEC: algorithms of keys and signatures, digests of DS (IANA registries).
ALGORITHM_NAMES: dict[int, str] = {
    1: "RSAMD5", 3: "DSA", 5: "RSASHA1", 6: "DSA-NSEC3-SHA1", 7: "RSASHA1-NSEC3-SHA1", 8: "RSASHA256",
    10: "RSASHA512", 12: "ECC-GOST", 13: "ECDSAP256SHA256", 14: "ECDSAP384SHA384", 15: "ED25519", 16: "ED448",
}  # fmt: skip
DIGEST_NAMES: dict[int, str] = {1: "SHA-1", 2: "SHA-256", 3: "GOST R 34.11-94", 4: "SHA-384"}

EDE_NAMES: dict[int, str] = {
    0: "Other", 1: "Unsupported DNSKEY Algorithm", 2: "Unsupported DS Digest Type", 3: "Stale Answer",
    4: "Forged Answer", 5: "DNSSEC Indeterminate", 6: "DNSSEC Bogus", 7: "Signature Expired",
    8: "Signature Not Yet Valid", 9: "DNSKEY Missing", 10: "RRSIGs Missing", 11: "No Zone Key Bit Set",
    12: "NSEC Missing", 13: "Cached Error", 14: "Not Ready", 15: "Blocked", 16: "Censored", 17: "Filtered",
    18: "Prohibited", 19: "Stale NXDOMAIN Answer", 20: "Not Authoritative", 21: "Not Supported",
    22: "No Reachable Authority", 23: "Network Error", 24: "Invalid Data", 25: "Signature Expired before Valid",
    26: "Too Early", 27: "Unsupported NSEC3 Iterations Value", 28: "Unable to conform to policy", 29: "Synthesized",
}  # fmt: skip

STAGE_NAMES: dict[int, str] = {0: "none", 1: "shape", 2: "client", 3: "local", 4: "policy", 5: "route"}
ACTION_NAMES: dict[int, str] = {
    0: "none", 1: "answer", 2: "nxdomain", 3: "nodata", 4: "zero", 5: "refused", 6: "drop", 7: "notimp",
    8: "formerr", 9: "badvers", 10: "servfail", 11: "minimal", 12: "chaos", 13: "forward", 14: "recurse", 15: "alias",
}  # fmt: skip
RULE_ACTION_NAMES: dict[int, str] = {0: "", 1: "block", 2: "redirect", 3: "allow"}
REPLY_NAMES: dict[int, str] = {
    0: "default", 1: "nxdomain", 2: "nodata", 3: "zero", 4: "refused", 5: "drop", 6: "addresses",
}  # fmt: skip
REPLIES: dict[str, int] = {name: number for number, name in REPLY_NAMES.items() if number not in (0, 6)}

COUNTER_NAMES: tuple[str, ...] = (
    "queries_udp", "queries_tcp", "malformed", "local", "allowed", "blocked", "redirected", "refused", "dropped",
    "cache_hits", "cache_misses", "upstream_queries", "upstream_answers", "upstream_timeouts",
    "upstream_mismatches", "coalesced", "servfail", "nxdomain", "truncated", "send_errors", "decisions_dropped",
    "tcp_connections", "tcp_refused", "overloaded", "special", "cache_stored",
    "stale", "prefetches", "probes", "rate_limited",
)  # fmt: skip


def qtype_name(number: int) -> str:
    """Name a qtype; an unknown one is written TYPE65280 (RFC 3597, section 5)."""
    return _QTYPE_NAMES.get(number) or f"TYPE{number}"


def qtype_number(name: str) -> int:
    """Read a qtype's name or TYPE65280; raises KeyError."""
    upper = name.upper()
    if upper in QTYPES:
        return QTYPES[upper]
    if upper.startswith("TYPE") and upper[4:].isascii() and upper[4:].isdigit() and int(upper[4:]) < 65536:
        return int(upper[4:])
    raise KeyError(name)


def rcode_name(number: int) -> str:
    """Name an rcode; an unknown one is written RCODE3841."""
    return _RCODE_NAMES.get(number) or f"RCODE{number}"

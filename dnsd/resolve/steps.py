"""The steps of a resolution, for people: what was asked of whom and what came of it. Data only.

A resolution writes them when it is given a list; nothing is decided by them.
"""

from __future__ import annotations

import dataclasses

from dnsd.resolve.rrsets import RRset
from dnsd.resolve.upstreams import Server

# What a step is.
LOOKUP = "lookup"  # a name begins to be looked for; depth grows with each name server's own name
CACHED = "cached"
FORWARDED = "forwarded"  # a forward entry's servers are asked from here on; `text` is its name
OWN = "own"  # our table answers; `text` is its zone
ASK = "ask"
ADDRESSES = "addresses"  # the address of a name server has to be found first
TRUST = "trust"  # what validation found out about a zone: `said` as for VALIDATED, `keys` tags that are vouched for
VALIDATED = "validated"  # `said` is secure, insecure, bogus or indeterminate
RESULT = "result"
FAILED = "failed"


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One step. For an ASK: `zone` is what the server was asked as an authority of, `said` what the answer was (a
    `scrub` kind, or a word like timeout), `text` why; `cut`, `servers` and `glue` of a referral; `rrsets` what came.

    `rtt_ms` is -1 where nothing came back; `took_ms` is the whole wait, with tries again.
    """

    kind: str
    depth: int
    name: bytes
    qtype: int
    zone: bytes = b""
    server: Server | None = None
    server_name: bytes = b""
    transport: str = ""
    rtt_ms: int = -1
    said: str = ""
    text: str = ""
    cut: bytes = b""
    servers: tuple[bytes, ...] = ()
    glue: tuple[tuple[bytes, tuple[str, ...]], ...] = ()
    rrsets: tuple[RRset, ...] = ()
    keys: tuple[int, ...] = ()
    took_ms: int = 0

"""Whose word counts for a name on the way of a recursion: ours, a forward entry's servers', the authorities'.

Pure: the table is asked by a function that whoever starts a question hands in. What a client asks for has been decided
before; this is about where its aliases lead, and about the names of name servers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from dnsd.contract import codes, names
from dnsd.resolve.rrsets import RRset, parse

if TYPE_CHECKING:
    from dnsd.resolve.resolver import Resolver


@dataclasses.dataclass(frozen=True, slots=True)
class Own:
    """A name of an own zone: `response` is our whole answer, as a server would send it; `zone` is for people."""

    response: bytes
    zone: str


@dataclasses.dataclass(frozen=True, slots=True)
class Forwarded:
    """A name of a forward entry: `resolver` asks its servers. `validated`: what they say has to stand validation."""

    resolver: Resolver
    validated: bool
    name: str


# Who is responsible for this name and type; None: nobody but the authorities.
Realms = Callable[[bytes, int], Own | Forwarded | None]


def own_answer(own: Own, sname: bytes, qtype: int) -> tuple[int, tuple[RRset, ...], tuple[RRset, ...], bytes]:
    """What our table says: rcode, answer, authority; and where its last alias leads, b"" when that is the end of it."""
    message = parse(own.response)
    return message.rcode, message.answer, message.authority, end_of(message.answer, sname, qtype)


def end_of(answer: Iterable[RRset], sname: bytes, qtype: int) -> bytes:
    """Where a chain of aliases leads that ends in nothing; b"" when it ends in what was asked for, or is none."""
    target = b""
    for rrset in answer:
        if rrset.rtype == qtype:
            return b""
        if rrset.rtype == codes.TYPE_CNAME:
            target = names.lower(rrset.rdatas[0])
    return target

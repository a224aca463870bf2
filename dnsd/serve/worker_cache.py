"""What a worker's caches hold for a name, in words, and forgetting it: for `nexoraldns cache`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from dnsd.contract import codes, names
from dnsd.resolve.presentation import rdata_text
from dnsd.resolve.resolver import Resolver
from dnsd.resolve.rrcache import Delegation, Denial, Held
from dnsd.resolve.rrsets import RRset

_RECORDS = 8  # shown of one RRset
_WIDEST = 300  # characters of one record
_RANKS = {1: "glue", 2: "authority section", 3: "not authoritative", 4: "authoritative"}


def told(hotpath: Any, resolvers: Sequence[Resolver], message: dict[str, Any], now_ms: int) -> dict[str, Any]:
    """Do what a `cache` message asks for. `hotpath` is the worker's query path; the answer has room for `most` octets.

    Forgetting a name also forgets what denies it: the NXDOMAIN of a name above (RFC 8020).
    """
    ident = message.get("ident")
    try:
        name = names.from_text(str(message["name"]))
        qtype = codes.qtype_number(message["type"]) if message["type"] else None
        below = bool(message["below"])
    except (KeyError, ValueError) as error:
        return {"ident": ident, "error": f"the question makes no sense: {error}"}
    if message.get("what") == "flush":
        count = _flush(hotpath, name, qtype, below)
        count += sum(_forget(resolver, name, qtype, below, now_ms) for resolver in resolvers)
        return {"ident": ident, "forgotten": count}
    rows = _answers(hotpath, name, qtype, below)
    for resolver in resolvers:
        rows += [_row(held, resolver) for held in resolver.cache.held(_about(name, below), now_ms) if _of(held, qtype)]
        rows += [_row(held, resolver) for held in _above(resolver, name, now_ms)]
        rows += _proven(resolver, name, qtype)
    room = max(1000, int(message.get("most", 60000)))
    more = 0
    while rows and len(json.dumps(rows)) > room:
        gone = max(1, len(rows) // 8)
        more += gone
        del rows[-gone:]
    return {"ident": ident, "rows": rows, "more": more}


def _about(name: bytes, below: bool) -> Callable[[bytes], bool]:
    return lambda other: other == name or (below and (name == names.ROOT or names.is_below(other, name)))


def _of(held: Held, qtype: int | None) -> bool:
    return qtype is None or held.kind == "nxdomain" or held.rtype == qtype


def _above(resolver: Resolver, name: bytes, now_ms: int) -> list[Held]:
    """The NXDOMAIN of a name above, which denies this one too."""
    above = frozenset(names.suffixes(name)) - {name}
    return [held for held in resolver.cache.held(above.__contains__, now_ms) if held.kind == "nxdomain"]


def _proven(resolver: Resolver, name: bytes, qtype: int | None) -> list[dict[str, Any]]:
    """What NSEC and NSEC3 records of other names say of this one (RFC 8198)."""
    validator, now = resolver.validator, resolver.cache.now
    for rtype in (codes.TYPE_A,) if qtype is None else (qtype,):
        evidence = validator.denied(name, rtype, now) if validator is not None else None
        if evidence is not None and not evidence.answer:
            kind = "nxdomain" if evidence.rcode == codes.RCODE_NXDOMAIN else "nodata"
            return [{
                "cache": "rrsets", "name": names.to_text(name), "kind": kind, "proven": True, "validation": "secure",
                "type": "" if kind == "nxdomain" else codes.qtype_name(rtype), "by": names.to_text(evidence.apex),
                "ttl": min(rrset.ttl for rrset in evidence.authority), "rcode": codes.rcode_name(evidence.rcode),
            }]  # fmt: skip
    return []


def _flush(hotpath: Any, name: bytes, qtype: int | None, below: bool) -> int:
    cache = hotpath.cache
    count = 0
    for at in cache.entries(name, below):
        if qtype is None or cache.entry_at(at)[1] == qtype:
            count += cache.drop(at)
    return count


def _forget(resolver: Resolver, name: bytes, qtype: int | None, below: bool, now_ms: int) -> int:
    count = 0
    about = _about(name, below)
    if qtype is None:
        count += resolver.cache.flush(about)
        if resolver.validator is not None:
            resolver.validator.memory.flush(about)
    else:
        for held in resolver.cache.held(about, now_ms):
            if held.rtype == qtype and held.kind in ("rrset", "nodata"):
                resolver.cache.forget(held.name, held.rtype)
                count += 1
            elif held.rtype == qtype and held.kind == "failure":
                resolver.cache.succeeded(held.name, held.rtype)
                count += 1
    for held in _above(resolver, name, now_ms):
        resolver.cache.forget(held.name, held.rtype)
        count += 1
    if resolver.validator is not None and resolver.validator.memory.denials is not None:
        count += resolver.validator.memory.denials.doubt(name, resolver.cache.now)
    return count


def _answers(hotpath: Any, name: bytes, qtype: int | None, below: bool) -> list[dict[str, Any]]:
    cache = hotpath.cache
    routes = hotpath.routes_by_mark()
    now = hotpath.wall_ms // 1000
    rows = []
    for at in cache.entries(name, below):
        owner, rtype, bits, mark, rcode, answers, expires, over = cache.entry_at(at)
        if expires > now and qtype in (None, rtype):
            rows.append({
                "cache": "answers", "name": names.to_text(owner), "type": codes.qtype_name(rtype),
                "ttl": expires - now, "rcode": codes.rcode_name(rcode & 0xFFFF), "records": answers,
                "route": routes.get(mark, ""), "do": bool(bits & 1), "cd": bool(bits & 2), "ad": bool(rcode >> 16 & 1),
                "stale": over > 0,
            })  # fmt: skip
    return rows


def _row(held: Held, resolver: Resolver) -> dict[str, Any]:
    row: dict[str, Any] = {
        "cache": "rrsets", "name": names.to_text(held.name), "type": codes.qtype_name(held.rtype) if held.rtype else "",
        "ttl": held.left_s, "kind": held.kind,
    }  # fmt: skip
    value = held.value
    if isinstance(value, RRset):
        row["data"] = [rdata_text(value.rtype, rdata)[:_WIDEST] for rdata in value.rdatas[:_RECORDS]]
        row["records"] = len(value.rdatas)
        row["rank"] = _RANKS.get(held.rank, "")
        row["signed"] = bool(value.sigs)
        if resolver.validator is not None:
            row["validation"] = resolver.validator.memory.state(value, resolver.cache.now) or "not validated"
    elif isinstance(value, Denial):
        row["rcode"] = codes.rcode_name(value.rcode)
        row["by"] = next((names.to_text(r.owner) for r in value.authority if r.rtype == codes.TYPE_SOA), "")
    elif isinstance(value, Delegation):
        row["data"] = [names.to_text(server) for server in value.servers[:_RECORDS]]
        row["records"] = len(value.servers)
    else:
        row["text"] = str(value)[:_WIDEST]
    return row

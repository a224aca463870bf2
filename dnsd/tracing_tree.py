"""The steps of a resolution as a tree of what was looked for, zones, questions and answers; drawn by `tracing`. Pure.

A line is a row of spans: words and what they are (strong, dim, good, info, warn, bad). Who draws chooses the colours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

from dnsd.contract import codes, names
from dnsd.resolve import scrub, signatures, steps
from dnsd.resolve.presentation import rdata_text
from dnsd.resolve.rrsets import RRset
from dnsd.resolve.steps import Step

Span = tuple[str, str]  # style, words
Line = list[Span]

STRONG, DIM, GOOD, INFO, WARN, BAD, PLAIN = "strong", "dim", "good", "info", "warn", "bad", ""
# What a line is about.
NAME: Final = "name"
ZONE: Final = "zone"
QUESTION: Final = "question"
REMARK: Final = "remark"

TONES = {"secure": GOOD, "bogus": BAD, "insecure": WARN, "indeterminate": WARN}
_GOOD = frozenset((scrub.ANSWER, scrub.ALIAS))
_DNSKEY = codes.QTYPES["DNSKEY"]
_OF_CHAINS = frozenset((codes.TYPE_DS, _DNSKEY))
_OF_PROOFS = {codes.QTYPES["NSEC"], codes.QTYPES["NSEC3"]}
_SHOWN = 6  # records of one answer, servers of one referral
_WIDEST = 100
_WORDS = {
    "timeout": "no answer in time", "unreachable": "unreachable", "broken": "the connection broke",
    scrub.NODATA: "no data of this type", scrub.NXDOMAIN: "there is no such name", scrub.LAME: "lame",
    scrub.BROKEN: "of no use",
}  # fmt: skip


@dataclasses.dataclass(slots=True)
class Node:
    """A line of the tree with what hangs below it; `notes` stand under it without a branch of their own.

    `tone`: how it went (good, info, warn, bad, or nothing); `rtt_ms` of a question, -1 when nothing
    came back; `took_ms` the wait.
    """

    kind: str
    line: Line
    notes: list[Line] = dataclasses.field(default_factory=list)
    below: list[Node] = dataclasses.field(default_factory=list)
    zone: bytes | None = None
    tone: str = ""
    rtt_ms: int | None = None
    took_ms: int = 0


def tree(trace: Iterable[Step]) -> list[Node]:
    """A node for each name looked for, in it one for each zone on the way down, in it one for each question."""
    trace = list(trace)
    trust = {step.name: step for step in trace if step.kind == steps.TRUST}
    forged = {(step.name, step.qtype) for step in trust.values() if step.said == "bogus"}
    roots: list[Node] = []
    open_names: dict[int, Node] = {}  # by depth: the name that is looked for
    path: dict[int, list[Node]] = {}  # by depth: the zones down to where we are
    chain: Node | None = None  # what validation looks up stands by itself, one line each
    for step in trace:
        depth = step.depth
        if step.kind == steps.LOOKUP and depth == 1 and step.qtype in _OF_CHAINS and roots:
            if chain is None:
                chain = Node(NAME, [(STRONG, "chain of trust"), (DIM, " keys, and what vouches for them")])
                roots[-1].below.append(chain)
            open_names[1], path[1] = chain, []
            continue
        if step.kind == steps.LOOKUP:
            node = Node(NAME, _name(step))
            above = path.get(depth - 1) or ([open_names[depth - 1]] if depth and depth - 1 in open_names else [])
            (above[-1].below if depth and above else roots).append(node)
            open_names[depth], path[depth] = node, []
            continue
        if depth not in open_names or step.kind in (steps.RESULT, steps.ADDRESSES, steps.TRUST):
            continue
        if open_names[depth] is chain and step.kind in (steps.ASK, steps.CACHED):
            chain.below.append(_question(step, forged) if step.kind == steps.ASK else _known(step))
        elif step.kind == steps.ASK:
            zones = path[depth]
            while zones and zones[-1].zone != step.zone and not names.is_below(step.zone, zones[-1].zone or names.ROOT):
                zones.pop()
            if not zones or zones[-1].zone != step.zone:
                node = _zone(step.zone, trust.get(step.zone))
                (zones[-1].below if zones else open_names[depth].below).append(node)
                zones.append(node)
            zones[-1].below.append(_question(step, forged))
        elif step.kind == steps.FORWARDED:
            # Its servers stand where the zones on the way down would: they were asked for the whole name.
            words = [(STRONG, f"forward {step.text}"), (DIM, " by the rules, not from the root")]
            node = Node(ZONE, words, zone=names.ROOT)
            open_names[depth].below.append(node)
            path[depth] = [node]
        elif step.kind == steps.OWN:
            line = [(GOOD, "answered here"), (DIM, f" own zone {step.text}")]
            open_names[depth].below.append(Node(REMARK, line, list(_records(step.rrsets, GOOD)), tone=GOOD))
        elif step.kind == steps.CACHED:
            open_names[depth].below.append(_known(step))
        elif step.kind == steps.VALIDATED:
            tone = TONES.get(step.said, WARN)
            words = [(PLAIN, "DNSSEC: "), (tone, step.said)]
            open_names[depth].below.append(
                Node(REMARK, words + ([(PLAIN, f": {step.text}")] if step.text else []), tone=tone)
            )
        elif step.kind == steps.FAILED and depth:
            open_names[depth].below.append(Node(REMARK, [(BAD, f"cannot be resolved: {step.text}")], tone=BAD))
    return roots


def _known(step: Step) -> Node:
    what = [(PLAIN, f"{names.to_text(step.name)} {codes.qtype_name(step.qtype)} ")] if step.depth == 1 else []
    word = "" if step.said in _GOOD else f": {_WORDS.get(step.said, step.said)}"
    return Node(REMARK, [*what, (DIM, f"known already{word}")], list(_records(step.rrsets, DIM)))


def _name(step: Step) -> Line:
    line: Line = [(STRONG, f"{names.to_text(step.name)} {codes.qtype_name(step.qtype)}")]
    if step.said == scrub.ALIAS:
        line.append((DIM, " where the alias leads"))
    elif step.depth:
        line.append((DIM, " the address of a name server"))
    return line


def _zone(zone: bytes, trust: Step | None) -> Node:
    line: Line = [(STRONG, names.to_text(zone))]
    if zone == names.ROOT:
        line.append((DIM, " the root"))
    if trust is None:
        return Node(ZONE, line, zone=zone)
    tone = TONES.get(trust.said, WARN)
    line += [(PLAIN, "  "), (tone, {"secure": "✓ secure", "bogus": "✗ bogus"}.get(trust.said, f"· {trust.said}"))]
    if trust.keys:
        line.append((DIM, f" by {trust.text}: key {' '.join(map(str, trust.keys))}"))
    elif trust.said == "insecure" and trust.text:
        line.append((DIM, f": {trust.text}"))
    return Node(ZONE, line, zone=zone, tone=tone)


def _question(step: Step, forged: Collection[tuple[bytes, int]]) -> Node:
    called = f"{names.to_text(step.server_name)} " if step.server_name else ""
    server = called + (step.server[0] if step.server else "")
    over = " over TCP" if step.transport == "tcp" else ""
    took = f"{step.rtt_ms} ms" if step.rtt_ms >= 1 else "under 1 ms" if step.rtt_ms == 0 else f"… {step.took_ms} ms"
    line: Line = [
        (PLAIN, f"{names.to_text(step.name)} {codes.qtype_name(step.qtype)}? "), (DIM, f"{server}{over}"),
        (PLAIN, " "), (WARN, took),
    ]  # fmt: skip
    tone, notes = _came(step)
    if (step.name, step.qtype) in forged and tone != INFO:
        tone = BAD
        notes = [[(BAD if style == GOOD else style, words) for style, words in note] for note in notes]
        notes.append([(BAD, "✗ this does not stand validation")])
    return Node(QUESTION, line, notes, tone=tone, rtt_ms=step.rtt_ms, took_ms=max(step.took_ms, step.rtt_ms, 0))


def _came(step: Step) -> tuple[str, list[Line]]:
    """What the server said, in words and records, and how good that is."""
    if step.said == scrub.REFERRAL:
        lines: list[Line] = [[(INFO, "referral"), (PLAIN, " to "), (STRONG, names.to_text(step.cut))]]
        glue = dict(step.glue)
        for name in step.servers[:_SHOWN]:
            addresses = " ".join(glue.get(name, ())) or "no glue"
            lines.append([(PLAIN, f"   {names.to_text(name)} "), (DIM, addresses)])
        if len(step.servers) > _SHOWN:
            lines.append([(DIM, f"   and {len(step.servers) - _SHOWN} more")])
        if any(rrset.rtype == codes.TYPE_DS for rrset in step.rrsets):
            lines += [[(PLAIN, "   "), *line] for line in _records(step.rrsets, DIM)]
        elif any(rrset.rtype in _OF_PROOFS for rrset in step.rrsets):
            lines.append([(DIM, "   no DS: the zone below is not signed, and the parent proves it")])
        return INFO, lines
    if step.said in _GOOD:
        return GOOD, list(_records(step.rrsets, GOOD))
    tone = WARN if step.said in (scrub.NODATA, scrub.NXDOMAIN) else BAD
    words = _WORDS.get(step.said, step.said) + (f": {step.text}" if step.text else "")
    return tone, [[(tone, words)], *_records(step.rrsets, DIM)]


# --- records as people read them -------------------------------------------------------------------------------------


def _records(rrsets: Sequence[RRset], style: str) -> Iterator[Line]:
    lines = [line for rrset in rrsets for line in record_lines(rrset)]
    for line in lines[:_SHOWN]:
        yield [(style, line if len(line) <= _WIDEST else line[: _WIDEST - 1] + "…")]
    if len(lines) > _SHOWN:
        yield [(style, f"and {len(lines) - _SHOWN} more")]
    if signed := _signed(rrsets):
        yield [(DIM, signed)]


def record_lines(rrset: RRset) -> list[str]:
    """The RRset's records, a line each. Keys and their digests by tag and algorithm: octets tell nobody anything."""
    head = f"{names.to_text(rrset.owner)} {rrset.ttl} {codes.qtype_name(rrset.rtype)}"
    return [f"{head} {readable(rrset.rtype, rdata)}" for rdata in rrset.rdatas]


def readable(rtype: int, rdata: bytes) -> str:
    """A record's data for people."""
    if rtype == _DNSKEY and (key := signatures.key(rdata)) is not None:
        role = "KSK (SEP)" if key.flags & 1 else "ZSK"
        role = role if key.flags & 0x0100 else "not a zone key"
        revoked = ", revoked" if key.revoked else ""
        return f"key {key.tag} {_algorithm(key.algorithm)} {role}, flags {key.flags}{revoked}"
    if rtype == codes.TYPE_DS and len(rdata) > 4:
        digest = codes.DIGEST_NAMES.get(rdata[3], f"digest {rdata[3]}")
        return f"key {int.from_bytes(rdata[:2], 'big')} {_algorithm(rdata[2])} {digest} {rdata[4:12].hex().upper()}…"
    return rdata_text(rtype, rdata)


def _algorithm(number: int) -> str:
    return codes.ALGORITHM_NAMES.get(number, f"algorithm {number}")


def _signed(rrsets: Sequence[RRset]) -> str:
    """By whom: each zone and key once."""
    by: dict[tuple[bytes, int], None] = {}
    for rrset in rrsets:
        for rdata in rrset.sigs:
            if (sig := signatures.signature(rdata)) is not None:
                by[sig.signer, sig.tag] = None
    if not by:
        return ""
    said = [f"{names.to_text(signer)} with key {tag}" for signer, tag in list(by)[:3]]
    return "signed by " + ", ".join(said) + (" and more" if len(by) > 3 else "")

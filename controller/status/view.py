"""A snapshot of the state to what the page shows: words, tones, numbers that can be read.

Pure: the time is an argument. Every key of the snapshot may be missing; nothing here raises for that.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from controller.status.values import When, grouped, mapping, rows, span, when, whole

DECISIONS_SHOWN = 50
HISTORY_SHOWN = 12
EVENTS_SHOWN = 20
PROBES = ("version.bind", "id.server")  # what `release` and `greeting` ask, to see whether a node answers

# How a revision's state looks: good, bad, busy, quiet.
_TONES = {
    "active": "good", "healthy": "good", "refused": "bad", "rejected": "bad", "failed": "bad", "rolled-back": "bad",
    "superseded": "quiet", "replaced": "quiet", "was active": "quiet",
}  # fmt: skip
_REFUSED = frozenset(("refused", "rejected", "failed", "rolled-back"))

# The segments of the traffic bar: (name, counters that add up to it, explanation). Each query is in one of them.
SEGMENTS = (
    ("local", ("local", "special"), "names of your own zones, and names kept at home"),
    ("blocked", ("blocked",), "answered by a block rule"),
    ("redirected", ("redirected",), "sent elsewhere by a redirect"),
    ("cached", ("cache_hits",), "let through, answered from the cache"),
    ("upstream", ("cache_misses",), "let through, asked of an upstream server"),
    ("refused", ("refused", "dropped", "malformed", "overloaded"), "not allowed to ask, not understood, or too much"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class RevisionView:
    """A revision as a card or a row shows it."""

    id: str
    short: str
    subject: str
    author: str
    email: str
    digest: str
    generation: int
    state: str
    tone: str
    committed: When
    since: When
    took: str
    problems: str


def revision(value: object, now: datetime.datetime) -> RevisionView | None:
    """A revision of the snapshot; None when there is none."""
    row = mapping(value)
    identity = str(row.get("revision") or row.get("id") or "")
    if not identity:
        return None
    ref, _, digits = identity.partition(":")
    state = str(row.get("state") or "")
    took = row.get("duration_ms")
    return RevisionView(
        id=identity,
        short=str(row.get("short") or (f"{ref}:{digits[:12]}" if digits else identity)),
        subject=str(row.get("subject") or ""),
        author=str(row.get("author") or ""),
        email=str(row.get("email") or ""),
        digest=str(row.get("digest") or ""),
        generation=whole(row.get("generation")),
        state=state,
        tone=_TONES.get(state, "busy" if state else "quiet"),
        committed=when(row.get("time"), now),
        since=when(row.get("since") or row.get("finished") or row.get("seen"), now),
        took=f"{took:.0f} ms" if isinstance(took, int | float) and took < 10_000
             else span(took / 1000) if isinstance(took, int | float) else "",
        problems=str(row.get("problems_text") or row.get("reason") or "").rstrip(),
    )  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker's row; `differs` when it serves another digest than the active one."""

    slot: str
    pid: str
    state: str
    tone: str
    generation: str
    digest: str
    queries: str
    differs: bool


@dataclasses.dataclass(frozen=True, slots=True)
class UpstreamView:
    """A server of a forward entry, as the workers of one node have found it."""

    server: str
    state: str
    tone: str
    rtt: str


def upstream(row: Mapping[str, Any]) -> UpstreamView:
    """A row of a node's `upstreams`."""
    ill, workers, rtt_us = whole(row.get("ill")), whole(row.get("workers")), whole(row.get("rtt_us"))
    state = "answers" if not ill else "does not answer" if ill >= workers else f"silent for {ill} of {workers} workers"
    tone = "good" if not ill else "bad" if ill >= workers else "busy"
    return UpstreamView(str(row.get("server", "")), state, tone, f"{rtt_us / 1000:.1f} ms" if rtt_us else "–")


@dataclasses.dataclass(frozen=True, slots=True)
class AnchorView:
    """A key of a trust anchor (RFC 5011)."""

    zone: str
    tag: str
    state: str
    tone: str
    since: str


_ANCHOR_TONES = {"valid": "good", "configured": "good", "missing": "busy", "addpend": "busy"}


def anchor(row: Mapping[str, Any]) -> AnchorView:
    """A row of a node's `anchors`."""
    state, since = str(row.get("state", "")), ""
    for word, key in (("trusted from", "trusted_from"), ("since", "since")):
        if not since and whole(row.get(key)):
            moment = datetime.datetime.fromtimestamp(whole(row.get(key)), datetime.UTC)
            since = f"{word} {moment:%Y-%m-%d}"
    failure = str(row.get("failure") or "")
    return AnchorView(
        str(row.get("zone", "")), str(row.get("tag", "")), f"{state}: {failure}" if failure else state,
        "bad" if failure else _ANCHOR_TONES.get(state, ""), since,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class NodeView:
    """A node and its workers."""

    name: str
    connected: bool
    phase: str
    agent: str
    listen: str
    workers: tuple[WorkerView, ...]
    upstreams: tuple[UpstreamView, ...]
    anchors: tuple[AnchorView, ...]
    tone: str


def node(row: Mapping[str, Any], active_digest: str) -> NodeView:
    """A node of the snapshot."""
    workers = []
    connected = bool(row.get("connected", True))
    for worker in rows(row.get("workers")):
        digest = str(worker.get("digest") or "")
        state = str(worker.get("state") or ("active" if digest else "waiting"))
        differs = bool(active_digest) and digest != active_digest
        good = state in ("active", "serving", "ready") and not differs
        workers.append(WorkerView(
            slot=str(worker.get("slot", "")), pid=str(worker.get("pid") or "–"), state=state,
            tone="good" if good else "bad" if state in ("dead", "evicted", "nack") else "busy",
            generation=str(worker.get("generation") or "–"), digest=digest,
            queries=grouped(worker.get("queries")), differs=differs,
        ))  # fmt: skip
    tone = "bad" if not connected else "busy" if any(w.tone != "good" for w in workers) or not workers else "good"
    listen = row.get("listen")
    return NodeView(
        name=str(row.get("name") or row.get("node") or "node"), connected=connected,
        phase=str(row.get("phase") or ("connected" if connected else "away")), agent=str(row.get("agent") or ""),
        listen=", ".join(map(str, listen)) if isinstance(listen, list | tuple) else str(listen or ""),
        workers=tuple(workers), upstreams=tuple(upstream(each) for each in rows(row.get("upstreams"))),
        anchors=tuple(anchor(each) for each in rows(row.get("anchors"))), tone=tone,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class DecisionView:
    """One answered query."""

    time: When
    client: str
    qname: str
    qtype: str
    verdict: str
    rule: str
    list: str
    where: str
    rcode: str
    ms: str


def verdict_of(row: Mapping[str, Any]) -> str:
    """One word for what happened to a query, from its stage, action and rule."""
    stage, action = str(row.get("stage") or ""), str(row.get("action") or "")
    if row.get("verdict"):
        return str(row["verdict"])
    if stage in ("shape", "client"):
        # ANY and CH questions get an answer of our own making.
        return {"drop": "dropped", "minimal": "local", "chaos": "local"}.get(action, "refused")
    if stage == "policy":
        if action in ("forward", "recurse"):
            return "allowed"
        return "redirected" if action in ("answer", "alias") else "blocked"
    if stage == "local":
        return "local"
    if action == "servfail":
        return "failed"
    return "allowed" if row.get("rule") else "cached" if row.get("cached") else "forwarded"


def decision(row: Mapping[str, Any], now: datetime.datetime) -> DecisionView:
    """A decision of the snapshot."""
    ms = row.get("ms")
    return DecisionView(
        time=when(row.get("time"), now), client=str(row.get("client") or ""), qname=str(row.get("qname") or ""),
        qtype=str(row.get("qtype") or ""), verdict=verdict_of(row), rule=str(row.get("rule") or ""),
        list=str(row.get("list") or ""), where=str(row.get("where") or ""), rcode=str(row.get("rcode") or ""),
        ms="" if not isinstance(ms, int | float) else "<0.1" if ms < 0.1 else f"{ms:.1f}" if ms < 100 else f"{ms:.0f}",
    )  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Segment:
    """A part of the traffic bar. `start` and `width` are per cent."""

    name: str
    count: str
    share: str
    start: float
    width: float
    meaning: str


def segments(counters: Mapping[str, Any]) -> tuple[Segment, ...]:
    """The traffic bar; empty without traffic."""
    sums = [(name, sum(whole(counters.get(key)) for key in keys), text) for name, keys, text in SEGMENTS]
    total = sum(count for _, count, _ in sums)
    out, start = [], 0.0
    for name, count, text in sums if total else ():
        width = 100 * count / total
        share = "0 %" if not count else "<1 %" if width < 1 else f"{width:.0f} %"
        out.append(Segment(name, grouped(count), share, round(start, 3), round(width, 3), text))
        start += width
    return tuple(out)


@dataclasses.dataclass(frozen=True, slots=True)
class Headline:
    """The one sentence above everything, and its tone."""

    tone: str
    text: str
    detail: str = ""


def headline(active: RevisionView | None, newest: RevisionView | None, nodes: Iterable[NodeView]) -> Headline:
    """Say in one sentence whether all is well."""
    nodes = list(nodes)
    workers = [worker for each in nodes if each.connected for worker in each.workers]
    serving = sum(1 for worker in workers if active and worker.digest == active.digest)
    if active is None and newest is not None and newest.state in _REFUSED:
        return Headline("bad", "No rules are active", "The newest revision was refused and there is none before it.")
    if active is None:
        return Headline("busy", "No rules are active yet", "Waiting for the first revision.")
    if not any(each.connected for each in nodes):
        return Headline("bad", "No node is connected", "Nodes go on answering from their last good table meanwhile.")
    if not workers:
        return Headline("bad", "No worker is reporting", "The node is connected but has named no worker.")
    if serving < len(workers):
        return Headline("busy", f"{serving} of {len(workers)} workers serve the active rules",
                        "The others are named below.")  # fmt: skip
    count = ("The worker", "Both workers")[len(workers) - 1] if len(workers) < 3 else f"All {len(workers)} workers"
    verb = "serve" if len(workers) > 1 else "serves"
    if newest is not None and newest.state in _REFUSED:
        return Headline("bad", "The newest revision was refused",
                        f"{count} still {verb} {active.short}; nothing has changed for clients.")  # fmt: skip
    return Headline("good", "All is well", f"{count} {verb} {active.short}.")


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """Everything that the templates read."""

    headline: Headline
    active: RevisionView | None
    newest: RevisionView | None
    refused: bool
    suspended: bool
    problems: tuple[str, ...]
    nodes: tuple[NodeView, ...]
    segments: tuple[Segment, ...]
    figures: tuple[tuple[str, str, str], ...]
    decisions: tuple[DecisionView, ...]
    decisions_known: int
    decisions_matching: int
    wanted: str
    history: tuple[RevisionView, ...]
    events: tuple[tuple[When, str, str, str, str], ...]
    clock: str


def matches(row: DecisionView, wanted: str) -> bool:
    """Whether a decision shows every word of the filter, in any column."""
    text = f"{row.client} {row.qname} {row.qtype} {row.verdict} {row.rule} {row.list} {row.where} {row.rcode}".lower()
    return all(word in text for word in wanted.lower().split())


def _figures(counters: Mapping[str, Any]) -> tuple[tuple[str, str, str], ...]:
    udp, tcp = whole(counters.get("queries_udp")), whole(counters.get("queries_tcp"))
    hits, misses = whole(counters.get("cache_hits")), whole(counters.get("cache_misses"))
    ratio = f"{100 * hits / (hits + misses):.0f} %" if hits + misses else "–"
    timeouts, asked = whole(counters.get("upstream_timeouts")), whole(counters.get("upstream_queries"))
    return (
        ("Queries", grouped(udp + tcp), f"{grouped(tcp)} over TCP" if tcp else "all over UDP"),
        ("Cache", ratio, f"{grouped(hits)} of {grouped(hits + misses)} found"),
        ("Upstream", grouped(asked), f"{grouped(timeouts)} timed out" if timeouts else "none timed out"),
        ("SERVFAIL", grouped(counters.get("servfail")), "answers that could not be had"),
    )


def _was_active(row: RevisionView, active: RevisionView | None) -> RevisionView:
    """A row that became active once is not active any more when another one is."""
    if row.state == "active" and active and (row.id, row.generation) != (active.id, active.generation):
        return dataclasses.replace(row, state="replaced", tone="quiet")
    return row


def _problem(item: object) -> str:
    if isinstance(item, Mapping):
        text, help = str(item.get("message") or item.get("text") or ""), str(item.get("help") or "")
        return f"{text}; {help}" if text and help else text or help
    return str(item)


def page(snapshot: Mapping[str, Any], now: datetime.datetime, wanted: str = "") -> Page:
    """Everything the page shows of a snapshot; `wanted` filters the decisions."""
    active, newest = revision(snapshot.get("active"), now), revision(snapshot.get("newest"), now)
    # The newest revision is news only when it is another one, or the same again with trouble.
    news = newest if newest and (not active or newest.id != active.id or newest.state in _REFUSED) else None
    nodes = tuple(node(row, active.digest if active else "") for row in rows(snapshot.get("nodes")))
    counters = mapping(snapshot.get("counters"))
    counters = mapping(counters.get("totals")) or counters
    ours = {"127.0.0.1", "127.0.0.0/24", "::1", "::/64", ""}
    for row in rows(snapshot.get("nodes")):
        ours |= {text.rpartition(":")[0].strip("[]") for text in _texts(row.get("listen"))}
    known = [decision(row, now) for row in rows(snapshot.get("decisions")) if not _our_own(row, ours)]
    known.sort(key=lambda row: row.time.iso, reverse=True)
    found = [row for row in known if matches(row, wanted)]
    history = [row for row in (revision(item, now) for item in rows(snapshot.get("history"))) if row]
    history = [_was_active(row, active) for row in history]
    history.sort(key=lambda row: row.since.iso, reverse=True)
    events = sorted(rows(snapshot.get("events")), key=lambda row: when(row.get("time"), now).iso, reverse=True)
    problems = snapshot.get("problems")
    return Page(
        headline=headline(active, newest, nodes),
        active=active,
        newest=news,
        refused=bool(news and news.state in _REFUSED),
        suspended=bool(snapshot.get("suspended")),
        problems=tuple(
            text for item in (problems if isinstance(problems, list | tuple) else ())
            # The newest revision's own card says that already, and why.
            if (text := _problem(item)) and not (news and mapping(item).get("key") == "refused")
        ),
        nodes=nodes,
        segments=segments(counters),
        figures=_figures(counters),
        decisions=tuple(found[:DECISIONS_SHOWN]),
        decisions_known=len(known),
        decisions_matching=len(found),
        wanted=wanted,
        history=tuple(history[:HISTORY_SHOWN]),
        events=tuple(
            (
                when(row.get("time"), now), str(row.get("source") or ""), str(row.get("reason") or ""),
                str(row.get("interface") or ""),
                event_text(row),
            )
            for row in events[:EVENTS_SHOWN]
        ),
        clock=f"{now:%Y-%m-%d %H:%M:%S %Z}",
    )  # fmt: skip


def _texts(value: object) -> list[str]:
    return [str(text) for text in value] if isinstance(value, list | tuple) else []


def _our_own(row: Mapping[str, Any], ours: Collection[str]) -> bool:
    """Whether a decision is about a question with which we see whether a node answers: no news for people. It comes
    from the address that it goes to."""
    return row.get("action") == "chaos" and row.get("qname") in PROBES and (row.get("client") or "") in ours


def event_text(row: Mapping[str, Any]) -> str:
    """What an event changed: addresses before and now, the lease's servers, how long it took, what was answered."""

    def joined(value: object) -> str:
        return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value or "")

    old, new, dns = joined(row.get("old")), joined(row.get("new")), joined(row.get("dns"))
    parts = [f"{old or 'none'} → {new or 'none'}" if old != new else new] if old or new else []
    parts += [text for text in (joined(row.get("addresses")), str(row.get("text") or "")) if text]
    parts += [f"DNS {dns}"] if dns else []
    parts += [f"{whole(row['duration_ms'])} ms"] if "duration_ms" in row else []
    parts += [f"{grouped(row['queries'])} queries answered meanwhile"] if "queries" in row else []
    return "; ".join(parts)


def ready(snapshot: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether a table is active on at least one node, and the reason when not."""
    nodes = [row for row in rows(snapshot.get("nodes")) if row.get("connected", True)]
    if not mapping(snapshot.get("active")).get("digest"):
        return False, "no rules are active yet"
    if not nodes:
        return False, "no node is connected"
    for row in nodes:
        if any(worker.get("digest") for worker in rows(row.get("workers"))):
            return True, "ready"
    return False, "no worker serves a table yet"

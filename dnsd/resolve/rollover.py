"""Trust anchors that follow their zone's keys: the state machine of RFC 5011. Pure: time, records and text in and out.

Times are seconds of the wall clock, as signatures have them: a clock that jumps ahead accepts no key by itself, because
at that moment a signature over the keys has to hold; one that was set back makes a key wait anew. What a trust point
has learned is text (JSON) that people can read; `from_text` reads it again.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from dnsd.contract import names
from dnsd.resolve import signatures
from dnsd.resolve.anchors import Anchor, AnchorError, Anchors
from dnsd.resolve.presentation import rdata_text
from dnsd.resolve.rrsets import RRset
from dnsd.resolve.signatures import TYPE_DNSKEY, TYPE_DS, Key, Signature

# RFC 5011, section 4.3. A key in the state Start is one that is not here.
ADDPEND: Final = "addpend"
VALID: Final = "valid"
MISSING: Final = "missing"
REVOKED: Final = "revoked"
REMOVED: Final = "removed"
STATES: Final = (ADDPEND, VALID, MISSING, REVOKED, REMOVED)
TRUSTED: Final = frozenset((VALID, MISSING))

VERSION = 1
DAY_S: Final = 86400
HOLD_S: Final = 30 * DAY_S  # RFC 5011, sections 2.4.1 and 2.4.2
MOST_WAIT_S: Final = 15 * DAY_S  # section 2.3
LEAST_WAIT_S: Final = 3600
_REVOKE, _SEP = 0x0080, 0x0001
_KEYS = 64  # of one RRset that are looked at
_PENDING = 8  # keys that wait: a zone that publishes more is not rolling over, it is filling our memory
_HELD = 48
_CHECKS = 24  # signatures that are checked for one RRset


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """One key of a trust point: its state and since when. `rdata` is a DNSKEY without its REVOKE bit.

    A key that was configured as DS has no `rdata` until it was seen. `hold_s`: how long it has to wait in ADDPEND.
    `seen`: when it was last in a good RRset.
    """

    state: str
    since: int
    rdata: bytes = b""
    ds: tuple[bytes, ...] = ()
    seen: int = 0
    hold_s: int = HOLD_S

    @property
    def tag(self) -> int:
        """The key's tag (RFC 4034, appendix B), as it is without the REVOKE bit."""
        return signatures.key_tag(self.rdata) if self.rdata else int.from_bytes(self.ds[0][:2], "big")

    @property
    def algorithm(self) -> int:
        """The number of its algorithm."""
        return self.rdata[3] if self.rdata else self.ds[0][2]

    @property
    def trusted(self) -> bool:
        """Whether it is a trust anchor."""
        return self.state in TRUSTED

    def matches(self, zone: bytes, plain: bytes) -> bool:
        """Whether this DNSKEY (without its REVOKE bit) is the key."""
        if self.rdata:
            return self.rdata == plain
        tag, algorithm = signatures.key_tag(plain), plain[3]
        return any(
            int.from_bytes(ds[:2], "big") == tag and ds[2] == algorithm
            and signatures.digest(zone, plain, ds[3]) == ds[4:] for ds in self.ds
        )  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """A trust point: a zone and its keys. `probed`: when its keys were last good; `due`: when to look again.

    `failure` says why the last look was of no use; empty when it was.
    """

    zone: bytes
    held: tuple[Held, ...]
    probed: int = 0
    tried: int = 0
    due: int = 0
    failure: str = ""

    @property
    def anchor(self) -> Anchor | None:
        """What is trusted now; None when every key was revoked, which ends the trust point (RFC 5011, section 5)."""
        good = [held for held in self.held if held.trusted]
        if not good:
            return None
        ds = tuple(ds for held in good if not held.rdata for ds in held.ds)
        return Anchor(self.zone, ds, tuple(held.rdata for held in good if held.rdata))


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """A key that has changed its state, for the log. `before` and `after` are "start" where it is not held."""

    zone: bytes
    tag: int
    before: str
    after: str
    text: str


def begin(anchor: Anchor, now: int) -> Point:
    """A trust point as it is configured; the first look is due at once."""
    tags: dict[tuple[int, int], list[bytes]] = {}
    for ds in anchor.ds:
        tags.setdefault((int.from_bytes(ds[:2], "big"), ds[2]), []).append(ds)
    held = [Held(VALID, now, ds=tuple(group)) for group in tags.values()]
    held += [Held(VALID, now, _plain(rdata)) for rdata in anchor.keys]
    return Point(anchor.zone, tuple(held))


def resumed(saved: Point | None, anchor: Anchor, now: int) -> Point:
    """What was learned earlier, with what is configured now. A revoked key stays revoked whatever is configured."""
    fresh = begin(anchor, now)
    if saved is None:
        return fresh
    held = list(saved.held)
    for new in fresh.held:
        at = next((at for at, old in enumerate(held) if _same(old, new, anchor.zone)), None)
        if at is None:
            held.append(new)
        elif held[at].state == ADDPEND:  # whoever configures a key vouches for it
            held[at] = dataclasses.replace(held[at], state=VALID, since=now)
    due = saved.due if now - MOST_WAIT_S <= saved.tried <= now and saved.due <= now + MOST_WAIT_S else 0
    return dataclasses.replace(saved, held=tuple(held), due=due)


def _same(old: Held, new: Held, zone: bytes) -> bool:
    if new.rdata:
        return old.matches(zone, new.rdata)
    return old.ds == new.ds or bool(old.rdata and new.matches(zone, old.rdata))


def _clamped(held: Held, now: int) -> Held:
    return held if held.since <= now and held.seen <= now else dataclasses.replace(held, since=now, seen=now)


def failed(point: Point, now: int, why: str) -> Point:
    """A look that gave nothing: again after an hour (RFC 5011, section 2.3)."""
    return dataclasses.replace(point, tried=now, due=now + LEAST_WAIT_S, failure=why)


def observe(point: Point, rrset: RRset, now: int, skew: int) -> tuple[Point, tuple[Change, ...]]:
    """What a DNSKEY RRset with its signatures does to a trust point.

    Only an RRset that a trusted key has signed counts, except that a key may revoke itself.
    """
    zone = point.zone
    held = point.held
    keys = [key for rdata in rrset.rdatas[:_KEYS] if (key := signatures.key(rdata)) is not None and key.signs_zone]
    checks = _Checks(zone, rrset, now, skew)
    out: list[Held] = []
    revoked = {_plain(key.rdata): key for key in keys if key.revoked}
    for each in held:
        own = next((key for plain, key in revoked.items() if each.matches(zone, plain)), None)
        if own is not None and each.trusted and checks.signed_by(own):
            plain = _plain(own.rdata)
            out.append(dataclasses.replace(each, state=REVOKED, since=now, seen=now, rdata=plain))
        else:
            out.append(each)
    vouchers = [key for key in keys if not key.revoked and any(e.trusted and e.matches(zone, key.rdata) for e in out)]
    signed = next((sig for key in vouchers if (sig := checks.signed_by(key)) is not None), None)
    if signed is None:
        why = "no trusted key has signed the zone's keys" if vouchers else "no trusted key is among the zone's keys"
        return failed(dataclasses.replace(point, held=tuple(out)), now, why), _changes(point, out)
    there = {_plain(key.rdata): key for key in keys}
    # The clock is right enough for this signature. Only now: while it was wrong, keys must not seem to have waited.
    new = [_seen(_clamped(each, now), zone, there, now) for each in out]
    kept = [each for each in new if each is not None]
    known = [each.rdata for each in kept]
    pending = sum(each.state == ADDPEND for each in kept)
    hold_s = max(HOLD_S, signed.original_ttl)
    for plain, key in there.items():
        usable = key.flags & _SEP and not key.revoked and key.algorithm in signatures.ALGORITHMS
        if usable and plain not in known and pending < _PENDING:
            kept.append(Held(ADDPEND, now, plain, seen=now, hold_s=hold_s))
            pending += 1
    kept = _bounded(kept)
    left_s = max(0, signatures.seconds_left(signed, now))
    wait_s = max(LEAST_WAIT_S, min(MOST_WAIT_S, signed.original_ttl // 2, left_s // 2))
    return Point(zone, tuple(kept), now, now, now + wait_s), _changes(point, kept)


def _seen(held: Held, zone: bytes, there: Mapping[bytes, Key], now: int) -> Held | None:
    """The key's next state after a good RRset; None when it is forgotten."""
    rdata = next((plain for plain in there if held.matches(zone, plain)), b"")
    revoked = bool(rdata) and there[rdata].revoked
    if not rdata or (revoked and held.state == ADDPEND):
        if held.state == ADDPEND:
            return None
        if held.state == VALID:
            return dataclasses.replace(held, state=MISSING, since=now)
        if held.state == REVOKED and now - max(held.seen, held.since) >= HOLD_S:
            return dataclasses.replace(held, state=REMOVED, since=now)
        return held
    held = dataclasses.replace(held, rdata=rdata, seen=now)
    if held.state == ADDPEND and now - held.since >= held.hold_s:
        return dataclasses.replace(held, state=VALID, since=now)
    if held.state == MISSING and not revoked:
        return dataclasses.replace(held, state=VALID, since=now)
    return held


def _bounded(held: list[Held]) -> list[Held]:
    """Keys that were removed long ago are forgotten when there are very many."""
    while len(held) > _HELD:
        gone = min((each for each in held if each.state == REMOVED), key=lambda each: each.since, default=None)
        held = [each for each in held if each is not gone] if gone is not None else held[:_HELD]
    return held


class _Checks:
    """Signatures over one RRset, so many at most."""

    def __init__(self, zone: bytes, rrset: RRset, now: int, skew: int) -> None:
        self._rrset = rrset
        self._left = _CHECKS
        read = (signatures.signature(rdata) for rdata in rrset.sigs[:_CHECKS])
        self._sigs = [
            sig for sig in read
            if sig is not None and sig.covered == TYPE_DNSKEY and sig.signer == zone
            and not signatures.in_time(sig, now, skew)
        ]  # fmt: skip

    def signed_by(self, key: Key) -> Signature | None:
        """The signature that this key made over the RRset and that holds now."""
        for sig in self._sigs:
            if sig.tag != key.tag or sig.algorithm != key.algorithm or not self._left:
                continue
            self._left -= 1
            octets = signatures.signed_octets(sig, self._rrset.owner, TYPE_DNSKEY, self._rrset.rdatas)
            if octets is not None and signatures.verify(key, sig, octets):
                return sig
        return None


def _plain(rdata: bytes) -> bytes:
    """A DNSKEY without its REVOKE bit, by which it is recognised."""
    return (int.from_bytes(rdata[:2], "big") & ~_REVOKE).to_bytes(2, "big") + rdata[2:]


_SAYS: Mapping[tuple[str, str], str] = {
    ("start", ADDPEND): "a new key is published; it is trusted when it has been there for 30 days",
    (ADDPEND, "start"): "the new key was taken back before it was trusted",
    (ADDPEND, VALID): "the key has been published for its hold-down time and is trusted now",
    (VALID, MISSING): "a trusted key is not published any more; it stays trusted",
    (MISSING, VALID): "the key is published again",
    (VALID, REVOKED): "the key has revoked itself and is not trusted any more",
    (MISSING, REVOKED): "the key has revoked itself and is not trusted any more",
    (REVOKED, REMOVED): "the revoked key has been gone for 30 days and is removed",
}


def _changes(point: Point, after: Iterable[Held]) -> tuple[Change, ...]:
    before = {(each.tag, each.algorithm): each.state for each in point.held}
    now = {(each.tag, each.algorithm): each.state for each in after}
    found = []
    for which in dict.fromkeys((*before, *now)):
        old, new = before.get(which, "start"), now.get(which, "start")
        if old != new:
            found.append(Change(point.zone, which[0], old, new, _SAYS.get((old, new), f"{old} to {new}")))
    return tuple(found)


# --- anchors and text ------------------------------------------------------------------------------------------------


def anchored(points: Iterable[Point], configured: Anchors) -> Anchors:
    """The anchors to validate by: what the trust points say of their zones, the rest as configured."""
    positive = dict(configured.positive)
    for point in points:
        positive.pop(point.zone, None)
        if (anchor := point.anchor) is not None:
            positive[point.zone] = anchor
    return Anchors(positive, configured.negative)


def lines(anchors: Anchors) -> list[str]:
    """Anchors as records in presentation form, which `anchors.from_texts` reads."""
    found = []
    for zone, anchor in anchors.positive.items():
        found += [f"{names.to_text(zone)} DS {rdata_text(TYPE_DS, ds)}" for ds in anchor.ds]
        found += [f"{names.to_text(zone)} DNSKEY {rdata_text(TYPE_DNSKEY, key)}" for key in anchor.keys]
    return found


def rows(points: Iterable[Point]) -> list[dict[str, Any]]:
    """One row a key, for people and for the file's reader: zone, tag, algorithm, state and since when."""
    return [
        {"zone": names.to_text(point.zone), "tag": held.tag, "algorithm": held.algorithm, "state": held.state,
         "since": held.since, "seen": held.seen,
         "trusted_from": held.since + held.hold_s if held.state == ADDPEND else 0,
         "probed": point.probed, "due": point.due, "failure": point.failure}
        for point in points for held in point.held
    ]  # fmt: skip


def to_text(points: Iterable[Point]) -> str:
    """The state as a file of its own; times in UTC."""
    zones = [
        {
            "zone": names.to_text(point.zone), "probed": _iso(point.probed), "tried": _iso(point.tried),
            "due": _iso(point.due), "failure": point.failure,
            "keys": [
                {
                    "tag": held.tag, "state": held.state, "since": _iso(held.since), "seen": _iso(held.seen),
                    "hold_days": held.hold_s / DAY_S,
                    "dnskey": rdata_text(TYPE_DNSKEY, held.rdata) if held.rdata else None,
                    "ds": [rdata_text(TYPE_DS, ds) for ds in held.ds],
                }
                for held in point.held
            ],
        }
        for point in points
    ]  # fmt: skip
    about = "Trust anchors as this node has followed them (RFC 5011). Remove the file to begin with the settings again."
    return json.dumps({"version": VERSION, "about": about, "zones": zones}, indent=2) + "\n"


def from_text(text: str) -> tuple[Point, ...]:
    """Read `to_text` again; raises AnchorError, which says what is wrong with it."""
    try:
        document = json.loads(text)
        if document["version"] != VERSION:
            raise AnchorError(f"version {document['version']!r} is not {VERSION}")
        points = tuple(_point(row) for row in document["zones"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise AnchorError(f"it is not what was written: {error!r}") from None
    if len({point.zone for point in points}) != len(points):
        raise AnchorError("it is not what was written: a zone is in it twice")
    return points


def _point(row: Mapping[str, Any]) -> Point:
    zone = names.from_text(row["zone"])
    held = tuple(_held(row["zone"], each) for each in row["keys"])
    if len(held) > 2 * _HELD:
        raise ValueError("too many keys")
    probed, tried, due = (_seconds(row[key]) for key in ("probed", "tried", "due"))
    return Point(zone, held, probed, tried, due, str(row["failure"]))


def _held(zone: str, row: Mapping[str, Any]) -> Held:
    state = row["state"]
    rdata = b"".join(_records(zone, "DNSKEY", [row["dnskey"]])) if row["dnskey"] is not None else b""
    ds = tuple(_records(zone, "DS", row["ds"]))
    if state not in STATES or not (rdata or ds) or (rdata and rdata != _plain(rdata)):
        raise ValueError(f"a key in the state {state!r}")
    hold_s = round(float(row["hold_days"]) * DAY_S)
    return Held(state, _seconds(row["since"]), rdata, ds, _seconds(row["seen"]), max(HOLD_S, hold_s))


def _records(zone: str, rtype: str, texts: Iterable[str]) -> Iterator[bytes]:
    for text in texts:
        if "\n" in text:
            raise ValueError("a record of two lines")
        for _, _, rdata in signatures.records(f"{zone} {rtype} {text}\n"):
            yield rdata


def _iso(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else ""


def _seconds(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()) if text else 0

"""Trust anchors that follow their zone's keys (RFC 5011): every state, by real signatures over real DNSKEY RRsets."""

from __future__ import annotations

import json

import dns.dnssec
import dns.rrset
import pytest

from dnsd.contract import names
from dnsd.resolve import anchors, rollover
from dnsd.resolve.anchors import AnchorError
from dnsd.resolve.rollover import ADDPEND, DAY_S, MISSING, REMOVED, REVOKED, VALID, Point, observe
from dnsd.resolve.rrsets import RRset
from dnsd.resolve.signatures import TYPE_DNSKEY
from tests.resolve.signed import NOW, POLICY, Signer, name

ZONE = b"\x04test\x00"
A, B, C = (Signer.make() for _ in range(3))


def revoked(signer: Signer) -> Signer:
    """The same key pair with the REVOKE bit: another tag."""
    return Signer(signer.private, signer.dnskey.replace(flags=signer.dnskey.flags | 0x80))  # type: ignore[attr-defined]


def keys(there: list[Signer], by: list[Signer], at: int, ttl: int = DAY_S, lasts_s: int = 10 * DAY_S) -> RRset:
    """The zone's DNSKEY RRset with its signatures, made at a moment."""
    made = dns.rrset.from_rdata(name("test"), ttl, *[signer.dnskey for signer in there])
    sigs = [
        dns.dnssec.sign(made, each.private, name("test"), each.dnskey, at - 3600, at + lasts_s, policy=POLICY)  # type: ignore[arg-type]
        for each in by
    ]
    rdatas = tuple(rdata.to_wire() or b"" for rdata in made)
    return RRset(ZONE, TYPE_DNSKEY, ttl, rdatas, tuple(sig.to_wire() or b"" for sig in sigs))


def configured(*signers: Signer) -> Point:
    """A trust point that begins with the DS of these keys."""
    lines = [f"test. DS {dns.dnssec.make_ds(name('test'), each.dnskey, 'SHA256')}" for each in signers]  # type: ignore[arg-type]
    return rollover.begin(anchors.from_texts(lines).positive[ZONE], NOW)


def states(point: Point) -> dict[str, str]:
    """The state of each of our keys."""
    wire = {each.dnskey.to_wire(): word for word, each in (("a", A), ("b", B), ("c", C))}
    return {wire.get(held.rdata, "ds"): held.state for held in point.held}


def look(point: Point, there: list[Signer], by: list[Signer], day: float) -> Point:
    """The trust point after a look on a day."""
    now = NOW + int(day * DAY_S)
    return observe(point, keys(there, by, now), now, 3600)[0]


def test_a_new_key_is_trusted_after_thirty_days_and_not_before() -> None:
    """AddPend for the whole hold-down time, then Valid; the log has one line for each step."""
    point = look(configured(A), [A], [A], 0)
    assert states(point) == {"a": VALID}
    now = NOW + DAY_S
    point, changes = observe(point, keys([A, B], [A], now), now, 3600)
    assert states(point) == {"a": VALID, "b": ADDPEND}
    assert [(change.before, change.after) for change in changes] == [("start", ADDPEND)]
    assert point.anchor is not None and point.anchor.keys == (A.dnskey.to_wire(),)
    for day in (10, 20, 30.9):
        point = look(point, [A, B], [A], day)
        assert states(point)["b"] == ADDPEND
    now = NOW + 31 * DAY_S
    point, changes = observe(point, keys([A, B], [A], now), now, 3600)
    assert states(point) == {"a": VALID, "b": VALID} and [change.after for change in changes] == [VALID]
    assert point.anchor is not None and set(point.anchor.keys) == {A.dnskey.to_wire(), B.dnskey.to_wire()}


def test_a_pending_key_that_goes_away_begins_anew() -> None:
    """KeyRem: a key that was taken back waits thirty days again when it comes back."""
    point = look(look(configured(A), [A, B], [A], 0), [A], [A], 20)
    assert states(point) == {"a": VALID}
    point = look(point, [A, B], [A], 25)
    assert states(look(point, [A, B], [A], 31))["b"] == ADDPEND
    assert states(look(point, [A, B], [A], 55))["b"] == VALID


def test_nobody_but_a_trusted_key_adds_one() -> None:
    """An RRset that only the new key signed, or whose signature is over, changes nothing and is a failure."""
    point = look(configured(A), [A], [A], 0)
    for rrset, why in (
        (keys([A, C], [C], NOW), "no trusted key has signed"), (keys([C], [C], NOW), "no trusted key is among"),
        (keys([A, C], [A], NOW - 30 * DAY_S), "no trusted key has signed"),
        (keys([A, C], [A], NOW + 30 * DAY_S), "no trusted key has signed"),
    ):  # fmt: skip
        after, changes = observe(point, rrset, NOW, 3600)
        assert states(after) == {"a": VALID} and changes == () and why in after.failure
        assert after.due == NOW + 3600
    forged = keys([A, C], [A], NOW)
    cut = RRset(ZONE, TYPE_DNSKEY, 60, (*forged.rdatas[:1], B.dnskey.to_wire() or b""), forged.sigs)
    assert observe(point, cut, NOW, 3600)[0].failure


def test_a_missing_key_stays_trusted() -> None:
    """Valid, then Missing, still an anchor, also enough to sign with; and Valid again."""
    point = look(configured(A, B), [A, B], [A], 0)
    point = look(point, [A], [A], 1)
    assert states(point) == {"a": VALID, "b": MISSING}
    assert point.anchor is not None and len(point.anchor.keys) == 2
    point = look(point, [A, B], [B], 2)
    assert states(point) == {"a": VALID, "b": VALID}


def test_a_key_revokes_itself_under_its_new_tag() -> None:
    """REVOKE bit and its own signature: no anchor any more, for ever; removed thirty days after it was last there."""
    point = look(configured(A, B), [A, B], [A], 0)
    gone = revoked(A)
    assert dns.dnssec.key_id(gone.dnskey) != dns.dnssec.key_id(A.dnskey)  # type: ignore[arg-type]
    point = look(point, [gone, B], [B], 1)
    assert states(point)["a"] == VALID  # the bit alone says nothing: everybody can set it
    point = look(point, [gone, B], [gone, B], 1)
    assert states(point) == {"a": REVOKED, "b": VALID}
    assert point.anchor is not None and point.anchor.keys == (B.dnskey.to_wire(),)
    assert states(look(point, [A, B], [A, B], 2))["a"] == REVOKED
    assert look(point, [A, B, C], [A], 2).failure  # what it signs is nothing
    point = look(point, [gone, B], [gone, B], 20)
    assert states(look(point, [B], [B], 45))["a"] == REVOKED
    point = look(point, [B], [B], 50)
    assert states(point) == {"a": REMOVED, "b": VALID}
    assert states(rollover.resumed(point, configured(A).anchor, NOW + 51 * DAY_S))["a"] == REMOVED  # type: ignore[arg-type]


def test_a_revocation_needs_no_other_signature_but_brings_nothing_new() -> None:
    """Signed only by the key that revokes itself: revoked, and the new key beside it is not even pending."""
    point = look(configured(A, B), [A, B], [A], 0)
    point = look(point, [revoked(A), C], [revoked(A)], 1)
    assert states(point) == {"a": REVOKED, "b": VALID} and point.failure
    point = look(configured(A), [A], [A], 0)
    point = look(point, [revoked(A)], [revoked(A)], 1)
    assert point.anchor is None  # RFC 5011, section 5: the trust point is deleted
    assert not rollover.anchored([point], anchors.from_texts([f"test. DNSKEY {A.dnskey}"]))


def test_a_pending_key_that_is_revoked_is_forgotten() -> None:
    """A key that never was an anchor need not be remembered."""
    point = look(configured(A), [A, B], [A], 0)
    assert states(look(point, [A, revoked(B)], [A, revoked(B)], 1)) == {"a": VALID}


def test_a_clock_that_jumps_trusts_nothing_too_early() -> None:
    """Ahead: no signature holds then. Back: what was in the future begins now."""
    point = look(configured(A), [A, B], [A], 0)
    ahead = observe(point, keys([A, B], [A], NOW), NOW + 40 * DAY_S, 3600)[0]
    assert ahead.failure and states(ahead)["b"] == ADDPEND
    for wrong in (-2000, 2000):  # a machine without a battery: its clock is wrong at first, then it is set
        there = keys([A, B], [A], NOW + 5 * DAY_S)
        resumed = rollover.resumed(point, configured(A).anchor, NOW + wrong * DAY_S)  # type: ignore[arg-type]
        lost = observe(resumed, there, NOW + wrong * DAY_S, 3600)[0]
        assert lost.failure and states(observe(lost, there, NOW + 5 * DAY_S, 3600)[0])["b"] == ADDPEND
    back = look(point, [A, B], [A], -100)
    assert {held.since for held in back.held} == {NOW - 100 * DAY_S}
    assert states(look(back, [A, B], [A], -71))["b"] == ADDPEND
    assert states(look(back, [A, B], [A], -70))["b"] == VALID


def test_when_to_look_again() -> None:
    """Half the TTL or half of what is left of the signature, from an hour to 15 days (section 2.3)."""
    for ttl, lasts_s, wait_s in (
        (2 * DAY_S, 10 * DAY_S, DAY_S), (60, 10 * DAY_S, 3600), (90 * DAY_S, 90 * DAY_S, 15 * DAY_S),
        (4 * DAY_S, 2 * DAY_S, DAY_S),
    ):  # fmt: skip
        point = observe(configured(A), keys([A], [A], NOW, ttl, lasts_s), NOW, 3600)[0]
        assert (point.probed, point.due) == (NOW, NOW + wait_s)


def test_keys_without_end_are_not_remembered() -> None:
    """Eight keys may wait at once."""
    more = [Signer.make() for _ in range(12)]
    point = look(configured(A), [A, *more], [A], 0)
    assert sum(held.state == ADDPEND for held in point.held) == 8


def test_keys_that_sign_zones_only_are_no_anchors() -> None:
    """Without the SEP bit, or of an algorithm that we cannot check, a key never waits."""
    zsk = Signer.make(flags=256)
    strange = Signer(B.private, B.dnskey.replace(algorithm=200))  # type: ignore[attr-defined]
    assert states(look(configured(A), [A, zsk, strange], [A], 0)) == {"a": VALID}


def test_what_was_learned_is_text_that_can_be_read_again() -> None:
    """The same after a round trip; a later configuration adds its keys, and vouches for one that waits."""
    point = look(look(configured(A), [A, B], [A], 0), [A, B], [A], 3)
    read = rollover.from_text(rollover.to_text([point]))
    assert read == (point,)
    both = configured(B, C).anchor
    assert both is not None
    resumed = rollover.resumed(read[0], both, NOW + 4 * DAY_S)
    assert [held.state for held in resumed.held] == [VALID, VALID, VALID]
    assert resumed.anchor is not None and len(resumed.anchor.keys) == 2 and len(resumed.anchor.ds) == 1
    known = rollover.anchored([resumed], anchors.NONE)
    assert anchors.from_texts(rollover.lines(known)) == known


@pytest.mark.parametrize("spoil", [
    lambda d: d | {"version": 2}, lambda d: {}, lambda d: d | {"zones": d["zones"] * 2},
    lambda d: d["zones"][0]["keys"][0].update(state="good") or d, lambda d: d["zones"][0].update(due="soon") or d,
    lambda d: d["zones"][0]["keys"][0].update(dnskey="257 3 13 !") or d, lambda d: [],
])  # fmt: skip
def test_a_damaged_text_is_refused_with_a_sentence(spoil: object) -> None:
    """Whatever is wrong with it, it is an AnchorError."""
    document = json.loads(rollover.to_text([look(configured(A), [A], [A], 0)]))
    with pytest.raises(AnchorError):
        rollover.from_text(json.dumps(spoil(document)))  # type: ignore[operator]
    with pytest.raises(AnchorError):
        rollover.from_text(rollover.to_text([configured(A)])[:200])
    assert names.from_text("test") == ZONE

"""Trust anchors: where validation begins, and where it is told to look away (RFC 4033, section 3.1; RFC 7646).

Pure: texts in, `Anchors` out. The built-in ones are the root's keys as published by IANA (KSK-2017, KSK-2024).
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
from collections.abc import Iterable, Mapping

from dnsd.contract import names
from dnsd.resolve import signatures

_BUILTIN = """\
. IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D
. IN DS 38696 8 2 683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16
"""


class AnchorError(ValueError):
    """Trust anchors that cannot be used; the message says which and why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Anchor:
    """What is known beforehand of one zone's keys: DS and DNSKEY rdata. Without any it is a negative trust anchor."""

    zone: bytes
    ds: tuple[bytes, ...] = ()
    keys: tuple[bytes, ...] = ()

    @property
    def negative(self) -> bool:
        """Whether it says: below here nothing is validated."""
        return not self.ds and not self.keys


@dataclasses.dataclass(frozen=True)
class Anchors:
    """All anchors by zone; `negative` with the second (wall clock) at which each ends, None for one without an end."""

    positive: Mapping[bytes, Anchor]
    negative: Mapping[bytes, int | None]

    def __bool__(self) -> bool:
        """Without any positive one nothing can be validated."""
        return bool(self.positive)

    @functools.cached_property
    def algorithms(self) -> frozenset[int]:
        """Algorithms of keys to be used: the usual ones, and retired ones that an anchor names."""
        return signatures.ALGORITHMS | (self.named & signatures.RETIRED)

    @functools.cached_property
    def named(self) -> frozenset[int]:
        """Algorithms that an anchor names: somebody has written them down on purpose."""
        named = {ds[2] for anchor in self.positive.values() for ds in anchor.ds}
        return frozenset(named | {key[3] for anchor in self.positive.values() for key in anchor.keys})

    def nearest(self, name: bytes, now: int) -> Anchor | None:
        """The anchor that decides about a name: the deepest at or above it, a negative one before a positive one."""
        while True:
            if name in self.negative:
                until = self.negative[name]
                if until is None or now < until:
                    return Anchor(name)
            anchor = self.positive.get(name)
            if anchor is not None or name == names.ROOT:
                return anchor
            name = names.parent(name)


NONE = Anchors({}, {})


def builtin(negative: Iterable[str] = ()) -> Anchors:
    """The root's keys; raises AnchorError for a negative one that cannot be read."""
    return from_text(_BUILTIN, negative)


def from_text(text: str, negative: Iterable[str] = ()) -> Anchors:
    """Anchors from DS and DNSKEY records as in a zone file (`dig . DNSKEY` prints one); raises AnchorError."""
    try:
        found = signatures.records(text)
    except ValueError as error:
        raise AnchorError(f"{error}; write DS or DNSKEY records, like `. DS 20326 8 2 E06D...`") from None
    ds: dict[bytes, list[bytes]] = {}
    keys: dict[bytes, list[bytes]] = {}
    for owner, rtype, rdata in found:
        (ds if rtype == signatures.TYPE_DS else keys).setdefault(owner, []).append(rdata)
    zones = {
        zone: Anchor(zone, tuple(ds.get(zone, ())), tuple(keys.get(zone, ()))) for zone in dict.fromkeys((*ds, *keys))
    }
    return Anchors(zones, dict(_negative(text) for text in negative))


def from_texts(texts: Iterable[str], negative: Iterable[str] = ()) -> Anchors:
    """Anchors from single records, as the settings hold them; raises AnchorError, which names the record."""
    lines = [text.strip() for text in texts]
    for line in lines:
        from_text(line + "\n")
    return from_text("".join(line + "\n" for line in lines), negative)


def _negative(text: str) -> tuple[bytes, int | None]:
    """`name`, or `name until 2027-01-31` (or a full time): RFC 7646 wants an end for each."""
    name, _, rest = text.strip().partition(" ")
    words = rest.split()
    try:
        zone = names.from_text(name)
        if not words:
            return zone, None
        if words[0] != "until" or len(words) != 2:
            raise AnchorError("write `name`, or `name until 2027-01-31`")
        end = datetime.datetime.fromisoformat(words[1].replace("Z", "+00:00"))
    except ValueError as error:
        raise AnchorError(f"negative trust anchor {text!r}: {error}") from None
    if end.tzinfo is None:
        end = end.replace(tzinfo=datetime.UTC)
    return zone, int(end.timestamp())

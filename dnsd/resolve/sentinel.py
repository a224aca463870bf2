"""The root key trust anchor sentinel (RFC 8509): by which names a client finds out which root keys we trust. Pure."""

from __future__ import annotations

import re

from dnsd.contract import codes, names
from dnsd.resolve import signatures
from dnsd.resolve.anchors import Anchors

_LABEL = re.compile(rb"root-key-sentinel-(is|not)-ta-([0-9]{5})")
_LABEL_LENGTHS = (29, 30)  # of `is` and `not`
_ADDRESSES = (codes.TYPE_A, codes.TYPE_AAAA)


def denies(sname: bytes, qtype: int, anchors: Anchors) -> bool:
    """Whether a secure answer to this question (CD clear) is to be SERVFAIL, because the name says of our root keys
    what is not so (RFC 8509, section 2.2)."""
    if sname[0] not in _LABEL_LENGTHS or qtype not in _ADDRESSES:
        return False
    said = _LABEL.fullmatch(sname[1 : 1 + sname[0]])
    root = anchors.positive.get(names.ROOT)
    if said is None or root is None:
        return False
    tags = {int.from_bytes(ds[:2], "big") for ds in root.ds} | {signatures.key_tag(key) for key in root.keys}
    return (int(said[2]) in tags) != (said[1] == b"is")

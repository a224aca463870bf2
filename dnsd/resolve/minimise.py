# cython: wraparound=True, annotation_typing=False
"""Which name a server is asked for: no more of it than the server needs to know (RFC 9156). Pure."""

from __future__ import annotations

from dnsd.contract import names

# RFC 9156, section 2.3: at most so many questions that hide something, the first few by one label each.
MINIMISED = 10
_ONE_LABEL = 4


def minimised(sname: bytes, known: bytes, asked: int) -> bytes:
    """The name to ask next (RFC 9156, section 2.3): `known` and one label more, later several; `asked` counts."""
    hidden = names.count(sname) - names.count(known)
    if hidden <= 1 or asked >= MINIMISED - 1:
        return sname
    step = 1 if asked < _ONE_LABEL else -(-hidden // (MINIMISED - asked))
    for _ in range(hidden - step):
        sname = names.parent(sname)
    return sname

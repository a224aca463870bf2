# cython: wraparound=True, annotation_typing=False
"""What the settings say about resolving, as the resolver wants it. Pure."""

from __future__ import annotations

import dataclasses

from dnsd.contract import names


@dataclasses.dataclass(frozen=True)
class Config:
    """`special`: names kept at home (RFC 6303, 6761), with what is below them; `dnssec`: ask for signatures.

    `prefer`: 4 or 6, the family of addresses that servers are asked at as long as one of them is of use; 0 for either.
    """

    qname_minimisation: bool = True
    case_randomisation: bool = True
    priming: bool = True
    use_ipv4: bool = True
    use_ipv6: bool = True
    prefer: int = 0
    query_localhost: bool = False
    harden_glue: bool = True
    edns_size: int = 1232
    dnssec: bool = True
    special: frozenset[bytes] = frozenset()

    def at_home(self, name: bytes) -> bool:
        """Whether an alias or a delegation may not lead there."""
        if not self.special:
            return False
        while name != names.ROOT:
            if name in self.special:
                return True
            name = names.parent(name)
        return False

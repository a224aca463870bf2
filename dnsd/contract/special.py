"""Special-use names that stay at home: RFC 6303, 6761, 6762, 7686, 7793, 8375, 9462, 9476. Data only."""

from __future__ import annotations

import ipaddress

from dnsd.contract import codes, names

_REVERSE_V4 = (
    ["0", "10", "127", "254.169", "2.0.192", "100.51.198", "113.0.203", "255.255.255.255", "168.192"]
    + [f"{n}.172" for n in range(16, 32)]
    + [f"{n}.100" for n in range(64, 128)]
)
_REVERSE_V6 = ["d.f", "8.e.f", "9.e.f", "a.e.f", "b.e.f", "8.b.d.0.1.0.0.2"]


def special_names() -> dict[bytes, int]:
    """Wire name → `codes.SPECIAL_*`; each holds for the name and everything below."""
    out = {names.from_text(f"{text}.in-addr.arpa"): codes.SPECIAL_NXDOMAIN for text in _REVERSE_V4}
    out.update({names.from_text(f"{text}.ip6.arpa"): codes.SPECIAL_NXDOMAIN for text in _REVERSE_V6})
    for address in ("::", "::1"):
        out[names.reverse(ipaddress.IPv6Address(address))] = codes.SPECIAL_NXDOMAIN
    for text in ("test", "invalid", "onion", "local", "home.arpa", "alt"):
        out[names.from_text(text)] = codes.SPECIAL_NXDOMAIN
    out[names.from_text("localhost")] = codes.SPECIAL_LOCALHOST
    out[names.from_text("resolver.arpa")] = codes.SPECIAL_NODATA
    return out

"""The `protect` section as the table has it: flags, refused networks, spared names, texts. Pure."""

from __future__ import annotations

from collections.abc import Callable

from controller.blob import words
from controller.ruleset import Guard, Protection, Where
from dnsd.contract import layout

_BITS = (
    ("rebinding", layout.PROTECT_REBINDING),
    ("cname", layout.PROTECT_CNAME),
    ("networks", layout.PROTECT_NETWORKS),
)


def _guards(protection: Protection) -> list[tuple[str, int, Guard | None]]:
    return [(name, bit, getattr(protection, name)) for name, bit in _BITS]


def spared(protection: Protection) -> dict[bytes, int]:
    """The names (each with all below) that are spared, and by which protections."""
    out: dict[bytes, int] = {}
    for _, bit, guard in _guards(protection):
        for name in guard.spared if guard else ():
            out[name] = out.get(name, 0) | bit
    return out


def section(protection: Protection) -> tuple[bytes, int]:
    """SECTION_PROTECT: flags, how many refused intervals of either family, the intervals."""
    flags = sum(bit for _, bit, guard in _guards(protection) if guard is not None)
    refused = protection.networks.networks if protection.networks else ()
    v4 = [word for n in refused if n.version == 4 for word in (n.first, n.last)]
    v6: list[int] = []
    for network in refused:
        if network.version == 6:
            for value in (network.first, network.last):
                v6 += [value >> shift & 0xFFFFFFFF for shift in (96, 64, 32, 0)]
    return words([flags, len(v4) // 2, len(v6) // 8, *v4, *v6]), len(refused)


def infos(protection: Protection, where: Callable[[Where | None], int], texts: bytearray) -> list[int]:
    """SECTION_PROTECT_INFO; appends the texts of Extended DNS Errors to `texts`."""
    out: list[int] = []
    for name, _, guard in _guards(protection):
        text = f"protect.{name} {guard.where}".encode() if guard else b""
        out += [where(guard.where if guard else None), len(texts), len(text), 0]
        texts += text
    return out

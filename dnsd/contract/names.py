# cython: wraparound=True, annotation_typing=False
"""Domain names: parse, print, order them; text and wire.

A name is a `bytes` object in uncompressed wire format, lower case unless said otherwise, at
most 255 octets in labels of at most 63 (RFC 1035, sections 2.3.4 and 3.1). This file does not
know messages: compression pointers are read in `query` and `resolve.message`.
"""

import ipaddress

ROOT = b"\x00"
MAX_NAME = 255
MAX_LABEL = 63

_LOWER = bytes(c + 32 if 65 <= c <= 90 else c for c in range(256))
# Characters that presentation format writes with a backslash (RFC 1035, section 5.1).
_ESCAPED = frozenset(b'".;\\@$()')


class NameSyntaxError(ValueError):
    """A text that is not a domain name; `reason` says why in words for users."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"{text!r} is not a domain name: {reason}")
        self.text = text
        self.reason = reason


def lower(name: bytes) -> bytes:
    """Fold ASCII letters to lower case (RFC 4343); length octets are below 64 and stay."""
    return name.translate(_LOWER)


def _unescape(text: str) -> list[bytearray]:
    labels = [bytearray()]
    i = 0
    while i < len(text):
        c = text[i]
        if c == "\\":
            digits = text[i + 1 : i + 4]
            if len(digits) == 3 and digits.isascii() and digits.isdigit():
                if int(digits) > 255:
                    raise NameSyntaxError(text, f"\\{digits} is not an octet (000 to 255)")
                labels[-1].append(int(digits))
                i += 4
                continue
            if i + 1 >= len(text):
                raise NameSyntaxError(text, "it ends in a backslash")
            i += 1
            c = text[i]
            if ord(c) > 126:
                raise NameSyntaxError(text, f"{c!r} is not an ASCII character")
            labels[-1].append(ord(c))
        elif c == ".":
            labels.append(bytearray())
        else:
            if not "!" <= c <= "~":
                raise NameSyntaxError(text, f"{c!r} is not allowed in a name")
            labels[-1].append(ord(c))
        i += 1
    return labels


def from_text(text: str) -> bytes:
    """Read presentation format (a final dot is optional, `.` is the root); raises NameSyntaxError.

    ASCII only: international names are turned into A-labels by the caller.
    """
    if text in (".", ""):
        if text == "":
            raise NameSyntaxError(text, "it is empty")
        return ROOT
    labels = _unescape(text)
    if not labels[-1]:
        labels.pop()
    out = bytearray()
    for label in labels:
        if not label:
            raise NameSyntaxError(text, "it has an empty label (two dots in a row, or a dot at the start)")
        if len(label) > MAX_LABEL:
            raise NameSyntaxError(text, f"a label has {len(label)} octets, the limit is {MAX_LABEL}")
        out.append(len(label))
        out += label
    out.append(0)
    if len(out) > MAX_NAME:
        raise NameSyntaxError(text, f"it has {len(out)} octets, the limit is {MAX_NAME}")
    return lower(bytes(out))


def split(name: bytes) -> list[bytes]:
    """The labels of a wire name, leftmost first, without the root label."""
    out = []
    i = 0
    while name[i]:
        out.append(name[i + 1 : i + 1 + name[i]])
        i += 1 + name[i]
    return out


def join(labels: list[bytes]) -> bytes:
    """The wire name of these labels (leftmost first)."""
    return b"".join(bytes((len(label),)) + label for label in labels) + ROOT


def to_text(name: bytes) -> str:
    """Print a wire name in presentation format, absolute names without the final dot except the root."""
    if name == ROOT:
        return "."
    parts = []
    for label in split(name):
        chars = []
        for c in label:
            if c in _ESCAPED:
                chars.append("\\" + chr(c))
            elif 33 <= c <= 126:
                chars.append(chr(c))
            else:
                chars.append(f"\\{c:03d}")
        parts.append("".join(chars))
    return ".".join(parts)


def count(name: bytes) -> int:
    """How many labels a wire name has, the root label not counted."""
    n = i = 0
    while name[i]:
        n += 1
        i += 1 + name[i]
    return n


def parent(name: bytes) -> bytes:
    """The name without its leftmost label; the root's parent is the root."""
    return name if name == ROOT else name[1 + name[0] :]


def suffixes(name: bytes) -> list[bytes]:
    """The name itself and every name above it up to the root."""
    out = [name]
    while name != ROOT:
        name = parent(name)
        out.append(name)
    return out


def is_below(name: bytes, ancestor: bytes) -> bool:
    """Whether `name` is strictly below `ancestor` (both lower case)."""
    if len(name) <= len(ancestor) or not name.endswith(ancestor):
        return False
    own = len(name) - len(ancestor)
    i = 0
    while i < own:
        i += 1 + name[i]
    return i == own


def order(name: bytes) -> tuple[bytes, ...]:
    """A sort key for the canonical order of names (RFC 4034, section 6.1)."""
    return tuple(reversed(split(name)))


def reverse(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    """The name that holds an address's PTR (RFC 1035, section 3.5; RFC 3596, section 2.5)."""
    return from_text(address.reverse_pointer)

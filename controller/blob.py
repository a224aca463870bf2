"""Write a blob of the compiled table: header, directory, sections, digest (layout: `dnsd.contract.layout`)."""

from __future__ import annotations

import hashlib
import struct

from dnsd.contract import layout


def _padded(data: bytes) -> bytes:
    return data + b"\x00" * (-len(data) % 8)


def assemble(
    magic: bytes, sections: dict[int, tuple[bytes, int]], seed: int, meaning: bytes = b"", names_digest: bytes = b""
) -> bytes:
    """The bytes of a blob. `sections` maps a section's number to its bytes and count; order does not matter."""
    numbers = sorted(sections)
    offset = layout.HEADER_SIZE + layout.DIRECTORY_ENTRY * len(numbers)
    offset += -offset % 8
    directory = bytearray()
    bodies = []
    for number in numbers:
        data, count = sections[number]
        directory += struct.pack("<IIII", number, offset, len(data), count)
        bodies.append(_padded(data))
        offset += len(bodies[-1])
    head = magic + struct.pack("<IIQII", layout.MAJOR, layout.MINOR, offset, len(numbers), seed)
    rest = meaning.ljust(32, b"\x00") + names_digest.ljust(32, b"\x00") + _padded(bytes(directory))
    digest = hashlib.sha256(head + rest)
    for body in bodies:
        digest.update(body)
    return b"".join([head, digest.digest(), rest, *bodies])


def meaning_of(sections: dict[int, tuple[bytes, int]], names_digest: bytes) -> bytes:
    """What a policy blob decides, as a digest: everything but provenance."""
    digest = hashlib.sha256(names_digest)
    for number in sorted(sections):
        if number < layout.SECTION_PROVENANCE:
            data, count = sections[number]
            digest.update(struct.pack("<III", number, len(data), count))
            digest.update(data)
    return digest.digest()


def words(values: list[int]) -> bytes:
    """Numbers as little-endian u32."""
    return struct.pack(f"<{len(values)}I", *values)


class Strings:
    """Texts by number, each once; number 0 is the empty text."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {"": 0}

    def number(self, text: str) -> int:
        """The number of `text`."""
        return self._numbers.setdefault(text, len(self._numbers))

    def sections(self) -> dict[int, tuple[bytes, int]]:
        """Offsets (count + 1 words) and the UTF-8 bytes."""
        encoded = [text.encode() for text in self._numbers]
        offsets = [0]
        for data in encoded:
            offsets.append(offsets[-1] + len(data))
        return {
            layout.SECTION_STRINGS: (words(offsets), len(encoded)),
            layout.SECTION_STRING_BYTES: (b"".join(encoded), len(encoded)),
        }

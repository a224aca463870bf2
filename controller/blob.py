"""Write a blob of the compiled table: header, directory, sections, digest (layout: `dnsd.contract.layout`)."""

from __future__ import annotations

import hashlib
import struct

from dnsd.contract import layout


def frame(magic: bytes, sizes: dict[int, tuple[int, int]]) -> tuple[bytearray, dict[int, memoryview]]:
    """A blob with room for its sections, which the caller fills in place before `close`.

    `sizes` maps a section's number to its length and count; their order does not matter.
    """
    ordered = sorted(sizes)
    offset = layout.HEADER_SIZE + layout.DIRECTORY_ENTRY * len(ordered)
    offset += -offset % 8
    directory = []
    for number in ordered:
        length, count = sizes[number]
        directory.append((number, offset, length, count))
        offset += length + -length % 8
    data = bytearray(offset)
    data[: len(magic)] = magic
    struct.pack_into("<IIQI", data, layout.H_MAJOR, layout.MAJOR, layout.MINOR, offset, len(ordered))
    for place, entry in enumerate(directory):
        struct.pack_into("<IIII", data, layout.HEADER_SIZE + layout.DIRECTORY_ENTRY * place, *entry)
    view = memoryview(data)
    return data, {number: view[at : at + length] for number, at, length, _ in directory}


def close(data: bytearray, seed: int, meaning: bytes = b"", names_digest: bytes = b"") -> None:
    """Write the rest of the header, the digest last."""
    struct.pack_into("<I", data, layout.H_SEED, seed)
    data[layout.H_MEANING : layout.H_MEANING + len(meaning)] = meaning
    data[layout.H_NAMES_DIGEST : layout.H_NAMES_DIGEST + len(names_digest)] = names_digest
    view = memoryview(data)
    digest = hashlib.sha256(view[: layout.H_DIGEST])
    digest.update(view[layout.H_DIGEST + 32 :])
    data[layout.H_DIGEST : layout.H_DIGEST + 32] = digest.digest()


def assemble(
    magic: bytes, sections: dict[int, tuple[bytes, int]], seed: int, meaning: bytes = b"", names_digest: bytes = b""
) -> bytes:
    """The bytes of a blob whose sections are there already: number → bytes and count."""
    data, parts = frame(magic, {number: (len(part), count) for number, (part, count) in sections.items()})
    for number, (part, _) in sections.items():
        parts[number][:] = part
    close(data, seed, meaning, names_digest)
    return bytes(data)


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

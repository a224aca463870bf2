"""The verb `dissect`: a DNS message octet by octet, as a table for people or as JSON.

Reads arguments and standard input, prints; what the octets mean is in `dissection`.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import json
import os
import re
import sys
from collections.abc import Iterator

from dnsd.dissection import Dissection, dissect

_LIMIT = 1 << 20
_ROW = 8  # octets a row
_SEPARATORS = re.compile(r"0x|\\x|[\s:,;_\-]", re.IGNORECASE)
# A line of `xxd` or `hexdump -C`: an offset, then octets, then their text, which is not read.
_DUMP = re.compile(r"^\s*(?:[0-9a-f]{4,8}:|[0-9a-f]{8}(?=\s\s))\s+((?:[0-9a-f]{2,4} {0,2})+)", re.IGNORECASE)
_HELP = """\
DNS packets octet by octet: offset, octets, field, meaning.

examples:
  nexoraldns dissect 1234 0100 0001 0000 0000 0000 03777777 076578616d706c65 00 0001 0001
  nexoraldns dissect --base64 EjQBAAABAAAAAAAAA3d3dwdleGFtcGxlAAABAAE
  nexoraldns dissect - < packet.bin
  xxd packet.bin | nexoraldns dissect --format json

exit code: 0 well formed, 1 malformed (dissected as far as possible), 2 could not read the input
"""


class InputError(ValueError):
    """The text is not what was promised; the message says what to give instead."""


def parse_hex(text: str) -> bytes:
    """Read hexadecimal digits with any usual separators, or the output of xxd and hexdump -C; raises InputError."""
    lines = [line for line in text.splitlines() if line.strip()]
    dumped = [_DUMP.match(line) for line in lines]
    if lines and dumped[0]:
        text = " ".join(match.group(1) for match in dumped if match)
    digits = _SEPARATORS.sub("", text)
    bad = re.search(r"[^0-9a-fA-F]", digits)
    if bad:
        raise InputError(f"{bad.group()!r} is not a hexadecimal digit (base64 needs --base64)")
    if len(digits) % 2:
        raise InputError(f"{len(digits)} hexadecimal digits are not whole octets: one is missing")
    return bytes.fromhex(digits)


def parse_base64(text: str) -> bytes:
    """Read base64 in its plain or its URL alphabet (RFC 4648; DoH), padded or not; raises InputError."""
    compact = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"this is not base64: {str(error).lower()}") from None


def parse_input(data: bytes, *, as_base64: bool) -> bytes:
    """What came on standard input: hexadecimal or base64 text, or else the packet itself."""
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        return data
    if as_base64:
        return parse_base64(text)
    if text.strip() and all(c.isprintable() or c in "\r\n\t" for c in text):
        return parse_hex(text)
    return data


def split_stream(data: bytes) -> list[bytes]:
    """Split a TCP stream into messages by their two-octet lengths (RFC 1035, section 4.2.2); raises InputError."""
    messages = []
    while data:
        length = int.from_bytes(data[:2], "big")
        if len(data) < 2 + length or len(data) < 2:
            raise InputError(f"the stream announces a message of {length} octets and has {max(0, len(data) - 2)}")
        messages.append(data[2 : 2 + length])
        data = data[2 + length :]
    return messages


class _Paint:
    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled

    def __call__(self, style: str, text: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self.enabled and text else text


def render_text(dissection: Dissection, *, colour: bool) -> Iterator[str]:
    """The lines of the table."""
    paint = _Paint(colour)
    octets = dissection.octets
    yield paint("1", f"DNS message, {len(octets)} octet{'' if len(octets) == 1 else 's'}")
    width = max([len(field.name) for field in dissection.fields] + [len("field")])
    section = ""
    gap = " " * (8 + _ROW * 3 + 1)
    for field in dissection.fields:
        if field.section != section:
            section = field.section
            yield ""
            yield paint("1;36", section)
        rows = [field.octets[i : i + _ROW].hex(" ") for i in range(0, len(field.octets), _ROW)] or [""]
        meaning = paint("1;31" if field.fault else "0", field.meaning) if colour else field.meaning
        line = f"{paint('2', f'0x{field.offset:04x}')}  {paint('33', f'{rows[0]:<{_ROW * 3}}')} {field.name:<{width}}  "
        yield (line + meaning).rstrip()
        for i, row in enumerate(rows[1:], 1):
            yield f"{paint('2', f'0x{field.offset + i * _ROW:04x}')}  {paint('33', row)}"
        for drawing, name, text in field.bits:
            yield f"{' ' * 8}{paint('33', f'{drawing:<{_ROW * 3}}')} {name:<{width}}  {text}"
        if field.fault:
            yield f"{gap}{paint('1;31', '^ malformed at ' + f'0x{field.offset:04x}: ' + field.fault)}"
    yield ""
    faults = dissection.faults
    if faults:
        yield paint("1;31", f"malformed: {len(faults)} fault{'' if len(faults) == 1 else 's'}, the first at "
                            f"0x{faults[0].offset:04x}: {faults[0].fault}")  # fmt: skip
    else:
        yield paint("32", "well formed: every octet is accounted for")
    if faults and len(octets) > 14 and int.from_bytes(octets[:2], "big") == len(octets) - 2:
        yield "the first two octets equal the length of the rest: a message from TCP is read with --tcp"


def to_json(dissection: Dissection) -> dict[str, object]:
    """The same as JSON values: length, malformed, faults, fields."""
    return {
        "length": len(dissection.octets),
        "malformed": bool(dissection.faults),
        "faults": [{"offset": field.offset, "text": field.fault} for field in dissection.faults],
        "fields": [
            {
                "section": field.section, "offset": field.offset, "length": len(field.octets),
                "octets": field.octets.hex(), "field": field.name, "meaning": field.meaning,
                **({"bits": [{"bits": b, "field": n, "meaning": m} for b, n, m in field.bits]} if field.bits else {}),
                **({"fault": field.fault} if field.fault else {}),
            }
            for field in dissection.fields
        ],
    }  # fmt: skip


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nexoraldns dissect", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("hex", nargs="*", metavar="HEX", help="hexadecimal digits, or - for standard input (default)")
    parser.add_argument("--base64", action="store_true", help="the input is base64, plain or URL alphabet")
    parser.add_argument("--tcp", action="store_true", help="messages with the two-octet length of TCP before each")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--config", metavar="FILE", help="accepted as by every verb; nothing of it is used here")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the verb; returns the exit code."""
    options = _arguments().parse_args(argv)
    try:
        if options.hex and options.hex != ["-"]:
            text = " ".join(options.hex)
            data = parse_base64(text) if options.base64 else parse_hex(text)
        elif sys.stdin.isatty():
            raise InputError("give hexadecimal digits, or a packet on standard input; see --help")
        else:
            data = parse_input(sys.stdin.buffer.read(_LIMIT + 1), as_base64=options.base64)
        if not data:
            raise InputError("there is nothing to dissect: the input is empty")
        if len(data) > _LIMIT:
            raise InputError("the input is longer than 1 MiB")
        messages = split_stream(data) if options.tcp else [data]
    except InputError as error:
        print(f"dissect: {error}", file=sys.stderr)
        return 2
    dissections = [dissect(message) for message in messages]
    try:
        if options.format == "json":
            values = [to_json(dissection) for dissection in dissections]
            print(json.dumps(values if options.tcp else values[0], indent=2, ensure_ascii=False))
        else:
            colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
            print("\n\n".join("\n".join(render_text(dissection, colour=colour)) for dissection in dissections))
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1 if any(dissection.faults for dissection in dissections) else 0


if __name__ == "__main__":
    sys.exit(main())

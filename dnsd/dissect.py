"""The verb `dissect`: a DNS message octet by octet, as a table for people or as JSON.

Reads arguments and standard input, prints; what the octets mean is in `dissection`.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import datetime
import json
import os
import re
import sys
from collections.abc import Iterator

from dnsd import capture
from dnsd.capture import Captured, CaptureError
from dnsd.dissection import Dissection, dissect

_LIMIT = 1 << 20
_ROW = 8  # octets a row
_LANES = 6  # arrows side by side
_LARGEST_CAPTURE = 64 << 20
_SEPARATORS = re.compile(r"0x|\\x|[\s:,;_\-]", re.IGNORECASE)
# A line of `xxd` or `hexdump -C`: an offset, then octets, then their text, which is not read.
_DUMP = re.compile(r"^\s*(?:[0-9a-f]{4,8}:|[0-9a-f]{8}(?=\s\s))\s+((?:[0-9a-f]{2,4} {0,2})+)", re.IGNORECASE)
_HELP = """\
DNS packets octet by octet: offset, octets, field, meaning; arrows from compression pointers to where they lead.

Reads hexadecimal digits, xxd and hexdump -C, base64, the packet itself, and captures (pcap and pcapng, UDP and TCP).

examples:
  nexoraldns dissect 1234 0100 0001 0000 0000 0000 03777777 076578616d706c65 00 0001 0001
  nexoraldns dissect --base64 EjQBAAABAAAAAAAAA3d3dwdleGFtcGxlAAABAAE
  nexoraldns dissect - < packet.bin
  xxd packet.bin | nexoraldns dissect --format json
  tcpdump -c 2 -w - port 53 | nexoraldns dissect
  nexoraldns dissect --packet 7 - < trace.pcapng

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


def choose(data: bytes, port: int | None, number: int | None) -> list[Captured]:
    """The DNS messages of a capture; raises InputError when there is none that is wanted."""
    try:
        found = capture.read(data, capture.PORTS if port is None else frozenset((port,)))
    except CaptureError as error:
        raise InputError(str(error)) from None
    for note in found.notes:
        print(f"dissect: {note}", file=sys.stderr)
    if not found.messages:
        ports = "53, 5353 or 5355; give --port" if port is None else str(port)
        raise InputError(f"none of the {found.packets} packets is DNS from or to port {ports}")
    if number is None:
        return found.messages
    chosen = [message for message in found.messages if message.number == number]
    if not chosen:
        there = ", ".join(str(message.number) for message in found.messages[:12])
        raise InputError(f"packet {number} holds no DNS message; these do: {there}")
    return chosen


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
    gutters = arrows(dissection)
    for at, field in enumerate(dissection.fields):
        if field.section != section:
            section = field.section
            through = _through(gutters, at)
            yield paint("35", through).rstrip()
            yield paint("35", through) + paint("1;36", section)
        through = _through(gutters, at + 1)
        rows = [field.octets[i : i + _ROW].hex(" ") for i in range(0, len(field.octets), _ROW)] or [""]
        meaning = paint("1;31" if field.fault else "0", field.meaning) if colour else field.meaning
        line = f"{paint('2', f'0x{field.offset:04x}')}  {paint('33', f'{rows[0]:<{_ROW * 3}}')} {field.name:<{width}}  "
        yield (paint("35", gutters[at]) + line + meaning).rstrip()
        through = paint("35", through)
        for i, row in enumerate(rows[1:], 1):
            yield f"{through}{paint('2', f'0x{field.offset + i * _ROW:04x}')}  {paint('33', row)}"
        for drawing, name, text in field.bits:
            yield f"{through}{' ' * 8}{paint('33', f'{drawing:<{_ROW * 3}}')} {name:<{width}}  {text}"
        if field.fault:
            yield f"{through}{gap}{paint('1;31', '^ malformed at ' + f'0x{field.offset:04x}: ' + field.fault)}"
    yield ""
    faults = dissection.faults
    if faults:
        yield paint("1;31", f"malformed: {len(faults)} fault{'' if len(faults) == 1 else 's'}, the first at "
                            f"0x{faults[0].offset:04x}: {faults[0].fault}")  # fmt: skip
    else:
        yield paint("32", "well formed: every octet is accounted for")
    if faults and len(octets) > 14 and int.from_bytes(octets[:2], "big") == len(octets) - 2:
        yield "the first two octets equal the length of the rest: a message from TCP is read with --tcp"


def arrows(dissection: Dissection) -> list[str]:
    """What stands left of each field: lines from compression pointers up to where they lead. Empty without pointers.

    All pointers to one place share a line; beyond six lines side by side a pointer has only its words.
    """
    fields = dissection.fields
    places = {field.offset: at for at, field in enumerate(fields) if field.octets}
    spans: dict[int, list[int]] = {}  # by target's row: the pointers' rows
    for at, field in enumerate(fields):
        to = places.get(field.target, at)
        if to < at:
            spans.setdefault(to, []).append(at)
    lanes: list[int] = []  # by lane: the last row that is taken
    chosen: dict[int, int] = {}
    for to in sorted(spans):
        lane = next((i for i, last in enumerate(lanes) if last < to), len(lanes))
        if lane < _LANES:
            lanes[lane : lane + 1] = [spans[to][-1]]
            chosen[to] = lane
    if not chosen:
        return [""] * len(fields)
    width = 2 * len(lanes) + 1
    grid = [[" "] * width for _ in fields]
    for to, lane in chosen.items():
        x = width - 3 - 2 * lane
        last = spans[to][-1]
        for at in range(to, last + 1):
            ends = at == to or at in spans[to]
            grid[at][x] = "╭" if at == to else "╰" if at == last else "├" if ends else "│"
    for to, lane in chosen.items():
        for at in (to, *spans[to]):
            for between in range(width - 2 - 2 * lane, width - 1):
                grid[at][between] = "┼" if grid[at][between] == "│" else "─"
            grid[at][width - 2] = "▸" if at == to else "─"
    return ["".join(row) for row in grid]


def _through(gutters: list[str], at: int) -> str:
    """The lines that go on between the field before this one and this one."""
    if not gutters or not gutters[0]:
        return ""
    below = gutters[at] if at < len(gutters) else " " * len(gutters[0])
    return "".join("│" if c in "│├╰┼" and at and gutters[at - 1][i] in "│├╭┼" else " " for i, c in enumerate(below))


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
                **({"target": field.target} if field.target >= 0 else {}),
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
    parser.add_argument("--port", type=int, metavar="N", help="of a capture: this port instead of 53, 5353 and 5355")
    parser.add_argument("--packet", type=int, metavar="N", help="of a capture: this packet alone, counted from 1")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--config", metavar="FILE", help="accepted as by every verb; nothing of it is used here")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the verb; returns the exit code."""
    options = _arguments().parse_args(argv)
    captured: list[Captured] = []
    try:
        if options.hex and options.hex != ["-"]:
            text = " ".join(options.hex)
            data = parse_base64(text) if options.base64 else parse_hex(text)
        elif sys.stdin.isatty():
            raise InputError("give hexadecimal digits, or a packet on standard input; see --help")
        else:
            data = sys.stdin.buffer.read(_LARGEST_CAPTURE + 1)
            if not capture.is_capture(data):
                data = parse_input(data[: _LIMIT + 1], as_base64=options.base64)
        if not data:
            raise InputError("there is nothing to dissect: the input is empty")
        if capture.is_capture(data):
            if len(data) > _LARGEST_CAPTURE:
                raise InputError("the capture is longer than 64 MiB; filter it with tcpdump -r")
            captured = choose(data, options.port, options.packet)
        elif options.port is not None or options.packet is not None:
            raise InputError("--port and --packet are for captures (pcap, pcapng), and this is none")
        elif len(data) > _LIMIT:
            raise InputError("the input is longer than 1 MiB")
        messages = [m.octets for m in captured] or (split_stream(data) if options.tcp else [data])
    except InputError as error:
        print(f"dissect: {error}", file=sys.stderr)
        return 2
    dissections = [dissect(message) for message in messages]
    if options.format == "json":
        values = [to_json(dissection) for dissection in dissections]
        for value, message in zip(values, captured, strict=False):
            value["captured"] = _captured_json(message)
        print(json.dumps(values if options.tcp or captured else values[0], indent=2, ensure_ascii=False))
    else:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        parts = ["\n".join(render_text(dissection, colour=colour)) for dissection in dissections]
        heads = [_Paint(colour)("1;35", _heading(message)) + "\n" for message in captured] or [""] * len(parts)
        print("\n\n".join(head + part for head, part in zip(heads, parts, strict=True)))
    return 1 if any(dissection.faults for dissection in dissections) else 0


def _moment(message: Captured) -> str:
    try:
        when = datetime.datetime.fromtimestamp(message.time_ns / 1e9, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return "at no time"
    return f"{when:%Y-%m-%d %H:%M:%S.%f} UTC"


def _heading(message: Captured) -> str:
    missing = f", {message.missing} octets were not captured" if message.missing else ""
    ends = f"{message.source} → {message.target}"
    return f"packet {message.number}  {_moment(message)}  {ends}  {message.transport}{missing}"


def _captured_json(message: Captured) -> dict[str, object]:
    return {
        "packet": message.number, "time": _moment(message), "source": message.source, "target": message.target,
        "transport": message.transport, "missing": message.missing,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())

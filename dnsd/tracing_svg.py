"""A resolution as one SVG picture: the tree, when each question was under way, and the answer. Pure.

It stands alone (no script, no font, nothing from elsewhere), follows the reader's light or dark scheme, and all
of its words are text. What servers said is escaped; the style never depends on it, so a page may allow it by its hash.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from html import escape

from dnsd.contract import codes, names
from dnsd.tracing import Resolution
from dnsd.tracing_tree import DIM, NAME, PLAIN, QUESTION, TONES, WARN, ZONE, Line, Node, record_lines, tree

_CHAR = 7.55  # px of a character of the fixed-width font at 12.5 px
_ROW, _NOTE = 25.0, 18.0  # px from line to line
_LEFT, _STEP, _TOP = 40.0, 24.0, 118.0
_FLOW = 190.0  # px that the longest wait takes
_LONGEST = 112  # characters of a line; the rest is in its tooltip
_LEAST = 820.0
_MOST_ROWS = 1500

# Colours carry meaning only: how a question went, and what validation said.
STYLE = """
.nx{--back:#fff;--frame:#e2e2dc;--sunk:#f6f6f3;--text:#1b1f22;--soft:#5b6368;--rail:#cfd3d0;--zone:#e3eff1;
--zone-text:#0d4c5b;--good:#1f7a45;--good-back:#e4f3e9;--info:#1a6d94;--info-back:#e2eff6;--warn:#8a5a00;
--warn-back:#fbf0d9;--bad:#b3261e;--bad-back:#fceceb;color-scheme:light dark}
@media (prefers-color-scheme:dark){.nx{--back:#16191b;--frame:#2a3033;--sunk:#1e2325;--text:#e6e8e7;--soft:#9aa4a8;
--rail:#3d4549;--zone:#1b3339;--zone-text:#9edbe8;--good:#71cf95;--good-back:#17301f;--info:#7cc3e6;
--info-back:#14303f;--warn:#e6b65c;--warn-back:#33270f;--bad:#f28b82;--bad-back:#3a1a18}}
.nx .back{fill:var(--back);stroke:var(--frame)}
.nx text{font:12.5px ui-monospace,"SF Mono","Cascadia Code","JetBrains Mono",Menlo,Consolas,
"DejaVu Sans Mono",monospace;fill:var(--text);white-space:pre}
.nx .title{font:600 21px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Liberation Sans",Arial,sans-serif;
letter-spacing:-.01em}
.nx .words{font:13px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Liberation Sans",Arial,sans-serif}
.nx .head{font:600 12px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Liberation Sans",Arial,sans-serif;
fill:var(--soft)}
.nx .strong{font-weight:650}.nx .dim{fill:var(--soft)}
.nx .good{fill:var(--good)}.nx .info{fill:var(--info)}.nx .warn{fill:var(--warn)}.nx .bad{fill:var(--bad)}
.nx .pill{stroke:none}.nx .pill.good{fill:var(--good-back)}.nx .pill.info{fill:var(--info-back)}
.nx .pill.warn{fill:var(--warn-back)}.nx .pill.bad{fill:var(--bad-back)}
.nx .zone{fill:var(--zone)}.nx .on-zone{fill:var(--zone-text);font-weight:650}
.nx .rail{fill:none;stroke:var(--rail);stroke-width:1.5}
.nx .mark{fill:var(--back);stroke:var(--soft);stroke-width:2}
.nx .mark.good{fill:var(--good);stroke:var(--good)}.nx .mark.info{fill:var(--info);stroke:var(--info)}
.nx .mark.warn{fill:var(--warn);stroke:var(--warn)}.nx .mark.bad{fill:var(--bad);stroke:var(--bad)}
.nx .lane{fill:var(--sunk)}.nx .sheet{fill:var(--sunk)}
"""


@dataclasses.dataclass(slots=True)
class _Drawing:
    """Pieces in the order of painting, and how far they reach."""

    rails: list[str] = dataclasses.field(default_factory=list)
    marks: list[str] = dataclasses.field(default_factory=list)
    # y, when it begins, the wait, its RTT (all in ms), tone
    flows: list[tuple[float, int, int, int, str]] = dataclasses.field(default_factory=list)
    y: float = _TOP
    right: float = 0.0
    elapsed_ms: int = 0
    rows: int = 0


def svg(resolution: Resolution) -> str:
    """The picture as a document; ends with a line feed."""
    drawing = _Drawing()
    for root in tree(resolution.steps):
        _place(root, 0, drawing)
        drawing.y += 8
    foot = list(_answer(resolution))
    width_text = max(drawing.right, *(_LEFT + 16 + len(line) * _CHAR for line, _ in foot), _LEAST - _FLOW - 120) + 28
    width = width_text + _FLOW + 140
    flows = list(_flows(drawing, width_text))
    bottom = drawing.y + 6
    sheet = len(foot) * 20 + 22
    height = bottom + sheet + 62
    title, told = _title(resolution), _told(resolution)
    out = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="nx" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}" role="graphics-document document" '
            'aria-labelledby="nx-title nx-desc" xml:space="preserve">'
        ),
        f'<title id="nx-title">{_text(title)}</title>',
        f'<desc id="nx-desc">{_text(told)}</desc>',
        f"<style>{STYLE}</style>",
        f'<rect class="back" x=".5" y=".5" width="{width - 1:.0f}" height="{height - 1:.0f}" rx="14"/>',
        f'<text class="title" x="28" y="44">{_text(_clip(title, 70))}</text>',
        *_badges(resolution),
        f'<text class="head" x="{width_text:.1f}" y="{_TOP - 12:.0f}">when</text>',
        *flows, *drawing.rails, *drawing.marks,
        f'<rect class="sheet" x="20" y="{bottom:.1f}" width="{width - 40:.0f}" height="{sheet:.0f}" rx="9"/>',
    ]  # fmt: skip
    for number, (line, style) in enumerate(foot):
        out.append(_spans([(style, line)], _LEFT - 4, bottom + 26 + number * 20))
    out += [*_legend(height - 22), "</svg>", ""]
    return "\n".join(out)


# --- head and foot ---------------------------------------------------------------------------------------------------


def _title(resolution: Resolution) -> str:
    return f"{names.to_text(resolution.name)} {codes.qtype_name(resolution.qtype)}"


def _told(resolution: Resolution) -> str:
    """The picture in a few sentences, for those who cannot see it."""
    verdict = resolution.verdict
    state = f", DNSSEC {verdict.said}" if verdict is not None else ""
    zones = list(dict.fromkeys(names.to_text(step.zone) for step in resolution.asks))
    way = f" Zones on the way: {', '.join(zones[:12])}." if zones else ""
    return f"How {_title(resolution)} was resolved: {resolution.rcode}{state}, {resolution.cost}.{way}"


def _badges(resolution: Resolution) -> Iterator[str]:
    x = 28.0
    message, verdict = resolution.message, resolution.verdict
    badges = [(resolution.rcode, "bad" if message is None else "good" if message.rcode == 0 else "warn")]
    if verdict is not None:
        badges.append((f"DNSSEC {verdict.said}", TONES.get(verdict.said, WARN)))
    for words, tone in badges:
        width = len(words) * _CHAR + 20
        yield f'<rect class="pill {tone}" x="{x:.1f}" y="60" width="{width:.1f}" height="24" rx="12"/>'
        yield f'<text class="strong {tone}" x="{x + 10:.1f}" y="76.5">{_text(words)}</text>'
        x += width + 8
    yield f'<text class="words dim" x="{x + 4:.1f}" y="76.5">{_text(resolution.cost)}</text>'


def _answer(resolution: Resolution) -> Iterator[tuple[str, str]]:
    """Lines with their styles."""
    message = resolution.message
    if message is None:
        yield _clip(resolution.outcome.text or "no answer"), "bad"
    else:
        lines = [line for rrset in message.answer for line in record_lines(rrset)]
        style = "good" if lines else DIM
        lines = lines or [line for rrset in message.authority for line in record_lines(rrset)]
        for line in lines[:16]:
            yield _clip(line), style
        if len(lines) > 16:
            yield f"and {len(lines) - 16} more", DIM
        if not lines:
            yield "an empty answer", DIM
    if resolution.note:
        yield _clip(resolution.note), DIM


def _legend(y: float) -> Iterator[str]:
    x = 28.0
    for tone, words in (
        ("good", "answer"), ("info", "referral"), ("warn", "no such data"), ("bad", "of no use, or bogus"),
    ):  # fmt: skip
        yield f'<circle class="mark {tone}" cx="{x + 4:.1f}" cy="{y - 4:.1f}" r="4"/>'
        yield f'<text class="words dim" x="{x + 14:.1f}" y="{y:.1f}">{words}</text>'
        x += 36 + len(words) * 6.8


# --- the tree --------------------------------------------------------------------------------------------------------


def _place(node: Node, level: int, drawing: _Drawing) -> float:
    """Draw a node and what is below it; the y of its mark."""
    drawing.rows += 1
    x, y = _LEFT + level * _STEP, drawing.y
    line = node.line
    if node.kind == QUESTION:
        line = line[:-2]  # how long it took is in the picture
        takes_ms = node.rtt_ms if node.rtt_ms is not None else -1
        drawing.flows.append((y, drawing.elapsed_ms, node.took_ms, takes_ms, node.tone))
        drawing.elapsed_ms += node.took_ms
    drawing.marks += _mark(node, x, y, line)
    size = sum(len(words) for _, words in line)
    drawing.right = max(drawing.right, x + 14 + (min(size, _LONGEST) + 1) * _CHAR)
    drawing.y += _ROW
    for note in node.notes:
        drawing.marks.append(_spans(note, x + 22, drawing.y - 3))
        size = sum(len(words) for _, words in note)
        drawing.right = max(drawing.right, x + 22 + min(size, _LONGEST) * _CHAR)
        drawing.y += _NOTE
    if node.notes:
        drawing.y += 4
    last = y
    for child in node.below:
        if drawing.rows >= _MOST_ROWS:
            break
        last = _place(child, level + 1, drawing)
        to = x + _STEP - 7
        drawing.rails.append(f'<path class="rail" d="M{x:.1f} {last - 12:.1f}v4q0 8 8 8H{to:.1f}"/>')
    if node.below:
        drawing.rails.append(f'<path class="rail" d="M{x:.1f} {y + 7:.1f}V{last - 11:.1f}"/>')
    return y


def _mark(node: Node, x: float, y: float, line: Line) -> Iterator[str]:
    """The mark of a line and its words; `y` is the middle."""
    if node.kind == ZONE:
        width = len(line[0][1]) * (_CHAR + 0.4) + 18
        yield f'<rect class="zone" x="{x - 6:.1f}" y="{y - 10:.1f}" width="{width:.1f}" height="20" rx="6"/>'
        yield _spans([("on-zone", line[0][1]), ("", "  "), *line[1:]], x + 3, y + 4.5)
    elif node.kind == NAME:
        yield f'<path class="mark" d="M{x:.1f} {y - 6:.1f}l6 6-6 6-6-6z"/>'
        yield _spans(line, x + 14, y + 4.5)
    elif node.kind == QUESTION:
        yield f'<circle class="mark {node.tone}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
        yield _spans(line, x + 14, y + 4.5)
    else:
        yield f'<rect class="mark {node.tone}" x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7" rx="1.5"/>'
        yield _spans(line, x + 14, y + 4.5)


def _flows(drawing: _Drawing, left: float) -> Iterator[str]:
    """One bar a question, from when it was sent to when its answer came: one at a time, so they follow each other."""
    whole = max(drawing.elapsed_ms, 1)
    for y, begins_ms, waits_ms, rtt_ms, tone in drawing.flows:
        yield f'<rect class="lane" x="{left:.1f}" y="{y - 7:.1f}" width="{_FLOW:.0f}" height="14" rx="4"/>'
        x = left + _FLOW * begins_ms / whole
        width = max(3.0, _FLOW * waits_ms / whole)
        x = min(x, left + _FLOW - width)
        yield f'<rect class="mark {tone}" x="{x:.1f}" y="{y - 3:.1f}" width="{width:.1f}" height="6" rx="3"/>'
        words = f"{rtt_ms} ms" if rtt_ms >= 1 else "under 1 ms" if rtt_ms == 0 else f"gave up, {waits_ms} ms"
        yield f'<text class="dim" x="{left + _FLOW + 10:.1f}" y="{y + 4.5:.1f}">{words}</text>'


# --- words -----------------------------------------------------------------------------------------------------------


def _spans(line: Line, x: float, y: float) -> str:
    """One line of text; what is too long is cut, and is whole in its tooltip."""
    whole = "".join(words for _, words in line)
    room = _LONGEST
    parts = []
    for style, words in line:
        shown = words if len(words) <= room else words[: max(0, room - 1)] + "…"
        room -= len(words)
        if style == PLAIN:
            parts.append(_text(shown))
        else:
            parts.append(f'<tspan class="{style}">{_text(shown)}</tspan>')
        if room <= 0:
            break
    tip = f"<title>{_text(whole)}</title>" if len(whole) > _LONGEST else ""
    return f'<text x="{x:.1f}" y="{y:.1f}">{"".join(parts)}{tip}</text>'


def _clip(text: str, length: int = _LONGEST) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _text(text: str) -> str:
    """As XML text: only what may stand in a document, and nothing of it markup."""
    return escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))

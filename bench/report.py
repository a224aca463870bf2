#!/usr/bin/env python3
"""What the measurements mean: one table of costs, one table of targets with met or not met, and a drawing.

    python bench/report.py [FILE.json] [--svg FILE.svg]      the newest of bench/out/ by default

Rule: what is not met, or was not measured, is shown as openly as what is.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import pathlib
import statistics
import sys
from typing import Any

from data import CASES
from servers import ECHO, OURS, ROOT, SERVERS

TITLES = {server.name: server.title for server in SERVERS}
_NO_RESOLVER = (ECHO, OURS)


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One target. `figure` is compared with `limit`; `words` say what both are made of."""

    what: str
    words: str
    figure: float
    limit: float
    target: str

    @property
    def met(self) -> bool:
        return not math.isnan(self.figure) and self.figure <= self.limit

    @property
    def verdict(self) -> str:
        return "not measured" if math.isnan(self.figure) else "met" if self.met else "**not met**"


def _median(values: list[float]) -> float:
    return statistics.median(values) if values else math.nan


def costs(found: dict[str, Any]) -> dict[tuple[str, str], list[float]]:
    """(server, case) → µs of each round."""
    out: dict[tuple[str, str], list[float]] = {}
    for row in found.get("compare", {}).get("costs", ()):
        out.setdefault((row["server"], row["case"]), []).append(row["us"])
    return out


def _latencies(found: dict[str, Any], server: str, case: str, which: str) -> float:
    rows = found.get("compare", {}).get("latencies", ())
    return _median([row[which] for row in rows if (row["server"], row["case"]) == (server, case)])


def rows(found: dict[str, Any]) -> list[Row]:
    """Every target and what became of it."""
    out: list[Row] = []
    all_costs = costs(found)

    def us(server: str, case: str) -> float:
        return _median(all_costs.get((server, case), []))

    def ratio(what: str, target: str, limit: float, mine: float, other: float, beside: str, unit: str = "µs") -> None:
        figure = mine / other if other else math.nan
        out.append(Row(what, f"{mine:.2f} {unit}, {beside} {other:.2f} {unit}", figure, limit, target))

    def best(case: str, without: tuple[str, ...] = ()) -> tuple[float, str]:
        others = [(us(name, case), name) for name in TITLES if name not in (*_NO_RESOLVER, *without)]
        return min((pair for pair in others if not math.isnan(pair[0])), default=(math.nan, "nobody"))

    for case in ("cached", "local", "redirect", "blocked"):
        for full in (case, f"{case}-edns"):
            what = CASES[case].title + (", EDNS" if full != case else "")
            other, name = best(full)
            ratio(what, "≤ 0.75 × the best", 0.75, us(OURS, full), other, TITLES.get(name, name))
            ratio(what, "≤ 1.35 × the bare echo", 1.35, us(OURS, full), us(ECHO, full), "echo")
    ratio("uncached, forwarded", "≤ 1.0 × dnsdist", 1.0, us(OURS, "uncached"), us("dnsdist", "uncached"), "dnsdist")
    ratio("uncached, forwarded", "≤ 0.4 × Unbound", 0.4, us(OURS, "uncached"), us("unbound", "uncached"), "Unbound")
    other, name = best("mixed", ("dnsdist",))
    ratio(CASES["mixed"].title, "≤ 0.7 × the best resolver", 0.7, us(OURS, "mixed"), other, TITLES.get(name, name))
    for case in ("cached", "mixed"):
        for which in ("p50", "p99"):
            ratio(
                f"latency at 5,000 questions a second, {case}, {which}", "≤ 1.0 × Unbound", 1.0,
                _latencies(found, OURS, case, which), _latencies(found, "unbound", case, which), "Unbound",
            )  # fmt: skip
    out += _alone(found.get("ours", {}))
    out += _million(found)
    plain = {
        "below": "blocked", "absent": "uncached", "any": "cached", "large": "cached-edns", "mixedcase": "cached",
        "cookies": "cached-edns",
    }  # fmt: skip
    for case, like in plain.items():
        what = f"adversarial: {CASES[case].title}"
        ratio(what, "≤ 1.5 × the plain question", 1.5, us(OURS, case), us(OURS, like), CASES[like].name)
    return out


def _alone(ours: dict[str, Any]) -> list[Row]:
    out: list[Row] = []

    def us(node: str, case: str) -> float:
        return _median([r["us"] for r in ours.get("flat", ()) if (r["node"], r["case"]) == (node, case)])

    for case, what in (("miss", "names that miss everything"), ("blocked", "blocked"), ("below", CASES["below"].title)):
        words = f"{us('million', case):.2f} µs, with 1,000 names {us('small', case):.2f} µs"
        figure = us("million", case) / us("small", case)
        out.append(Row(f"{what}, under 1 M names", words, figure, 1.15, "≤ 1.15 × at 1,000 names"))
    size = ours.get("large", {})
    label = f"{size.get('names', 0):,} names, 1,000 rules, 300 groups, 10,000 records"
    for case in ("miss", "blocked", "below", "local"):
        words = f"{us('large', case):.2f} µs, small {us('small', case):.2f} µs"
        figure = us("large", case) / us("small", case)
        out.append(Row(f"{label}: {case}", words, figure, 1.15, "≤ 1.15 × small"))
    memory = {entry["node"]: entry for entry in ours.get("memory", ())}
    if memory:
        table = sum(memory["million"]["table_mib"].values())
        out.append(Row("1 M names: the table, once, shared", f"{table:.1f} MiB", table, 48, "≤ 48 MiB"))
        each = max(memory["million"]["workers_mib"])
        out.append(Row("1 M names: a worker without table and cache", f"{each:.1f} MiB PSS", each, 30, "≤ 30 MiB"))
        few = max(memory["small"]["workers_mib"])
        words = f"{each:.1f} MiB, with 1,000 names {few:.1f} MiB"
        out.append(Row("the same, independent of the names", words, each / few, 1.1, "≤ 1.1 × at 1,000 names"))
    swaps = ours.get("swaps", [])
    lost = sum(swap["lost"] for swap in swaps) if swaps else math.nan
    asked, edits = sum(swap["sent"] for swap in swaps), sum(swap["edits"] for swap in swaps)
    out.append(Row("table swaps under load: lost", f"{lost} of {asked:,} over {edits} edits", lost, 0, "0"))
    before = _median([swap["before_p99"] for swap in swaps])
    for key, what in (
        ("swap_p99", "p99 within 50 ms of the swap"),
        ("during_p99", "p99 from save to served (controller on the same core)"),
    ):
        during = _median([swap[key] for swap in swaps])
        words = f"{during:.0f} µs, before {before:.0f} µs"
        out.append(Row(f"table swaps under load: {what}", words, during / before, 2.0, "≤ 2 × before"))
    shares = ours.get("shares", [])
    one, two = _median([s["one_us"] for s in shares]), _median([s["us"] for s in shares])
    out.append(Row("two workers", f"{two:.2f} µs, one worker {one:.2f} µs", two / one, 1.05, "≤ 1.05 × one worker"))
    away = _median([max(abs(share - 1) for share in s["shares"]) for s in shares])
    out.append(Row("two workers: share of each slot, 200 ports", f"off by {away:.0%}", away, 0.2, "± 20 %"))
    return out


def _million(found: dict[str, Any]) -> list[Row]:
    turns = found.get("million", [])
    unbound = _median([turn["unbound_start_s"] for turn in turns])
    out = []
    for key, what in (
        ("list_to_served_s", "1 M names, text to serving in all workers"),
        ("start_from_text_s", "1 M names, from the program's start to serving"),
    ):
        mine = _median([turn["ours"][key] for turn in turns])
        words = f"{mine:.2f} s, Unbound's start {unbound:.2f} s"
        out.append(Row(what, words, mine / unbound, 1.0, "≤ Unbound's start"))
    edit = _median([turn["ours"]["edit_to_served_s"] for turn in turns])
    out.append(Row("a one-line change beside 1 M names", f"{edit:.2f} s from save to served", edit, 0.5, "≤ 0.5 s"))
    return out


# --- text -------------------------------------------------------------------------------------------------------------


def cost_table(found: dict[str, Any]) -> str:
    """Medians as Markdown: a line for each case, a column for each server; the range of the rounds in brackets."""
    all_costs = costs(found)
    names = [name for name in TITLES if any(server == name for server, _ in all_costs)]
    if not names:
        return "The comparison was not part of this run."
    lines = ["| µs of server CPU for each answer | " + " | ".join(TITLES[name] for name in names) + " |"]
    lines.append("|---|" + "---|" * len(names))
    for case in CASES.values():
        cells = []
        for name in names:
            values = all_costs.get((name, case.name), [])
            cells.append(f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else "")
        if any(cells):
            label = case.title if not case.name.endswith("-edns") else f"{CASES[case.name[:-5]].title}, EDNS"
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def other_tables(found: dict[str, Any]) -> str:
    """Latency, and the start with a million names, of everybody."""
    rows_ = found.get("compare", {}).get("latencies", ())
    lines = []
    if rows_:
        lines.append("| latency at 5,000 questions a second, µs | cached p50 | p99 | mixed p50 | p99 | lost |")
        lines.append("|---|" + "---|" * 5)
        for name in dict.fromkeys(row["server"] for row in rows_):
            cells = [f"{_latencies(found, name, case, q):.0f}" for case in ("cached", "mixed") for q in ("p50", "p99")]
            lost = sum(row["lost"] for row in rows_ if row["server"] == name)
            lines.append(f"| {TITLES[name]} | " + " | ".join(cells).replace("nan", "") + f" | {lost} |")
    if found.get("starts"):
        lines += ["", "| 1 M blocked names | serving after, s | memory (PSS of all processes), MiB |", "|---|---|---|"]
        for row in found["starts"]:
            if "error" in row:
                lines.append(f"| {TITLES[row['server']]} | {row['error'].splitlines()[0]} | |")
            else:
                lines.append(f"| {TITLES[row['server']]} | {row['seconds']:.1f} | {row['mib']:.0f} |")
    return "\n".join(lines)


def target_table(found: dict[str, Any]) -> str:
    """The targets as Markdown."""
    lines = ["| measure | here | figure | target | |", "|---|---|---|---|---|"]
    for row in rows(found):
        figure = "" if math.isnan(row.figure) else f"{row.figure:.2f}"
        words = "" if math.isnan(row.figure) else row.words
        lines.append(f"| {row.what} | {words} | {figure} | {row.target} | {row.verdict} |")
    return "\n".join(lines)


def document(found: dict[str, Any]) -> str:
    """RESULTS.md."""
    every = rows(found)
    short = [row for row in every if not row.met]
    setting = "\n".join(f"- {key}: {value}" for key, value in found["setting"].items())
    missing = "\n".join(
        f"- {row.what}: {'not measured' if math.isnan(row.figure) else row.words} ({row.target})" for row in short
    )
    return f"""# Results of one run

How they are made: [README.md](README.md). All figures are from this one run; medians, in brackets the smallest and the
largest round. CPU is user plus system time of all processes of a server, divided by the answers that came back.

![costs beside each other](RESULTS.svg)

## Costs

{cost_table(found)}

{other_tables(found)}

## Targets: {sum(row.met for row in every)} of {len(every)} met

{target_table(found)}

### Not met

{missing or "None."}

## The machine and the command

{setting}
"""


# --- drawing ----------------------------------------------------------------------------------------------------------

_STYLE = """text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.h { font-weight: 600 } .n { font-size: 11px; fill: #59636e }
.bar { fill: #b6bfc9 } .ours { fill: #2f6fdb } .line { stroke: #59636e; stroke-dasharray: 3 3 } rect.page { fill: #fff }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .n { fill: #9198a1 } .bar { fill: #515963 }
.ours { fill: #6ea8fe } rect.page { fill: #0d1117 } }"""


def drawing(found: dict[str, Any]) -> str:
    """An SVG: for each case a bar for each server, ours in colour, the echo as a line."""
    all_costs = costs(found)
    wide, left, right, step = 860, 150, 70, 19
    out: list[str] = []
    y = 66
    for case in CASES.values():
        bars = [
            (statistics.median(values), name)
            for (name, which), values in all_costs.items()
            if which == case.name and name != ECHO
        ]
        if not bars or case.name.endswith("-edns"):
            continue
        echo = _median(all_costs.get((ECHO, case.name), []))
        scale = (wide - left - right) / max(value for value, _ in bars)
        out.append(f'<text class="h" x="20" y="{y}">{_xml(case.title)}</text>')
        top = y + 6
        for value, name in sorted(bars):
            y += step
            kind = "ours" if name == OURS else "bar"
            out.append(f'<text x="{left - 8}" y="{y}" text-anchor="end">{_xml(TITLES[name])}</text>')
            width = max(1.0, value * scale)
            out.append(f'<rect class="{kind}" x="{left}" y="{y - 11}" width="{width:.1f}" height="14" rx="2"/>')
            out.append(f'<text class="n" x="{left + width + 5:.1f}" y="{y}">{value:.1f}</text>')
        if not math.isnan(echo):
            x = left + echo * scale
            out.append(f'<line class="line" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{y + 5}"/>')
        y += 2 * step
    note = f"dashed: a bare recvmmsg and sendmmsg echo; {found['setting']['time']}"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{y}" viewBox="0 0 {wide} {y}" role="img" '
        f'aria-label="Server CPU for each answer">\n<style>{_STYLE}</style>\n'
        f'<rect class="page" width="{wide}" height="{y}"/>\n'
        '<text class="h" x="20" y="26" style="font-size:16px">Server CPU for each answer, µs (less is better)</text>\n'
        f'<text class="n" x="20" y="44">{_xml(note)}</text>'
    )
    return "\n".join([head, *out, "</svg>\n"])


def _xml(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def main() -> int:
    """Print the tables of a finished run, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=pathlib.Path)
    parser.add_argument("--svg", type=pathlib.Path, default=ROOT / "bench/RESULTS.svg")
    options = parser.parse_args()
    files = sorted((ROOT / "bench/out").glob("*.json"))
    path = options.file or (files[-1] if files else None)
    if path is None:
        print("bench: nothing was measured yet: run `just bench` first", file=sys.stderr)
        return 2
    found = json.loads(path.read_text())
    if "setting" not in found or "results" in found:
        print(f"bench: {path} is not of this version of the benchmark: run `just bench` again", file=sys.stderr)
        return 2
    print(cost_table(found), other_tables(found), target_table(found), sep="\n\n")
    options.svg.write_text(drawing(found))
    print(f"\ndrawn: {options.svg}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The verb `trace`: resolve a name from the root with sockets of its own, and show each step.

Of the node its settings are used (root hints, address families, minimisation and the rest), the trust anchors that it
has learned, and its last table: names that are met on the way and are ours, or a forward entry's, are answered as the
node would.
"""

from __future__ import annotations

import argparse
import functools
import ipaddress
import json
import os
import secrets
import sys
import time
from collections.abc import Generator

from dnsd import tracing, tracing_svg
from dnsd.contract import codes, names
from dnsd.contract.facts import FLAG_SPECIAL_USE, Facts, encode, packed
from dnsd.contract.factsview import FactsView
from dnsd.contract.settings import Settings
from dnsd.contract.special import special_names
from dnsd.contract.table import Table, TableError
from dnsd.contract.tableinfo import RouteInfo, TableInfo
from dnsd.resolve.forwarded import Upstream as Over
from dnsd.resolve.forwarder import Ask, Outcome, Reply
from dnsd.resolve.realms import Realms
from dnsd.resolve.resolver import Resolver
from dnsd.resolve.steps import Step
from dnsd.resolve.upstreams import Servers
from dnsd.serve.agent_anchors import updated
from dnsd.serve.loop import Loop
from dnsd.serve.realms import Belongings, Standing
from dnsd.serve.recursion import over_forwarders, resolver
from dnsd.serve.store import last_good
from dnsd.serve.upstream import Upstream

_HELP = """\
Resolve a name from the root down and draw each step: zone cut, server, time, referral, glue, answer, and what
DNSSEC validation says of each zone and of the whole. As text, JSON, or a picture (SVG).

examples:
  nexoraldns trace www.example.com
  nexoraldns trace example.com MX --json
  nexoraldns trace example.com MX --format svg -o example.svg
  nexoraldns trace 192.0.2.7                 (an address: its PTR record)
  nexoraldns trace --config node.yaml www.lab AAAA

exit code: 0 resolved (also to nothing), 1 could not be resolved, 2 could not run
"""
_REFUSED = frozenset(
    (codes.TYPE_ANY, codes.TYPE_AXFR, codes.TYPE_IXFR, codes.TYPE_MAILA, codes.TYPE_MAILB, codes.TYPE_OPT, 0)
)


class InputError(ValueError):
    """The question is not one; the message says what to write instead."""


def question(name: str, qtype: str | None) -> tuple[bytes, int]:
    """The name and type to look for; raises InputError. An address stands for its PTR record."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        address = None
    if address is not None:
        return names.reverse(address), codes.TYPE_PTR if qtype is None else _type(qtype)
    try:
        return names.from_text(name.encode("idna").decode() if not name.isascii() else name), _type(qtype or "A")
    except (names.NameSyntaxError, UnicodeError) as error:
        raise InputError(str(error)) from None


def _type(text: str) -> int:
    try:
        number = codes.qtype_number(text)
    except KeyError:
        raise InputError(f"{text!r} is not a record type; write A, AAAA, MX, TXT … or TYPE65280") from None
    if number in _REFUSED:
        raise InputError(f"{text.upper()} is not a question that can be followed from the root")
    return number


def run(settings: Settings, sname: bytes, qtype: int, trace: list[Step]) -> tuple[Outcome, int]:
    """Resolve with real sockets; the outcome, and how long it took in milliseconds."""
    loop = Loop()
    upstream = Upstream(loop, memoryview(bytearray(8 * codes.COUNTERS)).cast("Q"), _now_ms)
    resolving = resolver(updated(settings), 1)
    resolving.cache.clock(time.time_ns() // 1_000_000_000)
    began_ms = _now_ms()
    walk: Generator[Ask, Reply, Outcome] = resolving.resolve(
        sname, qtype, False, False, began_ms, trace, realms=_realms(settings)
    )
    replies: list[Reply] = []
    try:
        ask = next(walk)
        while True:
            upstream.ask(ask, replies.append)
            while not replies:
                due_ms = upstream.next_ms()
                loop.run_once(0.0 if due_ms is None else max(0, due_ms - _now_ms() + 1) / 1000, lambda: None)
                upstream.expire(_now_ms())
            resolving.cache.clock(time.time_ns() // 1_000_000_000)
            ask = walk.send(replies.pop())
    except StopIteration as stop:
        outcome: Outcome = stop.value
        return outcome, _now_ms() - began_ms
    finally:
        upstream.close()
        loop.close()


def _realms(settings: Settings) -> Realms | None:
    """What the node's last table says of names on the way, to a client on this machine; None without a table."""
    blobs = last_good(os.path.join(settings.state, "tables"))
    if blobs is None:
        return None
    try:
        table = Table(*blobs)
    except TableError:
        return None
    make = over_forwarders(settings, 1)
    known = Servers(secrets.randbelow)

    def over(route: RouteInfo) -> Resolver:
        made = make(Over(route.servers, route.timeout_ms, route.strategy, known, route.dnssec))
        made.cache.clock(time.time_ns() // 1_000_000_000)
        return made

    standing = Standing(table, FactsView(encode(Facts(flags=FLAG_SPECIAL_USE))), TableInfo(table))
    return functools.partial(Belongings(standing, functools.cache(over)).realm, packed("127.0.0.1"))


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nexoraldns trace", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", help="a name, or an address for its PTR record")
    parser.add_argument("type", metavar="TYPE", nargs="?", help="the record type; A when left out")
    parser.add_argument("--json", action="store_true", help="the steps as JSON; the same as --format json")
    parser.add_argument("--format", choices=("text", "json", "svg"), default="text")
    parser.add_argument("-o", "--output", metavar="FILE", help="write there instead of to standard output")
    parser.add_argument("--config", metavar="FILE", help="settings of the node; NEXORALDNS_CONFIG is read otherwise")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the verb; returns the exit code."""
    from dnsd.__main__ import ConfigError, read_settings

    options = _arguments().parse_args(argv)
    try:
        sname, qtype = question(options.name, options.type)
        settings = read_settings(options.config or os.environ.get("NEXORALDNS_CONFIG") or None)
    except (InputError, ConfigError) as error:
        print(f"trace: {error}", file=sys.stderr)
        return 2
    resolution = resolve(settings, sname, qtype)
    shown = "json" if options.json else options.format
    if shown == "json":
        text = json.dumps(tracing.values(resolution), indent=2) + "\n"
    elif shown == "svg":
        text = tracing_svg.svg(resolution)
    else:
        colour = options.output is None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        text = "\n".join(tracing.text(resolution, colour)) + "\n"
    if options.output is not None:
        try:
            with open(options.output, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            print(f"trace: {options.output}: cannot be written: {error.strerror}", file=sys.stderr)
            return 2
    else:
        sys.stdout.write(text)
    return 0 if resolution.outcome.response is not None else 1


def resolve(settings: Settings, sname: bytes, qtype: int) -> tracing.Resolution:
    """Resolve a question with its way written down."""
    trace: list[Step] = []
    outcome, took_ms = run(settings, sname, qtype, trace)
    note = ""
    if settings.resolver.special_use and any(suffix in special_names() for suffix in names.suffixes(sname)):
        note = "This name is special (RFC 6303, RFC 6761): a node answers it at home and never asks the root."
    return tracing.Resolution(sname, qtype, outcome, took_ms, tuple(trace), note)

"""The miniature Internet as data: who serves what, and what is broken in it, each in one sentence. Pure.

A zone's text is what a learner reads and edits. Lines that begin with `;@` are for the lab: how the zone is signed, and
the places of the cases, which `lab break` and `lab fix` write over. `{base}` stands for three octets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

RESOLVER_HOST = 53  # the last octet of our own resolver


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """A name server: the last octet of its address, the program that is preferred for it, and the zones it serves."""

    name: str
    host: int
    program: str
    zones: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """Something to break and to mend. `file`: the zone whose text differs; `ask`: a question that shows it.

    `shows`: what a validating resolver says of the question while it is broken, and when it is mended.
    """

    name: str
    file: str
    ask: tuple[str, str]
    sentence: str
    broken: tuple[str, ...]
    mended: tuple[str, ...]
    shows: tuple[str, str] = ("SERVFAIL", "secure")


SERVERS = (
    Server("root", 1, "nsd", (".",)),
    Server("lab", 2, "knotd", ("lab.",)),
    Server("shop", 3, "knotd", ("shop.",)),
    Server("farm", 4, "nsd", ("farm.lab.", "split.lab.")),
    Server("field", 5, "nsd", ("field.lab.",)),
    Server("clinic", 6, "nsd", (
        "lame.lab.", "dead.lab.", "silent.lab.", "lost.lab.", "ring.lab.", "bogus.lab.", "expired.lab.", "future.lab.",
        "nods.lab.", "wrongds.lab.", "algorithm.lab.", "nosig.lab.", "nodenial.lab.",
    )),
)  # fmt: skip
SILENT, NOBODY = 8, 9  # a socket that never answers; an address where nobody listens


def _delegated(zone: str, host: int) -> tuple[str, ...]:
    return (f"{zone:<9} NS   ns.{zone}", f"{f'ns.{zone}':<9} A    {{base}}.{host}")


CASES = (
    Case("lame", "lab.", ("www.lame.lab", "A"),
         "The delegation leads to a server that does not serve the zone: it is lame, and refuses.",
         _delegated("lame", 4), _delegated("lame", 6)),
    Case("dead", "lab.", ("www.dead.lab", "A"),
         "Nobody listens at the address of the zone's only name server.",
         _delegated("dead", NOBODY), _delegated("dead", 6)),
    Case("silent", "lab.", ("www.silent.lab", "A"),
         "The name server takes every question and never answers: each try costs a timeout.",
         _delegated("silent", SILENT), _delegated("silent", 6)),
    Case("half", "lab.", ("www.split.lab", "A"),
         "One of two name servers is dead: the name resolves, now and then after a moment's wait.",
         ("split     NS   ns1.split", "split     NS   ns2.split",
          f"ns1.split A    {{base}}.{NOBODY}", "ns2.split A    {base}.4"),
         ("split     NS   ns1.split", "split     NS   ns2.split",
          "ns1.split A    {base}.4", "ns2.split A    {base}.4"), ("insecure", "insecure")),
    Case("glue", "lab.", ("www.lost.lab", "A"),
         "The name server's name lies in the zone that it serves, and the parent gives no address: glue is missing.",
         ("lost      NS   ns.lost",), _delegated("lost", 6)),
    Case("loop", "lab.", ("www.ring.lab", "A"),
         "ring.lab is served by a name below ring.shop, which is served by a name below ring.lab: NS in a circle.",
         ("ring      NS   ns.ring.shop.",), _delegated("ring", 6)),
    Case("circle", "farm.lab.", ("a.farm.lab", "A"),
         "Two aliases lead to each other: a CNAME loop.",
         ("a         CNAME b", "b         CNAME a"), ("a         CNAME b", "b         A    192.0.2.7")),
    Case("bogus", "bogus.lab.", ("www.bogus.lab", "A"),
         "The record was changed after it was signed, as a forger would: the signature does not hold.",
         (";@ tamper www A 203.0.113.66",), ()),
    Case("expired", "expired.lab.", ("www.expired.lab", "A"),
         "Nobody signed the zone again in time: every signature has expired.",
         (";@ signatures expired",), ()),
    Case("future", "future.lab.", ("www.future.lab", "A"),
         "The signer's clock runs days ahead: no signature is valid yet.",
         (";@ signatures future",), ()),
    Case("nods", "nods.lab.", ("www.nods.lab", "A"),
         "The zone is signed, but its parent has no DS: no chain of trust leads to it, and it counts as insecure.",
         (";@ ds none",), (), ("insecure", "secure")),
    Case("wrongds", "wrongds.lab.", ("www.wrongds.lab", "A"),
         "The parent's DS names a key that the zone does not have, as after a key rollover done by halves.",
         (";@ ds wrong",), ()),
    Case("algorithm", "algorithm.lab.", ("www.algorithm.lab", "A"),
         "The parent's DS promises RSASHA256 (8); the zone's only key is ECDSAP256SHA256 (13).",
         (";@ ds algorithm 8",), ()),
    Case("nosig", "nosig.lab.", ("www.nosig.lab", "A"),
         "The zone is signed, but this record's signature is missing.",
         (";@ unsign www A",), ()),
    Case("nodenial", "nodenial.lab.", ("nothing.nodenial.lab", "A"),
         "The zone is signed but has no NSEC records: that a name does not exist cannot be proven.",
         (";@ no-denial",), ()),
)  # fmt: skip
BY_NAME: Mapping[str, Case] = {case.name: case for case in CASES}


def servers_of(zone: str) -> Server:
    """The server of a zone; raises KeyError."""
    for server in SERVERS:
        if zone in server.zones:
            return server
    raise KeyError(zone)


def zones() -> tuple[str, ...]:
    """All zones, parents first."""
    return tuple(zone for server in SERVERS for zone in server.zones)


def zone_of(name: str) -> str:
    """The deepest zone that a name (with or without its last dot) is in."""
    labels = [label for label in name.lower().rstrip(".").split(".") if label]
    known = frozenset(zones())
    for first in range(len(labels)):
        if (zone := ".".join(labels[first:]) + ".") in known:
            return zone
    return "."


def case_lines(case: Case, broken: bool) -> list[str]:
    """A case's place in its zone's text."""
    word = "broken" if broken else "mended"
    note = [f"; {case.sentence}"] if broken else []
    return [f";@ case {case.name} {word}", *note, *(case.broken if broken else case.mended), f";@ end {case.name}"]


def source(zone: str) -> str:
    """The text of a zone at the beginning, everything broken that can be."""
    server = servers_of(zone)
    host = "ns.root-servers.lab. host.root-servers.lab." if zone == "." else f"ns.{zone} host.{zone}"
    head = [
        f"; {zone} on {server.name}, {{base}}.{server.host}. Edit and save: the lab signs and serves it at once.",
        f"$ORIGIN {zone}", "$TTL 300", f"@ 3600    SOA  {host} 1 3600 600 86400 60", "",
    ]  # fmt: skip
    text = "\n".join([*head, *_body(zone), ""])
    return text


def _body(zone: str) -> list[str]:
    lines = _BODIES.get(zone)
    if lines is None:  # a patient of the clinic
        number = 20 + SERVERS[-1].zones.index(zone)
        lines = ["@         NS   ns", "ns        A    {base}.6", "", f"www       A    192.0.2.{number}"]
        lines = lines if _signed(zone) else [";@ unsigned", *lines]
    out = list(lines)
    for case in CASES:
        if case.file == zone:
            out += ["", *case_lines(case, True)]
    return out


def _signed(zone: str) -> bool:
    return any(case.file == zone for case in CASES) or zone in ("lame.lab.", "dead.lab.", "silent.lab.", "lost.lab.",
                                                                "ring.lab.")  # fmt: skip


_LARGE = [f'large  60 TXT  "{number:03d}{"x" * 180}"' for number in range(40)]
_CHAIN = [f"c{number:02d}       CNAME c{number + 1:02d}" for number in range(1, 10)] + ["c10       A    192.0.2.10"]
_BODIES: dict[str, list[str]] = {
    ".": [
        "@         NS   ns.root-servers.lab.", "ns.root-servers.lab. A {base}.1", "",
        "; two top-level domains", "lab.      NS   ns.nic.lab.", "ns.nic.lab. A {base}.2",
        "shop.     NS   ns.shops.lab.", "ns.shops.lab. A {base}.3",
    ],
    "lab.": [
        "@         NS   ns.nic", "ns.nic    A    {base}.2", "ns.shops  A    {base}.3", "ns.root-servers A {base}.1", "",
        "www       A    192.0.2.1", "www       AAAA 2001:db8::1", "mail      MX   10 www", "",
        "; a delegation with glue, and one whose name server lies elsewhere",
        "farm      NS   ns.farm", "ns.farm   A    {base}.4", "field     NS   ns.hosting.shop.", "",
        "; patients of the clinic whose delegation is fine",
        *(line for zone in ("bogus", "expired", "future", "nods", "wrongds", "algorithm", "nosig", "nodenial")
          for line in _delegated(zone, 6)),
    ],
    "shop.": [
        "@         NS   ns.shops.lab.", "ns.hosting A   {base}.5", "ring      NS   ns.ring.lab.", "",
        "; aliases into lab, a whole tree renamed, wildcards",
        "door      CNAME www.farm.lab.", "far       CNAME www.field.lab.", "gone      CNAME nothing.farm.lab.",
        "old       DNAME farm.lab.", "*.wild    A    192.0.2.33", "*.wild    TXT  wild", "a.*.odd   A    192.0.2.34",
    ],
    "farm.lab.": [
        "@         NS   ns", "ns        A    {base}.4", "@         MX   10 mail", "mail      A    192.0.2.25",
        "www       A    192.0.2.2", "www       TXT  hello", "x.y.deep  A    192.0.2.3", "dead      CNAME x.dead.lab.",
        "", "; a chain of aliases, and an answer that is too large for UDP", *_CHAIN, *_LARGE,
    ],
    "split.lab.": [";@ unsigned", "@         NS   ns1", "@         NS   ns2", "ns1       A    {base}.4",
                   "ns2       A    {base}.4", "www       A    192.0.2.4"],
    "field.lab.": [";@ unsigned", "@         NS   ns.hosting.shop.", "www       A    192.0.2.5",
                   "www    0  TXT  short"],
}  # fmt: skip

"""The `protect` section: what is looked at in answers from outside. Each protection is off unless written."""

from __future__ import annotations

from controller import members
from controller.documents import MAPPING, SCALAR, Node
from controller.domains import DomainError
from controller.domains import name as domain_name
from controller.gather import Gathered
from controller.members import MemberError
from controller.ruleset import Guard, Network, Protection


def build(g: Gathered) -> Protection:
    """What is switched on; problems are noted in `g`."""
    guards: dict[str, Guard | None] = {}
    for name, (key, node) in g.entries["protect"].items():
        if node.kind == SCALAR and name != "networks":
            guards[name] = Guard(key.where) if node.value is True else None
            continue
        spared: tuple[bytes, ...] = ()
        inside: Node | None = node
        if node.kind == MAPPING:
            spared = _domains(g, node.get("except"))
            inside = node.get("members")
        networks = _networks(g, inside) if name == "networks" and inside is not None else ()
        guards[name] = Guard(key.where, spared, networks)
    return Protection(guards.get("rebinding"), guards.get("cname"), guards.get("networks"))


def _domains(g: Gathered, node: Node | None) -> tuple[bytes, ...]:
    out = []
    for item in node.strings() if node is not None else ():
        try:
            out.append(domain_name(item.text))
        except DomainError as error:
            g.add(error.code, str(error), item.where, error.help)
    return tuple(sorted(out))


def _networks(g: Gathered, node: Node) -> tuple[Network, ...]:
    out = []
    for item in node.strings():
        try:
            found = members.network(item.text)
        except MemberError as error:
            g.add(error.code, str(error), item.where, error.help)
            continue
        if found is None:
            g.add(
                "E012", f"{item.text!r} is not an address or a network", item.where, "write 192.0.2.0/24 or 192.0.2.1"
            )
            continue
        out.append(Network(*found, item.text, item.where))
    return tuple(sorted(out, key=lambda n: (n.version, n.first, n.last)))

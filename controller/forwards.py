"""The `forward` section: who is asked for a name and everything below, for everybody or for members of a group."""

from __future__ import annotations

import dataclasses

from controller import members
from controller.documents import MAPPING, Node
from controller.domains import DomainError
from controller.domains import name as domain_name
from controller.gather import Gathered, text
from controller.members import MemberError
from controller.ruleset import Forward, Server
from dnsd.contract import names

_MAX_TIMEOUT_S = 30.0


def build(g: Gathered) -> dict[bytes, Forward]:
    """Every forward entry by its name; what is wrong is noted and left out."""
    out: dict[bytes, Forward] = {}
    keys: dict[bytes, Node] = {}
    for key, node in g.forwards:
        try:
            name = names.ROOT if key.text == "." else domain_name(key.text)
        except DomainError as error:
            g.add(error.code, error.message, key.where, error.help or 'everything else is written "."')
            continue
        if name in keys:
            g.twice("forward entry", names.to_text(name), key, keys[name])
            continue
        keys[name] = key
        entry = _entry(g, name, key, node)
        groups = node.get("for") if node.kind == MAPPING else None
        if groups is not None and groups.kind == MAPPING:
            known = g.people()
            variants = [
                dataclasses.replace(_entry(g, name, group, value), group=group.text)
                for group, value in groups.pairs.values()
                if g.reference("group or client", group.text, group.where, known)
            ]
            entry = dataclasses.replace(entry, variants=tuple(sorted(variants, key=lambda v: v.group)))
        out[name] = entry
    return out


def _entry(g: Gathered, name: bytes, key: Node, node: Node) -> Forward:
    """One entry, or what takes its place for a group; without what is wrong in it."""
    upstreams = node.get("upstreams") if node.kind == MAPPING else node
    servers: list[Server] = []
    words = upstreams.strings() if upstreams is not None else ()
    recurse, dhcp = ([item.text for item in words] == [word] for word in ("recurse", "dhcp"))
    for item in () if recurse or dhcp else words:
        try:
            server = members.server(item.text)
        except MemberError as error:
            g.add(error.code, error.message, item.where, error.help)
            continue
        if server in servers:
            g.add("W102", f"the server {item.text!r} is listed twice", item.where, "delete one")
        else:
            servers.append(server)
    timeout = node.get("timeout") if node.kind == MAPPING else None
    if recurse and timeout is not None:
        g.add("E012", "a timeout says nothing about `recurse`", timeout.where, "delete it: each server is known")
        timeout = None
    strategy = node.get("strategy") if node.kind == MAPPING else None
    if recurse and strategy is not None and strategy.text != "failover":
        g.add("E012", "a strategy says nothing about `recurse`", strategy.where, "delete it: each server is known")
    dnssec = node.get("dnssec") if node.kind == MAPPING else None
    if recurse and dnssec is not None and dnssec.value is True:
        help = "delete it: the node's settings say it (resolver.dnssec)"
        g.add("E012", "`dnssec` says nothing about `recurse`", dnssec.where, help)
    seconds = g.seconds(timeout) if timeout is not None else None
    if timeout is not None and seconds is not None and not 0.05 <= seconds <= _MAX_TIMEOUT_S:
        g.add("E012", f"a timeout of {timeout.text} is not useful", timeout.where, "write 50ms to 30s")
        seconds = None
    return Forward(
        name,
        key.where,
        tuple(servers),
        text(node, "strategy") or "failover",
        2000 if seconds is None else round(seconds * 1000),
        dnssec=dnssec is not None and dnssec.value is True,
        recurse=recurse,
        dhcp=dhcp,
    )

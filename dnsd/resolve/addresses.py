# cython: wraparound=True, annotation_typing=False
"""Which addresses of a delegation's servers are known without asking anybody: glue, and what their own zones said. Pure."""

from __future__ import annotations

from dnsd.contract import codes, names
from dnsd.resolve.config import Config
from dnsd.resolve.hints import address_text, usable
from dnsd.resolve.rrcache import Delegation, RRCache
from dnsd.resolve.upstreams import Server

PORT = 53
MOST = 8  # addresses of one name and family


def types(config: Config) -> tuple[int, ...]:
    """The address types in use, the one that is preferred first."""
    both = ((codes.TYPE_A, config.use_ipv4), (codes.TYPE_AAAA, config.use_ipv6))
    return tuple([rtype for rtype, used in (both[::-1] if config.prefer == 6 else both) if used])


def preferred(servers: list[Server], config: Config) -> list[Server]:
    """Those of the family that is preferred, if there are any."""
    prefer = config.prefer
    if not prefer:
        return servers
    return [server for server in servers if (":" in server[0]) == (prefer == 6)] or servers


def may_ask(address: str, config: Config) -> bool:
    """Whether a server may live at this address (`hints.usable`)."""
    return usable(address, config.use_ipv4, config.use_ipv6, config.query_localhost)


def known(cut: Delegation, cache: RRCache, config: Config) -> list[tuple[Server, bytes]]:
    """Every address, with the name that it belongs to, in the order in which the parent named the servers."""
    glue = dict(cut.glue)
    out: list[tuple[Server, bytes]] = []
    for name in cut.servers:
        texts = list(glue.get(name, ()))
        for rtype in types(config):
            rrset = cache.get(name, rtype)
            if rrset is not None:
                texts += [address_text(rtype, rdata) for rdata in rrset.rdatas[:MOST]]
        out += [((text, PORT), name) for text in texts if may_ask(text, config)]
    return out


def elsewhere(cut: Delegation, cache: RRCache, config: Config) -> list[tuple[Server, bytes]]:
    """Addresses that delegations of other zones give for this one's servers.

    The servers' own zones know better, but they may err, or not be reached: then their parents' word may help.
    """
    out: list[tuple[Server, bytes]] = []
    for name in cut.servers:
        other = cache.delegation(name)
        while other is not None:
            out += [((text, PORT), name) for text in dict(other.glue).get(name, ()) if may_ask(text, config)]
            other = cache.delegation(names.parent(other.zone)) if other.zone != names.ROOT else None
    return out


def exists(qname: bytes, cache: RRCache) -> bool:
    """Whether it is known that the name exists, so that asking for it hides nothing and shows nothing (RFC 9156)."""
    if cache.get(qname, codes.TYPE_A) is not None:
        return True
    denial = cache.denied(qname, codes.TYPE_A)
    return denial is not None and denial.rcode == codes.RCODE_NOERROR

# cython: wraparound=True
"""One question to one server until it is understood: EDNS, TCP, and the question's case as a secret.

Part of a resolution (`resolver`); pure. It returns what the server said, never what that means for the zone (`scrub`).
"""

from __future__ import annotations

from collections.abc import Generator

from dnsd.contract import codes, names
from dnsd.resolve.budget import Budget
from dnsd.resolve.forwarder import TCP, UDP, Ask, Reply, Tried
from dnsd.resolve.infra import Chance, Infra
from dnsd.resolve.message import FormError
from dnsd.resolve.rrsets import FLAG_TC, Message, parse, question
from dnsd.resolve.upstreams import Server

_TURNS = 6  # UDP, without EDNS, TCP, once more in another case: more than this is a server that plays games
_NOT_UNDERSTOOD = (codes.RCODE_FORMERR, codes.RCODE_NOTIMP, codes.RCODE_BADVERS)


def randomised(name: bytes, chance: Chance) -> bytes:
    """The name in a random case (draft-vixie-dnsext-dns0x20): each letter adds a bit that a forger has to guess."""
    out = bytearray(name)
    at = 0
    bits, left = 0, 0
    while out[at]:
        end = at + 1 + out[at]
        at += 1
        while at < end:
            if 97 <= out[at] <= 122:
                if not left:
                    bits, left = chance(1 << 30), 30
                if bits & 1:
                    out[at] -= 32
                bits >>= 1
                left -= 1
            at += 1
    return bytes(out)


def exchange(
    server: Server,
    qname: bytes,
    qtype: int,
    *,
    edns_size: int,
    do: bool,
    randomise: bool,
    infra: Infra,
    chance: Chance,
    budget: Budget,
    tried: Tried | None = None,
) -> Generator[Ask, Reply, tuple[Message | None, str, str, int]]:
    """Returns (message, word, transport, round-trip time); without a message the word says why. Raises Spent.

    `tried` is this very question, asked already: it takes the place of the first one.
    """
    now_ms = budget.now_ms
    edns = tried is not None or infra.speaks_edns(server, now_ms)
    transport = TCP if tried is None and infra.wants_tcp(server, now_ms) else UDP
    twisted: bytes | None = None  # an answer in another case than asked, not believed yet
    word = "broken"
    rtt_ms = -1
    for _ in range(_TURNS):
        cased = qname
        if tried is not None:
            cased = tried.cased
        elif randomise and (transport == UDP or twisted is not None) and infra.keeps_case(server, budget.now_ms):
            cased = randomised(qname, chance)
        patience_ms = budget.ask(infra.patience_ms(server) * (2 if transport == TCP else 1))
        began_ms = budget.now_ms
        if tried is not None:
            began_ms, reply, tried = tried.began_ms, tried.reply, None
        else:
            wire = question(cased, qtype, edns_size if edns else 0, do)
            reply = yield Ask(server, wire, transport, patience_ms, fresh=True)
        budget.now_ms = max(budget.now_ms, reply.now_ms)
        rtt_ms = budget.now_ms - began_ms
        if reply.wire is None:
            word = reply.error or "timeout"
            if transport == TCP:
                if twisted is not None:
                    # No TCP there: believed when the server says the same again to another port and id.
                    transport = UDP
                    continue
                return None, word, transport, -1
            if word == "timeout":
                infra.silent(server, budget.now_ms)
            else:
                infra.unreachable(server, budget.now_ms)
            return None, word, transport, -1
        infra.answered(server, rtt_ms if transport == UDP else rtt_ms // 2)
        try:
            message = parse(reply.wire)
        except FormError as error:
            return None, f"malformed: {error}", transport, rtt_ms
        if message.question and message.question != cased:
            if transport == UDP:
                if twisted is not None and _alike(twisted, reply.wire):
                    return message, "", transport, rtt_ms
                if twisted is None:
                    transport = TCP  # nobody forges a connection that he cannot hear
                twisted = reply.wire
                continue
            if names.lower(message.question) != qname:
                return None, "an answer to another question", transport, rtt_ms
            infra.is_caseless(server, budget.now_ms)
        if message.rcode in _NOT_UNDERSTOOD and edns:
            edns = False
            continue
        if message.flags & FLAG_TC and transport == UDP:
            transport = TCP
            continue
        if not message.question and message.rcode not in (*_NOT_UNDERSTOOD, codes.RCODE_REFUSED, codes.RCODE_SERVFAIL):
            return None, "an answer without a question", transport, rtt_ms
        if not edns and message.rcode in (codes.RCODE_NOERROR, codes.RCODE_NXDOMAIN):
            infra.is_plain(server, budget.now_ms)
        return message, "", transport, rtt_ms
    return None, word, transport, rtt_ms


def _alike(first: bytes, second: bytes) -> bool:
    """Whether two responses say the same, whatever their ids and the case of their names."""
    return names.lower(first[2:]) == names.lower(second[2:])

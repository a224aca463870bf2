"""Hostile upstreams, made up by chance: messages, and whole behaviours of a name server that means harm.

    python -m tests.resolve.fuzz [--minutes 15] [--seed N]

Invariants. A message parses or raises FormError. A question ends, within its budget, with a response that parses or a
failure that says why. A server of `evil.` makes nothing be remembered of names that are not at or below `evil.`.
Those of signed zones are in `fuzz_signed`. What breaks one is printed with its seed; `--seed` plays it again.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
import time
from collections.abc import Iterator

import dns.message

from dnsd.contract import codes, names
from dnsd.resolve import budget
from dnsd.resolve.forwarder import Ask, Reply
from dnsd.resolve.message import FormError, read, records
from dnsd.resolve.rrcache import Denial
from dnsd.resolve.rrsets import RRset, at_or_below, parse
from tests.resolve import fuzz_signed
from tests.resolve.test_realms import CORP, Rules
from tests.resolve.world import World, Zone, absolute, record

EVIL = names.from_text("evil")
_HOSTILE = "6.6.6.6"
_TRUE = """\
evil. NS ns.evil.
ns.evil. A 6.6.6.6
honest. NS ns.honest.
ns.honest. A 1.0.0.9
www.honest. A 192.0.2.1
a.honest. CNAME www.honest.
mx.honest. MX 10 www.honest.
txt.honest. TXT "true"
"""
_TYPES = [1, 2, 5, 6, 12, 15, 16, 28, 33, 39, 43, 46, 47, 48, 50, 41, 255, 65280]
_QUESTIONS = ["www.evil", "a.b.c.d.evil", "evil", "x.y.evil", "*.evil", "ns.evil", "deep.er.and.deep.er.evil"]


def mutated(wire: bytes, chance: random.Random) -> bytes:
    """The message with some octets changed, cut out, doubled, or made into pointers."""
    out = bytearray(wire)
    for _ in range(chance.choice((0, 1, 1, 2, 4, 16))):
        at = chance.randrange(len(out) or 1)
        kind = chance.randrange(6)
        if kind == 0 and out:
            out[at] = chance.randrange(256)
        elif kind == 1:
            del out[at : at + chance.randrange(1, 12)]
        elif kind == 2:
            out[at:at] = out[at : at + chance.randrange(1, 40)]
        elif kind == 3:
            out[at : at + 2] = struct.pack("!H", 0xC000 | chance.randrange(len(out) + 20) & 0x3FFF)
        elif kind == 4 and len(out) >= 12:
            struct.pack_into("!H", out, 4 + 2 * chance.randrange(4), chance.choice((0, 1, 2, 3, 255, 65535)))
        elif out:
            del out[chance.randrange(len(out)) :]
    return bytes(out)


def _name(qname: bytes, chance: random.Random) -> bytes:
    """A name that somebody who means harm might speak of."""
    pick = chance.randrange(10)
    if pick < 4:
        return qname
    if pick < 6:
        return chance.choice(names.suffixes(qname))
    if pick == 6:
        return b"\x02ns" + qname if len(qname) < 200 else qname
    if pick == 7:
        return names.from_text(chance.choice(["www.honest", "honest", "ns.honest", "none.honest", "a.honest"]))
    if pick == 8:
        return names.from_text(chance.choice([".", "com", "evil", "ns.evil", "loop.evil", "1.0.0.127.in-addr.arpa",
                                              "www.own", "back.own", "no.own", "a.corp", "b.corp"]))  # fmt: skip
    return bytes((63,)) + bytes(chance.randrange(97, 123) for _ in range(63)) + EVIL


def _rdata(rtype: int, qname: bytes, chance: random.Random) -> bytes:
    if chance.randrange(20) == 0:
        return chance.randbytes(chance.randrange(40))
    if rtype in (2, 5, 12, 39):
        return _name(qname, chance)
    if rtype == 1:
        return bytes(chance.choice(((6, 6, 6, 6), (127, 0, 0, 1), (1, 0, 0, 9), (6, 6, 6, chance.randrange(9)))))
    if rtype == 28:
        return chance.randbytes(16)
    if rtype == 6:
        return _name(qname, chance) + _name(qname, chance) + struct.pack("!5I", 1, 1, 1, 1, chance.randrange(1 << 32))
    if rtype == 15:
        return b"\x00\x0a" + _name(qname, chance)
    if rtype == 33:
        return bytes(6) + _name(qname, chance)
    if rtype == 46:
        head = struct.pack("!HBBIIIH", chance.choice(_TYPES), 13, chance.randrange(5), 300, 2**31, 0, 1)
        return head + _name(qname, chance) + chance.randbytes(64)
    if rtype == 47:
        return _name(qname, chance) + b"\x00\x04\x40\x00\x00\x03"
    if rtype == 50:
        return b"\x01\x01\x00\x00\x00\x14" + chance.randbytes(20) + b"\x00\x01\x40"
    return chance.randbytes(chance.randrange(60))


def hostile(ask: Ask, chance: random.Random) -> bytes:
    """A response to the ask (its id and question right, mostly) that says anything."""
    end = ask.wire.index(b"\x00", 12) + 5 if chance.randrange(8) else 12
    qname = names.lower(ask.wire[12 : ask.wire.index(b"\x00", 12) + 1])
    qtype = int.from_bytes(ask.wire[13 + ask.wire.index(b"\x00", 12) - 12 :][:2], "big") or 1
    flags = 0x8000 | chance.choice((0, 0x0400, 0x0400, 0x0480, 0x0080, 0x0600))
    flags |= chance.choice((0, 0, 0, 0, 0, 3, 3, 1, 2, 4, 5, 6, 9, 15))
    counts = [chance.choice((0, 0, 1, 1, 2, 5, 20)) for _ in range(3)]
    body = b""
    for section, count in enumerate(counts):
        for _ in range(count):
            rtype = qtype if section == 0 and chance.randrange(2) else chance.choice(_TYPES)
            if section == 1 and chance.randrange(2):
                rtype = chance.choice((2, 6, 43, 47))
            rdata = _rdata(rtype, qname, chance)[:4000]
            ttl = chance.choice((0, 1, 300, 86400, 2**31 - 1, 2**32 - 1))
            rclass = 1 if chance.randrange(20) else chance.randrange(65536)
            body += _name(qname, chance) + struct.pack("!HHIH", rtype, rclass, ttl, len(rdata)) + rdata
    wire = ask.wire[:2] + struct.pack("!5H", flags, int(end > 12), *counts) + ask.wire[12:end] + body
    return mutated(wire, chance) if chance.randrange(3) == 0 else wire


def _world(seed: int) -> tuple[World, Zone, Zone]:
    world = World(seed, short=seed & 8 == 0)
    world.config |= {"qname_minimisation": bool(seed & 1), "case_randomisation": bool(seed & 2), "harden_glue": True,
                     "priming": bool(seed & 4)}  # fmt: skip
    root, honest = Zone(absolute(".")), Zone(absolute("honest."))
    root.add(record(". NS ns.root."))
    root.add(record("ns.root. A 1.0.0.1"))
    for line in _TRUE.splitlines():
        rrset = record(line)
        if " NS " in line or line.startswith("ns."):
            root.add(rrset)
        if line.split()[0].endswith("honest."):
            honest.add(rrset)
    for zone in (root, honest):
        zone.add(zone.soa())
    world.host("1.0.0.1").zones.append(root)
    world.host("1.0.0.9").zones.append(honest)
    return world, root, honest


def _true(root: Zone, honest: Zone) -> set[tuple[bytes, int]]:
    return {(names.lower(owner.to_wire()), int(rtype)) for zone in (root, honest) for owner, rtype in zone.rrsets}  # type: ignore[arg-type]


def behaviour(seed: int) -> None:
    """One hostile server, a few questions of clients; AssertionError when an invariant breaks."""
    chance = random.Random(seed)
    world, root, honest = _world(seed)
    known = _true(root, honest)
    if seed & 16:  # names of ours, and a forward entry whose server means harm, too
        world.realms = Rules({"www.own": "A 10.0.0.1", "back.own": "CNAME x.evil.", "no.own": ""}, "corp", bool(seed & 32))
    silent, slow = chance.randrange(4) == 0, chance.randrange(4) == 0

    def reply(ask: Ask) -> Reply:
        world.asks.append(ask)
        if not ask.server[0].startswith(("6.6.6.", CORP)):
            world.asks.pop()
            return world.reply(ask)
        if silent and chance.randrange(3) == 0:
            world.wait(ask.timeout_ms / 1000)
            return Reply(None, world.mono_ms, chance.choice(("timeout", "unreachable", "broken")))
        world.wait(chance.randrange(ask.timeout_ms + 1) / 1000 if slow else 0.01)
        return Reply(hostile(ask, chance), world.mono_ms)

    for _ in range(chance.randrange(1, 5)):
        sname = names.from_text(chance.choice(_QUESTIONS))
        qtype = chance.choice(_TYPES)
        began_ms = world.mono_ms
        world.asks.clear()
        world.resolver.cache.clock(world.wall_ms // 1000)
        do = bool(chance.randrange(2))
        outcome = world.look_up(sname, qtype, do, None, reply)
        assert len(world.asks) <= budget.ASKS, f"{len(world.asks)} asks"
        assert world.mono_ms - began_ms <= budget.DEADLINE_MS + 500, f"{world.mono_ms - began_ms} ms"
        if outcome.response is None:
            assert outcome.text, "a failure without a reason"
        else:
            parse(outcome.response)
            read(outcome.response)
        _remembers_no_lie(world, known)
        world.wait(chance.choice((0, 1, 400)))


def _remembers_no_lie(world: World, known: set[tuple[bytes, int]]) -> None:
    cache = world.resolver.cache
    for (name, rtype), entry in cache._entries.items():
        if at_or_below(name, EVIL):
            continue
        value = entry.value
        if isinstance(value, RRset):
            assert (name, rtype) in known, f"remembered {names.to_text(name)} {rtype}"
            spoken = b"".join(value.rdatas)
            assert b"\x06\x06\x06" not in spoken and b"evil" not in spoken, f"{names.to_text(name)} is {spoken!r}"
        else:
            assert isinstance(value, Denial)
            denied = (name, rtype) if rtype else None
            assert denied not in known, f"denied {names.to_text(name)} {rtype}"
            assert rtype or not any(at_or_below(owner, name) for owner, _ in known), f"denied {names.to_text(name)}"
    for zone, cut in cache._delegations.items():
        if not at_or_below(zone, EVIL) and zone != names.ROOT:
            assert cut.servers == (names.from_text("ns.honest"),), f"{names.to_text(zone)} is served by {cut.servers}"
            assert all(addresses == ("1.0.0.9",) for _, addresses in cut.glue)


def _end_of_name(rdata: bytes) -> int:
    at = 0
    while rdata[at]:
        at += 1 + rdata[at]
    return at + 1


def message(seed: int) -> None:
    """One hostile message for every reader; AssertionError when it does anything but be read or refused."""
    chance = random.Random(seed)
    ask = Ask((_HOSTILE, 53), dns.message.make_query("a.b.evil", chance.choice(_TYPES)).to_wire(), "udp", 400)
    wire = mutated(hostile(ask, chance), chance)
    for reader in (parse, read, records):
        try:
            found = reader(wire)
        except FormError as error:
            assert str(error)
            continue
        if reader is parse:
            for rrset in (*found.answer, *found.authority, *found.additional):  # type: ignore[union-attr]
                assert len(rrset.owner) <= names.MAX_NAME and rrset.owner == names.lower(rrset.owner)
                assert rrset.rdatas and 0 <= rrset.ttl < 2**31
                if rrset.rtype in (2, 5, 12, 39):  # a name and nothing else: the walk goes on with it
                    assert all(_end_of_name(rdata) == len(rdata) for rdata in rrset.rdatas)
    codes.rcode_name(wire[3] & 15 if len(wire) > 3 else 0)


def on_the_wire(seed: int) -> None:
    """Somebody between us and the servers of signed zones."""
    fuzz_signed.on_the_wire(seed, mutated)


def seeds(first: int, seconds: float) -> Iterator[int]:
    """Seeds for so long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield first
        first += 1


def run(seconds: float, first: int) -> tuple[int, int]:
    """Play for so long; how many behaviours and messages. AssertionError names the seed."""
    behaviours = messages = 0
    for seed in seeds(first, seconds):
        cheap = [(what, 4 * seed + i) for what in (behaviour, message) for i in range(4)]
        for what, number in (*cheap, (on_the_wire, seed), (fuzz_signed.trap, seed)):
            try:
                what(number)
            except Exception as error:
                raise AssertionError(f"{what.__name__}({number}): {type(error).__name__}: {error}") from error
        behaviours += 6
        messages += 4
    return behaviours, messages


def main() -> int:
    """The command line."""
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("--minutes", type=float, default=1.0)
    words.add_argument("--seed", type=int, default=None)
    given = words.parse_args()
    first = random.SystemRandom().randrange(1 << 40) if given.seed is None else given.seed
    print(f"from seed {first}", flush=True)
    behaviours, messages = run(given.minutes * 60, first)
    print(f"{behaviours} behaviours, {messages} messages: nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What does not stand validation is asked of other servers; and names by which a client learns of our root keys."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from dns.rdatatype import DNSKEY, DS, RRSIG, A

from dnsd.resolve import anchors, sentinel
from dnsd.resolve.forwarder import Outcome
from dnsd.resolve.validator import Validator
from tests.resolve.signed import NOW, Play, Server, World, Zone, name

ROOT, GOOD, BAD = "127.77.5.1", "127.77.5.2", "127.77.5.3"


def _worlds_apart(forged: int, glueless: bool = False) -> Play:
    """A zone at two servers, of which one tells forged records of one type; a resolver that may ask that one first."""
    lab = Zone("lab", f"lab NS bad.lab\nbad.lab A {BAD}\nlab NS good.other\nwww.lab A 192.0.2.1\n")
    other = Zone("other", f"other NS ns.other\nns.other A {GOOD}\ngood.other A {GOOD}\n", signed=False)
    text = f". NS ns\nns A {ROOT}\nlab NS bad.lab\nbad.lab A {BAD}\nlab NS good.other\n{lab.ds()}\n"
    text += f"other NS ns.other\nns.other A {GOOD}\n"
    top = Zone(".", text if glueless else text + f"good.other A {GOOD}\n")
    bad = Server(lab)

    def change(query: dns.message.Message, response: dns.message.Message) -> None:
        for rrset in response.answer:
            if rrset.rdtype == RRSIG and rrset[0].type_covered == forged:
                damaged = [sig.replace(signature=bytes(64)) for sig in rrset]
                rrset.clear()
                for sig in damaged:
                    rrset.add(sig)

    bad.changes.append(change)
    world = World({ROOT: Server(top), BAD: bad, GOOD: Server(lab, other)})
    return Play(world, Validator(anchors.from_texts([top.ds()])))


def _secure(outcome: Outcome) -> bool:
    assert outcome.response is not None, outcome.text
    return bool(dns.message.from_wire(outcome.response).flags & dns.flags.AD)


@pytest.mark.parametrize("forged", [A, DNSKEY], ids=["data", "keys"])
@pytest.mark.parametrize("glueless", [False, True], ids=["known", "looked up"])
def test_a_server_that_is_out_of_step_costs_no_answer(forged: int, glueless: bool) -> None:
    """One of two servers tells records whose signatures do not hold: the other one is asked, also for its address."""
    for _ in range(20):  # dnspython shuffles the delegation's servers
        play = _worlds_apart(forged, glueless)
        assert _secure(play.ask("www.lab"))
        if all(play.world.servers[address].asked for address in (BAD, GOOD)):
            return
    raise AssertionError("the server that is out of step was never asked")


def test_where_there_is_nobody_else_nobody_is_asked_again() -> None:
    """A zone with one server: what is forged is asked for once."""
    lab = Zone("lab", f"lab NS ns.lab\nns.lab A {BAD}\nwww.lab A 192.0.2.1\n")
    lab.rrsets[name("www.lab"), A] = dns.rrset.from_text("www.lab.", 3600, "IN", "A", "203.0.113.9")
    root = Zone(".", f". NS ns\nns A {ROOT}\nlab NS ns.lab\nns.lab A {BAD}\n{lab.ds()}\n")
    servers = {ROOT: Server(root), BAD: Server(lab)}
    play = Play(World(servers), Validator(anchors.from_texts([root.ds()])))
    assert play.ask("www.lab").ede == 6
    assert servers[BAD].asked.count((name("www.lab"), A)) == 1


def test_room_for_unsigned_delegations_is_none_for_wildcards() -> None:
    """An NXDOMAIN of an opted-out zone from which the proof about the wildcard was taken is bogus, not NODATA."""
    hosts = "".join(f"h{i}.lab A 192.0.2.1\n" for i in range(20))
    lab = Zone("lab", f"lab NS ns.lab\nns.lab A {BAD}\n{hosts}", nsec3=(0, "", True))
    root = Zone(".", f". NS ns\nns A {ROOT}\nlab NS ns.lab\nns.lab A {BAD}\n{lab.ds()}\n")
    server = Server(lab)
    play = Play(World({ROOT: Server(root), BAD: server}), Validator(anchors.from_texts([root.ds()])))
    wildcard: list[dns.rrset.RRset] = []
    lab.prove(wildcard, name("*.lab"))

    def needed(text: str) -> set[object]:
        proofs: list[dns.rrset.RRset] = []
        lab.deny(proofs, name(text))
        return {rrset.name for rrset in proofs}

    one, another = [text for i in range(99) if wildcard[0].name not in needed(text := f"none{i}.lab")][:2]
    response = dns.message.from_wire(play.ask(one).response or b"")
    assert response.rcode() == dns.rcode.NXDOMAIN

    def change(query: dns.message.Message, response: dns.message.Message) -> None:
        response.authority[:] = [rrset for rrset in response.authority if rrset.name != wildcard[0].name]

    server.changes.append(change)
    assert play.ask(another).response is None


def test_a_client_learns_which_root_keys_we_trust() -> None:
    """RFC 8509: of the two names one is SERVFAIL, which depends on whether the key is a trust anchor."""
    told = {}
    text = f". NS ns\nns A {ROOT}\n"
    tag = 12345
    root = Zone(".", text + "".join(f"root-key-sentinel-{kind}-ta-{tag:05}.lab A 192.0.2.1\n" for kind in ("is", "not")))
    for known in (root.ds(), ". DS 12345 13 2 " + "00" * 32):
        anchor = anchors.from_texts([root.ds(), known])
        play = Play(World({ROOT: Server(root)}), Validator(anchor))
        play.resolver.cache.clock(NOW)
        told[known] = [
            play.ask(f"root-key-sentinel-{kind}-ta-{tag:05}.lab").response is not None for kind in ("is", "not")
        ]
    assert list(told.values()) == [[False, True], [True, False]]
    assert not sentinel.denies(b"\x03www\x03lab\x00", A, anchor)
    assert not sentinel.denies(b"\x1droot-key-sentinel-is-ta-99999\x03lab\x00", DS, anchor)

"""Validation of whole answers, played without sockets in a world of signed and broken zones; and Unbound's opinion."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import selectors
import subprocess

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from dns.rdatatype import DNSKEY, DS, NSEC, NSEC3, RRSIG, SOA, A

from dnsd.resolve import anchors
from dnsd.resolve.validator import BOGUS, INSECURE, SECURE, Validator
from tests.resolve.signed import DAY, NOW, Play, Server, Signer, World, Zone, name, serving

ROOT, TOP, LEAF = "127.77.0.1", "127.77.0.2", "127.77.0.3"
PAST, FUTURE = (NOW - 3 * DAY, NOW - DAY), (NOW + DAY, NOW + 3 * DAY)
HOST = "www.{0} A 192.0.2.1\nns.{0} A 127.77.0.3\n{0} NS ns.{0}\n"
RICH = HOST + """
alias.{0} CNAME www.{0}
away.{0} CNAME www.plain.test
broken.{0} CNAME www.old.test
*.wild.{0} A 192.0.2.2
x.wild.{0} TXT "nearer"
*.wc.{0} CNAME www.{0}
a.b.ent.{0} A 192.0.2.3
tree.{0} DNAME {0}
sub.{0} NS ns.sub.{0}
ns.sub.{0} A 127.77.0.3
{0} MX 10 WWW.{0}
"""


def _spoiled(apex: str, section: str, *types: int) -> object:
    """Take records of these types out of a section of every response about a zone."""
    end = name(apex)

    def change(query: dns.message.Message, response: dns.message.Message) -> None:
        if query.question[0].name.is_subdomain(end):
            held: list[dns.rrset.RRset] = getattr(response, section)
            held[:] = [r for r in held if r.rdtype not in types and not (r.rdtype == RRSIG and r[0].type_covered in types)]

    return change


def internet() -> World:
    """The root, two top-level zones, and below them one zone for each thing that can be right or wrong."""
    leaves: dict[str, Zone] = {}
    ds: dict[str, list[str]] = {}

    def leaf(apex: str, text: str = HOST, *, delegate: bool = True, digest: str = "SHA256", **kw: object) -> Zone:
        zone = Zone(apex, text.format(apex), **kw)  # type: ignore[arg-type]
        leaves[apex] = zone
        ds[apex] = [zone.ds(digest)] if delegate else []
        return zone

    leaf("under.good.test")
    leaf("sub.good.test", signed=False, delegate=False)
    leaf("sub.nonsec.test", signed=False, delegate=False)
    under = f"under.good.test NS ns.under.good.test\nns.under.good.test A {LEAF}\n{ds['under.good.test'][0]}\n"
    leaf("good.test", RICH + under)
    for apex, nsec3 in (("hash.test", (0, "", False)), ("salt.test", (5, "aabb", False)), ("often.test", (160, "", False))):
        leaf(apex, RICH, nsec3=nsec3)
        leaf(f"sub.{apex}", signed=False, delegate=False)
    leaf("out.test", RICH, nsec3=(0, "", True))
    leaf("sub.out.test", signed=False, delegate=False)
    leaf("plain.test", signed=False, delegate=False)
    leaf("plain.out", signed=False, delegate=False)
    leaf("good.out")
    leaf("pretend.test", signed=False)
    leaf("island.test", delegate=False)
    leaf("old.test", times=PAST)
    leaf("soon.test", times=FUTURE)
    leaf("late.test", times=(NOW - DAY, NOW - 1800))
    leaf("sha1.test", digest="SHA1")
    for algorithm in (5, 7, 8, 10, 14, 15, 16):
        leaf(f"alg{algorithm}.test", algorithm=algorithm)
    leaf("nobit.test", flags=1)
    leaf("wrongkey.test")
    ds["wrongkey.test"] = [leaves["wrongkey.test"].ds(key=Signer.make())]
    leaf("baddigest.test")
    ds["baddigest.test"] = [ds["baddigest.test"][0].replace(" 13 2 ", " 13 99 ")]
    leaf("badalg.test")
    ds["badalg.test"] = [ds["badalg.test"][0].replace(" 13 2 ", " 253 2 ")]
    mixed = leaf("mixed.test")  # the DS with SHA-1 is right, the one with SHA-256 is not
    wrong = mixed.ds().rpartition(" ")[0] + " " + "00" * 32
    ds["mixed.test"] = [mixed.ds("SHA1"), wrong]
    either = leaf("either.test")  # of two DS one is of a key that is not there
    ds["either.test"] = [either.ds(), either.ds(key=Signer.make())]

    zone = leaf("nosig.test")
    del zone.sigs[name("www.nosig.test"), A]
    zone = leaf("forged.test")
    zone.rrsets[name("www.forged.test"), A] = dns.rrset.from_text("www.forged.test.", 3600, "IN", "A", "203.0.113.9")
    zone = leaf("stranger.test")
    zone.resign(name("www.stranger.test"), A, by=Signer.make())
    zone = leaf("oldhost.test")
    zone.resign(name("www.oldhost.test"), A, times=PAST)
    zone = leaf("oldkeys.test")
    zone.resign(name("oldkeys.test"), DNSKEY, times=PAST)
    zone = leaf("backwards.test")
    zone.resign(name("www.backwards.test"), A, times=(NOW + DAY, NOW - DAY))
    zone = leaf("oldsoa.test")
    zone.resign(name("oldsoa.test"), SOA, times=PAST)
    zone = leaf("nokeys.test")
    del zone.rrsets[name("nokeys.test"), DNSKEY]

    top_text = ""
    out_text = ""
    for apex in leaves:
        if apex.count(".") > 1:
            continue
        lines = "\n".join((f"{apex} NS ns.{apex}", f"ns.{apex} A {LEAF}", *ds[apex])) + "\n"
        if apex.endswith(".out"):
            out_text += lines
        else:
            top_text += lines
    for apex in ("nonsec.test", "nonsec3.test", "wildless.test", "stripped.test"):
        made = leaf(apex, RICH, nsec3=(0, "", False) if apex == "nonsec3.test" else None)
        top_text += f"{apex} NS ns.{apex}\nns.{apex} A {LEAF}\n{made.ds()}\n"
    top = Zone("test", f"test NS ns.test\nns.test A {TOP}\n" + top_text)
    out = Zone("out", f"out NS ns.out\nns.out A {TOP}\n" + out_text, nsec3=(0, "", True))
    root_text = f". NS ns\nns A {ROOT}\ntest NS ns.test\nns.test A {TOP}\n{top.ds()}\nout NS ns.out\nns.out A {TOP}\n{out.ds()}"
    root = Zone(".", root_text)
    servers = {ROOT: Server(root), TOP: Server(top, out), LEAF: Server(*leaves.values())}
    servers[LEAF].changes = [
        _spoiled("nonsec.test", "authority", NSEC), _spoiled("nonsec3.test", "authority", NSEC3),
        _spoiled("wildless.test", "authority", NSEC),
    ]  # type: ignore[list-item] # fmt: skip
    servers[TOP].changes = [_spoiled("stripped.test", "authority", DS), _spoiled("stripped.test", "answer", DS)]  # type: ignore[list-item]
    return World(servers)


@functools.cache
def shared() -> World:
    """One internet for all tests that do not change it."""
    return internet()


def trust(world: World, *negative: str) -> anchors.Anchors:
    """The anchors of a world: its root's DS."""
    return anchors.from_texts([world.servers[world.root].zones[0].ds()], negative)


@functools.cache
def player() -> Play:
    """Our resolver, with what it has learned in earlier tests."""
    return Play(shared(), Validator(trust(shared())))


@dataclasses.dataclass(frozen=True)
class Case:
    """A question, what it is worth, and the EDE; `unbound` where its verdict differs on purpose."""

    name: str
    type: str
    state: str
    ede: int = -1
    rcode: str = "NOERROR"
    unbound: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.type} {self.state}"


def _rich(apex: str, state: str = SECURE, nodata: str = "", ede: int = -1) -> list[Case]:
    """The questions that one well-made zone answers in every way; `nodata`: what its proofs are worth."""
    less = nodata or state
    return [
        Case(f"www.{apex}", "A", state),
        Case(f"alias.{apex}", "A", state),
        Case(apex, "MX", state),
        Case(f"away.{apex}", "A", INSECURE),
        Case(f"broken.{apex}", "A", BOGUS, 7),
        Case(f"foo.wild.{apex}", "A", less, ede),
        Case(f"bar.foo.wild.{apex}", "A", less, ede),
        Case(f"foo.wc.{apex}", "A", less, ede),
        Case(f"foo.wild.{apex}", "MX", less, ede),
        Case(f"x.wild.{apex}", "A", state, ede),
        Case(f"www.{apex}", "TXT", state, ede),
        Case(f"b.ent.{apex}", "A", state, ede),
        Case(f"none.{apex}", "A", less, ede, "NXDOMAIN"),
        Case(f"a.b.c.none.{apex}", "A", less, ede, "NXDOMAIN"),
        Case(f"www.tree.{apex}", "A", state),
        Case(f"www.sub.{apex}", "A", INSECURE),
        Case(f"none.sub.{apex}", "A", INSECURE, rcode="NXDOMAIN"),
        Case(f"sub.{apex}", "DS", less, ede),
        Case(apex, "DNSKEY", state),
        Case(apex, "NSEC3PARAM", state, ede),
    ]


CASES = [
    *_rich("good.test"),
    *_rich("hash.test"),
    *_rich("salt.test"),
    *_rich("out.test", nodata=INSECURE),
    Case("www.often.test", "A", SECURE),
    Case("none.often.test", "A", INSECURE, 27, "NXDOMAIN"),
    Case("foo.wild.often.test", "A", INSECURE, 27),
    Case("www.often.test", "TXT", INSECURE, 27),
    Case("www.sub.often.test", "A", INSECURE, 27),
    Case("www.under.good.test", "A", SECURE),
    Case("none.under.good.test", "A", SECURE, rcode="NXDOMAIN"),
    Case("under.good.test", "DS", SECURE),
    Case("www.plain.test", "A", INSECURE),
    Case("none.plain.test", "A", INSECURE, rcode="NXDOMAIN"),
    Case("plain.test", "DS", SECURE),
    Case("www.plain.out", "A", INSECURE),
    Case("www.good.out", "A", SECURE),
    Case("none.out", "A", INSECURE, rcode="NXDOMAIN"),
    Case("none.test", "A", SECURE, rcode="NXDOMAIN"),
    Case("none", "A", SECURE, rcode="NXDOMAIN"),
    Case("www.pretend.test", "A", BOGUS, 9),
    Case("www.island.test", "A", INSECURE),
    Case("www.old.test", "A", BOGUS, 7),
    Case("none.old.test", "A", BOGUS, 7),
    Case("www.soon.test", "A", BOGUS, 8),
    Case("www.late.test", "A", SECURE),
    Case("www.sha1.test", "A", SECURE),
    Case("www.alg5.test", "A", SECURE),
    Case("www.alg7.test", "A", SECURE),
    Case("www.alg8.test", "A", SECURE),
    Case("www.alg10.test", "A", SECURE),
    Case("www.alg14.test", "A", SECURE),
    Case("www.alg15.test", "A", SECURE),
    Case("www.alg16.test", "A", SECURE),
    Case("www.nobit.test", "A", BOGUS, 11),
    Case("www.wrongkey.test", "A", BOGUS, 9),
    Case("www.baddigest.test", "A", INSECURE, 2),
    Case("www.badalg.test", "A", INSECURE, 1),
    # RFC 4509, section 3: SHA-1 is ignored beside SHA-256; Unbound does so only with harden-algo-downgrade.
    Case("www.mixed.test", "A", BOGUS, 9, unbound=SECURE),
    Case("www.either.test", "A", SECURE),
    Case("www.nosig.test", "A", BOGUS, 10),
    Case("www.forged.test", "A", BOGUS, 6),
    Case("www.stranger.test", "A", BOGUS, 9),
    Case("www.oldhost.test", "A", BOGUS, 7),
    Case("none.oldhost.test", "A", SECURE, rcode="NXDOMAIN"),
    Case("www.oldkeys.test", "A", BOGUS, 7),
    Case("www.backwards.test", "A", BOGUS, 25),
    Case("none.oldsoa.test", "A", BOGUS, 7),
    Case("www.nokeys.test", "A", BOGUS, 9),
    Case("www.nonsec.test", "A", SECURE),
    Case("none.nonsec.test", "A", BOGUS, 12),
    Case("www.nonsec.test", "TXT", BOGUS, 12),
    Case("www.sub.nonsec.test", "A", BOGUS, 12),
    Case("none.nonsec3.test", "A", BOGUS, 12),
    Case("www.nonsec3.test", "TXT", BOGUS, 12),
    Case("foo.wild.nonsec3.test", "A", BOGUS, 12),
    Case("foo.wild.wildless.test", "A", BOGUS, 12),
    Case("www.stripped.test", "A", BOGUS, 12),
]


def _state(response: dns.message.Message) -> str:
    if response.rcode() == dns.rcode.SERVFAIL:
        return BOGUS
    return SECURE if response.flags & dns.flags.AD else INSECURE


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_answer_is_worth_what_its_proofs_are(case: Case) -> None:
    """State, EDE and rcode of an answer from a zone that is right, or wrong in one way; the same again from the cache."""
    play = player()
    for _ in range(2):
        outcome = play.ask(case.name, case.type)
        if case.state == BOGUS:
            assert outcome.response is None
            assert outcome.ede in (case.ede, 13), outcome.text
            continue
        assert outcome.response is not None, outcome.text
        response = dns.message.from_wire(outcome.response)
        assert (_state(response), outcome.ede, dns.rcode.to_text(response.rcode())) == (case.state, case.ede, case.rcode), (
            outcome.text
        )


# --- another validator's opinion -----------------------------------------------------------------------------------

PORT = 5391
UNBOUND = """
server:
  interface: 127.77.0.9@{port}
  do-ip6: no
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: ""
  use-syslog: no
  verbosity: 0
  num-threads: 1
  module-config: "validator iterator"
  root-hints: "{folder}/hints"
  trust-anchor-file: "{folder}/anchor"
  val-override-date: "{now}"
  do-not-query-localhost: no
  qname-minimisation: no
  local-zone: "test." nodefault
  trust-anchor-signaling: no
  root-key-sentinel: no
  aggressive-nsec: no
  max-udp-size: 4096
remote-control:
  control-enable: no
"""


@pytest.fixture(scope="module")
def unbound(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Unbound, resolving in our world."""
    folder: pathlib.Path = tmp_path_factory.mktemp("unbound")
    world = shared()
    (folder / "hints").write_text(f". 3600 NS ns.\nns. 3600 A {ROOT}\n")
    (folder / "anchor").write_text(world.servers[ROOT].zones[0].ds() + "\n")
    (folder / "unbound.conf").write_text(UNBOUND.format(port=PORT, folder=folder, now=NOW))
    with serving(world):
        with subprocess.Popen(["unbound", "-d", "-c", str(folder / "unbound.conf")], stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            try:
                query = dns.message.make_query("ns.test", "A")
                for _ in range(50):
                    try:
                        dns.query.udp(query, "127.77.0.9", 0.2, PORT)
                        break
                    except (dns.exception.Timeout, OSError):
                        selectors.DefaultSelector().select(0.05)
                else:
                    process.kill()
                    pytest.fail(f"Unbound does not start: {process.stderr.read().decode()}")
                yield
            finally:
                process.terminate()


@pytest.mark.usefixtures("unbound")
def test_unbound_comes_to_the_same_verdicts() -> None:
    """Every case of the table, asked of Unbound in the same world: same rcode, same AD, or the difference is explained."""
    different = []
    for case in CASES:
        query = dns.message.make_query(case.name, case.type, want_dnssec=True, use_edns=True, payload=4096)
        response = dns.query.udp(query, "127.77.0.9", 5, PORT)
        state = case.unbound or case.state
        expected = ("SERVFAIL" if state == BOGUS else case.rcode, state)
        if (dns.rcode.to_text(response.rcode()), _state(response)) != expected:
            different.append((case.name, case.type, expected, dns.rcode.to_text(response.rcode()), _state(response)))
    assert not different

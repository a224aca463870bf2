"""A signed world of name servers: zones signed in process, answered with proofs, and broken on purpose.

The same servers answer our resolver without sockets (`Play`) and others over sockets (`serving`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import dns.dnssec
import dns.dnssectypes
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from dns.rdatatype import CNAME, DNAME, DNSKEY, DS, NS, NSEC, NSEC3, RRSIG, SOA

from dnsd.contract import names
from dnsd.resolve.config import Config
from dnsd.resolve.forwarder import Outcome, Reply, matches
from dnsd.resolve.hints import from_pairs
from dnsd.resolve.realms import Realms
from dnsd.resolve.resolver import Resolver
from dnsd.resolve.steps import Step
from dnsd.resolve.validator import Validator

NOW = 1_790_000_000  # when everything here happens
DAY = 86400

Name = dns.name.Name
Key = tuple[Name, int]
Change = Callable[[dns.message.Message, dns.message.Message], None]

_MAKERS: dict[int, Callable[[], object]] = {
    1: lambda: rsa.generate_private_key(65537, 1024), 3: lambda: dsa.generate_private_key(1024),
    5: lambda: rsa.generate_private_key(65537, 1024), 7: lambda: rsa.generate_private_key(65537, 1024),
    8: lambda: rsa.generate_private_key(65537, 1024), 10: lambda: rsa.generate_private_key(65537, 1024),
    13: lambda: ec.generate_private_key(ec.SECP256R1()), 14: lambda: ec.generate_private_key(ec.SECP384R1()),
    15: ed25519.Ed25519PrivateKey.generate, 16: ed448.Ed448PrivateKey.generate,
}  # fmt: skip
# dnspython signs with nothing that RFC 9904 forbids unless told so.
POLICY = dns.dnssec.allow_all_policy


def name(text: str) -> Name:
    """An absolute name, the last dot optional."""
    return dns.name.from_text(text)


def record(owner: Name, ttl: int, rtype: str, data: str) -> dns.rrset.RRset:
    """An RRset of one record; names in it are absolute, the last dot optional."""
    rdata = dns.rdata.from_text(dns.rdataclass.IN, rtype, data, origin=dns.name.root, relativize=False)
    return dns.rrset.from_rdata(owner, ttl, rdata)


@dataclasses.dataclass
class Signer:
    """A key pair of a zone."""

    private: object
    dnskey: dns.rdata.Rdata

    @classmethod
    def make(cls, algorithm: int = 13, flags: int = 257) -> Signer:
        private = _MAKERS[algorithm]()
        return cls(private, dns.dnssec.make_dnskey(private.public_key(), algorithm, flags))  # type: ignore[attr-defined]


class Zone:
    """A zone, signed as it is made. `nsec3`: (iterations, salt in hex, opt-out) instead of NSEC."""

    def __init__(
        self, apex: str, text: str, *, algorithm: int = 13, signed: bool = True,
        nsec3: tuple[int, str, bool] | None = None, times: tuple[int, int] = (NOW - DAY, NOW + DAY), flags: int = 257,
    ) -> None:  # fmt: skip
        self.apex = name(apex)
        self.nsec3 = nsec3
        self.times = times
        self.signed = signed
        self.key = Signer.make(algorithm, flags)
        self.rrsets: dict[Key, dns.rrset.RRset] = {}
        self.sigs: dict[Key, dns.rrset.RRset] = {}
        self.hashes: dict[bytes, Name] = {}
        soa = f"{self.apex} 900 SOA ns.{apex.strip('.')}. host.test. 1 3600 600 86400 300".replace("ns..", "ns.")
        for line in (soa, *filter(None, map(str.strip, text.splitlines()))):
            self.add(line)
        if signed:
            self.sign()

    def add(self, line: str) -> None:
        owner, rest = line.split(None, 1)
        ttl = 3600
        if rest.split()[0].isdigit():
            ttl, rest = int(rest.split(None, 1)[0]), rest.split(None, 1)[1]
        rtype, data = rest.split(None, 1)
        new = record(name(owner), ttl, rtype, data)
        held = self.rrsets.setdefault((new.name, new.rdtype), new)
        held.update(new)

    # --- signing ---------------------------------------------------------------------------------------------------

    def cut(self, qname: Name, at_too: bool = True) -> Name | None:
        """The delegation at or above a name."""
        for depth in range(len(self.apex) + 1, len(qname) + (1 if at_too else 0)):
            owner = Name(qname[-depth:])
            if (owner, NS) in self.rrsets:
                return owner
        return None

    def owners(self) -> list[Name]:
        """Names with data of this zone (delegations too), in canonical order."""
        return sorted({owner for owner, _ in self.rrsets if self.cut(owner) in (None, owner)})

    def sign(self) -> None:
        self.rrsets[self.apex, DNSKEY] = dns.rrset.from_rdata(self.apex, 3600, self.key.dnskey)
        if self.nsec3 is None:
            self._chain_nsec()
        else:
            self._chain_nsec3(*self.nsec3)
        for owner, rtype in list(self.rrsets):
            below = self.cut(owner)
            if below is None or (below == owner and rtype in (DS, NSEC)):
                self.resign(owner, rtype)

    def resign(self, owner: Name, rtype: int, times: tuple[int, int] | None = None, by: Signer | None = None) -> None:
        inception, expiration = times or self.times
        by = by or self.key
        sig = dns.dnssec.sign(
            self.rrsets[owner, rtype], by.private, self.apex, by.dnskey, inception, expiration, policy=POLICY
        )  # type: ignore[arg-type]
        self.sigs[owner, rtype] = dns.rrset.from_rdata(owner, self.rrsets[owner, rtype].ttl, sig)

    def _types(self, owner: Name, proof: int) -> list[int]:
        types = {rtype for held, rtype in self.rrsets if held == owner}
        if self.cut(owner) == owner:
            types &= {NS, DS}
        if types and (types != {NS} or proof == NSEC):
            types.add(RRSIG)
        return sorted(types | ({NSEC} if proof == NSEC else set()))

    def _chain_nsec(self) -> None:
        owners = self.owners()
        for at, owner in enumerate(owners):
            types = " ".join(dns.rdatatype.to_text(t) for t in self._types(owner, NSEC))
            self.rrsets[owner, NSEC] = record(owner, 300, "NSEC", f"{owners[(at + 1) % len(owners)]} {types}")

    def _chain_nsec3(self, iterations: int, salt: str, opt_out: bool) -> None:
        owners = set()
        for owner in self.owners():
            if opt_out and self.cut(owner) == owner and (owner, DS) not in self.rrsets:
                continue
            while owner != self.apex:  # empty non-terminals too
                owners.add(owner)
                owner = owner.parent()
        owners.add(self.apex)
        texts = {dns.dnssec.nsec3_hash(owner, salt, iterations, 1): owner for owner in owners}
        hashes = sorted(texts)
        for at, text in enumerate(hashes):
            types = " ".join(dns.rdatatype.to_text(t) for t in self._types(texts[text], NSEC3))
            owner = dns.name.from_text(text.lower(), self.apex)
            data = f"1 {int(opt_out)} {iterations} {salt or '-'} {hashes[(at + 1) % len(hashes)]} {types}"
            self.rrsets[owner, NSEC3] = record(owner, 300, "NSEC3", data)
            self.hashes[text.encode()] = owner

    def ds(self, digest: str = "SHA256", key: Signer | None = None) -> str:
        """The zone's DS in presentation form, with its owner."""
        made = dns.dnssec.make_ds(self.apex, (key or self.key).dnskey, digest, policy=POLICY)  # type: ignore[arg-type]
        return f"{self.apex} DS {made}"

    # --- answering -------------------------------------------------------------------------------------------------

    def put(self, section: list[dns.rrset.RRset], owner: Name, rtype: int, as_name: Name | None = None) -> None:
        rrset = self.rrsets.get((owner, rtype))
        if rrset is None:
            return
        for found in (rrset, self.sigs.get((owner, rtype))):
            if found is not None:
                copy = dns.rrset.from_rdata_list(as_name or owner, found.ttl, list(found))
                if copy not in section:
                    section.append(copy)

    def exists(self, qname: Name) -> bool:
        return any(owner.is_subdomain(qname) for owner, rtype in self.rrsets if rtype != NSEC3)

    def encloser(self, qname: Name) -> tuple[Name, Name]:
        """The closest encloser and the next closer name."""
        nearer = qname
        while not self.exists(nearer.parent()):
            nearer = nearer.parent()
        return nearer.parent(), nearer

    def prove(self, section: list[dns.rrset.RRset], qname: Name) -> None:
        """The NSEC or NSEC3 that matches or covers a name."""
        if not self.signed:
            return
        if self.nsec3 is None:
            before = [owner for owner in self.owners() if owner <= qname]
            self.put(section, before[-1] if before else self.owners()[-1], NSEC)
            return
        wanted = dns.dnssec.nsec3_hash(qname, self.nsec3[1], self.nsec3[0], 1).encode()
        at_or_before = [text for text in sorted(self.hashes) if text <= wanted]
        self.put(section, self.hashes[at_or_before[-1] if at_or_before else max(self.hashes)], NSEC3)

    def deny(self, section: list[dns.rrset.RRset], qname: Name) -> None:
        """That a name does not exist, as far as wildcards do not matter."""
        if self.nsec3 is None:
            self.prove(section, qname)
        else:
            encloser, nearer = self.encloser(qname)
            self.prove(section, encloser)
            self.prove(section, nearer)

    def fill(self, response: dns.message.Message, qname: Name, qtype: int) -> None:
        cut = self.cut(qname, at_too=qtype != DS)
        if cut is not None:
            response.flags &= ~dns.flags.AA
            response.authority.append(self.rrsets[cut, NS])
            self.put(response.authority, cut, DS)
            if (cut, DS) not in self.rrsets and self.signed:
                if self.nsec3 is None or not self.nsec3[2]:
                    self.prove(response.authority, cut)
                else:  # opted out
                    encloser = cut.parent()
                    self.prove(response.authority, encloser)
                    self.prove(response.authority, cut)
            for ns in self.rrsets[cut, NS]:
                if (ns.target, dns.rdatatype.A) in self.rrsets:
                    response.additional.append(self.rrsets[ns.target, dns.rdatatype.A])
            return
        if self.exists(qname):
            found = qtype if (qname, qtype) in self.rrsets else CNAME
            if (qname, found) in self.rrsets:
                self.put(response.answer, qname, found)
                return
            self.put(response.authority, self.apex, SOA)
            if self.nsec3 is not None and self.nsec3[2] and self.cut(qname) == qname and (qname, DS) not in self.rrsets:
                self.deny(response.authority, qname)
            else:
                self.prove(response.authority, qname)
            return
        encloser, nearer = self.encloser(qname)
        if (encloser, DNAME) in self.rrsets:
            self.put(response.answer, encloser, DNAME)
            target = Name(qname[: -len(encloser)] + self.rrsets[encloser, DNAME][0].target.labels)
            response.answer.append(dns.rrset.from_text(qname, 3600, "IN", "CNAME", target.to_text()))
            return
        wildcard = Name((b"*", *encloser.labels))
        if self.exists(wildcard):
            found = qtype if (wildcard, qtype) in self.rrsets else CNAME
            if (wildcard, found) in self.rrsets:
                self.put(response.answer, wildcard, found, qname)
                self.prove(response.authority, nearer if self.nsec3 is not None else qname)
                return
            self.put(response.authority, self.apex, SOA)
            self.deny(response.authority, qname)
            self.prove(response.authority, wildcard)
            return
        response.set_rcode(dns.rcode.NXDOMAIN)
        self.put(response.authority, self.apex, SOA)
        self.deny(response.authority, qname)
        self.prove(response.authority, wildcard)


class Server:
    """An address with its zones; `changes` spoil its responses."""

    def __init__(self, *zones: Zone) -> None:
        self.zones = list(zones)
        self.changes: list[Change] = []
        self.asked: list[tuple[Name, int]] = []

    def zone(self, qname: Name, qtype: int) -> Zone | None:
        held = [zone for zone in self.zones if qname.is_subdomain(zone.apex)]
        if qtype == DS:
            held = [zone for zone in held if zone.apex != qname] or held
        return max(held, key=lambda zone: len(zone.apex), default=None)

    def respond(self, wire: bytes) -> bytes:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        qname, qtype = Name(tuple(label.lower() for label in question.name.labels)), question.rdtype
        self.asked.append((qname, qtype))
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        zone = self.zone(qname, qtype)
        if zone is None:
            response.set_rcode(dns.rcode.REFUSED)
        else:
            zone.fill(response, qname, qtype)
            for change in self.changes:
                change(query, response)
        if not query.ednsflags & dns.flags.DO:
            for section in (response.answer, response.authority):
                section[:] = [r for r in section if r.rdtype == qtype or r.rdtype not in (RRSIG, NSEC, NSEC3, DS)]
        return response.to_wire(max_size=65535)


class World:
    """Servers by address; the first is the root's."""

    def __init__(self, servers: dict[str, Server]) -> None:
        self.servers = servers

    @property
    def root(self) -> str:
        return next(iter(self.servers))


class Play:
    """Our resolver in a world without sockets."""

    def __init__(self, world: World, validator: Validator | None, minimised: bool = False) -> None:
        self.world = world
        config = Config(
            qname_minimisation=minimised, case_randomisation=False, priming=False, query_localhost=True, use_ipv6=False
        )
        hints = from_pairs([("ns.", (world.root,))])
        self.resolver = Resolver(config, hints, lambda n: 0, validator=validator)
        self.resolver.cache.clock(NOW)
        self.now_ms = 1000
        self.asks = 0
        self.realms: Realms | None = None

    def ask(self, text: str, rtype: str = "A", do: bool = True, cd: bool = False) -> Outcome:
        self.steps: list[Step] = []
        qtype = int(dns.rdatatype.from_text(rtype))
        run = self.resolver.resolve(names.from_text(text), qtype, do, cd, self.now_ms, self.steps, realms=self.realms)
        reply: Reply | None = None
        try:
            while True:
                ask = next(run) if reply is None else run.send(reply)
                self.asks += 1
                self.now_ms += 5
                server = self.world.servers.get(ask.server[0])
                wire = server.respond(ask.wire) if server is not None else None
                assert wire is None or matches(ask.wire, wire)
                reply = Reply(wire, self.now_ms, "" if wire is not None else "unreachable")
        except StopIteration as stop:
            outcome: Outcome = stop.value
            return outcome


@contextlib.contextmanager
def serving(world: World, port: int = 53) -> Iterator[None]:
    """The world's servers on UDP and TCP sockets of their addresses (loopback), in a thread."""
    selector = selectors.DefaultSelector()
    stop, stopped = socket.socketpair()
    selector.register(stopped, selectors.EVENT_READ, None)
    sockets: list[socket.socket] = []
    for address, server in world.servers.items():
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            sock = socket.socket(socket.AF_INET, kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
            if kind == socket.SOCK_STREAM:
                sock.listen(16)
            sockets.append(sock)
            selector.register(sock, selectors.EVENT_READ, server)

    def run() -> None:
        while True:
            for ready, _ in selector.select():
                sock = ready.fileobj
                assert isinstance(sock, socket.socket)
                if sock is stopped:
                    return
                if sock.type == socket.SOCK_DGRAM:
                    wire, peer = sock.recvfrom(4096)
                    sock.sendto(ready.data.respond(wire), peer)
                    continue
                connection, _ = sock.accept()
                with connection:
                    connection.settimeout(2)
                    with contextlib.suppress(OSError, struct.error):
                        size = struct.unpack("!H", connection.recv(2))[0]
                        wire = ready.data.respond(connection.recv(size))
                        connection.sendall(struct.pack("!H", len(wire)) + wire)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.send(b"x")
        thread.join(5)
        for sock in (*sockets, stop, stopped):
            sock.close()
        selector.close()

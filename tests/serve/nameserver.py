"""A scripted upstream server on loopback for tests: UDP and TCP on one port, in a thread of the test."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import dns.message
import dns.rrset

Script = Callable[[bytes, str], "bytes | list[bytes] | None"]  # question, transport


def respond(
    wire: bytes, rcode: int = 0, address: str = "192.0.2.80", tc: bool = False, ttl: int = 60, soa: bool = False
) -> bytes:
    """A response with one A record to an A question."""
    message = dns.message.from_wire(wire)
    response = dns.message.make_response(message, recursion_available=True)
    response.set_rcode(rcode)
    question = message.question[0]
    if rcode == 0 and question.rdtype == 1 and not tc:
        response.answer.append(dns.rrset.from_text(question.name, ttl, "IN", "A", address))
    if soa:
        text = f"ns.{question.name} h.{question.name} 1 3600 600 86400 {ttl}"
        response.authority.append(dns.rrset.from_text(question.name, ttl, "IN", "SOA", text))
    if tc:
        response.flags |= 0x0200
    return response.to_wire()


class Nameserver:
    """Counts and answers questions; `questions` holds (wire, transport, client port)."""

    def __init__(
        self,
        script: Script = lambda wire, transport: respond(wire),
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.script = script
        self.questions: list[tuple[bytes, str, int]] = []
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        for _ in range(20):
            self._udp = socket.socket(family, socket.SOCK_DGRAM)
            self._udp.bind((host, port))
            self._tcp = socket.socket(family, socket.SOCK_STREAM)
            try:
                self._tcp.bind(self._udp.getsockname()[:2])
                break
            except OSError:
                self._udp.close()
                self._tcp.close()
        self._tcp.listen(64)
        self.address: tuple[str, int] = self._udp.getsockname()[:2]
        self._wake, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def send(self, wire: bytes, port: int) -> None:
        """A datagram that nobody waited for so long."""
        self._udp.sendto(wire, (self.address[0], port))

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for sock in (self._udp, self._tcp, self._wake):
                selector.register(sock, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    if sock is self._wake:
                        return
                    if sock is self._udp:
                        wire, client = self._udp.recvfrom(65535)
                        self.questions.append((wire, "udp", client[1]))
                        said = self.script(wire, "udp")
                        for one in said if isinstance(said, list) else [said]:
                            if one is not None:
                                self._udp.sendto(one, client)
                    else:
                        self._connection(self._tcp.accept()[0])

    def _connection(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(1)
            head = connection.recv(2, socket.MSG_WAITALL)
            if len(head) < 2:
                return
            wire = connection.recv(struct.unpack("!H", head)[0], socket.MSG_WAITALL)
            self.questions.append((wire, "tcp", connection.getpeername()[1]))
            said = self.script(wire, "tcp")
            if isinstance(said, bytes):
                connection.sendall(struct.pack("!H", len(said)) + said)

    def close(self) -> None:
        """Stop and free the port."""
        self._waker.send(b"x")
        self._thread.join(2)
        for sock in (self._udp, self._tcp, self._wake, self._waker):
            sock.close()


@contextlib.contextmanager
def nameserver(script: Script = lambda wire, transport: respond(wire), host: str = "127.0.0.1") -> Iterator[Nameserver]:
    """A server for the length of a `with`."""
    server = Nameserver(script, host)
    try:
        yield server
    finally:
        server.close()

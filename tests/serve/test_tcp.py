"""TCP clients: framing in any pieces, any order of answers, and peers that mean no good."""

import select
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from dnsd.contract import codes
from dnsd.serve import tcp
from dnsd.serve.loop import Loop
from dnsd.serve.tcp import Connection, Connections


def frame(message: bytes) -> bytes:
    """A message with its length in front."""
    return len(message).to_bytes(2) + message


class Bench:
    """Connections with a stream that echoes; `late…` is answered later, `drop` closes, `big` is 60 kB."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.now = 1_000_000
        self.counters = memoryview(bytearray(8 * codes.COUNTERS)).cast("Q")
        self.late: list[tuple[Connection, bytes]] = []
        self.connections = Connections(self.loop, self._stream, self.counters, lambda: self.now)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.listener.setblocking(False)
        self.loop.add(self.listener.fileno(), select.EPOLLIN, lambda fd, ev: self.connections.accept(self.listener))
        self.clients: list[socket.socket] = []

    def _stream(self, message: bytes, client: bytes, connection: Connection) -> bytes | None:
        if message.startswith(b"late"):
            self.late.append((connection, message))
            return None
        if message == b"drop":
            return b""
        return b"x" * 60_000 if message == b"big" else b"re:" + message

    def client(self) -> socket.socket:
        """A connected client."""
        sock = socket.create_connection(self.listener.getsockname(), timeout=2)
        self.clients.append(sock)
        return sock

    def turn(self, rounds: int = 5) -> None:
        """Let the server do what it can now."""
        for _ in range(rounds):
            self.loop.run_once(0.005, lambda: self.connections.expire(self.now))

    def until(self, condition: Callable[[], bool]) -> None:
        """Turn until something is true."""
        end = time.monotonic() + 3
        while not condition():
            assert time.monotonic() < end, "it did not happen"
            self.turn(1)

    def ended(self, sock: socket.socket) -> bool:
        """Whether the server has closed this connection (unread octets are thrown away)."""
        self.turn()
        sock.setblocking(False)
        try:
            while sock.recv(65536):
                pass
            return True
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    def close(self) -> None:
        """Close what is open."""
        for sock in (*self.clients, self.listener):
            sock.close()
        self.connections.close()
        self.loop.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A bench for one test."""
    made = Bench()
    yield made
    made.close()


def test_pipelined_messages_are_all_answered(bench: Bench) -> None:
    """Two hundred messages in one write get two hundred answers in order."""
    sock = bench.client()
    sock.sendall(b"".join(frame(b"m%d" % i) for i in range(200)))
    expected = b"".join(frame(b"re:m%d" % i) for i in range(200))
    got = b""
    while len(got) < len(expected):
        bench.turn()
        got += sock.recv(65536)
    assert got == expected


def test_a_message_may_come_one_octet_at_a_time(bench: Bench) -> None:
    """Length and body are put together from any pieces."""
    sock = bench.client()
    for octet in frame(b"hello") + frame(b"again"):
        sock.sendall(bytes((octet,)))
        bench.turn(1)
    bench.turn()
    assert sock.recv(100) == frame(b"re:hello") + frame(b"re:again")


def test_answers_leave_in_the_order_in_which_they_are_ready(bench: Bench) -> None:
    """A slow question does not hold up the ones behind it (RFC 7766, section 6.2.1.1)."""
    sock = bench.client()
    sock.sendall(frame(b"late1") + frame(b"late2") + frame(b"now"))
    bench.until(lambda: len(bench.late) == 2)
    bench.turn()
    assert sock.recv(100) == frame(b"re:now")
    bench.connections.respond(bench.late[1][0], b"two")
    bench.connections.respond(bench.late[0][0], b"one")
    assert sock.recv(100) == frame(b"two") + frame(b"one")


def test_a_client_that_has_finished_sending_still_gets_its_answers(bench: Bench) -> None:
    """Half-closed connections are served to the end, then closed."""
    sock = bench.client()
    sock.sendall(frame(b"late1") + frame(b"now"))
    sock.shutdown(socket.SHUT_WR)
    bench.until(lambda: bool(bench.late))
    bench.turn()
    bench.connections.respond(bench.late[0][0], b"end")
    bench.turn()
    assert sock.recv(100) == frame(b"re:now") + frame(b"end") and sock.recv(1) == b""
    assert len(bench.connections) == 0


def test_length_zero_and_refused_messages_close(bench: Bench) -> None:
    """A message without octets is nonsense, and `stream` may ask to close."""
    for said in (b"\x00\x00", frame(b"drop")):
        sock = bench.client()
        sock.sendall(said)
        assert bench.ended(sock)


def test_idle_and_slow_peers_are_closed(bench: Bench) -> None:
    """Ten seconds without a whole message: a trickle of octets does not count as life."""
    idle, slow = bench.client(), bench.client()
    slow.sendall(b"\x00\x20")
    bench.turn()
    for _ in range(9):
        bench.now += 1000
        slow.sendall(b"x")
        bench.turn(2)
    assert not bench.ended(idle) and not bench.ended(slow)
    bench.now += 1000
    assert bench.ended(idle) and bench.ended(slow)


def test_a_peer_that_waits_for_us_is_not_idle(bench: Bench) -> None:
    """A question under way keeps its connection."""
    sock = bench.client()
    sock.sendall(frame(b"late"))
    bench.until(lambda: bool(bench.late))
    bench.now += 30_000
    assert not bench.ended(sock)
    bench.connections.respond(bench.late[0][0], b"ok")
    sock.settimeout(2)
    assert sock.recv(100) == frame(b"ok")


def test_a_peer_that_does_not_read_is_paused_then_closed(bench: Bench) -> None:
    """Unread answers are bounded: we stop reading its questions, and give up after ten seconds."""
    sock = bench.client()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    sent = 0
    for _ in range(300):
        try:
            sent += sock.send(frame(b"big") * 100)
        except BlockingIOError:
            break
        bench.turn(1)
    bench.turn(20)
    connection = next(iter(bench.connections._connections.values()))
    assert tcp.OUT_BYTES <= len(connection.out) <= tcp.OUT_BYTES + 60_002
    assert len(connection.data) <= 2 * tcp._READ_BYTES
    assert not connection.events & select.EPOLLIN
    bench.now += 10_000
    bench.turn()
    assert len(bench.connections) == 0


def test_too_many_questions_under_way_pause_the_reading(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the bound the next message waits, and is read when an answer has left."""
    monkeypatch.setattr(tcp, "IN_FLIGHT", 2)
    sock = bench.client()
    sock.sendall(frame(b"late1") + frame(b"late2") + frame(b"late3"))
    bench.until(lambda: len(bench.late) == 2)
    bench.turn()
    assert len(bench.late) == 2
    bench.connections.respond(bench.late[0][0], b"one")
    bench.until(lambda: len(bench.late) == 3)


def test_one_client_cannot_take_all_connections(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above its share a client's new connections are closed at once and counted."""
    monkeypatch.setattr(tcp, "PER_CLIENT", 3)
    socks = [bench.client() for _ in range(5)]
    bench.turn()
    assert [bench.ended(sock) for sock in socks] == [False, False, False, True, True]
    assert bench.counters[codes.COUNT_TCP_REFUSED] == 2 and bench.counters[codes.COUNT_TCP_CONNECTIONS] == 5


def test_when_all_connections_are_taken_the_idlest_gives_way(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new client is preferred to one that does nothing, but not to one that waits for an answer."""
    monkeypatch.setattr(tcp, "CONNECTIONS", 2)
    first, second = bench.client(), bench.client()
    bench.turn()
    first.sendall(frame(b"late"))
    bench.until(lambda: bool(bench.late))
    third = bench.client()
    assert bench.ended(second) and not bench.ended(third) and not bench.ended(first)


def test_the_clients_address_is_sixteen_octets() -> None:
    """IPv4 clients are mapped, zones are dropped."""
    assert tcp._client("192.0.2.1") == bytes(10) + b"\xff\xff\xc0\x00\x02\x01"
    assert tcp._client("fe80::1%eth0") == bytes.fromhex("fe800000000000000000000000000001")

"""Hostile packets and hostile broker peers against a live office: nothing restarts, nobody else notices."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pathlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests import lan

FUZZ_S = float(os.environ.get("FUZZ_SECONDS", "4"))


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lan.Lan]:
    """`run` over a folder of rules."""
    with lan.office(tmp_path_factory.mktemp("office")) as one:
        one.start("run")
        one.answers()
        yield one


def _question(name: str, qtype: int) -> bytes:
    wire = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    return struct.pack("!6H", 0x1234, 0x0100, 1, 0, 0, 0) + wire + struct.pack("!2H", qtype, 1)


SEEDS = (
    _question("printer.office.example", 1),
    _question("x.tracker.example", 28),
    _question("version.office.example", 16),
    _question("old.example", 255),
    _question("office.example", 252),
    _question("printer.office.example", 1)[:10] + b"\0\1" + _question("printer.office.example", 1)[12:]
    + b"\0\0\x29\x04\xd0\0\0\x80\0\0\x0c\0\x0a\0\x08abcdefgh",
)  # fmt: skip


def _mangled(rng: random.Random) -> bytes:
    data = bytearray(rng.choice(SEEDS))
    for _ in range(rng.randrange(1, 5)):
        choice = rng.randrange(6)
        at = rng.randrange(len(data)) if data else 0
        if choice == 0 and data:
            data[at] = rng.choice((0, 1, 0x3F, 0x40, 0x80, 0xC0, 0xFF, rng.randrange(256)))
        elif choice == 1:
            del data[at:]
        elif choice == 2:
            data += rng.randbytes(rng.randrange(1, 64))
        elif choice == 3 and data:
            data[at:at] = rng.randbytes(rng.randrange(1, 8))
        elif choice == 4:
            data += bytes((0xC0, rng.randrange(64)))
        elif choice == 5 and len(data) >= 12:
            struct.pack_into("!H", data, rng.choice((2, 4, 6, 8, 10)), rng.choice((0, 1, 2, 0x8000, 0xFFFF)))
    return bytes(data)


def _udp(port: int, rng: random.Random, ends: float) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        while time.monotonic() < ends:
            for _ in range(50):
                with contextlib.suppress(OSError):
                    sock.sendto(rng.randbytes(rng.randrange(80)) if rng.random() < 0.1 else _mangled(rng),
                                ("127.0.0.1", port))  # fmt: skip
            with contextlib.suppress(OSError):
                while answer := sock.recv(65535):
                    assert len(answer) >= 12 and answer[2] & 0x80, answer
            time.sleep(0.005)


def _tcp(port: int, rng: random.Random, ends: float) -> None:
    while time.monotonic() < ends:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as sock:
            sock.settimeout(0.05)
            for _ in range(rng.randrange(1, 12)):
                data = _mangled(rng)
                length = len(data) if rng.random() < 0.7 else rng.randrange(65536)
                framed = struct.pack("!H", length) + data
                sock.sendall(framed[: rng.randrange(len(framed))] if rng.random() < 0.2 else framed)
            if rng.random() < 0.5:
                sock.recv(65535)
            if rng.random() < 0.3:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_malformed_packets(office: lan.Lan) -> None:
    """Mangled and random packets over UDP and TCP: same workers afterwards, no fault in the log, answers all along."""
    pids = {row["pid"] for row in office.workers()}
    ends = time.monotonic() + FUZZ_S
    seed = int.from_bytes(os.urandom(4)) if os.environ.get("CI") != "true" else 1
    print(f"seed {seed}")
    threads = [
        threading.Thread(target=work, args=(office.dns, random.Random(seed + number), ends))
        for number, work in enumerate((_udp, _tcp, _tcp))
    ]
    for thread in threads:
        thread.start()
    asked = 0
    while time.monotonic() < ends:
        transport = "+tcp" if asked % 2 else "+notcp"
        assert office.dig("printer.office.example", "A", transport).data == ["10.0.20.15"]
        asked += 1
    for thread in threads:
        thread.join()
    assert asked >= 5
    assert {row["pid"] for row in office.workers()} == pids
    log = office.processes[0].text()
    assert "a fault in the worker" not in log and "ended and is replaced" not in log and "Traceback" not in log
    assert office.everywhere("printer.office.example", "A") == {"10.0.20.15"}


# --- the broker -------------------------------------------------------------------------------------------------------


def _frame(kind: int, payload: bytes, length: int | None = None) -> bytes:
    return struct.pack("!IBBHI", len(payload) if length is None else length, kind, 0, 0, 0) + payload


PREFACE = b"DTP\0\0\1\0\1"


def _flood(port: int, stop: threading.Event) -> None:
    """Octets without end, with and without a preface."""
    rng = random.Random(1)
    while not stop.is_set():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as sock:
            sock.settimeout(1)
            sock.sendall(rng.choice((b"", PREFACE)))
            for _ in range(64):
                sock.sendall(rng.randbytes(65536))


def _stall(port: int, stop: threading.Event) -> None:
    """As many connections as it can get, that say nothing, or half of a frame; dead ones are made anew."""
    socks: list[socket.socket] = []
    while not stop.is_set():
        alive = []
        for sock in socks:
            try:
                sock.recv(4096)
            except BlockingIOError:
                alive.append(sock)
            except OSError:
                sock.close()
            else:
                sock.close()
        socks = alive
        with contextlib.suppress(OSError):
            while len(socks) < 100:
                sock = socket.create_connection(("127.0.0.1", port), 1)
                sock.sendall(PREFACE + _frame(2, b"{", 4000) if len(socks) % 2 else b"")
                sock.setblocking(False)
                socks.append(sock)
        stop.wait(0.05)
    for sock in socks:
        sock.close()


def _lie(port: int, stop: threading.Event) -> None:
    """A HELLO as node and as publisher with a key that is not theirs; frames of every type before login."""
    rng = random.Random(2)
    while not stop.is_set():
        role = rng.choice(("node", "publisher", "operator", "nobody"))
        hello = {
            "agent": "x", "formats": ["rt/1"], "have": {"digest": None, "epoch": "", "generation": 0}, "key": role,
            "node": "liar", "role": role, "nonce": base64.b64encode(bytes(32)).decode(), "listen": [],
        }  # fmt: skip
        kind = rng.choice((2, 2, 2, rng.randrange(256)))
        payload = json.dumps(hello).encode() + bytes(32)
        length = rng.choice((None, None, 0xFFFFFFFF))
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as sock:
            sock.settimeout(0.5)
            sock.sendall(PREFACE + _frame(kind, payload, length))
            while sock.recv(65536):
                pass
        stop.wait(0.01)


@pytest.mark.parametrize("attack", [_flood, _stall, _lie])
def test_hostile_broker_peers(office: lan.Lan, attack: Callable[[int, threading.Event], None]) -> None:
    """While a stranger floods, stalls or lies on the broker's port, an edit reaches every worker."""
    pids = {row["pid"] for row in office.workers()}
    stop = threading.Event()
    threads = [threading.Thread(target=attack, args=(office.broker, stop)) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.5)
        for word in (f"{attack.__name__}1", f"{attack.__name__}2"):
            office.write("office.yaml", lan.RULES.replace("value: one", f"value: {word}"))
            wanted = f'"{word}"'
            lan.until(lambda wanted=wanted: office.everywhere("version.office.example", "TXT", 4) == {wanted}, 10, word)  # type: ignore[misc]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert {row["pid"] for row in office.workers()} == pids
    assert "Traceback" not in office.logs()
    assert _size(office) < 300 << 20


def _size(office: lan.Lan) -> int:
    """The resident octets of the controller, the one that strangers can talk to."""
    run = office.processes[0].pid
    children = pathlib.Path(f"/proc/{run}/task/{run}/children").read_text().split()
    return max(int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 for pid in children)


@pytest.mark.parametrize("attack", [_stall, _flood])
def test_a_restarted_half_finds_the_broker_through_the_strangers(
    office: lan.Lan, attack: Callable[[int, threading.Event], None]
) -> None:
    """The agent is killed while strangers hold the broker's port: it gets in again, and an edit is served."""
    stop = threading.Event()
    thread = threading.Thread(target=attack, args=(office.broker, stop))
    thread.start()
    try:
        time.sleep(0.5)
        worker = office.workers()[0]["pid"]
        parent = pathlib.Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1]
        workers = {str(row["pid"]) for row in office.workers()}
        inside = pathlib.Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        os.kill(next(int(pid) for pid in inside if pid not in workers), 9)
        office.write("office.yaml", lan.RULES.replace("value: one", f"value: again{attack.__name__}"))
        wanted = f'"again{attack.__name__}"'
        lan.until(lambda: office.everywhere("version.office.example", "TXT", 4) == {wanted}, 20, "the edit")
    finally:
        stop.set()
        thread.join()

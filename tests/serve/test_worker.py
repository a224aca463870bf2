"""Workers as clients and agent see them: table swaps, forwarded questions, leaving."""

import concurrent.futures
import contextlib
import os
import pathlib
import random
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator

import dns.message
import dns.query
import pytest

from controller.compiler import Blobs
from tests.serve.nameserver import nameserver, respond
from tests.serve.node import Node, node, question, table


@pytest.fixture
def served(tmp_path: pathlib.Path) -> Iterator[Node]:
    """A node of two workers with a table."""
    with node(tmp_path) as made:
        made.publish()
        made.start()
        yield made


def framed(*messages: bytes) -> bytes:
    """Messages as a TCP stream."""
    return b"".join(struct.pack("!H", len(message)) + message for message in messages)


def read_frames(sock: socket.socket, count: int) -> list[bytes]:
    """That many messages from a stream."""
    out = []
    for _ in range(count):
        length = struct.unpack("!H", sock.recv(2, socket.MSG_WAITALL))[0]
        out.append(sock.recv(length, socket.MSG_WAITALL))
    return out


def test_a_swap_loses_no_question_and_reaches_every_worker(served: Node) -> None:
    """Under a steady stream of questions fifteen tables go live; every answer is from one of them, none is missing."""
    answers: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answers.append(served.ask())

    thread = threading.Thread(target=ask)
    thread.start()
    for i in range(2, 17):
        generation = served.publish(f"10.0.0.{i}")
        served.until(lambda g=generation: sum(row["generation"] == g for row in served.said("active")) == 2)  # type: ignore[misc]
    stop.set()
    thread.join()
    assert set(answers) <= {f"10.0.0.{i}" for i in range(1, 17)} and len(answers) > 50
    order = [int(answer.rpartition(".")[2]) for answer in answers]
    assert order == sorted(order)
    assert {served.ask() for _ in range(20)} == {"10.0.0.16"}


def test_a_worker_reports_the_digest_that_it_has_mapped(served: Node) -> None:
    """Ready and active carry the digest of the header, not what the agent said ("told")."""
    expected = table("10.0.0.1").digest
    served.until(lambda: {row["slot"] for row in served.said("active")} == {0, 1})
    for op in ("ready", "active"):
        assert {row["digest"] for row in served.said(op)} == {expected}


def test_a_broken_table_is_refused_with_a_reason_and_the_old_one_serves(served: Node) -> None:
    """NACK from each worker; nobody dies, answers stay; the next good table is taken."""
    pids = served.pids("worker")
    good = table("10.0.0.9")
    for policy, names in (
        (b"", good.names), (b"not a table" * 500, good.names), (good.policy[:400], good.names),
        (good.policy, b"\x00" * 4096), (random.Random(1).randbytes(8192), b""),
    ):  # fmt: skip
        before = len(served.said("nack"))
        served.publish(blobs=Blobs(policy, names, "", ""))
        # Both slots; one that had just said hello may have been told twice.
        served.until(lambda b=before: {row["slot"] for row in served.said("nack")[b:]} == {0, 1})  # type: ignore[misc]
        assert all(row["errors"][0] for row in served.said("nack"))
        assert {served.ask() for _ in range(8)} == {"10.0.0.1"}
    served.publish("10.0.0.9")
    served.until(lambda: {served.ask() for _ in range(8)} == {"10.0.0.9"})
    assert served.pids("worker") == pids


def test_a_prepared_table_serves_only_after_the_commit(served: Node) -> None:
    """Ready is not active: until the shared word changes the old table answers."""
    generation = served.publish("10.0.0.7", abort=True)
    served.until(lambda: sum(row["generation"] == generation for row in served.said("ready")) == 2)
    assert {served.ask() for _ in range(12)} == {"10.0.0.1"}
    served.publish("10.0.0.8")
    served.until(lambda: {served.ask() for _ in range(12)} == {"10.0.0.8"})


def test_misses_are_forwarded_and_the_answer_is_kept(tmp_path: pathlib.Path) -> None:
    """UDP and TCP clients get an upstream's answer; the next question is answered from the cache."""
    with nameserver() as upstream, node(tmp_path, workers=1) as made:
        made.publish(upstream=f"127.0.0.1:{upstream.address[1]}")
        made.start()
        assert made.ask("www.example.com") == "192.0.2.80"
        assert made.ask("www.example.com") == "192.0.2.80"
        query = dns.message.make_query("tcp.example.com", "A")
        response = dns.query.tcp(query, "127.0.0.1", port=made.port, timeout=2)
        assert str(response.answer[0][0]) == "192.0.2.80"
        assert len(upstream.questions) == 2


def test_many_identical_questions_ask_the_upstream_once(tmp_path: pathlib.Path) -> None:
    """Forty clients at once, one upstream question, forty answers."""

    def slow(wire: bytes, transport: str) -> bytes:
        time.sleep(0.3)
        return respond(wire)

    with nameserver(slow) as upstream, node(tmp_path, workers=1) as made:
        made.publish(upstream=f"127.0.0.1:{upstream.address[1]}")
        made.start()
        with concurrent.futures.ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(lambda i: made.ask("same.example.com"), range(40)))
        assert answers == ["192.0.2.80"] * 40 and len(upstream.questions) == 1


def test_a_slow_upstream_delays_nobody_else(tmp_path: pathlib.Path) -> None:
    """While an upstream is silent, own names are answered at once, on the same TCP connection too."""
    with nameserver(lambda wire, transport: None) as upstream, node(tmp_path, workers=1) as made:
        made.publish(upstream=f"127.0.0.1:{upstream.address[1]}")
        made.start()
        with socket.create_connection(("127.0.0.1", made.port), timeout=8) as stream:
            stream.sendall(framed(question("gone.example.com", 1), question("printer.office.test", 2)))
            start = time.monotonic()
            assert read_frames(stream, 1)[0][:2] == b"\x00\x02"
            assert made.ask() == "10.0.0.1" and time.monotonic() - start < 1
            late = dns.message.from_wire(read_frames(stream, 1)[0])
            assert late.id == 1 and late.rcode() == 2


def test_an_upstream_that_sends_rubbish_harms_nobody(tmp_path: pathlib.Path) -> None:
    """Matching header and question, then noise: SERVFAIL for that question, and the worker lives."""
    noise = random.Random(7)

    def rubbish(wire: bytes, transport: str) -> bytes:
        good = bytearray(respond(wire))
        good[6:12] = noise.randbytes(6)
        return bytes(good) + noise.randbytes(noise.randrange(60))

    with nameserver(rubbish) as upstream, node(tmp_path, workers=1) as made:
        made.publish(upstream=f"127.0.0.1:{upstream.address[1]}")
        made.start()
        pid = made.pids("worker")
        for i in range(60):
            assert made.ask(f"n{i}.example.com") != ""
        assert made.ask() == "10.0.0.1" and made.pids("worker") == pid
        assert "a fault in the worker" not in made.log()


def test_clients_that_send_rubbish_harm_nobody(served: Node) -> None:
    """Noise over UDP and TCP: no crash, no fault, and answers go on."""
    noise = random.Random(3)
    pids = served.pids("worker")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(500):
            wire = question()[: noise.randrange(40)] + noise.randbytes(noise.randrange(30))
            sock.sendto(wire, ("127.0.0.1", served.port))
    for _ in range(20):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", served.port), timeout=1) as stream:
            stream.sendall(noise.randbytes(300))
    assert {served.ask() for _ in range(10)} == {"10.0.0.1"}
    assert served.pids("worker") == pids and "a fault in the worker" not in served.log()


def test_a_worker_that_leaves_finishes_what_it_has_begun(tmp_path: pathlib.Path) -> None:
    """SIGTERM while an upstream works: the answer still arrives, then the node ends with 0."""

    def slow(wire: bytes, transport: str) -> bytes:
        time.sleep(0.6)
        return respond(wire)

    with nameserver(slow) as upstream, node(tmp_path, workers=1) as made:
        made.publish(upstream=f"127.0.0.1:{upstream.address[1]}")
        process = made.start()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            answer = pool.submit(made.ask, "slow.example.com", 4)
            made.until(lambda: bool(upstream.questions))
            process.terminate()
            assert answer.result() == "192.0.2.80"
        assert process.wait(5) == 0


def test_a_single_worker_that_is_told_to_leave_is_replaced_without_loss(served: Node) -> None:
    """SIGTERM to one worker: siblings read its sockets, a replacement comes, every question is answered."""
    victim = served.pids("worker")[0]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        load = pool.submit(lambda: [served.ask() for _ in range(150) if not time.sleep(0.004)])
        time.sleep(0.1)
        os.kill(victim, signal.SIGTERM)
        assert set(load.result()) == {"10.0.0.1"}
    served.until(lambda: victim not in served.pids("worker") and len(served.pids("worker")) == 2)


def test_signals_of_a_terminal_do_not_end_a_worker(served: Node) -> None:
    """SIGINT and SIGHUP reach the whole process group; only the supervisor decides."""
    pids = served.pids("worker")
    for pid in pids:
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGHUP)
    time.sleep(0.3)
    assert served.pids("worker") == pids and served.ask() == "10.0.0.1"


def test_an_idle_worker_sleeps(served: Node) -> None:
    """Without questions a worker uses next to no processor time."""

    def ticks(pid: int) -> int:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    pid = served.pids("worker")[0]
    before = ticks(pid)
    time.sleep(1.5)
    assert ticks(pid) - before <= 3

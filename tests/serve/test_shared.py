"""Shared memory: what one process writes another one reads, whole."""

import os
import time

import pytest

from dnsd.contract import codes
from dnsd.serve.shared import DEAD, FACTS_BYTES, RING_BYTES, SERVING, STARTING, UPSTREAMS_BYTES, SharedMemory


def test_a_forked_process_and_its_parent_see_the_same_words() -> None:
    """The mapping is shared: a child's stores are read by the parent."""
    memory = SharedMemory(2)
    pid = os.fork()
    if pid == 0:
        memory.committed[0] = 41
        memory.counters(1)[codes.COUNT_SERVFAIL] = 7
        memory.install(1, 5, bytes(range(32)))
        memory.serving(1)
        memory.ring(0)[RING_BYTES - 1] = 9
        os._exit(0)
    os.waitpid(pid, 0)
    assert memory.committed[0] == 41
    assert memory.counters(1)[codes.COUNT_SERVFAIL] == 7
    assert memory.counters(0)[codes.COUNT_SERVFAIL] == 0
    assert memory.slot_digest(1) == bytes(range(32))
    assert memory.state(1) == SERVING
    assert memory.ring(0)[RING_BYTES - 1] == 9 and memory.ring(1)[0] == 0


def test_a_slot_forgets_its_worker_when_it_dies() -> None:
    """Pid, generation and digest of a dead worker are not shown as those of its replacement."""
    memory = SharedMemory(1)
    memory.starting(0, 123, 1000)
    memory.install(0, 9, b"\x01" * 32)
    memory.serving(0)
    memory.beat(0, 2000)
    assert memory.slot_state(0) == (SERVING, 123, 9, 2000)
    memory.dead(0)
    assert memory.slot_state(0)[:3] == (DEAD, 0, 0)
    memory.starting(0, 124, 3000)
    assert memory.slot_state(0) == (STARTING, 124, 0, 3000)
    assert memory.slot_digest(0) == bytes(32)


def test_facts_are_replaced_whole_and_counted() -> None:
    """Each write has a new version, and the newest is what a reader gets."""
    memory = SharedMemory(1)
    assert memory.facts_version == 0 and memory.facts_read() == b""
    assert memory.facts_write(b"one") == 1
    assert memory.facts_write(b"two" * 1000) == 2
    assert memory.facts_read() == b"two" * 1000 and memory.facts_version == 2
    assert memory.facts_write(b"") == 3
    assert memory.facts_read() == b""


def test_facts_that_do_not_fit_are_refused_and_the_old_ones_stay() -> None:
    """A half holds 64 KiB with its header; more is an error, not a cut."""
    memory = SharedMemory(1)
    memory.facts_write(b"good")
    with pytest.raises(ValueError, match="limit is 65528"):
        memory.facts_write(bytes(FACTS_BYTES - 7))
    assert memory.facts_read() == b"good" and memory.facts_version == 1
    memory.facts_write(bytes(FACTS_BYTES - 8))
    assert len(memory.facts_read()) == FACTS_BYTES - 8


def test_a_reader_never_sees_a_mixture_of_two_writes() -> None:
    """While another process writes some ten thousand times a second, every read is one of the written values."""
    memory = SharedMemory(1)
    memory.facts_write(b"\x00" * 5000)
    pid = os.fork()
    if pid == 0:
        for i in range(3000):
            memory.facts_write(bytes((i & 255,)) * 5000)
            time.sleep(0.00002)  # without any pause a writer may outrun a slow reader for ever, and that is an error
        os._exit(0)
    reads = 0
    done = 0
    while not done:
        data = memory.facts_read()
        assert len(data) == 5000 and data.count(data[:1]) == 5000
        reads += 1
        done, _ = os.waitpid(pid, os.WNOHANG)
    assert reads > 0


def test_a_node_has_at_least_one_slot() -> None:
    """No slots is a programming error and is refused."""
    with pytest.raises(ValueError):
        SharedMemory(0)


def test_what_a_worker_knows_of_upstream_servers_is_read_whole() -> None:
    """Each slot's own; too much is refused; a torn one is nothing; a replacement begins with nothing."""
    memory = SharedMemory(2)
    assert memory.upstreams_read(0) == b""
    memory.upstreams_write(0, b"first")
    memory.upstreams_write(1, b"x" * (UPSTREAMS_BYTES - 8))
    assert memory.upstreams_read(0) == b"first" and len(memory.upstreams_read(1)) == UPSTREAMS_BYTES - 8
    with pytest.raises(ValueError, match="limit"):
        memory.upstreams_write(0, b"x" * UPSTREAMS_BYTES)
    memory._upstreams[0][9] ^= 1
    assert memory.upstreams_read(0) == b""
    memory.starting(1, 0, 0)
    assert memory.upstreams_read(1) == b""

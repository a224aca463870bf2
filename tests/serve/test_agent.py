"""The agent against the real broker, with real tables and shared memory: releases, refusals, restarts, facts."""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import mmap
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from controller.release import ACTIVE, REJECTED, SUPERSEDED
from controller.ruleset import Window
from dnsd.contract import facts
from dnsd.contract.settings import Settings
from dnsd.serve import agent as agents
from dnsd.serve.agent import Inherited
from dnsd.serve.agent_tables import seal
from dnsd.serve.shared import SharedMemory
from tests.controller import broker_peers as peers
from tests.controller.broker_peers import REVISION, publisher, until
from tests.serve import node_parts
from tests.serve.node_parts import node, table


def run(coroutine: Any) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(30):
            return await coroutine

    return asyncio.run(bounded())


def node_settings(base: Path) -> Settings:
    """The node has its own state folder and the broker's key file."""
    return dataclasses.replace(peers.node_settings(base), state=node_parts.state_of(base, "node"))


async def connected(it: Any) -> None:
    await until(lambda: [n["connected"] for n in it.snapshot()["nodes"]] == [True])


def test_a_release_reaches_every_worker(tmp_path: Path) -> None:
    """PUBLISH to ACTIVE: every worker maps the table, the rows carry what each has mapped, the supervisor is told."""

    async def body() -> None:
        async with peers.broker(tmp_path) as it, node(node_settings(tmp_path), it.port, slots=3) as here:
            await connected(it)
            blobs = table("ads.example")
            result = await publisher(it).publish(blobs, REVISION)
            assert result.state == ACTIVE and here.serving() == [blobs.digest] * 3
            rows = result.rows[0]["workers"]
            assert [(r["slot"], r["state"], r["digest"], r["generation"]) for r in rows] == [
                (slot, "serving", blobs.digest, 1) for slot in range(3)
            ]
            told = here.tables_told()
            assert [(t["op"], t["digest"], t["generation"]) for t in told] == [("table", blobs.digest, 1)]
            assert here.workers[0].revision == REVISION.short
            await until(lambda: (Path(here.agent._directory) / "last-good.json").exists())
            beat = here.agent._shared.agent_beat  # by which the supervisor sees that the agent is not stuck
            beat[0] = 1
            await until(lambda: beat[0] > 1)

    run(body())


def test_an_edit_reuses_the_memory_of_the_names(tmp_path: Path) -> None:
    """An unchanged names blob stays the same memfd in every worker, and only the policy blob travels."""

    async def body() -> None:
        async with peers.broker(tmp_path) as it, node(node_settings(tmp_path), it.port) as here:
            await connected(it)
            listed = tuple(f"n{i}.example" for i in range(2000))
            one, two = table("a.example", listed=listed), table("b.example", listed=listed)
            assert one.names == two.names
            await publisher(it).publish(one, REVISION)
            result = await publisher(it).publish(two, REVISION)
            assert result.state == ACTIVE and result.rows[0]["fetched"] == len(two.policy)
            inodes = here.workers[0].names_inodes
            assert len(inodes) == 2 and len(set(inodes)) == 1

    run(body())


def test_another_revision_of_the_same_table_reaches_the_workers(tmp_path: Path) -> None:
    """A commit that leaves the table as it is: workers get its text over the same memory, nothing travels."""

    async def body() -> None:
        async with peers.broker(tmp_path) as it, node(node_settings(tmp_path), it.port) as here:
            await connected(it)
            blobs = table("a.example")
            await publisher(it).publish(blobs, REVISION)
            later = dataclasses.replace(REVISION, id="main@sha1:ffff", short="main@sha1:ffff")
            result = await publisher(it).publish(blobs, later)
            assert (result.state, result.generation, result.rows[0]["fetched"]) == (ACTIVE, 2, 0)
            assert [worker.revision for worker in here.workers] == [later.short] * 2
            assert len(set(here.workers[0].names_inodes)) == 1 and here.serving() == [blobs.digest] * 2
            await until(lambda: [r.generation for r in here.agent._store.releases] == [2])

    run(body())


def test_one_worker_refuses_and_all_stay(tmp_path: Path) -> None:
    """A worker's nack becomes the release's rejection in the worker's words; the other worker keeps the old table."""

    async def body() -> None:
        async with peers.broker(tmp_path) as it, node(node_settings(tmp_path), it.port) as here:
            await connected(it)
            good = table("good.example")
            await publisher(it).publish(good, REVISION)
            here.workers[1].refuse = "no room"
            result = await publisher(it).publish(table("bad.example"), REVISION)
            assert result.state == REJECTED and "worker 1: no room" in result.text()
            await until(lambda: "abort" in here.workers[0].ops)
            assert here.serving() == [good.digest] * 2
            here.workers[1].refuse = ""
            assert (await publisher(it).publish(table("good2.example"), REVISION)).state == ACTIVE

    run(body())


def test_a_corrupt_table_is_refused_by_the_node(tmp_path: Path) -> None:
    """Blobs with the right SHA-256 that are no table never reach a worker: NACK says what is wrong with them."""

    async def body() -> None:
        async with peers.broker(tmp_path) as it, node(node_settings(tmp_path), it.port) as here:
            await connected(it)
            result = await publisher(it).publish(peers.FakeBlobs(b"not a table"), REVISION)
            assert result.state == REJECTED and "header" in result.text()
            good = table("ads.example")
            damaged = bytearray(good.policy)
            damaged[-1] ^= 1
            result = await publisher(it).publish(dataclasses.replace(good, policy=bytes(damaged)), REVISION)
            assert result.state == REJECTED and "damaged" in result.text()
            assert "prepare" not in here.workers[0].ops

    run(body())


def test_a_silent_worker_is_killed_and_the_release_goes_on(tmp_path: Path) -> None:
    """A worker that does not answer is no veto: it is killed, its row says evicted, the others serve."""

    async def body() -> None:
        async with peers.broker(tmp_path) as it, node(node_settings(tmp_path), it.port) as here:
            await connected(it)
            killed: list[tuple[int, int]] = []
            here.agent._workers._kill = lambda pid, number: killed.append((pid, number))
            here.workers[0].mute = True
            blobs = table("ads.example")
            result = await publisher(it).publish(blobs, REVISION, deadline_ms=400)
            assert result.state == ACTIVE
            assert killed == [(here.workers[0].pid, signal.SIGKILL)]
            assert [r["state"] for r in result.rows[0]["workers"]] == ["evicted", "serving"]

    run(body())


def test_a_worker_that_is_replaced_gets_the_current_table(tmp_path: Path) -> None:
    """Hello is answered with the table that is in force, and the worker serves it at once."""

    async def body() -> None:
        async with peers.broker(tmp_path) as it, node(node_settings(tmp_path), it.port) as here:
            await connected(it)
            blobs = table("ads.example")
            here.workers[1].die()
            result = await publisher(it).publish(blobs, REVISION, deadline_ms=2000)
            assert result.state == ACTIVE and [r["state"] for r in result.rows[0]["workers"]] == ["serving", "dead"]
            here.workers[1].start()
            await until(lambda: here.serving() == [blobs.digest] * 2)

    run(body())


def test_it_serves_from_disk_without_a_broker(tmp_path: Path) -> None:
    """After a restart of dnsd with the controller gone every worker gets the last good table at once."""

    async def body() -> None:
        blobs = table("ads.example")
        settings = node_settings(tmp_path)
        async with peers.broker(tmp_path) as it, node(settings, it.port) as here:
            await connected(it)
            await publisher(it).publish(table("older.example"), REVISION)
            await publisher(it).publish(blobs, REVISION)
            await until(lambda: len(here.agent._store.releases) == 2)
        async with node(settings, 1) as here:
            await until(lambda: here.serving() == [blobs.digest] * 2, 1.0)
            assert here.shared.committed[0] == 2 and here.tables_told()[0]["digest"] == blobs.digest

    run(body())


def test_a_damaged_last_good_falls_back(tmp_path: Path) -> None:
    """A corrupt blob is moved aside with the reason, and the release before it is served instead."""

    async def body() -> None:
        settings = node_settings(tmp_path)
        older = table("older.example")
        async with peers.broker(tmp_path) as it, node(settings, it.port) as here:
            await connected(it)
            await publisher(it).publish(older, REVISION)
            await publisher(it).publish(table("newer.example"), REVISION)
            await until(lambda: len(here.agent._store.releases) == 2)
            newest = here.agent._store.releases[0].blob("policy")
        path = Path(settings.state) / "tables" / newest
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        async with node(settings, 1) as here:
            await until(lambda: here.serving() == [older.digest] * 2)
            assert "not what its name says" in here.log and path.with_name(newest + ".damaged").exists()

    run(body())


def test_reconnect_after_a_broker_restart(tmp_path: Path) -> None:
    """The node finds a restarted broker by itself, is brought to what became active meanwhile, and served all along."""

    async def body() -> None:
        settings = node_settings(tmp_path)
        one, two = table("one.example"), table("two.example")
        port = _free_port()
        fixed = dataclasses.replace(
            peers.node_settings(tmp_path), broker=dataclasses.replace(settings.broker, listen=f"127.0.0.1:{port}")
        )
        async with node(settings, port) as here:
            for blobs in (one, two):
                it = peers.Broker(fixed)
                await it.start()
                await connected(it)
                assert (await publisher(it).publish(blobs, REVISION)).state == ACTIVE
                assert here.serving() == [blobs.digest] * 2
                await it.stop()

    run(body())


def test_a_broker_that_counts_anew_is_followed(tmp_path: Path) -> None:
    """With a new epoch a lower generation is taken, and workers still see a number that only grows."""

    async def body() -> None:
        settings = node_settings(tmp_path)
        shared = SharedMemory(2)
        for state, expected in (("first", 3), ("second", 4)):
            base = tmp_path / state
            base.mkdir()
            async with peers.broker(base) as it:
                broker = dataclasses.replace(settings.broker, keys=str(base / "broker.keys"))
                async with node(dataclasses.replace(settings, broker=broker), it.port, shared=shared):
                    await connected(it)
                    for number in range(3 if state == "first" else 1):
                        result = await publisher(it).publish(table(f"{state}{number}.example"), REVISION)
                        assert result.state == ACTIVE
                        assert result.rows[0]["workers"][0]["generation"] == number + 1
                    assert shared.committed[0] >= expected

    run(body())


def test_a_newer_release_interrupts_the_preparation(tmp_path: Path) -> None:
    """While a worker takes its time over one release, the next one is prepared and becomes active at once."""

    async def body() -> None:
        async with peers.broker(tmp_path) as it, node(node_settings(tmp_path), it.port) as here:
            await connected(it)
            here.workers[0].mute = True
            slow = asyncio.create_task(publisher(it).publish(table("slow.example"), REVISION))
            await until(lambda: "prepare" in here.workers[0].ops)
            here.workers[0].mute = False
            newer = table("newer.example")
            begun = time.monotonic()
            assert (await publisher(it).publish(newer, REVISION)).state == ACTIVE
            assert (await slow).state == SUPERSEDED and time.monotonic() - begun < 2
            assert here.serving() == [newer.digest] * 2

    run(body())


def test_a_full_disk_is_a_clear_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC while a blob is stored: NACK says that the disk is full; the old table stays on disk and in force."""

    async def body() -> None:
        async with peers.broker(tmp_path) as it, node(node_settings(tmp_path), it.port) as here:
            await connected(it)
            good = table("good.example")
            await publisher(it).publish(good, REVISION)
            store = here.agent._store
            assert store is not None
            await until(lambda: store.releases)

            def full(fd: int, offset: int, length: int) -> None:
                if os.readlink(f"/proc/self/fd/{fd}").startswith(str(store._directory)):
                    raise OSError(28, "No space left on device")

            monkeypatch.setattr("dnsd.serve.store.os.posix_fallocate", full)
            result = await publisher(it).publish(table("more.example"), REVISION)
            monkeypatch.undo()
            assert result.state == REJECTED and "disk is full" in result.text()
            assert here.serving() == [good.digest] * 2 and store.read(store.releases[0].blob("policy")) == good.policy

    run(body())


def test_reports_name_the_rule(tmp_path: Path) -> None:
    """Decisions in a ring arrive as REPORT rows with the rule's name, its file and line, and totals of all slots."""

    async def body() -> None:
        seen: list[Any] = []
        async with (
            peers.broker(tmp_path, on_report=lambda *report: seen.append(report)) as it,
            node(node_settings(tmp_path), it.port) as here,
        ):
            await connected(it)
            await publisher(it).publish(table("ads.example"), REVISION)
            from tests.serve.test_telemetry import record  # the writer's side, as the compiled path does it

            here.shared.counters(0)[5], here.shared.counters(1)[5] = 2, 3
            record(here.shared.ring(1), 0, rule=1, where=1, generation=1)
            await until(lambda: any(report[2] for report in seen), 4)
            name, counters, decisions, workers = next(report for report in seen if report[2])
            assert counters["blocked"] == 5 and len(workers) == 2 and name
            assert (decisions[0]["rule"], decisions[0]["where"]) == ("no-ads", "rules.d/policy.yaml:3")

    run(body())


def test_facts_follow_the_table_and_the_clock(tmp_path: Path) -> None:
    """Facts carry the prepared table's gates before COMMIT, and flip at the second at which a rule expires."""

    async def body() -> None:
        async with peers.broker(tmp_path) as it, node(node_settings(tmp_path), it.port) as here:
            await connected(it)
            assert facts.decode(here.shared.facts_read()).flags == facts.FLAG_SPECIAL_USE
            expires = int(time.time()) + 2
            always = Window((0, 1, 2, 3, 4, 5, 6), 0, 1440, "Europe/Amsterdam")
            prepared: list[facts.Facts] = []
            original = here.workers[0].say

            def say(op: str, **more: Any) -> None:
                if op == "ready":
                    prepared.append(facts.decode(here.shared.facts_read()))
                original(op, **more)

            here.workers[0].say = say  # type: ignore[method-assign]
            await publisher(it).publish(table("ads.example", window=always, expires=expires), REVISION)
            assert (prepared[0].next_generation, prepared[0].next_gates, prepared[0].gates) == (1, b"\x01\x01", b"")
            now = facts.decode(here.shared.facts_read())
            assert (now.generation, now.gates, now.next_gates) == (1, b"\x01\x01", b"")
            await until(lambda: facts.decode(here.shared.facts_read()).gates == b"\x01\x00", 4)
            assert expires <= time.time() < expires + 0.5
            await until(lambda: here.workers[0].facts == here.workers[1].facts > 1)

    run(body())


def test_sealed_memory_cannot_change() -> None:
    """Nobody can write to, shrink or grow a sealed table, nor take the seals off."""
    descriptor = os.memfd_create("policy", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, b"x" * 5000)
    seal(descriptor)
    try:
        for attempt in (
            lambda: os.write(descriptor, b"y"),
            lambda: os.ftruncate(descriptor, 10),
            lambda: os.ftruncate(descriptor, 9000),
            lambda: fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, 0x10),
            lambda: mmap.mmap(descriptor, 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
        ):
            with pytest.raises(OSError, match=r"."):
                attempt()
    finally:
        os.close(descriptor)


def _child(settings: Settings, how: str) -> tuple[int, socket.socket]:
    mine, agents_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listening.bind(("127.0.0.1", 0))
    shared = SharedMemory(1)
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            mine.close()
            inherited = Inherited([pair[0]], agents_end, shared, parent, close=[listening, pair[1]])
            code = agents.run(settings, inherited)
        finally:
            os._exit(code)
    agents_end.close()
    for sock in (*pair, listening):
        sock.close()
    return pid, mine


def _ended(pid: int, seconds: float) -> int:
    descriptor = os.pidfd_open(pid)
    import select

    ready, _, _ = select.select([descriptor], [], [], seconds)
    os.close(descriptor)
    if not ready:
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_it_ends_on_sigterm_and_with_its_supervisor(tmp_path: Path) -> None:
    """SIGTERM ends the agent with exit code 0; so does the end of its supervisor."""
    run(_make_keys(tmp_path))
    settings = node_settings(tmp_path)
    pid, mine = _child(settings, "term")
    _wait_for(Path(settings.state) / "tables")
    os.kill(pid, signal.SIGTERM)
    assert _ended(pid, 5) in (0, -signal.SIGTERM)
    mine.close()
    pid, mine = _child(settings, "gone")
    mine.close()
    assert _ended(pid, 5) == 0


async def _make_keys(base: Path) -> None:
    async with peers.broker(base):
        pass


def _wait_for(path: Path) -> None:
    import select

    for _ in range(400):
        if path.exists():
            return
        select.select([], [], [], 0.01)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])

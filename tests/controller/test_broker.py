"""The broker over real sockets: releases, latecomers, and peers that lie, flood, stall or hang up."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
import socket
import stat
import struct
from pathlib import Path
from typing import Any

import pytest

from controller import broker_keys
from controller.broker import Broker, BrokerError, CommandRefused
from controller.broker_client import BrokerClient, LinkError
from controller.broker_peer import Limits
from controller.release import ACTIVE, FAILED, REJECTED, SUPERSEDED
from dnsd.contract import frames, keys, messages
from dnsd.contract.frames import Frame
from tests.controller import broker_peers as peers
from tests.controller.broker_peers import REVISION, FakeBlobs, FakeNode, nack, publisher, until

QUICK = Limits(handshake_s=0.3, ping_s=0.1, silence_s=0.5, strangers=4, grace_s=0.1, commit_s=0.3)


def run(coroutine: Any) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(20):
            return await coroutine

    return asyncio.run(bounded())


def test_a_release_reaches_every_node(tmp_path: Path) -> None:
    """Three nodes fetch both blobs, and the result has one active row for each with its workers' digests."""

    async def body() -> None:
        blobs = FakeBlobs(os.urandom(700_000))
        async with peers.broker(tmp_path) as it, FakeNode(it, "a") as a, FakeNode(it, "b") as b, FakeNode(it, "c") as c:
            progress: list[dict[str, Any]] = []
            result = await publisher(it).publish(blobs, REVISION, on_progress=progress.append)
            assert (result.state, result.generation) == (ACTIVE, 1)
            assert [(row["node"], row["phase"]) for row in result.rows] == [(name, "active") for name in "abc"]
            assert all(w["digest"] == blobs.digest for row in result.rows for w in row["workers"])
            assert a.fetched == b.fetched == c.fetched == len(blobs.policy) + len(blobs.names)
            assert progress and progress[-1]["phase"] == "preparing"
            shown = it.snapshot()
            assert shown["active"]["revision"]["author"] == "Anna"
            assert [(n["name"], n["phase"], n["table"]) for n in shown["nodes"]] == [
                (name, "active", blobs.digest) for name in "abc"
            ]

    run(body())


def test_only_what_is_lacking_travels(tmp_path: Path) -> None:
    """An edit moves the policy blob alone, and publishing the same again moves nothing at all."""

    async def body() -> None:
        names = os.urandom(500_000)
        async with peers.broker(tmp_path) as it, FakeNode(it, "a") as a:
            it_publishes = publisher(it)
            await it_publishes.publish(FakeBlobs(b"one", names), REVISION)
            before, sent = a.fetched, it_publishes.transferred
            result = await it_publishes.publish(FakeBlobs(b"two", names), REVISION)
            assert (result.state, a.fetched - before, it_publishes.transferred - sent) == (ACTIVE, 3, 3)
            a.seen.clear()
            again = await it_publishes.publish(FakeBlobs(b"two", names), REVISION)
            assert again.state == ACTIVE and again.unchanged and again.generation == result.generation
            assert not a.seen and [row["node"] for row in again.rows] == ["a"]

    run(body())


def test_another_revision_of_the_same_table(tmp_path: Path) -> None:
    """A commit that leaves the table as it is reaches the nodes, whose answers name the revision; nothing travels."""

    async def body() -> None:
        async with peers.broker(tmp_path) as it, FakeNode(it, "a") as a:
            it_publishes = publisher(it)
            first = await it_publishes.publish(FakeBlobs(b"one"), REVISION)
            fetched, sent = a.fetched, it_publishes.transferred
            later = dataclasses.replace(REVISION, id="main@sha1:ffff", short="main@sha1:ffff")
            result = await it_publishes.publish(FakeBlobs(b"one"), later)
            assert (result.state, result.unchanged, result.generation) == (ACTIVE, False, first.generation + 1)
            assert (a.fetched, it_publishes.transferred) == (fetched, sent)
            assert it.active is not None and it.active["revision"]["short"] == later.short

    run(body())


def test_blobs_of_a_publisher_on_this_machine_are_linked(tmp_path: Path) -> None:
    """What the build child has left in the state's folder is not sent again; a file that lies is fetched after all."""

    async def body() -> None:
        good, false = FakeBlobs(b"one", os.urandom(1000)), FakeBlobs(b"two", os.urandom(1000))
        beside = tmp_path / "blobs"
        beside.mkdir()
        for data in (good.policy, good.names):
            (beside / hashlib.sha256(data).hexdigest()).write_bytes(data)
        for data in (false.policy, false.names):
            (beside / hashlib.sha256(data).hexdigest()).write_bytes(bytes(len(data)))
        async with peers.broker(tmp_path) as it, FakeNode(it, "a") as a:
            it_publishes = publisher(it)
            assert (await it_publishes.publish(good, REVISION)).state == ACTIVE
            assert it_publishes.transferred == 0 and a.table == good.digest
            assert (await it_publishes.publish(false, REVISION)).state == ACTIVE
            assert it_publishes.transferred == 1003 and a.table == false.digest

    run(body())


def test_rollback_costs_no_octet(tmp_path: Path) -> None:
    """A rollback is the previous manifest under a new generation: nothing is transferred to anybody."""

    async def body() -> None:
        async with peers.broker(tmp_path) as it, FakeNode(it, "a") as a:
            it_publishes = publisher(it)
            first = FakeBlobs(b"one")
            await it_publishes.publish(first, REVISION)
            await it_publishes.publish(FakeBlobs(b"two"), REVISION)
            before, sent = a.fetched, it_publishes.transferred
            result = await it_publishes.rollback()
            assert (result.state, result.generation, a.table) == (ACTIVE, 3, first.digest)
            assert (a.fetched, it_publishes.transferred) == (before, sent)

    run(body())


def test_one_refusal_keeps_everybody_where_they_are(tmp_path: Path) -> None:
    """A NACK from one node aborts the release for all, with that node's reasons."""

    async def body() -> None:
        async with peers.broker(tmp_path, QUICK) as it, FakeNode(it, "a") as a, FakeNode(it, "b") as b:
            good = FakeBlobs(b"good")
            await publisher(it).publish(good, REVISION)

            async def refuse(frame: Frame) -> tuple[int, dict[str, Any]]:
                return nack(frame, "rule 7: unknown action")

            b.prepare = refuse
            result = await publisher(it).publish(FakeBlobs(b"bad"), REVISION)
            assert result.state == REJECTED and result.text() == "b: rule 7: unknown action"
            await until(lambda: "ABORT" in a.seen and "ABORT" in b.seen)
            assert a.table == b.table == good.digest and it.active is not None and it.active["generation"] == 1
            b.prepare = None
            assert (await publisher(it).publish(FakeBlobs(b"better"), REVISION)).state == ACTIVE

    run(body())


def test_silence_is_not_a_veto(tmp_path: Path) -> None:
    """A node that never answers PREPARE is evicted at the deadline, and the release goes on with the others."""

    async def body() -> None:
        async with peers.broker(tmp_path, QUICK) as it, FakeNode(it, "a") as a, FakeNode(it, "mute") as mute:

            async def silent(frame: Frame) -> None:
                return None

            mute.prepare = silent
            blobs = FakeBlobs(b"x")
            result = await publisher(it).publish(blobs, REVISION, deadline_ms=200)
            phases = {row["node"]: row["phase"] for row in result.rows}
            assert (result.state, phases) == (ACTIVE, {"a": "active", "mute": "evicted"})
            await asyncio.wait_for(mute.ended.wait(), 3)
            assert a.table == blobs.digest

    run(body())


def test_nobody_ready_is_a_failure(tmp_path: Path) -> None:
    """When all nodes are silent nothing is decided: the release fails and the old one stays."""

    async def body() -> None:
        async with peers.broker(tmp_path, QUICK) as it, FakeNode(it, "mute") as mute:

            async def silent(frame: Frame) -> None:
                return None

            mute.prepare = silent
            result = await publisher(it).publish(FakeBlobs(b"x"), REVISION, deadline_ms=100)
            assert result.state == FAILED and it.active is None

    run(body())


def test_a_silent_commit_is_an_evicted_row(tmp_path: Path) -> None:
    """A node that says READY and then nothing after COMMIT is evicted; the decision stands."""

    async def body() -> None:
        async with peers.broker(tmp_path, QUICK) as it, FakeNode(it, "a"), FakeNode(it, "b") as b:
            b.commit_silently = True
            result = await publisher(it).publish(FakeBlobs(b"x"), REVISION)
            assert {row["node"]: row["phase"] for row in result.rows} == {"a": "active", "b": "evicted"}
            assert result.state == ACTIVE and it.active is not None

    run(body())


def test_the_newest_supersedes_while_preparing(tmp_path: Path) -> None:
    """A release that is being prepared is aborted at once for a newer one; one that waits is dropped unseen."""

    async def body() -> None:
        async with peers.broker(tmp_path) as it, FakeNode(it, "a") as a:
            held = asyncio.Event()

            async def hold(frame: Frame) -> None:
                if frame.message["manifest"]["table"] == first.digest:
                    held.set()
                    await asyncio.sleep(30)
                a.prepare = None
                await a._prepare(frame)

            a.prepare = hold
            first, second, third = FakeBlobs(b"1"), FakeBlobs(b"2"), FakeBlobs(b"3")
            loop = asyncio.get_running_loop()
            begun = loop.time()
            one = asyncio.create_task(publisher(it).publish(first, REVISION))
            await held.wait()
            two = asyncio.create_task(publisher(it).publish(second, REVISION))
            three = asyncio.create_task(publisher(it).publish(third, REVISION))
            results = [await one, await two, await three]
            assert results[0].state == SUPERSEDED and "ABORT" in a.seen
            assert sorted(r.state for r in results[1:]) in ([ACTIVE, ACTIVE], [ACTIVE, SUPERSEDED])
            newest = max(results, key=lambda r: r.generation)
            assert newest.state == ACTIVE and it.active is not None and it.active["digest"] == newest.digest
            assert loop.time() - begun < 5, "nobody waits for what is superseded"

    run(body())


def test_two_publishers_cannot_fight(tmp_path: Path) -> None:
    """A generation that is not above the newest, and another epoch, are refused as stale."""

    async def body() -> None:
        async with peers.broker(tmp_path) as it:
            await publisher(it).publish(FakeBlobs(b"x"), REVISION)
            secret = peers.key(tmp_path, "publisher")
            async with await BrokerClient.connect(f"127.0.0.1:{it.port}", secret, "publisher") as client:
                message = {
                    "generation": 1, "epoch": client.challenge["epoch"], "reason": "commit", "revision": {},
                    "manifest": client.welcome["active"]["manifest"], "deadline_ms": 1000,
                }  # fmt: skip
                for wrong in (message, {**message, "generation": 2, "epoch": "another"}):
                    with pytest.raises(Exception, match="newest") as caught:
                        await client.ask(messages.PUBLISH, wrong, 3)
                    assert caught.value.code == "stale_generation"  # type: ignore[attr-defined]

    run(body())


def test_latecomers_are_brought_to_the_active_release(tmp_path: Path) -> None:
    """Without nodes a release is active with no rows; a node that comes later gets it, one that has it gets nothing."""

    async def body() -> None:
        blobs = FakeBlobs(b"x")
        async with peers.broker(tmp_path) as it:
            result = await publisher(it).publish(blobs, REVISION)
            assert (result.state, result.rows) == (ACTIVE, ())
            async with FakeNode(it, "late") as late:
                await until(lambda: late.table == blobs.digest)
                await until(lambda: it.snapshot()["nodes"][0]["phase"] == "active")
            have = {"generation": 1, "digest": result.digest, "epoch": "e"}
            async with FakeNode(it, "back", have=have) as back:
                await asyncio.sleep(0.05)
                assert not back.seen
                assert [n["phase"] for n in it.snapshot()["nodes"]] == ["active", "gone"]

    run(body())


def test_a_latecomer_that_refuses_is_degraded_and_not_asked_again(tmp_path: Path) -> None:
    """A node that NACKs the active release is shown as degraded; there is no NACK loop."""

    async def body() -> None:
        async with peers.broker(tmp_path) as it:
            await publisher(it).publish(FakeBlobs(b"x"), REVISION)
            node = FakeNode(it, "n")

            async def refuse(frame: Frame) -> tuple[int, dict[str, Any]]:
                return nack(frame, "too old")

            node.prepare = refuse
            async with node:
                await until(lambda: it.snapshot()["nodes"][0]["phase"] == "degraded")
                await asyncio.sleep(0.1)
                assert node.seen.count("PREPARE") == 1
                assert it.snapshot()["nodes"][0]["errors"][0]["message"] == "too old"

    run(body())


def test_the_decision_survives_a_restart(tmp_path: Path) -> None:
    """Epoch, generation, manifest and blobs are on disk; the next broker brings nodes to them without a publisher."""

    async def body() -> None:
        blobs = FakeBlobs(os.urandom(300_000))
        async with peers.broker(tmp_path) as it:
            await publisher(it).publish(blobs, REVISION)
            epoch = it.snapshot()["epoch"]
        async with peers.broker(tmp_path) as it, FakeNode(it, "n") as node:
            await until(lambda: node.table == blobs.digest)
            assert it.snapshot()["epoch"] == epoch
            assert (await publisher(it).publish(FakeBlobs(b"y"), REVISION)).generation == 2

    run(body())


def test_a_damaged_blob_is_fetched_again(tmp_path: Path) -> None:
    """A blob that a power loss damaged is not served; the publisher's next release brings it back."""

    async def body() -> None:
        blobs = FakeBlobs(b"x" * 1000)
        async with peers.broker(tmp_path) as it:
            await publisher(it).publish(blobs, REVISION)
        for path in (tmp_path / "broker" / "blobs").iterdir():
            path.write_bytes(bytes(path.stat().st_size))
        async with peers.broker(tmp_path) as it, FakeNode(it, "n") as node:
            await asyncio.sleep(0.05)
            assert not node.seen
            result = await publisher(it).publish(blobs, REVISION)
            assert result.state == ACTIVE and result.unchanged
            await until(lambda: node.table == blobs.digest)

    run(body())


def test_damaged_state_is_kept_aside(tmp_path: Path) -> None:
    """An unreadable active.json is moved aside and said; the broker begins with a new epoch."""

    async def body() -> None:
        (tmp_path / "broker").mkdir()
        (tmp_path / "broker" / "active.json").write_text('{"active": 5')
        async with peers.broker(tmp_path) as it:
            assert "active.json.damaged" in it.warning and it.active is None
            assert (tmp_path / "broker" / "active.json.damaged").exists()

    run(body())


def test_a_publisher_that_lies_about_a_blob_fails_alone(tmp_path: Path) -> None:
    """Octets that do not have their digest are refused, nothing changes, and the next release works."""

    async def body() -> None:
        async with peers.broker(tmp_path) as it, FakeNode(it, "a") as a:
            liar = publisher(it)
            serve = liar._serve_blob
            liar._serve_blob = lambda client, frame, data: serve(  # type: ignore[method-assign]
                client, frame, {d: b"?" * len(octets) for d, octets in data.items()}
            )
            result = await liar.publish(FakeBlobs(b"x"), REVISION)
            assert result.state == FAILED and result.errors[0]["code"] == "digest_mismatch" and not a.seen
            assert (await publisher(it).publish(FakeBlobs(b"x"), REVISION)).state == ACTIVE

    run(body())


def test_a_node_that_serves_another_table_is_degraded(tmp_path: Path) -> None:
    """A worker's own digest is believed, not what it was told: another one than the manifest's shows."""

    async def body() -> None:
        async with peers.broker(tmp_path) as it, FakeNode(it, "a") as a:
            a.rows = lambda: [{"slot": 0, "pid": 1, "state": "serving", "digest": "f" * 64}]  # type: ignore[method-assign]
            await publisher(it).publish(FakeBlobs(b"x"), REVISION)
            shown = it.snapshot()["nodes"][0]
            assert shown["phase"] == "degraded" and "another table" in shown["errors"][0]["message"]

    run(body())


# --- hostile peers ----------------------------------------------------------------------------------------------------


async def _closed(reader: asyncio.StreamReader, seconds: float = 3) -> bytes:
    data = b""
    async with asyncio.timeout(seconds):
        while chunk := await _read(reader):
            data += chunk
    return data


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(65536)
    except ConnectionError:
        return b""


@pytest.mark.parametrize(
    ("octets", "counted"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "bad_frame"),
        (frames.PREFACE + struct.pack(">IBBHI", 1 << 30, 2, 0, 0, 0), "too_large"),
        (frames.PREFACE + struct.pack(">IBBHI", 4097, 2, 0, 0, 0), "too_large"),
        (frames.PREFACE + frames.encode_frame(messages.PING, b"{}"), "not_permitted"),
        (frames.PREFACE + frames.encode_frame(messages.HELLO, b"\xff" * 64), "auth_failed"),
        (frames.PREFACE[:4] + struct.pack(">HH", 2, 9), "unsupported_version"),
        (b"", "handshake_timeout"),
        (frames.PREFACE + b"\x00\x00", "handshake_timeout"),
    ],
)
def test_strangers_are_closed_and_counted(tmp_path: Path, octets: bytes, counted: str) -> None:
    """Whoever talks nonsense, too much, or nothing is closed within the deadline and counted; others do not notice."""

    async def body() -> None:
        async with peers.broker(tmp_path, QUICK) as it, FakeNode(it, "a"):
            reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
            writer.write(octets)
            await _closed(reader)
            assert it.refused[counted] == 1
            writer.close()
            assert (await publisher(it).publish(FakeBlobs(b"x"), REVISION)).state == ACTIVE

    run(body())


def test_a_crowd_of_strangers_does_not_keep_nodes_out(tmp_path: Path) -> None:
    """Beyond the limit the stranger that has waited longest is closed at once, so that whoever has a key gets in."""

    async def body() -> None:
        async with peers.broker(tmp_path, QUICK) as it:
            crowd = [await asyncio.open_connection("127.0.0.1", it.port) for _ in range(12)]
            await until(lambda: it.refused["too_many"] >= 8)
            assert it.refused["handshake_timeout"] == 0
            async with FakeNode(it, "a"):
                assert it.refused["too_many"] == 9
            await until(lambda: it.refused["handshake_timeout"] == 3)
            for _, writer in crowd:
                writer.close()

    run(body())


def test_wrong_keys_and_borrowed_roles_get_one_answer(tmp_path: Path) -> None:
    """An unknown key, a wrong secret and a key of another role are all `auth_failed`, without details."""

    async def body() -> None:
        async with peers.broker(tmp_path) as it:
            hook = peers.key(tmp_path, "hook")
            for false, role in (
                (keys.Key("nobody", ("publisher",), bytes(32)), "publisher"),
                (keys.Key("publisher", ("publisher",), bytes(32)), "publisher"),
                (hook, "publisher"),
            ):
                with pytest.raises(LinkError, match=r"authentication failed$"):
                    await BrokerClient.connect(f"127.0.0.1:{it.port}", false, role)
            assert it.refused["auth_failed"] == 3

    run(body())


def test_a_false_broker_is_found_out(tmp_path: Path) -> None:
    """Something that listens on the broker's port without knowing the key is not believed."""

    async def body() -> None:
        async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            codec = frames.Server({"node": keys.Key("node", ("node",), bytes(32))}, bytes(32), server="x", epoch="e")
            codec.receive(await reader.readexactly(8))
            writer.write(codec.data_to_send())
            await reader.read(4096)
            welcome = b'{"active":{"generation":0},"newest":0}'
            writer.write(frames.encode_frame(messages.WELCOME, welcome + bytes(32)))

        server = await asyncio.start_server(impostor, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(LinkError, match="does not know our key"):
            await BrokerClient.connect(f"127.0.0.1:{port}", keys.Key("node", ("node",), b"k" * 32), "node")
        server.close()

    run(body())


def test_roles_are_kept(tmp_path: Path) -> None:
    """A hook that publishes and a node that sends an event are closed with `not_permitted`."""

    async def body() -> None:
        async with peers.broker(tmp_path) as it:
            async with await BrokerClient.connect(f"127.0.0.1:{it.port}", peers.key(tmp_path, "hook"), "hook") as hook:
                with pytest.raises(LinkError, match="PUBLISH is not for the role hook"):
                    message = {
                        "generation": 9, "epoch": "", "reason": "commit", "revision": {}, "deadline_ms": 1,
                        "manifest": {"format": "rt/1", "settings": {}, "table": "0" * 64,
                                     "blobs": [{"name": "names", "digest": "0" * 64, "size": 0}]},
                    }  # fmt: skip
                    await hook.ask(messages.PUBLISH, message, 3)
            async with FakeNode(it, "a") as node:
                node.send(messages.EVENT, {"source": "x", "reason": "y"})
                await asyncio.wait_for(node.ended.wait(), 3)
            assert it.refused["not_permitted"] == 2

    run(body())


def test_a_stalled_node_is_closed_and_the_others_go_on(tmp_path: Path) -> None:
    """A node that asks for data and does not read it is closed as silent; a release to the others is not held up."""

    async def body() -> None:
        async with peers.broker(tmp_path, QUICK) as it, FakeNode(it, "good"):
            big = FakeBlobs(os.urandom(2 << 20))
            await publisher(it).publish(big, REVISION)
            async with FakeNode(it, "stalled") as stalled:
                await until(lambda: stalled.table == big.digest)
                for task in stalled.tasks:
                    task.cancel()
                digest = next(iter(stalled.blobs))
                for offset in range(200):
                    stalled.send(messages.GET, {"digest": digest, "offset": offset, "length": 256 << 10})
                result = await publisher(it).publish(FakeBlobs(b"next"), REVISION, deadline_ms=400)
                assert {r["node"]: r["phase"] for r in result.rows}["good"] == "active"
                await until(lambda: not it.snapshot()["nodes"][1]["connected"])

    run(body())


def test_silence_is_noticed_and_pings_keep_a_connection(tmp_path: Path) -> None:
    """A peer that answers pings stays; one that does not is closed after the silence limit and counted."""

    async def body() -> None:
        async with peers.broker(tmp_path, QUICK) as it, FakeNode(it, "quiet") as quiet:
            await asyncio.sleep(0.8)
            assert not quiet.ended.is_set() and quiet.seen.count("PING") >= 3
            quiet._frame = lambda frame: None  # type: ignore[method-assign]
            await asyncio.wait_for(quiet.ended.wait(), 3)
            assert it.refused["silent"] == 1

    run(body())


def test_a_node_that_comes_twice_replaces_itself(tmp_path: Path) -> None:
    """The newer connection of one node name is the one that counts; the older one is closed."""

    async def body() -> None:
        async with peers.broker(tmp_path) as it, FakeNode(it, "a") as old, FakeNode(it, "a") as new:
            await asyncio.wait_for(old.ended.wait(), 3)
            blobs = FakeBlobs(b"x")
            await publisher(it).publish(blobs, REVISION)
            assert new.table == blobs.digest
            assert [n["connected"] for n in it.snapshot()["nodes"]] == [True]

    run(body())


# --- reports, events, commands, observers -----------------------------------------------------------------------------


def test_reports_reach_the_callback(tmp_path: Path) -> None:
    """A REPORT's counters, decisions and workers arrive, and the snapshot shows them."""

    async def body() -> None:
        seen: list[tuple[Any, ...]] = []
        async with (
            peers.broker(tmp_path, on_report=lambda *report: seen.append(report)) as it,
            FakeNode(it, "a") as node,
        ):
            report = {"counters": {"blocked": 7}, "workers": node.rows(), "decisions": [{"qname": "x"}], "dropped": 0}
            node.send(messages.REPORT, report, ignorable=True)
            await until(lambda: seen)
            assert seen[0][:3] == ("a", {"blocked": 7}, [{"qname": "x"}]) and len(seen[0][3]) == 2
            assert it.snapshot()["nodes"][0]["counters"] == {"blocked": 7}

    run(body())


def test_a_report_cannot_poison_the_snapshot(tmp_path: Path) -> None:
    """Deep or huge rows in a report are cut to short scalars, so that a release's result can still be written."""

    async def body() -> None:
        deep: Any = 1
        for _ in range(11):
            deep = [deep]
        async with peers.broker(tmp_path) as it, FakeNode(it, "a") as node:
            node.rows = lambda: [{"slot": 0, "pid": 1, "deep": deep, "long": "x" * 4000}]  # type: ignore[method-assign]
            result = await publisher(it).publish(FakeBlobs(b"x"), REVISION)
            assert result.state == ACTIVE and result.rows[0]["workers"] == [{"slot": 0, "pid": 1}]

    run(body())


def test_events_are_coalesced_and_reach_the_node(tmp_path: Path) -> None:
    """Events of one interface within 250 ms become one, callers are answered at once, the node of that machine is told,
    a renewal that changes nothing is only counted, and a node that comes later is told what holds."""

    async def body() -> None:
        told: list[dict[str, Any]] = []
        async with peers.broker(tmp_path, on_event=told.append) as it, FakeNode(it, socket.gethostname()) as node:
            bound = {"source": "dhclient", "reason": "BOUND", "interface": "eth0", "kind": "up", "lease": "dhcp4",
                     "new": ["10.0.0.5/24"], "dns": ["10.0.0.1"]}  # fmt: skip
            answers = []
            for message in ({**bound, "new": ["10.0.0.4/24"]}, bound, {**bound, "interface": "eth1"}):
                async with await BrokerClient.connect(
                    f"127.0.0.1:{it.port}", peers.key(tmp_path, "hook"), "hook"
                ) as hook:
                    answers.append((await hook.ask(messages.EVENT, message, 3)).message["coalesced"])
            assert answers == [False, True, False] and not told
            await until(lambda: len(told) == 2)
            assert {e["interface"]: (e["kind"], e["new"]) for e in told} == {
                "eth0": ("up", ["10.0.0.5/24"]), "eth1": ("up", ["10.0.0.5/24"]),
            }  # fmt: skip
            await until(lambda: node.seen.count("EVENT") == 2)
            it.event(socket.gethostname(), {**bound, "reason": "RENEW", "kind": "same"})
            await until(lambda: it.snapshot()["events"].get("unchanged") == 1)
            assert len(told) == 2 and node.seen.count("EVENT") == 2
            assert it.snapshot()["events"]["coalesced"] == 1
            async with FakeNode(it, socket.gethostname() + "-0001") as late:
                await until(lambda: late.seen.count("EVENT") == 2)

    run(body())


def test_an_event_of_another_machine_is_not_for_everybody(tmp_path: Path) -> None:
    """Where several nodes are known, a machine's lease is told to that machine's node alone."""

    async def body() -> None:
        async with peers.broker(tmp_path) as it, FakeNode(it, "a-0001") as a, FakeNode(it, "b-0001") as b:
            it.event("a", {"source": "udhcpc", "reason": "bound", "interface": "eth0", "new": ["10.0.0.5"]})
            await until(lambda: "EVENT" in a.seen)
            assert "EVENT" not in b.seen

    run(body())


def test_a_node_may_report_events(tmp_path: Path) -> None:
    """What a node saw itself comes in its REPORT; rows that are no events are left out."""

    async def body() -> None:
        told: list[dict[str, Any]] = []
        async with peers.broker(tmp_path, on_event=told.append) as it, FakeNode(it, "a") as node:
            event = {"source": "kernel", "reason": "address", "interface": "eth0", "new": ["10.0.0.5/24"]}
            rows = [{**event, "duration_ms": 3, "queries": 70, "odd": [[]]}, {"source": 1}, {**event, "new": ["x y"]}]
            report = {"counters": {}, "workers": node.rows(), "decisions": [], "dropped": 0, "events": rows}
            node.send(messages.REPORT, report, ignorable=True)
            await until(lambda: told)
            assert told == [{"node": "a", **event, "duration_ms": 3, "queries": 70}]

    run(body())


def test_commands_are_answered_or_refused_in_words(tmp_path: Path) -> None:
    """An operator's verb reaches the callback; its answer or its refusal comes back, also when it stumbles."""

    async def body() -> None:
        async def command(verb: str, arguments: dict[str, Any]) -> dict[str, Any]:
            if verb == "retry":
                raise CommandRefused("there is nothing to try again")
            if verb == "resume":
                raise ZeroDivisionError
            return {"did": verb, **arguments}

        async with peers.broker(tmp_path, on_command=command) as it:
            async with await BrokerClient.connect(
                f"127.0.0.1:{it.port}", peers.key(tmp_path, "operator"), "operator"
            ) as operator:
                done = await operator.ask(messages.COMMAND, {"verb": "sync", "now": 1}, 3)
                assert done.message == {"verb": "sync", "did": "sync", "now": 1}
                with pytest.raises(Exception, match="nothing to try again"):
                    await operator.ask(messages.COMMAND, {"verb": "retry"}, 3)
                with pytest.raises(Exception, match="resume failed"):
                    await operator.ask(messages.COMMAND, {"verb": "resume"}, 3)

    run(body())


def test_observers_see_changes(tmp_path: Path) -> None:
    """WATCH gives the whole state at once, and again when it changes."""

    async def body() -> None:
        states: list[dict[str, Any]] = []
        async with (
            peers.broker(tmp_path) as it,
            await BrokerClient.connect(f"127.0.0.1:{it.port}", peers.key(tmp_path, "observer"), "observer") as observer,
        ):
            observer.on_frame = lambda frame: states.append(frame.message["state"])
            first = await observer.ask(messages.WATCH, {}, 3)
            assert first.message["state"]["active"] is None
            await publisher(it).publish(FakeBlobs(b"x"), REVISION)
            await until(lambda: any(s["active"] for s in states))

    run(body())


# --- start ------------------------------------------------------------------------------------------------------------


def test_beyond_loopback_is_refused(tmp_path: Path) -> None:
    """Without TLS the broker does not listen on an address that others can reach."""
    for listen in ("0.0.0.0:5338", "192.0.2.1:5338", "eth0:5338", "*:5338"):
        settings = peers.node_settings(tmp_path)
        settings = dataclasses.replace(settings, broker=dataclasses.replace(settings.broker, listen=listen))
        with pytest.raises(BrokerError, match=r"needs TLS|is not an address"):
            run(Broker(settings).start())


def test_a_busy_port_is_one_sentence(tmp_path: Path) -> None:
    """A second broker on the same port says so, and what to do."""

    async def body() -> None:
        async with peers.broker(tmp_path) as it:
            settings = peers.node_settings(tmp_path, broker={"listen": f"127.0.0.1:{it.port}"})
            with pytest.raises(BrokerError, match=r"in use.*another controller"):
                await Broker(settings).start()

    run(body())


def test_keys_are_made_closed_and_refused_open(tmp_path: Path) -> None:
    """The first start makes a key for each role, mode 0600; a file that others may read is refused with the remedy."""
    path = tmp_path / "deep" / "broker.keys"
    made = broker_keys.load_or_make(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and set(made) == set(keys.ROLES)
    assert broker_keys.load_or_make(str(path)) == made
    path.chmod(0o644)
    with pytest.raises(keys.KeysError, match="run `chmod 600 "):
        broker_keys.load(str(path))

"""Publishing: what the pipeline gets back, the probe, and the operator's commands."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from controller import release
from controller.release import ACTIVE, FAILED, CommandError
from tests.controller import broker_peers as peers
from tests.controller.broker_peers import REVISION, FakeBlobs, FakeNode, publisher


def run(coroutine: Any) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(20):
            return await coroutine

    return asyncio.run(bounded())


def test_without_a_broker_publishing_fails_in_words(tmp_path: Path) -> None:
    """No key file, then no broker: a failed result that says so; nothing is raised."""

    async def body() -> None:
        it = release.Publisher(peers.node_settings(tmp_path), address="127.0.0.1:1")
        result = await it.publish(FakeBlobs(b"x"), REVISION)
        assert result.state == FAILED and "start the controller" in result.text()
        async with peers.broker(tmp_path):
            pass
        result = await it.publish(FakeBlobs(b"x"), REVISION)
        assert result.state == FAILED and "is the controller running?" in result.text()

    run(body())


def test_a_failed_probe_brings_the_previous_table_back(tmp_path: Path) -> None:
    """What answered before and not after the release: the previous manifest under a new generation, marked bad."""

    async def body() -> None:
        async with peers.broker(tmp_path) as it, FakeNode(it, "a") as node:
            healthy = FakeBlobs(b"healthy")
            broken = FakeBlobs(b"broken")

            async def probe(listen: tuple[str, ...]) -> frozenset[str]:
                return frozenset() if node.table == broken.digest else frozenset(listen)

            it_publishes = publisher(it, probe)
            first = await it_publishes.publish(healthy, REVISION)
            assert first.state == ACTIVE
            result = await it_publishes.publish(broken, REVISION)
            assert (result.state, result.generation, result.rolled_back) == (FAILED, 2, 3)
            assert "previous table is serving again" in result.text() and result.digest in it_publishes.bad
            assert node.table == healthy.digest and it.active is not None and it.active["reason"] == "rollback"

    run(body())


def test_what_never_answered_is_no_reason_to_go_back(tmp_path: Path) -> None:
    """A listen address that did not answer before the release does not fail its probe; a slow one holds nothing up."""

    async def body() -> None:
        async with peers.broker(tmp_path) as it, FakeNode(it, "a"):

            async def stuck(listen: tuple[str, ...]) -> frozenset[str]:
                await asyncio.sleep(60)
                raise AssertionError

            assert (await publisher(it, stuck).publish(FakeBlobs(b"x"), REVISION)).state == ACTIVE

    run(body())


def test_there_must_be_something_to_go_back_to(tmp_path: Path) -> None:
    """A rollback before the second release is refused in words."""

    async def body() -> None:
        async with peers.broker(tmp_path) as it:
            await publisher(it).publish(FakeBlobs(b"x"), REVISION)
            result = await publisher(it).rollback()
            assert result.state == FAILED and "no release before" in result.text()

    run(body())


def test_the_probe_asks_the_real_socket() -> None:
    """Whoever answers with the same id and the QR bit counts; a closed port, an interface and nonsense do not."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    here = f"127.0.0.1:{sock.getsockname()[1]}"

    def answer() -> None:
        query, peer = sock.recvfrom(512)
        sock.sendto(b"\x00\x00" + query[2:], peer)  # another id: not believed
        sock.sendto(query[:2] + b"\x80\x05" + query[4:], peer)

    thread = threading.Thread(target=answer)
    thread.start()
    answered = run(release.ask_version((here, "127.0.0.1:1", "eth0:53", "nonsense")))
    thread.join()
    sock.close()
    assert answered == {here}


def test_commands_reach_the_controller(tmp_path: Path) -> None:
    """`command` proves the operator's key; refusals and a controller that is away are one sentence."""

    async def body() -> None:
        async with peers.broker(tmp_path, on_command=lambda verb, arguments: {"said": verb}) as it:
            settings = peers.node_settings(tmp_path)
            there = dataclasses.replace(settings.broker, connect=f"127.0.0.1:{it.port}")
            there_settings = dataclasses.replace(settings, broker=there)
            assert await release.send_command(there_settings, "sync") == {"verb": "sync", "said": "sync"}
            assert (await asyncio.to_thread(release.command, there_settings, "resume"))["said"] == "resume"
        with pytest.raises(CommandError, match="is the controller running"):
            await release.send_command(peers.node_settings(tmp_path), "sync")

    run(body())

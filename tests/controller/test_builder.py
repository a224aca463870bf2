"""The build child: warm, cancellable, replaceable, and never able to hurt the controller."""

from __future__ import annotations

import asyncio
import os
import pathlib
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from controller import build, builder
from controller.builder import Builder, BuilderCrash
from controller.ruleset import Revision, Snapshot

CHILD = str(pathlib.Path(__file__).with_name("build_child.py"))


def read(path: str, relative_to: str) -> bytes:
    if path == "ads.txt":
        return b"ads.example\n"
    raise FileNotFoundError(2, "No such file")


def snapshot(text: str) -> Snapshot:
    return Snapshot(Revision("r@sha256:1", "r@sha256:1"), {"rules.d/a.yaml": text.encode()}, read)


def play(
    folder: pathlib.Path, scene: Callable[[Builder], Coroutine[Any, Any, None]], cancel_s: float = builder.CANCEL_S
) -> None:
    async def act() -> None:
        one = Builder(str(folder), [CHILD], cancel_s)
        try:
            async with asyncio.timeout(20):
                await scene(one)
        finally:
            await one.stop()

    asyncio.run(act())


def test_a_product(tmp_path: pathlib.Path) -> None:
    """A build tells its stages, keeps the blobs under their SHA-256, and reports what it read."""

    async def scene(one: Builder) -> None:
        stages: list[str] = []
        product = await one.build(snapshot("read print"), stages.append)
        assert product.ok and stages == ["valid", "compiled", "tested"]
        assert product.reads == (("ads.txt", "rules.d/a.yaml"),)
        data = pathlib.Path(product.names).read_bytes()
        assert data == b"names" and pathlib.Path(product.names).parent == tmp_path / "blobs"
        pid = one.pid
        again = await one.build(snapshot("read print"))
        assert again == product and one.pid == pid

    play(tmp_path, scene)


def test_an_unchanged_list_is_not_sent_again(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child keeps what it was sent; equal octets are told by a word, also after a cancelled build."""
    sent: list[int] = []
    tell = Builder._tell

    async def counting(self: Builder, message: dict[str, Any], *payloads: bytes) -> None:
        if "op" not in message:
            sent.append(sum(map(len, payloads)))
        await tell(self, message, *payloads)

    monkeypatch.setattr(Builder, "_tell", counting)

    async def scene(one: Builder) -> None:
        for _ in range(3):
            assert (await one.build(snapshot("read"))).ok
        assert sent == [12, 0, 0]
        assert (await one.build(snapshot("print"))).ok  # nobody reads the list: it is forgotten
        assert (await one.build(snapshot("read"))).ok
        await _cancelled(one, "read sleep")
        assert sent == [12, 0, 0, 12, 0, 0]

    play(tmp_path, scene, cancel_s=5)


def test_a_refusal(tmp_path: pathlib.Path) -> None:
    """Errors come back as text; a file that is missing is missing in the child, too."""

    async def scene(one: Builder) -> None:
        product = await one.build(snapshot("bad missing"))
        assert (product.ok, product.errors) == (False, 2)
        assert product.text == "rules.d/a.yaml:1:1: bad\nNo such file 2\n"
        assert product.reads == (("none.txt", "rules.d/a.yaml"),)

    play(tmp_path, scene)


async def _cancelled(one: Builder, text: str) -> float:
    task = asyncio.create_task(one.build(snapshot(text)))
    await asyncio.sleep(0.2)
    started = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await one.build(snapshot("read"))).ok
    return time.monotonic() - started


def test_a_cancelled_build_leaves_the_child_warm(tmp_path: pathlib.Path) -> None:
    """A superseded build ends at once, and the same child takes the next one."""

    async def scene(one: Builder) -> None:
        await one.start()
        pid = one.pid
        assert await _cancelled(one, "sleep") < 4
        assert one.pid == pid

    play(tmp_path, scene, cancel_s=5)  # the machine may be busy, the child must not be killed for that


def test_a_deaf_build_is_killed(tmp_path: pathlib.Path) -> None:
    """A build that heeds no signal is killed and replaced."""

    async def scene(one: Builder) -> None:
        await one.start()
        pid = one.pid
        await _cancelled(one, "deaf")
        assert one.pid != pid

    play(tmp_path, scene)


def test_cancelled_while_a_list_is_read(tmp_path: pathlib.Path) -> None:
    """Cancelling while the controller still reads a list for the child leaves the two in step."""

    async def scene(one: Builder) -> None:
        def slow(path: str, relative_to: str) -> bytes:
            time.sleep(0.3)
            return b"x"

        await one.start()
        waiting = Snapshot(Revision("r", "r"), {"a.yaml": b"read"}, slow)
        task = asyncio.create_task(one.build(waiting))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait([task])
        assert (await one.build(snapshot("read"))).ok

    play(tmp_path, scene, cancel_s=5)


def test_a_crash_is_retried_once(tmp_path: pathlib.Path) -> None:
    """A child that crashed by accident is asked again; one that crashes again refuses with its last words."""

    async def scene(one: Builder) -> None:
        assert (await one.build(snapshot("diefirst"))).ok
        with pytest.raises(BuilderCrash, match=r"ended with 7:\nfamous last words"):
            await one.build(snapshot("die"))
        with pytest.raises(BuilderCrash, match="ValueError: surprise"):
            await one.build(snapshot("raise"))
        assert (await one.build(snapshot("read"))).ok

    play(tmp_path, scene)


def test_a_child_without_its_parent_ends(tmp_path: pathlib.Path) -> None:
    """When the pipe closes, the child ends by itself."""

    async def scene(one: Builder) -> None:
        await one.start()
        process = one._process
        assert process is not None and process.stdin is not None
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), 5) == 0

    play(tmp_path, scene)


def test_blobs_are_bounded(tmp_path: pathlib.Path) -> None:
    """Only the blobs used last are kept, a blob is written once, and half a blob is written anew."""
    folder = str(tmp_path / "blobs")
    digests = [build.store(folder, bytes([number])) for number in range(build.KEPT_BLOBS + 4)]
    for number, digest in enumerate(digests):
        os.utime(os.path.join(folder, digest), (number, number))
    build.sweep(folder)
    assert sorted(os.listdir(folder)) == sorted(digests[4:])
    path = os.path.join(folder, digests[-1])
    with open(path, "wb"):
        pass
    assert build.store(folder, bytes([build.KEPT_BLOBS + 3])) == digests[-1]
    assert os.path.getsize(path) == 1


def test_a_disk_that_takes_no_table(tmp_path: pathlib.Path) -> None:
    """What the disk does not take is said in words for people, and it is not a mistake of the rules or of ours."""

    async def scene() -> None:
        (tmp_path / "blobs").write_text("a file where a folder should be")
        one = Builder(str(tmp_path))
        try:
            with pytest.raises(builder.TableNotKept, match=r"the rules are right, but .*; mend it, then run `nexoral"):
                await one.build(snapshot("version: 1\n"))
            (tmp_path / "blobs").unlink()
            assert (await one.build(snapshot("version: 1\n"))).ok
        finally:
            await one.stop()

    asyncio.run(scene())


def test_the_real_child_is_warm(tmp_path: pathlib.Path) -> None:
    """With the real checks and compiler: the second build of small rules is a matter of milliseconds, the same rules
    give the same blobs, an edit leaves the names of the lists alone, and a refusal is in the words of check."""

    async def act() -> None:
        one = Builder(str(tmp_path))
        try:
            await one.start()
            rules = "version: 1\nlists: {ads: {file: ads.txt}}\nrules:\n  - {name: x, block: [list:ads, y.example]}\n"
            first = await one.build(snapshot(rules))
            started = time.monotonic()
            second = await one.build(snapshot(rules.replace("y.example", "z.example")))
            took_s = time.monotonic() - started
            assert first.ok and second.ok, first.text + second.text
            assert first.names == second.names and first.policy != second.policy
            assert await one.build(snapshot(rules)) == first
            assert took_s < 0.2, f"{took_s * 1000:.0f} ms"
            bad = await one.build(snapshot("version: 1\nrules:\n  - {name: x, block: [list:none]}\n"))
            assert not bad.ok and "error[E021]" in bad.text and "rules.d/a.yaml:3:" in bad.text
            tests = "tests:\n  - {name: t, query: {name: y.example}, expect: {action: allow}}\n"
            failing = await one.build(snapshot(rules + tests))
            assert not failing.ok and failing.tests == 1 and "error[E040]" in failing.text
            assert "rules.d/a.yaml:6:" in failing.text
        finally:
            await one.stop()

    asyncio.run(act())


def test_a_long_build_is_preempted(tmp_path: pathlib.Path) -> None:
    """Three million names in the making do not hold up the small rules that come after them."""
    names = b"".join(b"0.0.0.0 host%d.example\n" % number for number in range(3_000_000))

    def long_list(path: str, relative_to: str) -> bytes:
        return names

    async def act() -> None:
        one = Builder(str(tmp_path))
        try:
            await one.start()
            rules = b"version: 1\nlists: {ads: {file: ads.txt}}\nrules:\n  - {name: x, block: [list:ads]}\n"
            task = asyncio.create_task(one.build(Snapshot(Revision("r", "r"), {"a.yaml": rules}, long_list)))
            await asyncio.sleep(0.3)
            started = time.monotonic()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert (await one.build(snapshot("version: 1\n"))).ok
            assert time.monotonic() - started < 2.0
        finally:
            await one.stop()

    asyncio.run(act())

"""The controller's end of the build child: start it, feed it, cancel it, replace it, and say what it said.

Nothing heavy happens in this process: the loop never waits for a build, and a build that goes wrong takes only the
child with it. A superseded build is cancelled by a signal, so that the child stays warm; one that does not heed it
is killed.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from controller.ruleset import Snapshot

log = structlog.get_logger("builder")

_LENGTH = 4
_FRAME_LIMIT = 64 << 20
CANCEL_S = 0.25  # how long a cancelled build may take to notice
START_S = 60.0


@dataclasses.dataclass(frozen=True, slots=True)
class Product:
    """What a build made. `ok` false: refused, with the diagnostics in `text`. Paths are of files named by SHA-256.

    `reads` are the (path, relative_to) of every file that was read besides the rule files, found or not.
    """

    ok: bool
    text: str = ""
    errors: int = 0
    warnings: int = 0
    tests: int = 0
    digest: str = ""
    meaning: str = ""
    policy: str = ""
    names: str = ""
    reads: tuple[tuple[str, str], ...] = ()


class BuilderCrash(Exception):
    """The child ended in the middle of a build; `str()` has its last words."""


class TableNotKept(BuilderCrash):
    """The rules were built, and the disk did not take the table; the text is for people."""


class Builder:
    """One warm child. Use `build` from one task at a time; cancelling that task cancels the build."""

    def __init__(
        self, state: str, words: Sequence[str] = ("-m", "controller.build"), cancel_s: float = CANCEL_S
    ) -> None:
        self.folder = os.path.join(state, "blobs")
        self._command = tuple(words)
        self._cancel_s = cancel_s
        self._process: asyncio.subprocess.Process | None = None
        self._words: collections.deque[str] = collections.deque(maxlen=12)
        self._heard: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._owes_read = False
        # What the child was sent for each file last: it keeps it, and unchanged octets are not sent again.
        self._sent: dict[tuple[str, str], bytes] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._next = 0
        self._lock = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Start the child unless it runs, and wait until it is warm. Raises BuilderCrash."""
        if self._process is not None and self._process.returncode is None:
            return
        await self.stop()
        self._words.clear()
        environment = dict(os.environ)
        root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH", ""))))
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, *self._command, self.folder,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=environment, limit=1 << 20,
        )  # fmt: skip
        self._heard, self._owes_read, self._sent = asyncio.Queue(), False, {}
        self._tasks = [
            asyncio.create_task(self._hear_all(self._process, self._heard)),
            asyncio.create_task(self._keep_words(self._process)),
        ]
        try:
            message = await asyncio.wait_for(self._hear(), START_S)
        except TimeoutError:
            await self.stop()
            raise BuilderCrash(f"the build process did not start within {START_S:g} s") from None
        assert message["op"] == "ready"

    async def stop(self) -> None:
        """End the child at once."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1)
            self._tasks = []

    async def build(self, snapshot: Snapshot, stage: Callable[[str], None] = lambda name: None) -> Product:
        """Build one snapshot. A child that crashes is replaced and asked once more; then BuilderCrash."""
        async with self._lock:
            try:
                return await self._build(snapshot, stage)
            except TableNotKept:
                raise
            except BuilderCrash:
                await self.stop()
                return await self._build(snapshot, stage)

    async def _build(self, snapshot: Snapshot, stage: Callable[[str], None]) -> Product:
        await self.start()
        self._next += 1
        identity = self._next
        files = sorted(snapshot.files.items())
        header = {
            "op": "build",
            "id": identity,
            "revision": dataclasses.asdict(snapshot.revision),
            "files": [(path, len(data)) for path, data in files],
            "kept": list(self._sent),
        }
        try:
            await self._tell(header, *(data for _, data in files))
            while True:
                message = await self._hear()
                match message["op"]:
                    case "stage":
                        stage(message["stage"])
                    case "progress":
                        log.info("reading lists", mib=message["read"] >> 20, of=message["size"] >> 20)
                    case "read":
                        await self._answer(snapshot, message["path"], message["relative_to"])
                    case "broken":
                        raise BuilderCrash(f"{message['error']} (a mistake of ours, not of the rules)")
                    case "not kept":
                        raise TableNotKept(message["error"])
                    case "done":
                        return self._product(message)
        except asyncio.CancelledError:
            # The child must be quiet again before the next build, whatever it takes.
            await asyncio.shield(self._quieten(identity))
            raise

    def _product(self, message: dict[str, Any]) -> Product:
        reads = tuple((path, relative_to) for path, relative_to in message["reads"])
        self._sent = {key: data for key, data in self._sent.items() if key in reads}
        counts = {key: message[key] for key in ("text", "errors", "warnings", "tests")}
        if not message["ok"]:
            return Product(False, **counts, reads=reads)
        return Product(
            True, **counts, digest=message["digest"], meaning=message["meaning"], reads=reads,
            policy=os.path.join(self.folder, message["policy"]), names=os.path.join(self.folder, message["names"]),
        )  # fmt: skip

    async def _answer(self, snapshot: Snapshot, path: str, relative_to: str) -> None:
        self._owes_read = True
        try:
            data = await asyncio.to_thread(snapshot.read, path, relative_to)
        except OSError as error:
            arguments = [error.errno, error.strerror] if error.errno is not None else [str(error)]
            self._owes_read = False
            await self._tell({"size": 0, "error": type(error).__name__, "arguments": arguments})
        else:
            self._owes_read = False
            sent = self._sent.get((path, relative_to))
            if sent is data or (sent is not None and await asyncio.to_thread(sent.__eq__, data)):
                await self._tell({"size": 0, "same": True})
                return
            self._sent.pop((path, relative_to), None)  # half sent is not sent
            await self._tell({"size": len(data)}, data)
            self._sent[path, relative_to] = data

    async def _quieten(self, identity: int) -> None:
        """Cancel the running build and wait until the child says so; kill it when it does not."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        try:
            async with asyncio.timeout(self._cancel_s):
                while True:
                    if self._owes_read:
                        self._owes_read = False
                        await self._tell({"size": 0, "cancelled": True})
                    process.send_signal(signal.SIGUSR1)
                    try:
                        message = await asyncio.wait_for(self._hear(), CANCEL_S / 8)
                    except TimeoutError:
                        continue  # it may have been deaf for a moment (in the middle of a frame): once more
                    self._owes_read = message["op"] == "read"
                    if message["op"] in ("cancelled", "done", "broken") and message["id"] == identity:
                        return
        except (TimeoutError, BuilderCrash, ProcessLookupError):
            await self.stop()

    async def _tell(self, message: dict[str, Any], *payloads: bytes) -> None:
        assert self._process is not None and self._process.stdin is not None
        data = json.dumps(message).encode()
        try:
            self._process.stdin.writelines([len(data).to_bytes(_LENGTH, "big"), data, *payloads])
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            raise await self._crash() from None

    async def _hear(self) -> dict[str, Any]:
        message = await self._heard.get()
        if message is None:
            raise await self._crash()
        return message

    async def _hear_all(self, process: asyncio.subprocess.Process, heard: asyncio.Queue[dict[str, Any] | None]) -> None:
        """Frames to the queue until the child ends; None is the end. (A reader of its own: whoever waits for a frame
        may be cancelled, and half a frame must not get lost with him.)"""
        assert process.stdout is not None
        try:
            while True:
                size = int.from_bytes(await process.stdout.readexactly(_LENGTH), "big")
                if size > _FRAME_LIMIT:
                    process.kill()
                heard.put_nowait(json.loads(await process.stdout.readexactly(size)))
        except (asyncio.IncompleteReadError, ConnectionResetError, ValueError):
            heard.put_nowait(None)

    async def _keep_words(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        with contextlib.suppress(ValueError):  # a line longer than the limit
            while line := await process.stderr.readline():
                self._words.append(line.decode("utf-8", "replace").rstrip())

    async def _crash(self) -> BuilderCrash:
        process = self._process
        if process is None:
            return BuilderCrash("the build process is gone")
        self._heard.put_nowait(None)  # for whoever asks next
        code = await process.wait()
        await asyncio.wait(self._tasks, timeout=1)
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        last = "\n".join(self._words)
        return BuilderCrash(f"the build process {how}" + (f":\n{last}" if last else ""))

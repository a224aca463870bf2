"""From a snapshot to blobs: check, compile, test. Written once, for the controller's child process and for the verbs.

`python -m controller.build` is that child: it keeps everything imported and the lists parsed, so that a second build
of small rules takes milliseconds, and it can be cancelled by SIGUSR1 or killed at any moment. It speaks frames over
its standard input and output (`controller.builder` is the other end) and knows no asyncio, no broker and no git.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import gc
import hashlib
import json
import os
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType
from typing import Any, BinaryIO

from controller import check, diagnostics, lists
from controller.compiler import Blobs, compile_table
from controller.diagnostics import Diagnostic
from controller.ruleset import Revision, RuleSet, Snapshot

LENGTH = struct.Struct(">I")
# Enough for a rollback, and for the names of several lists that change in turn.
KEPT_BLOBS = 16
PROGRESS_S = 1.0  # how often a long build says how far it is


@dataclasses.dataclass(frozen=True, slots=True)
class Built:
    """What became of a snapshot. `blobs` is None when it was refused; `text` holds all diagnostics as `check` prints
    them, warnings too."""

    ruleset: RuleSet | None
    blobs: Blobs | None
    diagnostics: tuple[Diagnostic, ...]
    text: str
    errors: int
    warnings: int
    tests: int


def build(snapshot: Snapshot, stage: Callable[[str], None] = lambda name: None) -> Built:
    """Check, compile and test one snapshot; `stage` is told `valid`, `compiled`, `tested` as they are reached."""
    result = check.check_snapshot(snapshot)
    found = list(result.diagnostics)
    blobs: Blobs | None = None
    tests = list(result.tests)
    if result.ruleset is not None and not _errors(found):
        stage("valid")
        blobs = compile_table(result.ruleset)
        stage("compiled")
        if tests:
            from controller import ruletest

            found.extend(ruletest.run(result.ruleset, blobs, tests))
        if _errors(found):
            blobs = None
        else:
            stage("tested")
    errors = _errors(found)
    text = diagnostics.render(found, snapshot.files, "text") if found else ""
    return Built(result.ruleset, blobs, tuple(found), text, errors, len(found) - errors, len(tests))


def _errors(found: Iterable[Diagnostic]) -> int:
    return sum(diagnostic.is_error for diagnostic in found)


class NotKept(Exception):
    """The disk does not take a table; one sentence for people, and nothing of it is left on the disk."""


def store(folder: str, data: bytes | bytearray) -> str:
    """Keep a blob under its SHA-256, which is returned. Not synced: the node's store is what survives a power cut.

    Raises NotKept.
    """
    digest = hashlib.sha256(data).hexdigest()
    path = os.path.join(folder, digest)
    temporary = f"{path}.{os.getpid()}"
    try:
        try:
            if os.path.getsize(path) == len(data):
                os.utime(path)
                return digest
        except FileNotFoundError:
            os.makedirs(folder, mode=0o700, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
        os.rename(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full; free some space" if full else f"{error.strerror}; mend it"
        raise NotKept(
            f"the rules are right, but {len(data)} octets of table cannot be kept in {folder}: {why}, "
            "then run `nexoraldns retry`"
        ) from None
    return digest


def sweep(folder: str) -> None:
    """Forget all but the blobs used last."""
    with os.scandir(folder) as entries:
        found = sorted(((entry.stat().st_mtime_ns, entry.path) for entry in entries if entry.is_file()), reverse=True)
    for _, path in found[KEPT_BLOBS:]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


# --- the child --------------------------------------------------------------------------------------------------------


class Superseded(BaseException):
    """Raised in the middle of a build when a newer one waits."""


class _Child:
    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO, folder: str) -> None:
        self.incoming = incoming
        self.outgoing = outgoing
        self.folder = folder
        self.building = False
        self.reads: dict[tuple[str, str], None] = {}
        self.kept: dict[tuple[str, str], bytes] = {}
        self.names: tuple[bytes | bytearray, str] = (b"", "")

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.building:
            self.building = False
            raise Superseded

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Not to be interrupted: half a frame would end the conversation. The parent signals again."""
        building, self.building = self.building, False
        yield
        self.building = building

    def tell(self, **message: Any) -> None:
        data = json.dumps(message).encode()
        with self.whole():
            self.outgoing.write(LENGTH.pack(len(data)) + data)
            self.outgoing.flush()

    def take(self, size: int) -> bytes:
        data = self.incoming.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def hear(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.take(LENGTH.unpack(self.take(4))[0]))
        return message

    def read(self, path: str, relative_to: str) -> bytes:
        """`Snapshot.read`, answered by the parent: only it knows where the files are."""
        self.reads[path, relative_to] = None
        with self.whole():
            self.tell(op="read", path=path, relative_to=relative_to)
            answer = self.hear()
            data = self.take(answer["size"])
            if answer.keys() == {"size"}:
                self.kept[path, relative_to] = data
        if "cancelled" in answer:
            raise Superseded
        if "same" in answer:
            return self.kept[path, relative_to]
        if "error" in answer:
            kinds: dict[str, type[OSError]] = {
                "FileNotFoundError": FileNotFoundError,
                "PermissionError": PermissionError,
            }
            raise kinds.get(answer["error"], OSError)(*answer["arguments"])
        return data

    def run(self) -> None:
        while True:
            message = self.hear()
            files = {path: self.take(size) for path, size in message["files"]}
            identity = message["id"]
            self.reads = {}
            known = {(path, relative_to) for path, relative_to in message.get("kept", ())}
            self.kept = {key: data for key, data in self.kept.items() if key in known}
            started = time.monotonic()

            def stage(name: str, identity: int = identity, started: float = started) -> None:
                self.tell(op="stage", id=identity, stage=name, ms=round((time.monotonic() - started) * 1000, 1))

            told = started

            def progress(read: int, size: int, identity: int = identity) -> None:
                nonlocal told
                if time.monotonic() - told >= PROGRESS_S:
                    told = time.monotonic()
                    self.tell(op="progress", id=identity, read=read, size=size)

            lists.progress = progress
            snapshot = Snapshot(Revision(**message["revision"]), files, self.read)
            try:
                self.building = True
                answer = self.answer(snapshot, stage)
                self.building = False
            except Superseded:
                self.tell(op="cancelled", id=identity)
                continue
            except NotKept as error:
                self.building = False
                self.tell(op="not kept", id=identity, error=str(error))
                continue
            except Exception as error:
                self.building = False
                traceback.print_exc()
                self.tell(op="broken", id=identity, error=f"{type(error).__name__}: {error}")
                continue
            self.tell(op="done", id=identity, ms=round((time.monotonic() - started) * 1000, 1), **answer)
            gc.collect()

    def answer(self, snapshot: Snapshot, stage: Callable[[str], None]) -> Mapping[str, Any]:
        built = build(snapshot, stage)
        answer: dict[str, Any] = {
            "ok": built.blobs is not None,
            "text": built.text,
            "errors": built.errors,
            "warnings": built.warnings,
            "tests": built.tests,
            "reads": list(self.reads),
        }
        if built.blobs is not None:
            answer["digest"], answer["meaning"] = built.blobs.digest, built.blobs.meaning
            answer["policy"] = store(self.folder, built.blobs.policy)
            # The compiler gives the very same bytes while the lists stay the same: no need to hash millions of names.
            names, digest = self.names
            if names is not built.blobs.names or not os.path.exists(os.path.join(self.folder, digest)):
                digest = store(self.folder, built.blobs.names)
                self.names = built.blobs.names, digest
            answer["names"] = digest
            sweep(self.folder)
        return answer


def main(folder: str) -> None:
    """Serve builds until the parent closes the pipe."""
    # Whatever prints must not end up between our frames.
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    child = _Child(sys.stdin.buffer, outgoing, folder)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to everybody; the parent decides
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, child.on_signal)
    gc.freeze()
    child.tell(op="ready")
    with contextlib.suppress(EOFError, BrokenPipeError):
        child.run()


if __name__ == "__main__":
    main(sys.argv[1])

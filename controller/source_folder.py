"""A folder (or one file) of rules as a source: inotify through watchdog, debounced, and a checksum over everything.

The owner of watchdog. Events are only hints that something may have changed: what counts is the checksum, so touching
a file without changing it is nothing, and a change that inotify does not show (NFS) is found by looking every two
seconds at sizes and times, and every thirty at the bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import errno
import hashlib
import os
import pwd
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterable

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from controller import source
from controller.diagnostics import Diagnostic
from controller.ruleset import Revision, Snapshot
from controller.source import Found, SourceError, Trouble

DEBOUNCE_S = 0.05
DEBOUNCE_MAX_S = 0.5  # an editor that never stops writing must not stop us
GLANCE_S = 2.0
LOOK_S = 30.0
_SETTLED_NS = 2_000_000_000
_CHANGES = {"created", "modified", "deleted", "moved", "closed"}


class FolderReader:
    """Reads one folder or file. `shown` is what paths begin with where people see them (default: the folder's name)."""

    def __init__(self, target: str, shown: str | None = None) -> None:
        self.target = os.path.abspath(target)
        self.single = os.path.isfile(self.target)
        self.root = os.path.dirname(self.target) if self.single else self.target
        name = os.path.basename(self.target)
        if shown is None:
            shown = name
        self.shown = os.path.dirname(shown) if self.single else shown
        self.name = name
        self.referenced: set[tuple[str, str]] = set()  # what the rule files name by `file:`, as of the last look
        self.reported: set[tuple[str, str]] = set()  # what the builder really read
        self._lists: dict[str, tuple[tuple[int, ...], bytes, str]] = {}  # path → stamp, octets, SHA-256

    @property
    def others(self) -> list[tuple[str, str]]:
        """(path, relative_to) of every file besides the rule files that counts."""
        return sorted(self.referenced | self.reported)

    def show(self, path: str) -> str:
        """A real path below the root, as people see it."""
        relative = os.path.relpath(path, self.root)
        return os.path.normpath(os.path.join(self.shown, relative)) if self.shown else relative

    def real(self, path: str, relative_to: str) -> str:
        """The real path of `path` as written in the rule file shown as `relative_to`."""
        below = os.path.relpath(relative_to, self.shown or ".")
        return os.path.normpath(os.path.join(self.root, os.path.dirname(below), path))

    def rule_files(self) -> tuple[list[str], list[Diagnostic]]:
        """Real paths of the rule files, sorted, and what may not be one. SourceError when the folder is not there."""
        try:
            mode = os.stat(self.target).st_mode
        except OSError as error:
            raise SourceError(*_missing(self.target, error)) from None
        self.single = stat.S_ISREG(mode)
        if self.single:
            return [self.target], []
        files: list[str] = []
        refusals: list[Diagnostic] = []
        inside = os.path.realpath(self.root) + os.sep

        def failed(error: OSError) -> None:
            refusals.append(
                source.refusal(
                    self.show(error.filename), f"the folder cannot be read: {error.strerror}", "mend its rights"
                )
            )

        for folder, folders, names in os.walk(self.root, onerror=failed):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(folders):
                path = os.path.join(folder, name)
                if os.path.islink(path) and not (os.path.realpath(path) + os.sep).startswith(inside):
                    refusals.append(self._leaves(path))
            for name in sorted(names):
                path = os.path.join(folder, name)
                if not source.is_rule_file(name):
                    continue
                if os.path.islink(path) and not os.path.realpath(path).startswith(inside):
                    refusals.append(self._leaves(path))
                elif os.path.isfile(path):
                    files.append(path)
                elif os.path.islink(path) and not os.path.exists(path):
                    refusals.append(self._leads_nowhere(path))
            if len(files) > source.MAX_FILES:
                raise SourceError(
                    f"{self.target} holds more than {source.MAX_FILES} rule files",
                    "point source.directory at the folder that holds the rules only",
                )
        return sorted(files), refusals

    def _leaves(self, path: str) -> Diagnostic:
        return source.refusal(
            self.show(path),
            f"the symbolic link '{self.show(path)}' leads out of the folder of the rules",
            "copy the file into the folder",
        )

    def _leads_nowhere(self, path: str) -> Diagnostic:
        target = "nothing"
        with contextlib.suppress(OSError):  # gone since: the next event looks again
            target = f"'{os.readlink(path)}'"
        return source.refusal(
            self.show(path),
            f"the symbolic link '{self.show(path)}' leads to {target}, which is no file",
            "make that file, or delete the link",
        )

    def read(self, path: str, relative_to: str) -> bytes:
        """`Snapshot.read` from the disk."""
        return _read(self.real(path, relative_to))

    def look(self) -> Found:
        """Read everything; raises SourceError."""
        paths, refusals = self.rule_files()
        files: dict[str, bytes] = {}
        newest, newest_ns = "", -1
        for path in paths:
            try:
                files[self.show(path)] = _read(path)
                changed_ns = os.stat(path).st_mtime_ns
            except FileNotFoundError:
                continue  # gone since the walk: the next event looks again
            except OSError as error:
                help_text = f"make it readable for the user {_user(os.geteuid())}"
                refusals.append(
                    source.refusal(self.show(path), f"the file cannot be read: {error.strerror}", help_text)
                )
                continue
            if changed_ns > newest_ns:
                newest, newest_ns = path, changed_ns
        digest = hashlib.sha256()
        for shown, data in sorted(files.items()):
            digest.update(f"{self._below(shown)}\0{hashlib.sha256(data).hexdigest()}\n".encode())
        kept: dict[tuple[str, str], bytes] = {}
        self.referenced = set(source.references(files))
        wanted = {self.real(*reference) for reference in self.others}
        self._lists = {path: kept for path, kept in self._lists.items() if path in wanted}
        for reference in self.others:
            try:
                kept[reference], mark = self._list(self.real(*reference))
            except OSError as error:
                mark = errno.errorcode.get(error.errno or 0, "error")
            digest.update(f"{reference[0]}\0{self._below(reference[1])}\0{mark}\n".encode())
        for refusal in refusals:
            digest.update(f"{refusal.where.path}\0{refusal.message}\n".encode())
        revision = self._revision(digest.hexdigest(), newest, newest_ns, len(files))

        def read(path: str, relative_to: str) -> bytes:
            data = kept.get((path, relative_to))
            return self.read(path, relative_to) if data is None else data

        return Found(Snapshot(revision, files, read), digest.hexdigest(), tuple(refusals))

    def _list(self, path: str) -> tuple[bytes, str]:
        """A list's octets and their SHA-256; those of before when nothing has touched the file since (its ctime, which
        nobody can set, says so unless it is younger than a tick of the file system)."""
        status = os.stat(path)
        stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known = self._lists.get(path)
        if known is not None and known[0] == stamp:
            return known[1], known[2]
        data = _read(path)
        mark = hashlib.sha256(data).hexdigest()
        self._lists.pop(path, None)
        if len(data) == status.st_size and abs(time.time_ns() - status.st_ctime_ns) > _SETTLED_NS:
            self._lists[path] = stamp, data, mark
        return data, mark

    def _below(self, shown: str) -> str:
        return os.path.relpath(shown, self.shown or ".")

    def _revision(self, digest: str, newest: str, newest_ns: int, count: int) -> Revision:
        identity = f"{self.name}@sha256:{digest}"
        time = author = subject = ""
        if newest:
            moment = datetime.datetime.fromtimestamp(newest_ns // 1_000_000_000, datetime.UTC)
            time = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
            subject = f"{self.show(newest)} saved" if count == 1 else f"{self.show(newest)} saved last, {count} files"
            with contextlib.suppress(OSError):
                author = _user(os.stat(newest).st_uid)
        return Revision(identity, source.shorten(identity), self.name, digest, author, "", time, subject)

    def glance(self) -> tuple[object, ...]:
        """Names, sizes, times and inodes of everything that counts: cheap, and equal when nothing changed."""
        try:
            paths, _ = self.rule_files()
        except SourceError as error:
            return (str(error),)
        seen: list[object] = []
        for path in [*paths, *sorted({self.real(*reference) for reference in self.others})]:
            try:
                status = os.stat(path)
                seen.append((path, status.st_size, status.st_mtime_ns, status.st_ino))
            except OSError as error:
                seen.append((path, error.errno))
        return tuple(seen)

    def watched(self) -> list[tuple[str, bool]]:
        """The directories whose events matter, and whether with everything below."""
        folders = {os.path.dirname(self.root): False, **dict.fromkeys(self.outside(), False)}
        folders[self.root] = not self.single
        return [(folder, below) for folder, below in sorted(folders.items()) if os.path.isdir(folder)]

    def outside(self) -> set[str]:
        """The directories outside the source that hold files it reads."""
        folders = {os.path.dirname(os.path.realpath(self.real(*reference))) for reference in self.others}
        if self.single:
            return folders | {self.root}
        return {folder for folder in folders if not (folder + os.sep).startswith(self.root + os.sep)}

    def matters(self, path: str) -> bool:
        """Whether an event at `path` may be about us: the parent is watched for the folder itself, not for what else
        lives beside it, and nothing is read out of hidden folders (our own state may be one)."""
        if path == self.target:
            return True
        folder = os.path.dirname(path)
        if (folder + os.sep).startswith(self.root + os.sep):
            return f"{os.sep}." not in folder[len(self.root) :]
        return folder in self.outside()


def snapshot_of(target: str, shown: str | None = None) -> Found:
    """A folder or file as it is now, for `check`, `test`, `compile` …: paths are shown as given. Raises SourceError."""
    return FolderReader(target, target if shown is None else shown).look()


class FolderSource:
    """A `Source` over a folder or a file."""

    def __init__(self, target: str) -> None:
        self.reader = FolderReader(target)
        self._alarm = source.Alarm()
        self._looked = asyncio.Condition()
        self._sentence = "not looked yet"
        self._trouble: SourceError | None = None
        self._forced = False
        self._handler: _Handler | None = None
        self._observer: BaseObserver | None = None
        self._watching: list[tuple[str, bool, int]] = []
        self.watch_error = ""

    def describe(self) -> str:
        return self.reader.target

    def also(self, paths: Iterable[tuple[str, str]]) -> None:
        new = set(paths)
        if new != self.reader.reported:
            self.reader.reported = new
            self._alarm.ring()

    async def sync(self) -> str:
        async with self._looked:
            self._forced = True
            self._alarm.ring()
            try:
                await asyncio.wait_for(self._looked.wait_for(lambda: not self._forced), 10)
            except TimeoutError:
                return f"still reading {self.describe()}"
        if self._trouble is not None:
            raise self._trouble
        return self._sentence

    async def events(self) -> AsyncIterator[Found | Trouble]:
        loop = asyncio.get_running_loop()
        self._handler = _Handler(lambda: loop.call_soon_threadsafe(self._alarm.ring), self.reader.matters)
        last: str | None = None
        glance: tuple[object, ...] = ()
        looked_at = -LOOK_S
        try:
            while True:
                await asyncio.to_thread(self._watch)
                before = await asyncio.to_thread(self.reader.glance)
                if before != glance or self._forced or loop.time() - looked_at >= LOOK_S:
                    self._forced, glance, looked_at = False, before, loop.time()
                    event = await self._look()
                    mark = event.content if isinstance(event, Found) else event.message
                    known, last = last, mark
                    await asyncio.to_thread(self._watch)  # the rule files may name lists elsewhere now
                    if isinstance(event, Found):
                        same = "nothing new, " if known == mark else ""
                        self._sentence, self._trouble = f"{same}{event.snapshot.revision.short}", None
                    else:
                        self._trouble = SourceError(event.message, event.help)
                    if known != mark:
                        yield event
                    async with self._looked:
                        self._looked.notify_all()
                if await self._alarm.wait(GLANCE_S):
                    started = loop.time()
                    while loop.time() - started < DEBOUNCE_MAX_S and await self._alarm.wait(DEBOUNCE_S):
                        pass
                    # Same size, same time, same inode, other bytes: possible within one tick of the file system.
                    self._forced = True
        finally:
            if self._observer is not None:
                self._observer.stop()

    async def _look(self) -> Found | Trouble:
        try:
            found = await asyncio.to_thread(self.reader.look)
            if not found.snapshot.files and not found.refusals:
                raise source.nothing_found(self.reader.target)
            return found
        except SourceError as error:
            return Trouble(error.message, error.help, GLANCE_S)
        except OSError as error:
            return Trouble(f"{self.reader.target} cannot be read: {error.strerror}", "", GLANCE_S)

    def _watch(self) -> None:
        """Make the observer's watches those of `reader.watched()`; a replaced directory is watched anew."""
        wanted = []
        for folder, below in self.reader.watched():
            with contextlib.suppress(OSError):
                wanted.append((folder, below, os.stat(folder).st_ino))
        if wanted == self._watching or self._handler is None:
            return
        self._watching = wanted
        old, self._observer = self._observer, None
        if old is not None:
            old.stop()
        try:
            observer = Observer()
            for folder, below, _ in wanted:
                observer.schedule(self._handler, folder, recursive=below)
            observer.start()
            self._observer, self.watch_error = observer, ""
        except OSError as error:
            # Out of inotify watches or instances: looking every two seconds goes on.
            self.watch_error = f"no file events ({error.strerror}); looking every {GLANCE_S:g} s instead"


class _Handler(FileSystemEventHandler):
    """Turns an event of the observer's thread into a ring on the loop; reading is no change."""

    def __init__(self, ring: Callable[[], object], matters: Callable[[str], bool]) -> None:
        self._ring = ring
        self._matters = matters

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type not in _CHANGES:
            return
        paths = (os.fsdecode(event.src_path), os.fsdecode(event.dest_path or ""))
        if any(path and self._matters(path) for path in paths):
            with contextlib.suppress(RuntimeError):  # the loop is closed: we are ending
                self._ring()


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        data = file.read(source.MAX_FILE_BYTES + 1)
    if len(data) > source.MAX_FILE_BYTES:
        raise OSError(errno.EFBIG, f"larger than {source.MAX_FILE_BYTES >> 20} MiB", path)
    return data


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _missing(path: str, error: OSError) -> tuple[str, str]:
    if isinstance(error, FileNotFoundError):
        return f"there is no folder {path}", "make it and put rule files (*.yaml) into it; they are read at once"
    return f"{path} cannot be read: {error.strerror}", f"make it readable for the user {_user(os.geteuid())}"

"""A git repository of rules as a source: a bare mirror, polled; rules are read from the commit's tree.

The owner of GitPython. There is never a work tree: a check-out is not atomic, its symbolic links could point anywhere,
and its hooks and filters could run. Everything here that talks to git blocks, and is called in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import os
import posixpath
import random
import re
import threading
from collections.abc import AsyncIterator, Iterable
from typing import Any, cast

import git
from git.objects.base import IndexObject
from gitdb.exc import BadName

from controller import source
from controller.diagnostics import Diagnostic
from controller.ruleset import Revision, Snapshot
from controller.source import Found, SourceError, Trouble
from dnsd.contract.settings import GitSource

NUDGE_S = 1.0  # how often a repository on this machine is looked at for a changed ref (two stat calls)
BACKOFF_S = (1.0, 60.0)
TIMEOUT_S = 60.0
_REF = "refs/nexoraldns/source"
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SYMLINK, _SUBMODULE = 0o120000, 0o160000
_OPTIONS = (
    "core.hooksPath=/dev/null", "protocol.allow=never", "protocol.file.allow=always", "protocol.git.allow=always",
    "protocol.ssh.allow=always", "protocol.http.allow=always", "protocol.https.allow=always", "gc.autoDetach=false",
    "maintenance.autoDetach=false", "fetch.recurseSubmodules=no", "fetch.fsckObjects=true", "submodule.recurse=false",
)  # fmt: skip
_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "/bin/false",
    "SSH_ASKPASS": "/bin/false",
    "GIT_OPTIONAL_LOCKS": "0",
    "LC_ALL": "C",
}


class GitReader:
    """Blocking work on one mirror. `path` is the folder of the rules in the repository, "" for its top."""

    def __init__(self, url: str, ref: str, path: str, mirror: str) -> None:
        if url.startswith("-") or "::" in url.split("/", maxsplit=1)[0]:
            raise SourceError(f"{source.redact(url)} is not a git url that is read here", "use https, ssh, or a path")
        if ref.startswith("-") or not ref:
            raise SourceError(f"'{ref}' is not the name of a branch or a tag", "write source.git.ref: main")
        self.url = url
        self.ref = ref
        self.path = posixpath.normpath(path.strip("/")) if path.strip("/") not in ("", ".") else ""
        self.mirror = mirror
        self._lock = threading.Lock()
        self._repo: git.Repo | None = None

    @property
    def local(self) -> str | None:
        """The repository's folder when it is on this machine."""
        path = self.url.removeprefix("file://")
        return path if path.startswith("/") else None

    def stamp(self) -> tuple[object, ...]:
        """What changes when a local repository's ref moves; empty for any other."""
        if self.local is None:
            return ()
        seen: list[object] = []
        for folder in (self.local, os.path.join(self.local, ".git")):
            for name in ("packed-refs", f"refs/heads/{self.ref}", f"refs/tags/{self.ref}", self.ref, "reftable"):
                with contextlib.suppress(OSError, ValueError):
                    status = os.stat(os.path.join(folder, name))
                    seen.append((name, status.st_mtime_ns, status.st_ino))
        return tuple(seen)

    def _git(self, *arguments: str) -> str:
        """Run git in the mirror; raises SourceError with one sentence."""
        try:
            if self._repo is None or not os.path.isdir(self.mirror):
                os.makedirs(os.path.dirname(self.mirror), mode=0o700, exist_ok=True)
                self._repo = git.Repo.init(self.mirror, bare=True)
                self._repo.git.update_environment(**_ENVIRONMENT)
            command = ["git", *(word for option in _OPTIONS for word in ("-c", option)), *arguments]
            return str(self._repo.git.execute(command, kill_after_timeout=TIMEOUT_S))
        except git.GitCommandNotFound:
            raise SourceError("the program git is not installed", "apt-get install git") from None
        except git.CommandError as error:
            raise _explained(self, error) from None
        except OSError as error:
            raise SourceError(f"{self.mirror}: {error.strerror}", "check the folder in `state` and its disk") from None

    def _remote(self) -> tuple[str, ...]:
        # The administrator named this folder in the settings, so whose it is does not matter.
        if self.local is None:
            return ("--", self.url)
        return (f"--upload-pack=git -c safe.directory={_quoted(self.local)} upload-pack", "--", self.url)

    def newest(self) -> str:
        """The full name of the ref's commit at the remote. Raises SourceError."""
        if _HASH.fullmatch(self.ref):
            return self.ref
        patterns = [self.ref] if self.ref.startswith("refs/") else [f"refs/heads/{self.ref}", f"refs/tags/{self.ref}"]
        found: dict[str, str] = {}
        for line in self._git("ls-remote", *self._remote(), *patterns, f"{patterns[-1]}^{{}}").splitlines():
            digits, _, name = line.partition("\t")
            if _HASH.fullmatch(digits):
                found[name] = digits
        for pattern in patterns:
            if pattern in found:
                return found.get(pattern + "^{}", found[pattern])
        raise SourceError(
            f"{source.redact(self.url)} has no branch or tag '{self.ref}'",
            "push one, or set source.git.ref; it is looked for again and again",
        )

    def fetch(self, sha: str) -> None:
        """Bring a commit into the mirror unless it is there. Raises SourceError."""
        with self._lock:
            try:
                self._git("cat-file", "-e", f"{sha}^{{commit}}")
                self._git("update-ref", _REF, sha)
                return
            except SourceError:
                pass
            wanted = self.ref if self.ref.startswith("refs/") or _HASH.fullmatch(self.ref) else ""
            names = [wanted] if wanted else [f"refs/heads/{self.ref}", f"refs/tags/{self.ref}"]
            last: SourceError | None = None
            for name in names:
                try:
                    options = ("--no-tags", "--force", "--no-write-fetch-head", "--quiet")
                    remote = self._remote()
                    self._git("fetch", *options, *remote[:-2], *remote[-2:], f"+{name}:{_REF}")
                    return
                except SourceError as error:
                    last = error
            assert last is not None
            raise last

    def at(self, sha: str) -> Found:
        """The commit's rules. Raises SourceError."""
        assert self._repo is not None
        with self._lock:
            return found_in(self._repo, sha, self.path, self.ref, self._lock)

    def look(self, known: str) -> Found | None:
        """The ref's newest commit, or None when it is `known`. Raises SourceError."""
        sha = self.newest()
        if sha == known:
            return None
        self.fetch(sha)
        # The ref may have moved between the two calls: what was fetched is what counts.
        with contextlib.suppress(SourceError):
            sha = self._git("rev-parse", f"{_REF}^{{commit}}").strip()
        if sha == known:
            return None
        found = self.at(sha)
        if not found.snapshot.files and not found.refusals:
            raise source.nothing_found(f"'{self.path or '.'}' of {found.snapshot.revision.short}")
        return found

    def close(self) -> None:
        if self._repo is not None:
            self._repo.close()


def found_in(repo: git.Repo, rev: str, path: str, ref: str, lock: threading.Lock) -> Found:
    """The rules in one commit of an open repository, read from its tree. Raises SourceError.

    `lock` guards the repository's one cat-file process: `Snapshot.read` takes it, the caller holds it now.
    """
    try:
        commit = repo.commit(rev)
        root = commit.tree
        revision = _revision(commit, ref)
        if path:
            entry = root / path
            if entry.mode == _SYMLINK or entry.mode == _SUBMODULE:
                return Found(Snapshot(revision, {}, _nothing), entry.hexsha, (_refusal(entry),))
        else:
            entry = root
        files: dict[str, bytes] = {}
        refusals: list[Diagnostic] = []
        # `path` may name one file. (GitPython's own types cannot say what traverse() yields for a tree.)
        entries: list[Any] = [entry] if entry.type == "blob" else list(cast("Any", entry).traverse())
        for item in sorted(entries, key=lambda item: str(item.path)):
            if item.mode in (_SYMLINK, _SUBMODULE):
                refusals.append(_refusal(item))
            elif item.type == "blob" and source.is_rule_file(str(item.path)):
                if len(files) == source.MAX_FILES:
                    raise SourceError(f"{path} holds more than {source.MAX_FILES} rule files", "set source.git.path")
                files[str(item.path)] = item.data_stream.read()
    except KeyError:
        raise SourceError(
            f"there is no '{path}' in {source.shorten(_revision(repo.commit(rev), ref).id)}",
            "set source.git.path to the folder of the rules in the repository ('.' for its top)",
        ) from None
    except (BadName, ValueError) as error:
        raise SourceError(f"there is no revision '{rev}'", str(error)) from None
    # Lists may lie beside the rules (`file: ../lists/ads.txt`), so they count besides the tree of the path.
    digest = hashlib.sha256(entry.hexsha.encode())
    for written, relative_to in source.references(files):
        with contextlib.suppress(KeyError, PermissionError):
            digest.update(f"{written}\0{(root / source.resolve_inside(written, relative_to)).hexsha}\n".encode())

    def read(written: str, relative_to: str) -> bytes:
        inside = source.resolve_inside(written, relative_to)
        with lock:
            try:
                item = root / inside
            except KeyError:
                raise FileNotFoundError(2, "No such file in the repository", inside) from None
            if item.mode == _SYMLINK:
                raise PermissionError(f"{inside} is a symbolic link; put the file itself into the repository")
            if item.type != "blob":
                raise IsADirectoryError(21, "Is a folder", inside)
            if item.size > source.MAX_FILE_BYTES:
                raise OSError(27, f"larger than {source.MAX_FILE_BYTES >> 20} MiB", inside)
            return bytes(item.data_stream.read())

    return Found(Snapshot(revision, files, read), digest.hexdigest(), tuple(refusals))


def snapshot_at(repo_path: str, rev: str, path: str = "") -> Found:
    """The rules at a revision of the repository around `repo_path` (for `plan`); paths are those in the repository.

    `path` is relative to the repository's top. Raises SourceError.
    """
    try:
        repo = git.Repo(repo_path, search_parent_directories=True)
    except (git.InvalidGitRepositoryError, git.NoSuchPathError):
        raise SourceError(f"{repo_path} is not in a git repository", "give two folders instead") from None
    lock = threading.Lock()
    with lock:
        return found_in(repo, rev, posixpath.normpath(path) if path not in ("", ".") else "", rev, lock)


def top_of(path: str) -> str:
    """The top folder of the work tree around `path`. Raises SourceError."""
    try:
        with git.Repo(path, search_parent_directories=True) as repo:
            return str(repo.working_tree_dir or repo.git_dir)
    except (git.InvalidGitRepositoryError, git.NoSuchPathError):
        raise SourceError(f"{path} is not in a git repository", "give two folders instead") from None


class GitSourceWatcher:
    """A `Source` over a git repository."""

    def __init__(self, settings: GitSource, state: str) -> None:
        if settings.signatures_mode != "off":
            raise SourceError(
                f"source.git.signatures.mode: {settings.signatures_mode} is not in this version", "write mode: off"
            )
        key = hashlib.sha256(settings.url.encode()).hexdigest()[:16]
        mirror = os.path.join(state, "git", f"{key}.git")
        self.reader = GitReader(settings.url, settings.ref, settings.path, mirror)
        self.poll_s = settings.poll_s
        self._alarm = source.Alarm()
        self._polled = asyncio.Condition()
        self._forced = False
        self._sentence = "not looked yet"
        self._trouble: SourceError | None = None

    def describe(self) -> str:
        return f"{source.redact(self.reader.url)} {self.reader.ref}"

    def also(self, paths: Iterable[tuple[str, str]]) -> None:
        """Nothing: everything that counts in git is in the commit."""

    async def sync(self) -> str:
        async with self._polled:
            self._forced = True
            self._alarm.ring()
            try:
                # One that began before does not count.
                await asyncio.wait_for(self._polled.wait_for(lambda: not self._forced), 20)
            except TimeoutError:
                return f"still asking {self.describe()}"
        if self._trouble is not None:
            raise self._trouble
        return self._sentence

    async def events(self) -> AsyncIterator[Found | Trouble]:
        loop = asyncio.get_running_loop()
        known, trouble, failures = "", "", 0
        stamp: tuple[object, ...] = ("never",)
        due = loop.time()
        try:
            while True:
                now = await asyncio.to_thread(self.reader.stamp)
                if self._forced or now != stamp or loop.time() >= due:
                    self._forced, stamp = False, now
                    event: Found | Trouble | None
                    try:
                        event = await asyncio.to_thread(self.reader.look, known)
                        failures, self._trouble = 0, None
                        wait_s = self.poll_s * random.uniform(0.9, 1.1)
                    except SourceError as error:
                        failures, self._trouble = failures + 1, error
                        wait_s = min(BACKOFF_S[0] * 2 ** min(failures - 1, 10), max(BACKOFF_S[1], self.poll_s))
                        event = Trouble(error.message, error.help, wait_s)
                    due = loop.time() + wait_s
                    if isinstance(event, Found):
                        known, trouble = event.snapshot.revision.sha, ""
                        self._sentence = event.snapshot.revision.short
                        yield event
                    elif isinstance(event, Trouble):
                        if event.message != trouble:
                            trouble = event.message
                            yield event
                    else:
                        if trouble:
                            trouble = ""
                            yield Trouble("")  # reachable again, nothing new
                        self._sentence = f"nothing new, {self.reader.ref} is at {known[:12]}"
                    async with self._polled:
                        self._polled.notify_all()
                limit = max(0.05, due - loop.time())
                await self._alarm.wait(min(limit, NUDGE_S) if self.reader.local else limit)
        finally:
            await asyncio.to_thread(self.reader.close)


def _revision(commit: git.Commit, ref: str) -> Revision:
    moment = datetime.datetime.fromtimestamp(commit.committed_date, datetime.UTC)
    kind = "sha1" if len(commit.hexsha) == 40 else "sha256"
    shown = ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
    identity = f"{commit.hexsha[:7] if shown == commit.hexsha else shown}@{kind}:{commit.hexsha}"
    summary = commit.summary
    return Revision(
        id=identity,
        short=source.shorten(identity),
        ref=ref,
        sha=commit.hexsha,
        author=_line(commit.author.name or ""),
        email=_line(commit.author.email or ""),
        time=moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        subject=_line(summary.decode("utf-8", "replace") if isinstance(summary, bytes) else summary),
    )


def _line(text: str) -> str:
    """Somebody else's text as one printable line of bounded length."""
    return "".join(character if character.isprintable() else " " for character in text)[:200].strip()


def _refusal(entry: IndexObject) -> Diagnostic:
    path = str(entry.path)
    if entry.mode == _SYMLINK:
        return source.refusal(path, f"'{path}' is a symbolic link, which is not followed", "commit the file itself")
    return source.refusal(path, f"'{path}' is a submodule, which is not read", "commit the files themselves")


def _nothing(path: str, relative_to: str) -> bytes:
    raise FileNotFoundError(2, "No such file in the repository", path)


def _quoted(path: str) -> str:
    return "'" + path.replace("'", "'\\''") + "'"


def _explained(reader: GitReader, error: git.CommandError) -> SourceError:
    """Git's words as one sentence and what to do."""
    text = source.redact(str(error.stderr or "").strip())
    text = re.sub(r"^stderr: '|'$", "", text)
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(("warning:", "hint:"))]
    said = next((line for line in lines if line.startswith(("fatal:", "error:", "ERROR:"))), lines[0] if lines else "")
    said = re.sub(r"^(fatal|error|ERROR):\s*", "", said) or f"git ended with {error.status}"
    url = source.redact(reader.url)
    if "does not appear to be a git repository" in text or ("not found" in text and "repository" in text):
        return SourceError(f"there is no git repository at {url}", "make it, or mend source.git.url")
    if "could not read Username" in text or "Authentication failed" in text or "Permission denied" in text:
        return SourceError(f"{url} refuses us: {said}", "give the user that runs this a key or a credential helper")
    if "Timeout: the command" in text:
        return SourceError(f"{url} did not answer within {TIMEOUT_S:g} s", "")
    return SourceError(f"{url} cannot be read: {said}", "")

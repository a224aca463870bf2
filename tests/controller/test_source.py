"""Sources: what counts as a change, what is refused, and what a repository that is not there does."""

from __future__ import annotations

import asyncio
import os
import pathlib
import subprocess
from collections.abc import AsyncIterator

import pytest

from controller import source, source_folder, source_git
from controller.source import Found, SourceError, Trouble
from controller.source_folder import FolderSource
from controller.source_git import GitSourceWatcher
from dnsd.contract.settings import GitSource

GIT = {
    "GIT_AUTHOR_NAME": "Anna", "GIT_AUTHOR_EMAIL": "anna@example.com", "GIT_COMMITTER_NAME": "Anna",
    "GIT_COMMITTER_EMAIL": "anna@example.com", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1",
}  # fmt: skip


def git(folder: pathlib.Path, *words: str) -> str:
    ran = subprocess.run(
        ["git", "-C", str(folder), *words], check=True, capture_output=True, text=True, env={**os.environ, **GIT}
    )
    return ran.stdout.strip()


def repository(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """A bare repository and a clone of it, with nothing in it."""
    bare, work = folder / "rules.git", folder / "work"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(bare)], check=True)
    subprocess.run(["git", "init", "-q", "-b", "main", str(work)], check=True)
    git(work, "remote", "add", "origin", str(bare))
    (work / "rules.d").mkdir()
    return bare, work


def push(work: pathlib.Path, subject: str, **files: str) -> str:
    for name, text in files.items():
        (work / "rules.d" / f"{name}.yaml").write_text(text)
    git(work, "add", "-A")
    git(work, "commit", "-q", "--allow-empty", "-m", subject)
    git(work, "push", "-q", "-f", "origin", "main")
    return git(work, "rev-parse", "HEAD")


async def following(events: AsyncIterator[Found | Trouble], seconds: float = 5.0) -> Found | Trouble:
    """The next event; TimeoutError when there is none."""
    return await asyncio.wait_for(anext(events), seconds)


async def nothing(events: AsyncIterator[Found | Trouble], seconds: float = 0.3) -> bool:
    """Whether nothing comes. (The iterator is spent: a cancelled generator is closed.)"""
    try:
        await following(events, seconds)
    except TimeoutError:
        return True
    return False


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    rules = tmp_path / "rules.d"
    (rules / "lists").mkdir(parents=True)
    (rules / "a.yaml").write_text("version: 1\nlists:\n  ads: {file: lists/ads.txt}\n")
    (rules / "lists" / "ads.txt").write_text("ads.example\n")
    return rules


# --- a folder ---------------------------------------------------------------------------------------------------------


def test_folder_snapshot(folder: pathlib.Path) -> None:
    """A folder's paths are shown from its own name on, and its lists are read relative to the file that names them."""
    found = source_folder.FolderReader(str(folder)).look()
    assert list(found.snapshot.files) == ["rules.d/a.yaml"]
    assert found.snapshot.read("lists/ads.txt", "rules.d/a.yaml") == b"ads.example\n"
    revision = found.snapshot.revision
    assert revision.id == f"rules.d@sha256:{found.content}"
    assert revision.short == f"rules.d@sha256:{found.content[:12]}"
    with pytest.raises(FileNotFoundError):
        found.snapshot.read("lists/none.txt", "rules.d/a.yaml")


def test_checksum_is_of_the_bytes(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The same bytes elsewhere have the same checksum; another byte in a list or a new file has not."""
    reader = source_folder.FolderReader(str(folder))
    first = reader.look().content
    os.utime(folder / "a.yaml", (1, 1))
    (folder / ".hidden.yaml").write_text("x")
    (folder / "README.md").write_text("x")
    assert reader.look().content == first
    copied = tmp_path / "elsewhere" / "rules.d"
    copied.parent.mkdir()
    subprocess.run(["cp", "-r", str(folder), str(copied)], check=True)
    assert source_folder.FolderReader(str(copied)).look().content == first
    (folder / "lists" / "ads.txt").write_text("ads.example.\n")
    second = reader.look().content
    assert second != first
    (folder / "b.yml").write_text("version: 1\n")
    assert reader.look().content not in (first, second)


def test_single_file(folder: pathlib.Path) -> None:
    """A single file is a source too, and is shown by its name."""
    found = source_folder.FolderReader(str(folder / "a.yaml")).look()
    assert list(found.snapshot.files) == ["a.yaml"]
    assert found.snapshot.read("lists/ads.txt", "a.yaml") == b"ads.example\n"


def test_shown_as_given(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`snapshot_of` shows paths as the user gave the folder."""
    monkeypatch.chdir(folder.parent)
    assert list(source_folder.snapshot_of("./rules.d").snapshot.files) == ["rules.d/a.yaml"]
    found = source_folder.snapshot_of(str(folder))
    assert list(found.snapshot.files) == [str(folder / "a.yaml")]
    assert found.snapshot.read("lists/ads.txt", str(folder / "a.yaml")) == b"ads.example\n"
    assert list(source_folder.snapshot_of("rules.d/a.yaml").snapshot.files) == ["rules.d/a.yaml"]


def test_symbolic_links_that_leave(folder: pathlib.Path) -> None:
    """A link out of the folder is refused with its place; one inside is read (as Kubernetes mounts files)."""
    (folder / "inside.yaml").symlink_to("a.yaml")
    (folder / "passwd.yaml").symlink_to("/etc/passwd")
    (folder / "etc").symlink_to("/etc")
    found = source_folder.FolderReader(str(folder)).look()
    assert sorted(d.where.path for d in found.refusals) == ["rules.d/etc", "rules.d/passwd.yaml"]
    assert list(found.snapshot.files) == ["rules.d/a.yaml", "rules.d/inside.yaml"]


def test_symbolic_links_to_nothing(folder: pathlib.Path) -> None:
    """A link to no file, or to itself, is refused: rules that somebody believes in would be missing silently."""
    (folder / "gone.yaml").symlink_to("nowhere.yaml")
    (folder / "round.yaml").symlink_to("round.yaml")
    (folder / ".#a.yaml").symlink_to("me@host.1234")  # an editor's lock
    found = source_folder.FolderReader(str(folder)).look()
    assert [(d.where.path, d.message) for d in found.refusals] == [
        ("rules.d/gone.yaml", "the symbolic link 'rules.d/gone.yaml' leads to 'nowhere.yaml', which is no file"),
        ("rules.d/round.yaml", "the symbolic link 'rules.d/round.yaml' leads to 'round.yaml', which is no file"),
    ]
    assert list(found.snapshot.files) == ["rules.d/a.yaml"]


def test_missing_folder(tmp_path: pathlib.Path) -> None:
    """A folder that is not there is said in one sentence, with what to do."""
    with pytest.raises(SourceError, match="there is no folder") as caught:
        source_folder.snapshot_of(str(tmp_path / "none"))
    assert "make it" in caught.value.help


def test_references() -> None:
    """Lists named by `file:` are found in block and flow style, quoted or not."""
    text = b"a: {file: x.txt, format: hosts}\nb:\n  file: \"../y z.txt\"\nc:\n  file: 'q.txt'  # c\nprofile: no\n"
    assert source.references({"r.yaml": text}) == [("../y z.txt", "r.yaml"), ("q.txt", "r.yaml"), ("x.txt", "r.yaml")]


def test_folder_events(folder: pathlib.Path) -> None:
    """A save is seen within moments; touching is nothing; a list beside the folder counts; so does a swapped folder."""
    outside = folder.parent / "outside.txt"
    outside.write_text("a.example\n")
    (folder / "a.yaml").write_text("version: 1\nlists:\n  ads: {file: ../outside.txt}\n")

    async def play() -> None:
        origin = FolderSource(str(folder))
        queue: asyncio.Queue[Found | Trouble] = asyncio.Queue()

        async def pump() -> None:
            async for event in origin.events():
                queue.put_nowait(event)

        pumping = asyncio.create_task(pump())
        seen = [await asyncio.wait_for(queue.get(), 5)]
        os.utime(folder / "a.yaml")
        outside.write_text("b.example\n")
        seen.append(await asyncio.wait_for(queue.get(), 1))
        (folder / ".new").write_text("version: 1\n")
        os.rename(folder / ".new", folder / "b.yaml")
        seen.append(await asyncio.wait_for(queue.get(), 1))
        os.rename(folder, folder.parent / "old")
        trouble = await asyncio.wait_for(queue.get(), 3)
        assert isinstance(trouble, Trouble) and "there is no folder" in trouble.message
        os.rename(folder.parent / "old", folder)
        again = await asyncio.wait_for(queue.get(), 3)
        assert isinstance(again, Found) and isinstance(seen[-1], Found) and again.content == seen[-1].content
        (folder / "b.yaml").write_text("version: 1 \n")
        seen.append(await asyncio.wait_for(queue.get(), 1))
        os.utime(folder / "b.yaml")
        assert (await origin.sync()).startswith("nothing new")
        assert queue.empty()
        assert len({event.content for event in seen if isinstance(event, Found)}) == 4
        pumping.cancel()

    asyncio.run(play())


def test_an_empty_folder_changes_nothing(folder: pathlib.Path) -> None:
    """A folder that lost all its rule files (not mounted, moved away) is trouble, not an empty set of rules."""

    async def play() -> None:
        events = FolderSource(str(folder)).events()
        assert isinstance(await following(events), Found)
        (folder / "a.yaml").unlink()
        trouble = await following(events)
        assert isinstance(trouble, Trouble) and "no rule files" in trouble.message
        await events.aclose()  # type: ignore[attr-defined]

    asyncio.run(play())


# --- git --------------------------------------------------------------------------------------------------------------


def test_git_events(tmp_path: pathlib.Path) -> None:
    """Missing, empty, filled, force-pushed: git is polled on, and each commit comes with who and what."""
    bare, work = tmp_path / "rules.git", tmp_path / "work"

    async def play() -> None:
        origin = GitSourceWatcher(GitSource(str(bare), poll_s=600), str(tmp_path / "state"))
        events = origin.events()
        trouble = await following(events)
        assert isinstance(trouble, Trouble) and "no git repository" in trouble.message
        repository(tmp_path)
        waiting = asyncio.ensure_future(following(events))
        await asyncio.sleep(0)
        asked = asyncio.ensure_future(origin.sync())
        trouble = await waiting
        assert isinstance(trouble, Trouble) and "no branch or tag 'main'" in trouble.message
        coming = asyncio.ensure_future(following(events))
        with pytest.raises(SourceError, match="no branch or tag 'main'"):
            await asked
        sha = await asyncio.to_thread(push, work, "First rules", a="version: 1\n")
        found = await coming  # a repository on this machine is noticed without a poll
        assert isinstance(found, Found)
        revision = found.snapshot.revision
        assert (revision.id, revision.sha) == (f"main@sha1:{sha}", sha)
        assert (revision.author, revision.email, revision.subject) == ("Anna", "anna@example.com", "First rules")
        assert found.snapshot.files == {"rules.d/a.yaml": b"version: 1\n"}
        sha = await asyncio.to_thread(push, work, "Nothing of ours")
        same = await following(events)
        assert isinstance(same, Found) and same.content == found.content
        assert same.snapshot.revision.sha == sha
        git(work, "reset", "-q", "--hard", "HEAD~1")
        sha = await asyncio.to_thread(push, work, "Forced", a="version: 1 \n")
        forced = await following(events)
        assert isinstance(forced, Found) and forced.snapshot.revision.sha == sha and forced.content != found.content
        git(work, "rm", "-q", "-r", "rules.d")
        (work / "rules.d").mkdir()
        (work / "rules.d" / "README").write_text("x")
        await asyncio.to_thread(push, work, "All rules gone")
        trouble = await following(events)
        assert isinstance(trouble, Trouble) and "no rule files (*.yaml) in 'rules.d' of main@sha1:" in trouble.message
        await events.aclose()  # type: ignore[attr-defined]

    asyncio.run(play())


def test_git_reads_only_the_tree(tmp_path: pathlib.Path) -> None:
    """Symbolic links and submodules are refused with their place; nothing outside the repository can be read."""
    _, work = repository(tmp_path)
    (work / "lists").mkdir()
    (work / "lists" / "ads.txt").write_text("ads.example\n")
    (work / "lists" / "link.txt").symlink_to("/etc/passwd")
    (work / "rules.d" / "shadow.yaml").symlink_to("/etc/shadow")
    module = work / "rules.d" / "module"
    module.mkdir()
    git(module, "init", "-q")
    git(module, "commit", "-q", "--allow-empty", "-m", "A repository in a repository")
    push(work, "Trouble", a="version: 1\nlists: {ads: {file: ../lists/ads.txt}}\n")
    found = source_git.snapshot_at(str(work), "HEAD", "rules.d")
    named = {d.where.path: d.message for d in found.refusals}
    assert "symbolic link" in named["rules.d/shadow.yaml"] and "submodule" in named["rules.d/module"]
    read = found.snapshot.read
    assert read("../lists/ads.txt", "rules.d/a.yaml") == b"ads.example\n"
    with pytest.raises(PermissionError, match="symbolic link"):
        read("../lists/link.txt", "rules.d/a.yaml")
    with pytest.raises(PermissionError, match="outside the repository"):
        read("../../etc/passwd", "rules.d/a.yaml")
    with pytest.raises(PermissionError, match="outside the repository"):
        read("/etc/passwd", "rules.d/a.yaml")
    with pytest.raises(FileNotFoundError):
        read("none.txt", "rules.d/a.yaml")


def test_git_lists_count(tmp_path: pathlib.Path) -> None:
    """A commit that changes only a list outside the rules' folder is another content."""
    _, work = repository(tmp_path)
    (work / "ads.txt").write_text("a.example\n")
    push(work, "One", a="version: 1\nlists: {ads: {file: ../ads.txt}}\n")
    (work / "ads.txt").write_text("b.example\n")
    push(work, "Two")
    (work / "README").write_text("x")
    push(work, "Three")
    revisions = ("HEAD~2", "HEAD~1", "HEAD")
    one, two, three = (source_git.snapshot_at(str(work), rev, "rules.d").content for rev in revisions)
    assert one != two and two == three


def test_git_missing_path_and_revision(tmp_path: pathlib.Path) -> None:
    """A path or a revision that is not there is said in one sentence."""
    _, work = repository(tmp_path)
    push(work, "One", a="version: 1\n")
    with pytest.raises(SourceError, match="there is no 'rules' in "):
        source_git.snapshot_at(str(work), "HEAD", "rules")
    with pytest.raises(SourceError, match="there is no revision 'nope'"):
        source_git.snapshot_at(str(work), "nope", "rules.d")
    assert list(source_git.snapshot_at(str(work), "HEAD").snapshot.files) == ["rules.d/a.yaml"]


def test_git_refuses_dangerous_urls(tmp_path: pathlib.Path) -> None:
    """Remote helpers and options in place of a url are refused before git is asked; words never show a password."""
    for url in ("ext::sh -c id", "--upload-pack=id"):
        with pytest.raises(SourceError):
            GitSourceWatcher(GitSource(url), str(tmp_path))
    assert source.redact("https://me:secret@host/x") == "https://host/x"
    with pytest.raises(SourceError, match="not in this version"):
        GitSourceWatcher(GitSource("/x", signatures_mode="require"), str(tmp_path))


def test_git_hooks_of_the_repository_do_not_run(tmp_path: pathlib.Path) -> None:
    """A repository's hooks, filters and attributes run nothing here."""
    bare, work = repository(tmp_path)
    mark = tmp_path / "ran"
    for name in ("post-checkout", "reference-transaction", "post-update"):
        hook = bare / "hooks" / name
        hook.write_text(f"#!/bin/sh\necho {name} >> {mark}\n")
    (work / ".gitattributes").write_text("*.yaml filter=evil\n")
    push(work, "One", a="version: 1\n")
    reader = source_git.GitReader(str(bare), "main", "rules.d", str(tmp_path / "mirror.git"))
    hooks = tmp_path / "mirror.git" / "hooks"
    reader._git("--version")
    for name in ("reference-transaction", "post-checkout"):
        hooks.mkdir(exist_ok=True)
        (hooks / name).write_text(f"#!/bin/sh\necho mirror {name} >> {mark}\n")
        (hooks / name).chmod(0o755)
    found = reader.look("")
    reader.close()
    assert found is not None and found.snapshot.files == {"rules.d/a.yaml": b"version: 1\n"}
    assert not mark.exists()

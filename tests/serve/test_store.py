"""Last good tables on disk: whole or not at all, and nothing damaged is served."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from dnsd.contract import frames
from dnsd.serve.store import KEEP, Saved, StoreError, TableStore


def release(store: TableStore, generation: int) -> Saved:
    """Put two blobs and the release that needs them."""
    blobs = []
    for name, data in (("names", b"names"), ("policy", b"policy %d" % generation)):
        digest = hashlib.sha256(data).hexdigest()
        store.put(digest, data)
        blobs.append({"name": name, "digest": digest, "size": len(data)})
    manifest = {"format": "rt/1", "blobs": blobs, "settings": {}, "table": f"{generation:064x}"}
    return Saved(generation, "epoch", frames.json_digest(manifest), manifest, {"short": f"r{generation}"})


def test_what_was_active_is_there_after_a_restart(tmp_path: Path) -> None:
    """A new process finds the releases, newest first, and their blobs."""
    store = TableStore(str(tmp_path / "tables"))
    for generation in (1, 2):
        store.commit(release(store, generation))
    again = TableStore(str(tmp_path / "tables"))
    assert [r.generation for r in again.releases] == [2, 1] and again.problems == []
    assert again.read(again.releases[0].blob("policy")) == b"policy 2"


def test_only_the_newest_few_are_kept(tmp_path: Path) -> None:
    """Old blobs are swept; a shared blob stays as long as one release needs it."""
    store = TableStore(str(tmp_path))
    for generation in range(1, 8):
        store.commit(release(store, generation))
    assert [r.generation for r in store.releases] == [7, 6, 5]
    assert len([n for n in os.listdir(tmp_path) if len(n) == 64]) == KEEP + 1


def test_a_corrupt_blob_is_moved_aside(tmp_path: Path) -> None:
    """Octets that are not what the name says are not returned; the file is kept for a look, with the reason."""
    store = TableStore(str(tmp_path))
    store.commit(release(store, 1))
    digest = store.releases[0].blob("policy")
    (tmp_path / digest).write_bytes(b"rotten")
    assert store.read(digest) is None and not store.has(digest, 8)
    assert (tmp_path / f"{digest}.damaged").read_bytes() == b"rotten" and "moved" in store.problems[0]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"releases": [{}]}', '{"releases": [5]}', '{"releases": {"a": 1}}', "\xff"]
)
def test_a_corrupt_list_is_moved_aside(tmp_path: Path, text: str) -> None:
    """A last-good.json that is none does not stop the node: it starts without a table and says so."""
    (tmp_path / "last-good.json").write_bytes(text.encode("latin-1"))
    store = TableStore(str(tmp_path))
    assert store.releases == [] and "damaged" in store.problems[0]
    store.commit(release(store, 1))
    assert [r.generation for r in TableStore(str(tmp_path)).releases] == [1]


def test_a_forged_manifest_is_not_believed(tmp_path: Path) -> None:
    """A manifest that is not what its digest says counts as damage."""
    store = TableStore(str(tmp_path))
    store.commit(release(store, 1))
    path = tmp_path / "last-good.json"
    path.write_text(path.read_text().replace('"rt/1"', '"rt/1", "x": 1'))
    assert TableStore(str(tmp_path)).releases == []


def test_false_octets_are_refused(tmp_path: Path) -> None:
    """Putting octets under another digest raises, and leaves nothing behind."""
    store = TableStore(str(tmp_path))
    with pytest.raises(ValueError, match="not the blob"):
        store.put("0" * 64, b"x")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("number", "said"), [(28, "disk is full"), (122, "disk is full"), (5, "cannot be written")])
def test_a_disk_that_refuses_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    """ENOSPC, EDQUOT, EIO while writing: one sentence, no scratch file, and the old release still loads."""
    store = TableStore(str(tmp_path))
    store.commit(release(store, 1))
    following = release(store, 2)

    def refuse(*arguments: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("dnsd.serve.store.os.fsync", refuse)
    monkeypatch.setattr("dnsd.serve.store.os.posix_fallocate", refuse)
    for attempt in (lambda: store.put(hashlib.sha256(b"z").hexdigest(), b"z"), lambda: store.commit(following)):
        with pytest.raises(StoreError, match=said):
            attempt()
    monkeypatch.undo()
    assert [r.generation for r in store.releases] == [r.generation for r in TableStore(str(tmp_path)).releases] == [1]
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".new")]


def test_interrupted_writes_are_tidied(tmp_path: Path) -> None:
    """Scratch files of a process that was killed are gone after the next start."""
    (tmp_path / "abc.1234.new").write_bytes(b"half")
    TableStore(str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    """A file in the way of the folder is said, not raised as an OSError."""
    (tmp_path / "tables").write_text("")
    with pytest.raises(StoreError, match="cannot be used"):
        TableStore(str(tmp_path / "tables"))


def test_a_node_keeps_its_name(tmp_path: Path) -> None:
    """The name is the host's with four digits of its own, the same after a restart, another in another folder."""
    one = TableStore(str(tmp_path / "a")).node_name("host")
    assert one == TableStore(str(tmp_path / "a")).node_name("host") and one.startswith("host-")
    names: Any = {TableStore(str(tmp_path / str(n))).node_name("host") for n in range(5)}
    assert len(names) > 1

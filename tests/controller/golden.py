"""Reads the golden rule folders. `python -m tests.controller.golden` writes what is expected anew: look at the diff."""

from __future__ import annotations

import datetime
import pathlib

from controller.ruleset import Revision, Snapshot

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "golden"
TODAY = datetime.date(2026, 3, 2)


def snapshot(folder: pathlib.Path, **more: bytes) -> Snapshot:
    """A folder's rule files, paths relative to it."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.yaml"))}
    files.update({name.replace("__", "."): data for name, data in more.items()})

    def read(path: str, relative_to: str) -> bytes:
        return (folder / pathlib.Path(relative_to).parent / path).read_bytes()

    return Snapshot(Revision("golden@sha256:0", "golden"), files, read)


def of_texts(**texts: str) -> Snapshot:
    """A snapshot of texts by file name (`a` is a.yaml); `version: 1` is put in front of each."""
    files = {f"{name}.yaml": f"version: 1\n{text}".encode() for name, text in texts.items()}

    def read(path: str, relative_to: str) -> bytes:
        raise FileNotFoundError(path)

    return Snapshot(Revision("texts@sha256:0", "texts"), files, read)


def printed(folder: pathlib.Path) -> str:
    """What `check` says about a folder."""
    from controller import check
    from controller.diagnostics import render, summary

    taken = snapshot(folder)
    result = check.check_snapshot(taken, TODAY)
    return render(result.diagnostics, taken.files, "text") + f"\n{summary(result.diagnostics)}\n"


def write() -> None:
    """Write every bad folder's expected.txt."""
    for folder in sorted((FOLDER / "bad").iterdir()):
        (folder / "expected.txt").write_text(printed(folder), encoding="utf-8")


if __name__ == "__main__":
    write()

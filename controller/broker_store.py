"""What the broker remembers on disk: its epoch, the newest generation, the active manifest, the blobs.

`<dir>/active.json` is replaced by rename after fsync: a release is decided when that rename is.
Blobs (`<dir>/blobs/<sha256>`) are checked when they are read, not fsynced: one that a power loss has
damaged counts as lacking and is fetched from the publisher again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from typing import Any

from dnsd.contract import frames, messages


class StoreError(Exception):
    """The broker's directory cannot be used; the text says why."""


class BrokerStore:
    """The broker's durable state. `active` is None until the first release; `newest` never goes back."""

    def __init__(self, directory: str, beside: str = "") -> None:
        """`beside`: a folder where a publisher on this machine keeps blobs by SHA-256: they are linked, not fetched."""
        self._directory = directory
        self._beside = beside
        self._blobs = os.path.join(directory, "blobs")
        self._file = os.path.join(directory, "active.json")
        self.epoch = ""
        self.newest = 0
        self.active: dict[str, Any] | None = None
        self.previous: dict[str, Any] | None = None
        self._good: set[str] = set()
        self.warning = ""
        try:
            os.makedirs(self._blobs, exist_ok=True)
            for name in os.listdir(self._blobs):
                if name.endswith(".new"):
                    os.unlink(os.path.join(self._blobs, name))
            self._load()
        except OSError as error:
            raise StoreError(f"the broker's directory {directory} cannot be used: {error.strerror}") from None

    def _load(self) -> None:
        try:
            with open(self._file, "rb") as file:
                saved = json.load(file)
            for release in (saved["active"], saved["previous"]):
                if release is not None and (
                    messages.manifest_problem(release["manifest"])
                    or frames.json_digest(release["manifest"]) != release["digest"]
                    or not isinstance(release["generation"], int)
                ):
                    raise ValueError("a manifest does not hold together")
            self.epoch, self.newest = str(saved["epoch"]), int(saved["newest"])
            self.active, self.previous = saved["active"], saved["previous"]
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError) as error:
            aside = f"{self._file}.damaged"
            os.replace(self._file, aside)
            self.active = self.previous = None
            self.warning = f"{self._file} was damaged ({error}); it is kept as {aside}, the broker begins anew"
        if not self.epoch:
            self.epoch = secrets.token_hex(8)
            self._save()

    def _save(self) -> None:
        scratch = self._file + ".new"
        text = json.dumps(
            {"epoch": self.epoch, "newest": self.newest, "active": self.active, "previous": self.previous},
            sort_keys=True, indent=1,
        )  # fmt: skip
        with open(scratch, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.rename(scratch, self._file)
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def commit(self, release: Mapping[str, Any]) -> None:
        """Decide: this release is the active one from now on, also after a crash. Raises OSError, nothing changed."""
        kept = self.active, self.previous, self.newest
        if self.active is not None and self.active["digest"] != release["digest"]:
            self.previous = self.active
        self.active = dict(release)
        self.newest = max(self.newest, int(release["generation"]))
        try:
            self._save()
        except OSError:
            self.active, self.previous, self.newest = kept
            raise
        self._sweep()

    def lacks(self, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The manifest's blobs that are not here, or not whole."""
        return [blob for blob in manifest["blobs"] if not self._has(blob["digest"], blob["size"])]

    def _has(self, digest: str, size: int) -> bool:
        path = os.path.join(self._blobs, digest)
        if self._beside and not os.path.exists(path):
            with contextlib.suppress(OSError):  # another file system, another owner: then it is fetched
                os.link(os.path.join(self._beside, digest), path)
        try:
            if os.stat(path).st_size != size:
                return False
            if digest not in self._good:
                with open(path, "rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                        return False
                self._good.add(digest)
        except OSError:
            return False
        return True

    def put(self, digest: str, data: bytes | bytearray) -> None:
        """Keep a blob; raises ValueError when it is not what its digest says, OSError when the disk refuses."""
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError(f"the octets that came for blob {digest[:12]} are not the blob")
        path = os.path.join(self._blobs, digest)
        scratch = f"{path}.{secrets.token_hex(4)}.new"
        try:
            with open(scratch, "wb") as file:
                file.write(data)
            os.rename(scratch, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(scratch)
            raise
        self._good.add(digest)

    def read(self, digest: str, offset: int, length: int) -> bytes | None:
        """Octets of a blob that has been checked; None when it is not here, b"" past its end."""
        if digest not in self._good:
            return None
        try:
            with open(os.path.join(self._blobs, digest), "rb") as file:
                return os.pread(file.fileno(), length, offset)
        except OSError:
            self._good.discard(digest)
            return None

    def _sweep(self) -> None:
        """Forget blobs that neither the active nor the previous release needs."""
        wanted = {b["digest"] for r in (self.active, self.previous) if r is not None for b in r["manifest"]["blobs"]}
        for name in os.listdir(self._blobs):
            if name not in wanted:
                self._good.discard(name)
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(self._blobs, name))

"""Last good tables on disk: what a node serves when nobody tells it anything.

`<dir>/<sha256>` holds a blob, `<dir>/last-good.json` the newest few releases that were active here.
Everything is written beside and renamed, and is on the disk before a release counts as kept; a blob is checked
against its name whenever it is read, and one that is not what its name says is moved aside with the reason, never
served.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from typing import Any

from dnsd.contract import frames, messages

_UNSYNCED = 8
KEEP = 3  # releases whose blobs stay on disk: the active one and those before it


class StoreError(Exception):
    """The disk refused; one sentence for people. Nothing that was there is lost."""


@dataclasses.dataclass(frozen=True, slots=True)
class Saved:
    """One release that was active: its manifest with digest and revision, under the broker's epoch and generation."""

    generation: int
    epoch: str
    digest: str
    manifest: Mapping[str, Any]
    revision: Mapping[str, Any]

    def blob(self, name: str) -> str:
        """The digest of the blob with this name; raises KeyError."""
        for entry in self.manifest["blobs"]:
            if entry["name"] == name:
                return str(entry["digest"])
        raise KeyError(name)


def last_good(directory: str) -> tuple[bytes, bytes] | None:
    """The newest table's blobs (policy, names) of a store that belongs to somebody else: it is only looked at."""
    try:
        with open(os.path.join(directory, "last-good.json"), "rb") as file:
            blobs = {blob["name"]: blob["digest"] for blob in json.load(file)["releases"][0]["manifest"]["blobs"]}
        found = []
        for name in ("policy", "names"):
            with open(os.path.join(directory, os.path.basename(blobs[name])), "rb") as file:
                found.append(file.read())
            if hashlib.sha256(found[-1]).hexdigest() != blobs[name]:
                return None
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None
    return found[0], found[1]


class TableStore:
    """The blobs and releases of one node. `problems` collects what was found damaged, for the log."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._file = os.path.join(directory, "last-good.json")
        self._unsynced: dict[str, None] = {}  # blobs of releases that are being prepared, or were given up
        self.problems: list[str] = []
        self.releases: list[Saved] = []
        try:
            os.makedirs(directory, exist_ok=True)
            for name in os.listdir(directory):
                if name.endswith(".new"):
                    os.unlink(os.path.join(directory, name))
            self._load()
        except OSError as error:
            raise StoreError(f"the table store {directory} cannot be used: {error.strerror}") from None

    def _load(self) -> None:
        try:
            with open(self._file, "rb") as file:
                saved = json.load(file)
            for item in saved["releases"]:
                release = Saved(**{field.name: item[field.name] for field in dataclasses.fields(Saved)})
                if messages.manifest_problem(release.manifest) or not isinstance(release.generation, int):
                    raise ValueError("a manifest does not hold together")
                if frames.json_digest(release.manifest) != release.digest:
                    raise ValueError("a manifest is not what its digest says")
                self.releases.append(release)
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError) as error:
            self.releases = []
            self._aside("last-good.json", f"it is damaged ({error})")

    def _aside(self, name: str, why: str) -> None:
        """Move a damaged file out of the way, so that it can be looked at and is never served."""
        target = os.path.join(self._directory, name + ".damaged")
        with contextlib.suppress(OSError):
            os.replace(os.path.join(self._directory, name), target)
        self.problems.append(f"{os.path.join(self._directory, name)} was moved to {name}.damaged: {why}")

    def has(self, digest: str, size: int) -> bool:
        """Whether a blob of this size is here; its content is checked when it is read."""
        try:
            return os.stat(os.path.join(self._directory, digest)).st_size == size
        except OSError:
            return False

    def read(self, digest: str) -> bytes | None:
        """A blob's octets, checked; None when it is not here or was damaged (then it is moved aside)."""
        try:
            with open(os.path.join(self._directory, digest), "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._aside(digest, f"it cannot be read ({error.strerror})")
            return None
        if hashlib.sha256(data).hexdigest() != digest:
            self._aside(digest, f"its {len(data)} octets are not what its name says")
            return None
        return data

    def read_into(self, digest: str, data: memoryview) -> bool:
        """Fill `data`, which has the blob's size, and check it; False as in `read`. `data` may be half filled then."""
        try:
            with open(os.path.join(self._directory, digest), "rb", buffering=0) as file:
                at = 0
                while at < len(data) and (count := file.readinto(data[at:])):
                    at += count
                whole = at == len(data) and not file.read(1)
        except FileNotFoundError:
            return False
        except OSError as error:
            self._aside(digest, f"it cannot be read ({error.strerror})")
            return False
        if not whole or hashlib.sha256(data).hexdigest() != digest:
            self._aside(digest, "its octets are not what its name says")
            return False
        return True

    def put(self, digest: str, data: bytes | bytearray | memoryview) -> None:
        """Keep a blob; it survives a power cut once a release that needs it is committed.

        Raises ValueError when it is not what its digest says, StoreError when there is no room for it.
        """
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError(f"the octets that came for blob {digest[:12]} are not the blob")
        self._unsynced[digest] = None
        while len(self._unsynced) > _UNSYNCED:
            self._unsynced.pop(next(iter(self._unsynced)))
        self._write(os.path.join(self._directory, digest), data, sync=False)

    def _sync(self, digest: str) -> None:
        """Wait until a blob is on the disk."""
        try:
            descriptor = os.open(os.path.join(self._directory, digest), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._refused(error) from None
        self._unsynced.pop(digest, None)

    def commit(self, release: Saved) -> None:
        """This release is active: the one to start from. Raises StoreError, and then starts from the one before."""
        for blob in release.manifest["blobs"]:
            if blob["digest"] in self._unsynced:
                self._sync(blob["digest"])
        releases = [release, *(old for old in self.releases if old.digest != release.digest)][:KEEP]
        text = json.dumps({"releases": [dataclasses.asdict(r) for r in releases]}, sort_keys=True, indent=1)
        self._write(self._file, text.encode())
        self.releases = releases
        self._sweep()

    def _write(self, path: str, data: bytes | bytearray | memoryview, sync: bool = True) -> None:
        scratch = f"{path}.{secrets.token_hex(4)}.new"
        try:
            with open(scratch, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(1, len(data)))  # a full disk says so now, not when it syncs
                file.write(data)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            os.rename(scratch, path)
            if not sync:
                return
            directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(scratch)
            raise self._refused(error) from None

    def _refused(self, error: OSError) -> StoreError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StoreError(f"no room in {self._directory}: the disk is full; free some space")
        return StoreError(f"{self._directory} cannot be written: {error.strerror}")

    def _sweep(self) -> None:
        """Forget the blobs of releases that are no longer kept; what was moved aside stays, the newest of each."""
        wanted = {str(blob["digest"]) for release in self.releases for blob in release.manifest["blobs"]}
        wanted |= self._unsynced.keys()  # of a release that is only being prepared
        with contextlib.suppress(OSError):
            for name in os.listdir(self._directory):
                if len(name) == 64 and name not in wanted:
                    os.unlink(os.path.join(self._directory, name))

    def node_name(self, host: str) -> str:
        """This node's own name: the host's, and four digits that tell two nodes on one host apart; kept on disk."""
        path = os.path.join(self._directory, "node")
        with contextlib.suppress(OSError, UnicodeDecodeError), open(path, encoding="ascii") as file:
            digits = file.read().strip()
            if len(digits) == 4 and digits.isalnum():
                return f"{host}-{digits}"
        digits = secrets.token_hex(2)
        with contextlib.suppress(StoreError):
            self._write(path, digits.encode())
        return f"{host}-{digits}"

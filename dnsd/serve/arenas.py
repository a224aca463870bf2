"""The memory of the workers' answer caches: made before the fork, so it outlives each worker; and the node, if wanted.

A worker that is killed leaves its arena to its successor (`resolve.cache.Cache.adopt`). With `cache.persist` the used
part of each arena is written when the node stops, and read when it starts again: once, whole, with the digest that says
so. What was written by another node, with other settings, or before the clock was set back is not used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import mmap
import os
import struct
from typing import Any

from dnsd import __version__
from dnsd.contract.settings import Settings
from dnsd.resolve.cache import ENTRY_WORDS, HEAD_WORDS, MAGIC, Cache

_LEAST = 1 << 20
_FILE_MAGIC = b"NXARENA1"
_FORM = (__version__, MAGIC, HEAD_WORDS, ENTRY_WORDS)  # another release may lay answers out in another way
# Magic, the settings' digest, octets of the arena, written at (wall ms), octets of index, of log.
_HEAD = struct.Struct("<8s32sQQQQ")


class Arenas:
    """One arena per worker slot. `log` is told what could not be read or written: a cache is never worth an error."""

    def __init__(self, settings: Settings, slots: int, log: Any) -> None:
        size = max(_LEAST, settings.cache.size_bytes // slots // 4096 * 4096)
        self.arenas = [mmap.mmap(-1, size, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS) for _ in range(slots)]
        self._folder = os.path.join(settings.state, "cache")
        # What answers depend on and what is not in their key.
        limits = settings.cache.min_ttl_s, settings.cache.max_ttl_s, slots
        relevant = _FORM, dataclasses.astuple(settings.resolver), limits
        self._settings = hashlib.sha256(repr(relevant).encode()).digest()
        self._persist = settings.cache.persist
        self._log = log

    def load(self, wall_ms: int) -> int:
        """Read what the node left when it stopped; returns how many answers that is. The files are gone afterwards."""
        found = 0
        for slot, arena in enumerate(self.arenas):
            path = self._path(slot)
            try:
                with open(path, "rb") as file:
                    data = memoryview(file.read(len(arena) + _HEAD.size + 33))
                os.unlink(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._log.warning("the cache of the last run cannot be read", file=path, error=error.strerror)
                continue
            if self._persist:
                reason = self._fill(arena, data, wall_ms)
                if reason:
                    self._log.info("the cache of the last run is not used", file=path, reason=reason)
                else:
                    found += Cache(arena).forget_reviews()
        return found

    def _fill(self, arena: mmap.mmap, data: memoryview, wall_ms: int) -> str:
        """Put a file's octets where they were; returns why not."""
        if len(data) < _HEAD.size + 32 or hashlib.sha256(data[:-32]).digest() != data[-32:]:
            return "it is damaged"
        magic, settings, size, written_ms, index, log = _HEAD.unpack_from(data)
        if magic != _FILE_MAGIC or settings != self._settings or size != len(arena):
            return "the settings are others"
        if written_ms > wall_ms:
            return "the clock has been set back"
        at = _log_begins(len(arena))
        if len(data) != _HEAD.size + index + log + 32 or index > at or at + log > len(arena):
            return "it does not fit"
        with memoryview(arena) as octets:
            octets[:index] = data[_HEAD.size : _HEAD.size + index]
            octets[at : at + log] = data[_HEAD.size + index : -32]
        return ""

    def save(self, wall_ms: int) -> None:
        """Write what is in the arenas; nobody may be writing into them any more."""
        if not self._persist:
            return
        for slot, arena in enumerate(self.arenas):
            with memoryview(arena) as octets, octets.cast("I") as words:
                if words[0] != MAGIC or words[5]:
                    continue  # never used, or its worker was killed while it wrote
                begin = _log_begins(len(arena))
                index, end = 4 * (HEAD_WORDS + 8 * words[6]), 4 * max(words[2], words[4])
                head = _HEAD.pack(_FILE_MAGIC, self._settings, len(arena), wall_ms, index, end - begin)
                with octets[:index] as first, octets[begin:end] as second:
                    digest = hashlib.sha256(head)
                    digest.update(first)
                    digest.update(second)
                    self._write(slot, (head, first, second, digest.digest()))

    def _write(self, slot: int, parts: tuple[bytes | memoryview, ...]) -> None:
        path = self._path(slot)
        try:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            with open(os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                for part in parts:
                    file.write(part)
            os.replace(f"{path}.new", path)  # the digest says whether all of it has reached the disk
        except OSError as error:
            self._log.warning("the cache cannot be kept", file=path, error=error.strerror)
            with contextlib.suppress(OSError):
                os.unlink(f"{path}.new")

    def _path(self, slot: int) -> str:
        return os.path.join(self._folder, f"answers-{slot}")


def _log_begins(size: int) -> int:
    """The octet of an arena at which its log begins, as `resolve.cache.Cache` lays it out."""
    buckets = 1 << max(8, (size // 256).bit_length() - 1)
    return 4 * (HEAD_WORDS + 8 * buckets)

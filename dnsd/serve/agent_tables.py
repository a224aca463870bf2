"""From a manifest to a verified table in sealed memory.

A table is verified once, here; what the workers get can be read and nothing else, by nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import mmap
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dnsd.contract import messages, verify
from dnsd.contract.table import Table, TableError
from dnsd.serve.agent_link import Link, LinkError
from dnsd.serve.agent_workers import Loaded
from dnsd.serve.store import Saved, StoreError, TableStore

_FETCH_S = 30.0
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class Refused(Exception):
    """A release that this node cannot take: what NACK says."""

    def __init__(self, code: str, texts: Sequence[str], blob: str = "") -> None:
        super().__init__(code)
        self.errors = [{"code": code, "message": text[:2000], "blob": blob} for text in texts[: messages.MAX_ERRORS]]


async def load(
    saved: Saved,
    store: TableStore,
    link: Link | None,
    current: Loaded | None,
    current_saved: Saved | None,
    committed: int,
) -> Loaded:
    """Fetch what is lacking, verify everything, seal it. Raises Refused.

    Without a link only the disk counts. Blobs that `current` has already are used again as they are.
    `committed` is the generation that the workers serve: the new one's `local` is above it.
    """
    with contextlib.ExitStack() as on_failure:
        table, descriptors = await _load(saved, store, link, current, current_saved, on_failure)
        on_failure.pop_all()
    return Loaded(
        generation=saved.generation,
        epoch=saved.epoch,
        local=saved.generation if saved.generation > committed else committed + 1,
        manifest_digest=saved.digest,
        digest=table.digest,
        names_digest=table.names_digest,
        revision=str(saved.revision.get("short", "")),
        policy_fd=descriptors["policy"],
        names_fd=descriptors["names"],
        gates_json=table.gates_json(),
    )


async def _load(
    saved: Saved,
    store: TableStore,
    link: Link | None,
    current: Loaded | None,
    current_saved: Saved | None,
    on_failure: contextlib.ExitStack,
) -> tuple[Table, dict[str, int]]:
    entries = {entry["name"]: entry for entry in saved.manifest["blobs"]}
    if set(entries) != {"names", "policy"}:
        raise Refused("unsupported_format", [f"the manifest has blobs {sorted(entries)}, not names and policy"])
    descriptors: dict[str, int] = {}
    verified = set()
    for name, entry in entries.items():
        if current and current_saved and current_saved.blob(name) == entry["digest"]:
            # The same memory for old and new: it was verified once, and nobody can have changed it.
            descriptors[name] = os.dup(current.names_fd if name == "names" else current.policy_fd)
            verified.add(name)
        else:
            descriptors[name] = await _sealed(name, entry, store, link)
        on_failure.callback(os.close, descriptors[name])
    policy, names = (mmap.mmap(descriptors[name], 0, mmap.MAP_SHARED, mmap.PROT_READ) for name in ("policy", "names"))
    if len(verified) < 2:
        views = memoryview(policy), memoryview(names)
        problems = await asyncio.to_thread(verify.verify, *views, names_verified="names" in verified)
        if problems:
            raise Refused("build_failed", problems, "policy")
    try:
        table = Table(policy, names)
    except TableError as error:
        raise Refused("build_failed", [str(error)], "policy") from None
    if table.digest != saved.manifest["table"]:
        raise Refused("digest_mismatch", ["the table is not the one that the manifest names"], "policy")
    return table, descriptors


async def _sealed(name: str, entry: Mapping[str, Any], store: TableStore, link: Link | None) -> int:
    """A blob from disk or from the broker, checked, in sealed memory: it is written there once and copied nowhere."""
    digest, size = entry["digest"], entry["size"]
    if size == 0:
        raise Refused("build_failed", [f"blob {digest[:12]} ({name}) is empty"], name)
    descriptor = os.memfd_create(f"nexoraldns-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        with mmap.mmap(descriptor, size, mmap.MAP_SHARED) as mapped, memoryview(mapped) as data:
            await _fill(name, digest, data, store, link)
        seal(descriptor)
    except OSError as error:
        os.close(descriptor)
        raise Refused("internal", [f"no memory for blob {digest[:12]} ({name}): {error.strerror}"], name) from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def seal(descriptor: int) -> None:
    """From now on nobody can change, shorten or lengthen this memory; it must not be mapped writable any more."""
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)


async def _fill(name: str, digest: str, data: memoryview, store: TableStore, link: Link | None) -> None:
    if await _thread(store.read_into, digest, data):
        return
    if link is None:
        raise Refused("unknown_blob", [f"blob {digest[:12]} ({name}) is not on disk"], name)
    try:
        await link.fetch(digest, data, _FETCH_S)
        await _thread(store.put, digest, data)
    except (LinkError, ValueError) as error:
        raise Refused("digest_mismatch", [str(error)], name) from None
    except StoreError as error:
        raise Refused("internal", [str(error)], name) from None


async def _thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """`asyncio.to_thread` that is left only when the thread is done with the memory, also by a cancelled task."""
    task = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def release(loaded: Loaded) -> None:
    """Close a table's descriptors; mappings stay."""
    for descriptor in (loaded.policy_fd, loaded.names_fd):
        with contextlib.suppress(OSError):
            os.close(descriptor)

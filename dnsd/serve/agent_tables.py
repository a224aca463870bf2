"""From a manifest to a verified table in sealed memory.

A table is verified once, here; what the workers get can be read and nothing else, by nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import mmap
import os
from collections.abc import Mapping, Sequence
from typing import Any

from dnsd.contract import messages, verify
from dnsd.contract.table import Table, TableError
from dnsd.serve.agent_link import Link, LinkError
from dnsd.serve.agent_workers import Loaded
from dnsd.serve.store import Saved, StoreError, TableStore

_FETCH_S = 30.0


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

    Without a link only the disk counts. A names blob that `current` has already is used again as it is.
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
    parts: dict[str, Any] = {}
    for name, entry in entries.items():
        if name == "names" and current and current_saved and current_saved.blob(name) == entry["digest"]:
            descriptors[name] = os.dup(current.names_fd)  # the same memory for old and new
            on_failure.callback(os.close, descriptors[name])
            parts[name] = mmap.mmap(descriptors[name], 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
        else:
            parts[name] = await _blob(name, entry, store, link)
    policy, names = parts["policy"], parts["names"]
    problems = await asyncio.to_thread(verify.verify, policy, names)
    if problems:
        raise Refused("build_failed", problems, "policy")
    try:
        table = Table(policy, names)
    except TableError as error:
        raise Refused("build_failed", [str(error)], "policy") from None
    if table.digest != saved.manifest["table"]:
        raise Refused("digest_mismatch", ["the table is not the one that the manifest names"], "policy")
    for name, data in parts.items():
        if name not in descriptors:
            descriptors[name] = seal(name, data)
            on_failure.callback(os.close, descriptors[name])
    return table, descriptors


async def _blob(name: str, entry: Mapping[str, Any], store: TableStore, link: Link | None) -> bytes | bytearray:
    digest = entry["digest"]
    data: bytes | bytearray | None = await asyncio.to_thread(store.read, digest)
    if data is not None:
        return data
    if link is None:
        raise Refused("unknown_blob", [f"blob {digest[:12]} ({name}) is not on disk"], name)
    try:
        data = await link.fetch(digest, entry["size"], _FETCH_S)
        await asyncio.to_thread(store.put, digest, data)
    except (LinkError, ValueError) as error:
        raise Refused("digest_mismatch", [str(error)], name) from None
    except StoreError as error:
        raise Refused("internal", [str(error)], name) from None
    return data


def seal(name: str, data: bytes | bytearray | memoryview) -> int:
    """Octets in memory that nobody can change, shorten or lengthen any more; a descriptor, mapped read-only."""
    descriptor = os.memfd_create(f"nexoraldns-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        at = 0
        while at < len(view):
            at += os.write(descriptor, view[at:])
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def release(loaded: Loaded) -> None:
    """Close a table's descriptors; mappings stay."""
    for descriptor in (loaded.policy_fd, loaded.names_fd):
        with contextlib.suppress(OSError):
            os.close(descriptor)

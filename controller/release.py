"""Publishing a compiled table: what the pipeline calls, and what becomes of it.

A release is one connection to the broker. After COMMIT the probe asks real questions through the real
sockets; if what answered before answers no more, the previous manifest is published under a new
generation, and its blobs are all there already, so that costs no transfer.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import mmap
import os
import random
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from controller import broker_keys
from controller.broker_client import BrokerClient, BrokerSays, LinkError
from controller.ruleset import Revision
from dnsd.contract import frames, keys, messages
from dnsd.contract.frames import Frame
from dnsd.contract.keys import KeysError
from dnsd.contract.settings import Settings, split_listen

ACTIVE, REJECTED, SUPERSEDED, FAILED = messages.STATES
DEADLINE_MS = 10_000
_STALE_TRIES = 5
_PROBE_S = 1.0
_PROBE_BEFORE_S = 0.2

Probe = Callable[[tuple[str, ...]], Awaitable[frozenset[str]]]


class Blobs(Protocol):
    """What `compiler.compile_table` returns, as far as it is needed here."""

    @property
    def policy(self) -> bytes: ...
    @property
    def names(self) -> bytes | bytearray | mmap.mmap: ...
    @property
    def digest(self) -> str: ...


@dataclasses.dataclass(frozen=True, slots=True)
class StoredBlobs:
    """A table on disk, in files named by their SHA-256: nothing of it is hashed again, and `names` is only mapped."""

    policy: bytes
    names: mmap.mmap
    digest: str
    hashes: Mapping[str, str]  # of `policy` and `names`

    @classmethod
    def load(cls, policy: str, names: str, digest: str) -> StoredBlobs:
        """Open these two files. Raises OSError when somebody tidied them away."""
        with open(policy, "rb") as policy_file, open(names, "rb") as names_file:
            mapped = mmap.mmap(names_file.fileno(), 0, prot=mmap.PROT_READ)
            hashes = {"policy": os.path.basename(policy), "names": os.path.basename(names)}
            return cls(policy_file.read(), mapped, digest, hashes)


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What became of a release.

    `state`: active, rejected (a node refused; `errors` says why), superseded (a newer one came), failed (could not be
    done, or its probe failed). `rows`: one per node, with its workers. `rolled_back` is the generation under which the
    previous table is serving again, 0 if nothing was rolled back. `unchanged`: it was active already.
    """

    state: str
    generation: int
    digest: str
    rows: tuple[Mapping[str, Any], ...] = ()
    errors: tuple[Mapping[str, Any], ...] = ()
    rolled_back: int = 0
    unchanged: bool = False

    def text(self) -> str:
        """All errors, a line each, as people read them."""
        return "\n".join(
            f"{error['node']}: {error['message']}" if error.get("node") else str(error["message"])
            for error in self.errors
        )


def manifest_of(blobs: Blobs) -> dict[str, Any]:
    """The manifest of a compiled table (format rt/1)."""
    parts: list[tuple[str, Any]] = [("names", blobs.names), ("policy", blobs.policy)]
    known = blobs.hashes if isinstance(blobs, StoredBlobs) else {}
    hashes = {name: known.get(name) or hashlib.sha256(data).hexdigest() for name, data in parts}
    return {
        "format": "rt/1",
        "blobs": [{"name": name, "digest": hashes[name], "size": len(data)} for name, data in parts],
        "settings": {},
        "table": blobs.digest,
    }


def revision_message(revision: Revision) -> dict[str, Any]:
    """A revision as PUBLISH and PREPARE carry it."""
    return {name: str(value)[:1000] for name, value in dataclasses.asdict(revision).items()}


class Publisher:
    """Publishes to the broker that `settings.broker` names. `publish` may be called while another one runs."""

    def __init__(self, settings: Settings, *, probe: Probe | None = None, address: str | None = None) -> None:
        self._settings = settings
        self._address = address or settings.broker.listen
        self._probe = probe or ask_version
        self.bad: set[str] = set()  # manifests whose probe failed
        self.transferred = 0  # octets of blobs that the broker asked for

    async def publish(
        self,
        blobs: Blobs,
        revision: Revision,
        reason: str = "commit",
        *,
        deadline_ms: int = DEADLINE_MS,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> Result:
        """Release a compiled table; returns when it is active, refused or superseded. Never raises for the broker."""
        manifest = await asyncio.to_thread(manifest_of, blobs)
        data = {entry["digest"]: getattr(blobs, entry["name"]) for entry in manifest["blobs"]}
        return await self._release(manifest, data, revision_message(revision), reason, deadline_ms, on_progress, True)

    async def rollback(self, *, deadline_ms: int = DEADLINE_MS) -> Result:
        """Publish the release before the active one again, under a new generation; transfers nothing."""
        try:
            async with await self._connect() as client:
                previous = client.welcome.get("previous")
        except (LinkError, KeysError) as error:
            return _failed(str(error))
        if previous is None:
            return _failed("there is no release before the active one")
        return await self._release(previous["manifest"], {}, previous["revision"], "rollback", deadline_ms, None, False)

    async def _connect(self) -> BrokerClient:
        path = self._settings.broker.keys
        key = keys.for_role(broker_keys.load(path), "publisher", path)
        return await BrokerClient.connect(self._address, key, "publisher")

    async def _release(
        self,
        manifest: dict[str, Any],
        data: Mapping[str, Any],
        revision: dict[str, Any],
        reason: str,
        deadline_ms: int,
        on_progress: Callable[[dict[str, Any]], None] | None,
        probation: bool,
    ) -> Result:
        try:
            async with await self._connect() as client:
                listen = tuple(client.welcome.get("listen", ()))
                before = await self._answering(listen) if probation and listen else frozenset()
                result = await self._publish(client, manifest, data, revision, reason, deadline_ms, on_progress)
        except (LinkError, KeysError) as error:
            return _failed(str(error))
        if result.state != ACTIVE or result.unchanged or not before:
            return result
        silent = before - await self._probe(tuple(before))
        if not silent:
            return result
        self.bad.add(result.digest)
        back = await self.rollback(deadline_ms=deadline_ms)
        text = f"after the release nothing answered at {', '.join(sorted(silent))}"
        text += "; the previous table is serving again" if back.state == ACTIVE else f"; rollback: {back.text()}"
        errors = ({"code": "probe_failed", "message": text},)
        return dataclasses.replace(result, state=FAILED, errors=errors, rolled_back=back.generation)

    async def _answering(self, listen: tuple[str, ...]) -> frozenset[str]:
        """Who answers now. Nothing that takes longer than this is worth holding a release up for."""
        try:
            async with asyncio.timeout(_PROBE_BEFORE_S):
                return await self._probe(listen)
        except TimeoutError:
            return frozenset()

    async def _publish(
        self,
        client: BrokerClient,
        manifest: dict[str, Any],
        data: Mapping[str, Any],
        revision: dict[str, Any],
        reason: str,
        deadline_ms: int,
        on_progress: Callable[[dict[str, Any]], None] | None,
    ) -> Result:
        client.on_frame = lambda frame: self._serve_blob(client, frame, data)
        client.on_progress = on_progress
        epoch, newest = client.challenge["epoch"], client.welcome["newest"]
        message: dict[str, Any] = {
            "epoch": epoch, "reason": reason, "revision": revision, "manifest": manifest, "deadline_ms": deadline_ms,
        }  # fmt: skip
        was = client.welcome["active"]
        for _ in range(_STALE_TRIES):
            message["generation"] = newest + 1
            try:
                # The broker keeps the deadline; this bounds only a broker that is stuck.
                frame = await client.ask(messages.PUBLISH, message, 4 * deadline_ms / 1000 + 60)
            except BrokerSays as said:
                if said.code != "stale_generation" or "newest" not in said.message:
                    return _failed(str(said))
                newest = said.message["newest"]  # another publisher was quicker
                continue
            answer = frame.message
            digest = frames.json_digest(manifest)
            return Result(
                state=answer["state"],
                generation=answer["generation"],
                digest=digest,
                rows=tuple(answer["rows"]),
                errors=tuple(answer["errors"]),
                unchanged=answer["state"] == ACTIVE and answer["generation"] == was["generation"],
            )
        return _failed("other controllers publish to this broker all the time")

    def _serve_blob(self, client: BrokerClient, frame: Frame, data: Mapping[str, Any]) -> None:
        if frame.type != messages.GET:
            return
        ask = frame.message
        blob = data.get(ask["digest"])
        if blob is None:
            text = {"code": "unknown_blob", "message": f"blob {ask['digest'][:12]} is gone", "fatal": False}
            client.answer(messages.ERROR, frame.id, text)
            return
        part = memoryview(blob)[ask["offset"] : ask["offset"] + ask["length"]]
        self.transferred += len(part)
        client.answer_data(frame.id, ask["offset"], part)


def _failed(text: str) -> Result:
    return Result(FAILED, 0, "", errors=({"code": "failed", "message": text},))


# --- the probe --------------------------------------------------------------------------------------------------------

_VERSION_QUESTION = b"\x07version\x04bind\x00" + struct.pack(">HH", 16, 3)


async def ask_version(listen: tuple[str, ...]) -> frozenset[str]:
    """Which of these listen addresses answer a question (`version.bind`, CH TXT) from this machine, over UDP.

    A wildcard is asked at the loopback address; an interface cannot be asked from here and is left out.
    """
    answered = await asyncio.gather(*(_answers(text) for text in listen))
    return frozenset(text for text, yes in zip(listen, answered, strict=True) if yes)


async def _answers(listen: str) -> bool:
    try:
        host, port = split_listen(listen)
        host = "127.0.0.1" if host == "*" else "::1" if host == "::" else host
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0]
    except (ValueError, OSError):
        return False
    loop = asyncio.get_running_loop()
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.connect(where)
            for _ in range(2):
                ident = struct.pack(">H", random.getrandbits(16))
                await loop.sock_sendall(sock, ident + b"\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00" + _VERSION_QUESTION)
                try:
                    async with asyncio.timeout(_PROBE_S / 2):
                        while True:
                            answer = await loop.sock_recv(sock, 4096)
                            if answer[:2] == ident and len(answer) >= 12 and answer[2] & 0x80:
                                return True
                except TimeoutError:
                    continue
        except OSError:
            return False
    return False


# --- commands ---------------------------------------------------------------------------------------------------------


class CommandError(Exception):
    """A command that was refused, or nobody who could take it; one sentence for people."""


def command(settings: Settings, verb: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Ask the running controller for `sync`, `retry`, `suspend` or `resume`; raises CommandError."""
    return asyncio.run(send_command(settings, verb, arguments))


async def send_command(settings: Settings, verb: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`command` for callers that run an event loop."""
    try:
        path = settings.broker.keys
        key = keys.for_role(broker_keys.load(path), "operator", path)
        async with await BrokerClient.connect(settings.broker.connect, key, "operator") as client:
            frame = await client.ask(messages.COMMAND, {**(arguments or {}), "verb": verb}, 60.0)
            return frame.message
    except (LinkError, KeysError, BrokerSays) as error:
        raise CommandError(str(error)) from None

"""The two-phase release over all nodes, as the broker runs it.

PUBLISH -> fetch what is lacking -> PREPARE to every node -> all READY: the decision goes to disk, then
COMMIT -> ACTIVE; any NACK: ABORT, everybody stays. Silence is not a veto: the silent node is evicted.
One release runs, one may be pending, the newest wins; a release that is superseded before its decision
is aborted at once. Nodes that come late, or back, are brought to the active release alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from controller.broker_peer import Limits, Peer, PeerGone, PeerRefused
from controller.broker_rows import Node, Release, Row, rows_of
from controller.broker_store import BrokerStore
from dnsd.contract import frames, messages
from dnsd.contract.frames import Frame

_GETS_IN_FLIGHT = 4


class Refused(Exception):
    """The release cannot go on; `state` and `errors` are its RESULT."""

    def __init__(self, state: str, errors: list[dict[str, Any]]) -> None:
        super().__init__(state)
        self.state = state
        self.errors = errors


def _error(code: str, message: str) -> dict[str, Any]:
    return {"code": code, "message": message}


class Releases:
    """The one release that runs, the one that waits, and the nodes that come late."""

    def __init__(
        self, store: BrokerStore, nodes: Mapping[str, Node], limits: Limits, changed: Callable[[], None]
    ) -> None:
        self._store = store
        self._nodes = nodes
        self._limits = limits
        self._changed = changed
        self.running: Release | None = None
        self.pending: Release | None = None
        self._stopping = False
        self._servable = store.active is not None and not store.lacks(store.active["manifest"])

    @property
    def newest(self) -> int:
        """The newest generation that was ever taken; a new one must be above it."""
        found = [self._store.newest]
        found += [release.generation for release in (self.running, self.pending) if release is not None]
        return max(found)

    def submit(self, peer: Peer, frame: Frame) -> None:
        """Take a PUBLISH: start it, or make it the pending one and abort what it supersedes."""
        release = Release(peer, frame)
        if frame.message["epoch"] != self._store.epoch or release.generation <= self.newest:
            refusal = {
                "code": "stale_generation", "message": f"generation {self.newest} is the newest here",
                "fatal": False, "newest": self.newest, "epoch": self._store.epoch,
            }  # fmt: skip
            peer.write(peer.codec.answer(messages.ERROR, frame.id, refusal))
            return
        release.deadline_s = min(max(release.deadline_s, self._limits.least_deadline_s), self._limits.most_deadline_s)
        if self.running is None:
            self._start(release)
            return
        if self.pending is not None:
            self.pending.result("superseded", [])
        self.pending = release
        if self.running.phase in ("fetching", "preparing") and self.running.task is not None:
            self.running.superseded = True
            self.running.task.cancel()

    def peer_left(self, peer: Peer) -> None:
        """A publisher that leaves before its release is prepared takes it along; nobody would hear of it."""
        if self.pending is not None and self.pending.peer is peer:
            self.pending = None

    async def stop(self) -> None:
        """End what runs; nothing is decided any more."""
        self._stopping = True
        tasks = [node.catching_up for node in self._nodes.values() if node.catching_up is not None]
        if self.running is not None and self.running.task is not None:
            tasks.append(self.running.task)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, release: Release) -> None:
        self.running = release
        release.task = asyncio.create_task(self._run(release))

    async def _run(self, release: Release) -> None:
        try:
            state, errors = await self._phases(release)
        except Refused as refused:
            state, errors = refused.state, refused.errors
        except asyncio.CancelledError:
            if not release.superseded:
                raise
            state, errors = "superseded", []
        except Exception as error:  # a mistake of ours must not stop the releases after it
            state, errors = "failed", [_error("internal", f"the broker stumbled: {error!r}")]
        if release.phase == "preparing":
            self._abort(release, state)
        release.result(state, errors)
        self.running = None
        self._changed()
        if self._stopping:
            return
        if self.pending is not None:
            following, self.pending = self.pending, None
            self._start(following)
            return
        for node in self._nodes.values():
            self.bring_up(node)

    async def _phases(self, release: Release) -> tuple[str, list[dict[str, Any]]]:
        release.phase = "fetching"
        active = self._store.active
        lacking = await asyncio.to_thread(self._store.lacks, release.manifest)
        for blob in lacking:
            await self._fetch(release, blob)
        # Another revision of the same table is prepared too: nodes have all its blobs, and answers name the revision.
        same = active is not None and active["revision"].get("short") == release.revision.get("short")
        if active is not None and active["digest"] == release.digest and same:
            release.phase = "committing"
            release.generation = active["generation"]
            self._servable = True
            await self._decide(release)
            for node in self._nodes.values():
                if node.peer is not None and node.digest == release.digest:
                    release.rows[node.name] = Row(node.name, "active", workers=node.workers)
            return "active", []
        await self._prepare(release)
        release.phase = "committing"
        await self._decide(release)
        self._servable = True
        await self._commit(release)
        return "active", []

    async def _decide(self, release: Release) -> None:
        record = {"generation": release.generation, "digest": release.digest, "manifest": release.manifest,
                  "revision": release.revision, "reason": release.reason}  # fmt: skip
        try:
            await asyncio.to_thread(self._store.commit, record)
        except OSError as error:
            self._abort(release, "failed")
            text = f"the broker could not write its decision: {error.strerror}; nothing has changed"
            raise Refused("failed", [_error("internal", text)]) from None

    async def _fetch(self, release: Release, blob: Mapping[str, Any]) -> None:
        digest, size = blob["digest"], blob["size"]
        data = bytearray(size)
        places = iter(range(0, size, frames.DATA_LIMIT))

        async def take() -> None:
            for offset in places:
                length = min(frames.DATA_LIMIT, size - offset)
                ask = {"digest": digest, "offset": offset, "length": length}
                frame = await release.peer.ask(messages.GET, ask, release.deadline_s)
                if frame.offset != offset or len(frame.data) != length:
                    raise ValueError(f"the publisher answered another part of blob {digest[:12]}")
                data[offset : offset + length] = frame.data

        takers = [asyncio.create_task(take()) for _ in range(_GETS_IN_FLIGHT)]
        try:
            await asyncio.gather(*takers)
            await asyncio.to_thread(self._store.put, digest, data)
        except PeerRefused as refused:
            raise Refused("failed", [_error("unknown_blob", refused.message)]) from None
        except (PeerGone, TimeoutError):
            text = f"the publisher did not send blob {blob['name']} in time"
            raise Refused("failed", [_error("deadline", text)]) from None
        except ValueError as wrong:
            raise Refused("failed", [_error("digest_mismatch", str(wrong))]) from None
        except OSError as full:
            text = f"the broker could not keep blob {blob['name']}: {full.strerror}; nothing has changed"
            raise Refused("failed", [_error("internal", text)]) from None
        finally:
            for taker in takers:
                taker.cancel()

    async def _prepare(self, release: Release) -> None:
        release.phase = "preparing"
        nodes = [node for node in self._nodes.values() if node.peer is not None and not node.peer.closed]
        waiting: dict[asyncio.Task[None], Node] = {}
        for node in nodes:
            if node.catching_up is not None:
                node.catching_up.cancel()
                node.catching_up = None
            row = release.rows[node.name] = Row(node.name)
            node.phase = "preparing"
            waiting[asyncio.create_task(self._prepare_node(release, node, row))] = node
        release.progress()
        self._changed()
        loop = asyncio.get_running_loop()
        until = loop.time() + release.deadline_s
        try:
            while waiting:
                done, _ = await asyncio.wait(
                    waiting, timeout=max(0.0, until - loop.time()), return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
                for task in done:
                    task.result()
                    if release.rows[waiting.pop(task).name].phase == "nack":
                        until = min(until, loop.time() + self._limits.grace_s)
                release.progress()
                self._changed()
        finally:
            for task in waiting:
                task.cancel()
        rows = list(release.rows.values())
        nacks = [{**error, "node": row.node} for row in rows if row.phase == "nack" for error in row.errors]
        if any(row.phase == "nack" for row in rows):
            raise Refused("rejected", nacks)
        for node in waiting.values():
            self._evict(node, release.rows[node.name], "no READY before the deadline")
        if rows and not any(row.phase == "ready" for row in rows):
            raise Refused("failed", [_error("deadline", "no node was ready before the deadline")])

    async def _prepare_node(self, release: Release, node: Node, row: Row) -> None:
        assert node.peer is not None
        loop = asyncio.get_running_loop()
        begun = loop.time()
        message = {
            "generation": release.generation, "epoch": self._store.epoch, "manifest": release.manifest,
            "revision": release.revision, "deadline_ms": int(release.deadline_s * 1000),
        }  # fmt: skip
        try:
            # The caller keeps the deadline; this one only bounds a task that nobody waits for.
            frame = await node.peer.ask(messages.PREPARE, message, release.deadline_s + 5)
        except (PeerGone, TimeoutError):
            row.phase, row.errors = "gone", [_error("deadline", "the connection ended before READY")]
        except PeerRefused as refused:
            row.phase, row.errors = "nack", [_error(refused.code, refused.message)]
        else:
            self._read_answer(release, row, frame)
        row.ms = int((loop.time() - begun) * 1000)
        if row.phase == "ready":
            node.phase = "ready"
        elif row.phase == "nack":
            node.refused.add(release.digest)

    @staticmethod
    def _read_answer(release: Release, row: Row, frame: Frame) -> None:
        row.workers = rows_of(frame.message.get("workers"))
        if frame.message["generation"] != release.generation:
            row.phase, row.errors = "nack", [_error("bad_payload", "the node answered another generation")]
        elif frame.type == messages.NACK:
            row.phase = "nack"
            row.errors = rows_of(frame.message["errors"]) or [_error("build_failed", "the node gave no reason")]
        else:
            row.phase, row.fetched = "ready", frame.message.get("fetched", 0)

    def _evict(self, node: Node, row: Row, why: str) -> None:
        row.phase, row.errors = "evicted", [_error("deadline", why)]
        node.phase, node.errors = "evicted", row.errors
        if node.peer is not None:
            node.peer.bye("deadline")

    def _abort(self, release: Release, reason: str) -> None:
        for name in release.rows:
            node = self._nodes[name]
            if node.phase in ("preparing", "ready"):
                node.phase = "active" if node.generation else "connected"
            if node.peer is not None and not node.peer.closed:
                node.peer.request(messages.ABORT, {"generation": release.generation, "reason": reason})

    async def _commit(self, release: Release) -> None:
        ready = [self._nodes[name] for name, row in release.rows.items() if row.phase == "ready"]
        for node in ready:
            release.rows[node.name].phase = "committed"
        await asyncio.gather(*(self._commit_node(release, node, release.rows[node.name]) for node in ready))

    async def _commit_node(self, release: Release, node: Node, row: Row) -> None:
        peer = node.peer
        message = {"generation": release.generation, "digest": release.digest}
        try:
            if peer is None:
                raise PeerGone("gone")
            frame = await peer.ask(messages.COMMIT, message, self._limits.commit_s)
        except PeerGone:
            row.phase, row.errors = "gone", [_error("deadline", "the connection ended before ACTIVE")]
        except (TimeoutError, PeerRefused):
            self._evict(node, row, "no ACTIVE after COMMIT")
        else:
            row.phase, row.workers = "active", rows_of(frame.message["workers"])
            self._now_active(node, release.generation, release.digest, release.manifest, frame)

    def _now_active(self, node: Node, generation: int, digest: str, manifest: Mapping[str, Any], frame: Frame) -> None:
        node.generation, node.digest = generation, digest
        node.workers, node.phase, node.errors = rows_of(frame.message["workers"]), "active", []
        wrong = [row for row in node.workers if row.get("digest") not in (None, "", manifest["table"])]
        if wrong or frame.message["digest"] != digest:
            node.phase = "degraded"
            node.errors = [_error("digest_mismatch", f"worker {row['slot']} serves another table") for row in wrong]
        self._changed()

    # --- nodes that come late ---------------------------------------------------------------------------------------

    def bring_up(self, node: Node) -> None:
        """Bring one connected node to the active release, unless it is there, is being brought, or refused it."""
        active = self._store.active
        if node.peer is None or node.peer.closed or self.running is not None or node.catching_up is not None:
            return
        if active is None or not self._servable:
            return
        if node.digest == active["digest"] and node.generation >= active["generation"]:
            node.generation = active["generation"]
            if node.phase in ("connected", "ready", "preparing"):
                node.phase = "active"
            return
        if active["digest"] in node.refused:
            node.phase = "degraded"
            return
        node.catching_up = asyncio.create_task(self._catch_up(node, dict(active)))

    async def _catch_up(self, node: Node, active: dict[str, Any]) -> None:
        peer = node.peer
        assert peer is not None
        node.phase = "preparing"
        self._changed()
        message = {
            "generation": active["generation"], "epoch": self._store.epoch, "manifest": active["manifest"],
            "revision": active["revision"], "deadline_ms": 30000,
        }  # fmt: skip
        try:
            frame = await peer.ask(messages.PREPARE, message, 30.0)
            if frame.type == messages.NACK:
                node.phase, node.errors = "degraded", rows_of(frame.message["errors"])
                node.refused.add(active["digest"])
            else:
                commit = {"generation": active["generation"], "digest": active["digest"]}
                frame = await peer.ask(messages.COMMIT, commit, self._limits.commit_s)
                self._now_active(node, active["generation"], active["digest"], active["manifest"], frame)
        except PeerRefused as refused:
            node.phase, node.errors = "degraded", [_error(refused.code, refused.message)]
        except TimeoutError:
            node.phase = "evicted"
            node.errors = [_error("deadline", "no answer while it was brought to the active release")]
            peer.bye("deadline")
        except PeerGone:
            pass
        except asyncio.CancelledError:
            with contextlib.suppress(messages.FrameError):
                if not peer.closed:
                    peer.request(messages.ABORT, {"generation": active["generation"], "reason": "superseded"})
            raise
        finally:
            if node.catching_up is asyncio.current_task():
                node.catching_up = None
            self._changed()

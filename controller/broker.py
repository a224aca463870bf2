"""The broker: a TCP server that everybody else connects to (DTP version 1, schemas/PROTOCOL.md).

It lets in who proves a key, keeps each role to its messages, and hands them on: releases to
`broker_release`, numbers and events to the callbacks. A peer that lies, floods or stalls is closed and
counted, and nobody else notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from controller import broker_keys
from controller.broker_caches import CommandRefused, ask
from controller.broker_events import Events
from controller.broker_listen import BrokerError, address, bind_problem
from controller.broker_peer import Limits, Peer
from controller.broker_release import Releases
from controller.broker_rows import Node, events_of, flat, rows_of
from controller.broker_store import BrokerStore, StoreError
from dnsd.contract import frames, messages
from dnsd.contract.frames import Frame
from dnsd.contract.keys import Key, KeysError
from dnsd.contract.messages import FrameError
from dnsd.contract.settings import Settings

Report = Callable[[str, dict[str, int], list[dict[str, Any]], list[dict[str, Any]]], None]
Command = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]] | dict[str, Any]]

_WATCH_S = 0.25
_KNOWN_NODES = 256


__all__ = ["Broker", "BrokerError", "CommandRefused"]


class Broker:
    """The embedded broker. `start` binds, `stop` ends; the callbacks are called in the event loop.

    `on_report(node, counters, decisions, workers)` gets every REPORT; `on_event(event)` what is new in the hooks'
    events (`broker_events`), and what nodes report of their own; `on_command(verb, arguments)` may be a coroutine, its
    dictionary goes back to the operator; `on_change()` is called when `snapshot()` has something new.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        limits: Limits | None = None,
        on_report: Report | None = None,
        on_event: Callable[[dict[str, Any]], None] | None = None,
        on_command: Command | None = None,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        self._settings = settings
        self._limits = limits or Limits()
        self._on_report = on_report
        self._on_event = on_event
        self._on_command = on_command
        self._on_change = on_change
        self._keys: dict[str, Key] = {}
        self._nodes: dict[str, Node] = {}
        self._peers: set[Peer] = set()
        self._watchers: set[Peer] = set()
        self._strangers: dict[Peer, None] = {}  # who has not proved anything yet, the oldest first
        self._events = Events(settings.state, self._tell_event)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None
        self._watch_timer: asyncio.TimerHandle | None = None
        self.refused: Counter[str] = Counter()
        self.port = 0

    async def start(self) -> None:
        """Make or read the keys, load the state, bind. Raises BrokerError."""
        host, port = address(self._settings.broker.listen)
        try:
            self._keys = broker_keys.load_or_make(self._settings.broker.keys, self._settings.user)
            state = self._settings.state
            self._store = await asyncio.to_thread(
                BrokerStore, os.path.join(state, "broker"), os.path.join(state, "blobs")
            )
        except (KeysError, StoreError) as error:
            raise BrokerError(str(error)) from None
        self._releases = Releases(self._store, self._nodes, self._limits, self._changed)
        try:
            self._server = await asyncio.start_server(self._connected, host, port, backlog=128)
        except OSError as error:
            raise BrokerError(bind_problem(self._settings.broker.listen, error)) from None
        self.port = self._server.sockets[0].getsockname()[1]
        self._spawn(self._ticker())
        self._events.start()

    async def stop(self) -> None:
        """Say goodbye to everybody and close. Nothing is decided after this."""
        if self._server is None:
            return
        self._server.close()
        self._events.stop()
        await self._releases.stop()
        for peer in list(self._peers):
            peer.bye("shutting_down")
        if self._watch_timer is not None:
            self._watch_timer.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while self._peers:
                    await asyncio.sleep(0.01)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def warning(self) -> str:
        """What went wrong with the state on disk at the start, or an empty text."""
        return self._store.warning

    @property
    def active(self) -> dict[str, Any] | None:
        """The active release: generation, digest, manifest, revision, reason; None before the first."""
        return self._store.active

    def snapshot(self) -> dict[str, Any]:
        """Everything that the status page shows of the broker; JSON values only."""
        running = self._releases.running
        release = None
        if running is not None:
            release = {"generation": running.generation, "phase": running.phase, "revision": running.revision,
                       "rows": running.row_messages()}  # fmt: skip
        active = None
        if self._store.active is not None:
            record = self._store.active
            active = {"generation": record["generation"], "digest": record["digest"], "reason": record["reason"],
                      "table": record["manifest"]["table"], "revision": record["revision"]}  # fmt: skip
        return {
            "epoch": self._store.epoch,
            "listen": self._settings.broker.listen,
            "active": active,
            "release": release,
            "nodes": [self._node_row(self._nodes[name]) for name in sorted(self._nodes)],
            "peers": dict(Counter(peer.role for peer in self._peers if peer.role)),
            "refused": dict(self.refused),
            "events": dict(self._events.leases.counts),
        }

    def _node_row(self, node: Node) -> dict[str, Any]:
        workers = node.workers
        return {
            "name": node.name, "connected": node.peer is not None, "phase": node.phase, "agent": node.agent,
            "listen": list(node.listen), "generation": node.generation, "digest": node.digest or "",
            "table": next((w["digest"] for w in workers if w.get("digest")), ""), "workers": workers,
            "counters": node.counters, "facts": node.facts, "upstreams": node.upstreams,
            "anchors": node.anchors, "errors": node.errors,
            "since_ms": node.since_ms, "seen_ms": node.seen_ms,
        }  # fmt: skip

    # --- connections ------------------------------------------------------------------------------------------------

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _refuse(self, why: str) -> None:
        self.refused[why] += 1
        self._changed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._peers) >= self._limits.peers:
            self._refuse("too_many")
            writer.transport.abort()
            return
        if len(self._strangers) >= self._limits.strangers:
            # The one that has waited longest gives way, not the one that comes: whoever has a key proves it within
            # milliseconds, and a crowd that only holds on must not keep a release out.
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.abort("too_many")
            self._refuse("too_many")
        codec = frames.Server(self._keys, os.urandom(frames.NONCE_BYTES), server="nexoraldns", epoch=self._store.epoch)
        peer = Peer(reader, writer, codec, self._limits)
        self._peers.add(peer)
        try:
            self._strangers[peer] = None
            try:
                async with asyncio.timeout(self._limits.handshake_s):
                    login, rest = await self._login(peer)
            finally:
                self._strangers.pop(peer, None)
            self._joined(peer, login)
            for event in rest + codec.receive(b""):
                await self._frame(peer, event)
            await self._read(peer)
        except TimeoutError:
            self._refuse("handshake_timeout")
            peer.abort("handshake_timeout")
        except FrameError as error:
            self._refuse(error.code)
            peer.fail(error)
        except (ConnectionError, OSError):
            peer.abort("connection lost")
        finally:
            self._peers.discard(peer)
            self._watchers.discard(peer)
            peer.close("closed")
            if peer.reason == "slow_consumer":
                self._refuse("slow_consumer")
            if peer.role:
                self._left(peer)

    async def _login(self, peer: Peer) -> tuple[frames.LoggedIn, list[Any]]:
        while True:
            data = await peer.reader.read(frames.LIMIT_BEFORE_LOGIN)
            if not data:
                raise ConnectionResetError
            events = peer.codec.receive(data)
            peer.write(peer.codec.data_to_send())
            if events:
                assert isinstance(events[0], frames.LoggedIn)
                return events[0], events[1:]

    def _joined(self, peer: Peer, login: frames.LoggedIn) -> None:
        peer.name, peer.role = login.node, login.role
        active = self._store.active
        have: dict[str, Any] = {"generation": 0, "digest": None, "epoch": self._store.epoch}
        if active is not None:
            have["generation"], have["digest"] = active["generation"], active["digest"]
            if login.role == "publisher":
                have["manifest"], have["revision"] = active["manifest"], active["revision"]
        welcome = {"active": have, "newest": self._releases.newest, "ping_ms": int(self._limits.ping_s * 1000)}
        if login.role == "publisher":
            previous = self._store.previous
            welcome["previous"] = None if previous is None else {
                key: previous[key] for key in ("generation", "digest", "manifest", "revision")
            }  # fmt: skip
            welcome["listen"] = sorted({text for node in self._nodes.values() if node.peer for text in node.listen})
        peer.received = peer.sent = asyncio.get_running_loop().time()
        peer.write(peer.codec.welcome(welcome))
        if login.role == "node":
            self._node_joined(peer, login.message)

    def _node_joined(self, peer: Peer, hello: Mapping[str, Any]) -> None:
        node = self._nodes.get(peer.name)
        if node is None:
            if len(self._nodes) >= _KNOWN_NODES:
                gone = [name for name, known in self._nodes.items() if known.peer is None]
                if not gone:
                    raise FrameError("not_permitted", f"{_KNOWN_NODES} nodes are known, there is no room for more")
                del self._nodes[gone[0]]
            node = self._nodes[peer.name] = Node(peer.name)
        if node.peer is not None:
            node.peer.bye("replaced")
            self._refuse("replaced")
        if node.catching_up is not None:
            node.catching_up.cancel()
            node.catching_up = None
        have = hello.get("have", {})
        node.peer, node.phase, node.errors = peer, "connected", []
        node.agent = str(hello.get("agent", ""))
        node.listen = tuple(hello.get("listen", ())[:64])
        node.generation = have.get("generation", 0)
        node.digest = have.get("digest")
        node.refused.clear()
        node.since_ms = node.seen_ms = int(time.time() * 1000)
        self._releases.bring_up(node)
        for machine, event in self._events.current():
            if node in self._nodes_on(machine):
                peer.request(messages.EVENT, event, ignorable=True)
        self._changed()

    def _left(self, peer: Peer) -> None:
        self._releases.peer_left(peer)
        node = self._nodes.get(peer.name) if peer.role == "node" else None
        if node is not None and node.peer is peer:
            node.peer = None
            if node.phase != "evicted":
                node.phase = "gone"
        self._changed()

    async def _read(self, peer: Peer) -> None:
        loop = asyncio.get_running_loop()
        while not peer.closed:
            data = await peer.reader.read(64 << 10)
            if not data:
                return
            peer.received = loop.time()
            try:
                events = peer.codec.receive(data)
            except FrameError as error:
                for event in error.before:
                    await self._frame(peer, event)
                raise
            for event in events:
                await self._frame(peer, event)

    async def _ticker(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(self._limits.ping_s, self._limits.silence_s) / 5)
            now = loop.time()
            for peer in list(self._peers):
                if not peer.codec.open or peer.closed:
                    continue
                if now - peer.received > self._limits.silence_s:
                    self._refuse("silent")
                    peer.abort("silent")
                elif now - peer.sent >= self._limits.ping_s:
                    peer.request(messages.PING, {})

    # --- frames -----------------------------------------------------------------------------------------------------

    async def _frame(self, peer: Peer, frame: frames.Event) -> None:
        if peer.closed or not isinstance(frame, Frame):
            return
        if frame.response:
            peer.resolve(frame)
        elif frame.type == messages.PING:
            peer.write(peer.codec.answer(messages.PONG, frame.id, {}))
        elif frame.type == messages.BYE:
            peer.close("bye")
        elif frame.type == messages.ERROR:
            if frame.message["fatal"]:
                peer.close(frame.message["code"])
        elif frame.type == messages.GET:
            await self._get(peer, frame)
        elif frame.type == messages.REPORT:
            self._report(peer, frame)
        elif frame.type == messages.PUBLISH:
            self._releases.submit(peer, frame)
        elif frame.type == messages.EVENT:
            joins = self.event(peer.name, frame.message)
            peer.write(peer.codec.answer(messages.EVENT_OK, frame.id, {"coalesced": joins}))
        elif frame.type == messages.COMMAND:
            self._spawn(self._command(peer, frame))
        elif frame.type == messages.WATCH:
            self._watchers.add(peer)
            self._send_state(peer, frame.id)

    async def _get(self, peer: Peer, frame: Frame) -> None:
        ask = frame.message
        data = self._store.read(ask["digest"], ask["offset"], ask["length"])
        if data is None:
            text = {"code": "unknown_blob", "message": f"no blob {ask['digest'][:12]} here", "fatal": False}
            peer.write(peer.codec.answer(messages.ERROR, frame.id, text))
            return
        peer.write(peer.codec.answer_data(frame.id, ask["offset"], data))
        if not peer.closed:
            await peer.writer.drain()  # natural backpressure: no further question is read before

    def _report(self, peer: Peer, frame: Frame) -> None:
        node = self._nodes.get(peer.name)
        if node is None or node.peer is not peer:
            return
        message = frame.message
        node.seen_ms = int(time.time() * 1000)
        node.workers = rows_of(message["workers"])
        node.counters = {name: n for name, n in flat(message["counters"]).items() if isinstance(n, int)}
        node.facts = flat(message.get("facts"))
        node.upstreams = rows_of(message.get("upstreams"))[:64]
        node.anchors = rows_of(message.get("anchors"))[:64]
        if self._on_report is not None:
            self._on_report(peer.name, node.counters, message["decisions"], node.workers)
        if self._on_event is not None:
            for event in events_of(message.get("events")):
                self._on_event({"node": peer.name, **event})
        self._changed()

    def event(self, node: str, event: Mapping[str, Any]) -> bool:
        """Take in a hook's EVENT about the machine `node`, already checked; True when it joins others."""
        return self._events.hear(node, event)

    def _tell_event(self, name: str, event: dict[str, Any], news: bool) -> None:
        for peer in [node.peer for node in self._nodes_on(name) if node.peer is not None]:
            peer.request(messages.EVENT, event, ignorable=True)
        if news and self._on_event is not None:
            self._on_event({"node": name, **event})
        self._changed()

    def _nodes_on(self, machine: str) -> list[Node]:
        """The nodes on a machine: a lease is nobody else's business, unless there is only one node to have meant."""
        there = [node for node in self._nodes.values() if machine in (node.name, node.name.rpartition("-")[0])]
        return there or (list(self._nodes.values()) if len(self._nodes) == 1 else [])

    async def _command(self, peer: Peer, frame: Frame) -> None:
        verb = frame.message["verb"]
        arguments = {name: value for name, value in frame.message.items() if name != "verb"}
        try:
            if verb == "cache":
                peer.write(peer.codec.answer(messages.COMMAND_OK, frame.id, await ask(self._nodes, arguments)))
                return
            if self._on_command is None:
                raise CommandRefused("this broker has no controller behind it")
            result = self._on_command(verb, arguments)
            done = result if isinstance(result, dict) else await result
            answer = peer.codec.answer(messages.COMMAND_OK, frame.id, {**done, "verb": verb})
        except (CommandRefused, FrameError) as refused:
            text = {"code": "busy", "message": str(refused)[:1000], "fatal": False}
            answer = peer.codec.answer(messages.ERROR, frame.id, text)
        except Exception as error:  # a mistake in a callback must not take the broker along
            text = {"code": "internal", "message": f"{verb} failed: {error!r}"[:1000], "fatal": False}
            answer = peer.codec.answer(messages.ERROR, frame.id, text)
        peer.write(answer)

    # --- observers --------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change()
        if self._watchers and self._watch_timer is None:
            self._watch_timer = asyncio.get_running_loop().call_later(_WATCH_S, self._tell_watchers)

    def _tell_watchers(self) -> None:
        self._watch_timer = None
        for peer in list(self._watchers):
            self._send_state(peer, None)

    def _send_state(self, peer: Peer, ident: int | None) -> None:
        state = {"state": json.loads(json.dumps(self.snapshot()))}
        if ident is not None:
            peer.write(peer.codec.answer(messages.STATE, ident, state))
        else:
            peer.request(messages.STATE, state, ignorable=True)

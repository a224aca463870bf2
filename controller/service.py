"""The controller process: broker, source, pipeline and status page in one loop, wired here and nowhere else.

Whatever cannot start is said in one sentence, and the process ends with exit code 2; once it runs, nothing that comes
from a source, a node or a browser ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
from collections.abc import Iterator

import structlog
import uvicorn

from controller import release, source_folder
from controller.broker import Broker, BrokerError
from controller.builder import Builder, Product
from controller.event_log import EventLog
from controller.history import History
from controller.pipeline import Outcome, Pipeline
from controller.ruleset import Revision
from controller.source import Source, SourceError
from controller.spool import Spool
from controller.state import State
from controller.status import app as status_app
from controller.status.connection import Connection
from dnsd import __version__
from dnsd.contract.settings import Settings, split_listen

log = structlog.get_logger("controller")

END_S = 4.0  # SIGTERM to exit, at most; the promise is 5 s


class ServiceError(Exception):
    """The controller cannot run; `str()` is one sentence that says why and what to do."""


def open_source(settings: Settings) -> Source:
    """The source that the settings name. Raises ServiceError."""
    if settings.source.git is not None:
        from controller.source_git import GitSourceWatcher  # GitPython is slow to import, and wants git itself

        try:
            return GitSourceWatcher(settings.source.git, settings.state)
        except SourceError as error:
            raise ServiceError(f"{error.message}; {error.help}") from None
    assert settings.source.directory is not None
    return source_folder.FolderSource(settings.source.directory)


def open_state(settings: Settings) -> None:
    """Make the folder of the state, or say why it cannot be. Raises ServiceError."""
    try:
        os.makedirs(settings.state, mode=0o755, exist_ok=True)
        probe = os.path.join(settings.state, f".probe.{os.getpid()}")
        with open(probe, "w", encoding="utf-8"):
            pass
        os.unlink(probe)
    except OSError as error:
        raise ServiceError(
            f"the folder {settings.state} cannot be written ({error.strerror}); set `state` to one that can"
        ) from None


def listen(text: str, key: str) -> socket.socket:
    """A listening TCP socket for `address:port`. Raises ServiceError."""
    host, port = split_listen(text)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
        made.listen(128)
    except OSError as error:
        made.close()
        raise ServiceError(bind_words(text, key, error)) from None
    return made


def bind_words(text: str, key: str, error: OSError) -> str:
    """Why an address cannot be listened on, and what to do."""
    if error.errno == errno.EADDRINUSE:
        return f"{text} is in use already ({key}); is another nexoraldns running? Else set {key} to a free port"
    if error.errno == errno.EACCES:
        return f"{text} may not be used by this user ({key}); take a port above 1023 or start as root"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{text} is not an address of this machine ({key})"
    return f"{text} cannot be listened on ({key}): {error.strerror}"


class _Page(uvicorn.Server):
    """The status page's server, inside our loop and without signal handlers of its own."""

    def __init__(self, state: State, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                status_app.create(state, node_settings=settings), log_config=None, access_log=False, lifespan="off",
                ws="none", timeout_graceful_shutdown=1, limit_concurrency=200, server_header=False,
                http=Connection,
            )
        )  # fmt: skip

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Service:
    """One controller. `run` returns the exit code."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ending = asyncio.Event()
        self.source = open_source(settings)
        open_state(settings)
        self.history = History(os.path.join(settings.state, "history.jsonl"))
        events = EventLog(os.path.join(settings.state, "events.jsonl"))
        self.state = State(self.history, self.source.describe(), __version__, events)
        self.builder = Builder(settings.state)
        self.pipeline = Pipeline(self.source, self.builder, self._publish, self.state, settings.state)
        self.publisher: release.Publisher | None = None

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT. Raises ServiceError when it cannot begin."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ending.set)
        loop.add_signal_handler(signal.SIGHUP, self._look_again)
        page_socket = listen(self.settings.status.listen, "status.listen")
        broker = await self._start_broker()
        self.state.broker = broker.snapshot
        self.publisher = release.Publisher(self.settings)
        spool = Spool(self.settings.state, broker.event)
        spool.prepare()
        page = _Page(self.state, self.settings)
        tasks = [
            asyncio.create_task(self.pipeline.run(), name="pipeline"),
            asyncio.create_task(page.serve(sockets=[page_socket]), name="status page"),
            asyncio.create_task(spool.run(), name="left events"),
        ]
        ended = asyncio.create_task(self.ending.wait())
        log.info(
            "serving", source=self.source.describe(), broker=self.settings.broker.listen,
            page=f"http://{self.settings.status.listen}",
        )  # fmt: skip
        try:
            await asyncio.wait([ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    log.error("a part of the controller ended", part=task.get_name(), exc_info=error)
                    return 1
            return 0
        finally:
            ended.cancel()
            page.should_exit = True
            tasks[0].cancel()
            tasks[2].cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_S / 2):
                    await asyncio.gather(*tasks, return_exceptions=True)
            for task in tasks:
                task.cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_S / 2):
                    await broker.stop()
            log.info("ended")

    async def _start_broker(self) -> Broker:
        broker = Broker(
            self.settings,
            on_report=self.state.report,
            on_event=self.state.event,
            on_command=lambda verb, arguments: self.pipeline.command(verb),
        )
        try:
            await broker.start()
        except BrokerError as error:
            raise ServiceError(str(error)) from None
        self.state.problem("broker", broker.warning)
        self.state.resume(broker.active)
        return broker

    def _look_again(self) -> None:
        log.info("looking at the source again", why="SIGHUP")
        task = asyncio.ensure_future(self.source.sync())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _publish(self, product: Product, revision: Revision, reason: str) -> Outcome:
        assert self.publisher is not None
        blobs = await asyncio.to_thread(release.StoredBlobs.load, product.policy, product.names, product.digest)
        result = await self.publisher.publish(blobs, revision, reason)
        errors = tuple(result.text().splitlines())
        if result.state == release.FAILED and result.rolled_back:
            return Outcome("rejected", result.rolled_back, errors)
        note = "" if result.rows or result.unchanged else "no node was connected; each gets it as it comes"
        return Outcome(result.state, result.generation, errors, note)


def main(settings: Settings) -> int:
    """Run a controller; the exit code."""
    try:
        return asyncio.run(_main(settings))
    except KeyboardInterrupt:
        return 0


async def _main(settings: Settings) -> int:
    return await Service(settings).run()

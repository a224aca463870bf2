"""The order of the steps, written once: seen, valid, compiled, tested, active; or refused, or superseded.

One pending slot: what is newer takes the place of what waits, and pre-empts what runs, at every stage. Nothing in here
changes what is served until the broker says that every node took the new table; whatever goes wrong before that leaves
the old one serving and stands in the revision's row, in the words of `check`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import structlog

from controller import diagnostics
from controller.builder import Builder, BuilderCrash, Product
from controller.history import ACTIVE, REFUSED, SUPERSEDED, Row
from controller.ruleset import Revision
from controller.source import Found, Source, SourceError, Trouble
from controller.state import State

log = structlog.get_logger("pipeline")

RETRY_S = (0.5, 10.0)


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a publish. `state`: active, rejected, superseded, or failed (nobody could be asked: try again)."""

    state: str
    generation: int = 0
    errors: tuple[str, ...] = ()
    note: str = ""


class Publish(Protocol):
    """Publishes a product; the service adapts `controller.release.Publisher` to it."""

    def __call__(self, product: Product, revision: Revision, reason: str) -> Awaitable[Outcome]: ...


@dataclasses.dataclass(slots=True)
class _Job:
    found: Found
    row: Row
    started: float
    forced: bool = False
    reason: str = "commit"


class Pipeline:
    """From a source to the broker. `run` until cancelled; `command` answers what operators ask."""

    def __init__(self, origin: Source, builder: Builder, publish: Publish, state: State, folder: str) -> None:
        self.source = origin
        self.builder = builder
        self.publish = publish
        self.state = state
        self._marker = os.path.join(folder, "suspended")
        self._wake = asyncio.Event()
        self._pending: _Job | None = None
        self._last: Found | None = None
        self._built: tuple[str, Product] | None = None  # the content built last, and what came of it
        self._publishing: set[asyncio.Task[None]] = set()
        self._newest_publish = 0
        state.suspended = os.path.exists(self._marker)

    # --- the two loops ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Watch the source and build what it finds, for ever."""
        watcher = asyncio.create_task(self._watch())
        worker = asyncio.create_task(self._work())
        try:
            done, _ = await asyncio.wait([watcher, worker], return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in (watcher, worker, *self._publishing):
                task.cancel()
            await asyncio.gather(watcher, worker, *self._publishing, return_exceptions=True)
            await self.builder.stop()

    async def _watch(self) -> None:
        async for event in self.source.events():
            if isinstance(event, Trouble):
                self.state.problem("source", event.message, event.help)
                if event.message:
                    log.warning("the source has nothing new", why=event.message, help=event.help)
                else:
                    log.info("the source can be read again")
                continue
            self.state.problem("source", "")
            self._offer(event)

    def _offer(self, found: Found, forced: bool = False, reason: str = "commit") -> Row:
        """Put a revision into the pending slot."""
        self._last = found
        now = asyncio.get_running_loop().time()
        if self._pending is not None:
            self._supersede(self._pending)
        row = self.state.seen(found.snapshot.revision)
        log.info("seen", revision=row.revision.short, subject=row.revision.subject, author=row.revision.author)
        self._pending = _Job(found, row, now, forced, reason)
        self._wake.set()
        return row

    async def _work(self) -> None:
        with contextlib.suppress(BuilderCrash):  # said again, and louder, by the first build
            await self.builder.start()
        while True:
            await self._wake.wait()
            self._wake.clear()
            job = self._next()
            if job is None:
                continue
            task = asyncio.create_task(self._take(job))
            while not task.done():
                woken = asyncio.create_task(self._wake.wait())
                await asyncio.wait([task, woken], return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
                if self._waits() and not task.done():
                    task.cancel()
                    await asyncio.wait([task])
                    if job.row.state not in (ACTIVE, REFUSED, SUPERSEDED):
                        self._supersede(job)
                elif not task.done():
                    self._wake.clear()
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("a mistake in the pipeline", exc_info=error)
                self._refuse(job, f"a mistake of ours, not of the rules: {type(error).__name__}: {error}")
            if self._waits():
                self._wake.set()

    def _waits(self) -> bool:
        return self._pending is not None and not self.state.suspended

    def _next(self) -> _Job | None:
        """Take the pending job, unless we hold still."""
        if not self._waits():
            return None
        job, self._pending = self._pending, None
        return job

    # --- the steps ----------------------------------------------------------------------------------------------------

    async def _take(self, job: _Job) -> None:
        product = await self._build(job)
        if product is None:
            return
        # Publishing goes on when something newer comes: the broker knows best how far it is, and ends it itself. The
        # newer one is built meanwhile.
        self._newest_publish += 1
        task = asyncio.create_task(self._release(job, product, self._newest_publish))
        self._publishing.add(task)
        task.add_done_callback(self._publishing.discard)
        await asyncio.shield(task)

    async def _build(self, job: _Job) -> Product | None:
        found = job.found
        if found.refusals:
            self._refuse(job, diagnostics.render(found.refusals, {}), len(found.refusals))
            return None
        if self._built is not None and self._built[0] == found.content and not job.forced:
            product = self._built[1]  # the same bytes under another revision: the same result
        else:
            self._built = None
            try:
                product = await self.builder.build(found.snapshot, lambda name: self._step(job, name))
            except BuilderCrash as crash:
                self._refuse(job, f"{crash}\n")
                return None
            self._built = (found.content, product)
            self.source.also(product.reads)
        job.row = dataclasses.replace(
            job.row, text=product.text, errors=product.errors, warnings=product.warnings,
            tests=product.tests, digest=product.digest,
        )  # fmt: skip
        if not product.ok:
            self._refuse(job, product.text, product.errors)
            return None
        # Thresholds ("this commit removes 80 % of the rules") have their place here: product against the active one.
        return product

    async def _release(self, job: _Job, product: Product, number: int) -> None:
        delay_s = RETRY_S[0]
        while True:
            try:
                outcome = await self.publish(product, job.row.revision, job.reason)
            except OSError as error:
                outcome = Outcome("failed", errors=(str(error),))
            if outcome.state != "failed":
                break
            why = "; ".join(outcome.errors) or "the broker gave no reason"
            short = job.row.revision.short
            self.state.problem("release", f"{short} could not be published: {why}", "it is tried again")
            log.warning("not published, trying again", revision=short, why=why, after_s=delay_s)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RETRY_S[1])
            if number != self._newest_publish or self._pending is not None:
                outcome = Outcome("superseded")
                break
        self.state.problem("release", "")
        if outcome.state == "active":
            self._step(job, ACTIVE, generation=outcome.generation, reason=outcome.note)
            self.state.problem("refused", "")
            log.info(
                "active", revision=job.row.revision.short, generation=outcome.generation, digest=product.digest[:12],
                ms=job.row.steps[-1].ms, warnings=product.warnings, tests=product.tests,
            )  # fmt: skip
        elif outcome.state == "superseded":
            self._supersede(job)
        else:
            # The rules are right, a node does not take the table: that is a new attempt's matter, not a new build's.
            text = "\n".join(("a node refused the compiled table:", *outcome.errors))
            self._refuse(job, f"{product.text}{text}\n")

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _step(self, job: _Job, state: str, **fields: Any) -> None:
        ms = (asyncio.get_running_loop().time() - job.started) * 1000
        job.row = self.state.moved(job.row, state, ms, **fields)

    def _supersede(self, job: _Job) -> None:
        self._step(job, SUPERSEDED, reason="something newer came")
        log.info("superseded", revision=job.row.revision.short)

    def _refuse(self, job: _Job, text: str, errors: int = 1) -> None:
        serving = self.state.active
        still = f"still serving {serving.revision.short}" if serving is not None else "nothing is served yet"
        self._step(job, REFUSED, text=text, errors=errors, reason=f"refused; {still}")
        count = "1 error" if errors == 1 else f"{errors} errors"
        self.state.problem("refused", f"{job.row.revision.short} is refused ({count}); {still}", "mend it and save")
        log.error("refused", revision=job.row.revision.short, errors=errors, serving=still, text=text)

    # --- what operators ask -------------------------------------------------------------------------------------------

    async def command(self, verb: str) -> dict[str, Any]:
        """Answer sync, retry, suspend or resume: `ok`, and `message` for people."""
        answers: dict[str, Callable[[], Awaitable[tuple[bool, str]]]] = {
            "sync": self._sync, "retry": self._retry, "suspend": self._suspend, "resume": self._resume,
        }  # fmt: skip
        if verb not in answers:
            return {"ok": False, "message": f"'{verb}' is not a command; there are {', '.join(answers)}"}
        ok, message = await answers[verb]()
        log.info("command", verb=verb, answer=message)
        return {"ok": ok, "message": message}

    async def _sync(self) -> tuple[bool, str]:
        try:
            sentence = await self.source.sync()
        except SourceError as error:
            return False, f"{error.message}; {error.help}" if error.help else error.message
        return True, f"{sentence} (suspended: nothing is published)" if self.state.suspended else sentence

    async def _retry(self) -> tuple[bool, str]:
        newest = self.state.newest
        if self._last is None:
            return False, "no revision has been seen yet"
        if newest is None or newest.state != REFUSED:
            return False, f"nothing to retry: {newest.revision.short if newest else 'the newest'} is not refused"
        row = self._offer(self._last, forced=True, reason="retry")
        return True, f"trying {row.revision.short} again"

    async def _suspend(self) -> tuple[bool, str]:
        try:
            os.makedirs(os.path.dirname(self._marker), mode=0o700, exist_ok=True)
            with open(self._marker, "w", encoding="utf-8"):
                pass
        except OSError as error:
            return False, f"{self._marker} cannot be written: {error.strerror}"
        self.state.suspended = True
        return True, "suspended: new revisions are seen, but not published, until `nexoraldns resume`"

    async def _resume(self) -> tuple[bool, str]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._marker)
        if not self.state.suspended:
            return True, "nothing was suspended"
        self.state.suspended = False
        self._wake.set()
        waiting = self._pending.row.revision.short if self._pending is not None else ""
        return True, f"going on with {waiting}" if waiting else "going on; nothing new has come meanwhile"

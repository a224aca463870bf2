"""The pipeline: what is newer pre-empts what is older at every stage, and whatever is refused changes nothing."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any

from controller.builder import BuilderCrash, Product
from controller.history import ACTIVE, REFUSED, SEEN, SUPERSEDED, History
from controller.pipeline import Outcome, Pipeline
from controller.ruleset import Revision, Snapshot
from controller.source import Found, Trouble, refusal
from controller.state import State


def found(name: str, content: str = "", refused: bool = False) -> Found:
    revision = Revision(f"main@sha1:{name}", f"main@sha1:{name}", "main", name, "Anna", "", "", name)
    refusals = (refusal("rules.d/x.yaml", "'rules.d/x.yaml' is a symbolic link"),) if refused else ()
    return Found(Snapshot(revision, {}, lambda path, relative_to: b""), content or name, refusals)


class FakeSource:
    def __init__(self) -> None:
        self.queue: asyncio.Queue[Found | Trouble] = asyncio.Queue()
        self.reads: list[tuple[str, str]] = []

    def describe(self) -> str:
        return "fake"

    async def events(self) -> AsyncIterator[Found | Trouble]:
        while True:
            yield await self.queue.get()

    async def sync(self) -> str:
        return "nothing new"

    def also(self, paths: Iterable[tuple[str, str]]) -> None:
        self.reads = list(paths)


class FakeBuilder:
    """Builds what `products` says; `gates` holds a build up until its event is set."""

    def __init__(self) -> None:
        self.products: dict[str, Product | Exception] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.built: list[str] = []
        self.cancelled: list[str] = []

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def build(self, snapshot: Snapshot, stage: Callable[[str], None]) -> Product:
        sha = snapshot.revision.sha
        self.built.append(sha)
        stage("valid")
        try:
            if sha in self.gates:
                await self.gates[sha].wait()
        except asyncio.CancelledError:
            self.cancelled.append(sha)
            raise
        product = self.products.get(sha, Product(True, digest=f"d-{sha}", reads=(("ads.txt", "a.yaml"),)))
        if isinstance(product, Exception):
            raise product
        if product.ok:
            stage("compiled")
            stage("tested")
        return product


class FakeBroker:
    def __init__(self) -> None:
        self.outcomes: list[Outcome | Exception] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.published: list[tuple[str, str]] = []
        self.generation = 0

    async def __call__(self, product: Product, revision: Revision, reason: str) -> Outcome:
        self.published.append((revision.sha, reason))
        if revision.sha in self.gates:
            await self.gates[revision.sha].wait()
            return Outcome("superseded")
        outcome = self.outcomes.pop(0) if self.outcomes else Outcome("active")
        if isinstance(outcome, Exception):
            raise outcome
        self.generation += 1
        return Outcome(outcome.state, self.generation, outcome.errors, outcome.note)


class Stage:
    """A pipeline with everything around it faked."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.source, self.builder, self.broker = FakeSource(), FakeBuilder(), FakeBroker()
        self.state = State(History(str(folder / "history.jsonl")))
        self.pipeline = Pipeline(self.source, self.builder, self.broker, self.state, str(folder))  # type: ignore[arg-type]

    def offer(self, *events: Found | Trouble) -> None:
        for event in events:
            self.source.queue.put_nowait(event)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.002)

    def states(self) -> dict[str, str]:
        return {row.revision.sha: row.state for row in self.state.history.rows}


def play(folder: pathlib.Path, scene: Callable[[Stage], Coroutine[Any, Any, None]]) -> Stage:
    async def act() -> Stage:
        stage = Stage(folder)
        running = asyncio.create_task(stage.pipeline.run())
        try:
            await scene(stage)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        return stage

    return asyncio.run(act())


def test_the_way_of_a_good_revision(tmp_path: pathlib.Path) -> None:
    """Seen, valid, compiled, tested, active, each with its time; the source hears which files were read."""

    async def scene(stage: Stage) -> None:
        stage.offer(found("one"))
        await stage.until(lambda: stage.state.active)

    stage = play(tmp_path, scene)
    row = stage.state.active
    assert row is not None and (row.state, row.digest, row.generation) == (ACTIVE, "d-one", 1)
    assert [step.state for step in row.steps] == ["seen", "valid", "compiled", "tested", "active"]
    assert [step.ms for step in row.steps] == sorted(step.ms for step in row.steps)
    assert stage.source.reads == [("ads.txt", "a.yaml")]


def test_a_refused_revision_changes_nothing(tmp_path: pathlib.Path) -> None:
    """A refusal keeps the text of `check`, publishes nothing, and what was active stays so."""

    async def scene(stage: Stage) -> None:
        stage.builder.products["bad"] = Product(False, "error[E021]: no such list\n", 1)
        stage.offer(found("good"))
        await stage.until(lambda: stage.state.active)
        stage.offer(found("bad"))
        await stage.until(lambda: stage.states().get("bad") == REFUSED)

    stage = play(tmp_path, scene)
    snapshot = stage.state.snapshot()
    assert snapshot["active"]["sha"] == "good" and snapshot["newest"]["sha"] == "bad"
    assert snapshot["newest"]["problems_text"] == "error[E021]: no such list\n"
    assert "still serving main@sha1:good" in snapshot["problems"][0]["message"]
    assert [sha for sha, _ in stage.broker.published] == ["good"]


def test_a_build_is_preempted(tmp_path: pathlib.Path) -> None:
    """A newer revision cancels the build of an older one, and what lies between is never built."""

    async def scene(stage: Stage) -> None:
        stage.builder.gates["one"] = asyncio.Event()
        stage.offer(found("one"))
        await stage.until(lambda: stage.builder.built == ["one"])
        stage.offer(found("two"), found("three"))
        await stage.until(lambda: stage.state.active)

    stage = play(tmp_path, scene)
    assert stage.builder.cancelled == ["one"]
    assert stage.builder.built[-1] == "three"
    assert stage.states() == {"one": SUPERSEDED, "two": SUPERSEDED, "three": ACTIVE}


def test_a_release_is_preempted(tmp_path: pathlib.Path) -> None:
    """While a release waits for a slow node, a newer revision is built and published; the broker ends the older one."""

    async def scene(stage: Stage) -> None:
        stage.broker.gates["one"] = asyncio.Event()
        stage.offer(found("one"))
        await stage.until(lambda: stage.broker.published)
        stage.offer(found("two"))
        await stage.until(lambda: stage.state.active)
        assert stage.states()["two"] == ACTIVE
        stage.broker.gates["one"].set()
        await stage.until(lambda: stage.states()["one"] == SUPERSEDED)
        assert stage.state.active is not None and stage.state.active.revision.sha == "two"

    play(tmp_path, scene)


def test_the_same_bytes_are_not_built_again(tmp_path: pathlib.Path) -> None:
    """A commit that changes other files moves the revision without a build; so does one after a refusal."""

    async def scene(stage: Stage) -> None:
        stage.builder.products["three"] = Product(False, "error\n", 1)
        stage.offer(found("one", "same"))
        await stage.until(lambda: stage.states().get("one") == ACTIVE)
        stage.offer(found("two", "same"))
        await stage.until(lambda: stage.states().get("two") == ACTIVE)
        stage.offer(found("three", "bad"))
        await stage.until(lambda: stage.states().get("three") == REFUSED)
        stage.offer(found("four", "bad"))
        await stage.until(lambda: stage.states().get("four") == REFUSED)

    stage = play(tmp_path, scene)
    assert stage.builder.built == ["one", "three"]
    assert [sha for sha, _ in stage.broker.published] == ["one", "two"]
    assert stage.state.active is not None and stage.state.active.revision.sha == "two"


def test_retry(tmp_path: pathlib.Path) -> None:
    """A refused revision is tried again when asked, really built anew; an active one is not."""

    async def scene(stage: Stage) -> None:
        assert (await stage.pipeline.command("retry"))["ok"] is False
        stage.builder.products["one"] = Product(False, "error\n", 1)
        stage.offer(found("one"))
        await stage.until(lambda: stage.states().get("one") == REFUSED)
        del stage.builder.products["one"]
        assert (await stage.pipeline.command("retry"))["ok"] is True
        await stage.until(lambda: stage.states().get("one") == ACTIVE)
        assert "nothing to retry" in (await stage.pipeline.command("retry"))["message"]

    stage = play(tmp_path, scene)
    assert stage.builder.built == ["one", "one"]
    assert stage.broker.published == [("one", "retry")]
    assert stage.state.snapshot()["problems"] == []


def test_suspend_and_resume(tmp_path: pathlib.Path) -> None:
    """Suspended, revisions are seen and wait; it survives a restart; resume takes up the newest only."""

    async def before(stage: Stage) -> None:
        assert (await stage.pipeline.command("suspend"))["ok"]
        stage.offer(found("one"))
        await stage.until(lambda: stage.states().get("one") == SEEN)
        await asyncio.sleep(0.02)

    async def after(stage: Stage) -> None:
        assert stage.state.suspended
        stage.offer(found("one"), found("two"))
        await stage.until(lambda: stage.states().get("two") == SEEN)
        assert stage.builder.built == []
        assert "two" in (await stage.pipeline.command("resume"))["message"]
        await stage.until(lambda: stage.state.active)

    assert play(tmp_path, before).builder.built == []
    assert play(tmp_path, after).builder.built == ["two"]


def test_a_nodes_refusal(tmp_path: pathlib.Path) -> None:
    """A node that refuses the table refuses the revision, in its own words."""

    async def scene(stage: Stage) -> None:
        stage.broker.outcomes = [Outcome("rejected", errors=("gw: the table's hash is wrong",))]
        stage.offer(found("one"))
        await stage.until(lambda: stage.states().get("one") == REFUSED)

    stage = play(tmp_path, scene)
    assert "gw: the table's hash is wrong" in stage.state.snapshot()["newest"]["problems_text"]
    assert stage.state.active is None


def test_a_broker_that_is_away(tmp_path: pathlib.Path) -> None:
    """A release that reaches nobody is tried again until it does."""

    async def scene(stage: Stage) -> None:
        stage.broker.outcomes = [Outcome("failed", errors=("nobody listens",)), Outcome("active")]
        stage.offer(found("one"))
        await stage.until(lambda: any(p["key"] == "release" for p in stage.state.snapshot()["problems"]))
        await stage.until(lambda: stage.state.active)

    stage = play(tmp_path, scene)
    assert stage.state.snapshot()["problems"] == []
    assert len(stage.broker.published) == 2


def test_a_source_in_trouble(tmp_path: pathlib.Path) -> None:
    """A source that cannot be read is a problem on the page until it can; refused files refuse the revision."""

    async def scene(stage: Stage) -> None:
        stage.offer(Trouble("there is no git repository at /srv/x", "make it"))
        await stage.until(lambda: stage.state.snapshot()["problems"])
        stage.offer(found("link", refused=True))
        await stage.until(lambda: stage.states().get("link") == REFUSED)

    stage = play(tmp_path, scene)
    assert "symbolic link" in stage.state.snapshot()["newest"]["problems_text"]
    assert [problem["key"] for problem in stage.state.snapshot()["problems"]] == ["refused"]
    assert stage.builder.built == []


def test_a_crash_of_the_build(tmp_path: pathlib.Path) -> None:
    """A build process that dies refuses the revision with its last words, and the pipeline goes on."""

    async def scene(stage: Stage) -> None:
        stage.builder.products["one"] = BuilderCrash("the build process was ended by SIGSEGV")
        stage.builder.products["two"] = ValueError("surprise")
        stage.offer(found("one"))
        await stage.until(lambda: stage.states().get("one") == REFUSED)
        stage.offer(found("two"))
        await stage.until(lambda: stage.states().get("two") == REFUSED)
        stage.offer(found("three"))
        await stage.until(lambda: stage.state.active)

    stage = play(tmp_path, scene)
    texts = [row.text for row in stage.state.history.rows]
    assert "SIGSEGV" in texts[0] and "surprise" in texts[1]


def test_unknown_command(tmp_path: pathlib.Path) -> None:
    """A verb that is none is answered with those there are."""

    async def scene(stage: Stage) -> None:
        answer = await stage.pipeline.command("dance")
        assert not answer["ok"] and "sync, retry, suspend, resume" in answer["message"]
        assert (await stage.pipeline.command("sync")) == {"ok": True, "message": "nothing new"}

    play(tmp_path, scene)

"""The one record of what the controller knows, for the status page, the metrics and the command line.

Written by the pipeline and by the broker's callbacks, all in the controller's one loop; read through `snapshot()`,
which is a value of its own: nobody who holds one sees it change.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from controller import clock
from controller.event_log import EventLog
from controller.history import ACTIVE, SEEN, History, Row, Step
from controller.ruleset import Revision

DECISIONS = 500


class State:
    """`broker` returns what the broker knows (`nodes`, refused peers …) and may be set later."""

    def __init__(self, history: History, source: str = "", version: str = "", events: EventLog | None = None) -> None:
        self.history = history
        self.source = source
        self.version = version
        self.started = clock.now_text()
        self.suspended = False
        self.broker: Callable[[], Mapping[str, Any]] = dict
        # What was active last is what the broker's own state goes on serving after a restart.
        self.active: Row | None = history.last(ACTIVE)
        self._problems: dict[str, dict[str, str]] = {}
        self._counters: dict[str, dict[str, int]] = {}
        self._workers: dict[str, list[dict[str, Any]]] = {}
        self._decisions: collections.deque[dict[str, Any]] = collections.deque(maxlen=DECISIONS)
        self._events = events or EventLog()
        self._dropped = 0

    # --- revisions ----------------------------------------------------------------------------------------------------

    @property
    def newest(self) -> Row | None:
        return self.history.last()

    def seen(self, revision: Revision) -> Row:
        """A row for a revision that was just seen. The one that is newest already is taken up again (after a
        restart, or for a retry)."""
        last = self.history.last()
        number = last.number if last is not None and last.revision.id == revision.id else self.history.next_number()
        row = Row(number, revision, steps=(Step(SEEN, clock.now_text(), 0.0),))
        self.history.put(row)
        return row

    def moved(self, row: Row, state: str, ms: float, **fields: Any) -> Row:
        """The row with one more step, kept."""
        moment, was = clock.now_text(), self.active
        row = dataclasses.replace(row, state=state, **fields)
        again = was is not None and (was.digest, was.generation) == (row.digest, row.generation)
        if state == ACTIVE and was is not None and again and was.steps:
            moment = was.steps[-1].time  # a new start, or a return to what never ceased to be served
        row = dataclasses.replace(row, steps=(*row.steps, Step(state, moment, round(ms, 1))))
        self.history.put(row)
        if state == ACTIVE:
            self.active = row
        self.problem("history", self.history.problem)
        return row

    def resume(self, release: Mapping[str, Any] | None) -> None:
        """Take the broker's active release (None: there is none) as the truth about what is active: a history that
        was lost, or written by another controller, must not claim otherwise."""
        if release is None:
            self.active = None
            return
        digest, generation = str(release["manifest"].get("table", "")), int(release["generation"])
        if self.active is not None and (self.active.digest, self.active.generation) == (digest, generation):
            return
        fields = {field.name: str(release["revision"].get(field.name, "")) for field in dataclasses.fields(Revision)}
        step = Step(ACTIVE, self.started, 0.0)
        self.active = Row(0, Revision(**fields), ACTIVE, (step,), digest=digest, generation=generation)

    # --- what nodes report --------------------------------------------------------------------------------------------

    def report(
        self,
        node: str,
        counters: Mapping[str, int],
        decisions: Iterable[Mapping[str, Any]] = (),
        workers: Iterable[Mapping[str, Any]] = (),
        dropped: int = 0,
    ) -> None:
        """A node's counters (totals), its decisions since the last report, and its workers."""
        self._counters[node] = dict(counters)
        self._workers[node] = [dict(worker) for worker in workers]
        self._decisions.extend(_as_shown(node, decision) for decision in decisions)
        self._dropped += dropped

    def event(self, event: Mapping[str, Any]) -> None:
        """Something that happened outside: an address that came or went, a lease."""
        self._events.put({"time": clock.now_text(), **event})

    def problem(self, key: str, message: str, help: str = "") -> None:
        """Note what is wrong under a key; an empty message says that it is right again."""
        if not message:
            self._problems.pop(key, None)
        elif self._problems.get(key, {}).get("message") != message:
            self._problems[key] = {"key": key, "message": message, "help": help, "since": clock.now_text()}

    # --- reading ------------------------------------------------------------------------------------------------------

    def counters(self) -> dict[str, int]:
        """The totals of all nodes."""
        total: collections.Counter[str] = collections.Counter()
        for counters in self._counters.values():
            total.update(counters)
        return dict(total)

    def snapshot(self) -> dict[str, Any]:
        """What /api/v1/status returns: plain JSON values, nothing shared with the state."""
        broker = copy.deepcopy(dict(self.broker()))
        nodes = broker.pop("nodes", [])
        for node in nodes:
            node.setdefault("workers", self._workers.get(node.get("name", ""), []))
            node.setdefault("counters", dict(self._counters.get(node.get("name", ""), {})))
        newest = self.newest
        return {
            "version": self.version,
            "pid": os.getpid(),
            "source": self.source,
            "started": self.started,
            "now": clock.now_text(),
            "suspended": self.suspended,
            "active": None if self.active is None else self.active.to_json(),
            "newest": None if newest is None else newest.to_json(),
            "nodes": nodes,
            "counters": self.counters(),
            "decisions": [dict(decision) for decision in reversed(self._decisions)],
            "decisions_dropped": self._dropped,
            "events": [dict(event) for event in reversed(self._events.rows)],
            "history": [row.to_json() for row in reversed(self.history.rows)],
            "problems": [dict(problem) for problem in self._problems.values()],
            "broker": broker,
        }


def _as_shown(node: str, decision: Mapping[str, Any]) -> dict[str, Any]:
    """A decision as the page and the API show it: times as RFC 3339 and milliseconds, names without a final dot."""
    shown = {"node": node, **decision}
    if isinstance(time_ms := shown.pop("time_ms", None), int):
        moment = datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC)
        shown["time"] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(latency_us := shown.pop("latency_us", None), int):
        shown["ms"] = latency_us / 1000
    qname = str(shown.get("qname", ""))
    shown["qname"] = qname.removesuffix(".") or "."
    return shown

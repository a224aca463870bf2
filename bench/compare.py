"""Everybody with 100,000 blocked names: CPU for each answer, case by case, and latency at 5,000 questions a second."""

from __future__ import annotations

import contextlib
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import data
from data import CASES, Data
from measure import CLIENT_CORE, SERVER_CORE, Client, Processes, ask, check, cost, until
from servers import ECHO, UPSTREAM_PORT, Server, upstream

NAMES = 100_000
RATE = 5_000  # questions a second, for latency
LATENCY_CASES = ("cached", "mixed")
COMPARED = tuple(case for case in CASES if case != "miss")


@contextlib.contextmanager
def knot(folder: pathlib.Path, given: Data) -> Iterator[None]:
    """The upstream server of everybody."""
    place = folder / "upstream"
    place.mkdir(exist_ok=True)
    processes = Processes(folder)
    try:
        processes.start("upstream", upstream(place, given), CLIENT_CORE)
        until(lambda: ask(UPSTREAM_PORT, next(iter(given.cached))), 20, "Knot's start")
        yield
    finally:
        processes.close()


def ready(server: Server, given: Data, processes: Processes, seconds: float = 90) -> None:
    """Until the server answers from all of its own data and from the upstream; SystemExit with its log otherwise."""
    local, redirect, cached = next(iter(given.local)), next(iter(given.redirect)), next(iter(given.cached))
    rights = {
        local: (0, [given.local[local]]), redirect: (0, [given.redirect[redirect]]),
        cached: (0, [given.cached[cached]]), given.blocked[0]: (3, []), given.blocked[-1]: (3, []),
    }  # fmt: skip

    def right() -> bool:
        if not processes.alive(server.name):
            raise SystemExit(f"bench: {server.name} ended\n{processes.log(server.name)}")
        if server.name == ECHO:
            return ask(server.port, local) is not None
        return all(ask(server.port, name) == answer for name, answer in rights.items())

    try:
        until(right, seconds, f"{server.name}'s start")
    except SystemExit as error:
        seen = {name: ask(server.port, name) for name in rights}
        raise SystemExit(f"{error}\nwanted {rights}\ngot    {seen}\n{processes.log(server.name)}") from None


def run(
    folder: pathlib.Path,
    client: Client,
    chosen: tuple[Server, ...],
    cases: tuple[str, ...],
    rounds: int,
    seconds: float,
) -> dict[str, Any]:
    """All servers at once, rounds interleaved over cases and servers; every single measurement."""
    given = data.make(NAMES)
    questions = folder / "packets"
    data.write_packets(questions, given)
    processes = Processes(folder)
    costs: list[dict[str, Any]] = []
    latencies: list[dict[str, Any]] = []
    try:
        with knot(folder, given):
            for server in chosen:
                place = folder / server.name
                place.mkdir()
                processes.start(server.name, server.configure(place, given), SERVER_CORE)
                ready(server, given, processes)
                for case in cases:
                    if case in server.cases:
                        check(client, server.name, server.port, case, questions / case)
                print(f"{server.title} is ready, and its answers are right", file=sys.stderr)
            for turn in range(rounds):
                for case in cases:
                    for server in chosen:
                        if case not in server.cases:
                            continue
                        for warm in CASES[case].warm:
                            client.load(server.port, questions / warm, 0, window=64)
                        seen = cost(
                            processes.started[server.name].pid,
                            lambda case=case, port=server.port: client.load(port, questions / case, seconds),
                        )
                        costs.append({"server": server.name, "case": case, "round": turn, **seen})
                for case in LATENCY_CASES:
                    for server in chosen:
                        if case not in cases or case not in server.cases:
                            continue
                        for warm in CASES[case].warm:
                            client.load(server.port, questions / warm, 0, window=64)
                        paced = client.paced(server.port, questions / case, max(0.5, 2 * seconds), RATE)
                        seen, latency = paced.finish()
                        latencies.append({
                            "server": server.name, "case": case, "round": turn, "p50": latency.quantile(0.5),
                            "p99": latency.quantile(0.99), "lost": seen["lost"], "sent": seen["sent"],
                        })  # fmt: skip
                print(f"comparison: round {turn + 1} of {rounds}", file=sys.stderr)
    finally:
        processes.close()
    return {"names": NAMES, "costs": costs, "latencies": latencies}

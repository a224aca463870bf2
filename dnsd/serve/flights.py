"""Single flight: one upstream question for many identical askers, all of them answered.

Everything that table and cache could not answer passes through here. Both the number of flights and
the number of askers of a worker are bounded; above that a client gets SERVFAIL at once instead of
waiting in a queue that cannot be served.
"""

import dataclasses
import functools
import heapq
import json
import secrets
from collections.abc import Callable, Generator, Iterable
from typing import Any, Protocol

from dnsd.contract import codes, names
from dnsd.resolve.anchors import Anchors
from dnsd.resolve.forwarded import Upstream as Over
from dnsd.resolve.forwarder import UDP, Ask, Outcome, Reply, Tried, first_patience_ms, forward, query
from dnsd.resolve.resolver import Resolver
from dnsd.resolve.shortcut import FAULT, Journey, Shortcut
from dnsd.resolve.upstreams import FAILOVER, FASTEST, RACE, SPREAD, Server, Servers
from dnsd.serve.handoff import LATE, Retry
from dnsd.serve.realms import Belongings
from dnsd.serve.upstream import Upstream

FLIGHTS = 4096
ASKERS_PER_FLIGHT = 1024
ASKERS = 16384
NOBODY = -2  # the `fd` of a miss that nobody waits for
PATIENCE_MS = 1800  # after this a client gets an answer past its time, if there is one (RFC 8767, section 5)
ROUTES = 256  # forward entries that are looked through
RELAYING = 32  # forward entries of which answers are remembered by RRset
PROBE_MS = 2000  # how long a probe waits
WAYS = {FAILOVER: 0, SPREAD: 1, FASTEST: 2, RACE: 3}  # as `serve.flightpath` wants them
_ANSWERS = frozenset((codes.RCODE_NOERROR, codes.RCODE_NXDOMAIN, codes.RCODES["YXDOMAIN"]))


class Miss(Protocol):
    """A question that left the query path (`serve.latepath.Miss`)."""

    sname: bytes
    qtype: int
    qclass: int
    client: bytes
    do: bool
    cd: bool
    key: bytes
    route: int
    fd: int
    started_ms: int
    token: Any


class Route(Protocol):
    """Where the table sends a question (`hotpath.route`)."""

    name: str
    servers: tuple[Server, ...]
    strategy: str
    timeout_ms: int
    dnssec: bool
    kind: str  # "forward", or what this version does not do


class Answers(Protocol):
    """What flights need of the query path (`serve.latepath.LatePath`)."""

    table: Any
    view: Any
    info: Any

    def route(self, number: int) -> Route:
        """The route of this number."""

    def finish(self, miss: Any, response: bytes | None, ede: int, text: str) -> bytes:
        """The client's answer made of an upstream response; b"" for none."""

    def overdue(self, miss: Any, failed: bool) -> bytes | None:
        """The client's answer from what is past its time (RFC 8767); None when there is none."""

    def store(
        self, miss: Any, response: bytes, ede: int = codes.EDE_NONE, text: str = "", bounded: bool = False
    ) -> None:
        """Remember a response, and the Extended DNS Error that goes with it. `bounded`: its TTLs are what is left."""

    def bound(self, response: bytes) -> bytes:
        """A forwarded response with its TTLs as the settings bound them."""

    def forget_routes(self) -> None:
        """Ask again which server is first (`serve.flightpath`)."""

    def all_routes(self) -> list[Any]:
        """The forward entries of the table (`Route`)."""

    def upstreams(self) -> list[Server]:
        """The servers of the table's forward entries."""

    def rtts(self) -> Iterable[tuple[Server, float]]:
        """Round-trip times of servers that it has measured, in milliseconds."""

    def silent(self) -> Iterable[Server]:
        """Servers that were silent in a race since the last call."""

    def landed(self, flight: int) -> None:
        """A flight that was handed over has landed."""


@dataclasses.dataclass(slots=True, eq=False)
class _Flight:
    question: Generator[Ask, Reply, Outcome]
    first: Miss
    misses: list[Miss]
    late: bool = False  # has been under way for so long that an answer past its time is better than none
    counted: bool = False  # whether `Shortcut.busy` counts it
    bounded: bool = False  # whether a resolver's memory has bounded the TTLs
    turn: int = 0  # how often it has asked
    servers: tuple[Server, ...] = ()  # whose late answer counts: of a forward entry that is not validated
    handed: list[int] = dataclasses.field(default_factory=list)  # numbers of the compiled path's flights


class _Race:
    """One question to several servers: the first answer holds, a failure only when nobody has better."""

    def __init__(self, racers: int, done: Callable[[Reply], None]) -> None:
        self._left = racers
        self._done = done
        self._over = False
        self._second: Reply | None = None

    def reply(self, server: Server, reply: Reply) -> None:
        """What became of one of them."""
        self._left -= 1
        if self._over:
            return
        wire = reply.wire
        if wire is not None:
            reply = dataclasses.replace(reply, server=server)
            if wire[3] & 0x0F in _ANSWERS:
                self._second, self._left = reply, 0
            self._second = self._second or reply
        if self._left == 0:
            self._over = True
            self._done(self._second or reply)


class Flights:
    """The questions under way of one worker. `answer(miss, wire)` sends a client its answer."""

    def __init__(
        self,
        answers: Answers,
        upstream: Upstream,
        counters: memoryview,
        now_ms: Callable[[], int],
        answer: Callable[[Any, bytes], None],
        resolver: Resolver | None = None,
        stale: bool = False,
        over: Callable[[Over], Resolver] | None = None,
        shortcut: Shortcut | None = None,
    ) -> None:
        self._answers = answers
        self._upstream = upstream
        self._counters = counters
        self._now_ms = now_ms
        self._answer = answer
        self._resolver = resolver
        self._over = over  # makes a resolver that asks forwarders, and validates what they say
        self._relaying: dict[tuple[object, ...], Resolver] = {}
        self._belongings = Belongings(answers, self._resolver_over) if over is not None else None
        self._shortcut = shortcut  # the compiled path's; it begins nothing that a generator works on
        self._trusted: Anchors | None = None  # trust anchors that are newer than the settings
        self._stale = stale  # whether answers past their time are served
        self._flights: dict[bytes, _Flight] = {}
        self._handed: dict[int, bytes] = {}  # the compiled path's number of a flight → its key here
        self._servers = Servers(secrets.randbelow)
        self._patience: list[tuple[int, int, bytes, _Flight]] = []
        self._sequence = 0
        self._wall_s = 0
        self.askers = 0

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def resolvers(self) -> list[Resolver]:
        """All that remember RRsets: the one that recurses, and those that ask a forward entry's servers."""
        return [*([self._resolver] if self._resolver is not None else []), *self._relaying.values()]

    def trust(self, anchors: Anchors) -> None:
        """Validate by other trust anchors from now on; questions under way go on with those they began with."""
        self._trusted = anchors
        for resolver in self.resolvers:
            resolver.trust(anchors)

    def validating(self) -> Resolver | None:
        """Who can look up a trust anchor's keys; None when the table sends nothing to anybody who validates."""
        found: Resolver | None = None
        for route in self._answers.all_routes():
            if route.kind == "recurse" and self._resolver is not None and self._resolver.validator is not None:
                return self._resolver
            if found is None and route.kind != "recurse" and route.dnssec and route.servers and self._over is not None:
                found = self._resolver_over(route)
        return found

    def take(self, miss: Miss, retry: Retry | None = None) -> None:
        """Answer a miss: join the flight for the same question, or start one (`retry`: its first try has been made)."""
        flight = self._flights.get(miss.key)
        if flight is not None:
            if miss.fd == NOBODY or (flight.late and self._comforted(miss)):
                return
            if len(flight.misses) >= ASKERS_PER_FLIGHT or self.askers >= ASKERS:
                self._overloaded(miss)
                return
            flight.misses.append(miss)
            self.askers += 1
            if retry is None:
                self._counters[codes.COUNT_COALESCED] += 1
            return
        if len(self._flights) >= FLIGHTS or self.askers >= ASKERS:
            self._overloaded(miss)
            return
        route = self._answers.route(miss.route)
        journey: Journey | None = None
        if route.kind == "dhcp" and not route.servers:
            text = f"no DHCP lease names a DNS server (forward entry {route.name})"
            self._reply(miss, Outcome(None, codes.EDE_NO_REACHABLE_AUTHORITY, text))
            return
        if route.dnssec and self._over is not None and route.kind in ("forward", "dhcp"):
            retry = None  # a new table: what was said without validation is of no use
            question = self._resolver_over(route).resolve(
                miss.sname, miss.qtype, miss.do, miss.cd, self._now_ms(), renew=miss.fd == NOBODY
            )
        elif route.kind in ("forward", "dhcp"):
            question = forward(
                miss.sname, miss.qtype, miss.qclass, miss.do, miss.cd, route.servers, route.timeout_ms,
                self._servers, retry.started_ms if retry else self._now_ms(), route.strategy,
                retry.server if retry else None,
            )  # fmt: skip
        elif route.kind == "recurse" and self._resolver is not None:
            tried = retry.tried if retry is not None else None
            journey = retry.journey if retry is not None else None
            retry = None  # a new table: what the old one's server said is of no use
            if journey is None:
                begun_ms = tried.began_ms if tried is not None else self._now_ms()
                journey = self.journey(
                    miss.sname, miss.qtype, miss.do, miss.cd, miss.client, begun_ms, tried, miss.fd == NOBODY
                )
        else:
            text = f"`{route.kind}` is not in this version; name upstream servers in the forward entry {route.name}"
            self._reply(miss, Outcome(None, codes.EDE_OTHER, text))
            return
        if journey is None:
            journey = Journey(question)
        flight = self._flights[miss.key] = _Flight(journey.question, miss, [miss])
        flight.bounded = route.kind == "recurse" or bool(route.dnssec and self._over is not None)
        flight.servers = () if flight.bounded else route.servers
        self.askers += 1
        ask = journey.ask
        if ask is None:
            assert journey.outcome is not None
            self._land(miss.key, journey.outcome)
            if journey.fault is not None:
                raise journey.fault  # the worker writes it into its log and goes on
            return
        if self._shortcut is not None and route.kind == "recurse":
            flight.counted = True
            self._shortcut.enter(miss.sname, miss.qtype)
        if self._stale and miss.fd != NOBODY:
            self._sequence += 1
            due_ms = miss.started_ms + PATIENCE_MS
            heapq.heappush(self._patience, (due_ms, self._sequence, miss.key, flight))
        if retry is None or (ask.server, ask.transport) != (retry.server, UDP):
            self._send(miss.key, flight, ask)
        else:
            self._next(miss.key, flight, Reply(retry.wire, self._now_ms(), retry.error))

    def journey(
        self,
        sname: bytes,
        qtype: int,
        do: bool,
        cd: bool,
        client: bytes,
        now_ms: int,
        tried: Tried | None = None,
        renew: bool = False,
    ) -> Journey:
        """A recursion for this client, begun; there is a resolver."""
        assert self._resolver is not None
        realms = functools.partial(self._belongings.realm, client) if self._belongings is not None else None
        return Journey(self._resolver.resolve(sname, qtype, do, cd, now_ms, renew=renew, realms=realms, tried=tried))

    def health(self) -> bytes:
        """What is known of the table's servers, for people: [address, port, failures, round-trip time in µs] each."""
        known = dict(self._servers.standings())
        rows = [
            [*server, known[server].failures, round(1000 * known[server].rtt_ms)]
            for server in self._answers.upstreams() if server in known
        ]  # fmt: skip
        return json.dumps(rows, separators=(",", ":")).encode()

    def clock(self, wall_s: int) -> None:
        """The wall clock, for what is remembered of validated answers."""
        self._wall_s = wall_s
        for resolver in self._relaying.values():
            resolver.cache.clock(wall_s)

    def _resolver_over(self, route: Route) -> Resolver:
        """The resolver over a forward entry's servers; entries with the same servers share it."""
        key = (route.servers, route.timeout_ms, route.strategy, route.dnssec)
        resolver = self._relaying.get(key)
        if resolver is None:
            assert self._over is not None
            if len(self._relaying) >= RELAYING:
                del self._relaying[next(iter(self._relaying))]
            resolver = self._over(Over(route.servers, route.timeout_ms, route.strategy, self._servers, route.dnssec))
            resolver.cache.clock(self._wall_s)
            if self._trusted is not None:
                resolver.trust(self._trusted)
            self._relaying[key] = resolver
        return resolver

    def next_ms(self) -> int | None:
        """When `expire` wants to be called (monotonic milliseconds); None when nobody waits for an older answer."""
        while self._patience and self._flights.get(self._patience[0][2]) is not self._patience[0][3]:
            heapq.heappop(self._patience)
        return self._patience[0][0] if self._patience else None

    def expire(self, now_ms: int) -> None:
        """Who has waited for too long gets an answer past its time, if there is one; the flight goes on."""
        while self._patience and self._patience[0][0] <= now_ms:
            _, _, key, flight = heapq.heappop(self._patience)
            if self._flights.get(key) is flight:
                flight.late = True
                waiting = [miss for miss in flight.misses if not self._comforted(miss)]
                self.askers -= len(flight.misses) - len(waiting)
                flight.misses = waiting

    def _comforted(self, miss: Miss, failed: bool = False) -> bool:
        """Answer from what is past its time; False when there is nothing."""
        wire = self._answers.overdue(miss, failed) if self._stale and miss.fd != NOBODY else None
        if wire is None:
            return False
        self._answer(miss, wire)
        return True

    def choose(self, number: int) -> tuple[int, int, list[tuple[Server, bool, bool]]] | None:
        """For the compiled path: who comes first for a route's questions, as `FlightPath.chooser` says.

        None leaves a question to `take`: a route of another kind, or one whose answers are validated.
        """
        route = self._answers.route(number)
        if route.kind not in ("forward", "dhcp") or not route.servers or (route.dnssec and self._over is not None):
            return None
        now_ms = self._now_ms()
        servers = self._servers.first(route.servers, now_ms, route.strategy)
        patience_ms = first_patience_ms(route.servers, route.timeout_ms)
        known = self._servers
        chosen = [(server, not known.plain(server, now_ms), known.doubtful(server)) for server in servers]
        return WAYS[route.strategy], patience_ms, chosen

    def proven(self, server: Server) -> None:
        """The compiled path has had an answer of a server whose last try was a failure."""
        self._servers.answered(server)
        self._answers.forget_routes()

    def refresh(self) -> None:
        """Now and then: what is known about servers is brought up to date, and who is ill is probed."""
        now_ms = self._now_ms()
        self._servers.measured(self._answers.rtts())
        for server in self._answers.silent():
            self._servers.failed(server, now_ms)
        for server in self._servers.due(now_ms):
            self._probe(server, now_ms)
        self._answers.forget_routes()

    def _probe(self, server: Server, now_ms: int) -> None:
        """Ask an ill server for the name servers of what it is asked for (the root mostly): no client waits for it.

        A server of one domain may know nothing of the root, and would rather be silent than say so.
        """
        self._counters[codes.COUNT_PROBES] += 1
        wire = query(self._name_for(server), codes.TYPE_NS, codes.CLASS_IN, False, False, not self._servers.plain(server, now_ms))
        self._upstream.ask(Ask(server, wire, UDP, PROBE_MS), lambda reply: self._probed(server, reply))

    def _name_for(self, server: Server) -> bytes:
        count = self._answers.info.route_count if self._answers.info is not None else 0
        for number in range(1, min(count, ROUTES) + 1):
            route = self._answers.route(number)
            if server in route.servers:
                return names.from_text(route.name)
        return names.ROOT

    def _probed(self, server: Server, reply: Reply) -> None:
        self._servers.probed(server, reply.wire is not None, reply.now_ms)
        self._answers.forget_routes()

    def resume(self, retry: Retry) -> None:
        """Go on with a flight whose first try the compiled path has made."""
        if retry.error == LATE:
            self._overheard(retry)
            return
        for server in self._answers.silent():  # who was in the race for it comes last
            self._servers.failed(server, self._now_ms())
        fault: Exception | None = None
        for miss in retry.misses:
            try:
                self.take(miss, retry)
            except Exception as error:
                fault = error
        flight = self._flights.get(retry.misses[0].key)
        if flight is None:
            self._answers.landed(retry.flight)
        else:
            flight.handed.append(retry.flight)
            self._handed[retry.flight] = retry.misses[0].key
        if retry.journey is None and retry.tried is None:
            self._answers.forget_routes()
        if fault is not None:
            raise fault  # once everybody has been seen to

    def refuse(self, retry: Retry, text: str) -> None:
        """SERVFAIL to all who wait; for a worker that leaves."""
        for miss in retry.misses:
            self._reply(miss, Outcome(None, codes.EDE_NETWORK_ERROR, text))
        self._answers.landed(retry.flight)

    def abandon(self, text: str) -> None:
        """Answer everybody who still waits with SERVFAIL; for a worker that leaves."""
        for key in list(self._flights):
            self._land(key, Outcome(None, codes.EDE_NETWORK_ERROR, text))

    def _overheard(self, retry: Retry) -> None:
        """The first try's answer has come while another is under way: nobody waits for that any more."""
        key = self._handed.get(retry.flight, b"")
        flight = self._flights.get(key)
        if flight is not None and retry.server in flight.servers:
            self._next(key, flight, Reply(retry.wire, self._now_ms(), server=retry.server))

    def _send(self, key: bytes, flight: _Flight, ask: Ask) -> None:
        flight.turn += 1
        turn = flight.turn

        def done(reply: Reply) -> None:
            if flight.turn == turn:  # else something else has answered meanwhile
                self._next(key, flight, reply)

        if not ask.rivals:
            self._upstream.ask(ask, done)
            return
        race = _Race(1 + len(ask.rivals), done)
        for server in (ask.server, *ask.rivals):
            one = dataclasses.replace(ask, server=server, rivals=())
            self._upstream.ask(one, functools.partial(race.reply, server))

    def _next(self, key: bytes, flight: _Flight, reply: Reply) -> None:
        if self._flights.get(key) is not flight:
            return  # abandoned
        try:
            ask = flight.question.send(reply)
        except StopIteration as stop:
            self._land(key, stop.value)
            return
        except Exception:
            self._land(key, Outcome(None, codes.EDE_OTHER, FAULT))
            raise  # the worker writes it into its log and goes on
        self._send(key, flight, ask)

    def _land(self, key: bytes, outcome: Outcome) -> None:
        flight = self._flights.pop(key)
        if flight.counted and self._shortcut is not None:
            self._shortcut.leave(flight.first.sname, flight.first.qtype)
        self.askers -= len(flight.misses)
        if outcome.response is not None and not flight.bounded:
            outcome = dataclasses.replace(outcome, response=self._answers.bound(outcome.response))
        for number in flight.handed:
            self._handed.pop(number, None)
            self._answers.landed(number)
        for miss in flight.misses:
            failed = outcome.response is None and not outcome.bogus
            if not (failed and self._comforted(miss, True)):
                self._reply(miss, outcome)
        if outcome.response is not None and not outcome.fleeting:  # the clients first
            self._answers.store(flight.first, outcome.response, outcome.ede, outcome.text, flight.bounded)

    def _reply(self, miss: Miss, outcome: Outcome) -> None:
        if miss.fd != NOBODY:
            self._answer(miss, self._answers.finish(miss, outcome.response, outcome.ede, outcome.text))

    def _overloaded(self, miss: Miss) -> None:
        if miss.fd == NOBODY:
            return
        self._counters[codes.COUNT_OVERLOADED] += 1
        self._reply(miss, Outcome(None, codes.EDE_OTHER, "too many questions are under way"))

"""The lab while it is up: texts become served zones, servers run, and what somebody edits is served a moment later.

Everything that a learner can change is a file; this is the only process that signs and tells servers.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import pathlib
import time

import controller.lab.servers as name_servers
from controller.lab import signing, world, zonefiles
from controller.lab.servers import Running, ServersError
from controller.lab.zonefiles import Marks, ZoneError

_READY_S = 10.0
_LOOK_S = 0.2
_AGAIN_S = signing.DAY_S  # signatures are made anew this often


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """What a look at the files led to: zones that are served anew, and what is wrong with those that are not."""

    served: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class Laboratory:
    """One lab in a folder. `signed` False: plain zones, for resolvers that do not validate."""

    def __init__(self, folder: pathlib.Path, base: str, signed: bool = True) -> None:
        self.folder = folder
        self.running = Running(folder, base)
        self._signed = signed
        self._seen: dict[str, tuple[int, int]] = {}  # by zone: what its text's file looked like
        self._texts: dict[str, tuple[str, Marks]] = {}  # by zone: the last text that could be served
        self._made: dict[str, tuple[str, int]] = {}  # by zone: hash of all that it is made of, serial
        self._signed_at = 0.0

    @property
    def base(self) -> str:
        """Three octets of 127/8."""
        return self.running.base

    async def start(self, before: str = "") -> None:
        """Write, sign, start, and wait until every zone is served; raises ServersError, ZoneError."""
        zonefiles.prepare(self.folder, self.base, before)
        (self.folder / "served").mkdir(exist_ok=True)
        told = self._make()
        if told.problems:
            raise ZoneError("\n".join(told.problems))
        (self.folder / "node.yaml").write_text(self.settings(), encoding="utf-8")
        self.running.start(name_servers.programs())
        await self._serving(told.served)

    async def look(self) -> Told:
        """Serve what has been edited since the last look. Never raises: what is wrong is told, the old stays."""
        told = self._make()
        if told.served:
            self.running.reload(told.served)
            try:
                await self._serving(told.served)
            except ServersError as error:
                return dataclasses.replace(told, problems=(*told.problems, str(error)))
        return told

    async def follow(self, say: object) -> None:
        """Look again and again, and say what came of it, until cancelled; raises ServersError when a server ended."""
        assert callable(say)
        while True:
            await asyncio.sleep(_LOOK_S)
            if ended := self.running.ended():
                raise ServersError(ended)
            told = await self.look()
            for zone in told.served:
                say(f"{zone} is served anew")
            for problem in told.problems:
                say(problem)

    def end(self) -> None:
        """End the servers."""
        self.running.end()

    def settings(self) -> str:
        """A node's settings for this Internet: its root, its trust anchor, and a resolver's own address."""
        base, host = self.base, f"{self.base}.{world.RESOLVER_HOST}"
        anchors = [self.anchor()] if self._signed else []
        values = {
            "listen": [f"{host}:53"], "workers": 1, "source": {"directory": "rules.d"},
            "broker": {"listen": f"{host}:5338"}, "status": {"listen": f"{host}:8053"}, "state": "state",
            "resolver": {
                "root_hints": [{"name": "ns.root-servers.lab", "addresses": [f"{base}.1"]}],
                "trust_anchors": anchors, "query_localhost": True, "use_ipv6": False,
            },
        }  # fmt: skip
        head = "# Written by `nexoraldns lab up`: a node that knows no other Internet than the lab.\n"
        return head + "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items())

    def anchor(self) -> str:
        """The root's DS, where validation begins."""
        return f". DS {signing.ds('.', self._key('.'), Marks())[0]}"

    def _key(self, zone: str) -> signing.Key:
        return signing.key(self.folder / "keys", zone)

    # --- texts to zones --------------------------------------------------------------------------------------------

    def _make(self) -> Told:
        """Write every zone that changed, or whose children's DS changed, into its server's file."""
        problems = []
        again = time.monotonic() - self._signed_at > _AGAIN_S
        changed = again
        for zone in world.zones():
            place = zonefiles.path(self.folder, zone)
            try:
                found = place.stat()
                looks = (found.st_mtime_ns, found.st_size)
                if self._seen.get(zone) == looks:
                    continue
                self._seen[zone] = looks
                text = place.read_text(encoding="utf-8")
                self._texts[zone] = text, zonefiles.marks(text, str(place))
                changed = True
            except (OSError, UnicodeDecodeError) as error:
                if zone not in self._seen or self._seen[zone] != (0, 0):
                    self._seen[zone] = (0, 0)
                    problems.append(f"{place}: cannot be read: {error}")
            except ZoneError as error:
                problems.append(str(error))
        if not changed:
            return Told((), tuple(problems))
        if again:
            self._made = {zone: ("", serial) for zone, (_, serial) in self._made.items()}
            self._signed_at = time.monotonic()
        served = []
        now = int(time.time())
        for zone in reversed(world.zones()):
            if zone not in self._texts:
                continue
            try:
                if self._written(zone, now):
                    served.append(zone)
            except ZoneError as error:
                problems.append(str(error))
        return Told(tuple(reversed(served)), tuple(problems))

    def _written(self, zone: str, now: int) -> bool:
        text, marks = self._texts[zone]
        children = {}
        if self._signed and not marks.unsigned:
            children = {
                child: signing.ds(child, self._key(child), self._texts[child][1])
                for child in world.zones()
                if child in self._texts and child != zone and _parent(child) == zone
            }
        made_of = hashlib.sha256(json.dumps([text, sorted(children.items())]).encode()).hexdigest()
        before, serial = self._made.get(zone, ("", now))
        if before == made_of:
            return False
        self._made[zone] = made_of, serial + 1  # what could not be served is not tried again until it changes
        known = self._key(zone) if self._signed else None
        file = str(zonefiles.path(self.folder, zone))
        zonefiles.write(
            self.running.served(zone), signing.served(zone, text, marks, known, children, serial + 1, now, file)
        )
        return True

    async def _serving(self, zones: tuple[str, ...]) -> None:
        """Wait until the servers serve what was written; raises ServersError."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _READY_S
        waiting = list(zones)
        while waiting:
            if ended := self.running.ended():
                raise ServersError(ended)
            serials = {zone: await asyncio.to_thread(self.running.serial, zone) for zone in waiting}
            waiting = [zone for zone in waiting if serials[zone] != self._made[zone][1]]
            if waiting and loop.time() > deadline:
                log = self.folder / "run" / f"{world.servers_of(waiting[0]).name}.log"
                raise ServersError(f"{waiting[0]} is not served after {_READY_S:g} s; see {log}")
            if waiting:
                await asyncio.sleep(0.02)
        zonefiles.write(self.folder / "served.json", json.dumps({zone: made for zone, (made, _) in self._made.items()}))


def _parent(zone: str) -> str:
    return world.zone_of(zone.rstrip(".").partition(".")[2])

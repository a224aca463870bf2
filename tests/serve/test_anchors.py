"""The agent's keeper of trust anchors: when it looks, what it tells, and a clock that jumps; no sockets, no waiting."""

from __future__ import annotations

import asyncio
import base64
import json
import pathlib
from typing import Any

import dns.message
import pytest

from dnsd.contract.settings import load
from dnsd.resolve import rollover
from dnsd.serve import agent_anchors
from dnsd.serve.agent_anchors import AnchorKeeper, Probes
from tests.resolve.signed import DAY, NOW, Signer, Zone, name
from tests.serve.node_parts import Silent


class Bench:
    """A keeper of a root's anchor, its clocks, and the root."""

    def __init__(self, folder: pathlib.Path, **resolver: Any) -> None:
        self.folder = folder
        self.wall, self.mono = NOW, 1000.0
        self.root = Zone(".", ". NS ns\nns A 192.0.2.1", times=(NOW - DAY, NOW + 90 * DAY))
        self.settings = load(
            {"state": str(folder), "resolver": {"trust_anchors": [self.root.ds()], "trust_anchor_updates": True, **resolver}},
            str(folder), {},
        )  # fmt: skip
        self.log = Silent()
        self.told: list[list[str]] = []
        self.said: dict[str, Any] | None = None
        self.keeper = self.again()

    def again(self) -> AnchorKeeper:
        """A new keeper, as after a restart."""
        self.keeper = AnchorKeeper(
            self.settings, self.probe, self.told.append, self.log, lambda: self.wall, lambda: self.mono
        )
        return self.keeper

    async def probe(self, zone: bytes) -> dict[str, Any]:
        """What a worker would answer."""
        if self.said is not None:
            return self.said
        query = dns.message.make_query(".", "DNSKEY", want_dnssec=True)
        response = dns.message.make_response(query)
        self.root.fill(response, name("."), 48)
        return {"wire": base64.b64encode(response.to_wire()).decode()}

    def look(self) -> None:
        """A look, which is due."""
        zone = self.keeper.due()
        assert zone == b"\x00"
        asyncio.run(self.keeper.look(zone))

    def states(self) -> dict[int, str]:
        return {row["tag"]: row["state"] for row in self.keeper.rows()}


def test_a_key_comes_into_use_and_everybody_is_told(tmp_path: pathlib.Path) -> None:
    """First look at once, the next when it is due; pending over a restart; then trusted, told once, with log lines."""
    bench = Bench(tmp_path)
    bench.look()
    assert bench.keeper.due() is None and len(bench.told) == 1  # the DS has become its key
    new = Signer.make()
    bench.root.rrsets[name("."), 48].add(new.dnskey)  # type: ignore[arg-type]
    bench.root.resign(name("."), 48)
    bench.wall += DAY
    bench.mono += DAY
    bench.look()
    assert sorted(bench.states().values()) == ["addpend", "valid"] and len(bench.told) == 1
    bench.wall += 31 * DAY
    assert sorted(state for state in (bench.again(), bench.states())[1].values()) == ["addpend", "valid"]
    bench.look()
    assert set(bench.states().values()) == {"valid"} and len(bench.told) == 2 and len(bench.told[1]) == 2
    texts = [text for level, text, values in bench.log.lines if "trust anchor:" in text]
    assert len(texts) == 2 and "for 30 days" in texts[0] and "trusted now" in texts[1]


def test_a_look_that_fails_is_told_once_and_tried_again_after_an_hour(tmp_path: pathlib.Path) -> None:
    """No answer, nonsense, other keys: the anchors stay; the reason is in the rows; not more than once an hour."""
    bench = Bench(tmp_path)
    for said, why in (
        ({"error": "no name server of . answers"}, "no name server"), ({"wire": "!"}, "malformed"),
        ({"wire": base64.b64encode(b"x" * 40).decode()}, "malformed"),
        ({"wire": base64.b64encode(dns.message.make_response(dns.message.make_query(".", "NS")).to_wire()).decode()},
         "no keys"),
    ):  # fmt: skip
        bench.said = said
        bench.look()
        assert why in bench.keeper.rows()[0]["failure"] and bench.keeper.lines == bench.again().lines
        bench.wall += 3599
        bench.mono += 3599
        assert bench.keeper.due() is None
        bench.wall += 1
        bench.mono += 1
    bench.said = None
    bench.look()
    assert bench.keeper.rows()[0]["failure"] == ""


def test_clocks_that_jump(tmp_path: pathlib.Path) -> None:
    """The wall clock set back delays no look; set ahead it causes one each 2 s at most; neither changes the anchors."""
    bench = Bench(tmp_path)
    bench.look()
    lines = bench.keeper.lines
    bench.wall -= 10 * DAY
    assert bench.keeper.due() is None
    bench.mono += 61
    bench.look()  # no signature holds then
    assert bench.keeper.rows()[0]["failure"] and bench.keeper.lines == lines
    bench.wall += 10 * DAY + 300
    bench.mono += 61
    bench.look()
    assert not bench.keeper.rows()[0]["failure"]
    bench.mono += 3601  # by the clock that nobody sets it is time
    assert bench.wall < bench.keeper.rows()[0]["due"] and bench.keeper.due() is not None


def test_a_worker_that_resolves_nothing_is_no_failure(tmp_path: pathlib.Path) -> None:
    """Idle: nothing is written, and it is asked again a moment later, then less and less often."""
    bench = Bench(tmp_path)
    bench.said = {"idle": True}
    bench.look()
    assert not (tmp_path / agent_anchors.FILE).exists() and bench.keeper.due() is None
    for waited in (1, 2, 4):
        bench.mono += waited * agent_anchors.IDLE_S - 0.1
        assert bench.keeper.due() is None
        bench.mono += 0.1
        bench.look()


@pytest.mark.parametrize("text", ["", "{", '{"version": 9}', "\udcff", "[]"])
def test_a_damaged_file_loses_nothing(tmp_path: pathlib.Path, text: str) -> None:
    """It is kept aside, an error says so, and the configured anchors hold."""
    (tmp_path / agent_anchors.FILE).write_bytes(text.encode(errors="surrogateescape"))
    bench = Bench(tmp_path)
    assert bench.keeper.lines == rollover.lines(agent_anchors.trust_anchors(bench.settings))
    assert (tmp_path / f"{agent_anchors.FILE}.damaged").exists() and "cannot be read" in bench.log
    bench.look()
    assert json.loads((tmp_path / agent_anchors.FILE).read_text())["zones"][0]["keys"][0]["state"] == "valid"
    assert agent_anchors.updated(bench.settings).resolver.trust_anchors == tuple(bench.keeper.lines)


def test_given_anchors_are_fixed_unless_asked_otherwise(tmp_path: pathlib.Path) -> None:
    """auto follows the built-in ones only; a state that cannot be written is said, and changes nothing."""
    for resolver, follows in (
        ({}, True), ({"trust_anchors": [". DS 20326 8 2 " + "E0" * 32]}, False), ({"trust_anchors": []}, False),
        ({"trust_anchor_updates": False}, False),
    ):  # fmt: skip
        settings = load({"state": str(tmp_path), "resolver": resolver}, str(tmp_path), {})
        assert settings.resolver.follows_anchors is follows
    fixed = Bench(tmp_path, trust_anchor_updates=False)
    assert fixed.keeper.due() is None and set(fixed.states().values()) == {"configured"}
    bench = Bench(tmp_path / "none")
    bench.look()
    assert set(bench.states().values()) == {"valid"} and "cannot be kept over a restart" in bench.log


def test_a_probe_is_answered_by_its_number_or_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time another worker is asked; a late answer of an earlier question is nobody's."""

    class Workers:
        def __init__(self) -> None:
            self.told: list[tuple[int, Any]] = []

        def running(self) -> list[int]:
            return [0, 1]

        def tell_one(self, slot: int, message: Any) -> None:
            self.told.append((slot, message))

    async def body() -> None:
        workers = Workers()
        probes = Probes(workers)
        asking = asyncio.create_task(probes.ask(b"\x00"))
        await asyncio.sleep(0)
        probes.hear({"ident": 99, "wire": "no"})
        probes.hear({"ident": workers.told[0][1]["ident"], "wire": "yes"})
        assert (await asking)["wire"] == "yes"
        monkeypatch.setattr(agent_anchors, "PATIENCE_S", 0.01)
        assert await probes.ask(b"\x00") == {"idle": True}
        assert workers.told[0][0] != workers.told[1][0]

    asyncio.run(body())

"""The controller is not required, and no process is: what is killed comes back, and answers go on meanwhile."""

from __future__ import annotations

import os
import pathlib
import signal
import time

import yaml

from tests import lan


def test_the_controller_dies(tmp_path: pathlib.Path) -> None:
    """Without a controller answers go on; a dnsd started without any serves from disk within two seconds."""
    with lan.office(tmp_path) as office:
        controller, dnsd = office.start("controller"), office.start("dnsd")
        office.answers()
        controller.end(signal.SIGKILL)
        assert office.dig("printer.office.example").data == ["10.0.20.15"]
        assert dnsd.end(signal.SIGTERM, 5) == 0
        assert office.dig("printer.office.example", "A").rcode == ""
        office.start("dnsd")
        started = time.monotonic()
        lan.until(lambda: lan.dig(office.dns, "printer.office.example", timeout_s=1).data == ["10.0.20.15"], 5)
        assert time.monotonic() - started < 2.0
        assert office.dig("tracker.example", "A", "+tcp").rcode == "NXDOMAIN"
        office.start("controller")
        office.answers()
        assert office.status()["active"]["generation"] == 1


def test_a_worker_dies(tmp_path: pathlib.Path) -> None:
    """A killed worker is replaced, and the replacement serves the same table."""
    with lan.office(tmp_path) as office:
        office.start("run")
        office.answers()
        victim = office.workers()[0]["pid"]
        os.kill(victim, signal.SIGKILL)
        assert office.everywhere("printer.office.example", "A") == {"10.0.20.15"}
        lan.until(lambda: all(worker["pid"] != victim for worker in office.workers()), 5, "a replacement")
        office.answers()


def test_run_brings_its_halves_back(tmp_path: pathlib.Path) -> None:
    """A half that is killed is started again; answers go on while the controller is away."""
    with lan.office(tmp_path) as office:
        run = office.start("run")
        office.answers()
        children = pathlib.Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        words = {int(pid): pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in children}
        named = {found[2].decode(): pid for pid, found in words.items()}
        os.kill(named["controller"], signal.SIGKILL)
        assert office.dig("printer.office.example").data == ["10.0.20.15"]
        lan.until(lambda: office.status() == {}, 5)
        office.answers()
        os.kill(named["dnsd"], signal.SIGKILL)
        lan.until(lambda: "dnsd ended by SIGKILL" in run.text(), 5)
        lan.until(lambda: len(office.workers()) == 2, 10)
        office.answers()
        assert office.everywhere("printer.office.example", "A") == {"10.0.20.15"}
        assert run.end(signal.SIGTERM, 5) == 0


def test_two_halves_from_two_files(tmp_path: pathlib.Path) -> None:
    """The halves work from two configuration files, and from two folders of state, with only the keys in common."""
    with lan.office(tmp_path) as office:
        office.start("controller")
        lan.until(lambda: office.status().get("active"), 15)
        keys = tmp_path / "node.keys"
        keys.write_text(
            "".join(
                line for line in (tmp_path / ".nexoraldns" / "broker.keys").read_text().splitlines(keepends=True)
                if line.split()[0] == "node"
            )
        )  # fmt: skip
        keys.chmod(0o600)
        settings = {
            "listen": office.settings["listen"], "workers": 2, "state": str(tmp_path / "node-state"),
            "broker": {**office.settings["broker"], "keys": str(keys)},
        }  # fmt: skip
        (tmp_path / "dnsd.yaml").write_text(yaml.safe_dump(settings))
        office.start("dnsd", "dnsd", "--config", str(tmp_path / "dnsd.yaml"))
        office.answers()
        assert office.dig("printer.office.example").data == ["10.0.20.15"]


def test_run_is_killed(tmp_path: pathlib.Path) -> None:
    """When `run` itself is killed no orphan holds the ports, and the next `run` serves."""
    with lan.office(tmp_path) as office:
        run = office.start("run")
        office.answers()
        run.end(signal.SIGKILL)
        lan.until(lambda: office.status() == {}, 6)
        lan.until(lambda: not lan.dig(office.dns, "printer.office.example", timeout_s=1).rcode, 6)
        office.start("run")
        office.answers()
        assert office.everywhere("printer.office.example", "A") == {"10.0.20.15"}

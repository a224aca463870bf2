"""`doctor`: what it finds on this machine, and on machines that have problems."""

from __future__ import annotations

import json
import os
import pathlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from controller import doctor
from controller.cli.doctor import command
from controller.machine import Finding, Machine, holders
from dnsd.contract import settings
from dnsd.contract.settings import Settings


def config(**keys: Any) -> Settings:
    """Settings of these keys, the rest as by default."""
    return settings.load(keys, "/tmp", {})


def machine(tmp_path: pathlib.Path, files: dict[str, str]) -> Machine:
    """A machine with these system files."""
    for name, text in files.items():
        path = tmp_path / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Machine(root=tmp_path)


def one(check: Callable[[Settings, Machine], Iterator[Finding]], settings: Settings, at: Machine) -> Finding:
    """The first finding of a check."""
    return next(iter(check(settings, at)))


def test_this_machine_is_examined() -> None:
    """Every check has something to say, changes nothing, and each problem comes with a remedy."""
    findings = doctor.examine(config())

    assert len({finding.check for finding in findings}) > 12
    assert not [finding for finding in findings if finding.text.startswith("could not be looked at")]
    assert all(finding.remedy for finding in findings if finding.level in ("warning", "problem"))


def test_taken_port_names_its_holder() -> None:
    """A port in use is a problem that names the process, for UDP and for TCP."""
    for kind, protocol in ((socket.SOCK_DGRAM, "UDP"), (socket.SOCK_STREAM, "TCP")):
        with socket.socket(socket.AF_INET, kind) as taken:
            taken.bind(("127.0.0.1", 0))
            if kind == socket.SOCK_STREAM:
                taken.listen()
            port = taken.getsockname()[1]
            found = list(doctor.check_ports(config(listen=[f"127.0.0.1:{port}"]), Machine()))
            problems = [finding for finding in found if finding.level == "problem"]
            assert [f"127.0.0.1:{port} {protocol} is held by" in finding.text for finding in problems] == [True]
            assert str(os.getpid()) in problems[0].text
            assert holders(Machine(), protocol.lower(), port)[0][0] == "127.0.0.1"


def test_addresses_that_are_not_here() -> None:
    """An address that this machine lacks is a warning, an unknown interface a problem that lists the known ones."""
    address, interface = (
        next(f for f in doctor.check_ports(config(listen=[text]), Machine()) if f.check == "Listen")
        for text in ("192.0.2.1:5300", "nonesuch0:5300")
    )
    assert address.level == "warning"
    assert interface.level == "problem"
    assert "lo" in interface.remedy


@pytest.mark.parametrize(
    ("first", "capabilities", "level"),
    [("1024", "0", "problem"), ("1024", f"{1 << 10:x}", "ok"), ("53", "0", "ok")],
)
def test_privilege_for_low_ports(tmp_path: pathlib.Path, first: str, capabilities: str, level: str) -> None:
    """Port 53 needs the capability or a lowered limit; without either the remedy names both."""
    at = machine(tmp_path, {"/proc/sys/net/ipv4/ip_unprivileged_port_start": first,
                            "/proc/self/status": f"Name:\tx\nCapEff:\t{capabilities}\n"})  # fmt: skip
    finding = one(doctor.check_privilege, config(listen=["*:53"]), at)

    assert finding.level == level
    assert level == "ok" or ("CAP_NET_BIND_SERVICE" in finding.remedy and "ip_unprivileged" in finding.remedy)


STUB = "  sl  local_address rem_address   st\n 1: 3500007F:0035 00000000:0000 07 0:0 0:0 0 0 0 4242 2 0 0\n"


def test_resolved_in_the_way(tmp_path: pathlib.Path) -> None:
    """systemd-resolved's stub is a problem for a wildcard on port 53 only."""
    at = machine(tmp_path, {"/proc/net/udp": STUB, "/etc/resolv.conf": "nameserver 127.0.0.53\n"})

    assert one(doctor.check_resolved, config(listen=["*:53"]), at).level == "problem"
    assert "DNSStubListener=no" in one(doctor.check_resolved, config(listen=["*:53"]), at).remedy
    assert one(doctor.check_resolved, config(listen=["10.0.0.1:53"]), at).level == "ok"


def test_small_buffers(tmp_path: pathlib.Path) -> None:
    """A small net.core.rmem_max is a warning with the command that raises it."""
    at = machine(tmp_path, {"/proc/sys/net/core/rmem_max": "212992", "/proc/self/status": "CapEff:\t0\n"})
    finding = one(doctor.check_buffers, config(), at)

    assert (finding.level, "net.core.rmem_max=4194304" in finding.remedy) == ("warning", True)


def test_interpreted_and_stale_modules(tmp_path: pathlib.Path) -> None:
    """Modules without a compiled form, or older than their sources, are named."""
    at = Machine(packages=tmp_path)
    (tmp_path / "query.pxd").touch()
    (tmp_path / "codes.pxd").touch()
    (tmp_path / "query.py").touch()
    assert "1 of 1 modules of the query path run interpreted: query" in one(doctor.check_compiled, config(), at).text

    (tmp_path / "query.cpython-311.so").touch()
    assert one(doctor.check_compiled, config(), at).level == "ok"
    os.utime(tmp_path / "query.cpython-311.so", (1, 1))
    assert one(doctor.check_compiled, config(), at).text == "older than their sources: query"


def test_files_and_users(tmp_path: pathlib.Path) -> None:
    """An unknown user, readable keys and a state path that is a file are problems."""
    keys = tmp_path / "keys"
    keys.touch(mode=0o644)
    keys.chmod(0o644)
    at = Machine()

    assert one(doctor.check_user, config(user="no-such-user"), at).level == "problem"
    assert one(doctor.check_keys, config(broker={"keys": str(keys)}), at).remedy == f"chmod 600 {keys}"
    assert one(doctor.check_state, config(state=str(keys)), at).level == "problem"
    assert one(doctor.check_state, config(state=str(tmp_path / "new" / "state")), at).level == "ok"
    assert one(doctor.check_source, config(source={"directory": str(tmp_path / "none")}), at).level == "warning"


def test_verb_prints_marks_and_remedies(tmp_path: pathlib.Path) -> None:
    """The text has a mark a line and arrows under problems; JSON has the same; the exit code is 1 with a problem."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        file = tmp_path / "node.yaml"
        file.write_text(f'listen: ["127.0.0.1:{taken.getsockname()[1]}"]\nstate: {tmp_path}/state\n')
        text = CliRunner().invoke(command, ["--config", str(file)])
        value = CliRunner().invoke(command, ["--config", str(file), "--format", "json"])

    assert text.exit_code == value.exit_code == 1
    assert "✗ Listen" in text.output
    assert "→ stop it, or choose another address or port" in text.output
    assert "\x1b" not in text.output
    assert json.loads(value.output)["problems"] == 1


def test_bad_settings_are_a_finding(tmp_path: pathlib.Path) -> None:
    """Settings that cannot be used are reported as such, and the rest is still examined."""
    file = tmp_path / "node.yaml"
    file.write_text("lisen: []\n")
    result = CliRunner().invoke(command, ["--config", str(file)])

    assert result.exit_code == 1
    assert "✗ Settings" in result.output
    assert "Python" in result.output

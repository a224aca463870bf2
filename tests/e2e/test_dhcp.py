"""Real DHCP clients, and no controller, or a program that hangs, or a dispatcher in between.

What becomes of leases while a whole node serves is in `test_lease_changes`.
"""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.e2e.dhcp_office import CLIENTS, DNS, SERVER, Host, Office, Row, dhclient, release
from tests.lan import until

FIRST, SECOND = "10.77.0.51", "10.77.0.52"

pytestmark = pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="network namespaces need root")


@pytest.fixture
def office(tmp_path: pathlib.Path) -> Iterator[Office]:
    """A DHCP server and one host, which gets the first address."""
    it = Office(tmp_path)
    try:
        host = Host(tmp_path / "host", {})
        it.join(host)
        it.give({host: FIRST})
        yield it
    finally:
        it.close()
        print(it.logs())


def test_a_lease_while_the_controller_is_away(office: Office) -> None:
    """With no broker the stub leaves a file; the controller finds it when it starts. A restart forgets no lease, and
    once the stubs are removed nobody is told anything, while the client goes on as before."""
    (host,) = office.hosts
    office.dnsmasq()
    (host.folder / "state").mkdir()
    client = dhclient(host)
    until(lambda: list((host.folder / "state" / "events").glob("*.json")), 20, "a file")
    controller = host.controller()
    up: Row = ("up", [], [f"{FIRST}/24"], DNS)
    until(lambda: host.events("dhclient") == [up], 15, "the event")
    assert controller.end() == 0
    controller = host.controller()
    until(lambda: host.counts().get("unchanged", 0) >= 1, 15, "a renewal that is no news")
    assert host.events("dhclient") == [up]  # remembered over the restart, and nothing new
    assert host.hook("remove", "--client", "dhclient").startswith("removed: ")
    heard = host.counts()["heard"]
    text = client.text()
    until(lambda: client.text().count("DHCPACK") >= text.count("DHCPACK") + 2, 15, "two renewals")
    assert host.counts()["heard"] - heard <= 1 and host.addresses() == [FIRST]


def test_a_client_is_not_held_up_by_a_hanging_program(office: Office) -> None:
    """Every call of the program hangs for ever: each client has its address within the usual time, and keeps it."""
    (host,) = office.hosts
    hanging = host.folder / "hanging"
    hanging.write_text("#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 60; done\n")
    hanging.chmod(0o755)
    assert host.hook("install", "--program", str(hanging), "--client", "dhclient", "--client", "dhcpcd", "--client",
                     "udhcpc").count("updated: ") == 3  # fmt: skip
    office.dnsmasq()
    for name in ("dhclient", "udhcpc"):
        started = time.monotonic()
        client = CLIENTS[name](host)
        until(lambda: host.addresses() == [FIRST], 10, f"{name}'s address")
        assert time.monotonic() - started < 8
        client.end(signal.SIGKILL)
        host.run("ip", "addr", "flush", "dev", "eth0")


def test_a_hostile_server(office: Office) -> None:
    """A DHCP server that sends commands for a shell, servers that must not be asked, and more of everything than fits:
    each client gets its address, what is no proper value is refused and counted, nothing is run, and the page shows
    what is left as text."""
    (host,) = office.hosts
    host.controller()
    evil = "$(touch /run/owned);`touch /run/owned`'|touch /run/owned#<script>alert(1)</script>"
    servers = [f"10.66.{number}.1" for number in range(1, 10)]
    server = office.dnsmasq(
        f"--dhcp-option-force=15,{evil}", f"--dhcp-option-force=12,{evil}",
        dns=["127.0.0.1", "224.0.0.1", "255.255.255.255", SERVER, *servers],
    )  # fmt: skip
    refused = 0
    for name, start in CLIENTS.items():
        client = start(host)
        until(lambda: host.addresses() == [FIRST], 15, f"{name}'s address")
        row = until(lambda name=name: host.events(name), 10, f"{name}'s word")[0]
        assert row[2] == [f"{FIRST}/24"] and row[3] == [SERVER, *servers[:7]]
        assert host.counts()["values_refused"] >= refused + 3
        refused = host.counts()["values_refused"]
        release(host, name, client)
        until(lambda name=name: host.addresses() == [] and host.events(name)[-1][0] == "down", 15, f"{name}'s release")
        client.end(signal.SIGKILL)
    assert f'nexoraldns_lease_events_total{{what="values_refused"}} {float(refused)}' in host.get("/metrics")
    host.run("test", "!", "-e", "/run/owned")
    assert "<script>alert" not in host.get("/") and "touch" not in host.get("/api/v1/status")
    assert server.popen.poll() is None


# --- the dispatchers --------------------------------------------------------------------------------------------------

_NETWORKCTL = """\
#!/bin/sh
cd "$(dirname "$0")/.."
# What systemd-networkd 252 says, for one link; the state and the address come from files.
case "$1" in
list) echo "  2 eth0 ether $(cat STATE) configured" ;;
status) cat <<END
\xe2\x97\x8f 2: eth0
                     Link File: n/a
                         State: $(cat STATE) (configured)
                       Address: $(cat ADDRESS) (DHCP4 via 10.77.0.1)
                                fe80::1
                           DNS: 10.77.0.1
                                10.77.0.2
                Search Domains: office.example
END
;;
esac
"""
_DRIVE = """\
import importlib.machinery, importlib.util, sys
loader = importlib.machinery.SourceFileLoader("dispatcher", "/usr/bin/networkd-dispatcher")
spec = importlib.util.spec_from_loader("dispatcher", loader)
module = importlib.util.module_from_spec(spec)
loader.exec_module(module)
import os
os.chdir(sys.argv[2])
here = module.Dispatcher(script_dir=sys.argv[1])
for line in sys.stdin:
    state, address = line.split()
    open("STATE", "w").write(state)
    open("ADDRESS", "w").write("" if address == "-" else address)
    here.handle_state("eth0", operational_state=state)
    print("done", flush=True)
"""


def test_networkd_dispatcher(office: Office) -> None:
    """Debian's networkd-dispatcher itself, its checks of modes and its environment: only what networkctl would print
    is written down here, because systemd-networkd cannot run without systemd."""
    (host,) = office.hosts
    host.controller()
    root = host.folder / "machine"
    for state in ("routable", "degraded", "carrier", "no-carrier", "off"):
        (root / f"etc/networkd-dispatcher/{state}.d").mkdir(parents=True)
        (root / f"etc/networkd-dispatcher/{state}.d").chmod(0o755)
    assert host.hook("install", "--root", str(root), "--config", str(host.config)).count("installed: ") == 5
    (host.folder / "bin").mkdir()
    control = host.folder / "bin" / "networkctl"
    control.write_bytes(_NETWORKCTL.encode("latin-1"))
    control.chmod(0o755)
    (host.folder / "STATE").write_text("carrier")
    (host.folder / "ADDRESS").write_text("")
    words = host.words("env", f"PATH={host.folder / 'bin'}:/usr/bin:/bin", "/usr/bin/python3", "-c", _DRIVE,
                              str(root / "etc/networkd-dispatcher"), str(host.folder))  # fmt: skip
    with subprocess.Popen(words, cwd=host.folder, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as driver:
        assert driver.stdin and driver.stdout

        def enter(state: str, address: str) -> None:
            assert driver.stdin and driver.stdout
            driver.stdin.write(f"{state} {address}\n")
            driver.stdin.flush()
            assert driver.stdout.readline() == "done\n"

        enter("routable", FIRST)
        until(lambda: host.events("networkd") == [("up", [], [FIRST], DNS)], 10, "routable")
        enter("degraded", "fe80::2")
        until(lambda: len(host.events("networkd")) == 2, 10, "degraded")
        assert host.events("networkd")[1] == ("down", [FIRST], [], [])
        enter("routable", SECOND)
        until(lambda: len(host.events("networkd")) == 3, 10, "routable again")
        assert host.events("networkd")[2] == ("up", [], [SECOND], DNS)
        driver.stdin.close()

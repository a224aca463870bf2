"""Real DHCP clients on a real (virtual) wire: their stubs tell the controller what became of the lease.

A DHCP server and a client machine in network and mount namespaces of their own, joined by a veth; nothing of the host
is touched, and everything ends with the processes that hold the namespaces. The client machine runs the controller and
one DHCP client, with the stubs that `nexoraldns hook install` puts in place.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.lan import ROOT, Process, until

SERVER, FIRST, SECOND = "10.77.0.1", "10.77.0.51", "10.77.0.52"
BROKER, PAGE = 5338, 8053  # alone in its namespace, the controller may have its usual ports
_CLONE_NEWNET = 0x40000000

pytestmark = pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="network namespaces need root")


class Machine:
    """A network and a mount namespace, held by a process."""

    def __init__(self, folder: pathlib.Path, name: str) -> None:
        self.folder = folder
        self.holder = Process(name, ["unshare", "--net", "--mount", "sleep", "infinity"], folder)
        here = os.readlink("/proc/self/ns/mnt")
        until(lambda: os.readlink(f"/proc/{self.holder.pid}/ns/mnt") != here, 5, "a namespace")
        self.run("ip", "link", "set", "lo", "up")

    def words(self, *words: str) -> list[str]:
        """A command's words, as it is run in this machine."""
        return ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", f"--mount=/proc/{self.holder.pid}/ns/mnt", *words]

    def run(self, *words: str) -> str:
        ran = subprocess.run(self.words(*words), capture_output=True, text=True, check=False, timeout=30)
        assert ran.returncode == 0, f"{words}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def inside(self, function: Callable[[], Any]) -> Any:
        """Call a function in a thread that has entered this machine's network."""
        result: list[Any] = []

        def enter() -> None:
            with open(f"/proc/{self.holder.pid}/ns/net") as there:
                assert ctypes.CDLL(None, use_errno=True).setns(there.fileno(), _CLONE_NEWNET) == 0
            result.append(function())

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join(10)
        return result[0] if result else None

    def addresses(self) -> list[str]:
        """The IPv4 addresses of eth0."""
        shown = json.loads(self.run("ip", "-j", "-4", "addr", "show", "dev", "eth0"))
        return [entry["local"] for link in shown for entry in link.get("addr_info", ())]


class Office:
    """A client machine with a controller and installed stubs, and the machine of the DHCP server."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.processes: list[Process] = []
        self.host, self.server = Machine(folder, "host"), Machine(folder, "server")
        self.host.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "srv0", "netns",
                      str(self.server.holder.pid))  # fmt: skip
        self.server.run("ip", "addr", "add", f"{SERVER}/24", "dev", "srv0")
        self.server.run("ip", "link", "set", "srv0", "up")
        self.host.run("ip", "link", "set", "eth0", "up")
        self.mac = json.loads(self.host.run("ip", "-j", "link", "show", "dev", "eth0"))[0]["address"]
        self.hosts = folder / "hosts"
        self.config = folder / "node.yaml"
        (folder / "rules.d").mkdir()
        (folder / "rules.d" / "office.yaml").write_text("version: 1\n")
        self.config.write_text(yaml.safe_dump({"source": {"directory": "rules.d"}, "state": "state"}))
        self._mounts()

    def _mounts(self) -> None:
        """The clients' folders as copies, so that the host's own stay as they are; then the stubs, as a user would."""
        root = self.folder / "root"
        for path in ("/etc/dhcp", "/usr/lib/dhcpcd/dhcpcd-hooks", "/etc/udhcpc"):
            copy = root / path.lstrip("/")
            shutil.copytree(path, copy)
            self.host.run("mount", "--bind", str(copy), path)
        for path in ("/var/lib/dhcp", "/var/lib/dhcpcd", "/run"):
            os.makedirs(path, exist_ok=True)
            self.host.run("mount", "-t", "tmpfs", "tmpfs", path)
        resolv = self.folder / "resolv.conf"
        resolv.write_text("")
        self.host.run("mount", "--bind", str(resolv), "/etc/resolv.conf")
        said = self.hook("install", "--config", str(self.config), "--client", "dhclient", "--client", "dhcpcd",
                         "--client", "udhcpc")  # fmt: skip
        assert said.count("installed: ") == 3, said

    def hook(self, *words: str) -> str:
        return self.host.run("env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "controller.cli", "hook", *words)

    def start(self, machine: Machine, name: str, *words: str) -> Process:
        process = Process(name, machine.words(*words), self.folder)
        self.processes.append(process)
        return process

    def controller(self) -> Process:
        process = self.start(self.host, "controller", sys.executable, "-m", "controller.cli", "controller", "--config",
                             str(self.config))  # fmt: skip
        until(self.status, 30, "the status page")
        return process

    def dnsmasq(self, address: str) -> Process:
        """A DHCP server that gives one address, with leases of two minutes that are renewed every 3 s."""
        self.hosts.write_text(f"{self.mac},{address}\n")
        return self.start(
            self.server, "dnsmasq", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0",
            "--interface=srv0", "--bind-interfaces", "--user=root", "--no-ping", "--dhcp-authoritative", "--log-dhcp",
            "--log-facility=-", f"--dhcp-leasefile={self.folder / 'leases'}", f"--dhcp-hostsfile={self.hosts}",
            f"--pid-file={self.folder / 'dnsmasq.pid'}", "--dhcp-range=10.77.0.50,10.77.0.60,255.255.255.0,2m",
            f"--dhcp-option=option:dns-server,{SERVER},10.77.0.2", "--dhcp-option=option:domain-name,office.example",
            "--dhcp-option-force=58,3", "--dhcp-option-force=59,6",
        )  # fmt: skip

    def reassign(self, dnsmasq: Process, address: str) -> None:
        """From now on the client gets another address."""
        self.hosts.write_text(f"{self.mac},{address}\n")
        read = dnsmasq.text().count(f"read {self.hosts}")
        dnsmasq.popen.send_signal(signal.SIGHUP)  # nsenter has become dnsmasq: the pid is the same
        until(lambda: dnsmasq.text().count(f"read {self.hosts}") > read, 5, "the new hosts")

    def status(self) -> dict[str, Any]:
        def get() -> dict[str, Any]:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{PAGE}/api/v1/status", timeout=3) as answer:
                    found: dict[str, Any] = json.load(answer)
                    return found
            except OSError:
                return {}

        return self.host.inside(get) or {}

    def events(self, source: str) -> list[tuple[str, list[str], list[str], list[str]]]:
        """(kind, old, new, dns) of a client's events, oldest first."""
        rows = [row for row in reversed(self.status().get("events", ())) if row["source"] == source]
        return [(row["kind"], row["old"], row["new"], row["dns"]) for row in rows]

    def counts(self) -> dict[str, int]:
        found: dict[str, int] = self.status().get("broker", {}).get("events", {})
        return found

    def close(self) -> None:
        for process in reversed(self.processes):
            with contextlib.suppress(AssertionError):
                process.end()
        for machine in (self.host, self.server):
            for pid in _members(machine.holder.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)  # what a client has left in the background; the holder itself last
            machine.holder.popen.wait(5)


def _members(holder: int) -> list[int]:
    """The processes in a machine's namespace, the holder last."""
    with contextlib.suppress(OSError):
        wanted = os.readlink(f"/proc/{holder}/ns/net")
        found = []
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if name.isdigit() and int(name) != holder and os.readlink(f"/proc/{name}/ns/net") == wanted:
                    found.append(int(name))
        return [*found, holder]
    return []


@pytest.fixture
def office(tmp_path: pathlib.Path) -> Iterator[Office]:
    it = Office(tmp_path)
    try:
        yield it
    finally:
        it.close()
        for process in it.processes:
            print(f"--- {process.name}\n{process.text()[-6000:]}")


# --- the clients ------------------------------------------------------------------------------------------------------


def dhclient(office: Office) -> Process:
    conf = office.folder / "dhclient.conf"
    conf.write_text("initial-interval 1; timeout 20; retry 2; backoff-cutoff 2; reboot 1;\n"
                    "request subnet-mask, broadcast-address, routers, domain-name, domain-name-servers;\n")  # fmt: skip
    return office.start(office.host, "dhclient", "dhclient", "-4", "-d", *_dhclient_files(office), "eth0")


def _dhclient_files(office: Office) -> list[str]:
    named = (("-cf", "dhclient.conf"), ("-lf", "dhclient.leases"), ("-pf", "dhclient.pid"))
    return [word for option, name in named for word in (option, str(office.folder / name))]


def dhcpcd(office: Office) -> Process:
    conf = office.folder / "dhcpcd.conf"
    conf.write_text("option domain_name_servers, domain_name\nnoipv6rs\nnoarp\nnoipv4ll\ntimeout 0\nclientid\n")
    return office.start(office.host, "dhcpcd", "dhcpcd", "-4", "-B", "-f", str(conf), "eth0")


def udhcpc(office: Office) -> Process:
    return office.start(office.host, "udhcpc", "udhcpc", "-f", "-t", "20", "-T", "1", "-A", "1", "-i", "eth0", "-s",
                        "/etc/udhcpc/nexoraldns.script")  # fmt: skip


CLIENTS: dict[str, Callable[[Office], Process]] = {"dhclient": dhclient, "dhcpcd": dhcpcd, "udhcpc": udhcpc}


def renew(office: Office, name: str, client: Process) -> None:
    """Where the client does not follow T1 by itself, tell it."""
    if name == "udhcpc":
        client.popen.send_signal(signal.SIGUSR1)


def release(office: Office, name: str, client: Process) -> None:
    if name == "udhcpc":
        client.popen.send_signal(signal.SIGUSR2)
    elif name == "dhcpcd":
        office.host.run("dhcpcd", "-4", "-k", "eth0")
    else:
        office.host.run("dhclient", "-4", "-r", *_dhclient_files(office), "eth0")


DNS = [SERVER, "10.77.0.2"]


@pytest.mark.parametrize("name", CLIENTS)
def test_a_lease_from_its_beginning_to_its_release(office: Office, name: str) -> None:
    """Lease, renewals with the same address (counted, nothing else), another address, release: each is one event with
    old, new and the lease's servers, and the client has its address all the while."""
    office.controller()
    server = office.dnsmasq(FIRST)
    client = CLIENTS[name](office)
    up = ("up", [], [f"{FIRST}/24"], DNS)
    until(lambda: office.events(name) == [up], 20, f"{name}'s lease")
    assert office.host.addresses() == [FIRST]

    renew(office, name, client)
    until(lambda: office.counts().get("unchanged", 0) >= 1, 15, "a renewal")
    assert office.events(name) == [up]

    office.reassign(server, SECOND)
    renew(office, name, client)
    change = ("change", [f"{FIRST}/24"], [f"{SECOND}/24"], DNS)
    # With a NAK in between, the client has no address for a moment, and may say so.
    until(lambda: office.events(name)[-1][2] == [f"{SECOND}/24"], 30, "another address")
    told = office.events(name)
    assert told in ([up, change], [up, ("down", [f"{FIRST}/24"], [], []), ("up", [], [f"{SECOND}/24"], DNS)])
    assert SECOND in office.host.addresses()

    release(office, name, client)
    until(lambda: office.events(name)[-1][0] == "down", 15, "the release")
    assert office.events(name)[-1] == ("down", [f"{SECOND}/24"], [], [])
    assert office.counts().get("values_refused", 0) == 0


@pytest.mark.parametrize(("name", "lease_s"), [("dhclient", 8), ("dhcpcd", 20)])
def test_a_lease_that_expires(office: Office, name: str, lease_s: int) -> None:
    """The server falls silent: when the lease has run out, the client says so, and its servers are gone. (udhcpc takes
    no lease shorter than two minutes; its word for the end, deconfig, is the one of its release.)"""
    office.controller()
    server = office.start(office.server, "short-leases", sys.executable, str(ROOT / "tests/e2e/dhcp_server.py"), "srv0",
                          SERVER, FIRST, str(lease_s))  # fmt: skip
    CLIENTS[name](office)
    until(lambda: office.events(name) == [("up", [], [f"{FIRST}/24"], [SERVER])], 20, f"{name}'s lease")
    server.end(signal.SIGKILL)
    until(lambda: len(office.events(name)) == 2, lease_s + 25, "the end of the lease")
    assert office.events(name)[1] == ("down", [f"{FIRST}/24"], [], [])


def test_a_link_that_goes_down_and_comes_back(office: Office) -> None:
    """dhcpcd watches its link: no carrier is the end of the lease's servers, and its return brings them back."""
    office.controller()
    office.dnsmasq(FIRST)
    dhcpcd(office)
    up = ("up", [], [f"{FIRST}/24"], DNS)
    until(lambda: office.events("dhcpcd") == [up], 20, "the lease")
    office.server.run("ip", "link", "set", "srv0", "down")
    until(lambda: len(office.events("dhcpcd")) == 2, 15, "the end")
    assert office.events("dhcpcd")[1] == ("down", [f"{FIRST}/24"], [], [])
    office.server.run("ip", "link", "set", "srv0", "up")
    until(lambda: len(office.events("dhcpcd")) == 3, 20, "the return")
    assert office.events("dhcpcd")[2] == up


def test_a_lease_while_the_controller_is_away(office: Office) -> None:
    """With no broker the stub leaves a file; the controller finds it when it starts. A restart forgets no lease, and
    once the stubs are removed nobody is told anything, while the client goes on as before."""
    office.dnsmasq(FIRST)
    (office.folder / "state").mkdir()
    client = dhclient(office)
    until(lambda: list((office.folder / "state" / "events").glob("*.json")), 20, "a file")
    controller = office.controller()
    up = ("up", [], [f"{FIRST}/24"], DNS)
    until(lambda: office.events("dhclient") == [up], 15, "the event")
    assert controller.end() == 0
    controller = office.controller()
    until(lambda: office.counts().get("unchanged", 0) >= 1, 15, "a renewal that is no news")
    assert office.events("dhclient") == [up]  # remembered over the restart, and nothing new
    assert office.hook("remove", "--client", "dhclient").startswith("removed: ")
    heard = office.counts()["heard"]
    text = client.text()
    until(lambda: client.text().count("DHCPACK") >= text.count("DHCPACK") + 2, 15, "two renewals")
    assert office.counts()["heard"] - heard <= 1 and office.host.addresses() == [FIRST]


def test_a_client_is_not_held_up_by_a_hanging_program(office: Office) -> None:
    """Every call of the program hangs for ever: each client has its address within the usual time, and keeps it."""
    hanging = office.folder / "hanging"
    hanging.write_text("#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 60; done\n")
    hanging.chmod(0o755)
    assert office.hook("install", "--program", str(hanging), "--client", "dhclient", "--client", "dhcpcd", "--client",
                       "udhcpc").count("updated: ") == 3  # fmt: skip
    office.dnsmasq(FIRST)
    for name in ("dhclient", "udhcpc"):
        started = time.monotonic()
        client = CLIENTS[name](office)
        until(lambda: office.host.addresses() == [FIRST], 10, f"{name}'s address")
        assert time.monotonic() - started < 8
        client.end(signal.SIGKILL)
        office.host.run("ip", "addr", "flush", "dev", "eth0")


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
    office.controller()
    root = office.folder / "machine"
    for state in ("routable", "degraded", "carrier", "no-carrier", "off"):
        (root / f"etc/networkd-dispatcher/{state}.d").mkdir(parents=True)
        (root / f"etc/networkd-dispatcher/{state}.d").chmod(0o755)
    assert office.hook("install", "--root", str(root), "--config", str(office.config)).count("installed: ") == 5
    (office.folder / "bin").mkdir()
    control = office.folder / "bin" / "networkctl"
    control.write_bytes(_NETWORKCTL.encode("latin-1"))
    control.chmod(0o755)
    (office.folder / "STATE").write_text("carrier")
    (office.folder / "ADDRESS").write_text("")
    words = office.host.words("env", f"PATH={office.folder / 'bin'}:/usr/bin:/bin", "/usr/bin/python3", "-c", _DRIVE,
                              str(root / "etc/networkd-dispatcher"), str(office.folder))  # fmt: skip
    with subprocess.Popen(words, cwd=office.folder, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as driver:
        assert driver.stdin and driver.stdout

        def enter(state: str, address: str) -> None:
            assert driver.stdin and driver.stdout
            driver.stdin.write(f"{state} {address}\n")
            driver.stdin.flush()
            assert driver.stdout.readline() == "done\n"

        enter("routable", FIRST)
        until(lambda: office.events("networkd") == [("up", [], [FIRST], DNS)], 10, "routable")
        enter("degraded", "fe80::2")
        until(lambda: len(office.events("networkd")) == 2, 10, "degraded")
        assert office.events("networkd")[1] == ("down", [FIRST], [], [])
        enter("routable", SECOND)
        until(lambda: len(office.events("networkd")) == 3, 10, "routable again")
        assert office.events("networkd")[2] == ("up", [], [SECOND], DNS)
        driver.stdin.close()

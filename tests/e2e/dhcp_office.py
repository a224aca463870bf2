"""An office on virtual wires: a DHCP server, machines whose addresses it gives, and one that asks them for names.

Each machine is a network and a mount namespace of its own, plugged into a bridge in the DHCP server's; nothing of the
host is touched, and everything ends with the processes that hold the namespaces. A machine with a DHCP client has the
stubs that `nexoraldns hook install` puts in place.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal
import sys
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from tests import wire
from tests.lan import ROOT, Process, until

SERVER = "10.77.0.1"
DNS = [SERVER, "10.77.0.2"]
ASKER = "10.77.0.3"
PAGE = 8053  # alone in its namespace, a controller may have its usual ports
Row = tuple[str, list[str], list[str], list[str]]


class Machine(wire.Machine):
    """A network and a mount namespace, held by a process."""

    def __init__(self, folder: pathlib.Path, name: str) -> None:
        super().__init__(folder, name, "--mount")
        self.folder = folder
        self.processes: list[Process] = []

    def words(self, *words: str) -> list[str]:
        """A command's words, as it is run in this machine."""
        return super().words(f"--mount=/proc/{self.holder.pid}/ns/mnt", *words)

    def start(self, name: str, *words: str) -> Process:
        """Start a program in this machine; it ends with the machine."""
        process = Process(name, self.words(*words), self.folder)
        self.processes.append(process)
        return process

    def addresses(self, device: str = "eth0") -> list[str]:
        """A device's IPv4 addresses."""
        shown = json.loads(self.run("ip", "-j", "-4", "addr", "show", "dev", device))
        return [entry["local"] for link in shown for entry in link.get("addr_info", ())]

    def up(self, device: str) -> bool:
        """Whether a device has its link."""
        return bool(json.loads(self.run("ip", "-j", "link", "show", "dev", device))[0]["operstate"] == "UP")

    def close(self) -> None:
        """End every process in the namespace, the holder last: a client leaves some in the background."""
        for process in reversed(self.processes):
            with contextlib.suppress(AssertionError):
                process.end()
        with contextlib.suppress(OSError):
            wanted = os.readlink(self.there)
            for pid in {int(name) for name in os.listdir("/proc") if name.isdigit()} - {self.holder.pid}:
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{pid}/ns/net") == wanted:
                        os.kill(pid, signal.SIGKILL)
        super().close()

    def logs(self) -> str:
        """The ends of all logs."""
        return "\n".join(f"--- {self.folder.name}/{one.name}\n{one.text()[-6000:]}" for one in self.processes)


class Host(Machine):
    """A machine with a DHCP client on `eth0`, and our software."""

    def __init__(self, folder: pathlib.Path, settings: Mapping[str, Any], rules: str = "version: 1\n") -> None:
        folder.mkdir()
        super().__init__(folder, "host")
        self.config = folder / "node.yaml"
        (folder / "rules.d").mkdir()
        (folder / "rules.d" / "office.yaml").write_text(rules)
        self.settings = {"source": {"directory": "rules.d"}, "state": "state", **settings}
        self.config.write_text(yaml.safe_dump(self.settings))
        self._mounts()

    def _mounts(self) -> None:
        """The clients' folders as copies, so that the host's own stay as they are; then the stubs, as a user would."""
        for path in ("/etc/dhcp", "/usr/lib/dhcpcd/dhcpcd-hooks", "/etc/udhcpc"):
            copy = self.folder / "root" / path.lstrip("/")
            shutil.copytree(path, copy)
            self.run("mount", "--bind", str(copy), path)
        for path in ("/var/lib/dhcp", "/var/lib/dhcpcd", "/run"):
            os.makedirs(path, exist_ok=True)
            self.run("mount", "-t", "tmpfs", "tmpfs", path)
        resolv = self.folder / "resolv.conf"
        resolv.write_text("")
        self.run("mount", "--bind", str(resolv), "/etc/resolv.conf")
        said = self.hook("install", "--config", str(self.config), "--client", "dhclient", "--client", "dhcpcd",
                         "--client", "udhcpc")  # fmt: skip
        assert said.count("installed: ") == 3, said

    def hook(self, *words: str) -> str:
        """Run `nexoraldns hook`."""
        return self.run("env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "controller.cli", "hook", *words)

    def verb(self, name: str = "controller") -> Process:
        """Start `controller` alone, or `run`."""
        return self.start(name, sys.executable, "-m", "controller.cli", name, "--config", str(self.config))

    def controller(self) -> Process:
        """Start a controller, and wait for its page."""
        process = self.verb()
        until(self.status, 30, "the status page")
        return process

    def get(self, path: str) -> str:
        """What the status page says; empty when it does not answer."""

        def get() -> str:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{PAGE}{path}", timeout=3) as answer:
                    return str(answer.read().decode())
            except OSError:
                return ""

        return self.inside(get) or ""

    def status(self) -> dict[str, Any]:
        """What /api/v1/status says; empty when nobody does."""
        found: dict[str, Any] = json.loads(self.get("/api/v1/status") or "{}")
        return found

    def workers(self) -> list[dict[str, Any]]:
        """The workers' rows."""
        return [worker for node in self.status().get("nodes", ()) for worker in node["workers"]]

    def rows(self, source: str) -> list[dict[str, Any]]:
        """The events of a source, oldest first."""
        return [row for row in reversed(self.status().get("events", ())) if row["source"] == source]

    def events(self, source: str) -> list[Row]:
        """(kind, old, new, dns) of a client's events, oldest first."""
        return [(row["kind"], row["old"], row["new"], row["dns"]) for row in self.rows(source)]

    def counts(self) -> dict[str, int]:
        """What became of the hooks' events."""
        found: dict[str, int] = self.status().get("broker", {}).get("events", {})
        return found


class Office:
    """The DHCP server's machine with the bridge, one that asks, and hosts; `join` plugs a host in."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        for name in ("server", "asker"):
            (folder / name).mkdir()
        self.server, self.asker = Machine(folder / "server", "server"), Machine(folder / "asker", "asker")
        self.server.run("ip", "link", "add", "br0", "type", "bridge")
        self.server.run("ip", "addr", "add", f"{SERVER}/24", "dev", "br0")
        self.server.run("ip", "link", "set", "br0", "up")
        self._plug(self.asker, "asker")
        self.asker.run("ip", "addr", "add", f"{ASKER}/24", "dev", "eth0")
        self.hosts: list[Host] = []
        self.given = folder / "given"
        self.given.write_text("")

    def _plug(self, machine: Machine, port: str) -> None:
        machine.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns",
                    str(self.server.holder.pid))  # fmt: skip
        self.server.run("ip", "link", "set", port, "master", "br0", "up")
        machine.run("ip", "link", "set", "eth0", "up")

    def join(self, host: Host) -> None:
        """Plug a host in, and join it to the asker by a second wire of their own: 10.78.N.1 and 10.78.N.2."""
        number = len(self.hosts)
        self.hosts.append(host)
        self._plug(host, f"port{number}")
        host.run("ip", "link", "add", "lan0", "type", "veth", "peer", "name", f"lan{number}", "netns",
                 str(self.asker.holder.pid))  # fmt: skip
        for machine, device, last in ((host, "lan0", 1), (self.asker, f"lan{number}", 2)):
            machine.run("ip", "addr", "add", f"10.78.{number}.{last}/24", "dev", device)
            machine.run("ip", "link", "set", device, "up")

    def give(self, addresses: Mapping[Host, str], dnsmasq: Process | None = None) -> None:
        """Which host gets which address from now on."""
        self.given.write_text("".join(f"{host.mac('eth0')},{address}\n" for host, address in addresses.items()))
        if dnsmasq is not None:
            read = dnsmasq.text().count(f"read {self.given}")
            dnsmasq.popen.send_signal(signal.SIGHUP)  # nsenter has become dnsmasq: the pid is the same
            until(lambda: dnsmasq.text().count(f"read {self.given}") > read, 5, "the new addresses")

    def dnsmasq(self, *options: str, dns: Sequence[str] = DNS) -> Process:
        """A DHCP server that gives everybody the address of `give`, with leases of two minutes renewed every 3 s."""
        return self.server.start(
            "dnsmasq", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=br0",
            "--bind-interfaces", "--user=root", "--no-ping", "--dhcp-authoritative", "--log-dhcp", "--log-facility=-",
            f"--dhcp-leasefile={self.folder / 'leases'}", f"--dhcp-hostsfile={self.given}",
            f"--pid-file={self.folder / 'dnsmasq.pid'}", "--dhcp-range=10.77.0.50,10.77.0.99,255.255.255.0,2m",
            f"--dhcp-option=option:dns-server,{','.join(dns)}", "--dhcp-option=option:domain-name,office.example",
            "--dhcp-option-force=58,3", "--dhcp-option-force=59,6", *options,
        )  # fmt: skip

    def short_leases(self, seconds: int) -> Process:
        """A DHCP server with leases of seconds, and none of dnsmasq's two minutes."""
        given = self.given.read_text().split()
        return self.server.start("short-leases", sys.executable, str(ROOT / "tests/e2e/dhcp_server.py"), "br0", SERVER,
                                 str(seconds), *given)  # fmt: skip

    def close(self) -> None:
        for machine in (*self.hosts, self.asker, self.server):
            machine.close()

    def logs(self) -> str:
        """The ends of all logs."""
        return "\n".join(machine.logs() for machine in (*self.hosts, self.server))


# --- the clients ------------------------------------------------------------------------------------------------------


def dhclient(host: Host) -> Process:
    """ISC dhclient."""
    (host.folder / "dhclient.conf").write_text(
        "initial-interval 1; timeout 20; retry 2; backoff-cutoff 2; reboot 1;\n"
        "request subnet-mask, broadcast-address, routers, domain-name, domain-name-servers;\n"
    )
    return host.start("dhclient", "dhclient", "-4", "-d", *_dhclient_files(host), "eth0")


def _dhclient_files(host: Host) -> list[str]:
    named = (("-cf", "dhclient.conf"), ("-lf", "dhclient.leases"), ("-pf", "dhclient.pid"))
    return [word for option, name in named for word in (option, str(host.folder / name))]


def dhcpcd(host: Host) -> Process:
    """dhcpcd."""
    conf = host.folder / "dhcpcd.conf"
    conf.write_text("option domain_name_servers, domain_name\nnoipv6rs\nnoarp\nnoipv4ll\ntimeout 0\nclientid\n")
    return host.start("dhcpcd", "dhcpcd", "-4", "-B", "-f", str(conf), "eth0")


def udhcpc(host: Host) -> Process:
    """BusyBox's udhcpc."""
    return host.start("udhcpc", "udhcpc", "-f", "-t", "20", "-T", "1", "-A", "1", "-i", "eth0", "-s",
                      "/etc/udhcpc/nexoraldns.script")  # fmt: skip


CLIENTS: dict[str, Callable[[Host], Process]] = {"dhclient": dhclient, "dhcpcd": dhcpcd, "udhcpc": udhcpc}


def renew(name: str, client: Process) -> None:
    """Where the client does not follow T1 by itself, tell it."""
    if name == "udhcpc":
        client.popen.send_signal(signal.SIGUSR1)


def release(host: Host, name: str, client: Process) -> None:
    """Give the lease back."""
    if name == "udhcpc":
        client.popen.send_signal(signal.SIGUSR2)
    elif name == "dhcpcd":
        host.run("dhcpcd", "-4", "-k", "eth0")
    else:
        host.run("dhclient", "-4", "-r", *_dhclient_files(host), "eth0")

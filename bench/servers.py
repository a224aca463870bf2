"""The servers that are compared: how each is configured with the same data, started on one core and found again.

Every server listens on 127.0.0.1 only, writes no query log, and runs one serving thread (or worker).
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parent.parent
UPSTREAM_PORT = 15399


@dataclasses.dataclass(frozen=True)
class Data:
    """What every server is given. `cached` names live in the zone bench.test of the upstream server."""

    blocked: list[str]
    local: dict[str, str]
    cached: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Server:
    """One server: `configure` writes its files into a folder and returns its command line."""

    name: str
    port: int
    configure: Callable[[pathlib.Path, Data], list[str]]
    cases: tuple[str, ...] = ("blocked", "local", "cached")
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


def upstream(folder: pathlib.Path, data: Data) -> list[str]:
    """Knot, authoritative for bench.test: what the cached answers came from."""
    records = "".join(f"{name}. 86400 A {address}\n" for name, address in data.cached.items())
    (folder / "bench.test.zone").write_text(
        f"bench.test. 3600 SOA ns.bench.test. h.bench.test. 1 3600 600 86400 300\n"
        f"bench.test. 3600 NS ns.bench.test.\nns.bench.test. 3600 A 127.0.0.1\n"
        f"{records}"
    )
    (folder / "knot.conf").write_text(f"""
server:
    listen: 127.0.0.1@{UPSTREAM_PORT}
    rundir: {folder}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: {folder}
log:
  - target: stderr
    any: error
zone:
  - domain: bench.test
    file: {folder}/bench.test.zone
    storage: {folder}
    journal-content: none
    zonefile-sync: -1
""")
    return [_command("knotd"), "-c", str(folder / "knot.conf")]


def _command(name: str) -> str:
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not found:
        raise FileNotFoundError(f"{name} is not installed: sudo apt-get install {name.replace('knotd', 'knot')}")
    return found


def _echo(folder: pathlib.Path, data: Data) -> list[str]:
    subprocess.run(["cc", "-O2", "-o", str(folder / "echo"), str(ROOT / "bench/echo.c")], check=True)
    return [str(folder / "echo"), "15301"]


def _ours(folder: pathlib.Path, data: Data) -> list[str]:
    rules = folder / "rules.d"
    rules.mkdir()
    (rules / "blocked.hosts").write_text("".join(f"0.0.0.0 {name}\n" for name in data.blocked))
    zone = "".join(f"      {name.removesuffix('.local.test')}: {address}\n" for name, address in data.local.items())
    (rules / "bench.yaml").write_text(f"""version: 1
lists:
  blocked: {{file: blocked.hosts, format: hosts}}
rules:
  - name: blocked
    block: [list:blocked]
zones:
  local.test:
    ttl: 1h
    records:
{zone}forward:
  bench.test: 127.0.0.1:{UPSTREAM_PORT}  # written, because names below test stay at home (RFC 6761)
  .: 127.0.0.1:{UPSTREAM_PORT}
""")
    (folder / "node.yaml").write_text(
        json.dumps(
            {
                "listen": ["127.0.0.1:15302"],
                "workers": 1,
                "source": {"directory": str(rules)},
                "broker": {"listen": "127.0.0.1:15312", "connect": "127.0.0.1:15312"},
                "status": {"listen": "127.0.0.1:15322"},
                "state": str(folder / "state"),
            }
        )
    )
    return [sys.executable, "-m", "controller.cli", "run", "--config", str(folder / "node.yaml")]


def _unbound(folder: pathlib.Path, data: Data) -> list[str]:
    blocked = "".join(f'    local-zone: "{name}" always_nxdomain\n' for name in data.blocked)
    local = "".join(f'    local-data: "{name}. 3600 IN A {address}"\n' for name, address in data.local.items())
    (folder / "unbound.conf").write_text(f"""
server:
    interface: 127.0.0.1
    port: 15303
    num-threads: 1
    do-daemonize: no
    username: ""
    chroot: ""
    directory: "{folder}"
    pidfile: ""
    use-syslog: no
    logfile: "{folder}/unbound.log"
    verbosity: 0
    module-config: "iterator"
    do-not-query-localhost: no
    minimal-responses: yes
    msg-cache-size: 32m
    rrset-cache-size: 32m
    access-control: 127.0.0.0/8 allow
    so-rcvbuf: 4m
    local-zone: "local.test" static
    local-zone: "test." nodefault
{local}{blocked}
forward-zone:
    name: "."
    forward-addr: 127.0.0.1@{UPSTREAM_PORT}
""")
    return [_command("unbound"), "-d", "-c", str(folder / "unbound.conf")]


def _dnsdist(folder: pathlib.Path, data: Data) -> list[str]:
    (folder / "blocked.txt").write_text("\n".join(data.blocked) + "\n")
    (folder / "local.txt").write_text("".join(f"{name} {address}\n" for name, address in data.local.items()))
    (folder / "dnsdist.conf").write_text(f"""
setLocal("127.0.0.1:15304")
setACL({{"127.0.0.0/8"}})
setSecurityPollSuffix("")
newServer({{address="127.0.0.1:{UPSTREAM_PORT}", healthCheckMode="up"}})
pc = newPacketCache(100000, {{maxTTL=86400}})
getPool(""):setCache(pc)
blocked = newSuffixMatchNode()
for name in io.lines("{folder}/blocked.txt") do blocked:add(newDNSName(name)) end
addAction(SuffixMatchNodeRule(blocked, true), RCodeAction(DNSRCode.NXDOMAIN))
answers = {{}}
for line in io.lines("{folder}/local.txt") do
  local name, address = line:match("(%S+) (%S+)")
  answers[name .. "."] = address
end
zone = newSuffixMatchNode()
zone:add(newDNSName("local.test"))
addAction(AndRule{{SuffixMatchNodeRule(zone, true), QTypeRule(DNSQType.A)}}, LuaAction(function(dq)
  local address = answers[dq.qname:toString()]
  if address then return DNSAction.Spoof, address end
  return DNSAction.Nxdomain, ""
end))
""")
    return [_command("dnsdist"), "--supervised", "--disable-syslog", "-C", str(folder / "dnsdist.conf")]


# dnsdist has no local records: a thousand spoofed names are a Lua function there, which is what its users write.
SERVERS = (
    Server("echo", 15301, _echo, ("blocked", "local", "cached")),
    Server("nexoraldns", 15302, _ours),
    Server("unbound", 15303, _unbound),
    Server("dnsdist", 15304, _dnsdist),
)

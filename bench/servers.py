"""The servers that are compared: how each is configured with the same data, and its command line.

Rule: the same data and the same answers for everybody (a blocked name blocks what is below it, too), an answer cache,
no query log, one serving thread, DNSSEC validation off (nobody else's upstream zone is signed), 127.0.0.1 only. What a
server's own documentation recommends for speed is used where it does not change an answer.
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

from data import CASES, MANY, NONE, ZONE, Data

ROOT = pathlib.Path(__file__).resolve().parent.parent
UPSTREAM_PORT = 17399
_SOA = "SOA ns.bench.test. h.bench.test. 1 3600 600 86400 300"
_SBIN = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """One server: `configure` writes its files into a folder and returns its command line. `version`: how to ask it."""

    name: str
    title: str
    port: int
    configure: Callable[[pathlib.Path, Data], list[str]]
    version: tuple[str, ...] = ()
    without: tuple[str, ...] = ()  # the cases that it has no notion of

    @property
    def cases(self) -> tuple[str, ...]:
        return tuple(case for case in CASES if case not in self.without)


def command(name: str) -> str:
    """Where a program is; FileNotFoundError with the way to get it."""
    found = shutil.which(name, path=_SBIN)
    if not found:
        raise FileNotFoundError(f"{name} is not installed: run bench/setup")
    return found


def upstream(folder: pathlib.Path, data: Data) -> list[str]:
    """Knot, authoritative for bench.test: what the cached answers came from."""
    records = "".join(f"{name}. 86400 A {address}\n" for name, address in data.cached.items())
    (folder / "upstream.zone").write_text(
        f"{ZONE}. 3600 {_SOA}\n{ZONE}. 3600 NS ns.{ZONE}.\nns.{ZONE}. 3600 A 127.0.0.1\n"
        f"*.{MANY}. 86400 A 192.0.2.1\n{NONE}. 3600 TXT nothing-below\n{records}"
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
  - domain: {ZONE}
    file: {folder}/upstream.zone
    storage: {folder}
    journal-content: none
    zonefile-sync: -1
""")
    return [command("knotd"), "-c", str(folder / "knot.conf")]


def _echo(folder: pathlib.Path, data: Data) -> list[str]:
    subprocess.run(["cc", "-O2", "-o", str(folder / "echo"), str(ROOT / "bench/echo.c")], check=True)
    return [str(folder / "echo"), "17301"]


# --- ours -------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Office:
    """One of our own nodes: where it listens, its workers, and what else its rules hold."""

    port: int = 17302
    workers: int = 1
    rules: int = 0  # block rules of groups, beside those that every server has
    groups: int = 0
    lists: int = 1  # the blocked names, spread over so many lists
    cache: str = "64MiB"


def ours(folder: pathlib.Path, data: Data, office: Office) -> list[str]:
    """`nexoraldns run`: controller, broker, page, supervisor, agent and workers, with files in `folder`/rules.d."""
    rules = folder / "rules.d"
    rules.mkdir()
    for number in range(office.lists):
        write_hosts(rules / f"blocked-{number}.hosts", data.blocked[number :: office.lists])
    lists = "".join(
        f"  blocked-{number}: {{file: blocked-{number}.hosts, format: hosts}}\n" for number in range(office.lists)
    )
    named = ", ".join(f"list:blocked-{number}" for number in range(office.lists))
    moved = "".join(f"      {name}: {address}\n" for name, address in data.redirect.items())
    (rules / "bench.yaml").write_text(f"""version: 1
lists:
{lists}rules:
  - name: blocked
    block: [{named}]
  - name: moved
    redirect:
{moved}forward:
  {ZONE}: 127.0.0.1:{UPSTREAM_PORT}  # written, because names below test stay at home (RFC 6761)
  .: 127.0.0.1:{UPSTREAM_PORT}
""")
    # A file of rules has at most 1 MiB, and 10,000 records are near it.
    hosts = "".join(f"      {name.removesuffix('.local.test')}: {address}\n" for name, address in data.local.items())
    (rules / "zone.yaml").write_text(f"version: 1\nzones:\n  local.test:\n    ttl: 1h\n    records:\n{hosts}")
    (rules / "line.yaml").write_text(one_line(0))
    if office.groups:
        text = "version: 1\ngroups:\n  everybody: {members: [127.0.0.0/8]}\n"
        text += "".join(f"  group-{i}: {{members: [10.{i // 250}.{i % 250}.0/24]}}\n" for i in range(1, office.groups))
        text += "rules:\n"
        for i in range(office.rules):
            text += f"  - {{name: rule-{i}, block: [r{i}.ruled.test, s{i}.ruled.test]"
            text += f", for: [{'everybody' if i % office.groups == 0 else f'group-{i % office.groups}'}]}}\n"
        (rules / "groups.yaml").write_text(text)
    settings = {
        "listen": [f"127.0.0.1:{office.port}"],
        "workers": office.workers,
        "source": {"directory": str(rules)},
        "broker": {"listen": f"127.0.0.1:{office.port + 100}", "connect": f"127.0.0.1:{office.port + 100}"},
        "status": {"listen": f"127.0.0.1:{office.port + 200}"},
        "state": str(folder / "state"),
        "cache": {"size": office.cache},
    }
    (folder / "node.yaml").write_text(json.dumps(settings))
    return [sys.executable, "-m", "controller.cli", "run", "--config", str(folder / "node.yaml")]


def one_line(number: int) -> str:
    """A rule file with one line that shows which edit is served: line.edit.test has the address 10.255.x.y."""
    address = f"10.255.{number >> 8}.{number & 255}"
    return f"version: 1\nrules:\n  - {{name: line, redirect: {{line.edit.test: {address}}}}}\n"


def write_hosts(path: pathlib.Path, names: list[str]) -> None:
    """A list as a hosts file, written beside its place and renamed over it, as editors do."""
    fresh = path.with_name(f".{path.name}.new")
    with open(fresh, "w") as out:
        out.writelines(f"0.0.0.0 {name}\n" for name in names)
    fresh.rename(path)


# --- the others -------------------------------------------------------------------------------------------------------


def _unbound(folder: pathlib.Path, data: Data) -> list[str]:
    blocked = "".join(f'    local-zone: "{name}" always_nxdomain\n' for name in data.blocked)
    local = "".join(f'    local-data: "{name}. 3600 IN A {address}"\n' for name, address in data.local.items())
    moved = "".join(
        f'    local-zone: "{name}" redirect\n    local-data: "{name}. 10 IN A {address}"\n'
        for name, address in data.redirect.items()
    )
    (folder / "unbound.conf").write_text(f"""
server:
    interface: 127.0.0.1
    port: 17303
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
    msg-cache-size: 64m
    rrset-cache-size: 128m
    outgoing-range: 8192
    num-queries-per-thread: 4096
    access-control: 127.0.0.0/8 allow
    so-rcvbuf: 4m
    local-zone: "local.test" static
    local-zone: "test." nodefault
{local}{moved}{blocked}
forward-zone:
    name: "."
    forward-addr: 127.0.0.1@{UPSTREAM_PORT}
remote-control:
    control-enable: no
""")
    return [command("unbound"), "-d", "-c", str(folder / "unbound.conf")]


def _dnsdist(folder: pathlib.Path, data: Data) -> list[str]:
    (folder / "blocked.txt").write_text("\n".join(data.blocked) + "\n")
    (folder / "local.txt").write_text(
        "".join(f"{name} {address}\n" for name, address in (data.local | data.redirect).items())
    )
    # dnsdist has no local records. A thousand names with an address each are a function over a Lua table; the FFI form
    # is the one that its documentation calls the fast one.
    (folder / "dnsdist.conf").write_text(f"""
setLocal("127.0.0.1:17304")
setACL({{"127.0.0.0/8"}})
setSecurityPollSuffix("")
setMaxUDPOutstanding(65535)
newServer({{address="127.0.0.1:{UPSTREAM_PORT}", healthCheckMode="up"}})
pc = newPacketCache(1000000, {{maxTTL=86400}})
getPool(""):setCache(pc)
blocked = newSuffixMatchNode()
for name in io.lines("{folder}/blocked.txt") do blocked:add(newDNSName(name)) end
addAction(SuffixMatchNodeRule(blocked, true), RCodeAction(DNSRCode.NXDOMAIN))
local ffi = require("ffi")
local answers = {{}}
for line in io.lines("{folder}/local.txt") do
  local name, address = line:match("(%S+) (%S+)")
  local wire = name:gsub("([^.]+)%.?", function(label) return string.char(#label) .. label end) .. "\\0"
  answers[wire] = address
end
local name, size = ffi.new("const char*[1]"), ffi.new("size_t[1]")
own = newSuffixMatchNode()
own:add(newDNSName("local.test"))
own:add(newDNSName("moved.test"))
addAction(AndRule{{SuffixMatchNodeRule(own, true), QTypeRule(DNSQType.A)}}, LuaFFIAction(function(dq)
  ffi.C.dnsdist_ffi_dnsquestion_get_qname_raw(dq, name, size)
  local address = answers[ffi.string(name[0], size[0]):lower()]
  if address then
    ffi.C.dnsdist_ffi_dnsquestion_set_result(dq, address, #address)
    return DNSAction.Spoof
  end
  return DNSAction.Nxdomain
end))
""")
    return [command("dnsdist"), "--supervised", "--disable-syslog", "-C", str(folder / "dnsdist.conf")]


def _rpz(path: pathlib.Path, data: Data) -> None:
    """The policy as a response policy zone: NXDOMAIN for a name and for what is below, and addresses."""
    with open(path, "w") as out:
        out.write(f"$ORIGIN rpz.bench.\n$TTL 60\n@ {_SOA}\n@ NS localhost.\n")
        out.writelines(f"{name} CNAME .\n*.{name} CNAME .\n" for name in data.blocked)
        out.writelines(f"{name} 10 A {address}\n" for name, address in data.redirect.items())


def _local_zone(path: pathlib.Path, data: Data) -> None:
    text = f"local.test. 3600 {_SOA}\nlocal.test. 3600 NS ns.local.test.\nns.local.test. 3600 A 127.0.0.1\n"
    path.write_text(text + "".join(f"{name}. 3600 A {address}\n" for name, address in data.local.items()))


def _recursor(folder: pathlib.Path, data: Data) -> list[str]:
    _rpz(folder / "rpz.zone", data)
    _local_zone(folder / "local.zone", data)
    (folder / "recursor.lua").write_text(f'rpzFile("{folder}/rpz.zone", {{policyName="bench"}})\n')
    (folder / "recursor.conf").write_text(f"""
local-address=127.0.0.1
local-port=17305
socket-dir={folder}
threads=1
pdns-distributes-queries=no
max-mthreads=4096
quiet=yes
loglevel=0
disable-syslog=yes
dnssec=off
qname-minimization=no
hint-file=no
security-poll-suffix=
allow-from=127.0.0.0/8
dont-query=
non-local-bind=no
max-cache-entries=1000000
max-packetcache-entries=500000
packetcache-ttl=86400
forward-zones={ZONE}=127.0.0.1:{UPSTREAM_PORT}
auth-zones=local.test={folder}/local.zone
lua-config-file={folder}/recursor.lua
""")
    (folder / "recursor.conf").rename(folder / "recursor-bench.conf")
    return [command("pdns_recursor"), f"--config-dir={folder}", "--config-name=bench", "--daemon=no"]


def _kresd(folder: pathlib.Path, data: Data) -> list[str]:
    _rpz(folder / "rpz.zone", data)
    (folder / "local.hosts").write_text("".join(f"{address} {name}\n" for name, address in data.local.items()))
    (folder / "kresd.conf").write_text(f"""
net.listen('127.0.0.1', 17306, {{ kind = 'dns' }})
cache.open(512 * MB, 'lmdb://{folder}/cache')
modules = {{ 'policy', 'hints > iterate' }}
modules.unload('ta_update')
modules.unload('ta_signal_query')
modules.unload('priming')
modules.unload('detect_time_skew')
modules.unload('detect_time_jump')
trust_anchors.remove('.')
hints.add_hosts('{folder}/local.hosts')
policy.add(policy.rpz(policy.DENY, '{folder}/rpz.zone', false))
policy.add(policy.suffix(policy.PASS, {{todname('local.test.')}}))  -- or the built-in rule for test. says no
policy.add(policy.suffix(policy.STUB({{'127.0.0.1@{UPSTREAM_PORT}'}}), {{todname('{ZONE}.')}}))
""")
    return [command("kresd"), "-q", "-n", "-c", str(folder / "kresd.conf"), str(folder)]


def _dnsmasq(folder: pathlib.Path, data: Data) -> list[str]:
    (folder / "local.hosts").write_text("".join(f"{address} {name}\n" for name, address in data.local.items()))
    moved = "".join(f"address=/{name}/{address}\n" for name, address in data.redirect.items())
    with open(folder / "dnsmasq.conf", "w") as out:
        out.write(f"""port=17307
listen-address=127.0.0.1
bind-interfaces
no-resolv
no-hosts
no-poll
no-daemon
user=
group=
pid-file=
log-facility=/dev/null
server=127.0.0.1#{UPSTREAM_PORT}
addn-hosts={folder}/local.hosts
cache-size=30000
dns-forward-max=4096
local-ttl=3600
local=/local.test/
{moved}""")
        out.writelines(f"local=/{name}/\n" for name in data.blocked)
    return [command("dnsmasq"), "-k", "-C", str(folder / "dnsmasq.conf")]


def _bind(folder: pathlib.Path, data: Data) -> list[str]:
    _rpz(folder / "rpz.zone", data)
    _local_zone(folder / "local.zone", data)
    (folder / "named.conf").write_text(f"""
options {{
    directory "{folder}";
    listen-on port 17308 {{ 127.0.0.1; }};
    listen-on-v6 {{ none; }};
    pid-file none;
    session-keyfile none;
    allow-query {{ 127.0.0.0/8; }};
    recursion yes;
    forward only;
    forwarders {{ 127.0.0.1 port {UPSTREAM_PORT}; }};
    dnssec-validation no;
    empty-zones-enable no;
    minimal-responses yes;
    querylog no;
    max-cache-size 192m;
    recursive-clients 10000;
    notify no;
    response-policy {{ zone "rpz.bench" policy given; }} qname-wait-recurse no nsip-enable no nsdname-enable no;
}};
logging {{ category default {{ null; }}; }};
controls {{ }};
zone "rpz.bench" {{ type primary; file "{folder}/rpz.zone"; allow-query {{ none; }}; }};
zone "local.test" {{ type primary; file "{folder}/local.zone"; }};
""")
    return [command("named"), "-f", "-n", "1", "-U", "1", "-c", str(folder / "named.conf")]


OURS = "nexoraldns"
ECHO = "echo"
FORWARDED = ("uncached", "mixed", "absent")  # a bare echo has no upstream
SERVERS = (
    Server(ECHO, "bare echo", 17301, _echo, without=FORWARDED),
    Server(OURS, "NexoralDNS", 17302, lambda folder, data: ours(folder, data, Office())),
    Server("unbound", "Unbound", 17303, _unbound, ("unbound", "-V")),
    Server("dnsdist", "dnsdist", 17304, _dnsdist, ("dnsdist", "--version")),
    Server("recursor", "PowerDNS Recursor", 17305, _recursor, ("pdns_recursor", "--version")),
    Server("kresd", "Knot Resolver", 17306, _kresd, ("kresd", "--version")),
    Server("dnsmasq", "dnsmasq", 17307, _dnsmasq, ("dnsmasq", "--version")),
    Server("bind", "BIND", 17308, _bind, ("named", "-v")),
)

"""What resolving costs: names that nobody has asked before, from a root of our own down, ours beside Unbound.

    python bench/recursion.py [--names 5000] [--servers ours,unbound] [--minimal]

Knot serves a signed root, a signed zone and one that is not, each at an address of its own in 127/8 (port 53: needs
root). In each there are names one label below the zone, and others three labels below, which with minimisation take three
questions each. Each server starts cold, is asked for a few hundred names, and then once for every other; CPU is user plus
system time of its whole process tree from the kernel's clocks, divided by the answers. Validation is on, and every answer
from the signed zone must have AD. `--minimal` turns minimisation and 0x20 off.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import datetime
import os
import pathlib
import random
import select
import shutil
import socket
import struct
import sys
import tempfile
import time

import dns.dnssec
import dns.name
import dns.zone
import yaml
from cryptography.hazmat.primitives.asymmetric import ec

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from measure import cpu_us, until

from tests.lan import Process, free_port

_ROOT, _SIGNED, _PLAIN = "127.88.53.1", "127.88.53.2", "127.88.53.3"
_WARM = 300
_KINDS = {
    "plain": "h{0}.plain.", "signed": "h{0}.signed.",
    "plain, 3": "h{0}.d{0}.e{0}.plain.", "signed, 3": "h{0}.d{0}.e{0}.signed.",
}  # fmt: skip
_UNDER_WAY = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """One server and kind of names: µs of CPU for each answer, answers within the time, and with AD; seconds in all."""

    server: str
    kind: str
    us: float
    answers: int
    authentic: int
    took_s: float


def _sign(text: str, apex: str) -> tuple[dns.zone.Zone, str]:
    """The zone, signed, and its DS record."""
    zone = dns.zone.from_text(text, apex, relativize=False)
    private = ec.generate_private_key(ec.SECP256R1())
    key = dns.dnssec.make_dnskey(private.public_key(), 13, 257)
    expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3)
    dns.dnssec.sign_zone(zone, keys=[(private, key)], dnskey_ttl=3600, expiration=expires)
    return zone, f"{apex} DS {dns.dnssec.make_ds(dns.name.from_text(apex), key, 'SHA256')}"


def authorities(folder: pathlib.Path, count: int) -> tuple[list[Process], str]:
    """Start the name servers; the root's DS is the trust anchor."""
    soa = "{0} 3600 SOA ns.{1} host.{1} 1 3600 600 86400 60\n{0} 3600 NS ns.{1}\nns.{1} 3600 A {2}\n"
    hosts = "".join(
        f"h{n}.{{0}} 300 A 192.0.2.{n % 250}\nh{n}.d{n}.e{n}.{{0}} 300 A 192.0.2.{n % 250}\n" for n in range(count)
    )
    signed, ds = _sign(soa.format("signed.", "signed.", _SIGNED) + hosts.format("signed."), "signed.")
    plain = soa.format("plain.", "plain.", _PLAIN) + hosts.format("plain.")
    delegations = "".join(f"{zone}. 3600 NS ns.{zone}.\nns.{zone}. 3600 A {at}\n" for zone, at in
                          (("signed", _SIGNED), ("plain", _PLAIN)))  # fmt: skip
    root, anchor = _sign(soa.format(".", "root-servers.bench.", _ROOT) + delegations + ds + "\n", ".")
    started = []
    for name, apex, address, zone in (("root", ".", _ROOT, root), ("signed", "signed.", _SIGNED, signed),
                                      ("plain", "plain.", _PLAIN, None)):  # fmt: skip
        run = folder / name
        run.mkdir()
        (run / "zone").write_text(plain if zone is None else zone.to_text(relativize=False))
        (run / "knot.conf").write_text(
            f'server:\n  listen: {address}@53\n  rundir: "{run}"\n  udp-workers: 1\n  tcp-workers: 1\n'
            f"  background-workers: 1\nlog:\n  - target: stderr\n    any: warning\n"
            f'database:\n  storage: "{run}"\nzone:\n'
            f'  - domain: "{apex}"\n    file: "{run}/zone"\n    zonefile-sync: -1\n    zonefile-load: whole\n'
        )
        knot = shutil.which("knotd") or "/usr/sbin/knotd"
        started.append(Process(name, ["taskset", "-c", "1", knot, "-c", str(run / "knot.conf")], folder))
    for address, apex in ((_ROOT, "."), (_SIGNED, "signed."), (_PLAIN, "plain.")):
        until(lambda a=address, z=apex: asked(a, 53, [z]), 30, f"{apex} at {address}")
    return started, anchor


def asked(
    address: str, port: int, names: list[str], qtype: int = 1, patience_s: float = 0.0
) -> collections.Counter[str]:
    """Ask for every name once, some at a time; how many answers came, and how many of them had AD."""
    found: collections.Counter[str] = collections.Counter()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
    sock.connect((address, port))
    sock.setblocking(False)
    waiting: set[int] = set()
    left = list(enumerate(names))
    deadline = time.monotonic() + patience_s + 0.5
    with contextlib.closing(sock), contextlib.suppress(ConnectionRefusedError):
        while (left or waiting) and time.monotonic() < deadline:
            while left and len(waiting) < _UNDER_WAY:
                number, name = left.pop()
                labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split(".") if label)
                number &= 0xFFFF
                head = struct.pack("!HHHHHH", number, 0x0120, 1, 0, 0, 0)
                sock.send(head + labels + struct.pack("!BHH", 0, qtype, 1))
                waiting.add(number)
            if not select.select([sock], [], [], 0.5)[0]:
                continue
            with contextlib.suppress(BlockingIOError):
                while True:
                    wire = sock.recv(4096)
                    number = int.from_bytes(wire[:2], "big")
                    if number in waiting:
                        waiting.discard(number)
                        found["answers"] += wire[7] > 0 and not wire[3] & 15
                        found["authentic"] += bool(wire[3] & 0x20)
                        found["failed"] += bool(wire[3] & 15)
    return found


def ours(folder: pathlib.Path, anchor: str, minimal: bool) -> tuple[Process, int]:
    """A node with one worker that recurses."""
    port, broker, page = free_port(), free_port(), free_port()
    rules = folder / "rules.d"
    rules.mkdir()
    (rules / "all.yaml").write_text('version: 1\nforward:\n  ".": recurse\n')
    settings = {
        "listen": [f"127.0.0.1:{port}"], "workers": 1, "source": {"directory": str(rules)},
        "broker": {"listen": f"127.0.0.1:{broker}", "connect": f"127.0.0.1:{broker}"},
        "status": {"listen": f"127.0.0.1:{page}"}, "state": str(folder / "state"),
        "resolver": {
            "root_hints": [{"name": "ns.root-servers.bench", "addresses": [_ROOT]}], "query_localhost": True,
            "use_ipv6": False, "trust_anchors": [anchor],
            "qname_minimisation": not minimal, "case_randomisation": not minimal,
        },
    }  # fmt: skip
    (folder / "node.yaml").write_text(yaml.safe_dump(settings))
    words = ["taskset", "-c", "0", sys.executable, "-m", "controller.cli", "run", "--config", str(folder / "node.yaml")]
    return Process("ours", words, folder), port


def unbound(folder: pathlib.Path, anchor: str, minimal: bool) -> tuple[Process, int]:
    """Unbound with one thread, its defaults beside what is needed to reach our root; 0x20 as ours has it."""
    port = free_port()
    yes = "no" if minimal else "yes"
    (folder / "hints").write_text(f". 3600 NS ns.root-servers.bench.\nns.root-servers.bench. 3600 A {_ROOT}\n")
    (folder / "anchor").write_text(anchor + "\n")
    (folder / "unbound.conf").write_text(
        f'server:\n  directory: "{folder}"\n  chroot: ""\n  username: ""\n  pidfile: ""\n  interface: 127.0.0.1\n'
        f"  port: {port}\n  do-daemonize: no\n  use-syslog: no\n  access-control: 127.0.0.0/8 allow\n  do-ip6: no\n"
        f'  do-not-query-localhost: no\n  root-hints: "{folder}/hints"\n  trust-anchor-file: "{folder}/anchor"\n'
        f"  num-threads: 1\n  qname-minimisation: {yes}\n  use-caps-for-id: {yes}\n  trust-anchor-signaling: no\n"
        "  num-queries-per-thread: 4096\nremote-control:\n  control-enable: no\n"
    )
    program = shutil.which("unbound") or "/usr/sbin/unbound"
    return Process("unbound", ["taskset", "-c", "0", program, "-c", str(folder / "unbound.conf")], folder), port


_STARTS = {"ours": ours, "unbound": unbound}


def measure(name: str, folder: pathlib.Path, anchor: str, count: int, minimal: bool) -> list[Cost]:
    """Start one server, ask it, end it."""
    folder.mkdir()
    process, port = _STARTS[name](folder, anchor, minimal)
    costs = []
    try:
        until(lambda: asked("127.0.0.1", port, ["h0.plain."])["answers"], 20, f"an answer from {name}")
        order = random.Random(1)
        for kind, form in _KINDS.items():
            numbers = list(range(1, count))
            order.shuffle(numbers)
            names = [form.format(n) for n in numbers]
            asked("127.0.0.1", port, names[:_WARM], patience_s=10)
            began_s, before = time.monotonic(), sum(cpu_us(process.pid).values())
            found = asked("127.0.0.1", port, names[_WARM:], patience_s=60)
            spent = sum(cpu_us(process.pid).values()) - before
            took_s = time.monotonic() - began_s
            us = spent / max(1, found["answers"])
            costs.append(Cost(name, kind, us, found["answers"], found["authentic"], took_s))
    finally:
        if sys.exc_info()[0]:
            print(process.text()[-2000:], file=sys.stderr)
        process.end()
    return costs


def main() -> int:
    """Measure, print a table."""
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("--names", type=int, default=5000, help="how many of each kind")
    words.add_argument("--rounds", type=int, default=1)
    words.add_argument("--servers", default="ours,unbound")
    words.add_argument("--minimal", action="store_true", help="without minimisation and 0x20")
    given = words.parse_args()
    if os.geteuid():
        print("bench: port 53 of 127/8 needs root", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        folder = pathlib.Path(place)
        started, anchor = authorities(folder, given.names)
        for process in started:
            stack.callback(process.end)
        best: dict[tuple[str, str], float] = {}
        for number in range(given.rounds):
            for name in given.servers.split(","):
                for cost in measure(name, folder / f"{name}{number}", anchor, given.names, given.minimal):
                    key = (cost.server, cost.kind)
                    best[key] = min(best.get(key, 1e9), cost.us)
                    print(f"{cost.server:8} {cost.kind:10} {cost.us:8.1f} µs/answer  {cost.answers} answers, "
                          f"{cost.authentic} with AD, {cost.took_s:.2f} s")  # fmt: skip
        for kind in _KINDS:
            if ("ours", kind) in best and ("unbound", kind) in best:
                print(f"{kind}: ours is {best['ours', kind] / best['unbound', kind]:.2f} x Unbound")
    return 0


if __name__ == "__main__":
    sys.exit(main())

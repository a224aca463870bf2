"""`nexoraldns hook`: who calls, what is believed, where it goes, and that no client ever waits or fails."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import pathlib
import re
import socket
import stat
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from controller import broker_keys
from controller.broker import Broker
from controller.hooks import callers, delivery, places
from controller.spool import Spool
from dnsd.contract import messages
from tests.controller import broker_peers as peers

ROOT = pathlib.Path(__file__).resolve().parents[2]
DHCLIENT = {
    "reason": "REBIND", "interface": "eth0", "old_ip_address": "10.0.0.5", "old_subnet_mask": "255.255.255.0",
    "new_ip_address": "10.0.0.9", "new_subnet_mask": "255.255.255.0", "new_domain_name_servers": "10.0.0.1 10.0.0.2",
    "new_domain_name": "office.example", "new_domain_search": "office.example. lab.example", "pid": "77",
}  # fmt: skip
DHCPCD = {
    "reason": "BOUND", "interface": "eth0", "protocol": "dhcp", "ifcarrier": "up", "if_up": "true", "if_down": "false",
    "new_ip_address": "10.0.0.9", "new_subnet_cidr": "24", "new_domain_name_servers": "10.0.0.1",
}  # fmt: skip
NM = {
    "NM_DISPATCHER_ACTION": "dhcp4-change", "DEVICE_IP_IFACE": "eth0", "IP4_NUM_ADDRESSES": "1",
    "IP4_ADDRESS_0": "10.0.0.9/24 10.0.0.1", "IP4_NAMESERVERS": "10.0.0.1", "IP4_DOMAINS": "office.example",
    "IP6_ADDRESS_0": "fd00::9/64 fe80::1", "IP6_NAMESERVERS": "fe80::1",
}  # fmt: skip
NETWORKD = {
    "IFACE": "eth0", "STATE": "routable", "OperationalState": "routable", "AdministrativeState": "configured",
    "ADDR": "10.0.0.9", "IP_ADDRS": "10.0.0.9", "IP6_ADDRS": "fd00::9",
    "json": json.dumps({"DNS": ["10.0.0.1"], "Search Domains": ["office.example lab.example"], "Type": "ether"}),
}  # fmt: skip
UDHCPC = {"interface": "eth0", "ip": "10.0.0.9", "mask": "24", "subnet": "255.255.255.0", "router": "10.0.0.1",
          "dns": "10.0.0.1 10.0.0.2", "domain": "office.example", "lease": "120"}  # fmt: skip
EVERY: list[tuple[dict[str, str], list[str]]] = [
    (DHCLIENT, []), (DHCPCD, []), (NM, ["eth0", "dhcp4-change"]), (NETWORKD, []), (UDHCPC, ["bound"]),
]  # fmt: skip


def event_of(environ: dict[str, str], *arguments: str) -> dict[str, Any]:
    event, sentence = callers.event_of(environ, arguments)
    assert event is not None, sentence
    messages.encode(messages.EVENT, event)
    return event


# --- who calls, and what it says --------------------------------------------------------------------------------------


def test_each_client_becomes_one_event() -> None:
    """The five clients are told apart by what they set, and each becomes the event that its words mean."""
    assert event_of(DHCLIENT) == {
        "v": 1, "source": "dhclient", "reason": "REBIND", "interface": "eth0", "lease": "dhcp4", "kind": "change",
        "old": ["10.0.0.5/24"], "new": ["10.0.0.9/24"], "dns": ["10.0.0.1", "10.0.0.2"],
        "search": ["office.example", "lab.example"], "refused": 0,
    }  # fmt: skip
    found = event_of(DHCPCD)
    assert (found["source"], found["kind"], found["lease"], found["new"]) == ("dhcpcd", "up", "dhcp4", ["10.0.0.9/24"])
    found = event_of(NM, "eth0", "dhcp4-change")
    assert (found["source"], found["lease"]) == ("networkmanager", "all")
    assert found["new"] == ["10.0.0.9/24", "fd00::9/64"] and found["dns"] == ["10.0.0.1", "fe80::1%eth0"]
    found = event_of(NETWORKD)
    assert (found["source"], found["reason"], found["new"]) == ("networkd", "routable", ["10.0.0.9", "fd00::9"])
    assert found["dns"] == ["10.0.0.1"] and found["search"] == ["office.example", "lab.example"]
    for word in ("bound", "post-bound", "renew"):
        found = event_of(UDHCPC, word)
        assert (found["source"], found["kind"], found["new"]) == ("udhcpc", "up", ["10.0.0.9/24"])


def test_the_end_of_a_lease() -> None:
    """Expiry, release, a lost carrier and their like: the lease and its servers are gone."""
    for environ, arguments in (
        ({**DHCLIENT, "reason": "EXPIRE"}, []),
        ({**DHCLIENT, "reason": "RELEASE"}, []),
        ({**DHCPCD, "reason": "NOCARRIER", "protocol": "link"}, []),
        ({**NM, "NM_DISPATCHER_ACTION": "down"}, ["eth0", "down"]),
        ({**NETWORKD, "STATE": "off", "IP_ADDRS": "", "IP6_ADDRS": ""}, []),
        (UDHCPC, ["deconfig"]),
    ):
        found = event_of(environ, *arguments)
        assert (found["kind"], found["new"], found["dns"], found["search"]) == ("down", [], [], [])


def test_how_long_a_lease_is_had() -> None:
    """Three clients tell it, in seconds; for ever is no time, and what is no number is refused."""
    assert event_of({**DHCLIENT, "new_dhcp_lease_time": "600"})["lifetime"] == 600
    assert event_of({**DHCPCD, "new_dhcp_lease_time": "43200"})["lifetime"] == 43200
    assert event_of({**UDHCPC, "lease": "120"}, "renew")["lifetime"] == 120
    for endless in ("4294967295", ""):
        found = event_of({**DHCLIENT, "new_dhcp_lease_time": endless})
        assert "lifetime" not in found and found["refused"] == 0
    for bad in ("0", "-1", "1e9", "4294967296", "9" * 4000, "\u0663"):
        found = event_of({**DHCLIENT, "new_dhcp_lease_time": bad})
        assert "lifetime" not in found and found["refused"] == 1
    assert "lifetime" not in event_of({**DHCLIENT, "reason": "EXPIRE", "new_dhcp_lease_time": "600"})


def test_ipv6_leases_and_router_advertisements() -> None:
    """DHCPv6 and router advertisements are leases of their own, with their own variables."""
    six = {"reason": "BOUND6", "interface": "eth0", "new_ip6_address": "fd00::5", "new_ip6_prefixlen": "64",
           "new_dhcp6_name_servers": "fd00::1 fe80::1", "new_dhcp6_domain_search": "office.example."}  # fmt: skip
    found = event_of(six)
    assert (found["source"], found["lease"], found["new"]) == ("dhclient", "dhcp6", ["fd00::5/64"])
    assert found["dns"] == ["fd00::1", "fe80::1%eth0"] and found["search"] == ["office.example"]
    found = event_of({
        "reason": "BOUND6", "protocol": "dhcp6", "interface": "eth0", "new_dhcp6_ia_na1_ia_addr1": "fd00::7",
        "new_dhcp6_name_servers": "fd00::1",
    })  # fmt: skip
    assert (found["source"], found["lease"], found["new"]) == ("dhcpcd", "dhcp6", ["fd00::7"])
    found = event_of({
        "reason": "ROUTERADVERT", "protocol": "ra", "interface": "eth0", "nd1_rdnss1_servers": "fd00::1",
        "nd1_dnssl1_search": "office.example", "nd1_addr1": "fd00::8/64",
    })  # fmt: skip
    assert (found["lease"], found["new"], found["dns"]) == ("ra", ["fd00::8/64"], ["fd00::1"])
    assert found["search"] == ["office.example"]


def test_what_concerns_no_lease_is_not_told() -> None:
    """PREINIT and its like, hostname changes, and a person at a terminal: nothing is sent."""
    for environ, arguments in (
        ({**DHCLIENT, "reason": "PREINIT"}, []), ({**DHCLIENT, "reason": "MEDIUM"}, []),
        ({**DHCPCD, "reason": "CARRIER"}, []), ({**NM, "NM_DISPATCHER_ACTION": "hostname"}, ["", "hostname"]),
        ({"PATH": "/bin"}, []), ({"interface": "eth0"}, ["something"]),
    ):  # fmt: skip
        assert callers.event_of(environ, arguments)[0] is None


# --- strangers --------------------------------------------------------------------------------------------------------

HOSTILE = [
    "", " ", "$(touch /tmp/owned)", "`id`", "; rm -rf /", "'\"\\", "../../etc/passwd", "a" * 4096, "a" * 100_000,
    "10.0.0.256", "10.0.0.9/33", "10.0.0.9/garbage", "0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1", "::",
    "::1", "::ffff:127.0.0.1", "ff02::1", "fe80::1%../..", "10.0.0.1 " * 5000, ("x." * 200) + "example",
    "-bad-.example", "a..b", "-1",
    ".", "*", "\x1b[2J", "line\nbreak", "nul\udc00", "ünïcode", "٣.٣.٣.٣", "{" * 5000, "[" * 60_000, "%s%n",
]  # fmt: skip


@pytest.mark.parametrize(("environ", "arguments"), EVERY, ids=("dhclient", "dhcpcd", "nm", "networkd", "udhcpc"))
def test_hostile_values_are_refused_and_counted(environ: dict[str, str], arguments: list[str]) -> None:
    """Whatever stands in any variable: an event that the protocol permits, or none; nothing of it goes through."""
    for name, value in itertools.product(environ, HOSTILE):
        event, _ = callers.event_of({**environ, name: value}, arguments)
        if event is None:
            continue
        messages.encode(messages.EVENT, event)
        if event["reason"] == "refused":  # about nothing, but counted
            assert event.keys() == {"v", "source", "reason", "kind", "refused"} and event["refused"] >= 1
            continue
        texts = [event["source"], event["reason"], event["interface"], *event["dns"], *event["search"]]
        assert all(re.fullmatch(r"[A-Za-z0-9_.:@%-]{1,253}", text) for text in texts)
        assert all(re.fullmatch(r"[0-9a-f.:]+(/[0-9]+)?", text) for text in event["old"] + event["new"])
        assert not {"0.0.0.0", "127.0.0.1", "::1", "::", "ff02::1", "224.0.0.1", "255.255.255.255"} & set(event["dns"])
    refused = callers.event_of({**environ, "ip": "x", "new_ip_address": "x", "IP_ADDRS": "x", "IP4_ADDRESS_0": "x"},
                               arguments)[0]  # fmt: skip
    assert refused is not None and refused["refused"] >= 1


@given(st.dictionaries(
    st.sampled_from(sorted({name for environ, _ in EVERY for name in environ})), st.text(max_size=60), max_size=12,
), st.lists(st.sampled_from(["bound", "renew", "deconfig", "eth0", "up", ""]), max_size=2))  # fmt: skip
def test_any_environment_gives_a_proper_event_or_none(environ: dict[str, str], arguments: list[str]) -> None:
    """No environment makes the reader stumble, and every event that comes out is one that the broker takes."""
    event, sentence = callers.event_of(environ, arguments)
    assert sentence
    if event is not None:
        messages.encode(messages.EVENT, event)


def test_numbers_are_capped() -> None:
    """A hundred servers and domains are cut to what a lease may reasonably have, the rest is counted."""
    many = {**DHCLIENT, "new_domain_name_servers": " ".join(f"10.1.0.{n}" for n in range(1, 100)),
            "new_domain_search": " ".join(f"d{n}.example" for n in range(100))}  # fmt: skip
    found = event_of(many)
    assert len(found["dns"]) == 8 and len(found["search"]) == 16 and found["refused"] == 91 + 85


# --- the program ------------------------------------------------------------------------------------------------------


def program(*words: str, environ: dict[str, str], code: str = "") -> subprocess.CompletedProcess[str]:
    """Run `nexoraldns hook` the way a stub does: nothing but the client's environment."""
    start = ["-c", code] if code else ["-m", "controller.cli"]
    return subprocess.run(
        [sys.executable, *start, "hook", *words], capture_output=True, text=True, check=False, timeout=20, cwd="/",
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", **environ},
    )  # fmt: skip


def config(folder: pathlib.Path, port: int) -> str:
    path = folder / "node.yaml"
    path.write_text(yaml.safe_dump({"broker": {"listen": f"127.0.0.1:{port}", "keys": "broker.keys"}, "state": "."}))
    return str(path)


def test_the_program_tells_the_broker(tmp_path: pathlib.Path) -> None:
    """Called with a client's environment it logs in as a hook, tells its event, is heard, and ends with 0."""

    async def body() -> None:
        told: list[dict[str, Any]] = []
        async with peers.broker(tmp_path, on_event=told.append) as it:
            environ = {**DHCLIENT, "NEXORALDNS_CONFIG": config(tmp_path, it.port)}
            ran = await asyncio.to_thread(program, "--", environ=environ)
            assert (ran.returncode, ran.stdout) == (0, "") and "told the broker" in ran.stderr
            await peers.until(lambda: told)
            assert (told[0]["node"], told[0]["kind"]) == (socket.gethostname(), "change")
            assert told[0]["old"] == ["10.0.0.5/24"] and told[0]["dns"] == ["10.0.0.1", "10.0.0.2"]
            assert it.snapshot()["refused"] == {}

    asyncio.run(body())


def test_only_the_standard_library_and_yaml_are_imported(tmp_path: pathlib.Path) -> None:
    """On the whole way to the broker and to a file no other package is imported, and no module of click's side."""
    code = (
        "import sys, atexit\n"
        "def show():\n"
        "    tops = {n.partition('.')[0] for n in sys.modules} - set(sys.stdlib_module_names) - {'__main__', '_yaml'}\n"
        "    mine = sorted(n for n in sys.modules if n.startswith(('controller.', 'dnsd.')))\n"
        "    print(sorted(tops), *mine)\n"
        "atexit.register(show)\n"
        "import site; sys.modules.pop('sitecustomize', None)\n"
        "before = {n.partition('.')[0] for n in sys.modules} - set(sys.stdlib_module_names)\n"
        "for n in before - {'__main__'}: sys.modules.pop(n, None)\n"
        "from controller.cli import main; main()"
    )

    async def body() -> None:
        async with peers.broker(tmp_path) as it:
            for port, word in ((it.port, "told the broker"), (1, "for the controller")):
                environ = {**DHCLIENT, "NEXORALDNS_CONFIG": config(tmp_path, port)}
                ran = await asyncio.to_thread(program, "--", environ=environ, code=code)
                assert ran.returncode == 0 and word in ran.stderr, ran.stderr
                packages, _, modules = ran.stdout.partition("]")
                found = set(re.findall(r"'(\w+)'", packages))
                found = {name for name in found if "cython" not in name}  # PyYAML's own C module brings its runtime
                assert found == {"controller", "dnsd", "yaml"}, ran.stdout
                assert not {"asyncio", "click"} & set(modules.split()) and "controller.cli.frame" not in modules

    asyncio.run(body())


def test_the_program_is_quick(tmp_path: pathlib.Path) -> None:
    """It uses less than 0.4 s of processor time from the start of the interpreter to the file that it leaves."""
    environ = {**DHCLIENT, "NEXORALDNS_CONFIG": config(tmp_path, 1)}
    used = []
    for _ in range(3):
        before = os.times()
        assert program("--", environ=environ).returncode == 0
        after = os.times()
        used.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(used) < 0.4, used


def test_a_broker_that_says_nothing_costs_less_than_two_seconds(tmp_path: pathlib.Path) -> None:
    """Somebody listens but never speaks: after the deadline the event is left as a file, and the code is 0."""
    config_path = config(tmp_path, 1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        config(tmp_path, mute.getsockname()[1])
        broker_keys.load_or_make(str(tmp_path / "broker.keys"))
        before = time.monotonic()
        ran = program("--", environ={**DHCLIENT, "NEXORALDNS_CONFIG": config_path})
        assert ran.returncode == 0 and time.monotonic() - before < 2.0
        assert "does not answer" in ran.stderr and len(list((tmp_path / "events").glob("*.json"))) == 1


def test_a_dripping_or_lying_broker(tmp_path: pathlib.Path) -> None:
    """One octet at a time, nonsense, or a hang-up: the one deadline holds for all of it together."""
    broker_keys.load_or_make(str(tmp_path / "broker.keys"))
    with socket.create_server(("127.0.0.1", 0)) as liar:
        manner = iter((b"\x00", b"HTTP/1.1 400 Bad Request\r\n\r\n", b""))

        def serve() -> None:
            for data in manner:
                sock, _ = liar.accept()
                with sock:
                    try:
                        for _ in range(100 if data == b"\x00" else 1):
                            sock.sendall(data)
                            threading.Event().wait(0.05)
                    except OSError:
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        for _ in range(3):
            before = time.monotonic()
            environ = {**DHCLIENT, "NEXORALDNS_CONFIG": config(tmp_path, liar.getsockname()[1])}
            assert program("--", environ=environ).returncode == 0 and time.monotonic() - before < 2.0
    assert len(list((tmp_path / "events").glob("*.json"))) == 3


@pytest.mark.parametrize("what", ["no settings", "not there", "not YAML", "a fifo", "no state", "open keys", "no args"])
def test_nothing_makes_it_fail(tmp_path: pathlib.Path, what: str) -> None:
    """Settings that are missing, broken or that block, no state folder, keys that are open to all: 0, in time."""
    path = pathlib.Path(config(tmp_path, 1))
    environ = {**DHCLIENT, "NEXORALDNS_CONFIG": str(path)}
    if what == "no settings":
        del environ["NEXORALDNS_CONFIG"]
    elif what == "not there":
        path.unlink()
    elif what == "not YAML":
        path.write_text("{[")
    elif what == "a fifo":
        path.unlink()
        os.mkfifo(path)
    elif what == "no state":
        path.write_text("state: /nowhere/at/all\n")
    elif what == "open keys":
        (tmp_path / "broker.keys").write_text("hook hook AAAAAAAAAAAAAAAAAAAAAA==\n")
        (tmp_path / "broker.keys").chmod(0o644)
    before = time.monotonic()
    words = () if what == "no args" else ("--", "--help", "install")
    ran = program(*words, environ=environ)
    assert ran.returncode == 0 and ran.stdout == "" and time.monotonic() - before < 2.2
    assert "Traceback" not in ran.stderr


def test_what_takes_too_long_is_finished_behind(tmp_path: pathlib.Path) -> None:
    """On a box so slow that the settings are read after 2.5 s: 0 in time, and the event is left all the same."""
    code = (
        "import time, threading, controller.node as node\n"
        "read = node.read\n"
        "node.read = lambda *words: (threading.Event().wait(2.5), read(*words))[1]\n"
        "from controller.cli import main; main()"
    )
    before = time.monotonic()
    ran = program("--", environ={**DHCLIENT, "NEXORALDNS_CONFIG": config(tmp_path, 1)}, code=code)
    assert ran.returncode == 0 and time.monotonic() - before < 2.4 and not (tmp_path / "events").exists()
    while not list(tmp_path.glob("events/*.json")):
        assert time.monotonic() - before < 8
        time.sleep(0.05)


def test_networkmanager_tells_a_change_before_it_has_an_address() -> None:
    """The first dhcp4-change of NetworkManager 1.42 has no address yet (seen with the real one): that ends no lease."""
    early = {"NM_DISPATCHER_ACTION": "dhcp4-change", "DEVICE_IFACE": "eth0", "DEVICE_IP_IFACE": "eth0"}
    found = event_of(early, "eth0", "dhcp4-change")
    assert (found["kind"], found["new"], found["dns"]) == ("same", [], [])


def test_an_interface_called_install_installs_nothing(tmp_path: pathlib.Path) -> None:
    """NetworkManager's arguments come after `--`: whatever the interface is called, it is no verb."""
    environ = {**NM, "DEVICE_IP_IFACE": "install", "NEXORALDNS_CONFIG": config(tmp_path, 1)}
    ran = program("--", "install", "up", environ=environ)
    assert ran.returncode == 0 and "networkmanager: dhcp4-change on install" in ran.stderr


# --- files for a controller that is away ------------------------------------------------------------------------------


def test_left_events_are_taken_up_in_order(tmp_path: pathlib.Path) -> None:
    """The controller reads what was left, once, in order; what is no event is counted and removed."""
    first, second = event_of(DHCPCD), event_of(DHCLIENT)
    heard: list[tuple[str, dict[str, Any]]] = []
    spool = Spool(str(tmp_path), lambda machine, event: heard.append((machine, event)))
    spool.prepare()
    for event in (first, second):
        assert "for the controller" in delivery.leave(str(tmp_path), event)
    folder = tmp_path / "events"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    (folder / "1.json").write_text("{}")
    (folder / "2.json").write_bytes(b"\xff" * 100_000)
    (folder / "3.json").symlink_to("/etc/passwd")
    os.mkfifo(folder / "4.json")
    spool.look()
    assert heard == [(socket.gethostname(), first), (socket.gethostname(), second)]
    assert (spool.taken, spool.refused, list(folder.iterdir())) == (2, 4, [])
    spool.look()
    delivery.leave(str(tmp_path), first)
    spool.look()
    assert spool.taken == 3
    delivery.leave(str(tmp_path), {**first, "at": 5, "lifetime": 60})
    (made,) = folder.iterdir()
    text = made.read_text()
    spool.look()
    assert heard[-1][1] == {**first, "at": 5, "lifetime": 60}  # of this boot: `at` counts
    made.write_text(text.replace('"boot": "', '"boot": "x'))
    spool.look()
    assert (spool.stale, spool.taken, list(folder.iterdir())) == (1, 4, [])  # of another: its lease is had no more


def test_left_files_are_bounded(tmp_path: pathlib.Path) -> None:
    """With nobody to take them the oldest make room: never more than 64."""
    for number in range(70):
        delivery.leave(str(tmp_path), {**event_of(DHCPCD), "refused": number})
    left = sorted((tmp_path / "events").iterdir())
    assert len(left) == 64 and json.loads(left[-1].read_text())["refused"] == 69


def test_a_folder_that_is_not_ours_is_not_used(tmp_path: pathlib.Path) -> None:
    """A link, or a folder that others may write to, gets nothing: root's hook must not be led elsewhere."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "events").symlink_to(tmp_path / "elsewhere")
    assert "nothing could be left" in delivery.leave(str(tmp_path), event_of(DHCPCD))
    (tmp_path / "events").unlink()
    (tmp_path / "events").mkdir()
    (tmp_path / "events").chmod(0o777)
    assert "others may write" in delivery.leave(str(tmp_path), event_of(DHCPCD))
    assert not list((tmp_path / "events").iterdir()) and not list((tmp_path / "elsewhere").iterdir())


def test_a_left_event_reaches_the_node_and_the_page(tmp_path: pathlib.Path) -> None:
    """What a hook left while the broker was away is news like any other once it is back."""
    delivery.leave(str(tmp_path), event_of(DHCLIENT))

    async def body() -> None:
        told: list[dict[str, Any]] = []
        async with peers.broker(tmp_path, on_event=told.append) as it:
            assert isinstance(it, Broker)
            Spool(str(tmp_path), it.event).look()
            await peers.until(lambda: told)
            assert told[0]["reason"] == "REBIND" and told[0]["node"] == socket.gethostname()

    asyncio.run(body())


# --- in their places --------------------------------------------------------------------------------------------------


def machine(folder: pathlib.Path) -> pathlib.Path:
    """A root with the folders of all five clients, as Debian has them."""
    root = folder / "root"
    for name in (
        "etc/dhcp/dhclient-exit-hooks.d", "usr/lib/dhcpcd/dhcpcd-hooks", "etc/NetworkManager/dispatcher.d",
        *(f"etc/networkd-dispatcher/{state}.d" for state in ("routable", "degraded", "off", "no-carrier", "carrier")),
        "etc/udhcpc", "etc/nexoraldns",
    ):  # fmt: skip
        (root / name).mkdir(parents=True)
        (root / name).chmod(0o755)
    (root / "etc/udhcpc/default.script").write_text('#!/bin/sh\necho "original $1"\nexit 3\n')
    (root / "etc/udhcpc/default.script").chmod(0o755)
    (root / "etc/dhcp/dhclient-exit-hooks.d/theirs").write_text("# somebody else's\n")
    (root / "etc/nexoraldns/nexoraldns.yaml").write_text("")
    return root


def everything(root: pathlib.Path) -> dict[str, Any]:
    return {
        str(path.relative_to(root)): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(root.rglob("*"))
    }


def hook(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "controller.cli", "hook", *words], capture_output=True, text=True, check=False, cwd=ROOT,
        timeout=30,
    )  # fmt: skip


def test_install_status_remove(tmp_path: pathlib.Path) -> None:
    """Right places, right modes, again changes nothing, and `remove` leaves exactly what was there before."""
    root = machine(tmp_path)
    before = everything(root)
    assert hook("status", "--root", str(root)).returncode == 1
    words = ("install", "--root", str(root), "--config", "/etc/nexoraldns/nexoraldns.yaml")
    ran = hook(*words)
    assert ran.returncode == 0 and ran.stdout.count("installed: ") == 9, ran.stdout + ran.stderr
    assert "udhcpc -s /etc/udhcpc/nexoraldns.script" in ran.stdout
    modes = {name: stat.S_IMODE(mode) for name, (mode, _) in everything(root).items() if name not in before}
    assert {mode for name, mode in modes.items() if "dhclient" in name or "dhcpcd" in name} == {0o644}
    assert {mode for name, mode in modes.items() if "dispatcher" in name or "udhcpc" in name} == {0o755}
    assert not any("." in pathlib.Path(name).name for name in modes if "dhclient" in name)
    installed = everything(root)
    ran = hook(*words)
    assert ran.returncode == 0 and ran.stdout.count("there already: ") == 9 and everything(root) == installed
    ran = hook("status", "--root", str(root), "--format", "json")
    rows = json.loads(ran.stdout)["hooks"]
    assert len(rows) == 9 and {row["state"] for row in rows} == {"installed"}
    for path in modes:
        assert subprocess.run(["sh", "-n", str(root / path)], check=False).returncode == 0
    ran = hook("remove", "--root", str(root))
    assert ran.returncode == 0 and ran.stdout.count("removed: ") == 9 and everything(root) == before
    assert hook("remove", "--root", str(root)).stdout.count("was not there: ") == 9


def test_alpine_folders_are_made_and_unmade(tmp_path: pathlib.Path) -> None:
    """Where udhcpc's script runs /etc/udhcpc/post-*, the stubs go there; folders that we made go again, others stay."""
    root = tmp_path / "root"
    (root / "usr/share/udhcpc").mkdir(parents=True)
    (root / "usr/share/udhcpc/default.script").write_text("#!/bin/sh\nrun /etc/udhcpc/post-$1\n")
    (root / "etc/udhcpc/post-renew").mkdir(parents=True)
    before = everything(root)
    found = places.places(str(root))
    places.install(str(root), found, places.Program((sys.executable,)))
    assert "hook -- bound" in (root / "etc/udhcpc/post-bound/nexoraldns").read_text()
    assert {each.state for each in places.look(str(root), found)} == {"installed"}
    places.remove(str(root), found)
    assert everything(root) == before


def test_what_is_not_ours_is_not_touched(tmp_path: pathlib.Path) -> None:
    """Somebody else's file or link in our place: refused with 2, in words, and nothing at all was written."""
    root = machine(tmp_path)
    for make in (lambda p: p.write_text("theirs\n"), lambda p: p.symlink_to("/etc/passwd"), lambda p: p.mkdir()):
        path = root / "etc/networkd-dispatcher/routable.d/90-nexoraldns"
        make(path)
        before = everything(root)
        for verb in ("install", "remove"):
            ran = hook(verb, "--root", str(root), "--client", "networkd")
            assert ran.returncode == 2 and "is not a stub of ours" in ran.stderr and "Traceback" not in ran.stderr
        assert hook("status", "--root", str(root), "--client", "networkd").returncode == 1
        assert everything(root) == before
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def test_status_says_why_a_stub_would_not_run(tmp_path: pathlib.Path) -> None:
    """A wrong mode, a changed text, a folder that networkd-dispatcher ignores, a program that has gone: all said."""
    root = machine(tmp_path)
    (root / "opt").mkdir()
    (root / "opt/nexoraldns").write_text("#!/bin/sh\n")
    found = places.places(str(root))
    places.install(str(root), found, places.Program(("/opt/nexoraldns",), "/etc/nexoraldns/nexoraldns.yaml"))
    assert not any(each.problem for each in places.look(str(root), found))
    (root / "etc/dhcp/dhclient-exit-hooks.d/zz-nexoraldns").chmod(0o600)
    with (root / "usr/lib/dhcpcd/dhcpcd-hooks/90-nexoraldns").open("a") as file:
        file.write("exit 1\n")
    (root / "etc/networkd-dispatcher/off.d").chmod(0o775)
    text = hook("status", "--root", str(root)).stdout
    assert "its mode is 0600, not 0644" in text and "altered" in text and "wants exactly 0755" in text
    (root / "opt/nexoraldns").unlink()
    assert "/opt/nexoraldns is not there" in hook("status", "--root", str(root), "--client", "udhcpc").stdout
    ran = hook("install", "--root", str(root), "--program", "/opt/nexoraldns", "--config",
               "/etc/nexoraldns/nexoraldns.yaml")  # fmt: skip
    assert ran.returncode == 0 and ran.stdout.count("updated: ") == 2


def test_no_client_is_said_in_words(tmp_path: pathlib.Path) -> None:
    """Nothing to install for: exit code 2, and a sentence; a client that is not there by name as well."""
    for words in ((), ("--client", "dhcpcd")):
        ran = hook("install", "--root", str(tmp_path), *words)
        assert ran.returncode == 2 and "installed" in ran.stderr and "Traceback" not in ran.stderr


# --- no client waits or fails -----------------------------------------------------------------------------------------

PROGRAMS = {
    "hangs": '#!/bin/sh\necho $$ >>"$HERE/pids"\nexec sleep 60\n',
    "ignores signals": '#!/bin/sh\ntrap "" TERM INT HUP\necho $$ >>"$HERE/pids"\nexec sleep 60\n',
    "fails": "#!/bin/sh\nexit 9\n",
    "is no program": "\x7fELF nothing",
    "has gone": "",
}


@pytest.mark.parametrize("manner", PROGRAMS)
def test_a_stub_neither_blocks_nor_fails_its_client(tmp_path: pathlib.Path, manner: str) -> None:
    """The program hangs, ignores signals, fails, is broken or gone: sourced stubs return at once under `set -eu` and
    leave no variable; executed ones end with 0; udhcpc's with the code of the script that it wraps."""
    root = machine(tmp_path)
    made = tmp_path / "nexoral dns"
    made.write_text(PROGRAMS[manner])
    made.chmod(0o755)
    found = places.places(str(root))
    # The wrapped script is named as the running system sees it; here that is below our root.
    wrapped = str(root / "etc/udhcpc/default.script")
    program_ = places.Program((str(made),), str(tmp_path / "settings; with $signs.yaml"))
    places.install(str(root), found, program_)
    if manner == "has gone":
        made.unlink()
    environ = {"PATH": "/usr/bin:/bin", "HERE": str(tmp_path), "reason": "BOUND", "interface": "eth0"}
    try:
        for place in found:
            path = root / place.path.lstrip("/")
            if place.original:
                path.write_text(path.read_text().replace(place.original, wrapped))
            for shell in ("dash", "bash"):
                before = time.monotonic()
                if place.stub == "sourced.sh":
                    code = f"set -eu; old=$(set | wc -l); . '{path}'; new=$(set | wc -l); echo $old $new here $?"
                    words = [shell, "-c", code]
                else:
                    words = [str(path), "bound"]
                ran = subprocess.run(words, env=environ, capture_output=True, text=True, check=False, timeout=20)
                took = time.monotonic() - before
                assert took < 2.0, (place.path, took)
                if place.stub == "sourced.sh":
                    assert ran.returncode == 0 and ran.stdout.endswith("here 0\n"), ran.stderr
                elif place.original:
                    assert ran.returncode == 3 and ran.stdout == "original bound\n"
                else:
                    assert ran.returncode == 0 and ran.stdout == ran.stderr == ""
    finally:
        pids = [int(line) for line in (tmp_path / "pids").read_text().split()] if (tmp_path / "pids").exists() else []
    if manner in ("hangs", "ignores signals"):
        deadline = time.monotonic() + 9
        while any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.1)
        alive = [pid for pid in pids if pathlib.Path(f"/proc/{pid}").exists()]
        assert pids and not alive, "5 s are the most that one lives"


def test_the_stub_bakes_its_settings_in_and_the_environment_wins(tmp_path: pathlib.Path) -> None:
    """The program gets the path of `install --config`, unless NEXORALDNS_CONFIG is set already."""
    root = machine(tmp_path)
    made = tmp_path / "show"
    made.write_text('#!/bin/sh\nprintf "%s|%s\\n" "$NEXORALDNS_CONFIG" "$*" >>"$HERE/seen.new"\n'
                    'mv "$HERE/seen.new" "$HERE/seen"\n')  # fmt: skip
    made.chmod(0o755)
    found = places.places(str(root), ["networkmanager", "dhclient"])
    places.install(str(root), found, places.Program((str(made),), "/etc/it's/node.yaml"))
    for extra, expected in (({}, "/etc/it's/node.yaml"), ({"NEXORALDNS_CONFIG": "/mine.yaml"}, "/mine.yaml")):
        for place in found:
            arguments = "hook -- eth0 up" if place.client == "networkmanager" else "hook --"
            path = str(root / place.path.lstrip("/"))
            words = [path, "eth0", "up"] if place.stub == "executed.sh" else ["sh", "-c", f". '{path}'"]
            subprocess.run(words, env={"PATH": "/usr/bin:/bin", "HERE": str(tmp_path), **extra}, check=True)
            seen = tmp_path / "seen"
            deadline = time.monotonic() + 5
            while not seen.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            assert seen.read_text() == f"{expected}|{arguments}\n"
            seen.unlink()

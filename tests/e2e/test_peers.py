"""Programs that others wrote, as clients of a node that resolves a signed Internet of real servers: what each must see.

dig, kdig, delv, drill, a validating Unbound, glibc and systemd-resolved, each as they are used; the node's own zones and
forwarders beside recursion.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
import yaml

from tests import lan as lans
from tests.lab import Lab
from tests.lan import ROOT, Lan, Process, free_port, until

VETH = "10.253.71.1"  # where systemd-resolved reaches it from a namespace of its own
STUB = "127.71.53.1"  # where the node listens on port 53: stub resolvers know no other
RULES = {"office.yaml": """\
version: 1
groups: {kids: {members: [127.0.1.0/24]}}
lists: {ads: {domains: [ads.example]}}
rules: [{name: no-ads, block: [list:ads]}]
zones:
  home.example: {ptr: auto, records: {nas: 10.0.0.5, "@": {type: MX, value: 10 nas}, other: {type: CNAME, value: www.farm.lab.}}}
forward: {".": recurse}
"""}  # fmt: skip


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Real NSD and Knot, with signed zones."""
    found = Lab(tmp_path_factory.mktemp("lab"), more=["--no-resolver"])
    try:
        found.answers()
        yield found
    finally:
        found.process.end()


@pytest.fixture(scope="module")
def resolver(lab: Lab) -> dict[str, object]:
    """The settings for this Internet."""
    found: dict[str, object] = yaml.safe_load((lab.folder / "node.yaml").read_text())["resolver"]
    return found


@pytest.fixture(scope="module")
def lan(resolver: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    """A node with two workers."""
    settings = {"resolver": resolver, "clients": {"identity": "desk-7"}, "cache": {"size": "4MiB"}}
    with lans.office(tmp_path_factory.mktemp("office"), settings, RULES) as office:
        # An address that comes later is listened on all the same.
        office.settings["listen"] += [f"{STUB}:53", f"{VETH}:{office.dns}", f"[::1]:{office.dns}"]
        office.config.write_text(yaml.safe_dump(office.settings))
        office.start("run")
        office.answers()
        yield office


@pytest.fixture(scope="module")
def anchor(resolver: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The root's key as DS records, as Unbound and drill read it."""
    path = tmp_path_factory.mktemp("anchor") / "root.key"
    given = resolver["trust_anchors"]
    texts = given if isinstance(given, list) else pathlib.Path(str(given)).read_text().splitlines()
    path.write_text("".join(f"{line}\n" for line in texts if line.strip()))
    return path


def ran(*words: str, timeout_s: float = 20) -> str:
    """A program's output, both kinds."""
    found = subprocess.run(words, capture_output=True, text=True, check=False, timeout=timeout_s)
    return found.stdout + found.stderr


# --- dig and kdig -----------------------------------------------------------------------------------------------------


def test_dig_with_each_option(lan: Lan) -> None:
    """+dnssec +cd +norec +tcp +bufsize, one by one and together: flags, sections and sizes are what dig expects."""
    signed = lan.dig("www.farm.lab", "A", "+dnssec")
    assert signed.rcode == "NOERROR" and {"qr", "rd", "ra", "ad"} <= signed.flags
    assert {rtype for _, rtype, _ in signed.records} == {"A", "RRSIG"}
    plain = lan.dig("www.farm.lab", "A", "+noadflag")
    assert "ad" not in plain.flags and {rtype for _, rtype, _ in plain.records} == {"A"}
    bogus = lan.dig("www.bogus.lab", "A", "+dnssec")
    assert bogus.rcode == "SERVFAIL" and "does not hold" in bogus.ede
    unchecked = lan.dig("www.bogus.lab", "A", "+dnssec", "+cd")
    assert unchecked.rcode == "NOERROR" and "cd" in unchecked.flags and "ad" not in unchecked.flags and unchecked.records
    assert lan.dig("never-asked.farm.lab", "A", "+norec").rcode == "REFUSED"
    for _ in range(8):  # each worker has a memory of its own
        lan.dig("www.farm.lab", "TXT")
    known = lan.dig("www.farm.lab", "TXT", "+norec")
    assert known.rcode == "NOERROR" and "rd" not in known.flags
    large = lan.dig("large.farm.lab", "TXT", "+dnssec", "+bufsize=512", "+ignore")
    assert "tc" in large.flags and not large.records
    size = re.search(r"MSG SIZE\s+rcvd: (\d+)", large.text)
    assert size and int(size[1]) <= 512
    over_tcp = lan.dig("large.farm.lab", "TXT", "+dnssec", "+tcp", "+cd", "+bufsize=4096")
    assert over_tcp.rcode == "NOERROR" and over_tcp.records and "(TCP)" in over_tcp.text
    # What is advertised to clients is 1232, whatever they say (DNS flag day 2020).
    assert "udp: 1232" in lan.dig("www.farm.lab", "A", "+bufsize=4096").text


def test_dig_and_edns_that_nobody_knows(lan: Lan) -> None:
    """A version from the future is BADVERS, unknown options and flags are passed over, without EDNS there is none."""
    version = lan.dig("www.farm.lab", "A", "+edns=1", "+noednsnegotiation")
    assert version.rcode == "BADVERS" and "version: 0" in version.text and not version.records
    negotiated = lan.dig("www.farm.lab", "A", "+edns=1")
    assert negotiated.rcode == "NOERROR" and negotiated.records
    for options in (["+ednsopt=65001:c0ffee"], ["+ednsflags=0x40"], ["+subnet=192.0.2.0/24"], ["+padding=128"]):
        answer = lan.dig("www.farm.lab", "A", *options)
        assert answer.rcode == "NOERROR" and answer.records and "CLIENT-SUBNET" not in answer.text, options
    assert "OPT PSEUDOSECTION" not in lan.dig("www.farm.lab", "A", "+noedns").text


def test_cookies_identity_and_the_chaos_names(lan: Lan) -> None:
    """dig finds our cookie good, NSID and id.server are what the settings say, the served revision is told; AXFR is not."""
    assert "(good)" in lan.dig("www.farm.lab", "A", "+cookie").text
    assert 'NSID: 64 65 73 6b 2d 37 ("desk-7")' in lan.dig("www.farm.lab", "A", "+nsid").text
    for name, words in (("id.server", "desk-7"), ("version.server", "NexoralDNS"), ("version.bind", "NexoralDNS"),
                        ("revision.server", "rules.d@sha256:")):  # fmt: skip
        answer = lan.dig(name, "TXT", "-c", "CH")
        assert answer.rcode == "NOERROR" and words in answer.data[0], name
    assert lan.dig("authors.bind", "TXT", "-c", "CH").rcode == "REFUSED"
    assert lan.dig("farm.lab", "AXFR").records == ()


def test_how_long_a_connection_may_be_idle(lan: Lan) -> None:
    """RFC 7828: dig asks for it over TCP and is told; over UDP it is not."""
    assert re.search(r"TCP.KEEPALIVE: \d+", lan.dig("www.farm.lab", "A", "+tcp", "+keepalive").text, re.I)
    assert "KEEPALIVE" not in lan.dig("www.farm.lab", "A", "+keepalive").text.upper().replace("+KEEPALIVE", "")


def test_clients_over_ipv6(lan: Lan) -> None:
    """dig and drill over ::1, UDP and TCP."""
    for words in (["dig", "@::1", "-p", str(lan.dns), "www.farm.lab"], ["dig", "@::1", "-p", str(lan.dns), "www.farm.lab", "+tcp"],
                  ["drill", "-p", str(lan.dns), "www.farm.lab", "@::1"]):  # fmt: skip
        assert "192.0.2.2" in ran(*words), words


def test_any_is_one_record(lan: Lan) -> None:
    """RFC 8482: HINFO "RFC8482", over UDP and TCP, for names of ours and of others."""
    for name in ("www.farm.lab", "home.example"):
        for transport in ("+notcp", "+tcp"):
            answer = lan.dig(name, "ANY", transport)
            assert [(rtype, data) for _, rtype, data in answer.records] == [("HINFO", '"RFC8482" ""')], (name, transport)


def test_kdig_agrees(lan: Lan) -> None:
    """Knot's client: signatures and AD, cookies, NSID, padding, keepalive, a large answer over TCP, a made-up option."""
    text = lan.dig("www.farm.lab", "A", "+dnssec", "+nsid", "+cookie", "+padding=64", program="kdig").text
    assert "status: NOERROR" in text and re.search(r"Flags: qr rd ra ad;", text) and "RRSIG" in text
    assert "desk-7" in text and "COOKIE" in text
    text = lan.dig("www.farm.lab", "A", "+tcp", "+ednsopt=65001:c0ffee", "+keepopen", program="kdig").text
    assert "status: NOERROR" in text and "(TCP)" in text
    assert "TC" not in lan.dig("large.farm.lab", "TXT", program="kdig").text.split("QUESTION")[0]
    two = ran("kdig", "@127.0.0.1", "-p", str(lan.dns), "+tcp", "+keepopen", "www.farm.lab", "A", "www.lab", "A")
    assert two.count("status: NOERROR") == 2


# --- who validates ----------------------------------------------------------------------------------------------------


def test_delv_validates_through_us(lan: Lan, anchor: pathlib.Path) -> None:
    """BIND's validator gets every DS, DNSKEY and proof from us: valid, forged, unsigned, and denied, as it should be."""
    ds = [line.split() for line in anchor.read_text().splitlines()]
    keys = anchor.with_name("delv.keys")
    rows = (f'  . static-ds {" ".join(row[row.index("DS") + 1 :][:3])} "{"".join(row[row.index("DS") + 4 :])}";' for row in ds)
    keys.write_text("trust-anchors {\n" + "\n".join(rows) + "\n};\n")

    def delv(name: str, qtype: str = "A") -> str:
        return ran("delv", "@127.0.0.1", "-p", str(lan.dns), "-a", str(keys), "+root=.", name, qtype)

    assert "; fully validated" in delv("www.farm.lab")
    assert "; fully validated" in delv("door.shop")  # an alias from one signed zone into another
    assert "; unsigned answer" in delv("www.nods.lab")
    assert "resolution failed" in delv("www.bogus.lab") and "resolution failed" in delv("www.expired.lab")
    assert "; negative response, fully validated" in delv("nothing.lab")
    assert "; negative response, fully validated" in delv("www.lab", "MX")


def test_drill_chases_signatures_through_us(lan: Lan, anchor: pathlib.Path) -> None:
    """`drill -S` draws a trusted tree from the record to the root's key, and none for what was forged."""
    words = ("drill", "-S", "-k", str(anchor), "-p", str(lan.dns), "@127.0.0.1")
    tree = ran(*words, "www.farm.lab", "A")
    assert ";; Chase successful" in tree and "farm.lab. (DNSKEY" in tree and ". (DNSKEY" in tree
    assert ";; Chase successful" not in ran(*words, "www.bogus.lab", "A")


def test_a_validating_unbound_behind_us(lan: Lan, anchor: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Unbound forwards to us, over UDP and over TCP, and validates by itself: the same verdicts as ours."""
    for tcp in ("no", "yes"):
        folder = tmp_path / tcp
        folder.mkdir()
        port = free_port()
        (folder / "unbound.conf").write_text(
            f'server:\n  directory: "{folder}"\n  chroot: ""\n  username: ""\n  pidfile: ""\n  interface: 127.0.0.1\n'
            f"  port: {port}\n  do-daemonize: no\n  use-syslog: no\n  do-not-query-localhost: no\n  tcp-upstream: {tcp}\n"
            f'  trust-anchor-file: "{anchor}"\n  module-config: "validator iterator"\n  ede: yes\n'
            f'forward-zone:\n  name: "."\n  forward-addr: 127.0.0.1@{lan.dns}\nremote-control:\n  control-enable: no\n'
        )
        process = Process("unbound", [shutil.which("unbound") or "/usr/sbin/unbound", "-c", str(folder / "unbound.conf")],
                          folder)  # fmt: skip
        try:
            until(lambda: lans.dig(port, "www.lab").rcode == "NOERROR", 10, "an answer from unbound")  # noqa: B023
            for name, rcode, ad in (("www.farm.lab", "NOERROR", True), ("door.shop", "NOERROR", True),
                                    ("www.nods.lab", "NOERROR", False), ("www.bogus.lab", "SERVFAIL", False),
                                    ("nothing.lab", "NXDOMAIN", True), ("www.wrongds.lab", "SERVFAIL", False)):  # fmt: skip
                theirs, ours = lans.dig(port, name, "A", "+dnssec"), lan.dig(name, "A", "+dnssec")
                assert (theirs.rcode, "ad" in theirs.flags) == (rcode, ad) == (ours.rcode, "ad" in ours.flags), (name, tcp)
            # Many at once: with TCP they are pipelined over few connections, and answered as they are ready.
            names = [f"{label}.deep.farm.lab" for label in "abcdefghijklmnop"]
            asked = [subprocess.Popen(["dig", "@127.0.0.1", "-p", str(port), name, "+tries=1", "+time=5"], text=True,
                                      stdout=subprocess.PIPE) for name in names]  # fmt: skip
            assert all("NXDOMAIN" in one.communicate(timeout=10)[0] for one in asked)
        finally:
            process.end()


# --- stub resolvers ---------------------------------------------------------------------------------------------------

_GLIBC = """
import ctypes, json, socket
libc = ctypes.CDLL("libc.so.6", use_errno=True)
def look(name):
    try:
        return sorted({row[4][0] for row in socket.getaddrinfo(name, 443, proto=socket.IPPROTO_TCP)})
    except socket.gaierror as error:
        return str(error)
query = getattr(ctypes.CDLL("libresolv.so.2"), "__res_query", None) or ctypes.CDLL("libresolv.so.2").res_query
def ad(name):
    buffer = ctypes.create_string_buffer(4096)
    size = query(name.encode(), 1, 1, buffer, 4096)
    return bool(buffer.raw[3] & 0x20) if size > 0 else None
names = ["www.farm.lab", "door.shop", "nas.home.example", "www.ads.example", "www.bogus.lab", "other.home.example"]
print(json.dumps({"found": {name: look(name) for name in names}, "ad": {n: ad(n) for n in ("www.farm.lab", "www.nods.lab")},
                  "back": socket.gethostbyaddr("10.0.0.5")[0]}))
"""


def test_glibc_asks_us(lan: Lan, tmp_path: pathlib.Path) -> None:
    """getaddrinfo, gethostbyaddr and res_query with `options edns0 trust-ad`: addresses, aliases, refusals, and AD."""
    (tmp_path / "resolv.conf").write_text(f"nameserver {STUB}\noptions edns0 trust-ad timeout:4 attempts:1\n")
    (tmp_path / "nsswitch.conf").write_text("hosts: dns\n")
    (tmp_path / "ask.py").write_text(_GLIBC)
    script = (f"mount --bind {tmp_path}/nsswitch.conf /etc/nsswitch.conf && "
              f"mount --bind {tmp_path}/resolv.conf $(readlink -f /etc/resolv.conf) && exec {sys.executable} {tmp_path}/ask.py")
    found = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False, timeout=30)
    assert found.returncode == 0, found.stderr
    said = json.loads(found.stdout)
    assert said["found"]["www.farm.lab"] == ["192.0.2.2"] and said["found"]["door.shop"] == ["192.0.2.2"]
    assert said["found"]["nas.home.example"] == ["10.0.0.5"] and said["back"] == "nas.home.example"
    assert said["found"]["other.home.example"] == ["192.0.2.2"]
    assert "not known" in said["found"]["www.ads.example"] and "[Errno" in said["found"]["www.bogus.lab"]
    assert said["ad"] == {"www.farm.lab": True, "www.nods.lab": False}


def resolved() -> tuple[pathlib.Path, str]:
    """systemd-resolved and where its libraries are: the machine's, or unpacked beside our environment by ci/setup."""
    for root in (pathlib.Path("/"), ROOT / ".venv" / "debian"):
        program = root / "lib/systemd/systemd-resolved"
        if program.exists():
            unpacked = root.rglob("libsystemd*.so*") if root != pathlib.Path("/") else ()
            libraries = {str(path.parent) for path in unpacked}
            return program, ":".join(sorted(libraries))
    raise AssertionError("systemd-resolved is not here: ci/setup test unpacks it")


_RESOLVED = """
set -e
mount -t tmpfs none /run
mkdir -p /run/systemd/resolve /run/anchors
cp /etc/passwd /run/passwd
grep -q '^systemd-resolve:' /run/passwd || echo 'systemd-resolve:x:0:0::/:/bin/false' >> /run/passwd
mount --bind /run/passwd /etc/passwd
mkdir -p /run/dnssec-trust-anchors.d
cp {folder}/lab.positive /run/dnssec-trust-anchors.d/
mount -t tmpfs none /etc/systemd
cp {folder}/resolved.conf /etc/systemd/
ip link set lo up
exec {program}
"""


@pytest.mark.parametrize("dnssec", ["no", "yes"])
def test_systemd_resolved_asks_us(lan: Lan, anchor: pathlib.Path, tmp_path: pathlib.Path, dnssec: str) -> None:
    """Its stub on 127.0.0.53 gives what we gave it; with DNSSEC=yes it validates by itself what we hand over."""
    program, libraries = resolved()
    anchors = [line.partition(" DS ")[2] for line in anchor.read_text().splitlines()]
    (tmp_path / "lab.positive").write_text("".join(f". IN DS {text}\n" for text in anchors))
    host, guest = f"nx{os.getpid() % 9999}a", f"nx{os.getpid() % 9999}b"
    (tmp_path / "resolved.conf").write_text(
        f"[Resolve]\nDNS={VETH}:{lan.dns}\nDNSSEC={dnssec}\nFallbackDNS=\nLLMNR=no\nMulticastDNS=no\nDomains=~.\n"
    )
    script = _RESOLVED.format(folder=tmp_path, program=program)
    process = Process("resolved", ["unshare", "-mn", "env", f"LD_LIBRARY_PATH={libraries}", "sh", "-c", script], tmp_path)
    try:
        enter = ["nsenter", "-t", str(process.pid), "-n"]
        until(lambda: os.readlink(f"/proc/{process.pid}/ns/net") != os.readlink("/proc/self/ns/net"), 5, "its namespace")
        for words in (["ip", "link", "add", host, "type", "veth", "peer", "name", guest, "netns", str(process.pid)],
                      ["ip", "addr", "add", f"{VETH}/30", "dev", host], ["ip", "link", "set", host, "up"],
                      [*enter, "ip", "addr", "add", "10.253.71.2/30", "dev", guest],
                      [*enter, "ip", "link", "set", guest, "up"]):  # fmt: skip
            subprocess.run(words, check=True)

        def stub(name: str, *options: str) -> str:
            return ran(*enter, "dig", "@127.0.0.53", name, "+tries=1", "+time=4", *options)

        until(lambda: "status: NOERROR" in stub("www.farm.lab"), 15, f"an answer of systemd-resolved\n{process.text()}")
        signed = stub("www.farm.lab", "+dnssec")
        assert "192.0.2.2" in signed and (" ad;" in signed) is (dnssec == "yes"), signed
        assert "192.0.2.2" in stub("door.shop") and "status: NXDOMAIN" in stub("nothing.lab")
        assert "status: SERVFAIL" in stub("www.bogus.lab")
        if dnssec == "no":  # home.example is nobody's in the signed root, so a validating stub cannot believe us
            assert "10.0.0.5" in stub("nas.home.example") and "status: NXDOMAIN" in stub("www.ads.example")
    finally:
        process.end()
        subprocess.run(["ip", "link", "del", host], check=False, capture_output=True)


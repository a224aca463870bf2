"""Real NSD at an IPv4 and an IPv6 address, asked over the family that is preferred, and over the other when that is gone."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys

import yaml

from tests.lan import ROOT

V4, V6 = "10.53.0.1", "fd53::1"
_SCRIPT = """
set -e
ip link set lo up
ip addr add {v4}/32 dev lo
ip -6 addr add {v6}/128 dev lo nodad
{nsd} -d -c {folder}/nsd.conf &
trap "kill $!" EXIT
for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
    dig @{v4} . SOA +tries=1 +time=1 +short | grep -q . && dig @{v6} . SOA +tries=1 +time=1 +short | grep -q . && break
done
for prefer in any ipv4 ipv6; do
    {python} -m dnsd trace www.six AAAA --format json --config {folder}/$prefer.yaml -o {folder}/$prefer.json
done
ip -6 addr del {v6}/128 dev lo
{python} -m dnsd trace www.six AAAA --format json --config {folder}/ipv6.yaml -o {folder}/gone.json
"""


def test_the_preferred_family_is_asked_while_it_answers(tmp_path: pathlib.Path) -> None:
    """`prefer: ipv6` and `ipv4` ask nobody over the other one; without the address, IPv4 finds the name all the same."""
    nsd = shutil.which("nsd") or "/usr/sbin/nsd"
    (tmp_path / "root").write_text(
        f"$TTL 300\n@ SOA ns. host. 1 3600 600 86400 300\n@ NS ns.\nns A {V4}\nns AAAA {V6}\n"
        f"six NS ns.six\nns.six A {V4}\nns.six AAAA {V6}\n"
    )
    (tmp_path / "six").write_text("$TTL 300\n@ SOA ns host 1 3600 600 86400 300\n@ NS ns\n"
                                  f"ns A {V4}\nns AAAA {V6}\nwww AAAA 2001:db8::6\n")  # fmt: skip
    (tmp_path / "nsd.conf").write_text(
        f'server:\n  ip-address: {V4}\n  ip-address: {V6}\n  zonesdir: "{tmp_path}"\n  database: ""\n  username: ""\n'
        f'  pidfile: "{tmp_path}/nsd.pid"\n  xfrdfile: "{tmp_path}/xfrd.state"\n  zonelistfile: "{tmp_path}/zone.list"\n'
        f'  xfrdir: "{tmp_path}"\n  server-count: 1\nremote-control:\n  control-enable: no\n'
        'zone:\n  name: "."\n  zonefile: root\nzone:\n  name: "six."\n  zonefile: six\n'
    )
    for prefer in ("any", "ipv4", "ipv6"):
        hints = [{"name": "ns.", "addresses": [V4, V6]}]
        settings = {"resolver": {"root_hints": hints, "prefer": prefer, "trust_anchors": []}, "state": str(tmp_path / "state")}
        (tmp_path / f"{prefer}.yaml").write_text(yaml.safe_dump(settings))
    script = _SCRIPT.format(v4=V4, v6=V6, nsd=nsd, folder=tmp_path, python=sys.executable)
    ran = subprocess.run(["unshare", "-n", "sh", "-c", script], capture_output=True, text=True, check=False, timeout=60,
                         cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr

    def servers(name: str) -> list[str]:
        found = json.loads((tmp_path / f"{name}.json").read_text())
        assert found["answer"][0]["data"] == ["2001:db8::6"]
        return [step["server"]["address"] for step in found["steps"] if step["kind"] == "ask"]

    assert set(servers("any")) <= {V4, V6}
    assert set(servers("ipv4")) == {V4} and set(servers("ipv6")) == {V6}
    assert servers("gone")[-1] == V4

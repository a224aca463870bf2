"""A dead upstream server beside a live one, from the client's question to the page: rules, node, controller."""

from __future__ import annotations

import json
import pathlib
import urllib.request

import dns.message
import dns.query

from tests import lan as lans
from tests.lan import until
from tests.serve.nameserver import nameserver


def test_a_dead_upstream_is_left_out_and_shown(tmp_path: pathlib.Path) -> None:
    """Every question is answered by the other one; API, page and metrics say who does not answer."""
    with nameserver() as alive, nameserver(lambda wire, transport: None) as dead:
        places = ", ".join(f'"127.0.0.1:{server.address[1]}"' for server in (dead, alive))
        rules = {"office.yaml": f"version: 1\nforward:\n  .: {{upstreams: [{places}], timeout: 300ms}}\n"}
        with lans.office(tmp_path, {"workers": 2}, rules) as office:
            office.start("run")
            office.answers()
            for number in range(20):
                query = dns.message.make_query(f"host-{number}.example.com", "A")
                assert dns.query.udp(query, "127.0.0.1", 5, office.dns).answer

            def read(path: str) -> str:
                with urllib.request.urlopen(f"http://127.0.0.1:{office.page}{path}", timeout=5) as response:
                    text: str = response.read().decode()
                return text

            def found() -> dict[str, dict[str, int]]:
                nodes = json.loads(read("/api/v1/status"))["nodes"]
                return {row["server"]: row for node in nodes for row in node.get("upstreams", [])}

            names = [f"127.0.0.1:{server.address[1]}" for server in (dead, alive)]
            until(lambda: found().get(names[0], {}).get("ill"), 10, "word of the dead server")
            until(lambda: found().get(names[1], {}).get("rtt_us"), 10, "the live server's time")
            assert found()[names[1]]["ill"] == 0
            # One timeout for each worker that was asked, and probes; no client was sent there again.
            asked = {str(dns.message.from_wire(wire).question[0].name) for wire, _, _ in dead.questions}
            assert len(asked - {"."}) <= 2
            assert "does not answer" in read("/live")
            metrics = read("/metrics")
            assert "nexoraldns_upstream_ill" in metrics and f'server="{names[0]}"}} 0.0' not in metrics

"""A faithful snapshot of a small office, as `/api/v1/status` carries it; times are relative to `at`."""

# ruff: noqa: E501 - a row of a table stays on its line

from __future__ import annotations

import datetime
from typing import Any

DIGEST = "9f2c41d07ab3e6558c1d93f0b7a24e6d51c08f3a7be94d2260ea1c57f4b8d903"
OLD_DIGEST = "41aa0e7d3c9b52f86e10d4a7b3c85f29907e6d1b4f8a23c5e6d70918b2c4fa35"
SHA = "132f4e7a90bd41c8f26e5b7d03a9c4e815fd6720"

REFUSAL = """\
rules.d/policy.yaml:31:15: error[E021]: there is no list named 'socials'
   |
31 |     block: [list:socials]
   |             ^^^^^^^^^^^^ did you mean 'social'?
   |
   = help: lists are defined under 'lists'; this revision has: ads, adult, malware, social

rules.d/network.yaml:12:14: error[E012]: 10.0.20.300 is not an IP address
   |
12 |       printer: 10.0.20.300
   |                ^^^^^^^^^^^ the fourth number is 300, the limit is 255

2 errors in 2 of 5 files; the active revision main@sha1:132f4e7a90bd keeps serving."""


def stamp(at: datetime.datetime, seconds: float) -> str:
    """RFC 3339, UTC, so many seconds before `at`."""
    return (at - datetime.timedelta(seconds=seconds)).astimezone(datetime.UTC).isoformat().replace("+00:00", "Z")


def office(at: datetime.datetime, *, refused: bool = True, behind: bool = True) -> dict[str, Any]:
    """The snapshot. `refused`: the newest revision was not accepted; `behind`: one worker serves the old table."""
    active = {
        "revision": f"main@sha1:{SHA}", "short": f"main@sha1:{SHA[:12]}", "digest": DIGEST, "generation": 41,
        "author": "Anna Jansen", "email": "anna@example.com", "subject": "Allow social media at lunch",
        "time": stamp(at, 1900), "since": stamp(at, 1860), "state": "active",
    }  # fmt: skip
    bad = {
        "revision": "main@sha1:c40d19e2b7f3a65d80217cc9be3f54d6a1907e28", "short": "main@sha1:c40d19e2b7f3",
        "author": "Tom de Wit", "email": "tom@example.com", "subject": "Block socials for staff, fix the printer",
        "time": stamp(at, 75), "since": stamp(at, 71), "state": "refused", "problems_text": REFUSAL, "duration_ms": 64,
    }  # fmt: skip
    worker = {"state": "active", "generation": 41, "digest": DIGEST}
    old = {"state": "ready", "generation": 40, "digest": OLD_DIGEST}
    asked = [
        ("10.0.10.21", "www.facebook.com", "A", "policy", "nxdomain", "no-social-at-work", "rules.d/policy.yaml:31", "NXDOMAIN", False, 0.02, "social"),
        ("10.0.20.8", "printer.office.example.com", "A", "local", "answer", "", "rules.d/network.yaml:12", "NOERROR", False, 0.01, ""),
        ("10.0.10.87", "www.instagram.com", "A", "policy", "forward", "marketing-needs-social", "rules.d/policy.yaml:41", "NOERROR", False, 14.8, "social"),
        ("10.0.50.9", "www.google.com", "AAAA", "policy", "alias", "guests-safe-search", "rules.d/policy.yaml:52", "NOERROR", False, 11.3, ""),
        ("fd00:10::2f", "telemetry.vendor-analytics.example.net", "HTTPS", "policy", "nodata", "ads", "rules.d/policy.yaml:21", "NOERROR", False, 0.03, "ads"),
        ("10.0.10.33", "debian.org", "A", "route", "forward", "", "rules.d/network.yaml:44", "NOERROR", True, 0.02, ""),
        ("10.0.10.33", "deb.debian.org", "AAAA", "route", "forward", "", "rules.d/network.yaml:44", "NOERROR", False, 23.1, ""),
        ("10.0.10.40", "dc1.corp.example.com", "A", "route", "forward", "", "rules.d/network.yaml:39", "NOERROR", False, 2.4, ""),
        ("203.0.113.77", "isc.org", "ANY", "client", "refused", "", "", "REFUSED", False, 0.01, ""),
        ("10.0.10.52", "15.20.0.10.in-addr.arpa", "PTR", "local", "answer", "", "rules.d/network.yaml:12", "NOERROR", False, 0.01, ""),
        ("10.0.30.7", "a-very-long-label-that-nobody-would-type.but-some-cdn-does.edge-0042.eu-west.delivery.example.org", "A", "route", "servfail", "", "rules.d/network.yaml:44", "SERVFAIL", False, 2004.0, ""),
    ]  # fmt: skip
    keys = ("client", "qname", "qtype", "stage", "action", "rule", "where", "rcode", "cached", "ms", "list")
    decisions = [
        {"time": stamp(at, 0.7 + 1.9 * i), **dict(zip(keys, asked[i % len(asked)], strict=True))} for i in range(74)
    ]
    return {
        "active": active,
        "newest": bad if refused else active,
        "nodes": [
            {
                "name": "gw-office", "connected": True, "phase": "committed", "agent": "nexoraldns 0.1.0",
                "listen": ["*:53"], "table": DIGEST,
                "workers": [
                    {"slot": 0, "pid": 41230, **worker, "queries": 1204553},
                    {"slot": 1, "pid": 41231, **worker, "queries": 1198027},
                    {"slot": 2, "pid": 41232, **(old if behind else worker), "queries": 1201190},
                    {"slot": 3, "pid": 41877, **worker, "queries": 22741},
                ],
            },
            {
                "name": "gw-warehouse", "connected": True, "phase": "committed", "agent": "nexoraldns 0.1.0",
                "listen": ["10.8.0.1:53"], "table": DIGEST,
                "workers": [{"slot": 0, "pid": 902, **worker, "queries": 88104}],
            },
        ],
        "counters": {
            "queries_udp": 3698811, "queries_tcp": 15804, "malformed": 31, "local": 402113, "allowed": 90217,
            "blocked": 611840, "redirected": 20411, "refused": 1730, "dropped": 212, "cache_hits": 2311790,
            "cache_misses": 360388, "upstream_queries": 371020, "upstream_answers": 370771, "upstream_timeouts": 249,
            "servfail": 118, "nxdomain": 699012, "special": 6100, "coalesced": 8412,
        },
        "decisions": decisions,
        "events": [
            {"time": stamp(at, 5400), "source": "kernel", "reason": "address added", "interface": "eth0",
             "addresses": ["10.0.20.1/24", "fd00:20::1/64"]},
            {"time": stamp(at, 5398), "source": "dhclient", "reason": "BOUND", "interface": "wan0",
             "addresses": ["192.0.2.44/22"]},
        ],
        "history": [
            *([bad] if refused else []),
            active,
            {"revision": "main@sha1:77b1c0ffee12", "author": "Anna Jansen", "subject": "Guests: safe search on", "state": "replaced",
             "time": stamp(at, 90000), "since": stamp(at, 89990), "duration_ms": 212, "generation": 40},
            {"revision": "main@sha1:5d0a11223344", "author": "Tom de Wit", "subject": "Typo in a comment", "state": "superseded",
             "time": stamp(at, 90050), "since": stamp(at, 90049)},
        ],
        "problems": [],
        "suspended": False,
        "broker": {"refused": {"auth": 3, "timeout": 1}},
    }  # fmt: skip

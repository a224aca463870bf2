"""Answers from outside pass the review end to end: rebinding and CNAME cloaking, with a real upstream."""

from __future__ import annotations

import pathlib

from tests import lan

PROTECT = "protect: {rebinding: {except: [plex.example]}, cname: true}\n"


def test_rebinding_and_cloaking(tmp_path: pathlib.Path) -> None:
    """A private address in a public name is NODATA, a CNAME to a blocked name is blocked; both say why; exceptions hold."""
    data = {
        "evil.example": "A 192.168.1.1",
        "tv.plex.example": "A 192.168.1.2",
        "fine.example": "A 198.51.100.1",
        "cloaked.example": "CNAME x.tracker.example.",
    }
    with lan.upstream(tmp_path, data) as port:
        rules = lan.RULES + PROTECT + f'forward:\n  ".": "127.0.0.1:{port}"\n'
        with lan.office(tmp_path, rules={"office.yaml": rules}) as office:
            office.start("run")
            office.answers()
            for _ in range(3):
                evil = office.dig("evil.example")
                assert (evil.rcode, evil.records) == ("NOERROR", ()) and "protect.rebinding" in evil.ede
                cloaked = office.dig("cloaked.example")
                assert cloaked.records == () and "no-ads rules.d/office.yaml" in cloaked.ede
            assert office.dig("tv.plex.example").data == ["192.168.1.2"]
            assert office.dig("fine.example").data == ["198.51.100.1"]
            assert office.dig("evil.example", "A", "+tcp").records == ()

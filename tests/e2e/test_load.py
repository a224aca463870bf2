"""Edits under load: every query is answered, by the old table or by the new one."""

from __future__ import annotations

import pathlib
import re
import subprocess
import time

from tests import lan


def test_no_query_is_lost_while_rules_change(tmp_path: pathlib.Path) -> None:
    """Five edits while dnsperf asks: no query is lost, no answer fails, and the last edit is what is served."""
    with lan.office(tmp_path) as office:
        office.start("run")
        office.answers()
        asked = tmp_path / "queries"
        asked.write_text("printer.office.example A\ntracker.example A\nold.example A\n15.20.0.10.in-addr.arpa PTR\n")
        load = subprocess.Popen(
            ["dnsperf", "-s", "127.0.0.1", "-p", str(office.dns), "-d", str(asked), "-l", "4", "-c", "8", "-Q", "2000"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            for number in range(5):
                time.sleep(0.5)
                office.write("office.yaml", lan.RULES.replace("value: one", f"value: edit{number}"))
            text, _ = load.communicate(timeout=30)
        finally:
            load.kill()
        assert re.search(r"Queries lost:\s+0 ", text), text
        codes = re.search(r"Response codes:\s+(.*)", text)
        assert codes is not None and "SERVFAIL" not in codes[1] and "REFUSED" not in codes[1], text
        office.answers()
        assert office.everywhere("version.office.example", "TXT") == {'"edit4"'}
        states = {row["state"] for row in office.status()["history"]}
        assert states <= {"active", "superseded"}

"""The scenarios once more, over real sockets against a real node (`wired`)."""

from __future__ import annotations

import concurrent.futures
import json
import subprocess

from tests.resolve import wired
from tests.resolve import world as worlds

_SIDE_BY_SIDE = 4  # most of them wait for servers that do not answer
_LEFT = 3  # with `back` or `special=`


def test_scenarios_play_over_real_sockets_as_without() -> None:
    """What is asked of which server, over which transport, and what the client is told: the same with processes."""

    def part(number: int) -> subprocess.CompletedProcess[str]:
        words = wired.command("--part", f"{number}/{_SIDE_BY_SIDE}")
        return subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)

    with concurrent.futures.ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        ran = list(pool.map(part, range(1, _SIDE_BY_SIDE + 1)))
    played, failed = 0, {}
    for one in ran:
        assert one.stdout, one.stderr
        report = json.loads(one.stdout)
        played += report["played"]
        failed |= report["failed"]
    assert not failed, "\n".join(f"{title}: {why}" for title, why in failed.items())
    assert played == len(list(worlds.scenarios())) - _LEFT

"""The page's trace in a real browser: drawn, light and dark, and nothing refused by the page's own policy."""

from __future__ import annotations

import pathlib
import re
import struct
import subprocess
import urllib.request
import zlib
from collections.abc import Iterator

import pytest
import yaml

from tests import lan as lans
from tests.lab import Lab
from tests.lan import Lan

RULES = {"office.yaml": 'version: 1\nforward: {".": recurse}\n'}


@pytest.fixture(scope="module")
def lan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    """An office whose Internet is the lab."""
    lab = Lab(tmp_path_factory.mktemp("lab"), more=["--no-resolver"])
    try:
        lab.answers()
        resolver = yaml.safe_load((lab.folder / "node.yaml").read_text())["resolver"]
        with lans.office(tmp_path_factory.mktemp("office"), {"resolver": resolver}, RULES) as office:
            office.start("run")
            office.answers()
            yield office
    finally:
        lab.process.end()


def chromium(folder: pathlib.Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A headless browser with a profile of its own; what it logs is on stderr."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}", "--hide-scrollbars"]
    options += ["--enable-logging=stderr", "--window-size=1280,1200", "--virtual-time-budget=20000"]
    return subprocess.run(["chromium", *options, *words], capture_output=True, text=True, check=False, timeout=60)


def background(png: pathlib.Path) -> tuple[int, ...]:
    """The first pixel of a screenshot."""
    data = png.read_bytes()
    width, _, depth, kind = struct.unpack_from(">IIBB", data, 16)
    assert depth == 8 and kind in (2, 6)
    parts = re.findall(rb"IDAT", data)
    assert width and parts
    at, packed = 8, b""
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT":
            packed += data[at + 8 : at + 8 + length]
        at += 12 + length
    row = zlib.decompressobj().decompress(packed, 64)
    return tuple(row[1:4])


def test_a_browser_draws_the_way(lan: Lan, tmp_path: pathlib.Path) -> None:
    """The picture's words are text of the page, its style applies, and the console has nothing to complain about."""
    page = f"http://127.0.0.1:{lan.page}/trace?name=www.farm.lab"
    ran = chromium(tmp_path / "profile", "--dump-dom", page)
    assert "Refused" not in ran.stderr and "Content Security Policy" not in ran.stderr, ran.stderr
    for words in ("www.farm.lab 300 A 192.0.2.2", "✓ secure", "referral", "chain of trust", "</svg>"):
        assert words in ran.stdout
    assert '<svg xmlns="http://www.w3.org/2000/svg" class="nx"' in ran.stdout


def test_light_and_dark(lan: Lan, tmp_path: pathlib.Path) -> None:
    """The picture alone follows the reader's scheme."""
    with urllib.request.urlopen(f"http://127.0.0.1:{lan.page}/trace.svg?name=www.lab") as answer:
        assert answer.headers["content-type"].startswith("image/svg+xml")
        (tmp_path / "way.svg").write_bytes(answer.read())
    # The page begins inside the card, where no word stands.
    (tmp_path / "way.html").write_text('<body style="margin:-16px"><img src="way.svg" alt="">')
    seen = []
    for scheme in ("1", "0"):
        png = tmp_path / f"scheme{scheme}.png"
        ran = chromium(tmp_path / f"profile{scheme}", f"--blink-settings=preferredColorScheme={scheme}",
                       f"--screenshot={png}", (tmp_path / "way.html").as_uri())  # fmt: skip
        assert png.exists(), ran.stderr
        seen.append(background(png))
    light, dark = seen
    assert min(light) > 200 and max(dark) < 80

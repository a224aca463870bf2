"""The lab without servers: its texts, what breaking and mending change in them, and where it is."""

from __future__ import annotations

import os
import pathlib
import socket
import stat
import subprocess
import sys
import time

import dns.name
import dns.zone
import pytest
from click.testing import CliRunner

from controller.cli import lab
from controller.lab import place, signing, world, zonefiles
from controller.lab.laboratory import Laboratory
from controller.lab.zonefiles import ZoneError

BASE = "127.53.0"


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A lab's folder with its texts."""
    zonefiles.prepare(tmp_path, BASE)
    return tmp_path


def texts(folder: pathlib.Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "zones").iterdir()}


def test_everything_begins_broken_and_turns_back_and_forth(folder: pathlib.Path) -> None:
    """A case changes its own lines and no others; breaking again gives the text of the beginning."""
    before = texts(folder)
    for case in world.CASES:
        assert zonefiles.state(folder, case) is True
        zonefiles.turn(folder, case, False, BASE)
        assert zonefiles.state(folder, case) is False
        changed = {name for name, text in texts(folder).items() if text != before[name]}
        assert changed == {zonefiles.path(folder, case.file).name}
        zonefiles.turn(folder, case, True, BASE)
        assert texts(folder) == before


def test_what_somebody_wrote_is_left_alone(folder: pathlib.Path) -> None:
    """Own lines survive breaking, mending and another address of the lab; lost marks are an error that names them."""
    lame = world.BY_NAME["lame"]
    file = zonefiles.path(folder, lame.file)
    file.write_text(file.read_text() + "mine A 127.53.0.99 ; and 10.127.53.0\n")
    zonefiles.turn(folder, lame, False, BASE)
    zonefiles.prepare(folder, "127.77.1", BASE)
    text = file.read_text()
    assert "mine A 127.77.1.99 ; and 10.127.53.0\n" in text and "127.53.0." not in text
    file.write_text("".join(line for line in text.splitlines(True) if "@ case lame" not in line))
    with pytest.raises(ZoneError, match=r"`;@ case lame …`"):
        zonefiles.turn(folder, lame, True, BASE)


@pytest.mark.parametrize(("line", "words"), [
    (";@ sign", "means nothing here"), (";@ ds", "`;@ ds none`"), (";@ ds maybe", "`;@ ds wrong`"),
    (";@ ds algorithm 999", "algorithm 8"), (";@ signatures old", "`expired` or `future`"),
    (";@ tamper www A", "3 more words"),
])  # fmt: skip
def test_marks_that_mean_nothing_are_told_with_their_line(line: str, words: str) -> None:
    """file:line, what is wrong, and what to write instead."""
    with pytest.raises(ZoneError, match=r"x\.zone:2: ") as caught:
        zonefiles.marks(f"; a zone\n{line}\n", "x.zone")
    assert words in str(caught.value)


@pytest.mark.parametrize(("lines", "line"), [
    (["wrong A 192.0.2.999"], 5), (["a A 192.0.2.1", "a CNAME b"], 6), (["x NOSUCH 1", "b A 192.0.2.1"], 5),
    (["ok TXT ( a", "b )", "z MX"], 7),
])  # fmt: skip
def test_a_mistake_in_a_zone_has_its_line(lines: list[str], line: int) -> None:
    """Also where the parser itself names another line, or none."""
    text = "\n".join(["$ORIGIN x.lab.", "$TTL 300", "@ SOA ns h 1 2 3 4 5", "@ NS ns", *lines, "end A 192.0.2.9", ""])
    with pytest.raises(ZoneError, match=rf"^x\.zone:{line}: "):
        signing.served("x.lab.", text, zonefiles.Marks(), None, {}, 1, 0, "x.zone")


def test_only_what_changed_is_signed_again(folder: pathlib.Path) -> None:
    """A child's DS changes its parent; nothing else is written anew. Keys stay, and are nobody else's to read."""
    laboratory = Laboratory(folder, BASE)
    (folder / "served").mkdir()
    assert set(laboratory._make().served) == set(world.zones())
    assert laboratory._make().served == ()
    zonefiles.turn(folder, world.BY_NAME["bogus"], False, BASE)
    assert laboratory._make().served == ("bogus.lab.",)
    zonefiles.turn(folder, world.BY_NAME["nods"], False, BASE)
    assert set(laboratory._make().served) == {"lab.", "nods.lab."}
    keys = {path.name: path.read_bytes() for path in (folder / "keys").iterdir()}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in (folder / "keys").iterdir())
    Laboratory(folder, BASE)._make()
    assert {path.name: path.read_bytes() for path in (folder / "keys").iterdir()} == keys


def test_signed_zones_are_whole(folder: pathlib.Path) -> None:
    """Every served zone can be read; signed ones have signatures of now, DS of their children, and no `;@` words."""
    laboratory = Laboratory(folder, BASE)
    (folder / "served").mkdir()
    assert laboratory._make().problems == ()
    for zone in world.zones():
        text = laboratory.running.served(zone).read_text()
        found = dns.zone.from_text(text, dns.name.from_text(zone), relativize=False)
        assert ";@" not in text
        signed = found.get_rdataset(found.origin, "RRSIG", "SOA")
        assert (signed is not None) == (zone not in ("split.lab.", "field.lab."))
        if signed is not None and zone not in ("expired.lab.", "future.lab."):
            assert signed[0].inception < time.time() < signed[0].expiration
    lab = dns.zone.from_file(str(laboratory.running.served("lab.")), dns.name.from_text("lab."), relativize=False)
    assert lab.get_rdataset(dns.name.from_text("farm.lab."), "DS") is not None
    assert lab.get_rdataset(dns.name.from_text("nods.lab."), "DS") is None


def test_names_find_their_zone() -> None:
    """The deepest zone that a name is in."""
    assert world.zone_of("www.farm.lab") == "farm.lab." and world.zone_of("FARM.LAB.") == "farm.lab."
    assert world.zone_of("x.lab") == "lab." and world.zone_of("www.example.com") == "."


def test_a_system_without_namespaces_says_what_to_do(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Port 53 may not be bound, and unshare fails: its reason, and the way that works."""

    class Socket(socket.socket):
        def bind(self, address: object) -> None:
            raise PermissionError

    for name in ("unshare", "nsenter"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\necho 'unshare failed: Operation not permitted' >&2\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setattr(place.socket, "socket", Socket)
    with pytest.raises(place.PlaceError, match=r"Operation not permitted\): sudo nexoraldns lab up"):
        place.settle(["true"])
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(place.PlaceError, match="apt-get install util-linux"):
        place.settle(["true"])


def test_one_lab_in_a_folder(tmp_path: pathlib.Path) -> None:
    """A second claim is refused while the first holds; a lab that has ended is not found, whatever it left behind."""
    claim = place.Claim(tmp_path)
    claim.say(place.Place(os.getpid(), BASE, False))
    assert place.find(tmp_path) == place.Place(os.getpid(), BASE, False)
    words = f"from controller.lab import place; import pathlib; place.Claim(pathlib.Path({str(tmp_path)!r}))"
    ran = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=False)
    assert ran.returncode == 1 and "is up in" in ran.stderr
    claim.release()
    assert place.find(tmp_path) is None
    again = place.Claim(tmp_path)
    assert again.before() == BASE
    again.release()


@pytest.mark.parametrize(
    ("editor", "code", "words"),
    [
        ("true", 0, "nothing was changed"),
        ("sed -i s/www/web/", 0, "saved; a lab that is up serves it at once"),
        ("sed -i 's/SOA/SOX/'", 1, "farm.lab.zone:"),
        ("truncate -s 0", 1, "no SOA record"),
        ("false", 2, "set EDITOR to an editor of yours"),
        ("no-such-editor", 2, "set EDITOR to an editor of yours"),
    ],
)
def test_who_edits_a_zone_hears_of_a_mistake(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, editor: str, code: int, words: str
) -> None:
    """What is wrong with a zone is said where it was edited, not in the terminal of the lab alone."""
    monkeypatch.setenv("EDITOR", editor)
    monkeypatch.delenv("VISUAL", raising=False)
    done = CliRunner().invoke(lab.command, ["zone", "farm.lab", "--edit", "--folder", str(folder)])
    assert (done.exit_code, words in done.output) == (code, True), done.output

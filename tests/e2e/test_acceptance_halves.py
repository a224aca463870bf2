"""The halves apart, as two users; and no process is left when everything was told to end."""

from __future__ import annotations

import contextlib
import os
import pathlib
import pwd
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator

import pytest
import yaml

from tests import lan


@pytest.fixture
def public() -> Iterator[pathlib.Path]:
    """A folder that every user may enter (pytest's own is closed to others)."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="nexoraldns-users-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def _child(half: str) -> list[int]:
    """The pids of all processes whose words are `-m dnsd …<half>`."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if half.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def _user_of(pid: int) -> str:
    return pwd.getpwuid(pathlib.Path(f"/proc/{pid}").stat().st_uid).pw_name


def _as(user: str) -> list[str]:
    """The words that start what follows as a user; none when we are not root and stay who we are.

    Where the interpreter lies in a folder that is closed to others (a pyenv in /root), the user may read that.
    """
    if os.geteuid() != 0:
        return []
    words = ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups"]
    inside = pathlib.Path(lan.sys.executable).resolve().parents
    if all(folder.stat().st_mode & 0o001 for folder in inside):
        return words
    return [*words, "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]


def _own(path: pathlib.Path, user: str) -> None:
    if os.geteuid() == 0:
        os.chown(path, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)


def test_two_users_from_two_files(public: pathlib.Path) -> None:
    """Controller and dnsd as two users, from two files and two states: dnsd has the node's key and no other."""
    with lan.office(public) as office:
        folders = {}
        for half, user in (("controller", "daemon"), ("dnsd", "nobody")):
            folders[half] = public / half
            folders[half].mkdir()
            _own(folders[half], user)
        control = {key: office.settings[key] for key in ("source", "broker", "status")}
        (folders["controller"] / "node.yaml").write_text(yaml.safe_dump(control))
        controller = _start(office, "controller", folders["controller"], "daemon")
        keys = folders["controller"] / ".nexoraldns" / "broker.keys"
        lan.until(lambda: office.status().get("active"), 15, "a first revision")
        assert keys.stat().st_mode & 0o077 == 0
        node_key = next(line for line in keys.read_text().splitlines() if line.startswith("node "))
        copy = folders["dnsd"] / "node.keys"
        copy.write_text(node_key + "\n")
        copy.chmod(0o600)
        _own(copy, "nobody")
        serve = {key: office.settings[key] for key in ("listen", "workers", "cache")}
        serve["broker"] = {"connect": office.settings["broker"]["connect"], "keys": "node.keys"}
        (folders["dnsd"] / "node.yaml").write_text(yaml.safe_dump(serve))
        dnsd = _start(office, "dnsd", folders["dnsd"], "nobody")
        office.answers()
        assert office.everywhere("printer.office.example", "A") == {"10.0.20.15"}
        office.write("office.yaml", lan.RULES.replace("10.0.20.15", "10.0.20.16"))
        lan.until(lambda: office.everywhere("printer.office.example", "A", 6) == {"10.0.20.16"}, 10, "the edit")
        if os.geteuid() == 0:
            assert _user_of(controller.pid) == "daemon"
            assert {_user_of(pid) for pid in (dnsd.pid, *(row["pid"] for row in office.workers()))} == {"nobody"}
        assert controller.end() == 0 and dnsd.end() == 0
        assert "Traceback" not in office.logs() and "ModuleNotFoundError" not in office.logs()


def _start(office: lan.Lan, half: str, folder: pathlib.Path, user: str) -> lan.Process:
    words = [*_as(user), lan.sys.executable, "-m", half, "--config", str(folder / "node.yaml")]
    process = lan.Process(half, words, folder)
    office.processes.append(process)
    return process


def test_the_setting_user(public: pathlib.Path) -> None:
    """`run` as root with `user: nobody`: dnsd and its workers are nobody's, and serve what root's controller says."""
    root = os.geteuid() == 0
    with lan.office(public, {"user": "nobody" if root else None}) as office:
        run = office.start("run")
        office.answers()
        assert office.everywhere("printer.office.example", "A") == {"10.0.20.15"}
        office.write("office.yaml", lan.RULES.replace("10.0.20.15", "10.0.20.16"))
        lan.until(lambda: office.everywhere("printer.office.example", "A", 6) == {"10.0.20.16"}, 10, "the edit")
        if root:
            assert {_user_of(row["pid"]) for row in office.workers()} == {"nobody"}
        assert run.end() == 0
        office.start("run")  # and once more, with what the first one left on disk
        office.answers()
        assert office.everywhere("printer.office.example", "A") == {"10.0.20.16"}


def test_nothing_is_imported_once_the_user_was_taken(tmp_path: pathlib.Path) -> None:
    """After "dnsd is up" no process of dnsd reads a module: the user that it became may not be able to."""
    with lan.office(tmp_path) as office:
        words = [lan.sys.executable, "-X", "importtime", "-m", "dnsd", "--config", str(office.config)]
        dnsd = lan.Process("dnsd", words, tmp_path)
        office.processes.append(dnsd)
        lan.until(lambda: "dnsd is up" in dnsd.text(), 10)
        office.start("controller")
        office.answers()
        office.dig("printer.office.example", "A", "+tcp")
        office.dig("no.such.name.example")
        late = re.findall(r"^import time:.*\| +(\S+)$", dnsd.text().partition("dnsd is up")[2], re.M)
        assert late == []


@pytest.mark.parametrize("moment_s", [0.0, 0.1, 0.6, 0.9])
def test_the_end_comes_while_dnsd_is_brought_back(tmp_path: pathlib.Path, moment_s: float) -> None:
    """dnsd is killed and `run` told to end before the next one serves: no worker is left behind."""
    with lan.office(tmp_path) as office:
        run = office.start("run")
        office.answers()
        workers = [row["pid"] for row in office.workers()]
        children = pathlib.Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        dnsd = next(int(pid) for pid in children if b"\0dnsd\0" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(dnsd, signal.SIGKILL)
        lan.time.sleep(moment_s)
        assert run.end(signal.SIGTERM, 8) == 0
        lan.until(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in workers), 3, "the workers' end")
        assert _child(str(office.config)) == []

"""Where each DHCP client wants its hook, with which mode; putting the stubs there and taking them away again.

The rule: only files that carry our mark are ever overwritten or removed, and only a folder that we made is removed
(the stub in it says so), so `remove` leaves exactly what was there before `install`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shlex
import shutil
import stat
import sys
from collections.abc import Callable, Iterable

MARK = "# nexoraldns-hook 1"
MADE = f"{MARK} (and its folder)"
_STUBS = pathlib.Path(__file__).parent / "stubs"
_NAME = "90-nexoraldns"


class HookError(Exception):
    """A stub cannot be put in place or taken away; one sentence with what to do."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """One stub of one client. `path` is what the running system calls it, without --root."""

    client: str
    path: str
    stub: str
    mode: int
    words: str = '"$@"'
    original: str = ""  # udhcpc: the script that ours wraps
    makes_folder: bool = False
    exact_folder: bool = False  # networkd-dispatcher ignores folders that are not exactly 0755 root:root


@dataclasses.dataclass(frozen=True, slots=True)
class Program:
    """What the stubs start, and the settings that are baked into them ("": the program's own search)."""

    words: tuple[str, ...]
    config: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """How a place is: `state` is installed, missing, altered or foreign; `problem` says why it would not work."""

    place: Place
    state: str
    problem: str = ""


# --- where ------------------------------------------------------------------------------------------------------------


def _first(root: str, *folders: str) -> str:
    return next((folder for folder in folders if os.path.isdir(_under(root, folder))), "")


def _dhclient(root: str) -> list[Place]:
    folder = _first(root, "/etc/dhcp/dhclient-exit-hooks.d")
    # run-parts skips names with a dot.
    return [Place("dhclient", f"{folder}/zz-nexoraldns", "sourced.sh", 0o644)] if folder else []


def _dhcpcd(root: str) -> list[Place]:
    folder = _first(root, "/usr/lib/dhcpcd/dhcpcd-hooks", "/lib/dhcpcd/dhcpcd-hooks", "/usr/libexec/dhcpcd-hooks",
                    "/libexec/dhcpcd-hooks")  # fmt: skip
    return [Place("dhcpcd", f"{folder}/{_NAME}", "sourced.sh", 0o644)] if folder else []


def _networkmanager(root: str) -> list[Place]:
    folder = _first(root, "/etc/NetworkManager/dispatcher.d")
    return [Place("networkmanager", f"{folder}/{_NAME}", "executed.sh", 0o755)] if folder else []


def _networkd(root: str) -> list[Place]:
    top = "/etc/networkd-dispatcher"
    states = [state for state in ("routable", "degraded", "carrier", "no-carrier", "off") if
              os.path.isdir(_under(root, f"{top}/{state}.d"))]  # fmt: skip
    return [Place("networkd", f"{top}/{state}.d/{_NAME}", "executed.sh", 0o755, exact_folder=True) for state in states]


def _udhcpc(root: str) -> list[Place]:
    for script in ("/etc/udhcpc/default.script", "/usr/share/udhcpc/default.script"):
        try:
            text = pathlib.Path(_under(root, script)).read_text("utf-8", "replace")
        except OSError:
            continue
        if "post-" in text:  # Alpine's runs what is in /etc/udhcpc/post-bound and so on
            return [
                Place("udhcpc", f"/etc/udhcpc/post-{word}/nexoraldns", "executed.sh", 0o755, word, makes_folder=True)
                for word in ("bound", "renew", "deconfig")
            ]
        return [Place("udhcpc", "/etc/udhcpc/nexoraldns.script", "udhcpc.sh", 0o755, original=script)]
    return []


CLIENTS: dict[str, Callable[[str], list[Place]]] = {
    "dhclient": _dhclient, "dhcpcd": _dhcpcd, "networkmanager": _networkmanager, "networkd": _networkd,
    "udhcpc": _udhcpc,
}  # fmt: skip


def places(root: str, clients: Iterable[str] = ()) -> list[Place]:
    """The places of the named clients, or of all that are here. Raises HookError for a named one that is not."""
    wanted = list(clients)
    found: list[Place] = []
    for client in wanted or CLIENTS:
        here = CLIENTS[client](root)
        if wanted and not here:
            raise HookError(f"{client} is not installed under {root}: the folder for its hooks is not there")
        found += here
    return found


def _under(root: str, path: str) -> str:
    return os.path.join(root, path.lstrip("/"))


# --- what -------------------------------------------------------------------------------------------------------------


def this_program() -> tuple[str, ...]:
    """The words that start this very program again, from anywhere."""
    mine = os.path.abspath(sys.argv[0])
    if os.path.basename(mine) in ("nexoraldns", "ndns") and os.access(mine, os.X_OK):
        return (mine,)
    package = str(pathlib.Path(__file__).parents[2])
    return (shutil.which("env") or "/usr/bin/env", f"PYTHONPATH={package}", sys.executable, "-m", "controller.cli")


def render(place: Place, program: Program, *, made_folder: bool = False) -> bytes:
    """A stub's text."""
    text = (_STUBS / place.stub).read_text("utf-8")
    for name, value in {
        "@MARK@": MADE if made_folder else MARK,
        "@CALLER@": place.client,
        "@EXECUTABLE@": shlex.quote(program.words[0]),
        "@PROGRAM@": shlex.join(program.words),
        "@CONFIG@": shlex.quote(program.config),
        "@WORDS@": place.words,
        "@PLACE@": place.path,
        "@ORIGINAL@": shlex.quote(place.original),
    }.items():
        text = text.replace(name, value)
    return text.encode()


def _ours(path: str) -> bytes | None:
    """The text of our stub at a path; None when nothing is there. Raises HookError when something else is."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            text = file.read(1 << 16)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HookError(f"{path} is there, and is not a stub of ours ({error.strerror}); move it away") from None
    if MARK.encode() not in text[:200]:
        raise HookError(f"{path} is there, and is not a stub of ours; move it away")
    return text


# --- put and take -----------------------------------------------------------------------------------------------------


def install(root: str, wanted: Iterable[Place], program: Program) -> list[tuple[str, str]]:
    """Put the stubs in place: (path, `installed`, `updated` or `there already`). All are looked at before any is
    written. Raises HookError."""
    wanted = list(wanted)
    before = [_ours(_under(root, place.path)) for place in wanted]
    said = []
    for place, old in zip(wanted, before, strict=True):
        path = _under(root, place.path)
        folder = os.path.dirname(path)
        try:
            made = old is not None and MADE.encode() in old[:200]
            if place.makes_folder and not os.path.isdir(folder):
                os.mkdir(folder, 0o755)
                made = True
            new = render(place, program, made_folder=made)
            if old == new and not _wrong_file(place, path):
                said.append((place.path, "there already"))
                continue
            _write(path, new, place.mode)
            said.append((place.path, "installed" if old is None else "updated"))
        except OSError as error:
            why = "; this needs root" if isinstance(error, PermissionError) and os.geteuid() else ""
            raise HookError(f"{path} cannot be written: {error.strerror}{why}") from None
    return said


def _write(path: str, text: bytes, mode: int) -> None:
    # A name that no client would run: hidden, and with the tilde of a backup.
    scratch = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{os.getpid()}~")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(text)
            if os.geteuid() == 0:
                os.fchown(file.fileno(), 0, 0)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        os.rename(scratch, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(scratch)
        raise


def remove(root: str, wanted: Iterable[Place]) -> list[tuple[str, str]]:
    """Take our stubs away: (path, `removed` or `was not there`). Raises HookError."""
    said = []
    for place in wanted:
        path = _under(root, place.path)
        try:
            old = _ours(path)
            if old is None:
                said.append((place.path, "was not there"))
                continue
            os.unlink(path)
            if MADE.encode() in old[:200]:
                with contextlib.suppress(OSError):  # somebody else uses it by now
                    os.rmdir(os.path.dirname(path))
            said.append((place.path, "removed"))
        except OSError as error:
            why = "; this needs root" if isinstance(error, PermissionError) and os.geteuid() else ""
            raise HookError(f"{path} cannot be removed: {error.strerror}{why}") from None
    return said


def look(root: str, wanted: Iterable[Place]) -> list[Found]:
    """How each place is. Raises HookError when it cannot be told."""
    return [_look(root, place) for place in wanted]


def _look(root: str, place: Place) -> Found:
    path = _under(root, place.path)
    try:
        text = _ours(path)
    except HookError as error:
        return Found(place, "foreign", str(error))
    if text is None:
        return Found(place, "missing")
    program = _program_in(text)
    if program is None or text != render(place, program, made_folder=MADE.encode() in text[:200]):
        return Found(place, "altered", "it is not the text that this version installs: run `nexoraldns hook install`")
    problem = _wrong_file(place, path) or _wrong_folder(place, path)
    for needed in (program.words[0], *([program.config] if program.config else [])):
        if not problem and not os.path.exists(_under(root, needed)):
            problem = f"{needed} is not there"
    return Found(place, "installed", problem)


def _program_in(text: bytes) -> Program | None:
    """What a stub starts, read back from its text."""
    words: list[str] = []
    config = ""
    for line in text.decode("utf-8", "replace").splitlines():
        line = line.strip()
        try:
            if line.startswith("config="):
                config = shlex.split(line)[0].removeprefix("config=")
            elif line.startswith("timeout -s KILL 5 "):
                words = shlex.split(line.removeprefix("timeout -s KILL 5 ").partition(" hook -- ")[0])
        except (ValueError, IndexError):
            return None
    return Program(tuple(words), config) if words else None


def _wrong_file(place: Place, path: str) -> str:
    """What is wrong with a stub's mode or owner, or an empty text."""
    status = os.lstat(path)
    if stat.S_IMODE(status.st_mode) != place.mode:
        return f"its mode is {stat.S_IMODE(status.st_mode):04o}, not {place.mode:04o}"
    if os.geteuid() == 0 and (status.st_uid or status.st_gid):
        return "it does not belong to root"
    return ""


def _wrong_folder(place: Place, path: str) -> str:
    """Why the client would ignore the folder of a stub, or an empty text."""
    folder = os.stat(os.path.dirname(path))
    if place.exact_folder and stat.S_IMODE(folder.st_mode) != 0o755:
        return f"its folder's mode is {stat.S_IMODE(folder.st_mode):04o}; networkd-dispatcher wants exactly 0755"
    return ""

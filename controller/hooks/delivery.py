"""An EVENT on its way: to the broker over one blocking socket with one deadline, or into a file for the controller.

The deadline is on the monotonic clock and covers everything from the connection to the answer. Files are written under
another name and renamed, into a folder that only the controller's user can write to.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import time
from collections.abc import Mapping
from typing import Any

from controller import broker_keys
from dnsd.contract import frames, keys, messages
from dnsd.contract.settings import Settings, split_listen

FOLDER = "events"
MOST_FILES = 64


class Undelivered(Exception):
    """The broker could not be told; `str()` says why."""


def send(settings: Settings, event: Mapping[str, Any], deadline: float) -> None:
    """Tell the broker, by the monotonic `deadline`. Raises Undelivered."""
    try:
        key = keys.for_role(broker_keys.load(settings.broker.keys), "hook", settings.broker.keys)
        host, port = split_listen(settings.broker.connect)
        with socket.create_connection((host, port), timeout=_left(deadline)) as sock:
            codec = frames.Client(key, "hook", socket.gethostname(), os.urandom(frames.NONCE_BYTES), agent="hook")
            _conversation(sock, codec, event, deadline)
    except keys.KeysError as error:
        raise Undelivered(str(error)) from None
    except TimeoutError:
        raise Undelivered(f"the broker at {settings.broker.connect} does not answer") from None
    except (messages.FrameError, ValueError) as error:
        raise Undelivered(f"the broker at {settings.broker.connect}: {error}") from None
    except OSError as error:
        raise Undelivered(f"no broker at {settings.broker.connect} ({error.strerror or error})") from None


def _conversation(sock: socket.socket, codec: frames.Client, event: Mapping[str, Any], deadline: float) -> None:
    while True:
        sock.settimeout(_left(deadline))
        if out := codec.data_to_send():
            sock.sendall(out)
        data = sock.recv(64 << 10)
        if not data:
            raise ConnectionError("it hung up")
        for said in codec.receive(data):
            if isinstance(said, frames.Welcomed):
                sock.sendall(codec.request(messages.EVENT, event)[1])
            elif isinstance(said, frames.Frame) and said.type == messages.EVENT_OK:
                with contextlib.suppress(OSError):
                    sock.sendall(codec.request(messages.BYE, {"reason": "done"})[1])
                return
            elif isinstance(said, frames.Frame) and said.type == messages.ERROR:
                raise messages.FrameError(said.message["code"], said.message["message"], remote=True)
            elif isinstance(said, frames.Frame) and said.type == messages.PING:
                sock.sendall(codec.answer(messages.PONG, said.id, {}))


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def leave(state: str, event: Mapping[str, Any]) -> str:
    """Leave the EVENT as `<state>/events/<ns>.json`, and say so, or why not.

    A folder that is a link, or that others may write to, is not used; when many files wait the oldest makes room.
    """
    try:
        folder = _open_folder(state)
    except OSError as error:
        return f"nothing could be left in {os.path.join(state, FOLDER)} either ({error.strerror or error})"
    try:
        status = os.fstat(folder)
        waiting = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
        for name in waiting[: max(0, len(waiting) - MOST_FILES + 1)]:
            os.unlink(name, dir_fd=folder)
        number = time.time_ns()
        if (at := event.get("at")) is not None:
            # Named by when the client called. Calls are told apart by 10 ms; pids keep the order within that.
            waited_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - at * 1_000_000
            number += os.getpid() - min(max(0, waited_ns), 10_000_000_000)
        scratch, name = f"{number}.{os.getpid()}.new", f"{number}.json"
        made = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600,
                       dir_fd=folder)  # fmt: skip
        with open(made, "w", encoding="utf-8") as file:
            if os.geteuid() == 0:
                os.fchown(file.fileno(), status.st_uid, status.st_gid)  # the controller need not be root
            file.write(json.dumps({**event, "boot": _boot()}, sort_keys=True))
        os.rename(scratch, name, src_dir_fd=folder, dst_dir_fd=folder)
        return f"left {os.path.join(state, FOLDER, name)} for the controller"
    except OSError as error:
        return f"nothing could be left in {os.path.join(state, FOLDER)} either ({error.strerror or error})"
    finally:
        os.close(folder)


def _boot() -> str:
    """Which boot of the machine this is: `at` counts from there."""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read(64).strip()
    return ""


def _open_folder(state: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    top = os.open(state, flags)
    try:
        owner = os.fstat(top)
        with contextlib.suppress(FileExistsError):
            os.mkdir(FOLDER, 0o700, dir_fd=top)
            if os.geteuid() == 0:
                os.chown(FOLDER, owner.st_uid, owner.st_gid, dir_fd=top, follow_symlinks=False)
        folder = os.open(FOLDER, flags | os.O_NOFOLLOW, dir_fd=top)
    finally:
        os.close(top)
    status = os.fstat(folder)
    if stat.S_IMODE(status.st_mode) & 0o022:
        os.close(folder)
        raise PermissionError("others may write to it")
    return folder

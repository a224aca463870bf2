"""The broker's key file on disk: made on first start, refused when others may read it.

The rule: a secret is written once, mode 0600, and never printed. When the controller is root and dnsd
becomes another user, the one line that dnsd needs is also written to `<file>.node`, readable by that
user's group; dnsd looks there when the file itself is closed to it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets

from dnsd.contract import keys
from dnsd.contract.keys import Key, KeysError


def load(path: str) -> dict[str, Key]:
    """Read a key file; raises KeysError with what to do."""
    try:
        with open(path, encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            problem = keys.permission_problem(path, status.st_mode, status.st_uid, os.geteuid())
            if problem:
                raise KeysError(problem)
            return keys.parse(file.read(), path)
    except FileNotFoundError:
        raise KeysError(f"{path} is not there: start the controller once, it makes the keys") from None
    except UnicodeDecodeError:
        raise KeysError(f"{path} is not text") from None
    except OSError as error:
        raise KeysError(f"{path} cannot be read: {error.strerror}") from None


def load_or_make(path: str, node_user: str | None = None) -> dict[str, Key]:
    """Read the key file, or make it with one key for each role; raises KeysError."""
    if not os.path.lexists(path):
        made = [Key(role, (role,), secrets.token_bytes(keys.SECRET_BYTES)) for role in keys.ROLES]
        try:
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            _write(path, keys.render(made), None)
        except OSError as error:
            raise KeysError(f"{path} cannot be made: {error.strerror}") from None
    found = load(path)
    if node_user is not None and os.geteuid() == 0:
        _share_with(path + ".node", node_user, found)
    return found


def _share_with(path: str, user: str, found: dict[str, Key]) -> None:
    try:
        group = pwd.getpwnam(user).pw_gid
        _write(path, keys.render([keys.for_role(found, "node")]), group)
    except KeyError:
        raise KeysError(f"the user {user!r} (setting `user`) is not known on this machine") from None
    except OSError as error:
        raise KeysError(f"{path} cannot be made: {error.strerror}") from None


def _write(path: str, text: str, group: int | None) -> None:
    """Write whole or not at all; with a group, the group may read."""
    scratch = f"{path}.{os.getpid()}.new"
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            if group is not None:
                os.fchown(file.fileno(), -1, group)
                os.fchmod(file.fileno(), 0o640)
            file.flush()
            os.fsync(file.fileno())
        os.rename(scratch, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(scratch)
        raise

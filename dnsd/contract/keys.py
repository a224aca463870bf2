"""The keys of the broker protocol: who may prove what; lines of a key file; who may read it.

Pure: reading and writing the file is the caller's job (`controller.broker_keys`, `dnsd.serve.agent_link`).
A line is `key-id role[,role] base64`, the secret at least 16 octets; `#` begins a comment.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import re
import stat
from collections.abc import Iterable, Mapping

ROLES: tuple[str, ...] = ("publisher", "node", "hook", "observer", "operator")
SECRET_BYTES = 32
_LEAST_SECRET = 16
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class KeysError(ValueError):
    """A key file that cannot be used; the text says what is wrong and what to do."""


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """One shared key and the roles that it proves. The secret never shows in a repr."""

    id: str
    roles: tuple[str, ...]
    secret: bytes = dataclasses.field(repr=False)


def parse(text: str, path: str = "key file") -> dict[str, Key]:
    """Read the lines of a key file; raises KeysError naming the line, never its secret."""
    keys: dict[str, Key] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        place = f"{path}:{number}"
        parts = line.split()
        if len(parts) != 3:
            raise KeysError(f"{place}: a line is `key-id role[,role] base64`, this one has {len(parts)} fields, not 3")
        key_id, roles_text, secret_text = parts
        if not _ID.fullmatch(key_id):
            raise KeysError(f"{place}: a key id has letters, digits, dots, hyphens and underscores, at most 63")
        if key_id in keys:
            raise KeysError(f"{place}: key {key_id} is there twice; remove one of the two lines")
        roles = tuple(roles_text.split(","))
        unknown = [role for role in roles if role not in ROLES]
        if unknown:
            raise KeysError(f"{place}: {unknown[0]!r} is not a role; the roles are {', '.join(ROLES)}")
        try:
            secret = base64.b64decode(secret_text, validate=True)
        except (binascii.Error, ValueError):
            raise KeysError(f"{place}: the third field is not base64") from None
        if len(secret) < _LEAST_SECRET:
            raise KeysError(f"{place}: a secret has at least {_LEAST_SECRET} octets, this one has {len(secret)}")
        keys[key_id] = Key(key_id, roles, secret)
    return keys


def render(keys: Iterable[Key]) -> str:
    """The lines of a key file, with a comment that says what it is."""
    lines = ["# NexoralDNS broker keys: key-id role[,role] base64. Whoever reads a line may take its roles."]
    lines += [f"{key.id} {','.join(key.roles)} {base64.b64encode(key.secret).decode()}" for key in keys]
    return "\n".join(lines) + "\n"


def for_role(keys: Mapping[str, Key], role: str, path: str = "key file") -> Key:
    """The key that proves a role: the one whose id is the role's, or the first that has it; raises KeysError."""
    named = keys.get(role)
    if named is not None and role in named.roles:
        return named
    for key in keys.values():
        if role in key.roles:
            return key
    raise KeysError(f"{path} has no key for the role {role}: copy the line that begins with `{role}` from the broker's")


def permission_problem(path: str, mode: int, owner: int, reader: int) -> str | None:
    """Why a key file with this mode and owner must not be used by the user id `reader`, and what to run; or None.

    Nobody else may read it or write to it. One exception: a file that belongs to another user (say, root) may be
    readable by its group, because that is how an administrator hands it to a service.
    """
    forbidden = 0o077 if owner == reader or reader == 0 else 0o037
    if not stat.S_ISREG(mode):
        return f"{path} is not a regular file"
    if stat.S_IMODE(mode) & forbidden:
        wanted = "600" if forbidden == 0o077 else "640"
        return (
            f"{path} may be read or changed by others (mode {stat.S_IMODE(mode):04o}), so its keys prove nothing: "
            f"run `chmod {wanted} {path}`"
        )
    return None

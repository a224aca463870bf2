"""Who dnsd is: the user it becomes, and the one capability that it keeps.

The change happens before the first socket is made: sockets made as root and used under another uid
break SO_REUSEPORT later (EADDRINUSE, measured). Linux only, by prctl(2) and capset(2).
"""

import ctypes
import os
import pwd
import struct

_CAP_NET_BIND_SERVICE = 10
_CAP_VERSION_3 = 0x20080522
_PR_SET_KEEPCAPS = 8
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4

_libc = ctypes.CDLL(None, use_errno=True)


class PrivilegeError(Exception):
    """The user cannot be taken; the text is one sentence for the administrator."""


def become(user: str | None, bind_low_ports: bool, state: str) -> None:
    """Become `user` (None: stay), keeping CAP_NET_BIND_SERVICE only when `bind_low_ports`.

    The state directory is made first, for that user when root has to make it, and opened to the user's group when it
    is root's already; raises PrivilegeError when it cannot be made or written.
    """
    entry = None
    if user is not None:
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            raise PrivilegeError(f"there is no user {user!r}; create it or change `user` in the settings") from None
    _state_directory(state, entry)
    if entry is not None and os.geteuid() != entry.pw_uid:
        if os.geteuid() != 0:
            raise PrivilegeError(
                f"only root can become user {user!r} and this is {user_name(os.geteuid())!r}; "
                f"start dnsd as root or as {user!r}, or remove `user`"
            )
        _prctl(_PR_SET_KEEPCAPS, 1 if bind_low_ports else 0)
        os.setgroups(os.getgrouplist(entry.pw_name, entry.pw_gid))
        os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
        os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
        _set_capabilities(1 << _CAP_NET_BIND_SERVICE if bind_low_ports else 0)
        os.environ["HOME"] = entry.pw_dir
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if not os.path.isdir(state):
        raise PrivilegeError(f"the state directory {state} is a file; move it away, or change `state`")
    if not os.access(state, os.W_OK | os.X_OK):
        who = user_name(os.geteuid())
        raise PrivilegeError(f"user {who!r} cannot write to {state}; run `chown -R {who} {state}` or change `state`")


def drop_all() -> None:
    """Give up every capability; for workers, which need no file and no port of their own."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _set_capabilities(0)


def effective() -> int:
    """The effective capabilities as a bit set."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def _state_directory(state: str, entry: pwd.struct_passwd | None) -> None:
    try:
        os.makedirs(os.path.dirname(state) or "/", exist_ok=True)
        try:
            os.mkdir(state, 0o750)
        except FileExistsError:
            if entry is not None and os.geteuid() == 0 and os.stat(state).st_uid == 0:
                # A root's controller was here first. The user's group may add its own files beside root's; the
                # sticky bit keeps it from moving those away.
                os.chown(state, -1, entry.pw_gid)
                os.chmod(state, os.stat(state).st_mode & 0o7777 | 0o1070)  # noqa: S103
            return
        if entry is not None and os.geteuid() == 0:
            os.chown(state, entry.pw_uid, entry.pw_gid)
    except OSError as error:
        raise PrivilegeError(f"the state directory {state} cannot be made: {error.strerror}") from None


def _set_capabilities(bits: int) -> None:
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAP_VERSION_3, 0))
    low, high = bits & 0xFFFFFFFF, bits >> 32
    data = ctypes.create_string_buffer(struct.pack("=6I", low, low, 0, high, high, 0))
    if _libc.capset(header, data) != 0:
        raise PrivilegeError(f"capset: {os.strerror(ctypes.get_errno())}")


def _prctl(option: int, value: int) -> None:
    _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))


def user_name(uid: int) -> str:
    """The name of a user, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)

"""Looks at this machine: what would keep a node from serving, and what to do about it.

Each check is a function that returns findings and changes nothing; sockets that it opens to try are
closed at once. Where a fact cannot be had, it says so instead of guessing.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import ipaddress
import os
import pathlib
import pwd
import resource
import shutil
import socket
import sys
import time
import zoneinfo
from collections.abc import Callable, Iterator

from controller.machine import NOTE, OK, PROBLEM, WARNING, Finding, Machine, holders
from controller.source import redact
from dnsd.contract.settings import Settings, split_listen

RECEIVE_BUFFER = 4 << 20  # what each listening socket asks for; the kernel's default holds 256 queries
_CAP_NET_ADMIN, _CAP_NET_BIND_SERVICE = 12, 10
_WANTED_FREE = 256 << 20
_WANTED_FILES = 4096
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


# --- Python and the program -------------------------------------------------------------------------------------------


def check_python(_: Settings, __: Machine) -> Iterator[Finding]:
    """The interpreter is new enough."""
    version = ".".join(map(str, sys.version_info[:3]))
    if tuple(sys.version_info) >= (3, 11):
        yield Finding(OK, "Python", version)
    else:
        yield Finding(PROBLEM, "Python", f"{version} is too old", "install Python 3.11 or newer")


def check_compiled(_: Settings, machine: Machine) -> Iterator[Finding]:
    """The query path is compiled, and from the sources that lie beside it."""
    wanted = [path.with_suffix("") for path in sorted(machine.packages.rglob("*.pxd"))]
    wanted = [path for path in wanted if path.name not in ("codes", "layout")]
    built = {path: next(path.parent.glob(f"{path.name}.*.so"), None) for path in wanted}
    missing = [path.name for path, module in built.items() if module is None]
    stale = [
        path.name for path, module in built.items()
        if module and path.with_suffix(".py").exists()
        and path.with_suffix(".py").stat().st_mtime > module.stat().st_mtime + 2
    ]  # fmt: skip
    if missing:
        yield Finding(
            WARNING, "Compiled", f"{len(missing)} of {len(built)} modules of the query path run interpreted: "
            + ", ".join(missing), "install a C compiler (apt-get install gcc libc6-dev python3-dev) and set up again; "
            "everything works without, at about a hundredth of the speed",
        )  # fmt: skip
    elif stale:
        yield Finding(WARNING, "Compiled", f"older than their sources: {', '.join(stale)}", "set up again: ./ci/up")
    else:
        yield Finding(OK, "Compiled", f"all {len(built)} modules of the query path")


def check_zones(_: Settings, __: Machine) -> Iterator[Finding]:
    """Schedules find their time zones."""
    try:
        zoneinfo.ZoneInfo("Europe/Amsterdam")
        yield Finding(OK, "Time zones", f"{time.tzname[0]} here, the IANA zones are there")
    except zoneinfo.ZoneInfoNotFoundError:
        yield Finding(PROBLEM, "Time zones", "the IANA zones are missing, so schedules cannot be read",
                      "apt-get install tzdata, or pip install tzdata")  # fmt: skip


# --- ports ------------------------------------------------------------------------------------------------------------


def _is_ours(machine: Machine, holder: str) -> bool:
    pid = holder.rpartition("(")[2].rstrip(")")
    line = machine.read(f"/proc/{pid}/cmdline") or ""
    return any(word in line for word in ("nexoraldns", "-m\0dnsd", "-m\0controller", "ndns"))


def _try_bind(kind: socket.SocketKind, host: str, port: int) -> OSError | None:
    device = ""
    address = host
    try:
        version = 4 if host == "*" else ipaddress.ip_address(host).version
    except ValueError:
        version, device, address = 4, host, "*"
    if address == "*":
        address = "0.0.0.0"
    with socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, kind) as trial:
        try:
            if device:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            trial.bind((address, port))
        except OSError as error:
            return error
    return None


def _port(machine: Machine, what: str, host: str, port: int, kinds: tuple[str, ...]) -> Iterator[Finding]:
    label = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    free = []
    for protocol in kinds:
        kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
        error = _try_bind(kind, host, port)
        shown = f"{label} {protocol.upper()}"
        if error is None:
            free.append(protocol.upper())
        elif error.errno == errno.EADDRINUSE:
            who = holders(machine, protocol, port)
            names = sorted({name for _, name in who}) or ["a process that this user may not see"]
            if who and all(_is_ours(machine, name) for name in names):
                yield Finding(OK, what, f"{shown} is served by us: {', '.join(names)}")
            elif any(name.startswith("systemd-resolve") for name in names):
                yield Finding(PROBLEM, what, f"{shown} is held by systemd-resolved's stub", _RESOLVED)
            else:
                yield Finding(PROBLEM, what, f"{shown} is held by {', '.join(names)}",
                              "stop it, or choose another address or port in the settings")  # fmt: skip
        elif error.errno in (errno.EACCES, errno.EPERM):
            yield Finding(PROBLEM, what, f"{shown} is not permitted to this user", _PRIVILEGE)
        elif error.errno == errno.EADDRNOTAVAIL:
            yield Finding(WARNING, what, f"{shown}: this machine does not have the address now",
                          "dnsd waits for it; if it is a mistake, correct `listen`")  # fmt: skip
        elif error.errno == errno.ENODEV:
            yield Finding(PROBLEM, what, f"there is no interface {host!r}",
                          f"the interfaces are: {', '.join(name for _, name in socket.if_nameindex())}")  # fmt: skip
        else:
            yield Finding(PROBLEM, what, f"{shown}: {error.strerror}", "correct the address in the settings")
    if free:
        yield Finding(OK, what, f"{label} is free ({', '.join(free)})")


_RESOLVED = (
    "let it go on without its stub: printf '[Resolve]\\nDNSStubListener=no\\n' > "
    "/etc/systemd/resolved.conf.d/nexoraldns.conf && systemctl restart systemd-resolved"
)
_PRIVILEGE = (
    "start as root with `user:` in the settings, or give the service AmbientCapabilities=CAP_NET_BIND_SERVICE, "
    "or sysctl -w net.ipv4.ip_unprivileged_port_start=53"
)


def check_ports(settings: Settings, machine: Machine) -> Iterator[Finding]:
    """What we mean to listen on is free, or ours already."""
    for text in settings.listen:
        host, port = split_listen(text)
        yield from _port(machine, "Listen", host.removesuffix("/addresses"), port, ("udp", "tcp"))
    for what, text in (("Broker", settings.broker.listen), ("Status page", settings.status.listen)):
        host, port = split_listen(text)
        yield from _port(machine, what, host, port, ("tcp",))
    if not any(split_listen(text)[1] == 53 for text in settings.listen):
        who = sorted({name for protocol in ("udp", "tcp") for _, name in holders(machine, protocol, 53)})
        text = f"held by {', '.join(who)}" if who else "free"
        yield Finding(NOTE, "Port 53", f"not asked for by these settings; {text}")


def check_privilege(settings: Settings, machine: Machine) -> Iterator[Finding]:
    """Low ports need a capability or a sysctl."""
    first = machine.number("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    lowest = min((split_listen(text)[1] for text in settings.listen), default=65535)
    if first is None:
        yield Finding(NOTE, "Low ports", "the kernel does not say from which port on no privilege is needed")
    elif lowest >= first:
        yield Finding(OK, "Low ports", f"port {lowest} needs no privilege (that begins below {first})")
    elif machine.has_capability(_CAP_NET_BIND_SERVICE):
        yield Finding(OK, "Low ports", f"port {lowest} is permitted: CAP_NET_BIND_SERVICE is there")
    else:
        yield Finding(PROBLEM, "Low ports", f"port {lowest} is below {first} and this user may not bind it", _PRIVILEGE)


def check_resolved(settings: Settings, machine: Machine) -> Iterator[Finding]:
    """systemd-resolved's stub: in the way of a wildcard, and what this machine itself asks."""
    stub = [name for address, name in holders(machine, "udp", 53) if address in ("127.0.0.53", "127.0.0.54")]
    asked = [line.split()[1] for line in (machine.read("/etc/resolv.conf") or "").splitlines()
             if line.startswith("nameserver") and len(line.split()) > 1]  # fmt: skip
    wild = [text for text in settings.listen if split_listen(text) == ("*", 53)]
    if stub and wild:
        yield Finding(PROBLEM, "systemd-resolved", f"its stub on 127.0.0.53 is in the way of {wild[0]}", _RESOLVED)
    elif stub:
        yield Finding(OK, "systemd-resolved", "its stub runs on 127.0.0.53 and is not in the way")
    else:
        yield Finding(OK, "systemd-resolved", "no stub on port 53")
    if asked:
        yield Finding(NOTE, "Resolver", f"programs on this machine ask {', '.join(asked)} (/etc/resolv.conf)")


# --- the kernel -------------------------------------------------------------------------------------------------------


def check_buffers(_: Settings, machine: Machine) -> Iterator[Finding]:
    """Receive buffers may be as large as we ask for."""
    limit = machine.number("/proc/sys/net/core/rmem_max")
    if limit is None:
        yield Finding(NOTE, "Buffers", "net.core.rmem_max cannot be read here")
    elif limit >= RECEIVE_BUFFER or machine.has_capability(_CAP_NET_ADMIN):
        how = "" if limit >= RECEIVE_BUFFER else ", but we may exceed it"
        yield Finding(OK, "Buffers", f"net.core.rmem_max is {limit}{how}")
    else:
        yield Finding(WARNING, "Buffers", f"net.core.rmem_max is {limit}: a burst of queries overflows it",
                      f"sysctl -w net.core.rmem_max={RECEIVE_BUFFER}, and the same line in /etc/sysctl.d/")  # fmt: skip


def check_kernel(_: Settings, machine: Machine) -> Iterator[Finding]:
    """What dnsd is built on works here: /proc, sealed memory, SO_REUSEPORT, IPv6."""
    if machine.read("/proc/self/stat") is None:
        yield Finding(PROBLEM, "/proc", "is not mounted", "mount -t proc proc /proc")
    else:
        yield Finding(OK, "/proc", "mounted")
    try:
        handle = os.memfd_create("nexoraldns-doctor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            fcntl.fcntl(handle, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
        finally:
            os.close(handle)
        yield Finding(OK, "Sealed memory", "memfd_create and seals work")
    except OSError as error:
        yield Finding(PROBLEM, "Sealed memory", f"memfd_create: {error.strerror}",
                      "allow memfd_create(2) and F_ADD_SEALS in the container's seccomp profile")  # fmt: skip
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, socket.socket(
            socket.AF_INET, socket.SOCK_DGRAM
        ) as two:
            for each in (one, two):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            one.bind(("127.0.0.1", 0))
            two.bind(one.getsockname())
        yield Finding(OK, "SO_REUSEPORT", "one port can be shared by several workers")
    except OSError as error:
        yield Finding(PROBLEM, "SO_REUSEPORT", str(error.strerror), "a Linux kernel of 3.9 or newer is needed")
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one:
            one.bind(("::1", 0))
        yield Finding(OK, "IPv6", "there")
    except OSError as error:
        yield Finding(NOTE, "IPv6", f"off ({error.strerror}); wildcards listen on IPv4 alone")


def check_limits(_: Settings, machine: Machine) -> Iterator[Finding]:
    """Enough file descriptors and inotify watches."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= _WANTED_FILES or soft == resource.RLIM_INFINITY:
        yield Finding(OK, "Open files", f"{soft} at a time")
    else:
        yield Finding(WARNING, "Open files", f"only {soft} at a time (at most {hard})",
                      f"LimitNOFILE={_WANTED_FILES} in the service, or ulimit -n {_WANTED_FILES}")  # fmt: skip
    watches = machine.number("/proc/sys/fs/inotify/max_user_watches")
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.inotify_init1(os.O_CLOEXEC)
    if handle < 0:
        yield Finding(PROBLEM, "inotify", f"a watch cannot be made: {os.strerror(ctypes.get_errno())}",
                      "sysctl -w fs.inotify.max_user_instances=512")  # fmt: skip
        return
    os.close(handle)
    if watches is not None and watches < 1024:
        yield Finding(WARNING, "inotify", f"only {watches} watches a user",
                      "sysctl -w fs.inotify.max_user_watches=8192")  # fmt: skip
    else:
        yield Finding(OK, "inotify", f"{watches if watches is not None else 'enough'} watches")


def check_clock(_: Settings, machine: Machine) -> Iterator[Finding]:
    """The wall clock is not absurd, and something keeps it right."""
    now, installed = time.time(), (machine.packages / "__init__.py").stat().st_mtime
    if now < installed - 86400 or time.gmtime(now).tm_year > 2100:
        yield Finding(PROBLEM, "Clock", f"says {time.strftime('%Y-%m-%d %H:%M', time.gmtime(now))} UTC, which is wrong",
                      "set it, and start an NTP client; schedules, expiry and signatures follow it")  # fmt: skip
        return
    text = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    # struct timex with modes 0 only reads; 512 bytes are more than any architecture's layout.
    if ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)) == _TIME_ERROR:
        yield Finding(WARNING, "Clock", f"{text}, but nothing keeps it synchronised",
                      "start an NTP client: systemctl enable --now systemd-timesyncd, or chrony")  # fmt: skip
    else:
        yield Finding(OK, "Clock", f"{text}, synchronised")


# --- files and users --------------------------------------------------------------------------------------------------


def check_state(settings: Settings, _: Machine) -> Iterator[Finding]:
    """The state folder can be written and has room."""
    folder = pathlib.Path(settings.state)
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        yield Finding(PROBLEM, "State", f"{existing} is not a folder", "choose another `state` in the settings")
        return
    if not os.access(existing, os.W_OK | os.X_OK):
        verb = "be written" if existing == folder else f"be made: {existing} cannot be written"
        yield Finding(PROBLEM, "State", f"{folder} cannot {verb} by this user",
                      f"install -d -o USER -m 0750 {folder}")  # fmt: skip
        return
    free = shutil.disk_usage(existing).free
    inodes = os.statvfs(existing)
    text = f"{folder}, {free >> 20} MiB free"
    if free < _WANTED_FREE or (inodes.f_files and inodes.f_favail < 1000):
        yield Finding(WARNING, "State", f"{text} is little" if free < _WANTED_FREE else f"{folder} has few inodes left",
                      "make room: tables are kept twice while a new one arrives")  # fmt: skip
    else:
        yield Finding(OK, "State", text)


def check_source(settings: Settings, _: Machine) -> Iterator[Finding]:
    """The rules can be found."""
    if settings.source.git is not None:
        if shutil.which("git"):
            url = redact(settings.source.git.url)
            yield Finding(OK, "Rules", f"{url}, {settings.source.git.ref}; git is installed")
        else:
            yield Finding(PROBLEM, "Rules", "come from git, and git is not installed", "apt-get install git")
        return
    folder = settings.source.directory
    if folder is None:
        return
    if not os.path.exists(folder):
        yield Finding(WARNING, "Rules", f"{folder} does not exist yet", "put rule files there, or correct `source`")
    elif not os.access(folder, os.R_OK):
        yield Finding(PROBLEM, "Rules", f"{folder} cannot be read by this user", "correct its owner or its mode")
    else:
        yield Finding(OK, "Rules", folder)


def check_user(settings: Settings, _: Machine) -> Iterator[Finding]:
    """The user that dnsd becomes exists."""
    if settings.user is None:
        if os.geteuid() == 0:
            yield Finding(WARNING, "User", "dnsd would stay root",
                          "set `user:` in the settings, for instance to nobody or a user of its own")  # fmt: skip
        return
    try:
        pwd.getpwnam(settings.user)
        yield Finding(OK, "User", f"dnsd becomes {settings.user}" if os.geteuid() == 0 else f"{settings.user} exists")
    except KeyError:
        yield Finding(PROBLEM, "User", f"there is no user {settings.user!r}",
                      f"useradd --system --no-create-home --shell /usr/sbin/nologin {settings.user}")  # fmt: skip


def check_keys(settings: Settings, _: Machine) -> Iterator[Finding]:
    """The broker's keys are nobody else's."""
    try:
        status = os.stat(settings.broker.keys)
    except OSError:
        yield Finding(NOTE, "Broker keys", f"{settings.broker.keys} is made on the first start")
        return
    if status.st_mode & 0o027:
        yield Finding(PROBLEM, "Broker keys", f"{settings.broker.keys} can be read by others",
                      f"chmod 600 {settings.broker.keys}")  # fmt: skip
    elif not os.access(settings.broker.keys, os.R_OK):
        yield Finding(PROBLEM, "Broker keys", f"{settings.broker.keys} cannot be read by this user",
                      "give this user a file with the keys of its role; see `broker.keys`")  # fmt: skip
    else:
        yield Finding(OK, "Broker keys", settings.broker.keys)


CHECKS: tuple[Callable[[Settings, Machine], Iterator[Finding]], ...] = (
    check_python, check_compiled, check_zones, check_clock, check_ports, check_privilege, check_resolved,
    check_buffers, check_kernel, check_limits, check_state, check_source, check_user, check_keys,
)  # fmt: skip


def examine(settings: Settings, machine: Machine | None = None) -> list[Finding]:
    """Run every check; one that fails in an unforeseen way becomes a finding itself."""
    machine = machine or Machine()
    findings = []
    for check in CHECKS:
        try:
            findings += list(check(settings, machine))
        except Exception as error:
            name = check.__name__.removeprefix("check_")
            findings.append(Finding(WARNING, name, f"could not be looked at: {error}", "please report this"))
    return findings

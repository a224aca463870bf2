"""Listen addresses become sockets: wildcard, device or address, one per worker slot and transport.

The supervisor calls this before its first fork and keeps the sockets; a worker never binds. Every
failure is a `ListenError` whose text says in one sentence what is wrong and how to mend it.

All sockets have SO_REUSEPORT, so the kernel spreads clients over the slots. The price is that a
second program of the same user could join unnoticed; `probe` looks for that first, with a plain bind.
"""

import contextlib
import dataclasses
import errno
import ipaddress
import os
import socket

from dnsd.contract.settings import split_listen
from dnsd.serve import portholder
from dnsd.serve.privileges import user_name

# Linux numbers that Python 3.11 does not name.
IP_PKTINFO = 8
IP_MTU_DISCOVER = 10
IP_FREEBIND = 15
IP_PMTUDISC_OMIT = 5
IPV6_MTU_DISCOVER = 23
SO_RCVBUFFORCE = 33
TCP_FASTOPEN = 23

RECEIVE_BYTES = 4 << 20  # the default holds only 256 small queries (measured)
BACKLOG = 511
_DEFER_S = 5  # a client that connects and says nothing is not ours to look at before
_FASTOPEN_QUEUE = 128
_PORT_START = "/proc/sys/net/ipv4/ip_unprivileged_port_start"


class ListenError(Exception):
    """An address that cannot be listened on; the text is one sentence for the user."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """One entry of `listen`: exactly one of wildcard, device and address, or an interface whose addresses it follows.

    A place that `follows` is never bound itself: `at` makes the place of each address.
    """

    text: str
    port: int
    address: str | None  # None: the wildcard of both families
    device: str | None
    follows: bool = False
    followed: bool = False  # an address of such an interface: it may be there some milliseconds before its route is

    @property
    def wildcard(self) -> bool:
        """Whether the socket learns only from each packet which address was asked."""
        return self.address is None or ipaddress.ip_address(self.address).is_unspecified

    def at(self, address: str) -> "Place":
        """The place of one address that the interface has now; a link-local one belongs to its interface."""
        if ipaddress.ip_address(address).is_link_local and ":" in address:
            address = f"{address}%{self.device}"
        text = f"[{address}]:{self.port}" if ":" in address else f"{address}:{self.port}"
        return Place(text, self.port, address, None, followed=True)

    def present(self) -> bool:
        """Whether this machine has the address now; an address that it has not is bound too, and may come later."""
        if self.address is None:
            return True
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            try:
                sock.bind(_sockaddr(dataclasses.replace(self, port=0), family))
            except OSError as error:
                return error.errno != errno.EADDRNOTAVAIL
        return True

    def index(self) -> int:
        """The number of the device's interface now; 0 without a device, or while the interface is gone."""
        if self.device is None:
            return 0
        try:
            return socket.if_nametoindex(self.device)
        except OSError:
            return 0


@dataclasses.dataclass(slots=True)
class Sockets:
    """The sockets of one worker slot: first those of the `listen` entries in their order, then what came later.

    `ids` names each pair of them for messages between processes; a number is never used twice.
    """

    udp: list[socket.socket]
    tcp: list[socket.socket]
    ids: list[int] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.ids:
            self.ids = list(range(len(self.udp)))

    def add(self, number: int, udp: socket.socket, tcp: socket.socket) -> None:
        """Hold one more pair."""
        self.ids.append(number)
        self.udp.append(udp)
        self.tcp.append(tcp)

    def take(self, number: int) -> tuple[socket.socket, socket.socket] | None:
        """Give one pair back; None when it is not here."""
        if number not in self.ids:
            return None
        at = self.ids.index(number)
        del self.ids[at]
        return self.udp.pop(at), self.tcp.pop(at)

    def close(self) -> None:
        """Close them all."""
        for sock in (*self.udp, *self.tcp):
            sock.close()


def place(text: str, must_exist: bool = True) -> Place:
    """Read one `listen` entry; raises ListenError for an interface that does not exist, if it `must_exist` now."""
    host, port = split_listen(text)
    if host == "*":
        return Place(text, port, None, None)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        device, _, mode = host.partition("/")
        names = [name for _, name in socket.if_nameindex()]
        if must_exist and device not in names:
            raise ListenError(
                f"there is no interface {device!r} to listen on ({text}); this machine has {', '.join(names)}"
            ) from None
        return Place(text, port, None, device, follows=mode == "addresses")
    return Place(text, port, host, None)


def unprivileged_port_start() -> int:
    """The lowest port that needs no capability."""
    try:
        with open(_PORT_START, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 1024


def probe(places: list[Place], ours: frozenset[int] = frozenset()) -> None:
    """Raise ListenError when another program has one of the ports.

    `ours` are the pids of our own orphaned workers, which share the ports until we take over.
    """
    for where in places:
        for transport, kind in (("udp", socket.SOCK_DGRAM), ("tcp", socket.SOCK_STREAM)):
            try:
                sock = _socket(where, kind)
            except OSError as error:
                raise _explain(where, transport, error) from None
            with sock:
                if kind == socket.SOCK_STREAM:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT is nobody
                try:
                    sock.bind(_sockaddr(where, sock.family))
                except OSError as error:
                    if error.errno == errno.EADDRINUSE and ours:
                        held = {holder.pid for holder in portholder.holders(where.port, transport)}
                        if held and held <= ours | {0}:
                            continue
                    raise _explain(where, transport, error) from None


def open_sockets(places: list[Place], slots: int) -> list[Sockets]:
    """Bind every place once per slot and transport; all or nothing, raises ListenError."""
    done: list[Sockets] = []
    try:
        for _ in range(slots):
            done.append(Sockets([], []))
            for where in places:
                done[-1].udp.append(_open(where, "udp"))
                done[-1].tcp.append(_open(where, "tcp"))
    except BaseException:
        for sockets in done:
            sockets.close()
        raise
    return done


def leave(sock: socket.socket) -> bool:
    """Take a UDP socket out of its SO_REUSEPORT group and keep what is queued (connect to nobody).

    Closing would lose the queue, and a member that is not read keeps getting its share (both measured).
    False when the socket cannot be connected; it still works as before then.
    """
    peers = [("::1", 9), ("::ffff:127.0.0.1", 9)] if sock.family == socket.AF_INET6 else [("127.0.0.1", 9)]
    own = sock.getsockname()[0]
    if not ipaddress.ip_address(own.partition("%")[0]).is_unspecified:
        peers.insert(0, (own, 9))
    for peer in peers:
        try:
            sock.connect(peer)
            return True
        except OSError:
            continue
    return False


def _socket(where: Place, kind: socket.SocketKind) -> socket.socket:
    """A socket of the place's family; the wildcard is dual-stack, and IPv4 only where IPv6 is off."""
    if where.address is not None:
        version = ipaddress.ip_address(where.address).version
        sock = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, kind)
        if version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)  # works for both families
    else:
        try:
            sock = socket.socket(socket.AF_INET6, kind)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        except OSError:
            sock = socket.socket(socket.AF_INET, kind)
    if where.device is not None:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, where.device.encode() + b"\0")
        except OSError:
            sock.close()
            raise
    sock.setblocking(False)
    return sock


def _sockaddr(where: Place, family: int) -> tuple[str, int] | tuple[str, int, int, int]:
    if where.address is None:
        return ("::", where.port) if family == socket.AF_INET6 else ("0.0.0.0", where.port)
    host, _, zone = where.address.partition("%")
    if zone:
        index = int(zone) if zone.isdigit() else socket.if_nametoindex(zone)
        return host, where.port, 0, index
    return host, where.port


def _open(where: Place, transport: str) -> socket.socket:
    sock = None
    try:
        sock = _socket(where, socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if transport == "udp":
            # No SO_REUSEADDR here: with it any other user's program could bind the same port and take the packets.
            _tune_udp(sock, where)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT of the run before
        sock.bind(_sockaddr(where, sock.family))
        if transport == "tcp":
            _tune_tcp(sock)
            sock.listen(BACKLOG)
    except OSError as error:
        if sock is not None:
            sock.close()
        raise _explain(where, transport, error) from None
    return sock


def _tune_udp(sock: socket.socket, where: Place) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BYTES)
    except OSError:  # needs CAP_NET_ADMIN; without it net.core.rmem_max is the limit
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
    six = sock.family == socket.AF_INET6
    if where.wildcard or (where.followed and not six):
        if six:  # IPv4 packets come with it too, as ::ffff:a.b.c.d (measured)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    # Ignore forged "fragmentation needed" messages: our answers fit 1232 octets.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_OMIT)
    if six:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IP_PMTUDISC_OMIT)


def _tune_tcp(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _DEFER_S)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, _FASTOPEN_QUEUE)


def _explain(where: Place, transport: str, error: OSError) -> ListenError:
    """One sentence: what is wrong with this address, and what to do."""
    text, name = where.text, transport.upper()
    if error.errno == errno.EADDRINUSE:
        return ListenError(_in_use(where, transport))
    if error.errno in (errno.EACCES, errno.EPERM) and where.port < (start := unprivileged_port_start()):
        user = user_name(os.geteuid())
        return ListenError(
            f"user {user} may not listen on {text}: ports below {start} need CAP_NET_BIND_SERVICE; start as root with "
            f"`user:` set, or use systemd's AmbientCapabilities=CAP_NET_BIND_SERVICE, "
            f"`setcap cap_net_bind_service=+ep` on the Python that runs dnsd, "
            f"or `sysctl net.ipv4.ip_unprivileged_port_start={where.port}`"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return ListenError(f"this machine has no address {where.address} ({text}, {name})")
    if error.errno == errno.EAFNOSUPPORT:
        return ListenError(f"this machine does not speak the address family of {text}; is IPv6 switched off?")
    if error.errno == errno.ENODEV:
        return ListenError(f"there is no interface {where.device!r} to listen on ({text})")
    return ListenError(f"cannot listen on {text} ({name}): {os.strerror(error.errno or 0)}")


def _in_use(where: Place, transport: str) -> str:
    found = portholder.holders(where.port, transport)
    named = [f"{holder.name} (pid {holder.pid})" for holder in found if holder.pid]
    head = f"port {where.port}/{transport} of {where.text} is in use"
    if named:
        shown = ", ".join(named[:3]) + (" and others" if len(named) > 3 else "")
        head += f" by {shown}"
    elif found:
        head += f" by a process of uid {found[0].uid} (start as root to see its name)"
    if where.port == 53 and (any("systemd-resolve" in name for name in named) or (not named and _resolved_runs())):
        return head + (
            ": that is systemd-resolved's stub; set DNSStubListener=no in /etc/systemd/resolved.conf and run "
            "`systemctl restart systemd-resolved`, or listen on one address instead of *:53"
        )
    return head + ("; stop it" if named else "; stop that process") + " or choose another port in `listen`"


def _resolved_runs() -> bool:
    return os.path.exists("/run/systemd/resolve/stub-resolv.conf")

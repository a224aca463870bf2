"""Which sockets the node has bound, and how they follow the interfaces while the workers serve on.

The supervisor's: it alone makes sockets (SO_REUSEPORT wants one user for all of them), hands new ones to the
running workers, and makes before it breaks. Wildcards and fixed addresses never change. A device's sockets
are made anew when its interface is. An interface's addresses (`eth0/addresses:53`) each have sockets of their
own, from the kernel's event that adds the address until ten minutes after it has gone: the same sockets work
again when it comes back (measured).
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
from collections.abc import Callable, Sequence
from typing import Any

from dnsd.serve import listener
from dnsd.serve.listener import ListenError, Place, Sockets
from dnsd.serve.netlink import Kernel

GRACE_MS = 600_000  # how long the sockets of an address that has gone are kept
RETRY_MS = 1000  # after a failure to bind
MOST_ADDRESSES = 64  # of one interface: a flood of router advertisements must not take all descriptors
MOST_GONE = 64  # addresses of one interface that have gone and still have their sockets; the oldest go first
SLOTS_A_MESSAGE = 32  # two descriptors each; the kernel takes 253 in one message

# send(slot, message, descriptors) hands a message to the slot's worker; False when it must be tried again.
Send = Callable[[int, dict[str, Any], Sequence[int]], bool]
# tell(message) informs the agent.
Tell = Callable[[dict[str, Any]], object]


@dataclasses.dataclass(slots=True)
class _Binding:
    """One bound place: its number, the `listen` entry that it is for, the interface's number for a device."""

    number: int
    entry: Place
    where: Place
    index: int = 0
    gone_ms: int = 0  # when its address went; 0 while it is there


class Bindings:
    """All sockets of a node, by slot in `sockets`."""

    def __init__(self, places: Sequence[Place], slots: int, log: Any, now_ms: Callable[[], int]) -> None:
        self._places = list(places)
        self._slots = slots
        self._log = log
        self._now_ms = now_ms
        self._bound: list[_Binding] = []
        self._next = 0
        self._kernel: Kernel | None = None
        self._unsent: list[tuple[int, dict[str, Any], list[socket.socket]]] = []
        self._failed: dict[str, str] = {}
        self._retry_ms = 0
        self.sockets = [Sockets([], []) for _ in range(slots)]
        self._send: Send = lambda slot, message, fds: True
        self._tell: Tell = lambda message: None

    def open(self) -> None:
        """Bind everything that can be bound now; all or nothing for what must be, raises ListenError."""
        moving = [where for where in self._places if where.device is not None]
        try:
            if moving:
                self._open_kernel(moving)
            for where in self._places:
                if where.follows:
                    for address in self._wanted(where):
                        self._bind(where, where.at(address))
                elif where.device is None or where.index():
                    self._bind(where, where)
            if not self._bound and self._places:
                listener.place(self._places[0].text)  # says which interface is missing
        except BaseException:
            self.close()
            raise
        for where in self._places:
            if not where.present():
                self._log.warning(
                    "this machine does not have that address (yet); nobody is answered there until it has",
                    listen=where.text,
                )
        for where in moving:
            if not where.index():
                self._log.warning("an interface is not there yet; it is listened on when it comes", listen=where.text)

    def _open_kernel(self, moving: Sequence[Place]) -> None:
        try:
            self._kernel = Kernel()
        except OSError as error:
            follows = [where.text for where in moving if where.follows]
            if follows:
                raise ListenError(
                    f"cannot follow the addresses of {follows[0]}: the kernel does not tell them ({error}); "
                    f"write the addresses themselves, or {moving[0].device}:{moving[0].port}"
                ) from None

    def close(self) -> None:
        """Close every socket."""
        for sockets in self.sockets:
            sockets.close()
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None

    def forked(self) -> None:
        """In a child: the kernel's events are the supervisor's."""
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None

    def serve(self, send: Send, tell: Tell) -> int:
        """From now on workers run and changes are handed to them; returns the descriptor to watch, -1 for none."""
        self._send, self._tell = send, tell
        return self._kernel.fileno() if self._kernel is not None else -1

    # --- following --------------------------------------------------------------------------------

    def kernel_readable(self) -> None:
        """Something happened: act on it at once."""
        begun_ms = self._now_ms()
        try:
            if self._kernel is not None and not self._kernel.read():
                return
        except OSError as error:
            self._log.error("the kernel's address events cannot be read", error=str(error))
            return
        self._follow(begun_ms)

    def look(self) -> None:
        """Now and then: what could not be bound or sent, addresses whose grace is over, and kernels without events."""
        unsent, self._unsent = self._unsent, []
        for slot, message, held in unsent:
            self._hand(slot, message, held)
        now = self._now_ms()
        if self._kernel is None or (self._failed and now - self._retry_ms >= RETRY_MS):
            self._follow(now)
        for binding in list(self._bound):
            if binding.gone_ms and now - binding.gone_ms >= GRACE_MS:
                self._release(binding)

    @property
    def waiting(self) -> bool:
        """Whether a worker has not taken its sockets yet."""
        return bool(self._unsent)

    def _wanted(self, where: Place) -> list[str]:
        assert self._kernel is not None and where.device is not None
        addresses = list(dict.fromkeys(row.text for row in self._kernel.addresses(where.device)))
        if len(addresses) > MOST_ADDRESSES:
            self._complain(where, f"{where.device} has {len(addresses)} addresses; {MOST_ADDRESSES} are listened on")
        return addresses[:MOST_ADDRESSES]

    def _follow(self, begun_ms: int) -> None:
        self._retry_ms = self._now_ms()
        failed, self._failed = self._failed, {}
        for where in self._places:
            if where.follows:
                self._follow_addresses(where, begun_ms)
            elif where.device is not None:
                self._follow_device(where, begun_ms)
        for text, reason in self._failed.items():
            if failed.get(text) != reason:
                self._log.error("cannot listen there yet", listen=text, error=reason)

    def _complain(self, where: Place, reason: str) -> None:
        self._failed[where.text] = reason

    def _follow_addresses(self, where: Place, begun_ms: int) -> None:
        wanted = [where.at(address) for address in self._wanted(where)]
        texts = {place.text for place in wanted}
        ours = {binding.where.text: binding for binding in self._bound if binding.entry is where}
        for place in wanted:
            binding = ours.get(place.text)
            if binding is not None and binding.index == _zone_index(place):
                if binding.gone_ms:
                    binding.gone_ms = 0
                    self._say("rebind", binding, begun_ms, "came back")
                continue
            self._renew(where, place, binding, begun_ms)
        for text, binding in ours.items():
            if text not in texts and not binding.gone_ms:
                binding.gone_ms = self._now_ms()
                self._say("gone", binding, begun_ms, "went")
        gone = sorted((b for b in self._bound if b.entry is where and b.gone_ms), key=lambda b: b.gone_ms)
        for binding in gone[: max(0, len(gone) - MOST_GONE)]:
            self._release(binding)

    def _follow_device(self, where: Place, begun_ms: int) -> None:
        index = where.index()
        binding = next((binding for binding in self._bound if binding.entry is where), None)
        if index and (binding is None or binding.index != index):
            self._renew(where, where, binding, begun_ms)

    def _renew(self, entry: Place, where: Place, old: _Binding | None, begun_ms: int) -> None:
        """Bind, hand to the workers, then let go of the socket of an interface that is no more."""
        try:
            binding = self._bind(entry, where)
        except ListenError as error:
            self._complain(where, str(error))
            return
        pairs = [sockets.udp[-1:] + sockets.tcp[-1:] for sockets in self.sockets]
        for slot in range(self._slots):
            for first in range(0, self._slots, SLOTS_A_MESSAGE):
                some = range(first, min(first + SLOTS_A_MESSAGE, self._slots))
                message = {"op": "listen", "binding": binding.number, "slots": list(some)}
                self._hand(slot, message, [sock for other in some for sock in pairs[other]])
        self._say("rebind", binding, begun_ms, "is listened on again" if old is not None else "is listened on")
        if old is not None:
            self._release(old)

    def _release(self, binding: _Binding) -> None:
        """New questions go elsewhere, workers read what is queued, and the last one to close it ends it."""
        self._bound.remove(binding)
        for sockets in self.sockets:
            pair = sockets.take(binding.number)
            if pair is not None:
                listener.leave(pair[0])
                for sock in pair:
                    sock.close()
        for slot in range(self._slots):
            self._hand(slot, {"op": "drop", "binding": binding.number}, [])
        self._log.info("a listening socket is let go", listen=binding.where.text, entry=binding.entry.text)

    # --- parts ------------------------------------------------------------------------------------

    def _bind(self, entry: Place, where: Place) -> _Binding:
        made = listener.open_sockets([where], self._slots)
        binding = _Binding(self._next, entry, where, where.index() or _zone_index(where))
        self._next += 1
        for held, new in zip(self.sockets, made, strict=True):
            held.add(binding.number, new.udp[0], new.tcp[0])
        self._bound.append(binding)
        return binding

    def _hand(self, slot: int, message: dict[str, Any], held: Sequence[socket.socket]) -> None:
        """Send, or keep for the next look; nothing overtakes what a worker has not taken yet."""
        late = any(other == slot for other, _, _ in self._unsent)
        open_ = [sock for sock in held if sock.fileno() >= 0]
        if len(open_) < len(held):
            return  # released again before the worker could take it
        if late or not self._send(slot, message, [sock.fileno() for sock in open_]):
            self._unsent.append((slot, message, list(held)))

    def _say(self, op: str, binding: _Binding, begun_ms: int, what: str) -> None:
        where = binding.where
        self._log.info(f"an address or interface {what}", listen=where.text, entry=binding.entry.text)
        self._tell({
            "op": op, "binding": binding.number, "listen": where.text, "interface": binding.entry.device,
            "begun_ms": begun_ms, "bound_ms": self._now_ms(),
        })  # fmt: skip


def _zone_index(where: Place) -> int:
    """The interface's number in a link-local address, which is bound to it; 0 for every other address."""
    zone = (where.address or "").partition("%")[2]
    if not zone:
        return 0
    with contextlib.suppress(OSError):
        return int(zone) if zone.isdigit() else socket.if_nametoindex(zone)
    return 0

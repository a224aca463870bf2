"""Sans-IO codec of the broker protocol, DTP version 1 (schemas/PROTOCOL.md).

Bytes in, events out; messages in, bytes out. It opens no socket, reads no clock and draws no random
number: nonces are arguments. Any input either parses or raises FrameError, nothing else, and a
connection that has raised once stays closed.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import hmac
import json
import struct
from collections.abc import Mapping
from typing import Any

from dnsd.contract import messages
from dnsd.contract.keys import Key
from dnsd.contract.messages import FrameError

VERSION = 1
PREFACE = b"DTP\x00" + struct.pack(">HH", VERSION, VERSION)

FLAG_RESPONSE = 0x01
FLAG_IGNORABLE = 0x80

HEADER_BYTES = 12
NONCE_BYTES = 32
MAC_BYTES = 32
LIMIT_BEFORE_LOGIN = 4096  # payload octets that a broker reads from somebody it does not know
LIMIT_WELCOME = 65536  # payload octets that a client reads from a broker that has not proved itself
LIMIT = 1 << 20  # payload octets after login
DATA_LIMIT = 256 << 10  # octets of a blob in one DATA frame
DATA_HEADER = 8
HANDSHAKE_S = 3.0
PING_AFTER_S = 5.0
CLOSE_AFTER_S = 15.0

_HEADER = struct.Struct(">IBBHI")
_CLIENT_LABEL = b"DTP1 client\x00"
_SERVER_LABEL = b"DTP1 server\x00"


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """One received frame: a checked message, or the raw octets of a DATA frame with their offset in the blob."""

    type: int
    id: int
    response: bool
    message: dict[str, Any]
    data: bytes = b""
    offset: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Welcomed:
    """To a client: the broker has proved itself and taken us in."""

    challenge: dict[str, Any]
    message: dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class LoggedIn:
    """To a broker: the peer has proved its role; answer with `Server.welcome`."""

    role: str
    node: str
    key: str
    message: dict[str, Any]


Event = Frame | Welcomed | LoggedIn


def encode_frame(
    kind: int, payload: bytes, ident: int = 0, *, response: bool = False, ignorable: bool = False
) -> bytes:
    """A frame's octets."""
    flags = (FLAG_RESPONSE if response else 0) | (FLAG_IGNORABLE if ignorable else 0)
    return _HEADER.pack(len(payload), kind, flags, 0, ident) + payload


def client_mac(secret: bytes, preface: bytes, challenge: bytes, hello_json: bytes) -> bytes:
    """What a client appends to its HELLO: it knows the key, and it means this challenge."""
    text = _CLIENT_LABEL + preface + hashlib.sha256(challenge).digest() + hello_json
    return hmac.new(secret, text, hashlib.sha256).digest()


def server_mac(secret: bytes, challenge: bytes, hello: bytes, welcome_json: bytes) -> bytes:
    """What a broker appends to its WELCOME; `hello` is the whole payload, its MAC included."""
    text = _SERVER_LABEL + hashlib.sha256(challenge).digest() + hashlib.sha256(hello).digest() + welcome_json
    return hmac.new(secret, text, hashlib.sha256).digest()


class _Connection:
    """What both ends share: framing, limits, ids, the table of permitted types."""

    def __init__(self) -> None:
        self.open = False  # both sides have proved themselves
        self.closed = False
        self.role = ""
        self._buffer = bytearray()
        self._outgoing = bytearray()
        self._limit = LIMIT_BEFORE_LOGIN
        self._last_sent = 0
        self._last_received = 0
        self._asked: dict[int, int] = {}

    def data_to_send(self) -> bytes:
        """What the codec itself wants sent since the last call."""
        out = bytes(self._outgoing)
        self._outgoing.clear()
        return out

    def receive(self, data: bytes) -> list[Event]:
        """Feed received octets, get what they say; raises FrameError, after which the connection is closed."""
        if self.closed:
            return []
        self._buffer += data
        events: list[Event] = []
        try:
            while True:
                event = self._next()
                if event is None:
                    return events
                if event is not _SKIPPED:
                    events.append(event)  # type: ignore[arg-type]
        except FrameError as error:
            self.closed = True
            self._buffer.clear()
            error.before = events
            raise

    def _next(self) -> object | None:
        if len(self._buffer) < HEADER_BYTES:
            return None
        length, kind, flags, _, ident = _HEADER.unpack_from(self._buffer)
        if length > self._limit:
            raise FrameError("too_large", f"a frame of {length} octets, the limit is {self._limit}")
        if len(self._buffer) < HEADER_BYTES + length:
            return None
        payload = bytes(self._buffer[HEADER_BYTES : HEADER_BYTES + length])
        del self._buffer[: HEADER_BYTES + length]
        if not self.open:
            return self._shake(kind, flags, payload)
        return self._frame(kind, flags, ident, payload)

    def _shake(self, kind: int, flags: int, payload: bytes) -> object | None:
        raise NotImplementedError

    def _permitted(self, kind: int) -> bool:
        raise NotImplementedError

    def _frame(self, kind: int, flags: int, ident: int, payload: bytes) -> object:
        response = bool(flags & FLAG_RESPONSE)
        if kind not in messages.NAMES:
            if flags & FLAG_IGNORABLE:
                self._count_id(ident, response)
                return _SKIPPED
            raise FrameError("unknown_type", f"type {kind:#04x} is not in version {VERSION}")
        if not self._permitted(kind):
            raise FrameError("not_permitted", f"{messages.NAMES[kind]} is not for the role {self.role}")
        if response:
            asked = self._asked.get(ident)
            if ident == 0 or ident > self._last_sent:
                raise FrameError("bad_frame", f"{messages.NAMES[kind]} answers request {ident}, which was never sent")
            if asked is not None and kind not in messages.ANSWERS[asked]:
                name = messages.NAMES[asked]
                raise FrameError("bad_frame", f"{messages.NAMES[kind]} is no answer to {name}")
            if asked is None and kind not in messages.RESPONSES:
                raise FrameError("bad_frame", f"{messages.NAMES[kind]} is never an answer")
            if kind != messages.PROGRESS:
                self._asked.pop(ident, None)
        elif kind in messages.ONLY_RESPONSES:
            raise FrameError("bad_frame", f"{messages.NAMES[kind]} is only an answer")
        self._count_id(ident, response)
        if kind == messages.DATA:
            if not DATA_HEADER <= len(payload) <= DATA_LIMIT + DATA_HEADER:
                raise FrameError("bad_payload", f"DATA of {len(payload)} octets")
            return Frame(kind, ident, response, {}, payload[DATA_HEADER:], int.from_bytes(payload[:DATA_HEADER], "big"))
        return Frame(kind, ident, response, messages.decode(kind, payload))

    def _count_id(self, ident: int, response: bool) -> None:
        if response:
            return
        if ident <= self._last_received:
            raise FrameError("bad_frame", f"request id {ident} after {self._last_received}: ids only grow")
        self._last_received = ident

    def request(self, kind: int, message: Mapping[str, Any], *, ignorable: bool = False) -> tuple[int, bytes]:
        """A request: its id and its octets. Raises FrameError `bad_payload` for what the peer would refuse."""
        self._last_sent += 1
        if kind in messages.ANSWERS and not ignorable:
            self._asked[self._last_sent] = kind
        return self._last_sent, self._encode(kind, messages.encode(kind, message), self._last_sent, False, ignorable)

    def answer(self, kind: int, ident: int, message: Mapping[str, Any]) -> bytes:
        """An answer to the peer's request `ident`."""
        return self._encode(kind, messages.encode(kind, message), ident, True, False)

    def answer_data(self, ident: int, offset: int, data: bytes | memoryview) -> bytes:
        """The DATA answer to a GET: octets of the blob from `offset` on."""
        return self._encode(messages.DATA, offset.to_bytes(8, "big") + bytes(data), ident, True, False)

    def failure(self, error: FrameError) -> bytes:
        """The ERROR frame that goes out before the connection is closed for this error."""
        text = {"code": error.code, "message": error.message[:500], "fatal": True}
        return encode_frame(messages.ERROR, messages.encode(messages.ERROR, text), self._take_id())

    def _take_id(self) -> int:
        self._last_sent += 1
        return self._last_sent

    def _encode(self, kind: int, payload: bytes, ident: int, response: bool, ignorable: bool) -> bytes:
        if len(payload) > LIMIT:
            raise FrameError("too_large", f"{messages.NAMES[kind]} of {len(payload)} octets, the limit is {LIMIT}")
        return encode_frame(kind, payload, ident, response=response, ignorable=ignorable)


_SKIPPED = object()


class Client(_Connection):
    """The side that connects. Send `data_to_send()` at once; `Welcomed` says that the broker is the real one."""

    def __init__(
        self, key: Key, role: str, node: str, nonce: bytes, *, agent: str = "", extra: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.role = role
        self._key = key
        self._hello: dict[str, Any] = {
            **(extra or {}), "role": role, "node": node, "key": key.id, "agent": agent, "formats": ["rt/1"],
            "nonce": base64.b64encode(nonce).decode(),
        }  # fmt: skip
        self._challenge: bytes = b""
        self._hello_payload = b""
        self._outgoing += PREFACE

    def _permitted(self, kind: int) -> bool:
        return kind in messages.TO_ROLE[self.role]

    def _shake(self, kind: int, flags: int, payload: bytes) -> object | None:
        if kind == messages.ERROR:
            said = messages.decode(kind, payload)
            raise FrameError(said["code"], f"the broker says: {said['message']}", remote=True)
        if not self._challenge:
            if kind != messages.CHALLENGE:
                raise FrameError("bad_frame", "the broker did not begin with CHALLENGE: is this a NexoralDNS broker?")
            challenge = messages.decode(kind, payload)
            if challenge["v"] != VERSION:
                raise FrameError("unsupported_version", f"the broker speaks version {challenge['v']}, not {VERSION}")
            self._challenge = payload
            text = messages.encode(messages.HELLO, self._hello)
            self._hello_payload = text + client_mac(self._key.secret, PREFACE, payload, text)
            self._outgoing += encode_frame(messages.HELLO, self._hello_payload)
            self._limit = LIMIT_WELCOME
            return _SKIPPED
        if kind != messages.WELCOME or len(payload) < MAC_BYTES:
            raise FrameError("bad_frame", "the broker did not answer HELLO with WELCOME")
        text, mac = payload[:-MAC_BYTES], payload[-MAC_BYTES:]
        expected = server_mac(self._key.secret, self._challenge, self._hello_payload, text)
        if not hmac.compare_digest(mac, expected):
            raise FrameError("auth_failed", "the broker does not know our key: is something else listening there?")
        welcome = messages.decode(kind, text)
        self.open = True
        self._limit = LIMIT
        return Welcomed(messages.decode(messages.CHALLENGE, self._challenge), welcome)


class Server(_Connection):
    """The broker's side of one connection. After `LoggedIn` nothing more is read until `welcome` has been called."""

    def __init__(self, keys: Mapping[str, Key], nonce: bytes, *, server: str, epoch: str) -> None:
        super().__init__()
        self._keys = keys
        self._key: Key | None = None
        self._waiting = False
        self._preface = b""
        self._hello_payload = b""
        self._limits = {"frame": LIMIT, "data": DATA_LIMIT}
        challenge = {
            "v": VERSION, "server": server, "epoch": epoch, "nonce": base64.b64encode(nonce).decode(),
            "limits": self._limits,
        }  # fmt: skip
        self._challenge = messages.encode(messages.CHALLENGE, challenge)

    def _permitted(self, kind: int) -> bool:
        return kind in messages.FROM_ROLE[self.role]

    def _next(self) -> object | None:
        if self._waiting:
            if len(self._buffer) > self._limit:
                raise FrameError("bad_frame", "a flood before WELCOME")
            return None
        if not self._preface:
            if not PREFACE.startswith(bytes(self._buffer[:4])):
                raise FrameError("bad_frame", "the connection does not begin with DTP")
            if len(self._buffer) < len(PREFACE):
                return None
            low, high = struct.unpack_from(">HH", self._buffer, 4)
            if not low <= VERSION <= high:
                raise FrameError("unsupported_version", f"this broker speaks version {VERSION} only")
            self._preface = bytes(self._buffer[: len(PREFACE)])
            del self._buffer[: len(PREFACE)]
            self._outgoing += encode_frame(messages.CHALLENGE, self._challenge)
        return super()._next()

    def _shake(self, kind: int, flags: int, payload: bytes) -> object | None:
        if kind != messages.HELLO:
            raise FrameError("not_permitted", "the first frame is HELLO")
        if len(payload) < MAC_BYTES:
            raise FrameError("auth_failed", "authentication failed")
        text, mac = payload[:-MAC_BYTES], payload[-MAC_BYTES:]
        # The same work for a known and for an unknown key, and one answer for every reason.
        try:
            hello = messages.decode(kind, text)
            nonce = base64.b64decode(hello["nonce"], validate=True)
        except (FrameError, binascii.Error, ValueError):
            hello, nonce = {}, b""
        key = self._keys.get(hello.get("key", ""))
        expected = client_mac(key.secret if key else bytes(32), self._preface, self._challenge, text)
        genuine = hmac.compare_digest(mac, expected)
        if not genuine or key is None or len(nonce) != NONCE_BYTES or hello["role"] not in key.roles:
            raise FrameError("auth_failed", "authentication failed")
        self.role = hello["role"]
        self._key = key
        self._hello_payload = payload
        self._waiting = True
        return LoggedIn(self.role, hello["node"], key.id, hello)

    def welcome(self, message: Mapping[str, Any]) -> bytes:
        """Take the peer in: the WELCOME frame. Call `receive(b"")` afterwards for what came in meanwhile."""
        if not self._waiting or self._key is None:
            raise RuntimeError("nobody has logged in")
        text = messages.encode(messages.WELCOME, {"limits": self._limits, **message})
        mac = server_mac(self._key.secret, self._challenge, self._hello_payload, text)
        self._waiting = False
        self.open = True
        self._limit = LIMIT
        return encode_frame(messages.WELCOME, text + mac)


def json_digest(value: Any) -> str:
    """The SHA-256 of canonical JSON: keys sorted, no blanks, UTF-8; a manifest's digest."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()

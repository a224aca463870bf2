"""The messages of the broker protocol: types, who may send what, and which fields each must have.

Data and checks on values only; framing and the handshake are in `frames`. `schemas/broker.schema.json`
says the same for people and other languages, and a test holds the two together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

CHALLENGE, HELLO, WELCOME, ERROR, PING, PONG, BYE = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07
PUBLISH, PROGRESS, RESULT = 0x10, 0x11, 0x12
PREPARE, GET, DATA, READY, NACK, COMMIT, ACTIVE, ABORT, REPORT = 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28
CACHE, CACHE_OK = 0x29, 0x2A
EVENT, EVENT_OK, COMMAND, COMMAND_OK = 0x30, 0x31, 0x32, 0x33
WATCH, STATE = 0x40, 0x41

NAMES: dict[int, str] = {
    CHALLENGE: "CHALLENGE", HELLO: "HELLO", WELCOME: "WELCOME", ERROR: "ERROR", PING: "PING", PONG: "PONG", BYE: "BYE",
    PUBLISH: "PUBLISH", PROGRESS: "PROGRESS", RESULT: "RESULT", PREPARE: "PREPARE", GET: "GET", DATA: "DATA",
    READY: "READY", NACK: "NACK", COMMIT: "COMMIT", ACTIVE: "ACTIVE", ABORT: "ABORT", REPORT: "REPORT",
    CACHE: "CACHE", CACHE_OK: "CACHE_OK",
    EVENT: "EVENT", EVENT_OK: "EVENT_OK", COMMAND: "COMMAND", COMMAND_OK: "COMMAND_OK", WATCH: "WATCH", STATE: "STATE",
}  # fmt: skip

# What a logged-in client of each role may send, and what the broker sends to it. Anything else is fatal.
_ALWAYS = frozenset({PING, PONG, BYE, ERROR})
FROM_ROLE: dict[str, frozenset[int]] = {
    "publisher": _ALWAYS | {PUBLISH, DATA},
    "node": _ALWAYS | {GET, READY, NACK, ACTIVE, REPORT, CACHE_OK},
    "hook": _ALWAYS | {EVENT},
    "observer": _ALWAYS | {WATCH},
    "operator": _ALWAYS | {COMMAND},
}
TO_ROLE: dict[str, frozenset[int]] = {
    "publisher": _ALWAYS | {GET, PROGRESS, RESULT},
    "node": _ALWAYS | {PREPARE, DATA, COMMIT, ABORT, EVENT, CACHE},
    "hook": _ALWAYS | {EVENT_OK},
    "observer": _ALWAYS | {STATE},
    "operator": _ALWAYS | {COMMAND_OK},
}

# What answers what. PROGRESS may come any number of times before RESULT.
ANSWERS: dict[int, frozenset[int]] = {
    PING: frozenset({PONG}),
    PUBLISH: frozenset({PROGRESS, RESULT, ERROR}),
    PREPARE: frozenset({READY, NACK, ERROR}),
    GET: frozenset({DATA, ERROR}),
    COMMIT: frozenset({ACTIVE, ERROR}),
    EVENT: frozenset({EVENT_OK, ERROR}),
    CACHE: frozenset({CACHE_OK, ERROR}),
    COMMAND: frozenset({COMMAND_OK, ERROR}),
    WATCH: frozenset({STATE, ERROR}),
}
RESPONSES = frozenset().union(*ANSWERS.values())
ONLY_RESPONSES = RESPONSES - {ERROR, STATE}

VERBS: tuple[str, ...] = ("sync", "retry", "suspend", "resume", "cache")
CACHE_OPS: tuple[str, ...] = ("show", "flush")
EVENT_KINDS: tuple[str, ...] = ("up", "change", "same", "down")
LEASES: tuple[str, ...] = ("dhcp4", "dhcp6", "ra", "all")  # which of an interface's leases an EVENT is about
STATES: tuple[str, ...] = ("active", "rejected", "superseded", "failed")
FATAL = frozenset({
    "bad_frame", "too_large", "unsupported_version", "auth_failed", "not_permitted", "unknown_type", "bad_payload",
    "slow_consumer", "shutting_down", "replaced", "deadline",
})  # fmt: skip

MAX_DEPTH = 16
MAX_INTEGER = 2**53 - 1
MAX_BLOBS = 4096
MAX_ERRORS = 100
MAX_BLOB_BYTES = 1 << 30
MAX_ADDRESSES = 32  # in each list of an EVENT
MAX_DOMAINS = 16


class FrameError(Exception):
    """What ends a connection. `code` is for programs, `message` for people; `before` holds the events before it."""

    def __init__(self, code: str, message: str, *, remote: bool = False) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.remote = remote
        self.before: list[Any] = []


_DIGEST = re.compile(r"[0-9a-f]{64}")
_CODE = re.compile(r"[a-z][a-z_]{0,39}")
_BLOB = re.compile(r"[a-z][a-z0-9._/-]{0,99}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")
_INTERFACE = re.compile(r"[!-.0-~]{1,15}")  # what Linux allows, within ASCII: no slash, no blank
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]{2,45}(%[!-.0-~]{1,15})?(/[0-9]{1,3})?")
_DOMAIN = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")
Check = Callable[[Any], bool]


def _u53(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_INTEGER


def _seconds(value: Any) -> bool:
    return _u53(value) and value < 2**32


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 4096


def _name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 255 and value.isprintable()


def _digest(value: Any) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _code(value: Any) -> bool:
    return isinstance(value, str) and _CODE.fullmatch(value) is not None


def _bool(value: Any) -> bool:
    return isinstance(value, bool)


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _one_of(*words: str) -> Check:
    return lambda value: isinstance(value, str) and value in words


def _get_length(value: Any) -> bool:
    return _u53(value) and 1 <= value <= 256 << 10


def _matches(pattern: re.Pattern[str]) -> Check:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _list_of(pattern: re.Pattern[str], most: int) -> Check:
    return lambda value: (
        isinstance(value, list)
        and len(value) <= most
        and all(isinstance(item, str) and pattern.fullmatch(item) is not None for item in value)
    )


_word, _interface = _matches(_WORD), _matches(_INTERFACE)
_addresses, _domains = _list_of(_ADDRESS, MAX_ADDRESSES), _list_of(_DOMAIN, MAX_DOMAINS)


def _errors(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= MAX_ERRORS
        and all(isinstance(e, dict) and _code(e.get("code")) and _text(e.get("message")) for e in value)
    )


def _workers(value: Any) -> bool:
    return _objects(value) and all(_u53(row.get("slot")) and _u53(row.get("pid")) for row in value)


def manifest_problem(value: Any) -> str | None:
    """Why this is not a manifest of the format rt/1, or None."""
    if not isinstance(value, dict) or value.get("format") != "rt/1":
        return "the manifest's format is not rt/1"
    blobs = value.get("blobs")
    if not isinstance(blobs, list) or not 1 <= len(blobs) <= MAX_BLOBS:
        return f"a manifest has 1 to {MAX_BLOBS} blobs"
    names = []
    for blob in blobs:
        if not isinstance(blob, dict) or not isinstance(blob.get("name"), str) or not _BLOB.fullmatch(blob["name"]):
            return "a blob has no proper name"
        if not _digest(blob.get("digest")) or not _u53(blob.get("size")) or blob["size"] > MAX_BLOB_BYTES:
            return f"blob {blob['name']} has no proper digest and size"
        names.append(blob["name"])
    if names != sorted(set(names)):
        return "the blobs are not sorted by name, or one is there twice"
    if not isinstance(value.get("settings"), dict):
        return "the manifest has no settings"
    if not _digest(value.get("table")):
        return "the manifest does not name the table's digest"
    return None


def _manifest(value: Any) -> bool:
    return manifest_problem(value) is None


def _have(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _u53(value.get("generation", 0))
        and (value.get("digest") is None or _digest(value["digest"]))
        and _text(value.get("epoch", ""))
    )


# Fields that must be there (a bare name) or may be (a name with `?`), and what each must be.
FIELDS: dict[int, dict[str, Check]] = {
    CHALLENGE: {"v": _u53, "server": _text, "epoch": _text, "nonce": _text, "limits?": _object},
    HELLO: {"role": _text, "node": _name, "key": _name, "nonce": _text, "agent?": _text, "have?": _have,
            "listen?": lambda v: isinstance(v, list) and all(_text(t) for t in v)},
    WELCOME: {"active": _have, "newest": _u53, "limits?": _object, "ping_ms?": _u53},
    ERROR: {"code": _code, "message": _text, "fatal": _bool, "retry_after_ms?": _u53},
    PING: {},
    PONG: {},
    BYE: {"reason": _text},
    PUBLISH: {"generation": _u53, "epoch": _text, "reason": _one_of("commit", "rollback", "retry"),
              "revision": _object, "manifest": _manifest, "deadline_ms": _u53},
    PROGRESS: {"generation": _u53, "phase": _text, "rows": _objects},
    RESULT: {"generation": _u53, "state": _one_of(*STATES), "rows": _objects, "errors": _errors},
    PREPARE: {"generation": _u53, "epoch": _text, "manifest": _manifest, "revision": _object, "deadline_ms": _u53},
    GET: {"digest": _digest, "offset": _u53, "length": _get_length},
    READY: {"generation": _u53, "workers": _workers, "fetched?": _u53, "build_ms?": _u53},
    NACK: {"generation": _u53, "errors": _errors, "workers?": _workers},
    COMMIT: {"generation": _u53, "digest": _digest},
    ACTIVE: {"generation": _u53, "digest": _digest, "workers": _workers},
    ABORT: {"generation": _u53, "reason": _text},
    REPORT: {"counters": _object, "workers": _workers, "decisions": _objects, "dropped": _u53, "events?": _objects,
             "upstreams?": _objects, "anchors?": _objects},
    EVENT: {"source": _word, "reason": _word, "v?": _u53, "interface?": _interface, "kind?": _one_of(*EVENT_KINDS),
            "lease?": _one_of(*LEASES), "old?": _addresses, "new?": _addresses, "dns?": _addresses,
            "search?": _domains, "refused?": _u53, "at?": _u53, "lifetime?": _seconds},
    EVENT_OK: {"coalesced": _bool},
    CACHE: {"op": _one_of(*CACHE_OPS), "name": _text, "type": _text, "below": _bool},
    CACHE_OK: {"workers": _objects},
    COMMAND: {"verb": _one_of(*VERBS), "op?": _one_of(*CACHE_OPS), "name?": _text, "type?": _text, "below?": _bool,
              "node?": _text},
    COMMAND_OK: {"verb": _one_of(*VERBS)},
    WATCH: {},
    STATE: {"state": _object},
}  # fmt: skip


def encode(kind: int, message: Mapping[str, Any]) -> bytes:
    """A message's payload; raises FrameError `bad_payload` when the peer would have to refuse it."""
    _check(kind, dict(message))
    try:
        text = json.dumps(message, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except (ValueError, TypeError) as error:
        raise FrameError("bad_payload", f"{NAMES[kind]} cannot be written as JSON: {error}") from None


def decode(kind: int, payload: bytes) -> dict[str, Any]:
    """A payload's message, every field that we know checked; raises FrameError `bad_payload`."""
    name = NAMES[kind]
    try:
        value = json.loads(
            payload.decode("utf-8"), parse_float=_no_float, parse_constant=_no_float, object_pairs_hook=_no_twins
        )
    except (ValueError, RecursionError) as error:
        raise FrameError("bad_payload", f"{name} is not the JSON that it should be: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise FrameError("bad_payload", f"{name} is not a JSON object")
    _check(kind, value)
    return value


def _no_float(text: str) -> Any:
    raise ValueError(f"{text[:40]}: numbers are integers")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is there twice")
    return value


def _check(kind: int, message: dict[str, Any]) -> None:
    problem = _problem(message)
    if problem:
        raise FrameError("bad_payload", f"{NAMES[kind]}: {problem}")
    for field, check in FIELDS[kind].items():
        name = field.rstrip("?")
        if name not in message:
            if not field.endswith("?"):
                raise FrameError("bad_payload", f"{NAMES[kind]} lacks `{name}`")
        elif not check(message[name]):
            raise FrameError("bad_payload", f"{NAMES[kind]} has no proper `{name}`")


def _problem(message: dict[str, Any]) -> str | None:
    """What makes any value unfit: depth, numbers that other languages cannot hold, broken Unicode."""
    level: list[Any] = [message]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below.extend(value.keys())
                below.extend(value.values())
            elif isinstance(value, list | tuple):
                below.extend(value)
            elif isinstance(value, str):
                if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
                    return "a text is not Unicode"
            elif isinstance(value, bool) or value is None:
                continue
            elif isinstance(value, int):
                if not -MAX_INTEGER <= value <= MAX_INTEGER:
                    return f"{value:.3e} is not within 2^53" if abs(value) < 10**300 else "a number is not within 2^53"
            else:
                return f"{type(value).__name__} is no JSON value"
        if not below:
            return None
        level = below
    return f"it is nested more than {MAX_DEPTH} deep"

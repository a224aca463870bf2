"""The node's settings: defaults, validation, environment overrides (DESIGN: command line).

Pure: a mapping and an environment in, a frozen `Settings` out, or `SettingsError` with every
problem at once. Reading the file is the caller's job. The shape is in `schemas/node.schema.json`.

Environment: `NEXORALDNS_<KEY>` overrides one key, `_` between the levels (`NEXORALDNS_BROKER_LISTEN`,
`NEXORALDNS_SOURCE_GIT_URL`); lists are written with commas, truth as `true` or `false`.
A setting that this version does not act on is accepted only with its default value.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import os.path
import re
from collections.abc import Callable, Mapping
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PREFIX = "NEXORALDNS_"
# What the word `private` stands for in `allow` (RFC 1918, 6598, 3927, 4193, 4291, 1122).
PRIVATE: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16",
        "::1/128", "fc00::/7", "fe80::/10",
    )
)  # fmt: skip


class SettingsError(ValueError):
    """Settings that cannot be used; `problems` holds (key path, sentence) for all of them."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{path}: {message}" if path else message for path, message in problems))


@dataclasses.dataclass(frozen=True, slots=True)
class GitSource:
    """Rules in a git repository. `path` is inside the repository ("" for its top); `poll_s` in seconds."""

    url: str
    ref: str = "main"
    path: str = "rules.d"
    poll_s: float = 30.0
    signatures_mode: str = "off"
    allowed_signers: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """Where rules come from: exactly one of the two is set. A directory may be a single file."""

    directory: str | None
    git: GitSource | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class BrokerSettings:
    """`listen` is the controller's, `connect` is for dnsd and hooks; `keys` is a file."""

    listen: str
    connect: str
    keys: str


@dataclasses.dataclass(frozen=True, slots=True)
class StatusSettings:
    """Where the status page listens."""

    listen: str


@dataclasses.dataclass(frozen=True, slots=True)
class ResolverSettings:
    """For `recurse`. `root_hints`: "builtin", a path, or (name, addresses) pairs; `trust_anchors` likewise, texts."""

    root_hints: str | tuple[tuple[str, tuple[str, ...]], ...] = "builtin"
    trust_anchors: str | tuple[str, ...] = "builtin"
    negative_trust_anchors: tuple[str, ...] = ()
    dnssec: bool = True
    qname_minimisation: bool = True
    case_randomisation: bool = True
    priming: bool = True
    special_use: bool = True
    use_ipv4: bool = True
    use_ipv6: bool = True
    query_localhost: bool = False
    harden_glue: bool = True
    edns_size: int = 1232
    prefetch: bool = True
    serve_stale: bool = True
    signature_skew_s: float = 3600.0

    @property
    def signature_skew(self) -> float:
        """The key's own name for `signature_skew_s`, in seconds."""
        return self.signature_skew_s


@dataclasses.dataclass(frozen=True, slots=True)
class CacheSettings:
    """`size_bytes` is for the whole node."""

    size_bytes: int = 64 << 20
    min_ttl_s: int = 0
    max_ttl_s: int = 86400
    persist: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class QuerylogSettings:
    """What decisions remember of clients, and for how long."""

    privacy: str = "full"
    keep_s: float = 7 * 86400.0


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """One node's settings; every path is absolute, every duration in seconds, every size in octets."""

    listen: tuple[str, ...]
    workers: int
    source: Source
    broker: BrokerSettings
    user: str | None
    status: StatusSettings
    state: str
    allow: tuple[Network, ...]
    resolver: ResolverSettings
    cache: CacheSettings
    querylog: QuerylogSettings


# --- reading single values: each returns the value or raises ValueError with a sentence -------------------------------

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(\d+)(ms|s|m|h|d|w)")
_SIZES = {"": 1, "B": 1, "K": 1 << 10, "KIB": 1 << 10, "KB": 1000, "M": 1 << 20, "MIB": 1 << 20, "MB": 1000**2,
          "G": 1 << 30, "GIB": 1 << 30, "GB": 1000**3}  # fmt: skip


def duration(value: object) -> float:
    """Read `30s`, `1h30m`, `250ms` or a number of seconds; raises ValueError with a sentence."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e10:
        return float(value)
    if isinstance(value, str):
        text = value.strip()
        if text.isascii() and text.isdigit() and len(text) <= 10:
            return float(text)
        total, end = 0.0, 0
        for match in _DURATION.finditer(text):
            if match.start() != end:
                break
            total, end = total + int(match[1]) * _UNITS[match[2]], match.end()
        if end and end == len(text) and total < 1e10:
            return total
    raise ValueError(f"{_show(value)} is not a duration; write 30s, 5m, 1h30m, 7d or a number of seconds")


def size(value: object) -> int:
    """Read `64MiB`, `500MB` or a number of octets; raises ValueError with a sentence."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d{1,15})\s*([A-Za-z]*)\s*", value)):
        unit = _SIZES.get(match[2].upper())
        if unit is not None:
            return int(match[1]) * unit
    raise ValueError(f"{_show(value)} is not a size; write 64MiB, 500MB or a number of octets")


def split_listen(text: str) -> tuple[str, int]:
    """Split `address:port`, `[v6]:port`, `interface:port` or `*:53` into (host or interface, port).

    Raises ValueError with a sentence. An IPv6 address comes without its brackets.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise ValueError(f"{text!r} is not [address]:port, for example [::1]:53")
        port = rest[1:]
        try:
            if ipaddress.ip_address(host).version != 6:
                raise ValueError
        except ValueError:
            raise ValueError(f"{host!r} in {text!r} is not an IPv6 address") from None
    else:
        host, colon, port = text.rpartition(":")
        if not colon:
            raise ValueError(f"{text!r} has no port; write {text or '127.0.0.1'}:53")
        if ":" in host:
            raise ValueError(f"{text!r} is ambiguous; write an IPv6 address in brackets: [{host}]:{port}")
        if not host:
            raise ValueError(f"{text!r} has no address; write *{text} for all addresses")
        if re.fullmatch(r"[0-9.]+", host):
            try:
                ipaddress.IPv4Address(host)
            except ValueError:
                raise ValueError(f"{host!r} in {text!r} is not an IPv4 address") from None
        elif host != "*" and not re.fullmatch(r"[^\s/:]{1,15}", host):
            raise ValueError(f"{host!r} in {text!r} is neither an address nor an interface's name")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f"{port!r} in {text!r} is not a port (0 to 65535)")
    return host, int(port)


def _show(value: object) -> str:
    if value is None:
        return "nothing (null)"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _text(value: object) -> str:
    if isinstance(value, str) and value:
        return value
    raise ValueError(f"{_show(value)} is not a text")


def _truth(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise ValueError(f"{_show(value)} is neither true nor false")


def _whole(value: object, low: int, high: int) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise ValueError(f"{_show(value)} is not a whole number from {low} to {high}")


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [item.strip() for item in value.split(",") if item.strip()]
    if isinstance(value, (list, tuple)):
        return tuple(_text(item) for item in value)
    raise ValueError(f"{_show(value)} is not a list of texts")


def _listens(value: object) -> tuple[str, ...]:
    found = _texts(value)
    if not found:
        raise ValueError("there must be at least one address to listen on, for example 127.0.0.1:5335")
    for item in found:
        split_listen(item)
    twice = [item for item in found if found.count(item) > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} is listed twice")
    return found


def _endpoint(value: object) -> str:
    text = _text(value)
    host, _ = split_listen(text)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"{text!r} must be address:port, for example 127.0.0.1:5338") from None
    return text


def _loopback(value: object) -> str:
    text = _endpoint(value)
    if not ipaddress.ip_address(split_listen(text)[0]).is_loopback:
        raise ValueError(f"{text!r} is not loopback; a broker elsewhere needs TLS, which is not in this version")
    return text


def _workers(value: object) -> int:
    return 0 if value == "auto" else _whole(value, 1, 256)


def _networks(value: object) -> tuple[Network, ...]:
    out: list[Network] = []
    for item in _texts(value):
        if item == "private":
            out.extend(PRIVATE)
            continue
        try:
            out.append(ipaddress.ip_network(item))
        except ValueError:
            try:
                loose = ipaddress.ip_network(item, strict=False)
            except ValueError:
                raise ValueError(f"{item!r} is neither a network nor the word private") from None
            raise ValueError(f"{item!r} has bits set beyond its prefix; did you mean {loose}?") from None
    return tuple(dict.fromkeys(out))


def _choice(*words: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if value is False and "off" in words:  # YAML 1.1 reads the word off as false
            return "off"
        if value in words:
            return str(value)
        raise ValueError(f"{_show(value)} is not one of: {', '.join(words)}")

    return read


def _hints(value: object) -> str | tuple[tuple[str, tuple[str, ...]], ...]:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list) and value:
        out = []
        for item in value:
            if not isinstance(item, Mapping) or set(item) != {"name", "addresses"}:
                raise ValueError(f"{_show(item)} is not {{name: …, addresses: […]}}")
            addresses = _texts(item["addresses"])
            for address in addresses:
                ipaddress.ip_address(address)
            out.append((_text(item["name"]), addresses))
        return tuple(out)
    raise ValueError(f"{_show(value)} is not builtin, a file, or a list of {{name, addresses}}")


def _anchors(value: object) -> str | tuple[str, ...]:
    return value if isinstance(value, str) and value else _texts(value)


def _local(value: object, base: str) -> str:
    """A git URL; a path on this machine is made absolute (`host:path` and `scheme://` are not paths)."""
    text = _text(value)
    if "://" in text or re.match(r"[^/]+:", text):
        return text
    return os.path.normpath(os.path.join(base, os.path.expanduser(text)))


def _inside(value: object) -> str:
    text = "" if value in (None, "", ".") else _text(value).strip("/")
    if text and os.path.normpath(text).split("/")[0] == "..":
        raise ValueError(f"{text!r} leaves the repository")
    return "" if not text else os.path.normpath(text)


# --- the whole --------------------------------------------------------------------------------------------------------

# key path → the function that reads its value. What is not here and not a prefix of one of these is not a setting.
_READERS: dict[str, Callable[[Any], Any]] = {
    "listen": _listens,
    "workers": _workers,
    "source.directory": _text,
    "source.git.url": _text,
    "source.git.ref": _text,
    "source.git.path": _inside,
    "source.git.poll": duration,
    "source.git.signatures.mode": _choice("off", "warn", "require"),
    "source.git.signatures.allowed_signers": _text,
    "broker.listen": _loopback,
    "broker.connect": _endpoint,
    "broker.keys": _text,
    "user": lambda value: None if value is None or value == "null" else _text(value),
    "status.listen": _endpoint,
    "state": _text,
    "allow": _networks,
    "resolver.root_hints": _hints,
    "resolver.trust_anchors": _anchors,
    "resolver.negative_trust_anchors": _texts,
    "resolver.dnssec": _truth,
    "resolver.qname_minimisation": _truth,
    "resolver.case_randomisation": _truth,
    "resolver.priming": _truth,
    "resolver.special_use": _truth,
    "resolver.use_ipv4": _truth,
    "resolver.use_ipv6": _truth,
    "resolver.query_localhost": _truth,
    "resolver.harden_glue": _truth,
    "resolver.edns_size": lambda value: _whole(value, 512, 4096),
    "resolver.prefetch": _truth,
    "resolver.serve_stale": _truth,
    "resolver.signature_skew": duration,
    "cache.size": size,
    "cache.min_ttl": duration,
    "cache.max_ttl": duration,
    "cache.persist": _truth,
    "querylog.privacy": _choice("full", "prefix", "none"),
    "querylog.keep": duration,
}
_SECTIONS = {path[:i] for path in _READERS for i, c in enumerate(path) if c == "."}

# Settings that this version does not act on yet: their default is accepted, anything else is refused.
NOT_BUILT: dict[str, object] = {
    "source.git.signatures.mode": "off",
    "resolver.root_hints": "builtin",
    "resolver.trust_anchors": "builtin",
    "resolver.negative_trust_anchors": (),
    "resolver.dnssec": True,
    "resolver.qname_minimisation": True,
    "resolver.case_randomisation": True,
    "resolver.priming": True,
    "resolver.harden_glue": True,
    "resolver.prefetch": True,
    "resolver.serve_stale": True,
    "resolver.signature_skew": 3600.0,
    "cache.persist": False,
    "querylog.privacy": "full",
}


def variable(path: str) -> str:
    """The environment variable that overrides a key path."""
    return PREFIX + path.upper().replace(".", "_")


def _flatten(mapping: Mapping[Any, Any], prefix: str, out: dict[str, object], problems: list[tuple[str, str]]) -> None:
    for key, value in mapping.items():
        path = f"{prefix}{key}"
        if path in _READERS:
            out[path] = value
        elif path in _SECTIONS:
            if isinstance(value, Mapping):
                _flatten(value, path + ".", out, problems)
            elif value is not None:
                problems.append((path, f"{_show(value)} is not a block of settings"))
        else:
            near = {p[len(prefix) :].split(".")[0] for p in _READERS if p.startswith(prefix)}
            close = difflib.get_close_matches(str(key), sorted(near), 1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(sorted(near))}"
            problems.append((path, f"unknown setting {str(key)!r}{hint}"))


def load(mapping: Mapping[Any, Any] | None, base: str, environ: Mapping[str, str]) -> Settings:
    """Make the settings from a file's mapping (None: no file), the folder its paths are relative to, and variables.

    Raises SettingsError with all problems. A variable that is close to a setting's but not one is a problem too.
    """
    raw: dict[str, object] = {}
    problems: list[tuple[str, str]] = []
    if mapping is not None and not isinstance(mapping, Mapping):
        raise SettingsError([("", "the settings must be a block of keys, for example listen: [\"127.0.0.1:5335\"]")])
    _flatten(mapping or {}, "", raw, problems)
    # A path appears under its key or under its variable's name, so that a message points to what the user wrote.
    origin = {path: path for path in raw}
    variables = {variable(path): path for path in _READERS}
    for name, value in sorted(environ.items()):
        if not name.startswith(PREFIX) or name == PREFIX + "CONFIG":
            continue
        if name not in variables:
            close = difflib.get_close_matches(name, sorted(variables), 1, 0.9)
            if close:
                problems.append((name, f"no setting belongs to this variable; did you mean {close[0]}?"))
            continue
        path = variables[name]
        if path == "source.directory":
            raw = {key: kept for key, kept in raw.items() if not key.startswith("source.git.")}
        elif path.startswith("source.git."):
            raw.pop("source.directory", None)
        raw[path], origin[path] = value, name
    values: dict[str, Any] = {}
    for path, value in raw.items():
        try:
            values[path] = _READERS[path](value)
        except ValueError as error:
            problems.append((origin[path], str(error)))
            continue
        if path in NOT_BUILT and values[path] != NOT_BUILT[path]:
            words = f"'{path.rpartition('.')[2]}: {str(value).lower() if isinstance(value, bool) else value}'"
            problems.append((origin[path], f"{words} is not in this version; leave this setting out"))
    problems += _contradictions(values, raw, origin)
    if problems:
        raise SettingsError(problems)
    return _assemble(values, base)


def _contradictions(
    values: dict[str, Any], raw: Mapping[str, object], origin: Mapping[str, str]
) -> list[tuple[str, str]]:
    problems = []
    git = sorted(path for path in raw if path.startswith("source.git."))
    if git and "source.directory" in raw:
        problems.append((origin["source.directory"], "a source is either a directory or a git repository, not both"))
    if git and "source.git.url" not in raw:
        problems.append((origin[git[0]], "a git source needs a url"))
    if values.get("source.git.poll", 30.0) < 1.0:
        problems.append((origin["source.git.poll"], "polling more often than once a second is refused"))
    if values.get("cache.min_ttl", 0) > values.get("cache.max_ttl", 86400):
        problems.append((origin.get("cache.min_ttl", "cache.min_ttl"), "min_ttl is larger than max_ttl"))
    if values.get("cache.size", 64 << 20) < 1 << 20:
        problems.append((origin["cache.size"], "the cache needs at least 1MiB"))
    if not values.get("resolver.use_ipv4", True) and not values.get("resolver.use_ipv6", True):
        problems.append((origin["resolver.use_ipv6"], "use_ipv4 and use_ipv6 cannot both be false"))
    return problems


def _assemble(values: dict[str, Any], base: str) -> Settings:
    def path(text: str) -> str:
        return os.path.normpath(os.path.join(base, os.path.expanduser(text)))

    state = path(values.get("state", ".nexoraldns"))
    git = None
    if "source.git.url" in values:
        signers = values.get("source.git.signatures.allowed_signers")
        git = GitSource(
            url=_local(values["source.git.url"], base),
            ref=values.get("source.git.ref", "main"),
            path=values.get("source.git.path", "rules.d"),
            poll_s=values.get("source.git.poll", 30.0),
            signatures_mode=values.get("source.git.signatures.mode", "off"),
            allowed_signers=path(signers) if signers else None,
        )
    resolver = {key[9:]: value for key, value in values.items() if key.startswith("resolver.")}
    if "signature_skew" in resolver:
        resolver["signature_skew_s"] = resolver.pop("signature_skew")
    for key in ("root_hints", "trust_anchors"):
        if isinstance(resolver.get(key), str) and resolver[key] != "builtin":
            resolver[key] = path(resolver[key])
    broker_listen = values.get("broker.listen", "127.0.0.1:5338")
    return Settings(
        listen=values.get("listen", ("127.0.0.1:5335",)),
        workers=values.get("workers", 0),
        source=Source(None if git else path(values.get("source.directory", "rules.d")), git),
        broker=BrokerSettings(
            listen=broker_listen,
            # Whoever moves the broker of a one-machine setup moves its clients too.
            connect=values.get("broker.connect", broker_listen),
            keys=path(values["broker.keys"]) if "broker.keys" in values else os.path.join(state, "broker.keys"),
        ),
        user=values.get("user"),
        status=StatusSettings(values.get("status.listen", "127.0.0.1:8053")),
        state=state,
        allow=values.get("allow", PRIVATE),
        resolver=ResolverSettings(**resolver),
        cache=CacheSettings(
            values.get("cache.size", 64 << 20),
            int(values.get("cache.min_ttl", 0)),
            int(values.get("cache.max_ttl", 86400)),
            values.get("cache.persist", False),
        ),
        querylog=QuerylogSettings(values.get("querylog.privacy", "full"), values.get("querylog.keep", 7 * 86400.0)),
    )

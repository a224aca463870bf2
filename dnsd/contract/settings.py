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
import os.path
from collections.abc import Callable, Mapping
from typing import Any

from dnsd.contract import settings_values as values_of
from dnsd.contract.settings_values import PRIVATE, Network, duration, size, split_listen

__all__ = ["PRIVATE", "Network", "Settings", "SettingsError", "duration", "load", "size", "split_listen", "variable"]

PREFIX = "NEXORALDNS_"


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
    """Where the status page listens, whether a name may be traced from it, and by which names browsers may reach it
    beside addresses and our own name."""

    listen: str
    trace: bool = True
    hosts: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class ResolverSettings:
    """For `recurse`. `root_hints`: "builtin", a path, or (name, addresses) pairs; `trust_anchors` likewise, texts.

    `prefer`: "ipv4" or "ipv6", over which servers are asked that have both; "any" for the faster one.
    `trust_anchor_updates` None: auto.
    """

    root_hints: str | tuple[tuple[str, tuple[str, ...]], ...] = "builtin"
    trust_anchors: str | tuple[str, ...] = "builtin"
    trust_anchor_updates: bool | None = None
    negative_trust_anchors: tuple[str, ...] = ()
    aggressive_nsec: bool = True
    sha1: bool = True
    rsa_min_bits: int = 512
    dnssec: bool = True
    qname_minimisation: bool = True
    case_randomisation: bool = True
    priming: bool = True
    special_use: bool = True
    use_ipv4: bool = True
    use_ipv6: bool = True
    prefer: str = "any"
    query_localhost: bool = False
    harden_glue: bool = True
    edns_size: int = 1232
    prefetch: bool = True
    serve_stale: bool = True
    signature_skew_s: float = 3600.0

    @property
    def follows_anchors(self) -> bool:
        """Whether trust anchors follow their zone's keys (RFC 5011): what `trust_anchor_updates` says, else builtin."""
        return self.trust_anchors == "builtin" if self.trust_anchor_updates is None else self.trust_anchor_updates

    @property
    def signature_skew(self) -> float:
        """The key's own name for `signature_skew_s`, in seconds."""
        return self.signature_skew_s


@dataclasses.dataclass(frozen=True, slots=True)
class CacheSettings:
    """`size_bytes` is for the whole node; `max_stale_s`: so long after its time an answer may be served (RFC 8767).

    `persist`: what is known when the node stops is known when it starts again.
    """

    size_bytes: int = 64 << 20
    min_ttl_s: int = 0
    max_ttl_s: int = 86400
    max_stale_s: int = 86400
    persist: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class ClientSettings:
    """Towards those who ask. `rate_limit`: questions a second from one address (IPv6: /64) over UDP, 0 for any number.

    `identity`: what `id.server` and NSID tell, "hostname" for the machine's name, "off" for nothing, not even a version.
    """

    rate_limit: int = 0
    cookies: bool = True
    identity: str = "hostname"


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
    clients: ClientSettings


# --- the whole --------------------------------------------------------------------------------------------------------

# key path → the function that reads its value. What is not here and not a prefix of one of these is not a setting.
_READERS: dict[str, Callable[[Any], Any]] = {
    "listen": values_of.listens,
    "workers": values_of.workers,
    "source.directory": values_of.text_of,
    "source.git.url": values_of.text_of,
    "source.git.ref": values_of.text_of,
    "source.git.path": values_of.inside,
    "source.git.poll": duration,
    "source.git.signatures.mode": values_of.choice("off", "warn", "require"),
    "source.git.signatures.allowed_signers": values_of.text_of,
    "broker.listen": values_of.loopback,
    "broker.connect": values_of.endpoint,
    "broker.keys": values_of.text_of,
    "user": lambda value: None if value is None or value == "null" else values_of.text_of(value),
    "status.listen": values_of.endpoint,
    "status.trace": values_of.truth,
    "status.hosts": values_of.texts,
    "state": values_of.text_of,
    "allow": values_of.networks,
    "resolver.root_hints": values_of.hints,
    "resolver.trust_anchors": values_of.anchors,
    "resolver.trust_anchor_updates": lambda value: None if value == "auto" else values_of.truth(value),
    "resolver.negative_trust_anchors": values_of.texts,
    "resolver.aggressive_nsec": values_of.truth,
    "resolver.sha1": values_of.truth,
    "resolver.rsa_min_bits": lambda value: values_of.whole(value, 512, 4096),
    "resolver.dnssec": values_of.truth,
    "resolver.qname_minimisation": values_of.truth,
    "resolver.case_randomisation": values_of.truth,
    "resolver.priming": values_of.truth,
    "resolver.special_use": values_of.truth,
    "resolver.use_ipv4": values_of.truth,
    "resolver.use_ipv6": values_of.truth,
    "resolver.prefer": values_of.choice("any", "ipv4", "ipv6"),
    "resolver.query_localhost": values_of.truth,
    "resolver.harden_glue": values_of.truth,
    "resolver.edns_size": lambda value: values_of.whole(value, 512, 4096),
    "resolver.prefetch": values_of.truth,
    "resolver.serve_stale": values_of.truth,
    "resolver.signature_skew": duration,
    "cache.size": size,
    "cache.min_ttl": duration,
    "cache.max_ttl": duration,
    "cache.max_stale": duration,
    "cache.persist": values_of.truth,
    "clients.rate_limit": lambda value: values_of.whole(value, 0, 10_000_000),
    "clients.cookies": values_of.truth,
    "clients.identity": values_of.text_of,
    "querylog.privacy": values_of.choice("full", "prefix", "none"),
    "querylog.keep": duration,
}
_SECTIONS = {path[:i] for path in _READERS for i, c in enumerate(path) if c == "."}

# Settings that this version does not act on yet: what it does without, and the default, are accepted; else refused.
NOT_BUILT: dict[str, tuple[object, ...]] = {
    "source.git.signatures.mode": ("off",),
    "querylog.privacy": ("full",),
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
                _flatten(value, f"{path}.", out, problems)
            elif value is not None:
                problems.append((path, f"{values_of.show(value)} is not a block of settings"))
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
        raise SettingsError([("", 'the settings must be a block of keys, for example listen: ["127.0.0.1:5335"]')])
    _flatten(mapping or {}, "", raw, problems)
    # A path appears under its key or under its variable's name, so that a message points to what the user wrote.
    origin = {path: path for path in raw}
    variables = {variable(path): path for path in _READERS}
    for name, written in sorted(environ.items()):
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
        raw[path], origin[path] = written, name
    values: dict[str, Any] = {}
    for path, value in raw.items():
        try:
            values[path] = _READERS[path](value)
        except values_of.ItemErrors as error:
            for index, sentence in error.problems:
                problems.append((f"{path}.{index}" if origin[path] == path else origin[path], sentence))
            continue
        except ValueError as error:
            problems.append((origin[path], str(error)))
            continue
        if path in NOT_BUILT and values[path] not in NOT_BUILT[path]:
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
    preferred = values.get("resolver.prefer", "any")
    if preferred != "any" and not values.get(f"resolver.use_{preferred}", True):
        problems.append((origin["resolver.prefer"], f"{preferred} cannot be preferred while use_{preferred} is false"))
    return problems


def _assemble(values: dict[str, Any], base: str) -> Settings:
    def path(text: str) -> str:
        return os.path.normpath(os.path.join(base, os.path.expanduser(text)))

    state = path(values.get("state", ".nexoraldns"))
    git = None
    if "source.git.url" in values:
        signers = values.get("source.git.signatures.allowed_signers")
        git = GitSource(
            url=values_of.git_url(values["source.git.url"], base),
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
        status=StatusSettings(
            values.get("status.listen", "127.0.0.1:8053"),
            values.get("status.trace", True),
            values.get("status.hosts", ()),
        ),
        state=state,
        allow=values.get("allow", PRIVATE),
        resolver=ResolverSettings(**resolver),
        cache=CacheSettings(
            values.get("cache.size", 64 << 20),
            int(values.get("cache.min_ttl", 0)),
            int(values.get("cache.max_ttl", 86400)),
            int(values.get("cache.max_stale", 86400)),
            values.get("cache.persist", False),
        ),
        querylog=QuerylogSettings(values.get("querylog.privacy", "full"), values.get("querylog.keep", 7 * 86400.0)),
        clients=ClientSettings(**{key[8:]: value for key, value in values.items() if key.startswith("clients.")}),
    )

"""The node's settings made into a resolver: hints, trust anchors, memory, chance.

Chance is the kernel's: the case is a secret.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from functools import partial

from dnsd.contract import codes, names
from dnsd.contract.settings import Settings
from dnsd.contract.special import special_names
from dnsd.resolve import anchors, hints
from dnsd.resolve.aggressive import Denials
from dnsd.resolve.anchors import AnchorError, Anchors
from dnsd.resolve.config import Config
from dnsd.resolve.forwarded import Upstream
from dnsd.resolve.hints import Hints, HintsError
from dnsd.resolve.infra import Infra
from dnsd.resolve.resolver import Resolver
from dnsd.resolve.rrcache import RRCache
from dnsd.resolve.signatures import Policy
from dnsd.resolve.validator import Validator
from dnsd.serve.chance import Chance

_SMALLEST_CACHE = 1 << 20

__all__ = ["AnchorError", "HintsError", "problems", "resolver", "root_hints", "trust_anchors", "with_anchors", "with_hints"]


def root_hints(settings: Settings) -> Hints:
    """The root hints as the settings have them (a file must have been read before: `with_hints`); raises HintsError."""
    given = settings.resolver.root_hints
    if given == "builtin":
        return hints.builtin()
    if isinstance(given, str):
        raise HintsError(f"{given} was not read")
    return hints.from_pairs(given)


def with_hints(settings: Settings) -> Settings:
    """The settings with the root hints' file read, and every hint checked; raises HintsError.

    Done before dnsd becomes its user and before it forks: workers read no files.
    """
    given = settings.resolver.root_hints
    if given == "builtin" or not isinstance(given, str):
        root_hints(settings)
        return settings
    try:
        with open(given, encoding="utf-8") as file:
            read = hints.from_text(file.read())
    except OSError as error:
        raise HintsError(f"{given}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise HintsError(f"{given}: is not UTF-8 text") from None
    except HintsError as error:
        raise HintsError(f"{given}: {error}") from None
    pairs = tuple((names.to_text(name), addresses) for name, addresses in read)
    return dataclasses.replace(settings, resolver=dataclasses.replace(settings.resolver, root_hints=pairs))


def trust_anchors(settings: Settings) -> Anchors:
    """The trust anchors of the settings (a file must have been read before: `with_anchors`); raises AnchorError."""
    given, negative = settings.resolver.trust_anchors, settings.resolver.negative_trust_anchors
    if given == "builtin":
        return anchors.builtin(negative)
    if isinstance(given, str):
        raise AnchorError(f"{given} was not read")
    return anchors.from_texts(given, negative)


def with_anchors(settings: Settings) -> Settings:
    """The settings with the trust anchors' file read, and every anchor checked; raises AnchorError. As `with_hints`."""
    given = settings.resolver.trust_anchors
    if isinstance(given, str) and given != "builtin":
        try:
            with open(given, encoding="utf-8") as file:
                text = file.read()
            if not anchors.from_text(text):
                raise AnchorError("there is no DS or DNSKEY record in it (`trust_anchors: []` turns validation off)")
        except OSError as error:
            raise AnchorError(f"{given}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise AnchorError(f"{given}: is not UTF-8 text") from None
        except AnchorError as error:
            raise AnchorError(f"{given}: {error}") from None
        settings = dataclasses.replace(settings, resolver=dataclasses.replace(settings.resolver, trust_anchors=(text,)))
    trust_anchors(settings)
    return settings


def problems(settings: Settings) -> list[tuple[str, str]]:
    """(key path, sentence) of every root hint and trust anchor that cannot be used; files are read."""
    found: list[tuple[str, str]] = []

    def tried(key: str, attempt: Callable[[], object]) -> None:
        try:
            attempt()
        except (AnchorError, HintsError) as error:
            text = re.sub(r"^<input>:\d+: ", "", str(error)).replace(".; ", "; ")  # of one line
            help = "" if "; " in text or "write" in text or not key.startswith("neg") else "; write `name until 2027-01-31`"
            found.append((f"resolver.{key}", text + help))

    given = settings.resolver
    if isinstance(given.root_hints, str):
        tried("root_hints", lambda: with_hints(settings))
    else:
        for index, pair in enumerate(given.root_hints):
            tried(f"root_hints.{index}", partial(hints.from_pairs, (pair,)))
    if isinstance(given.trust_anchors, str):
        plain = dataclasses.replace(given, negative_trust_anchors=())
        tried("trust_anchors", lambda: with_anchors(dataclasses.replace(settings, resolver=plain)))
    else:
        for index, text in enumerate(given.trust_anchors):
            tried(f"trust_anchors.{index}", partial(anchors.from_texts, (text,)))
    for index, text in enumerate(given.negative_trust_anchors):
        tried(f"negative_trust_anchors.{index}", partial(anchors.builtin, (text,)))
    return found


def resolver(settings: Settings, workers: int) -> Resolver:
    """The resolver of one worker of so many; raises HintsError, AnchorError.

    Its memory of RRsets is half of what its share of the answer cache is, on top of that.
    """
    wanted = settings.resolver
    special = {name for name, kind in special_names().items() if kind != codes.SPECIAL_NONE}
    config = Config(
        qname_minimisation=wanted.qname_minimisation,
        case_randomisation=wanted.case_randomisation,
        priming=wanted.priming,
        use_ipv4=wanted.use_ipv4,
        use_ipv6=wanted.use_ipv6,
        prefer={"ipv4": 4, "ipv6": 6}.get(wanted.prefer, 0),
        query_localhost=wanted.query_localhost,
        harden_glue=wanted.harden_glue,
        edns_size=wanted.edns_size,
        dnssec=wanted.dnssec,
        special=frozenset(special) if wanted.special_use else frozenset(),
    )
    size = max(_SMALLEST_CACHE, settings.cache.size_bytes // max(1, workers) // 2)
    cache = RRCache(size, settings.cache.min_ttl_s, settings.cache.max_ttl_s)
    known = trust_anchors(settings) if wanted.dnssec else anchors.NONE
    return Resolver(config, root_hints(settings), Chance(), cache, Infra(), _validator(settings, known, size))


def _validator(settings: Settings, known: Anchors, size: int) -> Validator | None:
    """What validates by these anchors; None without any. NSEC and NSEC3 have an eighth of the RRsets' memory."""
    wanted = settings.resolver
    if not known:
        return None
    denials = Denials(max(512, size >> 13)) if wanted.aggressive_nsec else None
    return Validator(known, wanted.signature_skew_s, denials, Policy(wanted.sha1, wanted.rsa_min_bits))


def over_forwarders(settings: Settings, workers: int) -> Callable[[Upstream], Resolver]:
    """What makes a resolver over a forward entry's servers, which validates with the node's trust anchors if it is to.

    `resolver.dnssec` is about `recurse` and changes nothing here; without any anchor nothing is validated.
    """
    size = max(_SMALLEST_CACHE, settings.cache.size_bytes // max(1, workers) // 16)
    known = trust_anchors(settings)

    def make(upstream: Upstream) -> Resolver:
        cache = RRCache(size, settings.cache.min_ttl_s, settings.cache.max_ttl_s)
        validator = _validator(settings, known, size) if upstream.validated else None
        return Resolver(Config(), (), Chance(), cache, Infra(), validator, upstream)

    return make

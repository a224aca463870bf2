"""The page's trace: one resolution from the root at a time, in a program of its own, bounded in time and number.

A question typed into a page goes out to name servers. So nothing but a name and a type is taken, class IN is all there
is, the same question within a minute is answered from memory, and strangers' pages cannot ask (`foreign`).
"""

from __future__ import annotations

import asyncio
import base64
import collections
import contextlib
import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping

from dnsd.contract.settings import ResolverSettings, Settings

PATIENCE_S = 15.0
A_MINUTE = 12  # resolutions; a person does not read faster
_KEPT_S = 60.0
_KEPT = 16
_LARGEST = 4 << 20
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)
_KEYS = (
    "negative_trust_anchors", "dnssec", "qname_minimisation", "case_randomisation", "priming", "special_use",
    "use_ipv4", "use_ipv6", "prefer", "query_localhost", "harden_glue", "edns_size", "aggressive_nsec", "sha1",
    "rsa_min_bits",
)  # fmt: skip


class WayError(Exception):
    """There is no trace; the sentence says why, `status` is HTTP's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def foreign(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that another site's page makes this request (Fetch Metadata), or only guesses ahead."""
    site = headers.get("sec-fetch-site", "none")
    return site not in ("none", "same-origin") or "prefetch" in headers.get("sec-purpose", "")


def style_hash(picture: str) -> str:
    """The picture's style as a Content-Security-Policy source."""
    found = _STYLE.search(picture)
    digest = hashlib.sha256((found[1] if found else "").encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


class Way:
    """Call it with name and type as typed; gives the picture (SVG), or raises WayError."""

    def __init__(self, settings: Settings, words: tuple[str, ...] = (sys.executable, "-m", "dnsd")) -> None:
        self._words = words
        self._resolver = json.dumps({"resolver": _resolver(settings.resolver), "state": settings.state}).encode()
        self._times: collections.deque[float] = collections.deque()
        self._kept: dict[tuple[str, str], tuple[float, str]] = {}
        self._busy = asyncio.Lock()

    async def __call__(self, name: str, qtype: str) -> str:
        loop = asyncio.get_running_loop()
        key = (name.lower().rstrip("."), qtype.upper())
        kept = self._kept.get(key)
        if kept is not None and loop.time() - kept[0] < _KEPT_S:
            return kept[1]
        if self._busy.locked():
            raise WayError("another trace is under way; try again when it has ended", 429)
        while self._times and loop.time() - self._times[0] > 60:
            self._times.popleft()
        if len(self._times) >= A_MINUTE:
            raise WayError(f"{A_MINUTE} traces within a minute are enough; use `nexoraldns trace` for more", 429)
        async with self._busy:
            self._times.append(loop.time())
            picture = await self._run(name, qtype)
        self._kept[key] = (loop.time(), picture)
        while len(self._kept) > _KEPT:
            self._kept.pop(next(iter(self._kept)))
        return picture

    async def _run(self, name: str, qtype: str) -> str:
        path = os.pathsep.join(filter(None, (_packages(), os.environ.get("PYTHONPATH"))))
        environment = {key: value for key, value in os.environ.items() if key != "NEXORALDNS_CONFIG"}
        environment["PYTHONPATH"] = path
        # After `--`: a name that begins with a dash is a name.
        words = [*self._words, "trace", "--format", "svg", "--config", "/dev/stdin", "--", name, qtype]
        try:
            process = await asyncio.create_subprocess_exec(
                *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                env=environment,
            )  # fmt: skip
        except OSError as error:
            raise WayError(f"the trace cannot be started: {error.strerror}", 503) from None
        try:
            async with asyncio.timeout(PATIENCE_S):
                out, err = await process.communicate(self._resolver)
        except TimeoutError:
            raise WayError(f"the trace took longer than {PATIENCE_S:g} s and was ended", 504) from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode in (0, 1) and out.startswith(b"<svg") and len(out) <= _LARGEST:
            return out.decode("utf-8", "replace")
        said = err.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise WayError(said[0].removeprefix("trace: ")[:500], 400 if process.returncode == 2 else 503)


def _packages() -> str:
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _resolver(settings: ResolverSettings) -> dict[str, object]:
    """The settings of resolving as a node's file has them."""
    values: dict[str, object] = {key: getattr(settings, key) for key in _KEYS}
    hints, anchors = settings.root_hints, settings.trust_anchors
    values["root_hints"] = hints
    if not isinstance(hints, str):
        values["root_hints"] = [{"name": name, "addresses": list(addresses)} for name, addresses in hints]
    values["trust_anchors"] = anchors if isinstance(anchors, str) else list(anchors)
    values["negative_trust_anchors"] = list(settings.negative_trust_anchors)
    values["trust_anchor_updates"] = settings.follows_anchors
    values["signature_skew"] = f"{settings.signature_skew_s:g}s"
    return values

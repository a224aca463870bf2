"""What `run` says once everything really answers: three things to try, taken from the user's own rules."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import struct

from controller import documents, source, source_folder
from dnsd.contract import names
from dnsd.contract.settings import Settings, split_listen

_ASK_S = 1.0


def reachable(listen: str) -> tuple[str, int]:
    """Where something that listens on `listen` can be asked from this machine."""
    host, port = split_listen(listen)
    if host in ("*", "", "0.0.0.0") or not any(character in host for character in ".:"):
        return "127.0.0.1", port  # a wildcard, or an interface whose address we do not know
    return ("::1" if host == "::" else host), port


async def answers(settings: Settings, controller: int | None = None) -> bool:
    """Whether a table is served on some node, and a real question gets a real answer. `controller`: the pid of ours
    (None where nobody knows it); another one may have had the page's address before us, and then our own is about to say
    so and to end."""
    found = await _get(settings, "/api/v1/status")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        if found is None or (json.loads(found[1])["pid"] != controller and controller is not None):
            return False
        ready = await _get(settings, "/readyz")
        return ready is not None and ready[0] == 200 and await _asked(*reachable(settings.listen[0]))
    return False


async def why_not(settings: Settings) -> str:
    """What the controller knows about why nothing is served yet."""
    found = await _get(settings, "/api/v1/status")
    problems = []
    if found is not None:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            problems = [problem["message"] for problem in json.loads(found[1])["problems"]]
    words = "; ".join(problems) or "neither half has said why"
    return f"nothing is answered yet: {words} (see http://{settings.status.listen})"


async def _get(settings: Settings, path: str) -> tuple[int, bytes] | None:
    host, port = reachable(settings.status.listen)
    try:
        async with asyncio.timeout(_ASK_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
                head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
            finally:
                writer.close()
        return int(head.split(b" ", 2)[1]), body
    except (OSError, TimeoutError, ValueError, IndexError):
        return None


class _Answer(asyncio.DatagramProtocol):
    def __init__(self, identity: bytes) -> None:
        self.identity = identity
        self.came: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, address: object) -> None:
        if data[:2] == self.identity and not self.came.done():
            self.came.set_result(True)

    def error_received(self, error: Exception) -> None:
        if not self.came.done():
            self.came.set_result(False)


async def _asked(host: str, port: int) -> bool:
    """Ask `id.server CH TXT` (RFC 4892): answered by every worker, from no table and no upstream."""
    identity = secrets.token_bytes(2)
    question = names.from_text("id.server") + struct.pack(">HH", 16, 3)
    packet = identity + struct.pack(">HHHHH", 0x0100, 1, 0, 0, 0) + question
    loop = asyncio.get_running_loop()
    try:
        transport, protocol = await loop.create_datagram_endpoint(lambda: _Answer(identity), remote_addr=(host, port))
    except OSError:
        return False
    try:
        transport.sendto(packet)
        async with asyncio.timeout(_ASK_S):
            return await protocol.came
    except TimeoutError:
        return False
    finally:
        transport.close()


def text(settings: Settings) -> str:
    """The greeting."""
    host, port = reachable(settings.listen[0])
    file, name = _example(settings)
    if settings.source.git is not None:
        edit = f"git push to {source.redact(settings.source.git.url)} ({settings.source.git.ref}), then nexoraldns sync"
    else:
        edit = f"edit {file} and save: every worker serves it at once"
    at = f"@{host}" + (f" -p {port}" if port != 53 else "")
    return (
        f"\nNexoralDNS answers on {', '.join(settings.listen)}. Three things to try:\n\n"
        f"  1. dig {at} {name}\n"
        f"  2. {edit}\n"
        f"  3. open http://{settings.status.listen} to see who decided what\n"
    )


def _example(settings: Settings) -> tuple[str, str]:
    """A rule file worth editing, and a name worth asking for."""
    directory = settings.source.directory
    if directory is None:
        return "", "example.com"
    with contextlib.suppress(source.SourceError, OSError):
        files = source_folder.snapshot_of(directory, os.path.relpath(directory)).snapshot.files
        parsed = {path: documents.parse(path, data).root for path, data in sorted(files.items())}
        values = {path: root.value for path, root in parsed.items() if root is not None}
        sections = {path: value for path, value in values.items() if isinstance(value, dict)}
        file = next((path for path, value in sections.items() if "rules" in value), next(iter(files), directory))
        for value in sections.values():
            zones = value.get("zones")
            for zone, body in zones.items() if isinstance(zones, dict) else ():
                records = body.get("records") if isinstance(body, dict) else None
                for owner in records if isinstance(records, dict) else ():
                    if isinstance(owner, str) and owner not in ("", "@") and not owner.startswith(("*", "_")):
                        return file, f"{owner}.{zone}".rstrip(".")
        return file, "example.com"
    return directory, "example.com"

"""`nexoraldns hook`, as DHCP clients call it: one EVENT to the broker, or a file for the controller, within 2 s.

The rule: exit code 0, always. A non-zero one makes dhclient decline a lease, and a program that hangs delays one.
On a small box that is just booting even the imports may take longer than that: then the program has ended all the
same, and a child of it finishes in the background, because that is when leases are had.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

ALL_S = 1.8  # from here to the end, whatever happens; the interpreter's own start comes on top
CHILD_S = 8.0  # what is not done by then is given up
BROKER_S = 1.2  # then a file is written instead
DEFAULT_CONFIG = "/etc/nexoraldns/nexoraldns.yaml"


def main(words: Sequence[str]) -> int:
    """Run for one call of a DHCP client; `words` are the program's arguments after `hook`. Always 0."""
    signal.signal(signal.SIGALRM, lambda number, frame: _go_on_behind())
    signal.setitimer(signal.ITIMER_REAL, ALL_S)
    deadline = time.monotonic() + BROKER_S
    try:
        print(f"nexoraldns hook: {_run(words, os.environ, deadline)}", file=sys.stderr, flush=True)
    except BaseException as error:
        try:
            print(f"nexoraldns hook: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        except BaseException:
            os._exit(0)  # even stderr is gone
    return 0


def _go_on_behind() -> None:
    """End with 0 now; a child that nobody waits for returns from here and goes on with what was interrupted."""
    signal.signal(signal.SIGALRM, lambda number, frame: os._exit(0))
    try:
        if os.fork():
            os._exit(0)
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(nothing, descriptor)  # whoever reads our output must not wait for it
        signal.setitimer(signal.ITIMER_REAL, CHILD_S)
    except OSError:
        os._exit(0)


def _run(words: Sequence[str], environ: Mapping[str, str], deadline: float) -> str:
    config, arguments = _words(words)
    from controller.hooks import callers

    event, sentence = callers.event_of(environ, arguments)
    if event is None:
        return sentence
    event["at"] = called_at_ms()
    path = find_config(environ, config)
    if path is None:
        return f"{sentence}, but there are no settings: neither NEXORALDNS_CONFIG nor {DEFAULT_CONFIG} names a file"
    from controller import node

    try:
        settings = node.read(path, _ours(environ))
    except node.NodeError as error:
        return f"{sentence}, but the settings cannot be used: {error}"
    from controller.hooks import delivery

    try:
        delivery.send(settings, event, deadline)
        return f"{sentence}: told the broker at {settings.broker.connect}"
    except delivery.Undelivered as error:
        return f"{sentence}: {error}; {delivery.leave(settings.state, event)}"


def _words(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """`--config FILE`, and what the client gave its hook, which is everything after `--`."""
    rest = list(words)
    config = None
    if len(rest) >= 2 and rest[0] == "--config":
        config, rest = rest[1], rest[2:]
    elif rest and rest[0].startswith("--config="):
        config, rest = rest[0].partition("=")[2], rest[1:]
    if rest[:1] == ["--"]:
        rest = rest[1:]
    return config, rest


def called_at_ms() -> int:
    """When this process began, in milliseconds since the boot (proc(5), stat, field 22).

    A client calls one hook after the other, and starting an interpreter takes longer than that: of two programs in the
    background the second may be through first, but it cannot have begun first.
    """
    with open("/proc/self/stat", "rb") as file:
        ticks = int(file.read().rpartition(b")")[2].split()[19])
    return ticks * 1000 // os.sysconf("SC_CLK_TCK")


def find_config(environ: Mapping[str, str], config: str | None = None) -> str | None:
    """The settings' file: `--config`, else NEXORALDNS_CONFIG (an installed stub sets it, if nobody has, to the path of
    `hook install --config`), else /etc/nexoraldns/nexoraldns.yaml; None when the last is not there."""
    chosen = config or environ.get("NEXORALDNS_CONFIG")
    return chosen or (DEFAULT_CONFIG if os.path.exists(DEFAULT_CONFIG) else None)


def _ours(environ: Mapping[str, str]) -> dict[str, Any]:
    return {name: value for name, value in environ.items() if name.startswith("NEXORALDNS_")}

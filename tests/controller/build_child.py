"""A build child whose checks are scripted by the rule files' own text: the rest is real."""

from __future__ import annotations

import os
import signal
import sys
import time
import types
from typing import Any

from controller.ruleset import Snapshot


def check_snapshot(snapshot: Snapshot) -> Any:
    """Do what each word of the rule files says: build for ever, be deaf to signals, die, read a list, refuse …"""
    diagnostics = []
    for path, data in snapshot.files.items():
        for word in data.decode().split():
            if word == "sleep":
                while True:
                    sum(range(1000))
            elif word == "deaf":
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
                while True:
                    sum(range(1000))
            elif word == "die":
                print("famous last words", file=sys.stderr, flush=True)
                os._exit(7)
            elif word == "diefirst":
                mark = os.path.join(sys.argv[1], "died")
                if not os.path.exists(mark):
                    os.makedirs(sys.argv[1], exist_ok=True)
                    with open(mark, "w", encoding="utf-8"):
                        os._exit(7)
            elif word == "raise":
                raise ValueError("surprise")
            elif word == "print":
                print("this must not end up between the frames")
                os.write(1, b"\xff" * 100)
            elif word == "read":
                assert snapshot.read("ads.txt", path) == b"ads.example\n"
            elif word == "missing":
                try:
                    snapshot.read("none.txt", path)
                except FileNotFoundError as error:
                    diagnostics.append(types.SimpleNamespace(is_error=True, text=f"{error.strerror} {error.errno}"))
            elif word == "bad":
                diagnostics.append(types.SimpleNamespace(is_error=True, text=f"{path}:1:1: bad"))
    ruleset = None if diagnostics else snapshot
    return types.SimpleNamespace(ruleset=ruleset, tests=(), diagnostics=diagnostics)


def compile_table(ruleset: Snapshot) -> Any:
    text = repr(sorted(ruleset.files.items())).encode()
    return types.SimpleNamespace(policy=text, names=b"names", digest=f"d{len(text)}", meaning="m")


def render(found: list[Any], sources: Any, format: str = "text") -> str:
    return "\n".join(one.text for one in found) + "\n"


for _name, _content in (
    ("check", {"check_snapshot": check_snapshot}),
    ("lists", {"progress": None}),
    ("compiler", {"compile_table": compile_table, "Blobs": object}),
):
    _module = types.ModuleType(f"controller.{_name}")
    _module.__dict__.update(_content)
    sys.modules[f"controller.{_name}"] = _module
    import controller

    setattr(controller, _name, _module)

from controller import build, diagnostics  # noqa: E402

diagnostics.render = render  # type: ignore[assignment]

if __name__ == "__main__":
    time.monotonic()
    build.main(sys.argv[1])

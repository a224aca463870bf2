"""The command line. It looks at the verb before it imports anything: a DHCP client that calls `nexoraldns hook` waits
for neither click nor anything else that only people need. All that is for people is in `controller.cli.frame`.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from controller.cli.frame import DNSD as DNSD
    from controller.cli.frame import LATER as LATER
    from controller.cli.frame import VERBS as VERBS
    from controller.cli.frame import config_option as config_option
    from controller.cli.frame import fail as fail
    from controller.cli.frame import hand_over as hand_over
    from controller.cli.frame import main_group as main_group
    from controller.cli.frame import with_packages as with_packages

_FOR_PEOPLE = ("install", "remove", "status", "--help", "-h")


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    # Not `from controller.cli import frame`: that would ask here for `frame` first.
    return getattr(importlib.import_module("controller.cli.frame"), name)


def main() -> None:
    """The entry point of `nexoraldns` and `ndns`. Exit code 2 when it could not run."""
    words = sys.argv[1:]
    if words[:1] == ["hook"] and words[1:2] not in [[word] for word in _FOR_PEOPLE]:
        from controller.hooks import program

        raise SystemExit(program.main(words[1:]))
    from dnsd import stdout

    with stdout.guarded("nexoraldns"):
        import controller.cli.frame as frame

        if words and words[0] in frame.DNSD:
            frame.hand_over(words[0], words[1:])
        frame.main_group.main(args=words, prog_name=os.path.basename(sys.argv[0]).replace("__main__.py", "nexoraldns"))

"""`python -m controller [--config FILE]`: the controller process."""

from __future__ import annotations

import argparse
import sys


def serve(config: str | None) -> int:
    """Read the settings and serve; returns the exit code. What cannot run is said in one sentence: 2."""
    from controller import log, node

    try:
        settings = node.read(config)
    except node.NodeError as error:
        print(f"nexoraldns controller: {error}", file=sys.stderr, flush=True)
        return 2
    log.setup()
    from controller import service

    try:
        return service.main(settings)
    except service.ServiceError as error:
        print(f"nexoraldns controller: {error}", file=sys.stderr, flush=True)
        return 2


def main() -> int:
    """Parse the words and serve."""
    parser = argparse.ArgumentParser(prog="python -m controller", description="The controller half of NexoralDNS.")
    parser.add_argument("--config", metavar="FILE", help="the node's settings")
    return serve(parser.parse_args().config)


if __name__ == "__main__":
    sys.exit(main())

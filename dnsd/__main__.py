"""`python -m dnsd`: the name server without the controller.

Reads the settings file, hands over to the supervisor, and says in one sentence what is wrong when it
cannot. Exit codes: 0 stopped by a signal, 2 could not run. `python -m dnsd dissect …` and
`trace …` are other programs.
"""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from dnsd import __version__, stdout
from dnsd.contract.settings import Settings, SettingsError, load, variable
from dnsd.serve import log


class ConfigError(Exception):
    """A settings file that cannot be used; one problem a line."""


def _document(path: str | None) -> Any:
    document: Any = None
    if path is not None:
        import yaml

        try:
            with open(path, encoding="utf-8") as file:
                document = yaml.safe_load(file)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: is not UTF-8 text") from None
        except yaml.YAMLError as error:
            raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
        if document is not None and not isinstance(document, dict):
            raise ConfigError(f'{path}: the settings are a mapping, for example `listen: ["127.0.0.1:5335"]`')
    return document


def _base(path: str | None) -> str:
    return os.getcwd() if path is None else os.path.dirname(os.path.abspath(path))


def read_settings(path: str | None, environ: Mapping[str, str] = os.environ) -> Settings:
    """The node's settings from a file (None: only defaults and environment); raises ConfigError with all problems."""
    from dnsd.serve.recursion import problems, with_anchors, with_hints

    try:
        settings = load(_document(path), _base(path), environ)
        if found := problems(settings):
            raise SettingsError(found)
        return with_anchors(with_hints(settings))
    except SettingsError as error:
        where = path or "settings"
        lines = [f"{where}: {key + ': ' if key else ''}{text}" for key, text in error.problems]
        raise ConfigError("\n".join(lines)) from None


def check(path: str | None, environ: Mapping[str, str] = os.environ) -> int:
    """For `nexoraldns check`, which cannot read trust anchors and root hints itself: prints what is wrong with them as
    a JSON list of [key path, sentence]. What else may be wrong with the settings is not looked at."""
    from dnsd.serve.recursion import problems

    document = _document(path)
    resolver = document.get("resolver") if isinstance(document, dict) else None
    keys = ("root_hints", "trust_anchors", "negative_trust_anchors")
    given = {key: resolver[key] for key in keys if key in resolver} if isinstance(resolver, dict) else {}
    names = [variable(f"resolver.{key}") for key in keys]
    found: list[tuple[str, str]] = []
    with contextlib.suppress(SettingsError):  # the caller says that itself
        found = problems(load({"resolver": given}, _base(path), {n: environ[n] for n in names if n in environ}))
    print(json.dumps(found))
    return 0


def run(settings: Settings, reload: Callable[[], Settings] | None = None) -> int:
    """Be a node until SIGTERM; returns the exit code. `reload` reads the settings again on SIGHUP."""
    # Everything is imported here, before the fork and before `user` is taken: children share the pages, and that user
    # may not be able to read our modules. asyncio.to_thread would import its pool of threads at its first call.
    import concurrent.futures.thread  # noqa: F401

    from dnsd.serve import agent, supervisor
    from dnsd.serve.batch import COMPILED
    from dnsd.serve.rounds import Rounds

    log.setup()
    logger = log.logger("supervisor")
    if not COMPILED:
        logger.warning("no compiled modules: answers are right but slow; run `pip install .` with a C compiler")
    programs = supervisor.Programs(agent=agent.run, inherited=agent.Inherited, hotpath=Rounds)
    try:
        return supervisor.Supervisor(settings, programs, logger, reload).run()
    except supervisor.CannotRun as error:
        return log.refuse(str(error))


def end_workers(settings: Settings) -> int:
    """End what a killed dnsd left serving (its workers go on until the next one takes over); returns the exit code."""
    from dnsd.serve import census

    log.setup()
    ours = census.Census(settings.state)
    if not ours.left_behind():
        return 0
    try:
        ours.acquire()
    except census.AlreadyRunning as error:
        return log.refuse(str(error))
    except OSError:
        return log.refuse(f"{settings.state} cannot be used: end the workers yourself; their pids are in dnsd.pids")
    ended = [process.pid for process in ours.left_behind() if census.end(process)]
    ours.release()
    if ended:
        log.logger("supervisor").info("ended what an earlier dnsd had left serving", pids=ended)
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line of `python -m dnsd`."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["dissect"]:
        with stdout.guarded("dissect"):
            from dnsd import dissect

            return dissect.main(arguments[1:])
    if arguments[:1] == ["trace"]:
        with stdout.guarded("trace"):
            from dnsd import trace

            return trace.main(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="python -m dnsd",
        description="The DNS server of NexoralDNS. It serves the last good table, with or without a controller.",
        epilog="example: python -m dnsd --config /etc/nexoraldns.yaml",
    )
    parser.add_argument("--config", metavar="FILE", help="settings of the node; NEXORALDNS_CONFIG is read otherwise")
    parser.add_argument("--end-workers", action="store_true", help="serve nothing: end what a killed dnsd left serving")
    parser.add_argument("--version", action="version", version=f"NexoralDNS {__version__}")
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    path = options.config or os.environ.get("NEXORALDNS_CONFIG") or None
    try:
        if options.check:
            return check(path)
        settings = read_settings(path)
    except ConfigError as error:
        return log.refuse(str(error))
    if options.end_workers:
        return end_workers(settings)
    return run(settings, lambda: read_settings(path))


if __name__ == "__main__":
    sys.exit(main())

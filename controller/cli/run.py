"""`nexoraldns run`: both halves as child processes, restarted when they end, and three things to try.

This process serves nothing itself: it only starts, watches and ends the two halves, so it has nothing to crash over.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable

import click

from controller.cli import config_option, fail, with_packages

END_S = 4.5
BACKOFF_S = (0.2, 10.0)
STEADY_S = 5.0  # a half that lived this long has served, and is brought back whatever it ended with
PATIENCE_S = 10.0  # after this long without an answer, say what is known about why
_PR_SET_PDEATHSIG = 1
_CANNOT_RUN = 2


@click.command("run")
@config_option
def command(config: str | None) -> None:
    """Serve: controller, broker, dnsd and status page in one go, in the foreground.

    Without settings: rules from ./rules.d, DNS on 127.0.0.1:5335 (UDP and TCP), status page http://127.0.0.1:8053,
    broker 127.0.0.1:5338, state in ./.nexoraldns.

    \b
    Example: nexoraldns run
             dig @127.0.0.1 -p 5335 printer.office.example.com
    SIGTERM and Ctrl-C end everything with exit code 0; 2 means that it could not start, and says why.
    """
    from controller import log, node

    try:
        node.read(config)
    except node.NodeError as error:
        fail(str(error))
    log.setup()
    raise SystemExit(asyncio.run(Run(config).serve()))


class Half:
    """One half as a child process, brought back with back-off for as long as `run` lives."""

    def __init__(self, name: str, words: list[str], say: Callable[..., None]) -> None:
        self.name = name
        self._words = words
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._served = False
        self._end = asyncio.Event()
        self.clean = True  # nobody has begun yet, or the last one ended by itself and in order

    @property
    def ending(self) -> bool:
        return self._end.is_set()

    @property
    def pid(self) -> int:
        """Of the process that runs now; 0 before the first."""
        return self._process.pid if self._process is not None else 0

    def end(self) -> None:
        """End it, and do not bring it back."""
        self._end.set()
        self.send(signal.SIGTERM)

    async def keep(self) -> int:
        """Run it until `ending`; returns 2 when it could not even begin, else 0."""
        loop = asyncio.get_running_loop()
        delay_s = BACKOFF_S[0]
        while not self.ending:
            started = loop.time()
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, *self._words, stdin=asyncio.subprocess.DEVNULL,
                env=with_packages(os.environ), start_new_session=True, preexec_fn=_die_with_parent,
            )  # fmt: skip
            if self._is_ending():
                self.send(signal.SIGTERM)  # the end was asked for while it was being started
            code = await self._process.wait()
            self.clean = code in (0, _CANNOT_RUN)
            if self._is_ending():
                break
            lived_s = loop.time() - started
            self._served = self._served or lived_s >= STEADY_S
            if code == _CANNOT_RUN and not self._served:
                return _CANNOT_RUN  # it has said why itself
            delay_s = BACKOFF_S[0] if lived_s >= STEADY_S else min(2 * delay_s, BACKOFF_S[1])
            how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            self._say(f"{self.name} ended {how}, starting it again", after_s=delay_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._end.wait(), delay_s)
        return 0

    def _is_ending(self) -> bool:
        return self.ending

    def send(self, number: signal.Signals) -> None:
        """Pass a signal on."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


_LIBC = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    # Were `run` killed, two orphans would hold the ports and nobody would know whose they are.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Run:
    """Both halves, the signals, and the greeting."""

    def __init__(self, config: str | None) -> None:
        import structlog

        self.config = config
        self.log = structlog.get_logger("run")
        rest = ["--config", config] if config else []
        self.halves = [Half(name, ["-m", name, *rest], self.log.warning) for name in ("controller", "dnsd")]
        self.ended = asyncio.Event()

    def end(self) -> None:
        """End both halves."""
        for half in self.halves:
            half.end()
        self.ended.set()

    async def _end_workers(self) -> None:
        """A dnsd that was killed leaves workers that serve until the next one; here there will be no next one."""
        rest = ["--config", self.config] if self.config else []
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dnsd", *rest, "--end-workers",
            stdin=asyncio.subprocess.DEVNULL, env=with_packages(os.environ),
        )  # fmt: skip
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), END_S)

    def _hang_up(self) -> None:
        for half in self.halves:
            half.send(signal.SIGHUP)

    async def serve(self) -> int:
        """Serve until a signal; the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.end)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        kept = [asyncio.create_task(half.keep()) for half in self.halves]
        greeting = asyncio.create_task(self._greet())
        ended = asyncio.create_task(self.ended.wait())
        try:
            await asyncio.wait([*kept, ended], return_when=asyncio.FIRST_COMPLETED)
            codes = [task.result() for task in kept if task.done()]
            self.end()
            _, left = await asyncio.wait(kept, timeout=END_S)
            for half in self.halves:
                half.send(signal.SIGKILL)
            if left:
                await asyncio.wait(left, timeout=1)
            if not self.halves[1].clean:
                await self._end_workers()
            return max(codes, default=0)
        finally:
            greeting.cancel()
            ended.cancel()

    async def _greet(self) -> None:
        from controller import greeting, node

        with contextlib.suppress(node.NodeError):
            settings = node.read(self.config)
            loop = asyncio.get_running_loop()
            began, told = loop.time(), False
            while not await greeting.answers(settings, self.halves[0].pid):
                if not told and loop.time() - began > PATIENCE_S:
                    told = True
                    click.echo(await greeting.why_not(settings), err=True)
                await asyncio.sleep(0.1)
            click.echo(await asyncio.to_thread(greeting.text, settings))
            sys.stdout.flush()

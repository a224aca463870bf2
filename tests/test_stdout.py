"""Facts about where the verbs print: a reader that leaves, no output at all, a full disk."""

from __future__ import annotations

import fcntl
import os
import pathlib
import signal
import subprocess
import sys
import termios

import pytest

from tests import lan

ROOT = pathlib.Path(__file__).resolve().parent.parent
BAD = "version: 1\nrules:\n" + "".join(f"  - {{name: r{i}, block: [a..b]}}\n" for i in range(200))
TRUNCATED = "123401000001"


def run(words: list[str], redirect: str, cwd: pathlib.Path, **variables: str) -> tuple[int, str]:
    """Exit code and stderr of a verb whose output a shell redirects."""
    line = f'set -o pipefail; "$@" {redirect}'
    program = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); from controller.cli import main; main()"]
    done = subprocess.run(
        ["bash", "-c", line, "bash", *program, *words], cwd=cwd, capture_output=True, text=True, timeout=60, check=False,
        stdin=subprocess.DEVNULL, env={**os.environ, **variables},
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.fixture
def rules(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with many mistakes in its rules."""
    (tmp_path / "rules.d").mkdir()
    (tmp_path / "rules.d" / "r.yaml").write_text(BAD)
    return tmp_path


@pytest.mark.parametrize("words", [["check"], ["dissect", TRUNCATED]])
@pytest.mark.parametrize("redirect", ["| head -c 1 >/dev/null", ">&-"])
def test_who_does_not_read_changes_nothing(rules: pathlib.Path, words: list[str], redirect: str) -> None:
    """The exit code is that of what was found, whether all, one octet or nothing of it was read."""
    assert run(words, redirect, rules) == (1, "")


@pytest.mark.parametrize("words", [["check"], ["dissect", TRUNCATED]])
def test_a_full_disk_is_no_mistake_in_the_files(rules: pathlib.Path, words: list[str]) -> None:
    """An output that cannot be written is one sentence and exit code 2."""
    code, said = run(words, ">/dev/full", rules)
    assert code == 2 and said.count("\n") == 1
    assert said.endswith("the output cannot be written: No space left on device\n")


def test_a_terminal_of_latin_letters(rules: pathlib.Path) -> None:
    """What an old terminal cannot show is a question mark, never a traceback."""
    (rules / "rules.d" / "r.yaml").write_text('version: 1\nforward: {".": 192.0.2.1}\n')
    assert run(["explain", "bücher.example"], ">out", rules, PYTHONIOENCODING="latin-1") == (0, "")
    assert "xn--bcher-kva.example" in (rules / "out").read_text("latin-1")


@pytest.mark.parametrize("words", [["check"], ["dissect", "-"]])
def test_ctrl_c(rules: pathlib.Path, words: list[str]) -> None:
    """Ctrl-C ends a verb by its signal, not with the exit code of mistakes, and shows no traceback."""
    if words == ["check"]:  # a file that is read for as long as we like
        os.mkfifo(rules / "node.yaml")
        words = ["check", "--config", "node.yaml"]
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from controller.cli import main; main()"
    started = subprocess.Popen(
        [sys.executable, "-c", program, *words], cwd=rules, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, restore_signals=True,
        # What a shell runs in the background ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    if "--config" in words:
        with open(rules / "node.yaml", "w"):  # opens when it is being read
            started.send_signal(signal.SIGINT)
            said = started.communicate(timeout=30)[0]
    else:
        assert started.stdin is not None
        started.stdin.write("12")
        started.stdin.flush()
        lan.until(lambda: not unread(started.stdin), 20)
        started.send_signal(signal.SIGINT)
        said = started.communicate(timeout=30)[0]
    assert started.returncode == -signal.SIGINT and "Traceback" not in said


def unread(pipe: object) -> int:
    """How many octets of a pipe nobody has read yet."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4), sys.byteorder)  # type: ignore[call-overload]

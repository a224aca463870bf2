"""`python -m dnsd`: settings that cannot be used, and the whole program with its real agent."""

import hashlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import dns.message
import dns.query
import pytest

import dnsd.__main__ as program
from controller.compiler import Blobs
from dnsd.contract import frames
from dnsd.serve.store import Saved, TableStore
from tests.serve.node import free_port, table

ROOT = pathlib.Path(__file__).resolve().parents[2]


def save(folder: pathlib.Path, blobs: Blobs) -> None:
    """Put a release on disk as the agent does."""
    folder.parent.mkdir()
    store = TableStore(str(folder))
    parts = {"names": blobs.names, "policy": blobs.policy}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()}
    for name, data in parts.items():
        store.put(digests[name], data)
    rows = [{"name": name, "digest": digests[name], "size": len(data)} for name, data in parts.items()]
    manifest = {"format": "rt/1", "blobs": rows, "table": blobs.digest, "settings": {}}
    store.commit(Saved(1, "e", frames.json_digest(manifest), manifest, {"short": "r"}))


def test_every_problem_of_the_settings_is_said_at_once(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and one line for each wrong key, with the file's name."""
    file = tmp_path / "node.yaml"
    file.write_text("listen: ['127.0.0.1']\nworkrs: 2\ncache: {size: much}\n")
    assert program.main(["--config", str(file)]) == 2
    said = capfd.readouterr().err
    assert said.count(str(file)) == 3 and "workers" in said and "cache.size" in said and "has no port" in said


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"listen: [", "is not YAML"), (b"- a\n", "are a mapping"), (b"\xff\xfe", "is not"), (None, "cannot be read")],
)
def test_a_file_that_is_no_settings_file_is_refused(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str], content: bytes | None, words: str
) -> None:
    """One sentence with the path, exit code 2, no traceback."""
    file = tmp_path / "node.yaml"
    if content is not None:
        file.write_bytes(content)
    assert program.main(["--config", str(file)]) == 2
    said = capfd.readouterr().err
    assert words in said and str(file) in said and "Traceback" not in said


def test_dissect_is_handed_on(capsys: pytest.CaptureFixture[str]) -> None:
    """The verb belongs to another program in the same package."""
    assert program.main(["dissect", "0000010000010000000000000377777700000100 01".replace(" ", "")]) in (0, 1)


def test_the_program_runs_without_a_controller(tmp_path: pathlib.Path) -> None:
    """Real agent, real workers, nobody to ask: it serves what is on disk within two seconds, and stops with 0."""
    save(tmp_path / "state" / "tables", table("10.0.0.5"))
    port = free_port()
    file = tmp_path / "node.yaml"
    file.write_text(f"listen: ['127.0.0.1:{port}']\nworkers: 2\nstate: state\n")
    environment = {**os.environ, "NEXORALDNS_CONFIG": str(file)}
    process = subprocess.Popen(
        [sys.executable, "-m", "dnsd"], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        query = dns.message.make_query("printer.office.test", "A")
        started = time.monotonic()
        response = None
        while response is None and time.monotonic() - started < 8:
            try:
                response = dns.query.udp(query, "127.0.0.1", port=port, timeout=0.3)
            except dns.exception.Timeout:
                continue
        assert response is not None and str(response.answer[0][0]) == "10.0.0.5"
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=6)
    assert process.returncode == 0, said
    assert '"dnsd is up"' in said and "Traceback" not in said


def test_a_state_that_is_a_file(tmp_path: pathlib.Path) -> None:
    """A file in the place of the state directory is called that; no right of it would help."""
    (tmp_path / "state").write_text("")
    (tmp_path / "node.yaml").write_text(f'state: state\nlisten: ["127.0.0.1:{free_port()}"]\n')
    done = subprocess.run(
        [sys.executable, "-m", "dnsd", "--config", str(tmp_path / "node.yaml")], cwd=ROOT, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        2, f"dnsd: the state directory {tmp_path}/state is a file; move it away, or change `state`\n",
    )  # fmt: skip

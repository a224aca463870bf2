"""The command line's frame: verbs are found without imports, mistakes are answered, exit codes are kept."""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import yaml

from controller import cli, greeting, node
from tests import lan

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(*words: str, folder: pathlib.Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "controller.cli", *words], capture_output=True, text=True, check=False, timeout=60,
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160", **environment},
    )  # fmt: skip


# --- the frame --------------------------------------------------------------------------------------------------------


def test_help_lists_every_verb() -> None:
    """`--help` names every verb, and each that is not handed over has its own file."""
    ran = run("--help")
    assert ran.returncode == 0
    for verb in cli.VERBS:
        assert f"\n  {verb} " in ran.stdout
        assert verb in cli.DNSD or (ROOT / "controller" / "cli" / f"{verb}.py").exists()


@pytest.mark.parametrize("verb", [verb for verb in cli.VERBS if verb not in cli.DNSD])
def test_each_verb_has_help_with_an_example(verb: str) -> None:
    """Every verb explains itself, with an example, `--config` and no side effect."""
    ran = run(verb, "--help")
    assert ran.returncode == 0, ran.stderr
    assert f"nexoraldns {verb}" in ran.stdout and "--config" in ran.stdout


def test_unknown_verb() -> None:
    """A mistyped verb is answered with the nearest one, exit code 2."""
    ran = run("stauts")
    assert ran.returncode == 2 and "did you mean 'status'?" in ran.stderr


@pytest.mark.parametrize("verb", cli.LATER)
def test_verbs_of_later_versions(verb: str) -> None:
    """A verb that is planned is refused by name, never taken for a typing error."""
    ran = run(verb, "example.com")
    assert ran.returncode == 2 and f"'{verb}' is not in this version" in ran.stderr


def test_the_verb_decides_what_is_imported() -> None:
    """Help and version import no YAML, no git, no web server."""
    code = (
        "import sys; sys.argv = ['nexoraldns', '--version']\n"
        "from controller.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([n for n in ('yaml', 'git', 'starlette', 'structlog', 'rich', 'asyncio') if n in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.splitlines()[-1] == "[]"


def test_dissect_is_handed_over() -> None:
    """`dissect` runs in the other half, with its words untouched."""
    ran = run("dissect", "00 01 01 00 00 01 00 00 00 00 00 00 07 65 78 61 6d 70 6c 65 00 00 01 00 01")
    assert ran.returncode == 0 and "example" in ran.stdout


# --- settings ---------------------------------------------------------------------------------------------------------


def test_settings_problems_have_places(tmp_path: pathlib.Path) -> None:
    """Every problem of the node's file is shown at once, with line and column."""
    path = tmp_path / "node.yaml"
    path.write_text("workers: none\nstatus:\n  listen: here\n")
    with pytest.raises(node.NodeError) as caught:
        node.read(str(path), {})
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{path}:1:1: workers: ") and lines[1].startswith(f"{path}:3:3: status.listen: ")


@pytest.mark.parametrize("verb", ["run", "controller", "status", "sync"])
def test_bad_settings_end_with_2(tmp_path: pathlib.Path, verb: str) -> None:
    """Settings that cannot be read are one sentence and exit code 2, never a traceback."""
    for config in ("none.yaml", "broken.yaml"):
        (tmp_path / "broken.yaml").write_text("listen: [\n")
        ran = run(verb, "--config", config, folder=tmp_path)
        assert ran.returncode == 2 and "Traceback" not in ran.stderr
        assert config in ran.stderr


def test_defaults_without_a_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without settings: ./rules.d, 5335, 5338, 8053 and ./.nexoraldns."""
    monkeypatch.chdir(tmp_path)
    settings = node.read(None, {})
    assert settings.source.directory == str(tmp_path / "rules.d")
    assert (settings.listen, settings.broker.listen, settings.status.listen, settings.state) == (
        ("127.0.0.1:5335",), "127.0.0.1:5338", "127.0.0.1:8053", str(tmp_path / ".nexoraldns"),
    )  # fmt: skip


def test_greeting_takes_its_example_from_the_rules(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The three things to try name a record and a file of the user's own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.d").mkdir()
    (tmp_path / "rules.d" / "net.yaml").write_text(
        "version: 1\nzones:\n  lan.example:\n    records: {'@': 10.0.0.1, '*.x': 10.0.0.2, nas: 10.0.0.3}\n"
    )
    (tmp_path / "rules.d" / "policy.yaml").write_text("version: 1\nrules: []\n")
    text = greeting.text(node.read(None, {}))
    assert "dig @127.0.0.1 -p 5335 nas.lan.example" in text
    assert "edit rules.d/policy.yaml" in text and "http://127.0.0.1:8053" in text


@pytest.mark.parametrize(
    ("listen", "where"),
    [("*:53", ("127.0.0.1", 53)), ("eth0:53", ("127.0.0.1", 53)), ("[::]:53", ("::1", 53)),
     ("[::1]:5335", ("::1", 5335)), ("10.0.0.1:53", ("10.0.0.1", 53))],
)  # fmt: skip
def test_reachable(listen: str, where: tuple[str, int]) -> None:
    """What listens everywhere is asked on loopback."""
    assert greeting.reachable(listen) == where


# --- compile ----------------------------------------------------------------------------------------------------------


def test_compile_is_deterministic(tmp_path: pathlib.Path) -> None:
    """The same rules in differently named and ordered files give the same meaning; the same files the same bytes."""
    for name in ("one", "two"):
        folder = tmp_path / name / "rules.d"
        folder.mkdir(parents=True)
        (folder / "a.yaml").write_text("version: 1\nrules:\n  - {name: x, block: [x.example]}\n")
        (folder / "b.yaml").write_text("version: 1\nrules:\n  - {name: y, block: [y.example]}\n")
    digests = []
    for name in ("one", "two"):
        ran = run("compile", f"{name}/rules.d", "-o", f"{name}.table", folder=tmp_path)
        assert ran.returncode == 0, ran.stderr
        digests.append(ran.stdout.strip())
    assert digests[0] == digests[1] and len(digests[0]) == 64
    assert (tmp_path / "one.table").read_bytes() == (tmp_path / "two.table").read_bytes()
    (tmp_path / "two/rules.d/a.yaml").rename(tmp_path / "two/rules.d/z.yaml")
    before, after = (
        json.loads(run("compile", f"{name}/rules.d", "-o", "t", "--format", "json", folder=tmp_path).stdout)
        for name in ("one", "two")
    )
    assert before["meaning"] == after["meaning"] and before["digest"] != after["digest"]


def test_compile_refuses_with_the_words_of_check(tmp_path: pathlib.Path) -> None:
    """Bad rules write nothing and are shown as `check` shows them, exit code 1; nothing to read is 2."""
    (tmp_path / "rules.d").mkdir()
    (tmp_path / "rules.d" / "a.yaml").write_text("version: 1\nrules:\n  - {name: x, block: [list:nope]}\n")
    ran = run("compile", "rules.d", "-o", "t", folder=tmp_path)
    assert ran.returncode == 1 and "error[E021]" in ran.stderr and "rules.d/a.yaml:3:" in ran.stderr
    assert not (tmp_path / "t").exists()
    ran = run("compile", "nowhere", "-o", "t", folder=tmp_path)
    assert ran.returncode == 2 and "there is no folder" in ran.stderr


# --- status and history -----------------------------------------------------------------------------------------------

ROW = {
    "number": 2, "revision": "main@sha1:ab", "short": "main@sha1:ab", "author": "Anna [x]", "subject": "Fix [printer]",
    "state": "active", "digest": "d" * 64, "generation": 7, "since": "2026-01-01T00:00:00Z", "problems_text": "",
    "seen": "2026-01-01T00:00:00Z", "duration_ms": 12.3, "errors": 0, "warnings": 1, "text": "",
}  # fmt: skip
BAD = {**ROW, "number": 3, "short": "main@sha1:cd", "state": "refused", "errors": 2, "problems_text": "error[E021]: x",
       "text": "error[E021]: x"}  # fmt: skip


@pytest.fixture
def api(tmp_path: pathlib.Path) -> Iterator[tuple[dict[str, Any], str]]:
    """A status API that returns what the test puts into it, and settings that name it."""
    snapshot: dict[str, Any] = {
        "active": ROW, "newest": ROW, "history": [ROW], "problems": [], "suspended": False,
        "nodes": [{"name": "gw", "connected": True, "workers": [
            {"slot": 0, "pid": 9, "state": "active", "generation": 7, "digest": "d" * 64, "queries": 1234}]}],
        "counters": {"queries_udp": 10, "queries_tcp": 2, "blocked": 3},
    }  # fmt: skip

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(snapshot).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = tmp_path / "node.yaml"
    config.write_text(yaml.safe_dump({"status": {"listen": f"127.0.0.1:{server.server_port}"}}))
    yield snapshot, str(config)
    server.shutdown()


def test_status_text(api: tuple[dict[str, Any], str]) -> None:
    """Status shows revision, workers and counters, without colours when nobody watches; 0 when all is well."""
    _, config = api
    ran = run("status", "--config", config)
    assert ran.returncode == 0, ran.stderr
    assert "main@sha1:ab “Fix [printer]” by Anna [x]" in ran.stdout and "\x1b" not in ran.stdout
    assert "generation 7" in ran.stdout and "1,234" in ran.stdout and "12 queries: 3 blocked" in ran.stdout


def test_status_shows_trust_anchors(api: tuple[dict[str, Any], str]) -> None:
    """Each key by zone and tag with its state (RFC 5011) and since when; why the last look at them failed."""
    snapshot, config = api
    row = {"zone": ".", "tag": 20326, "algorithm": 8, "state": "valid", "since": 1790000000, "trusted_from": 0}
    new = {**row, "tag": 38696, "state": "addpend", "trusted_from": 1792592000, "failure": "no server answers"}
    snapshot["nodes"][0]["anchors"] = [row, new]
    shown = run("status", "--config", config).stdout
    assert ". key 20326: valid, since 2026-09-21\n" in shown
    assert ". key 38696: addpend, trusted from 2026-10-21 no server answers" in shown


def test_status_of_a_refusal(api: tuple[dict[str, Any], str]) -> None:
    """A refused newest revision is shown with its words, and so is a worker that is behind: exit code 1."""
    snapshot, config = api
    snapshot["newest"] = BAD
    ran = run("status", "--config", config)
    assert ran.returncode == 1 and "error[E021]: x" in ran.stdout and "refused" in ran.stdout
    snapshot["newest"] = ROW
    snapshot["nodes"][0]["workers"][0]["digest"] = "e" * 64
    assert run("status", "--config", config).returncode == 1
    assert json.loads(run("status", "--config", config, "--format", "json").stdout) == snapshot


def test_history_text(api: tuple[dict[str, Any], str]) -> None:
    """History shows what became of each revision, with the words of refusals when asked."""
    snapshot, config = api
    snapshot["history"] = [BAD, ROW]
    ran = run("history", "--config", config)
    lines = ran.stdout.splitlines()
    assert "refused (2 errors)" in lines[1] and "active (generation 7)" in lines[2]
    assert "error[E021]" not in ran.stdout
    assert "error[E021]: x" in run("history", "--text", "--config", config).stdout
    assert len(json.loads(run("history", "-n", "1", "--format", "json", "--config", config).stdout)) == 1


def test_history_events(api: tuple[dict[str, Any], str]) -> None:
    """History shows what became of addresses and leases as the page does; JSON has them by `--events`."""
    snapshot, config = api
    assert "no address" in run("history", "--events", "--config", config).stdout
    assert "EVENT" not in run("history", "--config", config).stdout
    kernel = {"time": "2026-01-01T00:00:00Z", "node": "gw", "source": "kernel", "reason": "replaced", "kind": "change",
              "interface": "eth0", "old": ["10.0.0.5/24"], "new": ["10.0.0.9/24"], "duration_ms": 3,
              "queries": 1200}  # fmt: skip
    lease = {"time": "2026-01-01T00:00:00Z", "node": "gw", "source": "dhclient", "reason": "BOUND", "kind": "up",
             "interface": "eth0", "old": [], "new": ["10.0.0.9/24"], "dns": ["10.0.0.1"]}  # fmt: skip
    snapshot["events"] = [kernel, lease, {"time": "", "source": "[x]"}]
    for words in ((), ("--events",)):
        text = run("history", *words, "--config", config, COLUMNS="").stdout
        assert re.search(r"10\.0\.0\.5/24 → 10\.0\.0\.9/24; 3 ms; 1.200 queries answered meanwhile", text)
        assert "BOUND on eth0" in text and "none → 10.0.0.9/24; DNS 10.0.0.1" in text and "[x]" in text
        assert ("Fix [printer]" in text) == (words == ())
    assert "replaced" not in run("history", "--revisions", "--config", config).stdout
    assert "BOUND" not in run("history", "-n", "1", "--config", config).stdout
    assert json.loads(run("history", "--format", "json", "--config", config).stdout) == [ROW]
    assert json.loads(run("history", "--events", "-n", "2", "--format", "json", "--config", config).stdout) == [
        kernel, lease,
    ]  # fmt: skip


def test_nothing_is_cut_off(api: tuple[dict[str, Any], str]) -> None:
    """Where nobody watches a row is one line, however long; on a narrow terminal every column is still there."""
    snapshot, config = api
    row = {**ROW, "subject": "a long subject " * 10 + "end", "author": "Anna Jansen"}
    snapshot["history"] = [row]
    snapshot["active"] = snapshot["newest"] = row
    for verb in ("history", "status"):
        text = run(verb, "--config", config, COLUMNS="").stdout
        assert any("a long subject" in line and "end" in line and row["short"] in line for line in text.splitlines())
    text = run("history", "--config", config, COLUMNS="80").stdout
    assert "BY" in text and "TOOK" in text and "Anna" in text and "end" in text and "…" not in text


def test_nobody_answers(tmp_path: pathlib.Path) -> None:
    """Without a controller every verb that asks one says so and how to start one, exit code 2."""
    config = tmp_path / "node.yaml"
    port = lan.free_port()
    config.write_text(
        f"status: {{listen: '127.0.0.1:{port}'}}\nbroker: {{listen: '127.0.0.1:{port}', connect: '127.0.0.1:{port}'}}\n"
    )
    for verb in ("status", "history", "sync"):
        ran = run(verb, "--config", str(config))
        assert ran.returncode == 2 and "nexoraldns run" in ran.stderr and "Traceback" not in ran.stderr


# --- the controller process -------------------------------------------------------------------------------------------


def test_controller_alone(tmp_path: pathlib.Path) -> None:
    """The controller serves without any node, refuses a second one in a sentence, and ends with 0 on SIGTERM."""
    with lan.office(tmp_path) as office:
        controller = office.start("controller")
        lan.until(lambda: office.status().get("active"), 15, "an active revision")
        assert office.get("/healthz")[0] == 200
        assert office.get("/readyz")[0] == 503  # nobody serves it
        second = office.verb("controller")
        assert second.returncode == 2 and "in use" in second.stderr and len(second.stderr.splitlines()) == 1
        answer = office.verb("sync")
        assert answer.returncode == 0 and answer.stdout.startswith("nothing new")
        assert controller.end(signal.SIGTERM, 5) == 0
        assert "Traceback" not in controller.text()


def test_controller_cannot_write_its_state(tmp_path: pathlib.Path) -> None:
    """A state folder that cannot be made is one sentence and exit code 2."""
    (tmp_path / "file").write_text("")
    with lan.office(tmp_path, {"state": str(tmp_path / "file" / "state")}) as office:
        ran = office.verb("controller")
        assert ran.returncode == 2 and "set `state`" in ran.stderr

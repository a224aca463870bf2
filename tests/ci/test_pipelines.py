"""What a rules repository puts in its pipeline does its job: the steps are taken out of the files and run.

Each test makes a git repository from the sample office, a branch with a good or a bad change on it, and runs the very
commands of the workflow as the runner would.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
GOOD = ("policy.yaml", "domains: [facebook.com,", "domains: [newnetwork.example, facebook.com,")
BAD = ("policy.yaml", "for: marketing", "for: marketting")
UNTESTED = ("network.yaml", "printer: 10.0.20.15", "printer: 10.0.20.16")


@dataclasses.dataclass(frozen=True)
class Repository:
    """A repository of rules: `base` is the commit of main, HEAD is on a branch."""

    folder: pathlib.Path
    environ: dict[str, str]
    base: str

    def git(self, *words: str) -> str:
        """Run git here; returns what it printed."""
        ran = subprocess.run(
            ["git", *words], cwd=self.folder, env=self.environ, capture_output=True, text=True, check=True
        )
        return ran.stdout.strip()

    def edit(self, change: tuple[str, str, str]) -> int:
        """Replace a text in a rule file; returns the line it is on."""
        path = self.folder / "rules.d" / change[0]
        text = path.read_text(encoding="utf-8")
        assert text.count(change[1]) == 1, change
        path.write_text(text.replace(change[1], change[2]), encoding="utf-8")
        return text[: text.index(change[1])].count("\n") + 1

    def commit(self, change: tuple[str, str, str]) -> int:
        """Edit and commit; returns the line."""
        line = self.edit(change)
        self.git("commit", "-qam", "a change")
        return line

    def shell(self, script: str, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a script as a runner's bash does."""
        return subprocess.run(
            ["bash", "--noprofile", "--norc", *options, "-c", script],
            cwd=self.folder,
            env=self.environ | environ,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )


@pytest.fixture
def repository(tmp_path: pathlib.Path) -> Repository:
    """The sample office in a repository of its own, on a branch; `nexoraldns` is on PATH and pip has no network."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "python").symlink_to(sys.executable)
    program = "import sys; from controller.cli import main; sys.exit(main())"
    (binaries / "nexoraldns").write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{program}" "$@"\n')
    (binaries / "nexoraldns").chmod(0o755)
    foreign = ("NEXORALDNS_", "GIT_", "GITHUB_")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    environ |= {
        "PATH": f"{binaries}:{environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PIP_NO_INDEX": "1",
        "HOME": str(tmp_path),
        "GIT_AUTHOR_NAME": "Anna",
        "GIT_AUTHOR_EMAIL": "anna@example.com",
        "GIT_COMMITTER_NAME": "Anna",
        "GIT_COMMITTER_EMAIL": "anna@example.com",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "NO_COLOR": "1",
    }
    folder = tmp_path / "rules"
    shutil.copytree(ROOT / "rules.d", folder / "rules.d")
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "the office"]):
        subprocess.run(["git", *words], cwd=folder, env=environ, check=True)
    made = Repository(folder, environ, "")
    made.git("checkout", "-q", "-b", "change")
    return dataclasses.replace(made, base=made.git("rev-parse", "HEAD"))


# --- GitHub -----------------------------------------------------------------------------------------------------------


def _github(repository: Repository, event: str = "pull_request") -> tuple[dict[str, int], str, str]:
    """Run the workflow's steps until one fails: exit code by step, everything printed, the job's summary."""
    workflow = yaml.safe_load((ROOT / "ci/github/rules.yml").read_text(encoding="utf-8"))
    summary = repository.folder.parent / "summary.md"
    summary.touch()
    environ = {"GITHUB_ACTIONS": "true", "CI": "true", "GITHUB_STEP_SUMMARY": str(summary), **workflow["env"]}
    codes: dict[str, int] = {}
    printed = ""
    for step in workflow["jobs"]["rules"]["steps"]:
        if "run" not in step:
            assert re.match(r"actions/(checkout|setup-python)@", step["uses"])
            continue
        if "if" in step:
            assert step["if"] == "github.event_name == 'pull_request'"
            if event != "pull_request":
                continue
        own = {
            key: value.replace("${{ github.event.pull_request.base.sha }}", repository.base)
            for key, value in step.get("env", {}).items()
        }
        assert "${{" not in json.dumps(own) + step["run"], "an expression that this test does not fill in"
        if step["name"] == "install":
            assert step["run"] == 'python -m pip install --quiet "$NEXORALDNS"'
            continue  # the wheel is proved in test_packaging.py; here the tree's own program is on PATH
        options = ["-eo", "pipefail"] if step.get("shell") == "bash" else ["-e"]
        ran = repository.shell(step["run"], *options, **environ, **own)
        codes[step["name"]] = ran.returncode
        printed += ran.stdout + ran.stderr
        if ran.returncode:
            break
    return codes, printed, summary.read_text(encoding="utf-8")


def test_github_good_change(repository: Repository) -> None:
    """A good change passes check and test, and its plan is in the job's summary."""
    repository.commit(GOOD)
    codes, printed, summary = _github(repository)
    assert codes == {"check": 0, "test": 0, "plan": 0}, printed
    assert "::error" not in printed
    assert "newnetwork.example" in summary


def test_github_bad_change(repository: Repository) -> None:
    """A misspelt group is an annotation at its very line, with what was meant, and stops the job."""
    line = repository.commit(BAD)
    codes, printed, summary = _github(repository)
    assert codes == {"check": 1}
    annotations = [text for text in printed.splitlines() if text.startswith("::error ")]
    assert len(annotations) == 1, printed
    assert re.match(rf"::error [^:]*file=rules\.d/policy\.yaml,line={line}\b", annotations[0]), annotations
    assert "marketting" in annotations[0]
    assert summary == ""


def test_github_change_that_breaks_a_promise(repository: Repository) -> None:
    """A change that is valid but does what a rule test forbids fails in the step `test`."""
    repository.commit(UNTESTED)
    codes, printed, _ = _github(repository)
    assert codes == {"check": 0, "test": 1}, printed
    assert "the printer" in printed


def test_github_push_to_main_has_no_plan(repository: Repository) -> None:
    """Outside a pull request there is nothing to compare with, and the step is left out."""
    codes, printed, _ = _github(repository, event="push")
    assert codes == {"check": 0, "test": 0}, printed


# --- GitLab -----------------------------------------------------------------------------------------------------------


def _gitlab(repository: Repository, base: str) -> tuple[int, str]:
    """Run the job's script lines in one shell, as the runner does: the exit code and what was printed."""
    job = yaml.safe_load((ROOT / "ci/gitlab/rules.gitlab-ci.yml").read_text(encoding="utf-8"))["rules"]
    assert job["before_script"] == ['python -m pip install --quiet "$NEXORALDNS"']
    environ = {"GITLAB_CI": "true", "CI": "true", **job["variables"]}
    if base:
        environ["CI_MERGE_REQUEST_DIFF_BASE_SHA"] = base
    ran = repository.shell("\n".join(job["script"]), "-eo", "pipefail", **environ)
    return ran.returncode, ran.stdout + ran.stderr


def _artefacts() -> dict[str, str]:
    job = yaml.safe_load((ROOT / "ci/gitlab/rules.gitlab-ci.yml").read_text(encoding="utf-8"))["rules"]
    return {**job["artifacts"]["reports"], "plan": job["artifacts"]["paths"][0]}


def test_gitlab_good_change(repository: Repository) -> None:
    """A good change passes, and leaves the plan and a green test report as artefacts."""
    repository.commit(GOOD)
    code, printed = _gitlab(repository, repository.base)
    assert code == 0, printed
    files = _artefacts()
    assert "newnetwork.example" in (repository.folder / files["plan"]).read_text(encoding="utf-8")
    report = ElementTree.parse(repository.folder / files["junit"]).getroot()
    assert len(list(report.iter("testcase"))) > 10
    assert not list(report.iter("failure"))
    quality = json.loads((repository.folder / files["codequality"]).read_text(encoding="utf-8"))
    assert not [item for item in quality if item["severity"] in ("blocker", "critical", "major")]


def test_gitlab_bad_change(repository: Repository) -> None:
    """A misspelt group is in the code-quality report at its line, and in the log in the words of `check`."""
    line = repository.commit(BAD)
    code, printed = _gitlab(repository, repository.base)
    assert code == 1
    quality = json.loads((repository.folder / _artefacts()["codequality"]).read_text(encoding="utf-8"))
    places = [(item["location"]["path"], item["location"]["lines"]["begin"]) for item in quality]
    assert ("rules.d/policy.yaml", line) in places
    assert "marketting" in printed
    assert not (repository.folder / _artefacts()["plan"]).exists()


def test_gitlab_change_that_breaks_a_promise(repository: Repository) -> None:
    """A failing rule test fails the job and is in the JUnit report."""
    repository.commit(UNTESTED)
    code, printed = _gitlab(repository, "")
    assert code == 1
    report = ElementTree.parse(repository.folder / _artefacts()["junit"]).getroot()
    assert list(report.iter("failure")), printed


# --- before a commit --------------------------------------------------------------------------------------------------


def _install_hook(repository: Repository) -> None:
    shutil.copy(ROOT / "ci/pre-commit/nexoraldns", repository.folder / ".git/hooks/pre-commit")


def test_hook_lets_a_good_commit_through(repository: Repository) -> None:
    """A commit whose rules are valid and do what their tests say is made."""
    _install_hook(repository)
    repository.commit(GOOD)
    assert repository.git("rev-parse", "HEAD") != repository.base


def test_hook_refuses_a_bad_commit(repository: Repository) -> None:
    """A bad commit is refused with the place, and the index is as it was."""
    _install_hook(repository)
    line = repository.edit(BAD)
    ran = repository.shell("git commit -qam bad")
    assert ran.returncode == 1
    assert f"rules.d/policy.yaml:{line}" in ran.stdout + ran.stderr
    assert repository.git("rev-parse", "HEAD") == repository.base


def test_hook_reads_what_is_committed(repository: Repository) -> None:
    """The staged text counts: a mistake only in the work tree does not stop a commit, one only in the index does."""
    _install_hook(repository)
    repository.edit(GOOD)
    repository.git("add", "rules.d")
    repository.edit(BAD)
    assert repository.shell("git commit -qm good").returncode == 0
    repository.git("add", "rules.d")
    repository.git("show", "HEAD:rules.d/policy.yaml")
    good = repository.git("show", "HEAD:rules.d/policy.yaml")
    (repository.folder / "rules.d/policy.yaml").write_text(good + "\n", encoding="utf-8")
    assert repository.shell("git commit -qm bad").returncode == 1


def test_hook_leaves_other_commits_alone(repository: Repository) -> None:
    """A commit that touches no rule is not held up, even where the program is missing."""
    _install_hook(repository)
    (repository.folder / "notes.txt").write_text("nothing about rules\n", encoding="utf-8")
    repository.git("add", "notes.txt")
    ran = repository.shell("git commit -qm notes", PATH="/usr/bin:/bin")
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(("change", "codes"), [(GOOD, [0, 0]), (BAD, [1, 1]), (UNTESTED, [0, 1])])
def test_entries_for_the_pre_commit_program(
    repository: Repository, change: tuple[str, str, str], codes: list[int]
) -> None:
    """The two hooks of .pre-commit-hooks.yaml are run as written: entry and args, no file names."""
    repository.edit(change)
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    seen = []
    for hook in hooks:
        assert hook["pass_filenames"] is False
        assert re.search(hook["files"], f"rules.d/{change[0]}")
        seen.append(repository.shell(" ".join([hook["entry"], *hook["args"]])).returncode)
    assert seen == codes

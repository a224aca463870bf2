"""What happens to repositories: rewritten, emptied, branches deleted; links that lead out of them."""

from __future__ import annotations

import pathlib
import subprocess

from tests import lan


def _version(office: lan.Lan, word: str) -> None:
    office.write("office.yaml", lan.RULES.replace("value: one", f"value: {word}"))


def test_a_rewritten_history(tmp_path: pathlib.Path) -> None:
    """A forced push of another history is served; a branch that is gone is said, and what is served stays."""
    with lan.office(tmp_path, git=True) as office:
        run = office.start("run")
        office.answers()
        _version(office, "second")
        sha = office.push("Second")
        lan.until(lambda: office.status()["active"]["sha"] == sha, 10, "the second commit")
        office.git("checkout", "-q", "--orphan", "other")
        _version(office, "rewritten")
        office.git("add", "-A")
        office.git("commit", "-q", "-m", "Another history")
        office.git("push", "-q", "-f", "origin", "other:main")
        sha = office.git("rev-parse", "HEAD")
        office.verb("sync")
        lan.until(lambda: office.status()["active"]["sha"] == sha, 10, "the rewritten commit")
        assert office.dig("version.office.example", "TXT").data == ['"rewritten"']
        subprocess.run(["git", "-C", str(office.git_url), "branch", "-m", "main", "away"], check=True)
        sync = office.verb("sync")
        assert sync.returncode == 1 and "has no branch or tag 'main'" in sync.stderr
        lan.until(lambda: any("main" in p["message"] for p in office.status()["problems"]), 5, "a word of it")
        assert office.dig("version.office.example", "TXT").data == ['"rewritten"']
        subprocess.run(["git", "-C", str(office.git_url), "branch", "-m", "away", "main"], check=True)
        office.verb("sync")
        lan.until(lambda: office.status()["problems"] == [], 5, "no problem any more")
        assert run.popen.poll() is None and "Traceback" not in run.text()


def test_an_empty_repository(tmp_path: pathlib.Path) -> None:
    """A repository without a commit is waited for, in words; a commit without the rules' folder changes nothing."""
    with lan.office(tmp_path, git=True) as office:
        full = office.git_url.with_suffix(".full")
        office.git_url.rename(full)
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(office.git_url)], check=True)
        run = office.start("run")
        lan.until(lambda: office.status().get("problems"), 15, "a word of it")
        print(office.status()["problems"])
        office.push("The first")
        office.verb("sync")
        office.answers()
        assert office.dig("printer.office.example").data == ["10.0.20.15"]
        office.git("rm", "-q", "-r", "rules.d")
        (office.folder / "work" / "README").write_text("x")
        office.push("No rules any more")
        office.verb("sync")
        lan.until(lambda: office.status()["problems"] or office.status()["newest"]["state"] == "refused", 10, "a word")
        print(office.status()["problems"], office.status()["newest"])
        assert office.dig("printer.office.example").data == ["10.0.20.15"]
        assert run.popen.poll() is None and "Traceback" not in run.text()


def test_links_that_lead_out(tmp_path: pathlib.Path) -> None:
    """A list or a rule file that is a link out of the repository is refused at its place; nothing of it is read."""
    secret = tmp_path / "secret.txt"
    secret.write_text("secret.example\n")
    with lan.office(tmp_path, git=True) as office:
        office.start("run")
        office.answers()
        for name, rules in (
            ("out.txt", "version: 1\nlists: {out: {file: out.txt}}\nrules: [{name: out, block: [list:out]}]\n"),
            ("out2.yaml", "version: 1\n"),
        ):
            (office.rules / name).symlink_to(secret)
            office.write("more.yaml", rules)
            sha = office.push("A link")
            office.verb("sync")
            newest = lan.until(lambda sha=sha: (n := office.status()["newest"])["sha"] == sha  # type: ignore[misc]
                               and n["state"] in ("refused", "active") and n, 10, "a verdict")  # fmt: skip
            print(newest["state"], newest["problems_text"])
            assert newest["state"] == "refused" and "secret.example" not in newest["problems_text"]
            (office.rules / name).unlink()
        assert "Blocked" not in office.dig("secret.example").ede
        office.write("more.yaml", "version: 1\n")
        for path, words in (("../../etc/passwd", "passwd"), ("/etc/passwd", "passwd")):
            office.write("more.yaml", f"version: 1\nlists: {{out: {{file: {path}}}}}\n")
            sha = office.push("Out")
            office.verb("sync")
            newest = lan.until(lambda sha=sha: (n := office.status()["newest"])["sha"] == sha  # type: ignore[misc]
                               and n["state"] in ("refused", "active") and n, 10, "a verdict")  # fmt: skip
            assert (
                newest["state"] == "refused"
                and words in newest["problems_text"]
                and "more.yaml:2" in (newest["problems_text"])
            )

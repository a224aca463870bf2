"""Rules in a git repository: pushed commits become answers, bad ones are refused, the newest wins."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from tests import lan


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lan.Lan]:
    """`run` over a bare repository."""
    with lan.office(tmp_path_factory.mktemp("git"), git=True) as one:
        one.start("run")
        one.answers()
        yield one


def _version(office: lan.Lan, word: str) -> None:
    office.write("office.yaml", lan.RULES.replace("value: one", f"value: {word}"))


def test_a_pushed_commit(office: lan.Lan) -> None:
    """A push is answered by every worker, and the page shows sha, author and subject."""
    _version(office, "pushed")
    sha = office.push("Say pushed")
    lan.until(lambda: office.dig("version.office.example", "TXT").data == ['"pushed"'], 5)
    office.answers()
    assert office.everywhere("version.office.example", "TXT") == {'"pushed"'}
    active = office.status()["active"]
    assert active["revision"] == f"main@sha1:{sha}"
    assert (active["author"], active["email"], active["subject"]) == ("Anna Jansen", "anna@example.com", "Say pushed")
    page = office.get("/")[1].decode()
    assert sha[:12] in page and "Anna Jansen" in page and "Say pushed" in page


def test_a_bad_commit(office: lan.Lan) -> None:
    """A bad commit keeps the old answers and says why; the commit that mends it goes live."""
    before = office.dig("version.office.example", "TXT").data
    office.write("bad.yaml", "version: 1\nrulez: []\n")
    sha = office.push("A mistake")
    newest = lan.until(lambda: (n := office.status()["newest"])["sha"] == sha and n["state"] == "refused" and n, 5)
    assert "rules.d/bad.yaml:2:1" in newest["problems_text"] and "did you mean 'rules'" in newest["problems_text"]
    assert office.dig("version.office.example", "TXT").data == before
    (office.rules / "bad.yaml").unlink()
    sha = office.push("Mended")
    lan.until(lambda: office.status()["active"]["sha"] == sha, 5)


def test_two_commits_in_a_row(office: lan.Lan) -> None:
    """Of two commits pushed in a row, the newer one is what is served."""
    _version(office, "older")
    office.push("Older")
    _version(office, "newer")
    sha = office.push("Newer")
    lan.until(lambda: office.status()["active"]["sha"] == sha, 10)
    office.answers()
    assert office.everywhere("version.office.example", "TXT") == {'"newer"'}


def test_sync_and_a_commit_of_other_files(office: lan.Lan) -> None:
    """A commit that changes nothing of ours moves the revision, and the table stays what it is; sync says so."""
    before = office.status()["active"]
    (office.folder / "work" / "README").write_text("x")
    sha = office.push("Only a README")
    assert office.verb("sync").returncode == 0
    active = lan.until(lambda: (a := office.status()["active"])["sha"] == sha and a, 5)
    assert active["digest"] == before["digest"]


def test_the_repository_goes_away_and_comes_back(tmp_path: pathlib.Path) -> None:
    """A repository that is not there at the start is waited for, and said."""
    with lan.office(tmp_path, git=True) as one:
        away = one.git_url.with_suffix(".away")
        one.git_url.rename(away)
        one.start("run")
        lan.until(lambda: any("no git repository" in p["message"] for p in one.status().get("problems", ())), 10)
        away.rename(one.git_url)
        one.answers()
        assert one.dig("printer.office.example").data == ["10.0.20.15"]
        assert one.status()["problems"] == []

"""The page's trace: what it takes, what it refuses, how often, and that the picture keeps the page's promises."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import pathlib
import re
import sys
from typing import Any

import pytest
from starlette.testclient import TestClient

from controller.status.app import create
from controller.status.way import A_MINUTE, Way, WayError
from dnsd.contract import settings

PICTURE = '<svg xmlns="http://www.w3.org/2000/svg" class="nx"><style>.nx{fill:red}</style><text>way</text></svg>'


class State:
    """Nothing is known."""

    def snapshot(self) -> dict[str, Any]:
        return {}


def browser(answers: Any = None, **status: Any) -> tuple[TestClient, list[tuple[str, str]]]:
    """A browser on a page whose traces are this picture; and what was asked."""
    asked: list[tuple[str, str]] = []

    async def picture(name: str, qtype: str) -> str:
        asked.append((name, qtype))
        return PICTURE

    node = settings.load({"status": status} if status else None, "/", {})
    use = None if status.get("trace") is False else answers or picture
    return TestClient(create(State(), node_settings=node, trace=use), base_url="http://127.0.0.1:8053"), asked


def test_a_trace_is_shown_and_its_style_is_allowed_by_hash() -> None:
    """The picture stands in the page; the policy allows exactly its style, and nothing unsafe."""
    page, asked = browser()
    response = page.get("/trace", params={"name": "www.example.com", "type": "aaaa"})
    digest = base64.b64encode(hashlib.sha256(b".nx{fill:red}").digest()).decode()

    assert response.status_code == 200 and PICTURE in response.text and asked == [("www.example.com", "aaaa")]
    policy = response.headers["content-security-policy"]
    assert f"style-src 'self' 'sha256-{digest}'" in policy and "unsafe" not in policy
    assert re.search(r'href="/trace\.svg\?name=www\.example\.com&amp;type=aaaa" download', response.text)


def test_the_picture_alone_is_an_image() -> None:
    """/trace.svg is the same as a document of its own."""
    page, asked = browser()
    response = page.get("/trace.svg?name=www.example.com")
    assert response.headers["content-type"].startswith("image/svg+xml") and response.text == PICTURE
    assert asked == [("www.example.com", "A")]
    assert page.get("/trace.svg").text.startswith("which name?")


@pytest.mark.parametrize("headers", [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
                                     {"sec-purpose": "prefetch"}])  # fmt: skip
def test_another_sites_page_cannot_make_us_ask(headers: dict[str, str]) -> None:
    """A request that a browser marks as another site's, or as a guess ahead, sends no question."""
    page, asked = browser()
    assert page.get("/trace?name=secret.example.com", headers=headers).status_code == 403
    assert page.get("/trace.svg?name=secret.example.com", headers=headers).status_code == 403
    assert asked == []
    assert page.get("/trace?name=www.example.com", headers={"sec-fetch-site": "same-origin"}).status_code == 200


def test_looking_alone_asks_nothing() -> None:
    """The empty form, and HEAD."""
    page, asked = browser()
    assert page.get("/trace").status_code == 200
    assert page.head("/trace?name=www.example.com").status_code == 200
    assert asked == []


def test_it_can_be_switched_off() -> None:
    """`status.trace: false`: no form, no links, and 403 with the reason."""
    page, _ = browser(trace=False)
    response = page.get("/trace?name=www.example.com")
    assert (
        response.status_code == 403
        and "status.trace" in response.text
        and '<form class="questions' not in response.text
    )
    assert 'href="/trace' not in page.get("/").text


def test_a_fault_is_a_sentence() -> None:
    """What cannot be traced is said on the page, escaped."""

    async def refuses(name: str, qtype: str) -> str:
        raise WayError(f"{name} <is> nothing", 400)

    page, _ = browser(refuses)
    response = page.get("/trace?name=%3Cb%3E")
    assert response.status_code == 400 and "&lt;b&gt; &lt;is&gt; nothing" in response.text


def program(tmp_path: pathlib.Path, text: str) -> tuple[str, ...]:
    """A stand-in for `python -m dnsd`."""
    path = tmp_path / "program.py"
    path.write_text(text)
    return (sys.executable, str(path))


def test_the_number_of_traces_is_bounded(tmp_path: pathlib.Path) -> None:
    """One at a time, so many a minute; the same question again costs nothing."""
    words = program(tmp_path, f"import sys\nsys.stdin.read()\nprint({PICTURE!r})\n")

    async def run() -> None:
        way = Way(settings.load(None, "/", {}), words)
        first, second = await asyncio.gather(way("a.example", "A"), way("b.example", "A"), return_exceptions=True)
        assert isinstance(first, str) and isinstance(second, WayError) and second.status == 429
        for number in range(A_MINUTE - 1):
            assert (await way(f"{number}.example", "A")).startswith("<svg")
        assert await way("A.example.", "a") == first
        with pytest.raises(WayError, match="within a minute"):
            await way("one.more.example", "A")

    asyncio.run(run())


def test_what_the_program_refuses_is_told(tmp_path: pathlib.Path) -> None:
    """Exit code 2 and its sentence; anything else that is no picture is an error too."""
    words = program(
        tmp_path, "import sys\nsys.stdin.read()\nprint('trace: no such type', file=sys.stderr)\nsys.exit(2)\n"
    )

    async def run() -> None:
        with pytest.raises(WayError, match="no such type") as caught:
            await Way(settings.load(None, "/", {}), words)("a.example", "X")
        assert caught.value.status == 400

    asyncio.run(run())


def test_names_are_never_options() -> None:
    """A name that begins with a dash is a name (and no file is written)."""

    async def run() -> None:
        with pytest.raises(WayError, match=r"label|name"):
            await Way(settings.load(None, "/", {}))("--output=/tmp/x..y", "A")

    asyncio.run(run())

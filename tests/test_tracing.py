"""A resolution shown: text, JSON and picture of a signed world, a broken one, and a hostile one."""

from __future__ import annotations

import re
import xml.etree.ElementTree

from dnsd import tracing, tracing_svg
from dnsd.contract import codes, names
from dnsd.resolve import anchors
from dnsd.resolve.forwarder import Outcome
from dnsd.resolve.steps import ASK, LOOKUP, Step
from dnsd.resolve.validator import Validator
from tests.resolve.signed import Play, Server, World, Zone

SVG = "{http://www.w3.org/2000/svg}"
ROOT, LEAF = "192.0.2.101", "192.0.2.102"


def resolution(text: str, forged: bool = False, qtype: str = "A") -> tracing.Resolution:
    """Resolve in a world of two signed zones and one that is not."""
    leaf = Zone("good.lab", f"www.good.lab A 192.0.2.1\nns.good.lab A {LEAF}\ngood.lab NS ns.good.lab\n")
    plain = Zone("plain.lab", f"www.plain.lab A 192.0.2.1\nns.plain.lab A {LEAF}\nplain.lab NS ns.plain.lab\n",
                 signed=False)  # fmt: skip
    if forged:
        key = next(key for key in leaf.sigs if str(key[0]) == "www.good.lab.")
        leaf.sigs.pop(key)
    lines = [f"{zone} NS ns.{zone}\nns.{zone} A {LEAF}" for zone in ("good.lab", "plain.lab")]
    root = Zone(".", "\n".join([". NS ns", f"ns A {ROOT}", *lines, leaf.ds()]))
    play = Play(World({ROOT: Server(root), LEAF: Server(leaf, plain)}), Validator(anchors.from_texts([root.ds()])))
    outcome = play.ask(text, qtype, do=False)
    return tracing.Resolution(names.from_text(text), codes.qtype_number(qtype), outcome, 12, tuple(play.steps))


def drawn(found: tracing.Resolution) -> str:
    return "\n".join(tracing.text(found, colour=False))


def test_the_tree_says_what_validation_found_of_each_zone() -> None:
    """Zones are secure by the anchor or by their DS, with the key's tag; keys are named, not dumped."""
    text = drawn(resolution("www.good.lab"))

    assert re.search(r"\. the root  ✓ secure by the trust anchor: key \d+", text)
    assert re.search(r"good\.lab  ✓ secure by its DS: key \d+", text)
    assert re.search(r"DNSKEY key \d+ ECDSAP256SHA256 KSK \(SEP\), flags 257", text)
    assert re.search(r"DS key \d+ ECDSAP256SHA256 SHA-256 [0-9A-F]{16}…", text)
    assert "signed by good.lab with key" in text and "NOERROR secure" in text
    assert "chain of trust" in text


def test_an_unsigned_zone_is_called_insecure() -> None:
    """The parent proves that there is no DS, and the zone says so."""
    text = drawn(resolution("www.plain.lab"))

    assert "no DS: the zone below is not signed, and the parent proves it" in text
    assert "plain.lab  · insecure" in text and "NOERROR insecure" in text


def test_the_picture_is_one_document_that_stands_alone() -> None:
    """Well-formed, title and description, light and dark, words as text, and nothing from elsewhere."""
    picture = tracing_svg.svg(resolution("www.good.lab"))
    root = xml.etree.ElementTree.fromstring(picture)
    title, desc = root.find(f"{SVG}title"), root.find(f"{SVG}desc")

    assert root.tag == f"{SVG}svg" and title is not None and desc is not None
    assert title.text == "www.good.lab A"
    assert desc.text is not None and "DNSSEC secure" in desc.text and "good.lab" in desc.text
    assert root.get("aria-labelledby") == f"{title.get('id')} {desc.get('id')}"
    assert "prefers-color-scheme:dark" in picture
    assert "www.good.lab 3600 A 192.0.2.1" in "".join(root.itertext())
    assert not re.search(r"<script|href|url\(|@import|\son[a-z]+=", picture)
    assert picture.count("http") == 1  # the namespace


def test_a_failure_is_drawn_with_its_reason() -> None:
    """SERVFAIL, bogus, and the sentence that says why, in text, picture and JSON."""
    found = resolution("www.good.lab", forged=True)

    for shown in (drawn(found), "".join(xml.etree.ElementTree.fromstring(tracing_svg.svg(found)).itertext())):
        assert "SERVFAIL" in shown and "bogus" in shown and "is not signed by good.lab" in shown
        assert "✗ this does not stand validation" in shown
    assert tracing.values(found)["validation"] == "bogus"


def test_what_a_server_says_cannot_become_markup() -> None:
    """Names and texts with tags, quotes, control characters and endless length stay text of a well-formed picture."""
    evil = names.from_text("</text><script>alert(1)</script>.example")
    text = "</text><script>&\"'\x00\x1b[31m\ud800" + "x" * 5000
    steps = (
        Step(LOOKUP, 0, evil, 1),
        Step(ASK, 0, evil, 1, zone=names.ROOT, server=("192.0.2.1", 53), server_name=evil, said="lame", text=text),
    )
    picture = tracing_svg.svg(tracing.Resolution(evil, 1, Outcome(None, 22, text), 1, steps))
    root = xml.etree.ElementTree.fromstring(picture.encode())

    assert not root.findall(f".//{SVG}script")
    assert float(root.get("width", "0")) < 2000


def test_a_wait_for_nothing_is_drawn_as_long_as_it_was() -> None:
    """A server that is silent costs time: the picture and the JSON say how much."""
    name = names.from_text("www.silent.example")
    ask = Step(
        ASK, 0, name, 1, zone=names.ROOT, server=("192.0.2.1", 53), server_name=name, said="timeout", took_ms=400
    )
    found = tracing.Resolution(name, 1, Outcome(None, 22, "nobody answers"), 400, (Step(LOOKUP, 0, name, 1), ask))

    assert "gave up, 400 ms" in tracing_svg.svg(found)
    assert "… 400 ms" in drawn(found)
    steps = tracing.values(found)["steps"]
    assert isinstance(steps, list) and steps[1]["took_ms"] == 400 and steps[1]["rtt_ms"] is None


def test_the_resolver_measures_its_waits() -> None:
    """Each question's step has the time that it took."""
    asks = resolution("www.good.lab").asks
    assert asks and all(step.took_ms == 5 for step in asks)

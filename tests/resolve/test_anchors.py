"""Trust anchors from texts, files and the built-in ones; negative ones and their ends."""

from __future__ import annotations

import pathlib

import pytest

from dnsd.contract import names
from dnsd.contract.settings import load
from dnsd.resolve import anchors
from dnsd.serve import recursion

DS = ". IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D"
KEY = (
    "example. 3600 IN DNSKEY 257 3 13 ( mdsswUyr3DPW132mOi8V9xESWE8jTo0dxCjjnopKl+Gq ; comment\n"
    "  JxpVXckHAeF+KkxLbxILfDLUT0rAK9iUzy1L53eKGQ== )"
)
EXAMPLE = names.from_text("example")


def test_the_root_is_built_in() -> None:
    """KSK-2017 and KSK-2024."""
    found = anchors.builtin().nearest(names.from_text("www.example"), 0)
    assert found is not None and found.zone == names.ROOT
    assert [int.from_bytes(ds[:2], "big") for ds in found.ds] == [20326, 38696]


def test_records_in_presentation_form() -> None:
    """DS and DNSKEY, with and without TTL and class, over several lines; the nearest zone counts."""
    made = anchors.from_texts([DS, ". DS 38696 8 2 " + "AB" * 32, KEY])
    assert len(made.positive[names.ROOT].ds) == 2 and len(made.positive[EXAMPLE].keys) == 1
    found = made.nearest(names.from_text("a.b.example"), 0)
    assert found is not None and found.zone == EXAMPLE
    assert not anchors.from_texts([]) and anchors.from_texts([]).nearest(EXAMPLE, 0) is None


@pytest.mark.parametrize("text", ["nonsense", ". IN A 192.0.2.1", ". IN DS 1 8", ". CH DS 20326 8 2 AB", "example DS"])
def test_what_is_no_anchor_is_refused(text: str) -> None:
    """With a sentence that shows how to write one."""
    with pytest.raises(anchors.AnchorError, match="write DS or DNSKEY"):
        anchors.from_texts([text])


def test_retired_algorithms_need_an_anchor() -> None:
    """RSAMD5 and DSA are looked at where an anchor names them, and never otherwise."""
    assert not anchors.builtin().algorithms & {1, 3, 6}
    assert 3 in anchors.from_texts(["example. DS 2854 3 1 46e4ffc6e9a4793b488954bd3f0cc6af0dfb201b"]).algorithms


def test_negative_anchors_end() -> None:
    """A date, a time or no end; a positive anchor below wins, one at the same name does not."""
    made = anchors.from_texts([DS, KEY], ["test", "old.test until 2026-01-01", "example until 2026-01-01T12:00:00Z"])
    for text, now, negative in (
        ("www.test", 0, True), ("a.example", 1767268799, True), ("a.example", 1767268800, False), ("org", 0, False),
    ):  # fmt: skip
        found = made.nearest(names.from_text(text), now)
        assert found is not None and found.negative is negative, (text, now)
    deeper = anchors.from_texts([DS, KEY.replace("example.", "signed.test.")], ["test"])
    found = deeper.nearest(names.from_text("www.signed.test"), 0)
    assert found is not None and not found.negative
    for wrong in ("a..b", "test 2026-01-01", "test until tomorrow", ""):
        with pytest.raises(anchors.AnchorError, match="negative trust anchor"):
            anchors.from_texts([DS], [wrong])


def test_settings_become_anchors(tmp_path: pathlib.Path) -> None:
    """builtin, a file (read before anybody forks), a list; [] and `dnssec: false` turn validation off."""
    assert recursion.resolver(load(None, "/", {}), 1).validator is not None
    for off in ({"trust_anchors": []}, {"dnssec": False}):
        assert recursion.resolver(load({"resolver": off}, "/", {}), 1).validator is None
    made = recursion.resolver(load({"resolver": {"trust_anchors": [DS], "signature_skew": "5m"}}, "/", {}), 1)
    assert made.validator is not None and made.validator.skew_s == 300
    settings = load({"resolver": {"trust_anchors": "root.key"}}, str(tmp_path), {})
    (tmp_path / "root.key").write_text(f"; the root\n{DS}\n{KEY}\n")
    read = recursion.with_anchors(settings)
    assert recursion.trust_anchors(read).positive.keys() == {names.ROOT, EXAMPLE}
    for text in (None, "", "nonsense\n"):
        (tmp_path / "root.key").unlink()
        if text is not None:
            (tmp_path / "root.key").write_text(text)
        with pytest.raises(anchors.AnchorError, match=r"root\.key"):
            recursion.with_anchors(settings)
        (tmp_path / "root.key").touch()

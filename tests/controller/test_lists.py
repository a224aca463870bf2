"""Facts about reading lists."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import lists
from controller.ruleset import ListText, NameList, Where
from dnsd.contract import names
from tests.controller import list_oracle


def read(text: str | bytes, format: str = "auto") -> list[str]:
    """The names of a text."""
    data = text.encode() if isinstance(text, str) else text
    return [names.to_text(name) for name in sorted(lists.parse([(format, data, "l.txt")])[0])]


def lint(text: str, format: str = "auto") -> list[tuple[int, str]]:
    """(line, message) of what was left out."""
    return [(d.where.line, d.message) for d in lists.parse([(format, text.encode(), "l.txt")])[1]]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_hosts(end: str) -> None:
    """Hosts format: null addresses, several names a line, comments, and the usual local names left out."""
    lines = [
        "# a list", "", "127.0.0.1 localhost", "::1 ip6-localhost ip6-loopback",
        "fe80::1%lo0 localhost", "0.0.0.0 0.0.0.0",
        "0.0.0.0 ADS.example", "127.0.0.1\tb.example  # why", "0 c.example d.example",
        ":: e.example.", "0.0.0.0 f_g.example",
    ]  # fmt: skip
    assert read(end.join(lines)) == sorted(
        read("ads.example\nb.example\nc.example\nd.example\ne.example\nf_g.example\n"), key=names.from_text
    )
    assert lint(end.join(lines)) == []


def test_domains() -> None:
    """Domain format: a name a line."""
    assert set(read("# x\nA.example\n  b.example # y\nc.example.\n\nb\u00fccher.example\n")) == {
        "a.example", "b.example", "c.example", "xn--bcher-kva.example"}  # fmt: skip


def test_both_formats_in_one_file() -> None:
    """`auto` takes each line for what it is."""
    assert set(read("a.example\n0.0.0.0 b.example\n")) == {"a.example", "b.example"}


def test_names_are_distinct() -> None:
    """Every name is there once, over all texts of a list."""
    got, _ = lists.parse([("auto", b"b.example\na.example\n", "x"), ("domains", b"aa.example\nA.EXAMPLE\n", "y")])
    assert len(got) == 3
    assert sorted(got) == sorted({names.from_text(n) for n in ("b.example", "a.example", "aa.example")})


def test_bad_lines_are_lint() -> None:
    """What is no name is left out with its line; the good lines around it stay."""
    text = "ok.example\n||ads.example^\nhttp://x.example/\na..b\n1.2.3.4\n" + "y" * 64 + ".example\nfine.example\n"
    assert set(read(text)) == {"ok.example", "fine.example"}
    assert [line for line, _ in lint(text)] == [2, 3, 4, 6]


def test_lint_is_bounded() -> None:
    """A list of nonsense gives 20 findings and a count."""
    found = lint("ok.example\n" + "not a name\n" * 100)
    assert len(found) == 21 and "80 more lines" in found[-1][1]


def test_long_names_are_left_out() -> None:
    """More than 255 octets is no name (RFC 1035, section 2.3.4)."""
    long = ".".join(["a" * 60] * 5)
    assert read(f"{long}\nok.example\n") == ["ok.example"]


def test_places_in_large_files() -> None:
    """A bad line far behind is reported with its own number."""
    text = (
        "".join(f"n{i}.example\n" for i in range(60_000)) + "bad line\n" + "".join(f"m{i}.example\n" for i in range(10))
    )
    assert [line for line, _ in lint(text, "domains")] == [60_001]
    assert len(read(text, "domains")) == 60_010


_LABEL = st.text("abcxyz019_-", min_size=1, max_size=20).filter(lambda label: not label.isdigit())


@given(st.lists(st.lists(_LABEL, min_size=1, max_size=5).map(".".join), max_size=30))
def test_all_at_once_equals_one_by_one(written: list[str]) -> None:
    """The quick path makes the very wire that `names.from_text` makes."""
    usual = {name.decode() for name in lists._USUAL}
    expected = sorted({names.from_text(name) for name in written if name not in usual})
    assert sorted(lists.parse([("domains", "\n".join(written).encode(), "x")])[0]) == expected
    hosts = "".join(f"0.0.0.0 {name}\n" for name in written)
    assert sorted(lists.parse([("hosts", hosts.encode(), "x")])[0]) == expected


@given(st.binary(max_size=300), st.sampled_from(["auto", "hosts", "domains"]))
def test_any_octets_are_read(data: bytes, format: str) -> None:
    """No list makes the reader fail, and all that comes out is a name."""
    got, _ = lists.parse([(format, data, "x")])
    assert len(set(got)) == len(got)
    assert all(names.from_text(names.to_text(name)) == name for name in got)


def test_parsed_once() -> None:
    """The same content is not parsed again."""
    text = ListText("l.txt", "auto", b"a.example\n", Where("a.yaml", 1, 1))
    listed = NameList("l", Where("a.yaml", 1, 1), (text,))
    assert lists.names(listed) is lists.names(listed)


_WORD = st.sampled_from([
    "a.example", "B.Example", "x", "1.2.3.4", "a.1", "localhost", "a..b", ".a", "a.", "a.b.", "-_-.c", "||d^", "*.e",
    "b\u00fccher.example", "y" * 63, "y" * 64 + ".z", ".".join(["z" * 60] * 5), ".".join(["z" * 61] * 4), "a,b", "0x",
    "broadcasthost",
])  # fmt: skip
_FRONT = st.sampled_from([
    "", "", "0.0.0.0 ", "127.0.0.1\t", "::1 ", ":: ", "0 ", " \t", "0.0.0.0", "1.2.3.4 ", "fe80::1%lo0 ", "0\t 0 ",
    "\x0b",
])  # fmt: skip
_BACK = st.sampled_from(["", "", " ", "#c", " # c d", "\t", " a.example", " x y", ".", ". ", "\x0c", "\x00", "!", " ;"])
_END = st.sampled_from(["\n", "\n", "\r\n", "\r", "\n\n", "\n# comment\n", "\n! comment\n", "\n ;c\n"])
_TEXT = st.lists(st.tuples(_FRONT, _WORD, _BACK, _END).map("".join), max_size=25).map("".join)


@given(_TEXT, st.sampled_from(["auto", "hosts", "domains"]), st.booleans())
def test_property_equals_the_oracle(text: str, format: str, bom: bool) -> None:
    """Names and lint are those of the reader that was written first, line by line with regular expressions."""
    data = (b"\xef\xbb\xbf" if bom else b"") + text.encode()
    got, found = lists.parse([(format, data, "x")])
    expected, said = list_oracle.parse([(format, data, "x")])
    assert sorted(got) == expected
    assert sorted(found, key=str) == sorted(said, key=str)


@given(st.binary(max_size=300), st.sampled_from(["auto", "hosts", "domains"]))
def test_property_any_octets_equal_the_oracle(data: bytes, format: str) -> None:
    """The same over octets of any kind."""
    got, found = lists.parse([(format, data, "x")])
    expected, said = list_oracle.parse([(format, data, "x")])
    assert sorted(got) == expected
    assert sorted(found, key=str) == sorted(said, key=str)


def test_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a long text is cut makes no difference."""
    text = "".join(f"0.0.0.0 n{i}.Example\r\n{'' if i % 7 else 'bad line ' + str(i)}\n" for i in range(400)).encode()
    whole, found = lists.parse([("hosts", text, "x")])
    for piece in (1200, 1776):
        monkeypatch.setattr(lists, "_PIECE", piece)
        cut, said = lists.parse([("hosts", text, "x")])
        assert (sorted(cut), said) == (sorted(whole), found)


def test_order_of_lines_makes_no_difference() -> None:
    """The same names give the same octets."""
    written = [f"n{i}.example" for i in range(300)]
    one = lists.parse([("domains", "\n".join(written).encode(), "x")])[0]
    two = lists.parse([("domains", "\n".join(reversed(written + written)).encode(), "x")])[0]
    assert one == two and one.digest == two.digest


def test_membership() -> None:
    """A name is found among many, and one that is not there is not."""
    got, _ = lists.parse([("domains", "\n".join(f"n{i}.example" for i in range(500)).encode(), "x")])
    assert all(names.from_text(f"n{i}.example") in got for i in range(500))
    assert names.from_text("n500.example") not in got and names.ROOT not in got


def test_half_a_million_names_are_quick() -> None:
    """500,000 hosts lines take less than 5 s of CPU on any machine (1.2 s here)."""
    data = "".join(f"0.0.0.0 host-{i * 7919 % 1000003:x}.ads{i % 977}.example.com\n" for i in range(500_000)).encode()
    begun = time.process_time()
    got, _ = lists.parse([("hosts", data, "x")])
    assert len(got) == 500_000
    assert time.process_time() - begun < 5.0

"""Facts about reading YAML with places."""

import pytest

from controller import documents
from controller.documents import parse, plain


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("18:00", "18:00"), ("no", "no"), ("on", "on"), ("yes", "yes"), ("0755", 755), ("1_000", "1_000"),
        ("2026-03-01", "2026-03-01"), ("11:22:33:44:55:56", "11:22:33:44:55:56"), ("~", None), ("null", None),
        ("true", True), ("False", False), ("-3", -3), ("0x1f", 31), ("0o17", 15), ("1.5", 1.5), (".", "."),
        (".inf", ".inf"), ("10.0.0.1", "10.0.0.1"), ("+", "+"), ("-", "-"),
    ],
)  # fmt: skip
def test_only_core_types(written: str, value: object) -> None:
    """Unquoted values have the types of YAML 1.2's core schema and nothing else."""
    assert plain(written) == value and type(plain(written)) is type(value)


def test_every_value_knows_its_place() -> None:
    """Keys and values have the exact line and columns that an editor shows, wide characters counted as one."""
    document = parse("a.yaml", "é: [x, 'ü y']\nb:\n  c: {d: 1}\n".encode())
    assert document.root is not None
    listed = document.root.get("é")
    assert listed is not None
    second = listed.items[1].where
    assert (second.line, second.column, second.end_column) == (1, 8, 13)
    key, value = document.root.at(iter(["b", "c", "d"]))
    assert key is not None and (key.where.line, key.where.column) == (3, 7)
    assert (value.where.line, value.where.column, value.where.end_column) == (3, 10, 11)


def test_keys_are_text() -> None:
    """A key is always text, whatever it looks like."""
    document = parse("a.yaml", b"1: a\nno: b\n~: c\n")
    assert document.root is not None and document.root.value == {"1": "a", "no": "b", "~": "c"}


def test_an_empty_file_is_an_empty_file() -> None:
    """A file of comments holds nothing and is not wrong."""
    document = parse("a.yaml", b"# nothing\n")
    assert document.root is None and not document.diagnostics and not document.broken


def test_too_large() -> None:
    """More than 1 MiB is refused without being read."""
    document = parse("a.yaml", b"#" * (documents.MAX_BYTES + 1))
    assert [d.code for d in document.diagnostics] == ["E005"]


def test_billion_laughs_is_refused_quickly() -> None:
    """Aliases are never expanded."""
    lines = ['a0: &a0 ["x"]'] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    codes = {d.code for d in parse("a.yaml", "\n".join(lines).encode()).diagnostics}
    assert codes == {"E003"}


def test_carriage_returns_do_no_harm() -> None:
    """A file from Windows has the same places."""
    document = parse("a.yaml", b"version: 1\r\nrules:\r\n  - name: a\r\n")
    assert document.root is not None and document.root.value == {"version": 1, "rules": [{"name": "a"}]}


@pytest.mark.parametrize("data", [b"\x00", b"a: \xff", b"{" * 100, b"- " * 500, b"a: 'b", b"? ? ?", b"a: !!python/x y"])
def test_anything_parses_or_is_refused(data: bytes) -> None:
    """No input raises; what is not read has a finding."""
    document = parse("a.yaml", data)
    assert document.diagnostics and document.broken


def test_the_slow_parser_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without libyaml the same nodes with the same places come out."""
    import yaml

    text = b"version: 1\nrules:\n  - name: a\n    block: [a.example, '*.b']\nzones: {z.example: {records: {a: 1}}}\n"
    fast = parse("a.yaml", text)
    monkeypatch.setattr(documents, "_Parser", yaml.SafeLoader)
    slow = parse("a.yaml", text)
    assert fast.root is not None and slow.root is not None
    assert fast.root.value == slow.root.value
    assert (
        fast.root.at(iter(["rules", 0, "block", 1]))[1].where == slow.root.at(iter(["rules", 0, "block", 1]))[1].where
    )

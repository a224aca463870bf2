"""Facts about the schemas: what they refuse, in which words, where."""

import json

import jsonschema
import pytest

from controller import documents, resources, schema


def found(text: str, name: str = schema.RULES) -> list[tuple[str, int, int]]:
    """(code, line, column) of all findings."""
    document = documents.parse("a.yaml", text.encode())
    assert not document.diagnostics
    return sorted(((d.code, d.where.line, d.where.column) for d in schema.check(document, name)), key=lambda f: f[1:])


@pytest.mark.parametrize("name", ["rules", "tests", "node"])
def test_schemas_are_schemas(name: str) -> None:
    """Each is valid JSON Schema 2020-12, and every property says what it is for."""
    value = schema.load(name)
    jsonschema.Draft202012Validator.check_schema(value)
    assert value["title"] and value["description"]


def test_schemas_refer_to_files_beside_them() -> None:
    """No reference leads to the network: editors resolve them beside the file."""
    for name in ("rules", "tests", "node"):
        text = json.dumps(json.loads(resources.path("schemas", f"{name}.schema.json").read_text("utf-8")))
        assert '"$id"' not in text and text.count("http") == text.count(
            "https://json-schema.org/draft/2020-12/schema"
        ) + (text.count("https://lists"))


def test_misspelt_key_is_one_finding() -> None:
    """A typo in `block` is not also reported as a missing block."""
    assert found("version: 1\nrules:\n  - name: a\n    blok: [a.example]\n") == [("E010", 4, 5)]


def test_nothing_is_said_about_what_is_right() -> None:
    """A good rule is accepted, and accepted again from memory."""
    text = "version: 1\nrules:\n  - {name: a, block: [a.example], priority: 3}\n"
    assert found(text) == [] and found(text) == []


def test_memory_does_not_move_places() -> None:
    """After a good rule is remembered, the finding in the rule behind it stays where it is."""
    good = "version: 1\nrules:\n  - {name: a, block: [a.example]}\n"
    assert found(good) == []
    assert found(good + "  - {name: b, block: [b.example], priority: high}\n") == [("E013", 4, 45)]


def test_later_is_not_unknown() -> None:
    """What the language knows and this version does not do has its own code."""
    text = "version: 1\nprotect: {any: minimal}\nlists: {a: {urls: [x]}}\nforward: {.: {upstreams: x, strategy: random}}\n"
    assert found(text) == [
        ("E030", 2, 11), ("E030", 3, 13), ("E030", 4, 39),
    ]  # fmt: skip


def test_tests_alone_need_no_version() -> None:
    """A file that holds tests only may leave `version` out."""
    assert found("tests:\n  - {name: a, query: {name: a.example}, expect: {rcode: NOERROR}}\n") == []


def test_node_settings() -> None:
    """The node's file has its own schema."""
    assert found('listen: ["127.0.0.1:53"]\nsource: {git: {url: x, signatures: {mode: off}}}\n', schema.NODE) == []
    assert found("listne: []\ncache: {size: 3 apples}\n", schema.NODE) == [("E010", 1, 1), ("E012", 2, 15)]


def test_items_of_a_broken_section_are_not_remembered_as_good() -> None:
    """What stood in a section of the wrong shape is looked at again when it stands in a right one."""
    schema.check(documents.parse("a.yaml", b"version: 1\ngroups: [{description: unseen}]\n"))
    again = documents.parse("b.yaml", b"version: 1\ngroups: {staff: {description: unseen}}\n")

    assert [finding.code for finding in schema.check(again)] == ["E011"]

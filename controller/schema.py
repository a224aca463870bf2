"""The JSON Schemas of `schemas/` applied to documents; the only module that knows jsonschema.

The schemas are also what editors use, so they hold shapes and words for people, and nothing that needs a second
file or a second value; that is `rules`. Two keywords of our own: `x-say` completes the sentence "… is not …",
`x-later` names what the language knows and this version does not do.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jsonschema
import referencing
from referencing.jsonschema import DRAFT202012

from controller import resources
from controller.diagnostics import Diagnostic, did_you_mean, found
from controller.documents import MAPPING, SCALAR, Document, Node
from controller.ruleset import Where

RULES, TESTS, NODE = "rules", "tests", "node"

_NOUNS = {
    "groups": "group", "clients": "client", "schedules": "schedule", "lists": "list", "zones": "zone",
    "forward": "forward entry", "rules": "rule", "tests": "test",
}  # fmt: skip
_SHAPES = {"object": "a block of keys", "array": "a list", "string": "a text", "integer": "a whole number",
           "number": "a number", "boolean": "true or false", "null": "nothing"}  # fmt: skip
_YES = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def load(name: str) -> dict[str, Any]:
    """The schema `schemas/<name>.schema.json`."""
    with open(resources.path("schemas", f"{name}.schema.json"), encoding="utf-8") as file:
        value: dict[str, Any] = json.load(file)
    return value


@functools.cache
def _validator(name: str) -> jsonschema.Draft202012Validator:
    def resource(other: str) -> referencing.Resource[Any]:
        return DRAFT202012.create_resource(load(other))

    tests = resource(TESTS)
    registry: referencing.Registry[Any] = referencing.Registry().with_resource("tests.schema.json", tests)
    return jsonschema.Draft202012Validator(load(name), registry=registry)


def check(document: Document, name: str = RULES) -> list[Diagnostic]:
    """What the schema has against a document, each finding at the exact key or value."""
    root = document.root
    if root is None:
        return []
    if root.kind != MAPPING:
        help = "begin with 'version: 1', then sections such as 'rules:'"
        if root.kind == SCALAR and ":" in root.text:
            help = "put a space after the ':'"
        return [found("E013", "the file is not a block of keys", root.where, help)]
    instance, fresh = _known(root.value) if name == RULES else (root.value, {})
    out: list[Diagnostic] = []
    for error in _validator(name).iter_errors(instance):
        path = tuple(error.absolute_path)
        fresh.pop(path[:2], None)
        if len(path) == 1:
            # The section itself is wrong: what is in it was perhaps not looked at.
            fresh = {key: mark for key, mark in fresh.items() if key[0] != path[0]}
        out += _translate(error, root)
    if len(_valid) + len(fresh) > _VALID_MAX:
        _valid.clear()
    _valid.update(fresh.values())
    return out


# Validation is the slowest step, and an edit changes one rule of many: what has passed before is not asked again.
# Each item that is known is replaced by a short one that is valid, so that all paths stay as they are.
_STANDINS: dict[str, Any] = {
    "rules": {"name": "x", "block": "x"}, "groups": {"members": "x"}, "clients": {"ids": "x"},
    "lists": {"domains": "x"}, "zones": {}, "forward": "x",
    "tests": {"name": "x", "query": {"name": "x"}, "expect": {"rule": "x"}},
}  # fmt: skip
_VALID_MAX = 100_000
_valid: set[str] = set()


def _known(value: Any) -> tuple[Any, dict[tuple[Any, ...], str]]:
    """The value with known items replaced, and the (section, key) of the others with what they are remembered by."""
    fresh: dict[tuple[Any, ...], str] = {}
    out = dict(value)
    for section, standin in _STANDINS.items():
        items = value.get(section)
        if isinstance(items, list):
            pairs: Iterable[tuple[Any, Any]] = enumerate(items)
            copy: Any = list(items)
        elif isinstance(items, dict):
            pairs, copy = items.items(), dict(items)
        else:
            continue
        for key, item in pairs:
            mark = f"{section}\0{item!r}"
            if mark in _valid:
                copy[key] = standin
            else:
                fresh[section, key] = mark
        out[section] = copy
    return out, fresh


def _translate(error: Any, root: Node) -> Iterable[Diagnostic]:
    path: Sequence[str | int] = list(error.absolute_path)
    key, node = root.at(iter(path))
    schema: Mapping[str, Any] = error.schema if isinstance(error.schema, Mapping) else {}
    kind = error.validator
    if kind == "additionalProperties":
        return _unknown(error, schema, node)
    if kind == "not" and schema.get("x-later"):
        name = str(path[-1]) if path else ""
        words = str(schema.get("description", "")).removeprefix("Not in this version. ").rstrip(".")
        return [found("E030", f"{name!r} is not in this version", (key or node).where, words[:1].lower() + words[1:])]
    if kind == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        # jsonschema reports each missing key by itself; the message names which.
        name = next((m for m in missing if error.message.startswith(repr(m))), missing[0])
        if _misspelt(node, schema, [name]):
            return []
        help = "every rule file begins with it" if name == "version" else _wanted(schema, name)
        value = " 1" if name == "version" else ""
        return [found("E011", f"{label(path, root)} has no '{name}:{value}'", _opening(key, node), help)]
    if kind in ("oneOf", "anyOf"):
        if node.kind != MAPPING or _misspelt(node, schema, _branches(error)):
            return []
        return [_choice(error, schema, path, key, node, root)]
    if isinstance(error.instance, str) and node.kind == MAPPING and kind in ("pattern", "maxLength", "minLength"):
        where = node.pairs[error.instance][0].where if error.instance in node.pairs else node.where
        return [found("E012", f"{error.instance!r} is not {_say(schema)}", where)]
    return [_value(error, kind, schema, path, key, node)]


def _unknown(error: Any, schema: Mapping[str, Any], node: Node) -> Iterable[Diagnostic]:
    known = list(schema.get("properties", {}))
    patterns = schema.get("patternProperties", {})
    out = []
    for name in error.instance:
        if name in known or name not in node.pairs:
            continue
        if patterns and name.isascii() and name.isupper():
            continue
        near = did_you_mean(name, known)
        current = [word for word in known if not schema["properties"][word].get("x-later")]
        help = f"did you mean '{near}'?" if near else f"known here: {', '.join(current)}"
        out.append(found("E010", f"unknown key '{name}'", node.pairs[name][0].where, help))
    return out


def _branches(error: Any) -> list[str]:
    return [name for branch in error.validator_value for name in branch.get("required", ())]


def _misspelt(node: Node, schema: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Whether an unknown key was probably meant to be one of `names`: then that is the only finding."""
    known = schema.get("properties", {})
    return any(did_you_mean(word, known) in names for word in node.pairs if word not in known)


def _choice(
    error: Any, schema: Mapping[str, Any], path: Sequence[str | int], key: Node | None, node: Node, root: Node
) -> Diagnostic:
    names = _branches(error)
    has = [name for name in names if name in node.pairs]
    shown = [name for name in names if not schema.get("properties", {}).get(name, {}).get("x-later")]
    which = " or ".join(f"'{name}'" for name in shown) if len(shown) == 2 else ", ".join(shown)
    if error.validator == "anyOf":
        return found("E022", f"{label(path, root)} must have at least one of {which}", _opening(key, node))
    if has:
        second = sorted((node.key(name).where for name in has), key=lambda w: (w.line, w.column))[1]
        words = f"{label(path, root)} must have exactly one of {which}; it has {', '.join(has)}"
        help = "make two of it" if len(path) == 2 and path[0] == "rules" else ""
        return found("E022", words, second, help)
    return found("E022", f"{label(path, root)} must have exactly one of {which}; it has none", _opening(key, node))


def _value(
    error: Any, kind: str, schema: Mapping[str, Any], path: Sequence[str | int], key: Node | None, node: Node
) -> Diagnostic:
    where = node.where
    if node.kind == SCALAR and node.value is None and key is not None:
        where = key.where
    text = node.text if node.kind == SCALAR else ""
    if kind in ("enum", "const"):
        values = schema.get("enum", [schema.get("const")])
        # `off` is accepted as false too, for files that YAML 1.1 has read; nobody needs to be told.
        values = [v for v in values if isinstance(v, str)] or values
        choices = [str(v).lower() if isinstance(v, bool) else str(v) for v in values]
        later = [str(v).lower() if isinstance(v, bool) else str(v) for v in schema.get("x-later", [])]
        name = str(path[-1]) if path else ""
        if node.kind == SCALAR and text.lower() in later:
            help = f"in this version: {', '.join(choices)}" if len(choices) > 1 else f"in this version: {choices[0]}"
            return found("E030", f"'{name}: {text}' is not in this version", where, help)
        near = did_you_mean(text, choices)
        help = f"did you mean '{near}'?" if near and near != text else ""
        if "x-say" in schema:
            return found("E012", f"{_shown(node)} is not {schema['x-say']}", where, help)
        return found("E012", f"{_shown(node)} is not one of: {', '.join(choices)}", where, help)
    if kind == "type" and node.kind == SCALAR and node.value is None and key is not None:
        return found("E013", f"'{key.text}' has no value", where, f"write {_say(schema)}, or delete the key")
    if kind == "type":
        wanted = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        help = ""
        if wanted == ["boolean"] and text.lower() in _YES:
            help = f"write {_YES[text.lower()]}"
        elif wanted == ["string"] and node.kind == SCALAR and node.value is not None:
            help = f'put quotes around it: "{text}"'
        elif "integer" in wanted and node.quoted and text.lstrip("-").isdigit():
            help = "leave the quotes out"
        elif node.kind == SCALAR and node.value is None:
            help = "write a value, or delete the line"
        return found("E013", f"{_shown(node)} is not {_say(schema)}", where, help)
    if kind in ("minItems", "minProperties", "minLength") and not error.instance:
        what = f"'{path[-1]}'" if path and isinstance(path[-1], str) else "this value"
        return found("E012", f"{what} is empty", where, f"write {_say(schema)}, or delete it")
    return found("E012", f"{_shown(node)} is not {_say(schema)}", where)


def _say(schema: Mapping[str, Any]) -> str:
    if "x-say" in schema:
        return str(schema["x-say"])
    kinds = schema.get("type", "a value that is allowed here")
    return " or ".join(_SHAPES.get(kind, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds))


def _shown(node: Node) -> str:
    if node.kind != SCALAR:
        return "a block of keys" if node.kind == MAPPING else "a list"
    if node.value is None:
        return "nothing"
    return repr(node.text) if len(node.text) <= 80 else repr(node.text[:77] + "…")


def _wanted(schema: Mapping[str, Any], name: str) -> str:
    say = schema.get("properties", {}).get(name, {}).get("x-say", "")
    return f"write '{name}:' and {say}" if say else ""


def _opening(key: Node | None, node: Node) -> Where:
    """Where a block as a whole is shown: at its key, or else at its first key."""
    return key.where if key is not None else node.where


def label(path: Sequence[str | int], root: Node) -> str:
    """What a path is called in messages: `rule 'ads'`, `group 'staff'`, `the file`."""
    if not path:
        return "the file"
    noun = _NOUNS.get(str(path[0]))
    if noun is None or len(path) < 2:
        return f"'{path[-1]}'"
    if len(path) == 2:
        if isinstance(path[1], int):
            _, node = root.at(iter(path))
            name = node.get("name")
            return f"{noun} {name.text!r}" if name is not None and name.kind == SCALAR else f"this {noun}"
        return f"{noun} '{path[1]}'"
    if path[0] == "zones" and len(path) >= 4 and path[2] == "records":
        return f"the record of '{path[3]}'"
    if path[0] == "schedules":
        return f"schedule '{path[1]}'"
    last = next((step for step in reversed(path) if isinstance(step, str)), "")
    return f"'{last}'"

"""What a class of the resolver holds stands in its .pxd too: compiled, it has nothing else."""

from __future__ import annotations

import ast
import pathlib
import re

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_HEADERS = [*sorted((_ROOT / "dnsd" / "resolve").glob("*.pxd")), _ROOT / "dnsd" / "serve" / "upstream.pxd"]


def _declared(text: str) -> dict[str, set[str]]:
    """Class → attributes of a .pxd."""
    found: dict[str, set[str]] = {}
    name = ""
    for line in text.splitlines():
        if match := re.match(r"cdef class (\w+)", line):
            name = match[1]
            found[name] = set()
        elif name and (match := re.match(r"    cdef (?!inline)[^(]* \*?(\w+)$", line)):
            found[name].add(match[1])
    return found


def _held(node: ast.ClassDef) -> set[str]:
    """What a dataclass has as fields, another class as attributes that its `__init__` sets."""
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        fields = (each.target for each in node.body if isinstance(each, ast.AnnAssign))
        return {target.id for target in fields if isinstance(target, ast.Name)}
    begin = next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None)
    if begin is None:
        return set()
    stored = (each for each in ast.walk(begin) if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store))
    return {each.attr for each in stored if isinstance(each.value, ast.Name) and each.value.id == "self"}


@pytest.mark.parametrize("header", _HEADERS, ids=lambda path: path.stem)
def test_every_attribute_is_declared(header: pathlib.Path) -> None:
    """A field that is missing from the .pxd would be an AttributeError of the compiled module only."""
    declared = _declared(header.read_text())
    for node in ast.parse(header.with_suffix(".py").read_text()).body:
        if isinstance(node, ast.ClassDef) and node.name in declared:
            missing = _held(node) - declared[node.name]
            assert not missing, f"{header.name}: {node.name} lacks {sorted(missing)}"

"""Each third-party package has one owner: a module, or a folder of them (ARCHITECTURE.md, Rooms)."""

from __future__ import annotations

import ast
import collections
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# package → the paths that may import it (a folder ends in a slash).
OWNERS = {
    "click": ["controller/cli/"],
    "cryptography": ["controller/lab/signing.py"],
    "cython": ["controller/listscan.py", "dnsd/"],  # the modules that are also compiled
    "dns": ["controller/lab/signing.py", "controller/records.py", "dnsd/resolve/signatures.py"],
    "git": ["controller/source_git.py"],
    "gitdb": ["controller/source_git.py"],
    "idna": ["controller/domains.py"],
    "jinja2": ["controller/status/"],
    "jsonschema": ["controller/schema.py"],
    "prometheus_client": ["controller/status/"],
    "referencing": ["controller/schema.py"],
    "rich": ["controller/cli/"],
    "starlette": ["controller/status/"],
    "structlog": [
        "controller/builder.py",
        "controller/cli/run.py",
        "controller/log.py",
        "controller/pipeline.py",
        "controller/service.py",
        "dnsd/serve/log.py",
    ],
    "uvicorn": ["controller/service.py", "controller/status/connection.py"],
    "watchdog": ["controller/source_folder.py"],
    "yaml": ["controller/documents.py", "dnsd/__main__.py"],  # a node's settings are read where no controller is
}


def _imports() -> dict[str, set[str]]:
    """Third-party packages, and the files that import them."""
    found: dict[str, set[str]] = collections.defaultdict(set)
    for package in ("controller", "dnsd"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                    names = [node.module]
                for name in names:
                    top = name.partition(".")[0]
                    if top not in sys.stdlib_module_names and top not in ("controller", "dnsd"):
                        found[top].add(path.relative_to(ROOT).as_posix())
    return found


def test_third_party_packages_stay_with_their_owners() -> None:
    """No module imports a package that belongs to another, and no owner is listed for a package that is gone."""
    imports = _imports()
    assert set(imports) == set(OWNERS)
    strays = {
        f"{path} imports {package}, which belongs to {', '.join(OWNERS[package])}"
        for package, paths in imports.items()
        for path in paths
        if not any(path == owner or (owner.endswith("/") and path.startswith(owner)) for owner in OWNERS[package])
    }
    assert not strays

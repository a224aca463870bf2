"""Where the files that travel with the program are: `schemas/` and the sample rules `rules.d/`.

In a checkout they lie beside the packages, in an installed package under `controller/_data/`. This
file finds them and reads nothing.
"""

from __future__ import annotations

import pathlib

_PACKAGE = pathlib.Path(__file__).resolve().parent


def root() -> pathlib.Path:
    """The folder that holds `schemas/` and `rules.d/`."""
    installed = _PACKAGE / "_data"
    return installed if installed.is_dir() else _PACKAGE.parent


def path(*parts: str) -> pathlib.Path:
    """The path of a file or folder, as in `path("schemas", "rules.schema.json")`; raises FileNotFoundError."""
    found = root().joinpath(*parts)
    if not found.exists():
        raise FileNotFoundError(f"{'/'.join(parts)} is missing from {root()}; install nexoraldns again")
    return found

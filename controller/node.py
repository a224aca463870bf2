"""Reads the node's file for the controller and the command line; `dnsd.contract.settings` says what it means."""

from __future__ import annotations

import os
from collections.abc import Mapping

from controller import documents
from controller.diagnostics import render
from dnsd.contract import settings
from dnsd.contract.settings import Settings, SettingsError

VARIABLE = "NEXORALDNS_CONFIG"


class NodeError(Exception):
    """The settings cannot be used. `str()` says all of why, ready to be shown."""


def read(config: str | None, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings from `config`, else from the file that NEXORALDNS_CONFIG names, else the defaults.

    Raises NodeError. Relative paths are relative to the file, or to the working directory when there is none.
    """
    environ = os.environ if environ is None else environ
    path = config or environ.get(VARIABLE) or None
    if path is None:
        try:
            return settings.load(None, os.getcwd(), environ)
        except SettingsError as error:
            raise NodeError(_listed("the environment", error)) from None
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise NodeError(f"{path}: {error.strerror}; give the settings with --config FILE, or leave it out") from None
    document = documents.parse(path, data)
    if document.diagnostics:
        raise NodeError(render(document.diagnostics, {path: data}).rstrip())
    root = document.root
    if root is not None and root.value is not None and not isinstance(root.value, dict):
        raise NodeError(f'{path}: the settings must be keys and values, such as `listen: ["127.0.0.1:5335"]`')
    mapping = root.value if root is not None and isinstance(root.value, dict) else {}
    try:
        return settings.load(mapping, os.path.dirname(os.path.abspath(path)), environ)
    except SettingsError as error:
        raise NodeError(_listed(path, error, document)) from None


def _listed(origin: str, error: SettingsError, document: documents.Document | None = None) -> str:
    lines = []
    for key, message in error.problems:
        place = origin
        if document is not None and document.root is not None and key:
            name, node = document.root.at_path(key)
            where = (name or node).where
            place = f"{origin}:{where.line}:{where.column}"
        lines.append(f"{place}: {key}: {message}" if key else f"{place}: {message}")
    return "\n".join(lines)

"""Domain names as people write them: international names, patterns of rules, and what they probably meant.

Pure. The owner of idna: names become A-labels here (UTS 46, non-transitional) and nowhere else.
"""

from __future__ import annotations

import ipaddress
import re

import idna

from controller.ruleset import BELOW, EVERY, EXACT, LIST, SELF_AND_BELOW
from dnsd.contract import names

_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")


class DomainError(ValueError):
    """A text that is no name or pattern; `code` is a diagnostic's, `help` a hint."""

    def __init__(self, message: str, help: str = "", code: str = "E023") -> None:
        super().__init__(message)
        self.message = message
        self.help = help
        self.code = code


def to_ascii(text: str) -> str:
    """Lower case, international labels as A-labels (RFC 5890); raises DomainError."""
    if text.isascii():
        return text.lower()
    try:
        mapped = idna.uts46_remap(text, std3_rules=False, transitional=False)
        return ".".join(
            label if label.isascii() else idna.alabel(label).decode("ascii") for label in re.split("[.\u3002]", mapped)
        )
    except (idna.IDNAError, UnicodeError) as error:
        raise DomainError(f"{text!r} is not an international domain name", str(error)) from None


def name(text: str) -> bytes:
    """A host or domain name, always absolute, as lower-case wire; raises DomainError with a hint."""
    ascii_text = to_ascii(text)
    if not _NAME.fullmatch(ascii_text):
        raise DomainError(f"{text!r} is not a domain name", _hint(text))
    if re.fullmatch(r"([0-9]{1,3}\.){3}[0-9]{1,3}", ascii_text):
        raise DomainError(f"{text!r} is an address, not a domain name", "rules match the name that is asked for")
    try:
        return names.from_text(ascii_text)
    except names.NameSyntaxError as error:
        raise DomainError(f"{text!r} is not a domain name", error.reason) from None


def _hint(text: str) -> str:
    bare = re.sub(r"^[a-z0-9+.-]+://", "", text.strip().strip("|^"), flags=re.IGNORECASE)
    bare = re.split(r"[/?#^$\s]", bare, maxsplit=1)[0]
    if "://" in text or "/" in text:
        return f"write only the name: {bare}" if bare and _NAME.fullmatch(bare.lower()) else "write only the name"
    if "^" in text or text.startswith("|"):
        return (
            f"rules do not use filter syntax; write: {bare}" if _NAME.fullmatch(bare.lower()) else "write only the name"
        )
    if text.startswith(("*.", "=")):
        return "'*.' and '=' belong to rules only; here a name means itself and everything below"
    if "*" in text:
        return 'a wildcard stands only at the beginning, as in "*.example.com"'
    if text.startswith(".") and len(text) > 1:
        return f'write {text[1:]} (itself and everything below) or "*{text}" (only below)'
    if ".." in text:
        return "there are two dots in a row"
    if any(c.isspace() for c in text) or "," in text:
        return "write each name as an item of its own"
    try:
        ipaddress.ip_address(text)
    except ValueError:
        pass
    else:
        return "this is an address"
    if ":" in text and text.rpartition(":")[2].isdigit():
        return "a name has no port; write only the name"
    return "names are letters, digits, '-' and '_' in labels of at most 63, with dots between"


def pattern(text: str) -> tuple[str, bytes, str]:
    """One entry of block, allow or redirect as (kind, wire name, list's name); raises DomainError."""
    if text == ".":
        return EVERY, names.ROOT, ""
    if text.startswith("list:"):
        value = text[5:].strip()
        if not value:
            raise DomainError("'list:' names no list", "write list:NAME", "E012")
        return LIST, b"", value
    if len(text) > 1 and text.startswith("/") and text.endswith("/"):
        raise DomainError(
            f"the regular expression {text} is not in this version",
            'write names, or "*.example.com" for what is below',
            "E030",
        )
    if text.startswith("*."):
        return BELOW, _part(text, text[2:]), ""
    if text.startswith("="):
        return EXACT, _part(text, text[1:]), ""
    if text == "*":
        raise DomainError("'*' is not a domain name", 'every name is written "."')
    return SELF_AND_BELOW, name(text), ""


def _part(text: str, rest: str) -> bytes:
    try:
        return name(rest)
    except DomainError as error:
        raise DomainError(f"{text!r} is not a domain name", error.help, error.code) from None

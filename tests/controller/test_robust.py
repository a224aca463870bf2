"""Whatever stands in a rule file, the checker answers with findings and never with an exception."""

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller import check, diagnostics
from tests.controller import golden

_SECTION_NAMES = "groups clients schedules lists rules zones forward defaults tests"
_RULE_KEYS = "name block allow redirect for except when types priority reply ttl expires enabled"
_OTHER_WORDS = (
    "version protect members ids weekdays start end timezone domains file format max_entries sha256 ptr records type "
    "value values upstreams strategy timeout query client at given expect rcode A @ . *.x =x list:a a a.example "
    "10.0.0.1 10.0.0.0/8 10.0.0.9-10.0.0.1 fd00::1 mon 08:30 24:00 5m nxdomain CNAME MX SOA auto 2026-03-01 "
    "UTC ü.example /re/ recurse tls://x \\"
)
_WORDS = st.sampled_from(f"{_SECTION_NAMES} {_RULE_KEYS} {_OTHER_WORDS}".split())
_SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-5000, 5000), st.floats(), _WORDS, st.text(max_size=6))
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_WORDS, inner, max_size=5), max_leaves=20
)
_SECTIONS = st.sampled_from(_SECTION_NAMES.split())
_RULE = st.dictionaries(st.sampled_from(_RULE_KEYS.split()), _VALUES)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(_SECTIONS, _VALUES | st.lists(_RULE, max_size=3) | st.dictionaries(_WORDS, _RULE, max_size=3)))
def test_any_values(value: dict[str, object]) -> None:
    """Every tree of plausible keys and values is checked, and what is found can be printed in every format."""
    text = json.dumps(value, ensure_ascii=False, indent=1)
    snapshot = golden.of_texts(a="", b="")
    files = {**snapshot.files, "b.yaml": f'{{"version": 1, {text[1:]}'.encode("utf-8", "replace")}
    result = check.check_snapshot(type(snapshot)(snapshot.revision, files, snapshot.read), golden.TODAY)
    assert (result.ruleset is None) == any(d.is_error for d in result.diagnostics)
    for form in ("text", "short", "json", "github", "gitlab", "sarif", "junit"):
        diagnostics.render(result.diagnostics, files, form)


@settings(deadline=None, max_examples=80)
@given(st.text("ab: -[]{}\"'#\n\t*&!|>%@`,?x1.", max_size=60))
def test_any_text(text: str) -> None:
    """Every text is read or refused."""
    snapshot = golden.of_texts(a=text)
    result = check.check_snapshot(snapshot, golden.TODAY)
    diagnostics.render(result.diagnostics, snapshot.files)

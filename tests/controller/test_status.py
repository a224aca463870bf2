"""The status page: what it shows, what it refuses, what it survives."""

from __future__ import annotations

import datetime
import hashlib
import html
import importlib.util
import json
import pathlib
import re
import socket
from typing import Any

import pytest
from starlette.testclient import TestClient

from controller import subject
from controller.status import values, view
from controller.status.app import create
from dnsd.contract import codes, settings

_PATH = pathlib.Path(__file__).with_name("status_snapshot.py")
_spec = importlib.util.spec_from_file_location("status_snapshot", _PATH)
assert _spec is not None
assert _spec.loader is not None
status_snapshot = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(status_snapshot)

NOW = datetime.datetime(2026, 3, 2, 14, 2, tzinfo=datetime.UTC)
PATHS = ["/", "/live", "/explain", "/api/v1/status", "/healthz", "/metrics", "/static/page.css", "/static/page.js"]


class FixedState:
    """A state whose snapshot never changes."""

    def __init__(self, snapshot: dict[str, Any]) -> None:
        self.value = snapshot

    def snapshot(self) -> dict[str, Any]:
        return self.value


def client(snapshot: dict[str, Any] | None = None, **options: Any) -> TestClient:
    """A browser on the page of this snapshot."""
    now = datetime.datetime.now(datetime.UTC)
    return TestClient(create(FixedState(status_snapshot.office(now) if snapshot is None else snapshot),
                             **{"node_settings": None, **options}), base_url="http://127.0.0.1:8053")  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reading_is_allowed(path: str, method: str) -> None:
    """Each address answers GET and HEAD, with the headers that keep a browser safe."""
    response = client().request(method, path)

    assert response.status_code == 200
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "unsafe" not in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cache-control"] == ("no-cache" if path.startswith("/static") else "no-store")
    assert (method == "HEAD") == (response.content == b"")


@pytest.mark.parametrize("path", ["/", "/api/v1/status", "/metrics", "/nowhere"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_changing_is_refused(path: str, method: str) -> None:
    """Anything but reading is 405 everywhere and says where rules change."""
    response = client().request(method, path)

    assert response.status_code == 405
    assert response.headers["allow"] == "GET, HEAD"
    assert "content-security-policy" in response.headers


@pytest.mark.parametrize("path", PATHS)
def test_a_strange_name_is_refused(path: str) -> None:
    """A name that somebody else may point at us (DNS rebinding) gets nothing; addresses, localhost, the machine's own
    name and configured ones do."""
    config = settings.load({"status": {"hosts": ["DNS.office.example"]}}, "/srv", {})
    browser = client({}, node_settings=config)
    mine = socket.gethostname()
    for host in ("evil.example", "evil.example:8053", "127.0.0.1.evil.example", "[::1].evil.example", "::1.x", "x:y:z",
                 "localhost.evil.example", "office.example", "evil.example:99999999"):  # fmt: skip
        response = browser.get(path, headers={"host": host})
        assert response.status_code == 421 and "status.hosts" in response.text and "part-" not in response.text
        assert "content-security-policy" in response.headers
    for host in ("127.0.0.1", "10.0.0.5:8053", "[::1]:8053", "[fd00::1]", "localhost:80", "LOCALHOST", mine,
                 f"{mine}:8053", "dns.office.example:443", "dns.office.example."):  # fmt: skip
        assert browser.get(path, headers={"host": host}).status_code in (200, 400), host


def test_our_own_questions_are_not_shown() -> None:
    """With what we see whether a node answers is no news; the same question from a client is."""
    row = {"time": "2026-01-01T00:00:00Z", "client": "127.0.0.1", "qname": "version.bind", "qtype": "TXT",
           "stage": "shape", "action": "chaos", "rcode": "NOERROR"}  # fmt: skip
    nodes = [{"name": "a", "listen": ["10.0.0.5:53", "eth0:53"]}]
    own = [row, {**row, "qname": "id.server", "client": "::1"}, {**row, "client": "10.0.0.5"}]
    other = {**row, "client": "10.0.0.77"}
    page = view.page({"decisions": [*own, other], "nodes": nodes}, datetime.datetime.now(datetime.UTC))
    assert [shown.client for shown in page.decisions] == ["10.0.0.77"] and page.decisions_known == 1


def test_a_secret_in_the_url_is_not_shown() -> None:
    """Where the rules come from is shown without user and password."""
    git = {"git": {"url": "https://anna:hunter2@git.example/rules.git"}}
    text = client({}, node_settings=settings.load({"source": git}, "/srv", {})).get("/").text
    assert "https://git.example/rules.git" in html.unescape(text) and "hunter2" not in text


def test_page_has_nothing_inline_or_external() -> None:
    """The page loads only its own style and script and has no style or event attribute that a CSP would refuse."""
    text = client().get("/").text

    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|https?://", text)
    assert re.findall(r'<script[^>]*src="([^"]+)"[^>]*></script>', text) == ["/static/page.js"]
    assert text.count("<script") == 1
    assert '<noscript><meta http-equiv="refresh"' in text


def test_page_shows_who_decided_what() -> None:
    """Active revision, the refusal in full, the worker that lags, and rule with file:line are all there."""
    text = html.unescape(client().get("/").text)

    assert "Allow social media at lunch" in text
    assert "Anna Jansen" in text
    assert status_snapshot.REFUSAL in text
    assert text.count("not the active one") == 1
    assert "no-social-at-work" in text
    assert "rules.d/policy.yaml:31" in text
    assert text.count('<span class="verdict') == view.DECISIONS_SHOWN


def test_live_part_is_the_same_as_the_page() -> None:
    """What the script polls is the markup that the page itself contains."""
    browser = client()
    live = re.sub(r"As of [^<]*", "", browser.get("/live").text)

    assert live in re.sub(r"As of [^<]*", "", browser.get("/").text)
    script = browser.get("/static/page.js").text
    assert set(re.findall(r'"(part-[a-z-]+)"', script)) <= set(re.findall(r'id="(part-[a-z-]+)"', live))


def test_headline_names_the_worst() -> None:
    """One sentence: all well, refused, lagging, no node, nothing active."""
    def said(snapshot: dict[str, Any]) -> str:
        return view.page(snapshot, NOW).headline.text

    office = status_snapshot.office
    assert said(office(NOW, refused=False, behind=False)) == "All is well"
    assert said(office(NOW, behind=False)) == "The newest revision was refused"
    assert said(office(NOW, refused=False)) == "4 of 5 workers serve the active rules"
    assert said({**office(NOW), "nodes": []}) == "No node is connected"
    assert said({}) == "No rules are active yet"
    assert said({"newest": office(NOW)["newest"]}) == "No rules are active"


def test_problems_are_shown_once() -> None:
    """What is wrong stands above the cards with its remedy, but a refusal has its own card already."""
    snapshot = status_snapshot.office(NOW)
    snapshot["problems"] = [
        {"key": "refused", "message": "the newest is refused", "help": "mend it"},
        {"key": "source", "message": "the repository cannot be reached", "help": "check the network"},
    ]
    assert view.page(snapshot, NOW).problems == ("the repository cannot be reached; check the network",)


@pytest.mark.parametrize(
    ("stage", "action", "more", "word"),
    [
        ("policy", "nxdomain", {}, "blocked"), ("policy", "alias", {}, "redirected"), ("local", "answer", {}, "local"),
        ("route", "forward", {}, "forwarded"), ("route", "forward", {"cached": True}, "cached"),
        ("route", "forward", {"rule": "r"}, "allowed"), ("route", "servfail", {}, "failed"),
        ("client", "refused", {}, "refused"), ("shape", "minimal", {}, "local"), ("shape", "drop", {}, "dropped"),
    ],
)  # fmt: skip
def test_verdicts_in_one_word(stage: str, action: str, more: dict[str, Any], word: str) -> None:
    """Stage and action of a decision read as one word."""
    assert view.verdict_of({"stage": stage, "action": action, **more}) == word


def test_empty_state_says_what_to_do_next() -> None:
    """Without anything the page names where rules go, how to start a node and what to ask."""
    config = settings.load({"listen": ["*:5335"], "source": {"directory": "/srv/rules"}}, "/srv", {})
    text = html.unescape(client({}, node_settings=config).get("/").text)

    assert "/srv/rules" in text
    assert "nexoraldns dnsd" in text
    assert "dig @127.0.0.1 -p 5335 example.com" in text


BROKEN: list[Any] = [None, 7, "text", [], [None], [{}], {}, {"x": 1}, True, float("1e300"), -1]


@pytest.mark.parametrize("value", BROKEN, ids=repr)
def test_odd_snapshots_do_not_break_the_page(value: Any) -> None:
    """Whatever a key holds, also inside a row, every address still answers."""
    keys = status_snapshot.office(NOW)
    row_keys = {key for name in ("decisions", "history", "events", "nodes") for row in keys[name] for key in row}
    odd_row = dict.fromkeys(row_keys, value)
    snapshots: list[dict[str, Any]] = [{**keys, key: value} for key in keys]
    snapshots.append({
        **{name: [odd_row, {**odd_row, "workers": [odd_row]}] for name in ("decisions", "history", "events", "nodes")},
        "active": {**odd_row, "revision": "x"}, "newest": {**odd_row, "revision": "y"}, "counters": odd_row,
    })  # fmt: skip
    state = FixedState({})
    browser = TestClient(create(state, node_settings=None), base_url="http://[::1]:8053")
    for state.value in snapshots:
        assert browser.get("/").status_code == 200
        assert browser.get("/metrics").status_code == 200
        assert browser.get("/readyz").status_code in (200, 503)


def test_hostile_names_stay_text() -> None:
    """A name or a subject with markup in it is shown, not run; so is the filter."""
    attack = '"><script>alert(1)</script>'
    snapshot = status_snapshot.office(NOW)
    snapshot["decisions"] = [{**snapshot["decisions"][0], "qname": attack}]
    snapshot["newest"]["subject"] = attack
    snapshot["newest"]["problems_text"] = attack
    browser = client(snapshot, explain=lambda *words: " ".join(words))
    for response in (browser.get("/", params={"q": attack}), browser.get("/"),
                     browser.get("/explain", params={"name": attack, "client": attack})):  # fmt: skip
        assert "<script>alert" not in response.text
        assert "&lt;script&gt;alert" in response.text


def test_filter_matches_every_word_in_any_column() -> None:
    """`?q=` filters the decisions; no match says so and leads back."""
    browser = client()
    text = browser.get("/", params={"q": "10.0.10.21 blocked"}).text
    assert text.count('<span class="verdict blocked">') == text.count('<span class="verdict') > 1

    assert "None of the last 74 decisions matches" in browser.get("/", params={"q": "no-such-name"}).text


def test_ready_only_with_a_table_on_a_node() -> None:
    """/readyz is 503 with its reason until a connected node's worker serves a table; /healthz is 200 throughout."""
    office = status_snapshot.office(NOW)
    idle = [{**node, "workers": [{"slot": 0, "state": "starting", "digest": ""}]} for node in office["nodes"]]
    away = [{**node, "connected": False} for node in office["nodes"]]
    cases = (({}, "no rules"), ({**office, "nodes": []}, "no node"), ({**office, "nodes": idle}, "no worker"),
             ({**office, "nodes": away}, "no node"))  # fmt: skip
    for snapshot, reason in cases:
        browser = client(snapshot)
        response = browser.get("/readyz")
        assert (response.status_code, reason in response.text) == (503, True)
        assert browser.get("/healthz").status_code == 200

    assert client(office).get("/readyz").status_code == 200


def test_status_is_the_snapshot() -> None:
    """/api/v1/status carries the snapshot itself."""
    snapshot = status_snapshot.office(NOW)

    assert client(snapshot).get("/api/v1/status").json() == json.loads(json.dumps(snapshot))


def test_metrics_name_every_counter() -> None:
    """Prometheus gets the active digest, the last apply, each worker's generation and every counter."""
    snapshot = status_snapshot.office(NOW)
    snapshot["counters"] = {name: 1000 + i for i, name in enumerate(codes.COUNTER_NAMES)}
    text = client(snapshot).get("/metrics").text

    assert f'digest="{status_snapshot.DIGEST}"' in text
    assert f'sha="{status_snapshot.SHA}"' in text
    assert "nexoraldns_last_apply_successful 0.0" in text
    assert 'nexoraldns_worker_generation{node="gw-office",slot="2"} 40.0' in text
    assert 'nexoraldns_worker_current{node="gw-office",slot="2"} 0.0' in text
    assert 'nexoraldns_verdicts_total{verdict="blocked"} 1005.0' in text
    assert 'nexoraldns_broker_refused_total{reason="auth"} 3.0' in text
    for i in range(len(codes.COUNTER_NAMES)):
        assert f" {1000 + i}.0\n" in text


def test_upstream_servers_are_shown_as_the_workers_found_them() -> None:
    """Page and metrics: who answers and how fast, who is silent for some workers, who for all."""
    snapshot = status_snapshot.office(NOW)
    snapshot["nodes"][0]["upstreams"] = [
        {"server": "192.0.2.1", "workers": 2, "ill": 0, "failures": 0, "rtt_us": 12300},
        {"server": "192.0.2.2:5353", "workers": 2, "ill": 1, "failures": 3, "rtt_us": 0},
        {"server": "192.0.2.3", "workers": 2, "ill": 2, "failures": 9, "rtt_us": 0},
    ]
    browser = client(snapshot)
    page, metrics = browser.get("/live").text, browser.get("/metrics").text
    for words in ("12.3 ms", "192.0.2.2:5353", "silent for 1 of 2 workers", "does not answer"):
        assert words in page
    node = snapshot["nodes"][0]["name"]
    assert f'nexoraldns_upstream_ill{{node="{node}",server="192.0.2.3"}} 2.0' in metrics
    assert f'nexoraldns_upstream_rtt_seconds{{node="{node}",server="192.0.2.1"}} 0.0123' in metrics


def test_trust_anchors_are_shown_by_key_and_state() -> None:
    """Page and metrics, for each key: since when, or from when on it is trusted, and what is wrong."""
    snapshot = status_snapshot.office(NOW)
    row = {"zone": ".", "tag": 20326, "algorithm": 8, "state": "valid", "since": 1790000000, "trusted_from": 0}
    snapshot["nodes"][0]["anchors"] = [
        row, {**row, "tag": 38696, "state": "addpend", "trusted_from": 1792592000},
        {**row, "tag": 1, "state": "revoked", "failure": "no <server> answers"},
    ]  # fmt: skip
    browser = client(snapshot)
    page, metrics, node = browser.get("/live").text, browser.get("/metrics").text, snapshot["nodes"][0]["name"]
    for tag, good in (("20326", "1.0"), ("38696", "0.0"), ("1", "0.0")):
        assert f'nexoraldns_trust_anchor_trusted{{key="{tag}",node="{node}",zone="."}} {good}' in metrics
    assert f'nexoraldns_trust_anchor_failing{{node="{node}",zone="."}} 1.0' in metrics
    for words in ("20326", "since 2026-09-21", "addpend", "trusted from 2026-10-21", "revoked: no &lt;server&gt; answers"):
        assert words in page


def test_explain_by_form() -> None:
    """The form's question is answered; a bad name is 400 with its sentence; without rules it says what to use."""
    def answer(name: str, qtype: str, asker: str) -> str:
        if name == "..":
            raise ValueError("it has an empty label")
        return f"{name} {qtype} {asker or 'anyone'} is blocked"

    browser = client(explain=answer)
    assert "ads.example A anyone is blocked" in browser.get("/explain", params={"name": " ads.example "}).text
    assert browser.get("/explain", params={"name": ".."}).status_code == 400
    assert "use `nexoraldns explain`" in client().get("/explain", params={"name": "a"}).text


def test_missing_page_says_where_to_go() -> None:
    """An unknown address is 404 in words."""
    response = client().get("/nowhere")

    assert (response.status_code, "status page is at /" in response.text) == (404, True)


@pytest.mark.parametrize(
    ("value", "text"),
    [("2026-03-02T14:01:58Z", "just now"), ("2026-03-02T13:48:00Z", "14 min ago"), (NOW.timestamp() - 7300, "2 h ago"),
     ((NOW.timestamp() - 86400) * 1000, "1 day ago"), ("2026-03-03T00:00:00", "in the future"), ("soon", ""),
     (None, "")],
)  # fmt: skip
def test_times_in_any_form(value: object, text: str) -> None:
    """RFC 3339, seconds and milliseconds are read alike; nonsense is nothing."""
    assert values.when(value, NOW).text == text


def test_page_explains_the_live_table(tmp_path: pathlib.Path) -> None:
    """Without another explainer, /explain asks the table that the broker has on disk, also after it was replaced."""
    config = settings.load({"state": str(tmp_path / "state")}, str(tmp_path), {})
    browser = client({}, node_settings=config)
    question = {"name": "ads.example", "client": "10.1.2.3"}
    refused = browser.get("/explain", params=question)
    assert (refused.status_code, "no live table" in refused.text) == (400, True)

    for generation, name in ((1, "ads"), (2, "more-ads")):
        publish(tmp_path, config, generation, name)
        text = html.unescape(browser.get("/explain", params=question).text)
        assert f"→ block  {name}" in text
        assert f"revision main@sha1:{generation}" in text

    for bad in ({"name": "a b"}, {"name": "a", "type": "QQ"}, {"name": "a", "client": "me"}):
        assert browser.get("/explain", params=bad).status_code == 400


def publish(tmp_path: pathlib.Path, config: settings.Settings, generation: int, name: str) -> None:
    """Lay a release down as the broker does."""
    (tmp_path / "rules.yaml").write_text(
        f"version: 1\nrules: [{{name: {name}, block: [ads.example]}}]\nforward: {{.: 192.0.2.53}}\n"
    )
    blobs = subject.from_path(str(tmp_path / "rules.yaml")).blobs
    folder = pathlib.Path(config.state, "broker", "blobs")
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for kind, data in (("policy", blobs.policy), ("names", blobs.names)):
        digest = hashlib.sha256(data).hexdigest()
        (folder / digest).write_bytes(data)
        listed.append({"name": kind, "digest": digest, "size": len(data)})
    revision = {"short": f"main@sha1:{generation}"}
    release = {"generation": generation, "manifest": {"blobs": listed}, "revision": revision}
    (folder.parent / "active.json").write_text(json.dumps({"active": release}))

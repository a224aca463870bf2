"""Facts about the node's settings."""

import ipaddress

import pytest

from dnsd.contract import settings


def problems(mapping: dict, environ: dict | None = None) -> dict[str, str]:
    """The problems of one mapping, by key path."""
    with pytest.raises(settings.SettingsError) as caught:
        settings.load(mapping, "/etc/nexoraldns", environ or {})
    return dict(caught.value.problems)


def test_defaults() -> None:
    """Without a file the defaults of the design hold, and all paths are absolute."""
    s = settings.load(None, "/work", {})
    assert s.listen == ("127.0.0.1:5335",)
    assert (s.workers, s.user, s.state) == (0, None, "/work/.nexoraldns")
    assert (s.source.directory, s.source.git) == ("/work/rules.d", None)
    assert (s.broker.listen, s.broker.connect, s.broker.keys) == (
        "127.0.0.1:5338", "127.0.0.1:5338", "/work/.nexoraldns/broker.keys")  # fmt: skip
    assert s.status.listen == "127.0.0.1:8053"
    assert ipaddress.ip_network("10.0.0.0/8") in s.allow
    assert (s.cache.size_bytes, s.cache.max_ttl_s, s.querylog.keep_s) == (64 << 20, 86400, 604800.0)


def test_the_designs_example_is_accepted() -> None:
    """Every key of the design's example is known; a git source excludes the default directory."""
    s = settings.load(
        {
            "listen": ["127.0.0.1:5335", "[::1]:5335", "eth0:53", "*:53"],
            "workers": "auto",
            "source": {"git": {"url": "dns-rules.git", "poll": "30s", "signatures": {"mode": False}}},
            "resolver": {"root_hints": "builtin", "signature_skew": "1h", "edns_size": 1232, "dnssec": True},
            "cache": {"size": "8MiB", "min_ttl": "0s", "max_ttl": "1d", "persist": False},
            "querylog": {"privacy": "full", "keep": "7d"},
            "user": None,
        },
        "/srv",
        {},
    )
    assert s.source.directory is None and s.source.git is not None
    assert (s.source.git.url, s.source.git.ref, s.source.git.poll_s) == ("/srv/dns-rules.git", "main", 30.0)
    assert s.cache.size_bytes == 8 << 20


@pytest.mark.parametrize("url", ["https://git.example/r.git", "git@git.example:r.git", "file:///srv/r.git"])
def test_remote_urls_stay(url: str) -> None:
    """Only a path on this machine is made absolute."""
    source = settings.load({"source": {"git": {"url": url}}}, "/srv", {}).source.git
    assert source is not None and source.url == url


def test_variables_override() -> None:
    """A variable wins over the file, and a source in a variable replaces the file's source."""
    s = settings.load(
        {"listen": ["127.0.0.1:1"], "source": {"directory": "a"}},
        "/w",
        {
            "NEXORALDNS_LISTEN": "127.0.0.1:2, [::1]:2",
            "NEXORALDNS_SOURCE_GIT_URL": "/srv/r.git",
            "NEXORALDNS_CACHE_PERSIST": "false",
            "NEXORALDNS_WORKERS": "2",
            "NEXORALDNS_CONFIG": "/x",
        },
    )
    assert s.listen == ("127.0.0.1:2", "[::1]:2") and s.workers == 2
    assert s.source.directory is None and s.source.git is not None


def test_all_problems_at_once() -> None:
    """Everything wrong is told in one go, each under its key."""
    found = problems(
        {
            "lisen": [],
            "listen": ["127.0.0.1"],
            "workers": 0,
            "allow": ["10.0.0.1/8"],
            "cache": {"size": "lots", "min": 1},
            "source": {"git": {"ref": "main"}, "directory": "x"},
            "broker": {"listen": "0.0.0.0:5338"},
            "querylog": {"privacy": "prefix"},
        },
        {"NEXORALDNS_WORKER": "1"},
    )
    assert "did you mean 'listen'" in found["lisen"]
    assert "has no port" in found["listen.0"]
    assert "1 to 256" in found["workers"]
    assert "did you mean 10.0.0.0/8" in found["allow.0"]
    assert "is not a size" in found["cache.size"]
    assert "unknown setting" in found["cache.min"]
    assert "not both" in found["source.directory"]
    assert "needs a url" in found["source.git.ref"]
    assert "needs TLS" in found["broker.listen"]
    assert "not in this version" in found["querylog.privacy"]
    assert "NEXORALDNS_WORKERS" in found["NEXORALDNS_WORKER"]


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:53", "127.0.0.1", 53), ("[::1]:5335", "::1", 5335), ("eth0:53", "eth0", 53), ("*:53", "*", 53)],
)
def test_listen_texts(text: str, host: str, port: int) -> None:
    """The four forms of a listen address split into host and port."""
    assert settings.split_listen(text) == (host, port)


@pytest.mark.parametrize("text", ["::1:53", "127.0.0.1", ":53", "1.2.3:53", "a b:53", "[::1]53", "[1.2.3.4]:53", "*:x"])
def test_bad_listen_texts(text: str) -> None:
    """Anything else is refused with a sentence."""
    with pytest.raises(ValueError, match=r"\S"):
        settings.split_listen(text)


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("1h30m", 5400), ("250ms", 0.25), (90, 90), ("7d", 604800)])
def test_durations(text: object, seconds: float) -> None:
    """Durations are numbers of seconds or units in a row."""
    assert settings.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5 minutes", "m5", "-1s", None, True, "1.5h"])
def test_bad_durations(text: object) -> None:
    """What is no duration is refused."""
    with pytest.raises(ValueError, match="is not a duration"):
        settings.duration(text)


def test_every_item_of_a_list_is_told() -> None:
    """Each address that cannot be used has its own sentence and place, not the first alone."""
    said = problems(
        {
            "listen": ["127.0.0.1:99999", "127.0.0.1:53", 5, "127.0.0.1", "127.0.0.1:53"],
            "allow": ["privat", "10.0.0.0/8", "10.0.0.1/8"],
            "resolver": {"root_hints": [{"name": "a", "addresses": ["192.0.2.1"]}, {"name": "b", "addresses": ["x"]}]},
        }
    )
    assert sorted(said) == ["allow.0", "allow.2", "listen.0", "listen.2", "listen.3", "listen.4", "resolver.root_hints.1"]
    assert said["listen.3"] == "'127.0.0.1' has no port; write 127.0.0.1:53"
    assert said["listen.4"] == "'127.0.0.1:53' is listed twice"
    assert problems({}, {"NEXORALDNS_LISTEN": "foo,bar"}) == {"NEXORALDNS_LISTEN": "'bar' has no port; write bar:53"}

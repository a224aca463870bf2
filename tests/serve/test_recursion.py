"""Settings made into a resolver, and the sockets of its questions."""

from __future__ import annotations

import pathlib
import time

import pytest

from dnsd.contract.settings import load
from dnsd.resolve.forwarder import UDP, Ask, Reply, query
from dnsd.serve import recursion
from dnsd.serve.loop import Loop
from dnsd.serve.upstream import Upstream
from tests.serve.nameserver import nameserver


def test_every_setting_reaches_the_resolver() -> None:
    """Each key of `resolver` that steers resolving is what the resolver works with."""
    keys = {
        "qname_minimisation": False, "case_randomisation": False, "priming": False, "use_ipv6": False,
        "prefer": "ipv4", "query_localhost": True, "harden_glue": False, "edns_size": 600, "special_use": False,
    }  # fmt: skip
    hint = [{"name": "ns.lab", "addresses": ["192.0.2.1"]}]
    made = recursion.resolver(load({"resolver": {**keys, "root_hints": hint}}, "/", {}), 2)
    for key, value in keys.items():
        if key not in ("special_use", "prefer"):
            assert getattr(made.config, key) is value or getattr(made.config, key) == value, key
    assert made.config.special == frozenset() and made.config.use_ipv4 and made.config.prefer == 4
    assert made.hints == ((b"\x02ns\x03lab\x00", ("192.0.2.1",)),)
    assert recursion.resolver(load(None, "/", {}), 2).config.at_home(b"\x01x\x05local\x00")


def test_a_file_of_hints_is_read_once(tmp_path: pathlib.Path) -> None:
    """The file becomes pairs before anybody forks; one that cannot be read is refused with its name."""
    (tmp_path / "root").write_text(". NS ns.lab.\nns.lab. A 192.0.2.1\n")
    settings = load({"resolver": {"root_hints": "root"}}, str(tmp_path), {})
    assert recursion.with_hints(settings).resolver.root_hints == (("ns.lab", ("192.0.2.1",)),)
    for text in (None, "nonsense\n", ". NS ns.lab.\n"):
        (tmp_path / "root").unlink()
        if text is not None:
            (tmp_path / "root").write_text(text)
        with pytest.raises(recursion.HintsError, match="root"):
            recursion.with_hints(settings)
        (tmp_path / "root").touch()


def test_each_question_has_a_port_of_its_own() -> None:
    """A fresh ask uses a socket that nobody else uses, and closes it with the answer, the timeout or the error."""
    loop = Loop()
    counters = memoryview(bytearray(1024)).cast("Q")
    upstream = Upstream(loop, counters, lambda: time.monotonic_ns() // 1_000_000)
    replies: list[Reply] = []

    def until(count: int) -> None:
        deadline = time.monotonic() + 3
        while len(replies) < count and time.monotonic() < deadline:
            loop.run_once(0.02, lambda: None)
            upstream.expire(time.monotonic_ns() // 1_000_000)
        assert len(replies) == count

    with nameserver() as server:
        for number in range(20):
            upstream.ask(
                Ask(server.address, query(b"\x01a\x00", 1, 1, False, False), UDP, 1000, fresh=True), replies.append
            )
            until(number + 1)
        assert len({port for _, _, port in server.questions}) == 20
    with nameserver(lambda wire, transport: None) as silent:
        upstream.ask(Ask(silent.address, query(b"\x01a\x00", 1, 1, False, False), UDP, 50, fresh=True), replies.append)
        until(21)
    upstream.ask(Ask(silent.address, query(b"\x01a\x00", 1, 1, False, False), UDP, 500, fresh=True), replies.append)
    until(22)
    assert [reply.error for reply in replies[-2:]] == ["timeout", "unreachable"]
    assert not upstream._sockets and upstream.pending == 0
    upstream.close()
    loop.close()

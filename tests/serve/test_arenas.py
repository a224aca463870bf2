"""What the answer caches' memory outlives: a worker, and the node when it is to; and what is never believed."""

from __future__ import annotations

import pathlib
from typing import Any

import dns.message
import dns.rrset
import pytest

from dnsd.contract import names
from dnsd.contract.query import question
from dnsd.contract.settings import load
from dnsd.resolve.cache import Cache
from dnsd.resolve.message import read
from dnsd.serve import arenas as arenas_module
from dnsd.serve.arenas import Arenas

NOW = 1_800_000_000


class _Log:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def info(self, event: str, **values: Any) -> None:
        """Note it."""
        self.said.append(f"{event} {values}")

    warning = info


def _arenas(folder: pathlib.Path, slots: int = 2, **settings: Any) -> tuple[Arenas, _Log]:
    log = _Log()
    mapping = {"state": str(folder), "cache": {"size": "4MiB", "persist": True}, **settings}
    return Arenas(load(mapping, "/", {}), slots, log), log


def _put(arena: Any, number: int) -> None:
    name = names.from_text(f"n{number}.example")
    query = question(name, 1, bytes(16))
    query.seed_policy = 1
    query.hash()
    response = dns.message.make_response(dns.message.make_query(f"n{number}.example", "A"))
    response.answer.append(dns.rrset.from_text(f"n{number}.example.", 300, "IN", "A", f"192.0.2.{number % 250}"))
    assert Cache(arena).store(name, query.hash_policy[0], 1, 0, 7, read(response.to_wire()), NOW, 300)


def _known(arena: Any, now: int = NOW + 5) -> int:
    cache = Cache(arena)
    return sum(cache.entry_at(at)[6] > now for at in cache.entries(names.ROOT, True))


def test_what_was_saved_is_there_again_once(tmp_path: pathlib.Path) -> None:
    """Every arena as it was, and the reviews forgotten; the files are gone, so that an old picture never comes back."""
    arenas, _ = _arenas(tmp_path)
    for number in range(500):
        _put(arenas.arenas[number % 2], number)
    cache = Cache(arenas.arenas[0])
    (at,) = cache.entries(names.from_text("n4.example"))
    memoryview(arenas.arenas[0]).cast("I")[at + 14] = 9
    arenas.save(NOW * 1000)
    assert sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()) < 400_000  # only what is used
    later, _ = _arenas(tmp_path)
    assert later.load(NOW * 1000 + 1) == 500
    assert [_known(arena) for arena in later.arenas] == [250, 250]
    again = Cache(later.arenas[0])
    (at,) = again.entries(names.from_text("n4.example"))
    assert memoryview(later.arenas[0]).cast("I")[at + 14] == 0 and again.entry_at(at)[:2] == (names.from_text("n4.example"), 1)
    assert not list((tmp_path / "cache").iterdir())
    assert _arenas(tmp_path)[0].load(NOW * 1000) == 0


@pytest.mark.parametrize("why", ["damaged", "cut", "settings", "size", "clock", "slots", "off", "release"])
def test_what_may_be_wrong_is_not_used(tmp_path: pathlib.Path, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One octet else, a part of a file, other settings, another size or release, a clock that was set back: nothing."""
    arenas, _ = _arenas(tmp_path)
    for number in range(10):
        _put(arenas.arenas[0], number)
    arenas.save(NOW * 1000)
    path = tmp_path / "cache" / "answers-0"
    data = bytearray(path.read_bytes())
    if why == "damaged":
        data[len(data) // 2] ^= 1
    path.write_bytes(data[: len(data) // 2] if why == "cut" else data)
    changed: dict[str, Any] = {
        "settings": {"resolver": {"dnssec": False}}, "size": {"cache": {"size": "8MiB", "persist": True}},
        "off": {"cache": {"size": "4MiB"}},
    }.get(why, {})  # fmt: skip
    if why == "release":
        monkeypatch.setattr(arenas_module, "_FORM", ("another",))
    later, log = _arenas(tmp_path, 3 if why == "slots" else 2, **changed)
    assert later.load(NOW * 1000 - (5 if why == "clock" else 0)) == 0
    assert _known(later.arenas[0]) == 0
    assert not path.exists() and (why == "off" or any("not used" in line for line in log.said))


def test_a_torn_arena_is_neither_saved_nor_adopted(tmp_path: pathlib.Path) -> None:
    """A worker that was killed in the midst of a store leaves a mark: its successor begins anew, and nothing is kept."""
    arenas, _ = _arenas(tmp_path)
    _put(arenas.arenas[0], 1)
    _put(arenas.arenas[1], 2)
    memoryview(arenas.arenas[0]).cast("I")[5] = 1
    arenas.save(NOW * 1000)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["answers-1"]
    assert _known(arenas.arenas[0]) == 0 and _known(arenas.arenas[1]) == 1


def test_a_disk_that_refuses_costs_the_cache_only(tmp_path: pathlib.Path) -> None:
    """Where nothing can be written a line in the log says so, and nothing is raised."""
    (tmp_path / "cache").write_text("in the way")
    arenas, log = _arenas(tmp_path)
    _put(arenas.arenas[0], 1)
    arenas.save(NOW * 1000)
    assert any("cannot be kept" in line for line in log.said)

"""What changes without a release: layout, gates, clock changes."""

import datetime
import ipaddress
import json
import math
import zoneinfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnsd.contract import facts

AMSTERDAM = zoneinfo.ZoneInfo("Europe/Amsterdam")


def at(text: str, fold: int = 0) -> float:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=AMSTERDAM, fold=fold).timestamp()


def window(start: str, end: str, days: str = "0123456", zone: str = "Europe/Amsterdam") -> dict[str, object]:
    def minutes(text: str) -> int:
        return int(text[:2]) * 60 + int(text[3:])

    return {"weekdays": [int(d) for d in days], "start": minutes(start), "end": minutes(end), "timezone": zone}


def full() -> facts.Facts:
    nets = [ipaddress.ip_network(n) for n in ("10.0.0.0/8", "10.128.0.0/9", "11.0.0.0/8", "127.0.0.0/8", "fc00::/7")]
    v4, v6 = facts.intervals(nets)
    return facts.Facts(
        version=2**40 + 3,
        gates=b"\x01\x00\x01",
        flags=facts.FLAG_SPECIAL_USE,
        v4=v4,
        v6=v6,
        own=(facts.packed("2001:db8::1"), facts.packed("2001:db8::2")),
        overrides=((facts.packed("10.0.0.9"), 4),),
        lease=((facts.packed("10.0.0.1"), 53, 0), (facts.packed("fe80::1"), 5353, 4)),
        generation=7,
        next_gates=b"\x00\x01",
        next_generation=2**33,
        self_addresses=(facts.packed("10.0.0.2"), facts.packed("2001:db8::1")),
    )


def test_round_trip() -> None:
    """Encoded facts decode to the same value."""
    assert facts.decode(facts.encode(full())) == full()
    assert facts.decode(facts.encode(facts.Facts())) == facts.Facts()


def test_layout_is_what_the_compiled_reader_reads() -> None:
    """The header's words stand where the module says, little-endian, with 8-aligned sections."""
    data = facts.encode(full())

    def word(number: int) -> int:
        return int.from_bytes(data[number * 4 : number * 4 + 4], "little")

    assert data[:4] == b"FACT" and word(1) == 2 and word(2) == len(data)
    assert word(3) | word(4) << 32 == 2**40 + 3
    assert data[word(6) : word(6) + word(5)] == b"\x01\x00\x01"
    assert word(7) == 2 and data[word(8) : word(8) + 8] == bytes.fromhex("0000000a ffffff0b".replace(" ", ""))
    assert data[word(10) : word(10) + 32] == bytes.fromhex("fc" + "00" * 15 + "fd" + "ff" * 15)
    assert all(word(n) % 8 == 0 for n in (6, 8, 10, 12, 14, 17, 19, 25))
    assert (word(20), word(21), word(22), word(23)) == (7, 0, 0, 2)
    assert data[word(19) : word(19) + word(18)] == b"\x00\x01"
    assert word(15) == facts.FLAG_SPECIAL_USE
    assert data[word(17) + 20 : word(17) + 40] == facts.packed("fe80::1") + bytes.fromhex("e9140400")
    assert word(24) == 2 and data[word(25) : word(25) + 16] == facts.packed("10.0.0.2")


def test_adjacent_networks_become_one_interval() -> None:
    """10/8, a part of it, and 11/8 are one interval; families are kept apart."""
    assert full().v4 == ((10 << 24, (12 << 24) - 1), (127 << 24, (128 << 24) - 1))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_bytes_decode_or_raise_facts_error(data: st.DataObject) -> None:
    """Damaged facts either decode to something well-formed or raise FactsError, nothing else."""
    image = bytearray(facts.encode(full()))
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(image)))
    for image_ in (bytes(image), bytes(image[:cut])):
        try:
            facts.decode(image_)
        except facts.FactsError:
            pass


def test_what_cannot_be_encoded_is_refused() -> None:
    """Unsorted, overlapping, wrongly sized or too many facts raise FactsError."""
    for bad in (
        facts.Facts(v4=((5, 4),)),
        facts.Facts(v4=((1, 5), (5, 6))),
        facts.Facts(own=(b"\x01" * 16, b"\x00" * 16)),
        facts.Facts(own=(b"\x01" * 15,)),
        facts.Facts(gates=b"\x02"),
        facts.Facts(self_addresses=(facts.packed("2001:db8::1"), facts.packed("10.0.0.2"))),
        facts.Facts(lease=((facts.packed("10.0.0.1"), 53, 2**16),)),
        facts.Facts(overrides=((b"\x01" * 16, 2**32),)),
        facts.Facts(gates=b"\x01" * facts.LIMIT),
    ):
        with pytest.raises(facts.FactsError):
            facts.encode(bad)


def test_addresses_pack_and_unpack() -> None:
    """IPv4 travels as ::ffff:0:0/96 and comes back as IPv4."""
    for text in ("192.0.2.7", "2001:db8::7", "::1"):
        assert str(facts.unpacked(facts.packed(text))) == text


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2026-03-02T08:59:59", False),  # a Monday
        ("2026-03-02T09:00:00", True),
        ("2026-03-02T16:59:59", True),
        ("2026-03-02T17:00:00", False),
        ("2026-03-07T12:00:00", False),  # a Saturday
    ],
)
def test_office_hours(moment: str, expected: bool) -> None:
    """A window holds from its first to before its last minute, on its weekdays, in its own zone."""
    assert facts.is_open([window("09:00", "17:00", "01234")], at(moment)) is expected


def test_over_midnight_belongs_to_the_day_it_starts() -> None:
    """Friday 22:00 to 06:00 is open on Saturday at 05:59 and closed on Friday at 05:59."""
    friday = [window("22:00", "06:00", "4")]
    assert facts.is_open(friday, at("2026-03-06T22:00")) and facts.is_open(friday, at("2026-03-07T05:59"))
    assert not facts.is_open(friday, at("2026-03-06T05:59")) and not facts.is_open(friday, at("2026-03-07T22:00"))


def test_round_the_clock_and_end_of_day() -> None:
    """Equal start and end mean 24 hours; an end of 24:00 closes at midnight."""
    assert facts.is_open([window("08:00", "08:00", "0")], at("2026-03-03T07:59"))
    day = [{"weekdays": [0], "start": 0, "end": 1440, "timezone": "Europe/Amsterdam"}]
    assert facts.is_open(day, at("2026-03-02T23:59:59")) and not facts.is_open(day, at("2026-03-03T00:00"))


def test_clock_changes_follow_the_wall_clock() -> None:
    """A skipped hour opens nothing, what ends in it ends at the jump, and a repeated hour opens twice."""
    # 2026-03-29 02:00 becomes 03:00; 2026-10-25 03:00 becomes 02:00.
    skipped = [window("02:15", "02:45")]
    jump = at("2026-03-29T03:00")
    assert not any(facts.is_open(skipped, jump + s) for s in (-1, 0, 900, 1800))
    _, flip = facts.gates([{"windows": [window("01:30", "02:30")]}], jump - 600)
    assert flip == jump
    repeated = [window("02:15", "02:45")]
    assert facts.is_open(repeated, at("2026-10-25T02:30")) and facts.is_open(repeated, at("2026-10-25T02:30", fold=1))


def test_gates_in_order_with_the_next_flip() -> None:
    """Schedules and expiries keep the table's order; the next flip is the earliest of all."""
    now = at("2026-03-02T08:30")
    entries = [
        {"expires": int(now) + 86400},
        {"schedule": "office", "windows": [window("09:00", "17:00")]},
        {"expires": int(now)},
        {"schedule": "never", "windows": []},
        {"schedule": "both", "windows": [window("08:00", "17:00")], "expires": int(now) + 60},
    ]
    assert facts.gates(entries, now) == (b"\x01\x00\x00\x00\x01", now + 60)
    assert facts.gates(entries[:4], now) == (b"\x01\x00\x00\x00", at("2026-03-02T09:00"))
    assert facts.gates([{"expires": 5}], now) == (b"\x00", math.inf)
    assert facts.gates_from_json(json.dumps({"gates": entries}).encode(), now)[0] == b"\x01\x00\x00\x00\x01"


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10 * 365 * 86400),
    st.integers(0, 1439),
    st.integers(0, 1440),
    st.sampled_from(["Europe/Amsterdam", "America/St_Johns", "Australia/Lord_Howe", "UTC", "Asia/Kathmandu"]),
)
def test_no_flip_is_missed(offset: int, start: int, end: int, zone: str) -> None:
    """Nothing changes before the second that `gates` names, and either something does then or an hour has passed."""
    now = 1_700_000_000 + offset
    windows = [{"weekdays": [0, 2, 5], "start": start, "end": end, "timezone": zone}]
    first, flip = facts.gates([{"windows": windows}], now)
    assert now < flip <= now + 3600
    for second in range(now, int(flip), 97):
        assert facts.is_open(windows, second) == bool(first[0])
    assert facts.is_open(windows, flip - 1) == bool(first[0])
    assert flip == now + 3600 or facts.is_open(windows, flip) != bool(first[0])


def test_unknown_zone_and_bad_schedules_are_said() -> None:
    """A zone that this machine lacks, and text that is no schedule, raise FactsError with what to do."""
    with pytest.raises(facts.FactsError, match="tzdata"):
        facts.gates([{"windows": [window("01:00", "02:00", zone="Mars/Olympus")]}], 0)
    for bad in (b"{", b"[]", b'{"gates": [{"windows": [{}]}]}', b'{"gates": [5]}', b'{"gates": [{"expires": "x"}]}'):
        with pytest.raises(facts.FactsError):
            facts.gates_from_json(bad, 0)

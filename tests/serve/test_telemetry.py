"""Rings and counters as the agent reads them."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dnsd.contract import codes, facts, names
from dnsd.serve import telemetry

QNAME = names.from_text("ads.example")


def ring(records: int = 8) -> memoryview:
    return memoryview(bytearray(telemetry.HEADER_BYTES + records * telemetry.RECORD_BYTES))


def record(ring: memoryview, number: int, *, sequence: int | None = None, **more: Any) -> None:
    """Write record `number` as the compiled path does: the body, its sequence, then the count."""
    values = {"rule": 0, "list": 0, "where": 0, "generation": 1, "qname": QNAME, **more}
    at = telemetry.HEADER_BYTES + number % ((len(ring) - 64) // 320) * 320
    struct.pack_into("<Q16sHBBHBBIIIIQB", ring, at + 8, 1_700_000_000_000 + number, facts.packed("10.0.0.7"),
                     1, codes.STAGE_POLICY, codes.ACTION_NXDOMAIN, 3, 0, 1, values["rule"], values["list"],
                     values["where"], 42, values["generation"], len(values["qname"]))  # fmt: skip
    ring[at + 65 : at + 65 + len(values["qname"])] = values["qname"]
    struct.pack_into("<Q", ring, at, number + 1 if sequence is None else sequence)
    struct.pack_into("<Q", ring, 0, number + 1)


class Names:
    """Provenance of a table with one of each."""

    def rule_name(self, number: int) -> str:
        return ("no-ads",)[number]

    def list_name(self, number: int) -> str:
        return ("oisd",)[number]

    def where_text(self, number: int) -> str:
        return ("rules.d/a.yaml:7",)[number]


def test_a_record_is_read_as_it_was_written() -> None:
    """Every field stands where the layout says."""
    here = ring()
    reader = telemetry.RingReader(here)
    record(here, 0, rule=1, list=1, where=1, generation=9)
    (decision,) = reader.read(10)
    row = telemetry.describe(decision, {9: Names()})
    assert row == {
        "time_ms": 1_700_000_000_000, "client": "10.0.0.7", "qname": "ads.example", "qtype": "A", "stage": "policy",
        "action": "nxdomain", "rcode": "NXDOMAIN", "proto": "udp", "cached": True, "rule": "no-ads", "list": "oisd",
        "where": "rules.d/a.yaml:7", "latency_us": 42, "generation": 9,
    }  # fmt: skip
    assert reader.read(10) == [] and reader.dropped == 0


def test_an_overrun_counts_what_was_lost() -> None:
    """A writer that laps the reader costs the oldest decisions, and each of them is counted."""
    here = ring(8)
    reader = telemetry.RingReader(here)
    for number in range(20):
        record(here, number)
    read = reader.read(5)
    assert [d.wall_ms - 1_700_000_000_000 for d in read] == [15, 16, 17, 18, 19] and reader.dropped == 15


def test_a_record_that_is_being_written_is_not_believed() -> None:
    """A sequence that is not the record's own means that the writer is in there: dropped, not shown."""
    here = ring()
    reader = telemetry.RingReader(here)
    record(here, 0, sequence=9)
    record(here, 1, qname=b"\x40broken")
    assert reader.read(10) == [] and reader.dropped == 2


def test_privacy_leaves_clients_out() -> None:
    """`prefix` keeps the network, anything but `full` hides the host."""
    here = ring()
    reader = telemetry.RingReader(here)
    record(here, 0)
    (decision,) = reader.read(1)
    assert telemetry.describe(decision, {}, "prefix")["client"] == "10.0.0.0/24"
    assert telemetry.describe(decision, {}, "none")["client"] == ""


def test_numbers_of_another_table_are_left_out() -> None:
    """A decision whose numbers the table does not have is shown without names, not as an error."""
    here = ring()
    reader = telemetry.RingReader(here)
    record(here, 0, rule=77, where=5)
    (decision,) = reader.read(1)
    assert telemetry.describe(decision, {1: Names()})["rule"] == ""


@given(st.binary(min_size=320, max_size=320), st.integers(0, 2**64 - 1))
def test_any_bytes_in_a_ring_are_read_or_dropped(octets: bytes, written: int) -> None:
    """Whatever a broken writer leaves, reading it gives decisions that can be shown, or drops."""
    here = ring(2)
    here[64:384] = octets
    struct.pack_into("<Q", here, 64, 1)
    reader = telemetry.RingReader(here, from_start=True)
    struct.pack_into("<Q", here, 0, 1)
    for decision in reader.read(10):
        telemetry.describe(decision, {decision.generation: Names()})
    struct.pack_into("<Q", here, 0, written)
    reader.read(10)


def test_totals_add_up_all_slots() -> None:
    """Counters of all slots are added by name."""
    slots = [memoryview(bytearray(8 * codes.COUNTERS)).cast("Q") for _ in range(3)]
    for n, slot in enumerate(slots):
        slot[codes.COUNT_BLOCKED] = n + 1
    assert telemetry.totals(slots)["blocked"] == 6 and telemetry.totals(slots)["nxdomain"] == 0


def test_what_workers_know_of_upstream_servers_is_put_together() -> None:
    """By server: how many asked it, for how many it is ill; a slot that says nonsense counts as silent."""
    rows = telemetry.upstreams(
        [b'[["192.0.2.1",53,0,2000],["2001:db8::1",5353,2,0]]', b'[["192.0.2.1",53,1,4000]]', b"", b"[[1]", b"[[1]]"]
    )
    assert rows == [
        {"server": "192.0.2.1", "workers": 2, "ill": 1, "failures": 1, "rtt_us": 3000},
        {"server": "[2001:db8::1]:5353", "workers": 1, "ill": 1, "failures": 2, "rtt_us": 0},
    ]

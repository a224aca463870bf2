"""The layout of the memory that supervisor, agent and workers share.

One anonymous `MAP_SHARED` mapping, made by the supervisor before its first fork and inherited by
everybody. Each word has one writer; this file knows who it is and where it lies, and nothing about
what the counters, the decisions or the facts mean.

    0      u64 committed generation (writer: agent)
    8      u64 version of the facts (writer: agent)
    16     u64 the agent's heartbeat, monotonic ms (writer: agent; supervisor: 0 when it forks one)
    64     two halves of 64 KiB for the facts: u32 length, u32 CRC-32, bytes
    ...    per slot: u64 state, pid, generation, heartbeat ms; 32 bytes digest
    ...    per slot: u64 counters, `codes.COUNTERS` of them
    ...    per slot: the decision ring, 64 bytes of header and 4096 records of 320
    ...    per slot: what its worker knows of upstream servers, 4 KiB: u32 length, u32 CRC-32, bytes
"""

import mmap
import secrets
import zlib

from dnsd.contract import codes

DEAD = 0  # no process, or one that nobody may count on
STARTING = 1  # forked; does not read its sockets yet
SERVING = 2  # reads its sockets

FACTS_BYTES = 64 * 1024  # one half, its 8 octets of header included
RING_RECORD_BYTES = 320
RING_RECORDS = 4096
RING_BYTES = 64 + RING_RECORDS * RING_RECORD_BYTES

UPSTREAMS_BYTES = 4096

_SLOT_BYTES = 64
_FACTS_AT = 64
_SLOTS_AT = _FACTS_AT + 2 * FACTS_BYTES
_COUNTER_BYTES = -(-codes.COUNTERS * 8 // 64) * 64
_STATE, _PID, _GENERATION, _HEARTBEAT = 0, 1, 2, 3
_READ_ATTEMPTS = 1000  # a writer holds a half for microseconds; more means memory that is not ours


class SharedMemory:
    """The page that a node's processes share; `slots` is the number of worker slots."""

    def __init__(self, slots: int) -> None:
        if slots < 1:
            raise ValueError("a node has at least one worker slot")
        self.slots = slots
        # Of DNS cookies: forked workers have the same one, and nobody else ever needs it.
        self.cookie_secret = secrets.token_bytes(16)
        counters_at = _SLOTS_AT + slots * _SLOT_BYTES
        rings_at = counters_at + slots * _COUNTER_BYTES
        upstreams_at = rings_at + slots * RING_BYTES
        total = upstreams_at + slots * UPSTREAMS_BYTES
        self._map = mmap.mmap(-1, total, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
        view = memoryview(self._map)
        self.committed: memoryview = view[0:8].cast("Q")
        self.watched: memoryview = view[0:16].cast("Q")  # committed generation, version of the facts
        self._version: memoryview = view[8:16].cast("Q")
        self.agent_beat: memoryview = view[16:24].cast("Q")
        self._halves = [view[_FACTS_AT + i * FACTS_BYTES : _FACTS_AT + (i + 1) * FACTS_BYTES] for i in range(2)]
        self._words: list[memoryview] = []
        self._digests: list[memoryview] = []
        self._counters: list[memoryview] = []
        self._rings: list[memoryview] = []
        self._upstreams: list[memoryview] = []
        for slot in range(slots):
            at = _SLOTS_AT + slot * _SLOT_BYTES
            self._words.append(view[at : at + 32].cast("Q"))
            self._digests.append(view[at + 32 : at + 64])
            at = counters_at + slot * _COUNTER_BYTES
            self._counters.append(view[at : at + codes.COUNTERS * 8].cast("Q"))
            at = rings_at + slot * RING_BYTES
            self._rings.append(view[at : at + RING_BYTES])
            at = upstreams_at + slot * UPSTREAMS_BYTES
            self._upstreams.append(view[at : at + UPSTREAMS_BYTES])

    # Facts: two halves, so that a reader of the newest one is disturbed only by the write after next.
    # The checksum replaces memory barriers, which plain Python does not have.

    @property
    def facts_version(self) -> int:
        """How often the facts have been written; 0 before the first time."""
        return int(self._version[0])

    def facts_write(self, data: bytes) -> int:
        """Replace the facts whole and return their version; the agent only. ValueError when they do not fit."""
        if len(data) > FACTS_BYTES - 8:
            raise ValueError(f"the facts have {len(data)} octets, the limit is {FACTS_BYTES - 8}")
        version = int(self._version[0]) + 1
        half = self._halves[version & 1]
        half[0:8] = len(data).to_bytes(4, "little") + zlib.crc32(data).to_bytes(4, "little")
        half[8 : 8 + len(data)] = data
        self._version[0] = version
        return version

    def facts_read(self) -> bytes:
        """The newest facts, b"" before the first write."""
        for _ in range(_READ_ATTEMPTS):
            version = int(self._version[0])
            if version == 0:
                return b""
            half = self._halves[version & 1]
            length = int.from_bytes(half[0:4], "little")
            if length > FACTS_BYTES - 8:
                continue
            checksum = int.from_bytes(half[4:8], "little")
            data = bytes(half[8 : 8 + length])
            if zlib.crc32(data) == checksum and int(self._version[0]) == version:
                return data
        raise RuntimeError("the facts in shared memory do not hold still")

    # Slots. Supervisor: `starting`, `dead`. The slot's worker: `serving`, `install`, `beat`.

    def starting(self, slot: int, pid: int, now_ms: int) -> None:
        """A worker has been forked into this slot; `now_ms` (monotonic) is its first heartbeat."""
        words = self._words[slot]
        words[_GENERATION] = 0
        self._digests[slot][:] = bytes(32)
        self._upstreams[slot][0:8] = bytes(8)
        words[_HEARTBEAT] = now_ms
        words[_PID] = pid
        words[_STATE] = STARTING

    def dead(self, slot: int) -> None:
        """Nobody reads this slot's sockets until a sibling or a replacement does."""
        words = self._words[slot]
        words[_STATE] = DEAD
        words[_PID] = 0
        words[_GENERATION] = 0
        self._digests[slot][:] = bytes(32)

    def serving(self, slot: int) -> None:
        """This slot's worker reads its sockets."""
        self._words[slot][_STATE] = SERVING

    def draining(self, slot: int) -> None:
        """This slot's worker has stopped reading its sockets and is about to leave."""
        self._words[slot][_STATE] = STARTING

    def install(self, slot: int, generation: int, digest: bytes) -> None:
        """What this slot's worker has mapped: the table's generation and the 32 octets of its digest."""
        self._digests[slot][:] = digest[:32].ljust(32, b"\x00")
        self._words[slot][_GENERATION] = generation

    def beat(self, slot: int, now_ms: int) -> None:
        """This slot's worker is alive at `now_ms` (monotonic)."""
        self._words[slot][_HEARTBEAT] = now_ms

    def state(self, slot: int) -> int:
        """DEAD, STARTING or SERVING."""
        return int(self._words[slot][_STATE])

    def slot_state(self, slot: int) -> tuple[int, int, int, int]:
        """State, pid, generation and last heartbeat (monotonic milliseconds) of a slot."""
        words = self._words[slot]
        return int(words[_STATE]), int(words[_PID]), int(words[_GENERATION]), int(words[_HEARTBEAT])

    def slot_digest(self, slot: int) -> bytes:
        """The digest of the table that this slot's worker has mapped; 32 zero octets for none."""
        return bytes(self._digests[slot])

    def counters(self, slot: int) -> memoryview:
        """The slot's counters, u64 each, by `codes.COUNT_*`; written by its worker only."""
        return self._counters[slot]

    def ring(self, slot: int) -> memoryview:
        """The slot's ring of decisions; written by its worker only."""
        return self._rings[slot]

    def upstreams_write(self, slot: int, data: bytes) -> None:
        """What this slot's worker knows of upstream servers; ValueError when it does not fit."""
        if len(data) > UPSTREAMS_BYTES - 8:
            raise ValueError(f"{len(data)} octets about upstream servers, the limit is {UPSTREAMS_BYTES - 8}")
        area = self._upstreams[slot]
        area[8 : 8 + len(data)] = data
        area[0:8] = len(data).to_bytes(4, "little") + zlib.crc32(data).to_bytes(4, "little")

    def upstreams_read(self, slot: int) -> bytes:
        """What `upstreams_write` wrote last; b"" before, and while it is being written."""
        area = self._upstreams[slot]
        length = int.from_bytes(area[0:4], "little")
        data = bytes(area[8 : 8 + length]) if length <= UPSTREAMS_BYTES - 8 else b""
        return data if zlib.crc32(data) == int.from_bytes(area[4:8], "little") else b""

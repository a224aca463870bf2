# cython: wraparound=True, annotation_typing=False
"""One forwarded question as a generator: server choice, retry, TCP, failover.

Pure: it yields `Ask` and is sent `Reply`; time comes with each reply, ids and ports are the asker's
business (`serve.upstream` writes a random id into octets 0 and 1 and pairs answers with `matches`).
"""

import dataclasses
import struct
from collections.abc import Generator, Sequence

from dnsd.contract import codes
from dnsd.resolve.upstreams import FAILOVER, RACE, RACERS, Server, Servers

EDNS_BYTES = 1232  # what we say we take over UDP (DNS flag day 2020)
BUDGET_MS = 5000  # a stub resolver has given up by then (resolv.conf(5), timeout)
SMALLEST_WAIT_MS = 50

_FLAG_RD = 0x0100
_FLAG_CD = 0x0010

UDP = "udp"
TCP = "tcp"


@dataclasses.dataclass(frozen=True)
class Ask:
    """Send `wire` (id 0) to `server` and wait at most `timeout_ms` for the answer to it.

    `fresh`: over UDP from a port of its own, used for nothing else (recursion asks servers that strangers choose).
    `rivals`: asked the same at the same time; the first answer holds, and the reply says whose it is.
    """

    server: Server
    wire: bytes
    transport: str
    timeout_ms: int
    fresh: bool = False
    rivals: tuple[Server, ...] = ()


@dataclasses.dataclass(frozen=True)
class Reply:
    """What became of an Ask, at `now_ms`: a paired response, or None and why (`timeout`, `unreachable`, `broken`).

    `server`: which of several has answered, or who answers an earlier question; None when only one was asked.
    """

    wire: bytes | None
    now_ms: int
    error: str = ""
    server: Server | None = None


@dataclasses.dataclass(frozen=True)
class Tried:
    """A question that somebody else has asked a server over UDP, with EDNS, at `began_ms`, and what became of it.

    `cased` is its name as it was written (`exchange.randomised`).
    """

    server: Server
    cased: bytes
    qtype: int
    began_ms: int
    reply: Reply


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The response, or None with the Extended DNS Error (RFC 8914) that tells the client why.

    `bogus`: there was an answer, and it was refused; then nothing older is served in its place. `fleeting`: not to be
    remembered as a whole, because parts of it are only as lasting as our table.
    """

    response: bytes | None
    ede: int = codes.EDE_NONE
    text: str = ""
    bogus: bool = False
    fleeting: bool = False


def query(sname: bytes, qtype: int, qclass: int, do: bool, cd: bool, edns: bool = True) -> bytes:
    """A question to an upstream server: id 0, RD set, one question, an OPT record (RFC 6891) unless told otherwise."""
    flags = _FLAG_RD | (_FLAG_CD if cd else 0)
    head = struct.pack("!HHHHHH", 0, flags, 1, 0, 0, 1 if edns else 0)
    wire = head + sname + struct.pack("!HH", qtype, qclass)
    if edns:
        wire += struct.pack("!BHHBBHH", 0, codes.TYPE_OPT, EDNS_BYTES, 0, 0, 0x8000 if do else 0, 0)
    return wire


def matches(asked: bytes, response: bytes) -> bool:
    """Whether a response answers this question (RFC 5452, section 9.1): QR, opcode, and the same question.

    The id is compared by the caller. A bare header is accepted from servers that could not read the question.
    """
    if len(response) < 12 or response[2] & 0xF8 != 0x80:
        return False
    if response[4] == 0 and response[5] == 0:
        rcode = response[3] & 0x0F
        return rcode in (codes.RCODE_FORMERR, codes.RCODE_NOTIMP, codes.RCODE_REFUSED, codes.RCODE_SERVFAIL)
    if response[4] != 0 or response[5] != 1:
        return False
    end = 12
    while asked[end]:
        end += 1 + asked[end]
    name_end = end + 1
    end = name_end + 4
    return (
        len(response) >= end
        and response[name_end:end] == asked[name_end:end]
        and response[12:name_end].lower() == asked[12:name_end].lower()  # length octets are no letters
    )


def first_patience_ms(servers: Sequence[Server], timeout_ms: int) -> int:
    """How long the first try waits: with no other server to ask, one lost packet must not cost the answer."""
    patience_ms = max(SMALLEST_WAIT_MS, timeout_ms // 3) if len(servers) == 1 else timeout_ms
    return min(patience_ms, BUDGET_MS)


def forward(
    sname: bytes,
    qtype: int,
    qclass: int,
    do: bool,
    cd: bool,
    servers: Sequence[Server],
    timeout_ms: int,
    known: Servers,
    now_ms: int,
    strategy: str = FAILOVER,
    tried: Server | None = None,
) -> Generator[Ask, Reply, Outcome]:
    """Ask one server after the other until one answers; `timeout_ms` is the patience for one server.

    `tried` has been asked by somebody else already: it comes first, and its reply is what is sent first. In a race up
    to four are asked at a time, those who live first; over TCP only who has said that there is more of its answer.

    The whole takes at most that times the number of servers, and at most 5 s. NOERROR and NXDOMAIN count as
    answers, and so does every rcode that is not a failure of the server itself.
    """
    if not servers:
        return Outcome(None, codes.EDE_NO_REACHABLE_AUTHORITY, "no upstream server is configured")
    deadline_ms = now_ms + min(BUDGET_MS, timeout_ms * len(servers))
    first = first_patience_ms(servers, timeout_ms)
    order = known.order(servers, now_ms, strategy)
    if tried in servers:
        order.sort(key=lambda server: server != tried)
    tries: list[tuple[Server, tuple[Server, ...], int]] = []
    if len(order) == 1:
        again_ms = max(SMALLEST_WAIT_MS, timeout_ms - first)
        tries = [(order[0], (), first), (order[0], (), again_ms)]
    elif strategy == RACE:
        if tried in servers:
            tries.append((order.pop(0), (), timeout_ms))
        while order:
            tries.append((order[0], tuple(order[1:RACERS]), timeout_ms))
            del order[:RACERS]
    else:
        tries = [(server, (), timeout_ms) for server in order]
    said: dict[Server, str] = {}
    for server, rivals, patience_ms in tries:
        left_ms = deadline_ms - now_ms
        if left_ms < SMALLEST_WAIT_MS:
            break
        if said.get(server) not in (None, "timeout"):
            continue  # it has spoken, or nobody listens there: asking again is no use
        reply, error = yield from _ask(
            server, rivals, sname, qtype, qclass, do, cd, min(patience_ms, left_ms), known, now_ms
        )
        now_ms = reply.now_ms
        if not error:
            return Outcome(_unjudged(reply.wire))
        for one in (reply.server,) if reply.server is not None else (server, *rivals):
            said[one] = error
            if reply.wire is None:
                known.failed(one, now_ms)
    network = all(word in ("unreachable", "broken") for word in said.values())
    ede = codes.EDE_NETWORK_ERROR if network else codes.EDE_NO_REACHABLE_AUTHORITY
    words = [f"{_printed(server)} {_PRINTED.get(word, word)}" for server, word in said.items()]
    return Outcome(None, ede, ", ".join(words))


def _unjudged(wire: bytes | None) -> bytes | None:
    """A response without AD: what an upstream thinks of it is not what we know (RFC 6840, section 5.7)."""
    if wire is None or not wire[3] & 0x20:
        return wire
    return wire[:3] + bytes((wire[3] & 0xDF,)) + wire[4:]


_PRINTED = {"timeout": "timed out", "unreachable": "unreachable", "broken": "broke the connection"}
_FAILURES = {codes.RCODE_SERVFAIL: "SERVFAIL", codes.RCODE_REFUSED: "REFUSED"}
_NOT_UNDERSTOOD = {codes.RCODE_FORMERR: "FORMERR", codes.RCODE_NOTIMP: "NOTIMP"}


def _ask(
    server: Server,
    rivals: tuple[Server, ...],
    sname: bytes,
    qtype: int,
    qclass: int,
    do: bool,
    cd: bool,
    patience_ms: int,
    known: Servers,
    now_ms: int,
) -> Generator[Ask, Reply, tuple[Reply, str]]:
    """Everything that one server is asked: over UDP, without EDNS when it chokes on it, over TCP when truncated.

    With rivals all of them are asked, and who answers first is the one that is asked on. Returns the last reply and ""
    for an answer, otherwise the word that says what is wrong with it.
    """
    deadline_ms = now_ms + patience_ms
    edns = not any(known.plain(one, now_ms) for one in (server, *rivals))
    transport = UDP
    winner: Server | None = None
    while True:
        wire = query(sname, qtype, qclass, do, cd, edns)
        wait_ms = max(SMALLEST_WAIT_MS, deadline_ms - now_ms)
        reply = yield Ask(server, wire, transport, wait_ms, rivals=rivals)
        took_ms, now_ms = reply.now_ms - now_ms, reply.now_ms
        late = reply.server is not None and not rivals  # an earlier question's answer: its time is not known here
        if reply.server is not None:
            winner = server = reply.server
        elif rivals and reply.wire is not None:
            winner = server
        if winner is not None:
            reply = Reply(reply.wire, now_ms, reply.error, winner)
        rivals = ()
        response = reply.wire
        if response is None:
            return reply, reply.error or "timeout"
        known.answered(server, took_ms if transport == UDP and not late else -1)
        rcode = response[3] & 0x0F
        if rcode in _NOT_UNDERSTOOD:
            if edns:
                edns = False
                if now_ms < deadline_ms:
                    continue
            return reply, _NOT_UNDERSTOOD[rcode]
        if rcode in _FAILURES:
            return reply, _FAILURES[rcode]
        if not edns and not known.plain(server, now_ms):
            known.is_plain(server, now_ms)  # the same question was understood without it
        if response[2] & 0x02:  # TC: the whole answer is only to be had over TCP (RFC 7766, section 5)
            if transport == TCP:
                return reply, "broken"
            transport = TCP
            if now_ms >= deadline_ms:
                return Reply(None, now_ms, "timeout", reply.server), "timeout"
            continue
        return reply, ""


def _printed(server: Server) -> str:
    host, port = server
    if port == 53:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

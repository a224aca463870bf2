"""The codec: vectors, the schema, octet by octet, and whatever somebody may send."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsd.contract import frames, keys, messages
from dnsd.contract.frames import Client, Frame, LoggedIn, Server, Welcomed
from dnsd.contract.keys import Key
from dnsd.contract.messages import FrameError

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"
VECTORS = json.loads((SCHEMAS / "vectors" / "broker.json").read_text())
SCHEMA = json.loads((SCHEMAS / "broker.schema.json").read_text())
PROTOCOL = (SCHEMAS / "PROTOCOL.md").read_text()
KEY = Key("node", ("node",), bytes(range(32)))
NUMBERS = {name: number for number, name in messages.NAMES.items()}
HAVE = {"generation": 0, "digest": None, "epoch": ""}
ACTIVE = {"active": {"generation": 0, "digest": None, "epoch": "e1"}, "newest": 0, "ping_ms": 5000}


def ends(role: str = "node", key: Key = KEY, known: Key = KEY) -> tuple[Client, Server]:
    client = Client(key, role, "w0", b"c" * 32, agent="dnsd", extra={"have": HAVE})
    return client, Server({known.id: known}, b"s" * 32, server="nexoraldns", epoch="e1")


def pair(role: str = "node") -> tuple[Client, Server]:
    key = Key(role, (role,), bytes(range(32)))
    client, server = ends(role, key, key)
    server.receive(client.data_to_send())
    client.receive(server.data_to_send())
    assert isinstance(server.receive(client.data_to_send())[0], LoggedIn)
    assert isinstance(client.receive(server.welcome(ACTIVE))[0], Welcomed)
    return client, server


def validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": SCHEMA["$defs"]})


def test_the_handshake_is_the_vectors() -> None:
    """Preface, CHALLENGE, HELLO and WELCOME are octet for octet those of the vectors and of PROTOCOL.md."""
    expected = VECTORS["handshake"]
    client, server = ends()
    preface = client.data_to_send()
    server.receive(preface)
    challenge = server.data_to_send()
    client.receive(challenge)
    hello = client.data_to_send()
    server.receive(hello)
    welcome = server.welcome(ACTIVE)
    assert preface.hex() == expected["preface"] and challenge.hex() == expected["challenge"]
    assert hello.hex() == expected["hello"] and welcome.hex() == expected["welcome"]
    for octets in (hello, welcome):
        assert octets[12:-32].decode() in PROTOCOL and octets[-32:].hex() in PROTOCOL
    assert challenge[12:].decode() in PROTOCOL and VECTORS["manifest"]["digest"] in PROTOCOL


@pytest.mark.parametrize("vector", VECTORS["frames"], ids=lambda vector: vector["name"])
def test_every_message_has_its_vector(vector: dict[str, Any]) -> None:
    """Each message encodes to its vector, reads back from it, and is what the schema says."""
    kind, name = NUMBERS[vector["name"]], vector["name"]
    octets = bytes.fromhex(vector["frame"])
    flags = {"response": vector["response"], "ignorable": vector["ignorable"]}
    if name == "DATA":
        payload = vector["offset"].to_bytes(8, "big") + bytes.fromhex(vector["data"])
        assert frames.encode_frame(kind, payload, vector["id"], **flags) == octets
        return
    payload = messages.encode(kind, vector["message"])
    assert frames.encode_frame(kind, payload, vector["id"], **flags) == octets
    assert messages.decode(kind, octets[12:]) == vector["message"]
    validator(name).validate(vector["message"])
    if octets.hex()[:26] == "00000002050000000000000" + "77b":
        assert octets.hex() in PROTOCOL


def test_vectors_cover_every_type() -> None:
    """No message type is without a vector."""
    shown = {vector["name"] for vector in VECTORS["frames"]} | {"CHALLENGE", "HELLO", "WELCOME"}
    assert shown == set(messages.NAMES.values())


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["why"])
def test_what_no_implementation_may_accept(case: dict[str, str]) -> None:
    """Payloads that the protocol forbids are refused with their code."""
    with pytest.raises(FrameError) as caught:
        messages.decode(NUMBERS[case["name"]], bytes.fromhex(case["payload"]))
    assert caught.value.code == case["code"]


def test_schema_and_code_know_the_same_fields() -> None:
    """Required fields of the schema are those that the codec demands, for every message."""
    for kind, fields in messages.FIELDS.items():
        definition = SCHEMA["$defs"][messages.NAMES[kind]]
        assert set(definition["required"]) == {field for field in fields if not field.endswith("?")}
        assert {field.rstrip("?") for field in fields} <= set(definition["properties"])
    assert set(SCHEMA["$defs"]) >= set(messages.NAMES.values()) - {"DATA"}


_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 2**54), st.text(max_size=5), st.just("a" * 64), st.just([]), st.just({}),
    st.just([5]), st.just([{"slot": 1}]), st.just([{"code": "x", "message": "y"}]), st.just({"generation": -1}),
)  # fmt: skip


@given(st.sampled_from([v for v in VECTORS["frames"] if v["name"] != "DATA" and v["message"]]), st.data())
def test_schema_and_code_agree_on_damaged_messages(vector: dict[str, Any], data: st.DataObject) -> None:
    """What the schema refuses, the codec refuses as well: one field replaced or removed."""
    message = dict(vector["message"])
    field = data.draw(st.sampled_from(sorted(message)))
    if data.draw(st.booleans()):
        del message[field]
    else:
        message[field] = data.draw(_VALUES)
    known = {f.rstrip("?") for f in messages.FIELDS[NUMBERS[vector["name"]]]}
    try:
        messages.decode(NUMBERS[vector["name"]], json.dumps(message).encode())
    except FrameError:
        return
    if field in known and field not in ("workers", "errors"):  # rows: the codec looks at what it uses
        assert validator(vector["name"]).is_valid(message)


def test_octet_by_octet_gives_the_same_events() -> None:
    """A conversation fed one octet at a time says the same as fed at once."""
    client, server = pair()
    _, commit = server.request(messages.COMMIT, {"generation": 1, "digest": "0" * 64})
    _, prepare = server.request(messages.ABORT, {"generation": 1, "reason": "x"})
    octets = commit + prepare + server.request(messages.PING, {})[1]
    events = [event for octet in octets for event in client.receive(bytes((octet,)))]
    assert [messages.NAMES[e.type] for e in events if isinstance(e, Frame)] == ["COMMIT", "ABORT", "PING"]


def test_octet_by_octet_handshake() -> None:
    """Also the handshake may come in any pieces."""
    client, server = ends()
    for octet in client.data_to_send():
        server.receive(bytes((octet,)))
    for octet in server.data_to_send():
        client.receive(bytes((octet,)))
    found = [event for octet in client.data_to_send() for event in server.receive(bytes((octet,)))]
    assert isinstance(found[0], LoggedIn) and found[0].node == "w0"
    found = [event for octet in server.welcome(ACTIVE) for event in client.receive(bytes((octet,)))]
    assert isinstance(found[0], Welcomed)


@given(st.binary(max_size=300))
def test_any_octets_before_login_parse_or_raise(octets: bytes) -> None:
    """To both ends: any input parses or raises FrameError, nothing else, and a closed connection stays silent."""
    client, server = ends()
    for connection in (client, server):
        for start in (octets, frames.PREFACE + octets):
            try:
                connection.receive(start)
            except FrameError:
                assert connection.receive(b"more") == []


@given(st.binary(max_size=200), st.sampled_from(sorted(messages.NAMES)), st.integers(0, 255), st.integers(0, 9))
def test_any_frame_after_login_parses_or_raises(payload: bytes, kind: int, flags: int, ident: int) -> None:
    """After login, too, for every type, flag and id."""
    for connection in pair():
        octets = struct.pack(">IBBHI", len(payload), kind, flags, 0, ident) + payload
        try:
            for event in connection.receive(octets + b"\x00"):
                assert isinstance(event, Frame)
        except FrameError as error:
            assert error.code in messages.FATAL


@given(st.data())
def test_damaged_handshakes_never_log_in(data: st.DataObject) -> None:
    """One changed bit anywhere in HELLO or WELCOME, and nobody is let in."""
    client, server = ends()
    server.receive(client.data_to_send())
    client.receive(server.data_to_send())
    hello = bytearray(client.data_to_send())
    place = data.draw(st.integers(frames.HEADER_BYTES, len(hello) - 1))
    good = bytes(hello)
    hello[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(FrameError):
        server.receive(bytes(hello))
    client, server = ends()
    server.receive(client.data_to_send())
    client.receive(server.data_to_send())
    server.receive(client.data_to_send())
    welcome = bytearray(server.welcome(ACTIVE))
    place = data.draw(st.integers(frames.HEADER_BYTES, len(welcome) - 1))
    welcome[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(FrameError):
        client.receive(bytes(welcome))
    assert good


def test_replay_and_reflection_fail() -> None:
    """A recorded HELLO is worthless under another nonce; a broker's own MAC cannot be sent back to it."""
    hello = bytes.fromhex(VECTORS["handshake"]["hello"])
    server = Server({"node": KEY}, b"t" * 32, server="nexoraldns", epoch="e1")
    server.receive(frames.PREFACE)
    with pytest.raises(FrameError, match="auth_failed"):
        server.receive(hello)


def test_limits_before_and_after_login() -> None:
    """4 KiB before, 1 MiB after; a header alone is enough to be refused, nothing is buffered for it."""
    _, server = ends()
    with pytest.raises(FrameError, match="too_large"):
        server.receive(frames.PREFACE + struct.pack(">IBBHI", 4097, messages.HELLO, 0, 0, 0))
    _, server = pair()
    with pytest.raises(FrameError, match="too_large"):
        server.receive(struct.pack(">IBBHI", (1 << 20) + 1, messages.REPORT, 0, 0, 1))


def test_ids_only_grow_and_answers_answer_something() -> None:
    """A request id that does not grow, an answer to nothing, and a wrong kind of answer are fatal."""
    client, server = pair()
    ping = client.request(messages.PING, {})[1]
    server.receive(ping)
    with pytest.raises(FrameError, match="ids only grow"):
        server.receive(ping)
    _, server = pair()
    with pytest.raises(FrameError, match="never sent"):
        server.receive(client.answer(messages.PONG, 5, {}))
    client, server = pair()
    ident, _ = server.request(messages.PING, {})
    with pytest.raises(FrameError, match="no answer to PING"):
        server.receive(client.answer(messages.READY, ident, {"generation": 1, "workers": []}))
    client, server = pair()
    with pytest.raises(FrameError, match="only an answer"):
        server.receive(client.request(messages.READY, {"generation": 1, "workers": []})[1])


def test_unknown_types_are_skipped_only_when_ignorable() -> None:
    """A later version may add ignorable types; others end the connection."""
    _, server = pair()
    assert server.receive(frames.encode_frame(0x7F, b"anything", 1, ignorable=True)) == []
    with pytest.raises(FrameError, match="unknown_type"):
        server.receive(frames.encode_frame(0x7F, b"", 2))


@pytest.mark.parametrize("role", keys.ROLES)
def test_roles_send_only_what_is_theirs(role: str) -> None:
    """For every role and type: permitted or fatal, as the table says."""
    for kind in messages.NAMES:
        _, server = pair(role)
        permitted = kind in messages.FROM_ROLE[role]
        with pytest.raises(FrameError) as caught:
            server.receive(frames.encode_frame(kind, b"no json", 1))
        assert (caught.value.code == "not_permitted") is not permitted


def test_events_before_an_error_are_not_lost() -> None:
    """Good frames in front of a bad one are handed over with the error."""
    client, server = pair()
    good = client.request(messages.PING, {})[1]
    with pytest.raises(FrameError) as caught:
        server.receive(good + frames.encode_frame(0x7F, b"", 9))
    assert [event.type for event in caught.value.before] == [messages.PING]


def test_what_cannot_be_sent_is_refused_here() -> None:
    """The codec does not write what the other end would have to refuse."""
    for message in ({"reason": 1.5}, {"reason": "x", "a": 2**53}, {}, {"reason": "\ud800"}, {"reason": "x", "a": b"x"}):
        with pytest.raises(FrameError):
            messages.encode(messages.BYE, message)


# --- key files ------------------------------------------------------------------------------------------------------


def test_key_lines_round_trip() -> None:
    """What `render` writes, `parse` reads."""
    made = [Key("a", ("node",), b"k" * 32), Key("b-2", ("hook", "observer"), b"l" * 16)]
    assert list(keys.parse(keys.render(made)).values()) == made
    assert "kkkk" not in repr(made[0])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("node node", "3 fields|2 fields"),
        ("node chief a2V5a2V5a2V5a2V5a2V5", "not a role"),
        ("node node !!!", "not base64"),
        ("node node c2hvcnQ=", "at least 16"),
        ("../x node a2V5a2V5a2V5a2V5a2V5", "letters"),
        ("a node a2V5a2V5a2V5a2V5a2V5a2V5\na node a2V5a2V5a2V5a2V5a2V5a2V5", "twice"),
    ],
)
def test_bad_key_lines_are_named(line: str, said: str) -> None:
    """A bad line is refused with its number and without its secret."""
    with pytest.raises(keys.KeysError, match=said) as caught:
        keys.parse(line, "broker.keys")
    assert "broker.keys:" in str(caught.value) and "a2V5" not in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "owner", "reader", "fine"),
    [
        (0o600, 5, 5, True), (0o640, 5, 5, False), (0o644, 5, 5, False), (0o640, 0, 5, True), (0o660, 0, 5, False),
        (0o604, 0, 5, False), (0o400, 5, 5, True), (0o640, 5, 0, False), (0o600, 5, 0, True),
    ],
)  # fmt: skip
def test_who_may_read_a_key_file(mode: int, owner: int, reader: int, fine: bool) -> None:
    """Others never; the group only when the file belongs to another user, who hands it to us."""
    assert (keys.permission_problem("k", 0o100000 | mode, owner, reader) is None) is fine

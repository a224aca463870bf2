"""Listen addresses become sockets: what is bound, what comes back, and how failures read."""

import contextlib
import os
import socket
import struct
import subprocess
from collections.abc import Iterator

import pytest

from dnsd.serve import listener, portholder
from dnsd.serve.listener import ListenError, Place, leave, open_sockets, place, probe
from tests.serve.node import free_port


@contextlib.contextmanager
def opened(texts: list[str], slots: int = 1) -> Iterator[list[listener.Sockets]]:
    """Sockets for the length of a `with`."""
    made = open_sockets([place(text) for text in texts], slots)
    try:
        yield made
    finally:
        for sockets in made:
            sockets.close()


def echo(sock: socket.socket) -> bytes:
    """Answer one datagram from the address that was asked, as the batch unit does; returns what came."""
    sock.settimeout(2)
    data, ancillary, _, peer = sock.recvmsg(512, 256)
    sock.sendmsg([data], [(level, kind, value) for level, kind, value in ancillary], 0, peer)
    return data


def test_entries_are_wildcards_devices_or_addresses() -> None:
    """The three kinds of `listen` entries."""
    assert place("*:53") == Place("*:53", 53, None, None)
    assert place("lo:53") == Place("lo:53", 53, None, "lo")
    assert place("[::1]:53") == Place("[::1]:53", 53, "::1", None)
    assert place("*:53").wildcard and place("0.0.0.0:53").wildcard and not place("127.0.0.1:53").wildcard
    with pytest.raises(ListenError, match=r"no interface 'eth77' .* this machine has .*lo"):
        place("eth77:53")


def test_each_slot_has_its_own_sockets_in_one_group() -> None:
    """One UDP and one TCP socket per entry and slot; the kernel spreads client ports over the slots."""
    port = free_port()
    with opened([f"127.0.0.1:{port}", f"[::1]:{port}"], 2) as slots:
        assert [len(slot.udp) + len(slot.tcp) for slot in slots] == [4, 4]
        for sock in (slots[0].udp[0], slots[0].tcp[1]):
            assert not sock.getblocking() and not sock.get_inheritable()
        for _ in range(64):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"x", ("127.0.0.1", port))
        counts = []
        for slot in slots:
            count = 0
            with contextlib.suppress(BlockingIOError):
                while slot.udp[0].recv(10):
                    count += 1
            counts.append(count)
        assert sum(counts) == 64 and min(counts) > 8


def test_receive_buffers_hold_a_burst() -> None:
    """Two thousand unread questions wait; the default buffer loses them after 256."""
    port = free_port()
    with opened([f"127.0.0.1:{port}"]) as slots, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for _ in range(2000):
            client.sendto(bytes(40), ("127.0.0.1", port))
        count = 0
        with contextlib.suppress(BlockingIOError):
            while slots[0].udp[0].recv(100):
                count += 1
        assert count == 2000


def test_the_wildcard_answers_both_families_from_the_address_that_was_asked() -> None:
    """`*:port` is dual-stack, and packet info brings the right source address back (127.0.0.2 is not the primary)."""
    port = free_port()
    with opened([f"*:{port}"]) as slots:
        for family, host in ((socket.AF_INET, "127.0.0.2"), (socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with socket.socket(family, socket.SOCK_DGRAM) as client:
                client.settimeout(2)
                client.sendto(b"hello", (host, port))
                assert echo(slots[0].udp[0]) == b"hello"
                assert client.recvfrom(100)[1][0] == host
            with socket.create_connection((host, port), timeout=2) as stream:
                stream.sendall(b"x")  # deferred accept waits for octets


def test_a_device_hears_only_its_own_packets() -> None:
    """`lo:port` is one wildcard socket bound to the device, for both families."""
    port = free_port()
    with opened([f"lo:{port}"]) as slots:
        sock = slots[0].udp[0]
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0") == b"lo"
        for family, host in ((socket.AF_INET, "127.0.0.3"), (socket.AF_INET6, "::1")):
            with socket.socket(family, socket.SOCK_DGRAM) as client:
                client.settimeout(2)
                client.sendto(b"hello", (host, port))
                echo(sock)
                assert client.recvfrom(100)[1][0] == host


def test_an_address_that_comes_later_can_be_listened_on_now() -> None:
    """IP_FREEBIND: an address that this machine does not have yet (DHCP, IPv6 detection) is no error."""
    port = free_port()
    with opened([f"192.0.2.77:{port}", f"[2001:db8::77]:{port}"]) as slots:
        assert [sock.getsockname()[0] for sock in slots[0].udp] == ["192.0.2.77", "2001:db8::77"]


def test_an_address_that_is_not_here_is_known() -> None:
    """Only an address that this machine does not have is absent; wildcards, devices and loopback are here."""
    for text in ("127.0.0.1:5300", "*:5300", "lo:5300", "0.0.0.0:5300"):
        assert listener.place(text).present(), text
    for text in ("203.0.113.7:5300", "[2001:db8::7]:5300"):
        assert not listener.place(text).present(), text


def test_the_wildcard_is_ipv4_only_where_ipv6_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without IPv6 `*` still works."""
    real = socket.socket

    def without_ipv6(family: int = -1, *rest: object, **named: object) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return real(family, *rest, **named)  # type: ignore[arg-type]

    port = free_port()
    monkeypatch.setattr(listener.socket, "socket", without_ipv6)
    with opened([f"*:{port}"]) as slots:
        assert slots[0].udp[0].family == socket.AF_INET
        with real(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(2)
            client.sendto(b"hello", ("127.0.0.2", port))
            echo(slots[0].udp[0])
            assert client.recvfrom(100)[1][0] == "127.0.0.2"


def test_a_foreign_holder_is_found_also_when_it_shares_its_port() -> None:
    """SO_REUSEPORT of the same user would let us join silently; the probe refuses and names the process."""
    port = free_port()
    with opened([f"127.0.0.1:{port}"]):
        with pytest.raises(ListenError, match=rf"port {port}/udp .* is in use by .*\(pid {os.getpid()}\)"):
            probe([place(f"127.0.0.1:{port}")])
        probe([place(f"127.0.0.1:{port}")], frozenset({os.getpid()}))  # our own orphans may stay for a moment
        with pytest.raises(ListenError, match="in use"):
            probe([place(f"*:{port}")])


def test_holders_are_read_from_proc() -> None:
    """The process that has a port is named for UDP and for listening TCP sockets of both families."""
    port = free_port()
    with opened([f"127.0.0.1:{port}", f"[::1]:{port}"]):
        for transport in ("udp", "tcp"):
            found = portholder.holders(port, transport)
            assert [holder.pid for holder in found] == [os.getpid()] and found[0].uid == os.getuid()
    assert portholder.holders(port, "udp") == []


def test_nothing_stays_open_when_one_address_fails() -> None:
    """All or nothing: a failure closes what was opened before it."""
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        with pytest.raises(ListenError):
            open_sockets([place(f"127.0.0.1:{port}"), place(f"127.0.0.1:{taken}")], 2)
    probe([place(f"127.0.0.1:{port}")])


def test_a_socket_leaves_its_group_with_its_queue(request: pytest.FixtureRequest) -> None:
    """Connected to nobody, the old socket keeps what is queued and gets nothing new; no packet is lost."""
    for text, host in (("127.0.0.1:{}", "127.0.0.1"), ("*:{}", "127.0.0.1"), ("lo:{}", "127.0.0.1"), ("*:{}", "::1")):
        port = free_port()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with opened([text.format(port)]) as old:
            for i in range(50):
                with socket.socket(family, socket.SOCK_DGRAM) as client:
                    client.sendto(struct.pack("!H", i), (host, port))
            with opened([text.format(port)]) as new:
                assert leave(old[0].udp[0])
                for i in range(50, 100):
                    with socket.socket(family, socket.SOCK_DGRAM) as client:
                        client.sendto(struct.pack("!H", i), (host, port))
                got = []
                for sock in (old[0].udp[0], new[0].udp[0]):
                    numbers = set()
                    with contextlib.suppress(BlockingIOError):
                        while data := sock.recv(10):
                            numbers.add(struct.unpack("!H", data)[0])
                    got.append(numbers)
                assert got == [set(range(50)), set(range(50, 100))], text


def test_a_drained_socket_still_answers_its_clients() -> None:
    """After it has left the group its queued questions are answered from the right address."""
    for text, host in (("127.0.0.1:{}", "127.0.0.1"), ("*:{}", "127.0.0.2"), ("*:{}", "::1")):
        port = free_port()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with opened([text.format(port)]) as old, socket.socket(family, socket.SOCK_DGRAM) as client:
            client.settimeout(2)
            client.sendto(b"late", (host, port))
            leave(old[0].udp[0])
            echo(old[0].udp[0])
            assert client.recvfrom(100)[1][0] == host, text


def test_systemd_resolved_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Port 53 held by systemd-resolved: the sentence says how to switch its stub off."""
    held = [portholder.Holder(7, "systemd-resolve", 101)]
    monkeypatch.setattr(portholder, "holders", lambda port, transport: held)
    text = str(listener._explain(place("*:53"), "udp", OSError(98, "in use")))
    assert "DNSStubListener=no" in text and "systemd-resolve (pid 7)" in text
    held[0] = portholder.Holder(8, "dnsmasq", 102)
    assert "dnsmasq (pid 8); stop it" in str(listener._explain(place("*:53"), "udp", OSError(98, "in use")))
    held[0] = portholder.Holder(0, "", 102)
    assert "process of uid 102" in str(listener._explain(place("*:5353"), "udp", OSError(98, "in use")))


def test_sockets_are_not_handed_to_programs_that_we_start() -> None:
    """Close-on-exec: git or a hook never holds a DNS port."""
    port = free_port()
    with opened([f"127.0.0.1:{port}"]):
        ran = subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, check=True, close_fds=False)
        assert "socket:" not in ran.stdout

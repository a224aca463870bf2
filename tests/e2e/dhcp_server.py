"""A DHCP server with leases of seconds, for tests of expiry: dnsmasq's shortest is two minutes.

`python dhcp_server.py INTERFACE SERVER LEASE_S MAC,ADDRESS …` answers those for ever (RFC 2131, 2132).
"""

from __future__ import annotations

import socket
import struct
import sys


def options(data: bytes) -> dict[int, bytes]:
    """The options of a message, by code."""
    found, at = {}, 240
    while at + 2 <= len(data) and data[at] != 255:
        if data[at] == 0:
            at += 1
            continue
        found[data[at]] = data[at + 2 : at + 2 + data[at + 1]]
        at += 2 + data[at + 1]
    return found


def main(interface: str, server: str, lease_s: int, given: dict[bytes, str]) -> None:
    """Answer DISCOVER with OFFER and REQUEST with ACK."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
    sock.bind(("", 67))
    here = socket.inet_aton(server)
    while True:
        data = sock.recv(2048)
        kind = options(data).get(53, b"") if len(data) > 240 else b""
        if kind not in (b"\x01", b"\x03") or data[28:34] not in given:
            continue
        told = [
            (53, b"\x02" if kind == b"\x01" else b"\x05"), (54, here), (51, struct.pack(">I", lease_s)),
            (1, socket.inet_aton("255.255.255.0")), (6, here), (15, b"office.example"),
        ]  # fmt: skip
        body = b"".join(bytes((code, len(value))) + value for code, value in told) + b"\xff"
        head = bytes((2, *data[1:4])) + data[4:8] + bytes(8) + socket.inet_aton(given[data[28:34]]) + here + data[24:236]
        sock.sendto(head + data[236:240] + body, ("255.255.255.255", 68))


if __name__ == "__main__":
    pairs = (word.split(",") for word in sys.argv[4:])
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), {bytes.fromhex(mac.replace(":", "")): ip for mac, ip in pairs})

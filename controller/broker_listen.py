"""Where the broker may listen, and the sentences for when it cannot."""

from __future__ import annotations

import errno
import ipaddress
import os

from dnsd.contract.settings import split_listen


class BrokerError(Exception):
    """The broker cannot start; the text is one sentence that says what and how to mend it."""


def address(listen: str) -> tuple[str, int]:
    """Host and port; loopback only, because there is no TLS in this version. Raises BrokerError."""
    try:
        host, port = split_listen(listen)
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise BrokerError(f"broker.listen {listen!r} is not an address and a port, such as 127.0.0.1:5338") from None
    if not loopback:
        raise BrokerError(
            f"broker.listen {listen}: listening beyond this machine needs TLS, which is not in this version; "
            "use 127.0.0.1:5338"
        )
    return host, port


def bind_problem(listen: str, error: OSError) -> str:
    """Why binding failed, and what to do."""
    if error.errno == errno.EADDRINUSE:
        return f"the broker's port {listen} is in use: is another controller running? Set broker.listen to a free one"
    return f"the broker cannot listen on {listen}: {os.strerror(error.errno or 0)}"

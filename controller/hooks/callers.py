"""From the environment that a DHCP client gives its hooks to one EVENT (schemas/broker.schema.json).

Pure: a mapping and the arguments in, an `Event` out. The client is told by the variables that it sets, in an order in
which none is taken for another. Values are untrusted: addresses are parsed, names and words matched, lengths and counts
capped, and what does not hold is left out and counted, never repaired.

Sources: dhclient-script(8); dhcpcd-run-hooks(8); NetworkManager-dispatcher(8); networkd-dispatcher(8); the scripts of
BusyBox's udhcpc.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Event = dict[str, Any]

LONGEST_VALUE = 4096  # octets of one variable
LONGEST_JSON = 64 << 10  # networkd-dispatcher's description of a link
MOST_ADDRESSES = 32
MOST_SERVERS = 8
MOST_DOMAINS = 16
_FOR_EVER = 0xFFFFFFFF

_INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,14}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")

# What the clients' words mean for a lease. A word that is not here says nothing about one.
_HAS = {
    "BOUND", "RENEW", "REBIND", "REBOOT", "TIMEOUT", "INFORM", "IPV4LL", "STATIC", "3RDPARTY", "RECONFIGURE",
    "ROUTERADVERT", "BOUND6", "RENEW6", "REBIND6", "REBOOT6", "INFORM6", "DELEGATED6", "STATIC6",
}  # fmt: skip
_LOST = {
    "EXPIRE", "FAIL", "STOP", "RELEASE", "NAK", "NOCARRIER", "NOCARRIER_ROAMING", "STOPPED", "DEPARTED", "EXPIRE6",
    "RELEASE6", "STOP6", "FAIL6",
}  # fmt: skip
_DHCPCD_LEASES = {"dhcp": "dhcp4", "dhcp4": "dhcp4", "ipv4ll": "dhcp4", "static": "dhcp4", "static4": "dhcp4",
                  "dhcp6": "dhcp6", "static6": "dhcp6", "ra": "ra"}  # fmt: skip
_NM_HAS = {"up", "dhcp4-change", "dhcp6-change", "reapply", "vpn-up"}
_NM_LOST = {"down", "vpn-down", "device-delete"}
_UDHCPC_HAS, _UDHCPC_LOST = ("bound", "renew"), ("deconfig", "leasefail", "nak")


class Values:
    """Reads an environment and counts what it refuses."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.refused = 0

    def text(self, name: str, longest: int = LONGEST_VALUE) -> str:
        """A variable, or an empty text when it is not there, too long, or not plain ASCII."""
        value = self.environ.get(name, "")
        if len(value) <= longest and value.isascii() and (value.isprintable() or longest > LONGEST_VALUE):
            return value
        self.refused += 1
        return ""

    def _kept(self, items: Iterable[Any], most: int, read: Callable[[str], str]) -> list[str]:
        kept: dict[str, None] = {}
        for item in items:
            value = read(item) if isinstance(item, str) and len(item) <= 300 else ""
            if not value or (len(kept) >= most and value not in kept):
                self.refused += 1
            else:
                kept[value] = None
        return list(kept)

    def addresses(self, items: Iterable[Any]) -> list[str]:
        """An interface's addresses, each with its prefix length where there is one."""
        return self._kept(items, MOST_ADDRESSES, _interface_address)

    def address(self, ip: str, mask: str) -> list[str]:
        """One address with its mask or prefix length; a mask that is none costs only itself."""
        whole = _interface_address(f"{ip}/{mask}") if ip and mask else ""
        if whole or not ip:
            return [whole] if whole else []
        self.refused += bool(mask)
        return self.addresses([ip])

    def servers(self, items: Iterable[Any], interface: str) -> list[str]:
        """DNS servers. A stranger has no business to name an address of this machine's loopback, a group or nobody."""
        return self._kept(items, MOST_SERVERS, lambda item: _server(item, interface))

    def domains(self, items: Iterable[Any]) -> list[str]:
        """Domains in presentation format, lower case, no final dot."""
        return self._kept(items, MOST_DOMAINS, _domain)

    def seconds(self, name: str) -> int:
        """For how long a lease is had (RFC 2132, section 9.2); 0 for ever, or when nobody says."""
        text = self.text(name)
        if text.isdecimal() and len(text) <= 10 and 0 < int(text) <= _FOR_EVER:
            return int(text) % _FOR_EVER
        self.refused += bool(text)
        return 0

    def words(self, *names: str) -> list[str]:
        """The words of some variables."""
        return [word for name in names for word in self.text(name).replace(",", " ").split()]


def _interface_address(text: str) -> str:
    try:
        parsed = ipaddress.ip_interface(text)
    except ValueError:
        return ""
    if parsed.ip.is_unspecified or parsed.ip.is_multicast or "%" in text:
        return ""
    return str(parsed) if "/" in text else str(parsed.ip)


def _server(text: str, interface: str) -> str:
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if parsed.is_unspecified or parsed.is_multicast or parsed.is_loopback:
        return ""
    if parsed.version == 4 and (parsed.is_reserved or parsed.packed[0] == 0):
        return ""
    # A link-local server is on the lease's own link, whatever the text says.
    return f"{parsed}%{interface}" if parsed.version == 6 and parsed.is_link_local and interface else str(parsed)


def _domain(text: str) -> str:
    text = text.removesuffix(".").lower()
    labels = text.split(".")
    return text if len(text) <= 253 and all(_LABEL.fullmatch(label) for label in labels) else ""


# --- the callers ------------------------------------------------------------------------------------------------------


def event_of(environ: Mapping[str, str], arguments: Sequence[str]) -> tuple[Event | None, str]:
    """The EVENT, or None when there is nothing to tell; and a sentence about it for the curious."""
    values = Values(environ)
    for source, here, read in _CALLERS:
        if here(environ, arguments):
            found = read(values, arguments)
            if found is None:
                return None, f"{source}: nothing that concerns a lease"
            event = {"v": 1, "source": source, **found}
            if not event["interface"]:
                return _nothing_but(source, values), f"{source}: no proper interface is named"
            if not _WORD.fullmatch(event["reason"]):
                return _nothing_but(source, values), f"{source}: no proper reason is given"
            event["refused"] = values.refused
            return event, f"{source}: {event['reason']} on {event['interface']}"
    return None, "no DHCP client has called this (see `nexoraldns hook --help`)"


def _nothing_but(source: str, values: Values) -> Event:
    """An EVENT about nothing: what cannot be told is counted all the same."""
    return {"v": 1, "source": source, "reason": "refused", "kind": "same", "refused": max(1, values.refused)}


def _interface(values: Values, *names: str) -> str:
    for name in names:
        text = values.text(name)
        if _INTERFACE.fullmatch(text):
            return text
        values.refused += bool(text)
    return ""


def _made(
    interface: str, reason: str, lease: str, *, has: bool, old: list[str], new: list[str], dns: list[str],
    search: list[str], whole: bool = False, lifetime: int = 0,
) -> Event:  # fmt: skip
    """`whole`: no address means that there is none. Else a lease without one is our refusal: `same`, of nothing."""
    has = has and (bool(new) or not whole)
    before, after = ({address.partition("/")[0] for address in part} for part in (old, new))
    kind = "down" if not has else "same" if before == after or not after else "change" if before else "up"
    event: Event = {
        "reason": reason, "interface": interface, "lease": lease, "kind": kind, "old": old,
        "new": new if has else [], "dns": dns if has else [], "search": search if has else [],
    }  # fmt: skip
    return event | {"lifetime": lifetime} if has and lifetime else event


def _dhclient(values: Values, arguments: Sequence[str]) -> Event | None:
    reason = values.text("reason")
    if reason not in _HAS | _LOST:
        return None
    six = reason.endswith("6")
    interface = _interface(values, "interface")

    def addresses(prefix: str) -> list[str]:
        ip = values.text(f"{prefix}_ip6_address" if six else f"{prefix}_ip_address")
        mask = values.text(f"{prefix}_ip6_prefixlen" if six else f"{prefix}_subnet_mask")
        return values.address(ip, mask)

    names = ("new_dhcp6_name_servers",) if six else ("new_domain_name_servers",)
    domains = ("new_dhcp6_domain_search",) if six else ("new_domain_name", "new_domain_search")
    return _made(
        interface, reason, "dhcp6" if six else "dhcp4", has=reason in _HAS, old=addresses("old"), new=addresses("new"),
        dns=values.servers(values.words(*names), interface), search=values.domains(values.words(*domains)),
        lifetime=values.seconds("new_max_life" if six else "new_dhcp_lease_time"),
    )  # fmt: skip


def _numbered(values: Values, pattern: str) -> list[str]:
    """Values of the variables whose whole name matches, in the order of their numbers."""
    found = [name for name in values.environ if len(name) < 80 and re.fullmatch(pattern, name)]
    found.sort(key=lambda name: [int(number) for number in re.findall(r"[0-9]{1,6}", name)])
    return values.words(*found[:64])


def _dhcpcd(values: Values, arguments: Sequence[str]) -> Event | None:
    reason, protocol = values.text("reason"), values.text("protocol")
    if reason not in _HAS | _LOST:
        return None
    lease = _DHCPCD_LEASES.get(protocol, "all")
    if protocol not in _DHCPCD_LEASES and reason in _HAS:
        lease = "dhcp6" if reason.endswith("6") else "ra" if reason == "ROUTERADVERT" else "dhcp4"
    interface = _interface(values, "interface")

    def addresses(prefix: str) -> list[str]:
        ip, cidr = values.text(f"{prefix}_ip_address"), values.text(f"{prefix}_subnet_cidr")
        found = _numbered(values, rf"{prefix}_dhcp6_ia_[nt]a[0-9]+_ia_addr[0-9]+")
        found += values.words(f"{prefix}_ip6_address")
        if lease == "ra" and prefix == "new":
            found += _numbered(values, r"nd[0-9]+_addr[0-9]+")
        return values.address(ip, cidr) + values.addresses(found)

    dns = values.words("new_domain_name_servers", "new_dhcp6_name_servers")
    dns += _numbered(values, r"nd[0-9]+_rdnss[0-9]+_servers")
    search = values.words("new_domain_name", "new_domain_search", "new_dhcp6_domain_search")
    search += _numbered(values, r"nd[0-9]+_dnssl[0-9]+_search")
    return _made(
        interface, reason, lease, has=reason in _HAS, old=addresses("old"), new=addresses("new"),
        dns=values.servers(dns, interface), search=values.domains(search),
        lifetime=values.seconds("new_dhcp_lease_time") if lease == "dhcp4" else 0,
    )  # fmt: skip


def _networkmanager(values: Values, arguments: Sequence[str]) -> Event | None:
    action = values.text("NM_DISPATCHER_ACTION")
    if action not in _NM_HAS | _NM_LOST:
        return None
    vpn = "VPN_" if action.startswith("vpn-") else ""
    interface = _interface(values, f"{vpn}IP_IFACE" if vpn else "DEVICE_IP_IFACE")
    if not interface and arguments and _INTERFACE.fullmatch(arguments[0]):
        interface = arguments[0]
    new: list[str] = []
    for family in ("IP4", "IP6"):
        # "address/prefix gateway", numbered from 0
        lines = [values.text(f"{vpn}{family}_ADDRESS_{number}") for number in range(MOST_ADDRESSES)]
        new += [line.split()[0] for line in lines if line.split()]
    dns = values.words(f"{vpn}IP4_NAMESERVERS", f"{vpn}IP6_NAMESERVERS")
    search = values.words(f"{vpn}IP4_DOMAINS", f"{vpn}IP6_DOMAINS")
    return _made(
        interface, action, "all", has=action in _NM_HAS, old=[], new=values.addresses(new),
        dns=values.servers(dns, interface), search=values.domains(search),  # none in a dhcp4-change before `up`
    )  # fmt: skip


def _networkd(values: Values, arguments: Sequence[str]) -> Event | None:
    state = values.text("STATE") or values.text("OperationalState")
    interface = _interface(values, "IFACE")
    try:
        link = json.loads(values.text("json", LONGEST_JSON) or "{}")
    except (ValueError, RecursionError):
        link = None
    if not isinstance(link, dict):
        values.refused += 1
        link = {}

    def listed(*keys: str) -> list[Any]:
        found: list[Any] = []
        for key in keys:
            value = link.get(key, [])
            found += value[:64] if isinstance(value, list) else [value]
        return [word for text in found for word in (text.split() if isinstance(text, str) else [text])]

    return _made(
        interface, state, "all", has=True, old=[], new=values.addresses(values.words("IP_ADDRS", "IP6_ADDRS")),
        dns=values.servers(listed("DNS"), interface), search=values.domains(listed("Search Domains")),
        whole=True,
    )  # fmt: skip


def _udhcpc(values: Values, arguments: Sequence[str]) -> Event | None:
    reason = arguments[0].removeprefix("post-")
    interface = _interface(values, "interface")
    if reason in _UDHCPC_LOST:  # at `nak`, for one, the address is 0.0.0.0
        return _made(interface, reason, "dhcp4", has=False, old=[], new=[], dns=[], search=[])
    ip, mask = values.text("ip"), values.text("mask") or values.text("subnet")
    # udhcpc6 calls with `ipv6` and no `ip`.
    six = values.text("ipv6")
    new = values.address(ip, mask) if ip else values.addresses([six] if six else [])
    return _made(
        interface, reason, "dhcp6" if six and not ip else "dhcp4", has=True, old=[], new=new,
        dns=values.servers(values.words("dns"), interface), search=values.domains(values.words("domain", "search")),
        lifetime=values.seconds("lease"),
    )  # fmt: skip


def _by_udhcpc(environ: Mapping[str, str], arguments: Sequence[str]) -> bool:
    words = _UDHCPC_HAS + _UDHCPC_LOST
    return bool(arguments) and arguments[0].removeprefix("post-") in words and "interface" in environ


_Caller = tuple[
    str,
    Callable[[Mapping[str, str], Sequence[str]], bool],
    Callable[[Values, Sequence[str]], Event | None],
]
_CALLERS: tuple[_Caller, ...] = (
    ("networkmanager", lambda e, a: "NM_DISPATCHER_ACTION" in e, _networkmanager),
    ("networkd", lambda e, a: "OperationalState" in e or ("IFACE" in e and "STATE" in e), _networkd),
    ("dhcpcd", lambda e, a: "reason" in e and bool({"ifcarrier", "if_up", "protocol"} & e.keys()), _dhcpcd),
    ("dhclient", lambda e, a: "reason" in e, _dhclient),
    ("udhcpc", _by_udhcpc, _udhcpc),
)
SOURCES = tuple(caller[0] for caller in _CALLERS)

"""The sections `groups`, `clients` and `schedules`: who is asking, and when."""

from __future__ import annotations

import datetime
import zoneinfo
from collections.abc import Iterable

from controller import members
from controller.diagnostics import did_you_mean
from controller.documents import MAPPING, SCALAR, SEQUENCE, Node
from controller.gather import Gathered, text
from controller.members import MemberError
from controller.ruleset import Group, Network, Schedule, Window

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LONG = {"monday": 0, "tuesday": 1, "wednesday": 2, "thursday": 3, "friday": 4, "saturday": 5, "sunday": 6}
_DAY_NUMBERS = {**{day: number for number, day in enumerate(_DAYS)}, **_LONG}


def build_groups(g: Gathered) -> dict[str, Group]:
    """Groups and clients by name; a group has the networks of its clients too."""
    out: dict[str, Group] = {}
    clients, groups = g.entries["clients"], g.entries["groups"]
    for name, (key, node) in clients.items():
        networks: list[Network] = []
        ids = node.get("ids") if node.kind == MAPPING else None
        for item in ids.strings() if ids is not None else ():
            network, said = _network(g, item)
            if network is not None:
                networks.append(network)
            elif not said:
                help = "an id is an address or a network, such as 10.0.10.87"
                g.add("E024", f"{item.text!r} is not an address", item.where, help)
        out[name] = Group(name, key.where, True, tuple(networks), (), text(node, "description"), text(node, "owner"))
    for name, (key, node) in groups.items():
        networks = []
        listed = node.get("members") if node.kind == MAPPING else None
        for item in listed.strings() if listed is not None else ():
            network, said = _network(g, item)
            if network is not None:
                networks.append(network)
            elif said:
                continue
            elif item.text in clients:
                networks.extend(out[item.text].networks)
            elif item.text in groups:
                help = "groups do not nest; name both groups where they are used: for: [a, b]"
                g.add("E024", f"{item.text!r} is a group; a member is an address or a client", item.where, help)
            else:
                g.reference("client", item.text, item.where, clients)
        unique = tuple(dict.fromkeys(networks))
        out[name] = Group(name, key.where, False, unique, (), text(node, "description"), text(node, "owner"))
    return out


def _network(g: Gathered, item: Node) -> tuple[Network | None, bool]:
    """The network that a member is (None for a name), and whether there is nothing more to say about it."""
    try:
        read = members.network(item.text)
    except MemberError as error:
        g.add(error.code, error.message, item.where, error.help)
        return None, True
    return (Network(*read, item.text, item.where), True) if read is not None else (None, False)


def build_schedules(g: Gathered, timezone: str) -> dict[str, Schedule]:
    """Schedules by name; `timezone` is for windows that name none."""
    out = {}
    for name, (key, node) in g.entries["schedules"].items():
        nodes = node.items if node.kind == SEQUENCE else [node]
        windows = [window for item in nodes if (window := _window(g, item, timezone)) is not None]
        out[name] = Schedule(name, key.where, tuple(windows))
    return out


def _window(g: Gathered, node: Node, timezone: str) -> Window | None:
    if node.kind != MAPPING:
        return None
    days = set()
    listed = node.get("weekdays")
    for item in listed.strings() if listed is not None else ():
        number = _DAY_NUMBERS.get(item.text.lower())
        if number is None:
            near = did_you_mean(item.text.lower(), _DAY_NUMBERS)
            help = f"did you mean '{_DAYS[_DAY_NUMBERS[near]]}'?" if near else f"write {', '.join(_DAYS)}"
            g.add("E012", f"{item.text!r} is not a day of the week", item.where, help)
        else:
            days.add(number)
    zone_node = node.get("timezone")
    zone = timezone
    if zone_node is not None and zone_node.kind == SCALAR and check_timezone(g, zone_node):
        zone = zone_node.text
    start_node, end_node = node.get("start"), node.get("end")
    start = _minutes(start_node) if start_node is not None else 0
    end = _minutes(end_node) if end_node is not None else 24 * 60
    if start is None or end is None:
        return None
    if start == end and end_node is not None:
        help = "for the whole day leave out both"
        g.add("E012", "the window ends when it starts", end_node.where, help)
        return None
    return Window(tuple(sorted(days)) if days else tuple(range(7)), start, end, zone)


def _minutes(node: Node) -> int | None:
    """Minutes since midnight; None when it is no time (the schema says so)."""
    hours, colon, minutes = node.text.partition(":") if node.kind == SCALAR else ("", "", "")
    if not colon or not (hours.isdigit() and minutes.isdigit()) or len(minutes) != 2:
        return None
    value = int(hours) * 60 + int(minutes)
    return value if int(minutes) < 60 and value <= 24 * 60 else None


def check_timezone(g: Gathered, node: Node) -> bool:
    """Whether a node names an IANA time zone; notes E012 when not."""
    if node.value is None or node.kind != SCALAR:
        return False
    try:
        zoneinfo.ZoneInfo(node.text)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        near = did_you_mean(node.text, zoneinfo.available_timezones() or {"UTC"})
        help = f"did you mean '{near}'?" if near else "write an IANA name such as Europe/Amsterdam"
        g.add("E012", f"{node.text!r} is not a time zone", node.where, help)
        return False
    return True


def clock_zone(default: str | None, schedules: Iterable[Schedule]) -> str:
    """The time zone of a test's or a person's `at` without an offset: the default when one is written, else the one
    that all schedules name, else UTC."""
    if default:
        return default
    zones = {window.timezone for schedule in schedules for window in schedule.windows}
    return zones.pop() if len(zones) == 1 else "UTC"


def parse_at(written: str, timezone: str) -> int:
    """UTC epoch seconds of 2026-03-02T10:00 (with or without seconds and offset); raises ValueError."""
    moment = datetime.datetime.fromisoformat(written.replace("Z", "+00:00") if written.endswith("Z") else written)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zoneinfo.ZoneInfo(timezone))
    return int(moment.timestamp())


def end_of_day(day: datetime.date, timezone: str) -> int:
    """The first second (UTC epoch) after a day in a time zone."""
    midnight = datetime.datetime.combine(day + datetime.timedelta(days=1), datetime.time(), zoneinfo.ZoneInfo(timezone))
    return int(midnight.timestamp())

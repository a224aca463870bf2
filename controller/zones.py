"""The `zones` section: own zones from nodes to records.

Owners and names in data follow zone-file habits: relative to the zone unless they end in a dot, `@` is the zone.
What looks like a forgotten final dot is lint, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from controller import members, records
from controller.diagnostics import Diagnostic, found
from controller.documents import MAPPING, SCALAR, SEQUENCE, Node
from controller.domains import DomainError, to_ascii
from controller.records import RecordError
from controller.ruleset import Record, Where, Zone
from dnsd.contract import codes, names

DEFAULT_TTL = 300
SELF_TTL = 60  # of `address: self`: the address may be another one tomorrow
_OWNER = re.compile(r"(\*|[a-z0-9_/-]+)(\.[a-z0-9_/-]+)*\.?")

TtlReader = Callable[[Node], int | None]


def build(zone: bytes, where: Where, node: Node, default_ttl: int, read_ttl: TtlReader, out: list[Diagnostic]) -> Zone:
    """Make one zone; findings are added to `out`, what they concern is left out of the zone."""
    ttl_node = node.get("ttl")
    ttl = read_ttl(ttl_node) if ttl_node is not None else None
    builder = _ZoneBuilder(zone, default_ttl if ttl is None else ttl, read_ttl, out)
    entries = node.get("records")
    for key, entry in entries.pairs.values() if entries is not None else ():
        owner = builder.owner(key)
        if owner is not None:
            builder.entry(owner, entry)
    builder.finish(where)
    ptr = node.get("ptr")
    in_order = sorted(builder.records, key=lambda r: (names.order(r.owner), r.rtype, r.rdata))
    return Zone(zone, where, builder.ttl, ptr is not None and ptr.value == "auto", tuple(in_order))


class _ZoneBuilder:
    def __init__(self, zone: bytes, ttl: int, read_ttl: TtlReader, out: list[Diagnostic]) -> None:
        self.zone = zone
        self.text = names.to_text(zone)
        self.ttl = ttl
        self.read_ttl = read_ttl
        self.out = out
        self.records: list[Record] = []
        self._seen: dict[tuple[bytes, int, bytes], Record] = {}
        self._ttls: dict[tuple[bytes, int], Record] = {}
        self._relative: list[tuple[Node, str, bytes]] = []

    def owner(self, key: Node) -> bytes | None:
        """The owner's wire name; None after a finding."""
        text = key.text
        if text in ("@", ""):
            return self.zone
        try:
            ascii_text = to_ascii(text)
        except DomainError as error:
            self.out.append(found("E023", error.message, key.where, error.help))
            return None
        if not _OWNER.fullmatch(ascii_text):
            help = "owners are written relative to the zone, as in 'printer', '_ldap._tcp', '\"*.apps\"' or '\"@\"'"
            if "*" in text:
                help = 'a wildcard is the first label: "*.apps"'
            self.out.append(found("E023", f"{text!r} is not an owner name", key.where, help))
            return None
        try:
            if ascii_text.endswith("."):
                owner = names.from_text(ascii_text)
                if owner != self.zone and not names.is_below(owner, self.zone):
                    help = "leave out the final dot for a name below the zone, or put it into its own zone"
                    self.out.append(found("E023", f"{text!r} is not in the zone {self.text}", key.where, help))
                    return None
                return owner
            owner = names.from_text(f"{ascii_text}.{self.text}" if self.zone != names.ROOT else ascii_text)
        except names.NameSyntaxError as error:
            self.out.append(found("E023", f"{text!r} is not an owner name", key.where, error.reason))
            return None
        if ascii_text == self.text or ascii_text.endswith("." + self.text):
            self._surprise(key, text, owner, ascii_text.removesuffix(self.text).rstrip(".") or '"@"')
        return owner

    def _surprise(self, node: Node, text: str, meant: bytes, instead: str) -> None:
        help = f"write {instead} or, with a final dot, {text.rstrip('.')}."
        self.out.append(
            found("W111", f"{text!r} has no final dot, so it means {names.to_text(meant)}", node.where, help)
        )

    def entry(self, owner: bytes, node: Node) -> None:
        """What one owner holds: an address, a mapping, or a list of those."""
        if node.kind == SEQUENCE:
            for item in node.items:
                if item.kind != SEQUENCE:
                    self.entry(owner, item)
        elif node.kind == MAPPING:
            self._record(owner, node)
        elif node.value is not None:
            single = members.address(node.text)
            if single is None:
                near = f"{{type: CNAME, value: {node.text}}}" if re.fullmatch(r"[\w.-]+\.?", node.text) else "…"
                help = f"other data needs its type, for example {near if near != '…' else '{type: TXT, value: …}'}"
                self.out.append(found("E025", f"{node.text!r} is not an address", node.where, help))
                return
            self._add(owner, codes.TYPE_A if single.version == 4 else codes.TYPE_AAAA, self.ttl, node, node.text)

    def _record(self, owner: bytes, node: Node) -> None:
        type_node, ttl_node = node.get("type"), node.get("ttl")
        if node.get("address") is not None:
            self._self(owner, node)
            return
        if type_node is None or type_node.kind != SCALAR or type_node.value is None:
            return
        ttl = self.read_ttl(ttl_node) if ttl_node is not None else None
        try:
            number = records.rtype(type_node.text)
        except RecordError as error:
            self.out.append(found(error.code, error.message, type_node.where, error.help))
            return
        values = node.get("values")
        listed = [] if values is None else values.items if values.kind == SEQUENCE else [values]
        value = node.get("value")
        for item in (*([value] if value is not None else []), *listed):
            if item.kind == MAPPING:
                try:
                    fields = {k: v.text for k, (_, v) in item.pairs.items() if v.kind == SCALAR and v.value is not None}
                    text = records.from_mapping(number, fields)
                except RecordError as error:
                    at = item.key(error.field).where if error.field in item.pairs else item.where
                    self.out.append(found(error.code, error.message, at, error.help))
                    continue
                self._add(owner, number, self.ttl if ttl is None else ttl, item, text)
            elif item.kind == SCALAR and item.value is not None:
                self._add(owner, number, self.ttl if ttl is None else ttl, item, item.text)

    def _self(self, owner: bytes, node: Node) -> None:
        """`{address: self}`: the addresses that the server itself has, whatever they are."""
        address, ttl_node, type_node = node.get("address"), node.get("ttl"), node.get("type")
        if address is None or address.value != records.SELF:
            return
        if type_node is not None:
            help = "delete it: the addresses are of both types"
            self.out.append(found("E012", "'type' says nothing beside 'address: self'", type_node.where, help))
            return
        written = self.read_ttl(ttl_node) if ttl_node is not None else None
        for number in (codes.TYPE_A, codes.TYPE_AAAA):
            key = (owner, number, b"")
            if key in self._seen:
                if number == codes.TYPE_A:
                    words = f"{names.to_text(owner)} has 'address: self' twice"
                    related = [(self._seen[key].where, "the first one")]
                    self.out.append(found("W102", words, node.where, "delete one", related))
                continue
            ttl = min(self.ttl, SELF_TTL) if written is None else written
            record = Record(owner, number, ttl, b"", records.SELF, address.where)
            self._seen[key] = record
            self.records.append(record)

    def _mixed(self) -> None:
        """Addresses beside `address: self`: one of the two is meant."""
        for record in self.records:
            ours = self._seen.get((record.owner, record.rtype, b""))
            if record.rdata and ours is not None:
                words = f"{names.to_text(record.owner)} has 'address: self' and also the address {record.text}"
                help = "keep one of the two: the server's own addresses are told by 'self'"
                self.out.append(found("E025", words, record.where, help, [(ours.where, "address: self")]))

    def _add(self, owner: bytes, number: int, ttl: int, node: Node, text: str) -> None:
        try:
            wire = records.rdata(number, text, self.zone)
        except RecordError as error:
            self.out.append(found(error.code, error.message, node.where, error.help))
            return
        if number == codes.TYPE_SOA and owner != self.zone:
            help = 'write it for "@", or leave it out: it is made'
            self.out.append(found("E025", "a SOA stands at the zone's own name only", node.where, help))
            return
        if number == codes.TYPE_NS and owner != self.zone:
            help = "the names below it are still answered from this zone; 'forward' works outside of own zones"
            self.out.append(found("W112", f"this NS does not delegate {names.to_text(owner)}", node.where, help))
        same = self._seen.get((owner, number, wire))
        if same is not None:
            words = f"{names.to_text(owner)} has the same {codes.qtype_name(number)} record twice"
            self.out.append(found("W102", words, node.where, "delete one", [(same.where, "the first one")]))
            return
        in_set = self._ttls.get((owner, number))
        if in_set is not None and in_set.ttl != ttl:
            words = (
                f"the {codes.qtype_name(number)} records of {names.to_text(owner)} have the TTLs {in_set.ttl} and {ttl}"
            )
            help = f"one set of records has one TTL (RFC 2181): {min(ttl, in_set.ttl)} is used for all of them"
            self.out.append(found("W112", words, node.where, help, [(in_set.where, "the other one")]))
        shown = text if number in (codes.TYPE_A, codes.TYPE_AAAA) else records.shown(number, wire)
        record = Record(owner, number, ttl, wire, shown, node.where)
        self._seen[owner, number, wire] = record
        self._ttls.setdefault((owner, number), record)
        self.records.append(record)
        point = records.target(number, wire)
        last = text.rsplit(maxsplit=1)[-1] if text.split() else ""
        if point is not None and not last.endswith((".", "@")) and "." in last:
            self._relative.append((node, last, point))

    def finish(self, where: Where) -> None:
        """One TTL a set, the SOA and the NS that are missing, lint on relative names."""
        self._mixed()
        least: dict[tuple[bytes, int], int] = {}
        for r in self.records:
            least[r.owner, r.rtype] = min(r.ttl, least.get((r.owner, r.rtype), r.ttl))
        self.records = [
            r
            if r.ttl == least[r.owner, r.rtype]
            else Record(r.owner, r.rtype, least[r.owner, r.rtype], r.rdata, r.text, r.where)
            for r in self.records
        ]
        apex = [r for r in self.records if r.owner == self.zone]
        soas = [r for r in apex if r.rtype == codes.TYPE_SOA]
        if len(soas) > 1:
            self.out.append(
                found("E025", "a zone has one SOA", soas[1].where, "delete one", [(soas[0].where, "the other one")])
            )
        if not soas:
            wire = records.soa(self.zone, self.ttl)
            ttl = max(10, min(self.ttl, 3600))
            self.records.append(
                Record(self.zone, codes.TYPE_SOA, ttl, wire, records.shown(codes.TYPE_SOA, wire), where)
            )
        if not any(r.rtype in (codes.TYPE_NS, codes.TYPE_CNAME) for r in apex):
            self.records.append(Record(self.zone, codes.TYPE_NS, self.ttl, self.zone, self.text + ".", where))
        owners = {r.owner for r in self.records}
        existing = {suffix for owner in owners for suffix in names.suffixes(owner)}
        for node, text, point in self._relative:
            ends = text.lower() == self.text or text.lower().endswith("." + self.text)
            if ends or (point not in existing and not _wildcard(point, owners, existing)):
                self._surprise(node, text, point, "it relative to the zone" if ends else "an owner of this zone")


def _wildcard(name: bytes, owners: set[bytes], existing: set[bytes]) -> bool:
    """Whether a wildcard makes this name exist (RFC 4592, section 3.3.1)."""
    encloser = next((suffix for suffix in names.suffixes(name)[1:] if suffix in existing), names.ROOT)
    return b"\x01*" + encloser in owners

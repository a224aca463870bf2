"""The snapshot as Prometheus metrics (owner of prometheus-client).

Own registry, nothing of the process is mixed in; every value is read at the time of the scrape.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from controller.status.values import instant, mapping, rows, whole
from controller.status.view import ready
from dnsd.contract import codes

# Counters that belong together become one metric with a label: counter → (metric, label, value).
_FAMILIES = {
    "queries_udp": ("queries", "transport", "udp"), "queries_tcp": ("queries", "transport", "tcp"),
    "cache_hits": ("cache_lookups", "result", "hit"), "cache_misses": ("cache_lookups", "result", "miss"),
    **{name: ("verdicts", "verdict", name)
       for name in ("local", "allowed", "blocked", "redirected", "refused", "dropped", "special", "malformed")},
    "servfail": ("answers", "rcode", "SERVFAIL"), "nxdomain": ("answers", "rcode", "NXDOMAIN"),
}  # fmt: skip
_HELP = {
    "queries": "Queries received, by transport.",
    "cache_lookups": "Queries let through, by whether the cache had the answer.",
    "verdicts": "Queries by what was decided about them.",
    "answers": "Answers by response code, the failing ones.",
}


class _StatusCollector(Collector):
    def __init__(self, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        self.snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        snapshot = self.snapshot()
        active, newest = mapping(snapshot.get("active")), mapping(snapshot.get("newest"))
        info = InfoMetricFamily("nexoraldns_active", "The rules that are active.")
        if active:
            revision = str(active.get("revision") or "")
            info.add_metric([], {
                "revision": revision, "sha": revision.rpartition(":")[2], "digest": str(active.get("digest") or ""),
                "ref": revision.partition("@")[0],
            })  # fmt: skip
        yield info
        yield GaugeMetricFamily("nexoraldns_active_generation", "Generation of the active table.",
                                whole(active.get("generation")))  # fmt: skip
        bad = newest.get("state") in ("refused", "rejected", "failed", "rolled-back")
        yield GaugeMetricFamily(
            "nexoraldns_last_apply_successful", "1 when the newest revision that was tried is not a refused one.",
            int(bool(active) and not bad),
        )  # fmt: skip
        since = instant(active.get("since"))
        yield GaugeMetricFamily("nexoraldns_last_apply_timestamp_seconds", "When the active rules became active.",
                                since.timestamp() if since else 0)  # fmt: skip
        yield GaugeMetricFamily("nexoraldns_ready", "1 when at least one worker serves a table.",
                                int(ready(snapshot)[0]))  # fmt: skip
        yield GaugeMetricFamily("nexoraldns_suspended", "1 while new revisions are held back.",
                                int(bool(snapshot.get("suspended"))))  # fmt: skip
        yield GaugeMetricFamily("nexoraldns_scrape_timestamp_seconds", "The controller's clock.", time.time())
        yield from self.nodes(snapshot, str(active.get("digest") or ""))
        yield from self.counters(snapshot)
        refused = mapping(mapping(snapshot.get("broker")).get("refused"))
        peers = CounterMetricFamily("nexoraldns_broker_refused", "Peers that the broker closed.", labels=["reason"])
        for reason, count in refused.items():
            peers.add_metric([str(reason)], whole(count))
        yield peers
        told = CounterMetricFamily("nexoraldns_lease_events", "What DHCP clients said, by what it came to.",
                                   labels=["what"])  # fmt: skip
        for what, count in mapping(mapping(snapshot.get("broker")).get("events")).items():
            told.add_metric([str(what)], whole(count))
        yield told

    def nodes(self, snapshot: Mapping[str, Any], digest: str) -> Iterator[Metric]:
        connected = GaugeMetricFamily("nexoraldns_node_connected", "1 while the node's agent is connected.",
                                      labels=["node"])  # fmt: skip
        generation = GaugeMetricFamily("nexoraldns_worker_generation", "Generation that a worker serves.",
                                       labels=["node", "slot"])  # fmt: skip
        current = GaugeMetricFamily("nexoraldns_worker_current", "1 when a worker serves the active digest.",
                                    labels=["node", "slot"])  # fmt: skip
        for node in rows(snapshot.get("nodes")):
            name = str(node.get("name") or node.get("node") or "node")
            connected.add_metric([name], int(bool(node.get("connected", True))))
            for worker in rows(node.get("workers")):
                labels = [name, str(worker.get("slot", ""))]
                generation.add_metric(labels, whole(worker.get("generation")))
                current.add_metric(labels, int(bool(digest) and worker.get("digest") == digest))
        changes = CounterMetricFamily("nexoraldns_address_changes", "Changes of the machine's addresses.",
                                      labels=["node"])  # fmt: skip
        took = GaugeMetricFamily("nexoraldns_address_change_duration_seconds",
                                 "The last change: from the kernel's event until every worker had what it needs.",
                                 labels=["node"])  # fmt: skip
        for node in rows(snapshot.get("nodes")):
            facts, name = mapping(node.get("facts")), str(node.get("name") or node.get("node") or "node")
            if "changes" in facts:
                changes.add_metric([name], whole(facts.get("changes")))
                took.add_metric([name], whole(facts.get("change_ms")) / 1000)
        yield from (connected, generation, current, changes, took)
        yield from self.upstreams(snapshot)
        yield from self.anchors(snapshot)

    def upstreams(self, snapshot: Mapping[str, Any]) -> Iterator[Metric]:
        labels = ["node", "server"]
        ill = GaugeMetricFamily("nexoraldns_upstream_ill", "Workers for which a server did not answer last.",
                                labels=labels)  # fmt: skip
        time_ = GaugeMetricFamily("nexoraldns_upstream_rtt_seconds", "Smoothed round-trip time of a server.",
                                  labels=labels)  # fmt: skip
        for node in rows(snapshot.get("nodes")):
            for row in rows(node.get("upstreams")):
                values = [str(node.get("name") or node.get("node") or "node"), str(row.get("server", ""))]
                ill.add_metric(values, whole(row.get("ill")))
                if whole(row.get("rtt_us")):
                    time_.add_metric(values, whole(row.get("rtt_us")) / 1e6)
        yield from (ill, time_)

    def anchors(self, snapshot: Mapping[str, Any]) -> Iterator[Metric]:
        trusted = GaugeMetricFamily("nexoraldns_trust_anchor_trusted",
                                    "1 for a key that DNSSEC validation begins with, 0 for one that waits or is revoked.",
                                    labels=["node", "zone", "key"])  # fmt: skip
        failing = GaugeMetricFamily("nexoraldns_trust_anchor_failing",
                                    "1 when the last look at a trust anchor's keys was of no use (RFC 5011).",
                                    labels=["node", "zone"])  # fmt: skip
        for node in rows(snapshot.get("nodes")):
            name = str(node.get("name") or node.get("node") or "node")
            failures: dict[str, int] = {}
            for row in rows(node.get("anchors")):
                zone = str(row.get("zone", ""))
                good = row.get("state") in ("valid", "missing", "configured")
                trusted.add_metric([name, zone, str(row.get("tag", ""))], int(good))
                failures[zone] = int(bool(row.get("failure")))
            for zone, failed in failures.items():
                failing.add_metric([name, zone], failed)
        yield from (trusted, failing)

    def counters(self, snapshot: Mapping[str, Any]) -> Iterator[Metric]:
        counters = mapping(snapshot.get("counters"))
        counters = mapping(counters.get("totals")) or counters
        families: dict[str, CounterMetricFamily] = {}
        for name in codes.COUNTER_NAMES:
            metric, label, value = _FAMILIES.get(name, (name, "", ""))
            if metric not in families:
                families[metric] = CounterMetricFamily(
                    f"nexoraldns_{metric}", _HELP.get(metric, f"{name.replace('_', ' ').capitalize()}, all workers."),
                    labels=[label] if label else [],
                )  # fmt: skip
            families[metric].add_metric([value] if label else [], whole(counters.get(name)))
        yield from families.values()


def exposition(snapshot: Callable[[], Mapping[str, Any]]) -> Callable[[str], tuple[bytes, str]]:
    """A function from an Accept header to the metrics' bytes and their content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_StatusCollector(snapshot))

    def render(accept: str) -> tuple[bytes, str]:
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    return render

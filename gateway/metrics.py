"""Counters of the process, as plain integers that become Prometheus metrics when someone asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway import tls

if TYPE_CHECKING:
    from gateway.node import Node


class Counters:
    """What happened so far. Counting is an integer addition: no lock, no look-up of labels."""

    __slots__ = (
        "api_calls",
        "connections",
        "disconnects",
        "frames_in",
        "publications",
        "refused_origins",
        "replies",
        "sessions",
    )

    def __init__(self) -> None:
        self.connections = 0  # open now, connected or not
        self.sessions = 0  # of them, those that have connected
        self.frames_in = 0
        self.replies = 0  # frames sent to one client
        self.publications = 0
        self.refused_origins = 0
        self.disconnects: Counter[str] = Counter()
        self.api_calls: Counter[str] = Counter()


class NodeCollector(Collector):
    """Reads the counters of a node when scraped."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterator[Metric]:
        counters, hub, members = self._node.counters, self._node.hub, self._node.members
        gauges = (
            ("connections", "Open client connections.", counters.connections),
            ("clients", "Clients that have connected.", counters.sessions),
            ("users", "Users with at least one client.", self._node.clients.num_users),
            ("channels", "Channels with at least one subscriber here.", len(hub.channels)),
            ("subscriptions", "Subscriptions of all clients.", hub.subscriptions),
            ("lagging", "Subscriptions whose client reads too slowly.", hub.lagging),
        )
        for name, text, value in gauges:
            yield GaugeMetricFamily(f"fastws_{name}", text, value)
        counts = (
            ("frames_received", "Frames received from clients.", counters.frames_in),
            ("replies_sent", "Frames sent in answer to one client.", counters.replies),
            ("deliveries", "Channel events handed to subscribers.", hub.deliveries),
            ("deltas", "Of them, those that were deltas.", hub.deltas),
            ("dropped", "Publications left out for slow readers.", hub.dropped),
            ("publications", "Publications accepted.", counters.publications),
            ("origins_refused", "Connections of pages that may not.", counters.refused_origins),
            ("recoveries", "Subscriptions that asked for what they missed.", members.recoveries),
            ("recovered", "Of them, those that were given all of it.", members.recovered),
            ("farewells_dropped", "Disconnect events not told.", self._node.farewells.dropped),
            ("positions_lost", "Subscriptions that lost a publication.", hub.gaps),
        )
        for name, text, value in counts:
            yield CounterMetricFamily(f"fastws_{name}", text, value)
        expiry = GaugeMetricFamily(
            "fastws_certificate_expiry_seconds",
            "Unix time at which a certificate in use ends.",
            labels=["file"],
        )
        for file, at in tls.expiries(self._node.config):
            expiry.add_metric([file], at)
        yield expiry
        labelled = (
            ("disconnects", "Ended client connections.", "code", counters.disconnects),
            ("limits_reached", "Refused, or cut, by a limit.", "limit", self._node.limits.reached),
            ("api_calls", "Calls of the HTTP API.", "method", counters.api_calls),
        )
        for name, text, label, by_label in labelled:
            family = CounterMetricFamily(f"fastws_{name}", text, labels=[label])
            for case, count in by_label.items():
                family.add_metric([case], count)
            yield family
        yield from self._webhooks()

    def _webhooks(self) -> Iterator[Metric]:
        """Labels are names of the configuration, and nothing that a client says."""
        labels = ["event", "proxy"]
        called = CounterMetricFamily("fastws_webhooks", "Webhooks called.", labels=labels)
        failed = CounterMetricFamily(
            "fastws_webhooks_failed", "Webhooks without a usable answer.", labels=labels
        )
        for hook in getattr(self._node.app.app, "all_hooks", ()):
            called.add_metric([hook.event, hook.proxy], hook.calls)
            failed.add_metric([hook.event, hook.proxy], hook.failures)
        yield from (called, failed)

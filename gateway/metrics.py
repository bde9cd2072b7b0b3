"""Counters of the process, as plain integers that become Prometheus metrics when someone asks."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway import __version__, codes, process, tls
from gateway.histogram import Histogram

if TYPE_CHECKING:
    from gateway.node import Node

# An application may answer with any code: one label for all that are not ours.
_CODES = frozenset(each.code for each in vars(codes).values() if isinstance(each, codes.Error))

# Connections whose queues are looked at in one turn: about 0.2 ms of work.
_SLICE = 2000


def error_label(code: int) -> str:
    """How an error is labelled."""
    return str(code) if code in _CODES else "other"


class Counters:
    """What happened so far. Counting is an integer addition: no lock, no look-up of labels."""

    __slots__ = (
        "api_calls",
        "api_errors",
        "api_times",
        "command_errors",
        "commands",
        "connections",
        "disconnects",
        "frames_in",
        "loop_lag",
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
        self.commands: dict[str, int] = {}  # by method, those that a protocol knows
        self.command_errors: Counter[str] = Counter()  # by code
        self.api_calls: Counter[str] = Counter()
        self.api_errors: Counter[tuple[str, str]] = Counter()  # by method and code
        self.api_times: defaultdict[str, Histogram] = defaultdict(Histogram)  # by method
        self.loop_lag = Histogram()  # how late a timer was, in seconds


class NodeCollector(Collector):
    """Reads the counters of a node when scraped."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._queued = 0

    async def prepare(self) -> None:
        """Add up what waits for clients, and let others have their turns meanwhile."""
        heartbeat, queued = self._node.heartbeat, 0
        sessions = heartbeat.sessions if heartbeat is not None else []
        for begin in range(0, len(sessions), _SLICE):
            if begin:
                await asyncio.sleep(0)
            for session in sessions[begin : begin + _SLICE]:
                if session is not None:
                    queued += getattr(session.transport, "buffered_amount", 0)
        self._queued = queued

    def collect(self) -> Iterator[Metric]:
        counters, hub, members = self._node.counters, self._node.hub, self._node.members
        gauges = (
            ("connections", "Open client connections.", counters.connections),
            ("clients", "Clients that have connected.", counters.sessions),
            ("users", "Users with at least one client.", self._node.clients.num_users),
            ("channels", "Channels with at least one subscriber here.", len(hub.channels)),
            ("subscriptions", "Subscriptions of all clients.", hub.subscriptions),
            ("lagging", "Subscriptions whose client reads too slowly.", hub.lagging),
            ("queued_bytes", "Bytes that wait for clients.", self._queued),
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
            ("commands", "Commands of clients.", "method", counters.commands),
            ("command_errors", "Errors answered to clients.", "code", counters.command_errors),
            ("api_calls", "Calls of the HTTP API.", "method", counters.api_calls),
        )
        for name, text, label, by_label in labelled:
            family = CounterMetricFamily(f"fastws_{name}", text, labels=[label])
            for case, count in by_label.items():
                family.add_metric([case], count)
            yield family
        yield from self._api()
        yield from self._webhooks()
        yield from _process()
        lag = HistogramMetricFamily("fastws_loop_lag_seconds", "How late the event loop is.")
        lag.add_metric([], counters.loop_lag.buckets(), counters.loop_lag.total)
        yield lag
        build = GaugeMetricFamily("fastws_build_info", "Always 1.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build

    def _api(self) -> Iterator[Metric]:
        counters = self._node.counters
        errors = CounterMetricFamily(
            "fastws_api_errors", "Calls answered with an error.", labels=["method", "code"]
        )
        for labels, count in counters.api_errors.items():
            errors.add_metric(labels, count)
        yield errors
        times = HistogramMetricFamily(
            "fastws_api_duration_seconds", "What calls of the HTTP API took.", labels=["method"]
        )
        for method, taken in counters.api_times.items():
            times.add_metric([method], taken.buckets(), taken.total)
        yield times

    def _webhooks(self) -> Iterator[Metric]:
        """Labels are names of the configuration, and nothing that a client says."""
        labels = ["event", "proxy"]
        called = CounterMetricFamily("fastws_webhooks", "Webhooks called.", labels=labels)
        failed = CounterMetricFamily(
            "fastws_webhooks_failed", "Webhooks without a usable answer.", labels=labels
        )
        in_flight = GaugeMetricFamily(
            "fastws_webhooks_in_flight", "Webhooks called and not answered.", labels=labels
        )
        times = HistogramMetricFamily(
            "fastws_webhook_duration_seconds", "What webhooks took.", labels=labels
        )
        for hook in getattr(self._node.app.app, "all_hooks", ()):
            called.add_metric([hook.event, hook.proxy], hook.calls)
            failed.add_metric([hook.event, hook.proxy], hook.failures)
            in_flight.add_metric([hook.event, hook.proxy], hook.in_flight)
            times.add_metric([hook.event, hook.proxy], hook.times.buckets(), hook.times.total)
        yield from (called, failed, in_flight, times)


def _process() -> Iterator[Metric]:
    """By the names that Prometheus clients give them in all languages."""
    yield CounterMetricFamily(
        "process_cpu_seconds", "CPU time, user and system.", time.process_time()
    )
    gauges = (
        ("resident_memory_bytes", "Resident memory.", process.memory()),
        ("open_fds", "Open descriptors.", process.descriptors()),
        ("max_fds", "The most that may be open; 0: no limit.", process.descriptor_limit()),
        ("start_time_seconds", "Unix time of the start.", process.STARTED_AT),
    )
    for name, text, value in gauges:
        yield GaugeMetricFamily(f"process_{name}", text, value)

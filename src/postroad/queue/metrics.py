"""Prometheus metrics of queues and their workers. docs/reference/metrics.md lists them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from postroad.clock import SystemClock
from postroad.errors import UnavailableError
from postroad.monitor_server import PathReply, serve_paths
from postroad.queue.gates import GateState
from postroad.queue.processes import Process
from postroad.queue.queue import Queue
from postroad.queue.stats import STEPPED_BACK_MS, STEPS_BACK, QueueStats

SCRIPT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
"""Buckets of the latency of a script, with its round trip."""

MAX_GATES = 500
"""Maximum number of exported gates, those with most parked lanes first. Each is a time series."""


class _Snapshot(NamedTuple):
    stats: QueueStats
    gates: Sequence[GateState]
    processes: Sequence[Process]


async def _snapshot(queue: Queue) -> _Snapshot:
    return _Snapshot(await queue.stats(), await queue.gates(), await queue.processes())


class QueueMetrics:
    """The metrics of one process, for `Queue.open` and `serve_metrics`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._collector = _QueueCollector()
        self.registry.register(self._collector)
        self._scripts = Histogram(
            "postroad_queue_script_seconds",
            "Latency of scripts, as this process sees it",
            ["queue", "script"],
            buckets=SCRIPT_SECONDS,
            registry=self.registry,
        )
        self._claimed = self._counter("postroad_queue_claimed", "Jobs that this process claimed", ["queue"])
        self._settled = self._counter(
            "postroad_queue_settled", "Jobs that this process settled, by verdict", ["queue", "verdict"]
        )
        self._stale = self._counter(
            "postroad_queue_stale", "Verdicts of this process whose lease was no longer its own", ["queue"]
        )
        self._trips = self._counter(
            "postroad_queue_watchdog_trips", "Times that jobs were ready and this process claimed none", ["queue"]
        )

    def _counter(self, name: str, documentation: str, labels: Sequence[str]) -> Counter:
        return Counter(name, documentation, labels, registry=self.registry)

    def script_ran(self, queue: str, script: str, seconds: float) -> None:
        """Count one call of a script."""
        self._scripts.labels(queue, script).observe(seconds)

    def worked(self, queue: str, *, claimed: int, settled: Iterable[str], stale: int) -> None:
        """Count the jobs of one call of a worker."""
        self._claimed.labels(queue).inc(claimed)
        self._stale.labels(queue).inc(stale)
        for verdict in settled:
            self._settled.labels(queue, verdict).inc()

    def watchdog_tripped(self, queue: str) -> None:
        """Count a worker that was idle while jobs were ready."""
        self._trips.labels(queue).inc()

    async def refresh(self, queues: Iterable[Queue]) -> None:
        """Take a snapshot of each queue.

        Args:
            queues: Queues of this process. An unavailable one is exported as down.
        """
        for queue in queues:
            try:
                self._collector.snapshots[queue.name] = await _snapshot(queue)
            except UnavailableError:
                self._collector.snapshots[queue.name] = None

    def set_down(self, queue: str) -> None:
        """Export a queue as down that could not be opened."""
        self._collector.snapshots[queue] = None

    def text(self) -> bytes:
        """Return the metrics in the text format of Prometheus."""
        return generate_latest(self.registry)


class _QueueCollector(Collector):
    """Exports the state of queues, from the last snapshots."""

    def __init__(self) -> None:
        self.snapshots: dict[str, _Snapshot | None] = {}

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all snapshots."""
        up = _gauge("up", "1 if the queue's server answers", ["queue"])
        for name, snapshot in self.snapshots.items():
            up.add_metric([name], snapshot is not None)
        yield up
        known = {name: snapshot for name, snapshot in self.snapshots.items() if snapshot}
        yield from _states(known)
        yield from _events(known)
        yield from _servers(known)
        yield from _gates(known)
        yield from _processes(known)


def _gauge(name: str, documentation: str, labels: Sequence[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"postroad_queue_{name}", documentation, labels=labels)


def _states(snapshots: dict[str, _Snapshot]) -> Iterator[Metric]:
    jobs = _gauge("jobs", "Jobs by state", ["queue", "state"])
    depth = _gauge("depth", "Jobs in lanes, by class", ["queue", "class"])
    lanes = _gauge("lanes", "Lanes with jobs: ready, or parked at a gate", ["queue", "state"])
    oldest = _gauge("oldest_ready_seconds", "How long the oldest job of a ready lane has been ready", ["queue"])
    paused = _gauge("paused_groups", "Groups that are paused", ["queue"])
    total = CounterMetricFamily(
        "postroad_queue_jobs_total", "What happened to jobs since the queue began", labels=["queue", "what"]
    )
    stepped = CounterMetricFamily(
        "postroad_queue_clock_stepped_back_seconds",
        "How far the clock of the queue's server has stepped back, in all",
        labels=["queue"],
    )
    for name, (stats, *_) in snapshots.items():
        for state in ("queued", "scheduled", "in_flight", "uncertain", "dead", "remembered"):
            jobs.add_metric([name, state], getattr(stats, state))
        for job_class, n in stats.queued_by_class.items():
            depth.add_metric([name, job_class], n)
        lanes.add_metric([name, "ready"], stats.ready_lanes)
        lanes.add_metric([name, "parked"], stats.parked_lanes)
        oldest.add_metric([name], stats.oldest_ready_ms / 1000)
        paused.add_metric([name], len(stats.paused_groups))
        for what, n in stats.counters.items():
            if what not in (STEPS_BACK, STEPPED_BACK_MS):
                total.add_metric([name, what], n)
        stepped.add_metric([name], stats.counters.get(STEPPED_BACK_MS, 0) / 1000)
    yield from (jobs, depth, lanes, oldest, paused, total, stepped)


def _events(snapshots: dict[str, _Snapshot]) -> Iterator[Metric]:
    events = _gauge("events", "Events in the stream", ["queue"])
    lag = _gauge("events_unrecorded", "Events that a group has not acknowledged", ["queue", "group"])
    for name, (stats, *_) in snapshots.items():
        events.add_metric([name], stats.events)
        for group in stats.groups:
            lag.add_metric([name, group.name], group.pending + group.unread)
    yield from (events, lag)


def _servers(snapshots: dict[str, _Snapshot]) -> Iterator[Metric]:
    memory = _gauge("memory_used_ratio", "Share of the memory of the queue's server that is in use", ["queue"])
    persists = _gauge("persists", "1 if the last write of the queue's server to its disk succeeded", ["queue"])
    for name, (stats, *_) in snapshots.items():
        if stats.server.memory_used_ratio is not None:
            memory.add_metric([name], stats.server.memory_used_ratio)
        persists.add_metric([name], stats.server.persists)
    yield from (memory, persists)


def _gates(snapshots: dict[str, _Snapshot]) -> Iterator[Metric]:
    labels = ["queue", "gate"]
    in_flight = _gauge("gate_in_flight", "Jobs in flight that a gate counts", labels)
    used = _gauge("gate_used_ratio", "Share of a gate's limit that is in use now; 1: it admits nothing", labels)
    waiting = _gauge("gate_parked_lanes", "Lanes that are parked at a gate", labels)
    paused = _gauge("gate_paused", "1 while a gate is paused", labels)
    now_ms = SystemClock().now_ms()
    for name, (_, gates, _) in snapshots.items():
        shown = [state for state in gates if state.capacity is not None or state.in_flight or state.parked_lanes]
        shown.sort(key=lambda state: (-state.parked_lanes, -state.in_flight))
        for state in shown[:MAX_GATES]:
            at = [name, state.gate.name]
            in_flight.add_metric(at, state.in_flight)
            used.add_metric(at, used_ratio(state))
            waiting.add_metric(at, state.parked_lanes)
            paused.add_metric(at, (state.gate.paused_until_ms or 0) > now_ms)
    yield from (in_flight, used, waiting, paused)


def _processes(snapshots: dict[str, _Snapshot]) -> Iterator[Metric]:
    alive = GaugeMetricFamily("postroad_processes", "Processes that are alive", labels=["queue", "role"])
    for name, (_, _, processes) in snapshots.items():
        for role in sorted({process.role for process in processes}):
            alive.add_metric([name, role], sum(process.alive for process in processes if process.role == role))
    yield alive


def used_ratio(state: GateState) -> float:
    """Return the used share of a gate, 0 to 1: the larger of its concurrency and its burst.

    Args:
        state: State of the gate.

    Returns:
        0 if the gate is idle, 1 if it admits no job.
    """
    if state.capacity is None:
        return 0.0
    if state.capacity == 0:
        return 1.0
    return max(state.in_flight / state.gate.concurrency if state.gate.concurrency else 0.0, state.rate_used)


@asynccontextmanager
async def serve_metrics(metrics: QueueMetrics, queues: Sequence[Queue], *, host: str, port: int) -> AsyncIterator[int]:
    """Serve ``GET /metrics`` in the text format of Prometheus while this is open.

    Args:
        metrics: Metrics of this process.
        queues: Queues of which each request takes a snapshot.
        host: Address to listen at.
        port: Port. 0: any free one.

    Yields:
        The port.

    Raises:
        ConfigError: The address cannot be used.
    """
    async with serve_paths({"/metrics": partial(metrics_reply, metrics, queues)}, host=host, port=port) as listening_at:
        yield listening_at


async def metrics_reply(metrics: QueueMetrics, queues: Iterable[Queue]) -> PathReply:
    """Take a snapshot of each queue, and return the response of /metrics.

    Args:
        metrics: Metrics of this process.
        queues: Queues of this process.

    Returns:
        The response.
    """
    await metrics.refresh(queues)
    return PathReply(HTTPStatus.OK, CONTENT_TYPE_LATEST, metrics.text())

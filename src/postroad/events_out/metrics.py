"""Prometheus metrics of webhooks. docs/reference/metrics.md lists them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from postroad.clock import Clock
from postroad.errors import UnavailableError
from postroad.events_out.status import EndpointStatus, endpoint_reports
from postroad.settings.webhooks_out import WebhookEndpointSettings

log = logging.getLogger(__name__)

REFRESH_S = 15.0
SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)
"""Buckets of the duration of a request."""


class AttemptMetrics:
    """Counts the requests of a worker."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._attempts = Counter(
            "postroad_webhook_attempts",
            "Requests of this process to endpoints of webhooks, by outcome",
            ["endpoint", "outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "postroad_webhook_seconds",
            "Duration of requests of this process to endpoints of webhooks",
            ["endpoint"],
            buckets=SECONDS,
            registry=registry,
        )

    def count(self, endpoint: str, outcome: str, seconds: float) -> None:
        """Count one request."""
        self._attempts.labels(endpoint, outcome).inc()
        self._seconds.labels(endpoint).observe(seconds)


class EndpointMetrics:
    """Exports the state of endpoints, for the process that feeds them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["endpoint"]
        self._lag = Gauge(
            "postroad_webhook_lag_seconds",
            "Age of the oldest event that an endpoint has not got",
            labels,
            registry=registry,
        )
        self._waiting = Gauge(
            "postroad_webhook_waiting",
            "Deliveries of an endpoint that wait, without the events that it has not read",
            labels,
            registry=registry,
        )
        self._dead = Gauge(
            "postroad_webhook_dead",
            "Deliveries of an endpoint whose attempts all failed, at most 10,000",
            labels,
            registry=registry,
        )
        self._disabled = Gauge("postroad_webhook_disabled", "1 if an endpoint is disabled", labels, registry=registry)

    async def refresh_forever(
        self, engine: sa.Engine, settings: Mapping[str, WebhookEndpointSettings], clock: Clock
    ) -> None:
        """Read the state every few seconds, until cancelled."""
        while True:
            try:
                reports = await asyncio.to_thread(endpoint_reports, engine, settings, clock.now())
            except UnavailableError as error:
                log.debug("the state of webhooks is not exported: %s", error.message)
            else:
                for report in reports:
                    if report.status is not EndpointStatus.REMOVED:
                        self._lag.labels(report.name).set(report.lag_s)
                        self._waiting.labels(report.name).set(report.waiting)
                        self._dead.labels(report.name).set(report.dead)
                        self._disabled.labels(report.name).set(report.status is EndpointStatus.DISABLED)
            await asyncio.sleep(REFRESH_S)

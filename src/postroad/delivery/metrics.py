"""Exports delivery outcomes of recorders and bounce workers to Prometheus. See docs/reference/metrics.md."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Counter

from postroad.dns.providers import provider_of
from postroad.errors import UnavailableError
from postroad.store.engine import read
from postroad.store.outcome import TouchOutcome, count_outcomes

log = logging.getLogger(__name__)

MAX_SENDERS = 200
"""Number of senders with their own time series. Further senders share one."""

OTHER_SENDERS = "other"


class DeliveryMetrics:
    """Counts outcomes by sender, provider and outcome. Providers are those of providers.toml, and `other`."""

    def __init__(self, engine: sa.Engine, registry: CollectorRegistry) -> None:
        self._engine = engine
        self._senders: set[str] = set()
        self._deliveries = Counter(
            "postroad_deliveries",
            "Outcomes of delivery that this process recorded, by sender, mailbox provider and outcome",
            ["sender", "provider", "outcome"],
            registry=registry,
        )

    def count(self, outcomes: Sequence[TouchOutcome]) -> None:
        """Count outcomes that the ledger contains. While the database is unavailable they are not counted."""
        if not outcomes:
            return
        try:
            with read(self._engine) as connection:
                counted = count_outcomes(connection, outcomes)
        except UnavailableError as error:
            log.debug("%d outcomes are not counted: %s", len(outcomes), error.message)
            return
        for destination, count in counted.items():
            provider = provider_of(destination.domain, destination.provider)
            labels = self._label_of(destination.sender), provider, destination.outcome.value
            self._deliveries.labels(*labels).inc(count)

    def _label_of(self, sender: str) -> str:
        if len(self._senders) < MAX_SENDERS:
            self._senders.add(sender)
        return sender if sender in self._senders else OTHER_SENDERS

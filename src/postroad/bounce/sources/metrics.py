"""Prometheus metrics of the sources. docs/reference/metrics.md lists every metric."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge

from postroad.bounce.sources.source import PollFailure, PollResult


class InboundReply(StrEnum):
    """Reply of the inbound server to one mail for one recipient."""

    TAKEN = "taken"
    KNOWN = "known"  # accepted before, with the same octets
    REFUSED = "refused"  # at RCPT: the address does not exist
    THROTTLED = "throttled"  # at MAIL: too many mails from this client
    FAILED = "failed"  # the mail could not be stored


class InboundMetrics:
    """Metrics of one `postroad inbound`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._replies = Counter(
            "postroad_inbound_mails", "Mails to one recipient each, by what was answered", ["answer"], registry=registry
        )
        for reply in InboundReply:
            self._replies.labels(reply.value)  # Exported as 0 before the first.
        self.connections = Gauge("postroad_inbound_connections", "Connections that are open", registry=registry)
        self.turned_away = Counter(
            "postroad_inbound_turned_away", "Connections that got 421: too many were open", registry=registry
        )

    def count_reply(self, reply: InboundReply) -> None:
        """Count one reply."""
        self._replies.labels(reply.value).inc()


class SourceMetrics:
    """Metrics of one `postroad bounce watch`."""

    def __init__(self, registry: CollectorRegistry, names: Iterable[str]) -> None:
        self._up = Gauge(
            "postroad_bounce_source_up",
            "1 if the last poll of the source succeeded",
            ["source"],
            registry=registry,
        )
        self._mails = Counter("postroad_bounce_source_mails", "Mails, by result", ["source", "what"], registry=registry)
        for name in names:
            self._up.labels(name)  # 0 until the first poll succeeded.
            for result in ("taken", "known", "unreadable"):
                self._mails.labels(name, result)

    def record(self, poll: PollResult | PollFailure) -> None:
        """Record a poll or its failure."""
        self._up.labels(poll.source).set(isinstance(poll, PollResult))
        if isinstance(poll, PollResult):
            for result, mails in (("taken", poll.taken), ("known", poll.known), ("unreadable", poll.unreadable)):
                self._mails.labels(poll.source, result).inc(mails)

"""What sources tell Prometheus. docs/reference/metrics.md lists every metric."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge

from postroad.bounce.sources.fetched import Failed, Polled


class InboundReply(StrEnum):
    """What a client was told of one mail to one recipient."""

    TAKEN = "taken"
    KNOWN = "known"  # taken before, octet for octet
    REFUSED = "refused"  # at RCPT: that address is nobody's here
    THROTTLED = "throttled"  # at MAIL: too many from this client
    FAILED = "failed"  # it could not be kept just now


class InboundMetrics:
    """Of one `postroad inbound`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._answers = Counter(
            "postroad_inbound_mails", "Mails to one recipient each, by what was answered", ["answer"], registry=registry
        )
        for answer in InboundReply:
            self._answers.labels(answer.value)  # Shown as 0 before the first.
        self.connections = Gauge("postroad_inbound_connections", "Connections that are open", registry=registry)
        self.turned_away = Counter(
            "postroad_inbound_turned_away", "Connections that were told 421: too many were open", registry=registry
        )

    def answered(self, answer: InboundReply) -> None:
        self._answers.labels(answer.value).inc()


class SourceMetrics:
    """Of one `postroad bounce watch`."""

    def __init__(self, registry: CollectorRegistry, names: Iterable[str]) -> None:
        self._up = Gauge(
            "postroad_bounce_source_up",
            "1 if the source could be looked into when that was last tried",
            ["source"],
            registry=registry,
        )
        self._mails = Counter(
            "postroad_bounce_source_mails", "Mails, by what became of them", ["source", "what"], registry=registry
        )
        for name in names:
            self._up.labels(name)  # 0 until it was looked into for the first time.
            for what in ("taken", "known", "unreadable"):
                self._mails.labels(name, what)

    def seen(self, told: Polled | Failed) -> None:
        """Note a pass, or that there was none."""
        self._up.labels(told.source).set(isinstance(told, Polled))
        if isinstance(told, Polled):
            for what, mails in (("taken", told.taken), ("known", told.known), ("unreadable", told.unreadable)):
                self._mails.labels(told.source, what).inc(mails)

"""What the listener tells Prometheus. docs/reference/metrics.md lists every metric."""

from __future__ import annotations

from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge


class Answer(StrEnum):
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
        for answer in Answer:
            self._answers.labels(answer.value)  # Shown as 0 before the first.
        self.connections = Gauge("postroad_inbound_connections", "Connections that are open", registry=registry)
        self.turned_away = Counter(
            "postroad_inbound_turned_away", "Connections that were told 421: too many were open", registry=registry
        )

    def answered(self, answer: Answer) -> None:
        self._answers.labels(answer.value).inc()

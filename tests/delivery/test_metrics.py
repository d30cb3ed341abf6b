"""What delivery is counted by stays bounded, and a database that is down costs a count and nothing else."""

from __future__ import annotations

import sqlalchemy as sa
from prometheus_client import CollectorRegistry

from postroad.delivery.metrics import MAX_SENDERS, DeliveryMetrics
from postroad.store.engine import open_engine, write
from postroad.store.ledger import TouchState
from postroad.store.outcome import DeliveryOutcome, TouchOutcome
from tests.store.rows import add_campaign, add_recipient, add_touch


def counted(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels[name] for name in ("sender", "provider", "outcome")): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "postroad_deliveries_total"
    }


def test_domains_of_unknown_providers_are_counted_together(engine: sa.Engine) -> None:
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection)
        domains = ["gmail.com", *(f"rare{n}.example" for n in range(50))]
        touches = [
            add_touch(
                connection, campaign, step, TouchState.ACCEPTED, recipient_id=add_recipient(connection, f"a@{domain}")
            )
            for domain in domains
        ]
    registry = CollectorRegistry()
    metrics = DeliveryMetrics(engine, registry)
    metrics.count([TouchOutcome(touch, DeliveryOutcome.ACCEPTED) for touch in touches])
    metrics.count([TouchOutcome(touches[0], DeliveryOutcome.COMPLAINED), TouchOutcome(10**9, DeliveryOutcome.BOUNCED)])
    assert counted(registry) == {
        ("news@example.com", "google", "accepted"): 1,
        ("news@example.com", "google", "complained"): 1,
        ("news@example.com", "other", "accepted"): 50,
    }


def test_senders_beyond_the_bound_are_counted_together(engine: sa.Engine) -> None:
    extra = 3
    with write(engine) as connection:
        touches = []
        for number in range(MAX_SENDERS + extra):
            campaign, (step,) = add_campaign(connection)
            recipient = add_recipient(connection, f"a{number}@example.org")
            touches.append(add_touch(connection, campaign, step, TouchState.ACCEPTED, recipient_id=recipient))
        connection.execute(sa.text("UPDATE sender SET address = 'sender' || id || '@example.com'"))
    registry = CollectorRegistry()
    DeliveryMetrics(engine, registry).count([TouchOutcome(touch, DeliveryOutcome.ACCEPTED) for touch in touches])
    found = counted(registry)
    assert len(found) == MAX_SENDERS + 1
    assert found["other", "other", "accepted"] == extra


def test_database_that_is_down_is_not_counted() -> None:
    registry = CollectorRegistry()
    away = open_engine("postgresql://ada@127.0.0.1:1/none")
    DeliveryMetrics(away, registry).count([TouchOutcome(1, DeliveryOutcome.ACCEPTED)])
    assert counted(registry) == {}

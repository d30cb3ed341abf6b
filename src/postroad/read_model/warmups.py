"""Whether senders that warm up are on their curves: caps and plan, the decisions, and who overrode them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from msgspec import Struct

from postroad.store.outcome import DeliveryOutcome
from postroad.store.traffic import bucket_start, traffic_by_receiver
from postroad.store.warmup import WarmupOverride, overrides_of
from postroad.warmup.day import day_of, midnight
from postroad.warmup.identity import WarmingIdentity
from postroad.warmup.status import WarmupStatus, warmup_curves

_ATTEMPTED = frozenset({DeliveryOutcome.ACCEPTED, DeliveryOutcome.BOUNCED, DeliveryOutcome.UNKNOWN})


class WarmupCurve(Struct, frozen=True, kw_only=True):
    """One identity at one mailbox provider: its days, each with cap, plan, decision and results.

    ``status``: without the mail of today. ``sent_today``: messages of today with a final outcome at a receiver.
    """

    status: WarmupStatus
    sent_today: int
    overrides: Sequence[WarmupOverride]


def warmups(connection: sa.Connection, identities: Sequence[WarmingIdentity], now: datetime) -> list[WarmupCurve]:
    """Return the curves of these identities, sorted by identity and provider.

    Args:
        connection: A connection in a transaction.
        identities: The identities, as the settings have them: `postroad.warmup.identity.identities`.
        now: The time.

    Returns:
        The curves of the pairs that have a decided day.
    """
    overrides = overrides_of(connection, [identity.name for identity in identities])
    sent = {identity.name: _sent_today(connection, identity, now) for identity in identities}
    return [
        WarmupCurve(
            status=status,
            sent_today=sent[status.identity][status.provider],
            overrides=[one for one in overrides if (one.identity, one.provider) == (status.identity, status.provider)],
        )
        for status in warmup_curves(connection, identities, now)
    ]


def _sent_today(connection: sa.Connection, identity: WarmingIdentity, now: datetime) -> Counter[str]:
    """Count the messages of an identity's senders since midnight in its zone, by mailbox provider."""
    by_address = sa.text("SELECT id FROM sender WHERE address IN :addresses").bindparams(
        sa.bindparam("addresses", list(identity.senders), expanding=True)
    )
    sender_ids = list(connection.execute(by_address).scalars())
    since = max(midnight(day_of(identity, now), identity.zone), now - timedelta(days=1))
    counts: Counter[str] = Counter()
    for row in traffic_by_receiver(connection, bucket_start(since, now), sender_ids=sender_ids):
        counts[row.provider] += row.events if row.outcome in _ATTEMPTED else 0
    return counts

"""Whether senders that warm up are on their curves: caps and plan, the decisions, and who overrode them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from msgspec import Struct

from postroad.store.outcome import DeliveryOutcome
from postroad.store.traffic import ReceiverCount, bucket_start, traffic_by_receiver
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
    sent = _sent_today(connection, identities, now)
    return [
        WarmupCurve(
            status=status,
            sent_today=sent[status.identity][status.provider],
            overrides=[one for one in overrides if (one.identity, one.provider) == (status.identity, status.provider)],
        )
        for status in warmup_curves(connection, identities, now)
    ]


def _sent_today(
    connection: sa.Connection, identities: Sequence[WarmingIdentity], now: datetime
) -> dict[str, Counter[str]]:
    """Count the messages of each identity's senders since midnight in its zone, by identity and mailbox provider."""
    addresses = sorted({address for identity in identities for address in identity.senders})
    by_address = sa.text("SELECT address, id FROM sender WHERE address IN :addresses").bindparams(
        sa.bindparam("addresses", addresses, type_=sa.Text(), expanding=True)
    )
    senders: defaultdict[str, set[int]] = defaultdict(set)
    for address, sender_id in connection.execute(by_address):
        senders[address].add(sender_id)
    # The counts are read once for each time at which a day began: identities of one zone share it.
    begun = {identity.name: _day_begin(identity, now) for identity in identities}
    rows = {since: _attempted(connection, since) for since in set(begun.values())}
    sent: dict[str, Counter[str]] = {}
    for identity in identities:
        mine = {sender_id for address in identity.senders for sender_id in senders[address]}
        sent[identity.name] = Counter()
        for row in rows[begun[identity.name]]:
            sent[identity.name][row.provider] += row.events if row.sender_id in mine else 0
    return sent


def _day_begin(identity: WarmingIdentity, now: datetime) -> datetime:
    # Where midnight is within an hour of UTC, that hour counts whole: older outcomes are counted by hours.
    return bucket_start(midnight(day_of(identity, now), identity.zone), now)


def _attempted(connection: sa.Connection, since: datetime) -> list[ReceiverCount]:
    return [row for row in traffic_by_receiver(connection, since) if row.outcome in _ATTEMPTED]

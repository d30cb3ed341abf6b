"""The gates that a queue has, and those that its next jobs may create."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import product

from postroad.app.context import AppContext
from postroad.delivery.job import MAIL_QUEUES
from postroad.errors import unknown_name
from postroad.gates.name import QUEUE_GATE, GateName, Receiver
from postroad.queue import Queue
from postroad.shaping.describe import known_receivers
from postroad.store.campaign import campaign_names, sender_addresses
from postroad.store.engine import read
from postroad.warmup.caps import providers
from postroad.warmup.identity import identities


async def require_gate(context: AppContext, queue: Queue, name: str) -> None:
    """Raise StateError unless the queue has this gate, or a future job may need it."""
    known = await known_gates(context, queue)
    if name not in known:
        raise unknown_name("gate", name, known, listed_by="postroad queue gate list")


async def known_gates(context: AppContext, queue: Queue) -> set[str]:
    """Return the names of the gates that the queue has, and of those that its next jobs may create.

    The queue creates a gate with the first job that needs it. So that a gate can be paused before that, its name is
    derived from the settings and the ledger.
    """
    existing = {state.gate.name for state in await queue.gates()} | {str(QUEUE_GATE)}
    if queue.name not in MAIL_QUEUES:
        return existing
    return existing | await asyncio.to_thread(_implied_gates, context, existing)


def _implied_gates(context: AppContext, existing: Iterable[str]) -> set[str]:
    with read(context.engine) as connection:
        senders = {address for address, _ in sender_addresses(connection)}
        campaigns = campaign_names(connection)
        named = known_receivers(connection, context.shaping, existing, [])
    senders |= {sender.address for sender in context.settings.senders.values()}
    of_providers = {*providers(), *(receiver.provider for receiver in named)}
    receivers = {*map(Receiver, of_providers), *named}
    warming = [identity.name for identity in identities(context.settings)]
    names = [
        *map(GateName.campaign, campaigns),
        *map(GateName.sender, senders),
        *map(GateName.hold, senders),
        *map(GateName.route, context.settings.routes),
        *map(GateName.provider, of_providers),
        *(GateName.at_receiver(sender, receiver) for sender, receiver in product(senders, receivers)),
        *(GateName.warmup(provider, identity) for provider, identity in product(providers(), warming)),
    ]
    return set(map(str, names))

"""Resolves names given as arguments. A name that does not exist is an error with similar names."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import sqlalchemy as sa

from postroad.app.context import AppContext
from postroad.delivery.job import MAIL_QUEUES, parse_touch_id
from postroad.errors import StateError, unknown_name
from postroad.queue import Queue
from postroad.settings import DEFAULT_QUEUES, SenderSettings, Settings
from postroad.store.engine import read
from postroad.store.ledger import known_touches
from postroad.warmup.caps import providers


async def named_queue(context: AppContext, name: str, *, new: bool = False) -> Queue:
    """Return the queue with a name, which must be in the settings or have had a job or a gate.

    Args:
        context: The application.
        name: Name of the queue.
        new: Accept a queue that is not used yet.

    Returns:
        The queue.

    Raises:
        StateError: There is no such queue.
    """
    queue = await context.queue(name)
    known = {*DEFAULT_QUEUES, *context.settings.queues}
    if not new and name not in known and not await _is_used(queue):
        raise unknown_name("queue", name, known)
    return queue


async def _is_used(queue: Queue) -> bool:
    stats = await queue.stats()
    return bool(stats.lanes or stats.events or any(stats.counters.values()) or await queue.gates())


def named_sender(settings: Settings, name: str) -> SenderSettings:
    """Return the settings of a sender. Raise StateError if it does not exist."""
    if name not in settings.senders:
        error = unknown_name("sender", name, settings.senders)
        where = settings.config_path or "postroad.toml"
        sections = f"Senders are the sections [senders.NAME] of {where}."
        raise StateError(error.message, remedy=f"{error.remedy} {sections}" if error.remedy else sections)
    return settings.senders[name]


def require_provider(name: str) -> None:
    """Raise StateError unless the name is that of a mailbox provider with caps."""
    if name not in providers():
        raise unknown_name("mailbox provider", name, providers(), listed_by="postroad shaping show")


async def require_jobs(context: AppContext, queue: Queue, ids: Sequence[str]) -> None:
    """Raise StateError for jobs that do not exist, with the first of them.

    The ledger has every touch. A queue without a ledger forgets jobs that ended, so there one known job is enough.
    """
    states = await queue.states(ids)
    unknown = [id_ for id_, state in zip(ids, states, strict=True) if state is None]
    if unknown and queue.name in MAIL_QUEUES:
        touches = {id_: parse_touch_id(id_) for id_ in unknown}
        in_ledger = await asyncio.to_thread(_in_ledger, context.engine, list(touches.values()))
        unknown = [id_ for id_, touch in touches.items() if touch not in in_ledger]
    elif len(unknown) < len(ids):
        return
    if unknown:
        more = f", and {len(unknown) - 1:,} more are unknown" if len(unknown) > 1 else ""
        raise StateError(
            f"{queue.name} knows no job {unknown[0]!r}{more}",
            remedy="Nothing was changed. It never had it, or it ended and was forgotten.",
        )


def _in_ledger(engine: sa.Engine, touches: Sequence[int]) -> set[int]:
    with read(engine) as connection:
        return known_touches(connection, touches)

"""Adds and lifts suppressions by address, domain or hash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from postroad.app.context import AppContext
from postroad.campaign.suppression_file import suppression_key
from postroad.errors import StateError, UsageError
from postroad.mail.address_hash import is_hash
from postroad.store import suppression as store
from postroad.store.engine import read
from postroad.store.recipient import find_audience
from postroad.store.suppression import EVERYWHERE, Entry, Suppression, SuppressionReason


@dataclass(frozen=True, kw_only=True)
class NewSuppressions:
    """What to suppress. ``keys``: as `suppression_key` returns them. ``audience`` None: everywhere."""

    keys: Sequence[str]
    reason: SuppressionReason
    source: str
    audience: str | None = None


@dataclass(frozen=True, kw_only=True)
class AddedSuppressions:
    """Numbers of new suppressions, and of those that were there."""

    new: int
    known: int


def add_suppressions(context: AppContext, given: NewSuppressions) -> AddedSuppressions:
    """Suppress addresses, domains or hashes. It holds at once, also for queued messages.

    Args:
        context: The open parts.
        given: What to suppress.

    Returns:
        What was done.

    Raises:
        StateError: There is no such audience.
    """
    audience_id, now = _audience_id(context, given.audience), context.clock.now()
    entries = [Entry(key, given.reason, given.source, now, audience_id) for key in dict.fromkeys(given.keys)]
    new = store.save_suppressions_now(context.engine, entries)
    return AddedSuppressions(new=new, known=len(entries) - new)


def lift_suppressions(
    context: AppContext, keys: Sequence[str], audience: str | None, *, by: str, why: str
) -> list[Suppression]:
    """Delete suppressions, and record who did it and why. Those of an address are also found by its hashes.

    Args:
        context: The open parts.
        keys: Addresses, domains or hashes, as `suppression_key` returns them.
        audience: Only what holds for this audience. None: wherever it holds.
        by: Who lifts them.
        why: The reason.

    Returns:
        The deleted suppressions.

    Raises:
        UsageError: There is no reason.
        StateError: Nothing of this is suppressed.
        StateError: There is no such audience.
    """
    if not why.strip():
        raise UsageError("a suppression is lifted for a reason", remedy="Say it: --reason 'asked for it by phone'.")
    audience_id = None if audience is None else _audience_id(context, audience)
    stored, now = stored_keys(context, keys), context.clock.now()
    lifted = store.lift(context.engine, stored, audience_id, by=by, why=why.strip(), now=now)
    if not lifted:
        raise StateError("nothing of this is suppressed", remedy="`postroad suppression list` shows what is.")
    return lifted


def stored_keys(context: AppContext, keys: Sequence[str]) -> list[str]:
    """Return keys with the hashes of the addresses among them, because a suppression may be stored as a hash.

    Args:
        context: The open parts.
        keys: Addresses, domains or hashes, as `suppression_key` returns them.

    Returns:
        All keys under which they may be stored.
    """
    in_clear = [key for key in keys if not key.startswith("@") and not is_hash(key)]
    return [*keys, *(hashed for key in in_clear for hashed in (context.hash_of(key), *context.hash_of.older(key)))]


def _audience_id(context: AppContext, name: str | None) -> int:
    if name is None:
        return EVERYWHERE
    with read(context.engine) as connection:
        return find_audience(connection, name)


__all__ = [
    "AddedSuppressions",
    "NewSuppressions",
    "add_suppressions",
    "lift_suppressions",
    "stored_keys",
    "suppression_key",
]

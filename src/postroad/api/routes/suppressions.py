"""Suppressions: list, add, lift."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from postroad.api.access import ApiRoute, needs
from postroad.api.fields import (
    DEFAULT_PAGE,
    MAX_ADDRESS,
    WITH_BODY,
    Answer,
    CallerParameter,
    CursorParameter,
    Input,
    Limit,
    Time,
    problems,
)
from postroad.api.pages import number_of, page_of
from postroad.api.problems import ProblemKind, invalid
from postroad.app.suppressions import NewSuppressions, add_suppressions, lift_suppressions, suppression_key
from postroad.campaign.steps import NAME_PATTERN
from postroad.errors import DataError
from postroad.settings import AccessRole
from postroad.store.engine import read
from postroad.store.suppression import SuppressionReason
from postroad.store.suppression_page import NumberedSuppression, suppression_page

router = APIRouter(route_class=ApiRoute, tags=["suppressions"])

Subject = Annotated[str, Field(min_length=1, max_length=MAX_ADDRESS, examples=["ada@example.org"])]
Subjects = Annotated[
    list[Subject],
    Field(min_length=1, max_length=1_000, description="addresses; `@example.com` is a domain, `#…` a hashed address"),
]
AudienceField = Annotated[
    str | None,
    Field(pattern=NAME_PATTERN, description="only for campaigns to this audience; unset: everywhere"),
]


class SuppressionAnswer(Answer):
    """A suppressed address, domain or hash."""

    address: str
    audience: str | None = Field(description="null: everywhere")
    reason: SuppressionReason
    also: SuppressionReason | None = Field(description="of an unsubscribe: a further reason")
    source: str
    created_at: Time


class SuppressionPage(Answer):
    """A page of suppressions, the newest first."""

    items: list[SuppressionAnswer]
    next: str | None


class SuppressionsInput(Input):
    """What to suppress."""

    addresses: Subjects
    reason: SuppressionReason = SuppressionReason.MANUAL
    audience: AudienceField = None


class SuppressionsAdded(Answer):
    """What a call did."""

    suppressed: int
    known: int = Field(description="what was suppressed before, with its first reason")


class LiftInput(Input):
    """What to send to again, and why."""

    addresses: Subjects
    reason: str = Field(min_length=1, max_length=200, description="what the person wrote, and when")
    audience: AudienceField = None


class SuppressionsLifted(Answer):
    """Suppressions that were lifted. They are recorded with the key and the reason."""

    lifted: int


@router.get("/suppressions", responses=problems())
@needs(AccessRole.VIEW)
async def list_suppressions(
    caller: CallerParameter,
    cursor: CursorParameter = None,
    limit: Limit = DEFAULT_PAGE,
    address: Annotated[str | None, Query(min_length=1, max_length=MAX_ADDRESS, description="only of this one")] = None,
) -> SuppressionPage:
    """List what is suppressed, the newest first."""
    key = _key(address, "address") if address is not None else None
    kind = f"suppressions {key}"
    before = number_of(caller.parts.cursors.read(kind, cursor))

    def look() -> list[NumberedSuppression]:
        with read(caller.parts.context.engine) as connection:
            return suppression_page(connection, before=before, address=key, limit=limit + 1)

    rows, last = page_of(await asyncio.to_thread(look), limit)
    return SuppressionPage(
        items=[SuppressionAnswer.model_validate(row, from_attributes=True) for row in rows],
        next=caller.parts.cursors.sign(kind, [last.number]) if last is not None else None,
    )


@router.post("/suppressions", responses=problems(*WITH_BODY, ProblemKind.NOT_FOUND))
@needs(AccessRole.SEND)
async def add_suppressions_(suppressions: SuppressionsInput, caller: CallerParameter) -> SuppressionsAdded:
    """Suppress addresses, domains or hashes. It holds at once, also for queued messages."""
    given = NewSuppressions(
        keys=_keys(suppressions.addresses),
        reason=suppressions.reason,
        source=f"API key {caller.key.name}",
        audience=suppressions.audience,
    )
    async with caller.act("suppression.add", ", ".join(given.keys)) as act:
        act.count = len(given.keys)
        done = await asyncio.to_thread(add_suppressions, caller.parts.context, given)
    return SuppressionsAdded(suppressed=done.new, known=done.known)


@router.post("/suppressions/lift", responses=problems(*WITH_BODY, ProblemKind.NOT_FOUND, ProblemKind.CONFLICT))
@needs(AccessRole.OPERATE)
async def lift_suppressions_(suppressions: LiftInput, caller: CallerParameter) -> SuppressionsLifted:
    """Lift suppressions, for a reason. Messages that ended stay ended."""
    keys = _keys(suppressions.addresses)
    async with caller.act("suppression.lift", ", ".join(keys), note=suppressions.reason) as act:
        lifted = await asyncio.to_thread(
            lift_suppressions,
            caller.parts.context,
            keys,
            suppressions.audience,
            by=caller.name,
            why=suppressions.reason,
        )
        act.count = len(lifted)
    return SuppressionsLifted(lifted=len(lifted))


def _keys(addresses: list[str]) -> list[str]:
    return list(dict.fromkeys(_key(address, f"addresses.{index}") for index, address in enumerate(addresses)))


def _key(text: str, field: str) -> str:
    try:
        return suppression_key(text)
    except DataError as error:
        raise invalid(field, f"it is neither an address nor @domain nor #hash: {error.message}") from None

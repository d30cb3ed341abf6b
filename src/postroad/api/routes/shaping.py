"""What slows senders down: changes of the shaping by replies of receivers."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from postroad.api.access import ApiRoute, needs
from postroad.api.fields import (
    DEFAULT_PAGE,
    MAX_ADDRESS,
    Answer,
    CallerParameter,
    CursorParameter,
    Limit,
    Time,
    problems,
)
from postroad.read_model.page import Page
from postroad.read_model.shaping import ShapingEntry, past_entries
from postroad.settings import AccessRole
from postroad.store.engine import read

router = APIRouter(route_class=ApiRoute, tags=["operations"])


class ShapingChangeAnswer(Answer):
    """A change of the limits of a sender, and the reply that caused it."""

    id: int
    gate: str = Field(description="`POST /gates/resume` with this gate undoes the change")
    rule: str
    sender: str = Field(description="From address")
    provider: str | None = Field(description="mailbox provider; null: everywhere")
    receiver: str = Field(description="the provider, or a site or domain of it")
    reply: str
    sets: str = Field(description="the limits in words")
    suspended: bool = Field(description="it lets nothing through")
    at: Time
    ends_at: Time | None
    restored_at: Time | None
    restored_by: str | None
    is_open: bool = Field(description="whether it limits now")


class ShapingChangePage(Answer):
    """A page of changes, the newest first."""

    items: list[ShapingChangeAnswer]
    next: str | None


@router.get("/shaping/changes", responses=problems())
@needs(AccessRole.VIEW)
async def list_shaping_changes(
    caller: CallerParameter,
    cursor: CursorParameter = None,
    limit: Limit = DEFAULT_PAGE,
    sender: Annotated[
        str | None, Query(min_length=1, max_length=MAX_ADDRESS, description="only of this From address")
    ] = None,
) -> ShapingChangePage:
    """List the changes that replies of receivers caused, also those that are over, the newest first."""
    kind = f"shaping {sender}"
    key = caller.parts.cursors.read(kind, cursor)
    after, now = str(key[0]) if key else None, caller.parts.context.clock.now()

    def look() -> Page[ShapingEntry]:
        with read(caller.parts.context.engine) as connection:
            return past_entries(connection, now, sender=sender, after=after, limit=limit)

    page = await asyncio.to_thread(look)
    return ShapingChangePage(
        items=[ShapingChangeAnswer.model_validate(row, from_attributes=True) for row in page.rows],
        next=caller.parts.cursors.sign(kind, [page.next]) if page.next is not None else None,
    )

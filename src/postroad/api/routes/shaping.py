"""What slows senders down: changes of the shaping by replies of receivers, and the caps of a warmup."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
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
from postroad.api.problems import ProblemKind
from postroad.app.warmup import override_caps
from postroad.errors import unknown_name
from postroad.read_model.page import Page
from postroad.read_model.shaping import ShapingEntry, past_entries
from postroad.settings import AccessRole, Settings
from postroad.store.engine import read
from postroad.warmup.caps import providers
from postroad.warmup.identity import WarmingIdentity, group_by_senders, identities
from postroad.warmup.plan import MAX_CAP

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


class CapInput(Input):
    """Today's cap of a sender that warms up."""

    identity: str = Field(min_length=1, max_length=MAX_ADDRESS, description="as `postroad warmup status` names it")
    provider: str = Field(min_length=1, max_length=100, examples=["google"])
    cap: int = Field(ge=1, le=MAX_CAP, description="messages a day")
    why: str = Field(min_length=1, max_length=300, description="the reason, which is recorded")


class CapAnswer(Answer):
    """A cap that was set."""

    identities: list[str] = Field(description="identities with the same senders, which share the cap")
    provider: str
    cap: int


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


@router.post("/warmup/caps", responses=problems(*WITH_BODY, ProblemKind.NOT_FOUND))
@needs(AccessRole.OPERATE)
async def set_warmup_cap(cap: CapInput, caller: CallerParameter) -> CapAnswer:
    """Set today's cap of a warmup at a mailbox provider, and end a pause. Growth continues from it."""
    group = _group(caller.parts.context.settings, cap.identity)
    if cap.provider not in providers():
        raise unknown_name("mailbox provider", cap.provider, providers())
    target = f"{cap.identity} at {cap.provider}"
    with caller.act("warmup.override", target, note=f"{cap.cap:,}: {cap.why}") as act:
        act.count = len(group)
        await override_caps(caller.parts.context, group, cap.provider, cap.cap, by=caller.name, why=cap.why)
    return CapAnswer(identities=[identity.name for identity in group], provider=cap.provider, cap=cap.cap)


def _group(settings: Settings, name: str) -> Sequence[WarmingIdentity]:
    """Return the identity of a name with those that share its senders, and so its gate.

    Raises:
        StateError: No identity of this name warms up.
    """
    warming = identities(settings)
    for group in group_by_senders(warming):
        if any(identity.name == name for identity in group):
            return group
    raise unknown_name("identity that warms up", name, [identity.name for identity in warming])

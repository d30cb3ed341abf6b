"""Caps of senders that warm up."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field

from postroad.api.access import ApiRoute, needs
from postroad.api.fields import MAX_ADDRESS, WITH_BODY, Answer, CallerParameter, Input, problems
from postroad.api.problems import ProblemKind
from postroad.app.warmup import override_caps
from postroad.errors import unknown_name
from postroad.settings import AccessRole
from postroad.warmup.caps import providers
from postroad.warmup.identity import group_of, identities
from postroad.warmup.plan import MAX_CAP

router = APIRouter(route_class=ApiRoute, tags=["operations"])


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


@router.post("/warmup/caps", responses=problems(*WITH_BODY, ProblemKind.NOT_FOUND))
@needs(AccessRole.OPERATE)
async def set_warmup_cap(cap: CapInput, caller: CallerParameter) -> CapAnswer:
    """Set today's cap of a warmup at a mailbox provider, and end a pause. Growth continues from it."""
    group = group_of(identities(caller.parts.context.settings), cap.identity)
    if cap.provider not in providers():
        raise unknown_name("mailbox provider", cap.provider, providers())
    target = f"{cap.identity} at {cap.provider}"
    async with caller.act("warmup.override", target, note=f"{cap.cap:,}: {cap.why}") as act:
        act.count = len(group)
        await override_caps(caller.parts.context, group, cap.provider, cap.cap, by=caller.name, why=cap.why)
    return CapAnswer(identities=[identity.name for identity in group], provider=cap.provider, cap=cap.cap)

"""Consents: the evidence that recipients asked for mail."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from postroad.api.access import ApiRoute, needs
from postroad.api.fields import (
    DEFAULT_PAGE,
    MAX_ADDRESS,
    MAX_LIST_BYTES,
    WITH_BODY,
    AddressPath,
    Answer,
    AudienceName,
    CallerParameter,
    CursorParameter,
    Input,
    InputTime,
    Limit,
    RowProblem,
    Time,
    problems,
)
from postroad.api.pages import number_of, page_of
from postroad.api.problems import ProblemKind
from postroad.app.consents import (
    MAX_CONSENTS,
    MAX_SOURCE_CHARACTERS,
    MAX_WORDING_CHARACTERS,
    GivenConsent,
    record_given,
)
from postroad.app.recipients import get_recipient
from postroad.campaign.steps import NAME_PATTERN
from postroad.settings import AccessRole
from postroad.store.consent_page import ConsentRow, audience_consent_page, consents_of_recipient
from postroad.store.engine import read
from postroad.store.keyset import LAST_ID
from postroad.store.recipient import find_audience

router = APIRouter(route_class=ApiRoute, tags=["consents"])


class ConsentInput(Input):
    """A recipient asked for mail to an audience."""

    address: Annotated[str, Field(min_length=1, max_length=MAX_ADDRESS, examples=["ada@example.org"])]
    audience: str = Field(pattern=NAME_PATTERN, examples=["newsletter"])
    given_at: InputTime = Field(description="when the recipient asked", examples=["2026-05-31T07:30:00Z"])
    source: str = Field(
        min_length=1,
        max_length=MAX_SOURCE_CHARACTERS,
        description="where: the URL of a form, an event, a contract",
        examples=["https://example.org/newsletter"],
    )
    ip: str = Field(default="", max_length=45, description="IP address from which the recipient asked")
    wording: str = Field(
        default="", max_length=MAX_WORDING_CHARACTERS, description="the text to which the recipient agreed"
    )
    confirmation: str = Field(
        default="",
        max_length=MAX_SOURCE_CHARACTERS,
        description="how the address was confirmed, such as the Message-ID of a mail with a link",
    )


class ConsentsInput(Input):
    """Consents to record."""

    consents: list[ConsentInput] = Field(min_length=1, max_length=MAX_CONSENTS)


class ConsentsRecorded(Answer):
    """What a call did."""

    recorded: int
    known: int = Field(description="consents that were recorded before")
    errors: list[RowProblem]


class ConsentAnswer(Answer):
    """A consent. That of an import has a file or a key as its source."""

    address: str
    audience: str
    given_at: Time | None = Field(description="null: of an import")
    source: str
    line: int | None = Field(description="line in the file of an import")
    ip: str | None
    wording: str | None
    confirmation: str | None
    recorded_at: Time | None
    recorded_by: str


class ConsentPage(Answer):
    """A page of consents."""

    items: list[ConsentAnswer]
    next: str | None = Field(description="cursor of the next page; null: this is the last one")


@router.post("/consents", responses=problems(*WITH_BODY))
@needs(AccessRole.SEND, max_body_bytes=MAX_LIST_BYTES)
async def record_consents_(consents: ConsentsInput, caller: CallerParameter) -> ConsentsRecorded:
    """Record that recipients asked for mail. The same recipient, audience, time and source are recorded once.

    It is the evidence only: it adds no member to an audience, and lifts no suppression. Consents that are not valid are
    named by their index, and the others are recorded.
    """
    given = [GivenConsent(**consent.model_dump()) for consent in consents.consents]
    async with caller.act("consent.record", f"{len(given):,} consents") as act:
        done = await asyncio.to_thread(record_given, caller.parts.context, given, by=f"API key {caller.key.name}")
        act.count = done.recorded
    errors = [RowProblem(index=fault.index, field=fault.field, message=fault.message) for fault in done.faults]
    return ConsentsRecorded(recorded=done.recorded, known=done.known, errors=errors)


@router.get("/recipients/{address}/consents", responses=problems(ProblemKind.NOT_FOUND))
@needs(AccessRole.VIEW)
async def list_recipient_consents(
    address: AddressPath, caller: CallerParameter, cursor: CursorParameter = None, limit: Limit = DEFAULT_PAGE
) -> ConsentPage:
    """List what proves that a recipient asked for mail: recorded consents, the newest first, then those of imports.

    A suppression ends no consent: `GET /suppressions` shows what holds.
    """
    known = await asyncio.to_thread(get_recipient, caller.parts.context, address)
    recipient_id, kind = known.recipient.id or 0, f"recipient-consents {known.recipient.id}"
    before = _number(caller, kind, cursor)

    def look() -> list[ConsentRow]:
        with read(caller.parts.context.engine) as connection:
            return consents_of_recipient(connection, recipient_id, before=before, limit=limit + 1)

    return _page(caller, kind, await asyncio.to_thread(look), limit)


@router.get("/audiences/{name}/consents", responses=problems(ProblemKind.NOT_FOUND))
@needs(AccessRole.VIEW)
async def list_audience_consents(
    name: AudienceName,
    caller: CallerParameter,
    cursor: CursorParameter = None,
    limit: Limit = DEFAULT_PAGE,
    source: Annotated[
        str | None, Query(min_length=1, max_length=MAX_SOURCE_CHARACTERS, description="only from this one")
    ] = None,
) -> ConsentPage:
    """List the recorded consents to an audience, the newest first."""
    kind = f"audience-consents {name} {source or ''}"
    before = _number(caller, kind, cursor)

    def look() -> list[ConsentRow]:
        with read(caller.parts.context.engine) as connection:
            audience_id = find_audience(connection, name)
            return audience_consent_page(connection, audience_id, source, before=before, limit=limit + 1)

    return _page(caller, kind, await asyncio.to_thread(look), limit)


def _number(caller: CallerParameter, kind: str, cursor: str | None) -> int:
    number = number_of(caller.parts.cursors.read(kind, cursor))
    return LAST_ID if number is None else number


def _page(caller: CallerParameter, kind: str, found: list[ConsentRow], limit: int) -> ConsentPage:
    rows, last = page_of(found, limit)
    return ConsentPage(
        items=[ConsentAnswer.model_validate(row, from_attributes=True) for row in rows],
        next=caller.parts.cursors.sign(kind, [last.number]) if last is not None else None,
    )

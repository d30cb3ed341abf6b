"""Recipients, the audiences that contain them, and what they did."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter
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
from postroad.api.pages import number_of, page_of, texts
from postroad.api.problems import ProblemKind
from postroad.app.recipients import MAX_MEMBERS, GivenMember, add_members, get_recipient, put_recipient
from postroad.campaign.event_file import EventError
from postroad.campaign.event_input import GivenEvent, new_event
from postroad.settings import AccessRole
from postroad.store.engine import read, write
from postroad.store.person_page import AudienceRow, EventRow, MemberRow, audience_page, event_page, member_page
from postroad.store.recipient_event import NewEvent, record_events

router = APIRouter(route_class=ApiRoute, tags=["recipients"])

MAX_EVENTS: Final = 5_000
"""Events of one call, in one transaction."""

Fields = Annotated[
    dict[str, str], Field(description="merge fields by name", examples=[{"first_name": "Ada", "plan": "trial"}])
]
Address = Annotated[str, Field(min_length=1, max_length=MAX_ADDRESS, examples=["ada@example.org"])]


class RecipientInput(Input):
    """A recipient. What is missing is removed."""

    time_zone: str | None = Field(default=None, max_length=64, examples=["Europe/Berlin"])
    fields: Fields = Field(default={})


class MembershipAnswer(Answer):
    """An audience that contains the recipient."""

    audience: str
    source: str = Field(description="the last import that contained the recipient: a file, or a key")
    joined_at: Time | None


class RecipientAnswer(Answer):
    """A recipient."""

    address: str
    time_zone: str | None
    fields: dict[str, str]
    audiences: list[MembershipAnswer]
    created_at: Time


class MemberInput(Input):
    """A member to add. Merge fields that it does not name are kept."""

    address: Address
    time_zone: str | None = Field(default=None, max_length=64)
    fields: Fields = Field(default={})


class MembersInput(Input):
    """Members to add."""

    members: list[MemberInput] = Field(min_length=1, max_length=MAX_MEMBERS)


class MembersAdded(Answer):
    """What a call did. Rows with the same address count once."""

    added: int
    known: int = Field(description="members before, whose fields were updated")
    errors: list[RowProblem]


class EventInput(Input):
    """Something that a recipient did."""

    address: Address
    name: str = Field(max_length=64, examples=["paid"])
    at: InputTime | None = Field(default=None, description="when; unset: now")
    key: str = Field(
        default="",
        max_length=200,
        description="recorded once for its recipient and name; unset: of an event with `at`, its content is the key",
    )
    fields: dict[str, str] = Field(default={}, examples=[{"amount": "49.90"}])


class EventsInput(Input):
    """Events to record."""

    events: list[EventInput] = Field(min_length=1, max_length=MAX_EVENTS)


class EventsRecorded(Answer):
    """What a call did."""

    recorded: int
    known: int = Field(description="events that were recorded before")
    errors: list[RowProblem]


class RecipientEventAnswer(Answer):
    """Something that a recipient did."""

    name: str
    at: Time
    key: str | None
    fields: dict[str, str]


class RecipientEventPage(Answer):
    """A page of a recipient's events, the newest first."""

    items: list[RecipientEventAnswer]
    next: str | None = Field(description="cursor of the next page; null: this is the last one")


class AudienceAnswer(Answer):
    """An audience."""

    name: str
    created_at: Time


class AudiencePage(Answer):
    """A page of audiences, in the order of their names."""

    items: list[AudienceAnswer]
    next: str | None


class MemberAnswer(Answer):
    """A member of an audience."""

    address: str
    time_zone: str | None
    fields: dict[str, str]
    joined_at: Time | None


class MemberPage(Answer):
    """A page of members."""

    items: list[MemberAnswer]
    next: str | None


@router.put("/recipients/{address}", responses=problems(*WITH_BODY))
@needs(AccessRole.SEND)
async def put_recipient_(address: AddressPath, recipient: RecipientInput, caller: CallerParameter) -> RecipientAnswer:
    """Insert a recipient, or replace the time zone and all merge fields of a known one.

    It adds the recipient to no audience. Fields have the types that the recipient's audiences declare.
    """
    given = GivenMember(address=address, time_zone=recipient.time_zone, fields=recipient.fields)
    async with caller.act("recipient.put", address) as act:
        act.count = 1
        await asyncio.to_thread(put_recipient, caller.parts.context, given)
    return await _answer(caller, address)


@router.get("/recipients/{address}", responses=problems(ProblemKind.NOT_FOUND))
@needs(AccessRole.VIEW)
async def get_recipient_(address: AddressPath, caller: CallerParameter) -> RecipientAnswer:
    """Return a recipient with the merge fields and the audiences."""
    return await _answer(caller, address)


async def _answer(caller: CallerParameter, address: str) -> RecipientAnswer:
    known = await asyncio.to_thread(get_recipient, caller.parts.context, address)
    return RecipientAnswer(
        address=known.recipient.address,
        time_zone=known.recipient.time_zone,
        fields=texts(known.recipient.attributes),
        audiences=[
            MembershipAnswer(audience=one.audience, source=one.path, joined_at=one.joined_at)
            for one in known.memberships
        ],
        created_at=known.recipient.created_at,
    )


@router.get("/recipients/{address}/events", responses=problems(ProblemKind.NOT_FOUND))
@needs(AccessRole.VIEW)
async def list_recipient_events(
    address: AddressPath, caller: CallerParameter, cursor: CursorParameter = None, limit: Limit = DEFAULT_PAGE
) -> RecipientEventPage:
    """List what a recipient did, the newest first."""
    known = await asyncio.to_thread(get_recipient, caller.parts.context, address)
    recipient_id, kind = known.recipient.id or 0, f"recipient-events {known.recipient.id}"
    after = caller.parts.cursors.read(kind, cursor)

    def look() -> list[EventRow]:
        with read(caller.parts.context.engine) as connection:
            return event_page(connection, recipient_id, before=number_of(after), limit=limit + 1)

    rows, last = page_of(await asyncio.to_thread(look), limit)
    return RecipientEventPage(
        items=[RecipientEventAnswer(name=row.name, at=row.at, key=row.key, fields=texts(row.fields)) for row in rows],
        next=caller.parts.cursors.sign(kind, [last.id]) if last is not None else None,
    )


@router.post("/events", responses=problems(*WITH_BODY))
@needs(AccessRole.SEND, max_body_bytes=MAX_LIST_BYTES)
async def record_events_(events: EventsInput, caller: CallerParameter) -> EventsRecorded:
    """Record what recipients did. Events that cannot be recorded are named by their index, and the others are recorded.

    Conditions of campaigns depend on events, and a journey may begin with one.
    """
    context, errors = caller.parts.context, []
    valid: list[tuple[int, NewEvent]] = []
    for index, event in enumerate(events.events):
        try:
            given = GivenEvent(address=event.address, name=event.name, at=event.at, key=event.key, fields=event.fields)
            valid.append((index, new_event(given, context.clock.now())))
        except EventError as error:
            field = "name" if error.field == "event" else error.field
            errors.append(RowProblem(index=index, field=field, message=error.reason))

    def save() -> tuple[int, frozenset[str]]:
        with write(context.engine) as connection:
            done = record_events(connection, [event for _, event in valid])
        return done.recorded, done.unknown

    async with caller.act("event.record", f"{len(valid):,} events") as act:
        act.count = len(valid)
        recorded, unknown = await asyncio.to_thread(save)
    errors += [
        RowProblem(index=index, field="address", message="no recipient has this address")
        for index, event in valid
        if event.address in unknown
    ]
    known = len(events.events) - recorded - len(errors)
    return EventsRecorded(recorded=recorded, known=known, errors=sorted(errors, key=lambda error: error.index))


@router.get("/audiences", responses=problems())
@needs(AccessRole.VIEW)
async def list_audiences(
    caller: CallerParameter, cursor: CursorParameter = None, limit: Limit = DEFAULT_PAGE
) -> AudiencePage:
    """List audiences, in the order of their names."""
    after = caller.parts.cursors.read("audiences", cursor)

    def look() -> list[AudienceRow]:
        with read(caller.parts.context.engine) as connection:
            return audience_page(connection, after=str(after[0]) if after else "", limit=limit + 1)

    rows, last = page_of(await asyncio.to_thread(look), limit)
    items = [AudienceAnswer(name=row.name, created_at=row.created_at) for row in rows]
    return AudiencePage(
        items=items, next=caller.parts.cursors.sign("audiences", [last.name]) if last is not None else None
    )


@router.get("/audiences/{name}/members", responses=problems(ProblemKind.NOT_FOUND))
@needs(AccessRole.VIEW)
async def list_members(
    name: AudienceName, caller: CallerParameter, cursor: CursorParameter = None, limit: Limit = DEFAULT_PAGE
) -> MemberPage:
    """List the members of an audience."""
    kind = f"members {name}"
    after = caller.parts.cursors.read(kind, cursor)

    def look() -> list[MemberRow]:
        with read(caller.parts.context.engine) as connection:
            return member_page(connection, name, after=number_of(after) or 0, limit=limit + 1)

    rows, last = page_of(await asyncio.to_thread(look), limit)
    return MemberPage(
        items=[
            MemberAnswer(
                address=row.address, time_zone=row.time_zone, fields=texts(row.attributes), joined_at=row.joined_at
            )
            for row in rows
        ],
        next=caller.parts.cursors.sign(kind, [last.id]) if last is not None else None,
    )


@router.post("/audiences/{name}/members", responses=problems(*WITH_BODY, ProblemKind.NOT_FOUND))
@needs(AccessRole.SEND, max_body_bytes=MAX_LIST_BYTES)
async def add_members_(name: AudienceName, members: MembersInput, caller: CallerParameter) -> MembersAdded:
    """Add recipients who gave their permission to an audience.

    Members that are not valid are named by their index, and the others are added. Fields have the types that the
    audience declares. A campaign with `entry: joined` enrols new members.
    """
    given = [GivenMember(address=it.address, time_zone=it.time_zone, fields=it.fields) for it in members.members]
    async with caller.act("audience.add", name) as act:
        done = await asyncio.to_thread(add_members, caller.parts.context, name, given, by=f"API key {caller.key.name}")
        act.count = done.added + done.known
    errors = [RowProblem(index=it.index, field=it.field, message=it.message) for it in done.faults]
    return MembersAdded(added=done.added, known=done.known, errors=errors)

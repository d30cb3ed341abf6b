"""Single messages: request one, and see what became of it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header
from pydantic import Base64Bytes, Field

from postroad.api.access import ApiRoute, needs
from postroad.api.fields import (
    MAX_ADDRESS,
    WITH_BODY,
    Answer,
    CallerParameter,
    Input,
    MessageNumber,
    Time,
    problems,
)
from postroad.api.problems import ProblemError, ProblemKind
from postroad.app.message_order import (
    MAX_ATTACHMENTS,
    MAX_FIELDS,
    MAX_KEY_CHARACTERS,
    MessageOrder,
    RequestedFile,
)
from postroad.app.message_status import MessageStatus, message_status
from postroad.settings import AccessRole
from postroad.store.audit import Actor, record_act
from postroad.store.ledger import TouchState

router = APIRouter(route_class=ApiRoute, tags=["messages"])

MAX_MESSAGE_BYTES: Final = 14_000_000
"""10 MB of attachments in base64, and the rest."""


class AttachmentInput(Input):
    """A file that the message has in addition to those of its campaign."""

    name: str = Field(min_length=1, max_length=200, examples=["invoice.pdf"])
    type: str = Field(max_length=255, description="media type", examples=["application/pdf"])
    content: Base64Bytes = Field(description="in base64; all attachments have at most 10 MB", examples=["JVBERi0xLjcK"])


class MessageInput(Input):
    """One message."""

    campaign: str = Field(max_length=100, description="a running campaign with `entry: api`", examples=["receipt"])
    to: str = Field(min_length=1, max_length=MAX_ADDRESS, examples=["ada@example.org"])
    fields: dict[str, str] = Field(
        default={}, description=f"merge fields of this message, at most {MAX_FIELDS}", examples=[{"number": "4711"}]
    )
    attachments: list[AttachmentInput] = Field(default=[], max_length=MAX_ATTACHMENTS)
    transactional: bool = Field(
        default=False,
        description="the recipient must get it, as a receipt: an unsubscribe does not stop it, and no membership is "
        "needed. Complaints and hard bounces stop it. The campaign must allow it",
    )


class MessageAccepted(Answer):
    """An accepted message. A repetition with the same key answers the same."""

    id: int = Field(description="id of the message", examples=[1])
    campaign: str
    to: str = Field(description="the address, normalised")
    state: TouchState = Field(description="when it was accepted: `planned`, or `suppressed`: then it is not sent")
    accepted_at: Time


class AttemptAnswer(Answer):
    """One thing that happened to a message."""

    at: Time
    state: TouchState
    attempt: int
    reply_code: int | None = Field(description="code of the receiver's SMTP reply")
    enhanced_code: str | None
    reply: str | None = Field(description="the receiver's words")
    cause: str | None
    next_at: Time | None = Field(description="time of the next attempt")


class MessageAnswer(Answer):
    """What became of a message."""

    id: int
    campaign: str
    step: str
    to: str
    state: TouchState
    message_id: str = Field(description="its Message-ID", examples=["<1-0123456789abcdef0123@example.com>"])
    sender: str
    transactional: bool
    idempotency_key: str | None = Field(description="null: its campaign planned it")
    requested_at: Time | None
    due_at: Time
    next_at: Time | None
    ended_at: Time | None
    reply: str | None = Field(description="last reply of the receiver, or why it ended")
    attempts: list[AttemptAnswer] = Field(description="what happened, the newest first, at most 100")


KeyHeader = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=MAX_KEY_CHARACTERS,
        description="1 to 200 visible ASCII characters, unique in the installation, such as the number of the order "
        "and the purpose of the message",
        examples=["receipt-4711"],
    ),
]


@router.post(
    "/messages",
    status_code=202,
    responses=problems(*WITH_BODY, ProblemKind.NOT_FOUND, ProblemKind.CONFLICT, ProblemKind.KEY_REUSED),
)
@needs(AccessRole.SEND, max_body_bytes=MAX_MESSAGE_BYTES)
async def send_message(message: MessageInput, key: KeyHeader, caller: CallerParameter) -> MessageAccepted:
    """Send one message of a campaign to one recipient, now.

    A request is accepted at most once for each idempotency key, also if it is repeated after a timeout, concurrently or
    after a crash. A repetition with the same content answers the same; with other content it is a problem.
    """
    order = MessageOrder(
        key=key,
        campaign=message.campaign,
        to=message.to,
        fields=message.fields,
        files=[RequestedFile(name=it.name, media_type=it.type, octets=it.content) for it in message.attachments],
        transactional=message.transactional,
    )
    actor, at = Actor(name=caller.name, origin=caller.origin), caller.parts.context.clock.now()

    def audit(connection: Any, touch_id: int) -> None:
        record_act(connection, actor, "message.send", f"message {touch_id}", 1, at=at)

    accepted = await caller.parts.desk.accept(order, by=caller.key.name, audit=audit)
    return MessageAccepted(
        id=accepted.touch_id,
        campaign=accepted.campaign,
        to=accepted.to,
        state=accepted.state,
        accepted_at=accepted.created_at,
    )


@router.get("/messages/{id}", responses=problems(ProblemKind.NOT_FOUND))
@needs(AccessRole.VIEW)
async def get_message(id: MessageNumber, caller: CallerParameter) -> MessageAnswer:  # noqa: A002  (name of the parameter)
    """Return the state of a message, its attempts and the receiver's replies."""
    found: MessageStatus | None = await asyncio.to_thread(message_status, caller.parts.context, id)
    if found is None:
        raise ProblemError(ProblemKind.NOT_FOUND, f"there is no message {id}")
    touch, request = found.touch, found.request
    return MessageAnswer(
        id=touch.id,
        campaign=touch.campaign,
        step=touch.step,
        to=touch.address,
        state=touch.state,
        message_id=found.message_id,
        sender=touch.sender,
        transactional=touch.transactional,
        idempotency_key=request.key if request is not None else None,
        requested_at=request.created_at if request is not None else None,
        due_at=touch.due_at,
        next_at=touch.next_at,
        ended_at=touch.settled_at,
        reply=touch.reply,
        attempts=[AttemptAnswer.model_validate(event, from_attributes=True) for event in found.events],
    )

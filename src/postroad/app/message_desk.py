"""Accepts requests for messages: one message of a campaign with `entry: api`, to one recipient, now.

The transaction that inserts the request and its touch decides whether a request is new: its idempotency key is unique.
The queue comes after it, as for every touch. If a process dies in between, the next request with the same key or the
next pass over the campaigns submits the touch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from postroad.app.context import AppContext
from postroad.app.message_order import FieldError, KeyReusedError, MessageOrder, checked_order, require_types
from postroad.app.touch_submitter import TouchSubmitter
from postroad.campaign.entry import CampaignEntry, is_open
from postroad.campaign.files import MAX_FILES_BYTES
from postroad.delivery.compiled_steps import CompiledSteps
from postroad.errors import DataError, StateError, UnavailableError
from postroad.field_types import FieldType
from postroad.mail.address import domain_of
from postroad.store.campaign import Campaign, CampaignState, Step, StepKind, find_campaign, steps_of
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.message_request import (
    NewRequest,
    StoredRequest,
    find_request,
    insert_request,
    json_text,
    lock_campaign,
)
from postroad.store.person_history import recipient_of_address
from postroad.store.recipient import audience_name, insert_recipient, is_member
from postroad.store.stored_file import save_files
from postroad.store.touches.requests import RequestedTouch, insert_touch

SUBMIT_WITHIN_S: Final = 5.0
"""Longest time that a request waits for the queue. After it, the next pass over the campaigns submits the message."""

Audit = Callable[[sa.Connection, int], None]
"""Records in the transaction of a request who requested the touch with this id."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AcceptedRequest:
    """The answer to a request, the same for every repetition.

    ``state``: of the touch when it was inserted: ``planned`` or ``suppressed``. ``repeated``: an earlier request with
    the same key made the touch.
    """

    touch_id: int
    campaign: str
    to: str
    state: TouchState
    created_at: datetime
    repeated: bool


@dataclass(frozen=True, kw_only=True)
class _Target:
    """The campaign of a request and its step, with the recipient's merge fields and their declared types."""

    campaign: Campaign
    step: Step
    attributes: Mapping[str, Any]
    types: Mapping[str, FieldType]


class MessageDesk:
    """Accepts requests for messages. It compiles the templates of each campaign once."""

    def __init__(self, context: AppContext) -> None:
        self._context = context
        self._submitter = TouchSubmitter(context)
        self._compiled = CompiledSteps(
            engine=context.engine,
            signer=context.signer,
            public_url=context.settings.public_url,
            clock=context.clock,
        )

    async def accept(self, order: MessageOrder, *, by: str, audit: Audit | None = None) -> AcceptedRequest:
        """Accept a request, and submit its message to the queue.

        Args:
            order: The request.
            by: Name of the API key.
            audit: Writes the row of the audit log.

        Returns:
            The accepted request. From its return on the message is sent once, or ends with a recorded cause.

        Raises:
            FieldError: A field is not valid, a merge field is missing, or the key was used with other content.
            StateError: There is no such campaign.
            StateError: The campaign does not take requests, or the recipient is not a member of its audience.
            ConfigError: The template cannot be used.
            UnavailableError: The database is unavailable. A repetition with the same key is safe.
        """
        order = checked_order(order)
        stored = await asyncio.to_thread(self._find, order)
        repeated = stored is not None
        if stored is None:
            target = await asyncio.to_thread(self._target, order)
            await self._require_rendering(target, order)
            inserted, repeated = await asyncio.to_thread(self._insert, order, target, by, audit)
            stored = inserted
        await self._submit(order, stored)
        return AcceptedRequest(
            touch_id=stored.touch_id,
            campaign=order.campaign,
            to=order.to,
            state=stored.state,
            created_at=stored.created_at,
            repeated=repeated,
        )

    def _find(self, order: MessageOrder) -> StoredRequest | None:
        with read(self._context.engine) as connection:
            return _same_content(find_request(connection, order.key), order)

    def _target(self, order: MessageOrder) -> _Target:
        with read(self._context.engine) as connection:
            campaign = find_campaign(connection, order.campaign)
            assert campaign.id is not None  # noqa: S101  (read from its table)
            if not CampaignEntry.of(campaign).by_request:
                raise StateError(
                    f"campaign {campaign.name} takes no requests for single messages",
                    remedy="Name a campaign whose file has `entry: api`.",
                )
            if order.transactional and not campaign.transactional:
                raise FieldError(
                    "transactional",
                    f"the messages of campaign {campaign.name} are not transactional",
                    remedy="Leave it out, or declare `transactional: true` in the campaign's file if people must get "
                    "its messages.",
                )
            [step] = [step for step in steps_of(connection, campaign.id) if step.kind is StepKind.EMAIL]
            recipient = recipient_of_address(connection, order.to)
            types = self._context.settings.field_types(audience_name(connection, campaign.audience_id))
        attributes = recipient.attributes if recipient is not None else {}
        return _Target(campaign=campaign, step=step, attributes=attributes, types=types)

    async def _require_rendering(self, target: _Target, order: MessageOrder) -> None:
        """Raise FieldError for a message that cannot be rendered, before anything is stored."""
        require_types(order.fields, target.types)
        step = await self._compiled.get(target.step.id or 0, 0, target.step.version)
        own_bytes = sum(len(file.octets) for file in step.message.files)
        if own_bytes + sum(len(file.octets) for file in order.files) > MAX_FILES_BYTES:
            raise FieldError("attachments", f"with those of the campaign they have more than {MAX_FILES_BYTES:,} bytes")
        merged = {name: str(value) for name, value in {**target.attributes, **order.fields}.items()}
        merged = {name: value for name, value in merged.items() if name in step.message.fields}
        try:
            await asyncio.to_thread(step.message.merge, 0, order.to, merged, self._context.clock.now())
        except DataError as error:
            raise FieldError("fields", f"{error.where}: {error.message}" if error.where else error.message) from None

    def _insert(self, order: MessageOrder, target: _Target, by: str, audit: Audit | None) -> tuple[StoredRequest, bool]:
        """Insert the request and its touch, or return the request that has the key."""
        now = self._context.clock.now()
        request = NewRequest(
            key=order.key,
            digest=order.digest,
            transactional=order.transactional,
            fields=json_text(dict(order.fields)),
            files=json_text(
                [{"name": file.name, "media_type": file.media_type, "digest": file.digest} for file in order.attached]
            ),
            requested_by=by,
        )
        with write(self._context.engine) as connection:
            request_id = insert_request(connection, request, now)
            if request_id is None:
                stored = _same_content(find_request(connection, order.key), order)
                assert stored is not None  # noqa: S101  (its key was in the way)
                return stored, True
            campaign = self._open_campaign(connection, order)
            recipient_id = self._recipient(connection, order, campaign, now)
            save_files(connection, {file.digest: file.octets for file in order.files}, requested_at=now)
            touch = insert_touch(
                connection,
                RequestedTouch(
                    campaign_id=campaign.id or 0,
                    step_id=target.step.id or 0,
                    recipient_id=recipient_id,
                    request_id=request_id,
                    hashed=self._context.hash_of(order.to),
                ),
                now,
            )
            if audit is not None:
                audit(connection, touch.id)
            return StoredRequest(request_id, order.digest, touch.id, touch.state, now), False

    def _open_campaign(self, connection: sa.Connection, order: MessageOrder) -> Campaign:
        """Return the campaign, which does not end before this transaction does. Raises StateError if it is not open."""
        lock_campaign(connection, order.campaign)
        campaign = find_campaign(connection, order.campaign)
        open_states = (CampaignState.RUNNING, CampaignState.PAUSED)
        if campaign.launched_at is None or campaign.state not in open_states or not is_open(campaign):
            state = "closed" if campaign.state in open_states else campaign.state.value
            raise StateError(
                f"campaign {campaign.name} is {state}, so it takes no requests",
                remedy=f"Launch it: `postroad campaign launch {campaign.name}`."
                if campaign.state is CampaignState.DRAFT
                else "Apply it under another name, and launch that one.",
            )
        [step] = [step for step in steps_of(connection, campaign.id or 0) if step.kind is StepKind.EMAIL]
        if step.recalled_at is not None:
            raise StateError(
                f"step {step.name} of campaign {campaign.name} was recalled", remedy="Apply it under another name."
            )
        return campaign

    def _recipient(self, connection: sa.Connection, order: MessageOrder, campaign: Campaign, now: datetime) -> int:
        """Return the id of the recipient. Raises StateError for mail that is not transactional without permission."""
        if order.transactional:
            return insert_recipient(connection, order.to, domain_of(order.to), now)
        recipient = recipient_of_address(connection, order.to)
        id_ = recipient.id if recipient is not None else None
        if id_ is not None and is_member(connection, campaign.audience_id, id_):
            return id_
        audience = audience_name(connection, campaign.audience_id)
        raise StateError(
            f"{order.to} is not a member of audience {audience}, and gave no permission for campaign {campaign.name}",
            remedy="Add the recipient to the audience first. Only transactional messages need no permission.",
        )

    async def _submit(self, order: MessageOrder, stored: StoredRequest) -> None:
        """Submit the message now. If the queue does not answer in time, the next pass over the campaigns does it."""
        if stored.state is not TouchState.PLANNED:
            return
        try:
            async with asyncio.timeout(SUBMIT_WITHIN_S):
                await self._submitter.submit(order.campaign, stored.touch_id)
        except (UnavailableError, TimeoutError) as error:
            why = error.message if isinstance(error, UnavailableError) else f"no answer within {SUBMIT_WITHIN_S:g} s"
            log.warning("message %d is accepted, and is not in the queue yet: %s", stored.touch_id, why)


def _same_content(stored: StoredRequest | None, order: MessageOrder) -> StoredRequest | None:
    """Return the stored request. Raises KeyReusedError if it has another content."""
    if stored is not None and stored.digest != order.digest:
        raise KeyReusedError(
            "Idempotency-Key",
            "this key belongs to a request with another content",
            remedy="Repeat a request unchanged, and use a new key for a new message.",
        )
    return stored

"""Submits touches as programs request them. Requests that arrive during a submission share the next one."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from postroad.app.context import AppContext
from postroad.delivery.submit import enqueue_touches, load_submit_plan, queue_name, touch_rows
from postroad.gates.controller import GateController
from postroad.mail.address import domain_of
from postroad.queue import Queue
from postroad.store.campaign import CampaignState
from postroad.store.engine import read, write
from postroad.store.mail_domain import known_domains
from postroad.store.message_request import planned_among
from postroad.store.touches.sending import mark_queued

GATES_EVERY_MS: Final = 10_000
"""How often the gates are set at most: a queue that lost them would admit every job."""
BATCH: Final = 1_000


class _WaitingTouch(NamedTuple):
    touch_id: int
    done: asyncio.Future[None]


class TouchSubmitter:
    """Submits touches of any campaign, a batch of each at a time."""

    def __init__(self, context: AppContext) -> None:
        self._context = context
        self._waiting: defaultdict[str, list[_WaitingTouch]] = defaultdict(list)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._controllers: dict[str, GateController] = {}  # by queue
        self._set_at_ms: dict[str, int] = {}

    async def submit(self, campaign: str, touch_id: int) -> None:
        """Submit a touch that is due now. Idempotent: one that is not planned any more is left alone.

        Args:
            campaign: Name of its campaign.
            touch_id: The touch.

        Raises:
            StateError: There is no such campaign.
            UnavailableError: The database or the queue is unavailable. The touch is still planned.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[campaign].append(_WaitingTouch(touch_id, done))
        if campaign not in self._running:
            self._running[campaign] = asyncio.create_task(self._submit_waiting(campaign))
        await done

    async def _submit_waiting(self, campaign: str) -> None:
        try:
            while batch := self._waiting[campaign][:BATCH]:
                del self._waiting[campaign][:BATCH]
                try:
                    await self._submit(campaign, [waiting.touch_id for waiting in batch])
                except BaseException as error:
                    for waiting in batch:
                        if not waiting.done.done():
                            waiting.done.set_exception(error)
                    if not isinstance(error, Exception):
                        raise
                for waiting in batch:
                    if not waiting.done.done():  # cancelled: its client waited for too long
                        waiting.done.set_result(None)
        finally:
            del self._running[campaign], self._waiting[campaign]

    async def _submit(self, campaign: str, touch_ids: list[int]) -> None:
        context, engine = self._context, self._context.engine
        queue = await context.queue(await asyncio.to_thread(queue_name, engine, campaign))
        options = replace(context.submit_options, gates=await self._set_gates(queue))
        plan = await asyncio.to_thread(load_submit_plan, engine, campaign, options)
        if plan.campaign.state is not CampaignState.RUNNING:
            return  # The next pass after its resumption submits them.
        rows = await asyncio.to_thread(self._rows, touch_ids)
        if not rows:
            return
        unknown = await asyncio.to_thread(self._unknown_domains, [domain_of(row.address) for row in rows])
        if unknown:
            await (await context.providers()).look_up(unknown)
            rows = await asyncio.to_thread(self._rows, touch_ids)
        await enqueue_touches(queue, plan, rows)
        # Marked last: a failure before leaves them planned.
        await asyncio.to_thread(self._mark_queued, [row.id for row in rows])

    async def _set_gates(self, queue: Queue) -> GateController:
        controller = self._controllers.setdefault(queue.name, self._context.gates(queue))
        now_ms = self._context.clock.now_ms()
        if now_ms - self._set_at_ms.get(queue.name, -GATES_EVERY_MS) >= GATES_EVERY_MS:
            await controller.apply()
            self._set_at_ms[queue.name] = now_ms
        return controller

    def _rows(self, touch_ids: Sequence[int]) -> Sequence[sa.Row[Any]]:
        with read(self._context.engine) as connection:
            return touch_rows(connection, planned_among(connection, touch_ids))

    def _unknown_domains(self, domains: Sequence[str]) -> list[str]:
        with read(self._context.engine) as connection:
            return sorted(set(domains) - known_domains(connection, domains, self._context.clock.now()))

    def _mark_queued(self, touch_ids: Sequence[int]) -> None:
        with write(self._context.engine) as connection:
            mark_queued(connection, touch_ids)

"""Checks that the required processes are alive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from postroad.app.context import Role
from postroad.bounce.intake import BOUNCE_QUEUE
from postroad.delivery.job import SEND_QUEUE, WARMUP_QUEUE
from postroad.delivery.recorder import GROUP
from postroad.doctor.check import Check
from postroad.doctor.context import DoctorContext
from postroad.printable import counted
from postroad.queue import Health, Process, QueueStats
from postroad.settings import Settings
from postroad.settings.queues import WEBHOOK_QUEUE

LAG_EVENTS = 10_000


class RequiredProcess(NamedTuple):
    """A role that at least one process must have, and the command that starts it."""

    queue: str
    role: Role
    command: str

    @property
    def part(self) -> str:
        return f"worker {self.queue}" if self.role is Role.WORKER else str(self.role)


def required_workers(settings: Settings) -> Iterator[RequiredProcess]:
    """Yield the workers that these settings require."""
    yield RequiredProcess(SEND_QUEUE, Role.WORKER, "postroad worker")
    if any(sender.warmup is not None and sender.warmup.seeds is not None for sender in settings.senders.values()):
        yield RequiredProcess(WARMUP_QUEUE, Role.WORKER, f"postroad worker {WARMUP_QUEUE}")
    if settings.inbound.enabled or settings.bounce.sources:
        yield RequiredProcess(BOUNCE_QUEUE, Role.WORKER, f"postroad worker {BOUNCE_QUEUE}")
    if settings.webhooks_out:
        yield RequiredProcess(WEBHOOK_QUEUE, Role.WORKER, f"postroad worker {WEBHOOK_QUEUE}")


async def check_worker(required: RequiredProcess, context: DoctorContext) -> Sequence[Check]:
    """Check that a worker of a queue is alive."""
    processes = await (await context.queue(required.queue)).processes()
    return [_check(required, processes)]


async def check_recorder(context: DoctorContext) -> Sequence[Check]:
    """Check that a recorder is alive, and that its lag is small."""
    queue = await context.queue(SEND_QUEUE)
    check = _check(RequiredProcess(SEND_QUEUE, Role.RECORDER, "postroad recorder"), await queue.processes())
    lag = _lag(await queue.stats())
    seen = f"{check.seen}; {counted(lag, 'event is', 'events are')} not recorded yet"
    if check.health is Health.OK and lag >= LAG_EVENTS:
        remedy = "Is the database fast enough? `postroad_recorder_lag_seconds` shows the lag."
        return [Check(part=check.part, health=Health.WARN, seen=seen, remedy=remedy)]
    return [Check(part=check.part, health=check.health, seen=seen, remedy=check.remedy)]


def _lag(stats: QueueStats) -> int:
    return next((group.pending + group.unread for group in stats.groups if group.name == GROUP), stats.events)


def _check(required: RequiredProcess, processes: Sequence[Process]) -> Check:
    with_role = [process for process in processes if process.role == required.role]
    alive = sum(process.alive for process in with_role)
    seen = f"{alive} alive" if alive else "none is alive"
    dead = [process for process in with_role if not process.alive]
    if dead:  # The one with the latest heartbeat comes first.
        last = dead[0]
        seen += f"; {last.name} ended unexpectedly, last seen {last.beat_age_ms // 1000} s ago"
        seen += f", and {len(dead) - 1} more" if len(dead) > 1 else ""
    if alive:
        return Check(part=required.part, health=Health.OK, seen=seen)
    remedy = f"Start `{required.command}`, or everything with `postroad up`. `postroad processes` lists what runs."
    return Check(part=required.part, health=Health.FAIL, seen=seen, remedy=remedy)

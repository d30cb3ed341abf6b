"""Now: whether mail flows, and what needs a person."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from fastapi import Response

from postroad.bounce.intake import BOUNCE_QUEUE
from postroad.console.authorise import CurrentVisit
from postroad.console.charts import NamedValues, TimeChart, time_chart
from postroad.console.queue_reply import queue_reply
from postroad.console.screen import NavSection, Screen
from postroad.console.visit import Visit
from postroad.delivery.job import MAIL_QUEUES
from postroad.delivery.recorder import GROUP
from postroad.errors import PostroadError
from postroad.queue import Gate, GateState, Process, QueueStats
from postroad.read_model.now import NowFigures, accepted_per_minute, now_figures
from postroad.settings import AccessRole
from postroad.settings.queues import WEBHOOK_QUEUE
from postroad.store.approval import count_open_approvals
from postroad.store.heartbeat import ADVANCE, last_heartbeat
from postroad.store.traffic import MinuteTraffic

screen = Screen(name="now", title="Now", path="/", section=NavSection.MAIL)

MAX_GATES = 20
HOURS = 24
BUCKET_MINUTES = 10


@dataclass(frozen=True, kw_only=True)
class WaitingGate:
    """A gate that holds lanes.

    Attributes:
        queue: Its queue.
        name: Its name.
        lanes: Lanes that wait for it.
        in_flight: Jobs that passed it and have not ended.
        limit: Its limits, as text.
        until: When it opens. None: it is not known.
        paused: Whether it is paused.
    """

    queue: str
    name: str
    lanes: int
    in_flight: int
    limit: str
    until: datetime | None
    paused: bool


@dataclass(frozen=True, kw_only=True)
class QueueView:
    """The state of one queue.

    Attributes:
        name: Its name.
        stats: Its statistics.
        recorder_lag: Events that no recorder has written to the ledger. None: they are not for the ledger.
    """

    name: str
    stats: QueueStats
    recorder_lag: int | None


@dataclass(frozen=True, kw_only=True)
class QueuesView:
    """The state of all queues.

    Attributes:
        queues: The queues.
        gates: Gates that hold lanes, those with most lanes first.
        processes: Processes by role.
        problem: Why the state is unknown. None: it is known.
    """

    queues: Sequence[QueueView] = ()
    gates: Sequence[WaitingGate] = ()
    processes: Sequence[Process] = ()
    problem: PostroadError | None = None


@screen.get("/", role=AccessRole.VIEW)
async def now(visit: CurrentVisit) -> Response:
    """Show the page."""
    return visit.page("now.html", **await _values(visit))


@screen.get("/now/live", role=AccessRole.VIEW)
async def live(visit: CurrentVisit) -> Response:
    """Return the part of the page that changes."""
    return visit.page("now_live.html", **await _values(visit))


@screen.post("/now/check", role=AccessRole.OPERATE)
async def check(visit: CurrentVisit) -> Response:
    """Start the checks of `postroad doctor` again."""
    visit.parts.findings.refresh()
    return visit.redirect("/#findings", "The checks are running. This takes up to a minute.")


async def _values(visit: Visit) -> dict[str, Any]:
    queues, ledger = await asyncio.gather(queues_view(visit), visit.read(_ledger, visit.parts.now()))
    findings = visit.parts.findings
    since = traffic_since(visit.parts.now())
    return {
        "queues": queues,
        "figures": ledger.figures,
        "chart": traffic_chart(ledger.minutes, since, visit.parts.zone),
        "hours": traffic_by_hour(ledger.minutes),
        "advanced_at": ledger.advanced_at,
        "findings": findings.latest,
        "checking": findings.is_running,
        "now_ms": visit.parts.context.clock.now_ms(),
        "approvals": ledger.approvals,
    }


@dataclass(frozen=True, kw_only=True)
class LedgerView:
    """What the page shows of the ledger. ``approvals``: launches that wait for one."""

    figures: NowFigures
    approvals: int
    minutes: Sequence[MinuteTraffic]
    advanced_at: datetime | None


def _ledger(connection: sa.Connection, now: datetime) -> LedgerView:
    return LedgerView(
        figures=now_figures(connection, now),
        approvals=count_open_approvals(connection, now),
        minutes=accepted_per_minute(connection, now, hours=HOURS),
        advanced_at=last_heartbeat(connection, ADVANCE),
    )


def traffic_since(now: datetime) -> datetime:
    """Return the begin of the first bucket of the chart: a full ten minutes, 24 hours ago."""
    last = now.replace(minute=now.minute - now.minute % BUCKET_MINUTES, second=0, microsecond=0)
    return last + timedelta(minutes=BUCKET_MINUTES) - timedelta(hours=HOURS)


def traffic_chart(minutes: Sequence[MinuteTraffic], since: datetime, zone: ZoneInfo) -> TimeChart:
    """Return the chart of outcomes a minute, in buckets of ten minutes."""
    buckets = HOURS * 60 // BUCKET_MINUTES
    sums = {name: [0] * buckets for name in ("accepted", "deferred", "bounced")}
    for row in minutes:
        place = (row.at - since) // timedelta(minutes=BUCKET_MINUTES)
        if 0 <= place < buckets:
            sums["accepted"][place] += row.accepted
            sums["deferred"][place] += row.deferred
            sums["bounced"][place] += row.bounced
    classes = {"accepted": "", "deferred": "second", "bounced": "third"}
    lines = [
        NamedValues(name=name, css_class=classes[name], values=[value / BUCKET_MINUTES for value in values])
        for name, values in sums.items()
    ]
    return time_chart(lines, since, timedelta(minutes=BUCKET_MINUTES), zone)


def traffic_by_hour(minutes: Sequence[MinuteTraffic]) -> list[MinuteTraffic]:
    """Return the outcomes of each hour that has any, the newest first."""
    hours: dict[datetime, MinuteTraffic] = {}
    for row in minutes:
        at = row.at.replace(minute=0, second=0, microsecond=0)
        before = hours.get(at, MinuteTraffic(at, 0, 0, 0))
        hours[at] = MinuteTraffic(
            at, before.accepted + row.accepted, before.deferred + row.deferred, before.bounced + row.bounced
        )
    return [hours[at] for at in sorted(hours, reverse=True)]


async def queues_view(visit: Visit) -> QueuesView:
    """Return the state of all queues. A server that does not reply is a problem on the page, not an error."""
    names = (*MAIL_QUEUES, BOUNCE_QUEUE, *((WEBHOOK_QUEUE,) if visit.parts.settings.webhooks_out else ()))
    found = await queue_reply(asyncio.gather(*(_queue(visit, name) for name in names)))
    if isinstance(found, PostroadError):
        return QueuesView(problem=found)
    gates = sorted((gate for _, held, _ in found for gate in held), key=lambda gate: (-gate.lanes, gate.name))
    processes = sorted(
        (process for _, _, running in found for process in running),
        key=lambda process: (process.role, process.queue, process.name),
    )
    return QueuesView(queues=[view for view, _, _ in found], gates=gates[:MAX_GATES], processes=processes)


async def _queue(visit: Visit, name: str) -> tuple[QueueView, list[WaitingGate], list[Process]]:
    queue = await visit.parts.queue(name)
    stats, gates, processes = await queue.stats(), await queue.gates(), await queue.processes()
    lag: int | None = None
    if name != WEBHOOK_QUEUE:
        lag = next((group.pending + group.unread for group in stats.groups if group.name == GROUP), stats.events)
    now_ms = visit.parts.context.clock.now_ms()
    held = [_waiting(name, state, now_ms) for state in gates if state.parked_lanes]
    return QueueView(name=name, stats=stats, recorder_lag=lag), held, processes


def _waiting(queue: str, state: GateState, now_ms: int) -> WaitingGate:
    gate = state.gate
    paused = gate.paused_until_ms is not None and gate.paused_until_ms > now_ms
    return WaitingGate(
        queue=queue,
        name=gate.name,
        lanes=state.parked_lanes,
        in_flight=state.in_flight,
        limit=describe_limits(gate),
        until=None if state.next_check_ms is None else datetime.fromtimestamp(state.next_check_ms / 1000, UTC),
        paused=paused,
    )


def describe_limits(gate: Gate) -> str:
    """Return the limits of a gate as text."""
    texts = []
    if gate.rate is not None:
        texts.append(f"{gate.rate.count:,} in {gate.rate.per_ms / 1000:g} s")
    if gate.concurrency is not None:
        texts.append(f"{gate.concurrency:,} at a time")
    if gate.quota is not None:
        texts.append(f"{gate.quota.left:,} left of its quota")
    return ", ".join(texts) or "no limit"

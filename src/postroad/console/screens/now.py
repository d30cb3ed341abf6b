"""Now: whether mail flows, and what needs a person."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import Response

from postroad.bounce.intake import BOUNCE_QUEUE
from postroad.console.authorise import CurrentVisit
from postroad.console.screen import NavSection, Screen
from postroad.console.visit import Visit
from postroad.delivery.job import MAIL_QUEUES
from postroad.delivery.recorder import GROUP
from postroad.errors import PostroadError
from postroad.queue import Gate, GateState, Process, QueueStats
from postroad.settings import AccessRole
from postroad.store.heartbeat import ADVANCE, last_heartbeat

screen = Screen(name="now", title="Now", path="/", section=NavSection.MAIL)

QUEUE_WITHIN_S = 5.0
MAX_GATES = 20


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
        recorder_lag: Events that no recorder has written to the ledger.
    """

    name: str
    stats: QueueStats
    recorder_lag: int


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
    queues, advanced_at = await asyncio.gather(queues_view(visit), visit.read(last_heartbeat, ADVANCE))
    findings = visit.parts.findings
    return {
        "queues": queues,
        "advanced_at": advanced_at,
        "findings": findings.latest,
        "checking": findings.is_running,
        "now": visit.parts.now(),
    }


async def queues_view(visit: Visit) -> QueuesView:
    """Return the state of all queues. A server that does not reply is a problem on the page, not an error."""
    try:
        async with asyncio.timeout(QUEUE_WITHIN_S):
            found = await asyncio.gather(*(_queue(visit, name) for name in (*MAIL_QUEUES, BOUNCE_QUEUE)))
    except PostroadError as error:
        return QueuesView(problem=error)
    except TimeoutError:
        return QueuesView(problem=PostroadError(f"the queue's server did not reply within {QUEUE_WITHIN_S:g} s"))
    gates = sorted((gate for _, held, _ in found for gate in held), key=lambda gate: (-gate.lanes, gate.name))
    processes = sorted(
        (process for _, _, running in found for process in running),
        key=lambda process: (process.role, process.queue, process.name),
    )
    return QueuesView(queues=[view for view, _, _ in found], gates=gates[:MAX_GATES], processes=processes)


async def _queue(visit: Visit, name: str) -> tuple[QueueView, list[WaitingGate], list[Process]]:
    queue = await visit.parts.queue(name)
    stats, gates, processes = await queue.stats(), await queue.gates(), await queue.processes()
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

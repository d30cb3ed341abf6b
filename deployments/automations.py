"""What the Prefect server does by itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from uuid import UUID

from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from postroad.local.prefect import ALERTS

DEFAULT_HEARTBEAT_S: Final = 180
MISSED_HEARTBEATS: Final = 3
ALERTING: Final = frozenset(
    {
        "postroad.canary.failed",
        "postroad.cohort.paused",
        "postroad.domain.unhealthy",
        "postroad.sender.held",
        "postroad.warmup.paused",
    }
)
"""Events that somebody has to do something about: mail of a campaign or a sender waits until then, or soon will."""


def silent_runs_crash(heartbeat_s: int) -> AutomationCore:
    """Declare a flow run crashed that stopped beating.

    A worker that is killed leaves its runs *Running* for ever, and with them their concurrency slots. A
    self-hosted server has nothing of its own against that.
    """
    beat = "prefect.flow-run.heartbeat"
    return AutomationCore(
        name="postroad: a flow run without a heartbeat has crashed",
        description="Its worker or its machine died. What it left undone, the next run of the campaign does.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            for_each={"prefect.resource.id"},
            after={beat},
            # Any sign of life: another beat, or a state. A run that ended or was set aside is silent rightly.
            expect={"prefect.flow-run.*"},
            threshold=1,
            within=timedelta(seconds=MISSED_HEARTBEATS * heartbeat_s),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message="No heartbeat: its worker or its machine died. Starting it again is safe.",
            )
        ],
    )


def alerts(block_id: UUID) -> AutomationCore:
    """Tell somebody by a notification block, once for each event."""
    return AutomationCore(
        name=ALERTS,
        description="Mail waits until somebody mends its cause. The payload says whose mail, why, and how it goes on.",
        trigger=EventTrigger(
            posture=Posture.Reactive,
            match={"prefect.resource.id": ["postroad.*"]},
            expect=set(ALERTING),
            threshold=1,
            within=timedelta(0),
        ),
        actions=[
            SendNotification(
                block_document_id=block_id,
                subject="{{ event.event }}: {{ event.resource.name }}",
                body="{% for name, value in event.payload.items() %}{{ name }}: {{ value }}\n{% endfor %}",
            )
        ],
    )


def all_automations(heartbeat_s: int, alert_block_id: UUID | None) -> list[AutomationCore]:
    told = [alerts(alert_block_id)] if alert_block_id is not None else []
    return [silent_runs_crash(heartbeat_s), *told]

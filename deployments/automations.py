"""The automations: what the Prefect server does without a flow run."""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from uuid import UUID

from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, RunDeployment, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from postroad.local.prefect_pool import ALERTS

DEFAULT_HEARTBEAT_S: Final = 180
MISSED_HEARTBEATS: Final = 3
STARTS_WITHIN_S: Final = 90
"""A run that is Pending for that long has no process. It is shorter than `grace_period_seconds` in prefect.yaml."""
STOPPING_STATES: Final = ("Cancelling", "Cancelled", "Paused", "Suspended")
PAUSE_DEPLOYMENT: Final = "pause-campaigns/pause-campaigns"
ALERTING: Final = frozenset(
    {
        "postroad.campaign.approval_requested",
        "postroad.canary.failed",
        "postroad.cohort.paused",
        "postroad.domain.unhealthy",
        "postroad.sender.held",
        "postroad.warmup.paused",
    }
)
"""Events that a person must act on: mail of a campaign or a sender is held back until then, or soon will be."""


def silent_runs_crash(heartbeat_s: int) -> AutomationCore:
    """Return the automation that declares a flow run crashed when its heartbeats stop.

    A worker that is killed leaves its runs *Running*, and their concurrency slots taken, for ever. A self-hosted server
    does not correct that by itself.

    Args:
        heartbeat_s: Seconds between two heartbeats of a run.

    Returns:
        The automation, which waits for three heartbeats.
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
            # Another heartbeat, or any state: a run that ended or was suspended sends no heartbeats.
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


def stuck_runs_crash(within_s: int = STARTS_WITHIN_S) -> AutomationCore:
    """Return the automation that declares a flow run crashed that a worker claimed and never started.

    A worker that is killed between the two leaves its run *Pending* for ever, and the slot of its deployment's limit
    taken. Declaring the run crashed frees the slot.

    Args:
        within_s: Seconds after which a Pending run is declared crashed.

    Returns:
        The automation.
    """
    pending = "prefect.flow-run.Pending"
    return AutomationCore(
        name="postroad: a flow run that does not start has crashed",
        description="Its worker died before the run began. The next run of the schedule does its work.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            for_each={"prefect.resource.id"},
            after={pending},
            expect={"prefect.flow-run.*"},
            threshold=1,
            within=timedelta(seconds=within_s),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message="It did not start: its worker died. Starting it again is safe.",
            )
        ],
    )


def stopped_runs_pause(deployment_id: UUID) -> AutomationCore:
    """Return the automation that starts `pause-campaigns` when a run of `campaign` is cancelled or suspended.

    The recorder does the same within seconds. The automation is for a recorder that cannot reach Prefect.

    Args:
        deployment_id: The deployment `pause-campaigns`.

    Returns:
        The automation.
    """
    return AutomationCore(
        name="postroad: a campaign whose run is cancelled or suspended is paused",
        description="Cancelling a run stops the run. Its mail waits on the queue, which this stops.",
        trigger=EventTrigger(
            posture=Posture.Reactive,
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            match_related={"prefect.resource.role": ["flow"], "prefect.resource.name": ["campaign"]},
            expect={f"prefect.flow-run.{name}" for name in STOPPING_STATES},
            threshold=1,
            within=timedelta(0),
        ),
        actions=[RunDeployment(source="selected", deployment_id=deployment_id)],
    )


def alerts(block_id: UUID) -> AutomationCore:
    """Return the automation that sends an alert by a notification block, once for each event."""
    return AutomationCore(
        name=ALERTS,
        description="Mail waits until the cause is fixed. The payload says which mail, why, and how to resume it.",
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


def all_automations(
    heartbeat_s: int, alert_block_id: UUID | None, pause_deployment_id: UUID | None
) -> list[AutomationCore]:
    """Return the automations that a server should have.

    Args:
        heartbeat_s: How often a flow run shows that it is alive.
        alert_block_id: The block that alerts go to. None: there are no alerts.
        pause_deployment_id: The deployment `pause-campaigns`. None: the project has no such deployment.
    """
    pausing = [stopped_runs_pause(pause_deployment_id)] if pause_deployment_id is not None else []
    alerting = [alerts(alert_block_id)] if alert_block_id is not None else []
    return [silent_runs_crash(heartbeat_s), stuck_runs_crash(), *pausing, *alerting]

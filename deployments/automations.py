"""What the Prefect server does by itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

DEFAULT_HEARTBEAT_S: Final = 180
MISSED_HEARTBEATS: Final = 3


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


def all_automations(heartbeat_s: int) -> list[AutomationCore]:
    return [silent_runs_crash(heartbeat_s)]

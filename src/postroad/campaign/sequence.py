"""The steps of a campaign as a sequence: which email comes first, and what comes when after which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import assert_never
from zoneinfo import ZoneInfo

from postroad.campaign.calendar import Window, due_at
from postroad.store.campaign import Step, StepKind


@dataclass(frozen=True, kw_only=True)
class EmailPlan:
    """An email step, and when it is due after the email before it was accepted (or the launch)."""

    step_id: int
    name: str
    wait: timedelta
    at: time | None
    window: Window | None = None

    def due_at(self, after: datetime, zone: ZoneInfo) -> datetime:
        due = due_at(after + self.wait, self.at, zone)
        return due if self.window is None else self.window.opens(due, zone)


def email_sequence(steps: Sequence[Step], window: Window | None = None) -> list[EmailPlan]:
    """Return the emails of a campaign in order, each with the waits before it, due within the campaign's window."""
    plans: list[EmailPlan] = []
    wait = timedelta()
    for step in steps:
        match step.kind:
            case StepKind.WAIT:
                wait += timedelta(milliseconds=step.settings["wait_ms"])
            case StepKind.EMAIL:
                assert step.id is not None  # noqa: S101  (read from its table)
                at = step.settings.get("at")
                moment = time.fromisoformat(at) if at else None
                plans.append(EmailPlan(step_id=step.id, name=step.name, wait=wait, at=moment, window=window))
                wait = timedelta()
            case _:
                assert_never(step.kind)
    return plans

"""Which schedules change when prefect.yaml is installed again: decided here, carried out by the bootstrap.

Three accounts of a schedule are compared: what the file says, what the server has, and what the file said
when it was last installed. Where the server differs from the last, somebody changed it in the UI, and the
change stays. Everything else follows the file. A slug that left the file goes; a schedule without a slug
was made by hand, and is none of our business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.schedules import CronSchedule

from deployments.spec import ScheduleSpec

Account = Mapping[str, Any]
"""What one side says of a schedule, by the names in `FIELDS`."""

FIELDS: Final = ("cron", "timezone", "active", "parameters")


@dataclass(frozen=True)
class Create:
    spec: ScheduleSpec


@dataclass(frozen=True)
class Update:
    """Bring these fields, and no others, to what the file says."""

    schedule_id: UUID
    spec: ScheduleSpec
    fields: frozenset[str]


@dataclass(frozen=True)
class Delete:
    schedule_id: UUID


Change = Create | Update | Delete


def account(spec: ScheduleSpec) -> dict[str, Any]:
    """What the file says of a schedule, in JSON types, to be recorded for the next install."""
    return spec.model_dump(mode="json", include=set(FIELDS))


def decide(
    file: Sequence[ScheduleSpec], server: Sequence[DeploymentSchedule], recorded: Mapping[str, Account]
) -> list[Change]:
    """Return the changes that bring the server to the file without undoing what a person did.

    `recorded` is the account per slug of the last install; empty at the first.
    """
    changes: list[Change] = []
    present = {schedule.slug: schedule for schedule in server if schedule.slug}
    for spec in file:
        found, before = present.pop(spec.slug, None), recorded.get(spec.slug)
        if found is None:
            # Recorded and gone: somebody deleted it. It comes back when the file says something new.
            if before != account(spec):
                changes.append(Create(spec))
        elif fields := _outdated(account(spec), _account_of(found), before):
            changes.append(Update(found.id, spec, fields))
    changes.extend(Delete(schedule.id) for schedule in present.values())
    return changes


def _outdated(file: Account, server: Account, before: Account | None) -> frozenset[str]:
    if before is None:
        # Not ours so far, so there is no telling who changed what: as it is, it stays.
        return frozenset()
    return frozenset(f for f in FIELDS if server[f] == before.get(f) and server[f] != file[f])


def _account_of(schedule: DeploymentSchedule) -> dict[str, Any]:
    # Made into an interval in the UI, it has no cron, which differs from any record: it stays.
    cron = schedule.schedule if isinstance(schedule.schedule, CronSchedule) else None
    return {
        "cron": cron.cron if cron else None,
        "timezone": cron.timezone if cron else None,
        "active": schedule.active,
        "parameters": schedule.parameters,
    }

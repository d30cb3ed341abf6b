"""Decides which schedules change when prefect.yaml is installed again. The bootstrap applies the changes.

Three versions of a schedule are compared: that of the file, that of the server, and that of the file when it was last
installed. Where the server differs from the last installation, the schedule was changed in the UI, and the change
stays. Everything else follows the file. A slug that is no longer in the file is deleted. A schedule without a slug was
made in the UI, and is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.schedules import CronSchedule

from deployments.spec import ScheduleSpec

ScheduleFields = Mapping[str, Any]
"""One version of a schedule, by the names in `FIELDS`."""

FIELDS: Final = ("cron", "timezone", "active", "parameters")


@dataclass(frozen=True)
class Create:
    spec: ScheduleSpec


@dataclass(frozen=True)
class Update:
    """Update these fields, and no others, to those of the file."""

    schedule_id: UUID
    spec: ScheduleSpec
    fields: frozenset[str]


@dataclass(frozen=True)
class Delete:
    schedule_id: UUID


Change = Create | Update | Delete


def fields_of_file(spec: ScheduleSpec) -> dict[str, Any]:
    """Return a schedule of the file in JSON types, to be recorded for the next installation."""
    return spec.model_dump(mode="json", include=set(FIELDS))


def decide(
    file: Sequence[ScheduleSpec], server: Sequence[DeploymentSchedule], recorded: Mapping[str, ScheduleFields]
) -> list[Change]:
    """Return the changes that bring the server to the file and keep what was changed in the UI.

    Args:
        file: The schedules of the file.
        server: The schedules on the server.
        recorded: By slug, the schedules of the file at the last installation.

    Returns:
        The changes, in no particular order.
    """
    changes: list[Change] = []
    present = {schedule.slug: schedule for schedule in server if schedule.slug}
    for spec in file:
        found, before = present.pop(spec.slug, None), recorded.get(spec.slug)
        if found is None:
            # Recorded and missing: it was deleted in the UI. It is created again when the file changes.
            if before != fields_of_file(spec):
                changes.append(Create(spec))
        elif fields := _outdated(fields_of_file(spec), _fields_of_server(found), before):
            changes.append(Update(found.id, spec, fields))
    changes.extend(Delete(schedule.id) for schedule in present.values())
    return changes


def _outdated(file: ScheduleFields, server: ScheduleFields, before: ScheduleFields | None) -> frozenset[str]:
    if before is None:
        # Not installed by the bootstrap, so what was changed is unknown: it is left as it is.
        return frozenset()
    return frozenset(f for f in FIELDS if server[f] == before.get(f) and server[f] != file[f])


def _fields_of_server(schedule: DeploymentSchedule) -> dict[str, Any]:
    # Changed to an interval in the UI, it has no cron. That differs from any record, so the change stays.
    cron = schedule.schedule if isinstance(schedule.schedule, CronSchedule) else None
    return {
        "cron": cron.cron if cron else None,
        "timezone": cron.timezone if cron else None,
        "active": schedule.active,
        "parameters": schedule.parameters,
    }

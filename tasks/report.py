"""What a run shows: progress bars, tables, texts, events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.events import emit_event


class ProgressBar:
    """One bar on the page of the run. To move it is a request of 20 ms: it moves per slice, not per row."""

    def __init__(self, artifact_id: UUID) -> None:
        self._artifact_id = artifact_id
        self._percent = 0.0

    @classmethod
    async def open(cls, key: str, description: str) -> ProgressBar:
        artifact_id = await acreate_progress_artifact(0.0, key=_key(key), description=description)
        return cls(artifact_id)

    async def move(self, done: int, total: int) -> None:
        """Show `done` of `total`, where nothing to do is all done. A bar that stays sends nothing."""
        percent = round(100.0 * done / total, 1) if total else 100.0
        if percent != self._percent:
            self._percent = percent
            await aupdate_progress_artifact(self._artifact_id, percent)


async def publish_table(key: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """Show rows under Artifacts; the key collects the versions of earlier runs."""
    await acreate_table_artifact([dict(row) for row in rows], key=_key(key), description=description)


async def publish_markdown(key: str, markdown: str, description: str) -> None:
    await acreate_markdown_artifact(markdown, key=_key(key), description=description)


def announce(event: str, resource_id: str, resource_name: str, payload: Mapping[str, Any]) -> None:
    """Emit an event for automations to react to. It is sent before the run's process ends."""
    emit_event(
        event=event,
        resource={"prefect.resource.id": resource_id, "prefect.resource.name": resource_name},
        payload=dict(payload),
    )


def _key(text: str) -> str:
    """An artifact key holds lowercase letters, digits and dashes only."""
    return text.replace("_", "-")

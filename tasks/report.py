"""Publishes artifacts and events of runs: progress bars, tables, texts.

A flow that an operator starts publishes a version for each run. A scheduled flow publishes only changes, or updates the
last version in place, so that the server's database does not grow with each run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from prefect import get_client
from prefect.artifacts import (
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey
from prefect.client.schemas.objects import ArtifactCollection
from prefect.events import emit_event
from prefect.settings import PREFECT_UI_URL

from postroad.printable import escape_active_markdown, escape_markdown

Row = Mapping[str, Any]

MAX_COLUMNS: Final = 8
MAX_CELL_CHARACTERS: Final = 40
"""A table in the UI is 580 pixels wide and breaks no line. Use `publish_sentences` for longer texts."""


class ProgressBar:
    """A progress bar on the page of the run. An update is a request of 20 ms, so make one per slice, not per row."""

    def __init__(self, artifact_id: UUID) -> None:
        self._artifact_id = artifact_id
        self._percent = 0.0

    @classmethod
    async def open(cls, key: str, description: str) -> ProgressBar:
        artifact_id = await acreate_progress_artifact(0.0, key=_key(key), description=description)
        return cls(artifact_id)

    async def move(self, done: int, total: int) -> None:
        """Show `done` of `total`. A total of 0 is shown as complete. An unchanged bar makes no request."""
        percent = percent_of(done, total)
        if percent != self._percent:
            self._percent = percent
            await aupdate_progress_artifact(self._artifact_id, percent)


async def publish_table(key: str, rows: Sequence[Row], description: str, *, only_changes: bool = False) -> None:
    """Show rows under Artifacts; the key collects the versions of earlier runs.

    Args:
        key: Name of the artifact.
        rows: Its rows, with the same columns.
        description: A sentence above the table.
        only_changes: Publish nothing if the last version has the same rows.
    """
    rows = literal_cells(narrow(rows))
    if only_changes and _same(await _latest(key), rows):
        return
    await acreate_table_artifact([dict(row) for row in rows], key=_key(key), description=description)


def narrow(rows: Sequence[Row]) -> list[Row]:
    """Truncate the long texts of rows.

    Returns:
        The rows, in the same order.

    Raises:
        ValueError: A row has too many columns for the UI.
    """
    if any(len(row) > MAX_COLUMNS for row in rows):
        raise ValueError(f"a table has at most {MAX_COLUMNS} columns")
    return [{name: _cut(cell) if isinstance(cell, str) else cell for name, cell in row.items()} for row in rows]


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CELL_CHARACTERS else f"{text[: MAX_CELL_CHARACTERS - 1]}…"


def literal_cells(rows: Sequence[Row]) -> list[Row]:
    """Escape the texts of rows: the UI renders each cell of a table artifact as Markdown."""
    return [
        {name: escape_active_markdown(cell) if isinstance(cell, str) else cell for name, cell in row.items()}
        for row in rows
    ]


async def publish_sentences(key: str, rows: Sequence[Row], description: str, *, only_changes: bool = False) -> None:
    """Show rows whose cells are sentences. The UI breaks lines in a text, but not in a table artifact.

    The parameters are those of `publish_table`.
    """
    await publish_markdown(key, markdown_table(rows), description, only_changes=only_changes)


def markdown_table(rows: Sequence[Row]) -> str:
    """Return rows with the same columns as a table in Markdown.

    Every punctuation character of the data is escaped, so that data never becomes markup, a link or HTML.
    """
    if not rows:
        return "None."
    lines = [
        [*rows[0]],
        ["---"] * len(rows[0]),
        *([escape_markdown(str(cell)) for cell in row.values()] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


async def publish_markdown(key: str, markdown: str, description: str, *, only_changes: bool = False) -> None:
    """Show a text under Artifacts. ``only_changes``: publish nothing if the last version has the same text."""
    if only_changes and _same(await _latest(key), markdown):
        return
    await acreate_markdown_artifact(markdown, key=_key(key), description=description)


async def renew_table(key: str, rows: Sequence[Row], description: str) -> bool:
    """Update the last version of a table in place, and return whether there is one."""
    return await _renew(key, literal_cells(narrow(rows)), description)


async def renew_markdown(key: str, markdown: str, description: str) -> bool:
    """Update the last version of a text in place, and return whether there is one."""
    return await _renew(key, markdown, description)


async def renew_progress(key: str, done: int, total: int, description: str) -> bool:
    """Update the last version of a progress bar in place, and return whether there is one."""
    return await _renew(key, percent_of(done, total), description)


def percent_of(done: int, total: int) -> float:
    """Return the share in percent. A total of 0 is 100 %."""
    return round(100.0 * done / total, 1) if total else 100.0


def artifact_url(key: str) -> str:
    """Return the page of an artifact in Prefect's UI."""
    return f"{ui_url()}/artifacts/key/{_key(key)}"


def ui_url() -> str:
    """Return the address of Prefect's UI, without a slash at its end."""
    return str(PREFECT_UI_URL.value() or "").rstrip("/")


async def _latest(key: str) -> ArtifactCollection | None:
    wanted = ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=[_key(key)]))
    async with get_client() as client:
        artifacts = await client.read_latest_artifacts(artifact_filter=wanted)
    return artifacts[0] if artifacts else None


async def _renew(key: str, content: Sequence[Row] | str | float, description: str) -> bool:
    latest = await _latest(key)
    if latest is None:
        return False
    if not _same(latest, content):
        update = ArtifactUpdate(data=_stored(content), description=description)
        async with get_client() as client:
            await client.update_artifact(latest.latest_id, update)
    return True


def _same(latest: ArtifactCollection | None, content: Sequence[Row] | str | float) -> bool:
    return latest is not None and latest.data == _stored(content)


def _stored(content: Sequence[Row] | str | float) -> str | float:
    """Return the content as Prefect stores it: a table is JSON."""
    return content if isinstance(content, str | float) else json.dumps([dict(row) for row in content])


def announce(event: str, resource_id: str, resource_name: str, payload: Mapping[str, Any]) -> None:
    """Emit an event for automations. It is sent before the process of the run ends."""
    emit_event(
        event=event,
        resource={"prefect.resource.id": resource_id, "prefect.resource.name": resource_name},
        payload=dict(payload),
    )


def _key(text: str) -> str:
    """Return an artifact key, which may contain lowercase letters, digits and dashes."""
    return text.replace("_", "-")

"""Steps that import recipients."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from prefect.logging import get_run_logger

from postroad.app.context import open_context
from postroad.campaign.audience import ImportProgress, import_progress, import_slice, open_import, refusals
from postroad.campaign.audience_file import AudienceFile, audience_file
from postroad.campaign.file_access import import_rules
from postroad.printable import counted
from tasks.policy import retried
from tasks.report import publish_sentences

REFUSALS_SHOWN: Final = 500
VALUE_SHOWN: Final = 32
"""Characters of a refused value that are shown with its reason. `postroad audience refusals` shows it whole."""


@retried("find the audience file")
async def find_unimported_file(campaign: str) -> AudienceFile | None:
    """Return the file that the campaign names for its audience. None: there is nothing left to import."""
    async with open_context() as context:
        file = await asyncio.to_thread(audience_file, context.engine, campaign)
    if file is None or file.to_import:
        return file
    get_run_logger().info("%s", file.why_not)
    return None


@retried("check the file")
async def open_file(audience: str, path: str) -> ImportProgress:
    """Check the whole file and begin its import, or continue an interrupted one."""
    async with open_context() as context:
        file = context.settings.base_dir / path
        rules = await asyncio.to_thread(import_rules, context.engine, context.settings, file)
        return await asyncio.to_thread(open_import, context.engine, audience, file, context.clock.now(), rules=rules)


@retried("import rows", run_name="import rows from {cursor}")
async def import_rows(import_id: int, cursor: int, rows: int) -> ImportProgress:
    """Import the next rows, a thousand in a transaction.

    The library continues at the cursor that it stored with the rows, so a retry after a commit whose reply was lost
    imports no row twice.

    Args:
        import_id: Id of the import.
        cursor: Names the task run only.
        rows: Rows to import, at most.

    Returns:
        The progress.
    """
    async with open_context() as context:
        progress = await asyncio.to_thread(import_progress, context.engine, import_id)
        rules = await asyncio.to_thread(import_rules, context.engine, context.settings, Path(progress.path))
        types = context.settings.field_types(progress.audience)
        return await asyncio.to_thread(import_slice, context.engine, import_id, context.clock.now(), rows, rules, types)


@retried("list refused rows")
async def publish_refusals(progress: ImportProgress) -> None:
    """Show the first few hundred rows that were refused, with their reasons, so that their file can be corrected."""
    if progress.refused == 0:
        return
    async with open_context() as context:
        listed = await asyncio.to_thread(refusals, context.engine, progress.import_id, REFUSALS_SHOWN)
    await publish_sentences(
        f"refused-{progress.audience}",
        [{"line": r.line, "field": r.field, "value": _shortened(r.value), "reason": r.reason} for r in listed],
        f"{progress.refused:,} of {counted(progress.rows_total, 'row')} {'was' if progress.refused == 1 else 'were'} "
        f"refused; {len(listed)} are listed.",
    )


def _shortened(value: str) -> str:
    return value if len(value) <= VALUE_SHOWN else f"{value[: VALUE_SHOWN - 1]}…"

"""Imports a CSV file into an audience."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.params import ImportParams
from postroad.printable import counted
from tasks.audience import import_rows, open_file, publish_refusals
from tasks.report import ProgressBar, announce
from tasks.slices import rows_per_slice


@flow(name="import-audience", flow_run_name="import-{params.audience}")
async def import_audience(params: ImportParams) -> State[None]:
    """Import a CSV file into an audience.

    The whole file is checked before the first row is stored. Invalid rows are skipped and listed under Artifacts, with
    line and reason. A run after an interruption continues where the last one stopped. Another run with the same file
    changes nothing. If another file was imported meanwhile, the file is read from its first row, so that its values
    apply.
    """
    progress = await open_file(params.audience, params.path)
    rows = rows_per_slice(progress.rows_total)
    bar = await ProgressBar.open(f"import-{params.audience}", f"Reading {params.path}")
    while not progress.finished:
        await bar.move(progress.rows_done, progress.rows_total)
        progress = await import_rows(progress.import_id, progress.cursor, rows)
    await bar.move(progress.rows_done, progress.rows_total)

    await publish_refusals(progress)
    announce(
        "postroad.audience.imported",
        f"postroad.audience.{params.audience}",
        params.audience,
        {
            "rows": progress.rows_total,
            "imported": progress.imported,
            "duplicates": progress.duplicates,
            "refused": progress.refused,
        },
    )
    if progress.already:
        return Completed(message=f"nothing to do: {params.path} was imported, and no other import came after it")
    return Completed(
        message=f"{counted(progress.imported, 'recipient')} imported into {params.audience}; "
        f"{counted(progress.duplicates, 'row was', 'rows were')} double, {progress.refused:,} refused"
    )

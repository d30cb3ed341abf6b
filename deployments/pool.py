"""Creates the work pool on a Prefect server, with a job template that lets a run bring no code.

`prefect deploy --all` is the usual command. On a fresh server Prefect refuses it, because the pool does not exist.
Before it looks up the pool, the only code of this project that it runs is the import of `flows`. So in that command the
import of `flows` creates the pool. In every other process the import does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from prefect import get_client
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from postroad.local.prefect_pool import JOB_TEMPLATE, POOL, open_fields

TYPE: Final = "process"

logger = logging.getLogger(__name__)


async def ensure_pool(client: PrefectClient, name: str) -> None:
    """Create the work pool if it is missing, and replace a job template that lets a run choose what is executed.

    A template that fixes command, environment and folder is left as it is, and so is a pool of another type.
    """
    try:
        pool = await client.read_work_pool(name)
    except ObjectNotFound:
        wanted = WorkPoolCreate(name=name, type=TYPE, base_job_template=dict(JOB_TEMPLATE))
        # A worker that starts now creates the pool with Prefect's template, and may be first.
        with contextlib.suppress(ObjectAlreadyExists):
            await client.create_work_pool(wanted)
            logger.info("work pool %s created", name)
            return
        pool = await client.read_work_pool(name)
    opened = open_fields(pool.base_job_template)
    if not opened:
        return
    if pool.type != TYPE:
        logger.warning("the job template of work pool %s lets a run set %s: fix them", name, ", ".join(opened))
        return
    await client.update_work_pool(name, WorkPoolUpdate(base_job_template=dict(JOB_TEMPLATE)))
    logger.info("work pool %s: a run can no longer set %s", name, ", ".join(opened))


def create_pool_for_deploy(arguments: Sequence[str]) -> None:
    """Create the work pool if this process is `prefect deploy`. A failure is logged; Prefect then reports its own."""
    if not is_deploy(arguments):
        return
    # The command's event loop is running in this thread.
    thread = threading.Thread(target=_create_pool, name="work pool")
    thread.start()
    thread.join()


def is_deploy(arguments: Sequence[str]) -> bool:
    """Return whether these are the arguments of `prefect deploy` or `python -m prefect deploy`."""
    program = Path(arguments[0]) if arguments else Path()
    is_prefect = program.name == "prefect" or program.parts[-2:] == ("prefect", "__main__.py")
    return is_prefect and next((word for word in arguments[1:] if not word.startswith("-")), None) == "deploy"


def _create_pool() -> None:
    async def ensure() -> None:
        async with get_client() as client:
            await ensure_pool(client, POOL)

    try:
        asyncio.run(ensure())
    except Exception as error:
        logger.warning(
            "The work pool %s cannot be created: %s. Run `python -m deployments.bootstrap` first.", POOL, error
        )

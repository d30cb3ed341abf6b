"""Install everything on a Prefect server: `python -m deployments.bootstrap`. It is idempotent.

It installs the work pool, the limits, the deployments of prefect.yaml with their schedules, and the automations.
`prefect deploy --all` installs the pool and the deployments too, and the first runs create the limits. It creates no
automation, and it resets schedules that were changed in the UI to those of the file.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from prefect import Flow, get_client
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    DeploymentUpdate,
    VariableCreate,
    VariableUpdate,
)
from prefect.client.schemas.objects import ConcurrencyOptions
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import get_current_settings
from prefect.utilities.callables import parameter_schema

from deployments.automations import DEFAULT_HEARTBEAT_S, PAUSE_DEPLOYMENT, all_automations
from deployments.pool import ensure_pool
from deployments.schedules import Change, Create, Delete, ScheduleFields, Update, decide, fields_of_file
from deployments.spec import DeploymentSpec, ProjectSpec, read
from postroad.app.context import ready_engine
from postroad.cli.app import shown_errors
from postroad.errors import ConfigError, PostroadError, UnavailableError
from postroad.local.campaign_form import offer_campaigns
from postroad.local.prefect_api import open_prefect
from postroad.local.prefect_pool import ALERTS
from postroad.settings import Settings
from tasks.policy import LIMITS

RECORD: Final = "postroad_schedules"
"""Name of the variable with the schedules of prefect.yaml as they were last installed."""

WAIT_EVERY_S: Final = 0.2

logger = logging.getLogger(__name__)


async def bootstrap(project: ProjectSpec, wait_s: float = 0.0, *, alert_block: str | None = None) -> None:
    """Install the project on the server at PREFECT_API_URL.

    Args:
        project: The content of prefect.yaml.
        wait_s: Seconds to wait for the server at most.
        alert_block: Type and name of the block that sends alerts. None: no alerts are sent any more. If the block does
            not exist, a warning is logged and nothing changes: a block can only be made on a running server.

    Raises:
        UnavailableError: No server answers within `wait_s`.
    """
    heartbeat_s = get_current_settings().flows.heartbeat_frequency or DEFAULT_HEARTBEAT_S
    async with get_client() as client:
        await until_ready(client, wait_s)
        for pool in sorted({deployment.work_pool.name for deployment in project.deployments}):
            await ensure_pool(client, pool)
        for limit in LIMITS:
            await client.upsert_global_concurrency_limit_by_name(limit.name, limit.slots, limit.decay_per_second)
        recorded = await read_record(client)
        record: dict[str, Any] = {}
        ids: dict[str, UUID] = {}
        for spec in project.deployments:
            name, deployment_id = await install(client, spec)
            ids[name] = deployment_id
            await reconcile(client, deployment_id, spec, recorded.get(name, {}))
            record[name] = {schedule.slug: fields_of_file(schedule) for schedule in spec.schedules}
        if record != recorded:
            await write_record(client, record)
        await ensure_automations(client, heartbeat_s, alert_block, ids.get(PAUSE_DEPLOYMENT))


async def until_ready(client: PrefectClient, wait_s: float) -> None:
    """Return once the server answers.

    Args:
        client: Of the server.
        wait_s: Seconds to wait at most.

    Raises:
        UnavailableError: The server does not answer within this time.
    """
    until = time.monotonic() + wait_s
    while problem := await client.api_healthcheck():
        if time.monotonic() >= until:
            raise UnavailableError(f"no Prefect server answers at {client.api_url}: {problem}")
        await asyncio.sleep(WAIT_EVERY_S)


async def install(client: PrefectClient, spec: DeploymentSpec) -> tuple[str, UUID]:
    """Create or update a deployment without its schedules. Return its name, `flow/deployment`, and its id."""
    flow: Flow[..., Any] = load_flow_from_entrypoint(spec.entrypoint, use_placeholder_flow=False)
    name = f"{flow.name}/{spec.name}"
    limit = spec.concurrency_limit
    common: dict[str, Any] = {
        "version": flow.version,
        "description": flow.description,
        "entrypoint": spec.entrypoint,
        "parameters": spec.parameters,
        "tags": spec.tags,
        "work_pool_name": spec.work_pool.name,
        "work_queue_name": spec.work_pool.work_queue_name,
        "job_variables": spec.work_pool.job_variables,
        "concurrency_limit": limit.limit,
        "concurrency_options": ConcurrencyOptions(
            collision_strategy=limit.collision_strategy, grace_period_seconds=limit.grace_period_seconds
        ),
        "enforce_parameter_schema": True,
        "parameter_openapi_schema": parameter_schema(flow).model_dump(exclude_unset=True),
        "pull_steps": [],
    }
    try:
        deployment = await client.read_deployment_by_name(name)
    except ObjectNotFound:
        flow_id = await client.create_flow_from_name(flow.name)
        deployment_id = await client.create_deployment(flow_id, spec.name, **common)
        logger.info("deployment %s created", name)
        return name, deployment_id
    await client.update_deployment(deployment.id, DeploymentUpdate(**common))
    return name, deployment.id


async def reconcile(
    client: PrefectClient, deployment_id: UUID, spec: DeploymentSpec, recorded: Mapping[str, ScheduleFields]
) -> None:
    """Update a deployment's schedules to those of the file, except what was changed in the UI."""
    server = await client.read_deployment_schedules(deployment_id)
    for change in decide(spec.schedules, server, recorded):
        logger.info("schedule of %s: %s", spec.name, change)
        await _apply_change(client, deployment_id, change)


async def _apply_change(client: PrefectClient, deployment_id: UUID, change: Change) -> None:
    match change:
        case Create(spec):
            schedule = DeploymentScheduleCreate(
                schedule=spec.cron_schedule, active=spec.active, parameters=spec.parameters, slug=spec.slug
            )
            await client.create_deployment_schedules(deployment_id, [schedule])
        case Update(schedule_id, spec, fields):
            await client.update_deployment_schedule(
                deployment_id,
                schedule_id,
                schedule=spec.cron_schedule if fields & {"cron", "timezone"} else None,
                active=spec.active if "active" in fields else None,
                parameters=spec.parameters if "parameters" in fields else None,
            )
        case Delete(schedule_id):
            await client.delete_deployment_schedule(deployment_id, schedule_id)


async def ensure_automations(
    client: PrefectClient, heartbeat_s: int, alert_block: str | None, pause_deployment_id: UUID | None = None
) -> None:
    """Create or update the automations. Delete the one that sends alerts if no block is named."""
    block_id = await find_block(client, alert_block) if alert_block is not None else None
    for automation in all_automations(heartbeat_s, block_id, pause_deployment_id):
        await ensure_automation(client, automation)
    if alert_block is None:
        await forget_automation(client, ALERTS)


async def ensure_automation(client: PrefectClient, wanted: AutomationCore) -> None:
    """Create or update the automation of this name, and delete duplicates. A disabled one stays disabled."""
    found = await client.read_automations_by_name(wanted.name)
    if not found:
        await client.create_automation(wanted)
        logger.info("automation %r created", wanted.name)
        return
    first, *duplicates = found
    as_left = wanted.model_copy(update={"enabled": first.enabled})
    if _content(first) != _content(as_left):
        await client.update_automation(first.id, as_left)
    for duplicate in duplicates:
        await client.delete_automation(duplicate.id)


async def forget_automation(client: PrefectClient, name: str) -> None:
    for found in await client.read_automations_by_name(name):
        await client.delete_automation(found.id)
        logger.info("automation %r deleted", name)


async def find_block(client: PrefectClient, block: str) -> UUID | None:
    """Return the id of a block, by its type and name. If there is no such block, log a warning and return None."""
    kind, _, name = block.partition("/")
    try:
        return (await client.read_block_document_by_name(name, kind)).id
    except ObjectNotFound:
        logger.warning("no alerts are sent: there is no block %s; make it under Blocks, then run this again", block)
        return None


def _content(automation: AutomationCore) -> dict[str, Any]:
    """Return the content of an automation without the fields that differ in each copy."""
    return AutomationCore.model_validate(automation.model_dump()).model_dump(exclude={"trigger": {"id"}})


async def read_record(client: PrefectClient) -> dict[str, dict[str, ScheduleFields]]:
    variable = await client.read_variable_by_name(RECORD)
    return dict(variable.value) if variable and isinstance(variable.value, dict) else {}


async def write_record(client: PrefectClient, record: dict[str, Any]) -> None:
    if await client.read_variable_by_name(RECORD) is None:
        await client.create_variable(VariableCreate(name=RECORD, value=record))
    else:
        await client.update_variable(VariableUpdate(name=RECORD, value=record))


async def install_all(project: ProjectSpec, settings: Settings, wait_s: float) -> None:
    """Install the project on the server, and list the campaigns of the database in the form of `campaign`."""
    await bootstrap(project, wait_s, alert_block=settings.alert_block)
    try:
        engine = await asyncio.to_thread(ready_engine, settings)
        try:
            async with open_prefect(settings) as prefect:
                await offer_campaigns(engine, prefect)
        finally:
            engine.dispose()
    except PostroadError as error:
        logger.warning("the form of a campaign has no list of campaigns yet: %s", error)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deployments.bootstrap", description=__doc__)
    parser.add_argument("--prefect-file", type=Path, default=Path("prefect.yaml"), help="default: %(default)s")
    parser.add_argument(
        "--wait-seconds",
        type=float,
        default=0.0,
        help="how long to wait for a server that is starting; default: 0",
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with shown_errors():
        project, settings = read(arguments.prefect_file), Settings.load()
        if get_current_settings().api.url is None:  # Prefect would start a temporary server.
            raise ConfigError(
                "no Prefect server is named",
                where="PREFECT_API_URL",
                remedy="Set it, such as PREFECT_API_URL=http://127.0.0.1:4200/api. `postroad up` does so by itself.",
            )
        asyncio.run(install_all(project, settings, arguments.wait_seconds))


if __name__ == "__main__":
    main()

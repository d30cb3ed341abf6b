"""Checks Prefect: its deployments, access protection, work pool, growth and alerts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx

from postroad.doctor.check import Check
from postroad.fetch import BoundedClient
from postroad.local.prefect_access import PrefectAccess
from postroad.local.prefect_pool import ALERTS, POOL, open_fields
from postroad.printable import counted
from postroad.queue import Health

TIMEOUT_S: Final = 5.0
FOREIGN_ORIGIN: Final = "http://origin-that-doctor-made-up.invalid"
RUNS_A_DAY: Final = 724
MANY_RUNS: Final = 150 * RUNS_A_DAY
LARGE_GIB: Final = 4.0
GIBIBYTE: Final = 1 << 30
PRODUCTION: Final = "docs/how-to/run-in-production.md"


async def check_prefect(access: PrefectAccess) -> Sequence[Check]:
    """Check that Prefect answers, accepts our password and has our deployments."""
    url = access.api_url
    try:
        async with access.http(TIMEOUT_S) as client:
            (await client.get("/health")).raise_for_status()
            deployment = await client.get("/deployments/name/campaign/campaign")
    except httpx.HTTPError as error:
        remedy = "Start it with `postroad up`, or set PREFECT_API_URL."
        seen = f"{url}: {str(error) or type(error).__name__}"
        return [Check(part="prefect", health=Health.WARN, seen=seen, remedy=remedy)]
    if deployment.status_code == httpx.codes.UNAUTHORIZED:
        remedy = "Set PREFECT_API_AUTH_STRING to its password."
        return [Check(part="prefect", health=Health.FAIL, seen=f"{url}: it rejects the password", remedy=remedy)]
    if deployment.status_code != httpx.codes.OK:
        remedy = "`python -m deployments.bootstrap` deploys the flows."
        seen = f"{url}: no deployment campaign/campaign"
        return [Check(part="prefect", health=Health.WARN, seen=seen, remedy=remedy)]
    return [Check(part="prefect", health=Health.OK, seen=url)]


async def check_protection(access: PrefectAccess) -> Sequence[Check]:
    """Check that Prefect requires a password, rejects other origins, and requires a CSRF token for changes.

    Args:
        access: The Prefect server.

    Returns:
        The check. None if the server does not answer, which `check_prefect` reports.
    """
    part = "prefect access"
    try:
        async with BoundedClient(base_url=access.api_url, within_s=TIMEOUT_S, trust_env=False) as anonymous:
            without_password = await anonymous.get("/admin/version")
            allowed = (await anonymous.get("/health", headers={"Origin": FOREIGN_ORIGIN})).headers
        async with access.http(TIMEOUT_S) as client:
            token = await client.get("/csrf-token", params={"client": "doctor"})
    except httpx.HTTPError:
        return []
    if without_password.is_success:
        seen = "answers without a password: anyone who reaches it can run code on its workers"
        remedy = f"Set PREFECT_SERVER_API_AUTH_STRING on the server, PREFECT_API_AUTH_STRING elsewhere: {PRODUCTION}"
        return [Check(part=part, health=Health.FAIL, seen=seen, remedy=remedy)]
    if "access-control-allow-origin" in allowed:
        seen = "answers scripts of any web page"
        remedy = "Set PREFECT_SERVER_CORS_ALLOWED_ORIGINS on the server to the address of its UI."
        return [Check(part=part, health=Health.WARN, seen=seen, remedy=remedy)]
    if token.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
        seen = "accepts changes without a CSRF token"
        remedy = "Set PREFECT_SERVER_CSRF_PROTECTION_ENABLED=true on the server."
        return [Check(part=part, health=Health.WARN, seen=seen, remedy=remedy)]
    return [Check(part=part, health=Health.OK, seen="requires a password, and a token for changes")]


async def check_pool(access: PrefectAccess) -> Sequence[Check]:
    """Check that no run can choose what the workers of our pool execute. No check if the pool cannot be read."""
    part = f"work pool {POOL}"
    try:
        async with access.http(TIMEOUT_S) as client:
            answer = await client.get(f"/work_pools/{POOL}")
    except httpx.HTTPError:
        return []
    if not answer.is_success:
        return []
    opened = open_fields(answer.json()["base_job_template"])
    if opened:
        seen = f"a run may set {', '.join(opened)} of its job, which its worker executes"
        remedy = "`python -m deployments.bootstrap` replaces the job template."
        return [Check(part=part, health=Health.WARN, seen=seen, remedy=remedy)]
    return [Check(part=part, health=Health.OK, seen="a run sets nothing of its job")]


async def check_growth(access: PrefectAccess, database: Path) -> Sequence[Check]:
    """Check that Prefect deletes old runs, and that its database is not large.

    Args:
        access: The Prefect server.
        database: Its SQLite file, if it is on this host.

    Returns:
        The check. None if the server does not provide the facts.
    """
    part = "prefect database"
    try:
        async with access.http(TIMEOUT_S) as client:
            settings = (await client.get("/admin/settings")).raise_for_status().json()
            runs = int((await client.post("/flow_runs/count", json={})).raise_for_status().text)
        vacuum = settings["server"]["services"]["db_vacuum"]["enabled"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return []
    if vacuum is not True and "flow_runs" not in (vacuum or ()):
        seen = f"keeps every run forever; it has {runs:,}, and our schedules add {RUNS_A_DAY} a day"
        remedy = f"Set PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED=events,flow_runs on the server: {PRODUCTION}"
        return [Check(part=part, health=Health.WARN, seen=seen, remedy=remedy)]
    gibibytes = await asyncio.to_thread(_gibibytes, database)
    size = counted(runs, "run") + (f", {gibibytes:.1f} GiB" if gibibytes else "")
    if runs > MANY_RUNS or gibibytes > LARGE_GIB:
        remedy = "Shorten PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD on the server."
        return [Check(part=part, health=Health.WARN, seen=f"is large: {size}", remedy=remedy)]
    return [Check(part=part, health=Health.OK, seen=f"{size}; old ones are deleted")]


def _gibibytes(file: Path) -> float:
    return file.stat().st_size / GIBIBYTE if file.exists() else 0.0


async def check_alerts(access: PrefectAccess, block: str) -> Sequence[Check]:
    """Check that the automation of alerts is active. Whether its block works is not checked."""
    wanted = {"automations": {"name": {"any_": [ALERTS]}}}
    try:
        async with access.http(TIMEOUT_S) as client:
            answer = await client.post("/automations/filter", json=wanted)
            automations: list[dict[str, Any]] = answer.raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        return [Check(part="alerts", health=Health.WARN, seen=str(error) or type(error).__name__)]
    if not automations:
        remedy = f"Create the block {block} in the UI of Prefect, then run `python -m deployments.bootstrap`."
        return [Check(part="alerts", health=Health.FAIL, seen="their automation is not installed", remedy=remedy)]
    if not automations[0]["enabled"]:
        return [Check(part="alerts", health=Health.WARN, seen="their automation is disabled")]
    return [Check(part="alerts", health=Health.OK, seen=f"go to the block {block}")]

"""What answers over HTTP: the public endpoints, Prefect and its alerts."""

from __future__ import annotations

import os
from collections.abc import Sequence

import httpx

from postroad.doctor.check import Check
from postroad.local.prefect import ALERTS
from postroad.queue.topology import Health
from postroad.settings import Settings


async def check_web(settings: Settings) -> Sequence[Check]:
    """Check the URL that recipients are given, as seen from this machine."""
    url = f"{settings.public_url.rstrip('/')}/healthz"
    remedy = f"Is `postroad web` running, and does {settings.public_url} lead to it? Nobody can unsubscribe otherwise."
    try:
        async with httpx.AsyncClient(timeout=5) as client:
            response = await client.get(url)
        found = response.json() if response.headers.get("content-type") == "application/json" else {}
    except (httpx.HTTPError, ValueError) as error:
        seen = f"{url}: {str(error) or type(error).__name__}"
        return [Check(part="public_url", health=Health.WARN, seen=seen, remedy=remedy)]
    if not isinstance(found, dict) or found.get("service") != "postroad":
        seen = f"{url}: somebody else answers, with {response.status_code}"
        return [Check(part="public_url", health=Health.WARN, seen=seen, remedy=remedy)]
    if response.status_code != httpx.codes.OK:
        seen = f"{url}: it answers, and its database is away"
        remedy = "Is the database reachable from there?"
        return [Check(part="public_url", health=Health.FAIL, seen=seen, remedy=remedy)]
    return [Check(part="public_url", health=Health.OK, seen=url)]


def prefect_url() -> str:
    """Return the address of Prefect's API."""
    return os.environ.get("PREFECT_API_URL", "http://127.0.0.1:4200/api")


async def check_prefect() -> Sequence[Check]:
    """Check that Prefect answers and has our deployments."""
    url = prefect_url()
    try:
        async with httpx.AsyncClient(timeout=5) as client:
            response = await client.get(f"{url}/health")
            response.raise_for_status()
            found = await client.get(f"{url}/deployments/name/campaign/campaign")
    except httpx.HTTPError as error:
        remedy = "Start it with `postroad up`, or set PREFECT_API_URL."
        seen = f"{url}: {str(error) or type(error).__name__}"
        return [Check(part="prefect", health=Health.WARN, seen=seen, remedy=remedy)]
    if found.status_code != httpx.codes.OK:
        remedy = "`python -m deployments.bootstrap` deploys the flows."
        seen = f"{url}: no deployment campaign/campaign"
        return [Check(part="prefect", health=Health.WARN, seen=seen, remedy=remedy)]
    return [Check(part="prefect", health=Health.OK, seen=url)]


async def check_alerts(block: str) -> Sequence[Check]:
    """Check that pauses are notified. Whether the block reaches people only a notification shows."""
    wanted = {"automations": {"name": {"any_": [ALERTS]}}}
    try:
        async with httpx.AsyncClient(timeout=5) as client:
            answer = await client.post(f"{prefect_url()}/automations/filter", json=wanted)
            found = answer.raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        return [Check(part="alerts", health=Health.WARN, seen=str(error) or type(error).__name__)]
    if not found:
        remedy = f"Make the block {block} in the UI of Prefect, then run `python -m deployments.bootstrap`."
        return [Check(part="alerts", health=Health.FAIL, seen="their automation is not installed", remedy=remedy)]
    if not found[0]["enabled"]:
        return [Check(part="alerts", health=Health.WARN, seen="somebody turned their automation off")]
    return [Check(part="alerts", health=Health.OK, seen=f"go to the block {block}")]

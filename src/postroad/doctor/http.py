"""What answers over HTTP: the public endpoints."""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from postroad.doctor.check import Check
from postroad.queue import Health
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

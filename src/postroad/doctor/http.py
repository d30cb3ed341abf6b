"""Checks the public HTTP endpoints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import httpx

from postroad.doctor.check import Check
from postroad.fetch import BoundedClient, FetchError, fetch
from postroad.queue import Health
from postroad.settings import Settings

WITHIN_S: Final = 5.0
MAX_BYTES: Final = 65_536


async def check_web(settings: Settings) -> Sequence[Check]:
    """Check the public URL from this host."""
    url = f"{settings.public_url.rstrip('/')}/healthz"
    remedy = f"Is `postroad web` running, and does {settings.public_url} lead to it? Unsubscribe links need it."
    try:
        async with BoundedClient() as client:
            answer = await fetch(client, url, within_s=WITHIN_S, max_bytes=MAX_BYTES)
        body = json.loads(answer.body) if answer.media_type == "application/json" else {}
    except (FetchError, ValueError, RecursionError) as error:
        seen = f"{url}: {error}"
        return [Check(part="public_url", health=Health.WARN, seen=seen, remedy=remedy)]
    if not isinstance(body, dict) or body.get("service") != "postroad":
        seen = f"{url}: another service answers with {answer.status}"
        return [Check(part="public_url", health=Health.WARN, seen=seen, remedy=remedy)]
    if answer.status != httpx.codes.OK:
        seen = f"{url}: it answers, but its database is unreachable"
        remedy = "Is the database reachable from there?"
        return [Check(part="public_url", health=Health.FAIL, seen=seen, remedy=remedy)]
    return [Check(part="public_url", health=Health.OK, seen=url)]

"""The console serves the API next to its pages: by a key, and by nothing else."""

from __future__ import annotations

import httpx

from postroad.api.app import MOUNT_PATH
from postroad.app.api_keys import create_key
from postroad.settings import AccessRole
from postroad.store.engine import write
from tests.console.kit import Console


async def test_the_api_is_reached_by_a_key_alone(console: Console) -> None:
    with write(console.engine) as connection:
        made = create_key(connection, "shop", AccessRole.VIEW, expires_at=None, now=console.parts.now())
    path = f"{MOUNT_PATH}/campaigns"
    signed_in = await console.client(AccessRole.OWN)
    answer = await signed_in.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
    async with httpx.AsyncClient(base_url=console.url, headers={"Authorization": f"Bearer {made.secret}"}) as http:
        answer = await http.get(path)
        assert answer.status_code == 200
        assert answer.json() == {"items": [], "next": None}
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "ratelimit" in answer.headers
        assert (await http.get(path, headers={"Host": "other.example"})).status_code == 421
        assert (await http.get("/campaigns", follow_redirects=False)).status_code in (303, 404)
        assert (await http.get("/audit", follow_redirects=False)).status_code == 303, "a key opens no page"

"""A program lists, pauses and resumes gates, and the pause has its name."""

from __future__ import annotations

import sqlalchemy as sa

from postroad.settings import AccessRole
from postroad.store.engine import read
from tests.api.installation import Installation
from tests.api.server import ApiServer


def pauses(installation: Installation) -> list[tuple[str, str, bool, str | None]]:
    """Gate, who paused it, whether an end was set, and who resumed it."""
    statement = 'SELECT gate, "by", ends_at IS NOT NULL, resumed_by FROM operator_pause ORDER BY id'
    with read(installation.engine) as connection:
        return [(gate, by, bool(ends), resumed) for gate, by, ends, resumed in connection.execute(sa.text(statement))]


async def test_a_pause_of_a_gate_is_recorded_with_the_name_of_the_key(api: ApiServer) -> None:
    await api.installation.work()  # A worker makes the gates of the settings.
    async with api.client(AccessRole.OPERATE) as http:
        listed = {gate["name"]: gate for gate in (await http.get("/gates")).json()["items"]}
        name = next(iter(listed))
        assert listed[name]["paused"] is False
        paused = await http.post("/gates/pause", json={"gate": name, "for_ms": 3_600_000})
        assert paused.json() == {"gate": name, "paused": True}, paused.text
        [shown] = [gate for gate in (await http.get("/gates")).json()["items"] if gate["name"] == name]
        assert shown["paused"] is True
        assert shown["paused_until"] is not None
        assert pauses(api.installation) == [(name, "key key-operate", True, None)]
        assert (await http.post("/gates/resume", json={"gate": name})).json() == {"gate": name, "paused": False}
        assert pauses(api.installation) == [(name, "key key-operate", True, "key key-operate")]
        assert (await http.post("/gates/pause", json={"gate": "none"})).status_code in (404, 409)

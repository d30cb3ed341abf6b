"""A program pauses, resumes and closes campaigns with the scope that a person needs for it in the console."""

from __future__ import annotations

import sqlalchemy as sa

from postroad.settings import AccessRole
from postroad.store.engine import read
from tests.api.installation import NEWS, Installation
from tests.api.server import ApiServer


def pauses(installation: Installation) -> list[tuple[str, str, str | None]]:
    statement = 'SELECT gate, "by", resumed_by FROM operator_pause ORDER BY id'
    with read(installation.engine) as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement))]


async def test_the_scope_send_pauses_resumes_and_closes_and_the_pause_has_both_names(api: ApiServer) -> None:
    api.installation.launch(NEWS)
    async with api.client(AccessRole.SEND) as http:
        for act, state in (("pause", "paused"), ("resume", "running"), ("close", "running")):
            answer = await http.post(f"/campaigns/news/{act}")
            assert (answer.status_code, answer.json()) == (200, {"campaign": "news", "state": state})
        assert (await http.post("/campaigns/news/cancel")).status_code == 403
    assert pauses(api.installation) == [("campaign:news", "API key key-send", "API key key-send")]

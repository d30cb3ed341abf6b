"""A program cancels and reschedules single messages that wait."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from postroad.app.message_desk import MessageDesk
from postroad.app.message_order import MessageOrder
from postroad.delivery.job import SEND_QUEUE
from postroad.queue import Retry
from postroad.settings import AccessRole
from postroad.store.engine import read
from tests.api.installation import RECEIPT, Installation
from tests.api.server import ApiServer

ORDER = MessageOrder(
    key="order-1", campaign="receipt", to="ada@example.org", fields={"number": "1"}, transactional=True
)


async def requested(installation: Installation) -> int:
    installation.launch(RECEIPT)
    return (await MessageDesk(installation.context).accept(ORDER, by="shop")).touch_id


def acts(installation: Installation) -> list[tuple[str, str, int]]:
    with read(installation.engine) as connection:
        rows = connection.execute(sa.text("SELECT action, target, count FROM audit_record ORDER BY id")).all()
    return [tuple(row) for row in rows]


async def defer(installation: Installation, touch_id: int) -> None:
    """Let a worker's first attempt be one that is repeated in an hour."""
    queue = await installation.context.queue(SEND_QUEUE)
    [job] = (await queue.claim("w", want=1, lease_ms=10_000, nonce="1")).jobs
    assert job.id == str(touch_id)
    later_ms = installation.context.clock.now_ms() + 3_600_000
    await queue.settle("w", [(job, Retry(at_ms=later_ms, cause="greylisted", error="451 later"))])


async def test_a_message_that_waits_is_cancelled_once(api: ApiServer) -> None:
    touch = await requested(api.installation)
    async with api.client(AccessRole.OPERATE) as http:
        answer = await http.post(f"/messages/{touch}/cancel")
        assert answer.json() == {"id": touch, "cancelled": True}
        assert (await http.post(f"/messages/{touch}/cancel")).status_code == 409
        assert (await http.post("/messages/4711/cancel")).status_code == 404
        assert (await http.get(f"/messages/{touch}")).json()["state"] == "cancelled"
    assert await api.installation.jobs() == 0
    assert acts(api.installation) == [("message.cancel", str(touch), 1)]
    await api.installation.work()
    assert api.installation.mailbox.mails == []


async def test_a_scheduled_message_goes_at_another_time(api: ApiServer) -> None:
    installation = api.installation
    touch = await requested(installation)
    await defer(installation, touch)
    queue = await installation.context.queue(SEND_QUEUE)
    at = installation.context.clock.now() + timedelta(hours=2)
    async with api.client(AccessRole.OPERATE) as http:
        answer = await http.post(f"/messages/{touch}/reschedule", json={"at": at.isoformat()})
        assert answer.json() == {"id": touch, "rescheduled": True}, answer.text
        for wrong in (at - timedelta(hours=3), at + timedelta(days=400)):
            refused = await http.post(f"/messages/{touch}/reschedule", json={"at": wrong.isoformat()})
            assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "at")
        naive = {"at": datetime(2027, 1, 1).isoformat()}  # noqa: DTZ001  (without a zone it is refused)
        assert (await http.post(f"/messages/{touch}/reschedule", json=naive)).status_code == 422
    assert abs(((await queue.find(str(touch))).at_ms or 0) - at.timestamp() * 1000) < 1
    assert acts(installation) == [("message.reschedule", str(touch), 1)]


async def test_a_message_that_is_not_scheduled_keeps_its_time(api: ApiServer) -> None:
    touch = await requested(api.installation)
    at = (api.installation.context.clock.now() + timedelta(hours=2)).isoformat()
    async with api.client(AccessRole.OPERATE) as http:
        answer = await http.post(f"/messages/{touch}/reschedule", json={"at": at})
        assert answer.json() == {"id": touch, "rescheduled": False}
        assert (await http.post("/messages/4711/reschedule", json={"at": at})).status_code == 404
    await api.installation.work()
    assert len(api.installation.mailbox.mails) == 1

"""Small steps of campaigns in tests: suppress, settle, change a state, run at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from threading import Barrier, Thread
from typing import Any

import sqlalchemy as sa

from postroad.store.campaign import CampaignState
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from postroad.store.suppression import SuppressionReason, suppress_now
from postroad.store.types import UtcDateTime
from tests.campaign.project import CAMPAIGN, NOW, CampaignProject

AT_NINE = CAMPAIGN + "    at: 9:00\n"

SEQUENCE = (
    AT_NINE
    + "  - wait: 1d\n  - wait: 12h\n  - email: again\n    subject: Again\n    text: hello.txt\n"
    + "  - email: last\n    subject: Last\n    text: hello.txt\n    at: 18:30\n"
)

ROWS = ["a@example.com,Europe/Berlin,Ada", "b@example.com,,Bob", "c@example.com,Asia/Kolkata,Cem"]

ROWS += ["d@example.com,America/New_York,Dan", "e@example.com,Europe/Berlin,Eve"]


def suppress(project: CampaignProject, *addresses: str) -> None:
    suppress_now(project.engine, addresses, SuppressionReason.UNSUBSCRIBE, "test", NOW)


def settle(project: CampaignProject, step: str, address: str, state: TouchState, at: datetime) -> None:
    statement = sa.text(
        "UPDATE touch SET state = :state, settled_at = :at WHERE step_id = (SELECT id FROM step WHERE name = :step) "
        "AND recipient_id = (SELECT id FROM recipient WHERE address = :address)"
    ).bindparams(sa.bindparam("at", type_=UtcDateTime()))
    values = {"state": state.value, "at": at if state.ended else None, "step": step, "address": address}
    with write(project.engine) as connection:
        assert connection.execute(statement, values).rowcount == 1


def due(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def set_state(project: CampaignProject, state: CampaignState) -> None:
    with write(project.engine) as connection:
        connection.execute(sa.text("UPDATE campaign SET state = :state"), {"state": state.value})


def run_at_once(tasks: list[Callable[[], Any]]) -> list[Any]:
    barrier = Barrier(len(tasks))
    results: list[Any] = []

    def run(task: Callable[[], Any]) -> None:
        barrier.wait()
        results.append(task())

    threads = [Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results

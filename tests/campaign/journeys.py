"""Journeys for tests: a campaign file, what became of its emails, and where its people are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from postroad.campaign.plan import advance, launch
from postroad.store.campaign import CampaignState
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.types import UtcDateTime
from tests.campaign.project import NOW, CampaignProject

JOURNEY = """
name: spring
sender: news
audience:
  name: people
exit: "plan = 'paid'"
goal: "plan = 'paid'"
steps:
  - email: hello
    subject: Hello
    text: hello.txt
  - wait: 3d
  - if: "number(seats) >= 5"
    then:
      - email: big
        subject: Big
        text: hello.txt
    else:
      - if: "country = 'DE'"
        name: in-germany
        then:
          - email: german
            subject: Hallo
            text: hello.txt
  - wait_until: "date(trial_ends) - 2d"
  - email: last
    subject: Last
    text: hello.txt
"""
HEADER = "email,tz,plan,seats,country,trial_ends"
PEOPLE = (
    "big@example.com,,trial,7,DE,2026-05-20",
    "german@example.com,,trial,2,DE,2026-05-20",
    "other@example.com,,trial,2,FR,",
)


def launched(project: CampaignProject, people: Sequence[str] = PEOPLE, text: str = JOURNEY) -> None:
    project.fill(people, header=HEADER)
    project.apply(text)
    launch(project.engine, "spring", NOW)


def settle(
    project: CampaignProject, step: str, state: TouchState, at: datetime = NOW, *, of: str = "%", reply: str = ""
) -> int:
    """Have the emails of a step that wait end in a state. ``of``: pattern of the addresses."""
    statement = sa.text(
        "UPDATE touch SET state = :state, settled_at = :at, reply = NULLIF(:reply, '') "
        "WHERE state NOT IN ('accepted', 'bounced') AND step_id IN (SELECT id FROM step WHERE name = :step) "
        "AND recipient_id IN (SELECT id FROM recipient WHERE address LIKE :of)"
    ).bindparams(sa.bindparam("at", type_=UtcDateTime()))
    values = {"state": state.value, "at": at, "step": step, "of": of, "reply": reply}
    with write(project.engine) as connection:
        return connection.execute(statement, values).rowcount


def places(project: CampaignProject, campaign: str = "spring") -> dict[str, str]:
    """Return step, state and reason of each person, by the part of the address before the @."""
    statement = sa.text(
        "SELECT recipient.address, step.name, enrolment.state, enrolment.why FROM enrolment "
        "JOIN recipient ON recipient.id = enrolment.recipient_id JOIN step ON step.id = enrolment.step_id "
        "JOIN campaign ON campaign.id = enrolment.campaign_id WHERE campaign.name = :name ORDER BY recipient.address"
    )
    with read(project.engine) as connection:
        rows = connection.execute(statement, {"name": campaign}).all()
    return {row[0].partition("@")[0]: " ".join(part for part in row[1:] if part) for row in rows}


def set_field(project: CampaignProject, address: str, **fields: str) -> None:
    """Change merge fields of a recipient, as an import does."""
    header = ",".join(["email", *fields])
    project.fill([",".join([address, *fields.values()])], header=header)


def step_on(project: CampaignProject, at: datetime) -> int:
    """Make a pass, and a second one that must find nothing left to do. Returns the planned touches."""
    planned = advance(project.engine, "spring", at)
    before = places(project)
    assert advance(project.engine, "spring", at) == 0
    assert places(project) == before
    return planned


SHORT = """
name: spring
sender: news
audience:
  name: people
exit: "plan = 'paid'"
steps:
  - email: hello
    subject: Hello
    text: hello.txt
  - wait: 3d
  - email: again
    subject: Again
    text: hello.txt
"""


def set_state(project: CampaignProject, state: CampaignState) -> None:
    with write(project.engine) as connection:
        connection.execute(sa.text("UPDATE campaign SET state = :state"), {"state": state.value})

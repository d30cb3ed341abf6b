"""Operations of `bounded_ledger` on campaigns after their launch: entries, corrections, recalls, deletion."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import sqlalchemy as sa

from benchmarks.large_ledger import NOW, LargeLedger
from postroad.campaign.apply import apply
from postroad.campaign.audience import import_file
from postroad.campaign.correction import CorrectsDefinition, prepare_correction
from postroad.campaign.definition import read_campaign
from postroad.campaign.event_file import record_event
from postroad.campaign.plan import advance, launch
from postroad.operations import campaigns, recall
from postroad.settings import Settings
from postroad.store.campaign import CampaignState, find_campaign, steps_of
from postroad.store.engine import read, write
from postroad.store.enrolment import EnrolmentState
from postroad.store.recipient_event import NewEvent
from postroad.store.retention import Before, delete_old

HOUR = timedelta(hours=1)
ENTRANTS = 1_500
"""Recipients who enter a journey: two pages."""

SETTINGS = """
[routes.relay]
host = "smtp.example.com"
[senders.news]
address = "news@example.com"
name = "News"
postal_address = "1 High Street"
route = "relay"
"""
ENTERED = """
name: {name}
sender: news
audience: {{name: {audience}}}
entry: {entry}
steps:
  - {{email: one, subject: One, text: text.txt}}
"""


def _launch_entry(ledger: LargeLedger, name: str, audience: str, entry: str) -> None:
    """Launch a campaign that recipients enter later."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "postroad.toml").write_text(SETTINGS, encoding="utf-8")
        (folder / "text.txt").write_text("{{ unsubscribe_url }} {{ postal_address }}", encoding="utf-8")
        text = ENTERED.format(name=name, audience=audience, entry=entry)
        (folder / "campaign.yaml").write_text(text, encoding="utf-8")
        settings = Settings.load(folder / "postroad.toml")
        apply(ledger.engine, settings, read_campaign(folder / "campaign.yaml", settings), NOW)
    assert launch(ledger.engine, name, NOW).audience == 0


def enter_by_joining(ledger: LargeLedger) -> None:
    engine = ledger.engine
    with TemporaryDirectory() as folder:
        for name, number, at in (("before", 1, NOW - HOUR), ("after", ENTRANTS, NOW + HOUR)):
            path = Path(folder) / f"{name}.csv"
            path.write_text("email\n" + "".join(f"{name}{n}@example.com\n" for n in range(number)), encoding="utf-8")
            assert import_file(engine, "joining", path, at).imported == number
            if name == "before":
                _launch_entry(ledger, "joined", "joining", "joined")
    assert advance(engine, "joined", NOW + 2 * HOUR) == ENTRANTS


def enter_by_an_event(ledger: LargeLedger) -> None:
    """Enter the whole ledger's audience, of which one recipient does something."""
    _launch_entry(ledger, "signed-up", "everyone", "\"event('signed-up')\"")
    assert record_event(ledger.engine, NewEvent("r1@d1.example", "signed-up", NOW + HOUR))
    assert advance(ledger.engine, "signed-up", NOW + 2 * HOUR) == 1


def close_an_entry(ledger: LargeLedger) -> None:
    campaigns.close(ledger.engine, "joined", NOW + 3 * HOUR)


def correct_everyone(ledger: LargeLedger) -> None:
    """Prepare a correction to all recipients, change it to another set, and apply it again unchanged."""
    for unknown in (False, True, True):
        corrects = CorrectsDefinition(campaign="old", unknown=unknown)
        prepare_correction(ledger.engine, "sorry", corrects, NOW, where="sorry.yaml")
    with read(ledger.engine) as connection:
        members = sa.text(
            "SELECT count(*) FROM audience_member WHERE audience_id = (SELECT id FROM audience WHERE name = 'sorry')"
        )
        assert connection.execute(members).scalar_one() == ledger.size


def recall_everyone(ledger: LargeLedger) -> None:
    """Recall a step that waits for everyone, and the steps of a campaign that has finished."""
    campaign_id, [step_id] = ledger.campaign("recalled", CampaignState.RUNNING)
    ledger.touches(campaign_id, step_id, "planned", 1, ledger.size)
    with read(ledger.engine) as connection:
        campaign, [step] = find_campaign(connection, "recalled"), steps_of(connection, campaign_id)
        old = find_campaign(connection, "old")
    assert recall.recall_step(ledger.engine, campaign, step, NOW) == []  # They were planned, and on no queue.
    recall.recall_steps(ledger.engine, old, NOW)


def delete_everyones_enrolments(ledger: LargeLedger) -> None:
    """Delete the enrolments of a journey that is over, and whose touches are deleted."""
    long_ago = NOW - timedelta(days=1_000)
    campaign_id, [step_id] = ledger.campaign("forgotten", CampaignState.CANCELLED)
    ledger.enrolments(campaign_id, step_id, EnrolmentState.COMPLETED, 1, ledger.size)
    with write(ledger.engine) as connection:
        started = sa.text("UPDATE campaign SET launched_at = :at WHERE id = :id")
        connection.execute(started, {"at": f"{long_ago:%Y-%m-%d %H:%M:%S.%f}", "id": campaign_id})
    soon = long_ago + HOUR
    assert delete_old(ledger.engine, Before(soon, soon, soon), NOW).touches == 0
    with read(ledger.engine) as connection:
        left = sa.text("SELECT count(*) FROM enrolment WHERE campaign_id = :id")
        assert connection.execute(left, {"id": campaign_id}).scalar_one() == 0


CAMPAIGN_OPERATIONS = (
    enter_by_joining,
    enter_by_an_event,
    close_an_entry,
    correct_everyone,
    recall_everyone,
    delete_everyones_enrolments,
)

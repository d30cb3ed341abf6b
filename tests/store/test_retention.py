"""Old rows are deleted in short transactions. No recipient is mailed twice, and every unsubscribe is kept."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from postroad.campaign.plan import advance, launch
from postroad.campaign.status import finish_if_done, summary
from postroad.settings import UnsubscribeScope
from postroad.store import retention
from postroad.store.bounce import BounceMail, is_processed, save_mail
from postroad.store.campaign import CampaignState
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState, due_touches, record_unsubscribe
from postroad.store.recipient_event import NewEvent, events_of, record_events
from postroad.store.retention import Before, delete_old, delete_old_mails, delete_old_recipient_events
from postroad.store.suppression import suppressions
from postroad.store.touches.sending import Claim, admit, requeue_dead
from postroad.store.types import UtcDateTime
from postroad.store.unsubscribe import unsubscribe_touch
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch

LATER = NOW + timedelta(days=1_000)
BEFORE = LATER - timedelta(days=365)
ALL_OLD = Before(BEFORE, BEFORE, BEFORE)


def finished(engine: sa.Engine, *states: TouchState, name: str = "old", at: datetime = NOW) -> tuple[int, list[int]]:
    """Add a campaign that finished at a time. Returns its id and its touches' ids, one for each state."""
    with write(engine) as connection:
        campaign, [step] = add_campaign(connection, name=name, state=CampaignState.FINISHED, launched_at=at)
        touches = [add_touch(connection, campaign, step, state, settled_at=at) for state in states]
        over = sa.text("UPDATE campaign SET finished_at = :at WHERE id = :id")
        over = over.bindparams(sa.bindparam("at", type_=UtcDateTime()))
        connection.execute(over, {"at": at, "id": campaign})
    return campaign, touches


def add_event(engine: sa.Engine, touch: int, uid: str, at: datetime, cause: str | None = None) -> None:
    statement = sa.text(
        "INSERT INTO delivery_event (uid, touch_id, state, at, attempt, cause) "
        "VALUES (:uid, :touch, 'accepted', :at, 1, :cause)"
    ).bindparams(sa.bindparam("at", type_=UtcDateTime()))
    with write(engine) as connection:
        connection.execute(statement, {"uid": uid, "touch": touch, "at": at, "cause": cause})


def ids(engine: sa.Engine, table: str = "touch") -> list[int]:
    with read(engine) as connection:
        return list(connection.execute(sa.text(f"SELECT id FROM {table} ORDER BY id")).scalars())


def test_touches_of_a_campaign_that_is_long_over_go_and_its_counts_stay(engine: sa.Engine) -> None:
    _, touches = finished(engine, TouchState.ACCEPTED, TouchState.BOUNCED, TouchState.UNKNOWN)
    _, recent = finished(engine, TouchState.ACCEPTED, name="recent", at=LATER)
    add_event(engine, touches[0], "1", NOW)
    before = summary(engine, "old")
    assert delete_old(engine, ALL_OLD, LATER).touches == 2
    assert ids(engine) == [touches[2], *recent]
    assert summary(engine, "old") == before
    assert delete_old(engine, ALL_OLD, LATER) == (0, 0, 0)


@pytest.mark.parametrize("state", [CampaignState.DRAFT, CampaignState.RUNNING, CampaignState.PAUSED])
def test_touches_of_a_campaign_that_is_not_over_stay(engine: sa.Engine, state: CampaignState) -> None:
    with write(engine) as connection:
        campaign, [step] = add_campaign(connection, state=state, launched_at=NOW)
        touch = add_touch(connection, campaign, step, TouchState.ACCEPTED, settled_at=NOW)
    assert delete_old(engine, ALL_OLD, LATER).touches == 0
    assert ids(engine) == [touch]


def test_old_events_go_and_unsubscribes_stay_for_good(engine: sa.Engine) -> None:
    _, [touch] = finished(engine, TouchState.ACCEPTED)
    add_event(engine, touch, "old", NOW)
    add_event(engine, touch, "new", LATER)
    with write(engine) as connection:
        record_unsubscribe(connection, touch, "one click", NOW)
    assert delete_old(engine, ALL_OLD, LATER) == (0, 1, 0)
    with read(engine) as connection:
        kept = connection.execute(sa.text("SELECT uid FROM delivery_event ORDER BY uid")).scalars().all()
    assert kept == [f"{touch}:unsubscribe", "new"]
    assert ids(engine) == [touch]


@pytest.mark.parametrize("scope", UnsubscribeScope)
def test_the_unsubscribe_link_of_a_deleted_touch_works(engine: sa.Engine, scope: UnsubscribeScope) -> None:
    _, [touch] = finished(engine, TouchState.ACCEPTED)
    finished(engine, TouchState.ACCEPTED, name="recent", at=LATER)
    assert delete_old(engine, ALL_OLD, LATER).touches == 1
    with write(engine) as connection:
        done = unsubscribe_touch(connection, touch, "one click", LATER, scope)
    assert done is not None
    assert done.suppressed
    assert [listed.reason for listed in suppressions(engine)] == ["unsubscribe"]


def test_no_touch_gets_the_id_of_a_deleted_one(engine: sa.Engine) -> None:
    _, touches = finished(engine, TouchState.ACCEPTED, TouchState.BOUNCED)
    assert delete_old(engine, ALL_OLD, LATER).touches == 1, "the newest stays"
    assert ids(engine) == touches[1:]
    _, [recent] = finished(engine, TouchState.ACCEPTED, name="recent", at=LATER)
    assert recent > touches[1]
    assert ids(engine, "past_touch") == touches[:1]


def test_nothing_mails_a_second_time_what_was_deleted(engine: sa.Engine) -> None:
    campaign, touches = finished(engine, TouchState.ACCEPTED, TouchState.DEAD)
    _, recent = finished(engine, TouchState.ACCEPTED, name="recent", at=LATER)
    with write(engine) as connection:
        connection.execute(
            sa.text(
                "INSERT INTO audience_member (audience_id, recipient_id, import_id) "
                "SELECT campaign.audience_id, touch.recipient_id, audience_import.id FROM touch "
                "JOIN campaign ON campaign.id = touch.campaign_id "
                "JOIN audience_import ON audience_import.audience_id = campaign.audience_id"
            )
        )
    delete_old(engine, ALL_OLD, LATER)
    assert ids(engine) == recent
    assert launch(engine, "old", LATER).already
    assert advance(engine, "old", LATER) == 0
    with write(engine) as connection:
        assert requeue_dead(connection, touches) == {}
        assert due_touches(connection, campaign, after_id=0, until=LATER, limit=10) == []
        assert admit(connection, [Claim(touch, 1) for touch in touches]) == set()
    assert ids(engine) == recent


def test_a_replay_that_opens_a_campaign_again_keeps_its_touches(engine: sa.Engine) -> None:
    _, [first, second] = finished(engine, TouchState.DEAD, TouchState.ACCEPTED)
    with write(engine) as connection:
        assert requeue_dead(connection, [first])
    assert delete_old(engine, ALL_OLD, LATER).touches == 0
    assert ids(engine) == [first, second]
    assert not finish_if_done(engine, "old", LATER)


def test_what_is_left_of_a_run_goes_in_the_next(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP", 2)
    _, [touch] = finished(engine, TouchState.UNKNOWN)
    for number in range(7):
        add_event(engine, touch, str(number), NOW + timedelta(minutes=number))
    assert [delete_old(engine, ALL_OLD, LATER, steps=2).events for _ in range(3)] == [4, 3, 0]


def add_mail(engine: sa.Engine, digest: str, at: datetime, processed_at: datetime | None = NOW) -> None:
    times = (sa.bindparam("at", type_=UtcDateTime()), sa.bindparam("processed", type_=UtcDateTime()))
    add = (
        "INSERT INTO bounce_mail (digest, received_at, processed_at, source) VALUES (:digest, :at, :processed, 'smtp')"
    )
    with write(engine) as connection:
        connection.execute(sa.text(add).bindparams(*times), {"digest": digest, "at": at, "processed": processed_at})


def digests(engine: sa.Engine, table: str = "bounce_mail") -> list[str]:
    with read(engine) as connection:
        return list(connection.execute(sa.text(f"SELECT digest FROM {table} ORDER BY digest")).scalars())


def test_old_mails_go_in_steps_and_a_copy_of_one_is_known(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP", 2)
    for number in range(5):
        add_mail(engine, f"old-{number}", NOW + timedelta(seconds=number))
    add_mail(engine, "recent", LATER)
    add_mail(engine, "waiting", NOW, None)
    assert [delete_old_mails(engine, BEFORE, steps=2) for _ in range(3)] == [4, 1, 0]
    assert digests(engine) == ["recent", "waiting"]
    with write(engine) as connection:
        assert not save_mail(connection, BounceMail(digest="old-0", received_at=LATER, source="file", raw=b"x"))
        assert is_processed(connection, "old-0")
        assert not is_processed(connection, "waiting")
        assert save_mail(connection, BounceMail(digest="new", received_at=LATER, source="file", raw=b"x"))
    assert digests(engine) == ["new", "recent", "waiting"]


def test_a_mail_stays_for_as_long_as_its_effects(engine: sa.Engine) -> None:
    add_mail(engine, "d", NOW)
    with write(engine) as connection:
        campaign, [step] = add_campaign(connection)
        touch = add_touch(connection, campaign, step, TouchState.BOUNCED, recipient_id=add_recipient(connection))
        add = (
            "INSERT INTO bounce_effect (digest, effect, touch_id, detail, at) VALUES ('d', 'replied', :touch, '', :at)"
        )
        at = sa.bindparam("at", LATER, type_=UtcDateTime())
        connection.execute(sa.text(add).bindparams(at), {"touch": touch})
    assert delete_old_mails(engine, BEFORE) == 0
    assert delete_old(engine, Before(BEFORE, BEFORE, LATER + timedelta(days=1)), LATER).bounce_effects == 1
    assert delete_old_mails(engine, BEFORE) == 1


def test_effects_of_bounces_go_by_their_age(engine: sa.Engine) -> None:
    with write(engine) as connection:
        campaign, [step] = add_campaign(connection)
        touch = add_touch(connection, campaign, step, TouchState.BOUNCED, recipient_id=add_recipient(connection))
        connection.execute(
            sa.text("INSERT INTO bounce_mail (digest, received_at, source) VALUES ('d', :at, 'smtp')").bindparams(
                sa.bindparam("at", NOW, type_=UtcDateTime())
            )
        )
        add = sa.text(
            "INSERT INTO bounce_effect (digest, effect, touch_id, detail, at) VALUES ('d', :effect, :touch, '', :at)"
        ).bindparams(sa.bindparam("at", type_=UtcDateTime()))
        for effect, at in (("touch_bounced", NOW), ("address_suppressed", LATER)):
            connection.execute(add, {"effect": effect, "touch": touch, "at": at})
    assert delete_old(engine, ALL_OLD, LATER) == (0, 0, 1)
    assert len(ids(engine, "bounce_effect")) == 1


def test_old_events_of_recipients_go_in_steps(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP", 2)
    with write(engine) as connection:
        add_recipient(connection, "ada@example.com")
        times = [NOW, LATER, NOW, NOW, BEFORE, NOW]
        events = [NewEvent("ada@example.com", "paid", at, key=str(key)) for key, at in enumerate(times)]
        assert record_events(connection, events).recorded == 6
    assert [delete_old_recipient_events(engine, BEFORE, steps=1) for _ in range(3)] == [2, 2, 0]
    with read(engine) as connection:
        assert [event.key for event in events_of(connection, "ada@example.com", 10)] == ["1", "4"]

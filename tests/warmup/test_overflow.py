"""Overflow: touches that exceed a sender's caps move to others by rule; no touch is ever sent by two senders."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import col

from postroad.delivery.admit import Admission
from postroad.delivery.job import decode_job
from postroad.delivery.result import decode_result
from postroad.delivery.submit import SubmitOptions, submit_due
from postroad.queue import Cancel, Queue
from postroad.settings import Settings
from postroad.store.campaign import Campaign, CampaignState, Sender
from postroad.store.engine import read, write
from postroad.store.ledger import Overflow, Touch, TouchState
from postroad.store.overflow import moved
from postroad.warmup import overflow as overflowing
from postroad.warmup.caps import Cap
from postroad.warmup.day import set_cap
from postroad.warmup.identity import identities_by_sender, of_sender
from postroad.warmup.overflow import OverflowMove, allocate, capacity_until, overflow
from postroad.warmup.overflow import OverflowSender as Candidate
from tests.kit.clock import FakeClock
from tests.store.rows import add_campaign, add_recipient, add_touch
from tests.warmup.conftest import SETTINGS, Load, Mail

MORNING = datetime(2026, 5, 4, 6, tzinfo=UTC)  # 08:00 in Berlin, when the working hours begin
HOUR = timedelta(hours=1)
OTHERS = """
[senders.second]
address = "second@other.example"
postal_address = "1 High Street, Springfield"
route = "relay"
[senders.second.warmup]
zone = "Europe/Berlin"
[senders.warm]
address = "warm@warm.example"
postal_address = "1 High Street, Springfield"
route = "relay"
"""
_numbers = count(1)

PROVIDERS = st.sampled_from(["google", "other"])
CAPACITIES = st.dictionaries(PROVIDERS, st.integers(0, 10))


# -- decided


@given(st.lists(PROVIDERS, max_size=40), CAPACITIES, CAPACITIES, st.booleans())
def test_allocation_never_exceeds_the_capacity_of_a_sender(
    providers: list[str], own: dict[str, int], second: dict[str, int], warm: bool
) -> None:
    touches = list(enumerate(providers))
    others = [
        Candidate(id=2, name="second", capacities=second),
        *([Candidate(id=3, name="w", capacities=None)] if warm else []),
    ]
    moves = allocate(touches, Candidate(id=1, name="own", capacities=own), others)
    moved = {move.touch_id: move.to for move in moves}
    assert len(moved) == len(moves)
    assert all(move.why for move in moves)
    for provider in set(providers):
        of = [touch for touch, each in touches if each == provider]
        by = Counter(moved.get(touch, 1) for touch in of)
        assert by[2] <= second.get(provider, 0)
        if by[2] or by[3]:
            assert by[1] >= own.get(provider, 0)  # its own sender comes first
        if warm:
            assert by[1] <= own.get(provider, 0)


def test_a_warm_sender_moves_no_touches() -> None:
    own, other = Candidate(id=1, name="own", capacities=None), Candidate(id=2, name="other", capacities=None)
    assert allocate([(1, "google")], own, [other]) == []


@pytest.mark.parametrize(
    ("cap", "used", "hours", "carried"),
    [
        (Cap(cap=48), 0, 12, 48),
        (Cap(cap=48), 20, 12, 28),
        (Cap(cap=48), 0, 6, 24),
        (Cap(cap=48), 48, 24, 0),  # the next day begins at that time
        (Cap(cap=48), 48, 30, 24),
        (Cap(cap=48), 0, 48, 96),
        (Cap(cap=48, paused_until=MORNING + 24 * HOUR), 0, 24, 0),
        (Cap(cap=48, paused_until=MORNING + 24 * HOUR), 0, 36, 48),
    ],
)
def test_capacity_is_what_the_working_hours_allow(load: Load, cap: Cap, used: int, hours: int, carried: int) -> None:
    identity = of_sender(load(SETTINGS), "news")[0]
    assert capacity_until(identity.warmup, identity, cap, used, MORNING, MORNING + hours * HOUR) == carried


@pytest.mark.parametrize("cap", [5, 48, 997])
def test_capacity_of_a_whole_day_is_the_cap_whenever_the_day_begins(load: Load, cap: int) -> None:
    identity = of_sender(load(SETTINGS), "news")[0]
    begins = [MORNING + step * timedelta(minutes=13, microseconds=7) for step in range(500)]
    day = timedelta(days=1)
    found = {capacity_until(identity.warmup, identity, Cap(cap=cap), 0, since, since + day) for since in begins}
    assert found == {cap}


# -- done


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(int(MORNING.timestamp() * 1000))


@pytest.fixture
def settings(load: Load) -> Settings:
    return load(SETTINGS + OTHERS)


def a_campaign(engine: sa.Engine, settings: Settings, others: tuple[str, ...], touches: int = 60) -> None:
    """A campaign of news to recipients at Google, whose overflow may go to others within 12 hours."""
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection, name="spring")
        of_campaign = sa.select(col(Campaign.sender_id)).where(col(Campaign.id) == campaign)
        sender_id = connection.execute(of_campaign).scalar_one()
        connection.execute(sa.update(Sender).where(col(Sender.id) == sender_id).values(name="news"))
        ids = []
        for name in others:
            row = {
                "name": name,
                "address": settings.sender(name).address,
                "display_name": name,
                "postal_address": "1 High Street, Springfield",
                "route": "relay",
            }
            ids.append(connection.execute(sa.insert(Sender).values(**row).returning(col(Sender.id))).scalar_one())
        values: dict[str, Any] = {"overflow": {"senders": ids, "within_ms": 12 * 3_600_000}}
        connection.execute(sa.update(Campaign).where(col(Campaign.id) == campaign).values(**values))
        for _ in range(touches):
            recipient = add_recipient(connection, f"r{next(_numbers)}@gmail.com")
            add_touch(connection, campaign, step, TouchState.PLANNED, due_at=MORNING, recipient_id=recipient)


def spill(engine: sa.Engine, settings: Settings, now: datetime = MORNING) -> int:
    return overflow(engine, settings, "spring", now=now, horizon_ms=0)


async def submit(engine: sa.Engine, settings: Settings, queue: Queue) -> None:
    await submit_due(
        engine,
        queue,
        "spring",
        SubmitOptions(expire_ms=10 * 86_400_000, warming=identities_by_sender(settings)),
        now=MORNING,
        cursor=0,
        limit=1_000,
    )


def by_sender(engine: sa.Engine) -> dict[str, int]:
    statement = sa.text(
        "SELECT sender.name, count(*) FROM touch JOIN campaign ON campaign.id = touch.campaign_id "
        "JOIN sender ON sender.id = COALESCE(touch.sender_id, campaign.sender_id) GROUP BY sender.name"
    )
    with read(engine) as connection:
        return {name: n for name, n in connection.execute(statement)}  # noqa: C416  (rows, not pairs)


def test_excess_touches_move_to_others_in_order_with_a_reason(
    engine: sa.Engine, settings: Settings, clock: FakeClock
) -> None:
    a_campaign(engine, settings, ("second", "warm"), touches=120)
    for identity in of_sender(settings, "second"):
        set_cap(engine, identity, "google", 30, by="ada", why="known there", now=clock.now())
    assert spill(engine, settings) == 70
    assert by_sender(engine) == {"news": 50, "second": 30, "warm": 40}
    with read(engine) as connection:
        rows = connection.execute(sa.select(col(Overflow.from_sender_id), col(Overflow.why))).all()
        own = connection.execute(sa.select(col(Campaign.sender_id))).scalar_one()
    assert len(rows) == 70
    assert {tuple(row) for row in rows} == {(own, "the caps of news at google allow 50 of these in time")}
    assert spill(engine, settings) == 0  # idempotent


def test_moves_are_listed_with_senders_reasons_and_outcomes(
    engine: sa.Engine, settings: Settings, clock: FakeClock
) -> None:
    a_campaign(engine, settings, ("second", "warm"), touches=120)
    for identity in of_sender(settings, "second"):
        set_cap(engine, identity, "google", 30, by="ada", why="known there", now=clock.now())
    spill(engine, settings)
    with write(engine) as connection:
        campaign = connection.execute(sa.select(col(Campaign.id))).scalar_one() or 0
        touches = connection.execute(sa.select(col(Overflow.touch_id)).order_by(col(Overflow.id)).limit(8)).scalars()
        connection.execute(sa.update(Touch).where(col(Touch.id).in_(touches.all())).values(state=TouchState.ACCEPTED))
        another, _ = add_campaign(connection, name="another")
    with read(engine) as connection:
        moves = moved(connection, campaign)
        assert moved(connection, another) == []
    assert [(each.from_sender, each.sender, each.states) for each in moves] == [
        ("news", "second", {TouchState.ACCEPTED: 8, TouchState.PLANNED: 22}),
        ("news", "warm", {TouchState.PLANNED: 40}),
    ]
    assert {each.why for each in moves} == {"the caps of news at google allow 50 of these in time"}
    assert {(each.first_at, each.last_at) for each in moves} == {(MORNING, MORNING)}


def test_concurrent_moves_of_another_campaign_are_counted_first(
    engine: sa.Engine, settings: Settings, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the decision and the first batch another campaign uses a part of the same capacity."""
    a_campaign(engine, settings, ("second",), touches=120)
    for identity in of_sender(settings, "second"):
        set_cap(engine, identity, "google", 30, by="ada", why="known there", now=clock.now())
    decide = overflowing.allocate

    def late(*args: Any) -> list[OverflowMove]:
        monkeypatch.setattr(overflowing, "allocate", decide)
        with write(engine) as connection:
            second = connection.execute(sa.select(col(Sender.id)).where(col(Sender.name) == "second")).scalar_one()
            campaign, (step,) = add_campaign(connection, name="other")
            recipients = [add_recipient(connection, f"r{next(_numbers)}@gmail.com") for _ in range(20)]
            planned = [
                add_touch(connection, campaign, step, TouchState.PLANNED, recipient_id=recipient)
                for recipient in recipients
            ]
            connection.execute(sa.update(Touch).where(col(Touch.id).in_(planned)).values(sender_id=second))
            moved = {
                "touch_id": planned[0],
                "from_sender_id": second,
                "sender_id": second,
                "at": MORNING,
                "why": "test",
            }
            connection.execute(sa.insert(Overflow).values(**moved))
        return decide(*args)

    monkeypatch.setattr(overflowing, "allocate", late)
    assert spill(engine, settings) == 10
    assert by_sender(engine) == {"news": 110, "second": 30}


def test_mail_in_progress_uses_capacity(engine: sa.Engine, settings: Settings, mail: Mail) -> None:
    mail.accepted(MORNING, 20)
    a_campaign(engine, settings, ("warm",))
    assert spill(engine, settings) == 60 - (50 - 20)


def test_touches_stay_when_all_senders_are_full(engine: sa.Engine, settings: Settings, clock: FakeClock) -> None:
    a_campaign(engine, settings, ("second",), touches=200)
    assert spill(engine, settings) == 50
    assert by_sender(engine) == {"news": 150, "second": 50}


@pytest.mark.parametrize("state", [CampaignState.PAUSED, CampaignState.CANCELLED])
def test_only_a_running_campaign_moves_anything(engine: sa.Engine, settings: Settings, state: CampaignState) -> None:
    a_campaign(engine, settings, ("warm",))
    with write(engine) as connection:
        connection.execute(sa.update(Campaign).values(state=state))
    assert spill(engine, settings) == 0


async def test_each_job_is_in_the_lane_of_its_sender(engine: sa.Engine, settings: Settings, queue: Queue) -> None:
    a_campaign(engine, settings, ("warm",))
    assert spill(engine, settings) == 10
    await submit(engine, settings, queue)
    lanes: Counter[str] = Counter()
    for job in (await queue.claim("w", want=100, lease_ms=60_000, nonce=f"{next(_numbers)}")).jobs:
        lanes["warm" if decode_job(job.payload).sender_id else "news"] += 1
    assert lanes == {"news": 50, "warm": 10}
    sent = {state.gate.name: state.in_flight for state in await queue.gates()}
    assert sent["sender:news@example.com"] == 50
    assert sent["sender:warm@warm.example"] == 10
    assert sent["warmup:google:news@example.com"] == 50


async def test_admission_rejects_a_job_of_the_previous_sender(
    engine: sa.Engine, settings: Settings, queue: Queue, clock: FakeClock
) -> None:
    a_campaign(engine, settings, ("warm",), touches=51)
    # As after a submission without a commit: the queue has the jobs, and the ledger has the touches planned.
    await submit(engine, settings, queue)
    with write(engine) as connection:
        connection.execute(sa.text("UPDATE touch SET state = 'planned'"))
    assert spill(engine, settings) == 1
    jobs = (await queue.claim("w", want=100, lease_ms=60_000, nonce=f"{next(_numbers)}")).jobs
    verdicts = await Admission(engine, clock)(jobs)
    [(_, verdict)] = verdicts.items()
    assert isinstance(verdict, Cancel)
    assert verdict.note is not None
    assert decode_result(verdict.note).state is TouchState.QUEUED

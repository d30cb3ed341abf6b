"""Cohorts are evaluated by the ledger, paused before sending, and resumed by an operator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from postroad.delivery.admit import COHORT_DELAY_MS, Admission
from postroad.delivery.job import SendJob, encode_job, job_id
from postroad.delivery.recorder import Recorder
from postroad.errors import StateError
from postroad.queue import Job, JobState, Queue
from postroad.queue.redis.client import connect
from postroad.senders.cohort_breaker import CohortBreaker, cohort_statuses, evaluate, lift
from postroad.senders.sprt import CohortFinding
from postroad.settings import BounceSettings, Settings
from postroad.store.cohort import Cohort, CohortEvidence, open_pauses, pauses
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.recipient import AudienceImport, AudienceMember
from tests.delivery.queue_of_touches import lane, noted, state_of
from tests.kit.clock import FakeClock
from tests.store.rows import NOW, add_audience, add_campaign, add_recipient, add_touch

SETTINGS = Settings()


class Ledger:
    """A running campaign of one step to an audience that came from several lists."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        with write(engine) as connection:
            self.audience = add_audience(connection)
            self.campaign, (self.step,) = add_campaign(connection, name="spring", audience_id=self.audience)
        self.imports: dict[str, int] = {}
        self.events = 0

    def touches(
        self, count: int, state: TouchState, *, path: str = "fair.csv", domain: str = "gmail.com", source: str = ""
    ) -> list[int]:
        with write(self.engine) as connection:
            found = []
            for _ in range(count):
                number = connection.execute(sa.text("SELECT count(*) FROM recipient")).scalar_one()
                fields = {"source": source} if source else {}
                recipient = add_recipient(connection, f"r{number}@{domain}", **fields)
                member = {"audience_id": self.audience, "recipient_id": recipient}
                connection.execute(sa.insert(AudienceMember).values(**member, import_id=self._import(connection, path)))
                found.append(add_touch(connection, self.campaign, self.step, state, recipient_id=recipient))
        return found

    def _import(self, connection: sa.Connection, path: str) -> int:
        if path not in self.imports:
            values = {"audience_id": self.audience, "path": path, "sha256": path.ljust(64, "0"), "rows_total": 0}
            values |= {"cursor": 0, "line": 1, "rows_done": 0, "imported": 0, "duplicates": 0, "refused": 0}
            made = connection.execute(sa.insert(AudienceImport).values(**values, started_at=NOW))
            assert made.inserted_primary_key is not None
            self.imports[path] = made.inserted_primary_key[0]
        return self.imports[path]

    def bounce(
        self, touches: list[int], *, cause: str = "no such mailbox", blame: str = "recipient", at: datetime = NOW
    ) -> None:
        with write(self.engine) as connection:
            for touch in touches:
                self.events += 1
                connection.execute(
                    sa.text("UPDATE touch SET state = 'bounced', settled_at = :at WHERE id = :id"),
                    {"id": touch, "at": at.replace(tzinfo=None) if connection.dialect.name == "sqlite" else at},
                )
                statement = sa.text(
                    "INSERT INTO delivery_event (uid, touch_id, state, at, attempt, cause, blame) "
                    "VALUES (:uid, :touch, 'bounced', :at, 1, :cause, :blame)"
                )
                values = {"uid": f"e{self.events}", "touch": touch, "cause": cause, "blame": blame}
                at_sql = at.replace(tzinfo=None) if connection.dialect.name == "sqlite" else at
                connection.execute(statement, {**values, "at": at_sql})

    def complain(self, touches: list[int], matched_by: str = "return-path") -> None:
        with write(self.engine) as connection:
            for touch in touches:
                at = NOW.replace(tzinfo=None) if connection.dialect.name == "sqlite" else NOW
                statement = sa.text(
                    "INSERT INTO bounce_mail "
                    "(digest, received_at, source, processed_at, verdict, matched_by, touch_id) "
                    "VALUES (:digest, :at, 'smtp', :at, 'complaint', :matched_by, :touch)"
                )
                connection.execute(
                    statement, {"digest": f"c{touch}", "at": at, "matched_by": matched_by, "touch": touch}
                )

    def paused(self) -> dict[Cohort, CohortEvidence]:
        with read(self.engine) as connection:
            return open_pauses(connection)

    def evaluate(self, now: datetime = NOW) -> list[Cohort]:
        return [pause.cohort for pause in evaluate(self.engine, SETTINGS, [self.step], now)]


@pytest.fixture
def ledger(engine: sa.Engine) -> Ledger:
    return Ledger(engine)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(int(NOW.timestamp() * 1000))


@pytest.fixture
async def queue(redis_url: str, clock: FakeClock) -> AsyncIterator[Queue]:
    async with Queue.open(redis_url, "cohorts", clock=clock) as queue:
        yield queue
        assert await queue.audit() == []
    client = connect(redis_url)
    for key in await client.keys("pr:{cohorts}:*"):
        await client.delete(key)
    await client.aclose()


def test_only_the_guilty_cohort_is_paused_and_once(ledger: Ledger) -> None:
    ledger.touches(100, TouchState.ACCEPTED)
    ledger.touches(40, TouchState.ACCEPTED, path="bought.csv")
    bad = ledger.touches(10, TouchState.ACCEPTED, path="bought.csv")
    ledger.touches(30, TouchState.ACCEPTED, path="bought.csv", domain="yahoo.com")
    assert ledger.evaluate() == []
    ledger.bounce(bad)
    guilty = Cohort(ledger.step, "bought.csv", "google")
    assert ledger.evaluate() == [guilty]
    assert ledger.evaluate() == []
    assert ledger.paused() == {guilty: CohortEvidence.HARD_BOUNCES}
    with read(ledger.engine) as connection:
        [(campaign, step, pause)] = pauses(connection)
    assert (campaign, step) == ("spring", "step-1")
    assert pause.reason.startswith("10 hard bounces of 50 messages (20.00%)")


def test_a_source_column_overrides_the_file(ledger: Ledger) -> None:
    ledger.touches(40, TouchState.ACCEPTED, source="web form")
    ledger.bounce(ledger.touches(10, TouchState.ACCEPTED, source="trade fair"))
    assert ledger.evaluate() == [Cohort(ledger.step, "trade fair", "google")]


@pytest.mark.parametrize(
    ("cause", "blame"), [("mailbox full", "recipient"), ("bounced: blocked", "sender"), ("no such mail host", "host")]
)
def test_other_failures_than_hard_bounces_pause_no_cohort(ledger: Ledger, cause: str, blame: str) -> None:
    ledger.bounce(ledger.touches(30, TouchState.ACCEPTED), cause=cause, blame=blame)
    assert ledger.evaluate() == []
    with read(ledger.engine) as connection:
        [status] = cohort_statuses(connection, ledger.step, SETTINGS)
    assert (status.tried, status.hard) == (0 if blame == "sender" else 30, 0)


def test_a_deferred_touch_counts_as_tried(ledger: Ledger) -> None:
    ledger.touches(60, TouchState.DEFERRED)
    ledger.touches(500, TouchState.PLANNED)
    ledger.touches(500, TouchState.QUEUED)
    ledger.bounce(ledger.touches(5, TouchState.ACCEPTED))
    with read(ledger.engine) as connection:
        [status] = cohort_statuses(connection, ledger.step, SETTINGS)
    assert (status.tried, status.hard) == (65, 5)
    # Five bounces are no proof while greylisted touches have no outcome.
    assert status.findings[CohortEvidence.HARD_BOUNCES] is CohortFinding.OPEN


def test_complaints_pause_a_cohort_and_forged_ones_do_not(ledger: Ledger) -> None:
    touches = ledger.touches(200, TouchState.ACCEPTED)
    ledger.complain(touches[:20], matched_by="recipient-and-time")
    assert ledger.evaluate() == []
    ledger.complain(touches[20:30])
    assert ledger.evaluate() == [Cohort(ledger.step, "fair.csv", "google")]
    assert set(ledger.paused().values()) == {CohortEvidence.COMPLAINTS}


def test_the_first_run_evaluates_all_and_later_runs_new_evidence(ledger: Ledger, clock: FakeClock) -> None:
    ledger.touches(40, TouchState.ACCEPTED)
    bad = ledger.touches(10, TouchState.ACCEPTED)
    breaker = CohortBreaker(engine=ledger.engine, settings=SETTINGS, clock=clock)
    assert breaker.run_once() == []
    ledger.bounce(bad)
    assert len(breaker.run_once()) == 1
    assert breaker.run_once() == []
    with write(ledger.engine) as connection:
        connection.execute(sa.text("DELETE FROM cohort_pause"))
    assert len(CohortBreaker(engine=ledger.engine, settings=SETTINGS, clock=clock).run_once()) == 1


def test_with_pause_off_no_cohort_is_paused(ledger: Ledger) -> None:
    ledger.bounce(ledger.touches(20, TouchState.ACCEPTED))
    shown = SETTINGS.model_copy(update={"cohort_breaker": SETTINGS.cohort_breaker.model_copy(update={"pause": False})})
    assert evaluate(ledger.engine, shown, [ledger.step], NOW) == []
    assert ledger.paused() == {}


async def test_a_pause_applies_to_queued_jobs_until_lifted(ledger: Ledger, queue: Queue, clock: FakeClock) -> None:
    engine = ledger.engine
    ledger.touches(40, TouchState.ACCEPTED, path="bought.csv")
    ledger.bounce(ledger.touches(10, TouchState.ACCEPTED, path="bought.csv"))
    [good] = ledger.touches(1, TouchState.QUEUED)
    [held] = ledger.touches(1, TouchState.QUEUED, path="bought.csv")
    jobs = []
    for touch in (good, held):
        message = SendJob(touch_id=touch, step_id=ledger.step, address="a@gmail.com", fields={})
        jobs.append(Job(id=job_id(touch), payload=encode_job(message)))
    await queue.enqueue(lane(), jobs)
    ledger.evaluate()

    async def claim(nonce: str) -> dict[str, str]:
        """Claim, admit, and settle rejected jobs. Return claimed ids with the cause of rejection."""
        batch = (await queue.claim("w", want=100, lease_ms=10**9, nonce=nonce)).jobs
        verdicts = await Admission(engine, clock)(batch)
        await queue.settle("w", [(job, verdicts[job.id]) for job in batch if job.id in verdicts])
        return {job.id: getattr(verdicts.get(job.id), "cause", "") for job in batch}

    assert await claim("1") == {job_id(good): "", job_id(held): "cohort paused: hard bounces"}
    await Recorder(engine=engine, queue=queue, clock=clock, name="r", bounce=BounceSettings()).drain()
    assert state_of(engine, held) is TouchState.QUEUED
    assert noted(engine, held) == []  # It was no attempt.
    assert await claim("2") == {}
    clock.advance(COHORT_DELAY_MS)
    assert await claim("3") == {job_id(held): "cohort paused: hard bounces"}
    with read(engine) as connection:
        [(_, _, pause)] = pauses(connection)
    assert pause.id is not None
    lifted = await lift(
        engine, queue, pause.id, settings=SETTINGS, by="ada", why="the list was cleaned", now=clock.now()
    )
    assert (lifted.lifted_by, lifted.lifted_why) == ("ada", "the list was cleaned")
    assert await queue.states([job_id(held)]) == [JobState.QUEUED]
    assert await claim("4") == {job_id(held): ""}
    with pytest.raises(StateError, match="no pause"):
        await lift(engine, queue, pause.id, settings=SETTINGS, by="ada", why="again", now=clock.now())


async def test_after_lifting_only_later_mail_counts(ledger: Ledger, queue: Queue) -> None:
    late = ledger.touches(10, TouchState.ACCEPTED)
    ledger.bounce(ledger.touches(10, TouchState.ACCEPTED))
    with write(ledger.engine) as connection:  # All of them were accepted before, as their events say.
        for touch in late:
            statement = (
                "INSERT INTO delivery_event (uid, touch_id, state, at, attempt) VALUES (:uid, :id, 'accepted', :at, 1)"
            )
            at = NOW.replace(tzinfo=None) if connection.dialect.name == "sqlite" else NOW
            connection.execute(sa.text(statement), {"uid": f"a{touch}", "id": touch, "at": at})
    assert len(ledger.evaluate()) == 1
    with read(ledger.engine) as connection:
        [(_, _, pause)] = pauses(connection)
    then = NOW + timedelta(hours=1)
    await lift(ledger.engine, queue, pause.id or 0, settings=SETTINGS, by="ada", why="cleaned", now=then)
    assert ledger.evaluate(then) == []
    ledger.bounce(late, at=then + timedelta(hours=1))  # A late report about mail from before.
    assert ledger.evaluate(then) == []
    ledger.bounce(ledger.touches(10, TouchState.ACCEPTED), at=then + timedelta(hours=1))
    assert len(ledger.evaluate(then)) == 1

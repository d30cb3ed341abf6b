"""What writes to the ledger while mail flows, tried on ledgers of several sizes: no transaction may grow with them.

`OPERATIONS` is the registry. `benchmarks.write_sites` finds what no operation reaches.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sqlalchemy as sa
from sqlmodel import col

from benchmarks.bounded_campaigns import CAMPAIGN_OPERATIONS
from benchmarks.large_ledger import NOW, LargeLedger, large_ledger
from benchmarks.transactions import Transaction, watched
from postroad.bounce.handler import _forget
from postroad.campaign.apply import apply
from postroad.campaign.audience import import_file
from postroad.campaign.definition import read_campaign
from postroad.campaign.event_file import import_events
from postroad.campaign.plan import advance, launch
from postroad.campaign.status import finish_if_done, summary
from postroad.campaign.variant_report import variant_report
from postroad.clock import SystemClock
from postroad.delivery import submit
from postroad.delivery.admit import Admission
from postroad.delivery.job import SendJob, encode_job
from postroad.delivery.recorder import Recorder
from postroad.delivery.result import DeliveryResult, encode_result
from postroad.errors import UnavailableError
from postroad.event_types import DEFAULT_EVENTS
from postroad.events_out.attempt_log import MAX_ROWS, AttemptLog, AttemptResult
from postroad.events_out.feeder import WebhookFeeder
from postroad.events_out.handler import WebhookHandler
from postroad.operations import campaigns, dead_letters, rebuild
from postroad.operations.unsubscribe import unsubscribe
from postroad.queue import ClaimedJob, Event, EventKind, Queue
from postroad.senders.rollout import widen, widen_if_good
from postroad.settings import BounceSettings, Settings, UnsubscribeScope
from postroad.store.campaign import Campaign, CampaignState, set_state
from postroad.store.ending import cancel_waiting, complete_cancellations, end_suppressed
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState, due_touches
from postroad.store.retention import Before, delete_old, delete_old_mails
from postroad.store.suppression import SuppressionReason, suppress_now
from postroad.store.touch_page import touch_pages
from postroad.store.traffic import fold_traffic
from postroad.store.webhook_log import LoggedAttempt, delete_old_log
from postroad.store.webhook_out import WebhookDeliveryState, add_endpoint
from postroad.warmup.day import close_day
from postroad.warmup.identity import identities

BATCH = 1_000
SLOW_S = 0.25
"""A site with a longer transaction is described on standard error."""
LATER = NOW + timedelta(days=2_000)

Operation = Callable[[LargeLedger], None]
OPERATIONS: list[Operation] = []


def _operation(function: Operation) -> Operation:
    OPERATIONS.append(function)
    return function


def _settings(folder: Path) -> Settings:
    """Return settings with a sender that warms up."""
    config = folder / "postroad.toml"
    config.write_text(
        '[routes.relay]\nhost = "smtp.example.com"\n[senders.news]\naddress = "news@example.com"\nname = "News"\n'
        'postal_address = "1 High Street"\nroute = "relay"\n[senders.news.warmup]\n',
        encoding="utf-8",
    )
    return Settings.load(config)


class _NoQueue:
    """Where a queue is named and none is asked."""


def _sending(ledger: LargeLedger, name: str, state: str, number: int = 2 * BATCH) -> tuple[int, list[int]]:
    """Add a running campaign with so many touches in a state. Returns its id, and its touches' ids."""
    campaign, [step] = ledger.campaign(name, CampaignState.RUNNING)
    ledger.touches(campaign, step, state, 1, number)
    return campaign, [touch.id for page in touch_pages(ledger.engine, campaign) for touch in page]


@_operation
def launch_everyone(ledger: LargeLedger) -> None:
    ledger.campaign("launched", CampaignState.DRAFT, steps=2)
    assert launch(ledger.engine, "launched", NOW).audience == ledger.size


@_operation
def follow_up_everyone(ledger: LargeLedger) -> None:
    campaign, steps = ledger.campaign("followed", CampaignState.RUNNING, steps=2)
    ledger.touches(campaign, steps[0], "accepted", 1, ledger.size, follow_up=True)
    assert advance(ledger.engine, "followed", NOW) == ledger.size


@_operation
def advance_with_nothing_due(ledger: LargeLedger) -> None:
    assert advance(ledger.engine, "followed", NOW) == 0
    assert not finish_if_done(ledger.engine, "followed", NOW)


JOURNEY = """
name: journey
sender: news
audience: {name: everyone}
exit: "event('left')"
goal: "event('paid')"
steps:
  - {email: one, subject: One, text: text.txt}
  - if: "country = 'DE'"
    then:
      - {wait: 1d}
    else:
      - {wait: 2d}
  - {email: two, subject: Two, text: text.txt}
"""


@_operation
def move_everyone_through_a_journey(ledger: LargeLedger) -> None:
    engine = ledger.engine
    with TemporaryDirectory() as folder:
        settings = _settings(Path(folder))
        (Path(folder) / "campaign.yaml").write_text(JOURNEY, encoding="utf-8")
        (Path(folder) / "text.txt").write_text("{{ unsubscribe_url }} {{ postal_address }}", encoding="utf-8")
        campaign_id = apply(engine, settings, read_campaign(Path(folder) / "campaign.yaml", settings), NOW).id
    assert campaign_id is not None
    assert launch(engine, "journey", NOW).audience == ledger.size
    with write(engine) as connection:
        # Some fail, and their enrolments end; the others wait.
        state = "CASE WHEN recipient_id % 4 = 0 THEN 'dead' ELSE 'accepted' END"
        settle = f"UPDATE touch SET state = {state}, settled_at = due_at WHERE campaign_id = :id"
        connection.execute(sa.text(settle), {"id": campaign_id})
    assert advance(engine, "journey", NOW) == 0
    assert advance(engine, "journey", NOW + timedelta(days=3)) == ledger.size - ledger.size // 4
    with write(engine) as connection:
        set_state(connection, campaign_id, CampaignState.CANCELLED)
    cancel_waiting(engine, campaign_id, NOW)


VARIANTS = """
name: variants
sender: news
audience: {name: everyone}
steps:
  - email: one
    subject: One
    text: text.txt
    variants: [{name: a, subject: A, share: 50}, {name: b, share: 50}]
    winner: {by: replied, decide: {after: 2d, at_most: 20%}}
"""


@_operation
def decide_variants_for_everyone(ledger: LargeLedger) -> None:
    engine = ledger.engine
    with TemporaryDirectory() as folder:
        settings = _settings(Path(folder))
        (Path(folder) / "campaign.yaml").write_text(VARIANTS, encoding="utf-8")
        (Path(folder) / "text.txt").write_text("{{ unsubscribe_url }} {{ postal_address }}", encoding="utf-8")
        campaign_id = apply(engine, settings, read_campaign(Path(folder) / "campaign.yaml", settings), NOW).id
    assert campaign_id is not None
    assert launch(engine, "variants", NOW).audience == ledger.size
    assert summary(engine, "variants").counts[TouchState.AWAITING] == ledger.size - ledger.size // 5
    advance(engine, "variants", NOW)
    advance(engine, "variants", NOW + timedelta(days=2))
    assert summary(engine, "variants").counts[TouchState.AWAITING] == 0
    variant_report(engine, "variants")
    with write(engine) as connection:
        set_state(connection, campaign_id, CampaignState.CANCELLED)
    cancel_waiting(engine, campaign_id, NOW)


@_operation
def roll_out_everyone(ledger: LargeLedger) -> None:
    campaign, _ = ledger.campaign("rolled", CampaignState.DRAFT)
    with write(ledger.engine) as connection:
        values = {"rollout": {"shares": [5_000, 10_000], "after_ms": None}}
        connection.execute(sa.update(Campaign).where(col(Campaign.id) == campaign).values(**values))
    with TemporaryDirectory() as folder:
        settings = _settings(Path(folder))
    assert launch(ledger.engine, "rolled", NOW).audience == ledger.size
    assert not widen_if_good(ledger.engine, settings, "rolled", NOW)  # No outcome is known.
    assert widen(ledger.engine, "rolled", 2, by="test", now=NOW)
    assert advance(ledger.engine, "rolled", NOW) == 0
    assert summary(ledger.engine, "rolled").counts[TouchState.PLANNED] == ledger.size


@_operation
def show_status(ledger: LargeLedger) -> None:
    assert summary(ledger.engine, "followed").audience == ledger.size


@_operation
def suppress_and_end(ledger: LargeLedger) -> None:
    campaign, _ = _sending(ledger, "suppressed", "queued")
    end_suppressed(ledger.engine, campaign, NOW)  # All that were there before: once, after an upgrade.
    addresses = [f"r{n}@d{n % 97}.example" for n in range(1, BATCH + 1)]
    assert suppress_now(ledger.engine, addresses, SuppressionReason.MANUAL, "test", NOW) == BATCH
    assert end_suppressed(ledger.engine, campaign, NOW) == BATCH
    with write(ledger.engine) as connection:
        connection.execute(sa.text("DELETE FROM suppression WHERE address LIKE 'r%'"))


@_operation
def cancel_everyone(ledger: LargeLedger) -> None:
    assert campaigns.cancel_in_ledger(ledger.engine, "launched", NOW) == 0  # They were planned, and on no queue.
    assert complete_cancellations(ledger.engine, NOW) == 0


@_operation
def finish_a_campaign(ledger: LargeLedger) -> None:
    _sending(ledger, "done", "accepted")
    assert finish_if_done(ledger.engine, "done", NOW)


@_operation
def hand_over_a_batch(ledger: LargeLedger) -> None:
    campaign, _ = _sending(ledger, "submitted", "planned")
    plan = submit.load_submit_plan(ledger.engine, "submitted", submit.SubmitOptions(expire_ms=1))
    due = submit._due(ledger.engine, plan, LATER, 0, BATCH)
    submit._mark_queued(ledger.engine, [row.id for row in due])
    with read(ledger.engine) as connection:
        assert len(due_touches(connection, campaign, after_id=0, until=LATER, limit=2 * BATCH)) == BATCH


@_operation
def admit_and_record(ledger: LargeLedger) -> None:
    _, touches = _sending(ledger, "sent", "queued", BATCH)
    payload = encode_job(SendJob(touch_id=0, step_id=0, address="", fields={}))
    jobs = [ClaimedJob(str(id_), 1_000 + id_, 1, 1, payload, 0, "lane") for id_ in touches]
    assert Admission(ledger.engine, SystemClock())._admit(jobs) == {}
    note = encode_result(DeliveryResult(state=TouchState.ACCEPTED, reply_code=250, reply="2.0.0 ok"))
    events = [
        Event(
            entry=f"{job.id}-1",
            id=job.id,
            token=job.token,
            kind=EventKind.DONE,
            at_ms=int(NOW.timestamp() * 1000),
            attempt=1,
            claim=1,
            next_ms=0,
            cause="",
            error="",
            note=note,
        )
        for job in jobs
    ]
    queue: Any = _NoQueue()
    recorder = Recorder(engine=ledger.engine, queue=queue, clock=SystemClock(), name="r", bounce=BounceSettings())
    recorder._write(events)


@_operation
def unsubscribe_one(ledger: LargeLedger) -> None:
    _, [touch] = _sending(ledger, "unsubscribed", "accepted", 1)
    everywhere = UnsubscribeScope.EVERYWHERE
    done = asyncio.run(unsubscribe(ledger.engine, _no_queue, touch, "one click", NOW, everywhere))
    assert done is not None


async def _no_queue() -> Queue:
    raise UnavailableError("only the database is measured")  # Unsubscribing does not need the queue.


@_operation
def mark_unknown_and_requeue(ledger: LargeLedger) -> None:
    _, touches = _sending(ledger, "lost", "sending", BATCH)
    assert rebuild._mark_unknown(ledger.engine, touches, NOW) == BATCH
    _, dead = _sending(ledger, "dead", "dead", dead_letters.CHUNK)
    assert len(dead_letters._requeue(ledger.engine, dead)) == dead_letters.CHUNK


@_operation
def import_a_file(ledger: LargeLedger) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "people.csv"
        path.write_text("email\n" + "".join(f"new{n}@example.com\n" for n in range(3 * BATCH)), encoding="utf-8")
        assert import_file(ledger.engine, "others", path, NOW).imported == 3 * BATCH


@_operation
def import_events_of_recipients(ledger: LargeLedger) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "events.csv"
        rows = "".join(f"new{n}@example.com,paid,{n}\n" for n in range(3 * BATCH))
        path.write_text(f"address,event,key\n{rows}", encoding="utf-8")
        assert import_events(ledger.engine, path, NOW).recorded == 3 * BATCH


@_operation
def end_a_warmup_day(ledger: LargeLedger) -> None:
    with TemporaryDirectory() as folder:
        [identity, *_] = identities(_settings(Path(folder)))
    assert close_day(ledger.engine, identity, NOW)


OPERATIONS.extend(CAMPAIGN_OPERATIONS)


@_operation
def feed_webhooks(ledger: LargeLedger) -> None:
    queue: Any = _NoQueue()
    wanted = dict.fromkeys(("late", "shop"), frozenset(DEFAULT_EVENTS))
    feeder = WebhookFeeder(engine=ledger.engine, queue=queue, clock=SystemClock(), subscriptions=wanted, keep_ms=1)
    with write(ledger.engine) as connection:
        add_endpoint(connection, "shop", 0, NOW)
    handler = WebhookHandler(engine=ledger.engine, queue=queue, clock=SystemClock(), endpoints={}, attempts=3)
    for _ in range(2):
        [(name, state, horizon)] = feeder._find_pending()
        rows, deliveries = feeder._step(name, state, horizon)
        assert rows == len(deliveries) == BATCH
        attempts = [
            AttemptResult(
                each.id,
                LoggedAttempt(name, each.message_id, "message.accepted", 1, NOW, 5, "delivered", 204, None),
                WebhookDeliveryState.DELIVERED,
                None,
            )
            for each in deliveries[:MAX_ROWS]
        ]
        AttemptLog(ledger.engine, SystemClock())._write(attempts)
        assert len(handler._load({str(each.id): each.id for each in deliveries})) == BATCH
        feeder._settle([each.id for each in deliveries[MAX_ROWS:]], WebhookDeliveryState.DEAD)
    assert delete_old_log(ledger.engine, LATER, steps=1)


@_operation
def fold_old_traffic(ledger: LargeLedger) -> None:
    assert fold_traffic(ledger.engine, LATER, NOW - timedelta(days=9)) > 0


@_operation
def delete_old_rows(ledger: LargeLedger) -> None:
    """Delete the content of old mails, and rows older than their retention. The last operation, because it deletes."""
    with write(ledger.engine) as connection:
        mail = sa.text(
            "INSERT INTO bounce_mail (digest, received_at, source, raw, processed_at) "
            "VALUES (:digest, :at, 'smtp', 'x', :at)"
        )
        connection.execute(mail, [{"digest": str(n), "at": f"{NOW:%Y-%m-%d %H:%M:%S.%f}"} for n in range(BATCH)])
        token = sa.text("INSERT INTO webhook_token (token, seen_at) VALUES ('t', :at)")
        connection.execute(token, {"at": f"{NOW:%Y-%m-%d %H:%M:%S.%f}"})
    _forget(ledger.engine, LATER, LATER)
    deleted = delete_old(ledger.engine, Before(LATER, LATER, LATER), LATER, steps=3)
    assert deleted.touches
    assert deleted.events
    assert delete_old_mails(ledger.engine, LATER, steps=3)


def measure(engine: sa.Engine, size: int) -> dict[str, Transaction]:
    """Carry out every operation on a ledger of a size, in an empty database. Returns the worst transaction by site.

    Each operation meets current statistics, as a database has that analyses what has changed. A line on standard error
    says what it took: a million take long.
    """
    ledger = large_ledger(engine, size)
    with watched(engine) as watch:
        for operation in OPERATIONS:
            _analyse(engine)
            begun_s, seen = time.perf_counter(), len(watch.transactions)
            operation(ledger)
            longest_s = max((each.seconds for each in watch.transactions[seen:] if each.writes), default=0.0)
            print(
                f"{size:,} touches, {operation.__name__}: {time.perf_counter() - begun_s:.1f} s, "
                f"longest transaction {longest_s * 1000:.0f} ms",
                file=sys.stderr,
            )
    for line in watch.describe_slow(SLOW_S):
        print(f"{size:,} touches, {line}", file=sys.stderr)
    mine = ("benchmarks.", "elsewhere")
    return {site: worst for site, worst in watch.worst().items() if not site.startswith(mine)}


def _analyse(engine: sa.Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE"))


GROWS_BY_READING = {
    "postroad.warmup.day:close_day": "counts the events of the days that are judged, in a transaction that only reads",
}


def growing(small: dict[str, Transaction], large: dict[str, Transaction], slack: int) -> list[str]:
    """Return the sites whose worst transaction does more on the larger ledger, but for what may grow.

    ``slack``: instructions or rows by which two runs may differ, as where a planner chooses to sort the last few pages.
    """
    return [
        f"{site}: {small[site].effort} -> {worst.effort}"
        for site, worst in large.items()
        if site in small and site not in GROWS_BY_READING and worst.effort > 1.3 * small[site].effort + slack
    ]

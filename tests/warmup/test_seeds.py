"""Seed mail: some messages a day, within the working hours and the caps, by a separate queue."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from postroad.app.context import AppContext, open_context
from postroad.app.submit import submit
from postroad.app.worker import WORK, Work
from postroad.campaign.audience import import_file
from postroad.campaign.audience_file import audience_file
from postroad.campaign.status import summary
from postroad.delivery.job import SEND_QUEUE, WARMUP_QUEUE
from postroad.delivery.recorder import Recorder
from postroad.errors import ConfigError
from postroad.gates.name import GateName
from postroad.queue import Queue
from postroad.queue.lease import Lease, MarkBatcher
from postroad.sandbox import Sandbox, SandboxConfig
from postroad.settings import BounceSettings, Settings
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.suppression import SuppressionReason, suppress
from postroad.warmup.day import close_day, count_mail, day_of, set_cap
from postroad.warmup.identity import of_sender
from postroad.warmup.seeds import Seed, choose_seeds, due_times, make_campaign, plan_seeds, stale_campaigns
from tests.conftest import RedisServer
from tests.kit.clock import FakeClock, SleepingClock
from tests.warmup.conftest import SETTINGS, Load

MORNING = datetime(2026, 5, 4, 4, tzinfo=UTC)  # 06:00 in Berlin: two hours before the working hours
OPENS, CLOSES = datetime(2026, 5, 4, 6, tzinfo=UTC), datetime(2026, 5, 4, 18, tzinfo=UTC)
WITH_SEEDS = SETTINGS + '[senders.news.warmup.seeds]\ncampaign = "seeds.yaml"\npermission = "owned"\nper_day = 12\n'
CAMPAIGN = """
name: seeds
sender: news
audience: {name: seed-list, file: seeds.csv}
steps:
  - {email: one, subject: First, text: seed.txt}
  - {email: two, subject: Second, text: seed.txt}
"""
SEED_LIST = [f"s{n}@gmail.com" for n in range(10)] + [f"s{n}@own.example" for n in range(3)]


# -- decided


SEEDS = st.lists(st.sampled_from(["google", "other"]), max_size=40).map(
    lambda providers: [Seed(n, provider) for n, provider in enumerate(providers)]
)
CAPACITIES = st.dictionaries(st.sampled_from(["google", "other"]), st.integers(0, 20))


@given(SEEDS, CAPACITIES, st.integers(1, 30), st.dates(date(2026, 1, 1), date(2027, 1, 1)))
def test_seeds_are_chosen_once_and_within_capacity(
    seeds: list[Seed], capacities: dict[str, int], per_day: int, day: date
) -> None:
    chosen = choose_seeds(seeds, capacities, per_day=per_day, day=day)
    counts = Counter(seed.provider for seed in chosen)
    assert len(set(chosen)) == len(chosen) <= per_day
    assert all(count <= capacities.get(provider, 0) for provider, count in counts.items())


def test_days_take_turns_through_the_list() -> None:
    seeds = [Seed(n, "google") for n in range(10)]
    days = [choose_seeds(seeds, {"google": 50}, per_day=4, day=date(2026, 5, 4) + timedelta(days=n)) for n in range(5)]
    assert Counter(seed.recipient_id for day in days for seed in day) == dict.fromkeys(range(10), 2)


@given(SEEDS, st.text(max_size=10))
def test_due_times_are_spread_over_the_working_hours(seeds: list[Seed], words: str) -> None:
    due = due_times(seeds, OPENS, CLOSES, seeded_by=words)
    assert due == due_times(seeds, OPENS, CLOSES, seeded_by=words)
    assert sorted(seed for seed, _ in due) == sorted(seeds)
    for provider in {seed.provider for seed in seeds}:
        instants = [at for seed, at in due if seed.provider == provider]
        part = (CLOSES - OPENS) / len(instants)
        for number, at in enumerate(sorted(instants)):
            assert OPENS + part * number <= at < OPENS + part * (number + 1)


def test_another_day_has_other_due_times() -> None:
    seeds = [Seed(n, "google") for n in range(5)]
    one, other = (due_times(seeds, OPENS, CLOSES, seeded_by=f"seeds-2026-05-0{n}") for n in (4, 5))
    assert {at for _, at in one}.isdisjoint(at for _, at in other)


# -- planned


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(int(MORNING.timestamp() * 1000))


@pytest.fixture
def settings(load: Load, tmp_path: Path) -> Settings:
    write_campaign(tmp_path)
    return load(WITH_SEEDS)


def write_campaign(folder: Path, campaign: str = CAMPAIGN) -> None:
    (folder / "seeds.yaml").write_text(campaign)
    (folder / "seeds.csv").write_text("email\n" + "\n".join(SEED_LIST) + "\n")
    (folder / "seed.txt").write_text("Is it there?\n{{ unsubscribe_url }}\n{{ postal_address }}\n")


def make(engine: sa.Engine, settings: Settings, now: datetime) -> str:
    name = make_campaign(engine, settings, "news", now)
    assert name is not None
    source = audience_file(engine, name)
    if source is not None and source.to_import:
        import_file(engine, source.audience, source.path, now)
    return name


def due_in(engine: sa.Engine, name: str) -> list[datetime]:
    statement = sa.text(
        "SELECT due_at FROM touch JOIN campaign ON campaign.id = touch.campaign_id WHERE name = :name ORDER BY due_at"
    )
    with read(engine) as connection:
        return [
            at if isinstance(at, datetime) else datetime.fromisoformat(at).replace(tzinfo=UTC)
            for at in connection.execute(statement, {"name": name}).scalars()
        ]


def test_a_day_is_planned_once_within_the_hours(engine: sa.Engine, settings: Settings, clock: FakeClock) -> None:
    name = make(engine, settings, clock.now())
    plan = plan_seeds(engine, settings, "news", name, clock.now())
    assert (plan.campaign, plan.members, plan.planned, plan.already) == ("seeds-2026-05-04", 13, 12, False)
    due = due_in(engine, name)
    assert due[0] >= OPENS
    assert due[-1] < CLOSES
    clock.advance(6 * 3_600_000)
    assert make(engine, settings, clock.now()) == name
    again = plan_seeds(engine, settings, "news", name, clock.now())
    assert (again.planned, again.already) == (12, True)
    assert due_in(engine, name) == due


def test_a_late_run_uses_only_the_remaining_hours(engine: sa.Engine, settings: Settings, clock: FakeClock) -> None:
    clock.advance(8 * 3_600_000)
    late = clock.now()
    plan_seeds(engine, settings, "news", make(engine, settings, late), late)
    assert min(due_in(engine, "seeds-2026-05-04")) >= late
    clock.advance(32 * 3_600_000)
    over = plan_seeds(engine, settings, "news", make(engine, settings, clock.now()), clock.now())
    assert (over.campaign, over.planned) == ("seeds-2026-05-05", 0)
    assert stale_campaigns(engine, settings, "news", over.campaign) == ["seeds-2026-05-04"]


def test_seed_mail_uses_half_a_cap_and_skips_suppressed_members(
    engine: sa.Engine, settings: Settings, clock: FakeClock
) -> None:
    with write(engine) as connection:
        suppress(connection, SEED_LIST[-2:], SuppressionReason.MANUAL, "asked", clock.now())
    set_cap(engine, of_sender(settings, "news")[1], "google", 7, by="ada", why="careful", now=clock.now())
    plan = plan_seeds(engine, settings, "news", make(engine, settings, clock.now()), clock.now())
    assert (plan.members, plan.planned) == (11, 3 + 1)


def test_emails_alternate_from_day_to_day(engine: sa.Engine, settings: Settings, clock: FakeClock) -> None:
    for _ in range(3):
        make(engine, settings, clock.now())
        clock.advance(24 * 3_600_000)
    with read(engine) as connection:
        found = connection.execute(sa.text("SELECT settings FROM step ORDER BY id")).scalars()
        subjects = ["First" if "First" in str(each) else "Second" for each in found]
    assert subjects[0] == subjects[2] != subjects[1]


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (CAMPAIGN.replace("sender: news", "sender: other"), "of sender 'other'"),
        (CAMPAIGN.replace("  - {email: two", "  - {wait: 1d}\n  - {email: two"), "a step that waits"),
        (CAMPAIGN + "window: {from: 09:00, to: 17:00}\n", "a window or times"),
    ],
)
def test_an_unsuitable_campaign_file_is_rejected(
    engine: sa.Engine, settings: Settings, clock: FakeClock, tmp_path: Path, broken: str, says: str
) -> None:
    write_campaign(tmp_path, broken)
    with pytest.raises(ConfigError, match=says):
        make_campaign(engine, settings, "news", clock.now())


def test_permission_is_required(load: Load) -> None:
    with pytest.raises(ConfigError, match="permission"):
        load(WITH_SEEDS.replace('permission = "owned"\n', ""))


# -- delivered


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox(SandboxConfig(directory=str(tmp_path / "sandbox")), rng=Random(7)) as opened:
        yield opened


@pytest.fixture
async def still() -> SleepingClock:
    return SleepingClock(int(MORNING.timestamp() * 1000))


@pytest.fixture
async def context(
    load: Load, tmp_path: Path, database_url: str, own_redis: RedisServer, still: SleepingClock, sandbox: Sandbox
) -> AsyncIterator[AppContext]:
    write_campaign(tmp_path)
    text = WITH_SEEDS.replace('host = "127.0.0.1"', f'host = "127.0.0.1"\nport = {sandbox.port}\ntls = "none"')
    settings = load(f'redis_url = "{own_redis.url}"\ndatabase_url = "{database_url}"\n{text}')
    async with open_context(settings, still) as opened:
        yield opened


async def test_seed_mail_is_sent_by_its_queue_within_the_cap(
    context: AppContext, still: SleepingClock, sandbox: Sandbox
) -> None:
    clock = still
    engine, settings = context.engine, context.settings
    name = make(engine, settings, clock.now())
    assert plan_seeds(engine, settings, "news", name, clock.now()).planned == 12
    send, seeds = await context.queue(SEND_QUEUE), await context.queue(WARMUP_QUEUE)
    clock.advance(2 * 3_600_000)
    for queue in (send, seeds):
        await context.gates(queue).apply()
    google = str(GateName.warmup("google", "news@example.com"))
    quotas = []
    for queue in (send, seeds):
        [gate] = [state.gate for state in await queue.gates() if state.gate.name == google]
        quotas.append(gate.quota.left if gate.quota is not None else None)
    assert sum(quota or 0 for quota in quotas) == 50
    assert 8 <= (quotas[1] or 0) <= 10

    recorder = Recorder(engine=engine, queue=seeds, clock=clock, name="r", bounce=BounceSettings())
    by_hour: list[int] = []
    async with WORK[WARMUP_QUEUE](context, seeds, settings.queue(WARMUP_QUEUE)) as work:
        for _ in range(12 * 4):
            await submit(context, name, cursor=0, rows=100)
            await send_what_may_go(seeds, work)
            by_hour.append(len(sandbox.accepted()))
            clock.advance(900_000)
    await recorder.drain()
    counts = {state: n for state, n in summary(engine, name).counts.items() if n}
    assert counts == {TouchState.ACCEPTED: 12}
    assert {found.recipient for found in sandbox.accepted()} <= set(SEED_LIST)
    assert 1 <= by_hour[12] <= 8  # spread: neither all in the first hours, nor none
    assert (await send.stats()).counters.get("enqueued", 0) == 0
    [identity, _domain] = of_sender(settings, "news")
    day = day_of(identity, MORNING)
    with read(engine) as connection:
        assert count_mail(connection, identity, [day])[day]["google"].accepted == quotas[1]
    assert {row.provider for row in close_day(engine, identity, clock.now())} == {"google", "other"}


_nonces = itertools.count()


async def send_what_may_go(queue: Queue, work: Work) -> None:
    """Act as a worker until no job of its queue may go now."""
    assert work.prepare is not None
    marker = MarkBatcher(queue)
    while jobs := (await queue.claim("w", want=10, lease_ms=60_000, nonce=f"n{next(_nonces)}")).jobs:
        verdicts = dict(await work.prepare(jobs))
        for job in jobs:
            if job.id not in verdicts:
                verdicts[job.id] = await work.handle(Lease(job, marker))
        await queue.settle("w", [(job, verdicts[job.id]) for job in jobs])

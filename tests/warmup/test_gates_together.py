"""Settings, warmup, shaping and a hold limit one gate at once: in any order all of them hold, and none is lost."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import count, permutations

import msgspec
import pytest
import sqlalchemy as sa

from postroad.delivery.job import job_id
from postroad.gates.controller import GateController, GateSource
from postroad.gates.name import GateName
from postroad.gates.plan import Contribution
from postroad.gates.settings_limits import SettingsLimits
from postroad.queue import FOREVER_MS, Done, Gate, GateState, Job, Lane, Queue, Quota, Rate
from postroad.queue.redis.client import connect
from postroad.senders.dns_health import DnsHolds
from postroad.settings import Settings
from postroad.shaping.config import read_shaping
from postroad.shaping.gate_source import ShapingLimits
from postroad.store.dns_report import SenderHold, open_holds, save_hold
from postroad.store.engine import read, write
from postroad.store.shaping import ShapingChange, add_change, open_changes, restore
from postroad.warmup.caps import WarmupCaps
from tests.kit.clock import FakeClock
from tests.warmup.conftest import NEWS, SETTINGS, Load, Mail

MORNING = datetime(2026, 5, 4, 6, tzinfo=UTC)  # 08:00 in Berlin
GATE = str(GateName.warmup("google", NEWS))
FROM_SETTINGS = Gate(name=GATE, rate=Rate(count=600, per_ms=3_600_000, burst=8), concurrency=3)
FROM_SHAPING = Gate(name=GATE, rate=Rate(count=60, per_ms=3_600_000), concurrency=4)
CAP = 50
NAMES = ("settings", "warmup", "shaping", "hold")
_ids = count(1)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(int(MORNING.timestamp() * 1000))


class HoldHere(DnsHolds):
    """Holds of the database, at the gate that all sources share."""

    async def contribute(self, states: Mapping[str, GateState]) -> list[Contribution]:
        return [msgspec.structs.replace(each, gate=GATE) for each in await super().contribute(states)]


class Sources:
    """The four sources, each of which can be there or not, and the controllers of any of them."""

    def __init__(self, load: Load, engine: sa.Engine, queue: Queue, clock: FakeClock) -> None:
        self.warm, self.cold = load(SETTINGS), load(SETTINGS.partition("[senders.news.warmup]")[0])
        self.engine, self.queue, self.clock = engine, queue, clock
        self.present: set[str] = set()

    def come(self, name: str) -> None:
        self.present.add(name)
        with write(self.engine) as connection:
            match name:
                case "hold":
                    now = self.clock.now()
                    save_hold(connection, SenderHold(sender=NEWS, reason="DNS", failing_since=now, held_at=now))
                case "shaping":
                    assert FROM_SHAPING.rate is not None
                    change = ShapingChange(
                        gate=GATE,
                        rule="busy",
                        sender=NEWS,
                        reply="421",
                        at=self.clock.now(),
                        rate_count=FROM_SHAPING.rate.count,
                        rate_per_ms=FROM_SHAPING.rate.per_ms,
                        connections=FROM_SHAPING.concurrency,
                    )
                    assert add_change(connection, change)

    def leave(self, name: str) -> None:
        self.present.discard(name)
        with write(self.engine) as connection:
            match name:
                case "hold":
                    hold = open_holds(connection)[NEWS]
                    hold.ended_at, hold.ended_why = self.clock.now(), "its DNS passes again"
                    save_hold(connection, hold)
                case "shaping":
                    [change] = open_changes(connection)
                    assert restore(connection, [change.id or 0], self.clock.now(), "ada") == 1

    def controller(self, *names: str, starting: bool = True) -> GateController:
        """Return a controller with the sources of these names, whether or not they contribute now."""
        settings: Settings = self.warm if "warmup" in self.present else self.cold
        limits = [FROM_SETTINGS] if "settings" in self.present else []
        sources: dict[str, GateSource] = {
            "settings": SettingsLimits(limits, starting=starting),
            "warmup": WarmupCaps(settings, engine=self.engine, queue=self.queue.name, clock=self.clock),
            "hold": HoldHere(self.engine, releasing=True),
        }
        shaping = ShapingLimits(self.engine, read_shaping(None), (), self.clock)
        return GateController(
            self.engine,
            self.queue,
            [source for name, source in sources.items() if name in names],
            expiring=shaping if "shaping" in names else None,
        )

    async def gate(self) -> Gate:
        return next((state.gate for state in await self.queue.gates() if state.gate.name == GATE), Gate(name=GATE))

    async def check(self, left: int) -> None:
        """Compare the gate with what the sources that are there want, of whose quota so much is left."""
        gate, present = await self.gate(), self.present
        rates = [FROM_SETTINGS.rate] * ("settings" in present) + [FROM_SHAPING.rate] * ("shaping" in present)
        if "warmup" in present:
            assert gate.rate is not None
            assert gate.rate.count == CAP
            assert gate.rate.burst == 1
            assert gate.rate.per_ms == pytest.approx(12 * 3_600_000, rel=0.25)
            assert gate.quota is not None
            assert (gate.quota.left, gate.quota.size) == (left, CAP)
        else:
            assert gate.rate == (rates[-1] if rates else None)
            assert gate.quota is None
        limits = {"settings": FROM_SETTINGS.concurrency, "shaping": FROM_SHAPING.concurrency}
        wanted = [limit for name, limit in limits.items() if limit is not None and name in present]
        assert gate.concurrency == min(wanted, default=None)
        assert gate.paused_until_ms == (FOREVER_MS if "hold" in present else None)


@pytest.fixture
def sources(load: Load, engine: sa.Engine, queue: Queue, clock: FakeClock) -> Sources:
    return Sources(load, engine, queue, clock)


async def send_one(queue: Queue) -> None:
    [job] = (await queue.claim("w", want=1, lease_ms=60_000, nonce=f"{next(_ids)}")).jobs
    await queue.settle("w", [(job, Done())])


async def fill_missing_days(queue: Queue) -> None:
    await queue.enqueue(Lane(name="lane", gates=(GATE,)), [Job(id=job_id(next(_ids)), payload=b"") for _ in range(9)])


@pytest.mark.parametrize("order", list(permutations(NAMES)), ids="-".join)
async def test_sources_that_come_and_leave_in_any_order_lose_nothing(sources: Sources, order: tuple[str, ...]) -> None:
    left = CAP
    await fill_missing_days(sources.queue)
    for name in order:
        sources.come(name)
        await sources.controller(*NAMES).apply()
        await sources.check(left)
        assert await sources.controller(*NAMES).apply() == []
        if "warmup" in sources.present and "hold" not in sources.present and left == CAP:
            await send_one(sources.queue)
            left -= 1
            await sources.check(left)
    for name in order:
        sources.leave(name)
        await sources.controller(*NAMES).apply()
        await sources.check(left)
    assert await sources.gate() == Gate(name=GATE)
    assert {state.owner for state in await sources.queue.gates()} == {""}


async def test_processes_with_one_source_each_lose_no_limit(sources: Sources) -> None:
    for name in NAMES:
        sources.come(name)
    for order in permutations(NAMES):
        await sources.queue.set_gate(Gate(name=GATE))
        await sources.queue.resume_gate(GATE)
        for name in (*order, *order):
            await sources.controller(name).apply()
        await sources.check(CAP)
        assert await sources.controller(*NAMES).apply() == []


async def test_a_lost_queue_gets_all_of_it_again_less_what_was_sent(
    sources: Sources, redis_url: str, mail: Mail
) -> None:
    for name in NAMES:
        sources.come(name)
    await sources.controller(*NAMES).apply()
    mail.accepted(sources.clock.now(), 12)
    client = connect(redis_url)
    await client.delete(*await client.keys(f"pr:{{{sources.queue.name}}}:*"))
    await client.aclose()
    assert await sources.gate() == Gate(name=GATE)
    await sources.controller(*NAMES, starting=False).apply()
    await sources.check(CAP - 12)
    assert await sources.controller(*NAMES, starting=False).apply() == []


async def test_another_hour_keeps_the_quota_and_what_the_others_want(sources: Sources) -> None:
    for name in NAMES[:3]:
        sources.come(name)
    await sources.controller(*NAMES).apply()
    await fill_missing_days(sources.queue)
    await send_one(sources.queue)
    before = await sources.gate()
    sources.clock.advance(3_600_000)
    [change] = [each for each in await sources.controller(*NAMES).apply() if each.gate == GATE]
    assert change.paces
    await sources.check(CAP - 1)
    assert (await sources.gate()).rate != before.rate


async def test_a_quota_of_the_previous_version_is_not_counted_again(sources: Sources) -> None:
    """It kept no size: the count of the rate was the cap."""
    sources.come("warmup")
    await sources.controller(*NAMES).apply()
    gate = await sources.gate()
    assert gate.quota is not None
    old = Quota(left=7, until_ms=gate.quota.until_ms)
    await sources.queue.set_gate(msgspec.structs.replace(gate, quota=old))
    assert [each.gate for each in await sources.controller(*NAMES).apply()] == []
    assert (await sources.gate()).quota == old


async def test_a_day_later_the_quota_is_whole_again(sources: Sources) -> None:
    for name in NAMES[:3]:
        sources.come(name)
    await sources.controller(*NAMES).apply()
    await fill_missing_days(sources.queue)
    await send_one(sources.queue)
    sources.clock.advance(int(timedelta(days=1).total_seconds() * 1000))
    await sources.controller(*NAMES).apply()
    await sources.check(CAP)


async def test_a_hold_is_not_released_by_who_made_no_check(sources: Sources) -> None:
    sources.come("hold")
    await sources.controller(*NAMES).apply()
    sources.leave("hold")
    await GateController(sources.engine, sources.queue, [HoldHere(sources.engine)]).apply()
    assert (await sources.gate()).paused_until_ms == FOREVER_MS
    with read(sources.engine) as connection:
        assert open_holds(connection) == {}
    await sources.controller("hold").apply()
    assert (await sources.gate()).paused_until_ms is None

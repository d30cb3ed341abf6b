"""Limits removed from the settings are removed from the queue, and limits of an operator stay."""

from __future__ import annotations

import sqlalchemy as sa

from postroad.delivery.job import SEND_QUEUE
from postroad.gates.controller import GateController
from postroad.gates.name import QUEUE_GATE, GateName
from postroad.gates.settings_limits import SettingsLimits, gates_of
from postroad.queue import Gate, Queue, Rate
from postroad.settings import Settings

ADA, BOB = "ada@example.com", "bob@example.com"


def settings(**rates: str) -> Settings:
    """Return settings of two senders with these rates."""
    senders = {
        name: {"address": address, "postal_address": "1 High Street, Springfield", "route": "relay"}
        | ({"rate": rates[name]} if name in rates else {})
        for name, address in (("ada", ADA), ("bob", BOB))
    }
    return Settings.model_validate({"routes": {"relay": {"host": "127.0.0.1", "tls": "none"}}, "senders": senders})


async def start_worker(engine: sa.Engine, queue: Queue, settings_: Settings) -> None:
    """Set the limits, as a worker does when it starts."""
    await controller(engine, queue, settings_, starting=True).apply()


def controller(engine: sa.Engine, queue: Queue, settings_: Settings, *, starting: bool = False) -> GateController:
    limits = SettingsLimits(gates_of(settings_, settings_.queue(SEND_QUEUE)), starting=starting)
    return GateController(engine, queue, [limits])


async def rates(queue: Queue) -> dict[str, Rate | None]:
    return {state.gate.name: state.gate.rate for state in await queue.gates()}


async def test_a_rate_removed_from_the_settings_is_removed_from_the_queue(engine: sa.Engine, queue: Queue) -> None:
    await start_worker(engine, queue, settings(ada="1/1m", bob="2/1m"))
    assert (await rates(queue))[str(GateName.sender(ADA))] is not None
    await start_worker(engine, queue, settings(bob="2/1m"))
    after = await rates(queue)
    assert after[str(GateName.sender(ADA))] is None
    assert after[str(GateName.sender(BOB))] is not None
    assert after[str(QUEUE_GATE)] is not None


async def test_a_rate_set_by_an_operator_stays(engine: sa.Engine, queue: Queue) -> None:
    of_operator = Rate(count=7, per_ms=60_000)
    await start_worker(engine, queue, settings(ada="1/1m"))
    await queue.set_gate(Gate(name=str(GateName.sender(ADA)), rate=of_operator))
    await queue.set_gate(Gate(name=str(GateName.sender(BOB)), rate=of_operator))
    await start_worker(engine, queue, settings())
    after = await rates(queue)
    assert after[str(GateName.sender(ADA))] == of_operator
    assert after[str(GateName.sender(BOB))] == of_operator


async def test_a_pause_stays_when_the_rate_leaves(engine: sa.Engine, queue: Queue) -> None:
    await start_worker(engine, queue, settings(ada="1/1m"))
    await queue.pause_gate(str(GateName.sender(ADA)), None)
    await start_worker(engine, queue, settings())
    (state,) = [state for state in await queue.gates() if state.gate.name == str(GateName.sender(ADA))]
    assert state.gate.rate is None
    assert state.gate.paused_until_ms is not None


async def test_restored_limits_belong_to_the_settings(engine: sa.Engine, queue: Queue) -> None:
    settings_ = settings(ada="1/1m")
    changes = await controller(engine, queue, settings_).apply()
    assert [(change.gate, change.restores) for change in changes] == [
        (str(QUEUE_GATE), True),
        (str(GateName.sender(ADA)), True),
    ]
    await start_worker(engine, queue, settings())
    assert (await rates(queue))[str(GateName.sender(ADA))] is None

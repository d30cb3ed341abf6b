"""Limits of the settings in the queue: a limit that leaves the settings leaves the queue, and one set by hand stays."""

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
    """Settings of two senders, with the rates that are given."""
    senders = {
        name: {"address": address, "postal_address": "1 High Street, Springfield", "route": "relay"}
        | ({"rate": rates[name]} if name in rates else {})
        for name, address in (("ada", ADA), ("bob", BOB))
    }
    return Settings.model_validate({"routes": {"relay": {"host": "127.0.0.1", "tls": "none"}}, "senders": senders})


async def start_worker(engine: sa.Engine, queue: Queue, said: Settings) -> None:
    """Set the limits, as a worker does when it starts."""
    await controller(engine, queue, said, starting=True).apply()


def controller(engine: sa.Engine, queue: Queue, said: Settings, *, starting: bool = False) -> GateController:
    limits = SettingsLimits(gates_of(said, said.queue(SEND_QUEUE)), starting=starting)
    return GateController(engine, queue, [limits])


async def rates(queue: Queue) -> dict[str, Rate | None]:
    return {state.gate.name: state.gate.rate for state in await queue.gates()}


async def test_a_rate_that_leaves_the_settings_leaves_the_queue(engine: sa.Engine, queue: Queue) -> None:
    await start_worker(engine, queue, settings(ada="1/1m", bob="2/1m"))
    assert (await rates(queue))[str(GateName.sender(ADA))] is not None
    await start_worker(engine, queue, settings(bob="2/1m"))
    found = await rates(queue)
    assert found[str(GateName.sender(ADA))] is None
    assert found[str(GateName.sender(BOB))] is not None
    assert found[str(QUEUE_GATE)] is not None


async def test_a_rate_that_was_set_by_hand_stays(engine: sa.Engine, queue: Queue) -> None:
    by_hand = Rate(count=7, per_ms=60_000)
    await start_worker(engine, queue, settings(ada="1/1m"))
    await queue.set_gate(Gate(name=str(GateName.sender(ADA)), rate=by_hand))
    await queue.set_gate(Gate(name=str(GateName.sender(BOB)), rate=by_hand))
    await start_worker(engine, queue, settings())
    found = await rates(queue)
    assert found[str(GateName.sender(ADA))] == by_hand
    assert found[str(GateName.sender(BOB))] == by_hand


async def test_a_pause_stays_when_the_rate_leaves(engine: sa.Engine, queue: Queue) -> None:
    await start_worker(engine, queue, settings(ada="1/1m"))
    await queue.pause_gate(str(GateName.sender(ADA)), None)
    await start_worker(engine, queue, settings())
    (state,) = [state for state in await queue.gates() if state.gate.name == str(GateName.sender(ADA))]
    assert state.gate.rate is None
    assert state.gate.paused_until_ms is not None


async def test_limits_that_are_restored_belong_to_the_settings(engine: sa.Engine, queue: Queue) -> None:
    said = settings(ada="1/1m")
    changes = await controller(engine, queue, said).apply()
    assert [(change.gate, change.restores) for change in changes] == [
        (str(QUEUE_GATE), True),
        (str(GateName.sender(ADA)), True),
    ]
    await start_worker(engine, queue, settings())
    assert (await rates(queue))[str(GateName.sender(ADA))] is None

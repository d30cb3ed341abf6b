"""A receiver says that we are too fast: its sender is slowed at once, the operator sees why, and can end it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from postroad.delivery.job import SEND_QUEUE
from postroad.queue import Gate
from tests.end_to_end.site import Site

pytestmark = pytest.mark.timeout(120)

TAIL = ("blocked+550-5.7.1@mailbox.example", "friend@mailbox.example")
GATE = "provider:yahoo:ada@sender.example"


async def gate(site: Site) -> Gate:
    async with site.context() as context:
        states = await (await context.queue(SEND_QUEUE)).gates()
        return next((state.gate for state in states if state.gate.name == GATE), Gate(name=GATE))


async def test_a_sender_that_yahoo_defers_is_suspended_there_and_goes_on_when_resumed(site: Site) -> None:
    readers = [f"reader{n}@yahoo.com" for n in range(200)]
    await site.launch(["early+yahoo-deferred@yahoo.com", *readers, *TAIL])
    site.start("recorder")
    site.start("worker", "--concurrency", "2")

    async def suspended() -> bool:
        return bool((await gate(site)).paused_until_ms)

    await site.until(suspended)
    # Others' mail does not wait for it; nor does one host of the unknown ones speak for the others.
    await site.until(lambda: site.states()[TAIL[1]] == "accepted")
    assert site.states()[TAIL[0]] == "dead"
    [change] = cast("list[dict[str, Any]]", site.json("shaping", "log"))
    assert (change["rule"], change["gate"], change["restored_at"]) == ("yahoo-deferral", GATE, None)
    assert "TSS04" in change["reply"]
    shown = cast("list[dict[str, Any]]", site.json("shaping", "show", "--sender", "ada"))
    [yahoo] = [row for row in shown if row["provider"] == "yahoo"]
    assert [held["rule"] for held in yahoo["held"]] == ["yahoo-deferral"]
    assert f"{GATE} is held back by yahoo-deferral: suspended until" in site.run("shaping", "show").stdout

    said = site.run("queue", "gate", "resume", GATE).stdout
    assert "1 changes of the shaping are undone" in said

    async def all_the_others_have_it() -> bool:
        states = site.states()
        return all(states[reader] == "accepted" for reader in readers)

    await site.until(all_the_others_have_it)
    assert site.states()["early+yahoo-deferred@yahoo.com"] == "deferred"
    [change] = cast("list[dict[str, Any]]", site.json("shaping", "log"))
    assert change["restored_by"]

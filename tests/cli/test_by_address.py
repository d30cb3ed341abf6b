"""Commands that take a message's id take the recipient's address."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from postroad.app.context import open_context
from postroad.delivery.job import SEND_QUEUE, job_id, lane_of
from postroad.embedded import stop_redis
from postroad.gates.name import Receiver
from postroad.queue import Job
from postroad.settings import Settings
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from tests.cli.conftest import Run
from tests.store.rows import add_campaign, add_recipient, add_touch

ADA = "ada@gmail.com"


@pytest.fixture
def touches(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[TouchState, str]]:
    """One message to Ada in each of these states; the one that is queued is on the queue too."""
    monkeypatch.chdir(tmp_path)
    found: dict[TouchState, str] = {}

    async def make() -> None:
        async with open_context(Settings.load(tmp_path / "postroad.toml")) as context:
            with write(context.engine) as connection:
                recipient = add_recipient(connection, ADA)
                for state in (TouchState.QUEUED, TouchState.DEAD, TouchState.UNKNOWN, TouchState.ACCEPTED):
                    campaign, (step,) = add_campaign(connection, name=state.value)
                    found[state] = job_id(add_touch(connection, campaign, step, state, recipient_id=recipient))
            lane = lane_of(sender=ADA, receiver=Receiver("google"), campaign="queued", route="relay", job_class="bulk")
            due = Job(id=found[TouchState.QUEUED], payload=b"", due_ms=4_000_000_000_000)
            await (await context.queue(SEND_QUEUE)).enqueue(lane, [due])

    asyncio.run(make())
    yield found
    stop_redis(tmp_path / ".postroad")


def test_an_address_is_taken_in_place_of_an_id(run: Run, touches: dict[TouchState, str]) -> None:
    explained = json.loads(run("queue", "explain", ADA, "--json").stdout)
    assert [(one["id"], one["campaign"]) for one in explained] == [
        (touches[state], state.value) for state in reversed(touches)
    ]
    shown = run("queue", "explain", "Ada@Gmail.com").stdout
    assert f"message {touches[TouchState.DEAD]} to {ADA}, campaign dead, step step-1: dead" in shown
    assert json.loads(run("queue", "explain", touches[TouchState.QUEUED], "--json").stdout)["address"] == ADA
    assert {job["id"] for job in json.loads(run("queue", "job", ADA, "--json").stdout)} == set(touches.values())

    rescheduled = run("queue", "reschedule", ADA, "--to", "2h", "--json")
    assert json.loads(rescheduled.stdout) == {"rescheduled": 1}
    assert json.loads(run("queue", "cancel", ADA, "--json").stdout) == {"cancelled": 1}
    assert json.loads(run("queue", "replay", ADA, "--json").stdout) == {"replayed": 1}
    resolved = json.loads(run("unknown", "resolve", ADA, "--as", "accepted", "--by", "me", "--json").stdout)
    assert resolved == {"id": touches[TouchState.UNKNOWN], "resolved": "accepted", "by": "me"}
    dropped = json.loads(run("queue", "drop", "--all", "--by", "me", "--json").stdout)
    assert dropped == {"dropped": 0, "by": "me"}, "what was replayed is not dead any more"
    # No job is left.
    for words in (("queue", "cancel", ADA, "--queue", "email:warmup"), ("unknown", "resolve", ADA, "--as", "dead")):
        assert run(*words).returncode == 7


def test_an_address_without_a_message_is_refused(run: Run, touches: dict[TouchState, str]) -> None:
    for words in (("queue", "explain"), ("queue", "job"), ("queue", "replay"), ("queue", "cancel")):
        result = run(*words, "nobody@example.com")
        assert result.returncode == 7, result.stderr
        assert "nobody@example.com" in result.stderr
    assert run("queue", "explain", "no address@").returncode == 2

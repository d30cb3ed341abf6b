"""postroad explain and postroad campaign delays, as a person and a script use them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postroad.app.context import open_context
from postroad.delivery.job import SEND_QUEUE, job_id, lane_of
from postroad.embedded import stop_redis
from postroad.gates.name import Receiver
from postroad.mail.token import Purpose
from postroad.queue import Job
from postroad.settings import Settings
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from postroad.store.suppression import SuppressionReason, suppress
from tests.cli.conftest import Run
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch

ADA = "ada@gmail.com"


class Site:
    """Ids of two messages to Ada, and the Message-ID of the first."""

    waiting: int
    accepted: int
    message_id: str


@pytest.fixture
def site(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.chdir(tmp_path)
    site = Site()

    async def make() -> None:
        async with open_context(Settings.load(tmp_path / "postroad.toml")) as context:
            with write(context.engine) as connection:
                recipient = add_recipient(connection, ADA, time_zone="Europe/Berlin")
                campaign, (step,) = add_campaign(connection, name="spring")
                site.waiting = add_touch(connection, campaign, step, TouchState.QUEUED, recipient_id=recipient)
                campaign, (step,) = add_campaign(connection, name="autumn")
                site.accepted = add_touch(
                    connection, campaign, step, TouchState.ACCEPTED, recipient_id=recipient, settled_at=NOW
                )
                hashed = context.hash_of("bob@example.com")
                suppress(connection, [hashed], SuppressionReason.COMPLAINT, "a feedback loop", NOW)
            site.message_id = f"<{context.signer.sign(Purpose.MESSAGE_ID, site.waiting)}@example.com>"
            queue = await context.queue(SEND_QUEUE)
            lane = lane_of(
                sender="news@example.com", receiver=Receiver("google"), campaign="spring", route="relay",
                job_class="bulk",
            )  # fmt: skip
            await queue.enqueue(lane, [Job(id=job_id(site.waiting), payload=b"")])
            await queue.pause_gate("route:relay", None)

    asyncio.run(make())
    yield site
    stop_redis(tmp_path / ".postroad")


def explained(run: Run, *words: str, **variables: str) -> dict[str, Any]:
    done = run("explain", *words, "--json", **variables)
    assert done.returncode == 0, done.stderr
    story: dict[str, Any] = json.loads(done.stdout)
    return story


def test_a_message_that_waits_is_explained_first(run: Run, site: Site) -> None:
    lines = run("explain", ADA).stdout.splitlines()
    assert lines[0] == f"{ADA}: 1 message waits, without a known end"
    text = "\n".join(lines)
    assert (
        f"message {site.waiting}, campaign spring, step step-1: queued, due 2026-05-04 10:30:00 in Europe/Berlin"
        in text
    )
    assert "Held by gate route:relay (route relay): it is paused since" in text
    assert "`postroad queue gate resume route:relay` resumes it." in text
    assert "No worker of email:send is alive." in text
    assert "Accepted by the receiver at 2026-05-04 08:30:00 UTC." in text
    assert text.index(f"message {site.waiting}") < text.index(f"message {site.accepted}") < text.index("history")
    assert not any("\x1b" in line for line in lines)


def test_the_same_message_by_its_id_and_its_message_id(run: Run, site: Site) -> None:
    for word in (site.message_id, str(site.waiting)):
        story = explained(run, word)
        assert (story["address"], [message["touch"] for message in story["messages"]]) == (ADA, [site.waiting])
    story = explained(run, ADA, "--campaign", "autumn")
    assert [message["touch"] for message in story["messages"]] == [site.accepted]
    assert story["answer"] == "nothing is waiting"


def test_holds_and_charges_are_json(run: Run, site: Site) -> None:
    [message] = explained(run, str(site.waiting))["messages"]
    assert {hold["cause"] for hold in message["holds"]} == {"gate_paused", "no_worker"}
    [hold] = [hold for hold in message["holds"] if hold["gate"] == "route:relay"]
    assert hold["until"] is None
    assert sum(charge["ms"] for charge in message["delays"]) == message["delay_ms"] > 0


def test_without_the_queue_the_ledger_answers(run: Run, site: Site) -> None:
    unreachable = {"POSTROAD_REDIS_URL": "redis://127.0.0.1:1"}
    story = explained(run, ADA, **unreachable)
    assert story["queue_error"]
    assert story["answer"] == ("1 message waits, without a known end; the queue could not be asked") or story[
        "answer"
    ].endswith("the queue could not be asked")
    shown = run("explain", ADA, **unreachable)
    assert shown.returncode == 0
    assert "The queue cannot be reached" in shown.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["ada@gmial.com"], 7, "Did you mean 'ada@gmail.com'?"),
        (["nobody@example.org"], 7, "postroad audience refusals"),
        (["no address@"], 2, "not a valid address"),
        (["<1f-00000000000000000000@example.com>"], 2, "not a Message-ID that this installation signed"),
        (["999999"], 7, "no message with the id 999999"),
        (["ada"], 2, "is not a touch id"),
        ([ADA, "--campaign", "sprin"], 7, "spring"),
    ],
)
def test_errors_say_what_to_do(run: Run, site: Site, words: list[str], code: int, message: str) -> None:
    for more in ((), ("--json",)):
        done = run("explain", *words, *more)
        assert (done.returncode, message in done.stderr) == (code, True), done.stderr
        assert ADA not in done.stderr.replace("Did you mean 'ada@gmail.com'?", "")
    assert site.waiting


def test_an_address_that_only_a_hash_knows(run: Run, site: Site) -> None:
    done = run("explain", "Bob@Example.com")
    assert done.stdout.startswith("bob@example.com: nothing is waiting; the address is suppressed\n")
    assert "The hash of the address was suppressed everywhere: complaint (a feedback loop)." in done.stdout
    assert site.waiting


def test_delays_of_a_campaign_add_up(run: Run, site: Site) -> None:
    delays = json.loads(run("campaign", "delays", "spring", "--json").stdout)
    waiting = delays["waiting"]
    assert (delays["touches"], delays["read"], delays["sampled"], waiting["touches"]) == (1, 1, False, 1)
    assert sum(charge["ms"] for charge in waiting["delays"]) == waiting["total_ms"] > 0
    assert delays["accepted"]["touches"] == 0
    shown = run("campaign", "delays", "autumn").stdout
    assert "accepted: from due to accepted, 1 message, 0 s in total" in shown
    assert run("campaign", "delays", "sprin").returncode == 7
    assert site.waiting

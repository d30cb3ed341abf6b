"""Random orders of what happens to a campaign: passes, crashes, outcomes, changes. No one is lost, and sums hold."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa

from postroad.campaign import apply_running, journey_entry, journey_pass, plan, rollout, status, variant_decision
from postroad.campaign.audience import import_file
from postroad.campaign.plan import advance, launch
from postroad.campaign.status import finish_if_done, summary
from postroad.errors import StateError
from postroad.operations.campaigns import close
from postroad.operations.recall import recall_step
from postroad.senders import rollout as widening
from postroad.senders.rollout import widen, widen_if_good
from postroad.store import ending
from postroad.store.campaign import find_campaign, steps_of
from postroad.store.engine import read, write
from postroad.store.ledger import record_reply
from postroad.store.recipient_event import NewEvent, record_events
from postroad.store.suppression import SuppressionReason, suppress_now
from postroad.store.types import UtcDateTime
from postroad.store.variant_split import VariantSplit, split_of
from tests.campaign.planned import run_at_once
from tests.campaign.project import NOW, CampaignProject

WRITERS = (plan, rollout, journey_pass, journey_entry, variant_decision, apply_running, status, widening, ending)
OPS = 25
HEAD = "name: spring\nsender: news\naudience: {name: people}\n"
SPLIT = "    variants: [{name: a, subject: A, share: 30}, {name: b, share: 70}]\n"
SHARES = "rollout: [10%, 40%, 100%]\n"
PAID = "goal: \"event('paid')\"\n"


def email(name: str, indent: int = 2) -> str:
    margin = " " * indent
    return f"{margin}- email: {name}\n{margin}  subject: {name}\n{margin}  text: hello.txt\n"


def winner(by: str, at_most: int) -> str:
    return SPLIT + f"    winner: {{by: {by}, decide: {{after: 2d, at_most: {at_most}%}}}}\n"


BRANCH = "  - if: \"event('clicked')\"\n    then:\n" + email("again", 6) + "  - wait: 2h\n"
KINDS = {
    "a rollout": HEAD
    + SHARES
    + "steps:\n"
    + email("hello")
    + SPLIT
    + "  - wait: 1d\n"
    + email("again")
    + winner("replied", 20),
    "a winner": HEAD + "steps:\n" + email("hello") + winner("replied", 20) + "  - wait: 6h\n" + email("again") + SPLIT,
    "a journey with a rollout": HEAD
    + SHARES
    + PAID
    + "exit: \"event('left')\"\nsteps:\n"
    + email("hello")
    + SPLIT
    + "  - wait: 1d\n"
    + BRANCH
    + email("last")
    + winner("goal", 30),
    "who joins": HEAD
    + "entry: {on: joined, existing: true}\nagain: 2d\n"
    + PAID
    + "steps:\n"
    + email("hello")
    + winner("goal", 50)
    + "  - wait: 3h\n"
    + email("again")
    + SPLIT,
    "who does something": HEAD
    + "entry: \"event('signed')\"\nagain: 2d\nsteps:\n"
    + email("hello")
    + winner("replied", 100)
    + "  - wait: 3h\n"
    + email("again")
    + SPLIT,
}
OUTCOMES = "('replied', 'goal', 'unsubscribed', 'complained')"
UNSENT = "('planned', 'queued', 'deferred')"


class CrashError(Exception):
    """The process is killed."""


class World:
    """A campaign, its people, and what may happen to them. Each method `do_…` is one thing that happens."""

    def __init__(self, project: CampaignProject, text: str, seed: str, patch: pytest.MonkeyPatch) -> None:
        self.project, self.text, self.patch = project, text, patch
        self.random, self.now, self.imports = Random(seed), NOW, itertools.count(1)
        self.recalled = self.extended = False
        people = self.random.choice([1, 2, 7, 60, 130])
        project.fill(f"p{n}@{('gmail.com', 'x.example', 'y.example')[n % 3]},," for n in range(people))
        project.apply(text)

    def rows(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        with read(self.project.engine) as connection:
            return [tuple(row) for row in connection.execute(sa.text(sql), values)]

    def ids(self, states: str) -> list[int]:
        found = [row[0] for row in self.rows(f"SELECT id FROM touch WHERE state IN {states} ORDER BY id")]
        self.random.shuffle(found)
        return found

    def write(self, sql: str, **values: Any) -> None:
        statement = sa.text(sql)
        if "at" in values:
            statement = statement.bindparams(sa.bindparam("at", type_=UtcDateTime()))
        with write(self.project.engine) as connection:
            connection.execute(statement, values)

    def launch(self) -> None:
        launch(self.project.engine, "spring", self.now)

    def do_pass(self) -> None:
        widen_if_good(self.project.engine, self.project.settings, "spring", self.now)
        advance(self.project.engine, "spring", self.now)
        finish_if_done(self.project.engine, "spring", self.now)

    def crash(self, task: Callable[[], None]) -> None:
        """Run something that is killed before one of its transactions."""
        left = itertools.count(self.random.randrange(12), -1)

        def dying(engine: sa.Engine) -> Any:
            if next(left) <= 0:
                raise CrashError
            return write(engine)

        with self.patch.context() as patch, suppress(CrashError):
            for module in WRITERS:
                if hasattr(module, "write"):
                    patch.setattr(module, "write", dying)
            task()

    def do_crash(self) -> None:
        self.crash(self.do_pass)

    def do_three_passes_at_once(self) -> None:
        run_at_once([self.do_pass] * 3)

    def do_time(self) -> None:
        self.now += timedelta(minutes=self.random.choice([-30, 5, 60, 360, 1440]))

    def settle(self, ids: list[int], state: str) -> None:
        for id_ in ids:
            self.write(
                "UPDATE touch SET state = :state, settled_at = :at WHERE id = :id", state=state, at=self.now, id=id_
            )

    def do_outcomes(self) -> None:
        found = self.ids(UNSENT)
        state = self.random.choice(["accepted"] * 6 + ["bounced", "dead", "unknown", "skipped", "expired"])
        self.settle(found[: self.random.randrange(len(found) + 1)], state)

    def do_late_acceptance(self) -> None:
        self.settle(self.ids("('unknown')"), "accepted")

    def do_queue(self) -> None:
        self.write("UPDATE touch SET state = 'queued' WHERE state = 'planned' AND id % 3 = 0")

    def do_widen(self) -> None:
        [(number,)] = self.rows("SELECT min(number) FROM rollout_share WHERE opened_at IS NULL")
        if number is not None:
            with suppress(StateError):
                widen(self.project.engine, "spring", number, by="ada", now=self.now)

    def do_replies(self) -> None:
        with write(self.project.engine) as connection:
            for touch_id in self.ids("('accepted')")[:5]:
                record_reply(connection, touch_id, f"reply {touch_id}", self.now)

    def do_events(self) -> None:
        who = [row[0] for row in self.rows("SELECT address FROM recipient ORDER BY id")]
        name = self.random.choice(["paid", "clicked", "left", "signed", "signed", "signed"])
        at = self.now + timedelta(hours=self.random.choice([0, 0, 0, -1, -100, 30, 200]))
        chosen = self.random.sample(who, self.random.randrange(len(who) + 1))
        with write(self.project.engine) as connection:
            record_events(connection, [NewEvent(address, name, at) for address in chosen])

    def do_suppress(self) -> None:
        who = [row[0] for row in self.rows("SELECT address FROM recipient ORDER BY id")]
        suppress_now(self.project.engine, self.random.sample(who, 1), SuppressionReason.MANUAL, "test", self.now)

    def do_import(self) -> None:
        number = next(self.imports)
        path = self.project.folder / f"more{number}.csv"
        people = [f"m{number}-{n}@x.example,," for n in range(self.random.randrange(1, 8))]
        path.write_text("\n".join(["email,tz,name", *people]) + "\n")
        import_file(self.project.engine, "people", path, self.now - timedelta(minutes=self.random.choice([0, 30])))

    def do_pause(self) -> None:
        self.write("UPDATE campaign SET state = 'paused' WHERE state = 'running'")

    def do_resume(self) -> None:
        self.write("UPDATE campaign SET state = 'running' WHERE state = 'paused'")

    def do_change_content(self) -> None:
        text = f"Version {self.random.random()} {{{{ postal_address }}}} {{{{ unsubscribe_url }}}}\n"
        self.project.template("hello.txt", text)
        with suppress(StateError):
            self.project.apply(self.text, now=self.now)

    def do_add_steps(self) -> None:
        if not self.extended and self.random.random() < 0.3:
            text = self.text + "  - wait: 1h\n" + email("extra") + self.random.choice(["", winner("replied", 50)])
            with suppress(StateError):
                self.project.apply(text, now=self.now)
                self.text, self.extended = text, True

    def do_recall(self) -> None:
        with read(self.project.engine) as connection:
            campaign = find_campaign(connection, "spring")
            emails = [step for step in steps_of(connection, campaign.id or 0) if step.kind == "email"]
        if self.random.random() < 0.15:
            recall_step(self.project.engine, campaign, self.random.choice(emails), self.now)
            self.recalled = True

    def check(self) -> None:
        """The counts are those of the rows, and each touch is where it may be."""
        self._check_counts()
        twice = "SELECT 1 FROM enrolment WHERE state = 'active' GROUP BY campaign_id, recipient_id HAVING count(*) > 1"
        assert not self.rows(twice)
        early = (
            "SELECT 1 FROM touch JOIN rollout_share AS own ON own.campaign_id = touch.campaign_id "
            "AND own.number = touch.share WHERE own.opened_at IS NULL "
            "AND touch.state NOT IN ('withheld', 'cancelled', 'suppressed')"
        )
        assert not self.rows(early)
        with read(self.project.engine) as connection:
            steps = steps_of(connection, find_campaign(connection, "spring").id or 0)
        for step in steps:
            split = split_of(step.campaign_id, step.name, step.settings)
            if split is not None:
                self._check_variants(step.id or 0, split)

    def _check_variants(self, step_id: int, split: VariantSplit) -> None:
        tests = self.rows("SELECT planned, tested, winner FROM variant_test WHERE step_id = :id", id=step_id)
        for planned, tested, _ in tests:
            assert split.winner is not None
            assert tested * 100 <= planned * split.winner.at_most
        won = {winner for *_, winner in tests}
        touches = "SELECT recipient_id, variant, state FROM touch WHERE step_id = :id"
        for recipient_id, variant, state in self.rows(touches, id=step_id):
            if variant is None:
                assert state in ("awaiting", "suppressed", "cancelled")
            else:
                assert state != "awaiting"
                assert variant in {split.draw(recipient_id), *won}

    def _check_counts(self) -> None:
        sides = (
            (
                "SELECT step_id, state, '', count(*) FROM touch",
                "SELECT step_id, state, '', sum(touches) FROM touch_count",
            ),
            (
                "SELECT step_id, state, COALESCE(why, ''), count(*) FROM enrolment",
                "SELECT step_id, state, why, sum(enrolments) FROM enrolment_count",
            ),
            (
                "SELECT step_id, variant, state, count(*) FROM touch WHERE variant IS NOT NULL",
                f"SELECT step_id, variant, what, sum(touches) FROM variant_count WHERE what NOT IN {OUTCOMES}",
            ),
        )
        for actual, counted in sides:
            found, known = (
                {tuple(row[:3]): int(row[3]) for row in self.rows(f"{side} GROUP BY 1, 2, 3") if row[3]}
                for side in (actual, counted)
            )
            assert found == known
        journey = summary(self.project.engine, "spring").journey
        if journey is not None:
            assert journey.enrolled == journey.active + journey.completed + sum(journey.exited.values())

    def finish(self) -> None:
        """Let everything that is left take its course, and find that no one was lost."""
        self.do_resume()
        with suppress(StateError):
            close(self.project.engine, "spring", self.now)
        for _ in range(60):
            self.do_late_acceptance()
            for _ in range(3):
                self.do_widen()
            self.settle(self.ids(UNSENT), "accepted")
            self.do_pass()
            self.now += timedelta(hours=7)
        self.check()
        found = summary(self.project.engine, "spring")
        assert found.state == "finished"
        assert not any(step.live for step in found.steps)
        assert self.rows("SELECT count(*) FROM touch WHERE follow_up AND state IN ('accepted', 'skipped')") == [(0,)]
        assert found.journey is None or found.journey.active == 0
        lost = (
            "SELECT count(*) FROM touch AS first JOIN step ON step.id = first.step_id AND step.position = 1 "
            "WHERE first.state IN ('accepted', 'skipped') AND NOT EXISTS (SELECT 1 FROM touch AS next "
            "JOIN step AS later ON later.id = next.step_id AND later.position = 3 "
            "WHERE next.recipient_id = first.recipient_id)"
        )
        if found.journey is None and not self.recalled:
            assert self.rows(lost) == [(0,)]


@pytest.mark.parametrize("kind", KINDS)
def test_no_order_of_events_loses_anyone(project: CampaignProject, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    for size, number in (("store.planning.STEP", 20), ("campaign.rollout.DRAW_STEP", 15), ("store.rollout.STEP", 11)):
        monkeypatch.setattr(f"postroad.{size}", number)
    for module in (journey_pass, journey_entry):
        monkeypatch.setattr(module, "PAGE", 9)
    world = World(project, KINDS[kind], kind, monkeypatch)
    for _ in range(2):
        world.crash(world.launch)
    run_at_once([world.launch] * 2)
    world.check()
    names = sorted(name for name in dir(world) if name.startswith("do_"))
    for _ in range(OPS):
        name = world.random.choice([*names, "do_pass", "do_pass", "do_outcomes", "do_time"])
        getattr(world, name)()
        world.check()
    world.finish()

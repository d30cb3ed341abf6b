"""The timeline of a message, and which messages an address, a Message-ID or a touch names."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import sqlalchemy as sa

from postroad.delivery.result import DeliveryResult, encode_result
from postroad.errors import Blame, StateError, UsageError
from postroad.explain.story import tell_story
from postroad.explain.timeline import TimelineKind
from postroad.mail.token import Purpose
from postroad.queue import Defer
from postroad.store.bounce import BounceEffectKind, BounceMail, add_effects, finish_mail, save_mail
from postroad.store.engine import write
from postroad.store.enrolment import Enrolment
from postroad.store.ledger import TouchState, record_reply, record_unsubscribe
from postroad.store.recipient import AudienceMember
from postroad.store.recipient_event import NewEvent, record_events
from postroad.store.suppression import SuppressionReason, lift, suppress
from postroad.store.touches.sending import NewSender, assign_senders
from tests.explain.cases import CASES
from tests.explain.scene import ADA, HOUR, MORNING, Scene
from tests.store.rows import add_audience, add_campaign, add_recipient, add_touch

pytestmark = pytest.mark.parametrize("own_redis", ["valkey"], indirect=True)


async def test_the_timeline_has_everything_in_order(scene: Scene) -> None:
    def at(minutes: int) -> datetime:
        return MORNING + timedelta(minutes=minutes)

    await scene.enqueue()
    reply = "452 4.2.2 The email account is over quota"
    note = encode_result(
        DeliveryResult(
            state=TouchState.DEFERRED, cause="mailbox full, so far", blame=Blame.RECIPIENT, reply_code=452,
            enhanced_code="4.2.2", reply=reply,
        )
    )  # fmt: skip
    await scene.queue.settle("w", [(await scene.claim(), Defer(cause="x", error=reply, delay_ms=60_000, note=note))])
    await scene.record()
    with write(scene.context.engine) as connection:
        audience = add_audience(connection, [scene.recipient], name="people")
        connection.execute(
            sa.update(AudienceMember).values(joined_at=at(-50)).where(sa.column("recipient_id") == scene.recipient)
        )
        record_events(connection, [NewEvent(ADA, "paid", at(-40), '{"plan": "pro"}', None)])
        suppress(connection, [ADA], SuppressionReason.MANUAL, "a file", at(-30), audience)
        suppress(connection, [scene.context.hash_of(ADA)], SuppressionReason.COMPLAINT, "a loop", at(50))
        record_unsubscribe(connection, scene.touch, "one-click", at(10))
        record_reply(connection, scene.touch, "d1", at(11))
        save_mail(connection, BounceMail(digest="d1", received_at=at(20), source="smtp"))
        mail = BounceMail(
            digest="d1", received_at=at(20), source="smtp", processed_at=at(21), kind="dsn", verdict="hard",
            rule="5.1.1", matched_by="return-path", touch_id=scene.touch,
        )  # fmt: skip
        finish_mail(connection, mail)
        add_effects(connection, "d1", [(BounceEffectKind.TOUCH_BOUNCED, scene.touch, "hard")], at(21))
    lift(scene.context.engine, [ADA], audience, by="ada", why="a mistake", now=at(-20))
    story = await scene.story()
    assert sorted(entry.at for entry in story.timeline) == [entry.at for entry in story.timeline]
    kinds = [entry.kind for entry in story.timeline]
    ours = [kind.value for kind in kinds if kind not in (TimelineKind.KNOWN, TimelineKind.IMPORTED)]
    first = "joined event suppressed lifted due attempt unsubscribed replied returned effect suppressed"
    assert ours == first.split()
    by_kind = {entry.kind: entry for entry in story.timeline}
    attempt = by_kind[TimelineKind.ATTEMPT]
    assert (attempt.reply_code, attempt.enhanced_code, attempt.reply, attempt.attempt) == (452, "4.2.2", reply, 1)
    assert (attempt.blame, attempt.cause, attempt.next_at) == ("recipient", "mailbox full, so far", at(1))
    assert attempt.rule is not None
    assert "quota" in attempt.rule
    assert by_kind[TimelineKind.RETURNED].rule == "5.1.1"
    assert "x.csv" in by_kind[TimelineKind.IMPORTED].words
    assert "people" in by_kind[TimelineKind.IMPORTED].words
    assert by_kind[TimelineKind.EVENT].words == "Event paid (plan pro)."
    assert by_kind[TimelineKind.LIFTED].words == "The suppression was lifted by ada: a mistake."
    assert "hash of the address" in by_kind[TimelineKind.SUPPRESSED].words
    assert story.suppressed


async def test_a_rule_is_named_only_if_it_gives_the_recorded_cause(scene: Scene) -> None:
    await scene.enqueue()
    note = encode_result(
        DeliveryResult(state=TouchState.DEFERRED, cause="policy", reply_code=452, reply="452 mailbox full")
    )
    await scene.queue.settle("w", [(await scene.claim(), Defer(cause="x", delay_ms=60_000, note=note))])
    await scene.record()
    [attempt] = [entry for entry in (await scene.story()).timeline if entry.kind is TimelineKind.ATTEMPT]
    assert attempt.rule is None


async def test_overflow_and_ends_without_an_event_are_in_the_timeline(scene: Scene) -> None:
    scene.state(TouchState.PLANNED)
    with write(scene.context.engine) as connection:
        add_campaign(connection, name="other")
        row = connection.execute(sa.text("SELECT sender_id FROM campaign ORDER BY id")).scalars().all()
        assert assign_senders(connection, [NewSender(scene.touch, row[1], "caps")], row[0], MORNING) == 1
    scene.state(TouchState.CANCELLED, reply="replied")
    kinds = {entry.kind: entry.words for entry in (await scene.story()).timeline}
    assert "caps" in kinds[TimelineKind.OVERFLOW]
    assert kinds[TimelineKind.ENDED] == "Cancelled: replied."
    assert (await scene.story()).answer == "nothing is waiting"


async def test_a_message_id_and_a_touch_name_one_message(scene: Scene) -> None:
    with write(scene.context.engine) as connection:
        campaign, (step,) = add_campaign(connection, name="autumn")
        add_touch(connection, campaign, step, TouchState.DEAD, recipient_id=scene.recipient)
    token = scene.context.signer.sign(Purpose.MESSAGE_ID, scene.touch)
    for text in (f"<{token}@example.com>", f" {token.upper()}@example.com", str(scene.touch)):
        story = await tell_story(scene.context, text)
        assert [message.touch for message in story.messages] == [scene.touch]
        assert story.address == ADA
    assert len((await tell_story(scene.context, f"<{ADA}>")).messages) == 2
    assert [m.campaign for m in (await tell_story(scene.context, ADA, campaign="autumn")).messages] == ["autumn"]
    with pytest.raises(StateError, match="belongs to campaign spring"):
        await tell_story(scene.context, str(scene.touch), campaign="autumn")
    with pytest.raises(StateError, match="no campaign named"):
        await tell_story(scene.context, ADA, campaign="sprin")


async def test_a_forged_message_id_is_refused(scene: Scene) -> None:
    token = scene.context.signer.sign(Purpose.BOUNCE, scene.touch)
    for text in (f"<{token}@example.com>", f"1f-{'0' * 20}@example.com"):
        with pytest.raises(UsageError, match="not a Message-ID that this installation signed"):
            await tell_story(scene.context, text)
    for text in ("<>", "no address@", "ada", "", "1e3", "x" * 2000):
        with pytest.raises(UsageError):
            await tell_story(scene.context, text)


async def test_a_deleted_message_names_its_campaign(scene: Scene) -> None:
    with write(scene.context.engine) as connection:
        connection.execute(
            sa.text("INSERT INTO past_touch (id, campaign_id, recipient_id) VALUES (77, :campaign, :recipient)"),
            {"campaign": scene.campaign_id, "recipient": scene.recipient},
        )
    with pytest.raises(StateError, match="deleted after its retention"):
        await tell_story(scene.context, "77")
    with pytest.raises(StateError, match="no message with the id 78"):
        await tell_story(scene.context, "78")


async def test_only_a_typing_error_of_the_domain_is_suggested(scene: Scene) -> None:
    with write(scene.context.engine) as connection:
        for address in ("ad@gmail.com", "adb@gmail.com", "ada@mail.example", "ada@example.org"):
            add_recipient(connection, address)
    for wrong in ("ada@gmial.com", "ada@gmai.com", "ada@gmaill.com", "ada@gmail.con", "ada@ggmail.com"):
        with pytest.raises(StateError) as error:
            await tell_story(scene.context, wrong)
        assert error.value.remedy is not None
        assert f"'{ADA}'" in error.value.remedy
    for wrong in ("adc@gmail.com", "ada@exmple.com", "bob@gmial.com"):
        with pytest.raises(StateError) as error:
            await tell_story(scene.context, wrong)
        assert error.value.remedy is not None
        assert "Did you mean" not in error.value.remedy
        assert "audience refusals" in error.value.remedy


async def test_an_address_that_only_a_hash_knows_is_explained(scene: Scene) -> None:
    with write(scene.context.engine) as connection:
        suppress(connection, [scene.context.hash_of("bob@gmail.com")], SuppressionReason.COMPLAINT, "a loop", MORNING)
        suppress(connection, ["@blocked.example"], SuppressionReason.MANUAL, "a file", MORNING)
    for address, words in (("bob@gmail.com", "hash of the address"), ("x@blocked.example", "@blocked.example")):
        story = await tell_story(scene.context, address)
        assert (story.recipient, story.suppressed, story.messages) == (False, True, [])
        assert [words in entry.words for entry in story.timeline] == [True]


async def test_an_enrolment_that_waits_is_part_of_the_answer(scene: Scene) -> None:
    scene.state(TouchState.ACCEPTED)
    of = {"campaign_id": scene.campaign_id, "recipient_id": scene.recipient, "step_id": scene.step}
    with write(scene.context.engine) as connection:
        waiting = {**of, "state": "active", "entered_at": MORNING - HOUR, "since": MORNING, "due_at": MORNING + HOUR}
        connection.execute(sa.insert(Enrolment).values(**waiting))
        campaign, (step,) = add_campaign(connection, name="autumn")
        left = {
            "campaign_id": campaign, "recipient_id": scene.recipient, "step_id": step, "state": "exited",
            "why": "replied", "entered_at": MORNING - 3 * HOUR, "since": MORNING - 2 * HOUR,
            "goal_at": MORNING - 2 * HOUR,
        }  # fmt: skip
        connection.execute(sa.insert(Enrolment).values(**left))
    story = await scene.story()
    assert story.answer == (
        "the person waits at step-1 of campaign spring, until 2026-05-04 07:00:00 UTC at the earliest"
    )
    assert [(one.campaign, one.state.value, one.why) for one in story.enrolments] == [
        ("autumn", "exited", "replied"),
        ("spring", "active", None),
    ]
    words = {(entry.kind, entry.words) for entry in story.timeline if entry.campaign}
    assert (TimelineKind.LEFT, "Exited at step step-1: replied.") in words
    assert (TimelineKind.ENTERED, "Entered campaign spring.") in words
    assert (TimelineKind.GOAL, "Reached the goal of campaign autumn.") in words
    only = await tell_story(scene.context, ADA, campaign="autumn")
    assert [one.campaign for one in only.enrolments] == ["autumn"]


async def test_campaigns_whose_messages_were_deleted_are_named(scene: Scene) -> None:
    with write(scene.context.engine) as connection:
        audience, import_id = connection.execute(sa.text("SELECT audience_id, id FROM audience_import")).one()
        member = {"audience_id": audience, "recipient_id": scene.recipient, "import_id": import_id}
        connection.execute(sa.insert(AudienceMember).values(**member))
    assert (await scene.story()).deleted == []
    scene.set_campaign(emptied_at=MORNING)
    assert (await scene.story()).deleted == ["spring"]


async def test_more_than_a_hundred_messages_are_cut_to_the_newest(scene: Scene) -> None:
    with write(scene.context.engine) as connection:
        steps: tuple[dict[str, object], ...] = tuple({} for _ in range(101))
        campaign, step_ids = add_campaign(connection, name="long", steps=steps)
        touches = [
            add_touch(connection, campaign, step, TouchState.PLANNED, recipient_id=scene.recipient) for step in step_ids
        ]
    story = await scene.story()
    assert [message.touch for message in story.messages] == sorted(touches, reverse=True)[:100]
    assert story.more


async def test_the_story_is_json(scene: Scene) -> None:
    await CASES["shaped"].arrange(scene)
    story = await scene.story()
    assert msgspec.convert(json.loads(msgspec.json.encode(story)), type(story)) == story
    assert MORNING.tzinfo is UTC

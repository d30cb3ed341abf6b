"""The hours of a message are charged to causes that add up to the millisecond, whatever its history."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import example, given
from hypothesis import strategies as st

from postroad.campaign.holidays import HolidayCalendar
from postroad.explain.cause import DelayCause
from postroad.explain.charge import Charge, DelayInterval, charge, total_ms
from postroad.explain.intervals import TouchPast, delay_of
from postroad.settings.calendar import CalendarSettings
from postroad.settings.types import RateSetting
from postroad.store.campaign import CampaignState
from postroad.store.cohort import CohortEvidence, CohortPause
from postroad.store.dns_report import SenderHold
from postroad.store.ledger import TouchState
from postroad.store.shaping import ShapingChange
from postroad.store.touch_history import TouchEventRow
from postroad.store.touch_lookup import FoundTouch

DUE = datetime(2026, 3, 28, 20, tzinfo=UTC)  # In Berlin the clock jumps in this night.
RANK = list(DelayCause)

intervals = st.builds(
    DelayInterval,
    cause=st.sampled_from(DelayCause),
    detail=st.sampled_from(["", "a", "b"]),
    start_ms=st.integers(-20, 60),
    end_ms=st.integers(-20, 60),
)


@given(st.integers(0, 30), st.integers(0, 50), st.lists(intervals, max_size=12))
@example(0, 10, [DelayInterval(DelayCause.WINDOW, "", 0, 10), DelayInterval(DelayCause.DEFERRAL, "a", 3, 5)])
@example(5, 3, [DelayInterval(DelayCause.WINDOW, "", 0, 10)])
def test_each_millisecond_is_charged_to_the_first_cause(start: int, end: int, found: list[DelayInterval]) -> None:
    """Compared with a count of single milliseconds."""
    expected: Counter[tuple[DelayCause, str]] = Counter()
    for ms in range(start, end):
        holding = [one for one in found if one.start_ms <= ms < one.end_ms]
        first = min(holding, key=lambda one: (RANK.index(one.cause), one.detail), default=None)
        expected[(first.cause, first.detail) if first else (DelayCause.TURN, "")] += 1
    charges = charge(start, end, found)
    assert {(one.cause, one.detail): one.ms for one in charges} == dict(expected)
    assert total_ms(charges) == max(end - start, 0)


moments = st.integers(-3_600_000, 40 * 24 * 3_600_000).map(lambda ms: DUE + timedelta(milliseconds=ms))
maybe = st.none() | moments
events = st.builds(
    TouchEventRow,
    touch_id=st.just(1),
    state=st.sampled_from(TouchState),
    at=moments,
    attempt=st.integers(0, 9),
    reply_code=st.none(),
    enhanced_code=st.none(),
    reply=st.none(),
    cause=st.sampled_from([None, "greylisted, so far", "route down: refused", "resolved"]),
    blame=st.none(),
    next_at=maybe,
)
pauses = st.builds(
    CohortPause,
    step_id=st.just(1),
    source=st.just(""),
    provider=st.just("google"),
    evidence=st.sampled_from(CohortEvidence),
    reason=st.just("r"),
    at=moments,
    lifted_at=maybe,
)
holds = st.builds(
    SenderHold,
    sender=st.just("a@example.com"),
    reason=st.just("SPF"),
    failing_since=moments,
    held_at=maybe,
    ended_at=maybe,
)
changes = st.builds(
    ShapingChange,
    gate=st.just("sender:a@example.com"),
    rule=st.just("rule"),
    sender=st.just("a@example.com"),
    reply=st.just("421"),
    at=moments,
    ends_at=maybe,
    restored_at=maybe,
    suspended=st.just(True),
)
windows = st.sampled_from(
    [None, {"from": "09:00", "to": "17:00", "days": ["mon", "tue"]}, {"from": "22:00", "to": "00:00", "days": ["sun"]}]
)


@st.composite
def pasts(draw: st.DrawFn) -> TouchPast:
    state = draw(st.sampled_from(TouchState))
    touch = FoundTouch(
        id=1,
        step_id=1,
        state=state,
        due_at=DUE,
        next_at=draw(maybe),
        settled_at=draw(moments) if state.ended else None,
        reply=None,
        address="ada@gmail.com",
        zone=draw(st.sampled_from(["Europe/Berlin", "Asia/Kathmandu"])),
        campaign="spring",
        campaign_state=draw(st.sampled_from(CampaignState)),
        audience_id=1,
        warmup=False,
        sending_window=draw(windows),
        step="hello",
        sender="a@example.com",
        recipient_id=1,
        campaign_id=1,
        launched_at=draw(maybe),
        paused_at=draw(maybe),
        paused_by=draw(st.sampled_from([None, "ada"])),
        domain="gmail.com",
        provider="google",
        site=None,
        frequency=None,
    )
    history = sorted(draw(st.lists(events, max_size=8)), key=lambda event: event.at)
    return TouchPast(
        touch=touch,
        events=history,
        cohort_pauses=draw(st.lists(pauses, max_size=3)),
        holds=draw(st.lists(holds, max_size=3)),
        changes=draw(st.lists(changes, max_size=3)),
        warmups=[],
        cap=draw(st.none() | st.builds(RateSetting, count=st.integers(1, 3), per_ms=st.integers(1, 10 * 86_400_000))),
        counted=draw(st.lists(moments, max_size=5)),
    )


@given(pasts(), moments)
def test_charges_of_any_history_add_up_exactly(past: TouchPast, now: datetime) -> None:
    accepted = [event.at for event in past.events if event.state is TouchState.ACCEPTED]
    end = accepted[0] if accepted else past.touch.settled_at or now
    delays = delay_of(past, now)
    whole = (end - DUE) / timedelta(milliseconds=1)
    assert total_ms(delays) == max(round(whole), 0)
    assert all(one.ms > 0 and one.ms == int(one.ms) for one in delays)
    assert len({(one.cause, one.detail) for one in delays}) == len(delays)


def _past(**values: object) -> TouchPast:
    touch = FoundTouch(
        id=1, step_id=1, state=TouchState.ACCEPTED, due_at=DUE, next_at=None, settled_at=DUE + timedelta(hours=20),
        reply=None, address="ada@gmail.com", zone="Europe/Berlin", campaign="spring",
        campaign_state=CampaignState.RUNNING, audience_id=1, warmup=False, sending_window=None, step="hello",
        sender="a@example.com", recipient_id=1, campaign_id=1, launched_at=None, paused_at=None, paused_by=None,
        domain="gmail.com", provider="google", site=None, frequency=None,
    )._replace(**values)  # type: ignore[arg-type]  # fmt: skip
    return TouchPast(touch=touch, events=[], cohort_pauses=[], holds=[], changes=[], warmups=[])


def _charged(delays: list[Charge]) -> dict[DelayCause, float]:
    return {one.cause: one.ms / 3_600_000 for one in delays}


def _event(
    state: TouchState, hours: float, next_hours: float | None = None, cause: str = "greylisted, so far"
) -> TouchEventRow:
    next_at = None if next_hours is None else DUE + timedelta(hours=next_hours)
    return TouchEventRow(1, state, DUE + timedelta(hours=hours), 1, None, None, None, cause, None, next_at)


def test_a_night_is_charged_to_hours_deferral_pause_and_turn() -> None:
    window = {"from": "09:00", "to": "17:00", "days": ["sun"]}
    past = _past(sending_window=window, launched_at=DUE + timedelta(hours=1))
    past = past._replace(
        events=[_event(TouchState.DEFERRED, 12, 14), _event(TouchState.ACCEPTED, 16)],
        holds=[SenderHold(sender="a@example.com", reason="SPF", failing_since=DUE, held_at=DUE + timedelta(hours=15))],
    )
    # It is due at 21:00 in Berlin; at 02:00 the clock jumps, so that 09:00 is eleven hours later.
    assert _charged(delay_of(past, DUE)) == {
        DelayCause.CAMPAIGN_DRAFT: 1,
        DelayCause.WINDOW: 10,
        DelayCause.DEFERRAL: 2,
        DelayCause.SENDER_HOLD: 1,
        DelayCause.TURN: 2,
    }


def test_a_message_that_waited_for_a_decision_and_a_replay_is_charged_to_them() -> None:
    past = _past()._replace(
        events=[
            _event(TouchState.UNKNOWN, 2),
            _event(TouchState.QUEUED, 5, cause="resolved"),
            _event(TouchState.DEAD, 6, cause="policy"),
            _event(TouchState.ACCEPTED, 10),
        ]
    )
    assert _charged(delay_of(past, DUE)) == {DelayCause.TURN: 3, DelayCause.UNKNOWN: 3, DelayCause.DEAD: 4}


def test_a_frequency_cap_is_charged_while_so_many_messages_are_within_its_span() -> None:
    """Two messages in ten hours: the ones before it are accepted one hour before, and one and twelve hours after."""
    counted = [DUE + timedelta(hours=hours) for hours in (-1, 1, 12)]
    past = _past()._replace(cap=RateSetting(count=2, per_ms=10 * 3_600_000), counted=counted)
    # From the second one on until the first leaves the span; the third is alone in it until the second has left.
    assert _charged(delay_of(past, DUE)) == {DelayCause.FREQUENCY: 8, DelayCause.TURN: 12}


@given(
    st.lists(st.integers(0, 40), max_size=8),
    st.integers(1, 3),
    st.integers(1, 20),
)
def test_a_frequency_cap_is_charged_exactly_when_it_holds(settled: list[int], count: int, span: int) -> None:
    """Compared with the rule of the admission at each hour."""
    counted = [DUE + timedelta(hours=hours) for hours in settled]
    past = _past()._replace(cap=RateSetting(count=count, per_ms=span * 3_600_000), counted=counted)
    held = sum(sum(hour - span < at <= hour for at in settled) >= count for hour in range(20))
    assert _charged(delay_of(past, DUE)).get(DelayCause.FREQUENCY, 0) == held


def test_a_bounce_after_the_acceptance_adds_no_delay() -> None:
    past = _past(state=TouchState.BOUNCED)._replace(events=[_event(TouchState.ACCEPTED, 1)])
    assert _charged(delay_of(past, DUE)) == {DelayCause.TURN: 1}


def test_the_zone_of_the_recipient_decides_which_hours_are_closed() -> None:
    window = {"from": "09:00", "to": "17:00", "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]}
    for zone in ("Europe/Berlin", "America/New_York"):
        past = _past(sending_window=window, zone=zone, settled_at=DUE + timedelta(hours=24))
        open_hours = sum(
            9 <= (DUE + timedelta(minutes=minute)).astimezone(ZoneInfo(zone)).hour < 17 for minute in range(24 * 60)
        )
        assert _charged(delay_of(past, DUE))[DelayCause.TURN] == open_hours / 60


def test_holidays_are_charged_apart_from_hours() -> None:
    """The message is due on Saturday evening; Sunday is off, and the hours begin on Monday at nine."""
    days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    window = {"from": "09:00", "to": "17:00", "days": days, "holidays": True}
    past = _past(sending_window=window, settled_at=DUE + timedelta(hours=40))._replace(
        calendar=HolidayCalendar(CalendarSettings(days_off=["2026-03-29"]))
    )
    # 21:00 to midnight, then a day of 23 hours, then until nine; the rest is open.
    assert _charged(delay_of(past, DUE)) == {
        DelayCause.WINDOW: 3 + 9,
        DelayCause.HOLIDAY: 23,
        DelayCause.TURN: 40 - 3 - 23 - 9,
    }

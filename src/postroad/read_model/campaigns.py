"""Who of a campaign is where: the parts of its audience, which sum to it, and the messages of each part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from msgspec import Struct

from postroad.campaign.status import CampaignSummary, campaign_summary
from postroad.errors import unknown_name
from postroad.read_model.page import DEFAULT_LIMIT, Page, checked_limit, decode_cursor, encode_cursor, to_page
from postroad.read_model.receivers import TrafficWindow, window_start
from postroad.store.campaign import CampaignState, StepKind, find_campaign, steps_of
from postroad.store.enrolment import EnrolmentState, ExitReason
from postroad.store.keyset import LAST_ID, keyset_sql
from postroad.store.ledger import TouchState
from postroad.store.step_page import EnrolmentRow, enrolment_ids_in_state, enrolments_by_ids, touch_ids_in_state
from postroad.store.touch_lookup import FoundTouch, touches_by_ids
from postroad.store.traffic import CampaignHour, traffic_of_campaign
from postroad.store.types import UtcDateTime

Row = TypeVar("Row", FoundTouch, EnrolmentRow)


class AudiencePart(Struct, frozen=True, kw_only=True):
    """Recipients of one part of an audience.

    ``touch``: the state of their first message, in a campaign without enrolments. ``enrolment`` and ``why``: the state
    of their enrolments, and why they exited.
    """

    recipients: int
    touch: TouchState | None = None
    enrolment: EnrolmentState | None = None
    why: ExitReason | None = None


class CampaignParts(Struct, frozen=True, kw_only=True):
    """A campaign, and the parts of its audience: their sum is the audience of the summary."""

    summary: CampaignSummary
    parts: Sequence[AudiencePart]


def campaign_parts(connection: sa.Connection, name: str) -> CampaignParts:
    """Return a campaign and the parts of its audience.

    Args:
        connection: A connection in a transaction.
        name: Name of the campaign.

    Returns:
        The parts, without empty ones.

    Raises:
        StateError: No campaign has this name.
    """
    summary = campaign_summary(connection, find_campaign(connection, name))
    if summary.journey is None:
        counts = summary.steps[0].counts if summary.steps else {}
        parts = [AudiencePart(touch=state, recipients=number) for state, number in counts.items()]
    else:
        journey = summary.journey
        parts = [
            AudiencePart(enrolment=EnrolmentState.ACTIVE, recipients=journey.active),
            AudiencePart(enrolment=EnrolmentState.COMPLETED, recipients=journey.completed),
            *(
                AudiencePart(enrolment=EnrolmentState.EXITED, why=why, recipients=number)
                for why, number in journey.exited.items()
            ),
        ]
    return CampaignParts(summary=summary, parts=[part for part in parts if part.recipients])


class CampaignLine(Struct, frozen=True, kw_only=True):
    """A campaign in the list of campaigns, with its messages by state. States without messages are missing."""

    name: str
    state: CampaignState
    launched_at: datetime | None
    finished_at: datetime | None
    touches: dict[TouchState, int]


def campaign_touches(
    connection: sa.Connection,
    name: str,
    *,
    state: TouchState,
    step: str | None = None,
    after: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[FoundTouch]:
    """Return the messages of a campaign in a state, step by step, in the order of their ids.

    Args:
        connection: A connection in a transaction.
        name: Name of the campaign.
        state: State of the messages.
        step: Name of a step; None: all steps.
        after: The cursor of the page before; None: the first page.
        limit: Rows of the page.

    Returns:
        The page.

    Raises:
        StateError: There is no such campaign, or no such email step.
        UsageError: The cursor is not one of this list.
    """
    steps = step_ids(connection, name, step, only_emails=True)

    def ids(step_id: int, after_id: int, number: int) -> list[int]:
        return touch_ids_in_state(connection, step_id, state, after=after_id, limit=number)

    return _page(steps, ids, lambda found: touches_by_ids(connection, found), after, checked_limit(limit))


def journey_recipients(
    connection: sa.Connection,
    name: str,
    *,
    state: EnrolmentState,
    why: ExitReason | None = None,
    step: str | None = None,
    after: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[EnrolmentRow]:
    """Return the enrolments of a journey in a state, step by step, in the order of their ids.

    Args:
        connection: A connection in a transaction.
        name: Name of the campaign.
        state: State of the enrolments.
        why: Why they exited; None for other states.
        step: Name of a step; None: all steps.
        after: The cursor of the page before; None: the first page.
        limit: Rows of the page.

    Returns:
        The page.

    Raises:
        StateError: There is no such campaign or step.
        UsageError: The cursor is not one of this list.
    """
    steps = step_ids(connection, name, step, only_emails=False)

    def ids(step_id: int, after_id: int, number: int) -> list[int]:
        return enrolment_ids_in_state(connection, step_id, state, why, after=after_id, limit=number)

    return _page(steps, ids, lambda found: enrolments_by_ids(connection, found), after, checked_limit(limit))


def step_ids(connection: sa.Connection, name: str, step: str | None, *, only_emails: bool) -> list[int]:
    """Return the ids of a campaign's steps, or of the one with this name.

    Args:
        connection: A connection in a transaction.
        name: Name of the campaign.
        step: Name of a step; None: all steps.
        only_emails: Whether to leave out other kinds of steps.

    Returns:
        The ids, in the order of the steps.

    Raises:
        StateError: There is no such campaign or step.
    """
    campaign = find_campaign(connection, name)
    steps = {
        each.name: each.id or 0
        for each in steps_of(connection, campaign.id or 0)
        if each.kind is StepKind.EMAIL or not only_emails
    }
    if step is None:
        return list(steps.values())
    if step not in steps:
        fault = unknown_name(f"step of {name}", step, steps, listed_by=f"postroad campaign status {name}")
        raise fault
    return [steps[step]]


def _page(
    steps: Sequence[int],
    ids: Callable[[int, int, int], list[int]],
    rows: Callable[[Sequence[int]], Sequence[Row]],
    after: str | None,
    limit: int,
) -> Page[Row]:
    """Return a page of rows, step by step. ``ids``: takes a step, the id before the first one, and a number."""
    place, after_id = decode_cursor(after, tuple[int, int], (0, 0))
    keys: list[tuple[int, int]] = []
    for number, step_id in _from(steps, place):
        keys += [(number, id_) for id_ in ids(step_id, after_id, limit + 1 - len(keys))]
        after_id = 0
        if len(keys) > limit:
            break
    shown = keys[:limit]
    found = {row.id: row for row in rows([id_ for _, id_ in shown])} if shown else {}
    listed = [found[id_] for _, id_ in shown if id_ in found]
    return Page(rows=listed, next=encode_cursor(shown[-1]) if len(keys) > limit else None)


def _from(steps: Sequence[int], place: int) -> Iterator[tuple[int, int]]:
    """Yield place and id of each step from a place on."""
    yield from ((number, step_id) for number, step_id in enumerate(steps) if number >= place)


def campaign_traffic(connection: sa.Connection, name: str, now: datetime, window: TrafficWindow) -> list[CampaignHour]:
    """Return the outcomes of a campaign by hour, in order; hours without any are missing.

    Args:
        connection: A connection in a transaction.
        name: Name of the campaign.
        now: The time.
        window: How far back.

    Raises:
        StateError: No campaign has this name.
    """
    campaign = find_campaign(connection, name)
    return traffic_of_campaign(connection, campaign.id or 0, window_start(window, now))


def campaign_lines(
    connection: sa.Connection,
    *,
    state: CampaignState | None = None,
    after: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[CampaignLine]:
    """Return campaigns, the newest first, without those of warmups to seed lists.

    Args:
        connection: A connection in a transaction.
        state: Only campaigns in this state; None: in any.
        after: The cursor of the page before; None: the first page.
        limit: Rows of the page.

    Returns:
        The page.

    Raises:
        UsageError: The cursor is not one of this list.
    """
    limit, before = checked_limit(limit), decode_cursor(after, int, LAST_ID)
    values = {"after_id": before, "limit": limit + 1, "state": state.value if state is not None else None}
    if state is None:
        where, order_by = "id < :after_id", "id DESC"
    else:
        where, order_by = keyset_sql(connection, equal=("state",), key=("id",), descending=True)
    statement = sa.text(f"{_CAMPAIGNS} AND {where} ORDER BY {order_by} LIMIT :limit").columns(*_CAMPAIGN_COLUMNS)
    rows = connection.execute(statement, values).all()
    page = to_page(rows, limit, lambda row: row.id)
    touches = _touches_of(connection, [row.id for row in page.rows])
    lines = [
        CampaignLine(
            name=row.name,
            state=CampaignState(row.state),
            launched_at=row.launched_at,
            finished_at=row.finished_at,
            touches=touches.get(row.id, {}),
        )
        for row in page.rows
    ]
    return Page(rows=lines, next=page.next)


def _touches_of(connection: sa.Connection, campaign_ids: Sequence[int]) -> dict[int, dict[TouchState, int]]:
    """Return the numbers of messages of campaigns by state. States without messages are missing."""
    statement = sa.text(
        "SELECT step.campaign_id, touch_count.state, sum(touch_count.touches) AS n FROM step "
        "JOIN touch_count ON touch_count.step_id = step.id WHERE step.campaign_id IN :ids "
        "GROUP BY step.campaign_id, touch_count.state HAVING sum(touch_count.touches) <> 0"
    ).bindparams(sa.bindparam("ids", list(campaign_ids), expanding=True))
    touches: dict[int, dict[TouchState, int]] = {}
    for row in connection.execute(statement):
        touches.setdefault(row.campaign_id, {})[TouchState(row.state)] = int(row.n)
    return touches


def campaign_states(connection: sa.Connection) -> list[CampaignState]:
    """Return the states in which there are campaigns, without those of warmups to seed lists."""
    statement = sa.text("SELECT 1 FROM campaign WHERE NOT warmup AND state = :state LIMIT 1")
    return [
        state for state in CampaignState if connection.execute(statement, {"state": state.value}).first() is not None
    ]


_CAMPAIGNS = "SELECT id, name, state, launched_at, finished_at FROM campaign WHERE NOT warmup"
_CAMPAIGN_COLUMNS: tuple[sa.ColumnClause[Any], ...] = (
    sa.column("id", sa.Integer()),
    sa.column("name", sa.Text()),
    sa.column("state", sa.Text()),
    *(sa.column(name, UtcDateTime()) for name in ("launched_at", "finished_at")),
)

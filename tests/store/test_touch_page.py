"""A page of a campaign's touches costs the same in any ledger, on a database that has never seen an ANALYZE."""

from __future__ import annotations

import sqlalchemy as sa

from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.touch_page import PAGE, touch_page, touch_pages
from postroad.store.types import UtcDateTime
from tests.store.effort import effort_of
from tests.store.large import add_large_campaign
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch

SMALL, LARGE = 3_000, 30_000


def test_pages_hold_every_touch_once(engine: sa.Engine) -> None:
    with write(engine) as connection:
        campaign, [step] = add_campaign(connection)
        touches = {add_touch(connection, campaign, step, state) for state in TouchState}
        other, [first, second] = add_campaign(connection, steps=({}, {}))
        add_touch(connection, other, first, TouchState.QUEUED)
        add_touch(connection, other, second, TouchState.SENDING)
    assert {touch.id for page in touch_pages(engine, campaign) for touch in page} == touches
    assert [[touch.state for touch in page] for page in touch_pages(engine, other)] == [["queued"], ["sending"]]


def test_a_page_costs_the_same_in_a_larger_campaign(engine: sa.Engine) -> None:
    efforts = []
    for number in (SMALL, LARGE):
        with write(engine) as connection:
            campaign, [step, _] = add_large_campaign(connection, number, TouchState.QUEUED)
        with read(engine) as connection:
            for after in (0, number - PAGE):
                with effort_of(connection) as effort:
                    assert len(touch_page(connection, campaign, step, after=after)) == PAGE
                efforts.append(effort.count)
    assert max(efforts) <= 1.3 * min(efforts)


def test_pages_hold_every_requested_touch_of_one_recipient(engine: sa.Engine) -> None:
    with write(engine) as connection:
        campaign, [step] = add_campaign(connection)
        recipient = add_recipient(connection)
        insert = sa.text(
            "INSERT INTO touch (campaign_id, step_id, recipient_id, request_id, state, due_at, claim) "
            "VALUES (:campaign, :step, :recipient, :request, 'queued', :now, 0)"
        ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
        values = {"campaign": campaign, "step": step, "recipient": recipient, "now": NOW}
        connection.execute(insert, [{**values, "request": number} for number in range(PAGE + 5)])
        other = add_touch(connection, campaign, step, TouchState.QUEUED)
    pages = list(touch_pages(engine, campaign))
    assert [len(page) for page in pages] == [PAGE, 6]
    assert len({touch.id for page in pages for touch in page}) == PAGE + 6
    assert pages[-1][-1].id == other

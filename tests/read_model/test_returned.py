"""Returned mail: each number of returned mails has a list that sums to it, and a mail has its text and effects."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from postroad.read_model.returned import SHOWN_BYTES, returned_counts, returned_mail, returned_mails
from postroad.store.bounce import BounceEffectKind, BounceMail, add_effects, finish_mail, save_mail
from postroad.store.engine import read, write
from postroad.store.returned_page import ReturnedRow
from tests.read_model.world import all_rows
from tests.store.effort import effort_of
from tests.store.large import series
from tests.store.outcomes import add_sent_touches
from tests.store.rows import NOW

SINCE = NOW - timedelta(days=7)


def add_mail(
    connection: sa.Connection,
    number: int,
    verdict: str | None,
    rule: str | None,
    at: datetime,
    touch: int | None = None,
) -> str:
    digest = f"{number:064x}"
    mail = BounceMail(
        digest=digest, received_at=at, source="smtp", mail_from="", recipient="b@example.com", raw=b"Hi \xff"
    )
    assert save_mail(connection, mail)
    if verdict is not None:
        mail.processed_at, mail.kind, mail.verdict, mail.rule, mail.touch_id = at, "dsn", verdict, rule, touch
        finish_mail(connection, mail)
    return digest


def test_each_number_has_a_list_that_sums_to_it(engine: sa.Engine) -> None:
    with write(engine) as connection:
        touches = add_sent_touches(connection, "one.example", 3)
        number = 0
        for verdict, rule, mails in (
            ("hard", "no such user", 5),
            ("hard", "domain", 2),
            ("soft", None, 4),
            (None, None, 1),
        ):
            for n in range(mails):
                add_mail(connection, number, verdict, rule, NOW - timedelta(hours=n % 2), touches[n % 3] if n else None)
                number += 1
        add_mail(connection, 99, "hard", "no such user", SINCE - timedelta(seconds=1))
    with read(engine) as connection:
        counts = returned_counts(connection, SINCE)
        assert [(c.verdict, c.rule, c.mails) for c in counts] == [
            ("hard", "no such user", 5),
            ("soft", "", 4),
            ("hard", "domain", 2),
        ]
        of_counts = [(count.verdict, count.rule, count.mails) for count in counts]
        lists: list[tuple[str, str | None, int]] = [*of_counts, ("hard", None, 7)]
        rows: list[ReturnedRow] = []
        for of_verdict, of_rule, number in lists:
            rows = all_rows(
                lambda after, verdict=of_verdict, rule=of_rule: returned_mails(  # type: ignore[misc]
                    connection, NOW, verdict=verdict, rule=rule, since=SINCE, after=after, limit=2
                )
            )
            assert len({row.digest for row in rows}) == len(rows) == number
            assert [row.received_at for row in rows] == sorted((row.received_at for row in rows), reverse=True)
            assert {row.verdict for row in rows} == {of_verdict}
        assert {row.campaign is None for row in rows} == {True, False}


def test_a_mail_has_its_text_its_message_and_its_effects(engine: sa.Engine) -> None:
    with write(engine) as connection:
        [touch] = add_sent_touches(connection, "one.example", 1)
        digest = add_mail(connection, 1, "hard", "no such user", NOW, touch)
        add_effects(connection, digest, [(BounceEffectKind.TOUCH_BOUNCED, touch, "was sending")], NOW)
        large = save_mail(connection, BounceMail(digest="x", received_at=NOW, source="smtp", raw=b"y" * 100_000))
        assert large
    with read(engine) as connection:
        found = returned_mail(connection, digest)
        assert found is not None
        assert (found.text, found.octets, found.touch.id if found.touch else 0) == ("Hi \ufffd", 4, touch)
        assert [(one.effect, one.detail) for one in found.effects] == [(BounceEffectKind.TOUCH_BOUNCED, "was sending")]
        cut = returned_mail(connection, "x")
        assert cut is not None
        assert (len(cut.text or ""), cut.octets, cut.touch) == (SHOWN_BYTES, 100_000, None)
        assert returned_mail(connection, "unknown") is None


def test_reads_of_a_period_cost_the_same_among_older_mails(engine: sa.Engine) -> None:
    efforts = []
    old = "2020-01-01 00:00:00.000000"
    with write(engine) as connection:
        for n in range(60):
            add_mail(connection, n, "hard", "no such user", NOW)
    for first, last in ((1, 2_000), (2_001, 20_000)):
        with write(engine) as connection:
            connection.execute(
                sa.text(
                    "INSERT INTO bounce_mail (digest, received_at, source, processed_at, verdict, rule) "
                    f"SELECT 'old' || n, '{old}', 'smtp', '{old}', 'hard', 'no such user' "
                    f"FROM {series(connection, first, last)}"
                )
            )
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("ANALYZE"))
        with read(engine) as connection, effort_of(connection) as effort:
            assert [count.mails for count in returned_counts(connection, SINCE)] == [60]
            page = returned_mails(connection, NOW, verdict="hard", rule="no such user", since=SINCE)
            assert len(page.rows) == 50
        efforts.append(effort.count)
    assert efforts[1] <= max(1.3 * efforts[0], efforts[0] + 150)

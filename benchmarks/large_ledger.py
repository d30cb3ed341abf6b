"""A ledger of any size, made by the database itself: an old campaign that grows, and a new one that sends."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlmodel import Session

from postroad.store.campaign import Campaign, CampaignState, Sender, Step, StepKind
from postroad.store.engine import read, write
from postroad.store.recipient import Audience, AudienceImport

NOW = datetime(2026, 5, 4, 8, 30, tzinfo=UTC)
_AT = "2026-05-04 08:30:00.000000"
EMAIL = {"subject": "Hello", "text": "Hello. {{ unsubscribe_url }} {{ postal_address }}", "html": None, "at": None}


@dataclass(frozen=True)
class LargeLedger:
    """What operations are tried on. ``size``: recipients, touches of the old campaign, events, suppressions."""

    engine: sa.Engine
    size: int
    audience_id: int
    import_id: int
    sender_id: int

    def campaign(self, name: str, state: CampaignState, *, steps: int = 1) -> tuple[int, list[int]]:
        """Add a campaign to the whole audience. Returns its id and those of its email steps."""
        with write(self.engine) as connection:
            launched = None if state is CampaignState.DRAFT else NOW
            campaign = Campaign(
                name=name,
                state=state,
                audience_id=self.audience_id,
                sender_id=self.sender_id,
                time_zone="UTC",
                created_at=NOW,
                launched_at=launched,
                finished_at=NOW if state is CampaignState.FINISHED else None,
            )
            session = Session(connection)
            session.add(campaign)
            session.flush()
            campaign_id = campaign.id or 0
            made = [
                Step(campaign_id=campaign_id, position=n, name=f"step-{n}", kind=StepKind.EMAIL, settings=EMAIL)
                for n in range(1, steps + 1)
            ]
            session.add_all(made)
            session.flush()
            return campaign_id, [step.id or 0 for step in made]

    def touches(
        self, campaign_id: int, step_id: int, state: str, first: int, last: int, *, follow_up: bool = False
    ) -> None:
        """Add a touch for each of the recipients from first to last."""
        settled = f"'{_AT}'" if state in {"accepted", "bounced"} else "NULL"
        self._execute(
            "INSERT INTO touch (campaign_id, step_id, recipient_id, state, due_at, claim, settled_at, follow_up) "
            f"SELECT {campaign_id}, {step_id}, n, '{state}', '{_AT}', 0, {settled}, {str(follow_up).lower()} FROM",
            first,
            last,
        )

    def enrolments(self, campaign_id: int, step_id: int, state: str, first: int, last: int) -> None:
        """Add an enrolment for each of the recipients from first to last."""
        self._execute(
            "INSERT INTO enrolment (campaign_id, recipient_id, state, step_id, entered_at, since) "
            f"SELECT {campaign_id}, n, '{state}', {step_id}, '{_AT}', '{_AT}' FROM",
            first,
            last,
        )

    def bytes(self) -> int:
        """Return the size of the database."""
        size = "pg_database_size(current_database())"
        if self.engine.dialect.name == "sqlite":
            size = "page_count * page_size FROM pragma_page_count(), pragma_page_size()"
        with read(self.engine) as connection:
            return int(connection.execute(sa.text(f"SELECT {size}")).scalar_one())

    def analyse(self) -> None:
        """Leave the database as its own maintenance does."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            sqlite = self.engine.dialect.name == "sqlite"
            connection.execute(sa.text("ANALYZE" if sqlite else "VACUUM ANALYZE"))

    def _execute(self, insert: str, first: int, last: int) -> None:
        with write(self.engine) as connection:
            connection.execute(sa.text(f"{insert} {_series(connection, first, last)}"))


def insert_series(engine: sa.Engine, table: str, insert: str, last: int) -> None:
    """Run an INSERT … SELECT … FROM for each number n from 1 to ``last``, on PostgreSQL without checks of foreign keys.

    The counts of the table are kept.
    """
    with write(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text(f"ALTER TABLE {table} DISABLE TRIGGER ALL, ENABLE TRIGGER USER"))
        connection.execute(sa.text(f"{insert} {_series(connection, 1, last)}"))
    if engine.dialect.name == "postgresql":
        with write(engine) as connection:
            connection.execute(sa.text(f"ALTER TABLE {table} ENABLE TRIGGER ALL"))


def _series(connection: sa.Connection, first: int, last: int) -> str:
    if connection.dialect.name == "postgresql":
        return f"generate_series({first}, {last}) AS s(n)"
    counted = f"SELECT {first} UNION ALL SELECT n + 1 FROM s WHERE n < {last}"
    return f"(WITH RECURSIVE s(n) AS ({counted}) SELECT n FROM s WHERE n <= {last}) AS s"


def large_ledger(engine: sa.Engine, size: int) -> LargeLedger:
    """Fill an empty database: so many recipients, suppressions, and touches of a campaign that is over, with events."""
    with write(engine) as connection:
        session = Session(connection)
        audience = Audience(name="everyone", created_at=NOW)
        sender = Sender(
            name="news",
            address="news@example.com",
            display_name="News",
            postal_address="1 High Street, Springfield",
            route="relay",
        )
        session.add_all([audience, sender])
        session.flush()
        brought = AudienceImport(
            audience_id=audience.id or 0, path="x.csv", sha256="0" * 64, rows_total=0, started_at=NOW, finished_at=NOW
        )
        session.add(brought)
        session.flush()
        ledger = LargeLedger(engine, size, audience.id or 0, brought.id or 0, sender.id or 0)
    ledger._execute(
        "INSERT INTO recipient (address, domain, attributes, created_at) SELECT "
        f"'r' || n || '@d' || (n % 97) || '.example', 'd' || (n % 97) || '.example', '{{}}', '{_AT}' FROM",
        1,
        size,
    )
    ledger._execute(
        "INSERT INTO audience_member (audience_id, recipient_id, import_id) "
        f"SELECT {ledger.audience_id}, n, {ledger.import_id} FROM",
        1,
        size,
    )
    ledger._execute(
        "INSERT INTO suppression (address, audience_id, reason, source, created_at, number) "
        f"SELECT 'gone' || n || '@else.example', 0, 'manual', 'test', '{_AT}', n FROM",
        1,
        size,
    )
    if engine.dialect.name == "postgresql":
        with write(engine) as connection:
            connection.execute(sa.text("SELECT setval('suppression_number', :size)"), {"size": size})
    old, [step] = ledger.campaign("old", CampaignState.FINISHED)
    ledger.touches(old, step, "accepted", 1, size)
    ledger._execute(
        "INSERT INTO delivery_event (uid, touch_id, state, at, attempt) "
        f"SELECT 'old:' || n, (SELECT min(id) FROM touch) + n - 1, 'accepted', '{_AT}', 1 FROM",
        1,
        size,
    )
    return ledger

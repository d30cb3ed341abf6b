"""Enrolments in journeys, with their counts; campaigns with an entry, an exit and a goal."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import BIG_ID, JSON_OBJECT, UtcDateTime

revision = "0028"
down_revision = "0027"

_KEY = "step_id, state, why, goal"
_NEW = "NEW.step_id, NEW.state, COALESCE(NEW.why, ''), NEW.goal_at IS NOT NULL"
_ADD = (
    f"INSERT INTO enrolment_count ({_KEY}, slot, enrolments) VALUES ({_NEW}, 0, 1) "
    f"ON CONFLICT ({_KEY}, slot) DO UPDATE SET enrolments = enrolments + 1; "
)
# One statement for each row on SQLite, one for each statement on PostgreSQL.
_SQLITE = (
    f"CREATE TRIGGER count_new_enrolment AFTER INSERT ON enrolment BEGIN {_ADD} END",
    (
        "CREATE TRIGGER count_moved_enrolment AFTER UPDATE OF step_id, state, why, goal_at ON enrolment "
        "WHEN OLD.step_id <> NEW.step_id OR OLD.state <> NEW.state OR OLD.why IS NOT NEW.why "
        "OR (OLD.goal_at IS NULL) <> (NEW.goal_at IS NULL) BEGIN "
        "UPDATE enrolment_count SET enrolments = enrolments - 1 WHERE step_id = OLD.step_id AND state = OLD.state "
        "AND why = COALESCE(OLD.why, '') AND goal = (OLD.goal_at IS NOT NULL) AND slot = 0; "
        f"{_ADD} END"
    ),
)

_COUNT = """
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO enrolment_count AS counted (step_id, state, why, goal, slot, enrolments)
  SELECT step_id, state, why, goal, pg_backend_pid(), sum(n) FROM ({moved}) AS moved
  GROUP BY step_id, state, why, goal HAVING sum(n) <> 0 ORDER BY step_id, state, why, goal
  ON CONFLICT (step_id, state, why, goal, slot) DO UPDATE SET enrolments = counted.enrolments + excluded.enrolments;
  RETURN NULL;
END $$
"""
_ROWS = (
    "SELECT step_id, state, COALESCE(why, '') AS why, goal_at IS NOT NULL AS goal, {n} AS n FROM {rows} "
    "GROUP BY step_id, state, COALESCE(why, ''), goal_at IS NOT NULL"
)
_ARRIVED = _ROWS.format(n="count(*)", rows="new_rows")
_LEFT = _ROWS.format(n="-count(*)", rows="old_rows")

_POSTGRESQL = (
    _COUNT.format(name="count_new_enrolments", moved=_ARRIVED),
    _COUNT.format(name="count_moved_enrolments", moved=f"{_ARRIVED} UNION ALL {_LEFT}"),
    (
        "CREATE TRIGGER count_new_enrolments AFTER INSERT ON enrolment REFERENCING NEW TABLE AS new_rows "
        "FOR EACH STATEMENT EXECUTE FUNCTION count_new_enrolments()"
    ),
    (
        "CREATE TRIGGER count_moved_enrolments AFTER UPDATE ON enrolment REFERENCING OLD TABLE AS old_rows "
        "NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION count_moved_enrolments()"
    ),
)


def _index(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def upgrade() -> None:
    op.create_table(
        "enrolment",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("campaign_id", BIG_ID, sa.ForeignKey("campaign.id"), nullable=False),
        sa.Column("recipient_id", BIG_ID, sa.ForeignKey("recipient.id"), nullable=False),
        sa.Column("state", sa.String(24), nullable=False),
        sa.Column("step_id", BIG_ID, sa.ForeignKey("step.id"), nullable=False),
        sa.Column("entered_at", UtcDateTime(), nullable=False),
        sa.Column("since", UtcDateTime(), nullable=False),
        sa.Column("due_at", UtcDateTime()),
        sa.Column("why", sa.String(24)),
        sa.Column("goal_at", UtcDateTime()),
        sa.UniqueConstraint("campaign_id", "recipient_id"),
    )
    active = "state = 'active'"
    _index("ix_enrolment_due", "enrolment", ["campaign_id", "due_at", "id"], f"{active} AND due_at IS NOT NULL")
    _index("ix_enrolment_recipient", "enrolment", ["recipient_id"], active)
    op.create_table(
        "enrolment_count",
        sa.Column("step_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(24), nullable=False),
        sa.Column("why", sa.String(24), nullable=False),
        sa.Column("goal", sa.Boolean(), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("enrolments", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("step_id", "state", "why", "goal", "slot"),
    )
    for statement in _SQLITE if op.get_bind().dialect.name == "sqlite" else _POSTGRESQL:
        op.execute(statement)

    op.add_column("touch", sa.Column("enrolled", sa.Boolean(), nullable=False, server_default=sa.false()))
    failed = "enrolled AND state IN ('bounced', 'suppressed', 'cancelled', 'expired', 'dead', 'unknown')"
    _index("ix_touch_failed", "touch", ["campaign_id", "id"], failed)
    op.add_column("campaign", sa.Column("journey", JSON_OBJECT, nullable=True))
    op.add_column("campaign", sa.Column("goal_cursor", sa.BigInteger(), nullable=False, server_default=sa.text("0")))

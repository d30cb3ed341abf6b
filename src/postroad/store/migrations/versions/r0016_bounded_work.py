"""Counts of touches and indexes of what is left to do, so that no statement reads a whole ledger while mail flows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import UtcDateTime

revision = "0016"
down_revision = "0015"

# One statement for each row on SQLite, one for each statement on PostgreSQL.
_SQLITE = (
    (
        "CREATE TRIGGER count_made_touch AFTER INSERT ON touch BEGIN "
        "INSERT INTO touch_count (step_id, state, slot, touches) VALUES (NEW.step_id, NEW.state, 0, 1) "
        "ON CONFLICT (step_id, state, slot) DO UPDATE SET touches = touches + 1; END"
    ),
    (
        "CREATE TRIGGER count_moved_touch AFTER UPDATE OF state ON touch WHEN OLD.state <> NEW.state BEGIN "
        "UPDATE touch_count SET touches = touches - 1 WHERE step_id = OLD.step_id AND state = OLD.state AND slot = 0; "
        "INSERT INTO touch_count (step_id, state, slot, touches) VALUES (NEW.step_id, NEW.state, 0, 1) "
        "ON CONFLICT (step_id, state, slot) DO UPDATE SET touches = touches + 1; END"
    ),
)

_COUNT = """
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO touch_count AS counted (step_id, state, slot, touches)
  SELECT step_id, state, pg_backend_pid(), sum(n) FROM ({moved}) AS moved
  GROUP BY step_id, state HAVING sum(n) <> 0 ORDER BY step_id, state
  ON CONFLICT (step_id, state, slot) DO UPDATE SET touches = counted.touches + excluded.touches;
  RETURN NULL;
END $$
"""
_ARRIVED = "SELECT step_id, state, count(*) AS n FROM new_rows GROUP BY step_id, state"
_LEFT = "SELECT step_id, state, -count(*) FROM old_rows GROUP BY step_id, state"

_POSTGRESQL = (
    _COUNT.format(name="count_made_touches", moved=_ARRIVED),
    _COUNT.format(name="count_moved_touches", moved=f"{_ARRIVED} UNION ALL {_LEFT}"),
    (
        "CREATE TRIGGER count_made_touches AFTER INSERT ON touch REFERENCING NEW TABLE AS new_rows "
        "FOR EACH STATEMENT EXECUTE FUNCTION count_made_touches()"
    ),
    (
        "CREATE TRIGGER count_moved_touches AFTER UPDATE ON touch REFERENCING OLD TABLE AS old_rows "
        "NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION count_moved_touches()"
    ),
)


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    op.create_table(
        "touch_count",
        sa.Column("step_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(24), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("touches", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("step_id", "state", "slot"),
    )
    op.execute(
        "INSERT INTO touch_count (step_id, state, slot, touches) "
        "SELECT step_id, state, 0, count(*) FROM touch GROUP BY step_id, state"
    )

    op.add_column("touch", sa.Column("follow_up", sa.Boolean(), nullable=False, server_default=sa.false()))
    # Also those whose next touch exists: the first advance finds that out, in bounded steps.
    op.execute(
        "UPDATE touch SET follow_up = true WHERE step_id IN (SELECT step.id FROM step "
        "JOIN campaign ON campaign.id = step.campaign_id AND campaign.state IN ('running', 'paused') "
        "JOIN step AS later ON later.campaign_id = step.campaign_id AND later.position > step.position "
        "AND later.kind = 'email' WHERE step.kind = 'email')"
    )
    where = sa.text("follow_up AND state = 'accepted'")
    op.create_index(
        "ix_touch_follow_up", "touch", ["campaign_id", "step_id", "id"], sqlite_where=where, postgresql_where=where
    )
    # After the statements that update every row, whose changes would be counted twice.
    for statement in _SQLITE if dialect == "sqlite" else _POSTGRESQL:
        op.execute(statement)

    op.add_column("campaign", sa.Column("freezing_at", UtcDateTime(), nullable=True))
    op.add_column(
        "campaign", sa.Column("suppressions_seen", sa.BigInteger(), nullable=False, server_default=sa.text("0"))
    )

    op.add_column("suppression", sa.Column("number", sa.BigInteger(), nullable=True))
    if dialect == "postgresql":
        op.execute("CREATE SEQUENCE suppression_number")
        op.execute("UPDATE suppression SET number = nextval('suppression_number')")
    else:
        op.execute("UPDATE suppression SET number = rowid")
    op.create_index("ix_suppression_number", "suppression", ["number"])

    op.create_index("ix_delivery_event_at", "delivery_event", ["at"])

"""Variants of steps: the variant of a touch, counts by variant, outcomes, and the tests that decide winners."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import BIG_ID, JSON_OBJECT, UtcDateTime

revision = "0039"
down_revision = "0038"

_ADD = (
    "INSERT INTO variant_count (step_id, variant, what, slot, touches) SELECT NEW.step_id, NEW.variant, {what}, 0, 1 "
    "WHERE NEW.variant IS NOT NULL ON CONFLICT (step_id, variant, what, slot) DO UPDATE SET touches = touches + 1; "
)
# One statement for each row on SQLite, one for each statement on PostgreSQL.
_SQLITE = (
    (
        "CREATE TRIGGER count_new_variant AFTER INSERT ON touch WHEN NEW.variant IS NOT NULL "
        f"BEGIN {_ADD.format(what='NEW.state')} END"
    ),
    (
        "CREATE TRIGGER count_moved_variant AFTER UPDATE OF state, variant ON touch "
        "WHEN (OLD.variant IS NOT NULL OR NEW.variant IS NOT NULL) "
        "AND (OLD.state <> NEW.state OR OLD.variant IS NOT NEW.variant) BEGIN "
        "UPDATE variant_count SET touches = touches - 1 WHERE step_id = OLD.step_id AND variant = OLD.variant "
        f"AND what = OLD.state AND slot = 0; {_ADD.format(what='NEW.state')} END"
    ),
    (
        "CREATE TRIGGER count_variant_outcome AFTER INSERT ON variant_outcome "
        f"BEGIN {_ADD.format(what='NEW.outcome')} END"
    ),
)

_COUNT = """
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO variant_count AS counted (step_id, variant, what, slot, touches)
  SELECT step_id, variant, what, pg_backend_pid(), sum(n) FROM ({moved}) AS moved
  GROUP BY step_id, variant, what HAVING sum(n) <> 0 ORDER BY step_id, variant, what
  ON CONFLICT (step_id, variant, what, slot) DO UPDATE SET touches = counted.touches + excluded.touches;
  RETURN NULL;
END $$
"""
_ROWS = (
    "SELECT step_id, variant, {what} AS what, {n} AS n FROM {rows} WHERE variant IS NOT NULL "
    "GROUP BY step_id, variant, {what}"
)
_ARRIVED = _ROWS.format(what="state", n="count(*)", rows="new_rows")
_LEFT = _ROWS.format(what="state", n="-count(*)", rows="old_rows")
_DONE = _ROWS.format(what="outcome", n="count(*)", rows="new_rows")
_POSTGRESQL = (
    _COUNT.format(name="count_new_variants", moved=_ARRIVED),
    _COUNT.format(name="count_moved_variants", moved=f"{_ARRIVED} UNION ALL {_LEFT}"),
    _COUNT.format(name="count_variant_outcomes", moved=_DONE),
    (
        "CREATE TRIGGER count_new_variants AFTER INSERT ON touch REFERENCING NEW TABLE AS new_rows "
        "FOR EACH STATEMENT EXECUTE FUNCTION count_new_variants()"
    ),
    (
        "CREATE TRIGGER count_moved_variants AFTER UPDATE ON touch REFERENCING OLD TABLE AS old_rows "
        "NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION count_moved_variants()"
    ),
    (
        "CREATE TRIGGER count_variant_outcomes AFTER INSERT ON variant_outcome REFERENCING NEW TABLE AS new_rows "
        "FOR EACH STATEMENT EXECUTE FUNCTION count_variant_outcomes()"
    ),
)


def upgrade() -> None:
    op.add_column("touch", sa.Column("variant", sa.String(64)))
    op.add_column("touch", sa.Column("waited_until", UtcDateTime()))
    awaiting = sa.text("state = 'awaiting'")
    op.create_index(
        "ix_touch_awaiting",
        "touch",
        ["campaign_id", "step_id", "id"],
        sqlite_where=awaiting,
        postgresql_where=awaiting,
    )
    op.create_table(
        "variant_outcome",
        sa.Column("touch_id", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.String(24), nullable=False),
        sa.Column("step_id", sa.BigInteger(), nullable=False),
        sa.Column("variant", sa.String(64), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("touch_id", "outcome"),
    )
    op.create_table(
        "variant_count",
        sa.Column("step_id", sa.BigInteger(), nullable=False),
        sa.Column("variant", sa.String(64), nullable=False),
        sa.Column("what", sa.String(24), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("touches", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("step_id", "variant", "what", "slot"),
    )
    op.create_table(
        "variant_test",
        sa.Column("step_id", sa.BigInteger(), sa.ForeignKey("step.id"), nullable=False),
        sa.Column("campaign_id", BIG_ID, sa.ForeignKey("campaign.id"), nullable=False),
        sa.Column("begun_at", UtcDateTime(), nullable=False),
        sa.Column("decide_at", UtcDateTime(), nullable=False),
        sa.Column("planned", sa.BigInteger(), nullable=False),
        sa.Column("tested", sa.BigInteger(), nullable=False),
        sa.Column("cursor", sa.BigInteger(), nullable=False),
        sa.Column("decided_at", UtcDateTime()),
        sa.Column("winner", sa.String(64)),
        sa.Column("reason", sa.String(24)),
        sa.Column("evidence", JSON_OBJECT),
        sa.PrimaryKeyConstraint("step_id"),
    )
    op.create_index("ix_variant_test_campaign_id", "variant_test", ["campaign_id"])
    for statement in _SQLITE if op.get_bind().dialect.name == "sqlite" else _POSTGRESQL:
        op.execute(statement)

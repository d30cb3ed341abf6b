"""Outcomes are counted by the statement that inserts them, and their total by the minute is kept from the begin on."""

from __future__ import annotations

from alembic import op

revision = "0045"
down_revision = "0044"


def upgrade() -> None:
    on_table = "" if op.get_bind().dialect.name == "sqlite" else " ON delivery_event"
    op.execute(f"DROP TRIGGER count_traffic{on_table}")
    if on_table:
        op.execute("DROP FUNCTION count_traffic()")
    # Older minutes are in the totals already.
    op.execute(
        "INSERT INTO traffic AS counted (grain, at, outcome, sender_id, provider, campaign_id, slot, events) "
        "SELECT 'total', at, outcome, 0, '', 0, 0, sum(events) FROM traffic "
        "WHERE grain = 'minute' AND outcome <> 'complained' GROUP BY at, outcome "
        "ON CONFLICT (grain, at, outcome, sender_id, provider, campaign_id, slot) "
        "DO UPDATE SET events = counted.events + excluded.events"
    )
    op.create_index("ix_traffic_campaign", "traffic", ["campaign_id", "grain", "at"])

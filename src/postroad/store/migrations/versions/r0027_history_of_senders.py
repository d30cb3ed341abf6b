"""Past pauses of a sender are read for the explanation of one message: by sender, and those of cohorts by step."""

from __future__ import annotations

from alembic import op

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    op.create_index("ix_shaping_change_sender", "shaping_change", ["sender", "at"])
    op.create_index("ix_sender_hold_sender", "sender_hold", ["sender", "id"])
    op.create_index("ix_cohort_pause_step", "cohort_pause", ["step_id"])

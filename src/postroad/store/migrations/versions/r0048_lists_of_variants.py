"""An index of the outcomes of a variant, for their lists."""

from __future__ import annotations

from alembic import op

revision = "0048"
down_revision = "0047"


def upgrade() -> None:
    op.create_index("ix_variant_outcome_list", "variant_outcome", ["step_id", "variant", "outcome", "touch_id"])

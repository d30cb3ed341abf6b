"""Settings of approvals: which launches need the consent of a person."""

from __future__ import annotations

from pydantic import Field

from postroad.settings.types import MAX_DURATION_MS, DurationMs, Section

_DAY_MS = 86_400_000


class ApprovalSettings(Section):
    """Which launches need an approval. A campaign may be stricter, and never less strict."""

    above: int | None = Field(
        default=None, ge=0, description="launches to more people need an approval; 0: every launch; unset: none"
    )
    second_person: bool = Field(default=False, description="the person who asks must not approve")
    valid_ms: DurationMs = Field(
        default=7 * _DAY_MS,
        ge=60_000,
        le=min(365 * _DAY_MS, MAX_DURATION_MS),
        description="how long a request waits for a decision, and how long an approval allows the launch",
    )
    growth: float = Field(
        default=0.1, ge=0, le=10, description="share by which the audience may grow after the request"
    )

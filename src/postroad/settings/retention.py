"""How long what happened is kept."""

from __future__ import annotations

from pydantic import Field

from postroad.settings.values import DurationMs, Section

_DAY_MS = 86_400_000
_MIN_MS = 90 * _DAY_MS  # Longer than any window that reads it: soft bounces, matching, warmup, cohorts.
_MAX_MS = 36_500 * _DAY_MS


class RetentionSettings(Section):
    """What `maintenance` deletes, and when. Suppressions, and who unsubscribed when and how, are kept for good."""

    touches_ms: DurationMs = Field(
        default=1_095 * _DAY_MS, ge=_MIN_MS, le=_MAX_MS, description="touches, after their campaign is over"
    )
    events_ms: DurationMs = Field(
        default=400 * _DAY_MS, ge=_MIN_MS, le=_MAX_MS, description="delivery events, which are a touch's history"
    )
    bounce_effects_ms: DurationMs = Field(
        default=400 * _DAY_MS, ge=_MIN_MS, le=_MAX_MS, description="what mail that came back changed"
    )
    bounce_mails_ms: DurationMs = Field(
        default=400 * _DAY_MS,
        ge=_MIN_MS,
        le=_MAX_MS,
        description="how mail that came back was judged; never shorter than its effects and octets are kept",
    )

"""Settings of data retention."""

from __future__ import annotations

from pydantic import Field

from postroad.settings.types import DurationMs, Section

_DAY_MS = 86_400_000
_MIN_MS = 90 * _DAY_MS  # Longer than any window that is read: soft bounces, matching, warmup, cohorts.
_MAX_MS = 36_500 * _DAY_MS


class RetentionSettings(Section):
    """When `maintenance` deletes data. Suppressions, consents and the records of unsubscribes are kept forever."""

    touches_ms: DurationMs = Field(
        default=1_095 * _DAY_MS, ge=_MIN_MS, le=_MAX_MS, description="touches, after the end of their campaign"
    )
    events_ms: DurationMs = Field(
        default=400 * _DAY_MS, ge=_MIN_MS, le=_MAX_MS, description="delivery events: the history of touches"
    )
    bounce_effects_ms: DurationMs = Field(
        default=400 * _DAY_MS, ge=_MIN_MS, le=_MAX_MS, description="effects of bounces and other returned mail"
    )
    bounce_mails_ms: DurationMs = Field(
        default=400 * _DAY_MS,
        ge=_MIN_MS,
        le=_MAX_MS,
        description="classifications of returned mail; never shorter than its effects and content are kept",
    )
    recipient_events_ms: DurationMs = Field(
        default=1_095 * _DAY_MS,
        ge=_MIN_MS,
        le=_MAX_MS,
        description="events of recipients, which conditions use",
    )
    attachments_ms: DurationMs = Field(
        default=400 * _DAY_MS,
        ge=_DAY_MS,
        le=_MAX_MS,
        description="attachments of requested messages, after the request; kept while the message may still be sent",
    )
    webhook_log_ms: DurationMs = Field(
        default=30 * _DAY_MS, ge=_DAY_MS, le=_MAX_MS, description="log of webhooks: deliveries and their attempts"
    )
    traffic_ms: DurationMs = Field(
        default=1_095 * _DAY_MS,
        ge=_MIN_MS,
        le=_MAX_MS,
        description="number of outcomes by day, sender, provider and campaign",
    )

"""What the cohort breaker takes for a bad list, and how sure it must be."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from postroad.settings.values import MAX_DURATION_MS, DurationMs, Section


class EvidenceSettings(Section):
    """A sequential test of one share: whether it is like that of a healthy cohort, or like that of a guilty one."""

    healthy: float = Field(default=0.02, gt=0, lt=1, description="share up to which a cohort is healthy")
    guilty: float = Field(default=0.08, gt=0, lt=1, description="share from which on it is guilty")
    false_alarm: float = Field(default=0.001, gt=0, le=0.1, description="how likely a healthy cohort is ever paused")
    miss: float = Field(default=0.05, gt=0, le=0.5, description="how likely a guilty cohort is ever called healthy")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.healthy >= self.guilty:
            raise ValueError("healthy must be less than guilty")
        return self


class ComplaintSettings(EvidenceSettings):
    """The same of complaints, of which there are fewer."""

    healthy: float = Field(default=0.001, gt=0, lt=1, description="share up to which a cohort is healthy")
    guilty: float = Field(default=0.003, gt=0, lt=1, description="share from which on it is guilty")


class CohortBreakerSettings(Section):
    """When touches of one step, from one list source, to one provider are paused."""

    pause: bool = Field(default=True, description="pause a guilty cohort; false: only show it")
    look_ms: DurationMs = Field(
        default=10_000, ge=100, le=MAX_DURATION_MS, description="how often the recorder looks for news"
    )
    source_field: str = Field(
        default="source",
        min_length=1,
        max_length=100,
        pattern=r'^[^"\\\x00-\x1f]+$',
        description="column of the audience's CSV that names the list a recipient is from; without it, the file's path",
    )
    hard_bounces: EvidenceSettings = EvidenceSettings()
    complaints: ComplaintSettings = ComplaintSettings()

"""Settings of the cohort breaker: which bounce and complaint rates indicate a bad list, with which confidence."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from postroad.settings.types import MAX_DURATION_MS, DurationMs, Section, section_of_defaults


class EvidenceSettings(Section):
    """A sequential probability ratio test of one share: healthy or guilty."""

    healthy: float = Field(default=0.02, gt=0, lt=1, description="share up to which a cohort is healthy")
    guilty: float = Field(default=0.08, gt=0, lt=1, description="share from which a cohort is guilty")
    false_alarm: float = Field(default=0.001, gt=0, le=0.1, description="probability of pausing a healthy cohort")
    miss: float = Field(default=0.05, gt=0, le=0.5, description="probability of missing a guilty cohort")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.healthy >= self.guilty:
            raise ValueError("healthy must be less than guilty")
        return self


class ComplaintSettings(EvidenceSettings):
    """The test of complaints, with lower shares."""

    healthy: float = Field(default=0.001, gt=0, lt=1, description="share up to which a cohort is healthy")
    guilty: float = Field(default=0.003, gt=0, lt=1, description="share from which a cohort is guilty")


class CohortBreakerSettings(Section):
    """When cohorts are paused: touches of one step, from one list source, to one provider."""

    pause: bool = Field(default=True, description="pause a guilty cohort; false: only show it")
    look_ms: DurationMs = Field(
        default=10_000, ge=100, le=MAX_DURATION_MS, description="interval at which the recorder evaluates cohorts"
    )
    source_field: str = Field(
        default="source",
        min_length=1,
        max_length=100,
        pattern=r'^[^"\\\x00-\x1f]+$',
        description="column of the CSV with the list source of a recipient; without the column, the path of the file",
    )
    hard_bounces: EvidenceSettings = section_of_defaults()
    complaints: ComplaintSettings = section_of_defaults()

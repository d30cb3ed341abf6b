"""What the settings say of launches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from postroad.settings import ApprovalSettings, CohortBreakerSettings, Settings


@dataclass(frozen=True, kw_only=True)
class LaunchRules:
    """Rules of the settings for launches.

    ``approval``: which launches need an approval. ``source_field``: merge field that names the list source of a
    recipient, as ``cohort_breaker.source_field``.
    """

    approval: ApprovalSettings = field(default_factory=ApprovalSettings)
    source_field: str = field(default_factory=lambda: CohortBreakerSettings().source_field)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the rules that settings have."""
        return cls(approval=settings.approval, source_field=settings.cohort_breaker.source_field)

"""Maps a touch to its cohort: its step, the source of its recipient, and the mailbox provider."""

from __future__ import annotations

from postroad.dns.providers import provider_of
from postroad.store.cohort import Cohort, CohortKey


def cohort_of(touch: CohortKey) -> Cohort:
    """Return the cohort of a touch."""
    return Cohort(touch.step_id, touch.source, provider_of(touch.domain, touch.provider))

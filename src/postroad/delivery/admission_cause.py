"""Names why the admission lets a claimed job not be sent, or not now."""

from __future__ import annotations

from enum import StrEnum


class AdmissionCause(StrEnum):
    """Why a claimed job was not admitted. The value begins the cause of the queue's event."""

    OUTSIDE_HOURS = "outside the campaign's hours"
    HOLIDAY = "a holiday or a day off"
    COHORT_PAUSED = "cohort paused"  # and the evidence
    OVER_FREQUENCY = "over the frequency cap"  # and its class
    NO_FREQUENCY_CLASS = "no frequency class"  # and its name
    EXIT = "exit"  # and the exit condition of the campaign
    CAMPAIGN_PAUSED = "campaign paused"
    CAMPAIGN_CANCELLED = "campaign cancelled"
    STEP_RECALLED = "step recalled"
    SUPPRESSED = "suppressed"
    ENDED = "already"  # and the state
    OTHER_SENDER = "another sender sends it"
    OTHER_VERSION = "its step has a newer version"
    CLAIMED_BEFORE = "claimed before, and the result of that claim is not known"
    LEDGER_MOVED = "the ledger moved"
    NOT_IN_LEDGER = "not in the ledger"

    @classmethod
    def of(cls, cause: str) -> AdmissionCause | None:
        """Return the cause that the text of an event begins with. None: another part decided."""
        return next((member for member in cls if cause.startswith(member.value)), None)

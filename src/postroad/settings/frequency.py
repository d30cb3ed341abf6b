"""Settings of frequency caps: at most so many messages to one recipient, over all campaigns."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, Field

from postroad.settings.types import RateField, RateSetting

NORMAL: Final = "normal"
"""Class of campaigns that name none, if the settings have it."""
IGNORE: Final = "ignore"
"""What a campaign names to have no cap. Its messages count for no cap either."""

MAX_COUNT: Final = 1_000
MAX_SPAN_MS: Final = 90 * 86_400_000
"""The shortest retention of touches: older messages may be deleted, and would not be counted."""
MAX_CLASSES: Final = 20


def _cap(rate: RateSetting) -> RateSetting:
    if rate.count > MAX_COUNT:
        raise ValueError(f"a frequency cap has at most {MAX_COUNT:,} messages")
    if rate.per_ms > MAX_SPAN_MS:
        raise ValueError(f"{rate} is longer than 90d: older messages may be deleted, and are not counted")
    return rate


def _class_name(name: str) -> str:
    if name == IGNORE:
        raise ValueError("a class must not be called ignore: a campaign with `frequency: ignore` has no cap")
    return name


FrequencyClass = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$"), AfterValidator(_class_name)]
FrequencyCaps = Annotated[
    dict[FrequencyClass, Annotated[RateField, AfterValidator(_cap)]], Field(max_length=MAX_CLASSES)
]

"""The field `rollout` of a campaign.yaml."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, model_validator

from postroad.campaign.steps import MAX_WAIT_MS, Strict
from postroad.settings import DurationMs

ALL: Final = 10_000
"""The whole audience, in hundredths of a percent."""
MAX_SHARES: Final = 10
_PERCENT: Final = re.compile(r"(?P<whole>\d{1,3})(?:\.(?P<part>\d{1,2}))?\s?%", re.ASCII)


def _basis_points(value: Any) -> Any:
    match = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("it is not a percentage: write a number with at most two decimals and %, as in 10%")
    points = int(match["whole"]) * 100 + int((match["part"] or "").ljust(2, "0"))
    if not 1 <= points <= ALL:
        raise ValueError("it is not between 0.01% and 100%")
    return points


class RolloutDefinition(Strict):
    """The shares of the audience, each with all shares before it, and the time between two of them."""

    shares: tuple[Annotated[int, BeforeValidator(_basis_points)], ...] = Field(
        min_length=2, max_length=MAX_SHARES, description="percentages in ascending order; the last one is 100%"
    )
    after: DurationMs | None = Field(
        default=None, gt=0, le=MAX_WAIT_MS, description="time that a share is out before the next one may follow"
    )

    @model_validator(mode="after")
    def _grows_to_all(self) -> Self:
        if any(later <= earlier for earlier, later in pairwise(self.shares)):
            raise ValueError("each share must be larger than the one before it, because it includes that")
        if self.shares[-1] != ALL:
            raise ValueError("the last share must be 100%")
        return self

    def to_row(self) -> dict[str, Any]:
        """Return the rollout as the campaign table stores it."""
        return {"shares": list(self.shares), "after_ms": self.after}


def _mapping(value: Any) -> Any:
    return {"shares": value} if isinstance(value, list) else value


RolloutField = Annotated[RolloutDefinition, BeforeValidator(_mapping)]
"""A list of percentages, or a mapping with ``shares`` and ``after``."""

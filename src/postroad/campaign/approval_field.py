"""The field `approval` of a campaign.yaml."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from postroad.campaign.steps import Strict

ALWAYS: Final = "always"


class ApprovalDefinition(Strict):
    """Which launches of the campaign need an approval."""

    above: int = Field(alias="from", ge=0, description="launches to more people than this need an approval")


def _mapping(value: Any) -> Any:
    if isinstance(value, str):
        if value.strip().lower() != ALWAYS:
            raise ValueError("it is neither always nor a mapping: write always, or {from: 5000}")
        return {"from": 0}
    return value


ApprovalField = Annotated[ApprovalDefinition, BeforeValidator(_mapping)]
"""The word `always`, or a mapping with `from`."""

"""The variants of an email step in a campaign.yaml: several contents, of which each recipient gets one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from postroad.settings import DurationMs
from postroad.store.variant_split import PERCENT, Criterion

VARIANT_NAME = r"^[a-z0-9][a-z0-9_-]{0,63}$"
MAX_VARIANTS = 10
MAX_DECISION_MS = 366 * 86_400_000
_NOT_COUNTED = {
    "clicked": "clicks are not counted per recipient. Record them as events, and write by: goal with a goal that names "
    "the event",
    "opened": "Postroad does not track opens. Write by: goal or by: replied",
}
_MORE = "fewer bounces or unsubscribes are not a reason to win, because most recipients do neither. Write by: goal"


def _criterion(value: object) -> Criterion:
    if value in list(Criterion):
        return Criterion(str(value))
    why = _NOT_COUNTED.get(str(value))
    if why is None and str(value) in ("bounced", "unsubscribed", "complained"):
        why = _MORE
    raise ValueError(why or "it must be goal or replied")


def _percent(value: object) -> int:
    match = re.fullmatch(r"(\d{1,3}) ?%", value, re.ASCII) if isinstance(value, str) else None
    if match is None or not 1 <= int(match[1]) <= PERCENT:
        raise ValueError("it is not a share: write 1% to 100%, as in 20%")
    return int(match[1])


def _valid_text(value: str | None) -> str | None:
    if value is not None and "\0" in value:
        raise ValueError("it contains a NUL character, which no message can contain")
    return value


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VariantDefinition(_Part):
    """One content of a step. What it does not name is as in the step."""

    name: str = Field(pattern=VARIANT_NAME)
    share: int = Field(ge=1, le=PERCENT - 1, description="percent of the recipients; all shares sum to 100")
    subject: Annotated[str | None, AfterValidator(_valid_text)] = Field(default=None, min_length=1)
    text: Path | None = None
    html: Path | None = None
    mjml: Path | None = None

    @model_validator(mode="after")
    def _has_one_html(self) -> Self:
        if self.html is not None and self.mjml is not None:
            raise ValueError("html and mjml exclude each other: name one of them")
        return self


class DecideDefinition(_Part):
    """When the winner is decided, and how many recipients get a variant before."""

    after: DurationMs = Field(gt=0, le=MAX_DECISION_MS, description="at the latest, from the first message on")
    at_most: Annotated[int, BeforeValidator(_percent)] = Field(description="share of the recipients, as in 20%")


class WinnerDefinition(_Part):
    """How the winner is decided that all other recipients get."""

    by: Annotated[Criterion, BeforeValidator(_criterion)]
    decide: DecideDefinition


def _fit_together(variants: tuple[VariantDefinition, ...]) -> tuple[VariantDefinition, ...]:
    if len(variants) == 1:
        raise ValueError(f"{variants[0].name} is alone. Name at least two variants, or remove it")
    names = [variant.name for variant in variants]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f"two variants are called {repeated!r}. Rename one")
    total = sum(variant.share for variant in variants)
    if variants and total != PERCENT:
        shares = " + ".join(str(variant.share) for variant in variants)
        raise ValueError(f"the shares must sum to 100, and {shares} = {total}")
    return variants


Variants = Annotated[
    tuple[VariantDefinition, ...],
    Field(max_length=MAX_VARIANTS, description="contents of which each recipient gets one; unset: the step has one"),
    AfterValidator(_fit_together),
]

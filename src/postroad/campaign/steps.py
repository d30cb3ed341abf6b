"""The steps of a campaign.yaml: emails, waits and branches, which may be nested."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import time
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from postroad.campaign.files import Attachments, Inlines
from postroad.campaign.variant_fields import Variants, WinnerDefinition
from postroad.segment.errors import MAX_CONDITION_CHARACTERS
from postroad.settings import DurationMs

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
"""Pattern of names, which are also artifact keys, metric labels and parts of file names."""

MAX_WAIT_MS = 10 * 366 * 86_400_000


def valid_text(value: str) -> str:
    """Return a text that a message can contain. Raise ValueError for another."""
    if "\0" in value:
        raise ValueError("it contains a NUL character, which no message can contain")
    return value


def time_of_day(value: object) -> time | None:
    """Return a time of day that is written as in 09:30. Raise ValueError for another text."""
    if value is None:
        return None
    match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", value, re.ASCII) if isinstance(value, str) else None
    if match is None:
        raise ValueError("it is not a time of day: write hours and minutes, as in 09:30")
    return time(int(match[1]), int(match[2]))


class Strict(BaseModel):
    """A part of a campaign.yaml. Fields that it does not define are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EmailStep(Strict):
    """Send one message to each recipient who is still in the sequence."""

    email: str = Field(pattern=NAME_PATTERN, description="the step's name")
    subject: Annotated[str, AfterValidator(valid_text)] = Field(min_length=1)
    text: Path | None = None
    html: Path | None = None
    mjml: Path | None = None
    attachments: Attachments = ()
    inline: Inlines = ()
    at: Annotated[time | None, BeforeValidator(time_of_day)] = Field(
        default=None, description="time of day in the recipient's own zone; unset: at once"
    )
    variants: Variants = ()
    winner: WinnerDefinition | None = Field(default=None, description="how one variant is chosen; unset: none is")

    @model_validator(mode="after")
    def _has_one_body(self) -> Self:
        if self.text is None and self.html is None and self.mjml is None:
            raise ValueError("it needs text, html or mjml")
        if self.html is not None and self.mjml is not None:
            raise ValueError("html and mjml exclude each other: name one of them")
        if self.inline and self.html is None and self.mjml is None:
            raise ValueError("inline images are for html or mjml")
        if self.winner is not None and not self.variants:
            raise ValueError("winner needs variants to choose from")
        return self


class WaitStep(Strict):
    """Wait after the previous step."""

    wait: DurationMs = Field(gt=0, le=MAX_WAIT_MS)
    name: str | None = Field(default=None, pattern=NAME_PATTERN, description="unset: wait- and its position")


class WaitUntilStep(Strict):
    """Wait until a date of the recipient."""

    wait_until: str = Field(min_length=1, max_length=MAX_CONDITION_CHARACTERS)
    name: str | None = Field(default=None, pattern=NAME_PATTERN, description="unset: wait-until- and its position")


class IfStep(Strict):
    """Choose the next steps of a recipient by a condition."""

    condition: str = Field(alias="if", min_length=1, max_length=MAX_CONDITION_CHARACTERS)
    then: tuple[StepDefinition, ...] = Field(min_length=1)
    otherwise: tuple[StepDefinition, ...] = Field(default=(), alias="else")
    name: str | None = Field(default=None, pattern=NAME_PATTERN, description="unset: if- and its position")


def _kind(value: Any) -> Literal["wait", "wait_until", "if", "email"]:
    if isinstance(value, dict):
        if "if" in value:
            return "if"
        if "wait_until" in value:
            return "wait_until"
        if "wait" in value:
            return "wait"
    return "email"


StepDefinition = Annotated[
    Annotated[EmailStep, Tag("email")]
    | Annotated[WaitStep, Tag("wait")]
    | Annotated[WaitUntilStep, Tag("wait_until")]
    | Annotated[IfStep, Tag("if")],
    Discriminator(_kind),
]
IfStep.model_rebuild()

StepKeys = tuple[str | int, ...]
"""Path of a step in a campaign.yaml, such as ``("steps", 2, "then", 0)``."""


def walk_steps(
    steps: Sequence[StepDefinition], keys: StepKeys = ("steps",)
) -> Iterator[tuple[StepKeys, StepDefinition]]:
    """Yield every step with its path, in reading order: a branch follows its `if`."""
    for number, step in enumerate(steps):
        yield (*keys, number), step
        if isinstance(step, IfStep):
            yield from walk_steps(step.then, (*keys, number, "then"))
            yield from walk_steps(step.otherwise, (*keys, number, "else"))


def name_of(step: StepDefinition, position: int) -> str:
    """Return the name of a step: its own, or one by its kind and its position in reading order."""
    match step:
        case EmailStep():
            return step.email
        case WaitStep():
            return step.name or f"wait-{position}"
        case WaitUntilStep():
            return step.name or f"wait-until-{position}"
        case IfStep():
            return step.name or f"if-{position}"

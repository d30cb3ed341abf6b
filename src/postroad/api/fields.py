"""Types of parameters and answers that several routes share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import Depends, Path, Query
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer

from postroad.api.access import Caller, caller_of
from postroad.api.cursor import MAX_CURSOR_CHARACTERS
from postroad.api.problems import MEDIA_TYPE, PROBLEMS, Problem, ProblemKind
from postroad.campaign.steps import NAME_PATTERN

MAX_ADDRESS: Final = 320
MAX_BIG_ID: Final = 2**63 - 1
MAX_LIST_BYTES: Final = 10_000_000
"""Body of a request with a list of rows."""
MAX_PAGE: Final = 1_000
DEFAULT_PAGE: Final = 100

CallerParameter = Annotated[Caller, Depends(caller_of)]
"""The parameter of a route that gets who calls it."""

_YEARS: Final = (1970, 2999)


def _bounded(at: datetime) -> datetime:
    if not _YEARS[0] <= at.astimezone(UTC).year <= _YEARS[1]:
        raise ValueError("the year is not between 1970 and 2999")
    return at.astimezone(UTC)


def _rfc_3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


InputTime = Annotated[AwareDatetime, AfterValidator(_bounded)]
"""A time with its zone (RFC 3339)."""

Time = Annotated[
    datetime, PlainSerializer(_rfc_3339, return_type=str, when_used="json"), Field(examples=["2026-05-31T07:30:00Z"])
]
"""A time of an answer, in UTC (RFC 3339)."""

CampaignName = Annotated[str, Path(max_length=100, description="name of the campaign", examples=["welcome"])]
AudienceName = Annotated[str, Path(pattern=NAME_PATTERN, description="name of the audience", examples=["newsletter"])]
AddressPath = Annotated[
    str,
    Path(min_length=1, max_length=MAX_ADDRESS, description="address of the recipient", examples=["ada@example.org"]),
]
MessageNumber = Annotated[int, Path(ge=1, le=MAX_BIG_ID, description="id of the message", examples=[1])]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="largest number of rows of the page")]
CursorParameter = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=MAX_CURSOR_CHARACTERS,
        description="`next` of the page before; unset: the first page. It belongs to the list and its parameters",
    ),
]


class Input(BaseModel):
    """A part of a request. Fields that it does not define are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(frozen=True)


class RowProblem(Answer):
    """A row that was refused. The others were not."""

    index: int = Field(description="place of the row in the list, from 0")
    field: str
    message: str


def problems(*kinds: ProblemKind) -> dict[int | str, dict[str, Any]]:
    """Return the problems that a route may answer with, as OpenAPI has them, with those that every route may."""
    always = (
        ProblemKind.UNAUTHORIZED,
        ProblemKind.FORBIDDEN,
        ProblemKind.INVALID,
        ProblemKind.RATE_LIMITED,
        ProblemKind.INTERNAL,
        ProblemKind.UNAVAILABLE,
    )
    content = {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}}
    found: dict[int | str, dict[str, Any]] = {}
    for kind in dict.fromkeys((*always, *kinds)):
        status, title = PROBLEMS[kind]
        found.setdefault(status.value, {"description": title, "content": content})
    return found


WITH_BODY: Final = (ProblemKind.BAD_REQUEST, ProblemKind.TOO_SLOW, ProblemKind.TOO_LARGE)
"""Problems of every route that takes a body."""

"""The closed list of functions, and what their arguments are."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from postroad.segment.tree import FunctionName


class ArgumentKind(StrEnum):
    """What an argument of a function is."""

    TERM = "a field or a value"
    NAME = "a name in quotes"
    DURATION = "a duration, as in 30d"
    CONDITION = "a condition on the fields of the event"


class FunctionSignature(NamedTuple):
    """A function: the kinds of its arguments by name, how many of them are required, and an example."""

    arguments: Mapping[str, ArgumentKind]
    required: int
    example: str


_TERM: Final = {"value": ArgumentKind.TERM}
_WITHIN: Final = {"within": ArgumentKind.DURATION}

VALUES: Final[Mapping[str, FunctionSignature]] = {
    "number": FunctionSignature(_TERM, 1, "number(seats) >= 5"),
    "date": FunctionSignature(_TERM, 1, "date(trial_ends) < now() + 7d"),
    "text": FunctionSignature(_TERM, 1, "text(seats) LIKE '1%'"),
    "lower": FunctionSignature(_TERM, 1, "lower(city) = 'berlin'"),
    "domain": FunctionSignature({}, 0, "domain() = 'example.com'"),
    "provider": FunctionSignature({}, 0, "provider() = 'google'"),
    "now": FunctionSignature({}, 0, "date(trial_ends) < now()"),
}
"""Functions that are values."""

CONDITIONS: Final[Mapping[FunctionName, FunctionSignature]] = {
    FunctionName.IN_AUDIENCE: FunctionSignature({"name": ArgumentKind.NAME}, 1, "in_audience('customers')"),
    FunctionName.JOINED: FunctionSignature(_WITHIN, 0, "joined(30d)"),
    FunctionName.ACCEPTED: FunctionSignature(
        {"step": ArgumentKind.NAME, **_WITHIN}, 0, "accepted('hello', within => 7d)"
    ),
    FunctionName.BOUNCED: FunctionSignature(_WITHIN, 0, "bounced(90d)"),
    FunctionName.REPLIED: FunctionSignature(_WITHIN, 0, "replied()"),
    FunctionName.UNSUBSCRIBED: FunctionSignature({}, 0, "unsubscribed()"),
    FunctionName.MAILED: FunctionSignature(_WITHIN, 0, "mailed(7d)"),
    FunctionName.EVENT: FunctionSignature(
        {"name": ArgumentKind.NAME, **_WITHIN, "where": ArgumentKind.CONDITION},
        1,
        "event('paid', within => 30d, where => number(amount) > 100)",
    ),
}
"""Functions that are conditions."""

NOT_YET: Final[Mapping[str, str]] = {
    "clicked": "links are not counted per recipient, so no condition can depend on clicks",
    "opened": "Postroad does not track opens, so no condition can depend on them",
}
"""Functions that people try, and why they do not exist."""

ALL_NAMES: Final = (*VALUES, *(name.value for name in CONDITIONS))

"""The field `entry` of a campaign.yaml."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, model_validator

from postroad.campaign.conditions import ConditionReader
from postroad.campaign.entry import EntryKind
from postroad.campaign.steps import Strict
from postroad.errors import ConfigError
from postroad.segment.errors import MAX_CONDITION_CHARACTERS
from postroad.segment.tree import FunctionCall, FunctionName, from_json


class EntryDefinition(Strict):
    """How recipients enter. A text alone is `on`."""

    on: str = Field(default=EntryKind.LAUNCH.value, min_length=1, max_length=MAX_CONDITION_CHARACTERS)
    existing: bool = Field(default=False, description="with joined: the members at the launch enter too")

    @model_validator(mode="after")
    def _existing_is_for_joined(self) -> Self:
        if self.existing and self.on.strip().lower() != EntryKind.JOINED:
            raise ValueError("existing is only for an entry on joined: at a launch every member enters")
        return self


def _mapping(value: object) -> object:
    return {"on": value} if isinstance(value, str) else value


EntryField = Annotated[EntryDefinition, BeforeValidator(_mapping)]

_EVENT: Final = re.compile(r"\s*event\s*\(", re.IGNORECASE)
_ALLOWED: Final = "Write launch, joined, api, event('name') or a date, as in date(trial_ends) - 7d."


def is_api_entry(entry: object) -> bool:
    """Return whether an entry, as written or as read, is the one for messages that a program requests."""
    on = entry.on if isinstance(entry, EntryDefinition) else entry.get("on") if isinstance(entry, dict) else entry
    return isinstance(on, str) and on.strip().lower() == EntryKind.API


def entry_row(
    definition: EntryDefinition, again_ms: int | None, conditions: ConditionReader, where: str
) -> dict[str, Any] | None:
    """Return an entry as the campaign table stores it. None: at the launch.

    Args:
        definition: The entry of a campaign.yaml.
        again_ms: How long after the last entry a recipient may enter again; None: never.
        conditions: Reads its event or its date.
        where: File, line and field, for errors.

    Returns:
        A JSON object.

    Raises:
        ConfigError: It is not an entry.
    """
    row = _row(definition, conditions, where)
    return {**row, "again_ms": again_ms} if row is not None and again_ms is not None else row


def _row(definition: EntryDefinition, conditions: ConditionReader, where: str) -> dict[str, Any] | None:
    word = definition.on.strip().lower()
    if word == EntryKind.LAUNCH:
        return None
    if word == EntryKind.JOINED:
        return {"kind": EntryKind.JOINED.value, "existing": definition.existing}
    if word == EntryKind.API:
        return {"kind": EntryKind.API.value}
    if word.isidentifier():
        raise ConfigError(f"{definition.on!r} is not an entry", where=where, remedy=_ALLOWED)
    if _EVENT.match(definition.on):
        condition = conditions.condition(definition.on, where)
        root = from_json(condition).root
        if not isinstance(root, FunctionCall) or root.function is not FunctionName.EVENT:
            raise ConfigError(
                "an entry is one event, without other conditions",
                where=where,
                remedy="Write the other conditions into audience.where.",
            )
        return {"kind": EntryKind.EVENT.value, "event": root.name, "condition": condition}
    return {"kind": EntryKind.DATE.value, "date": conditions.date(definition.on, where)}

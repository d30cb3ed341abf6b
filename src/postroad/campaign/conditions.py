"""Reads the conditions and dates of a campaign.yaml."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from postroad.errors import ConfigError, unknown_name
from postroad.field_types import FieldType
from postroad.segment.errors import ConditionError
from postroad.segment.parse import parse, parse_date
from postroad.segment.tree import FunctionName, to_json


class AnyField(dict[str, FieldType]):
    """The types of declared fields. Any other name is a field of type text."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str)

    def __missing__(self, name: str) -> FieldType:
        return FieldType.TEXT


class ConditionReader:
    """Reads conditions on recipients of one audience, in one campaign."""

    def __init__(self, fields: Mapping[str, FieldType], emails: frozenset[str]) -> None:
        """Set up the reader.

        Args:
            fields: The merge fields of the audience, with their types.
            emails: Names of the campaign's email steps.
        """
        self._fields = fields
        self._emails = emails

    def condition(self, text: str, where: str) -> dict[str, Any]:
        """Return a condition as the store keeps it.

        Args:
            text: The condition.
            where: File, line and field, for errors.

        Returns:
            A JSON object.

        Raises:
            ConfigError: It is not a condition, or names something that does not exist.
        """
        with _located(where):
            condition = parse(text, self._fields)
        for call in condition.calls(FunctionName.ACCEPTED):
            if call.name is not None and call.name not in self._emails:
                error = unknown_name("email step of this campaign", call.name, sorted(self._emails))
                raise ConfigError(error.message, where=where, remedy=error.remedy)
        return to_json(condition)

    def date(self, text: str, where: str) -> dict[str, Any]:
        """Return a date of a recipient as the store keeps it.

        Args:
            text: The date.
            where: File, line and field, for errors.

        Returns:
            A JSON object.

        Raises:
            ConfigError: It is not a date, or names something that does not exist.
        """
        with _located(where):
            return to_json(parse_date(text, self._fields))


@contextmanager
def _located(where: str) -> Iterator[None]:
    try:
        yield
    except ConditionError as error:
        raise ConfigError(error.message, where=f"{where}, column {error.column}", remedy=error.remedy) from None

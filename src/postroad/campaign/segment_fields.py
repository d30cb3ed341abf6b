"""Merge fields that a condition on an audience may name, and the condition of a campaign.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from postroad.campaign.csv_file import open_csv
from postroad.campaign.csv_header import ADDRESS, TIME_ZONE
from postroad.campaign.yaml_file import TextPlace
from postroad.errors import ConfigError, DataError, did_you_mean, near_names
from postroad.field_types import FieldType
from postroad.segment.errors import ConditionError
from postroad.segment.parse import parse
from postroad.segment.tree import FunctionName, RecipientCondition
from postroad.store.bulk import any_of
from postroad.store.recipient import audience_ids
from postroad.store.types import JSON_OBJECT

_DECLARE: Final = "A field that no recipient has yet is declared in [audiences.{}.fields] of postroad.toml."
SAMPLE: Final = 1_000
"""Members with the smallest ids, and as many with the largest ids, whose merge fields are known."""


def known_fields(
    connection: sa.Connection, audience: str, declared: Mapping[str, FieldType], file: Path | None = None
) -> dict[str, FieldType]:
    """Return the merge fields of an audience: declared ones, those of a sample of its members, and those of a file.

    Args:
        connection: A connection that reads.
        audience: Name of the audience, which need not exist.
        declared: Fields with declared types. Other fields are text.
        file: The CSV that a launch imports, if there is one.

    Returns:
        The fields with their types.
    """
    names: set[str] = set()
    audience_id = audience_ids(connection).get(audience)
    if audience_id is not None:
        for order in ("", "DESC"):
            members = (
                "SELECT recipient_id FROM audience_member WHERE audience_id = :audience_id "
                f"ORDER BY recipient_id {order} LIMIT :sample"
            )
            statement = sa.text(f"SELECT attributes FROM recipient WHERE id {any_of(connection, members)}").columns(
                sa.column("attributes", JSON_OBJECT)
            )
            for row in connection.execute(statement, {"audience_id": audience_id, "sample": SAMPLE}):
                names.update(row.attributes)
    if file is not None:
        with suppress(DataError), open_csv(file) as csv:  # Preflight reports a file that cannot be read.
            names.update(set(csv.columns) - {ADDRESS, TIME_ZONE})
    return {**dict.fromkeys(names, FieldType.TEXT), **declared}


def parse_segment(
    connection: sa.Connection, text: str, place: TextPlace, audience: str, fields: Mapping[str, FieldType]
) -> RecipientCondition:
    """Parse the condition of a campaign's audience.

    Args:
        connection: A connection that reads.
        text: The condition.
        place: Where it is written.
        audience: Name of the audience.
        fields: The known merge fields.

    Returns:
        The condition.

    Raises:
        ConfigError: It is not a condition, or names something that does not exist. It has file, line and column.
    """
    try:
        condition = parse(text, fields)
        require_segment(connection, condition)
    except ConditionError as error:
        remedy = (
            f"{error.remedy or ''} {_DECLARE.format(audience)}"
            if "there is no field" in error.message
            else error.remedy
        )
        raise ConfigError(error.message, where=place.where(error.column), remedy=remedy) from None
    return condition


def require_segment(connection: sa.Connection, condition: RecipientCondition) -> None:
    """Raise ConditionError if a condition on an audience names a step, or an audience that does not exist."""
    for call in condition.calls(FunctionName.ACCEPTED):
        if call.name is not None:
            raise ConditionError(
                f"accepted('{call.name}') names a step, and the campaign has sent nothing yet when this is evaluated",
                _column(condition, call.name),
                remedy="Write accepted() for any email of any campaign.",
            )
    known = audience_ids(connection)
    for call in condition.calls(FunctionName.IN_AUDIENCE):
        if call.name is not None and call.name not in known:
            raise ConditionError(
                f"there is no audience named {call.name!r}",
                _column(condition, call.name),
                remedy=did_you_mean(near_names(call.name, known)) or "`postroad audience list` lists them.",
            )


def _column(condition: RecipientCondition, name: str) -> int:
    return condition.text.find(f"'{name}'") + 1 or 1

"""Settings of an audience."""

from __future__ import annotations

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field

from postroad.field_types import FieldType
from postroad.settings.types import Section

_COLUMNS = {"address", "time_zone"}


def _field_name(name: str) -> str:
    plain = unicodedata.normalize("NFC", name.strip().lower())
    if name in _COLUMNS:
        raise ValueError(f"{name} is not a merge field: its type is known")
    if not name.isidentifier() or name != plain:
        words = "_".join("".join(c if f"a{c}".isidentifier() else " " for c in plain).split()).strip("_")
        hint = f": write {words}" if words.isidentifier() else ""
        raise ValueError(f"{name[:64]!r} is not the name of a merge field, as an import makes it{hint}")
    return name


FieldName = Annotated[str, Field(max_length=100), AfterValidator(_field_name)]


class AudienceSettings(Section):
    """Types of an audience's merge fields. An import refuses rows with other values."""

    fields: dict[FieldName, FieldType] = Field(
        default_factory=dict, description="type of each merge field: text, number, date or yes/no; undeclared: text"
    )

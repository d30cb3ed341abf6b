"""Keys that messages are signed with."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from postroad.settings.values import Section


def _instant(value: object) -> object:
    """A date is midnight, and what names no zone is UTC."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if isinstance(value, datetime) and value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return value


class DkimSettings(Section):
    """A key that a sender signs with (RFC 6376): in a file, or in a variable of the environment."""

    selector: str = Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$")
    key_file: Path | None = Field(default=None, description="private key in PEM")
    key_env: str | None = Field(default=None, min_length=1, description="variable that holds the key in its place")
    since: Annotated[datetime | None, BeforeValidator(_instant)] = Field(
        default=None, description="when it takes over from the keys of its kind before it"
    )

    @model_validator(mode="after")
    def _has_one_key(self) -> Self:
        if (self.key_file is None) == (self.key_env is None):
            raise ValueError("name either key_file or key_env")
        return self

"""Settings of DKIM keys."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from postroad.settings.types import Section


def _to_timestamp(value: object) -> object:
    """Parse a timestamp. A date is its midnight; without a zone it is in UTC."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if isinstance(value, datetime) and value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return value


class DkimSettings(Section):
    """A DKIM key of a sender (RFC 6376), in a file or in an environment variable."""

    selector: str = Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$")
    key_file: Path | None = Field(default=None, description="private key in PEM")
    key_env: str | None = Field(default=None, min_length=1, description="environment variable with the key instead")
    since: Annotated[datetime | None, BeforeValidator(_to_timestamp)] = Field(
        default=None, description="when it replaces the previous keys of its algorithm"
    )

    @model_validator(mode="after")
    def _has_one_key(self) -> Self:
        if (self.key_file is None) == (self.key_env is None):
            raise ValueError("name either key_file or key_env")
        return self

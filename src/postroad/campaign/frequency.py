"""The frequency cap that a campaign names, and its class in the settings."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from postroad.errors import ConfigError, did_you_mean, near_names
from postroad.settings.frequency import IGNORE, NORMAL


class FrequencyDefinition(BaseModel):
    """The class of the cap, and what becomes of messages that exceed it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(default=NORMAL, alias="class", pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    when_over: Literal["wait", "skip"] = Field(
        default="wait", description="wait until the cap allows it, or skip this email for the recipient"
    )


def _mapping(value: Any) -> Any:
    return {"class": value} if isinstance(value, str) else value


FrequencyField = Annotated[FrequencyDefinition, BeforeValidator(_mapping)]
"""A class, or a mapping with a class and ``when_over``."""


def require_class(name: str | None, classes: Collection[str], *, where: str) -> None:
    """Check that the settings have the class that a campaign names.

    Args:
        name: The class, ``ignore``, or None for the default.
        classes: The classes of the settings.
        where: The file and line of the campaign, for the error.

    Raises:
        ConfigError: The settings do not have the class.
    """
    if name is None or name == IGNORE or name in classes:
        return
    known = ", ".join(sorted(classes)) or "none"
    hint = did_you_mean(near_names(name, [*classes, IGNORE]))
    raise ConfigError(
        f"there is no frequency class {name!r} (known: {known})",
        where=where,
        remedy=f'{hint} Add it to [frequency] of postroad.toml, as in {name} = "3/7d", or use `ignore`.'.strip(),
    )

"""Replaces single values of the settings and of shaping.toml, for a forecast of what they would change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from postroad.errors import UsageError, unknown_name
from postroad.settings import DEFAULT_QUEUES, QueueSettings, Settings
from postroad.shaping.config import Shaping

_SETTINGS = {"sender": "senders", "senders": "senders", "queue": "queues", "queues": "queues"}
_SHAPING = ("default", "provider", "site", "domain")
SECTIONS = ("sender.NAME", "queue.NAME", *(f"{name}.NAME" if name != "default" else name for name in _SHAPING))

M = TypeVar("M", bound=BaseModel)


def apply_changes(settings: Settings, shaping: Shaping, changes: Mapping[str, str]) -> tuple[Settings, Shaping]:
    """Return the settings and the shaping with some values replaced.

    Args:
        settings: The settings.
        shaping: The shaping.
        changes: New values as text by path: ``sender.ada.rate``, ``queue.email:send.rate``, ``provider.google.rate``.

    Raises:
        StateError: A path names nothing.
        UsageError: A path is not complete, or a value is not valid.
    """
    for path, value in changes.items():
        section, _, rest = path.partition(".")
        if section in _SETTINGS:
            if _SETTINGS[section] == "queues":  # Also one that the file leaves to its defaults.
                settings = settings.model_copy(update={"queues": {**_default_queues(), **settings.queues}})
            settings = _replace(settings, [_SETTINGS[section], *_split(path, rest)], value, path)
        elif section == "default":
            shaping = _replace(shaping, ["default", rest], value, path)
        elif section in _SHAPING:
            shaping = _replace(shaping, [section, *_split(path, rest)], value, path)
        else:
            raise UsageError(f"--what-if {path}: it begins with none of {', '.join(SECTIONS)}")
    return settings, shaping


def _default_queues() -> dict[str, QueueSettings]:
    return {name: QueueSettings() for name in DEFAULT_QUEUES}


def _split(path: str, rest: str) -> list[str]:
    """Split ``NAME.field`` or ``NAME.warmup.field``. A name may contain dots."""
    name, _, field = rest.rpartition(".")
    if name.endswith(".warmup"):
        return [name.removesuffix(".warmup"), "warmup", field]
    if not name or not field:
        raise UsageError(f"--what-if {path}: name the section and the field, as in sender.ada.rate=60/1h")
    return [name, field]


def _replace(model: M, path: list[str], value: str, shown: str) -> M:
    """Return a copy of a model with one value replaced, and validated as the file would be."""
    head, *rest = path
    current = getattr(model, head, None) if head in type(model).model_fields else None
    if head not in type(model).model_fields:
        raise unknown_name(f"setting of --what-if {shown}", head, type(model).model_fields)
    if isinstance(current, dict):
        name, *rest = rest
        if name not in current:
            raise unknown_name(f"section of --what-if {shown}", name, current)
        replaced: Any = {**current, name: _replace(current[name], rest, value, shown)}
    elif rest and isinstance(current, BaseModel):
        replaced = _replace(current, rest, value, shown)
    elif rest:
        raise UsageError(f"--what-if {shown}: {head} is not set, so that {rest[0]} cannot be changed")
    else:
        return _validate(model, head, value, shown)
    return model.model_copy(update={head: replaced})


def _validate(model: M, field: str, value: str, shown: str) -> M:
    values = {name: getattr(model, name) for name in model.model_fields_set}
    try:
        return type(model).model_validate({**values, field: None if value == "none" else value})
    except ValidationError as error:
        raise UsageError(
            f"--what-if {shown}={value}: {error.errors()[0]['msg'].removeprefix('Value error, ')}"
        ) from None

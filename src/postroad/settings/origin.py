"""Finds the source of a setting, a line of postroad.toml or a variable, for errors."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsError

from postroad.errors import ConfigError, did_you_mean, near_names
from postroad.field_faults import FieldFault, combined_error, field_faults
from postroad.settings.secret_files import PREFIX, secret_of_file_variable

MIN_SECRET: Final = 6
"""Shortest value, in characters, that is removed from a message without quotes. A shorter one may be a common word."""


def settings_error(error: ValidationError, model: type[BaseModel], path: Path | None, text: str) -> ConfigError:
    """Return an error with all faults of the settings: the first one in full, and a line for each other one.

    Args:
        error: The error of pydantic.
        model: The model of the settings.
        path: The settings file, or None if there is no file.
        text: Its content.

    Returns:
        The error.
    """
    described: list[tuple[str, str, str]] = []
    faults = field_faults(error, model, kind="setting", top="postroad.toml")
    for fault in sorted(faults, key=lambda fault: (not fault.unknown, line_of_key(text, list(map(str, fault.keys))))):
        keys = [str(key) for key in fault.keys]
        variable = _variable_of(model, text, keys)
        message, hint = str(fault), fault.hint
        if variable is not None:
            message = _without_value(message, fault)
            hint = _suggest_variable(variable, keys, text) or ("" if not fault.unknown else hint)
        described.append((variable or _line(path, text, keys), message, hint))
    return combined_error(described, "docs/reference/settings.md lists every setting.")


def source_of(model: type[BaseModel], path: Path | None, text: str, keys: Sequence[str]) -> str:
    """Return the variable that sets a value or a section around it, or else its line of the file."""
    return _variable_of(model, text, keys) or _line(path, text, keys)


def line_of_key(text: str, keys: Sequence[str]) -> int:
    """Return the line of a key in a TOML text, or of the innermost existing section around it, or 1."""
    best, line_number = 0, 1
    section: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped.startswith("["):
            path = section = _path_of(stripped) or section
        else:
            name = stripped.partition("=")[0]
            relative = _path_of(f"{name}=0") if "=" in stripped else []
            if not relative:
                continue
            path = [*section, *relative]
        depth = min(len(path), len(keys))
        if path[:depth] == list(keys[:depth]) and depth > best:
            best, line_number = depth, number
    return line_number


def unknown_variables(model: type[BaseModel], others: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each variable with our prefix that no setting reads, with a hint of similar names.

    ``others``: variables with our prefix that are not settings.
    """
    tops = {name.upper(): field.annotation for name, field in model.model_fields.items()}
    nested = [
        f"{top}__{name.upper()}"
        for top, kind in tops.items()
        if isinstance(kind, type) and issubclass(kind, BaseModel)
        for name in kind.model_fields
    ]
    for variable in sorted(os.environ):
        top, delimiter, rest = variable.upper().removeprefix(PREFIX).partition("__")
        if not variable.upper().startswith(PREFIX) or top in tops or variable in others:
            continue
        if secret_of_file_variable(model, variable) is not None:
            continue
        near = [f"{name}{delimiter}{rest}" for name in near_names(top, tops)]
        near = near or near_names(variable.upper().removeprefix(PREFIX), nested)
        yield variable, did_you_mean([f"{PREFIX}{name}" for name in near[:1]])


def _path_of(line: str) -> list[str]:
    """Return the names of a section or of a key with its value; an empty list for a line that is not TOML by itself."""
    try:
        value: Any = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return []
    path: list[str] = []
    while value and isinstance(value, dict | list):
        if isinstance(value, dict):
            path.append(next(iter(value)))
            value = value[path[-1]]
        else:
            value = value[0]
    return path


def _line(path: Path | None, text: str, keys: Sequence[str]) -> str:
    return f"{path}, line {line_of_key(text, keys)}" if path is not None else PREFIX + "__".join(keys).upper()


def _variable_of(model: type[BaseModel], text: str, keys: Sequence[str]) -> str | None:
    """Return the variable that sets a key, that contains it as JSON, or that alone creates the section around it."""
    given = {secret_of_file_variable(model, name) or name.upper(): name for name in os.environ}
    names = [PREFIX + "__".join(keys[:depth]).upper() for depth in range(len(keys), 0, -1)]
    for name in names:
        if name in given:
            return given[name]
    values: Any = tomllib.loads(text)
    for depth, key in enumerate(keys, start=1):
        if not isinstance(values, dict) or key not in values:
            inside = PREFIX + "__".join(keys[:depth]).upper() + "__"
            return next((given[name] for name in sorted(given) if name.startswith(inside)), None)
        values = values[key]
    return None


def _suggest_variable(variable: str, keys: Sequence[str], text: str) -> str:
    """Return a hint with the variable that may be meant, if the file has a section with a similar name."""
    values: Any = tomllib.loads(text)
    parts = variable.split("__")
    for place, key in enumerate(keys):
        if not isinstance(values, dict):
            return ""
        if key not in values:
            near = near_names(key, map(str, values))[:1]
            first = PREFIX if place == 0 else ""
            meant = ["__".join([*parts[:place], first + name.upper(), *parts[place + 1 :]]) for name in near]
            return did_you_mean(meant)
        values = values[key]
    return ""


def _without_value(message: str, fault: FieldFault) -> str:
    """Return the message without the value, because a variable may contain a secret."""
    value = str(fault.input)
    for shown in (repr(value), repr(value[:40])):
        message = message.replace(shown, "the value")
    return message.replace(value, "the value") if len(value) >= MIN_SECRET else message


def variable_error(error: SettingsError) -> ConfigError:
    """Return the error for a variable that must contain a list or a table as JSON, but does not."""
    match = re.search(r'field "(\w+)"', str(error))
    field = match[1] if match else "settings"
    return ConfigError(
        f"{field}: it is not JSON, as a list or a table must be in the environment",
        where=f"POSTROAD_{field.upper()}",
        remedy='Write ["one", "two"] or {"name": {"field": "value"}}.',
    )

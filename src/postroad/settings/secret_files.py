"""Reads secrets from the files that variables name: ``POSTROAD_REDIS_URL_FILE`` names the file with the ``redis_url``.

Secrets of Compose and Kubernetes, and credentials of systemd, are files. Only secret settings can come from a file.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic_settings import BaseSettings, EnvSettingsSource

from postroad.errors import ConfigError

PREFIX: Final = "POSTROAD_"
FILE_SUFFIX: Final = "_FILE"
MAX_BYTES: Final = 65_536


class EnvironmentSource(EnvSettingsSource):
    """Settings from variables, and secrets from the files that variables name."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls)
        self.env_vars = with_secret_files(settings_cls, self.env_vars)


def secret_of_file_variable(model: type[BaseModel], variable: str) -> str | None:
    """Return the variable whose value a variable gives as a file.

    Args:
        model: The model of the settings.
        variable: Name of a variable.

    Returns:
        The name without its suffix. None: it is not the file of a secret setting, or it is a setting itself, such as
        ``POSTROAD_WEBHOOKS_OUT__SHOP__SECRET_FILE``.
    """
    name = variable.upper()
    if not name.startswith(PREFIX) or not name.endswith(FILE_SUFFIX) or _types_of(model, name):
        return None
    secret = name.removesuffix(FILE_SUFFIX)
    return secret if any(map(_is_secret, _types_of(model, secret))) else None


def with_secret_files(model: type[BaseModel], variables: Mapping[str, str | None]) -> dict[str, str | None]:
    """Replace each variable that names the file of a secret by the variable of the secret.

    A line break at the end of the file is not part of the secret. A list has one secret in each line.

    Args:
        model: The model of the settings.
        variables: The environment. Names may be in any case.

    Returns:
        The variables, with their names in the given case.

    Raises:
        ConfigError: A file cannot be read or is empty, or a secret is set twice.
    """
    found = dict(variables)
    given = {name.upper() for name, value in variables.items() if value}
    for variable, path in variables.items():
        secret = secret_of_file_variable(model, variable)
        if secret is None:
            continue
        del found[variable]
        if not path:
            continue
        if secret in given:
            raise ConfigError(
                f"{secret} and {secret}{FILE_SUFFIX} are both set", where="environment", remedy="Unset one of them."
            )
        text = _read(Path(path), secret + FILE_SUFFIX)
        is_list = any(get_origin(kind) is tuple for kind in _types_of(model, secret))
        name = variable[: -len(FILE_SUFFIX)]
        found[name] = json.dumps([line.strip() for line in text.split("\n") if line.strip()]) if is_list else text
    return found


def _read(path: Path, variable: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise ConfigError(f"the file {path} cannot be read: {error.strerror}", where=variable) from None
    except UnicodeDecodeError:
        raise ConfigError(f"the file {path} is not UTF-8", where=variable) from None
    if not text or len(content) > MAX_BYTES:
        problem = "has no content" if not text else f"is longer than {MAX_BYTES} bytes"
        raise ConfigError(f"the file {path} {problem}", where=variable, remedy="Write the secret into it.")
    return text


def _types_of(model: type[BaseModel], variable: str) -> list[Any]:
    """Return the types of the setting that a variable sets. Empty: it sets none."""
    found: list[Any] = [model]
    for name in variable.removeprefix(PREFIX).lower().split("__"):
        found = [kind for inside in found for kind in _inside(inside, name)]
    return found


def _inside(kind: Any, name: str) -> Sequence[Any]:
    """Return the types of a field of a section, or of a section in a table of sections."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(name)
        return _members(field.annotation) if field is not None else ()
    return _members(get_args(kind)[1]) if get_origin(kind) is dict else ()


def _members(kind: Any) -> Sequence[Any]:
    """Return the types of a union, each without its annotations."""
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [member for option in get_args(kind) for member in _members(option)]
    return [kind]


def _is_secret(kind: Any) -> bool:
    return kind is SecretStr or (get_origin(kind) is tuple and SecretStr in _members(get_args(kind)[0]))

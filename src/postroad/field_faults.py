"""Describes invalid fields of a file or of the environment for operators.

The texts of pydantic, such as "Extra inputs are not permitted", are written for programmers.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails

from postroad.errors import FEW_NAMES, ConfigError, did_you_mean, near_names

PATTERN_WORDS: Final = {
    r"^[a-z0-9][a-z0-9_-]{0,63}$": (
        "up to 64 lower-case letters, digits, - and _ are allowed, and a letter or digit is first, as in spring-2026"
    ),
    r"^[^\x00-\x1f\x7f]*$": "it must be one line without control characters",
    r"^[^\x00]*$": "it must not contain a NUL character",
    r"^[^@\s<>\x00-\x1f\x7f]+$": "it must be a domain, as in bounce.example.com",
    r"^https?://[!$-.0-;=@-~]+[!$-;=@-~]*$": (
        "it must be a web address in ASCII that begins with https:// or http://, as in https://mail.example.com"
    ),
    r"^[a-z0-9-]+/[a-z0-9-]+$": "it must be the type and the name of a block, as in slack-webhook/operations",
    r"^[^@\s<>\x00-\x1f\x7f]+@[^@\s<>\x00-\x1f\x7f]+\.[^@\s<>\x00-\x1f\x7f]+$": (
        "it must be one email address, as in news@example.com"
    ),
    r"^[A-Za-z0-9_.:\[\]-]+$": "it must be the name or the IP address of a host, as in smtp.example.com",
    r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$": "letters, digits and - . _ are allowed, as in key-2026",
    r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$": "up to 63 letters, digits, - and . are allowed, as in key-2026",
    r"^https://[^\s/?#@]+[^\s#]*$": "it must be a web address that begins with https://",
    r"^[a-z0-9-]+(\.[a-z0-9-]+)+$": "it must be a domain in lower case, as in dnsbl.example.com",
    r"^[\x20-\x7e]+$": "it must be ASCII text",
    r"^[A-Za-z0-9-]{1,100}$": "up to 100 letters, digits and - are allowed, as in X-Postroad-Secret",
    r"^[A-Za-z0-9._@+-]{1,100}$": "up to 100 letters, digits and . _ @ + - are allowed, as in logo",
    r"^[^\x00-\x1f\x7f/\\]+$": "it must be the name of a file without its folder",
}
"""Descriptions of patterns, by pattern."""

_PLAIN: Final = {
    "missing": "it is missing",
    "string_type": "it must be text",
    "int_type": "it must be a whole number",
    "int_parsing": "it must be a whole number",
    "int_from_float": "it must be a whole number",
    "float_type": "it must be a number",
    "float_parsing": "it must be a number",
    "bool_type": "it must be true or false",
    "bool_parsing": "it must be true or false",
    "tuple_type": "it must be a list",
    "list_type": "it must be a list",
    "path_type": "it must be the path of a file or a folder",
    "dict_type": "it must be a table of names and values",
    "string_unicode": "it must be Unicode text: it contains half of a character (a surrogate)",
}


MAX_FAULTS: Final = 10
"""Number of faults that an error lists."""


@dataclass(frozen=True, kw_only=True)
class FieldFault:
    """One fault. ``keys``: path of the field; ``hint``: a sentence with similar names, or empty."""

    keys: tuple[str | int, ...]
    message: str
    hint: str
    unknown: bool
    input: object
    first: int = 0
    """The number of the first entry of a list, as the path shows it."""

    @property
    def path(self) -> str:
        """The path of the field with dots: ``senders.news.rate``."""
        return path_of(self.keys, first=self.first)

    def __str__(self) -> str:
        return self.message if self.unknown or not self.keys else f"{self.path}: {self.message}"


def path_of(keys: Sequence[str | int], *, first: int = 1) -> str:
    """Return the path of a field with dots, such as ``steps.1.then.2``. ``first``: number of a list's first entry."""
    return ".".join(str(key + first) if isinstance(key, int) else key for key in keys)


def field_faults(error: ValidationError, model: type[BaseModel], *, kind: str, top: str) -> list[FieldFault]:
    """Return all faults of an error, unknown names first, because a missing name may be a misspelt one.

    Args:
        error: The error of pydantic.
        model: The model that was validated.
        kind: The word for a field, such as ``setting``.
        top: The name of the outermost container, such as ``postroad.toml``.

    Returns:
        The faults.
    """
    details = error.errors(include_url=False)
    # pydantic counts only the valid entries of a list. A list that is too short because of faulty entries is ignored.
    details = [detail for detail in details if detail["type"] != "too_short" or not _has_faults_within(detail, details)]
    faults = [_describe(detail, model, kind, top) for detail in details]
    return sorted(faults, key=lambda fault: not fault.unknown)


def combined_error(faults: Sequence[tuple[str, str, str]], remedy: str) -> ConfigError:
    """Return one error for all faults, each of which is a tuple of where, message and hint."""
    (where, message, hint), *others = faults
    lines = [hint] if hint else []
    file = f"{where.rpartition(', line ')[0]}, "
    lines += [
        f"Also {place.removeprefix(file)}: {also}. {more}".rstrip() for place, also, more in others[: MAX_FAULTS - 1]
    ]
    if len(faults) > MAX_FAULTS:
        lines.append(f"And {len(faults) - MAX_FAULTS} more.")
    return ConfigError(message, where=where, remedy="\n".join([*lines, remedy]))


def _has_faults_within(detail: ErrorDetails, details: Sequence[ErrorDetails]) -> bool:
    location = detail["loc"]
    return any(len(other["loc"]) > len(location) and other["loc"][: len(location)] == location for other in details)


def _describe(detail: ErrorDetails, model: type[BaseModel], kind: str, top: str) -> FieldFault:
    keys, parent, types_ = _follow(model, detail["loc"])
    fields = sorted({name for branch in parent for name in _names(branch)})
    unknown = detail["type"] == "extra_forbidden"
    first = 0 if kind == "setting" else 1  # Settings may also come from the environment, whose lists begin with 0.
    if unknown:
        section = path_of(keys[:-1], first=first)
        where = f"[{section}]" if section and kind == "setting" else section or top
        message = f"{path_of(keys[-1:], first=first)} is not a {kind} of {where}"
        hint = did_you_mean(near_names(str(keys[-1]), fields))
        if not hint and len(fields) <= FEW_NAMES:
            hint = f"It has: {', '.join(fields)}."
    else:
        message, hint = _describe_value(detail, types_, "table" if kind == "setting" else "mapping")
    return FieldFault(keys=keys, message=message, hint=hint, unknown=unknown, input=detail["input"], first=first)


def _describe_value(detail: ErrorDetails, types_: Sequence[Any], table: str) -> tuple[str, str]:
    context: Mapping[str, Any] = detail.get("ctx", {})
    match detail["type"]:
        case "string_pattern_mismatch":
            pattern = str(context.get("pattern"))
            return PATTERN_WORDS.get(pattern, f"it must be of the form {pattern}"), ""
        case "literal_error" | "enum":
            allowed = [str(value) for branch in types_ for value in _values(branch)]
            hint = did_you_mean(near_names(str(detail["input"])[:100], allowed))
            return f"it must be {context.get('expected')}", hint
        case "model_type" | "model_attributes_type" | "dataclass_type":
            fields = [name for branch in types_ for name in _names(branch)]
            return f"it must be a {table} with the fields {', '.join(fields)}", ""
        case "too_short":
            return f"it must have {context.get('min_length')} or more entries", ""
        case known if known in _PLAIN:
            return _PLAIN[known], ""
    message = detail["msg"].removeprefix("Value error, ")
    for subject in ("Input", "String", "Value", "Tuple", "List", "Dictionary"):
        message = message.replace(f"{subject} should", "it must")
    return message, ""


def _follow(
    model: type[BaseModel], location: Sequence[str | int]
) -> tuple[tuple[str | int, ...], list[Any], list[Any]]:
    """Return the keys of a field in a file, the types of its parent, and the types of its value.

    A location of pydantic also contains the branch of a union, and ``[key]`` for a name of a table.

    Returns:
        The keys, and both lists of types.
    """
    keys: list[str | int] = []
    parent: list[Any] = []
    here: list[Any] = [model]
    for part in location:
        branch = [kind for kind in here if _is_branch(kind, part)]
        if branch:
            here = [_bare(kind) for kind in branch]
        elif part != "[key]":
            keys.append(part)
            parent = here
            here = [member for kind in here for member in _members_of_key(kind, part)]
    return tuple(keys), [_bare(kind) for kind in parent], [_bare(kind) for kind in here]


def _is_branch(kind: Any, part: str | int) -> bool:
    if get_origin(kind) is Annotated:
        return any(isinstance(mark, Tag) and mark.tag == part for mark in get_args(kind)[1:])
    return isinstance(kind, type) and kind.__name__ == part


def _bare(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _members(kind: Any) -> list[Any]:
    """Return the members of a union; for another type, a list with the type."""
    if get_origin(kind) is Annotated:
        if any(isinstance(mark, Tag) for mark in get_args(kind)[1:]):
            return [kind]
        return _members(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [member for argument in get_args(kind) for member in _members(argument)]
    return [kind]


def _members_of_key(kind: Any, key: str | int) -> list[Any]:
    kind = _bare(kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = [field for name, field in kind.model_fields.items() if key in (name, field.alias)]
        return [member for field in fields for member in _members(field.annotation)]
    arguments = get_args(kind)
    if get_origin(kind) is dict:
        return _members(arguments[1])
    if get_origin(kind) in (tuple, list):
        return _members(arguments[0])
    return []


def _names(kind: Any) -> list[str]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [field.alias or name for name, field in kind.model_fields.items()]
    return []


def _values(kind: Any) -> list[Any]:
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [*kind] if isinstance(kind, type) and issubclass(kind, Enum) else []

"""Reads forms, and keeps what is wrong with each field."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from urllib.parse import parse_qsl

from fastapi import HTTPException

MAX_FIELDS = 200
MAX_ID_DIGITS = 18
"""Each id of so many digits is below 2**63."""
FORM_TYPE = "application/x-www-form-urlencoded"


@dataclass(kw_only=True)
class ConsoleForm:
    """The fields of a form. Reading one that is not valid adds an error.

    Attributes:
        values: The values of each name, in order.
        errors: What is wrong, by name of the field.
    """

    values: Mapping[str, list[str]]
    errors: dict[str, str] = field(default_factory=dict)

    def raw(self, name: str) -> str:
        """Return the first value of a field as it was sent, or an empty text."""
        return self.values.get(name, [""])[0]

    def all(self, name: str) -> list[str]:
        """Return all values of a field, such as those of check boxes."""
        return list(self.values.get(name, []))

    def text(self, name: str, *, max_characters: int = 500, required: bool = True, lines: bool = False) -> str:
        """Return a text without white space around it.

        Args:
            name: Name of the field.
            max_characters: Largest length.
            required: Whether an empty text is an error.
            lines: Whether it may have several lines.
        """
        text = self.raw(name).strip().replace("\r\n", "\n")
        if required and not text:
            self.errors[name] = "Fill in this field."
        elif len(text) > max_characters:
            self.errors[name] = f"This is too long: {len(text):,} characters, and {max_characters:,} are the most."
        elif any(char < " " and not (lines and char in "\n\t") for char in text):
            self.errors[name] = "This contains control characters."
        return text

    def choice(self, name: str, choices: Collection[str]) -> str:
        """Return one of the choices. Any other value is an error."""
        value = self.raw(name)
        if value not in choices:
            self.errors[name] = f"Choose one of {', '.join(choices)}."
        return value

    def time(self, name: str, zone: tzinfo) -> datetime | None:
        """Return a time in a zone. None, and an error, for a text that is not one."""
        try:
            return datetime.fromisoformat(self.raw(name).strip()).replace(tzinfo=zone)
        except ValueError:
            self.errors[name] = "Choose a date and a time."
            return None

    def row_id(self, name: str) -> int:
        """Return the id in a hidden field. 0, which no row has, for any other text."""
        text = self.raw(name)
        return int(text) if text.isascii() and text.isdecimal() and len(text) <= MAX_ID_DIGITS else 0

    def checked(self, name: str) -> bool:
        """Return whether a check box is checked."""
        return bool(self.raw(name))


def parse_form(content_type: str, body: bytes) -> ConsoleForm:
    """Parse the body of a form.

    Args:
        content_type: Value of Content-Type.
        body: The body.

    Returns:
        The form.

    Raises:
        HTTPException: 415 for another media type, 400 for a body that is not a form.
    """
    if content_type.partition(";")[0].strip().lower() != FORM_TYPE:
        raise HTTPException(415, f"A form is sent as {FORM_TYPE}.")
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise HTTPException(400, "The form cannot be read: it is not UTF-8, or has too many fields.") from None
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return ConsoleForm(values=values)

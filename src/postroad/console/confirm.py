"""The page before an act: what it touches, and the button that does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

CHANGED = "What this touches has changed since the page was shown. This is how it is now."
"""Error of an act that would touch other things than its page showed."""


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Things that an act touches: how many, what, and the page that lists them."""

    count: int
    label: str
    href: str | None = None


class FieldKind(StrEnum):
    """Kinds of form fields."""

    TEXT = "text"
    LINES = "lines"
    CHOICE = "choice"
    PASSWORD = "password"  # noqa: S105  (a kind of field)
    CHECK = "check"
    TIME = "time"


@dataclass(frozen=True, kw_only=True)
class FormField:
    """A field of a form.

    Attributes:
        name: Its name in the form.
        label: Its label.
        kind: Its kind.
        value: Its value.
        hint: What to enter.
        error: What is wrong with the value.
        choices: Value and text of each choice.
        required: Whether it must be filled in.
        autocomplete: Value of the attribute of that name.
    """

    name: str
    label: str
    kind: FieldKind = FieldKind.TEXT
    value: str = ""
    hint: str = ""
    error: str = ""
    choices: Sequence[tuple[str, str]] = ()
    required: bool = True
    autocomplete: str = "off"


def reason_field(value: str = "", error: str = "", hint: str = "It is kept in the audit log.") -> FormField:
    """Return the field for the reason of an act, which may stay empty."""
    return FormField(name="note", label="Reason", value=value, error=error, hint=hint, required=False)


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """What an act would do.

    Attributes:
        title: The question, such as “Pause the campaign spring?”.
        button: Label of the button, such as “Pause the campaign”.
        action: Path to which the form is posted.
        back: Path of the page to return to.
        extents: What the act touches.
        effects: Sentences about what happens.
        fields: Fields to fill in, such as the reason.
        hidden: Values that the form carries.
        dangerous: Whether the act cannot be undone.
    """

    title: str
    button: str
    action: str
    back: str
    extents: Sequence[Extent] = ()
    effects: Sequence[str] = ()
    fields: Sequence[FormField] = ()
    hidden: Mapping[str, str] = field(default_factory=dict)
    dangerous: bool = False

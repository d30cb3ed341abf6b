"""The parts of a message before they are encoded."""

from __future__ import annotations

from typing import NamedTuple


class Rendering(NamedTuple):
    """The parts of a message as a recipient reads them. ``html``: None if there is no such part."""

    subject: str
    text: str
    html: str | None

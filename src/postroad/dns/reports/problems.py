"""Collects the problems of a report whose valid parts are used."""

from __future__ import annotations

from postroad.errors import DataError

MAX_PROBLEMS = 20
"""Maximum number of problems of one report. A hostile report may have one in each record."""
MAX_PROBLEM_CHARACTERS = 200


class Problems:
    """The problems of one report, up to `MAX_PROBLEMS`."""

    def __init__(self) -> None:
        self._named: list[str] = []
        self._more = 0

    def add(self, problem: str) -> None:
        """Add a problem. Reports are untrusted, so unprintable characters are replaced."""
        if len(self._named) >= MAX_PROBLEMS:
            self._more += 1
            return
        text = problem[:MAX_PROBLEM_CHARACTERS]
        self._named.append("".join(c if c.isprintable() else "\ufffd" for c in text))

    def all(self) -> tuple[str, ...]:
        """Return the problems in order, and the number of further ones."""
        return (*self._named, *([f"{self._more:,} more problems"] if self._more else []))

    def error(self, what: str) -> DataError:
        """Return the error for a report without a valid row."""
        return DataError(f"{what}: {'; '.join(self.all()[:5]) or 'it has no rows'}")


def clean_text(value: object, length: int = 255) -> str:
    """Return a text of a report as one line, or "" if it is too long or not printable."""
    text = " ".join(value.split()) if isinstance(value, str) else ""
    return text if len(text) <= length and text.isprintable() else ""

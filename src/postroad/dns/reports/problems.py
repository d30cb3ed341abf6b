"""What of a report could not be read: named, while the rest is kept."""

from __future__ import annotations

from postroad.errors import DataError

MAX_PROBLEMS = 20
"""Named of one report. A hostile one may have one in each of its records."""
MAX_PROBLEM_CHARACTERS = 200


class Problems:
    """Collects what is wrong with one report, up to a number."""

    def __init__(self) -> None:
        self._named: list[str] = []
        self._more = 0

    def add(self, problem: str) -> None:
        """Name a problem. Only printable characters are kept: a report comes from anybody."""
        if len(self._named) >= MAX_PROBLEMS:
            self._more += 1
            return
        text = problem[:MAX_PROBLEM_CHARACTERS]
        self._named.append("".join(c if c.isprintable() else "\ufffd" for c in text))

    def all(self) -> tuple[str, ...]:
        """Return the problems in their order, and how many more there are."""
        return (*self._named, *([f"{self._more:,} more problems"] if self._more else []))

    def refuse(self, what: str) -> DataError:
        """Return the error of a report of which no row could be read."""
        return DataError(f"{what}: {'; '.join(self.all()[:5]) or 'it has no rows'}")


def named_text(value: object, length: int = 255) -> str:
    """Return a text of a report on one line; an empty one if it is too long or not printable."""
    text = " ".join(value.split()) if isinstance(value, str) else ""
    return text if len(text) <= length and text.isprintable() else ""

"""Options that several commands have, and how what a person writes is read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from postroad.delivery.job import SEND_QUEUE
from postroad.errors import UsageError
from postroad.sandbox import parse_shares
from postroad.settings import MAX_DURATION_MS, RateSetting, parse_duration_ms

MAX_NUMBER = 1_000_000_000
"""Of what is counted on the command line: rows, jobs, messages. It fits into every database and server."""

LimitOption = Annotated[int, typer.Option(help="Maximum number of rows.", min=1, max=MAX_NUMBER)]
QueueOption = Annotated[str, typer.Option("--queue", help=f"Name of the queue, such as {SEND_QUEUE}.")]


def read_instant_ms(text: str, now_ms: int) -> int:
    """Milliseconds since the epoch: of a duration from now (`30m`), or of an instant in ISO 8601 (UTC if it says no
    zone). Raises UsageError.
    """
    try:
        return now_ms + _bounded_ms(text)
    except ValueError:
        pass
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text[:40]!r} is neither a duration, as 30m is, nor an instant, as 2027-01-31T09:00Z is"
        ) from None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return int(instant.timestamp() * 1000)


def read_duration_ms(text: str) -> int:
    """Read a duration of at most ten years. Raises UsageError."""
    try:
        return _bounded_ms(text)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _bounded_ms(text: str) -> int:
    duration_ms = parse_duration_ms(text)
    if duration_ms > MAX_DURATION_MS:
        raise ValueError(f"{text[:40]!r} is too long: ten years are the most")
    return duration_ms


def read_rate(text: str) -> RateSetting:
    """Read a rate, such as ``100/1s``. Raises UsageError."""
    try:
        rate = RateSetting.parse(text)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if rate.count > MAX_NUMBER or rate.per_ms > MAX_DURATION_MS:
        raise UsageError(f"a rate is too large: {MAX_NUMBER:,} jobs and ten years are the most")
    return rate


def read_personas(text: str) -> dict[str, float]:
    """Read `gmail=0.6,outlook=0.3`. Raises UsageError."""
    try:
        return parse_shares(text)
    except ValueError as error:
        raise UsageError(f"--persona: {error}") from None


def at(ms: int | None) -> datetime | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)

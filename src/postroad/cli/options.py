"""Options that several commands have, and how what a person writes is read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, NamedTuple

import typer

from postroad.cli.row_limit import MAX_NUMBER
from postroad.delivery.job import SEND_QUEUE
from postroad.errors import UsageError
from postroad.sandbox import parse_shares
from postroad.settings import MAX_DURATION_MS, RateSetting, parse_duration_ms

QueueOption = Annotated[str, typer.Option("--queue", help=f"Name of the queue, such as {SEND_QUEUE}.")]


def parse_timestamp_ms(text: str, now_ms: int) -> int:
    """Parse a duration from now (`30m`), or a timestamp in ISO 8601 (default zone: UTC).

    Args:
        text: The duration or timestamp.
        now_ms: The time, in ms since the epoch.

    Returns:
        The time in ms since the epoch.

    Raises:
        UsageError: The text is neither a duration nor a timestamp.
    """
    try:
        return now_ms + _bounded_ms(text)
    except ValueError:
        pass
    try:
        at_time = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text[:40]!r} is neither a duration such as 30m nor a timestamp such as 2027-01-31T09:00Z"
        ) from None
    if at_time.tzinfo is None:
        at_time = at_time.replace(tzinfo=UTC)
    return int(at_time.timestamp() * 1000)


def parse_duration_option_ms(text: str) -> int:
    """Parse a duration of at most ten years, in ms. Raise UsageError for other text."""
    try:
        return _bounded_ms(text)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _bounded_ms(text: str) -> int:
    duration_ms = parse_duration_ms(text)
    if duration_ms > MAX_DURATION_MS:
        raise ValueError(f"{text[:40]!r} is too long: ten years are the most")
    return duration_ms


def parse_rate(text: str) -> RateSetting:
    """Parse a rate such as ``100/1s``. Raise UsageError for other text."""
    try:
        rate = RateSetting.parse(text)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if rate.count > MAX_NUMBER or rate.per_ms > MAX_DURATION_MS:
        raise UsageError(f"a rate is too large: {MAX_NUMBER:,} jobs and ten years are the most")
    return rate


def parse_personas(text: str) -> dict[str, float]:
    """Parse personas with their shares, such as `gmail=0.6,outlook=0.3`. Raise UsageError for other text."""
    try:
        return parse_shares(text)
    except ValueError as error:
        raise UsageError(f"--persona: {error}") from None


def at(ms: int | None) -> datetime | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)


MetricsPort = Annotated[
    int | None, typer.Option(help="Serve /metrics, /livez and /readyz at this port; unset: none.", min=0, max=65535)
]
MetricsHost = Annotated[str, typer.Option(help="Address that they are served at; 0.0.0.0: every one.")]


class MetricsAt(NamedTuple):
    """Where metrics and health are served; port None: nowhere."""

    host: str
    port: int | None

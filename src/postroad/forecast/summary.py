"""A forecast and the findings of a preflight in Markdown, for the person who approves a launch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from postroad.campaign.finding import PreflightFinding
from postroad.forecast.report import CampaignForecast, whole_messages
from postroad.printable import escape_markdown

MAX_HOURS: Final = 24
MAX_LINES: Final = 30
MAX_FINDINGS: Final = 20
HOLDS: Final = 5


def describe_forecast(forecast: CampaignForecast) -> str:
    """Return a forecast: its size, its end, what holds it, and its messages by hour, or by day if it takes longer."""
    ends = f"{_at(forecast.ends_at)} UTC" if forecast.ends_at is not None else "never, while it is held"
    size = f"**{forecast.recipients:,}** people get **{round(forecast.messages):,}** messages."
    lines = [f"{size} The last one leaves at **{ends}**.", ""]
    lines += [
        f"* step {escape_markdown(step.step)}: {round(step.messages):,} messages, {_at(step.first_at)} to "
        f"{_at(step.last_at)} UTC"
        for step in forecast.steps
    ]
    lines += [
        f"* held by {escape_markdown(hold.cause)} ({escape_markdown(hold.limit)}): {hold.message_hours:,.0f} hours of "
        "all messages together"
        for hold in forecast.holds[:HOLDS]
    ]
    return "\n".join([*lines, "", *_by_time(forecast)])


def _by_time(forecast: CampaignForecast) -> list[str]:
    hours = Counter[datetime]()
    for hour, messages in zip(forecast.hours, whole_messages(forecast.hours), strict=True):
        hours[hour.hour] += messages
    by_hour = len(hours) <= MAX_HOURS
    counts: Counter[str] = Counter()
    for at, messages in sorted(hours.items()):
        counts[f"{at.astimezone(UTC):%Y-%m-%d %H:00}" if by_hour else f"{at.astimezone(UTC):%Y-%m-%d}"] += messages
    rows = list(counts.items())
    more = len(rows) - MAX_LINES
    lines = [f"| {'hour' if by_hour else 'day'} (UTC) | messages |", "| --- | --- |"]
    lines += [f"| {at} | {messages:,} |" for at, messages in rows[:MAX_LINES]]
    return [*lines, *([f"| … {more} more | {sum(n for _, n in rows[MAX_LINES:]):,} |"] if more > 0 else [])]


def describe_findings(findings: Sequence[PreflightFinding]) -> str:
    """Return the findings of a preflight as a list."""
    if not findings:
        return "The preflight found nothing."
    lines = [f"* {finding.level}: {escape_markdown(finding.what)}" for finding in findings[:MAX_FINDINGS]]
    more = len(findings) - MAX_FINDINGS
    return "\n".join(["The preflight found:", "", *lines, *([f"* … and {more} more"] if more > 0 else [])])


def _at(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"

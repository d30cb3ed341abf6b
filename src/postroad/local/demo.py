"""The demo: runs one campaign from a CSV to delivered mail, through Prefect, the queue and SMTP, and counts."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
import yaml

from postroad.app.context import AppContext, open_context
from postroad.campaign.apply import apply
from postroad.campaign.definition import read_campaign
from postroad.campaign.status import CampaignSummary, summary
from postroad.campaign.suppression_file import read_addresses
from postroad.delivery.job import SEND_QUEUE
from postroad.delivery.recorder import GROUP
from postroad.errors import StateError, UnavailableError
from postroad.local.example import write_recipients
from postroad.local.prefect_access import LOOPBACK
from postroad.local.stack import SANDBOX_ROUTE, LocalStack, require_settings_file
from postroad.local.warmups import schedule_warmups
from postroad.sandbox import AcceptedMessage, accepted
from postroad.settings import Settings
from postroad.store.engine import read
from postroad.store.ledger import TouchState
from postroad.store.suppression import SuppressionReason, suppress_now
from postroad.store.types import UtcDateTime

EXAMPLE = Path("examples/welcome")
_NEW_PROJECT = "`postroad init my-mail` makes a folder in which the demo runs."
POLL_SECONDS = 0.25
RUN_WITHIN_SECONDS = 600.0

Progress = Callable[[str, int, int], None]
"""Called with the name of the stage, how much of it is done, and how much there is."""


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """The counts of a demo.

    Attributes:
        complete: Whether the counts add up, and the sandbox has exactly the accepted messages.
    """

    campaign: str
    rows: int
    imported: int
    duplicate_rows: int
    refused: int
    refused_reasons: dict[str, int]
    audience: int
    suppressed: int
    accepted: int
    deferred: int
    bounced: int
    unknown: int
    others: dict[str, int]
    new_messages: int
    captured: int
    duplicates: int
    delivery_seconds: float
    messages_per_second: float
    run_url: str
    complete: bool


@dataclass(frozen=True)
class _Captured:
    """Messages at the sandbox.

    Attributes:
        messages: All that it has accepted, in order.
        files: How many files are in its Maildir.
        new: How many messages it accepted in this demo.
    """

    messages: Sequence[AcceptedMessage]
    files: int
    new: int

    @property
    def duplicates(self) -> int:
        return sum(n - 1 for n in Counter(message.message_id for message in self.messages).values())


def require_example(settings: Settings, example: str) -> None:
    """Require an example in the folder of the settings.

    Args:
        settings: The settings.
        example: Name of the example.

    Raises:
        StateError: The folder has no such example.
        UsageError: There is no settings file.
    """
    require_settings_file(settings)
    folder = settings.base_dir / "examples" / example
    if not folder.is_dir():
        raise StateError(f"the example {example} is not here", where=str(folder), remedy=_NEW_PROJECT)


def require_sandbox(settings: Settings) -> None:
    """Require settings by which no mail leaves this machine. A demo starts a worker, which sends all mail that is due.

    Args:
        settings: The settings.

    Raises:
        StateError: A sender does not send to the sandbox.
    """
    sandbox = settings.routes.get(SANDBOX_ROUTE)
    others = sorted(name for name, sender in settings.senders.items() if sender.route != SANDBOX_ROUTE)
    if sandbox is None or sandbox.host not in LOOPBACK or others:
        why = f"these senders have another one: {', '.join(others)}" if others else "it is not a host of this machine"
        raise StateError(
            f"the demo sends by the route {SANDBOX_ROUTE} only, and {why}",
            where=str(settings.config_path),
            remedy=_NEW_PROJECT,
        )


async def run_demo(stack: LocalStack, recipients: int | None, progress: Progress) -> DemoResult:
    """Run the example campaign through its Prefect deployment.

    Args:
        stack: With a sandbox.
        recipients: How many made-up recipients it has. None: those of the example.
        progress: Called repeatedly while it runs.

    Returns:
        The counts of all recipients and messages.

    Raises:
        StateError: The flow run failed.
        UnavailableError: The run or the delivery did not end in time.
    """
    assert stack.sandbox_dir is not None  # noqa: S101  (the demo's settings have a sandbox)
    log, maildir = stack.sandbox_dir / "accepted.jsonl", stack.sandbox_dir / "Maildir" / "new"
    async with open_context(stack.settings) as context:
        folder = context.settings.base_dir / EXAMPLE
        if recipients is not None:
            folder = await asyncio.to_thread(_make_list, context, folder, recipients)
        name = await asyncio.to_thread(_apply, context, folder)
        before = len(accepted(log))
        run_url = await _run(stack, context, name, progress)
        seconds = await _settle(context, name, progress)
        messages = accepted(log)
        current = await asyncio.to_thread(summary, context.engine, name)
        rows = await asyncio.to_thread(_import_counts, context, name)
        files = await asyncio.to_thread(lambda: sum(1 for _ in maildir.iterdir()))
    return _result(current, rows, _Captured(messages, files, len(messages) - before), seconds, run_url)


def _result(
    current: CampaignSummary, rows: _ImportCounts, captured: _Captured, seconds: float, run_url: str
) -> DemoResult:
    counts = current.steps[0].counts
    named = (TouchState.SUPPRESSED, TouchState.ACCEPTED, TouchState.DEFERRED, TouchState.BOUNCED, TouchState.UNKNOWN)
    refused = sum(rows.refused.values())
    return DemoResult(
        campaign=current.campaign,
        rows=rows.total,
        imported=rows.imported,
        duplicate_rows=rows.duplicates,
        refused=refused,
        refused_reasons=rows.refused,
        audience=current.audience,
        suppressed=counts[TouchState.SUPPRESSED],
        accepted=counts[TouchState.ACCEPTED],
        deferred=counts[TouchState.DEFERRED],
        bounced=counts[TouchState.BOUNCED],
        unknown=counts[TouchState.UNKNOWN],
        others={str(state): n for state, n in counts.items() if n and state not in named},
        new_messages=captured.new,
        captured=captured.files,
        duplicates=captured.duplicates,
        delivery_seconds=round(seconds, 2) if captured.new else 0.0,
        messages_per_second=round(captured.new / seconds, 1) if captured.new and seconds else 0.0,
        run_url=run_url,
        complete=(
            rows.total == rows.imported + rows.duplicates + refused
            and current.audience == rows.imported == sum(counts.values())
            and captured.files == len(captured.messages)
            and captured.duplicates == 0
        ),
    )


def _make_list(context: AppContext, example: Path, recipients: int) -> Path:
    """Write the example's campaign, with a list of another length, into the state folder, and return its folder."""
    folder = context.settings.state_dir / f"demo-{recipients}"
    write_recipients(folder / "recipients.csv", folder / "suppressions.csv", recipients)
    campaign = yaml.safe_load((example / "campaign.yaml").read_text(encoding="utf-8"))
    campaign["name"] = f"{campaign['name']}-{recipients}"
    campaign["audience"]["name"] = f"{campaign['audience']['name']}-{recipients}"
    for step in campaign["steps"]:
        for part in ("text", "html"):
            if part in step:
                step[part] = str(example / step[part])
    (folder / "campaign.yaml").write_text(yaml.safe_dump(campaign, sort_keys=False), encoding="utf-8")
    return folder


def _apply(context: AppContext, folder: Path) -> str:
    now = context.clock.now()
    suppressions = folder / "suppressions.csv"
    suppress_now(context.engine, read_addresses(suppressions), SuppressionReason.MANUAL, suppressions.name, now)
    file = read_campaign(folder / "campaign.yaml", folders=(context.settings.base_dir / EXAMPLE,))
    return apply(context.engine, context.settings, file, now).name


async def _run(stack: LocalStack, context: AppContext, name: str, progress: Progress) -> str:
    async with stack.prefect.client() as prefect:
        run_id = await prefect.run_deployment("campaign/campaign", {"params": {"campaign": name, "follow_seconds": 0}})
        await schedule_warmups(context.settings, prefect)
        until = time.monotonic() + RUN_WITHIN_SECONDS
        while not (state := await prefect.state(run_id)).terminal:
            await asyncio.to_thread(_show, context, name, progress)
            if time.monotonic() > until:
                raise UnavailableError("the flow run has not ended", where=prefect.url_of(run_id))
            await asyncio.sleep(POLL_SECONDS)
        if not state.completed:
            logs = context.settings.state_dir / "logs" / "prefect-worker.log"
            raise StateError(f"the flow run ended {state.name}: {state.message}", where=str(logs))
        return prefect.url_of(run_id)


async def _settle(context: AppContext, name: str, progress: Progress) -> float:
    """Wait until every message is settled and recorded. Return the seconds between the first and the last message."""
    queue = await context.queue(SEND_QUEUE)
    until = time.monotonic() + RUN_WITHIN_SECONDS
    while time.monotonic() < until:
        current = await asyncio.to_thread(_show, context, name, progress)
        stats = await queue.stats()
        lag = sum(group.pending + group.unread for group in stats.groups if group.name == GROUP)
        if current.settled and lag == 0:
            return await asyncio.to_thread(_delivery_seconds, context, name)
        await asyncio.sleep(POLL_SECONDS)
    raise UnavailableError("messages are still under way", remedy=f"`postroad campaign status {name}` shows which.")


def _show(context: AppContext, name: str, progress: Progress) -> CampaignSummary:
    with read(context.engine) as connection:
        row = connection.execute(
            sa.text(
                "SELECT audience_import.rows_done, audience_import.rows_total FROM audience_import "
                "JOIN campaign ON campaign.audience_id = audience_import.audience_id WHERE campaign.name = :name "
                "ORDER BY audience_import.id DESC LIMIT 1"
            ),
            {"name": name},
        ).first()
    if row is not None:
        progress("importing", row.rows_done, row.rows_total)
    current = summary(context.engine, name)
    if current.audience:
        first = current.steps[0]
        waiting = first.live - first.counts[TouchState.DEFERRED]
        progress("delivering", first.touches - waiting, first.touches)
    return current


def _delivery_seconds(context: AppContext, name: str) -> float:
    with read(context.engine) as connection:
        first, last = connection.execute(
            sa.text(
                "SELECT min(touch.due_at), max(touch.settled_at) FROM touch "
                "JOIN campaign ON campaign.id = touch.campaign_id "
                "WHERE campaign.name = :name AND touch.state = 'accepted'"
            ).columns(sa.column("first", UtcDateTime()), sa.column("last", UtcDateTime())),
            {"name": name},
        ).one()
        return max((last - first).total_seconds(), 0.0) if first and last else 0.0


@dataclass(frozen=True, kw_only=True)
class _ImportCounts:
    total: int
    imported: int
    duplicates: int
    refused: dict[str, int]


def _import_counts(context: AppContext, name: str) -> _ImportCounts:
    with read(context.engine) as connection:
        row = connection.execute(
            sa.text(
                "SELECT audience_import.id, rows_total, imported, duplicates FROM audience_import "
                "JOIN campaign ON campaign.audience_id = audience_import.audience_id WHERE campaign.name = :name "
                "ORDER BY audience_import.id DESC LIMIT 1"
            ),
            {"name": name},
        ).one()
        reasons = connection.execute(
            sa.text("SELECT reason, count(*) AS n FROM refusal WHERE import_id = :id GROUP BY reason ORDER BY n DESC"),
            {"id": row.id},
        )
        refused = {row.reason: row.n for row in reasons}
    return _ImportCounts(total=row.rows_total, imported=row.imported, duplicates=row.duplicates, refused=refused)

"""The demo: one campaign from a CSV to delivered mail, through Prefect, the queue and SMTP, and its account."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
import yaml

from postroad.app.context import AppContext, open_context
from postroad.campaign.apply import apply
from postroad.campaign.definition import read_campaign
from postroad.campaign.status import Summary, summary
from postroad.campaign.suppression_file import read_addresses
from postroad.delivery.job import SEND_QUEUE
from postroad.delivery.record import GROUP
from postroad.errors import StateError, UnavailableError
from postroad.local.example import write_recipients
from postroad.local.house import LocalStack
from postroad.local.warmups import schedule_warmups
from postroad.sandbox import accepted
from postroad.store.engine import read
from postroad.store.ledger import TouchState
from postroad.store.suppression import SuppressionReason, suppress_now
from postroad.store.types import UtcDateTime

EXAMPLE = Path("examples/welcome")
LOOK_SECONDS = 0.25
RUN_WITHIN_SECONDS = 600.0

Progress = Callable[[str, int, int], None]
"""Called with what is going on, how much of it is done, and how much there is."""


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """The account of a demo. ``complete``: its context sum to the whole, and the provider has what was accepted."""

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


async def run_demo(house: LocalStack, recipients: int | None, progress: Progress) -> DemoResult:
    """Run the example campaign through its Prefect deployment. Raises StateError when the run fails."""
    assert house.sandbox_dir is not None  # noqa: S101  (the demo's settings have a sandbox)
    async with open_context(house.settings) as context:
        folder = context.settings.base_dir / EXAMPLE
        if recipients is not None:
            folder = await asyncio.to_thread(_make_list, context, folder, recipients)
        name = await asyncio.to_thread(_apply, context, folder)
        before = len(accepted(house.sandbox_dir / "accepted.jsonl"))
        run_url = await _run(house, context, name, progress)
        started, finished = await _settle(context, name, progress)
        captured = accepted(house.sandbox_dir / "accepted.jsonl")
        current = await asyncio.to_thread(summary, context.engine, name)
        rows = await asyncio.to_thread(_import_account, context, name)
        maildir = house.sandbox_dir / "Maildir" / "new"
        files = await asyncio.to_thread(lambda: sum(1 for _ in maildir.iterdir()))
    counts = current.steps[0].counts
    named = (TouchState.SUPPRESSED, TouchState.ACCEPTED, TouchState.DEFERRED, TouchState.BOUNCED, TouchState.UNKNOWN)
    others = {str(state): n for state, n in counts.items() if n and state not in named}
    new = len(captured) - before
    duplicates = sum(n - 1 for n in Counter(message.message_id for message in captured).values())
    seconds = max((finished - started), 0.0)
    refused = sum(rows.refused.values())
    return DemoResult(
        campaign=name,
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
        others=others,
        new_messages=new,
        captured=files,
        duplicates=duplicates,
        delivery_seconds=round(seconds, 2) if new else 0.0,
        messages_per_second=round(new / seconds, 1) if new and seconds else 0.0,
        run_url=run_url,
        complete=(
            rows.total == rows.imported + rows.duplicates + refused
            and current.audience == rows.imported == sum(counts.values())
            and files == len(captured)
            and duplicates == 0
        ),
    )


def _make_list(context: AppContext, example: Path, recipients: int) -> Path:
    """Write the example's campaign for a list of another length into the state folder."""
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


async def _run(house: LocalStack, context: AppContext, name: str, progress: Progress) -> str:
    async with house.prefect.client() as prefect:
        run_id = await prefect.run_deployment("campaign/campaign", {"params": {"campaign": name, "follow_seconds": 0}})
        await schedule_warmups(context.settings, prefect)
        until = time.monotonic() + RUN_WITHIN_SECONDS
        while not (state := await prefect.state(run_id)).terminal:
            await asyncio.to_thread(_show, context, name, progress)
            if time.monotonic() > until:
                raise UnavailableError("the flow run has not ended", where=prefect.url_of(run_id))
            await asyncio.sleep(LOOK_SECONDS)
        if not state.completed:
            logs = context.settings.state_dir / "logs" / "prefect-worker.log"
            raise StateError(f"the flow run ended {state.name}: {state.message}", where=str(logs))
        return prefect.url_of(run_id)


async def _settle(context: AppContext, name: str, progress: Progress) -> tuple[float, float]:
    """Wait until nothing moves any more and all of it is recorded. Returns when the first and last message left."""
    queue = await context.queue(SEND_QUEUE)
    until = time.monotonic() + RUN_WITHIN_SECONDS
    while time.monotonic() < until:
        current = await asyncio.to_thread(_show, context, name, progress)
        stats = await queue.stats()
        lag = sum(group.pending + group.unread for group in stats.groups if group.name == GROUP)
        if current.settled and lag == 0:
            return await asyncio.to_thread(_delivery_times, context, name)
        await asyncio.sleep(LOOK_SECONDS)
    raise UnavailableError("messages are still under way", remedy=f"`postroad campaign status {name}` shows which.")


def _show(context: AppContext, name: str, progress: Progress) -> Summary:
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


def _delivery_times(context: AppContext, name: str) -> tuple[float, float]:
    with read(context.engine) as connection:
        first, last = connection.execute(
            sa.text(
                "SELECT min(touch.due_at), max(touch.settled_at) FROM touch "
                "JOIN campaign ON campaign.id = touch.campaign_id "
                "WHERE campaign.name = :name AND touch.state = 'accepted'"
            ).columns(sa.column("first", UtcDateTime()), sa.column("last", UtcDateTime())),
            {"name": name},
        ).one()
        return (first.timestamp(), last.timestamp()) if first and last else (0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class _ImportAccount:
    total: int
    imported: int
    duplicates: int
    refused: dict[str, int]


def _import_account(context: AppContext, name: str) -> _ImportAccount:
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
    return _ImportAccount(total=row.rows_total, imported=row.imported, duplicates=row.duplicates, refused=refused)

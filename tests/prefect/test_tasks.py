"""What the tasks add to the library: when they try again, how they cut the work, what they show."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from typing import Any, cast, get_type_hints

import pytest
import redis.exceptions
import sqlalchemy.exc
from prefect import Task
from prefect.client.schemas.objects import TaskRun
from prefect.states import exception_to_failed_state

from flows.campaign import continuing
from postroad.app.advance import Advance
from postroad.bounce.sources.source import PollResult
from postroad.campaign.status import CampaignSummary, StepSummary
from postroad.errors import ConfigError, DataError, PreflightError, StateError, UnavailableError
from postroad.store.campaign import CampaignState
from postroad.store.ledger import TouchState
from tasks import advance, audience, bounces, campaign, dead_letters, dns, maintain, warmup
from tasks.policy import is_transient
from tasks.report import markdown_table, narrow
from tasks.result import completeness, ended, where_to_look
from tasks.slices import MAX_SLICES, MIN_ROWS, rows_per_slice
from tests.docs.pages import ROOT

ALL_TASKS: list[Task[..., Any]] = [
    advance.advance_campaign,
    advance.list_running,
    advance.record_advance,
    advance.renew_stopped,
    audience.find_unimported_file,
    audience.import_rows,
    audience.open_file,
    audience.publish_refusals,
    bounces.fetch,
    campaign.begin,
    campaign.follow,
    campaign.freeze_audience,
    campaign.pause_stopped_campaigns,
    campaign.preflight,
    campaign.record_failure,
    campaign.submit_slice,
    dead_letters.preview,
    dead_letters.replay,
    dns.list_senders,
    dns.sync_holds,
    maintain.list_in_form,
    maintain.rebuild_missing,
    maintain.publish_depths,
    maintain.reap_and_promote,
    warmup.close_day,
    warmup.explain,
    warmup.set_caps,
]


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (UnavailableError("redis is away"), True),
        (sqlalchemy.exc.OperationalError("select 1", {}, Exception("connection refused")), True),
        (redis.exceptions.ConnectionError("refused"), True),
        (redis.exceptions.TimeoutError("slow"), True),
        (PreflightError("no unsubscribe link"), False),
        (DataError("row 7"), False),
        (ConfigError("no such campaign"), False),
        (StateError("not running"), False),
        (sqlalchemy.exc.IntegrityError("insert", {}, Exception("unique")), False),
        (ValueError("a mistake of ours"), False),
    ],
)
async def test_only_a_server_that_was_away_is_tried_again(error: Exception, again: bool) -> None:
    state = await exception_to_failed_state(error)
    any_task = audience.open_file
    assert await is_transient(any_task, cast(TaskRun, None), state) is again


@pytest.mark.parametrize("task", ALL_TASKS, ids=lambda task: task.name)
def test_every_task_is_tried_again_later_each_time_and_not_all_at_once(task: Task[..., Any]) -> None:
    delays = task.retry_delay_seconds
    assert task.retries >= 3
    assert isinstance(delays, list)
    assert delays == sorted(delays)
    assert delays[-1] > delays[0] > 0
    assert (task.retry_jitter_factor or 0) > 0
    assert task.retry_condition_fn is is_transient


def test_dns_is_asked_again_after_two_seconds_and_after_ten_and_then_the_question_stays_open() -> None:
    assert dns.check_senders.retries == 2
    assert dns.check_senders.retry_delay_seconds == [2.0, 10.0]
    assert dns.check_senders.retry_condition_fn is is_transient


@pytest.mark.parametrize("count", [0, 1, 40, 41, 1_000])
def test_senders_are_cut_into_no_more_task_runs_than_a_run_bears(count: int) -> None:
    senders = [f"s{n}" for n in range(count)]
    chunks = dns.slices(senders)
    assert [name for chunk in chunks for name in chunk] == senders
    assert len(chunks) <= MAX_SLICES
    assert count > MAX_SLICES or all(len(chunk) == 1 for chunk in chunks)


@pytest.mark.parametrize("sender", ["News+1@Acme.dev", "a_b@acme.dev", "-@acme.dev", "ü@acme.dev"])
def test_every_sender_has_an_artifact_key_that_prefect_takes(sender: str) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", dns.artifact_key(sender))


@pytest.mark.parametrize("rows", [0, 1, 4_999, 5_000, 199_999, 200_000, 200_001, 1_000_000, 5_000_001])
def test_no_audience_is_cut_into_more_slices_than_a_run_bears(rows: int) -> None:
    per_slice = rows_per_slice(rows)
    assert per_slice >= MIN_ROWS
    assert -(-rows // per_slice) <= MAX_SLICES


def summary_of(**counts: int) -> CampaignSummary:
    """A campaign of one email, with this many people in each state."""
    step = StepSummary(name="hello", counts={state: counts.get(state.value, 0) for state in TouchState})
    return CampaignSummary(
        campaign="welcome",
        state=CampaignState.RUNNING,
        audience=step.touches,
        steps=(step,),
        launched_at=None,
        next_due_at=None,
        paused_at=None,
        paused_by=None,
        launch_failed_at=None,
        launch_error=None,
    )


def test_the_completeness_table_adds_up_to_the_frozen_audience() -> None:
    *states, total = completeness(summary_of(accepted=6, bounced=1, queued=3))
    assert {(row["state"], row["people"]) for row in states} == {("accepted", 6), ("bounced", 1), ("queued", 3)}
    assert sum(row["people"] for row in states) == total["people"] == 10


def test_under_way_is_who_has_reached_no_end() -> None:
    state = summary_of(accepted=5, unknown=1, dead=1, queued=2, deferred=1)
    assert ended(state) == 7
    assert "**3** messages are still under way: due later" in where_to_look(state)
    assert "Every message has an outcome" in where_to_look(summary_of(expired=1))


def test_a_result_counts_planned_follow_ups_and_says_that_a_campaign_stopped() -> None:
    running = summary_of(accepted=3, queued=1)
    (first,) = running.steps
    empty = dict.fromkeys(TouchState, 0)
    later = StepSummary(name="again", counts=empty | {TouchState.PLANNED: 3})
    state = replace(running, steps=(first, later))
    assert "**4** messages are still under way, **3** of them planned for later" in where_to_look(state)
    paused = where_to_look(replace(state, state=CampaignState.PAUSED))
    assert "The campaign is paused. **4** messages are not settled" in paused
    later = StepSummary(name="again", counts=empty | {TouchState.CANCELLED: 3})
    cancelled = where_to_look(replace(state, steps=(first, later), state=CampaignState.CANCELLED))
    assert "is cancelled: 3 messages were not sent. **1** messages were on the wire" in cancelled
    assert not re.search("under way|Delivery continues|To stop the mail", paused + cancelled)


def test_a_result_links_to_pages_and_says_how_to_stop_the_mail() -> None:
    text = where_to_look(summary_of(accepted=5, queued=2))
    assert len(re.findall(r"\]\([^)]*/(?:artifacts/key/[a-z0-9-]+|deployments)\)", text)) >= 5
    assert "`postroad" not in text
    assert "To stop the mail, start `campaign` for welcome again" in text
    assert "To stop the mail" not in where_to_look(summary_of(accepted=7))
    assert "`postroad campaign pause welcome`" in continuing("welcome")


LONG = "x" * 300
DEPTH: dict[str, Any] = dict.fromkeys(get_type_hints(maintain.Depth), 10**6) | {"queue": "email:warmup"}
TABLES: list[list[dict[str, Any]]] = [
    completeness(summary_of(**{state.value: 10**9 for state in TouchState})),
    [asdict(Advance(campaign=LONG, planned=10**9, submitted=10**9, finished=False))],
    [asdict(PollResult(source=LONG))],
    [maintain.Depth(**DEPTH).row()],
    [{"sender": LONG, "verdict": "warn", "new": 10, "gone": 10, "held back": "yes"}],
]


@pytest.mark.parametrize("rows", TABLES)
def test_tables_are_narrow_enough_to_read(rows: list[dict[str, Any]]) -> None:
    for row in narrow(rows):
        widths = [max(len(name), len(str(cell))) for name, cell in row.items()]
        assert sum(widths) <= 90
    with pytest.raises(ValueError, match="at most 8 columns"):
        narrow([{str(number): 1 for number in range(9)}])


def test_every_table_goes_through_the_module_that_narrows_it() -> None:
    makes = re.compile(r"create_table_artifact|ArtifactUpdate\(")
    files = [file for folder in ("tasks", "flows", "deployments") for file in (ROOT / folder).glob("*.py")]
    assert [file.name for file in files if makes.search(file.read_text())] == ["report.py"]
    tables = {key for file in files for key in re.findall(r"""publish_table\(\s*f?"([^"]+)""", file.read_text())}
    assert tables == {"advances", "bounces", "completeness-{state.campaign}", "dns-health", "queues"}, (
        "add it to TABLES"
    )


def test_data_in_a_markdown_table_is_never_markup() -> None:
    hostile = "a|b\n<img src=x> [x](https://evil.example) **`\\"
    table = markdown_table([{"cause": hostile, "letters": 3}])
    head, rule, row = table.splitlines()
    assert (head, rule) == ("| cause | letters |", "| --- | --- |")
    assert row == (r"| a\|b \<img src\=x\> \[x\]\(https\:\/\/evil\.example\) \*\*\`\\ | 3 |")

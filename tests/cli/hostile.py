"""Text that would act on a terminal or on markup, in every place that a command shows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from postroad.app.context import AppContext
from postroad.printable import is_hidden, printable
from postroad.queue import ClaimedJob, Dead, Job, JobClass, Lane, Uncertain, Verdict, this_process

BAD = "[/policy][/red]x:apple:[bad-rep]<b>\x1b]0;title\x07\x1b[2J\r\u202e\x9b31m\x7f"
NOW = datetime.now(UTC)
EVENT = "evt_0123"


def bad(tag: str) -> str:
    """The hostile text of one place, so that it can be distinguished from others."""
    return f"{tag}!{BAD}"


def shown(tag: str) -> str:
    """How a command shows it: complete and literal."""
    return printable(bad(tag))


def hidden_in(text: str) -> set[str]:
    """Return the characters that a terminal would act on."""
    return {char for char in text if is_hidden(char) and char != "\n"}


def without_styles(text: str) -> str:
    """Leave out the colours, and how a bar is drawn again: these are ours."""
    return re.sub(r"\r?\x1b\[([0-9;]*m|\?25[hl]|2K|1A)", "", text)


EMAIL = {"subject": "Hello", "text": "{{ unsubscribe_url }} {{ postal_address }}", "html": None, "at": None}
CAMPAIGN, STEP, SENDER, AUDIENCE, RECIPIENT, TOUCH = range(1000, 1006)


def fill(connection: sa.Connection) -> None:
    """Put hostile text into every column of text that no enumeration limits."""
    for table, values in _rows():
        _insert(connection, table, values)
    attributes = json.dumps({"first_name": bad("first_name")})
    connection.execute(sa.text("UPDATE recipient SET attributes = :it WHERE id < 1000"), {"it": attributes})


def _rows() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "audience", {"id": AUDIENCE}
    yield "audience_import", {"id": 5000, "audience_id": AUDIENCE, "finished_at": NOW}
    yield "refusal", {"import_id": 5000}
    yield "recipient", {"id": RECIPIENT, "attributes": {}, "time_zone": None}
    fields = {bad("recipient_event.field"): bad("recipient_event.value")}
    yield "recipient_event", {"id": 7000, "recipient_id": 1, "fields": fields}
    yield "consent", {"id": 7100, "recipient_id": 1, "audience_id": AUDIENCE}
    yield "sender", {"id": SENDER}
    enumerations = {"state": "running", "job_class": "normal", "time_zone": "UTC", "on_reply": "stop", "warmup": False}
    unset = {
        "segment": None,
        "journey": None,
        "sending_window": None,
        "overflow": None,
        "finished_at": None,
        "audience_file": None,
        "rollout": None,
    }
    yield "campaign", {"id": CAMPAIGN, "audience_id": AUDIENCE, "sender_id": SENDER, **enumerations, **unset}
    decided = {"state": "refused", "used_at": None}
    yield "approval", {"id": 8000, "campaign_id": CAMPAIGN, **decided}
    yield "step", {"id": STEP, "campaign_id": CAMPAIGN, "position": 1, "kind": "email", "settings": EMAIL}
    of_step = {"campaign_id": CAMPAIGN, "step_id": STEP, "recipient_id": RECIPIENT}
    yield "touch", {"id": TOUCH, **of_step, "state": "unknown", "sender_id": None, "next_at": None}
    yield "delivery_event", {"touch_id": TOUCH, "state": "bounced", "blame": "us", "next_at": None}
    yield "bounce_mail", {"raw": None, "kind": "bounce", "verdict": "hard", "touch_id": TOUCH}
    request = {"id": 7, "touch_id": TOUCH, "state": "planned", "fields": {}, "files": []}
    yield "message_request", request  # The number that _value gives to touch.request_id.
    yield "api_key", {"scope": "view", "revoked_at": None}
    yield "suppression", {"reason": "manual", "also": None, "audience_id": 0}
    yield "cohort_pause", {"id": 1, "step_id": STEP, "evidence": "hard_bounces"}
    not_lifted = {"lifted_at": None, "lifted_by": None, "lifted_why": None}
    yield "cohort_pause", {"id": 2, "step_id": STEP, "evidence": "complaints", **not_lifted}
    yield "overflow", {"touch_id": TOUCH, "step_id": STEP, "from_sender_id": SENDER, "sender_id": SENDER}
    limits = {"rate_count": None, "rate_per_ms": None, "connections": None, "share": None, "suspended": True}
    yield (
        "shaping_change",
        {"restored_at": None, "gate": "sender:ada@example.com", "sender": "ada@example.com", **limits},
    )
    yield "sender_hold", {"sender": "ada@example.com", "ended_at": None, "ended_why": None}
    day = {"identity": "ada@example.com", "provider": "google", "day": NOW.date()}
    yield "warmup_day", {**day, "move": "grow", "paused_until": None}
    yield "warmup_override", day
    yield "webhook_endpoint", {"name": "shop", "cursor": 0}
    delivery = {"endpoint": "shop", "event_id": 1, "message_id": EVENT, "state": "dead"}
    yield "webhook_delivery", delivery
    yield "webhook_attempt", {"endpoint": "shop", "message_id": EVENT}
    yield "console_user", {"role": "view"}
    yield "audit_record", {"id": 8000, "count": 3}
    yield "mail_report", {"id": 6000, "kind": "dmarc"}
    yield "dmarc_report_row", {"mail_report_id": 6000}
    yield "mail_report", {"id": 6001, "kind": "tls"}
    yield "tls_report_row", {"mail_report_id": 6001}


def _insert(connection: sa.Connection, name: str, given: dict[str, Any]) -> None:
    table = sa.Table(name, sa.MetaData(), autoload_with=connection)
    values: dict[str, Any] = {}
    for column in table.columns:
        if column.name in given:
            values[column.name] = given[column.name]
        elif column.name != "id":
            values[column.name] = _value(name, column)
    connection.execute(sa.insert(table).values(**values))


def _value(table: str, column: sa.Column[Any]) -> Any:
    match column.type.python_type.__name__:
        case "str":
            return bad(f"{table}.{column.name}")
        case "datetime":
            return NOW + (timedelta(days=1) if column.name.startswith("ends") else timedelta())
        case "date":
            return date(NOW.year, NOW.month, NOW.day)
        case "bool":
            return False
        case _:
            return 7


async def fill_queue(context: AppContext) -> None:
    """A queue of its own with a dead, an uncertain and a waiting job, whose words are all hostile."""
    for name in ("email:send", "hostile"):
        queue = await context.queue(name)
        lane = Lane(name=bad("lane"), gates=(bad("gate"),), job_class=JobClass.NORMAL, group=bad("group"))
        for id_ in ("71", "72"):
            await queue.enqueue(lane, [Job(id=id_, payload=b"")])
        jobs: list[ClaimedJob] = (await queue.claim(bad("worker"), want=2, lease_ms=60_000, nonce="1")).jobs
        assert len(jobs) == 2
        verdicts: list[Verdict] = [Dead(cause=bad("cause"), error=bad("error")), Uncertain(cause=bad("cause"))]
        await queue.settle(bad("worker"), list(zip(jobs, verdicts, strict=True)))
        await queue.enqueue(lane, [Job(id="73", payload=b"")])
        await queue.pause_gate(bad("gate"), None)
        await queue.beat(this_process("worker", bad("process")))

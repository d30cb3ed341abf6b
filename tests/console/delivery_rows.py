"""Rows for the pages of delivery: outcomes at receivers, changes of the shaping, warmups, DNS and reports."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import sqlalchemy as sa

from postroad.delivery.recorder import record
from postroad.dns.finding import Code, make_finding, worst
from postroad.settings import BounceSettings
from postroad.store.canary_report import StoredCanary, save_canary
from postroad.store.dns_report import DnsReport, SenderHold, save_dns_report, save_hold
from postroad.store.ledger import TouchState
from postroad.store.mail_report import MailReport, ReportKind, insert_mail_report
from postroad.store.reputation import ReputationDay, ReputationSource, save_reputation
from postroad.store.shaping import ShapingChange, add_change
from postroad.store.warmup import WarmupDayRow, WarmupOverride, save_days
from tests.store.outcomes import add_provider, outcome_event
from tests.store.rows import add_campaign, add_recipient, add_touch

GOOGLE = "provider:google:news@example.com"
REPLIES = {
    TouchState.ACCEPTED: (250, "2.0.0", "ok queued as 4711", ""),
    TouchState.DEFERRED: (421, "4.7.28", "Gmail has detected an unusual rate of unsolicited mail", "rate limited"),
    TouchState.BOUNCED: (550, "5.1.1", "The email account that you tried to reach does not exist", "no such mailbox"),
    TouchState.DEAD: (450, "4.2.2", "The mailbox is full", "mailbox full"),
    TouchState.UNKNOWN: (None, None, "the connection broke after the last byte", "connection broken"),
}
_STATES = (*(TouchState.ACCEPTED,) * 6, *(TouchState.DEFERRED,) * 3, *REPLIES)


def add_delivery(connection: sa.Connection, now: datetime, provider: str, number: int, *, hostile: str = "") -> str:
    """Add outcomes of a sender of its own at a provider, in all states, of the last minutes. Returns its name."""
    domain = f"{provider}.example"
    add_provider(connection, domain, provider)
    campaign, (step,) = add_campaign(connection, launched_at=now - timedelta(hours=2))
    events = []
    for n in range(number):
        state = _STATES[n % len(_STATES)]
        recipient = add_recipient(connection, f"r{campaign}-{n}@{domain}")
        touch = add_touch(connection, campaign, step, TouchState.SENDING, recipient_id=recipient, claim=1)
        code, enhanced, reply, cause = REPLIES[state]
        result: dict[str, Any] = {"reply": f"{reply} {hostile}" if n % 5 == 4 else f"{reply} {n}@x", "cause": cause}
        result |= {"reply_code": code, "enhanced_code": enhanced}
        events.append(outcome_event(touch, state, now - timedelta(seconds=7 * n + 70), **result))
    record(connection, events, now, BounceSettings())
    query = "SELECT sender.name FROM sender JOIN campaign ON campaign.sender_id = sender.id WHERE campaign.id = :id"
    return str(connection.execute(sa.text(query), {"id": campaign}).scalar_one())


def a_change(now: datetime, gate: str, rule: str, **values: object) -> ShapingChange:
    """Return an open change of a gate of the sender news@example.com."""
    given: dict[str, Any] = {
        "sender": "news@example.com",
        "provider": "google",
        "reply": "421 4.7.28 too fast",
        "at": now,
    }
    return ShapingChange(gate=gate, rule=rule, **{**given, **values})


def fill_receivers(connection: sa.Connection, now: datetime, hostile: str) -> None:
    """Make outcomes of three senders, one of them with a hostile name, and changes of the shaping in all states."""
    names = [
        add_delivery(connection, now, provider, number, hostile=hostile)
        for provider, number in (("google", 70), ("outlook", 33), ("other", 12))
    ]
    for name, new in zip(names, ("delivery", "invoices", hostile[:90]), strict=True):
        connection.execute(sa.text("UPDATE sender SET name = :new WHERE name = :name"), {"new": new, "name": name})
    changes = [
        a_change(
            now - timedelta(minutes=20), GOOGLE, "pace", share=0.25, moved_at=now, rate_count=150, rate_per_ms=60_000
        ),
        a_change(
            now - timedelta(minutes=9),
            GOOGLE,
            "gmail-rate",
            ends_at=now + timedelta(hours=3),
            connections=2,
            reply=f"421 {hostile}",
        ),
        a_change(now - timedelta(hours=2), "sender:news@example.com", "blocked", provider=None, suspended=True),
        *(
            a_change(
                now - timedelta(days=number),
                f"provider:outlook/domain.d{number}.example:news@example.com",
                "busy",
                provider="outlook",
                restored_at=now - timedelta(days=number, hours=-1),
                restored_by=hostile[:60] if number % 3 else "end",
            )
            for number in range(1, 60)
        ),
    ]
    for change in changes:
        assert add_change(connection, change)


def fill_warmup(connection: sa.Connection, now: datetime, hostile: str) -> None:
    """Make 70 days of the sender news@example.com at two providers, an override and imported reputation."""
    today = now.astimezone(ZoneInfo("Europe/Berlin")).date()
    days = [
        row
        for provider, growth in (("google", 1.2), ("outlook", 1.35))
        for row in _days("news@example.com", provider, growth, today, now, hostile)
    ]
    save_days(connection, days)
    connection.execute(
        sa.insert(WarmupOverride).values(
            identity="news@example.com", provider="google", day=today, cap=777, by=hostile[:100], why=hostile, at=now
        )
    )
    save_reputation(
        connection,
        [
            ReputationDay(
                source=ReputationSource.POSTMASTER,
                subject="example.com",
                provider="google",
                day=today - timedelta(days=number),
                spam_rate=0.0007 * number,
                verdict=hostile[:16],
                imported_at=now,
            )
            for number in range(1, 12)
        ],
    )


def _days(
    identity: str, provider: str, growth: float, today: date, now: datetime, hostile: str
) -> Iterator[WarmupDayRow]:
    cap = 50.0
    for ago in range(69, -1, -1):
        slow = ago in (20, 31)
        cap = cap * 0.5 if slow else min(cap * growth, 400_000)
        sent = int(cap * 0.97) if ago else 0
        yield WarmupDayRow(
            identity=identity,
            provider=provider,
            day=today - timedelta(days=ago),
            cap=int(cap),
            move="start" if ago == 69 else "slow" if slow else "grow",
            reason=f"2.1 % of the mail was deferred: {hostile}"[:500] if slow else "healthy, and 97 % of the cap used",
            decided_at=now - timedelta(days=ago),
            attempts=sent,
            accepted=int(sent * 0.98),
            bounced=int(sent * 0.004),
            complained=int(sent * 0.0004),
            deferred=int(sent * 0.012),
        )


def fill_domains(connection: sa.Connection, now: datetime, hostile: str) -> None:
    """Make DNS checks of the sender offers@acme.dev that differ, a hold, and reports of DMARC and TLS."""
    good = make_finding(Code.SPF_OK, "acme.dev", "v=spf1 ip4:192.0.2.7 -all")
    missing = make_finding(
        Code.DMARC_MISSING,
        "_dmarc.acme.dev",
        f"no record {hostile}",
        remedy="Publish a record, at first with p=none, and read the reports.",
        publish='_dmarc.acme.dev. IN TXT "v=DMARC1; p=none; rua=mailto:dmarc@acme.dev"',
    )
    neutral = make_finding(Code.SPF_NO_ALL, "acme.dev", "v=spf1 ip4:192.0.2.7", remedy="End it with -all or ~all.")
    for hours, findings in ((30, [good]), (24, [good, missing]), (6, [neutral, missing]), (0, [neutral, missing])):
        report = DnsReport(
            sender="offers@acme.dev",
            domain="acme.dev",
            verdict=worst(finding.verdict for finding in findings),
            findings=[msgspec.to_builtins(finding) for finding in findings],
            checked_at=now - timedelta(hours=hours),
        )
        save_dns_report(connection, report)
    passed = make_finding(Code.CANARY_OK, "SPF of offers@acme.dev", "the receiver reported spf=pass")
    lost = make_finding(
        Code.CANARY_LOST, "offers@acme.dev", f"it did not arrive {hostile}", remedy="Check the spam folder."
    )
    for hours, found in ((12, passed), (6, lost)):
        canary = StoredCanary(
            sender="offers@acme.dev",
            verdict=found.verdict,
            findings=[msgspec.to_builtins(found)],
            ended_at=now - timedelta(hours=hours),
        )
        save_canary(connection, canary)
    since = now - timedelta(hours=24)
    save_hold(connection, SenderHold(sender="offers@acme.dev", reason=hostile, failing_since=since, held_at=now))
    save_hold(
        connection,
        SenderHold(
            sender="offers@acme.dev",
            reason="DMARC",
            failing_since=since - timedelta(days=9),
            ended_at=since - timedelta(days=8),
            ended_why="its DNS passes again",
        ),
    )
    for number in range(3):
        fill_reports(connection, now - timedelta(days=number), number, hostile)


def fill_reports(connection: sa.Connection, ends: datetime, number: int, hostile: str) -> None:
    """Make a DMARC report of 60 sources and a TLS report of three results."""
    report: dict[str, Any] = {
        "organisation": f"receiver{number}.example",
        "report_id": f"r{number}",
        "domain": "acme.dev",
    }
    report |= {"begins_at": ends - timedelta(days=1), "ends_at": ends, "received_at": ends}
    sources = [
        {
            "source_ip": "192.0.2.7" if source == 0 else f"198.51.100.{source}",
            "count": 5_000 if source == 0 else source % 7 + 1,
            "disposition": "none" if source % 3 else hostile[:16],
            "dkim": source % 3 > 0,
            "spf": source == 0,
            "header_from": "acme.dev" if source < 58 else hostile[:90],
            "envelope_from": "bounces.acme.dev",
        }
        for source in range(60)
    ]
    assert insert_mail_report(connection, MailReport(kind=ReportKind.DMARC, **report), sources)
    results = [
        {
            "domain": "acme.dev",
            "policy": "sts",
            "result": result,
            "count": count,
            "source": f"203.0.113.{number}",
            "mail_host": host,
        }
        for result, count, host in (
            ("success", 900 + number, ""),
            ("certificate-expired", 4, "mx1.acme.dev"),
            (hostile[:90], 2, hostile[:90]),
        )
    ]
    assert insert_mail_report(connection, MailReport(kind=ReportKind.TLS, **report), results)

"""A failing domain holds its sender after the grace period, and releases it when it passes; no answer does neither."""

from __future__ import annotations

from base64 import b64decode
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa

from postroad.app.context import AppContext
from postroad.app.rebuild import rebuild_queue
from postroad.dns.finding import Code, Finding, RecordVerdict, make_finding
from postroad.dns.health import HealthReport
from postroad.gates.controller import GateController
from postroad.gates.name import GateName
from postroad.mail.dkim import Algorithm, generate_key
from postroad.queue import Job, Queue
from postroad.senders.dns_health import (
    DnsHolds,
    HealthStep,
    SenderHealth,
    close_stale_holds,
    findings_of,
    held_senders,
    identity_of,
    record,
    senders_to_check,
)
from postroad.settings import DnsHealthSettings, Settings
from postroad.store.dns_report import KEPT, holds_of, last_report, open_holds
from postroad.store.engine import read
from tests.delivery.queue_of_touches import lane
from tests.processes import run_together
from tests.store.rows import NOW

SENDER = "a@example.com"
DAY = DnsHealthSettings(grace_ms=86_400_000)
GOOD = make_finding(Code.SPF_OK, "acme.dev", "well")
BAD = make_finding(Code.DMARC_MISSING, "acme.dev", "no record")
SILENT = make_finding(Code.DMARC_UNKNOWN, "acme.dev", "timed out")
LOGO = make_finding(Code.STS_INVALID, "acme.dev", "the policy cannot be had")


def checked(
    engine: sa.Engine, hours: float, *findings: Finding, settings: DnsHealthSettings = DAY, sender: str = SENDER
) -> SenderHealth:
    now = NOW + timedelta(hours=hours)
    return record(engine, sender, HealthReport(domain="acme.dev", checked_at=now, findings=findings), settings)


def steps(engine: sa.Engine, *history: tuple[float, Finding]) -> list[HealthStep]:
    return [checked(engine, hours, GOOD, finding).step for hours, finding in history]


async def claimed(queue: Queue) -> list[str]:
    """Return the ids of the jobs that a new worker claims."""
    nonce = uuid4().hex
    return [job.id for job in (await queue.claim("w", want=9, lease_ms=60_000, nonce=nonce)).jobs]


def at(hours: float) -> datetime:
    return NOW + timedelta(hours=hours)


def test_a_failing_domain_is_held_after_its_grace_period_until_it_passes(engine: sa.Engine) -> None:
    history = [(0, GOOD), (6, BAD), (12, BAD), (29.9, BAD), (30, BAD), (36, BAD), (42, GOOD), (48, GOOD)]
    assert steps(engine, *history) == [
        "nothing",
        "grace",
        "nothing",
        "nothing",
        "held",
        "nothing",
        "released",
        "nothing",
    ]
    with read(engine) as connection:
        [hold] = holds_of(connection, SENDER)
    assert (hold.failing_since, hold.held_at, hold.ended_at) == (at(6), at(30), at(42))
    assert hold.reason == "DMARC acme.dev: no record"
    assert hold.ended_why == "its DNS passes again"


def test_a_domain_that_passes_within_its_grace_period_is_not_held(engine: sa.Engine) -> None:
    assert steps(engine, (0, BAD), (6, GOOD), (40, BAD)) == ["grace", "recovered", "grace"]
    assert held_senders(engine) == set()
    with read(engine) as connection:
        assert [hold.failing_since for hold in holds_of(connection, SENDER)] == [at(40), at(0)]


def test_a_missing_answer_changes_nothing(engine: sa.Engine) -> None:
    assert steps(engine, (0, SILENT), (48, SILENT)) == ["nothing", "nothing"]
    assert steps(engine, (49, BAD), (80, SILENT), (81, BAD)) == ["grace", "nothing", "held"]
    assert checked(engine, 90, GOOD, SILENT).held
    assert checked(engine, 91, GOOD).step is HealthStep.RELEASED


def test_a_blocklist_that_refuses_does_not_prevent_a_release(engine: sa.Engine) -> None:
    steps(engine, (0, BAD), (30, BAD))
    refused = make_finding(Code.DNSBL_REFUSED, "acme.dev at dbl.test", "127.255.255.254")
    assert checked(engine, 36, GOOD, refused).step is HealthStep.RELEASED


def test_records_for_mail_to_the_domain_hold_no_sender(engine: sa.Engine) -> None:
    assert steps(engine, (0, LOGO), (48, LOGO)) == ["nothing", "nothing"]


def test_without_a_grace_period_it_is_held_at_once(engine: sa.Engine) -> None:
    assert checked(engine, 0, BAD, settings=DnsHealthSettings(grace_ms=0)).step is HealthStep.HELD


def test_turning_holds_off_releases_senders(engine: sa.Engine) -> None:
    off = DnsHealthSettings(hold=False, grace_ms=0)
    assert checked(engine, 0, BAD, settings=off).step is HealthStep.GRACE
    assert checked(engine, 48, BAD, settings=off).step is HealthStep.NOTHING
    assert checked(engine, 49, BAD).step is HealthStep.HELD
    assert checked(engine, 50, BAD, settings=off).step is HealthStep.RELEASED
    with read(engine) as connection:
        assert holds_of(connection, SENDER)[0].ended_why == "dns_health.hold is off"


TOGETHER = """
from datetime import UTC, datetime
from postroad.senders.dns_health import record
from postroad.dns.finding import Code, make_finding
from postroad.dns.health import HealthReport
from postroad.settings import DnsHealthSettings
from postroad.store.engine import open_engine
now = datetime(2026, 5, 4, tzinfo=UTC)
finding = make_finding(Code.DMARC_MISSING, "acme.dev", "none")
report = HealthReport(domain="acme.dev", checked_at=now, findings=(finding,))
gate()
print(record(open_engine(sys.argv[2]), "a@example.com", report, DnsHealthSettings(grace_ms=0)).step, flush=True)
"""


def test_checks_that_end_together_hold_a_sender_once(database_url: str) -> None:
    steps_ = run_together(TOGETHER, database_url, processes=4).split()
    assert sorted(steps_) == ["held", "nothing", "nothing", "nothing"]


def test_the_difference_from_the_last_report_is_returned(engine: sa.Engine) -> None:
    first = checked(engine, 0, GOOD)
    second = checked(engine, 6, GOOD, BAD)
    assert (first.before, second.before, second.verdict) == (None, RecordVerdict.PASS, RecordVerdict.FAIL)
    assert (second.change.new, second.change.gone) == ((BAD,), ())
    third = checked(engine, 12, GOOD)
    assert (third.change.new, third.change.gone) == ((), (BAD,))
    with read(engine) as connection:
        report = last_report(connection, SENDER)
    assert report is not None
    assert findings_of(report) == (GOOD,)


def test_old_reports_of_a_sender_are_deleted(engine: sa.Engine) -> None:
    checked(engine, 0, GOOD, sender="b@example.com")
    for hour in range(KEPT + 5):
        checked(engine, hour, GOOD)
    with read(engine) as connection:
        counts = dict(
            connection.execute(sa.text("SELECT sender, count(*) FROM dns_report GROUP BY sender")).tuples().all()
        )
    assert counts == {SENDER: KEPT, "b@example.com": 1}


async def sync_hold_gates(engine: sa.Engine, queue: Queue) -> None:
    """Sync the gates with the holds, as a check does."""
    await GateController(engine, queue, [DnsHolds(engine, releasing=True)]).apply()


async def test_a_held_sender_is_not_claimed_and_other_pauses_stay(engine: sa.Engine, queue: Queue) -> None:
    await queue.enqueue(lane(), [Job(id="1", payload=b"")])
    checked(engine, 0, BAD, settings=DnsHealthSettings(grace_ms=0))
    await sync_hold_gates(engine, queue)
    assert await claimed(queue) == []
    await queue.pause_gate(str(GateName.sender(SENDER)), None)  # for a reply 5.7.26, or by an operator
    checked(engine, 6, GOOD)
    await sync_hold_gates(engine, queue)
    assert await claimed(queue) == []
    await queue.resume_gate(str(GateName.sender(SENDER)))
    assert await claimed(queue) == ["1"]


async def test_a_hold_is_set_again_after_a_loss_of_the_queue(engine: sa.Engine, queue: Queue, tmp_path: Path) -> None:
    checked(engine, 0, BAD, settings=DnsHealthSettings(grace_ms=0))
    async with AsyncExitStack() as stack:
        await rebuild_queue(AppContext(settings(tmp_path, SENDER), engine, None, stack), queue, by="test")
    await queue.enqueue(lane(), [Job(id="1", payload=b"")])
    assert await claimed(queue) == []
    await queue.resume_gate(str(GateName.hold(SENDER)))
    await GateController(engine, queue, [DnsHolds(engine)]).apply()
    assert await claimed(queue) == []


def settings(tmp_path: Path, *addresses: str) -> Settings:
    path = tmp_path / "postroad.toml"
    senders = "".join(
        f'[senders.s{n}]\naddress = "{address}"\npostal_address = "1 Post Road, Milestone"\nroute = "r"\n'
        for n, address in enumerate(addresses)
    )
    path.write_text(f'[routes.r]\nhost = "127.0.0.1"\n{senders}')
    return Settings.load(path)


def test_a_sender_removed_from_the_settings_is_released(engine: sa.Engine, tmp_path: Path) -> None:
    checked(engine, 0, BAD, settings=DnsHealthSettings(grace_ms=0))
    assert close_stale_holds(engine, settings(tmp_path, SENDER), at(1)) == []
    assert close_stale_holds(engine, settings(tmp_path, "other@acme.dev"), at(1)) == [SENDER]
    with read(engine) as connection:
        assert open_holds(connection) == {}


def test_receivers_see_the_relay_and_not_this_machine(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes(generate_key(Algorithm.ED25519))
    sender = (
        'postal_address = "1 Post Road, Milestone"\nsource_address = "9.9.9.9"\nhelo = "out.acme.dev"\n'
        'bounce_domain = "bücher.dev"\n'
    )
    (tmp_path / "postroad.toml").write_text(
        '[routes.relay]\nhost = "127.0.0.1"\n[routes.direct]\nkind = "direct"\n'
        f'[senders.one]\naddress = "a@acme.dev"\nroute = "relay"\n{sender}dkim_selectors = ["esp"]\n'
        f'[senders.two]\naddress = "b@Acme.dev"\nroute = "direct"\n{sender}'
        f'[[senders.two.dkim]]\nselector = "mine"\nkey_file = "{key}"\n'
    )
    found_settings = Settings.load(tmp_path / "postroad.toml")
    one, two = (identity_of(found_settings, name, {}) for name in ("one", "two"))
    assert (one.sender_ips, one.helo, one.selectors, one.keys) == ((), None, ("esp",), {})
    assert (two.sender_ips, two.helo, two.selectors) == (("9.9.9.9",), "out.acme.dev", ("mine",))
    assert len(b64decode(two.keys["mine"])) == 32
    assert (two.domain, two.return_path) == ("acme.dev", "xn--bcher-kva.dev")


@pytest.mark.parametrize(
    ("address", "checked_"),
    [("a@acme.dev", True), ("a@news.example.com", False), ("a@x.test", False), ("a@example.company", True)],
)
def test_reserved_domains_are_not_looked_up(tmp_path: Path, address: str, checked_: bool) -> None:
    assert bool(senders_to_check(settings(tmp_path, address))) is checked_

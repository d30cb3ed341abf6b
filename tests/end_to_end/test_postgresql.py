"""The same on PostgreSQL: two workers and recorders at once, one of each killed, and the database away for a while."""

from __future__ import annotations

import signal

import pytest

from postroad.sandbox import Fault, RulePhase, SandboxRule
from postroad.store.ledger import TouchState
from tests.end_to_end.site import Site
from tests.end_to_end.test_failures import RECIPIENTS, SLOW, assert_all_accounted_for
from tests.postgresql import PostgresqlServer

pytestmark = [pytest.mark.postgresql, pytest.mark.timeout(120)]


async def test_a_postgresql_database_is_upgraded_only_by_its_operator(postgresql_site: Site) -> None:
    refused = postgresql_site.run("campaign", "status", check=False)
    assert refused.returncode == 3
    assert "postroad db upgrade" in refused.stderr
    assert postgresql_site.run("db", "upgrade").returncode == 0
    assert postgresql_site.json("campaign", "status") == []


async def test_two_workers_and_recorders_share_a_campaign_and_one_of_each_is_killed(postgresql_site: Site) -> None:
    site = postgresql_site
    site.run("db", "upgrade")
    site.sandbox.use(SLOW)
    await site.launch(RECIPIENTS)
    recorders = [site.start("recorder", "--name", f"r{n}") for n in range(2)]
    workers = [site.start("worker") for _ in range(2)]
    await site.until(lambda: len(site.received()) >= RECIPIENTS // 4)
    await site.stop(workers[0], signal.SIGKILL)
    await site.stop(recorders[0], signal.SIGKILL)
    assert len(site.received()) < RECIPIENTS, "they were killed too late to show anything"
    site.start("recorder", "--name", "r0")
    counts = await site.until_settled()
    assert_all_accounted_for(site, counts)


async def test_database_away_for_a_while_stops_sending_and_loses_nothing(
    postgresql_site: Site, postgresql_server: PostgresqlServer
) -> None:
    site = postgresql_site
    site.run("db", "upgrade")
    site.sandbox.use((SandboxRule(phase=RulePhase.DOT, fault=Fault(delay_ms=50)),))
    await site.launch(RECIPIENTS)
    site.start("recorder")
    await site.until(lambda: "records email:send" in site.log("recorder"))  # Without a database it does not begin.
    worker = site.start("worker")
    await site.until(lambda: len(site.received()) >= RECIPIENTS // 4)
    postgresql_server.stop()
    try:
        await site.until(lambda: "the database does not answer" in site.log("worker"))
        await site.until(lambda: site.sandbox.counters.open_connections == 0 or worker.poll() is None)
        assert len(site.received()) < RECIPIENTS
    finally:
        postgresql_server.start()
    counts = await site.until_settled()
    assert_all_accounted_for(site, counts)
    assert counts.get(TouchState.DEAD, 0) == 0

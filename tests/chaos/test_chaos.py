"""Short runs of the chaos suite. ``python -m tests.chaos`` does longer ones, with a report."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from postroad.embedded import server_binary
from tests.chaos import delivery_run, queue_run, report
from tests.chaos.plan import ChaosFault
from tests.chaos.server import ServerKind
from tests.chaos.steps import Step
from tests.required import missing

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(params=list(ServerKind))
def binary(request: pytest.FixtureRequest) -> Path:
    if request.param is ServerKind.VALKEY:
        return server_binary()
    found = shutil.which("redis-server")
    return Path(found) if found else missing("redis-server", "apt-get install redis-server")


async def test_no_job_is_lost_and_no_act_repeated_under_failures(binary: Path) -> None:
    setting = queue_run.Setting(seed=11, seconds=12, binary=binary, every_s=0.4)
    result = await queue_run.run(setting)
    assert result.ok, report.queue_page(setting, result) + result.logs
    # Faults did occur.
    assert report.kills(result.faults) >= 10
    assert result.faults[ChaosFault.KILL_SERVER] > 0
    assert result.accounts.acts > 200


async def test_a_worker_that_acts_before_its_mark_is_detected() -> None:
    setting = queue_run.Setting(
        seed=11, seconds=5, binary=server_binary(), every_s=60, crashed_at=(Step.ACT_AFTER,), careless=True
    )
    result = await queue_run.run(setting)
    assert result.faults["worker killed at act-after"] > 0
    assert result.accounts.twice
    assert not result.ok


async def test_a_campaign_reaches_every_recipient_once_under_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = delivery_run.Setting(seed=11, seconds=10, binary=server_binary(), every_s=1.0)
    result = await delivery_run.run(setting, monkeypatch.setenv)
    assert result.ok, report.delivery_page(setting, result) + result.logs
    assert sum(result.faults.values()) >= 6

"""Doctor names endpoints that are disabled, lag, or have dead events."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec import structs

from postroad.doctor.webhooks import LAG_S, check_endpoint
from postroad.events_out.status import EndpointReport, EndpointStatus
from postroad.queue import Health
from tests.doctor.conftest import Doctor

AT = datetime(2026, 5, 4, tzinfo=UTC)
FINE = EndpointReport(
    name="shop",
    status=EndpointStatus.ENABLED,
    url="https://shop.example.com",
    events=("message.bounced",),
    lag_s=0.0,
    waiting=0,
    dead=0,
    since=AT,
    disabled_at=None,
    disabled_for=None,
    last_at=AT,
    last_outcome="rejected",
    last_error="no room",
)


@pytest.mark.parametrize(
    ("changes", "health", "says"),
    [
        ({}, Health.OK, "0 events waiting"),
        ({"lag_s": LAG_S - 1, "waiting": 9}, Health.OK, "9 events waiting"),
        ({"lag_s": LAG_S, "waiting": 9}, Health.WARN, "the last attempt: rejected, no room"),
        ({"dead": 3}, Health.WARN, "3 dead"),
        ({"status": EndpointStatus.NEW}, Health.WARN, "no recorder has seen it"),
        (
            {"status": EndpointStatus.DISABLED, "disabled_at": AT, "disabled_for": "it answered 410 Gone"},
            Health.FAIL,
            "disabled since 2026-05-04 00:00 UTC: it answered 410 Gone",
        ),
    ],
)
def test_each_state_has_its_health(changes: dict[str, object], health: Health, says: str) -> None:
    check = check_endpoint(structs.replace(FINE, **changes))
    assert (check.health, check.part) == (health, "webhook shop")
    assert says in check.seen
    assert bool(check.remedy) == (health is not Health.OK)


def test_an_endpoint_needs_its_worker_and_its_secret(doctor: Doctor, site: Path) -> None:
    assert not {"worker webhook:out", "webhook shop"} & doctor().keys()
    with (site / "postroad.toml").open("a") as settings:
        settings.write('[webhooks_out.shop]\nurl = "https://shop.example.com"\nsecret_file = "shop.secret"\n')
    checks = doctor()
    assert checks["worker webhook:out"]["health"] == "fail"
    assert checks["webhook shop"]["health"] == "fail"
    assert "shop.secret" in checks["webhook shop"]["seen"]
    (site / "shop.secret").write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
    assert doctor()["webhook shop"]["health"] == "warn"

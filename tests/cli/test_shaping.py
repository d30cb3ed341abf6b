"""What commands say of limits that cannot be held, and where those that can are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run

DIRECT = """
[senders.eve]
address = "eve@example.com"
postal_address = "1 Post Road, Milestone"
route = "direct"
[routes.direct]
kind = "direct"
messages_per_connection = 30
[dns]
nameservers = ["127.0.0.1:9"]
[delivery]
shaping = "shaping.toml"
"""
SHAPING = """
[provider.apple]
connections_in_all = 20
[site."mx.example.net"]
connections = 2
[domain."gmail.com"]
rate = "7/1s"
[domain."secret.org"]
tls = "required"
"""


@pytest.fixture
def configured(tmp_path: Path, run: Run, redis_url: str) -> Run:
    def command(*arguments: str) -> object:
        config = tmp_path / "postroad.toml"
        if DIRECT not in config.read_text():
            config.write_text(config.read_text() + DIRECT)
            (tmp_path / "shaping.toml").write_text(SHAPING)
        return run(*arguments, POSTROAD_REDIS_URL=redis_url, POSTROAD_STATE_DIR=str(tmp_path / "state"))

    return command  # type: ignore[return-value]


def test_doctor_says_for_how_many_the_limits_hold(configured: Run) -> None:
    checks = {check["part"]: check for check in json.loads(configured("doctor", "--json").stdout)}
    assert checks["shaping"]["health"] == "ok"
    assert checks["shaping"]["seen"].endswith("shaping.toml: applies to 1 of 2 senders")


def test_show_says_what_holds_at_sites_and_domains_and_where(configured: Run) -> None:
    found = json.loads(configured("shaping", "show", "--json", "--sender", "eve").stdout)
    rows = {row["receiver"]: row for row in found}
    google = rows["google"]
    assert (google["rate"], google["connections"], google["limits"]["connections_in_all"]) == ("100 in 1 s", 10, 5)
    assert google["terms"] == {"connections": 5, "messages_per_connection": 30, "tls": "starttls"}
    assert google["enforced"] == {
        "rate": "provider:google:eve@example.com",
        "connections": "provider:google:eve@example.com",
        "connections_in_all": "provider:google",
        "messages_per_connection": "route direct",
        "tls": "route direct",
    }
    gmail = rows["google/domain.gmail.com"]
    assert (gmail["rate"], gmail["gate"]) == ("7 in 1 s", "provider:google/domain.gmail.com:eve@example.com")
    assert gmail["why"]["rate"] == "domain.gmail.com"
    site = rows["other/site.mx.example.net"]
    assert (site["connections"], site["terms"]["tls"]) == (2, "opportunistic")
    # Encryption needs no gate: this one's mail goes with the tail's.
    secret = rows["other/domain.secret.org"]
    assert (secret["gate"], secret["terms"]["tls"]) == ("provider:other:eve@example.com", "starttls")
    assert set(secret["enforced"]) == {"messages_per_connection", "tls"}
    # For a relay's sender nothing of it holds.
    assert all(
        row["limits"] is None and not row["enforced"]
        for row in json.loads(configured("shaping", "show", "--json", "--sender", "ada").stdout)
    )
    shown = configured("shaping", "show").stdout
    assert "Rate and connections hold at gates" in shown

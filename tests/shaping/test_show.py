"""Whom the shaping has something to say of: providers, and the sites and domains that the file or a gate names."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from postroad.settings import RouteSettings
from postroad.shaping.config import read_shaping
from postroad.shaping.describe import Way, destinations, standing
from postroad.store.engine import write
from postroad.store.mail_domain import KnownDomain, keep_domains

NOW = datetime(2026, 5, 4, tzinfo=UTC)
SENDER = "a@example.com"
DIRECT = Way(SENDER, "direct", RouteSettings.model_validate({"kind": "direct"}))
OWN_RELAY = Way(SENDER, "relay", RouteSettings.model_validate({"host": "127.0.0.1", "shaped": True}))


def test_named_domains_and_sites_stand_with_the_provider_that_dns_said(engine: sa.Engine, tmp_path: Path) -> None:
    path = tmp_path / "shaping.toml"
    path.write_text(
        """
        [domain."school.net"]
        rate = "2/1s"
        [domain."club.net"]
        rate = "3/1s"
        [domain."gmail.com"]
        rate = "4/1s"
        [domain."unheard.net"]
        rate = "5/1s"
        [site."mx.hoster.net"]
        connections = 2
        [site."unheard.net"]
        connections = 3
        """
    )
    shaping = read_shaping(path)
    with write(engine) as connection:
        keep_domains(
            connection,
            [
                KnownDomain("school.net", "google", "aspmx.l.google.com", NOW),
                KnownDomain("club.net", "other", "mx.hoster.net", NOW),
            ],
        )
        gates = ["queue", f"provider:yahoo:{SENDER}", f"provider:other/domain.old.net:{SENDER}", f"sender:{SENDER}"]
        found = destinations(connection, shaping, gates, [])
    rows = {row.receiver: row for row in standing(shaping, [DIRECT], found, [], NOW)}
    assert {receiver: (row.rate, row.connections) for receiver, row in rows.items() if "/" in receiver} == {
        "google/domain.school.net": ("2 in 1 s", 10),
        "other/site.mx.hoster.net/domain.club.net": ("3 in 1 s", 2),
        "google/domain.gmail.com": ("4 in 1 s", 10),
        "other/site.unheard.net/domain.unheard.net": ("5 in 1 s", 3),
        "other/site.mx.hoster.net": ("100 in 1 s", 2),
        "other/site.unheard.net": ("100 in 1 s", 3),
        "other/domain.old.net": ("100 in 1 s", 10),
    }
    assert {"other", "google", "yahoo", "comcast"} <= rows.keys()
    assert rows["google/domain.school.net"].gate == f"provider:google/domain.school.net:{SENDER}"


def test_where_each_limit_is_held_depends_on_the_route(engine: sa.Engine) -> None:
    shaping = read_shaping(None)
    with write(engine) as connection:
        found = destinations(connection, shaping, [], [])
    gone = Way("gone@example.com")
    held = {
        (row.sender, row.provider): set(row.enforced)
        for way in (OWN_RELAY, gone)
        for row in standing(shaping, [way], found, [], NOW)
    }
    # An own relay meets the receivers' limits together with us, and makes its sessions itself.
    assert held[SENDER, "google"] == {"rate", "connections", "connections_in_all"}
    assert held[SENDER, "yahoo"] == {"rate", "connections"}
    assert held[SENDER, "other"] == held["gone@example.com", "google"] == set()
    tail = next(row for row in standing(shaping, [DIRECT], found, [], NOW) if row.provider == "other")
    assert (tail.rate, set(tail.enforced)) == (None, {"messages_per_connection", "tls"})

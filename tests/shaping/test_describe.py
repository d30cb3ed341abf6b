"""Which receivers have limits: providers, and the sites and domains that the file or a gate names."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from postroad.gates.name import SenderRoute
from postroad.settings import RouteSettings
from postroad.shaping.config import read_shaping
from postroad.shaping.describe import known_receivers, shaping_status
from postroad.store.engine import write
from postroad.store.mail_domain import KnownDomain, save_domains

NOW = datetime(2026, 5, 4, tzinfo=UTC)
SENDER = "a@example.com"
ROUTES = {
    "direct": RouteSettings.model_validate({"kind": "direct"}),
    "relay": RouteSettings.model_validate({"host": "127.0.0.1", "shaped": True}),
}
DIRECT, OWN_RELAY = SenderRoute(SENDER, "direct"), SenderRoute(SENDER, "relay")


def test_domains_and_sites_are_listed_with_their_provider(engine: sa.Engine, tmp_path: Path) -> None:
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
        save_domains(
            connection,
            [
                KnownDomain("school.net", "google", "aspmx.l.google.com", NOW),
                KnownDomain("club.net", "other", "mx.hoster.net", NOW),
            ],
        )
        gates = ["queue", f"provider:yahoo:{SENDER}", f"provider:other/domain.old.net:{SENDER}", f"sender:{SENDER}"]
        found = known_receivers(connection, shaping, gates, [])
    rows = {row.receiver: row for row in shaping_status(shaping, ROUTES, [DIRECT], found, [], NOW)}
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


def test_the_route_determines_where_a_limit_is_enforced(engine: sa.Engine) -> None:
    shaping = read_shaping(None)
    with write(engine) as connection:
        found = known_receivers(connection, shaping, [], [])
    gone = SenderRoute("gone@example.com")
    held = {
        (row.sender, row.provider): set(row.enforced)
        for sender in (OWN_RELAY, gone)
        for row in shaping_status(shaping, ROUTES, [sender], found, [], NOW)
    }
    # The receivers' limits apply to an own relay too, but it opens its sessions itself.
    assert held[SENDER, "google"] == {"rate", "connections", "connections_in_all"}
    assert held[SENDER, "yahoo"] == {"rate", "connections"}
    assert held[SENDER, "other"] == held["gone@example.com", "google"] == set()
    tail = next(row for row in shaping_status(shaping, ROUTES, [DIRECT], found, [], NOW) if row.provider == "other")
    assert (tail.rate, set(tail.enforced)) == (None, {"messages_per_connection", "tls"})

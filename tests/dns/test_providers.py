"""Mailbox providers and sites by mail hosts, and how they are cached."""

from __future__ import annotations

import re
import time
from datetime import timedelta

import pytest
import sqlalchemy as sa

from postroad.clock import SystemClock
from postroad.delivery.provider_lookup import RETRY_UNANSWERED_S, Providers
from postroad.dns.providers import MAX_SITE, OTHER_PROVIDERS, provider_table, site_of
from postroad.dns.resolver import Resolver
from postroad.store.engine import read
from tests.dns.nameserver import Nameserver, Trouble
from tests.kit.clock import SleepingClock


@pytest.mark.parametrize(
    ("hosts", "provider"),
    [
        (["aspmx.l.google.com", "alt1.aspmx.l.google.com"], "google"),
        (["outlook-com.olc.protection.outlook.com"], "outlook"),
        (["example-com.mail.protection.outlook.com"], "office365"),
        (["example-com.a-v1.mx.microsoft"], "office365"),
        (["mta5.am0.yahoodns.net"], "yahoo"),
        (["mx01.mail.icloud.com"], "apple"),
        (["aspmx.l.google.com", "mx.example.com"], OTHER_PROVIDERS),  # every one must match
        (["aspmx.l.google.com", "mx.yahoodns.net"], OTHER_PROVIDERS),
        (["mx.evilgoogle.com"], OTHER_PROVIDERS),
        (["aspmx.l.google.com.evil.com"], OTHER_PROVIDERS),
        (["google.com"], "google"),
    ],
)
def test_every_mail_host_must_be_the_providers(hosts: list[str], provider: str) -> None:
    assert provider_table().of_hosts(hosts) == provider


def test_known_domains_need_no_lookup() -> None:
    assert provider_table().of_domain("gmail.com") == "google"
    assert provider_table().of_domain("example.com") is None


def test_sites_are_distinguished_by_their_hosts_only() -> None:
    assert site_of("a.com", ("mx.host.net",)) == site_of("b.com", ("mx.host.net",)) == "mx.host.net"
    two, other = site_of("a.com", ("mx1.h.net", "mx2.h.net")), site_of("a.com", ("mx1.h.net", "mx3.h.net"))
    assert two != other
    assert two == site_of("b.com", ("mx1.h.net", "mx2.h.net"))
    assert site_of("a.com", ()) == "a.com"


LONG = ".".join(["l" * 49] * 5)
# A strange but valid answer: as text, an octet that is not printable takes four characters.
ODD = ".".join([r"\000" * 60] * 2)


@pytest.mark.parametrize(
    "hosts", [(f"a.{LONG}", f"b.{LONG}"), (f"a.{ODD}.net", f"b.{ODD}.net"), (f"{ODD}.net",), ("mx a/b:c.net",)]
)
def test_a_site_has_a_name_that_columns_and_gates_take(hosts: tuple[str, ...]) -> None:
    name = site_of("a.com", hosts)
    assert 0 < len(name) <= MAX_SITE
    assert re.search(r"[\s/:]", name) is None
    assert name == site_of("b.com", hosts)
    assert name != site_of("a.com", (*hosts[:-1], f"{hosts[-1]}x"))


ZONE = {
    "school.net": {"MX": ["1 aspmx.l.google.com.", "5 alt1.aspmx.l.google.com."]},
    "shop.net": {"MX": ["10 mx1.hoster.net.", "10 mx2.hoster.net."]},
    "club.net": {"MX": ["5 mx2.hoster.net.", "7 mx1.hoster.net."]},
    "silent.net": {"MX": ["5 mx.silent.net."]},
    "odd.net": {"MX": [f"5 {ODD}.net."]},
}


def kept(engine: sa.Engine) -> dict[str, tuple[str, str]]:
    with read(engine) as connection:
        rows = connection.execute(sa.text("SELECT domain, provider, site FROM mail_domain"))
        return {row.domain: (row.provider, row.site) for row in rows}


async def test_domains_are_looked_up_once_and_kept(engine: sa.Engine) -> None:
    async with Nameserver(ZONE) as server, Resolver(server.settings(), SystemClock()) as resolver:
        providers = Providers(resolver, engine, SystemClock())
        asked = [*ZONE, "gone.net", "gmail.com", "rehearsal.test", "school.net"]
        assert await providers.look_up(asked) == 6
        assert server.asked["school.net", "MX"] == 1
        assert not server.asked["gmail.com", "MX"]
        assert not server.asked["rehearsal.test", "MX"]
    found = kept(engine)
    assert found["school.net"][0] == "google"
    assert found["shop.net"] == found["club.net"]
    assert found["shop.net"][0] == OTHER_PROVIDERS
    assert found["gone.net"] == (OTHER_PROVIDERS, "gone.net")
    assert found["odd.net"][0] == OTHER_PROVIDERS
    assert set(found) == {*ZONE, "gone.net"}


async def test_unreachable_dns_costs_the_deadline_and_keeps_the_cache(engine: sa.Engine) -> None:
    clock = SleepingClock()
    async with Nameserver(ZONE, ttl_s=1) as server, Resolver(server.settings(timeout_ms=60_000), clock) as resolver:
        providers = Providers(resolver, engine, clock, deadline_s=0.3)
        await providers.look_up(["school.net"])
        server.troubles.update(dict.fromkeys(["school.net", "shop.net", "silent.net"], Trouble.SILENT))
        clock.advance(8 * 86_400_000)
        began = time.monotonic()
        assert await providers.look_up(["school.net", "silent.net", "club.net"]) == 1
        assert time.monotonic() - began < 5
    found = kept(engine)
    assert found["school.net"][0] == "google"
    assert found["silent.net"] == (OTHER_PROVIDERS, "silent.net")
    with read(engine) as connection:
        until = connection.execute(
            sa.text("SELECT count(*) FROM mail_domain WHERE expires_at <= :at").bindparams(
                sa.bindparam(
                    "at", clock.now() + timedelta(seconds=RETRY_UNANSWERED_S), type_=sa.DateTime(timezone=True)
                )
            )
        ).scalar()
    assert until == 2

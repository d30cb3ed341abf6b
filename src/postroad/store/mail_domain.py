"""Mailbox provider and site of each recipient domain, from the last DNS lookup."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlmodel import Field

from postroad.store.bulk import json_rows
from postroad.store.ledger import DUE, DUE_TYPES, due_values
from postroad.store.types import StoredRow, UtcDateTime, sql_time


class MailDomain(StoredRow, table=True):
    """A recipient domain, its provider and its site. Domains with the same mail hosts have the same site."""

    __tablename__ = "mail_domain"

    domain: str = Field(primary_key=True, sa_type=sa.String(255))
    provider: str = Field(sa_type=sa.String(100), description="mailbox provider; `other`: not a known one")
    site: str = Field(
        sa_type=sa.String(300), description="name of the site: the same for all domains with the same mail hosts"
    )
    expires_at: datetime = Field(sa_type=UtcDateTime, description="time of the next lookup")


class KnownDomain(NamedTuple):
    """A row of the table."""

    domain: str
    provider: str
    site: str
    expires_at: datetime


def save_domains(connection: sa.Connection, found: Sequence[KnownDomain]) -> None:
    """Save the results of lookups, in place of the rows before."""
    _put(connection, found, "provider = excluded.provider, site = excluded.site, expires_at = excluded.expires_at")


def set_next_lookup(connection: sa.Connection, unanswered: Sequence[KnownDomain]) -> None:
    """Save the time of the next lookup, and keep the results of the lookup before."""
    _put(connection, unanswered, "expires_at = excluded.expires_at")


def _put(connection: sa.Connection, found: Sequence[KnownDomain], otherwise: str) -> None:
    if not found:
        return
    dialect = connection.dialect.name
    rows = [row._asdict() | {"expires_at": sql_time(row.expires_at, dialect)} for row in found]
    columns: dict[str, sa.types.TypeEngine[Any]] = {
        "domain": sa.Text(),
        "provider": sa.Text(),
        "site": sa.Text(),
        "expires_at": UtcDateTime(),
    }
    item, parameters = json_rows(connection, "found", columns, rows)
    statement = sa.text(
        "INSERT INTO mail_domain (domain, provider, site, expires_at) "
        f"SELECT domain, provider, site, expires_at FROM {item} WHERE true ORDER BY domain "
        f"ON CONFLICT (domain) DO UPDATE SET {otherwise}"
    )
    connection.execute(statement, parameters)


def domains_to_look_up(
    connection: sa.Connection, campaign_id: int, *, after_id: int, until: datetime, now: datetime, limit: int
) -> list[str]:
    """Return the domains of a campaign's next ``limit`` due touches that were not looked up or have expired."""
    statement = sa.text(
        f"SELECT DISTINCT recipient.domain FROM ({DUE}) AS ahead JOIN recipient ON recipient.id = ahead.recipient_id "
        "LEFT JOIN mail_domain ON mail_domain.domain = recipient.domain "
        "WHERE mail_domain.domain IS NULL OR mail_domain.expires_at <= :now"
    ).bindparams(*DUE_TYPES, sa.bindparam("now", type_=UtcDateTime()))
    values = {"now": now, **due_values(connection, campaign_id, after_id=after_id, until=until, limit=limit)}
    return list(connection.execute(statement, values).scalars())


def known_domains(connection: sa.Connection, domains: Collection[str], now: datetime) -> set[str]:
    """Return those of these domains that were looked up and have not expired."""
    statement = sa.text("SELECT domain FROM mail_domain WHERE domain IN :domains AND expires_at > :now").bindparams(
        sa.bindparam("domains", type_=sa.Text(), expanding=True), sa.bindparam("now", type_=UtcDateTime())
    )
    return set(connection.execute(statement, {"domains": list(domains), "now": now}).scalars())


def known_providers(connection: sa.Connection, domains: Collection[str]) -> dict[str, tuple[str, str]]:
    """Return provider and site of each of these domains that is known."""
    statement = sa.text("SELECT domain, provider, site FROM mail_domain WHERE domain IN :domains").bindparams(
        sa.bindparam("domains", type_=sa.Text(), expanding=True)
    )
    rows = connection.execute(statement, {"domains": list(domains)})
    return {row.domain: (row.provider, row.site) for row in rows}


def providers_of_sites(connection: sa.Connection, sites: Collection[str]) -> dict[str, str]:
    """Return the provider of each of these sites that a known domain has."""
    statement = sa.text(
        "SELECT site, min(provider) AS provider FROM mail_domain WHERE site IN :sites GROUP BY site"
    ).bindparams(sa.bindparam("sites", type_=sa.Text(), expanding=True))
    return {row.site: row.provider for row in connection.execute(statement, {"sites": list(sites)})}

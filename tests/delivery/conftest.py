"""Every test of delivery runs on both databases."""

from __future__ import annotations

from tests.postgresql import (
    database_url,
    empty_database_url,
    empty_postgresql_url,
    engine,
    own_postgresql,
    postgresql_engine,
    postgresql_server,
    postgresql_url,
    sqlite_template,
)

__all__ = [
    "database_url",
    "empty_database_url",
    "empty_postgresql_url",
    "engine",
    "own_postgresql",
    "postgresql_engine",
    "postgresql_server",
    "postgresql_url",
    "sqlite_template",
]

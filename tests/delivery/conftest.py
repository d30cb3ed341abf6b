"""Where queue and store meet, on both databases."""

from __future__ import annotations

from tests.postgresql import (
    database_url,
    engine,
    postgresql_server,
    postgresql_url,
    sqlite_template,
)

__all__ = ["database_url", "engine", "postgresql_server", "postgresql_url", "sqlite_template"]

"""The steps of docs/how-to/back-up.md for PostgreSQL restore a database. tests/docs runs those for SQLite."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.store.engine import open_engine, read, write
from postroad.store.ledger import TouchState
from postroad.store.ledger_sums import ledger_sums
from tests.backup.backups import back_up
from tests.docs.pages import ROOT
from tests.postgresql import PostgresqlServer
from tests.store.large import add_large_campaign
from tests.store.rows import add_recipient, add_touch

PAGE = ROOT / "docs/how-to/back-up.md"


@pytest.mark.postgresql
def test_the_guide_restores_a_database_of_postgresql(
    postgresql_server: PostgresqlServer, postgresql_engine: sa.Engine, tmp_path: Path
) -> None:
    with write(postgresql_engine) as connection:
        campaign, steps = add_large_campaign(connection, 100, TouchState.QUEUED)
    made = back_up(postgresql_engine, tmp_path / "backup.tar")
    [steps_of_page] = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    socket = str(postgresql_engine.url.query["host"])
    environment = {**os.environ, "PGHOST": socket, "PGUSER": "postgres", "BACKUP": str(made.file)}
    try:
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", steps_of_page],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        assert "secret.key" in done.stdout.splitlines()
        engine = open_engine(postgresql_server.url("postroad_restored"))
        with read(engine) as connection:
            assert ledger_sums(connection) == made.manifest.sums
        with write(engine) as connection:
            new = add_touch(connection, campaign, steps[1], TouchState.PLANNED, recipient_id=add_recipient(connection))
        assert new > 10_000_000, "no message from after the backup had this number"
        engine.dispose()
    finally:
        postgresql_server.drop("postroad_restored")

"""A backup is one state of the database, made while others write, and a restored copy of it is the same."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from postroad.backup.manifest import Manifest
from postroad.backup.verify import KeyPlace
from postroad.errors import StateError
from postroad.store import migrate
from postroad.store.engine import open_engine, read, write
from postroad.store.ledger import TouchState
from postroad.store.ledger_sums import LedgerSums
from postroad.store.suppression import SuppressionReason, suppress
from tests.backup.backups import NOW, back_up, check, rewrite, without_key
from tests.store.large import add_large_campaign
from tests.store.rows import add_recipient

ROWS = 20_000
"""Recipients, each with a touch: on SQLite the copy takes several steps."""


@pytest.fixture
def ledger(engine: sa.Engine) -> sa.Engine:
    with write(engine) as connection:
        add_large_campaign(connection, ROWS, TouchState.PLANNED)
        suppress(connection, ["x@example.com"], SuppressionReason.COMPLAINT, "test", NOW)
    return engine


def joining(engine: sa.Engine) -> tuple[Callable[[str, int, int], None], dict[str, int]]:
    """Return a report that commits a recipient with a suppression at each call, and the numbers of calls."""
    calls: dict[str, int] = {}
    numbers = count()

    def report(what: str, _done: int, _total: int) -> None:
        calls[what] = calls.get(what, 0) + 1
        with write(engine) as connection:
            address = f"new{next(numbers)}@example.com"
            add_recipient(connection, address)
            suppress(connection, [address], SuppressionReason.UNSUBSCRIBE, "test", NOW)

    return report, calls


def test_a_backup_is_one_state_while_others_write(ledger: sa.Engine, tmp_path: Path) -> None:
    writer = open_engine(ledger.url.render_as_string(hide_password=False))
    report, calls = joining(writer)
    made = back_up(ledger, tmp_path / "backup.tar", report=report)
    writer.dispose()
    assert calls["dumping"] > 2
    assert calls["counting"] > 50
    with read(ledger) as connection:
        recipients = connection.execute(sa.text("SELECT count(*) FROM recipient")).scalar_one()
    assert recipients == ROWS + sum(calls.values()), "all of them were committed meanwhile"

    sums = made.manifest.sums
    joined = sums.rows["recipient"] - ROWS
    assert joined < 2, "the state is that of the begin"
    assert sums.suppressions == {"complaint": 1} | ({"unsubscribe": joined} if joined else {})
    assert list(sums.touches.values()) == [{"planned": ROWS}]
    assert check(ledger, made.file).differences == []


def test_each_difference_from_the_manifest_is_named(ledger: sa.Engine, tmp_path: Path) -> None:
    made = back_up(ledger, tmp_path / "backup.tar")
    [campaign] = made.manifest.sums.touches

    def change(manifest: Manifest) -> Manifest:
        sums = LedgerSums(
            manifest.sums.rows | {"recipient": ROWS + 1},
            {campaign: {"planned": ROWS - 5, "accepted": 5}},
            {"complaint": 1, "manual": 2},
        )
        return msgspec.structs.replace(manifest, sums=sums, revision="0040")

    rewrite(made.file, change)
    assert check(ledger, made.file).differences == [
        f"revision: 0040 in the manifest, {migrate.newest_revision()} restored",
        f"accepted touches of the campaign {campaign!r}: 5 in the manifest, 0 restored",
        f"planned touches of the campaign {campaign!r}: 19,995 in the manifest, 20,000 restored",
        "rows of recipient: 20,001 in the manifest, 20,000 restored",
        "suppressions for manual: 2 in the manifest, 0 restored",
    ]


def test_only_the_owner_reads_a_backup_and_tar_extracts_it(engine: sa.Engine, tmp_path: Path) -> None:
    made = back_up(engine, tmp_path)
    assert made.file == tmp_path / "postroad-20261201T023000Z.tar"
    assert [path.name for path in tmp_path.glob("*.tar")] == [made.file.name]
    assert made.file.stat().st_mode & 0o777 == 0o600
    assert made.bytes == made.file.stat().st_size
    with tarfile.open(made.file) as tar:
        members = {info.name: info for info in tar}
        first, _, last = members
        assert (first, last) == ("secret.key", "manifest.json"), "a cut file has no manifest"
        assert {info.mode for info in members.values()} == {0o600}
        key = tar.extractfile("secret.key")
        assert key is not None
        assert key.read() == b"key-one"


def test_a_backup_says_where_its_key_is(sqlite_template: Path, tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'postroad.db')}")
    whole = back_up(engine, tmp_path / "whole.tar")
    assert check(engine, whole.file).key is KeyPlace.BACKUP
    without = back_up(engine, tmp_path / "without.tar", keys=without_key())
    assert b"key-one" not in without.file.read_bytes()
    assert check(engine, without.file, ring=("another", "key-one")).key is KeyPlace.SETTINGS
    assert check(engine, without.file, ring=("another",)).key is KeyPlace.MISSING
    engine.dispose()


def test_a_database_without_tables_is_not_backed_up(empty_database_url: str, tmp_path: Path) -> None:
    engine = open_engine(empty_database_url)
    with pytest.raises(StateError, match="no tables"):
        back_up(engine, tmp_path / "backup.tar")
    engine.dispose()
    assert not list(tmp_path.glob("*.tar"))


def test_a_database_of_an_earlier_revision_is_backed_up(empty_database_url: str, tmp_path: Path) -> None:
    engine = open_engine(empty_database_url)
    with write(engine) as connection:
        migrate.run_migrations(connection, "0019")
    made = back_up(engine, tmp_path / "backup.tar")
    assert made.manifest.revision == "0019"
    assert check(engine, made.file).differences == []
    assert migrate.current_revision(engine) == "0019"
    engine.dispose()

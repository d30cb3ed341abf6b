"""Mail fetched from a Maildir, whatever happens between."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.bounce.intake import Intake
from postroad.bounce.mime import MAX_MESSAGE_BYTES
from postroad.bounce.sources.maildir import Maildir
from postroad.bounce.sources.poll import open_source, poll
from postroad.bounce.sources.source import PollResult
from postroad.clock import SystemClock
from postroad.errors import ConfigError
from postroad.queue import Queue
from postroad.settings import SourceKind, SourceSettings
from postroad.store.engine import read
from tests.bounce import mails
from tests.bounce.test_report_mail import LARGE_MAIL


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("new", "cur", "tmp"):
        (tmp_path / "Maildir" / name).mkdir(parents=True)
    return tmp_path / "Maildir"


@pytest.fixture
def intake(engine: sa.Engine, bounces: Queue) -> Intake:
    return Intake(engine=engine, queue=bounces, clock=SystemClock())


def settings(folder: Path, *, delete: bool = False) -> SourceSettings:
    return SourceSettings(kind=SourceKind.MAILDIR, path=folder, delete=delete)


def deliver(folder: Path, *raws: bytes) -> None:
    for number, raw in enumerate(raws):
        name = f"17000000{number:02}.M{number}P1.mx"
        (folder / "tmp" / name).write_bytes(raw)
        (folder / "tmp" / name).rename(folder / "new" / name)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def stored_mails(engine: sa.Engine) -> list[bytes]:
    with read(engine) as connection:
        return sorted(bytes(raw) for raw in connection.execute(sa.text("SELECT raw FROM bounce_mail")).scalars())


MAILS = [mails.UNKNOWN, mails.FULL, mails.VACATION]


async def test_what_is_taken_in_goes_from_new_to_cur(
    folder: Path, intake: Intake, engine: sa.Engine, bounces: Queue
) -> None:
    deliver(folder, *MAILS)
    (folder / "tmp" / "half").write_bytes(b"not delivered yet")
    assert await poll("box", settings(folder), intake.submit, page=2) == PollResult(source="box", taken=3)
    assert names(folder / "new") == []
    assert names(folder / "cur") == [f"17000000{n:02}.M{n}P1.mx:2,S" for n in range(3)]
    assert [file.read_bytes() for file in sorted((folder / "cur").iterdir())] == MAILS
    assert stored_mails(engine) == sorted(MAILS)
    assert (await bounces.stats()).queued == 3
    assert await poll("box", settings(folder), intake.submit) == PollResult(source="box")


async def test_a_large_report_is_taken_in_whole_and_of_other_large_mail_the_beginning(
    folder: Path, intake: Intake, engine: sa.Engine
) -> None:
    photo = mails.mail("x" * 70 + "\n") + b"y" * MAX_MESSAGE_BYTES
    deliver(folder, LARGE_MAIL, photo)
    assert (await poll("box", settings(folder), intake.submit)).taken == 2
    assert stored_mails(engine) == sorted([LARGE_MAIL, photo[:MAX_MESSAGE_BYTES]])


def test_a_page_ends_early_where_mails_are_large(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(folder, LARGE_MAIL, *MAILS, LARGE_MAIL)
    monkeypatch.setattr("postroad.bounce.sources.maildir.MAX_PAGE_BYTES", MAX_MESSAGE_BYTES)
    source = Maildir(folder)
    pages = [[mail.raw for mail in source.fetch(50)] for _ in range(3)]
    assert pages == [[LARGE_MAIL], [*MAILS, LARGE_MAIL], []]


async def test_it_is_deleted_where_that_is_asked_for(folder: Path, intake: Intake, engine: sa.Engine) -> None:
    deliver(folder, *MAILS)
    await poll("box", settings(folder, delete=True), intake.submit)
    assert names(folder / "new") + names(folder / "cur") == []
    assert stored_mails(engine) == sorted(MAILS)


async def test_killed_before_it_is_put_aside_it_is_known_the_next_time(
    folder: Path, intake: Intake, engine: sa.Engine, bounces: Queue
) -> None:
    deliver(folder, *MAILS)

    class Killed(BaseException):
        pass

    class Forgetful(Maildir):
        def acknowledge(self, keys: Sequence[str]) -> None:
            super().acknowledge(keys[:1])
            raise Killed

    with pytest.raises(Killed):
        await poll("box", settings(folder), intake.submit, open_=lambda _: Forgetful(folder))
    assert (len(names(folder / "new")), len(names(folder / "cur"))) == (2, 1)
    assert await poll("box", settings(folder), intake.submit) == PollResult(source="box", known=2)
    assert stored_mails(engine) == sorted(MAILS)
    assert (await bounces.stats()).queued == 3


async def test_two_passes_at_once_take_each_mail_in_once(folder: Path, intake: Intake, engine: sa.Engine) -> None:
    deliver(folder, *MAILS)
    first, second = open_source(settings(folder)), open_source(settings(folder))
    for source in (first, second):
        taken = source.fetch(2)
        source.acknowledge([mail.key for mail in taken])
    first.acknowledge([names(folder / "cur")[0].partition(":")[0]])  # Another reader has moved it already.
    assert await poll("box", settings(folder), intake.submit, open_=lambda _: first) == PollResult(source="box")
    assert len(names(folder / "cur")) == 3


async def test_an_unreadable_mail_stays_and_blocks_no_other(
    folder: Path, intake: Intake, engine: sa.Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "secret").write_text("of this machine")
    (folder / "new" / "0-link").symlink_to(tmp_path / "secret")
    (folder / "new" / "0-folder").mkdir()
    os.mkfifo(folder / "new" / "0-pipe")
    deliver(folder, *MAILS)
    assert await poll("box", settings(folder), intake.submit) == PollResult(source="box", taken=3, unreadable=3)
    assert names(folder / "new") == ["0-folder", "0-link", "0-pipe"]
    assert stored_mails(engine) == sorted(MAILS)
    assert "0-link" in caplog.text


async def test_a_folder_that_is_none_says_so(tmp_path: Path, intake: Intake) -> None:
    with pytest.raises(ConfigError, match="no Maildir"):
        await poll("box", settings(tmp_path), intake.submit)

"""The log contains every accepted message, before the client gets the reply."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from postroad.errors import DataError
from postroad.sandbox import AcceptedMessage, RulePhase, StorageMode, accepted
from postroad.sandbox.accepted_log import AcceptedLog
from postroad.sandbox.storage import message_id_of
from tests.kit.clock import SleepingClock
from tests.kit.waiting import until
from tests.sandbox.conftest import Bench

FULL = Path("/dev/full")


def entry(number: int) -> AcceptedMessage:
    return AcceptedMessage(
        message_id=f"<{number}@from.test>",
        sender="a@from.test",
        recipient="b@to.test",
        size=number,
        at=datetime(2026, 11, 24, tzinfo=UTC),
        path=None,
    )


async def test_the_log_has_the_line_before_a_delayed_250(bench: Bench, sleeper: SleepingClock) -> None:
    sandbox = await bench.sandbox(clock=sleeper)
    wire = await bench.hello(sandbox)
    assert (await wire.envelope(recipient="b+slow-2000ms@to.test")).startswith("250")
    assert (await wire.ask("DATA")).startswith("354")
    wire.send(b"Message-ID: <early@from.test>\r\n\r\nx\r\n.\r\n")
    await sleeper.asked_for(2.0)
    assert [line.message_id for line in sandbox.accepted()] == ["<early@from.test>"]
    assert wire.reader.at_eof() is False
    wire.send(b"NOOP\r\n")
    sleeper.advance(2000)
    assert (await wire.reply()).startswith("250 2.0.0 Ok: queued as ")


async def test_a_message_is_logged_if_the_client_dies_after_the_dot(bench: Bench, sleeper: SleepingClock) -> None:
    sandbox = await bench.sandbox(clock=sleeper)
    wire = await bench.hello(sandbox)
    assert (await wire.envelope(recipient="b+slow-2000ms@to.test")).startswith("250")
    assert (await wire.ask("DATA")).startswith("354")
    wire.send(b"x\r\n.\r\n")
    await sleeper.asked_for(2.0)
    wire.writer.transport.abort()
    sleeper.advance(2000)
    await until(lambda: sandbox.counters.open_connections == 0)
    assert len(sandbox.accepted()) == 1
    assert sandbox.counters.accepted == 1


@pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")
async def test_no_250_without_a_ledger_line(bench: Bench) -> None:
    bench.directory.mkdir()
    (bench.directory / "accepted.jsonl").symlink_to(FULL)
    sandbox = await bench.sandbox()
    wire = await bench.hello(sandbox)
    assert (await wire.deliver()).startswith("452 4.3.1")
    assert list((sandbox.maildir_path / "new").iterdir()) == []
    assert sandbox.counters.accepted == 0
    assert sandbox.counters.refused[RulePhase.DOT] == 1


@pytest.mark.parametrize(("keep", "file", "line"), [("maildir", 1, 0), ("ledger", 0, 1), ("both", 1, 1)])
async def test_what_is_kept_where_is_a_choice(bench: Bench, keep: str, file: int, line: int) -> None:
    sandbox = await bench.sandbox(keep=StorageMode(keep))
    wire = await bench.hello(sandbox)
    assert (await wire.deliver()).startswith("250")
    new = sandbox.maildir_path / "new"
    assert (len(list(new.iterdir())) if new.exists() else 0) == file
    assert (len(sandbox.accepted()) if sandbox.ledger_path.exists() else 0) == line
    assert sandbox.counters.accepted == 1


async def test_a_second_sandbox_goes_on_with_the_same_folder(bench: Bench, sleeper: SleepingClock) -> None:
    first = await bench.sandbox(clock=sleeper)
    assert (await (await bench.hello(first)).deliver()).startswith("250")
    second = await bench.sandbox(clock=sleeper)
    assert (await (await bench.hello(second)).deliver()).startswith("250")
    assert len(accepted(second.ledger_path)) == 2
    assert len(list((second.maildir_path / "new").iterdir())) == 2


def test_a_partial_line_is_ignored_and_then_removed(tmp_path: Path) -> None:
    path = tmp_path / "accepted.jsonl"
    with AcceptedLog(path) as ledger:
        ledger.append([entry(1), entry(2)])
    whole = path.read_bytes()
    for torn in (b"{", b'{"message_id":"<3@from.test>"', whole.splitlines()[0], b'{"x":"' + b"y" * 200_000):
        path.write_bytes(whole + torn)
        assert accepted(path) == [entry(1), entry(2)]
        with AcceptedLog(path) as ledger:
            ledger.append([entry(3)])
        assert accepted(path) == [entry(1), entry(2), entry(3)]


def test_a_ledger_that_is_one_torn_line_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "accepted.jsonl"
    path.write_bytes(b'{"message_id"')
    assert accepted(path) == []
    with AcceptedLog(path):
        pass
    assert path.read_bytes() == b""


def test_a_whole_line_that_is_no_entry_is_named(tmp_path: Path) -> None:
    path = tmp_path / "accepted.jsonl"
    with AcceptedLog(path) as ledger:
        ledger.append([entry(1)])
    path.write_bytes(path.read_bytes() + b"nonsense\n")
    with pytest.raises(DataError, match=r"accepted\.jsonl:2: The line is not a valid entry"):
        accepted(path)
    with pytest.raises(DataError, match=r"missing\.jsonl: The log of accepted messages cannot be read"):
        accepted(tmp_path / "missing.jsonl")


@pytest.mark.parametrize(
    ("content", "message_id"),
    [
        (b"Message-ID: <1@b>\r\n\r\n", "<1@b>"),
        (b"From: a\r\nmessage-id:<1@b>  \r\nTo: b\r\n\r\n", "<1@b>"),
        (b"Message-ID:\r\n <folded@b>\r\n\r\n", "<folded@b>"),
        (b"Message-ID: <only-headers@b>\r\n", "<only-headers@b>"),
        (b"Subject: none\r\n\r\nMessage-ID: <in-the-body@b>\r\n", None),
        (b"X-Message-ID: <other@b>\r\n\r\n", None),
        (b"", None),
    ],
)
def test_the_message_id_is_read_from_the_headers(content: bytes, message_id: str | None) -> None:
    assert message_id_of(content) == message_id

"""Reports of mailbox providers are parsed strictly, stored once, and used in the next day's decision."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.errors import DataError
from postroad.store.engine import read
from postroad.store.reputation import ReputationDay, ReputationSource, reputation_of
from postroad.warmup.day import close_day
from postroad.warmup.identity import identities, of_sender
from postroad.warmup.reputation import import_file, read_postmaster, read_snds
from postroad.warmup.status import describe_report, markdown, newest, warmup_statuses
from tests.warmup.conftest import SETTINGS, Load, Mail

NOON = datetime(2026, 5, 4, 10, tzinfo=UTC)
DAY, ONE = NOON.date(), timedelta(days=1)
SNDS = (
    "192.0.2.7,5/3/2026 1:00 AM,5/3/2026 11:00 PM,5000,4990,4980,YELLOW,0.2%,"
    '5/3/2026 2:00 AM,5/3/2026 3:00 AM,3,mx,"a, b",\n'
    "192.0.2.8,5/3/2026 1:00 AM,5/3/2026 11:00 PM,10,10,10,GREEN,< 0.1%,,,0,,,\n"
)


def a_file(folder: Path, text: str | bytes) -> Path:
    path = folder / "export.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def kept(engine: sa.Engine, *subjects: str) -> list[tuple[str, date, float | None]]:
    with read(engine) as connection:
        return [(r.subject, r.day, r.spam_rate) for r in reputation_of(connection, subjects, date(2026, 1, 1))]


@pytest.mark.parametrize(
    "text",
    [
        "Date,Domain,User-reported spam rate\n2026-05-03,Example.com,0.25%\n2026-05-04,example.com,\n",
        "\ufeffdomain;date;spam rate (%)\r\nexample.com.;20260503;0.25\r\n",
        'date\tdomain\tuserReportedSpamRatio\tother\n"May 3, 2026"\texample.com\t0.0025\tx\n',
    ],
    ids=["as shown", "bom, semicolons, unit in the name", "as the API names it"],
)
def test_postmaster_exports_with_any_column_names_are_read(tmp_path: Path, text: str) -> None:
    [day] = read_postmaster(a_file(tmp_path, text), None, NOON)
    assert (day.subject, day.day, day.spam_rate, day.provider) == ("example.com", date(2026, 5, 3), 0.0025, "google")


def test_snds_ranges_count_by_their_lower_bound(tmp_path: Path) -> None:
    first, second = read_snds(a_file(tmp_path, SNDS), NOON)
    assert (first.subject, first.day, first.spam_rate) == ("192.0.2.7", date(2026, 5, 3), 0.002)
    assert (first.messages, first.trap_hits, first.verdict, first.provider) == (4_980, 3, "YELLOW", "outlook")
    assert (second.spam_rate, second.verdict) == (0.0, "GREEN")
    descriptions = [describe_report(report) for report in newest([first, second])]
    assert descriptions[0] == "snds on 192.0.2.7, 0.20% spam, 4,980 messages, 3 to traps, YELLOW, 2026-05-03"


def test_the_worst_of_two_periods_of_a_day_is_used(tmp_path: Path) -> None:
    worse = SNDS.replace("192.0.2.8", "192.0.2.7").replace("GREEN,< 0.1%", "RED,0.4% - 0.6%")
    [day] = read_snds(a_file(tmp_path, worse), NOON)
    assert (day.spam_rate, day.messages, day.trap_hits, day.verdict) == (0.004, 4_990, 3, "RED")


GOOD = "Date,Domain,Spam rate\n2026-05-03,example.com,0.1%\n"


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        ("", "", "the file is empty"),
        ("Date,Domain\n", "line 1", "no column for 'Spam rate'"),
        ("Date,Spam rate\n2026-05-03,0.1%\n", "line 1", "not name its domain"),
        (GOOD + "2026-05-04,example.com\n", "line 3", "2 fields where line 1 names 3"),
        (GOOD + "11/12/2026,example.com,0.1%\n", "line 3, field 'Date'", "not a valid day"),
        (GOOD + "2027-05-04,example.com,0.1%\n", "line 3, field 'Date'", "in the future"),
        (GOOD + "2026-05-04,com,0.1%\n", "line 3, field 'Domain'", "not a domain"),
        (GOOD + "2026-05-04,example.com,0.3\n", "line 3, field 'Spam rate'", "may be a percentage"),
        (GOOD + "2026-05-04,example.com,101%\n", "line 3, field 'Spam rate'", "more than 100 %"),
        (GOOD + "2026-05-04,example.com,nan\n", "line 3, field 'Spam rate'", "not a rate"),
        (GOOD + '2026-05-04,"example.com\n', "line 3", "not CSV"),
        (GOOD.encode() + b"2026-05-04,ex\xe9mple.com,0.1%\n", "line 3", "not UTF-8"),
    ],
)
def test_a_fault_is_named_and_nothing_is_imported(
    engine: sa.Engine, tmp_path: Path, text: str | bytes, where: str, says: str
) -> None:
    with pytest.raises(DataError) as raised:
        import_file(engine, ReputationSource.POSTMASTER, a_file(tmp_path, text), domain=None, now=NOON)
    assert says in raised.value.message
    assert str(raised.value.where).endswith(f"export.csv{', ' if where else ''}{where}")
    assert kept(engine, "example.com") == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (("192.0.2.8", "mx.example.com"), ", field 'IP address'"),
        (("5/3/2026 1:00 AM,5/3/2026 11:00 PM,10", "yesterday,,10"), ", field 'activity start'"),
        (("GREEN", "BLUE"), ", field 'filter result'"),
        (("< 0.1%", "few"), ", field 'complaint rate'"),
        (("10,10,10", "10,10,-1"), ", field 'message recipients'"),
        ((",,,0,,,", ""), ""),
    ],
)
def test_a_fault_in_an_snds_file_is_named(tmp_path: Path, change: tuple[str, str], field: str) -> None:
    with pytest.raises(DataError) as raised:
        read_snds(a_file(tmp_path, SNDS.replace(*change)), NOON)
    assert str(raised.value.where).endswith(f"line 2{field}")


def test_a_repeated_import_changes_nothing_a_newer_file_replaces(engine: sa.Engine, tmp_path: Path) -> None:
    def read_in(text: str) -> int:
        return import_file(engine, ReputationSource.POSTMASTER, a_file(tmp_path, text), domain=None, now=NOON).new

    assert [read_in(GOOD), read_in(GOOD), read_in(GOOD.replace("0.1%", "0.2%"))] == [1, 0, 1]
    assert kept(engine, "example.com") == [("example.com", date(2026, 5, 3), 0.002)]


@pytest.mark.parametrize(
    ("rate", "move", "says"),
    [
        ("0.05%", "grow", "delivered"),
        ("0.2%", "slow", "complaints, as the provider reports, are 0.20% (20 of 10,000)"),
        ("0.5%", "pause", "complaints, as the provider reports, are 0.50% (50 of 10,000)"),
    ],
)
def test_the_worse_of_our_count_and_the_providers_decides(
    engine: sa.Engine, load: Load, mail: Mail, tmp_path: Path, rate: str, move: str, says: str
) -> None:
    identity = of_sender(load(SETTINGS + "first = 10000\n"), "news")[0]
    mail.accepted(NOON, 10_000)
    close_day(engine, identity, NOON)
    text = GOOD.replace("2026-05-03", str(DAY)).replace("0.1%", rate)
    import_file(engine, ReputationSource.POSTMASTER, a_file(tmp_path, text), domain=None, now=NOON)
    [row] = close_day(engine, identity, NOON + ONE)
    assert (row.move, says in row.reason) == (move, True), row.reason
    found = warmup_statuses(engine, [identity], NOON + ONE)
    assert f"{float(rate[:-1]):.2f}% on {DAY}" in markdown("news", found)


def test_a_rate_counts_for_its_provider_and_its_names_alone(
    engine: sa.Engine, load: Load, mail: Mail, tmp_path: Path
) -> None:
    identity = of_sender(load(SETTINGS + "first = 10000\n"), "news")[0]
    mail.accepted(NOON, 10_000)
    mail.accepted(NOON, 10_000, domain="yahoo.com")
    close_day(engine, identity, NOON)
    for domain in ("example.com", "other.example.com", "example.org"):
        text = f"Date,Spam rate\n{DAY},{'0' if domain == 'example.com' else '5%'}\n"
        import_file(engine, ReputationSource.POSTMASTER, a_file(tmp_path, text), domain=domain, now=NOON)
    assert {row.provider: row.move for row in close_day(engine, identity, NOON + ONE)} == {
        "google": "grow",
        "yahoo": "grow",
    }


def test_a_sender_is_known_by_its_domains_and_public_addresses(load: Load) -> None:
    text = SETTINGS.replace("news@example.com", "news@a.example.com").replace(
        'route = "relay"', 'route = "relay"\npublic_addresses = ["2001:DB8::0007"]'
    )
    assert {identity.known_as for identity in identities(load(text))} == {
        ("2001:db8::7", "a.example.com", "example.com"),
    }


def test_many_subjects_are_kept_in_one_go(engine: sa.Engine, tmp_path: Path) -> None:
    text = "Date,Domain,Spam rate\n" + "".join(f"2026-05-03,d{n}.example.com,0.1%\n" for n in range(1_201))
    found = import_file(engine, ReputationSource.POSTMASTER, a_file(tmp_path, text), domain=None, now=NOON)
    assert (len(found.days), found.new) == (1_201, 1_201)
    assert import_file(engine, ReputationSource.POSTMASTER, tmp_path / "export.csv", domain=None, now=NOON).new == 0
    assert isinstance(found.days[0], ReputationDay)

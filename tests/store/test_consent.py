"""Consents: recorded once, never changed; the import and the line of a member who was imported."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.campaign.audience import import_file
from postroad.read_model.consents import (
    audience_consents,
    consent_sources,
    members_of_import,
    person_consents,
)
from postroad.read_model.page import Page
from postroad.read_model.people import audience_members, audiences, imports
from postroad.store.consent import NewConsent, record_consents
from postroad.store.consent_page import ConsentRow, ImportedMember
from postroad.store.engine import read, write
from postroad.store.recipient import ImportRef, upsert_recipients
from tests.read_model.world import all_rows
from tests.store.effort import effort_of
from tests.store.large import DUE, series
from tests.store.rows import NOW, add_audience, add_recipient

FORM = "https://example.org/newsletter"
STAND = "trade fair, stand 4"


def consent(address: str, audience: int, *, hour: int = 0, source: str = FORM, **given: str) -> NewConsent:
    return NewConsent(address, "example.org", audience, NOW - timedelta(hours=hour), source, **given)


def consents_of(engine: sa.Engine, address: str) -> list[ConsentRow]:
    def page(after: str | None) -> Page[ConsentRow]:
        with read(engine) as connection:
            found = person_consents(connection, address, after=after, limit=2)
        assert found is not None
        return found.page

    return all_rows(page)


def test_a_consent_is_recorded_once_and_never_changed(engine: sa.Engine) -> None:
    with write(engine) as connection:
        audience = add_audience(connection, name="people")
        add_recipient(connection, "ada@example.org")
        new = [
            consent("ada@example.org", audience, ip="192.0.2.7", wording="Yes, weekly.", confirmation="<1@acme.dev>"),
            consent("ada@example.org", audience, wording="another wording of the same time"),
            consent("bob@example.org", audience),
        ]
        assert record_consents(connection, new, "API key shop", NOW) == 2
        assert record_consents(connection, new, "API key shop", NOW + timedelta(days=1)) == 0
        assert record_consents(connection, [consent("ada@example.org", audience, hour=1)], "ada", NOW) == 1
        assert record_consents(connection, [], "ada", NOW) == 0
    older, first = consents_of(engine, "ada@example.org")
    assert first == ConsentRow(
        number=first.number,
        address="ada@example.org",
        audience="people",
        given_at=NOW,
        source=FORM,
        ip="192.0.2.7",
        wording="Yes, weekly.",
        confirmation="<1@acme.dev>",
        recorded_at=NOW,
        recorded_by="API key shop",
        line=None,
    )
    assert (older.given_at, older.wording, older.recorded_by) == (NOW - timedelta(hours=1), None, "ada")


def test_an_address_that_is_not_known_becomes_a_recipient_in_no_audience(engine: sa.Engine) -> None:
    with write(engine) as connection:
        audience = add_audience(connection, name="people")
        assert record_consents(connection, [consent("new@example.org", audience)], "ada", NOW) == 1
    with read(engine) as connection:
        found = person_consents(connection, "new@example.org")
        assert found is not None
        assert found.memberships == []
        assert [row.members for row in audiences(connection).rows] == [0]
        assert person_consents(connection, "unknown@example.org") is None


def write_csv(path: Path, *addresses: str) -> Path:
    path.write_text("address\n" + "".join(f"{address}\n" for address in addresses), encoding="utf-8")
    return path


def test_the_consent_of_a_member_is_the_line_of_the_first_import(engine: sa.Engine, tmp_path: Path) -> None:
    ada, bob, cem = "ada@example.org", "bob@example.org", "cem@example.org"
    first = write_csv(tmp_path / "first.csv", "nonsense", bob, ada, bob)
    import_file(engine, "people", first, NOW)
    import_file(engine, "people", write_csv(tmp_path / "second.csv", ada, cem), NOW + timedelta(days=1))
    import_file(engine, "others", write_csv(tmp_path / "third.csv", cem, ada), NOW + timedelta(days=2))
    with write(engine) as connection:
        people = {row.name: row.id for row in audiences(connection).rows}
        record_consents(connection, [consent(ada, people["people"])], "shop", NOW)
    found = [(row.audience, Path(row.source).name, row.line, row.given_at) for row in consents_of(engine, ada)]
    assert found == [
        ("people", "newsletter", None, NOW),
        ("people", "first.csv", 4, None),
        ("others", "third.csv", 3, None),
    ]
    imported = consents_of(engine, bob)[0]
    assert (imported.line, imported.recorded_at, imported.source) == (3, NOW, str(first.resolve()))
    assert imported.recorded_by == f"import {imported.import_id}"
    with read(engine) as connection:
        joined = {Path(row.path).name: (row.imported, row.joined) for row in imports(connection, "people").rows}
    assert joined == {"first.csv": (2, 2), "second.csv": (2, 1)}


def test_a_member_whom_a_program_added_has_no_line(engine: sa.Engine) -> None:
    with write(engine) as connection:
        audience = add_audience(connection, name="people")
        import_id = connection.execute(sa.text("SELECT max(id) FROM audience_import")).scalar_one()
        new = [("ada@example.org", "example.org", None, "{}", None)]
        assert upsert_recipients(connection, new, ImportRef(audience, import_id), NOW) == 1
    [row] = consents_of(engine, "ada@example.org")
    assert (row.import_id, row.line, row.given_at) == (import_id, None, None)


def test_a_member_of_before_has_no_evidence(engine: sa.Engine) -> None:
    with write(engine) as connection:
        add_audience(connection, [add_recipient(connection, "ada@example.org")], name="people")
    assert consents_of(engine, "ada@example.org") == []


@pytest.mark.parametrize("delete", [False, True])
def test_numbers_of_imports_and_sources_have_lists_that_sum_to_them(
    engine: sa.Engine, tmp_path: Path, delete: bool
) -> None:
    people = [f"p{number}@example.org" for number in range(12)]
    import_file(engine, "people", write_csv(tmp_path / "first.csv", *people[:7]), NOW)
    import_file(engine, "people", write_csv(tmp_path / "second.csv", *people[3:]), NOW)
    with write(engine) as connection:
        [audience] = [row.id for row in audiences(connection).rows]
        new = [consent(address, audience, source=(FORM, STAND)[n % 3 == 0]) for n, address in enumerate(people)]
        assert record_consents(connection, new, "shop", NOW) == 12
        if delete:
            for table in ("audience_member", "consent"):
                connection.execute(sa.text(f"DELETE FROM {table} WHERE recipient_id % 4 = 0"))
    with read(engine) as connection:
        found = imports(connection, "people").rows
        assert sum(row.joined for row in found) == sum(row.members for row in audiences(connection).rows)
        for row in found:
            members = joined_by(connection, row.id)
            assert len(members) == row.joined > 0
            assert all(member.line is not None and member.line > 1 for member in members)
        sources = all_rows(lambda after: consent_sources(connection, "people", after=after, limit=1))
        assert {row.source for row in sources} == {FORM, STAND}
        for source in sources:
            assert len(consents_from(connection, source.source)) == source.consents > 0
        assert (
            len(consents_from(connection, None)) == sum(source.consents for source in sources) == (9 if delete else 12)
        )


def joined_by(connection: sa.Connection, import_id: int) -> list[ImportedMember]:
    return all_rows(lambda after: members_of_import(connection, "people", import_id, after=after, limit=2))


def consents_from(connection: sa.Connection, source: str | None) -> list[ConsentRow]:
    return all_rows(lambda after: audience_consents(connection, "people", source, after=after, limit=2))


def test_reads_cost_the_same_among_more_consents(engine: sa.Engine) -> None:
    efforts = []
    with write(engine) as connection:
        audience = add_audience(connection, name="people")
    for first, last in ((1, 2_000), (2_001, 20_000)):
        with write(engine) as connection:
            of_series = series(connection, first, last)
            connection.execute(
                sa.text(
                    "INSERT INTO recipient (id, address, domain, attributes, created_at) "
                    f"SELECT n, 'p' || n || '@example.com', 'example.com', '{{}}', '{DUE}' FROM {of_series}"
                )
            )
            connection.execute(
                sa.text(
                    "INSERT INTO audience_member (audience_id, recipient_id, import_id, joined_import_id, joined_line) "
                    f"SELECT {audience}, n, 1, 1, n FROM {of_series}"
                )
            )
            connection.execute(
                sa.text(
                    "INSERT INTO consent (recipient_id, audience_id, given_at, source, recorded_at, recorded_by) "
                    f"SELECT n, {audience}, '{DUE}', '{FORM}?' || (n % 3), '{DUE}', 'test' FROM {of_series}"
                )
            )
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("ANALYZE"))
        with read(engine) as connection, effort_of(connection) as effort:
            page = audience_consents(connection, "people", f"{FORM}?1")
            assert len(audience_consents(connection, "people", f"{FORM}?1", after=page.next).rows) == 50
            assert len(audience_consents(connection, "people").rows) == 50
            assert sum(row.consents for row in consent_sources(connection, "people").rows) == last
            joined = members_of_import(connection, "people", 1)
            assert len(members_of_import(connection, "people", 1, after=joined.next).rows) == 50
            assert [row.joined for row in imports(connection, "people").rows] == [last]
            assert len(audience_members(connection, "people").rows) == 50
            found = person_consents(connection, "p1500@example.com")
            assert found is not None
            assert len(found.page.rows) == 2
        efforts.append(effort.count)
    assert efforts[1] <= max(1.3 * efforts[0], efforts[0] + 150)

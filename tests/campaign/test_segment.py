"""Campaigns to a segment: apply, launch, forecast and preflight on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.campaign.audience import import_file, refusals
from postroad.campaign.launch_forecast import forecast
from postroad.campaign.plan import launch
from postroad.campaign.preflight import Level, PreflightReport, check
from postroad.campaign.segment import Segment, count_segment, segment_pages
from postroad.errors import ConfigError, StateError
from postroad.segment.tree import from_json
from postroad.store.campaign import CampaignState, find_campaign
from postroad.store.engine import read, write
from postroad.store.recipient_event import NewEvent, record_events
from postroad.store.suppression import SuppressionReason, suppress
from postroad.store.touches.planning import plan_touches
from tests.campaign.checking import SIGNER
from tests.campaign.project import CAMPAIGN, CONFIG, NOW, CampaignProject

TYPED = CONFIG + '\n[audiences.people.fields]\nseats = "number"\ntrial_ends = "date"\nnews = "yes/no"\n'
ROWS = (
    "ada@example.com,trial,5,2026-05-10,yes,DE",
    "bob@example.org,trial,4,2026-06-10,no,AT",
    "eve@example.net,free,50,,,DE",
    "joe@example.com,trial,,2026-05-01,yes,",
)
HEADER = "email,plan,seats,trial_ends,news,country"


def where(condition: str) -> str:
    quoted = condition.replace('"', '\\"')
    return CAMPAIGN.replace("  name: people\n", f'  name: people\n  where: "{quoted}"\n')


@pytest.fixture
def people(project: CampaignProject) -> CampaignProject:
    project.configure(TYPED)
    project.fill(ROWS, header=HEADER)
    return project


def frozen(project: CampaignProject, condition: str) -> list[str]:
    project.apply(where(condition))
    launch(project.engine, "spring", NOW)
    return [address for _, address, *_ in project.touches()]


def preflight(project: CampaignProject, file: Path | None = None) -> PreflightReport:
    return check(project.engine, project.settings, SIGNER, "spring", file=file, now=NOW)


@pytest.mark.parametrize(
    ("condition", "addresses"),
    [
        ("plan = 'trial' and seats >= 5", ["ada@example.com"]),
        ("trial_ends - 7d < now()", ["ada@example.com", "joe@example.com"]),
        ("news", ["ada@example.com", "joe@example.com"]),
        ("not news", ["bob@example.org", "eve@example.net"]),
        ("seats != 4", ["ada@example.com", "eve@example.net"]),
        ("not (seats = 4)", ["ada@example.com", "eve@example.net", "joe@example.com"]),
        ("country not in ('AT')", ["ada@example.com", "eve@example.net"]),
        ("domain() = 'example.com' and address not like 'j%'", ["ada@example.com"]),
    ],
)
def test_a_launch_freezes_who_meets_the_condition(
    people: CampaignProject, condition: str, addresses: list[str]
) -> None:
    people.apply(where(condition))
    assert forecast(people.engine, "spring", NOW).recipients == len(addresses)
    assert preflight(people).recipients == len(addresses)
    result = launch(people.engine, "spring", NOW)
    assert (result.audience, result.already) == (len(addresses), False)
    assert [address for _, address, *_ in people.touches()] == addresses


def test_the_condition_is_stored_as_a_tree_with_its_text(people: CampaignProject) -> None:
    people.apply(where("seats >= 5"))
    with read(people.engine) as connection:
        stored = find_campaign(connection, "spring").segment
    assert stored is not None
    assert from_json(stored).text == "seats >= 5"
    people.apply(CAMPAIGN)
    with read(people.engine) as connection:
        assert find_campaign(connection, "spring").segment is None


def test_pages_without_a_match_are_passed_over_and_a_launch_resumes(
    project: CampaignProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.fill([f"r{n:04}@example.com,{'yes' if n % 700 == 650 else ''}" for n in range(2_000)], header="email,vip")
    project.apply(where("vip = 'yes'"))
    calls = 0

    def fail_second(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return plan_touches(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("postroad.campaign.plan.plan_touches", fail_second)
    with pytest.raises(KeyboardInterrupt):
        launch(project.engine, "spring", NOW)
    assert launch(project.engine, "spring", NOW + timedelta(days=1)).audience == 2
    assert [address for _, address, *_ in project.touches()] == ["r0650@example.com", "r1350@example.com"]


def test_an_empty_segment_is_refused_and_the_campaign_stays_a_draft(people: CampaignProject) -> None:
    people.apply(where("plan = 'gold'"))
    with pytest.raises(StateError, match="no member of the audience of campaign spring meets its condition: plan"):
        launch(people.engine, "spring", NOW)
    with read(people.engine) as connection:
        campaign = find_campaign(connection, "spring")
    assert (campaign.state, campaign.freezing_at) == (CampaignState.DRAFT, None)
    report = preflight(people)
    assert not report.ok
    assert "none of the 4 members of its audience meets the condition" in report.findings[0].what
    assert frozen(people, "plan = 'free'") == ["eve@example.net"]


def test_the_condition_of_a_launched_campaign_cannot_change(people: CampaignProject) -> None:
    frozen(people, "plan = 'trial'")
    people.apply(where("plan = 'trial'"))
    with pytest.raises(StateError, match=r"its audience\.where cannot change"):
        people.apply(where("plan = 'free'"))
    with pytest.raises(StateError, match=r"its audience\.where cannot change"):
        people.apply(CAMPAIGN)


@pytest.mark.parametrize(
    ("line", "at", "message"),
    [
        ("""where: "plan = 'trial' and sets >= 5\"""", "sets", "no field 'sets'"),
        ("where: plan = 'trial' and seats >= '5'", "'5'", "a number is expected"),
        ("where: 'plan = ''trial'' and sets >= 5'", "sets", "no field 'sets'"),
        ('where: "plan = \\"a\\" and x"', '"a\\"', "no field 'a'"),
        ("where: >\n    plan = 'trial'\n    and sets >= 5", "sets", "no field 'sets'"),
        ("where: |\n    plan = 'trial'\n    and\n    sets >= 5", "sets", "no field 'sets'"),
        ("where: plan = 'trial'\n    and sets >= 5", "sets", "no field 'sets'"),
        ("""where: "clicked('hello')\"""", "clicked", "links are not counted per recipient"),
        ("""where: "accepted('hello')\"""", "'hello'", "names a step"),
        ("""where: "in_audience('nowhere')\"""", "'nowhere'", "no audience named 'nowhere'"),
        ("""where: "plan = 'trial\"""", "'trial", "quote is not closed"),
        ("""where: "seats >= 5 and\"""", "and", "after 'and'"),
        ("""where: "(select 1)\"""", "1)", "expected"),
    ],
)
def test_a_condition_that_cannot_be_used_is_refused_with_file_line_and_column(
    people: CampaignProject, line: str, at: str, message: str
) -> None:
    text = CAMPAIGN.replace("  name: people\n", f"  name: people\n  {line}\n")
    before = text[: text.index(line) + line.index(at)]
    place = f"line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"
    with pytest.raises(ConfigError) as caught:
        people.apply(text)
    assert caught.value.where == f"{people.folder / 'campaign.yaml'}, {place}, audience.where"
    assert message in str(caught.value)


@pytest.mark.parametrize("line", ['where: ""', "where: [a]", "where: {a: b}", 'where: "  "'])
def test_a_condition_that_is_no_text_is_refused(people: CampaignProject, line: str) -> None:
    with pytest.raises(ConfigError, match="line 6"):
        people.apply(CAMPAIGN.replace("  name: people\n", f"  name: people\n  {line}\n"))


def test_a_field_is_known_by_its_declaration_its_recipients_or_the_file(project: CampaignProject) -> None:
    with pytest.raises(ConfigError, match=r"declared in \[audiences\.people\.fields\]"):
        project.apply(where("plan = 'trial'"))
    with_file = where("plan = 'trial'").replace("  name: people\n", "  name: people\n  file: people.csv\n")
    (project.folder / "people.csv").write_text("email,Plan\nada@example.com,trial\n")
    project.apply(with_file)
    project.configure(CONFIG + '\n[audiences.people.fields]\nlevel = "number"\n')
    project.apply(where("level > 3"))
    project.fill(["ada@example.com,x"], header="email,city")
    project.apply(where("city = 'x'"))


def test_preflight_tells_how_many_lack_each_field(people: CampaignProject) -> None:
    people.apply(where("seats >= 4 and country = 'DE' and plan = 'trial'"))
    findings = [finding for finding in preflight(people).findings if finding.code == "segment.missing"]
    found = [(finding.level, finding.recipients, finding.what) for finding in findings]
    assert [(level, recipients) for level, recipients, _ in found] == [(Level.WARN, 1), (Level.WARN, 1)]
    assert "1 of 4 members of the audience has no number value in the field seats" in found[0][2]
    assert "no value in the field country" in found[1][2]


def test_only_messages_of_the_segment_are_tried(people: CampaignProject) -> None:
    people.template("hello.txt", "{{ country }} {{ postal_address }} {{ unsubscribe_url }}")
    people.apply(where("country is not null"))
    assert preflight(people).ok
    people.apply(where("plan = 'trial'"))
    assert [finding.recipients for finding in preflight(people).findings if finding.level is Level.FAIL] == [1]


def test_suppressed_members_are_counted_apart(people: CampaignProject) -> None:
    with write(people.engine) as connection:
        suppress(connection, ["ada@example.com", "@example.org"], SuppressionReason.MANUAL, "test", NOW)
    campaign = people.apply(where("plan = 'trial'"))
    count = count_segment(people.engine, Segment.of(campaign, NOW))
    assert (count.members, count.matching, count.suppressed, dict(count.missing)) == (4, 3, 2, {"plan": 0})
    seen = forecast(people.engine, "spring", NOW)
    assert (seen.recipients, seen.suppressed) == (1, 2)


def test_a_file_that_is_imported_first_counts_as_it_will_be(people: CampaignProject) -> None:
    file = people.folder / "news.csv"
    file.write_text(
        "email,plan,seats\nada@example.com,free,\nnew@example.com,trial,7\nbad@example.com,trial,many\n"
        "eve@example.net,trial,\nlow@example.com,trial,1\n"
    )
    people.apply(where("plan = 'trial' and seats >= 5"))
    report = preflight(people, file)
    seen = forecast(people.engine, "spring", NOW, report.file)
    assert (report.recipients, seen.recipients) == (2, 2)  # eve and new; ada has become free
    assert any("1 of 5 rows" in finding.what for finding in report.findings)
    done = import_file(people.engine, "people", file, NOW, types=people.settings.field_types("people"))
    assert (done.imported, done.refused) == (4, 1)
    assert forecast(people.engine, "spring", NOW).recipients == 2
    launch(people.engine, "spring", NOW)
    assert [address for _, address, *_ in people.touches()] == ["eve@example.net", "new@example.com"]


def test_events_of_known_recipients_count_in_a_file(people: CampaignProject) -> None:
    with write(people.engine) as connection:
        record_events(connection, [NewEvent("ada@example.com", "paid", NOW)])
    people.apply(where("event('paid') and joined(1d)"))
    file = people.folder / "same.csv"
    file.write_text("email,plan\nada@example.com,trial\nnew@example.com,trial\n")
    report = preflight(people, file)
    assert forecast(people.engine, "spring", NOW, report.file).recipients == report.recipients == 1


def test_a_value_of_another_type_refuses_its_row(people: CampaignProject) -> None:
    file = people.folder / "wrong.csv"
    file.write_text(
        "email,seats,trial_ends,news\na@example.com,5 seats,,\nb@example.com,,31.12.2026,\nc@example.com,,,maybe\n"
        "d@example.com,,,\ne@example.com,NaN,,\nf@example.com, 5.5 ,2026-12-31T10:00+02:00,NO\n"
    )
    done = import_file(people.engine, "people", file, NOW, types=people.settings.field_types("people"))
    assert (done.imported, done.refused) == (2, 4)
    assert [(row.line, row.field, row.value) for row in refusals(people.engine, done.import_id, 10)] == [
        (2, "seats", "5 seats"),
        (3, "trial_ends", "31.12.2026"),
        (4, "news", "maybe"),
        (6, "seats", "NaN"),
    ]
    assert refusals(people.engine, done.import_id, 1)[0].reason.startswith("it is not a number, as in 1250")


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        ('"First Name" = "text"', "write first_name"),
        ('address = "text"', "its type is known"),
        ('seats = "integer"', "seats"),
        ('"1st" = "text"', "is not the name of a merge field"),
    ],
)
def test_a_declaration_that_cannot_be_used_is_refused(project: CampaignProject, declaration: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        project.configure(f"{CONFIG}\n[audiences.people.fields]\n{declaration}\n")


def test_a_page_reads_members_by_the_key(project: CampaignProject) -> None:
    from tests.store.effort import effort_of

    project.fill([f"r{n:05}@example.com,{n}" for n in range(6_000)], header="email,n")
    campaign = project.apply(where("number(n) >= 0"))
    segment = Segment.of(campaign, NOW)
    assert sum(len(page) for page in segment_pages(project.engine, segment)) == 6_000
    with read(project.engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT 1"))
        with effort_of(connection) as one:
            segment.meeting(connection, [1, 2, 3])
        with effort_of(connection) as last:
            segment.meeting(connection, [5_990, 5_991, 5_992])
    assert last.count <= one.count * 2 + 1_000


def test_a_journey_enrols_who_meets_the_condition(people: CampaignProject) -> None:
    people.apply(where("plan = 'trial'").replace("steps:\n", "goal: number(seats) > 100\nsteps:\n"))
    assert forecast(people.engine, "spring", NOW).recipients == 3
    assert launch(people.engine, "spring", NOW).audience == 3
    assert [address for _, address, *_ in people.touches()] == ["ada@example.com", "bob@example.org", "joe@example.com"]
